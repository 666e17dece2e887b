"""Training on labelled images: what the Harmonizer and adversarial training share.

    sources of images -> parts of a step, changed at random, mixed -> Objective.backward -> optimizer -> weights, curves

An objective brings the loss and its gradients. Several processes share a step: each computes its part of every
source's images, and gradients are summed once a step; the objective is that of one process.

Shape suffixes: b images, c classes, H and W pixels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignet.backbones import Encoder
from alignet.backbones.gradients import Classifier
from alignet.backbones.second_order import computed_again
from alignet.config import LabelledTraining
from alignet.harmonizer.batches import Labelled, Part, Source, Steps
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes
from alignet.runtime.interrupt import ignore
from alignet.runtime.training import Training
from alignet.student.augmentation import augment
from alignet.student.network import blocks

_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_STATE = ("momentum_buffer", "exp_avg", "exp_avg_sq", "step")  # what the optimizers keep of a parameter


@dataclass(frozen=True)
class Trained:
    """Weights on the CPU, as safetensors would hold them, and curves by name, each (steps,) float64."""

    state: dict[str, Tensor]
    curves: dict[str, np.ndarray]


class Objective(ABC):
    """A loss on labelled images: cross-entropy, and what else the training adds to it."""

    curves: tuple[str, ...]  # names of the figures of a step

    def __init__(
        self, classify: Classifier, settings: LabelledTraining, sources: Sequence[Source], classes: int,
        everyone: Processes, *, use_maps: bool,
    ):  # fmt: skip
        """classes: how many the network knows. use_maps: whether images come with their maps, where there are any."""
        self.classify, self.settings, self.sources = classify, settings, sources
        self.classes, self.everyone, self.use_maps = classes, everyone, use_maps
        self.batch = sum(source.count for source in sources)
        normed = batch_normalised(classify.encoder.module)
        self.together = settings.batch_norm == "training" and normed  # statistics of all images at once
        self.carried: Tensor | None = (
            None  # what each of this process's places of a batch hands on to the next step
        )
        self.head: nn.Module | None = None  # what is trained beside the network, and not kept

    @abstractmethod
    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""

    def figures(self, sums: Tensor) -> list[float]:
        """The figures by `curves`, of their sums over processes."""
        return sums.tolist()

    def loss(self, figures: Sequence[float]) -> float:
        """What must be finite."""
        return figures[0]

    def note(self, figures: Sequence[float]) -> str:
        """What the progress line says."""
        return ", ".join(
            f"{name.replace('_', '-')} {value:.3f}" for name, value in zip(self.curves, figures, strict=True)
        )

    def held(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside weights and optimizer; every process helps to make it."""
        if self.carried is None:
            return {}
        return {"carried": self.everyone.gather(self.carried, self.batch)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `held` gave, out of a checkpoint's tensors."""
        if self.carried is not None:
            self.carried.copy_(tensors["carried"][self.everyone.share(self.batch)])

    def entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of these images (b, c), as their part of the mean over the step's."""
        return (
            F.cross_entropy(logits, targets, reduction="sum", label_smoothing=self.settings.smoothing)
            / self.batch
        )

    def right(self, logits: Tensor, targets: Tensor) -> float:
        """The share of the step's images that are answered right here; a mixed one counts by its larger share."""
        return (logits.detach().argmax(1) == targets.argmax(1)).sum().item() / self.batch

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
        device = self.classify.device
        if not len(part.labels):
            side = self.classify.encoder.data_config["input_size"][1:]
            return torch.zeros(0, 3, *side, device=device), torch.zeros(0, self.classes, device=device), None
        images = self.classify.pixels(part.images.to(device))
        maps = part.maps.to(device, torch.float32) if part.maps is not None and self.use_maps else None
        stacked = images if maps is None else torch.cat([images, maps[:, None]], 1)
        stacked = self._augmented(stacked, source.count, part.places, step, row)
        targets = F.one_hot(part.labels, self.classes).to(device, torch.float32)
        return stacked[:, :3], targets, None if maps is None else stacked[:, 3]

    def _augmented(self, images: Tensor, count: int, places: Tensor, step: int, row: int) -> Tensor:
        """Images (b, channels, H, W), at places (b,) of the `count` of a step, changed at random."""
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, 3, step, row))
        return augment(images, self.settings.flip, self.settings.crop, generator, (count, places))


def classes_of(encoder: Encoder) -> int:
    """How many classes the network's classifier knows."""
    return int(encoder.module.num_classes)  # type: ignore[arg-type]


def batch_normalised(module: nn.Module) -> bool:
    """Whether a network has batch normalisation."""
    return any(isinstance(one, _BATCH_NORM) for one in module.modules())


def check_labels(what: str, data: Labelled, classes: int) -> None:
    """ValueError for labels that are no class of the network."""
    if len(data) and not 0 <= data.labels.min() <= data.labels.max() < classes:
        raise ValueError(
            f"{what}: expected labels in 0..{classes - 1}, the classes of the network, found "
            f"{data.labels.min()}..{data.labels.max()}; number them as its classifier does."
        )


def check_shares(what: str, sources: Sequence[Source], settings: LabelledTraining, size: int) -> None:
    """ValueError where one of `size` processes has no image in a step."""
    idle = [rank for rank in range(size) if not any(_part(one.count, rank, size) for one in sources)]
    if idle:
        raise ValueError(
            f"{what}: expected an image for each of {size} processes in a step, found {settings.batch} images and "
            f"none for process {idle[0]}; raise {what}.settings.batch."
        )


