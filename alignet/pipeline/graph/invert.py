"""Inputs that a model takes for the same as given images."""

from __future__ import annotations

from typing import Any

from alignet.pipeline.graph.builder import GraphBuilder, chosen
from alignet.pipeline.graph.data import first_name
from alignet.pipeline.graph.models import model_section, model_weights, network, pixels_section
from alignet.pipeline.graph.perceptual import distance


def invert(graph: GraphBuilder, role: str) -> str:
    """Images that are represented as those of a set; role: <model>.<images>.<method>."""
    model, _, rest = role.partition(".")
    images, _, name = rest.rpartition(".")
    settings = graph.config.invert
    if name not in settings.methods or not images:
        raise ValueError(
            f"invert[{role}]: expected <model>.<images>.<method> with a method out of invert.methods "
            f"({', '.join(settings.methods)}), found {name!r}"
        )
    images = first_name(graph.config, images)
    base = network(graph, model, f"invert[{role}]", "take the row out of the settings of this evaluation")
    method = settings.methods[name]
    inputs = {"images": graph.node("index", images)} | model_weights(graph, model)
    section: dict[str, Any] = {
        "model": model_section(base), "method": chosen(method), "pixels": pixels_section(graph.config),
        "regulariser": name, "layer": settings.layer, "draws": settings.draws, "images": settings.images,
        "batch": settings.batch, "shard": settings.shard, "seed": settings.seed,
    }  # fmt: skip
    if method.distance:
        section["distance"], needed = distance(graph, method.distance, f"invert.methods.{name}.distance")
        inputs |= needed
    return graph.add("invert", f"{model}.{images}.{name}", section, inputs)
