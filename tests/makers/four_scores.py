"""Results of the families of four systems with planted values, as a page gathers them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.dataset_results import Gathered, Row

FAMILIES = {  # metric -> family, data set
    "odd_one_out": ("odd_one_out", "all"), "rsa_spearman": ("rsa", "similarity"), "where": ("where", "where"),
    "masked_area": ("masking", "masking"), "tolerance": ("attack", "attack"), "attack_alignment": ("attack", "attack"),
    "two": ("invariance", "invariance"), "match": ("invariance", "invariance"),
    "linear_probe": ("linear_probe", "fine"),
}  # fmt: skip
OPTIONS: dict[str, Mapping[str, Any]] = {"where": {"reductions": ["max"]}, "attack": {"reduction": "mean"}}


def score(
    metric: str, value: float, half: float | None = 0.01, n: int = 100, chance: float | None = None
) -> Score:
    """A score whose interval reaches `half` to both sides; none without."""
    low, high = (None, None) if half is None else (value - half, value + half)
    return Score(metric, FAMILIES[metric][1], value, low, high, n, "images", "images", chance)


def gathered(
    values: Mapping[str, Mapping[str, float]],
    half: float | None = 0.01,
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> list[Gathered]:
    """values: metric -> setting -> value, NaN for a row that was evaluated and has none; of models other than the
    student as `model setting`. tables: family -> setting -> tables."""
    found: dict[tuple[str, str], dict[Row, list[Score]]] = {}
    for metric, rows in values.items():
        for name, value in rows.items():
            model, _, setting = name.rpartition(" ")
            row = Row(model or "student", setting)
            mine = found.setdefault(FAMILIES[metric], {}).setdefault(row, [])
            mine += [] if math.isnan(value) else [score(metric, value, half)]
    return [
        Gathered(dataset, family, OPTIONS.get(family, {}), {
            row: Result(scores, (tables or {}).get(family, {}).get(row.setting, {})) for row, scores in rows.items()
        })
        for (family, dataset), rows in found.items()
    ]  # fmt: skip


def alike(
    metrics: Sequence[str], rows: Sequence[str], order: Sequence[Sequence[float]]
) -> dict[str, dict[str, float]]:
    """metric -> row -> value, from a list of values for each metric."""
    return {
        metric: dict(zip(rows, map(float, values), strict=True))
        for metric, values in zip(metrics, order, strict=True)
    }


def iri_table(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """A table `images` of the family invariance: image -> 2AFC of each of its IRIs."""
    return {
        "id": [name for name, own in values.items() for _ in own],
        "two_mean": np.array([one for own in values.values() for one in own]),
    }
