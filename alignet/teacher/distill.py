"""Uncertainty distillation: an affine map under which features reproduce people's soft labels.

Soft labels of VICE and features of the same objects in; weights and bias out (AligNet eq. 3), with a
cross-validation over objects that chooses its two numbers. Stands between `vice` and everything that
reads mapped features. Shape suffixes: m objects, p features, n triplets.

Two older transforms are the same fit (Muttenthaler et al. 2023, "Improving neural network representations using human
similarity judgments"): `global` takes the choices themselves in the place of soft labels (`choices`, eq. 1), and
gLocal weighs that against a term that keeps neighbourhoods as they are (alignet.teacher.locality).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignet.config import DistillSettings
from alignet.data.npy import read_npz
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.progress import progress
from alignet.teacher.locality import Locality, local_objective
from alignet.triplets import accuracy, check_triplets, entropy, kl_divergence, similarities
from alignet.vice.gradient import cross_entropy

_ROWS = 1 << 16  # mapped at a time: a copy of so many standardised rows is held


@dataclass(frozen=True)
class AffineMap:
    """x -> ((x - mean) / std) @ weights + bias, for features x (m, p).

    weights: (p, p) float32, the transpose of W in eq. 3. bias: (p,) float32. mean, std: () or (p,) float32.
    """

    weights: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor

    def apply(self, features: Tensor) -> Tensor:
        """Mapped features (m, p) float32 of features (m, p)."""
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise ValueError(
                f"affine map: expected features of shape (m, {len(self.weights)}), found "
                f"{tuple(features.shape)}; apply it to the backbone that it was learned on."
            )
        parts = [
            ((rows.float() - self.mean) / self.std) @ self.weights + self.bias
            for rows in features.split(_ROWS)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def save_npz(self, path: Path) -> None:
        """Write in the format of gLocal and thingsvision: `weights`, `bias`, and scalar `mean`, `std`.

        Per-feature mean and std are folded into weights and bias (then mean is 0 and std 1).
        """
        folded = self if self.mean.ndim == 0 and self.std.ndim == 0 else self._folded()
        arrays = {name: getattr(folded, name).numpy() for name in ("weights", "bias", "mean", "std")}
        temporary = Path(f"{path}.tmp")
        with open(temporary, "wb") as handle:
            np.savez(handle, **arrays)
        os.replace(temporary, path)

    def _folded(self) -> AffineMap:
        weights, mean, std = self.weights.double(), self.mean.double(), self.std.double()
        scaled = weights / std.expand(len(weights)).unsqueeze(1)
        bias = self.bias.double() - mean.expand(len(weights)) @ scaled
        return AffineMap(scaled.float(), bias.float(), torch.tensor(0.0), torch.tensor(1.0))

    @staticmethod
    def load_npz(path: Path) -> AffineMap:
        """Read that format: float32 whatever the file's dtype. `bias` may be absent (then 0).

        `mean` and `std` hold one number each; both may be absent, which leaves features unstandardised (0, 1).
        Raises ValueError for a damaged file, for arrays of other names, for shapes that do not fit, for a std
        that is not above 0, and for NaN.
        """
        arrays = read_npz(path)
        _check_npz(path, arrays)
        tensors = {name: torch.from_numpy(np.asarray(array, np.float32)) for name, array in arrays.items()}
        weights = tensors["weights"]
        bias = tensors.get("bias", torch.zeros(len(weights)))
        mean, std = tensors.get("mean", torch.tensor(0.0)), tensors.get("std", torch.tensor(1.0))
        return AffineMap(weights, bias, mean.reshape(()), std.reshape(()))

    @staticmethod
    def identity(width: int) -> AffineMap:
        """The map that leaves features of this width as they are."""
        return AffineMap(torch.eye(width), torch.zeros(width), torch.tensor(0.0), torch.tensor(1.0))


def _check_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """ValueError unless these are the arrays of a gLocal or thingsvision transform."""
    names = set(arrays)
    if (
        "weights" not in names
        or names - {"weights", "bias", "mean", "std"}
        or len(names & {"mean", "std"}) == 1
    ):
        raise ValueError(
            f"{path}: expected arrays weights, maybe bias, and mean and std (both or neither), found "
            f"{', '.join(sorted(names)) or 'none'}; give an npz written by gLocal, thingsvision or alignet."
        )
    width = arrays["weights"].shape[0] if arrays["weights"].ndim else 0
    fits: dict[str, list[tuple[int, ...]]] = {"weights": [(width, width)], "bias": [(width,)]}
    fits |= {"mean": [(), (1,)], "std": [(), (1,)]}
    if not width or any(array.shape not in fits[name] for name, array in arrays.items()):
        raise ValueError(
            f"{path}: expected weights (p, p), bias (p,), scalar mean and std, found "
            f"{', '.join(f'{name} {array.shape}' for name, array in arrays.items())}; export the map again."
        )
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating) and not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{path}: expected numbers as {name}, found dtype {array.dtype}; save float32.")
        with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
            narrow = np.asarray(array, np.float32)
        if not np.isfinite(narrow).all():
            raise ValueError(f"{path}: expected finite {name}, found NaN or infinity; export the map again.")
        if name == "std" and not narrow.item() > 0:
            raise ValueError(
                f"{path}: expected a std above 0, found {narrow.item():g}; save the standard deviation."
            )


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
    _check(features, triplets, targets)
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


@dataclass(frozen=True)
class CrossValidation:
    """What k-fold cross-validation over objects found.

    rows: one dict per fold and grid point: `fold`, `penalty`, `lr`, `objects` and `triplets` held out,
    `train_triplets`, `accuracy_before`, `kl_before` (identity on raw features), `accuracy`, `kl`; a
    fit that diverged has `kl` infinite and `accuracy` 0. grid: the same pooled over folds, each held-out
    triplet once. penalty, lr: the grid point with the lowest pooled held-out KL.
    """

    rows: list[dict[str, float]]
    grid: list[dict[str, float]]
    penalty: float
    lr: float


def cross_validate(
    features: Tensor,
    triplets: Tensor,
    targets: Tensor,
    *,
    settings: DistillSettings,
    groups: Tensor | None = None,
    locality: Locality | None = None,
    checkpoints: Checkpoints | None = None,
) -> CrossValidation:
    """Choose lambda and learning rate by KL on objects never trained on, over `settings.folds` folds.

    locality: of every fit, as in `fit_map`; the choice is by people's answers alone with it too.

    A fold trains on the triplets wholly within its training objects and is measured on those wholly
    within its held-out objects; the others are set aside. Objects that occur in `triplets` are dealt to
    folds at random from the seed, those of one number in `groups` (m,) int64 together (several pictures of
    one concept, say). Saves after every fold and grid point.
    """
    _check(features, triplets, targets)
    fold_of = _folds(triplets, torch.arange(len(features)) if groups is None else groups, settings)
    points = [(penalty, lr) for penalty in settings.penalties for lr in settings.lrs]
    saved = None if checkpoints is None else checkpoints.latest()
    rows: list[dict[str, float]] = [] if saved is None else saved[2]["rows"]
    total = settings.folds * len(points)
    with progress("distill: cross-validation", total, "fits", done=len(rows)) as advance:
        for index in range(len(rows), total):
            fold, point = divmod(index, len(points))
            held = (features, triplets, targets, fold_of, fold, *points[point], settings)
            rows.append(_fold_row(*held, locality))
            if checkpoints is not None:
                checkpoints.save(len(rows), {}, {"rows": rows})
            advance(1, f"held-out KL {rows[-1]['kl']:.4f}")
    grid = [_pooled([row for row in rows if (row["penalty"], row["lr"]) == point]) for point in points]
    best = min(grid, key=lambda row: row["kl"])
    if not math.isfinite(best["kl"]):
        raise ValueError(f"distill: every fit diverged; lower the learning rates (now {settings.lrs}).")
    for name, tried in (("penalty", settings.penalties), ("lr", settings.lrs)):
        if len(tried) > 1 and best[name] in (min(tried), max(tried)):
            print(
                f"note: distill: the best {name} {best[name]} is at the edge of its grid {tried}",
                file=sys.stderr,
            )
    return CrossValidation(rows, grid, best["penalty"], best["lr"])


def _fold_row(
    features: Tensor,
    triplets: Tensor,
    targets: Tensor,
    fold_of: Tensor,
    fold: int,
    penalty: float,
    lr: float,
    settings: DistillSettings,
    locality: Locality | None,
) -> dict[str, float]:
    members = (fold_of[triplets] == fold).sum(1)
    train, held = members == 0, members == 3
    row: dict[str, Any] = {"fold": fold, "penalty": penalty, "lr": lr}
    row |= {"objects": int((fold_of == fold).sum()), "triplets": int(held.sum())}
    row |= {"train_triplets": int(train.sum())}
    if not held.any() or not train.any():
        raise ValueError(
            f"distill: expected triplets wholly inside and wholly outside each of {settings.folds} folds of "
            f"objects, found {row['triplets']} and {row['train_triplets']} for fold {fold}; use fewer folds."
        )
    before = map_metrics(AffineMap.identity(features.shape[1]), features, triplets[held], targets[held])
    row |= {"accuracy_before": before["accuracy"], "kl_before": before["kl"]}
    try:
        fit = fit_map(
            features, triplets[train], targets[train], penalty=penalty, lr=lr, settings=settings, locality=locality
        )  # fmt: skip
    except DivergedError as error:
        print(f"warning: {error}", file=sys.stderr, flush=True)
        return row | {"accuracy": 0.0, "kl": math.inf}
    after = map_metrics(fit.map, features, triplets[held], targets[held])
    return row | {"accuracy": after["accuracy"], "kl": after["kl"]}


def _pooled(rows: list[dict[str, float]]) -> dict[str, float]:
    counts = [row["triplets"] for row in rows]
    pooled: dict[str, float] = {"penalty": rows[0]["penalty"], "lr": rows[0]["lr"], "triplets": sum(counts)}
    for name in ("accuracy_before", "kl_before", "accuracy", "kl"):
        pooled[name] = sum(row[name] * count for row, count in zip(rows, counts)) / sum(counts)
    return pooled


def _folds(triplets: Tensor, groups: Tensor, settings: DistillSettings) -> Tensor:
    """The fold of each object (m,), -1 for those in no triplet; folds differ by at most one group."""
    used = triplets.unique()
    present, group_of = groups[used].unique(return_inverse=True)
    generator = torch.Generator().manual_seed(settings.seed)
    fold_of_group = torch.empty(len(present), dtype=torch.int64)
    fold_of_group[torch.randperm(len(present), generator=generator)] = (
        torch.arange(len(present)) % settings.folds
    )
    fold_of = torch.full((len(groups),), -1)
    fold_of[used] = fold_of_group[group_of]
    return fold_of


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


def _check(features: Tensor, triplets: Tensor, targets: Tensor) -> None:
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
