"""open_clip's networks for `encoder.py`, both towers: by name and tag, from a file, or from open_clip's folder.

The feature "output" is model.encode_image(x) without normalisation, the vector that the text tower meets;
"pooled" is the image tower's vector before its projection.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn

from alignet.backbones.weights import differences, not_downloaded, read_weights, weights_file

if TYPE_CHECKING:
    from alignet.backbones.backbone import Backbone, LoadedBackbone

CONFIG = "open_clip_config.json"


def build(backbone: Backbone, seed: int | None) -> nn.Module:
    """The network with its weights; another image size resamples the position embedding as open_clip does."""
    import open_clip

    model_config, prepare = _configured(backbone)
    if backbone.weights == "random":
        return _module(backbone, model_config, prepare, backbone.image_size, seed or 0)
    if backbone.weights == "":
        known = open_clip.get_pretrained_cfg(backbone.architecture, backbone.tag)
        try:
            path = Path(open_clip.download_pretrained(known))
        except Exception as error:  # each way of fetching raises its own kind
            repository = known.get("hf_hub", "").rstrip("/") or known.get("url", "")
            raise not_downloaded(f"{backbone.architecture} ({backbone.tag})", repository, error) from error
        return _with_file(backbone, model_config, prepare, path)
    path = weights_file(backbone)
    return _with_file(backbone, model_config, prepare, path)


def preprocessing(
    module: nn.Module, backbone: Backbone
) -> tuple[Callable[[Image.Image], Tensor], Callable[[Image.Image], Tensor], dict[str, Any]]:
    """(transform, pixels, data_config), see LoadedBackbone; open_clip's own transform for validation."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose, Normalize
    from torchvision.transforms.functional import pil_to_tensor

    prepared = PreprocessCfg(**module.visual.preprocess_cfg)  # type: ignore[union-attr, arg-type]
    transform = image_transform_v2(prepared, is_train=False)
    *shape, _, last = transform.transforms  # resizing and cropping, to tensor, normalise
    if not isinstance(last, Normalize):
        raise ValueError(
            f"backbone {backbone.architecture}: expected open_clip's preprocessing to end by normalising, found "
            f"{type(last).__name__}; install the open_clip that pyproject.toml asks for."
        )
    config = {
        "input_size": tuple(prepared.input_size),
        "mean": tuple(prepared.mean),
        "std": tuple(prepared.std),
        "interpolation": prepared.interpolation,
        "resize_mode": prepared.resize_mode,
        "fill_color": prepared.fill_color,
    }
    return transform, Compose([*shape, pil_to_tensor]), config


def features_of(module: nn.Module, images: Tensor, feature: str) -> Tensor:
    """Features (b, p): "output" is encode_image, "pooled" the image tower before its projection."""
    if feature == "output":
        return module.encode_image(images)  # type: ignore[operator]
    visual: Any = module.visual
    if hasattr(visual, "trunk"):
        return visual.trunk(images)
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        # the tower ends in pooled @ proj: with the identity for proj it ends in pooled
        identity = torch.eye(visual.proj.shape[0], dtype=visual.proj.dtype, device=visual.proj.device)
        return torch.func.functional_call(visual, {"proj": identity}, (images,))
    raise ValueError(
        f"backbone: expected an image tower with a projection of its own for feature=pooled, found "
        f"{type(visual).__name__}, which pools and projects at once; set feature=output."
    )


def classifier(module: nn.Module) -> nn.Module | None:
    """None: these networks classify by text."""
    return None


def text_features(encoder: LoadedBackbone, texts: Sequence[str]) -> Tensor:
    """encode_text (t, p) with the tokenizer that the network's configuration names, see _tokenizer."""
    tokens = _tokenizer(encoder.backbone)(list(texts)).to(encoder.device)
    return torch.cat([encoder.module.encode_text(part) for part in tokens.split(256)])  # type: ignore[operator]


