"""Backbones behind one Encoder: an architecture with weights, and its own way of preparing an image.

    images -> Encoder.transform -> Encoder.features -> (m, p): what `embed`, `finetune` and `export` share

The preprocessing is always the backbone's own (a wrong input range is the classic reason why an aligned
model lands at chance), and `timm_features` computes the same features the way timm's documentation does.

Shape suffixes: b or m images, p features, H and W pixels.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alignet.progress import progress

LIBRARIES = ("timm",)
FEATURES = ("pooled", "output")


@dataclass(frozen=True)
class Backbone:
    """Which network, with which weights, at which size, and which of its vectors is the feature."""

    library: str  # one of LIBRARIES
    architecture: str  # the library's name, e.g. vit_base_patch16_224
    weights: str  # path of a .safetensors state dict | "" (the hub's pretrained weights) | "random"
    model_args: Mapping[str, Any]  # further arguments of the constructor, e.g. num_classes, img_size
    image_size: int  # pixels, square; 0 is the model's own
    feature: str  # "pooled": before the classifier (num_classes=0) | "output": model(x)

    def __post_init__(self) -> None:
        if self.library not in LIBRARIES:
            raise ValueError(
                f"backbone {self.architecture}: expected a library out of {', '.join(LIBRARIES)}, found "
                f"{self.library!r}; choose one of these."
            )
        if self.feature not in FEATURES:
            raise ValueError(
                f"backbone {self.architecture}: expected a feature out of {', '.join(FEATURES)}, found "
                f"{self.feature!r}; choose one of these."
            )
        if self.image_size < 0:
            raise ValueError(
                f"backbone {self.architecture}: expected an image size of at least 0 pixels (0: the model's own), "
                f"found {self.image_size}; set a positive size."
            )


@dataclass(frozen=True)
class Encoder:
    """A loaded backbone in eval mode: batch normalisation, dropout and drop-path as at test time."""

    backbone: Backbone
    module: nn.Module
    transform: Callable[[Image.Image], Tensor]  # RGB image -> float32 (3, H, W), normalised
    pixels: Callable[[Image.Image], Tensor]  # the same, before normalising: uint8 (3, H, W)
    data_config: Mapping[str, Any]  # input_size, mean, std, interpolation, crop_pct, crop_mode
    width: int  # p
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (b, 3, H, W) as `transform` would have given them, bit for bit; floats pass through."""
        if pixels.dtype != torch.uint8:
            return pixels
        mean, std = (
            torch.tensor(self.data_config[key], dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for key in ("mean", "std")
        )
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def features(self, images: Tensor) -> Tensor:
        """Features (b, p) of normalised images (b, 3, H, W), with gradients if they are enabled."""
        return features_of(self.module, images, self.backbone.feature)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that can change the features: all, without the classifier behind pooled features."""
        unused: set[int] = set()
        classifier = self.module.get_classifier()  # type: ignore[operator]
        if self.backbone.feature == "pooled" and isinstance(classifier, nn.Module):
            unused = {id(parameter) for parameter in classifier.parameters()}
        return {
            name: parameter
            for name, parameter in self.module.named_parameters()
            if id(parameter) not in unused
        }


def features_of(module: nn.Module, images: Tensor, feature: str) -> Tensor:
    """A timm model's features (b, p): "pooled" is what its num_classes=0 twin gives, "output" is model(x)."""
    images = images.contiguous(memory_format=torch.channels_last)
    if feature == "output":
        return module(images)
    return module.forward_head(module.forward_features(images), pre_logits=True)  # type: ignore[operator]


def load_encoder(backbone: Backbone, device: str = "cpu", seed: int | None = None) -> Encoder:
    """Build the network, load its weights strictly, and set up its own preprocessing.

    seed: of the initial weights where backbone.weights is "random". ValueError when the architecture is
    unknown, when the file's keys or shapes are not the network's, or when it has no such image size.
    """
    import timm

    if not timm.is_model(backbone.architecture):
        near = ", ".join(difflib.get_close_matches(backbone.architecture, timm.list_models(), n=3)) or "none"
        raise ValueError(
            f"backbone: expected an architecture that timm {timm.__version__} knows, found "
            f"{backbone.architecture!r}; similar names: {near}."
        )
    module = _module(backbone, seed)
    _set_image_size(module, backbone)
    config = _data_config(module, backbone)
    where = _device(device)
    # with channels last, fine-tuning an EfficientNet on a CPU takes half the time; a transformer does not care
    module.eval().to(where).to(memory_format=torch.channels_last)
    with torch.no_grad():
        blank = torch.zeros((1, *config["input_size"]), device=where)
        width = features_of(module, blank, backbone.feature).shape
    if len(width) != 2:
        raise ValueError(
            f"backbone {backbone.architecture}: expected one feature vector for each image, found shape "
            f"{tuple(width)}; set global_pool in model_args."
        )
    return Encoder(
        backbone=backbone,
        module=module,
        transform=_timm_transform(config, normalised=True),
        pixels=_pixels(config),
        data_config=config,
        width=width[1],
        device=where,
    )


def classifier_head(encoder: Encoder) -> tuple[Tensor, Tensor] | None:
    """The linear classifier on pooled features as (W (p, classes), b (classes,)), or None if there is none.

    logits = features @ W + b. None as well where the classifier is not one linear layer on p inputs.
    """
    layer = encoder.module.get_classifier()  # type: ignore[operator]
    if encoder.backbone.feature != "pooled" or not isinstance(layer, nn.Linear):
        return None
    if layer.in_features != encoder.width:
        return None
    weights = layer.weight.detach().T.clone()
    bias = weights.new_zeros(weights.shape[1]) if layer.bias is None else layer.bias.detach().clone()
    return weights, bias


class ImageFiles(torch.utils.data.Dataset):
    """Image files as uint8 pixels (3, H, W), read and prepared when they are asked for."""

    def __init__(self, paths: Sequence[Path], read: Callable[[Path], Image.Image], encoder: Encoder):
        """read: opens a path as an RGB image."""
        self.paths, self.read, self.pixels = list(paths), read, encoder.pixels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        return self.pixels(self.read(self.paths[row]))

    def load(self, workers: int = 0) -> Tensor:
        """All of them at once as one uint8 tensor (m, 3, H, W)."""
        loader = torch.utils.data.DataLoader(self, batch_size=64, num_workers=workers)
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
            prepared = encoder.normalise(part.to(encoder.device))
            rows.append(encoder.features(prepared).float().cpu().numpy())
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


@torch.no_grad()
def timm_features(encoder: Encoder, images: Sequence[Image.Image]) -> Tensor:
    """Features (m, p) the way timm's documentation computes them, to check `Encoder` against.

    A second model is made with the same weights (num_classes=0 for pooled features), and timm resolves its
    preprocessing. The images go through it one by one.
    """
    import timm

    backbone = encoder.backbone
    args = dict(backbone.model_args)
    if backbone.feature == "pooled":
        args["num_classes"] = 0
    if backbone.image_size and _fixed_size(encoder.module):
        args["img_size"] = backbone.image_size
    model = timm.create_model(backbone.architecture, **args).eval()
    state = encoder.module.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()}, strict=True)
    override = {"input_size": tuple(encoder.data_config["input_size"])}
    config = timm.data.resolve_data_config(override, model=model)
    transform = timm.data.create_transform(**config, is_training=False)
    return torch.cat([model(transform(image).unsqueeze(0)) for image in images])


