"""Models and what they are shown: conf's sections `teacher`, `student`, `baselines`, `pixels` and `embed`.

Read by the stage `embed`; by `prefetch`, `finetune` and `export`, which load a model; and by `evaluate`, where a metric
looks at images itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignet.config.bounds import at_least


@dataclass(frozen=True)
class FeatureRows:
    """Precomputed rows: a features set, and the image set whose ids select from it ('' takes all rows)."""

    features: str
    images: str


@dataclass(frozen=True)
class ModelSettings:
    """A backbone: an architecture with weights, or precomputed features."""

    name: str
    library: Literal["timm", "open_clip", "transformers", "features", "pixels", "histogram"]
    architecture: str  # timm's or open_clip's name; transformers: a repository, or a model type
    tag: str  # open_clip: of the pretrained weights; transformers: a revision; '' for timm, whose names hold it
    weights: Literal["pretrain", "file", "hub", "random", ""]
    weights_set: str  # weights=file: the set with the .safetensors file, or the folder that the library loads
    model_args: Mapping[str, Any]
    image_size: int  # pixels; 0 is the model's own
    feature: Literal["pooled", "output", ""]
    rows: Mapping[str, FeatureRows]  # library=features: by image set
    licence: str

    @property
    def title(self) -> str:
        """The name, and that the weights are random where they are."""
        return f"{self.name}, random weights" if self.weights == "random" else self.name


@dataclass(frozen=True)
class PixelsSettings:
    """What pixels mean where a file does not say so, see alignet.data.pixels.PixelPolicy; for every model alike."""

    range: tuple[float, ...] | None  # low, high
    bands: tuple[int, ...] | None
    transparency: Literal["white", "drop"]
    orientation: Literal["stored", "exif"]
    max_pixels: int

    def __post_init__(self) -> None:
        for name, value, count in (("range", self.range, 2), ("bands", self.bands, 3)):
            if value is not None and len(value) != count:
                raise ValueError(f"pixels.{name}: expected null or {count} numbers, found {list(value)}")
        at_least("pixels", 1, max_pixels=self.max_pixels)


@dataclass(frozen=True)
class EmbedSettings:
    """A backbone over an image set."""

    batch: int
    shard: int
    precision: Literal["float32", "float16"]  # of what is stored
    decode: Literal["exact", "fast"]
    compute: Literal["float32", "bf16"]  # of the forward pass
    unreadable: Literal["stop", "skip"]

    def __post_init__(self) -> None:
        at_least("embed", 1, batch=self.batch, shard=self.shard)
