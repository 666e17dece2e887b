"""The spike-and-slab prior of VICE: a two-component zero-mean mixture for every entry of the embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

KINDS = ("gaussian", "laplace")


@dataclass(frozen=True)
class SpikeSlab:
    """p(y) = pi * spike(y) + (1 - pi) * slab(y), both components centred at zero.

    kind: `gaussian` or `laplace`. spike < slab: their standard deviations (Gaussian) or scale
    parameters (Laplace), in units of the embedding. pi: weight of the spike, inside (0, 1).
    """

    kind: str
    spike: float
    slab: float
    pi: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"VICE prior: expected one of {', '.join(KINDS)}, found {self.kind!r}.")
        if not 0 < self.spike < self.slab:
            raise ValueError(
                f"VICE prior: expected 0 < spike < slab, found spike {self.spike} and slab {self.slab}."
            )
        if not 0 < self.pi < 1:
            raise ValueError(f"VICE prior: expected pi inside (0, 1), found {self.pi}.")

    @property
    def constants(self) -> tuple[float, float, float, float]:
        """(odds, narrow, wide, level): log p(y) = softplus(odds - (narrow - wide) u) - wide u + level.

        u = y^2 / 2 (Gaussian) or |y| (Laplace). odds - (narrow - wide) u are the log odds that y belongs to the spike.
        """
        odds = math.log(self.pi / (1 - self.pi)) + math.log(self.slab / self.spike)
        if self.kind == "gaussian":
            narrow, wide, norm = self.spike**-2, self.slab**-2, math.log(self.slab * math.sqrt(2 * math.pi))
        else:
            narrow, wide, norm = 1 / self.spike, 1 / self.slab, math.log(2 * self.slab)
        return odds, narrow, wide, math.log1p(-self.pi) - norm

    def log_prob_and_slope(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """log p(y) of every entry in nats, and its derivative by y; both have the shape of y."""
        odds, narrow, wide, level = self.constants
        gaussian = self.kind == "gaussian"
        power, toward_zero = (0.5 * y.square(), y) if gaussian else (y.abs(), y.sign())
        logit = odds - (narrow - wide) * power
        log_prob = softplus(logit) - wide * power + level
        return log_prob, -toward_zero * (wide + (narrow - wide) * torch.sigmoid(logit))
