"""FLOPs, bytes and units of work of each kind of computation, as functions of its sizes; docs/scaling.md has the table.

A multiply-add is two FLOPs. Bytes are those of arrays read and written at least once, caches or not.

Sizes: m objects, d dimensions of VICE, n triplets, N images, p and q features of teacher and student, b triplets or
images of a step, k clusters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

ENTRY_FLOPS = (
    40  # of an entry of VICE's embedding in a step: draw 3, log q 4, log p of two components 19, Adam 14
)
ENTRY_ARRAYS = 20  # float32 arrays (m, d) read or written: loc, log scale, noise, draw, slopes, four moments
FINETUNE_ARRAYS = (
    12  # float32 arrays of all that trains, in a step: weights 3, gradients 3, moments 4, start, update
)

SGD_ARRAYS = 7  # float32 arrays of all that trains, in a step of SGD: weights 2, gradients 3, momentum 2
PLAIN = 3  # forward passes that forward and backward take
SECOND_KEPT = 2.5  # times what backward keeps that a second derivative keeps [counted: 1.7 to 2.6]


@dataclass(frozen=True)
class Work:
    """An amount of work. units: of constants.UNITS, how many."""

    flops: float = 0.0
    bytes: float = 0.0
    units: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        units = Counter(self.units)
        units.update(other.units)
        return Work(self.flops + other.flops, self.bytes + other.bytes, dict(units))

    def times(self, factor: float) -> Work:
        """So many times as much."""
        units = {name: factor * number for name, number in self.units.items()}
        return Work(factor * self.flops, factor * self.bytes, units)


def product(rows: float, inner: float, columns: float) -> Work:
    """A float32 product of matrices (rows, inner) and (inner, columns)."""
    flops = 2 * rows * inner * columns
    return Work(flops, 4 * (rows * inner + inner * columns + rows * columns), {"product": flops})


def vice_step(m: float, d: float, b: float) -> Work:
    """A step of VICE: every entry of the embedding, and three rows for each triplet with their gradient."""
    flops = ENTRY_FLOPS * m * d + 24 * b * d
    moved = 4 * ENTRY_ARRAYS * m * d + 4 * 9 * b * d
    return Work(flops, moved, {"vice entry": m * d, "vice value": b * d, "vice step": 1})


def vice_epoch(m: float, d: float) -> Work:
    """The end of an epoch of VICE: which dimensions are kept."""
    return Work(0, 16 * m * d, {"vice epoch": m * d})


def probabilities(m: float, d: float, n: float) -> Work:
    """Softmax over the pairs of n triplets in one embedding, from its matrix of similarities."""
    return product(m, d, m) + Work(20 * n, 72 * n, {"lookup": n})


def answers(m: float, p: float, n: float) -> Work:
    """The odd one out of n triplets of m things, from the matrix of their similarities."""
    return product(m, p, m) + Work(6 * n, 60 * n, {"answer": n})


def map_step(m: float, p: float, b: float) -> Work:
    """A step of the map's fit: map the objects, all their similarities, and both ways back."""
    inside = product(m, p, p) + product(m, p, m).times(3) + product(p, m, p)
    return inside + Work(30 * b, 100 * b, {"map triplet": b}) + Work(6 * p * p, 28 * p * p)


def map_fit(m: float, p: float, n: float, b: float, steps: float) -> Work:
    """A fit on n triplets of m objects, and what it is measured on."""
    return map_step(m, p, min(b, n)).times(steps) + Work(0, 100 * n, {"map row": n})


def kmeans(rows: float, p: float, k: float, iterations: float) -> Work:
    """Lloyd iterations over so many rows; one iteration is an assignment."""
    flops = 2 * rows * p * k * iterations
    return Work(flops, 4 * rows * p * iterations, {"distance": flops})


def clustering(images: float, p: float, k: float, iterations: float, starts: float, rows: float) -> Work:
    """k-means from several starts on so many rows, and the assignment of all images."""
    return kmeans(rows, p, k, iterations).times(starts) + kmeans(images, p, k, 1)


def draw(n: float, images: float) -> Work:
    """n distinct triplets: images sorted by cluster, triplets drawn, and searched for repeats."""
    return Work(0, 144 * n + 40 * images, {"draw": n, "grouped image": images})


def label(n: float, p: float, size: float) -> Work:
    """Three similarities of n triplets; size: bytes of a stored number."""
    return Work(6 * p * n, 3 * p * n * size, {"label value": n * p})


def mapped(images: float, p: float) -> Work:
    """Features through an affine map."""
    return product(images, p, p)


def forward(images: float, flops: float, kind: str) -> Work:
    """Forward passes. kind: of the network."""
    return Work(images * flops, 0, {kind: images * flops})


def read(images: float, size: float) -> Work:
    """Images of so many bytes opened, decoded and resized."""
    return Work(0, images * size, {"decoded byte": images * size, "image": images})


def finetune_step(b: float, training: float, trained: float, triplets: float, kept: float, kind: str) -> Work:
    """Forward and backward of b images of `training` FLOPs, the loss of so many triplets, Adam and the way back.

    kept: bytes of activations of one image, written forward and read backward.
    """
    flops = b * training
    work = Work(flops, 2 * b * kept, {f"trained {kind}": flops})
    work += Work(14 * triplets, 40 * triplets, {"in-batch triplet": triplets})
    return work + Work(20 * trained, 4 * FINETUNE_ARRAYS * trained, {"parameter": trained})


def gradients(images: float, forward: float, kept: float, kind: str) -> Work:
    """Gradients of a logit by the pixels: forward, and backward through activations alone, which is as much."""
    flops = 2 * images * forward
    return Work(flops, 2 * images * kept, {f"trained {kind}": flops})


def harmonize_step(
    plain: float, mapped: float, forward: float, trained: float, kept: float, kind: str
) -> tuple[Work, Work]:
    """A step of images without maps, with SGD; and what it has of images with maps.

    A second derivative has twice the products of forward and backward [counted: 2.0 for ResNets, XCiT and
    depthwise convolutions, 2.0 to 2.2 for vision transformers], and keeps SECOND_KEPT times as much.
    """
    flops = plain * PLAIN * forward
    first = Work(flops, 2 * plain * kept, {f"trained {kind}": flops})
    first += Work(6 * trained, 4 * SGD_ARRAYS * trained, {"parameter": trained})
    flops = 2 * mapped * PLAIN * forward
    return first, Work(flops, 2 * mapped * SECOND_KEPT * kept, {f"trained {kind}": flops})


def robust_step(b: float, flops: float, trained: float, kept: float, passes: int, kind: str) -> Work:
    """A step of adversarial training of b images of so many FLOPs in all, with their attacks, by SGD.

    passes: forward and backward passes of an image, each of which writes and reads what it keeps.
    """
    work = Work(b * flops, 2 * passes * b * kept, {f"trained {kind}": b * flops})
    return work + Work(6 * trained, 4 * SGD_ARRAYS * trained, {"parameter": trained})


def compared(pairs: float, values: float) -> Work:
    """Squared differences of pairs of images, of each of which so many numbers are kept."""
    return Work(
        3 * pairs * values, 8 * pairs * values, {"label value": 2 / 3 * pairs * values}
    )  # of three rows there


def ridge(images: float, q: float, p: float) -> Work:
    """Ridge regression of p features on q predictors with leave-one-out errors, in float64."""
    least = min(images, q)
    flops = 8 * images * q * least + 4 * images * least * p
    return Work(flops, 8 * images * (p + q) * 6, {"double": flops})


def hashed(size: float) -> Work:
    """Bytes read and hashed."""
    return Work(0, size, {"hashed byte": size})
