"""An architecture with weights and its own way of preparing an image, whichever library it comes from.

The preprocessing is always the library's own for these weights (a wrong input range is the classic reason why
an aligned model lands at chance).

Shape suffixes: b or m images, p features, H and W pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alignet.backbones.backbone import Backbone, LoadedBackbone
from alignet.data.pixels import MAX_PIXELS
from alignet.runtime.interrupt import ignore
from alignet.runtime.progress import progress

COMPUTE = ("float32", "bf16")  # of the forward pass


class Encoder(LoadedBackbone):
    """A loaded backbone that computes features."""

    def features(self, images: Tensor) -> Tensor:
        """Features (b, p) of normalised images (b, 3, H, W), with gradients if they are enabled."""
        return features_of(self.module, images, self.backbone)


def features_of(module: nn.Module, images: Tensor, backbone: Backbone) -> Tensor:
    """Features (b, p) that `backbone.feature` names, of normalised images (b, 3, H, W)."""
    images = images.contiguous(memory_format=torch.channels_last)
    return _library(backbone.library).features_of(module, images, backbone.feature)


@torch.no_grad()
def encode(encoder: Encoder, images: Tensor, compute: str = "float32") -> Tensor:
    """Features (b, p) float32, on the encoder's device, of images as `Encoder.pixels` or `transform` gives them.

    compute: float32, or bf16 for the forward pass in bfloat16 (autocast). ValueError for anything else.
    """
    if compute not in COMPUTE:
        raise ValueError(f"compute: expected one of {', '.join(COMPUTE)}, found {compute!r}")
    prepared = encoder.normalise(images.to(encoder.device, non_blocking=True))
    with torch.autocast(encoder.device.type, torch.bfloat16, enabled=compute == "bf16"):
        return encoder.features(prepared).float()


def load_encoder(backbone: Backbone, device: str = "cpu", seed: int | None = None) -> Encoder:
    """Build the network, load its weights strictly, and set up its own preprocessing.

    seed: of the initial weights where backbone.weights is "random". ValueError when the architecture is
    unknown, when the file's keys or shapes are not the network's, when it has no such image size or no such
    feature, and when weights cannot be downloaded.
    """
    if backbone.weights == "random" and seed is None:
        raise ValueError(f"backbone {backbone.architecture}: random weights need a seed; give one.")
    where = _device(device)
    library = _library(backbone.library)
    module = library.build(backbone, seed)
    transform, pixels, config = library.preprocessing(module, backbone)
    # with channels last, fine-tuning an EfficientNet on a CPU takes half the time; a transformer does not care
    module.eval().to(where).to(memory_format=torch.channels_last)
    blank = torch.zeros((1, *config["input_size"]), device=where)
    with torch.enable_grad():
        features = features_of(module, blank, backbone)
    if features.ndim != 2:
        raise ValueError(
            f"backbone {backbone.architecture}: expected one feature vector for each image, found shape "
            f"{tuple(features.shape)}; set global_pool in model_args."
        )
    used = _leaves(features)
    return Encoder(
        backbone=backbone,
        module=module,
        transform=_Bounded(transform, config),
        pixels=_Bounded(pixels, config),
        data_config=config,
        width=features.shape[1],
        device=where,
        unused=frozenset(name for name, held in module.named_parameters() if id(held) not in used),
    )


@dataclass(frozen=True)
class _Bounded:
    """A library's preparation, which resizes an image's shorter side before it crops; of a strip that is too much."""

    prepare: Callable[[Image.Image], Tensor]
    config: Mapping[str, Any]

    def __call__(self, image: Image.Image) -> Tensor:
        shape, crop = self.config["input_size"], self.config.get("crop_pct") or 1.0
        squeezed = "squash" in (self.config.get("crop_mode"), self.config.get("resize_mode"))
        side = math.ceil(min(shape[1:]) / crop)
        short, long = sorted(image.size)
        if not squeezed and side * side * long > MAX_PIXELS * short:
            raise ValueError(
                f"{image.info.get('source', 'image')}: expected an image that stays below {MAX_PIXELS:,} pixels once "
                f"its shorter side has the {side} that the network's preprocessing gives it, found one of "
                f"{image.width:,} x {image.height:,}; crop it, or leave it out."
            )
        return self.prepare(image)


def classifier_head(encoder: Encoder) -> tuple[Tensor, Tensor] | None:
    """The linear classifier on pooled features as (W (p, classes), b (classes,)), or None if there is none.

    logits = features @ W + b. None as well where the classifier is not one linear layer on p inputs.
    """
    layer = classifier_layer(encoder)
    if encoder.backbone.feature != "pooled" or not isinstance(layer, nn.Linear):
        return None
    if layer.in_features != encoder.width:
        return None
    weights = layer.weight.detach().T.clone()
    bias = weights.new_zeros(weights.shape[1]) if layer.bias is None else layer.bias.detach().clone()
    return weights, bias


def classifier_layer(encoder: Encoder) -> nn.Module | None:
    """The module that gives a network's logits, linear or not; None or an identity where there is no classifier."""
    return _library(encoder.backbone.library).classifier(encoder.module)


