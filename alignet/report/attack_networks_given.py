"""What `stages.robustness` attacked, for its page, figures and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Given:
    """What was attacked, and how.

    images, maps: names of the folder and of the file, "" without maps. count: of images. common: how many of them
    count because all networks name them right; None where each network's own count. attacked: how many of each network.
    details: of each network what it is: title of a column -> text. groups: name -> networks. guessed: whether groups
    are what networks seem to be. methods: name -> settings, the first one that of the scores. total: of the images from
    which `count` were drawn. left_out: networks, and their further methods without an image that counts.
    """

    images: str
    maps: str
    count: int
    common: int | None
    attacked: Mapping[str, int]
    details: Mapping[str, Mapping[str, str]]
    total: int = 0
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    any_answer: bool = False
    arrows: Sequence[tuple[str, str]] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    guessed: bool = True
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def kind(self, network: str) -> str:
        """The group of a network; "" for none."""
        return next((name for name, members in self.groups.items() if network in members), "")
