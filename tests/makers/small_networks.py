"""Networks of a few thousand weights in folders that timm loads, and drawn photographs for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

SIZE = 48


def network(folder: Path, seed: int, classes: int = 10, architecture: str = "test_efficientnet") -> None:
    """A folder that timm loads, of a small network with random weights that sees whole images."""
    torch.manual_seed(seed)
    sized = {} if "efficientnet" in architecture else {"img_size": SIZE}
    module = timm.create_model(architecture, num_classes=classes, **sized)
    head = module.pretrained_cfg["classifier"]
    for name, value in module.state_dict().items():  # a fresh classifier's logits hardly move with the pixels
        if name.startswith(head):
            value.normal_()
    folder.mkdir()
    size = {
        "input_size": [3, SIZE, SIZE],
        "crop_pct": 1.0,
        "num_classes": classes,
        "classifier": head,
    }
    config = {"architecture": architecture, "num_classes": classes, "pretrained_cfg": size}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(module.state_dict(), folder / "model.safetensors")


def drawn_photos(folder: Path, count: int, generator: np.random.Generator) -> None:
    """`count` images 0.png, 1.png, ... of coloured squares."""
    folder.mkdir()
    for row in range(count):
        pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        for _ in range(6):
            y, x = generator.integers(0, SIZE - 12, 2)
            pixels[y : y + 12, x : x + 12] = generator.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{row}.png")


def payload(folder: str) -> dict[str, bytes]:
    """Every file but the manifests, which say when and by what command."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json" and path.suffix != ".lock"
    }
