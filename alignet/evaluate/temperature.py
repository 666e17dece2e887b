"""The temperature of triplet probabilities softmax(S / tau), fitted to choices other than those it is used for.

Shape suffixes: n triplets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from alignet.evaluate.odd_one_out import checked_features, dot_products, spread

_WIDEST = math.log(1e4)  # how far from the spread a temperature is looked for, either way


@dataclass(frozen=True)
class Temperatures:
    """tau of every triplet (n,) float64, where it is from, and each tau with how many choices it was fitted to."""

    tau: np.ndarray
    note: str
    fits: tuple[tuple[float, int], ...]


def fit_temperature(dots: torch.Tensor) -> tuple[float, str]:
    """The tau that makes choices likeliest: minimises the mean of -log softmax(dots / tau)[0]; and a warning or "".

    dots: (n, 3) float64, entry 0 of the chosen pair. The loss is convex in 1 / tau, whose derivative's root is found.
    It is looked for within 10^-4 to 10^4 times the spread; a tau at an edge is told.
    """
    from scipy.optimize import brentq

    scale = spread(dots)
    relative = (dots - dots.amax(1, keepdim=True)) / scale

    def slope(log_beta: float) -> float:
        q = torch.softmax(relative * math.exp(log_beta), 1)
        return ((q * relative).sum(1) - relative[:, 0]).mean().item()

    if (
        slope(-_WIDEST) >= 0
    ):  # sharper answers are only worse: the similarities say nothing of the choices, or less
        return scale * math.exp(
            _WIDEST
        ), "the flattest of the range: the similarities do not foretell the choices"
    if slope(_WIDEST) <= 0:
        return scale * math.exp(-_WIDEST), "the sharpest of the range: every choice is foretold"
    return scale * math.exp(-brentq(slope, -_WIDEST, _WIDEST, xtol=1e-6)), ""


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
        found, warning = fit_temperature(other)
        text = f"tau = {found:.4g}, fitted to {len(other):,} other choices"
        fits = ((found, len(other)),)
        return Temperatures(np.full(len(dots), found), text + (f" ({warning})" if warning else ""), fits)
    first = halves(triplets, seed)
    own, parts = np.empty(len(dots)), []
    for half in (first, ~first):
        found, warning = fit_temperature(dots[torch.from_numpy(~half)])
        own[half] = found
        parts.append((found, int((~half).sum()), warning))
    said = " and ".join(f"{value:.4g}{f' ({warning})' if warning else ''}" for value, _, warning in parts)
    text = f"tau = {said}, each fitted to the half of the triplets that it is not used for"
    return Temperatures(own, text, tuple((value, count) for value, count, _ in parts))
