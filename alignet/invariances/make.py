"""A perceptual distance from what the configuration says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from alignet.backbones import Encoder
from alignet.backbones.weights import read_weights
from alignet.invariances.layers import EncoderLayers
from alignet.invariances.perceptual import Distance, LayerDistance, Pixels
from alignet.invariances.trunks import lpips_distance, stlpips_distance


def make_distance(
    name: str,
    kind: str,
    net: str = "",
    trunk: Path | None = None,
    encoder: Encoder | None = None,
    layers: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Distance:
    """A distance of perceptual.distances, by its kind: pixels | layers | lpips | stlpips.

    net: of lpips and stlpips. trunk: of lpips, the file with its network's weights. encoder, layers: of layers, the
    network, which stays where it is, and names of its modules, none for the default ones. device: of the others.
    ValueError where a package is not installed, weights do not fit, or a network has no such layers.
    """
    if kind == "pixels":
        return Pixels(name)
    if kind == "stlpips":
        return stlpips_distance(name, net, device)
    if kind == "lpips":
        assert trunk is not None
        return lpips_distance(name, net, read_weights(trunk, name), device)
    assert encoder is not None
    return LayerDistance(name, EncoderLayers(encoder, layers))