def _batches(images: Any, batch: int, workers: int) -> Iterable[Tensor]:
    if isinstance(images, Tensor):
        yield from images.split(batch)
    elif hasattr(images, "__len__") and hasattr(images, "__getitem__"):
        yield from torch.utils.data.DataLoader(images, batch_size=batch, num_workers=workers)
    else:
        held: list[Tensor] = []
        for image in images:
            held.append(image)
            if len(held) == batch:
                yield torch.stack(held)
                held = []
        if held:
            yield torch.stack(held)


def _module(backbone: Backbone, seed: int | None) -> nn.Module:
    import timm

    if backbone.weights == "random":
        if seed is None:
            raise ValueError(f"backbone {backbone.architecture}: random weights need a seed; give one.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return timm.create_model(backbone.architecture, **backbone.model_args)
    if backbone.weights == "":
        try:
            return timm.create_model(backbone.architecture, pretrained=True, **backbone.model_args)
        except (OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"backbone {backbone.architecture}: expected to download its pretrained weights, found: {reason}; "
                f"give `weights` as the path of a .safetensors file."
            ) from error
    with torch.random.fork_rng(
        devices=[]
    ):  # every weight is overwritten; only the global generator is spared
        module = timm.create_model(backbone.architecture, **backbone.model_args)
    load_weights(module, Path(backbone.weights), backbone.architecture)
    return module


def load_weights(module: nn.Module, path: Path, name: str) -> None:
    """Load a .safetensors state dict into a module; ValueError unless keys and shapes are the module's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix != ".safetensors" or not path.is_file():
        found = f"a {path.suffix or 'nameless'} file" if path.is_file() else "nothing there"
        raise ValueError(
            f"weights of {name}: expected the path of a .safetensors file, found {found}: {path}; convert "
            f"other formats with safetensors.torch.save_file."
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"weights of {name}: expected a readable .safetensors file, found {path}: {error}; copy it again."
        ) from error
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    wrong = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", sorted(shapes)),
        )
        if keys
    ]
    if wrong:
        raise ValueError(
            f"weights of {name}: expected the keys of this architecture, found {'; '.join(wrong)} in {path}; "
            f"check architecture and model_args (num_classes, img_size)."
        )
    module.load_state_dict(state, strict=True)


def _fixed_size(module: nn.Module) -> bool:
    return bool(module.pretrained_cfg.get("fixed_input_size", False))  # type: ignore[union-attr, operator]


def _set_image_size(module: nn.Module, backbone: Backbone) -> None:
    # convolutional networks take any size; a vision transformer must resample its position embedding
    size = backbone.image_size
    if not size or size == backbone.model_args.get("img_size") or not _fixed_size(module):
        return
    if not hasattr(module, "set_input_size"):
        raise ValueError(
            f"backbone {backbone.architecture}: expected a network that can change its image size, found one "
            f"that cannot; set image_size to 0."
        )
    module.set_input_size(img_size=(size, size))  # type: ignore[operator]


def _data_config(module: nn.Module, backbone: Backbone) -> dict[str, Any]:
    import timm

    config = timm.data.resolve_data_config({}, model=module)
    size = backbone.image_size or backbone.model_args.get("img_size") or 0
    if size:
        config["input_size"] = (config["input_size"][0], size, size)
    return config


def _timm_transform(config: Mapping[str, Any], normalised: bool) -> Callable[[Image.Image], Any]:
    from timm.data import create_transform

    # with a prefetcher timm leaves uint8 pixels for it to normalise: that is the part worth keeping in memory
    return create_transform(**config, is_training=False, use_prefetcher=not normalised)


def _pixels(config: Mapping[str, Any]) -> Callable[[Image.Image], Tensor]:
    prepare = _timm_transform(config, normalised=False)
    return lambda image: torch.from_numpy(np.ascontiguousarray(prepare(image)))


def _device(device: str) -> torch.device:
    where = torch.device(device)
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: expected one that this machine has, found {device!r}; set it to cpu.")
    return where
