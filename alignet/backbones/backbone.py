"""Which network with which weights, and what is known of it once it is loaded.

Shape suffixes: b images, p features, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

LIBRARIES = ("timm", "open_clip", "transformers")
FEATURES = ("pooled", "output")


@dataclass(frozen=True)
class Backbone:
    """Which network, with which weights, at which size, and which of its vectors is the feature.

    architecture: timm's or open_clip's name of it, or a transformers repository or model type (`siglip`).
    weights: "" (the hub's) | "random" | path of a .safetensors state dict | path of a folder that the library
    loads by itself (configuration, weights and, for transformers, preprocessing). model_args: further
    arguments of timm's constructor, or what replaces entries of open_clip's or transformers' configuration.
    feature: "pooled" is the vector before a classifier or projection, "output" what the network returns: with
    a text tower, the one that it meets (not normalised). tag: open_clip's name of the weights, transformers'
    revision; timm has it in the architecture's name.
    """

    library: str  # one of LIBRARIES
    architecture: str
    weights: str
    model_args: Mapping[str, Any]
    image_size: int  # pixels, square; 0 is the model's own
    feature: str  # one of FEATURES
    tag: str = ""

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

    @property
    def folder(self) -> Path | None:
        """The folder that the network is loaded from, or None where it comes from elsewhere."""
        named = self.weights not in ("", "random") and Path(self.weights).is_dir()
        return Path(self.weights) if named else None


@dataclass(frozen=True)
class LoadedBackbone:
    """A network in eval mode with its own preprocessing: batch normalisation, dropout and drop-path as at test time."""

    backbone: Backbone
    module: nn.Module
    transform: Callable[[Image.Image], Tensor]  # RGB image -> float32 (3, H, W), normalised
    pixels: Callable[[Image.Image], Tensor]  # the same as uint8 before normalising, where that is exact
    data_config: Mapping[str, Any]  # input_size (3, H, W), mean, std, and the library's own
    width: int  # p
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    unused: frozenset[str] = frozenset()  # parameters that the features do not depend on

    @property
    def enough_pixels(self) -> int:
        """The side to which a larger photograph may be reduced before `transform`: twice what is left of it there."""
        share = float(self.data_config.get("crop_pct") or 1)
        return math.ceil(2 * max(self.data_config["input_size"][1:]) / share)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (b, 3, H, W) as `transform` would have given them; floats pass through.

        Bit for bit with timm and open_clip, to 1e-6 with transformers, which multiplies its constants out.
        """
        if pixels.dtype != torch.uint8:
            return pixels
        return normalised(pixels, self.data_config)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that can change the features: no classifier behind pooled features, no text tower."""
        return {
            name: parameter for name, parameter in self.module.named_parameters() if name not in self.unused
        }


def normalised(pixels: Tensor, data_config: Mapping[str, Any]) -> Tensor:
    """(pixels / 255 - mean) / std for uint8 pixels (b, 3, H, W) and a mean and std for each channel."""
    mean, std = (
        torch.tensor(data_config[key], dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
        for key in ("mean", "std")
    )
    return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)
