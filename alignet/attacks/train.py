"""Training the ingredients of a network: losses with and without attacks, augmentation, contrastive learning.

    labelled images, an encoder with a classifier -> weights, curves

The losses are in supervised.py and contrastive.py. Several processes share a step as in the Harmonizer's training: the
objective is that of one process. Every draw follows from (seed, step, place in the batch) alone.
"""

from __future__ import annotations

from collections.abc import Callable

from alignet.attacks.contrastive import Contrastive
from alignet.attacks.objective import Ingredient
from alignet.attacks.supervised import Adversarial, CrossEntropy, Mart, Trades
from alignet.backbones import Encoder
from alignet.backbones.gradients import Classifier
from alignet.config import Augmentation, LabelledTraining, RobustRole
from alignet.harmonizer.batches import Labelled, Source
from alignet.harmonizer.labelled import (
    Trained,
    batch_normalised,
    begin,
    check_labels,
    check_shares,
    classes_of,
    train,
)
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes, current

__all__ = ["LOSSES", "adversarial_training", "passes_of"]

LOSSES: dict[str, type[Ingredient]] = {
    "cross_entropy": CrossEntropy, "adversarial": Adversarial, "trades": Trades, "mart": Mart, "simclr": Contrastive,
}  # fmt: skip


def adversarial_training(
    encoder: Encoder,
    data: Labelled,
    settings: LabelledTraining,
    role: RobustRole,
    *,
    augmentation: Augmentation | None = None,
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    processes: Processes | None = None,
    recompute: bool = False,
    snapshot: Callable[[int], None] | None = None,
) -> Trained:
    """Minimise the role's loss and the decay of weights.

    encoder: changed in place; with role.begin "random" its weights must be new ones. data: images with classes. role:
    the loss, and the norm and eps of its perturbations, in units of pixels in [0, 1] at the network's resolution.
    settings.steps counts steps of the optimizer, so "free" takes steps / replays batches. augmentation: in the place of
    the settings' flip and crop. recompute: keep only what enters each block of the network and compute the rest again.
    snapshot: called with the number of steps done after each. Curves, each (steps,) float64: those of the loss's class,
    for example cross_entropy and right (share); lr. Interrupted work goes on at `checkpoints` and ends in the same
    bytes. ValueError for labels that are no class of the network, no images, a network without a classifier, batch
    normalisation with the statistics of random weights, and when a loss, a gradient or a weight is not finite.
    """
    everyone = processes or current()
    classify, classes = Classifier(encoder, frozen=False), classes_of(encoder)
    check_labels("robust", data, classes)
    if not len(data):
        raise ValueError("robust: expected labelled images to train on, found none; check robust.images.")
    normed = batch_normalised(encoder.module)
    if role.begin == "random" and normed and settings.batch_norm == "frozen":
        raise ValueError(
            "robust.settings.batch_norm: expected training where a network with batch normalisation begins with random "
            "weights, found frozen: its statistics are those of no images."
        )
    sources = [Source(data, settings.batch, (settings.seed, 1))]
    check_shares("robust", sources, settings, everyone.size)
    begin(encoder, everyone)
    objective = LOSSES[role.loss](classify, settings, sources, classes, everyone, role, augmentation)
    return train(
        encoder, objective, settings, what="robust", workers=workers, checkpoints=checkpoints, recompute=recompute,
        advice=f"lower robust.settings.lr (now {settings.lr:g})", replays=max(role.replays, 1), snapshot=snapshot,
    )  # fmt: skip


def passes_of(role: RobustRole) -> int:
    """Forward and backward passes of an image in a step, those of the attack included."""
    return role.views + role.searching
