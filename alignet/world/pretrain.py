"""Pretrains the embedded world's own models on drawn pictures: an image/text teacher and a student.

    pictures + captions -> pretrain_teacher -> the image tower, whose output is what the text meets
    pictures + labels   -> pretrain_student -> a classifier, whose pooled features are the student's

Both return state dicts that timm.create_model(architecture, **model_args) loads, and both feed pictures
the way timm's own evaluation preprocessing would, which at the pictures' own size is only a normalisation.

Shape suffixes: n pictures, b batch, w words, p output width, H and W pixels.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alignet.config import TrainingSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.training import Training

_MAX_LOGIT_SCALE = math.log(100.0)  # as in CLIP


@dataclass(frozen=True)
class Pretrained:
    """state: of timm.create_model(architecture, **model_args). curve: loss of each step, in nats.

    accuracy: over the last epoch's training batches: for the student the share of right labels, for the
    teacher the share of pictures whose own caption (or an equal one) is the nearest in the batch.
    """

    state: dict[str, Tensor]
    curve: list[float]
    accuracy: float


class TextTower(nn.Module):
    """Words (b, w) int64, 0 for none, to (b, p): the mean of word embeddings through two residual layers."""

    def __init__(self, words: int, width: int, out: int):
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(2)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out))

    def forward(self, words: Tensor) -> Tensor:
        """(b, p), not normalised."""
        x = self.embedding(words).sum(1)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


def pretrain_teacher(
    images: np.ndarray,
    captions: np.ndarray,
    *,
    words: int,
    settings: TrainingSettings,
    checkpoints: Checkpoints | None = None,
) -> Pretrained:
    """Contrastive image/text pretraining (CLIP's symmetric cross-entropy over the batch).

    images: uint8 (n, H, W, 3). captions: (n, w) integer words below `words`, 0 where none is said. Two
    deviations from CLIP: the target is shared by all equal captions of a batch, which are no mistakes,
    and the text tower has no order of words. Only the image tower is returned.
    """
    _check_images(images, captions, settings)
    if captions.ndim != 2 or captions.min() < 0 or captions.max() >= words:
        raise ValueError(
            f"captions: expected (pictures, words) with words within 0..{words - 1}, found {captions.shape} "
            f"with {captions.min()}..{captions.max()}; give the vocabulary the captions were made with."
        )
    image_tower = _create(settings, images.shape[1])
    text_tower = _seeded(
        settings.seed + 1, lambda: TextTower(words, settings.text_width, image_tower.num_classes)
    )
    logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.1)))
    towers = nn.ModuleDict({"image": image_tower, "text": text_tower})
    towers.register_parameter("logit_scale", logit_scale)
    said = torch.from_numpy(captions.astype(np.int64))

    def loss(pictures: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        words_of = said[rows]
        image, text = F.normalize(image_tower(pictures), dim=1), F.normalize(text_tower(words_of), dim=1)
        logits = image @ text.T * logit_scale.clamp(max=_MAX_LOGIT_SCALE).exp()
        equal = (words_of[:, None] == words_of[None]).all(-1)
        target = equal / equal.sum(1, keepdim=True)
        right = equal.gather(1, logits.argmax(1, keepdim=True)).float().mean()
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2, right

    curve, accuracy = _train("teacher", towers, image_tower, loss, images, settings, checkpoints)
    return Pretrained(_plain(image_tower), curve, accuracy)


def pretrain_student(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    settings: TrainingSettings,
    checkpoints: Checkpoints | None = None,
) -> Pretrained:
    """Supervised pretraining on fine labels with cross-entropy.

    images: uint8 (n, H, W, 3). labels: (n,) integers below the architecture's num_classes.
    """
    _check_images(images, labels, settings)
    model = _create(settings, images.shape[1])
    if labels.ndim != 1 or labels.min() < 0 or labels.max() >= model.num_classes:
        raise ValueError(
            f"labels: expected (pictures,) within 0..{model.num_classes - 1}, found {labels.shape} with "
            f"{labels.min()}..{labels.max()}; set model_args.num_classes to the number of labels."
        )
    targets = torch.from_numpy(labels.astype(np.int64))

    def loss(pictures: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits, target = model(pictures), targets[rows]
        right = (logits.argmax(1) == target).float().mean()
        return F.cross_entropy(logits, target, label_smoothing=settings.smoothing), right

    curve, accuracy = _train("student", model, model, loss, images, settings, checkpoints)
    return Pretrained(_plain(model), curve, accuracy)


def _plain(module: nn.Module) -> dict[str, Tensor]:
    """The weights in the order of memory that timm gives them."""
    return {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in module.state_dict().items()
    }


def _check_images(images: np.ndarray, beside: np.ndarray, settings: TrainingSettings) -> None:
    fits = images.ndim == 4 and images.shape[3] == 3 and images.shape[1] == images.shape[2]
    if not fits or images.dtype != np.uint8:
        raise ValueError(
            f"pretraining pictures: expected uint8 (pictures, size, size, 3), found {images.dtype} "
            f"{images.shape}; give 8-bit RGB pictures, channels last."
        )
    if len(beside) != len(images):
        raise ValueError(
            f"pretraining: expected a label or caption for each of {len(images)} pictures, found {len(beside)}."
        )
    if not settings.batch <= len(images):
        raise ValueError(
            f"pretrain batch: expected at most {len(images)} (the pictures), found {settings.batch}."
        )


def _seeded(seed: int, make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _create(settings: TrainingSettings, size: int) -> Any:
    """The timm model with weights from the seed, checked to take these pictures whole and unscaled."""
    import timm

    name, args = settings.architecture, dict(settings.model_args)
    model = _seeded(settings.seed, lambda: timm.create_model(name, pretrained=False, **args))
    config = timm.data.resolve_data_config({}, model=model)
    if tuple(config["input_size"]) != (3, size, size) or config["crop_pct"] != 1.0:
        raise ValueError(
            f"{name}: expected a model that takes {size} px pictures whole, found input_size "
            f"{config['input_size']} and crop_pct {config['crop_pct']}; set model_args.pretrained_cfg_overlay to "
            f"{{input_size: [3, {size}, {size}], crop_pct: 1.0}}."
        )
    return model.train().to(memory_format=torch.channels_last)  # convolutions take a quarter less so


def _train(
    what: str,
    module: nn.Module,
    tower: Any,
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    images: np.ndarray,
    settings: TrainingSettings,
    checkpoints: Checkpoints | None,
) -> tuple[list[float], float]:
    """AdamW over `settings.steps`; every draw depends on the seed and the step alone, so a resumed run ends
    in the same bytes. Returns the loss of each step and the accuracy over the last epoch."""
    parameters = dict(module.named_parameters())
    optimizer = _optimizer(parameters, settings)
    mean, std = (torch.tensor(tower.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    loop = Training(
        f"pretrain {what}", settings.steps, checkpoints=checkpoints, advice=f"lower lr (now {settings.lr:g})"
    )
    curve, right = _restore(loop, module, parameters, optimizer)

    def one_step(step: int) -> str:
        pictures, rows = _batch(images, settings, step)
        value, share = loss(pictures.float().div_(255).sub_(mean).div_(std), rows)
        loop.check("loss", value.item(), step)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, settings)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        curve.append(value.item())
        right.append(share.item())
        return f"loss {curve[-1]:.3f}, right {right[-1]:.3f}"

    loop.run(
        one_step, lambda: _tensors(module, parameters, optimizer), lambda: {"curve": curve, "right": right}
    )
    epoch = max(1, len(images) // settings.batch)
    return curve, float(np.mean(right[-epoch:]))


def _optimizer(parameters: Mapping[str, nn.Parameter], settings: TrainingSettings) -> torch.optim.AdamW:
    matrices = [value for value in parameters.values() if value.ndim > 1]
    others = [value for value in parameters.values() if value.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), fused=True)


def _rate(step: int, settings: TrainingSettings) -> float:
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def _batch(images: np.ndarray, settings: TrainingSettings, step: int) -> tuple[Tensor, Tensor]:
    """Pictures (b, 3, H, W) uint8 of one step, shifted, channels last in memory, and their rows (b,)."""
    epoch, part = divmod(step, len(images) // settings.batch)
    order = np.random.default_rng([settings.seed, 0, epoch]).permutation(len(images))
    rows = np.sort(order[part * settings.batch : (part + 1) * settings.batch])
    pictures = np.array(images[rows])
    _let_go(images)
    if settings.shift:
        size, shift = pictures.shape[1], settings.shift
        rng = np.random.default_rng([settings.seed, 1, step])
        down, across = rng.integers(-shift, shift + 1, size=(2, len(rows), 1))
        y, x = (np.clip(np.arange(size) + move, 0, size - 1) for move in (down, across))
        pictures = pictures[np.arange(len(rows))[:, None, None], y[:, :, None], x[:, None, :]]
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(rows)


def _let_go(images: np.ndarray) -> None:
    """Of a file that is mapped: its pages stay in the system's cache and no longer count as this process's memory."""
    mapped: Any = getattr(images, "_mmap", None)
    if hasattr(mapped, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _tensors(module, parameters, optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    for name, value in parameters.items():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"{key}.{name}"] = optimizer.state[value][key]
    return tensors


def _restore(loop: Training, module, parameters, optimizer) -> tuple[list[float], list[float]]:
    done, tensors, state = loop.restored()
    if not done:
        return [], []
    module.load_state_dict({name: tensors[f"model.{name}"] for name in module.state_dict()})
    for name, value in parameters.items():
        moments = {
            key: torch.empty_like(value).copy_(tensors[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")
        }
        optimizer.state[value] = moments | {
            "step": tensors[f"step.{name}"]
        }  # in the parameter's order of memory
    return list(state["curve"]), list(state["right"])
