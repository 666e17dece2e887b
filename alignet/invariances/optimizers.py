"""Steps of an inversion: where each image goes from its gradient, independently of the others.

`adam`, `sgd` and `unit` are the plain ones. `quasi_newton` begins with Adam, whose large steps leave the noise, and
goes on with L-BFGS on half of the squared error, which ends lower after as many steps (docs/decisions.md).

Shape suffixes: b images; places (b, ...), pixels or Fourier coefficients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alignet.config import InvertMethod

BETAS, EPS = (0.9, 0.999), 1e-10  # of Adam; gradients of the error are small
WARM = 60  # steps of Adam before L-BFGS [ours]
MEMORY = 15  # pairs of changes that L-BFGS keeps [ours]
REACH = 1.5  # length of its steps at most, in l2 of pixels at 224 pixels a side, [ours]; smaller after a rise
CURVED = 1e-8  # least cosine of a pair that is used: others say nothing of curvature


class Optimizer:
    """The steps of one part of a search."""

    def __init__(self, method: InvertMethod, places: Tensor, steps: int, last: bool):
        """steps: of this part. last: whether it is the one that minimises the error alone after another part."""
        self.method, self.done = method, 0
        self.mean, self.square = torch.zeros_like(places), torch.zeros_like(places)
        quasi = method.optimizer == "quasi_newton"
        self.warm = steps if not quasi or (method.changed and not last) else 0 if last else min(WARM, steps)
        self.name = "adam" if quasi else method.optimizer
        self.newton: _QuasiNewton | None = None

    def only(self, going: Tensor) -> None:
        """Forget the images that do not go on, (b,) bool."""
        self.mean, self.square = self.mean[going], self.square[going]
        if self.newton is not None:
            self.newton.only(going)

    def move(self, places: Tensor, gradient: Tensor, error: Tensor, bounded: bool) -> Tensor:
        """The places after a step. gradient: of the loss, (b, ...). error: (b,). bounded: places are pixels."""
        if self.done >= self.warm:
            if self.newton is None:
                self.newton = _QuasiNewton(self.square / max(1 - BETAS[1] ** self.done, EPS), bounded)
            self.done += 1
            return places + self.newton.change(places, gradient * _each(error, gradient), error)
        share = self.done / self.warm
        falling = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
        rate = self.method.lr * falling[self.method.schedule]
        self.done += 1
        if self.name == "adam":
            one, two = BETAS
            self.mean = one * self.mean + (1 - one) * gradient
            self.square = two * self.square + (1 - two) * gradient.square()
            scale = (self.square / (1 - two**self.done)).sqrt() + EPS
            gradient = self.mean / (1 - one**self.done) / scale
        elif self.name == "unit":
            length = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
            gradient = gradient / _each(length.clamp_min(1e-30), gradient)
        return places - rate * gradient


class _QuasiNewton:
    """L-BFGS with a diagonal first guess and no line search: after a step that raised the error the next are shorter.

    What leaves [0, 1] is cut by the caller; pixels at a bound that would be pushed out stay out of a step.
    """

    def __init__(self, square: Tensor, bounded: bool):
        """square: means of squared gradients, (b, ...), from which the first guess comes; zeros for none."""
        guess = 1 / (square.sqrt() + EPS)
        self.guess = guess / _each(guess.flatten(1).mean(1), guess)
        self.bounded = bounded
        self.pairs: list[
            tuple[Tensor, Tensor, Tensor]
        ] = []  # changes of place and of gradient, 1 / their product
        self.before: tuple[Tensor, Tensor, Tensor] | None = None  # place, gradient and error of the last step
        self.longest = REACH * math.sqrt(square[0].numel() / (3 * 224 * 224))
        self.reach = torch.full((len(square),), self.longest, device=square.device)

    def only(self, going: Tensor) -> None:
        self.guess, self.reach = self.guess[going], self.reach[going]
        self.pairs = [(s[going], y[going], rho[going]) for s, y, rho in self.pairs]
        if self.before is not None:
            place, gradient, error = self.before
            self.before = place[going], gradient[going], error[going]

    def change(self, places: Tensor, gradient: Tensor, error: Tensor) -> Tensor:
        """What to add to places (b, ...). gradient: of half of the squared error."""
        self._remember(places, gradient, error)
        free = torch.ones_like(gradient, dtype=torch.bool)
        if self.bounded:
            free = ~(((places <= 0) & (gradient > 0)) | ((places >= 1) & (gradient < 0)))
        step = gradient * free
        shares = []
        for s, y, rho in reversed(self.pairs):
            share = rho * _dot(s, step)
            step = step - _each(share, step) * y
            shares.append(share)
        length = error.square() / _dot(gradient, self.guess * gradient).clamp_min(
            1e-30
        )  # to zero, were it linear
        if self.pairs:
            s, y, rho = self.pairs[-1]
            curved = _dot(s, y) / _dot(y, self.guess * y).clamp_min(1e-30)
            length = torch.where(rho > 0, curved, length)
        step = _each(length, step) * self.guess * step
        for (s, y, rho), share in zip(self.pairs, reversed(shares), strict=True):
            step = step + _each(share - rho * _dot(y, step), step) * s
        step = step * free
        norm = torch.linalg.vector_norm(step.flatten(1), dim=1).clamp_min(1e-30)
        return -step * _each((self.reach / norm).clamp_max(1), step)

    def _remember(self, places: Tensor, gradient: Tensor, error: Tensor) -> None:
        if self.before is not None:
            place, before, lowest = self.before
            self.reach = torch.where(
                error > lowest, self.reach / 2, (self.reach * 1.2).clamp_max(self.longest)
            )
            s, y = places - place, gradient - before
            product, least = _dot(s, y), CURVED * (_dot(s, s) * _dot(y, y)).sqrt()
            rho = torch.where(product > least, 1 / product.clamp_min(1e-30), 0.0)
            self.pairs = [*self.pairs[-MEMORY + 1 :], (s, y, rho)]
        self.before = places, gradient, error


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """(b,) with as many axes as `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))
