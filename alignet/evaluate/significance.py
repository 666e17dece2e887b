"""Tests between methods over data sets (the paper's sections 2.4 and B.2.3): is a difference more than chance?

Cells are accuracies by (model, data set), one mapping for each method.
Shape suffixes: n data sets (the units), m models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

EXACT = 20  # so many units at most have all their sign-flips counted: 2^20 = 1,048,576
Cells = Mapping[tuple[str, str], float]  # (model, data set) -> score


@dataclass(frozen=True)
class Effect:
    """One row of an analysis of variance."""

    name: str
    F: float
    effect_df: float
    error_df: float
    epsilon: (
        float  # Greenhouse and Geisser's: 1 where the levels' differences vary alike, or there are two levels
    )
    p: float  # of F, both degrees of freedom times epsilon


@dataclass(frozen=True)
class Improvement:
    """What became of all cells of one method in another."""

    difference: float  # mean over cells, after minus before
    p: float  # permutation test over units, two-sided
    exact: bool  # whether all sign-flips were counted
    wilcoxon: float | None  # p of the signed-rank test over cells; None where no cell changed
    cells: int
    datasets: int
    units: int  # of the permutation test: data sets, those with the same images together
    up: int
    down: int


def anova(methods: Mapping[str, Cells]) -> list[Effect]:
    """Repeated-measures analysis of variance: data sets are the subjects, method and model what is within them.

    Effects of the method, and with several models of the model and of both together, by statsmodels' AnovaRM; p is
    corrected for unequal variances of the differences by Greenhouse and Geisser's epsilon. Every method needs every
    model on every data set; ValueError names what is missing, or an effect that is the same on every data set, which
    leaves no error to test it against.
    """
    import pandas as pd
    from scipy.stats import f
    from statsmodels.stats.anova import AnovaRM

    models, datasets = _complete(methods)
    rows = [
        (dataset, model, method, float(cells[model, dataset]))
        for dataset in datasets
        for method, cells in methods.items()
        for model in models
    ]
    frame = pd.DataFrame(rows, columns=["dataset", "model", "method", "score"])
    scores = frame["score"].to_numpy().reshape(len(datasets), len(methods), len(models))
    epsilon = {
        name: _epsilon(name, contrast, np.abs(scores).max()) for name, contrast in _contrasts(scores).items()
    }
    within = ["method", "model"] if len(models) > 1 else ["method"]
    table = AnovaRM(frame, "score", "dataset", within=within).fit().anova_table
    columns = [table[name].to_list() for name in ("F Value", "Num DF", "Den DF")]
    found = []
    for name, value, effect_df, error_df in zip(table.index, *columns, strict=True):
        own = epsilon[str(name)]
        p = float(f.sf(value, own * effect_df, own * error_df))
        found.append(Effect(str(name), float(value), float(effect_df), float(error_df), own, p))
    return found


def _contrasts(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Each effect's own part of scores (n, methods, models): (n, its degrees of freedom) on orthonormal contrasts."""
    methods, models = (_orthonormal(size) for size in scores.shape[1:])
    found = {"method": scores.mean(2) @ methods}
    if scores.shape[2] > 1:
        found["model"] = scores.mean(1) @ models
        found["method:model"] = np.einsum("nab,ac,bd->ncd", scores, methods, models).reshape(len(scores), -1)
    return found


def _orthonormal(size: int) -> np.ndarray:
    """Orthonormal columns (size, size - 1) that sum to 0."""
    return np.linalg.qr(np.column_stack([np.ones(size), np.eye(size)[:, 1:]]))[0][:, 1:]


def _epsilon(name: str, contrast: np.ndarray, scale: float) -> float:
    """Greenhouse and Geisser's epsilon of an effect's contrasts (n, df), within [1 / df, 1]."""
    if np.ptp(contrast, axis=0).max() <= 1e-12 * scale:
        raise ValueError(
            f"analysis of variance: expected an effect of {name} that varies over data sets, found the same on all of "
            "them; there is no error to test it against."
        )
    covariance = np.atleast_2d(np.cov(contrast, rowvar=False))
    return float(np.trace(covariance) ** 2 / (len(covariance) * (covariance**2).sum()))


