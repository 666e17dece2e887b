"""The model card of an exported folder: README.md in Markdown, with the metadata that model hubs read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignet.backbones import Encoder

_CODE = {
    "timm": """import timm

model = timm.create_model("local-dir:PATH/TO/THIS/FOLDER", pretrained=True{asked}).eval()
config = timm.data.resolve_data_config({{}}, model=model)
transform = timm.data.create_transform(**config, is_training=False)
features = model(transform(image).unsqueeze(0))""",
    "open_clip": """import open_clip

model, _, transform = open_clip.create_model_and_transforms("local-dir:PATH/TO/THIS/FOLDER")
features = model.eval().encode_image(transform(image).unsqueeze(0))
tokenizer = open_clip.get_tokenizer("{tokenizer}")
texts = model.encode_text(tokenizer(["a photo of a lizard"]))""",
    "transformers": """import torch
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("PATH/TO/THIS/FOLDER", dtype=torch.float32).eval()
processor = AutoImageProcessor.from_pretrained("PATH/TO/THIS/FOLDER")
features = {call}""",
}


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


def model_card(encoder: Encoder, card: ModelCard, code: Mapping[str, str], notes: Sequence[str]) -> str:
    """README.md of the folder. code: what the library's loading example leaves open. notes: paragraphs below it."""
    library = encoder.backbone.library
    config = encoder.data_config
    lines = [
        "---",
        f"library_name: {library}",
        "tags: [image-feature-extraction, representational-alignment, alignet]",
        f"base_model: {json.dumps(card.base)}",
        "---",
        f"# {card.name}",
        "",
        card.summary,
        "",
        "```python",
        *_CODE[library].format(**code).splitlines(),
        "```",
        "",
        f"Similarity of two images is the dot product of their features ({encoder.width} numbers, not normalised). "
        f"Images go in at {config['input_size'][1]} px ({config['interpolation']}, {_cut(config)}mean "
        f"{_numbers(config['mean'])}, std {_numbers(config['std'])}).",
        "",
        *[line for note in notes for line in (note, "")],
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


def _cut(config: Mapping[str, Any]) -> str:
    if "crop_pct" in config:
        return f"crop {config['crop_pct']:g}, "
    return f"resized by {config['resize_mode']}, " if "resize_mode" in config else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:g}" for value in dict.fromkeys(values))
