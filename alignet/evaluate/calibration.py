"""Are the features' triplet probabilities true? Calibration of softmax(S / tau), and its distance to people's own.

The probabilities hang on the temperature, which no feature space brings along. So it is a number that is given, or one
that is fitted by maximum likelihood to choices other than those it is measured on, and everything is shown over a grid
of temperatures as well.

Shape suffixes: n triplets, m rows of features, p features, B draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignet.evaluate.bootstrap import Score, interval, object_counts, object_sums, renumbered
from alignet.evaluate.odd_one_out import (
    checked_features,
    checked_probabilities,
    dot_products,
    spread,
)
from alignet.evaluate.result import Result
from alignet.evaluate.temperature import temperatures
from alignet.triplets import decided, entropy

LOWEST = 1 / 3  # the least probability of a likeliest answer
_SIMULATIONS = 20  # of choices that the probabilities are true of


def calibration(
    features: np.ndarray,
    triplets: np.ndarray,
    *,
    dataset: str,
    tau: float | str,
    bins: int,
    grid: Sequence[float],
    seed: int,
    bootstrap: int = 1000,
    fit: tuple[np.ndarray, np.ndarray] | None = None,
    probabilities: np.ndarray | None = None,
    units: np.ndarray | None = None,
    over: str = "objects",
    note: str = "",
) -> Result:
    """Scores of the triplet distribution, and tables `reliability`, `temperature` and `fits`.

    features: (m, p) finite. triplets: (n, 3) int, odd one last. tau: a number, or "fit": by maximum likelihood to
    the choices `fit`, (features, triplets), or without them to the other half of `triplets`, halved so that no three
    objects are in both. bins: of equal width within [1/3, 1]. grid: temperatures in units of the spread of the
    similarities. probabilities: people's own p* (n, 3) of [01, 02, 12], where they are known. units, over: see
    odd_one_out.

    calibration_error: the expected calibration error of the likeliest answer (Guo et al. 2017), the mean over triplets
    of |accuracy - mean confidence| of the triplet's bin. It is never 0 by chance alone: the note says what true
    probabilities would show. So the interval, which is of the error that endless choices would show, is not centred on
    the value: it is the draws' spread around the value less its bias (`debiased_error`), cut at 0 and stretched to hold
    the value; a draw adds noise of its own, so that where its quantiles lie says nothing.
    calibration_error_spread: the same at tau = spread. choice_nll: -log q of the choice, nats. kl_to_people:
    KL(p* || q), nats. entropy_rho: Spearman's rho of the entropies of p* and q; its draws weigh the ranks of the whole
    set.
    A tie for the likeliest answer counts as wrong.
    """
    x = checked_features(features, triplets, dataset)
    _check(tau, bins, grid, fit, dataset)
    if probabilities is not None:
        checked_probabilities(probabilities, len(triplets), dataset)
    dots = dot_products(x, triplets)
    at = spread(dots)
    used = temperatures(dots, triplets, tau, fit, seed, dataset)
    right = decided(dots.T)[0].double().numpy()
    log_q = _log_softmax(dots, torch.from_numpy(used.tau)[:, None])
    losses = _losses(log_q, probabilities)
    rows = np.arange(len(features)) if units is None else np.asarray(units)
    objects, number = renumbered(rows[triplets])
    counts = object_counts(number, draws=bootstrap, seed=seed)
    confidence = log_q.exp().amax(1).numpy()
    own = _binned(confidence, right, np.column_stack(list(losses.values())), objects, counts, bins)
    plain = _log_softmax(dots, at).exp().amax(1).numpy()
    by_spread = _binned(plain, right, np.empty((len(right), 0)), objects, counts, bins)
    shared = {"dataset": dataset, "n": len(triplets), "unit": "triplets", "over": over}
    generator = np.random.default_rng([seed, 2])
    scores = [
        _error("calibration_error", own, confidence, right, bins, generator, [used.note, note], shared),
        _error("calibration_error_spread", by_spread, plain, right, bins, generator,
               [f"tau = {at:.4g}, the spread"], shared),
        *_means(losses, own, probabilities, ["tau as for the calibration error", note], shared),
    ]  # fmt: skip
    ratios = np.array(grid, dtype=np.float64)
    curve = [_at(dots, right, at * ratio, bins) for ratio in ratios]
    tables = {
        "reliability": _reliability({"used": own, "spread": by_spread}),
        "temperature": {
            "tau": at * ratios, "tau_over_spread": ratios, "calibration_error": np.array([one[0] for one in curve]),
            "choice_nll": np.array([one[1] for one in curve]),
        },
        "fits": {
            "tau": np.array([one[0] for one in used.fits]), "triplets": np.array([one[1] for one in used.fits]),
            "tau_over_spread": np.array([one[0] / at for one in used.fits]),
        },
    }  # fmt: skip
    return Result(scores, tables)


def _log_softmax(dots: torch.Tensor, tau: float | torch.Tensor) -> torch.Tensor:
    return torch.log_softmax((dots - dots.amax(1, keepdim=True)) / tau, 1)


def _losses(log_q: torch.Tensor, exact: np.ndarray | None) -> dict[str, np.ndarray]:
    """What is averaged over triplets, by name: (n,) float64 each."""
    found = {"choice_nll": -log_q[:, 0].numpy()}
    if exact is None:
        return found
    p = torch.from_numpy(np.asarray(exact, dtype=np.float64))
    found["kl_to_people"] = (torch.xlogy(p, p) - p * log_q).sum(1).numpy()
    x, y = _scaled_ranks(entropy(p).numpy()), _scaled_ranks(entropy(log_q.exp()).numpy())
    return found | {"x": x, "y": y, "xy": x * y, "xx": x * x, "yy": y * y}


def _scaled_ranks(values: np.ndarray) -> np.ndarray:
    """Mean ranks within [-1, 1]."""
    from scipy.stats import rankdata

    return 2 * (rankdata(np.round(values, 12)) - 0.5) / len(values) - 1


@dataclass(frozen=True)
class _Binned:
    """One row for each bin that holds a triplet; and what the draws say of the whole."""

    low: np.ndarray  # edges
    high: np.ndarray
    count: np.ndarray
    confidence: np.ndarray  # means
    accuracy: np.ndarray
    accuracy_draws: list[np.ndarray]
    error: float
    error_draws: np.ndarray
    means: np.ndarray  # (k, B) of the columns beside


def _bin(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(((confidence - LOWEST) / (1 - LOWEST) * bins).astype(np.int64), 0, bins - 1)


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Expected calibration error of confidences (n,) within [1/3, 1] and whether each was right (n,)."""
    own = _bin(confidence, bins)
    return float(np.abs(np.bincount(own, right - confidence, minlength=bins)).sum() / len(own))


