"""The temperature of a triplet distribution: the one at which people's choices are likeliest.

softmax([s01, s02, s12] / tau) turns similarities into probabilities of the three answers. The answer that wins does not
hang on tau; the entropy does. The likelihood is concave in 1 / tau, so its maximum is found by bisection.
Shape suffixes: n triplets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignet.evaluate.odd_one_out import checked_features, dot_products

REACH = 1000.0  # tau is looked for within the spread of the similarities divided and multiplied by this


@dataclass(frozen=True)
class Temperature:
    """parts: (n,) int, which of `fitted` is each triplet's. note: how they came about."""

    fitted: list[float]
    parts: np.ndarray
    note: str

    @property
    def taus(self) -> np.ndarray:
        """The temperature of each triplet (n,)."""
        return np.array(self.fitted)[self.parts]


@dataclass(frozen=True)
class Fit:
    """tau, and a warning where the likelihood still rose at the end of the range, or ""."""

    tau: float
    warning: str


def said(fits: Sequence[Fit], how: str) -> str:
    """How temperatures came about, with the warnings of those that are at the end of the range."""
    return "; ".join([how, *dict.fromkeys(f"tau is {fit.warning}" for fit in fits if fit.warning)])


def fit_tau(sims: np.ndarray, counts: np.ndarray) -> Fit:
    """The temperature of maximum likelihood.

    sims: (n, 3) similarities [s01, s02, s12]. counts: (n, 3) how often each of these pairs was chosen.
    Raises ValueError for shapes that differ, similarities that are not finite, and where nothing was chosen.
    """
    sims, counts = np.asarray(sims, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if sims.shape != counts.shape or sims.ndim != 2 or sims.shape[1] != 3:
        raise ValueError(
            f"tau: expected similarities and counts (n, 3), found {sims.shape} and {counts.shape}"
        )
    if not np.isfinite(sims).all() or counts.sum() <= 0 or counts.min() < 0:
        raise ValueError("tau: expected finite similarities and at least one choice, found none or NaN")
    centred = sims - sims.mean(1, keepdims=True)
    spread = max(float(centred.std()), 1e-300)
    scaled = centred / spread
    total = counts.sum(1)

    def slope(log_tau: float) -> float:
        """Derivative of the log-likelihood in 1 / tau: what was chosen less what is expected."""
        logits = scaled / np.exp(log_tau)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        return float((counts * scaled).sum() - total @ (weights * scaled).sum(1))

    low, high = -np.log(REACH), np.log(REACH)
    if slope(high) <= 0:  # the likeliest is the flattest
        return Fit(spread * REACH, "the flattest of the range: the similarities do not foretell the choices")
    if slope(low) >= 0:
        return Fit(spread / REACH, "the sharpest of the range: every choice is foretold")
    from scipy.optimize import brentq

    root: Any = brentq(slope, low, high, xtol=1e-10)
    return Fit(float(spread * np.exp(root)), "")


@dataclass(frozen=True)
class Temperatures:
    """tau of every triplet (n,) float64, where it is from, and each tau with how many choices it was fitted to."""

    tau: np.ndarray
    note: str
    fits: tuple[tuple[float, int], ...]


def fit_temperature(dots: torch.Tensor) -> Fit:
    """The tau at which the choices are likeliest where entry 0 was chosen every time. dots: (n, 3) float64."""
    return fit_tau(dots.numpy(), np.eye(3)[:1].repeat(len(dots), 0))


def halves(triplets: np.ndarray, seed: int) -> np.ndarray:
    """A random half (n,) bool of triplets such that rows with the same three objects are on one side."""
    sets = object_sets(triplets)
    distinct, inverse = np.unique(sets, return_inverse=True)
    if len(distinct) < 2:
        raise ValueError(
            "calibration: expected two or more different triplets to fit tau to one half of them for the other, found "
            f"{len(distinct)}; give data.fit_triplets, or a number as options.tau."
        )
    first = np.zeros(len(distinct), dtype=bool)
    first[np.random.default_rng([seed, 3]).permutation(len(distinct))[: len(distinct) // 2]] = True
    return first[inverse]


def object_sets(triplets: np.ndarray) -> np.ndarray:
    """A number (n,) int64 for each triplet (n, 3), the same for the same three objects in any order."""
    members = np.sort(triplets.astype(np.int64), axis=1)
    base = 2_000_000
    return (members[:, 0] * base + members[:, 1]) * base + members[:, 2]


def temperatures(
    dots: torch.Tensor, triplets: np.ndarray, tau: float | str, fit: tuple[np.ndarray, np.ndarray] | None, seed: int,
    dataset: str,
) -> Temperatures:  # fmt: skip
    """The temperature of each triplet: the number tau, or fitted to `fit`, (features, triplets), or to other halves."""
    if not isinstance(tau, str):
        return Temperatures(
            np.full(len(dots), float(tau)), f"tau = {tau:.4g}, as configured", ((float(tau), 0),)
        )
    if fit is not None:
        other = dot_products(checked_features(*fit, f"{dataset}, triplets to fit tau to"), fit[1])
        found = fit_temperature(other)
        text = said([found], f"tau fitted to {len(other):,} other choices")
        return Temperatures(np.full(len(dots), found.tau), text, ((found.tau, len(other)),))
    first = halves(triplets, seed)
    own, parts = np.empty(len(dots)), []
    for half in (first, ~first):
        found = fit_temperature(dots[torch.from_numpy(~half)])
        own[half] = found.tau
        parts.append((found, int((~half).sum())))
    text = said([fit for fit, _ in parts], "tau fitted to the half of the triplets that it is not used for")
    return Temperatures(own, text, tuple((fit.tau, count) for fit, count in parts))
