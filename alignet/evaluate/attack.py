"""Adversarial attacks: the size of the smallest perturbation that turns an answer, and whether people look there.

norms of the images that were attacked, right-censored at the largest norm searched -> survival, tolerance, accuracy
under attack; perturbations -> maps, to be compared with people's by evaluate.where; tests of two networks on the same
images, and of two groups of networks. After Linsley et al., "Adversarial alignment" (2023).

Shapes: n attacked images, (b, 3, H, W) pixels in [0, 1], k norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from alignet.attacks.stored import as_float64
from alignet.evaluate.bootstrap import clopper_pearson, interval
from alignet.evaluate.significance import paired_permutation

REDUCTIONS = {  # how three channels of a perturbation become one map -> what that is, as notes say it
    "mean": "magnitude of the channel mean",
    "max": "channel maximum of the magnitude",
}
SPLITS = 200_000  # so many splits of two groups at most are all counted
DRAWS = 10_000  # random sign-flips or splits where they are not


@dataclass(frozen=True)
class Norms:
    """Norms of the smallest perturbations found for n images that were attacked.

    norm: (n,) float64, `high` where unbroken, which says that more is needed. broken: (n,) bool. high: float > 0, the
    largest norm that was searched.
    """

    norm: np.ndarray
    broken: np.ndarray
    high: float

    def __len__(self) -> int:
        return len(self.norm)

    def take(self, rows: np.ndarray) -> Norms:
        """Those of the rows (int or bool)."""
        return Norms(self.norm[rows], self.broken[rows], self.high)


@dataclass(frozen=True)
class Survival:
    """Share of images that no perturbation of norm <= eps was found for, at k norms: all (k,) float64."""

    eps: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class GroupTest:
    """Two groups of networks: difference of their means, first less second, and its permutation test."""

    difference: float
    p: float  # two-sided
    exact: bool  # whether all splits were counted
    least: float  # the smallest p that groups of these sizes can give
    note: str = ""


def censored(norms: np.ndarray, broken: np.ndarray, high: float) -> Norms:
    """Norms of attacks as they are compared: at most `high`, and `high` where unbroken.

    norms: (n,) of the perturbations found, whatever they are where broken (n,) bool is False. ValueError for other
    shapes, a high that is not above 0, and a broken image whose norm is 0 or not finite.
    """
    norms, broken = np.asarray(norms, dtype=np.float64), np.asarray(broken, dtype=bool)
    if norms.shape != broken.shape or norms.ndim != 1 or not (np.isfinite(high) and high > 0):
        raise ValueError(
            f"norms: expected two arrays (n,) and a finite largest norm above 0, found {norms.shape}, {broken.shape} "
            f"and {high}; give a norm and whether it broke the answer for each image."
        )
    wrong = np.flatnonzero(broken & ~(np.isfinite(norms) & (norms > 0)))
    if len(wrong):
        raise ValueError(
            f"norms: expected finite norms above 0 of broken images, found {norms[wrong[0]]} in number {wrong[0]}; "
            "compute the attacks again."
        )
    return Norms(np.where(broken, np.minimum(np.where(broken, norms, 0.0), high), high), broken, float(high))


def magnitude(images: np.ndarray, attacked: np.ndarray, how: str) -> np.ndarray:
    """Where an image was changed: maps (b, H, W) float64, at least 0, of perturbations d = attacked - images.

    "mean": |mean over channels of d|, as Linsley et al. have it; opposite changes of two channels cancel. "max": max
    over channels of |d|, in which they do not. images, attacked: (b, 3, H, W), uint8 (of 255) or floating point.
    ValueError for another `how` or other shapes.
    """
    if how not in REDUCTIONS:
        raise ValueError(
            f"reduction: expected one of {', '.join(REDUCTIONS)}, found {how!r}; name one of them."
        )
    if images.shape != attacked.shape or images.ndim != 4:
        raise ValueError(
            f"attacked images: expected two arrays (images, channels, height, width) of one shape, found "
            f"{images.shape} and {attacked.shape}; give the images that the network saw."
        )
    change = as_float64(attacked) - as_float64(images)
    return np.abs(change.mean(1)) if how == "mean" else np.abs(change).max(1)


def root_mean_square(norms: np.ndarray | float, shape: Sequence[int]) -> np.ndarray:
    """l2 norms as changes of a pixel value: norm / sqrt(3 H W), shape (3, H, W), so that resolutions compare."""
    return np.asarray(norms, dtype=np.float64) / np.sqrt(float(np.prod(shape)))


def survives(norms: Norms, eps: float) -> np.ndarray:
    """Whether no perturbation of norm <= eps was found, (n,) bool. ValueError for an eps above what was searched."""
    if not 0 <= eps <= norms.high:
        raise ValueError(
            f"eps: expected norms from 0 to {norms.high:g}, the largest that was searched, found {eps:g}; take a "
            "smaller one, or search further (attack.methods.high)."
        )
    return ~(norms.broken & (norms.norm <= eps))


def survival(norms: Norms, *, draws: int, seed: int, points: int = 200) -> Survival:
    """The survival curve as a step function, with 95% intervals over images.

    At 0, at each norm that broke an image, and at `high`; of more than `points` norms so many of their quantiles. An
    interval is of resampled images, or Clopper and Pearson's where all or no image survives. ValueError without images.
    """
    _check_some(norms)
    steps = np.unique(norms.norm[norms.broken])
    if len(steps) > points:
        steps = np.unique(np.quantile(steps, np.linspace(0, 1, points), method="nearest"))
    eps = np.unique(np.concatenate([[0.0], steps, [norms.high]]))
    share = _shares(norms.norm, norms.broken, eps)
    generator = np.random.default_rng(seed)
    resampled = (generator.integers(len(norms), size=len(norms)) for _ in range(draws))
    found = np.array([_shares(norms.norm[rows], norms.broken[rows], eps) for rows in resampled])
    bounds = np.array([interval(column) for column in found.T])
    for place in np.flatnonzero((share == 0) | (share == 1)):
        bounds[place] = clopper_pearson(round(share[place] * len(norms)), len(norms))
    return Survival(eps, share, bounds[:, 0], bounds[:, 1])


def median(norms: Norms, *, draws: int, seed: int) -> tuple[float, float, float]:
    """Median norm with its interval (low, high) over images; infinite where that is above what was searched.

    Of an even number of images the middle between two. ValueError without images.
    """
    _check_some(norms)
    values = np.where(norms.broken, norms.norm, np.inf)
    generator = np.random.default_rng(seed)
    found = [np.median(values[generator.integers(len(values), size=len(values))]) for _ in range(draws)]
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return float(np.median(values)), float(low), float(high)


def paired_test(a: np.ndarray, b: np.ndarray, *, seed: int) -> tuple[float, float, int]:
    """Two networks on the same images: mean of b - a, its two-sided p by sign-flips over images, and how many images.

    a, b: (n,), rows of one image; NaN where a network has no value, and then the image is left out. Of norms give
    censored ones (Norms.norm, one high): the mean is then that of min(norm, high). ValueError where no image is left.
    """
    kept = np.isfinite(a) & np.isfinite(b)
    if a.shape != b.shape or not kept.any():
        raise ValueError(
            f"paired test: expected values of the same images, found {a.shape} and {b.shape} with {int(kept.sum())} "
            "that both have; compare networks that were attacked on the same images."
        )
    p, _ = paired_permutation(a[kept], b[kept], seed=seed, draws=DRAWS)
    return float((b[kept] - a[kept]).mean()), p, int(kept.sum())


def group_test(first: Sequence[float], second: Sequence[float], *, seed: int) -> GroupTest:
    """Whether the means of two groups of networks differ: the difference under splits of all values into such groups.

    A network is one value. Up to SPLITS splits all are counted, the observed one among them; for more, DRAWS random
    ones, and p = (1 + hits) / (1 + DRAWS). The note says where no p below .05 is possible. Differences of spread count
    too where the groups' sizes differ, as with every permutation test. ValueError for a group below 2.
    """
    a, b = (np.asarray(one, dtype=np.float64) for one in (first, second))
    if min(a.size, b.size) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            f"groups: expected at least 2 networks in each, with finite values, found {a.size} and {b.size}; add "
            "networks, or leave the test out."
        )
    values, count = np.concatenate([a, b]), len(a)
    splits, total = comb(len(values), count), values.sum()
    observed = abs(a.mean() - b.mean())
    slack = 1e-12 * max(np.abs(values).max(), 1e-300)
    least = (2 if len(a) == len(b) else 1) / splits

    def difference(own: np.ndarray) -> np.ndarray:
        return np.abs(own / count - (total - own) / (len(values) - count))

    if splits <= SPLITS:
        sums = np.array([sum(chosen) for chosen in combinations(values.tolist(), count)])
        p, exact = float((difference(sums) >= observed - slack).mean()), True
    else:
        generator = np.random.default_rng(seed)
        sums = np.array([generator.permutation(values)[:count].sum() for _ in range(DRAWS)])
        hits = int((difference(sums) >= observed - slack).sum())
        p, exact, least = (1 + hits) / (1 + DRAWS), False, max(least, 1 / (1 + DRAWS))
    note = f"of {len(a)} and {len(b)} networks no p below {least:.3g} is possible" if least >= 0.05 else ""
    return GroupTest(float(a.mean() - b.mean()), p, exact, least, note)


def holm(ps: Sequence[float]) -> list[float]:
    """p-values (t,) adjusted for their number by Holm (1979): the chance of any false one stays below the level."""
    order = np.argsort(ps, kind="stable")
    adjusted, largest = np.zeros(len(ps)), 0.0
    for place, row in enumerate(order):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[row]))
        adjusted[row] = largest
    return adjusted.tolist()


def _shares(norm: np.ndarray, broken: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Share (k,) that is not broken by norms <= eps (k,)."""
    return 1 - np.searchsorted(np.sort(norm[broken]), eps, side="right") / len(norm)


def _check_some(norms: Norms) -> None:
    if not len(norms):
        raise ValueError(
            "norms: expected at least one image that was attacked, found none; check classes' numbering "
            "(attack.column), or attack whatever is answered (attack.logit=top1)."
        )
