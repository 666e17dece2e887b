"""Features the way each library documents them, for `models` to compare with `Encoder` on the same weights.

    images -> the library's own preprocessing -> its own call -> (m, p)

Neither Encoder.transform nor Encoder.features takes part. timm's are in backbones.timm_models.

Shape suffixes: m images, p features.
"""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from alignet.backbones import Encoder


def documented_features(
    encoder: Encoder, images: Sequence[Image.Image], found: Tensor
) -> tuple[Tensor, Tensor]:
    """Features to compare, `found` (m, p) of the encoder and the library's own; of open_clip's pooled ones what the
    projection makes of both, since encode_image gives nothing else."""
    if encoder.backbone.library == "timm":
        from alignet.backbones import timm_features

        return found, timm_features(encoder, images)
    if encoder.backbone.library == "open_clip":
        return _projected(encoder, found), _open_clip(encoder, images)
    return found, _transformers(encoder, images)


def _open_clip(encoder: Encoder, images: Sequence[Image.Image]) -> Tensor:
    """encode_image behind the transform that create_model_and_transforms gives for validation."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2

    backbone, module = encoder.backbone, _any(encoder.module)
    tags = [backbone.tag] if backbone.tag else open_clip.list_pretrained_tags_by_model(backbone.architecture)
    known = open_clip.get_pretrained_cfg(backbone.architecture, tags[0]) if tags else {}
    if backbone.folder is not None:
        text = (backbone.folder / "open_clip_config.json").read_text(encoding="utf-8")
        known = json.loads(text).get("preprocess_cfg", {})
    keys = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    given = {key: known[key] for key in keys if known.get(key) is not None}
    transform = image_transform_v2(PreprocessCfg(size=module.visual.image_size, **given), is_train=False)
    return module.encode_image(torch.stack([transform(image) for image in images]).to(encoder.device))


def _projected(encoder: Encoder, found: Tensor) -> Tensor:
    visual = _any(encoder.module).visual
    if encoder.backbone.feature == "output":
        return found
    return visual.head(found) if hasattr(visual, "trunk") else found @ visual.proj


def _transformers(encoder: Encoder, images: Sequence[Image.Image]) -> Tensor:
    """The call that the documentation of the network shows, behind AutoImageProcessor of its folder."""
    from transformers import AutoImageProcessor

    from alignet.backbones import configuration

    backbone, module = encoder.backbone, _any(encoder.module)
    with tempfile.TemporaryDirectory() as bare:
        folder = backbone.folder or Path(bare)
        if (
            backbone.folder is None or backbone.image_size
        ):  # what save_pretrained would write beside the weights
            folder = Path(bare)
            for name, text in configuration(encoder).items():
                (folder / name).write_text(text, encoding="utf-8")
        processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=list(images), return_tensors="pt").to(encoder.device)
    both = hasattr(module, "get_image_features")
    call = module.get_image_features if both and backbone.feature == "output" else module
    call = module.vision_model if both and backbone.feature == "pooled" else call
    forward = call.forward if isinstance(call, torch.nn.Module) else call
    resized = "interpolate_pos_encoding" in inspect.signature(forward).parameters
    output = call(**inputs, **({"interpolate_pos_encoding": True} if resized else {}))
    if isinstance(output, torch.Tensor):
        return output
    cls_token = module.config.model_type in ("vit", "deit", "vit_msn")  # their pooler is a layer of its own
    return output.last_hidden_state[:, 0] if cls_token else output.pooler_output.flatten(1)


def _any(module: Any) -> Any:
    return module
