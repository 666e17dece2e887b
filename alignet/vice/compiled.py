"""The engine that fits VICE on a CPU: loops that numba compiles, on the memory of PyTorch's tensors.

It computes what `engine.evaluate` states, and Adam's update (Kingma and Ba 2015, as torch.optim.Adam), in four passes
over the embedding that stay in a core's cache: noise, draw, the batch of choices, and complexity with the update. One
thread. Compiling takes 3 to 4 s, once a process; nothing compiled is kept on disk. Shape suffixes: m objects, d
dimensions, b triplets.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from alignet.vice.arithmetic import compiled, exp, f4, inlined, log, random_bits, two_normals, u4
from alignet.vice.engine import BETAS, EPSILON, MOMENTS, PARAMETERS, Engine
from alignet.vice.noise import key
from alignet.vice.prior import SpikeSlab

_WIDTH = 120  # columns at a time: a product of so many numbers within [1, 2] is a float32
_LOOKED_UP = 1024  # triplets at a time


@compiled
def fill_normal(out, k0, k1, c2, c3):
    """Fill `out` (float32, a multiple of 4) with standard normal numbers known by key, c2, c3 and the place alone."""
    quarter = len(out) // 4
    first, second = out[:quarter], out[quarter : 2 * quarter]
    third, fourth = out[2 * quarter : 3 * quarter], out[3 * quarter :]
    for j in range(quarter):
        w0, w1, w2, w3 = random_bits(u4(j), u4(0), u4(c2), u4(c3), u4(k0), u4(k1))
        first[j], second[j] = two_normals(w0, w1)
        third[j], fourth[j] = two_normals(w2, w3)


@compiled
def _positive_draw(loc, log_scale, noise, positive):
    """positive (m, d) becomes relu(loc + exp(log_scale) * noise)."""
    mean, spread, eps, out = loc.reshape(-1), log_scale.reshape(-1), noise.reshape(-1), positive.reshape(-1)
    for i in range(len(out)):
        out[i] = max(mean[i] + exp(spread[i]) * eps[i], f4(0))


@compiled
def _choices(positive, batch, slope):
    """Mean cross-entropy of the chosen pairs of a batch, in nats; slope (m, d) becomes its gradient."""
    slope[:] = f4(0)
    loss, share = 0.0, f4(1.0 / len(batch))
    for row in range(len(batch)):
        x, y, z = positive[batch[row, 0]], positive[batch[row, 1]], positive[batch[row, 2]]
        xy, xz, yz = f4(0), f4(0), f4(0)
        for c in range(len(x)):
            xy += x[c] * y[c]
            xz += x[c] * z[c]
            yz += y[c] * z[c]
        top = max(xy, max(xz, yz))
        weights = exp(xy - top), exp(xz - top), exp(yz - top)
        total = weights[0] + weights[1] + weights[2]
        loss += (top - xy) + log(total)
        by_xy, by_xz, by_yz = (
            weights[0] / total * share - share,
            weights[1] / total * share,
            weights[2] / total * share,
        )
        to_x, to_y, to_z = slope[batch[row, 0]], slope[batch[row, 1]], slope[batch[row, 2]]
        for c in range(len(x)):
            to_x[c] += by_xy * y[c] + by_xz * z[c]
            to_y[c] += by_xy * x[c] + by_yz * z[c]
            to_z[c] += by_xz * x[c] + by_yz * y[c]
    return loss * share


@inlined
def _complexity(loc, log_scale, noise, slope, share, gaussian, odds, narrow, wide):
    """Sum over at most _WIDTH entries of log q - log p without their constants; gradients replace slope and noise.

    softplus of the log odds is max(odds, 0) + log(1 + exp(-|odds|)); the logarithms are taken of their product.
    """
    total, product = f4(0), f4(1)
    for c in range(len(loc)):
        spread = exp(log_scale[c]) * noise[c]
        y = loc[c] + spread
        power, toward_zero = (f4(0.5) * y * y, y) if gaussian else (abs(y), f4(1) if y > 0 else f4(-1))
        logit = odds - (narrow - wide) * power  # log odds that the entry belongs to the spike
        small = exp(-abs(logit))
        product *= f4(1) + small
        total += wide * power - max(logit, f4(0)) - log_scale[c] - f4(0.5) * noise[c] * noise[c]
        spike = (f4(1) if logit >= 0 else small) / (f4(1) + small)
        likely = slope[c]
        by_loc = (likely if y > 0 else f4(0)) + share * toward_zero * (wide + (narrow - wide) * spike)
        slope[c], noise[c] = by_loc, by_loc * spread - share
    return total - log(product)


@inlined
def _adam(parameter, gradient, mean, square, keep, keep_square, rate, correction):
    """Adam's update of one row in place; rate and correction hold what its bias corrections make of them."""
    for c in range(len(parameter)):
        g = gradient[c]
        first = mean[c] + (g - mean[c]) * (f4(1) - keep)
        second = square[c] * keep_square + (f4(1) - keep_square) * g * g
        mean[c], square[c] = first, second
        parameter[c] -= rate * first / (np.sqrt(second) * correction + f4(EPSILON))


