"""The engine that fits VICE: its loss and gradients in closed form.

The loss of a batch of b triplets out of n, for one draw Y = loc + scale * eps, in nats per triplet:

    mean over the batch of -log softmax([s01, s02, s12])[0], s = dot products of relu(Y)
    + (1 / n) * (log q(Y) - log p(Y))

Both parts are summed over every entry of Y at every step. `alignet.vice.model` states the same in Pyro.
Shape suffixes: m objects, d dimensions, b triplets.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from alignet.vice.gradient import cross_entropy
from alignet.vice.prior import SpikeSlab


class Step(NamedTuple):
    """One evaluation: `nll` and `complexity` in nats per triplet, gradients (m, d) of their sum."""

    nll: Tensor
    complexity: Tensor
    grad_loc: Tensor
    grad_log_scale: Tensor


def evaluate(
    loc: Tensor, log_scale: Tensor, noise: Tensor, batch: Tensor, *, n: int, prior: SpikeSlab
) -> Step:
    """Loss and gradients for the draw loc + exp(log_scale) * noise.

    loc, log_scale, noise: (m, d) float. batch: (b, 3) int64, odd one last. n: number of training triplets.
    """
    spread = log_scale.exp() * noise
    draw = loc + spread
    nll, slope = cross_entropy(draw.relu(), batch, None)
    slope *= draw > 0
    log_p, slope_p = prior.log_prob_and_slope(draw)
    entries = draw.numel()
    log_q = -log_scale.sum() - 0.5 * noise.square().sum() - 0.5 * entries * math.log(2 * math.pi)
    slope -= slope_p / n
    return Step(nll, (log_q - log_p.sum()) / n, slope, slope * spread - 1 / n)
