"""VICE as published, in plain PyTorch: the baseline of `benchmarks.vice`.

Written from the paper (Muttenthaler et al. 2022, "VICE: Variational Interpretable Concept Embeddings") and from what is
known of its way of computing: every batch of triplets becomes one-hot rows that select from the sampled embedding by a
matrix product; the densities of the complexity term are exponentials whose logarithm is taken; autograd; Adam.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Vice(nn.Module):
    """A mean and a log scale for each entry of the embedding (m, d); a forward pass draws one embedding."""

    def __init__(self, loc: Tensor, log_scale: Tensor):
        super().__init__()
        self.loc = nn.Parameter(loc.clone())
        self.log_scale = nn.Parameter(log_scale.clone())

    def forward(self, one_hot: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """one_hot: (3 b, m). Returns the rows (3 b, d) that it selects of relu(draw), the draw, and the scale."""
        noise = torch.randn_like(self.loc) if noise is None else noise
        scale = self.log_scale.exp()
        draw = self.loc + scale * noise
        return one_hot @ draw.relu(), draw, scale


def encode(eye: Tensor, triplets: Tensor) -> Tensor:
    """One-hot rows (3 b, m) of triplets (b, 3); eye: (m, m)."""
    return eye[triplets.flatten()]


def similarities(rows: Tensor) -> Tensor:
    """Dot products [s01, s02, s12] (b, 3) of rows (3 b, d)."""
    first, second, third = rows.view(-1, 3, rows.shape[1]).unbind(1)
    return torch.stack([(first * second).sum(1), (first * third).sum(1), (second * third).sum(1)], 1)


def density(x: Tensor, mean: Tensor | float, deviation: Tensor | float) -> Tensor:
    """The normal distribution's."""
    return torch.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))


def loss(
    model: Vice, one_hot: Tensor, *, n: int, spike: float, slab: float, pi: float, noise: Tensor | None = None
) -> Tensor:
    """Cross-entropy of a batch and complexity over n, in nats per triplet."""
    rows, draw, scale = model(one_hot, noise)
    nll = -torch.log_softmax(similarities(rows), 1)[:, 0].mean()
    log_q = density(draw, model.loc, scale).log()
    log_p = (pi * density(draw, 0.0, spike) + (1 - pi) * density(draw, 0.0, slab)).log()
    return nll + (log_q.sum() - log_p.sum()) / n


def step(
    model: Vice, optimizer: torch.optim.Optimizer, eye: Tensor, triplets: Tensor, *, n: int, spike: float, slab: float,
    pi: float,
) -> float:  # fmt: skip
    """One step; its loss, which the published program keeps."""
    optimizer.zero_grad()
    value = loss(model, encode(eye, triplets), n=n, spike=spike, slab=slab, pi=pi)
    value.backward()
    optimizer.step()
    return value.item()


@torch.no_grad()
def probabilities(
    loc: Tensor, scale: Tensor, eye: Tensor, triplets: Tensor, noise: Tensor, batch: int
) -> Tensor:
    """Mean over draws (noise: R x m x d) of the softmax of a batch's similarities, one-hot rows by batches: (n, 3)."""
    total = torch.zeros(len(triplets), 3, device=loc.device)
    for one in noise:
        draw = (loc + scale * one).relu()
        parts = [torch.softmax(similarities(encode(eye, part) @ draw), 1) for part in triplets.split(batch)]
        total += torch.cat(parts)
    return total / len(noise)
