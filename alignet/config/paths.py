"""Where things are on this machine: conf's section `paths`. Never part of an artifact's identity.

The pipeline reads it, to find the store and the data from outside; so do `compare` and `doctor`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PathsSettings:
    """Where things are on this machine; never part of an artifact's identity."""

    artifacts: str
    photos: str | None
    images: str | None
    check: str | None
    map: str | None
    dataset: str | None
    people: str | None
    classes: str | None
    generalise: str
    judged: str
    things: str
    imagenet: str
    imagenet_val: str
    levels: str
    maps: str
    clickme: str
    wordnet: str