def debiased_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """`calibration_error` less what the noise of the answers adds to it, about; 0 or more [ours].

    A bin whose accuracy is off by g has |g + noise|, whose mean is above |g|; most where g is 0. The noise is normal
    with variance s^2 = mean of c (1 - c) / n over the bin's confidences c, g^2 the observed square less s^2.
    """
    from scipy.stats import norm

    own = _bin(confidence, bins)
    count, gap, variance = (
        np.bincount(own, weights, minlength=bins)
        for weights in (np.ones(len(own)), right - confidence, confidence * (1 - confidence))
    )
    s = np.sqrt(np.maximum(variance, 1e-12))  # of the bin's sum
    g = np.sqrt(np.maximum(gap**2 - s**2, 0))
    bias = 2 * s * norm.pdf(g / s) - 2 * g * norm.sf(g / s)  # of the folded normal distribution's mean
    return max(float(np.abs(gap).sum() - bias[count > 0].sum()) / len(own), 0.0)


def _binned(
    confidence: np.ndarray, right: np.ndarray, beside: np.ndarray, objects: np.ndarray, counts: np.ndarray, bins: int
) -> _Binned:  # fmt: skip
    """Bin by bin, so that a draw costs as much as without bins."""
    own, edges = _bin(confidence, bins), np.linspace(LOWEST, 1, bins + 1)
    order = np.argsort(own, kind="stable")
    filled, starts = np.unique(own[order], return_index=True)
    parts = np.split(order, starts[1:])
    weight, gap = np.zeros(len(counts)), np.zeros(len(counts))
    beside_sums = np.zeros((beside.shape[1], len(counts)))
    accuracy_draws = []
    for part in parts:
        columns = np.column_stack([np.ones(len(part)), right[part], confidence[part], beside[part]])
        sums = object_sums(columns, objects[part], counts)
        held = sums[0] > 0
        accuracy_draws.append(sums[1, held] / sums[0, held])
        weight, gap, beside_sums = weight + sums[0], gap + np.abs(sums[1] - sums[2]), beside_sums + sums[3:]
    held = weight > 0
    return _Binned(
        edges[filled], edges[filled + 1], np.array([len(part) for part in parts]),
        np.array([confidence[part].mean() for part in parts]), np.array([right[part].mean() for part in parts]),
        accuracy_draws, calibration_error(confidence, right, bins), gap[held] / weight[held],
        beside_sums[:, held] / weight[held],
    )  # fmt: skip


