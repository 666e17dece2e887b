"""Attacks image by image: which nodes there are, norms as they compare between networks, and places beside people's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from alignet.evaluate.result import Result
from alignet.report.attack_figures import NORMS, comparable, resolutions
from alignet.report.dataset_results import Gathered, Row

MAIN = "attack"  # the node whose scores have no name before them

Key = TypeVar("Key")  # a row, or the name of a network
Values = Mapping[str, float]  # image -> value


@dataclass(frozen=True)
class Measure:
    """In which unit tolerances of networks are compared.

    metric: `tolerance`, the norm, or `tolerance_rms`, the change of a pixel value, where resolutions differ. title: of
    what is printed, which is `scale` times the metric, with its unit. unit: as captions have it. norm: l2 | linf. high:
    the largest norm searched. differ: whether networks see different resolutions.
    """

    metric: str
    title: str
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
    def norm_title(self) -> str:
        """The norm as text."""
        return NORMS[self.norm]


def measure(results: Mapping[Key, Result]) -> Measure:
    """The norm where networks see images at one resolution or the norm is l-inf, else the change of a pixel value."""
    rows = {Row(str(place), ""): result for place, result in enumerate(results.values())}
    gathered = Gathered("", "attack", {}, rows)
    first = nodes_of(next(iter(results.values())).tables["attacks"])[MAIN]
    return Measure(
        *comparable(gathered), str(first["norm"]), float(first["high"]), len(resolutions(gathered)) > 1
    )


def nodes_of(table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A table `attacks` of the family by node: norm, high, height and width, and counts of images as int."""
    return {
        str(node): {
            name: (str(values[row]) if name == "norm" else float(values[row]) if name == "high" else int(values[row]))
            for name, values in table.items() if name != "node"
        }
        for row, node in enumerate(table["node"])
    }  # fmt: skip


def tolerances(
    results: Mapping[Key, Result], metric: str = "tolerance", scale: float = 1.0
) -> dict[Key, dict[str, float]]:
    """Row -> image -> tolerance, times `scale`, of the images that were attacked. metric: as of a Measure.

    All are cut off at the least of the rows' largest norms, so that an unbroken image counts the same everywhere.
    """
    found, most = {}, []
    for row, result in results.items():
        node = nodes_of(result.tables["attacks"])[MAIN]
        sides = 1.0 if metric == "tolerance" else np.sqrt(3 * node["height"] * node["width"])
        factor, table = scale / sides, result.tables["images"]
        found[row] = finite_values(table["id"], np.asarray(table["norm"], dtype=np.float64) * factor)
        most.append(node["high"] * factor)
    return {
        row: {name: min(value, min(most)) for name, value in values.items()} for row, values in found.items()
    }


def alignments(results: Mapping[Key, Result], reduction: str) -> dict[Key, dict[str, float]]:
    """Row -> image -> Spearman's correlation of the perturbation and people's map, of images that have one."""
    tables = {row: result.tables["images"] for row, result in results.items()}
    return {row: finite_values(table["id"], table[reduction]) for row, table in tables.items()}


def finite_values(names: Sequence[Any] | np.ndarray, values: Sequence[Any] | np.ndarray) -> dict[str, float]:
    """Image -> value, of those that are finite."""
    numbers = np.asarray(values, dtype=np.float64)
    return {str(name): float(value) for name, value in zip(names, numbers, strict=True) if np.isfinite(value)}
