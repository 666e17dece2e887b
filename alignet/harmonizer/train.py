"""Harmonizer training: cross-entropy, people's maps where there are any, SGD; and AligNet's triplet loss beside them.

    labelled images, maps, an encoder with a classifier -> weights, curves

The loss on maps needs the derivative of a gradient: `second_order` gives it exactly, a part of the batch at a time, so
that memory does not grow with the batch. With batch normalisation frozen, a batch in parts is the same batch.

Several processes share a step: each computes its part of every source's images, and gradients are summed once a step;
the objective is that of one process.

Shape suffixes: b images, c classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignet.backbones import Encoder
from alignet.backbones.gradients import Classifier
from alignet.backbones.second_order import second_order
from alignet.config import FinetuneSettings, HarmonizeSettings
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
from alignet.harmonizer.loss import REDUCTIONS, map_distance, target_logits
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes, current
from alignet.student.batches import ImageBatches, PoolTeacher
from alignet.student.finetune import shared_backward, student_temperature
from alignet.student.in_batch_loss import Comparison
from alignet.student.network import Student


@dataclass(frozen=True)
class Alignment:
    """AligNet's own objective in the same steps: the teacher's answers about the pool, and its weight in the sum."""

    images: Any  # tensor or dataset of the pool's m images
    teacher: PoolTeacher
    settings: FinetuneSettings  # sampling in_batch
    weight: float


def harmonize(
    encoder: Encoder,
    mapped: Labelled,
    plain: Labelled | None,
    settings: HarmonizeSettings,
    *,
    use_maps: bool = True,
    shuffled: bool = False,
    alignment: Alignment | None = None,
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    processes: Processes | None = None,
    recompute: bool = False,
) -> Trained:
    """Minimise cross-entropy + map_weight * distance of maps + decay (eq. 1 and 2 of the Harmonizer) with SGD.

    encoder: changed in place. mapped, plain: images with and without maps; each step has round(batch * mapped) of the
    first. use_maps: without, the images with maps give cross-entropy alone (the control). shuffled: every image gets
    another's map. alignment: AligNet's loss on a batch of the pool is added in each step. recompute: keep only what
    enters each block of the network and compute the rest again: the same numbers, less memory. Interrupted work goes
    on at `checkpoints` and ends in the same bytes. ValueError for labels that are no class of the network, a network
    without a classifier, and when a loss or gradient is not finite.
    """
    everyone = processes or current()
    classify, classes = Classifier(encoder, frozen=False), classes_of(encoder)
    sources = _sources(mapped, plain, settings, classes, everyone.size)
    begin(encoder, everyone)
    objective = Harmonizer(
        classify, settings, sources, classes, everyone, use_maps=use_maps and settings.map_weight > 0
    )
    if alignment is not None:
        objective.beside = _Beside(encoder, alignment, everyone)
    return train(
        encoder, objective, settings, what="harmonize", workers=workers, checkpoints=checkpoints, recompute=recompute,
        advice=f"lower harmonize.settings.lr (now {settings.lr:g}) or map_weight (now {settings.map_weight:g})",
        order=others_maps(len(mapped), settings.seed) if shuffled else None,
    )  # fmt: skip


def others_maps(count: int, seed: int) -> np.ndarray:
    """Whose map each of `count` images gets in the control, int64: another's, each map once."""
    circle = np.random.default_rng([seed, 7]).permutation(count)
    order = np.empty_like(circle)
    order[circle] = np.roll(circle, 1)
    return order


