"""Cross-entropy of triplet answers under an embedding, with its gradient in closed form.

VICE meets it with the choices themselves, uncertainty distillation with soft labels. Neither a one-hot
nor an (n, d) array of all rows is ever built. Shape suffixes: m objects, d dimensions, b triplets.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 1 << 11  # triplets whose three rows are held at once: measured best, they stay in cache
_GPU_BLOCK = 1 << 16  # on a GPU, where every block is fifteen launches


def cross_entropy(embedding: Tensor, triplets: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean over triplets of -sum_r target_r log softmax([s01, s02, s12])_r, in nats, and its gradient.

    embedding: (m, d) float, similarities are its dot products at tau = 1. triplets: (b, 3) int64.
    targets: (b, 3) probabilities, or None where the chosen pair (entry 0) is the answer.
    Returns a scalar and an (m, d) gradient.
    """
    # measured: one Gram matrix costs about as much as gathering the rows of m^2 / 64 triplets
    if len(embedding) ** 2 <= 64 * len(triplets):
        return _by_gram(embedding, triplets, targets)
    return _by_rows(embedding, triplets, targets)


def _by_gram(embedding: Tensor, triplets: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    m = len(embedding)
    first, second, third = triplets.unbind(1)
    pairs = torch.stack([first * m + second, first * m + third, second * m + third], 1)
    sims = (embedding @ embedding.T).flatten().index_select(0, pairs.flatten()).view(-1, 3)
    loss, slopes = _softmax_loss(sims, targets, len(triplets))
    by_pair = embedding.new_zeros(m * m).scatter_add_(0, pairs.flatten(), slopes.flatten()).view(m, m)
    return loss, by_pair @ embedding + by_pair.T @ embedding


def _by_rows(embedding: Tensor, triplets: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
    loss, gradient = embedding.new_zeros(()), torch.zeros_like(embedding)
    size = _GPU_BLOCK if embedding.is_cuda else _BLOCK
    blocks = [None] * len(triplets.split(size)) if targets is None else targets.split(size)
    for rows, answers in zip(triplets.split(size), blocks):
        x, y, z = (embedding[column] for column in rows.unbind(1))
        sims = torch.stack([(x * y).sum(1), (x * z).sum(1), (y * z).sum(1)], 1)
        part, slopes = _softmax_loss(sims, answers, len(triplets))
        xy, xz, yz = slopes.unsqueeze(-1).unbind(1)
        loss += part
        gradient.index_add_(0, rows[:, 0], xy * y + xz * z)
        gradient.index_add_(0, rows[:, 1], xy * x + yz * z)
        gradient.index_add_(0, rows[:, 2], xz * x + yz * y)
    return loss, gradient


def _softmax_loss(sims: Tensor, targets: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies over `count`, and its slope by each similarity (b, 3)."""
    log_q = torch.log_softmax(sims, 1)
    slopes = log_q.exp()
    if targets is None:
        slopes[:, 0] -= 1
        return -log_q[:, 0].sum() / count, slopes / count
    return -(targets * log_q).sum() / count, (slopes - targets) / count
