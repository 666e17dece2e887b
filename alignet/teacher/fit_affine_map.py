"""Uncertainty distillation: an affine map under which features reproduce people's soft labels.

Soft labels of VICE and features of the same objects in; weights and bias out (AligNet eq. 3).
alignet.teacher.cross_validation chooses its two numbers. Stands between `vice` and everything that
reads mapped features. Shape suffixes: m objects, p features, n triplets.

Two older transforms are the same fit (Muttenthaler et al. 2023, "Improving neural network representations using human
similarity judgments"): `global` takes the choices themselves in the place of soft labels (`choices`, eq. 1), and
gLocal weighs that against a term that keeps neighbourhoods as they are (alignet.teacher.locality).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignet.config import DistillSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.teacher.affine_map import AffineMap
from alignet.teacher.locality import Locality, local_objective
from alignet.triplets import accuracy, check_triplets, entropy, kl_divergence, similarities
from alignet.vice.gradient import cross_entropy


class DivergedError(ValueError):
    """A fit whose objective stopped being finite."""


class Objective(NamedTuple):
    """Eq. 3 at one point: `kl` (nats per triplet), `penalty` (without lambda), gradients of their sum."""

    kl: Tensor
    penalty: Tensor
    grad_weights: Tensor
    grad_bias: Tensor


def objective(
    weights: Tensor, bias: Tensor, inputs: Tensor, triplets: Tensor, targets: Tensor, *, penalty: float
) -> Objective:
    """Mean KL(p* || softmax of mapped similarities) + penalty * ||W - mean(diag W) I||_F^2 (eq. 3).

    weights: (p, p), W transposed, on which the penalty is the same. inputs: (m, p) standardised features.
    triplets: (n, 3) int64, rows of `inputs`; targets: (n, 3) p*. The paper's line lacks the weight p* of
    log p*; the divergence is meant, and the gradient is the same.
    """
    loss, slope = cross_entropy(inputs @ weights + bias, triplets, targets)
    grad_weights = inputs.T @ slope
    away = weights - weights.diagonal().mean() * torch.eye(len(weights), device=weights.device)
    # the diagonal of `away` sums to zero, so the mean's own derivative vanishes
    grad_weights.add_(away, alpha=2 * penalty)
    kl = loss - entropy(targets).mean()
    return Objective(kl, away.square().sum(), grad_weights, slope.sum(0))


def choices(triplets: int) -> Tensor:
    """Targets (n, 3) float32 of hard choices: the pair that was chosen (entry 0) is certain.

    Their entropy is zero, so the divergence of eq. 2 is the negative log-likelihood of eq. 1.
    """
    targets = torch.zeros((triplets, 3))
    targets[:, 0] = 1
    return targets


@dataclass(frozen=True)
class MapFit:
    """A fitted map. curve: value of eq. 3 on each step's batch. before, after: `map_metrics` of the
    identity on raw features and of the map, on the training triplets. scale: the multiple of the
    identity that the fit started from."""

    map: AffineMap
    curve: list[float]
    before: dict[str, float]
    after: dict[str, float]
    scale: float


def map_metrics(
    transform: AffineMap, features: Tensor, triplets: Tensor, targets: Tensor
) -> dict[str, float]:
    """Odd-one-out accuracy against the choices, mean KL(p* || q) in nats at tau = 1, and n."""
    sims = similarities(transform.apply(features), triplets).double()
    kl = kl_divergence(targets.double(), torch.log_softmax(sims, 1)).mean().item()
    return {"accuracy": accuracy(sims), "kl": kl, "n": float(len(triplets))}


def fit_map(
    features: Tensor,
    triplets: Tensor,
    targets: Tensor,
    *,
    penalty: float,
    lr: float,
    settings: DistillSettings,
    locality: Locality | None = None,
    checkpoints: Checkpoints | None = None,
) -> MapFit:
    """Fit W and b of eq. 3. features: (m, p). triplets: (n, 3) int64. targets: (n, 3) float, p*.

    With `locality` of weight alpha, the objective is gLocal's: (1 - alpha) KL + alpha local_loss + the same penalty.

    Only objects that occur in a triplet count, for standardising too. W starts at the multiple of the
    identity that fits the soft labels best, where the penalty is zero, and b at zero. Draws depend on
    the seed and the step alone, so a fit resumed from `checkpoints` ends in the same bytes.
    """
    check_inputs(features, triplets, targets)
    used, local = triplets.unique(return_inverse=True)
    mean, std = _standardizer(features[used], settings.standardize)
    inputs = (features[used].float() - mean) / std
    scale = _identity_scale(similarities(inputs, local), targets)
    width = features.shape[1]
    if locality is not None and locality.features.shape[1] != width:
        raise ValueError(
            f"distill local: expected features of the same model, {width} of each image, found "
            f"{locality.features.shape[1]}; embed these images with it."
        )
    state = _Descent(torch.eye(width) * scale, torch.zeros(width), lr, settings, checkpoints)
    near = _local_part(locality, mean, std, settings.seed)
    curve = state.run(inputs, local, targets, penalty, near)
    fitted = AffineMap(state.weights.detach(), state.bias.detach(), mean, std)
    before = map_metrics(AffineMap.identity(width), features, triplets, targets)
    return MapFit(fitted, curve, before, map_metrics(fitted, features, triplets, targets), scale)


Near = tuple[
    float, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, Tensor]]
]  # weight, (W, b, step) -> term


def _local_part(locality: Locality | None, mean: Tensor, std: Tensor, seed: int) -> Near | None:
    """gLocal's local term of a step: its weight, and a function of weights, bias and step for value and gradients."""
    if locality is None:
        return None

    def of_step(weights: Tensor, bias: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        inputs = (locality.draw(seed, step) - mean) / std
        return local_objective(weights, bias, inputs, locality.temperature)

    return locality.weight, of_step


class _Descent:
    """Weights, bias and optimizer on their way down; a checkpoint holds all of it."""

    def __init__(
        self,
        weights: Tensor,
        bias: Tensor,
        lr: float,
        settings: DistillSettings,
        checkpoints: Checkpoints | None,
    ):
        self.weights, self.bias = weights.requires_grad_(), bias.requires_grad_()
        self.lr, self.settings, self.checkpoints = lr, settings, checkpoints
        parameters = [self.weights, self.bias]
        self.optimizer: torch.optim.Optimizer
        if settings.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(parameters, lr=lr)
        else:
            self.optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)

    def run(
        self, inputs: Tensor, triplets: Tensor, targets: Tensor, penalty: float, near: Near | None = None
    ) -> list[float]:
        """Take every step, or those that are left; the value of the objective at each."""
        first, curve = self._restore()
        settings = self.settings
        for step in range(first, settings.steps):
            rows = _draw(len(triplets), settings, step)
            batch = (triplets, targets) if rows is None else (triplets[rows], targets[rows])
            with torch.no_grad():
                value, *slopes = self._value(inputs, batch, penalty, near, step)
            if not math.isfinite(value):
                raise DivergedError(
                    f"distill: expected a finite objective, found {value} at step {step} with lr {self.lr} "
                    f"and lambda {penalty}; lower the learning rate."
                )
            curve.append(value)
            self.weights.grad, self.bias.grad = slopes
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            self.optimizer.step()
            if self.checkpoints is not None and self.checkpoints.due():
                self._save(step + 1, curve)
        return curve

    def _value(
        self, inputs: Tensor, batch: tuple[Tensor, Tensor], penalty: float, near: Near | None, step: int
    ) -> tuple[float, Tensor, Tensor]:
        """The objective at a step, and its gradients by weights and bias."""
        if near is None:
            found = objective(self.weights, self.bias, inputs, *batch, penalty=penalty)
            return (found.kl + penalty * found.penalty).item(), found.grad_weights, found.grad_bias
        alpha, term = near
        rest = 1 - alpha  # of people's choices alone, not of the penalty
        found = objective(self.weights, self.bias, inputs, *batch, penalty=penalty / rest)
        value, by_weights, by_bias = term(self.weights, self.bias, step)
        total = rest * found.kl + penalty * found.penalty + alpha * value
        return (
            total.item(), rest * found.grad_weights + alpha * by_weights, rest * found.grad_bias + alpha * by_bias
        )  # fmt: skip

    def _save(self, step: int, curve: list[float]) -> None:
        assert self.checkpoints is not None
        tensors = {"weights": self.weights, "bias": self.bias}
        for name, parameter in list(tensors.items()):
            for key, value in self.optimizer.state[parameter].items():
                if value is not None:
                    tensors[f"optimizer.{name}.{key}"] = value
        self.checkpoints.save(step, tensors, {"curve": curve})

    def _restore(self) -> tuple[int, list[float]]:
        saved = None if self.checkpoints is None else self.checkpoints.latest()
        if saved is None:
            return 0, []
        step, tensors, state = saved
        moments: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for index, (name, parameter) in enumerate((("weights", self.weights), ("bias", self.bias))):
                parameter.copy_(tensors[name])
                prefix = f"optimizer.{name}."
                found = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
                if found:
                    moments[index] = found
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        return step, state["curve"]


