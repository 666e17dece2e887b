"""Distances of inverted images to their targets, their seeds and all targets, in blocks of bounded memory.

What a distance keeps of an image is computed once for each block of targets, of which as many are held as `HELD` bytes
have room for: a hundred images of 224 pixels are one block of shift-tolerant AlexNet (8 MB each), three of VGG-16 (24).

Shape suffixes: n targets, k draws of each, m images, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from alignet.invariances.perceptual import Distance

HELD = 2**31  # bytes of what is kept of targets while they are joined; beside it a shard and a forward pass

Advance = Callable[[int], None]
Shards = Callable[[], Iterator[dict[str, np.ndarray]]]  # image, seed and inverted of some targets


@torch.no_grad()
def measure(
    distance: Distance, shards: Shards, *, batch: int, device: torch.device | str, advance: Advance, held: int = HELD
) -> dict[str, np.ndarray]:  # fmt: skip
    """to_target and to_seed (n, k), to_targets (n, k, n) and between_targets (n, n): float32, of the floats `inverted`.

    shards: opens what `invert` stored from the first row on, each time it is called. batch: images of one forward pass.
    advance: is told how many more of the n k n distances to targets are there; 0 as a batch begins. ValueError for
    distances that are not finite.
    """
    shapes = [part["inverted"].shape[:2] for part in shards()]
    n, k = sum(rows for rows, _ in shapes), shapes[0][1]
    to_seed, to_targets = np.zeros((n, k), np.float32), np.zeros((n, k, n), np.float32)
    between_targets = np.zeros((n, n), np.float32)

    def embedded(images: np.ndarray) -> list[Tensor]:
        advance(0)
        return distance.embed(_pixels(images).to(device))

    for columns, block in _blocks(shards, batch, embedded, held):
        for rows, inverted, seeds in _batches(shards, batch, "inverted", "seed"):
            made = embedded(inverted)
            to_targets.reshape(n * k, n)[rows, columns] = distance.between(made, block).cpu().numpy()
            if columns.start == 0:
                to_seed.reshape(-1)[rows] = _row_by_row(distance, made, embedded(seeds))
            advance(len(rows) * len(block[0]))
        if len(block[0]) == n:
            between_targets[:] = distance.between(block, block).cpu().numpy()
            continue
        for rows, images in _batches(shards, batch, "image"):
            between_targets[rows, columns] = distance.between(embedded(images), block).cpu().numpy()
    to_target = np.stack([to_targets[row, :, row] for row in range(n)])
    arrays = {
        "to_target": to_target,
        "to_seed": to_seed,
        "to_targets": to_targets,
        "between_targets": between_targets,
    }
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"perceptual distance {distance.name}: expected finite numbers, found NaN or infinity in {name}; check "
                f"the weights of its network."
            )
    return arrays


def _row_by_row(distance: Distance, a: list[Tensor], b: list[Tensor]) -> np.ndarray:
    """Distances (m,) of rows, as `between` computes them, so that those that are equal are so to the last bit."""
    rows = [
        ([one[row : row + 1] for one in a], [one[row : row + 1] for one in b]) for row in range(len(a[0]))
    ]
    return np.array([distance.between(one, other).item() for one, other in rows], np.float32)


def _blocks(
    shards: Shards, batch: int, embedded: Callable[[np.ndarray], list[Tensor]], held: int
) -> Iterator[tuple[slice, list[Tensor]]]:
    """Embeddings of targets, and their rows; as many batches at once as `held` bytes have room for, at least one."""
    parts: list[list[Tensor]] = []
    start = end = size = 0
    for rows, images in _batches(shards, batch, "image"):
        part = embedded(images)
        more = sum(one.numel() * one.element_size() for one in part)
        if parts and 2 * (size + more) > held:  # joined, they are there twice
            yield slice(start, end), _joined(parts)
            parts, start, size = [], end, 0
        parts.append(part)
        end, size = end + len(rows), size + more
    if parts:
        yield slice(start, end), _joined(parts)


def _joined(parts: list[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(one) for one in zip(*parts, strict=True)]


def _batches(shards: Shards, batch: int, *names: str) -> Iterator[tuple[np.ndarray, ...]]:
    """Rows (m,) as all shards count them, and the images (m, 3, H, W) of each name; draws of a target one by one."""
    before = 0
    for part in shards():
        images = [part[name].reshape(-1, *part[name].shape[-3:]) for name in names]
        for start in range(0, len(images[0]), batch):
            chosen = [one[start : start + batch] for one in images]
            yield before + start + np.arange(len(chosen[0])), *chosen
        before += len(images[0])


def _pixels(images: np.ndarray) -> Tensor:
    """Stored images, uint8 or float32 in [0, 1], as float32 in [0, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return pixels.to(torch.float32) / 255 if pixels.dtype == torch.uint8 else pixels.to(torch.float32)