def configuration(encoder: LoadedBackbone) -> dict[str, str]:
    """open_clip_config.json: both towers at their image size, and the evaluated preprocessing."""
    model_config, _ = _configured(encoder.backbone)
    prepared = encoder.data_config
    size = prepared["input_size"][1]
    own = model_config["vision_cfg"].get("image_size", 224)
    if size != own:
        if "timm_model_name" in model_config["vision_cfg"]:
            raise ValueError(
                f"export: expected the image size {own} that open_clip rebuilds this image tower of timm at, found "
                f"{size}; set image_size=0, or take the architecture with that size in its name."
            )
        model_config["vision_cfg"] = model_config["vision_cfg"] | {"image_size": size}
    kept = {
        key: list(prepared[key]) if isinstance(prepared[key], tuple) else prepared[key]
        for key in ("mean", "std", "interpolation", "resize_mode", "fill_color")
    }
    content = {"model_cfg": model_config, "preprocess_cfg": kept}
    return {CONFIG: json.dumps(content, indent=2) + "\n"}


def _tokenizer(backbone: Backbone) -> Callable[[list[str]], Tensor]:
    """CLIP's own, which open_clip holds; or the one named, from the network's folder, else from the hub."""
    import open_clip

    model_config, _ = _configured(backbone)
    named = model_config["text_cfg"].get("hf_tokenizer_name")
    try:
        if named and backbone.folder is None:
            return open_clip.get_tokenizer(backbone.architecture)
        with tempfile.TemporaryDirectory() as bare:
            folder = backbone.folder or Path(bare)
            if backbone.folder is None:
                (folder / CONFIG).write_text(json.dumps({"model_cfg": model_config}), encoding="utf-8")
            return open_clip.get_tokenizer(f"local-dir:{folder}")
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"tokenizer of {backbone.architecture}: expected {named}'s files in the model's folder or from the hub, "
            f"found: {reason}; put tokenizer.json and its companions into the folder."
        ) from error


def _configured(backbone: Backbone) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the model with model_args in place, and of the preprocessing."""
    if backbone.folder is not None:
        path = backbone.folder / CONFIG
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if "model_cfg" not in content:
            raise ValueError(
                f"backbone {backbone.architecture}: expected a folder of open_clip with `model_cfg` in {CONFIG}, "
                f"found none in {backbone.folder}; give a folder that open_clip loads."
            )
        return content["model_cfg"] | dict(backbone.model_args), content.get("preprocess_cfg", {})
    import open_clip

    base = open_clip.get_model_config(backbone.architecture)
    if base is None:
        near = difflib.get_close_matches(backbone.architecture, open_clip.list_models(), n=3)
        raise ValueError(
            f"backbone: expected an architecture that open_clip {open_clip.__version__} knows, found "
            f"{backbone.architecture!r}; similar names: {', '.join(near) or 'none'}."
        )
    model_config = base | dict(backbone.model_args)
    quick_gelu = bool(model_config.get("quick_gelu", False))
    as_published = not {"quick_gelu", "vision_cfg", "text_cfg", "embed_dim"} & backbone.model_args.keys()
    if not backbone.tag and backbone.weights not in ("", "random") and as_published:
        _check_activation(backbone, quick_gelu)
    return model_config, _of_tag(backbone, quick_gelu)


def _check_activation(backbone: Backbone, quick_gelu: bool) -> None:
    """ValueError for a file without a tag where published weights of the architecture use the other activation.

    A file does not say which it was trained with, and with the wrong one its features are others, without an error.
    """
    import open_clip

    name, published = backbone.architecture, dict[bool, list[str]]()
    for tag in open_clip.list_pretrained_tags_by_model(name):
        uses = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False))
        published.setdefault(uses, []).append(tag)
    if not published.get(not quick_gelu):
        return
    said = "; ".join(
        f"{'QuickGELU' if uses else 'GELU'}: {', '.join(tags[:4])}{f' and {len(tags) - 4} more' if tags[4:] else ''}"
        for uses, tags in sorted(published.items(), reverse=True)
    )
    other = f"{name}-quickgelu"
    architecture = f", architecture {other}," if other in open_clip.list_models() else ","
    raise ValueError(
        f"backbone {name}: expected the tag of the weights or their activation, since published weights use "
        f"{said}, found neither; give the tag{architecture} or model_args.quick_gelu true or false."
    )


def _untagged(backbone: Backbone) -> dict[str, Any]:
    """The preprocessing of weights without a tag: what all published ones of the architecture share, if there are any.

    ValueError where they differ: the library's default would silently be wrong for some.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(backbone.architecture)
    known = [_prepared(open_clip.get_pretrained_cfg(backbone.architecture, tag)) for tag in tags]
    if not known:
        return {}
    if any(one != known[0] for one in known):
        raise ValueError(
            f"backbone {backbone.architecture}: expected the tag of the weights, since published ones are prepared in "
            f"different ways, found none; set tag to one of {', '.join(tags)}."
        )
    return known[0]


