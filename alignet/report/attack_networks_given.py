"""What `stages.robustness` attacked, and in which unit its networks are compared: for its page, figures, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignet.evaluate.result import Result
from alignet.report.attack import MAIN, nodes_of
from alignet.report.attack_figures import NORMS, PIXELS


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


@dataclass(frozen=True)
class Measure:
    """In which unit tolerances of networks are compared.

    metric: `tolerance`, the norm, or `tolerance_rms`, the change of a pixel value, where resolutions differ. unit: of
    what is printed, which is `scale` times the metric. norm: l2 | linf. high: the largest norm searched. differ:
    whether networks see different resolutions.
    """

    metric: str
    unit: str
    scale: float
    norm: str
    high: float
    differ: bool

    @property
    def short(self) -> str:
        """What is measured, in few words."""
        return f"tolerance ({self.norm_title})" if self.metric == "tolerance" else "RMS pixel change"

    @property
    def title(self) -> str:
        """What is measured, with its unit."""
        return f"tolerance ({self.unit})" if self.metric == "tolerance" else f"RMS pixel change ({self.unit})"

    @property
    def norm_title(self) -> str:
        """The norm as text."""
        return NORMS[self.norm]


def measure(given: Given, networks: Mapping[str, Result]) -> Measure:
    """The norm where networks see images at one resolution or the norm is l-inf, else the change of a pixel value."""
    every = [nodes_of(result.tables["attacks"])[MAIN] for result in networks.values()]
    norm, high = str(every[0]["norm"]), float(every[0]["high"])
    differ = len({(one["height"], one["width"]) for one in every}) > 1
    if differ and norm == "l2":
        return Measure("tolerance_rms", "1/255", 255, norm, high, differ)
    return Measure("tolerance", f"{NORMS[norm]}, {PIXELS}", 1, norm, high, differ)


def tolerances(networks: Mapping[str, Result], how: Measure) -> dict[str, dict[str, float]]:
    """Network -> image -> tolerance in the measure's unit, as printed, of the images that count.

    All are cut off at the least of the networks' largest norms, so that an unbroken image counts the same everywhere.
    """
    found, most = {}, []
    for name, result in networks.items():
        node = nodes_of(result.tables["attacks"])[MAIN]
        values = 3 * node["height"] * node["width"]
        factor = how.scale if how.metric == "tolerance" else how.scale / np.sqrt(values)
        table = result.tables["images"]
        norms = np.asarray(table["norm"], dtype=np.float64) * factor
        found[name] = {
            str(one): float(value)
            for one, value in zip(table["id"], norms, strict=True)
            if np.isfinite(value)
        }
        most.append(node["high"] * factor)
    return {
        name: {one: min(value, min(most)) for one, value in values.items()} for name, values in found.items()
    }


def alignments(networks: Mapping[str, Result], given: Given) -> dict[str, dict[str, float]]:
    """Network -> image -> Spearman's correlation of the perturbation and people's map, of images that have one."""
    column = str(given.options["reduction"])
    return {
        name: {
            str(one): float(value)
            for one, value in zip(result.tables["images"]["id"], result.tables["images"][column], strict=True)
            if np.isfinite(value)
        }
        for name, result in networks.items()
    }
