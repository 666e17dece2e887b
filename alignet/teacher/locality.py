"""The local term of the gLocal transform: neighbourhoods that an affine map should leave as they are.

Features of any images, standardised as those of the judged objects, and the map's weights in; a loss and its gradient
out, which `distill` adds to what people's choices ask of the map. Shape suffixes: b images of a batch, p features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Locality:
    """What is kept: features (m, p) of any float dtype, the term's weight alpha, its temperature, images of a step."""

    features: Tensor
    weight: float
    temperature: float
    batch: int

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1 or not self.temperature > 0 or self.batch < 3:
            raise ValueError(
                f"distill local: expected a weight inside (0, 1), a temperature above 0 and a batch of 3 or more, "
                f"found {self.weight}, {self.temperature} and {self.batch}."
            )
        if self.features.ndim != 2 or len(self.features) < 3:
            raise ValueError(
                f"distill local: expected features of 3 or more images, found {tuple(self.features.shape)}."
            )

    def draw(self, seed: int, step: int) -> Tensor:
        """Features (b, p) float32 of different images, which follow from seed and step alone."""
        size = min(self.batch, len(self.features))
        drawn = np.random.default_rng([seed, 1, step]).choice(len(self.features), size, replace=False)
        rows = self.features[torch.from_numpy(drawn)].float()
        if not rows.isfinite().all():
            raise ValueError(
                "distill local: expected finite features, found NaN or infinity; embed the images again."
            )
        return rows


def local_loss(before: Tensor, after: Tensor, temperature: float) -> Tensor:
    """-1/b sum_i sum_{j != i} p_ij log q_ij in nats, with p and q of the features before and after the map.

    p_ij = exp(cos(x_i, x_j) / T) / sum_{k != i} exp(cos(x_i, x_k) / T), and q_ij the same of the mapped features: for
    each image a distribution over the others. before, after: (b, p). Muttenthaler et al. 2023, "Improving neural
    network representations using human similarity judgments", divide by b^2 - b, which is this over b - 1: ours is the
    mean over images, so that its weight does not hang on the batch. It is least, the mean entropy of p, where no cosine
    changes: for every multiple of the identity without a bias.
    """
    own = torch.eye(len(before), dtype=torch.bool, device=before.device)
    log_p, log_q = (_log_neighbours(rows, own, temperature) for rows in (before, after))
    return -(log_p.exp() * log_q).masked_fill(own, 0).sum(1).mean()


def _log_neighbours(rows: Tensor, own: Tensor, temperature: float) -> Tensor:
    unit = torch.nn.functional.normalize(rows, dim=1)
    # a finite value in the place of -inf, whose product with p = 0 would be NaN, and below what any temperature gives
    least = torch.finfo(unit.dtype).min
    return torch.log_softmax((unit @ unit.T / temperature).masked_fill(own, least), 1)


def local_objective(
    weights: Tensor, bias: Tensor, inputs: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`local_loss` of inputs (b, p) under x -> x @ weights + bias, and its gradients by weights and bias."""
    with torch.enable_grad():
        own_weights, own_bias = weights.detach().requires_grad_(), bias.detach().requires_grad_()
        loss = local_loss(inputs, inputs @ own_weights + own_bias, temperature)
        slopes = torch.autograd.grad(loss, [own_weights, own_bias])
    return loss.detach(), slopes[0], slopes[1]