def _draw(n: int, settings: DistillSettings, step: int) -> Tensor | None:
    """Rows of the step's batch, or None for all of them."""
    if n <= settings.batch:
        return None
    mixed = np.random.SeedSequence([settings.seed, step]).generate_state(1)[0]
    return torch.randint(n, (settings.batch,), generator=torch.Generator().manual_seed(int(mixed)))


def _standardizer(features: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """mean and std, () or (p,) float32. A constant feature gets std 1, so it becomes zero."""
    values = features.double()
    if how == "none":
        return torch.tensor(0.0), torch.tensor(1.0)
    if how == "scalar":
        mean, std = values.mean(), values.std(unbiased=False)
    else:
        mean, std = values.mean(0), values.std(0, unbiased=False)
        std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
    if values.var(0).max() == 0:
        raise ValueError("distill: expected features that differ between objects, found identical rows.")
    return mean.float(), std.float()


def _identity_scale(sims: Tensor, targets: Tensor) -> float:
    """The a > 0 for which softmax(a^2 sims) fits the targets best; the loss is convex in a^2."""
    from scipy.optimize import minimize_scalar

    stride = math.ceil(len(sims) / 65536)
    sims, targets = sims[::stride].double(), targets[::stride].double()
    spread = sims.std(1, unbiased=False).mean().item()

    def loss(exponent: float) -> float:
        return -(targets * torch.log_softmax(math.exp(exponent) * sims, 1)).sum(1).mean().item()

    middle = -math.log(spread)
    # W = 0 is a saddle of the objective, so the start is kept away from it
    found = minimize_scalar(loss, bounds=(middle - 4, middle + 4), method="bounded")
    return math.exp(0.5 * found.x)


def check_inputs(features: Tensor, triplets: Tensor, targets: Tensor) -> None:
    """ValueError unless features, triplets and soft labels fit together."""
    check_triplets(triplets.numpy(), len(features), "distill triplets")
    if targets.shape != triplets.shape:
        raise ValueError(
            f"distill: expected one row of soft labels per triplet {tuple(triplets.shape)}, found "
            f"{tuple(targets.shape)}; make the soft labels from these triplets."
        )
    bad = int((~features.isfinite()).any(1).sum())
    if bad:
        raise ValueError(
            f"distill: expected finite features, found NaN or infinity in {bad} rows; embed again."
        )
    off = (targets.sum(1) - 1).abs().max().item()
    if not (targets >= 0).all() or not off < 1e-3:
        raise ValueError(f"distill: expected soft labels that sum to 1, found one {off:.3g} away from it.")
