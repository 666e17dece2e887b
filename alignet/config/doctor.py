"""How closely `doctor` looks: conf's section `doctor`, read by the stages `doctor` and `plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least, positive


@dataclass(frozen=True)
class DoctorSettings:
    """How closely `doctor` looks; never part of an artifact's identity."""

    images: int | Literal["all"]  # images of each set that are decoded
    seconds: float  # about how long one measurement may take
    seed: int  # of what is drawn for a check
    assume: Mapping[
        str, int
    ]  # set -> its images or rows (features: columns), where it is not on this machine

    def __post_init__(self) -> None:
        positive("doctor", seconds=self.seconds)
        at_least("doctor", 0, images=0 if self.images == "all" else self.images, seed=self.seed)