def _error(
    metric: str, found: _Binned, confidence: np.ndarray, right: np.ndarray, bins: int,
    generator: np.random.Generator, texts: list[str], shared: dict,
) -> Score:  # fmt: skip
    noise = np.mean(
        [
            calibration_error(confidence, (generator.random(len(confidence)) < confidence) * 1.0, bins)
            for _ in range(_SIMULATIONS)
        ]
    )
    centre = debiased_error(confidence, right, bins)
    low, high = interval(found.error_draws - found.error_draws.mean() + centre)
    told = f"true probabilities would show about {noise:.2g}"
    note = "; ".join(
        text for text in (*texts, f"{bins} bins", "interval less the bias of chance", told) if text
    )
    low, high = max(low, 0.0), max(high, found.error)
    return Score(metric, value=found.error, low=low, high=high, note=note, **shared)


def _means(
    losses: dict[str, np.ndarray], found: _Binned, exact: np.ndarray | None, texts: list[str], shared: dict
) -> list[Score]:
    names, note = list(losses), "; ".join(text for text in texts if text)
    low, high = interval(found.means[0])
    said = f"{note}; uniform answers have ln 3 = 1.099"
    if exact is None:
        return [
            Score(
                "choice_nll",
                value=float(losses["choice_nll"].mean()),
                low=low,
                high=high,
                note=said,
                **shared,
            )
        ]
    own = -np.log(np.maximum(exact[:, 0].astype(np.float64), 1e-300)).mean()
    scores = [
        Score("choice_nll", value=float(losses["choice_nll"].mean()), low=low, high=high,
              note=f"{said}, people's own {own:.3f}", **shared)
    ]  # fmt: skip
    low, high = interval(found.means[1])
    flat = math.log(3) - entropy(torch.from_numpy(exact.astype(np.float64))).mean().item()
    scores.append(
        Score("kl_to_people", value=float(losses["kl_to_people"].mean()), low=low, high=high,
              note=f"{note}; nats, uniform answers have {flat:.3f}", **shared)
    )  # fmt: skip
    moments = found.means[[names.index(name) for name in ("x", "y", "xy", "xx", "yy")]]
    whole = np.array([losses[name].mean() for name in ("x", "y", "xy", "xx", "yy")])
    rho, draws = float(_correlation(whole)), _correlation(moments)
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(rho) or not len(draws):
        return scores  # one of the entropies is the same for all triplets: there is nothing to correlate
    low, high = interval(draws)
    return [*scores, Score("entropy_rho", value=rho, low=low, high=high, chance=0.0, note=note, **shared)]


def _correlation(moments: np.ndarray) -> np.ndarray:
    """Pearson correlation from the means of x, y, xy, xx, yy; NaN where either does not vary."""
    x, y, xy, xx, yy = moments
    spreads = (xx - x * x) * (yy - y * y)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spreads > 1e-14, (xy - x * y) / np.sqrt(np.maximum(spreads, 0)), np.nan)


def _at(dots: torch.Tensor, right: np.ndarray, tau: float, bins: int) -> tuple[float, float]:
    """Calibration error and mean -log q of the choice, at one temperature."""
    log_q = _log_softmax(dots, tau)
    return calibration_error(log_q.exp().amax(1).numpy(), right, bins), -log_q[:, 0].mean().item()


def _reliability(found: dict[str, _Binned]) -> dict:
    every = [draws for one in found.values() for draws in one.accuracy_draws]
    intervals = [
        interval(draws) if len(draws) else (np.nan, np.nan) for draws in every
    ]  # a bin that no draw holds
    columns: dict[str, Any] = {"temperature": [name for name, one in found.items() for _ in one.count]}
    for column in ("low", "high", "count", "confidence", "accuracy"):
        columns[column] = np.concatenate([getattr(one, column) for one in found.values()])
    columns["accuracy_low"], columns["accuracy_high"] = np.array(intervals).T
    return columns


def _check(tau: float | str, bins: int, grid: Sequence[float], fit: object, dataset: str) -> None:
    if isinstance(tau, bool) or not (tau == "fit" or (not isinstance(tau, str) and tau > 0)):
        raise ValueError(f"{dataset}: expected tau above 0, or fit, found {tau!r}")
    if tau != "fit" and fit is not None:
        raise ValueError(f"{dataset}: expected tau=fit beside triplets to fit it to, found {tau}")
    if bins < 1 or not len(grid) or not all(value > 0 for value in grid):
        raise ValueError(
            f"{dataset}: expected 1 or more bins and a grid of temperatures above 0, found {bins} and {list(grid)}"
        )
