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
    from alignet.invariances.make import make_distance
    from alignet.pipeline import payloads

    key, encoder = f"distance_{name}", None
    if section["kind"] == "layers":
        inputs = {"weights": work.inputs[key]} if key in work.inputs else {}
        sources = {"weights": work.sources[key]} if key in work.sources else {}
        network = replace(work, section={"model": section["network"]}, inputs=inputs, sources=sources)
        encoder = payloads.encoder(network, payloads.base_weights(network))
    return make_distance(
        name, section["kind"], section.get("net", ""), work.sources.get(key), encoder, section.get("layers", ()),
        work.runtime.device,
    )  # fmt: skip