def paired_permutation(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, *, seed: int, draws: int = 100_000
) -> tuple[float, bool]:
    """Two-sided p of the mean difference of paired a and b (n,), flipping signs; and whether it is exact.

    Up to EXACT pairs all 2^n sign-flips are counted, the observed one among them; for more, `draws` random ones,
    and p = (1 + hits) / (1 + draws). Equality counts as a hit, up to rounding.
    """
    difference = np.asarray(b, dtype=np.float64) - np.asarray(a, dtype=np.float64)
    if difference.ndim != 1 or len(difference) == 0 or not np.isfinite(difference).all():
        raise ValueError(
            f"paired permutation: expected finite pairs (n,), found {difference.shape} with {difference}"
        )
    observed = abs(difference.sum())
    slack = 1e-12 * max(np.abs(difference).sum(), 1e-300)
    if len(difference) <= EXACT:
        sums = np.zeros(1)
        for value in difference:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= observed - slack).mean()), True
    generator = np.random.default_rng(seed)
    hits = 0
    for _ in range(draws):
        signs = 2 * generator.integers(2, size=len(difference)) - 1
        hits += abs(signs @ difference) >= observed - slack
    return (1 + int(hits)) / (1 + draws), False


def improvement(
    before: Cells,
    after: Cells,
    *,
    units: Mapping[str, str] | None = None,
    seed: int = 0,
    draws: int = 100_000,
) -> Improvement:
    """All model x data set cells tested as one: how much better is `after`, and may that be chance?

    units: data set -> what its images come from; without, or where it does not say, each data set is a unit. The
    permutation test flips units, all cells of one together: models and tasks on the same images share their difficulty
    and are no independent witnesses. The signed-rank test beside it treats cells as independent, which
    flatters it. Both methods need the same cells; a data set may lack some models.
    """
    from scipy.stats import wilcoxon

    _same_cells(before, after)
    changes = {key: float(after[key]) - float(before[key]) for key in before}
    datasets = sorted({dataset for _, dataset in changes})
    totals: dict[str, float] = {}
    for (_, dataset), value in changes.items():
        unit = (units or {}).get(dataset, dataset)
        totals[unit] = totals.get(unit, 0.0) + value
    p, exact = paired_permutation(np.zeros(len(totals)), list(totals.values()), seed=seed, draws=draws)
    values = np.array(list(changes.values()))
    rank = float(wilcoxon(values).pvalue) if np.any(values != 0) else None
    up, down = int((values > 0).sum()), int((values < 0).sum())
    return Improvement(
        float(values.mean()), p, exact, rank, len(values), len(datasets), len(totals), up, down
    )


def _same_cells(before: Cells, after: Cells) -> None:
    if not before:
        raise ValueError("improvement: expected at least one cell (model, data set), found none")
    for name, one, other in (("before", before, after), ("after", after, before)):
        missing = [f"{model} on {dataset}" for model, dataset in other if (model, dataset) not in one]
        if missing:
            raise ValueError(
                f"improvement: expected the same cells before and after, found {len(missing)} missing {name}, the "
                f"first {missing[0]}; measure it, or leave it out of both."
            )
        wrong = [f"{model} on {dataset}" for (model, dataset), value in one.items() if not np.isfinite(value)]
        if wrong:
            raise ValueError(f"improvement: expected finite scores, found NaN or infinity {name}: {wrong[0]}")


def _complete(methods: Mapping[str, Cells]) -> tuple[list[str], list[str]]:
    """Models and data sets, of which every method has every combination."""
    keys = {key for cells in methods.values() for key in cells}
    models, datasets = sorted({model for model, _ in keys}), sorted({dataset for _, dataset in keys})
    if len(methods) < 2 or len(datasets) < 2:
        raise ValueError(
            f"analysis of variance: expected at least two methods on two data sets, found {len(methods)} on "
            f"{len(datasets)}; measure more of them."
        )
    for method, cells in methods.items():
        missing = [
            f"{model} on {dataset}"
            for model in models
            for dataset in datasets
            if (model, dataset) not in cells
        ]
        wrong = [
            f"{model} on {dataset}" for (model, dataset), value in cells.items() if not np.isfinite(value)
        ]
        if missing or wrong:
            raise ValueError(
                f"analysis of variance: expected a finite score of {method} for every model on every data set, found "
                f"none for {len(missing) + len(wrong)}, the first {(missing + wrong)[0]}; measure it, or leave out the "
                "data set or the model."
            )
    return models, datasets
