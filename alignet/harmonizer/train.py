"""Harmonizer training: cross-entropy, people's maps where there are any, SGD; and AligNet's triplet loss beside them.

    labelled images, maps, an encoder with a classifier -> weights, curves

The loss on maps needs the derivative of a gradient: `second_order` gives it exactly, a part of the batch at a time, so
that memory does not grow with the batch. With batch normalisation frozen, a batch in parts is the same batch.

Several processes share a step: each computes its part of every source's images, and gradients are summed once a step;
the objective is that of one process.

Shape suffixes: b images, c classes, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignet.backbones import Encoder
from alignet.backbones.gradients import Classifier
from alignet.backbones.second_order import computed_again, second_order
from alignet.config import FinetuneSettings, HarmonizeSettings
from alignet.harmonizer.batches import Labelled, Part, Source, Steps
from alignet.harmonizer.loss import REDUCTIONS, map_distance, target_logits
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes, current
from alignet.runtime.interrupt import ignore
from alignet.runtime.training import Training
from alignet.student.augmentation import augment
from alignet.student.batches import ImageBatches, PoolTeacher
from alignet.student.finetune import shared_backward, student_temperature
from alignet.student.in_batch_loss import Comparison
from alignet.student.network import Student, blocks

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
# cross-entropy and distance of maps (unweighted), AligNet's loss (nats, times its weight), share of right labels, rate
CURVES = ("cross_entropy", "maps", "alignet", "right", "lr")


@dataclass(frozen=True)
class Alignment:
    """AligNet's own objective in the same steps: the teacher's answers about the pool, and its weight in the sum."""

    images: Any  # tensor or dataset of the pool's m images
    teacher: PoolTeacher
    settings: FinetuneSettings  # sampling in_batch
    weight: float


@dataclass(frozen=True)
class Harmonized:
    """Weights on the CPU, as safetensors would hold them, and curves by CURVES, each (steps,) float64."""

    state: dict[str, Tensor]
    curves: dict[str, np.ndarray]


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
) -> Harmonized:
    """Minimise cross-entropy + map_weight * distance of maps + decay (eq. 1 and 2 of the Harmonizer) with SGD.

    encoder: changed in place. mapped, plain: images with and without maps; each step has round(batch * mapped) of the
    first. use_maps: without, the images with maps give cross-entropy alone (the control). shuffled: every image gets
    another's map. alignment: AligNet's loss on a batch of the pool is added in each step. recompute: keep only what
    enters each block of the network and compute the rest again: the same numbers, less memory. Interrupted work goes
    on at `checkpoints` and ends in the same bytes. ValueError for labels that are no class of the network, a network
    without a classifier, and when a loss or gradient is not finite.
    """
    everyone = processes or current()
    classify = Classifier(encoder, frozen=False)
    classes = int(encoder.module.num_classes)  # type: ignore[arg-type]
    sources = _sources(mapped, plain, settings, classes, everyone.size)
    for tensor in encoder.module.state_dict().values():
        everyone.copy(tensor)
    encoder.module.requires_grad_(True)
    order = others_maps(len(mapped), settings.seed) if shuffled else None
    train = Objective(
        classify, settings, sources, classes, everyone, use_maps=use_maps and settings.map_weight > 0
    )
    beside = None if alignment is None else _Beside(encoder, alignment, everyone)
    encoder.module.requires_grad_(True)  # the classifier trains as well, which is behind the features
    if recompute and train.together:
        raise ValueError(
            "harmonize: expected runtime.recompute=false with harmonize.settings.batch_norm=training, found true: "
            "what is computed again would enter the running statistics again; set one of them otherwise."
        )
    if settings.batch_norm == "training":
        for module in encoder.module.modules():
            module.train(isinstance(module, _BATCH_NORM))
    if recompute:
        for block in blocks(encoder):
            computed_again(block)
    loop = Training(
        "harmonize", settings.steps, checkpoints=checkpoints, processes=everyone,
        advice=f"lower harmonize.settings.lr (now {settings.lr:g}) or map_weight (now {settings.map_weight:g})",
    )  # fmt: skip
    optimizer = _optimizer(encoder.module, settings)
    curve = _restore(loop, encoder.module, optimizer)
    loader: Any = torch.utils.data.DataLoader(
        Steps(sources, settings, loop.saved, everyone, order), batch_size=None, num_workers=workers,
        generator=torch.Generator(), multiprocessing_context="fork" if workers else None, worker_init_fn=ignore,
        collate_fn=_as_it_is, shuffle=False,
    )  # fmt: skip
    steps = iter(loader)
    parameters = [held for held in encoder.module.parameters() if held.requires_grad]

    def one_step(step: int) -> str:
        optimizer.zero_grad(set_to_none=True)
        sums = train.backward(next(steps), step)
        if beside is not None:
            sums[2] = beside.backward(step)
        entropy, maps, answers, right = everyone.sum(sums).tolist()
        if beside is not None:
            answers /= everyone.size  # every process took all triplets
        loop.check("loss", entropy + settings.map_weight * maps + answers, step)
        everyone.sum_flat([held.grad for held in parameters if held.grad is not None])
        norms = torch._foreach_norm([held.grad for held in parameters if held.grad is not None])
        loop.check("gradient", torch.stack(norms).double().norm().item(), step)
        rate = learning_rate(step, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        held_norms = torch._foreach_norm([held.detach() for held in parameters])
        loop.check("weight", torch.stack(held_norms).double().norm().item(), step)
        if settings.batch_norm == "training":
            for held in encoder.module.buffers():
                everyone.copy(held)  # each saw its own images; the first one's statistics count, as DDP's do
        curve[step] = torch.tensor([entropy, maps, answers, right, rate], dtype=torch.float64)
        return f"cross-entropy {entropy:.3f}, maps {maps:.3f}, right {right:.3f}"

    loop.run(one_step, lambda: _tensors(encoder.module, optimizer) | {"curve": curve}, dict)
    encoder.module.eval()
    state = {
        name: value.detach().cpu().contiguous().clone() for name, value in encoder.module.state_dict().items()
    }
    return Harmonized(state, {name: curve[:, column].numpy() for column, name in enumerate(CURVES)})


def others_maps(count: int, seed: int) -> np.ndarray:
    """Whose map each of `count` images gets in the control, int64: another's, each map once."""
    circle = np.random.default_rng([seed, 7]).permutation(count)
    order = np.empty_like(circle)
    order[circle] = np.roll(circle, 1)
    return order


