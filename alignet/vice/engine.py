"""The engine that fits VICE: its loss and gradients in closed form, and the step that Adam takes with them.

The loss of a batch of b triplets out of n, for one draw Y = loc + scale * eps, in nats per triplet:

    mean over the batch of -log softmax([s01, s02, s12])[0], s = dot products of relu(Y)
    + (1 / n) * (log q(Y) - log p(Y))

Both parts are summed over every entry of Y at every step. `alignet.vice.model` states the same in Pyro,
`alignet.vice.compiled` does the same on a CPU in a fraction of the time. Shape suffixes: m objects, d dimensions,
b triplets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from alignet.vice.gradient import cross_entropy
from alignet.vice.noise import normal
from alignet.vice.prior import SpikeSlab

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, PyTorch's defaults
PARAMETERS, MOMENTS = ("loc", "log_scale"), ("exp_avg", "exp_avg_sq")


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


class Engine:
    """Parameters of a fit, Adam's moments, and the sums of both parts of the loss since they were last reset.

    Works on any device without waiting for it: only `sums` waits. `step` is all that a faster engine does otherwise.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, *, n: int, prior: SpikeSlab, lr: float, seed: int):
        """loc, log_scale: (m, d) float32 of the same device, changed in place. n: number of training triplets."""
        self.n, self.prior, self.lr, self.seed = n, prior, lr, seed
        self.state = {"loc": loc, "log_scale": log_scale}
        self.state |= {
            f"adam.{name}.{moment}": torch.zeros_like(loc) for name in PARAMETERS for moment in MOMENTS
        }
        self.loc, self.log_scale = loc, log_scale
        self.sums_on_device = torch.zeros(2, dtype=torch.float64, device=loc.device)
        # counted on the device as well, so that a step needs nothing from here but its batch and noise
        self._index, self._taken = 0, torch.zeros((), dtype=torch.float64, device=loc.device)

    def step(self, batch: Tensor, index: int) -> None:
        """Draw, evaluate a batch (b, 3) int64, and take Adam's step number `index`, from 0."""
        noise = normal(tuple(self.loc.shape), self.seed, "noise", index, self.loc.device)
        self.step_with_noise(batch, noise, index)

    def step_with_noise(self, batch: Tensor, noise: Tensor, index: int) -> None:
        """A step for this noise (m, d)."""
        if index != self._index:
            self._taken.fill_(index)
        self._index = index + 1
        self._take(batch, noise)

    def _take(self, batch: Tensor, noise: Tensor) -> None:
        found = evaluate(self.loc, self.log_scale, noise, batch, n=self.n, prior=self.prior)
        self.sums_on_device += torch.stack([found.nll, found.complexity])
        self._taken += 1
        first, second = ((1 - beta**self._taken).float() for beta in BETAS)
        for name, gradient in (("loc", found.grad_loc), ("log_scale", found.grad_log_scale)):
            mean, square = (self.state[f"adam.{name}.{moment}"] for moment in MOMENTS)
            mean.lerp_(gradient, 1 - BETAS[0])
            square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            deviation = square.sqrt().div_(second.sqrt()).add_(EPSILON)
            self.state[name].sub_((mean / deviation).mul_(self.lr / first))

    def sums(self) -> list[float]:
        """Sums of nll and complexity over the steps since `reset`."""
        return self.sums_on_device.tolist()

    def reset(self, sums: list[float]) -> None:
        """Begin again with these sums: zeros in a new epoch, those of a checkpoint in one that is resumed."""
        self.sums_on_device.copy_(torch.tensor(sums, dtype=torch.float64))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take parameters and moments from a checkpoint. ValueError where their names or shapes are others."""
        for name, own in self.state.items():
            if name not in tensors or tensors[name].shape != own.shape:
                found = tuple(tensors[name].shape) if name in tensors else "none"
                raise ValueError(f"expected {name} of shape {tuple(own.shape)}, found {found}")
            own.copy_(tensors[name])