@compiled
def _update(parameters, moments, noise, slope, prior, adam):
    """Complexity (see above) of the whole draw; the gradients in the place of slope and noise; and Adam's step.

    Pairs are of loc and log_scale. Row by row, so that a row is in the fastest cache while Adam takes it.
    """
    loc, log_scale = parameters
    (loc_mean, loc_square), (scale_mean, scale_square) = moments
    share, gaussian, odds, narrow, wide = prior
    keep, keep_square, rate, correction = adam
    total = 0.0
    for i in range(len(loc)):
        for start in range(0, loc.shape[1], _WIDTH):
            own = slice(start, start + _WIDTH)
            total += _complexity(
                loc[i, own],
                log_scale[i, own],
                noise[i, own],
                slope[i, own],
                share,
                gaussian,
                odds,
                narrow,
                wide,
            )
        _adam(loc[i], slope[i], loc_mean[i], loc_square[i], keep, keep_square, rate, correction)
        _adam(log_scale[i], noise[i], scale_mean[i], scale_square[i], keep, keep_square, rate, correction)
    return total


@inlined
def _softmax(x, y, z):
    """Three aligned arrays of similarities become probabilities."""
    for r in range(len(x)):
        top = max(x[r], max(y[r], z[r]))
        x[r], y[r], z[r] = exp(x[r] - top), exp(y[r] - top), exp(z[r] - top)
        share = f4(1) / (x[r] + y[r] + z[r])
        x[r], y[r], z[r] = x[r] * share, y[r] * share, z[r] * share


@inlined
def _add(target, source):
    for r in range(len(source)):
        target[r] += source[r]


@compiled
def add_probabilities(gram, xy, xz, yz, to_xy, to_xz, to_yz):
    """Add softmax of three similarities of every triplet, looked up in a flat Gram matrix, to float32 arrays (n,).

    xy, xz, yz: (n,) int32, where in `gram` a triplet's similarities are. A block at a time: looking up and computing
    are loops of their own, of which the latter is vectorised.
    """
    held = np.empty((3, _LOOKED_UP), f4)
    for start in range(0, len(xy), _LOOKED_UP):
        own = slice(start, min(start + _LOOKED_UP, len(xy)))
        first, second, third = xy[own], xz[own], yz[own]
        x, y, z = held[0, : len(first)], held[1, : len(first)], held[2, : len(first)]
        for r in range(len(first)):
            x[r], y[r], z[r] = gram[first[r]], gram[second[r]], gram[third[r]]
        _softmax(x, y, z)
        _add(to_xy[own], x)
        _add(to_xz[own], y)
        _add(to_yz[own], z)


class CompiledEngine(Engine):
    """The engine on a CPU. Its noise is Philox's, of which every number is known by seed, step and place."""

    def __init__(self, loc: Tensor, log_scale: Tensor, *, n: int, prior: SpikeSlab, lr: float, seed: int):
        super().__init__(loc, log_scale, n=n, prior=prior, lr=lr, seed=seed)
        self.slope, self._positive = np.empty((2, *loc.shape), f4)
        self._normal = np.empty((loc.numel() + 3) // 4 * 4, f4)
        self.noise = self._normal[: loc.numel()].reshape(loc.shape)
        arrays = {name: tensor.numpy() for name, tensor in self.state.items()}
        self._parameters = arrays["loc"], arrays["log_scale"]
        self._moments = tuple(
            tuple(arrays[f"adam.{name}.{moment}"] for moment in MOMENTS) for name in PARAMETERS
        )
        self._key = key(seed, "noise")
        odds, narrow, wide, level = prior.constants
        self._prior = (f4(1 / n), prior.kind == "gaussian", f4(odds), f4(narrow), f4(wide))
        self._level = loc.numel() * (level + 0.5 * math.log(2 * math.pi))
        self._sums = [0.0, 0.0]

    def step(self, batch: Tensor, index: int) -> None:
        """See Engine."""
        fill_normal(self._normal, *self._key, index & 0xFFFFFFFF, index >> 32)
        self._step(batch, index)

    def step_with_noise(self, batch: Tensor, noise: Tensor, index: int) -> None:
        """See Engine."""
        self.noise[:] = noise.numpy()
        self._step(batch, index)

    def _step(self, batch: Tensor, index: int) -> None:
        """A step for what `noise` holds. Afterwards `slope` is the gradient by loc, and `noise` that by log_scale."""
        _positive_draw(*self._parameters, self.noise, self._positive)
        nll = _choices(self._positive, batch.numpy(), self.slope)
        first, second = (1 - beta ** (index + 1) for beta in BETAS)
        adam = (f4(BETAS[0]), f4(BETAS[1]), f4(self.lr / first), f4(1 / math.sqrt(second)))
        found = _update(self._parameters, self._moments, self.noise, self.slope, self._prior, adam)
        self._sums[0] += nll
        self._sums[1] += (found - self._level) / self.n

    def sums(self) -> list[float]:
        """See Engine."""
        return list(self._sums)

    def reset(self, sums: list[float]) -> None:
        """See Engine."""
        self._sums = list(sums)