def configuration(encoder: Encoder) -> dict[str, str]:
    """File name -> text of what stands beside the weights, so that the library loads the folder by itself."""
    return _library(encoder.backbone.library).configuration(encoder)


def stored_names(encoder: Encoder, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the network under the names that its library's files have; those of transformers are others."""
    from alignet.backbones import transformers_models

    if encoder.backbone.library != "transformers":
        return dict(state)
    return transformers_models.stored_names(encoder.module, state)


@torch.no_grad()
def text_features(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """What the text tower makes of texts, (t, p) float32 on the CPU, not normalised.

    ValueError where the network has no text tower, or its tokenizer cannot be had.
    """
    return _library(encoder.backbone.library).text_features(encoder, texts).float().cpu()


def folder_backbone(folder: Path | str, feature: str = "", image_size: int = 0) -> Backbone:
    """The Backbone of a folder that timm, open_clip or transformers loads by itself, an exported one for example.

    feature: "" takes the output of a network with a text tower, else the pooled vector. ValueError if the folder
    is none of these.
    """
    folder = Path(folder)
    if (folder / "open_clip_config.json").is_file():
        return Backbone("open_clip", folder.name, str(folder), {}, image_size, feature or "output")
    described = {}
    if (folder / "config.json").is_file():
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "architecture" in described:
        name = str(described["architecture"])
        return Backbone("timm", name, str(folder), {}, image_size, feature or "pooled")
    if "model_type" in described:
        both = "output" if "text_config" in described else "pooled"
        name = str(described["model_type"])
        return Backbone("transformers", name, str(folder), {}, image_size, feature or both)
    raise ValueError(
        f"{folder}: expected a folder of timm (config.json with `architecture`), open_clip (open_clip_config.json) or "
        f"transformers (config.json with `model_type`), found none of these; check the path."
    )


class ImageFiles(torch.utils.data.Dataset):
    """Images as uint8 pixels (3, H, W), read and prepared when they are asked for."""

    def __init__(self, names: Sequence[Any], read: Callable[[Any], Image.Image], encoder: Encoder):
        """names: ids or paths. read: opens one of them as an RGB image."""
        self.names, self.read, self.pixels = list(names), read, encoder.pixels

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Tensor:
        return self.pixels(self.read(self.names[row]))

    def load(self, workers: int = 0) -> Tensor:
        """All of them at once as one uint8 tensor (m, 3, H, W)."""
        loader = torch.utils.data.DataLoader(self, batch_size=64, num_workers=workers, worker_init_fn=ignore)
        with progress("read", len(self), "images") as advance:
            parts = []
            for part in loader:
                parts.append(part)
                advance(len(part))
        return torch.cat(parts)


@torch.no_grad()
def embed_images(encoder: Encoder, images: Any, batch: int, workers: int = 0) -> np.ndarray:
    """Features (m, p) float32 of images: a tensor, a dataset, or any iterable of (3, H, W) tensors.

    Each image is uint8 (see Encoder.pixels) or float32 and normalised (see Encoder.transform).
    ValueError if a feature is not finite.
    """
    count = len(images) if hasattr(images, "__len__") else 0
    rows = []
    with progress("embed", count, "images") as advance:
        for part in _batches(images, batch, workers):
            rows.append(encode(encoder, part).cpu().numpy())
            advance(len(part))
    if not rows:
        return np.zeros((0, encoder.width), np.float32)
    features = np.concatenate(rows)
    broken = ~np.isfinite(features).all(1)
    if broken.any():
        raise ValueError(
            f"features of {encoder.backbone.architecture}: expected finite numbers, found NaN or infinity for "
            f"{int(broken.sum())} images, the first at row {int(np.flatnonzero(broken)[0])}; check the weights."
        )
    return features


def _batches(images: Any, batch: int, workers: int) -> Iterable[Tensor]:
    if isinstance(images, Tensor):
        yield from images.split(batch)
    elif hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        yield from torch.utils.data.DataLoader(
            images, batch_size=batch, num_workers=workers, worker_init_fn=ignore
        )
    else:
        held: list[Tensor] = []
        for image in images:
            held.append(image)
            if len(held) == batch:
                yield torch.stack(held)
                held = []
        if held:
            yield torch.stack(held)


def _library(name: str) -> Any:
    # imported when asked for: transformers alone takes seconds
    if name == "timm":
        from alignet.backbones import timm_models

        return timm_models
    if name == "open_clip":
        from alignet.backbones import open_clip_models

        return open_clip_models
    from alignet.backbones import transformers_models

    return transformers_models


def _leaves(output: Tensor) -> set[int]:
    """ids of the parameters that `output` was computed from, read off the graph of its gradient."""
    found: set[int] = set()
    seen: set[Any] = set()
    waiting = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        waiting += [parent for parent, _ in node.next_functions]
    return found


def _device(device: str) -> torch.device:
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected one that this machine has, found {device!r}; set it to cpu.")
    return where
