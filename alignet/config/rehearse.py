"""How `rehearse` makes a configuration small: conf's section `rehearse`; its values are in conf/rehearse.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least


@dataclass(frozen=True)
class RehearseSettings:
    """What a rehearsal reads, and where it works; never part of an artifact's identity."""

    data: Literal["drawn", "slice"]
    models: bool  # the real weights and image sizes, not random ones
    folder: str
    classes: int  # of a slice: of each set of images
    images: int  # of a slice: of each class
    rows: int  # of a slice: of each set of choices
    seed: int
    active: bool  # set by the stage itself: nodes of a rehearsal are no real ones

    def __post_init__(self) -> None:
        at_least("rehearse", 1, classes=self.classes, images=self.images, rows=self.rows)
        at_least("rehearse", 0, seed=self.seed)