def _prepared(known: Mapping[str, Any]) -> dict[str, Any]:
    return {key: known[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in known}


def _of_tag(backbone: Backbone, quick_gelu: bool) -> dict[str, Any]:
    """The preprocessing that belongs to the weights of the tag; {} without a tag."""
    import open_clip

    if not backbone.tag and backbone.weights != "":
        return _untagged(backbone)
    known = open_clip.get_pretrained_cfg(backbone.architecture, backbone.tag)
    if not known:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(backbone.architecture)) or "none"
        raise ValueError(
            f"backbone {backbone.architecture}: expected a tag of open_clip's pretrained weights, found "
            f"{backbone.tag!r}; it has: {tags}."
        )
    if bool(known.get("quick_gelu", False)) != quick_gelu:
        bare = backbone.architecture.removesuffix("-quickgelu")
        other = bare if quick_gelu else f"{bare}-quickgelu"
        known_name = other in open_clip.list_models()
        fix = (
            f"architecture to {other}"
            if known_name
            else f"model_args.quick_gelu to {str(not quick_gelu).lower()}"
        )
        raise ValueError(
            f"backbone {backbone.architecture} ({backbone.tag}): expected the activation that these weights were "
            f"trained with, found the other one; set {fix}."
        )
    return _prepared(known)


def _with_file(
    backbone: Backbone, model_config: Mapping[str, Any], prepare: Mapping[str, Any], path: Path
) -> nn.Module:
    """The network with the weights of a file, which may have the published image size or the one asked for."""
    import open_clip

    name, size = backbone.architecture, backbone.image_size
    state = read_weights(path, name)
    module = _module(backbone, model_config, prepare, size)
    if not differences(module, state):
        module.load_state_dict(state, strict=True)
        return module
    late = bool(size) and hasattr(
        module.visual, "set_input_size"
    )  # a tower of timm is resized with its weights
    if late:
        module = _module(backbone, model_config, prepare, 0)
    wrong = differences(module, state)
    if "logit_bias" in state and getattr(module, "logit_bias", None) is None:
        raise ValueError(
            f"weights of {name}: expected a configuration with logit_bias, which {path} has (it was trained with the "
            f"sigmoid loss), found one without; add init_logit_bias: -10 to model_cfg in {CONFIG}, or to model_args."
        )
    try:
        open_clip.load_checkpoint(
            module, str(path)
        )  # knows older key names, and resamples position embeddings
    except (RuntimeError, KeyError, AssertionError) as error:
        raise ValueError(
            f"weights of {name}: expected the keys of this architecture with both towers, found {wrong} in {path}; "
            f"check architecture and model_args."
        ) from error
    if late:
        visual: Any = module.visual
        visual.set_input_size(size)
        visual.preprocess_cfg["size"] = visual.image_size
    return module


def _module(
    backbone: Backbone, model_config: Mapping[str, Any], prepare: Mapping[str, Any], size: int, seed: int = 0
) -> nn.Module:
    """The network with random weights, from its configuration as a folder of open_clip holds it."""
    import open_clip

    with tempfile.TemporaryDirectory() as folder, _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        content = {"model_cfg": model_config, "preprocess_cfg": dict(prepare)}
        (Path(folder) / CONFIG).write_text(json.dumps(content), encoding="utf-8")
        try:
            return open_clip.create_model(
                f"local-dir:{folder}", load_weights=False, force_image_size=size or None,
                pretrained_image=False, pretrained_text=False,
            )  # fmt: skip
        except OSError as error:  # some text towers are described on the hub alone
            described = str(model_config.get("text_cfg", {}).get("hf_model_name", backbone.architecture))
            raise not_downloaded(backbone.architecture, described, error) from error
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"backbone {backbone.architecture}: expected model_args that open_clip's configuration has, found "
                f"{sorted(backbone.model_args)}: {error}; compare open_clip.get_model_config."
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # open_clip warns that a network without weights is random, before its weights are read
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
