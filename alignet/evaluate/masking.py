"""Masked recognition: pictures that show only the most important pixels of an image, and how soon they suffice.

Importance map -> order in which its pixels are revealed -> pictures at several shares -> accuracy by share.
Fel et al., "Harmonizing the object recognition strategies of deep neural networks with humans", NeurIPS 2022, section
4.2 and appendix A. Shape suffixes: H, W pixels, n images, l levels, B draws.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alignet.evaluate.bootstrap import defined_interval

TEMPERATURE = 0.25  # of the flood fill; see fill_order
BACKGROUNDS = ("phase", "grey")
_LUMINANCE = (0.299, 0.587, 0.114)  # red, green, blue; ITU-R BT.601
_GREY = 128.0  # of a plain background, in 0..255
_SLOWEST = -500.0  # natural logarithm of the smallest rate of the flood fill: its inverse is still a float64


# ---- pictures ------------------------------------------------------------------------------------------


def phase_scrambled(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with random phases: its amplitude spectrum stays, its structure goes. float64 of the same shape.

    image: (H, W) or (H, W, 3), any finite numbers. One phase spectrum, that of a picture of real white noise, is added
    to the phases of all channels, so the result is real and the colours' relations stay. The mean of each channel (the
    phase at frequency 0) is kept. Each phase is uniform, but for the few frequencies that are their own mirror image,
    where it is 0 or pi. Values may leave the range of the image's; whoever makes 8-bit pixels of them clips.
    """
    pixels = _checked_picture(image)
    noise = np.fft.fft2(rng.standard_normal(pixels.shape[:2]))
    turn = noise / np.abs(noise)
    turn[0, 0] = 1
    if pixels.ndim == 3:
        turn = turn[..., None]
    return np.ascontiguousarray(np.fft.ifft2(np.fft.fft2(pixels, axes=(0, 1)) * turn, axes=(0, 1)).real)


def luminance(image: np.ndarray) -> np.ndarray:
    """Grey values (H, W) float64 of an RGB image (H, W, 3), in its own units: ITU-R BT.601, on stored values."""
    pixels = _checked_picture(image)
    return pixels @ np.array(_LUMINANCE) if pixels.ndim == 3 else pixels


def levels(count: int = 10, low: float = 0.01) -> np.ndarray:
    """Shares of the pixels that are revealed, (count,) float64 from `low` to 1 in equal steps of their logarithm."""
    if not isinstance(count, int) or count < 2 or not 0 < low < 1:
        raise ValueError(
            f"masking: expected at least 2 levels and a lowest share inside (0, 1), found {count} and {low}; set "
            "levels=10 and low=0.01, the paper's range."
        )
    return np.geomspace(low, 1.0, count)


def pixel_counts(shares: np.ndarray, pixels: int) -> np.ndarray:
    """How many of `pixels` each share (l,) is: int64 (l,), rounded, at least 1."""
    return np.maximum(np.rint(np.asarray(shares) * pixels), 1).astype(np.int64)