def learning_rate(step: int, settings: HarmonizeSettings) -> float:
    """SGD's rate at step 0, 1, ...: linear over the warm-up, then a cosine to 0, or a tenth after each of `drops`."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "drops":
        return settings.lr * 0.1 ** sum(step >= share * settings.steps for share in settings.drops)
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def decayed(module: nn.Module, what: str) -> set[str]:
    """Names of the parameters that decay: all, or `kernels`, without biases, norms and embeddings."""
    names = {name for name, held in module.named_parameters()}
    if what == "all":
        return names
    kept = set(getattr(module, "no_weight_decay", set)())
    embeddings = {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, nn.Embedding)
        for name, _ in part.named_parameters()
    }
    return {
        name
        for name, held in module.named_parameters()
        if held.ndim > 1
        and name not in embeddings
        and not any(name == one or name.endswith(f".{one}") for one in kept)
        and not name.endswith(("pos_embed", "cls_token", "reg_token", "dist_token"))
    }


class Objective:
    """Cross-entropy of all images and the distance of maps, with the gradients of both."""

    def __init__(
        self, classify: Classifier, settings: HarmonizeSettings, sources: Sequence[Source], classes: int,
        everyone: Processes, *, use_maps: bool,
    ):  # fmt: skip
        self.classify, self.settings, self.sources = classify, settings, sources
        self.classes, self.everyone, self.use_maps = classes, everyone, use_maps
        self.batch = sum(source.count for source in sources)
        norms = any(isinstance(one, _BATCH_NORM) for one in classify.encoder.module.modules())
        self.together = settings.batch_norm == "training" and norms  # statistics of all images at once
        self.parameters = [held for held in classify.encoder.module.parameters() if held.requires_grad]

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of (cross-entropy, maps, 0, right), float64."""
        given = enumerate(zip(parts, self.sources, strict=True))
        prepared = [self._prepare(part, source, step, row) for row, (part, source) in given]
        sums = torch.zeros(4, dtype=torch.float64)
        if self.together:
            images = torch.cat([one[0] for one in prepared])
            targets = torch.cat([one[1] for one in prepared])
            sums += self._pass(images, targets, prepared[0][2])
            return sums
        for (images, targets, maps), source in zip(prepared, self.sources, strict=True):
            # of images with a map, with or without the term: the control differs in the term alone
            exact = source.data.maps is not None
            sums += self.add_gradients(images, targets, maps, exact)
        return sums

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

    def _prepare(
        self, part: Part, source: Source, step: int, row: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pixels in [0, 1] (b, 3, H, W), targets (b, c) and maps (b, H, W), changed at random and mixed."""
        images, targets, maps = self._changed(part, source, step, row)
        if part.partners is not None and part.share is not None and len(images):
            others = self._changed(part.partners, source, step, row)
            share = part.share.to(images.device)
            weight = share.view(-1, 1, 1, 1)
            images = weight * images + (1 - weight) * others[0]
            targets = share[:, None] * targets + (1 - share[:, None]) * others[1]
            if maps is not None and others[2] is not None:
                maps = weight[:, 0] * maps + (1 - weight[:, 0]) * others[2]
        return images, targets, maps

    def _changed(
        self, part: Part, source: Source, step: int, row: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        settings, device = self.settings, self.classify.device
        if not len(part.labels):
            side = self.classify.encoder.data_config["input_size"][1:]
            return torch.zeros(0, 3, *side, device=device), torch.zeros(0, self.classes, device=device), None
        images = self.classify.pixels(part.images.to(device))
        maps = part.maps.to(device, torch.float32) if part.maps is not None and self.use_maps else None
        stacked = images if maps is None else torch.cat([images, maps[:, None]], 1)
        generator = torch.Generator().manual_seed(_seed(settings.seed, 3, step, row))
        stacked = augment(stacked, settings.flip, settings.crop, generator, (source.count, part.places))
        targets = F.one_hot(part.labels, self.classes).to(device, torch.float32)
        return stacked[:, :3], targets, None if maps is None else stacked[:, 3]

    def _pass(self, images: Tensor, targets: Tensor, maps: Tensor | None, exact: bool = True) -> Tensor:
        """One forward and backward pass: of images of which the first len(maps) have one."""
        settings = self.settings
        if maps is None or not len(maps):
            reduced = settings.precision == "bf16" and not exact
            with torch.autocast(self.classify.device.type, torch.bfloat16, enabled=reduced):
                logits = self.classify(images)
            loss, distance = self._entropy(logits.float(), targets), None
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
                loss = self._entropy(logits, targets)
                # by the weights alone: the images' own gradient would cost another pass through the first layer
                torch.autograd.backward(loss + settings.map_weight * distance, inputs=self.parameters)
        right = (logits.detach().argmax(1) == targets.argmax(1)).sum().item() / self.batch
        far = 0.0 if distance is None else distance.item()
        return torch.tensor([loss.item(), far, 0.0, right], dtype=torch.float64)

    def _entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (
            F.cross_entropy(logits, targets, reduction="sum", label_smoothing=self.settings.smoothing)
            / self.batch
        )


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
        generator = torch.Generator().manual_seed(_seed(settings.seed, 3, step, 0))
        shared_backward(self.student, pixels, generator, len(rows), self.everyone, backward)
        return value * self.alignment.weight


def _sources(
    mapped: Labelled, plain: Labelled | None, settings: HarmonizeSettings, classes: int, size: int
) -> list[Source]:
    for one in (mapped, plain):
        if one is not None and len(one) and not 0 <= one.labels.min() <= one.labels.max() < classes:
            raise ValueError(
                f"harmonize: expected labels in 0..{classes - 1}, the classes of the network, found "
                f"{one.labels.min()}..{one.labels.max()}; number them as its classifier does."
            )
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
    idle = [rank for rank in range(size) if not any(_part(one.count, rank, size) for one in sources)]
    if idle:
        raise ValueError(
            f"harmonize: expected an image for each of {size} processes in a step, found {settings.batch} images and "
            f"none for process {idle[0]}; raise harmonize.settings.batch."
        )
    return sources


def _optimizer(module: nn.Module, settings: HarmonizeSettings) -> torch.optim.Optimizer:
    names = decayed(module, settings.decay_of)
    # the gradient of lambda * theta^2 is 2 lambda theta; torch adds weight_decay * theta
    decay = settings.decay * (2 if settings.decay_form == "squares" else 1)
    groups = [
        {
            "params": [held for name, held in module.named_parameters() if name in names],
            "weight_decay": decay,
        },
        {
            "params": [held for name, held in module.named_parameters() if name not in names],
            "weight_decay": 0.0,
        },
    ]
    used = [group for group in groups if group["params"]]
    if settings.optimizer == "adam":  # the decay is a term of the loss, as with SGD
        return torch.optim.Adam(used, lr=settings.lr, betas=(settings.momentum, 0.999), fused=True)
    return torch.optim.SGD(used, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    held = {f"model.{name}": value for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                held[f"{key}.{name}"] = value
    return held


def _restore(loop: Training, module: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
    done, tensors, _ = loop.restored()
    if not done:
        return torch.zeros((loop.steps, len(CURVES)), dtype=torch.float64)
    module.load_state_dict({name: tensors[f"model.{name}"] for name in module.state_dict()})
    for name, parameter in module.named_parameters():
        for key in _STATE:
            if f"{key}.{name}" in tensors:
                value = tensors[f"{key}.{name}"]
                like = torch.empty_like(parameter) if value.ndim else value.to(parameter.device)
                optimizer.state[parameter][key] = like.copy_(value)  # in the parameter's order of memory
    return tensors["curve"]


_STATE = ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")  # what the optimizers keep of a parameter


def _part(count: int, rank: int, size: int) -> int:
    """How many of `count` images a process has, see Processes.share."""
    return count * (rank + 1) // size - count * rank // size


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _as_it_is(parts: Any) -> Any:
    return parts
