"""Where a network and people look: a network's saliency maps against people's importance maps, image by image.

gradients of a logit, people's maps -> one value an image (Spearman, Dice, IoU) -> their mean over images, also as a
share of the ceiling. After Fel et al., "Harmonizing the object recognition strategies of deep neural networks with
humans" (NeurIPS 2022). Its code takes the channel maximum of the magnitude, smooths people's maps, and divides by
CLICKME_CEILING.

Shapes: b or n images, H x W the network's input, h x w a human map, k places of a map as one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alignet.evaluate.bootstrap import Score, interval, mean_draws

REDUCTIONS = {  # how three channels become one map -> what that is, as notes say it
    "max": "channel maximum of the magnitude, as the published evaluation has it",
    "mean": "signed channel mean, as the published training has it",
    "abs_mean": "magnitude of the channel mean, as an older published evaluation had it",
}
BLURS = ("none", "published")
CLICKME_CEILING = 0.65753  # mean split-half Spearman of ClickMe in the published code; the paper prints .66
WHOLE = (0.0, 0.0, 1.0, 1.0)  # the box of an image that is seen whole
GRID = 64  # pixels a side at which the published code smooths people's maps
_KERNEL, _SIGMA = 10, 10.0  # of that smoothing, in pixels of GRID


@dataclass(frozen=True)
class Ranked:
    """Maps as `agreement` compares them.

    ranks: (n, k) float64, centred and of norm 1, NaN for a constant map. top: (n, k) bool, see `top_share`.
    """

    ranks: np.ndarray
    top: np.ndarray

    def take(self, rows: np.ndarray) -> Ranked:
        """Those of the rows (int)."""
        return Ranked(self.ranks[rows], self.top[rows])


@dataclass(frozen=True)
class Agreement:
    """One value an image, all (n,): NaN where a map is constant. The chances are of tops put anywhere at random."""

    spearman: np.ndarray  # float64, -1..1
    dice: np.ndarray  # float64, 0..1
    iou: np.ndarray
    dice_chance: np.ndarray
    iou_chance: np.ndarray
    constant_model: np.ndarray  # bool
    constant_human: np.ndarray


def reduce_channels(gradients: np.ndarray, how: str) -> np.ndarray:
    """Saliency maps (b, H, W) float64 from gradients (b, 3, H, W) float; how: a key of REDUCTIONS, else ValueError.

    "max": the largest magnitude of the channels. "mean": their mean with its sign. "abs_mean": the magnitude of that
    mean, so that channels of opposite signs cancel, which they do not in "max".
    """
    if how not in REDUCTIONS:
        raise ValueError(
            f"reductions: expected one of {', '.join(REDUCTIONS)}, found {how!r}; name one of them."
        )
    if gradients.ndim != 4:
        raise ValueError(f"gradients: expected (images, channels, height, width), found {gradients.shape}.")
    if how == "max":
        return np.abs(gradients).max(1).astype(np.float64)
    mean = gradients.mean(1, dtype=np.float64)
    return np.abs(mean) if how == "abs_mean" else mean


def seen(
    image_map: np.ndarray,
    box: Sequence[float] | np.ndarray,
    size: int | tuple[int, int],
    *,
    beyond: bool = False,
) -> np.ndarray:
    """What the network saw of a map (h, w): its box, resampled to `size` (H, W), one number for both; float64.

    box: left, top, right, bottom as shares of width and height. Bilinear with half-pixel centres, edges repeated, no
    smoothing on the way down: that of torch's interpolate with align_corners=False, which the whole box equals. Equal
    neighbours give exactly their value, so that ties stay ties. ValueError for a box that is not within the map, unless
    `beyond`: then what is outside is 0.
    """
    left, top, right, bottom = (float(value) for value in box)
    slack = 1e-6  # of boxes computed from whole pixels
    if not beyond and not (-slack <= left < right <= 1 + slack and -slack <= top < bottom <= 1 + slack):
        raise ValueError(
            f"box: expected 0 <= left < right <= 1 and 0 <= top < bottom <= 1, found {left:g}, {top:g}, {right:g}, "
            f"{bottom:g}; give what the network saw as shares of the image, padding left out."
        )
    height, width = (size, size) if isinstance(size, int) else size
    values = np.asarray(image_map, dtype=np.float64)
    for axis, (low, high, count) in enumerate(((top, bottom, height), (left, right, width))):
        length = values.shape[axis]
        places = (low + (np.arange(count) + 0.5) / count * (high - low)) * length - 0.5
        outside = (places < -0.5) | (places > length - 0.5)
        places = places.clip(0, length - 1)
        below = np.floor(places).astype(np.int64)
        above = np.minimum(below + 1, length - 1)
        share = (places - below)[:, None] if axis == 0 else places - below
        first = values.take(below, axis)
        values = first + share * (values.take(above, axis) - first)
        if beyond:
            values = values * (~outside[:, None] if axis == 0 else ~outside)
    return values


def blurred(image_map: np.ndarray) -> np.ndarray:
    """A map (h, w) smoothed as the published code does it, in training and in evaluation: (64, 64) float64.

    Resampled to 64 x 64, then a kernel of 10 x 10 weights with a sigma of 10 and a sum of 1, zeros outside. A kernel
    of even size has no middle: as published, it reaches 4 pixels to the left and up and 5 to the right and down, with
    its largest weight one pixel to the right. A constant map stays constant, where the published one would fade at
    its edges.
    """
    if np.ptp(image_map) == 0:
        return np.full((GRID, GRID), float(np.asarray(image_map).flat[0]))
    small = seen(image_map, WHOLE, GRID)
    for axis, peak in ((0, 4), (1, 5)):
        weights = np.exp(-((np.arange(_KERNEL) - peak) ** 2) / (2 * _SIGMA**2))
        padded = np.pad(small, [(4, 5) if one == axis else (0, 0) for one in (0, 1)])
        small = sum(
            weight * padded.take(np.arange(place, place + GRID), axis)
            for place, weight in enumerate(weights / weights.sum())
        )
    return small


def averaged(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (..., H, W) as (..., height, width) float64: each cell is the mean over its part of the map.

    Where a side is no multiple of the cells, a pixel on a border counts to both by its share: all cells are of one size
    and nothing is cut off. ValueError for more cells than pixels.
    """
    values = np.asarray(maps, dtype=np.float64)
    if not (0 < height <= values.shape[-2] and 0 < width <= values.shape[-1]):
        raise ValueError(
            f"maps: expected at least {height} x {width} pixels to average over, found {values.shape[-2]} x "
            f"{values.shape[-1]}; take a smaller factor, or larger maps."
        )
    for axis, cells in ((-2, height), (-1, width)):
        values = np.moveaxis(values, axis, -1)
        length = values.shape[-1]
        if length % cells == 0:
            values = values.reshape(*values.shape[:-1], cells, length // cells).mean(-1)
        else:
            edges = np.linspace(0, length, cells + 1)
            pixels = np.arange(length)
            overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
            values = values @ (overlap.clip(0) * cells / length).T
        values = np.moveaxis(values, -1, axis)
    return values


def subsample(maps: np.ndarray, factor: int) -> np.ndarray:
    """Maps (..., H, W) at 1/factor of their height and of their width: 4x and 16x are linear factors.

    Each cell is the mean over factor x factor pixels. Of a side that the factor does not divide there are H // factor
    cells, each a little larger (see `averaged`). ValueError for maps smaller than the factor.
    """
    if factor < 1:
        raise ValueError(f"scales: expected a factor of at least 1, found {factor}; give 1, 4 or 16.")
    if factor == 1:
        return np.asarray(maps, dtype=np.float64)
    return averaged(maps, maps.shape[-2] // factor, maps.shape[-1] // factor)


def standard_ranks(rows: np.ndarray) -> np.ndarray:
    """Average ranks of each row of (n, k), centred and scaled to norm 1, float64; a constant row is NaN."""
    from scipy.stats import rankdata

    ranks = np.asarray(rankdata(rows, axis=1), dtype=np.float64)
    ranks -= (ranks.shape[1] + 1) / 2
    norms = np.sqrt((ranks**2).sum(1, keepdims=True))
    return np.divide(ranks, norms, out=np.full_like(ranks, np.nan), where=norms > 0)


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each row of (n, k) with the same row of another: (n,), ties by average ranks.

    That of scipy.stats.spearmanr, NaN where a row is constant. ValueError for other shapes or a value that is not
    finite.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"spearman: expected two arrays (n, k) of one shape, found {a.shape} and {b.shape}.")
    _check_finite(a, b)
    return (standard_ranks(a) * standard_ranks(b)).sum(1)


def top_share(rows: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Which places of each row of (n, k) lie strictly above its percentile 100 (1 - share): bool (n, k)."""
    return rows > np.quantile(rows, 1 - share, axis=1, keepdims=True)


def overlap(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and intersection over union (n,) of two bool arrays (n, k), row by row; NaN where one of them is empty."""
    both, first, second = ((one).sum(1, dtype=np.float64) for one in (a & b, a, b))
    empty = (first == 0) | (second == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        dice, iou = 2 * both / (first + second), both / (first + second - both)
    return np.where(empty, np.nan, dice), np.where(empty, np.nan, iou)


def top_share_overlap(a: np.ndarray, b: np.ndarray, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Dice and intersection over union (n,) of the places above the percentile 100 (1 - share) of each of (n, k).

    Strictly above, as in the published evaluation: a map that is 0 over 90% has its positive places. NaN where no place
    of a map is above, as where a tenth of it is equal and largest.
    """
    return overlap(top_share(a, share), top_share(b, share))


def ranked(maps: np.ndarray, factor: int = 1) -> Ranked:
    """Maps (n, H, W) at a scale, ranked once for all comparisons. ValueError for a value that is not finite."""
    rows = subsample(maps, factor)
    rows = rows.reshape(len(rows), -1)
    _check_finite(rows)
    return Ranked(standard_ranks(rows), top_share(rows))


def agreement(model: Ranked, human: Ranked) -> Agreement:
    """How alike each saliency map and the human map of the same row are; see Agreement."""
    if model.ranks.shape != human.ranks.shape:
        raise ValueError(
            f"maps: expected as many and as large ones of the model as of people, found {model.ranks.shape} and "
            f"{human.ranks.shape}; resample people's with `seen`."
        )
    dice, iou = overlap(model.top, human.top)
    first, second = model.top.mean(1), human.top.mean(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_chance = 2 * first * second / (first + second), first * second / (first + second - first * second)
    constant = np.isnan(model.ranks[:, 0]), np.isnan(human.ranks[:, 0])
    return Agreement((model.ranks * human.ranks).sum(1), dice, iou, *by_chance, *constant)


def centre_bias(maps: np.ndarray) -> np.ndarray:
    """Spearman (n,) of each map of (n, h, w) with the mean of all OTHERS: what is known without seeing the image.

    The image itself is left out, which the published control is not said to do. The others are added up anew for each
    (in halves, n log n sums): to take one map from the sum of all would break ties by rounding. ValueError for one map.
    """
    if len(maps) < 2:
        raise ValueError(
            f"centre bias: expected at least 2 maps, found {len(maps)}; give maps of more images."
        )
    rows = np.asarray(maps).reshape(len(maps), -1)
    _check_finite(rows)
    others = _others(rows, np.zeros(rows.shape[1]))
    return np.array([spearman(one[None], other[None])[0] for one, other in zip(rows, others, strict=True)])


def _others(rows: np.ndarray, outside: np.ndarray) -> Iterator[np.ndarray]:
    """For each row (k,) the sum of all others, and of `outside`."""
    if len(rows) == 1:
        yield outside
        return
    first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    yield from _others(first, outside + second.sum(0, dtype=np.float64))
    yield from _others(second, outside + first.sum(0, dtype=np.float64))


def mean_score(
    values: np.ndarray,
    metric: str,
    dataset: str,
    *,
    draws: int,
    seed: int,
    divide: float = 1.0,
    chance: float | None = 0.0,
    ceiling: float | None = None,
    note: str = "",
) -> Score | None:
    """The mean over images of values (n,), those that are NaN left out, with a percentile interval over images.

    divide: a ceiling to give the mean in shares of; it is taken as known, its own uncertainty is not in the interval.
    None where all values are NaN; a single one has no interval.
    """
    kept = values[np.isfinite(values)] / divide
    if not len(kept):
        return None
    low, high = interval(mean_draws(kept, draws=draws, seed=seed)) if len(kept) > 1 else (None, None)
    over = "images" if low is not None else ""
    return Score(
        metric, dataset, float(kept.mean()), low, high, len(kept), "images", over, chance, ceiling, note
    )


def _check_finite(*arrays: np.ndarray) -> None:
    for rows in arrays:
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            raise ValueError(
                f"maps: expected finite values, found others in {len(bad)} of {len(rows)} maps, first in number "
                f"{bad[0]}; leave those images out, or compute their gradients in float32."
            )