class Harmonizer(Objective):
    """Cross-entropy of all images and the distance of maps, with the gradients of both; and AligNet's loss beside."""

    # cross-entropy and distance of maps (unweighted), AligNet's loss (nats, times its weight), share of right labels
    curves = ("cross_entropy", "maps", "alignet", "right")
    settings: HarmonizeSettings

    def __init__(
        self, classify: Classifier, settings: HarmonizeSettings, sources: Sequence[Source], classes: int,
        everyone: Processes, *, use_maps: bool,
    ):  # fmt: skip
        super().__init__(classify, settings, sources, classes, everyone, use_maps=use_maps)
        self.parameters = [held for held in classify.encoder.module.parameters() if held.requires_grad]
        self.beside: _Beside | None = None

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""
        given = enumerate(zip(parts, self.sources, strict=True))
        prepared = [self._prepare(part, source, step, row) for row, (part, source) in given]
        sums = torch.zeros(4, dtype=torch.float64)
        if self.together:
            images = torch.cat([one[0] for one in prepared])
            targets = torch.cat([one[1] for one in prepared])
            sums += self._pass(images, targets, prepared[0][2])
        else:
            for (images, targets, maps), source in zip(prepared, self.sources, strict=True):
                # of images with a map, with or without the term: the control differs in the term alone
                exact = source.data.maps is not None
                sums += self.add_gradients(images, targets, maps, exact)
        if self.beside is not None:
            sums[2] = self.beside.backward(step)
        return sums

    def figures(self, sums: Tensor) -> list[float]:
        entropy, maps, answers, right = sums.tolist()
        return [entropy, maps, answers / self.everyone.size, right]  # every process took all triplets

    def loss(self, figures: Sequence[float]) -> float:
        entropy, maps, answers, _ = figures
        return entropy + self.settings.map_weight * maps + answers

    def note(self, figures: Sequence[float]) -> str:
        entropy, maps, _, right = figures
        return f"cross-entropy {entropy:.3f}, maps {maps:.3f}, right {right:.3f}"

    def add_gradients(
        self, images: Tensor, targets: Tensor, maps: Tensor | None, exact: bool = True
    ) -> Tensor:
        """Add those of images that all have a map, a part at a time, or none; sums as `backward` gives them.

        images: (b, 3, H, W) in [0, 1]. targets: (b, c). maps: (b, H, W). exact: in float32 whatever the precision is.
        """
        sums = torch.zeros(4, dtype=torch.float64)
        size = self.settings.part if maps is not None else max(len(images), 1)
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            sums += self._pass(images[rows], targets[rows], None if maps is None else maps[rows], exact)
        return sums

    def _pass(self, images: Tensor, targets: Tensor, maps: Tensor | None, exact: bool = True) -> Tensor:
        """One forward and backward pass: of images of which the first len(maps) have one."""
        settings = self.settings
        if maps is None or not len(maps):
            reduced = settings.precision == "bf16" and not exact
            with torch.autocast(self.classify.device.type, torch.bfloat16, enabled=reduced):
                logits = self.classify(images)
            loss, distance = self.entropy(logits.float(), targets), None
            loss.backward()
        else:
            with second_order():
                count = len(maps)
                first = images[:count].detach().requires_grad_()
                logits = self.classify(torch.cat([first, images[count:]]) if count < len(images) else first)
                scalar = target_logits(logits[:count], targets[:count], settings.scalar).sum()
                (gradient,) = torch.autograd.grad(scalar, first, create_graph=True)
                saliency = REDUCTIONS[settings.reduction](gradient)
                distances = map_distance(
                    saliency, maps, order=settings.order, norm=settings.norm, levels=settings.levels
                )
                distance = distances.sum() / self.sources[0].count
                loss = self.entropy(logits, targets)
                # by the weights alone: the images' own gradient would cost another pass through the first layer
                torch.autograd.backward(loss + settings.map_weight * distance, inputs=self.parameters)
        far = 0.0 if distance is None else distance.item()
        return torch.tensor([loss.item(), far, 0.0, self.right(logits, targets)], dtype=torch.float64)


class _Beside:
    """AligNet's loss in the same steps."""

    def __init__(self, encoder: Encoder, alignment: Alignment, everyone: Processes):
        settings = alignment.settings
        self.alignment, self.everyone = alignment, everyone
        self.student = Student(encoder, settings)
        self.batches = ImageBatches(
            alignment.teacher, len(alignment.images), batch=settings.batch, parts=1,
            clusters=settings.clusters_per_batch, seed=settings.seed,
        )  # fmt: skip
        tau = (
            student_temperature(self.student, alignment.images, self.batches, settings)
            if everyone.first
            else 0.0
        )
        tau = everyone.copy(torch.tensor([tau], dtype=torch.float64)).item()
        self.compare = Comparison(settings.loss, settings.tau_teacher, tau)

    def backward(self, step: int) -> Tensor:
        """Add the weighted gradient; returns the unweighted loss times the weight, float64."""
        rows = self.batches.rows(step, 0)
        own = self.everyone.share(len(rows))
        mine = rows[own] if own.stop > own.start else rows[:1]
        pixels = torch.stack([torch.as_tensor(self.alignment.images[int(row)]) for row in mine])
        value = torch.zeros((), dtype=torch.float64)

        def backward(held: Tensor) -> None:
            value.copy_(self.batches.backward(held, step, 0, self.compare, self.everyone))
            assert held.grad is not None
            held.grad *= self.alignment.weight

        settings = self.alignment.settings
        generator = torch.Generator().manual_seed(seed_of(settings.seed, 3, step, 0))
        shared_backward(self.student, pixels, generator, len(rows), self.everyone, backward)
        return value * self.alignment.weight


def _sources(
    mapped: Labelled, plain: Labelled | None, settings: HarmonizeSettings, classes: int, size: int
) -> list[Source]:
    for one in (mapped, plain):
        if one is not None:
            check_labels("harmonize", one, classes)
    count = round(settings.batch * settings.mapped)
    if count < 1 or not len(mapped):
        raise ValueError(
            f"harmonize: expected at least one image with a map in each step, found {count} of {settings.batch} images "
            f"and {len(mapped)} with maps; raise harmonize.settings.mapped."
        )
    sources = [Source(mapped, count, (settings.seed, 1))]
    if count < settings.batch:
        if plain is None or not len(plain):
            raise ValueError(
                "harmonize: expected images without maps for the rest of each batch, found none."
            )
        sources.append(Source(plain, settings.batch - count, (settings.seed, 2)))
    check_shares("harmonize", sources, settings, size)
    return sources
