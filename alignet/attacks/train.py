"""Adversarial training: cross-entropy of attacked images, with a new attack in each step or one that is carried on.

    labelled images, an encoder with a classifier -> weights, curves

PGD (Madry et al., 2018): each step looks for perturbations within the ball that raise the loss most, from a random
start, and trains on these. "Free" (Shafahi et al., 2019): each batch is taken `replays` times; one backward pass gives
the gradients by weights and by pixels, and the perturbation is carried on, also into the next batch.

Several processes share a step as in the Harmonizer's training: the objective is that of one process. Every draw follows
from (seed, step, place in the batch) alone.

Shape suffixes: b images, c classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from alignet.attacks.perturbation import each, project, steepest
from alignet.attacks.pgd import pgd, random_start
from alignet.backbones import Encoder
from alignet.backbones.gradients import Classifier
from alignet.config import LabelledTraining, RobustRole
from alignet.harmonizer.batches import Labelled, Part, Source
from alignet.harmonizer.labelled import (
    Objective,
    Trained,
    begin,
    check_labels,
    check_shares,
    classes_of,
    seed_of,
    train,
)
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes, current


def adversarial_training(
    encoder: Encoder,
    data: Labelled,
    settings: LabelledTraining,
    role: RobustRole,
    *,
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    processes: Processes | None = None,
    recompute: bool = False,
) -> Trained:
    """Minimise the cross-entropy of attacked images and the decay of weights.

    encoder: changed in place. data: images with classes. role: the norm and eps of the perturbations, in units of
    pixels in [0, 1] at the network's resolution, and how they are found. settings.steps counts steps of the optimizer,
    so "free" takes steps / replays batches. recompute: keep only what enters each block of the network and compute the
    rest again. Curves, each (steps,) float64: cross_entropy and right (share), of the attacked images; lr. Interrupted
    work goes on at `checkpoints` and ends in the same bytes. ValueError for labels that are no class of the network, no
    images, a network without a classifier, and when a loss, a gradient or a weight is not finite.
    """
    everyone = processes or current()
    classify, classes = Classifier(encoder, frozen=False), classes_of(encoder)
    check_labels("robust", data, classes)
    if not len(data):
        raise ValueError("robust: expected labelled images to train on, found none; check robust.images.")
    sources = [Source(data, settings.batch, (settings.seed, 1))]
    check_shares("robust", sources, settings, everyone.size)
    begin(encoder, everyone)
    objective = Adversarial(classify, settings, sources, classes, everyone, role)
    return train(
        encoder, objective, settings, what="robust", workers=workers, checkpoints=checkpoints, recompute=recompute,
        advice=f"lower robust.settings.lr (now {settings.lr:g})", replays=max(role.replays, 1),
    )  # fmt: skip


class Adversarial(Objective):
    """Cross-entropy of attacked images."""

    curves = ("cross_entropy", "right")  # of the attacked images; share of right labels

    def __init__(
        self, classify: Classifier, settings: LabelledTraining, sources: Sequence[Source], classes: int,
        everyone: Processes, role: RobustRole,
    ):  # fmt: skip
        super().__init__(classify, settings, sources, classes, everyone, use_maps=False)
        self.role = role
        if role.replays:
            own = everyone.share(self.batch)
            side = classify.encoder.data_config["input_size"][1:]
            self.carried = torch.zeros(own.stop - own.start, 3, *side, device=classify.device)

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""
        (part,), (source,) = parts, self.sources
        images, targets, _ = self._prepare(part, source, step // max(self.role.replays, 1), 0)
        if self.carried is None:
            logits, loss = self._pass(self.attacked(images, targets, step, part.places), targets)
        else:
            logits, loss = self._free(images, targets, self.carried)
        return torch.tensor([loss, self.right(logits, targets)], dtype=torch.float64)

    def attacked(self, images: Tensor, targets: Tensor, step: int, places: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] after PGD against their classes, within eps of what they were.

        targets: (b, c); of a mixed image the class of the larger share is attacked. places: (b,) int64, the images'
        among the step's. The network is as it is when it answers: running statistics, no random parts.
        """
        role = self.role
        eps = images.new_full((len(images),), role.eps)
        start = torch.empty_like(images)
        for row, place in enumerate(places.tolist()):
            generator = torch.Generator(images.device).manual_seed(
                seed_of(self.settings.seed, 4, step, place)
            )
            start[row] = random_start(images[row, None], eps[row, None], role.norm, generator)[0]
        with _answering(self.classify):
            return pgd(
                self.classify, images, targets.argmax(1), eps, norm=role.norm, steps=role.steps, step=role.step,
                start=start,
            )  # fmt: skip

    def _free(self, images: Tensor, targets: Tensor, perturbation: Tensor) -> tuple[Tensor, float]:
        """One pass that trains the weights and moves the perturbation, in place, by the pixels' gradient.

        The perturbation stays within eps, and is cut to [0, 1] only where it is added: the next batch has other pixels.
        """
        attacked = (images + perturbation).clamp(0, 1).requires_grad_()
        logits, loss = self._pass(attacked, targets)
        assert attacked.grad is not None
        eps = images.new_full((len(images),), self.role.eps)
        moved = perturbation + each(self.role.step * eps) * steepest(attacked.grad, self.role.norm)
        perturbation.copy_(project(moved, eps, self.role.norm))
        return logits, loss

    def _pass(self, images: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Add the gradients of one forward and backward pass; logits (b, c), and the images' part of the loss."""
        logits = self.classify(images)
        loss = self.entropy(logits, targets)
        loss.backward()
        return logits.detach(), loss.item()


@contextmanager
def _answering(classify: Classifier) -> Iterator[None]:
    """The network in eval mode, without gradients by weights; afterwards as it was."""
    module = classify.encoder.module
    modes = [(one, one.training) for one in module.modules()]
    asked = [(one, one.requires_grad) for one in module.parameters()]
    module.eval()
    module.requires_grad_(False)
    try:
        yield
    finally:
        for one, mode in modes:
            one.training = mode
        for held, wanted in asked:
            held.requires_grad_(wanted)


def passes_of(role: RobustRole) -> int:
    """Forward and backward passes of an image in a step, those of the attack included."""
    return 1 if role.replays else 1 + role.steps