def begin(encoder: Encoder, everyone: Processes) -> None:
    """The first process's weights in all, each with a gradient."""
    for tensor in encoder.module.state_dict().values():
        everyone.copy(tensor)
    encoder.module.requires_grad_(True)


def train(
    encoder: Encoder,
    objective: Objective,
    settings: LabelledTraining,
    *,
    what: str,
    advice: str,
    order: np.ndarray | None = None,
    replays: int = 1,
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    recompute: bool = False,
    snapshot: Callable[[int], None] | None = None,
) -> Trained:
    """Minimise the objective and the decay of weights. encoder: changed in place.

    what: the stage, in messages. advice: what to change where a figure is not finite. order: whose map each image with
    one gets. replays: steps in a row that have the same images. recompute: keep only what enters each block of the
    network and compute the rest again: the same numbers, less memory. snapshot: called after each step with how many
    are done, before a checkpoint of them is written. Interrupted work goes on at `checkpoints` and ends in the same
    bytes. ValueError when a loss, a gradient or a weight is not finite.
    """
    everyone = objective.everyone
    encoder.module.requires_grad_(True)
    if recompute and objective.together:
        raise ValueError(
            f"{what}: expected runtime.recompute=false with {what}.settings.batch_norm=training, found true: "
            "what is computed again would enter the running statistics again; set one of them otherwise."
        )
    if settings.batch_norm == "training":
        for module in encoder.module.modules():
            module.train(isinstance(module, _BATCH_NORM))
    if recompute:
        for block in blocks(encoder):
            computed_again(block)
    loop = Training(what, settings.steps, checkpoints=checkpoints, processes=everyone, advice=advice)
    optimizer = optimizer_of(encoder.module, settings)
    if objective.head is not None:
        objective.head.requires_grad_(True)
        for group in optimizer_of(objective.head, settings).param_groups:
            optimizer.add_param_group({key: group[key] for key in ("params", "weight_decay")})
    curves = (*objective.curves, "lr")
    done, tensors, _ = loop.restored()
    curve = torch.zeros((settings.steps, len(curves)), dtype=torch.float64)
    if done:
        _restore(encoder.module, optimizer, tensors)
        if objective.head is not None:
            _restore(objective.head, optimizer, tensors, "head.")
        objective.restore(tensors)
        curve = tensors["curve"]
    loader: Any = torch.utils.data.DataLoader(
        Steps(objective.sources, settings, loop.saved, everyone, order, replays), batch_size=None, num_workers=workers,
        generator=torch.Generator(), multiprocessing_context="fork" if workers else None, worker_init_fn=ignore,
        collate_fn=_as_it_is, shuffle=False,
    )  # fmt: skip
    steps = iter(loader)
    trained = [encoder.module] if objective.head is None else [encoder.module, objective.head]
    parameters = [held for module in trained for held in module.parameters() if held.requires_grad]

    def one_step(step: int) -> str:
        optimizer.zero_grad(set_to_none=True)
        figures = objective.figures(everyone.sum(objective.backward(next(steps), step)))
        loop.check("loss", objective.loss(figures), step)
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
        curve[step] = torch.tensor([*figures, rate], dtype=torch.float64)
        if snapshot is not None:
            snapshot(step + 1)
        return objective.note(figures)

    def tensors_now() -> dict[str, Tensor]:
        head = {} if objective.head is None else _tensors(objective.head, optimizer, "head.")
        return _tensors(encoder.module, optimizer) | head | objective.held() | {"curve": curve}

    loop.run(one_step, tensors_now, dict, together=True)
    encoder.module.eval()
    state = {
        name: value.detach().cpu().contiguous().clone() for name, value in encoder.module.state_dict().items()
    }
    return Trained(state, {name: curve[:, column].numpy() for column, name in enumerate(curves)})


def learning_rate(step: int, settings: LabelledTraining) -> float:
    """The rate at step 0, 1, ...: linear over the warm-up, then a cosine to 0, or a tenth after each of `drops`."""
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


def optimizer_of(module: nn.Module, settings: LabelledTraining) -> torch.optim.Optimizer:
    """SGD or Adam, with the decay as a term of the loss."""
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
    if settings.optimizer == "adam":
        return torch.optim.Adam(used, lr=settings.lr, betas=(settings.momentum, 0.999), fused=True)
    return torch.optim.SGD(used, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov)


def _tensors(module: nn.Module, optimizer: torch.optim.Optimizer, prefix: str = "") -> dict[str, Tensor]:
    held = {f"model.{prefix}{name}": value for name, value in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor):
                held[f"{key}.{prefix}{name}"] = value
    return held


def _restore(
    module: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str = ""
) -> None:
    module.load_state_dict({name: tensors[f"model.{prefix}{name}"] for name in module.state_dict()})
    for name, parameter in module.named_parameters():
        for key in _STATE:
            if f"{key}.{prefix}{name}" in tensors:
                value = tensors[f"{key}.{prefix}{name}"]
                like = torch.empty_like(parameter) if value.ndim else value.to(parameter.device)
                optimizer.state[parameter][key] = like.copy_(value)  # in the parameter's order of memory


def _part(count: int, rank: int, size: int) -> int:
    """How many of `count` images a process has, see Processes.share."""
    return count * (rank + 1) // size - count * rank // size


def seed_of(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _as_it_is(parts: Any) -> Any:
    return parts
