"""Cross-validation over objects: which penalty and learning rate of a distillation hold for objects never trained on.

Shape suffixes: m objects, p features, n triplets.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignet.config import DistillSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.progress import progress
from alignet.teacher.affine_map import AffineMap
from alignet.teacher.fit_affine_map import DivergedError, check_inputs, fit_map, map_metrics
from alignet.teacher.locality import Locality


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
    check_inputs(features, triplets, targets)
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