def fill_order(
    importance: np.ndarray,
    rng: np.random.Generator,
    *,
    count: int | None = None,
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """The pixels (row, column) in the order in which a stochastic flood fill reveals them: int64 (k, 2).

    importance: (H, W), finite and at least 0, not all 0. k: all H * W pixels, or `count`. Every beginning of the order
    is a mask, so masks of one order are nested, and a smaller `count` of the same generator gives a part of it.

    The fill begins at the most important pixel and grows through the 4 neighbours of what it holds. Each pixel at its
    border has a clock that rings at a rate of importance ** (1 / temperature), so the next pixel is drawn among them in
    proportion to these rates (exponential clocks have no memory; with equal rates this is Eden's and Richardson's
    growth). The scale of a map does not matter. Temperature 1 draws in proportion to importance, a smaller one prefers
    the important more, infinity knows no preference. Times are float64: behind a bottleneck that took 1e15 times as
    long as what follows, each pixel's own clock alone decides.

    Pixels of importance 0 come after all others. Where the others form several islands, the fill goes on at the most
    important pixel that is left once an island is full, so a mask is contiguous within each island. The pixels of
    importance 0 grow from the whole of what is filled, at one rate. Equal maxima are drawn at random.
    """
    weight = _checked_map(importance)
    if not temperature > 0:
        raise ValueError(f"masking: expected a temperature above 0, found {temperature}; set 0.25.")
    height, width = weight.shape
    wanted = weight.size if count is None else count
    if not 1 <= wanted <= weight.size:
        raise ValueError(
            f"masking: expected to reveal 1 to {weight.size:,} pixels of {height} x {width}, found {wanted:,}; ask for "
            "fewer, or enlarge the map."
        )
    waits = rng.standard_exponential((height, width))
    shown = weight > 0
    rate = np.zeros_like(weight)
    rate[shown] = (np.log(weight[shown]) - np.log(weight.max())) / temperature
    delay = waits * np.exp(-np.maximum(rate, _SLOWEST))
    order = _grow(delay, shown, np.lexsort((waits.ravel(), -weight.ravel())), wanted)
    return np.stack(np.divmod(np.array(order, dtype=np.int64), width), axis=1)


def _grow(delay: np.ndarray, shown: np.ndarray, seeds: np.ndarray, wanted: int) -> list[int]:
    """The first `wanted` flat pixels of the fill. delay: (H, W), of each once it borders. seeds: flat, best first."""
    width = delay.shape[1]
    stride = width + 2  # a border of closed pixels all around
    delays = np.pad(delay, 1).ravel().tolist()
    rows, columns = np.divmod(seeds[: int(shown.sum())], width)
    order: list[int] = []

    def flow(closed: bytearray, heap: list[tuple[float, float, int]]) -> None:
        while heap and len(order) < wanted:
            now, _, pixel = heapq.heappop(heap)
            order.append(pixel)
            border(closed, heap, now, pixel)

    def border(closed: bytearray, heap: list[tuple[float, float, int]], now: float, pixel: int) -> None:
        for other in (pixel - stride, pixel - 1, pixel + 1, pixel + stride):
            if not closed[other]:
                closed[other] = 1
                heapq.heappush(heap, (now + delays[other], delays[other], other))

    closed = bytearray(np.pad(~shown, 1, constant_values=True).tobytes())
    for seed in ((rows + 1) * stride + columns + 1).tolist():
        if not closed[seed]:  # or its island is full
            closed[seed] = 1
            flow(closed, [(0.0, 0.0, seed)])
        if len(order) == wanted:
            break
    else:  # the pixels of importance 0
        closed = bytearray(np.pad(shown, 1, constant_values=True).tobytes())
        heap: list[tuple[float, float, int]] = []
        for pixel in order:
            border(closed, heap, 0.0, pixel)
        flow(closed, heap)
    found = np.array(order)
    return ((found // stride - 1) * width + found % stride - 1).tolist()


def flood_fill(
    importance: np.ndarray, count: int, rng: np.random.Generator, *, temperature: float = TEMPERATURE
) -> np.ndarray:
    """The mask of the first `count` pixels of `fill_order`: bool (H, W)."""
    mask = np.zeros(np.shape(importance), dtype=bool)
    mask[tuple(fill_order(importance, rng, count=count, temperature=temperature).T)] = True
    return mask


def stimuli(
    image: np.ndarray,
    importance: np.ndarray,
    counts: Sequence[int] | np.ndarray,
    rng: np.random.Generator,
    *,
    grey: bool = True,
    centred: bool = True,
    background: str = "phase",
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """The image with `counts` (l,) of its most important pixels shown: uint8 (l, H, W, 3), nested over counts.

    image: uint8 (H, W, 3). importance: (H, W). All pictures of one call have one background: the image itself with
    scrambled phases (`phase`, clipped to 0..255), or plain mid-grey (`grey`), which gives away nothing of the image's
    spectrum. grey: the image is turned to its luminance first, so its background is grey too. centred: the
    revealed pixels are moved together so that the box around them lies in the middle of the picture, half a pixel
    above or left of it where it must; the box always fits, so nothing is cut off.
    """
    if np.asarray(image).dtype != np.uint8 or np.ndim(image) != 3 or np.shape(image)[2] != 3:
        raise ValueError(
            f"masking: expected an RGB image (H, W, 3) of uint8, found {np.shape(image)} of "
            f"{np.asarray(image).dtype}; convert it."
        )
    if np.shape(importance) != image.shape[:2]:
        raise ValueError(
            f"masking: expected an importance map of the image's size {image.shape[:2]}, found {np.shape(importance)}; "
            "resize it as the image was."
        )
    if background not in BACKGROUNDS:
        raise ValueError(f"masking: expected background {' or '.join(BACKGROUNDS)}, found {background!r}.")
    shown = luminance(image)[..., None] if grey else image.astype(np.float64)
    behind = np.full_like(shown, _GREY)
    order = fill_order(importance, rng, count=int(max(counts)), temperature=temperature)
    if background == "phase":
        behind = phase_scrambled(shown[..., 0] if grey else shown, rng).reshape(shown.shape)
    pictures = np.empty((len(counts), *image.shape), dtype=np.uint8)
    for picture, count in zip(pictures, counts, strict=True):
        rows, columns = order[:count].T
        values = behind.copy()
        down, right = (
            (_to_middle(rows, image.shape[0]), _to_middle(columns, image.shape[1])) if centred else (0, 0)
        )
        values[rows + down, columns + right] = shown[rows, columns]
        picture[...] = np.clip(np.rint(values), 0, 255)
    return pictures


def _to_middle(places: np.ndarray, size: int) -> int:
    """How far to move pixels along an axis of `size` so that their outermost are equally far from its ends."""
    first, last = int(places.min()), int(places.max())
    return (size - (last - first + 1)) // 2 - first


def stimulus(
    image: np.ndarray,
    importance: np.ndarray,
    share: float,
    rng: np.random.Generator,
    *,
    equal_pixels: int | None = None,
    grey: bool = True,
    centred: bool = True,
    background: str = "phase",
    temperature: float = TEMPERATURE,
) -> np.ndarray:
    """One picture of `stimuli`, uint8 (H, W, 3), with a share in (0, 1] of the map's non-zero pixels.

    equal_pixels: what 100% is instead, the same number for all images of a set. The same generator state gives nested
    pictures of one background over shares.
    """
    if not 0 < share <= 1:
        raise ValueError(f"masking: expected a share in (0, 1], found {share}; 1 is all non-zero pixels.")
    whole = int((_checked_map(importance) > 0).sum()) if equal_pixels is None else equal_pixels
    counts = pixel_counts(np.array([share]), whole)
    return stimuli(
        image, importance, counts, rng, grey=grey, centred=centred, background=background, temperature=temperature
    )[0]  # fmt: skip


def intact(image: np.ndarray, *, grey: bool = True) -> np.ndarray:
    """The whole image uint8 (H, W, 3) as the pictures of `stimuli` show it."""
    return np.repeat(np.rint(luminance(image)).astype(np.uint8)[..., None], 3, axis=2) if grey else image


def _checked_picture(image: np.ndarray) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim not in (2, 3) or pixels.size == 0 or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(
            f"masking: expected an image (H, W) or (H, W, 3), found the shape {pixels.shape}; take out the alpha "
            "channel, or put channels last."
        )
    if not np.isfinite(pixels).all():
        raise ValueError("masking: expected finite pixels, found NaN or infinity; mend the image.")
    return pixels


def _checked_map(importance: np.ndarray) -> np.ndarray:
    weight = np.asarray(importance, dtype=np.float64)
    if weight.ndim != 2:
        raise ValueError(
            f"masking: expected an importance map (H, W), found the shape {weight.shape}; give one image's map."
        )
    if not np.isfinite(weight).all() or not weight.size or weight.min() < 0 or weight.max() == 0:
        found = (
            f"{weight.min():g} to {weight.max():g}"
            if weight.size and np.isfinite(weight).all()
            else "none, NaN or infinity"
        )
        raise ValueError(
            f"masking: expected importance of at least 0 and not 0 everywhere, found {found}; clip negative values to "
            "0 or take their size, and leave out images without importance."
        )
    return weight


# ---- decisions -----------------------------------------------------------------------------------------


def members(ranges: Sequence[int | Sequence[int]], classes: int) -> np.ndarray:
    """Which of `classes` numbers are named: bool (classes,). ranges: numbers, and [first, last] with both ends.

    ImageNet-1k's animals are [[0, 397]].
    """
    named = np.zeros(classes, dtype=bool)
    for one in ranges:
        ends = [one, one] if isinstance(one, (int, np.integer)) else list(one)
        if len(ends) != 2 or not all(isinstance(end, (int, np.integer)) for end in ends):
            raise ValueError(
                f"masking: expected class numbers or [first, last], found {one!r}; write [[0, 397]] for the animals of "
                "ImageNet-1k."
            )
        if not 0 <= ends[0] <= ends[1] < classes:
            raise ValueError(
                f"masking: expected classes within 0 to {classes - 1}, the smaller number first, found {one}; name "
                "those of this network's classes."
            )
        named[ends[0] : ends[1] + 1] = True
    if named.all() or not named.any():
        raise ValueError(
            f"masking: expected some of {classes} classes, found {'all' if named.any() else 'none'}; a decision needs "
            "two sides."
        )
    return named


@dataclass(frozen=True)
class Curve:
    """Accuracy by share of revealed pixels, and its bootstrap draws, which resample images."""

    accuracy: np.ndarray  # (l,)
    intact: float  # accuracy on the whole images
    normalised: np.ndarray  # (l,) accuracy / intact
    low: np.ndarray  # (l,) of the 95% interval of `normalised`; NaN where all draws agree
    high: np.ndarray
    draws: np.ndarray  # (B, l) of `normalised`; NaN where a draw has no image that is right when whole
    n: int  # images


def curve(right: np.ndarray, right_intact: np.ndarray, *, bootstrap: int = 1000, seed: int = 0) -> Curve:
    """Accuracy at each level over accuracy on the whole images.

    right: bool (n, l), whether the decision on each picture was right. right_intact: bool (n,), of whole images.
    Intervals are percentiles of draws of images, the same for both accuracies. ValueError where no whole image is
    decided rightly: there is nothing to divide by.
    """
    shown, whole = np.asarray(right), np.asarray(right_intact)
    if shown.ndim != 2 or whole.shape != (len(shown),) or not len(shown):
        raise ValueError(
            f"masking: expected decisions (images, levels) and one for each whole image, found {shown.shape} and "
            f"{whole.shape}; give both for the same images."
        )
    if not whole.any():
        raise ValueError(
            f"masking: expected some of {len(whole)} whole images to be decided rightly, found none; check the "
            "classes that `animals` names and the images' labels."
        )
    n = len(shown)
    every = np.column_stack([shown, whole]).astype(np.float64)
    generator = np.random.default_rng(seed)
    sums = np.array(
        [np.bincount(generator.integers(n, size=n), minlength=n) @ every for _ in range(bootstrap)]
    )
    sums = sums.reshape(bootstrap, every.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = np.where(sums[:, -1:] > 0, sums[:, :-1] / sums[:, -1:], np.nan)
    ends = np.array([_ends(column) for column in draws.T])
    accuracy, whole_rate = every[:, :-1].mean(0), float(every[:, -1].mean())
    return Curve(accuracy, whole_rate, accuracy / whole_rate, ends[:, 0], ends[:, 1], draws, n)


def _ends(draws: np.ndarray) -> tuple[float, float]:
    low, high = spread_of(draws)[:2]
    return (math.nan, math.nan) if low is None or high is None else (low, high)


def spread_of(draws: np.ndarray) -> tuple[float | None, float | None, str]:
    """Percentile interval of draws (B,) and what is to be said of it; none where all draws agree."""
    known = draws[np.isfinite(draws)]
    if len(known) and np.ptp(known) == 0:
        return None, None, "no interval: all draws agree"
    return defined_interval(draws)


def area(normalised: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Area under curves (..., l) over the logarithm of shares (l,), as a mean height: 1 for a curve that is 1."""
    at = _checked_shares(shares)
    heights = np.asarray(normalised, dtype=np.float64)
    return ((heights[..., 1:] + heights[..., :-1]) / 2 * np.diff(at)).sum(-1) / (at[-1] - at[0])


class Distance(NamedTuple):
    """How far two curves are apart. mean: mean absolute difference over levels, the score. area: between them."""

    mean: np.ndarray
    area: np.ndarray


def distance(one: np.ndarray, other: np.ndarray, shares: np.ndarray) -> Distance:
    """Distances between curves (..., l) at the same shares (l,), ascending.

    The score is `mean`, which uses the measured levels alone. `area` is what lies between the curves, drawn with
    straight lines over the logarithm of the share, as a mean height; lines may cross between levels.
    """
    at = _checked_shares(shares)
    gap = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    left, right = np.abs(gap[..., :-1]), np.abs(gap[..., 1:])
    total = left + right
    crosses = gap[..., :-1] * gap[..., 1:] < 0
    heights = np.where(crosses, (left**2 + right**2) / (2 * np.where(total > 0, total, 1)), total / 2)
    return Distance(np.abs(gap).mean(-1), (heights * np.diff(at)).sum(-1) / (at[-1] - at[0]))


def at_shares(known: np.ndarray, heights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """A curve (l,) given at the ascending shares `known`, at other `shares`: straight lines over their logarithm."""
    return np.interp(np.log(shares), _checked_shares(known), heights)


def _checked_shares(shares: np.ndarray) -> np.ndarray:
    """Logarithms of shares (l,)."""
    given = np.asarray(shares, dtype=np.float64)
    if given.ndim != 1 or len(given) < 2 or not (given > 0).all() or not (np.diff(given) > 0).all():
        raise ValueError(
            f"masking: expected two or more ascending shares above 0, found {given.tolist()}; sort them and give each "
            "once."
        )
    return np.log(given)
