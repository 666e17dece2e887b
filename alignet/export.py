"""Weights as a folder that timm loads by itself, with a model card.

<folder>/
  config.json         architecture, its arguments, preprocessing as it was evaluated
  model.safetensors   the state dict, the original classifier included where the network has one
  README.md           model card: data, recipe, metrics, licence of the base weights

timm.create_model("local-dir:<folder>", pretrained=True, num_classes=0)   # the evaluated features
timm.data.resolve_data_config({}, model=model)                            # the evaluated preprocessing
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alignet.backbones import Encoder, features_of

_TOLERANCE = 1e-5  # of the reloaded model's features, relative to their largest entry


@dataclass(frozen=True)
class ModelCard:
    """What the model card says."""

    name: str  # heading
    summary: str  # one paragraph: what these weights are
    base: str  # name of the network that was fine-tuned
    base_licence: str
    data: Sequence[tuple[str, str]]  # (what it served for, which data)
    recipe: Mapping[str, Any]  # settings, in order
    metrics: Sequence[tuple[str, str, str, str]]  # (metric, data, before, after), formatted


def export_timm(folder: Path, encoder: Encoder, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a folder that timm loads without this package, and check that it does.

    encoder: says architecture, arguments and preprocessing; its own weights are not read. state: the weights
    to export, keys and shapes of encoder.module. ValueError if they are not, or if the reloaded network's
    features differ from those of `state`.
    """
    own = encoder.module.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) + sorted(
        name for name in own.keys() & state.keys() if own[name].shape != state[name].shape
    )
    if wrong:
        raise ValueError(
            f"export: expected the weights of {encoder.backbone.architecture}, found {len(wrong)} keys that are "
            f"missing, unexpected or of another shape, the first {wrong[0]!r}; export with its own backbone."
        )
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder / "model.safetensors", state)
    _write_text(folder / "config.json", json.dumps(timm_config(encoder), indent=2) + "\n")
    _write_text(folder / "README.md", model_card(encoder, card))
    check_reload(folder, encoder, state)


def timm_config(encoder: Encoder) -> dict[str, Any]:
    """config.json of a timm folder: architecture, constructor arguments, and the evaluated preprocessing."""
    module: Any = encoder.module
    backbone = encoder.backbone
    # the preprocessing below takes the overlay's place
    args = {key: value for key, value in backbone.model_args.items() if key != "pretrained_cfg_overlay"}
    size = encoder.data_config["input_size"][1]
    fixed = bool(module.pretrained_cfg.get("fixed_input_size", False))
    if fixed and size != module.pretrained_cfg["input_size"][1]:
        args["img_size"] = size  # a transformer's position embedding has the size it was trained at
    kept = {
        key: value
        for key, value in module.pretrained_cfg.items()
        if key in ("classifier", "first_conv", "fixed_input_size", "pool_size", "license")
        and value is not None
    }
    if size != module.pretrained_cfg["input_size"][1]:
        kept.pop("pool_size", None)  # of the size that the network was published with
    preprocessing = {
        key: list(value) if isinstance(value, tuple) else value for key, value in encoder.data_config.items()
    }
    config: dict[str, Any] = {
        "architecture": backbone.architecture,
        "num_classes": module.num_classes,
        "num_features": module.num_features,
        "pretrained_cfg": kept | preprocessing | {"custom_load": False, "num_classes": module.num_classes},
    }
    # num_classes stands at the top: among the arguments it would survive a caller's num_classes=0 as a head
    args.pop("num_classes", None)
    if args:
        config["model_args"] = args
    return config


def check_reload(folder: Path, encoder: Encoder, state: Mapping[str, Tensor]) -> None:
    """ValueError unless timm makes the same features and preprocessing from the folder as the encoder has."""
    import timm

    # num_classes=0 is how pooled features are asked for; an output is the whole model's
    asked: dict[str, Any] = {"num_classes": 0} if encoder.backbone.feature == "pooled" else {}
    reloaded = timm.create_model(f"local-dir:{folder}", pretrained=True, **asked).eval()
    found = timm.data.resolve_data_config({}, model=reloaded)
    for key, value in encoder.data_config.items():
        same = tuple(found[key]) == tuple(value) if isinstance(value, tuple) else found[key] == value
        if not same:
            raise ValueError(
                f"export: expected timm to resolve {key} = {value} from {folder}, found {found[key]}; this "
                f"architecture's configuration overrides it, so set student.image_size to its own."
            )
    images = torch.randn((2, *encoder.data_config["input_size"]), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = features_of(_with_weights(encoder, state), images, encoder.backbone.feature)
        features = reloaded(images)
    if features.shape != expected.shape:
        raise ValueError(
            f"export: expected timm's features of shape {tuple(expected.shape)} from {folder}, found "
            f"{tuple(features.shape)}; this architecture's num_classes=0 is not its pooled feature."
        )
    difference = (features - expected).abs().max().item() / max(expected.abs().max().item(), 1e-30)
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"export: expected timm's features from {folder} to be those evaluated, found a relative difference "
            f"of {difference:.1e}; this architecture's num_classes=0 is not its pooled feature."
        )


def model_card(encoder: Encoder, card: ModelCard) -> str:
    """README.md of the folder, in Markdown with the metadata that model hubs read."""
    asked = ", num_classes=0" if encoder.backbone.feature == "pooled" else ""
    config = encoder.data_config
    lines = [
        "---",
        "library_name: timm",
        "tags: [image-feature-extraction, representational-alignment, alignet]",
        f"base_model: {json.dumps(card.base)}",
        "---",
        f"# {card.name}",
        "",
        card.summary,
        "",
        "```python",
        "import timm",
        "",
        f'model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True{asked}).eval()',
        "config = timm.data.resolve_data_config({}, model=model)",
        "transform = timm.data.create_transform(**config, is_training=False)",
        "features = model(transform(image).unsqueeze(0))",
        "```",
        "",
        f"Similarity of two images is the dot product of their features ({encoder.width} numbers). Images go in "
        f"at {config['input_size'][1]} px ({config['interpolation']}, crop {config['crop_pct']:g}, mean "
        f"{_numbers(config['mean'])}, std {_numbers(config['std'])}).",
        "",
        "## Metrics",
        "",
        *_table(("metric", "data", "before", "after"), card.metrics),
        "",
        "## Data",
        "",
        *_table(("for", "data"), card.data),
        "",
        "## Recipe",
        "",
        f"Architecture `{encoder.backbone.architecture}`, initialised from {card.base}.",
        "",
        *_table(("setting", "value"), [(key, str(value)) for key, value in card.recipe.items()]),
        "",
        "## Licence",
        "",
        f"These weights are derived from {card.base}, whose licence is: {card.base_licence}. The terms of the "
        "data above apply as well.",
    ]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in dict.fromkeys(values))


def _with_weights(encoder: Encoder, state: Mapping[str, Tensor]) -> nn.Module:
    import copy

    module = copy.deepcopy(encoder.module).cpu().eval()
    module.load_state_dict(dict(state), strict=True)
    return module


def _write_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    temporary = path.with_name(path.name + ".tmp")
    # clone: safetensors refuses tensors that share memory
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
