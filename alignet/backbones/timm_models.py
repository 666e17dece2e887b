"""timm's networks for `encoder.py`: by name with a tag, from a file, or from a folder that timm itself loads."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alignet.backbones.weights import differences, load_weights, not_downloaded, read_weights, weights_file

if TYPE_CHECKING:
    from pathlib import Path

    from alignet.backbones.backbone import Backbone, LoadedBackbone


def build(backbone: Backbone, seed: int | None) -> nn.Module:
    """The network with its weights, its position embedding resampled where the image size is not its own."""
    import timm

    folder = backbone.folder
    if folder is not None:
        _check_folder(folder, backbone.architecture)
    elif not timm.is_model(backbone.architecture):
        near = ", ".join(difflib.get_close_matches(backbone.architecture, timm.list_models(), n=3)) or "none"
        raise ValueError(
            f"backbone: expected an architecture that timm {timm.__version__} knows, found "
            f"{backbone.architecture!r}; similar names: {near}."
        )
    name = backbone.architecture if folder is None else f"local-dir:{folder}"
    if backbone.weights == "":
        try:
            module = timm.create_model(name, pretrained=True, **backbone.model_args)
        except (OSError, RuntimeError) as error:
            repository = timm.get_pretrained_cfg_value(name, "hf_hub_id") or name
            raise not_downloaded(name, repository, error) from error
        _set_image_size(module, backbone)
        return module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        module = timm.create_model(name, **backbone.model_args)
    if backbone.weights == "random":
        _set_image_size(module, backbone)
    else:
        path = weights_file(backbone)
        _load(module, path, backbone)
    return module


def preprocessing(
    module: nn.Module, backbone: Backbone
) -> tuple[Callable[[Image.Image], Tensor], Callable[[Image.Image], Tensor], dict[str, Any]]:
    """(transform, pixels, data_config), see LoadedBackbone; what timm.data.resolve_data_config says."""
    import timm

    config = timm.data.resolve_data_config({}, model=module)
    size = backbone.image_size or backbone.model_args.get("img_size") or 0
    if size:
        config["input_size"] = (config["input_size"][0], size, size)
    pixels = _transform(config, normalised=False)
    return (
        _transform(config, normalised=True),
        lambda image: torch.from_numpy(np.ascontiguousarray(pixels(image))),
        config,
    )


def features_of(module: nn.Module, images: Tensor, feature: str) -> Tensor:
    """Features (b, p): "pooled" is what the network's num_classes=0 twin gives, "output" is model(x)."""
    if feature == "output":
        return module(images)
    return module.forward_head(module.forward_features(images), pre_logits=True)  # type: ignore[operator]


def classifier(module: nn.Module) -> nn.Module | None:
    """The layer behind the pooled features."""
    return module.get_classifier()  # type: ignore[operator]


def text_features(encoder: LoadedBackbone, texts: Sequence[str]) -> Tensor:
    """timm's networks have no text tower."""
    raise ValueError(
        f"text features: expected a network with a text tower, found timm's {encoder.backbone.architecture}; take "
        f"an open_clip or transformers model."
    )


def configuration(encoder: LoadedBackbone) -> dict[str, str]:
    """config.json: architecture, constructor arguments, and the evaluated preprocessing."""
    module: Any = encoder.module
    backbone = encoder.backbone
    given: dict[str, Any] = {}
    if backbone.folder is not None:
        given = json.loads((backbone.folder / "config.json").read_text(encoding="utf-8"))
    # the preprocessing below takes the overlay's place
    args = given.get("model_args", {}) | {
        key: value for key, value in backbone.model_args.items() if key != "pretrained_cfg_overlay"
    }
    size = encoder.data_config["input_size"][1]
    own = module.pretrained_cfg["input_size"][1]
    if _fixed_size(module) and (size != own or "img_size" in args):
        args["img_size"] = size  # a transformer's position embedding has the size it was trained at
    kept = {
        key: value
        for key, value in module.pretrained_cfg.items()
        if key in ("classifier", "first_conv", "fixed_input_size", "pool_size", "license")
        and value is not None
    }
    if size != own:
        kept.pop("pool_size", None)  # of the size that the network was published with
    head = classifier(module)
    named = [name for name, part in module.named_modules() if part is head]
    if module.num_classes and "classifier" not in kept and named:
        kept["classifier"] = named[0]  # a folder without it cannot be loaded with num_classes=0
    prepared = {
        key: list(value) if isinstance(value, tuple) else value for key, value in encoder.data_config.items()
    }
    config: dict[str, Any] = {
        "architecture": given.get("architecture", backbone.architecture),
        "num_classes": module.num_classes,
        "num_features": module.num_features,
        "pretrained_cfg": kept | prepared | {"custom_load": False, "num_classes": module.num_classes},
    }
    # num_classes stands at the top: among the arguments it would survive a caller's num_classes=0 as a head
    args.pop("num_classes", None)
    if args:
        config["model_args"] = args
    return {"config.json": json.dumps(config, indent=2) + "\n"}


@torch.no_grad()
def timm_features(encoder: LoadedBackbone, images: Sequence[Image.Image]) -> Tensor:
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


def _check_folder(folder: Path, architecture: str) -> None:
    path = folder / "config.json"
    found = ""
    if path.is_file():
        found = str(json.loads(path.read_text(encoding="utf-8")).get("architecture", ""))
    if found.partition(".")[0] != architecture.partition(".")[0]:
        raise ValueError(
            f"backbone: expected a folder of timm's {architecture}, whose config.json says so, found "
            f"{found or 'no architecture'} in {path}; set architecture to the folder's."
        )


def _load(module: nn.Module, path: Path, backbone: Backbone) -> None:
    # weights may have the published size, or the one asked for if they were fine-tuned at it
    state = read_weights(path, backbone.architecture)
    if differences(module, state):
        _set_image_size(module, backbone)
        load_weights(module, path, backbone.architecture)
    else:
        module.load_state_dict(state, strict=True)
        _set_image_size(module, backbone)


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


def _transform(config: Mapping[str, Any], normalised: bool) -> Callable[[Image.Image], Any]:
    from timm.data import create_transform

    # with a prefetcher timm leaves uint8 pixels for it to normalise: that is the part worth keeping in memory
    return create_transform(**config, is_training=False, use_prefetcher=not normalised)
