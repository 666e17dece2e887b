"""The perceptual distances of a node, from what its section and its inputs say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.invariances.perceptual import Distance
    from alignet.pipeline.stage_run import StageRun


def distance(work: StageRun, name: str, section: Mapping[str, Any]) -> Distance:
    """The distance that `alignet.pipeline.graph.perceptual.distance` put into a node, on the run's device.

    section: what stands in the node's section for it. Weights are the input `distance_<name>` where there is one.
    ValueError where a package is not installed, weights do not fit, or a network has no such layers.
    """
    from alignet.backbones.weights import read_weights
    from alignet.invariances.layers import EncoderLayers
    from alignet.invariances.perceptual import LayerDistance, Pixels
    from alignet.invariances.trunks import lpips_distance, stlpips_distance
    from alignet.pipeline import payloads

    key, kind, device = f"distance_{name}", section["kind"], work.runtime.device
    if kind == "pixels":
        return Pixels(name)
    if kind == "stlpips":
        return stlpips_distance(name, section["net"], device)
    if kind == "lpips":
        return lpips_distance(name, section["net"], read_weights(work.sources[key], name), device)
    inputs = {"weights": work.inputs[key]} if key in work.inputs else {}
    sources = {"weights": work.sources[key]} if key in work.sources else {}
    network = replace(work, section={"model": section["network"]}, inputs=inputs, sources=sources)
    encoder = payloads.encoder(network, payloads.base_weights(network))
    return LayerDistance(name, EncoderLayers(encoder, section.get("layers", ())))
