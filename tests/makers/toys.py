"""Small networks of each library, and pictures, for the tests of backbones, export and zero-shot."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from alignet.backbones import Backbone

PHOTOS = os.environ.get("ALIGNET_PHOTOS", "")
TOWER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 48,
    "patch_size": 16,
}  # fmt: skip
WORDS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 64,
    "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
CLIP = {"vision_config": TOWER, "text_config": WORDS, "projection_dim": 24}
SIGLIP = {"vision_config": TOWER, "text_config": WORDS}
NATIVE = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
OF_TIMM = NATIVE | {
    "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
}


def backbone(library: str, architecture: str, args: dict, feature: str, size: int = 0, **more) -> Backbone:
    given = {"weights": "random", "model_args": args, "image_size": size, "feature": feature} | more
    return Backbone(library=library, architecture=architecture, **given)


TOYS = {
    "open_clip output": backbone("open_clip", "ViT-B-32", NATIVE, "output"),
    "open_clip pooled at 64": backbone("open_clip", "ViT-B-32", NATIVE, "pooled", 64),
    "open_clip timm output": backbone("open_clip", "ViT-B-16-SigLIP", OF_TIMM, "output", tag="webli"),
    "open_clip timm pooled": backbone("open_clip", "ViT-B-16-SigLIP", OF_TIMM, "pooled", tag="webli"),
    "clip output": backbone("transformers", "clip", CLIP, "output"),
    "clip pooled at 64": backbone("transformers", "clip", CLIP, "pooled", 64),
    "siglip output": backbone("transformers", "siglip", SIGLIP, "output"),
    "siglip pooled": backbone("transformers", "siglip", SIGLIP, "pooled"),
    "siglip vision at 64": backbone("transformers", "siglip_vision_model", TOWER, "pooled", 64),
    "clip vision": backbone("transformers", "clip_vision_model", TOWER, "pooled"),
    "vit at 64": backbone("transformers", "vit", TOWER, "pooled", 64),
    "deit": backbone("transformers", "deit", TOWER, "pooled"),
    "dinov2 at 64": backbone("transformers", "dinov2", TOWER, "pooled", 64),
    "dinov2 registers": backbone("transformers", "dinov2_with_registers", TOWER, "pooled"),
    "dinov3 at 64": backbone("transformers", "dinov3_vit", TOWER, "pooled", 64),
}


def pictures(photographs: int = 3) -> list[Image.Image]:
    """Drawn pictures of three shapes, and some real photographs where there are any."""
    generator = np.random.default_rng(0)
    fields = generator.integers(0, 256, (3, 9, 12, 3), dtype=np.uint8)
    sizes = [(260, 210), (140, 300), (97, 97)]
    drawn = [
        Image.fromarray(field).resize(size, Image.Resampling.BICUBIC) for field, size in zip(fields, sizes)
    ]
    files = sorted((Path(PHOTOS) / "images" / "things").glob("*.jpg"))[:photographs] if PHOTOS else []
    return drawn + [Image.open(path).convert("RGB") for path in files]
