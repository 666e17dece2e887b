"""How far images that a network takes for the same are from their targets, by perceptual distances."""

from __future__ import annotations

from typing import Any

from alignet.pipeline.graph.builder import GraphBuilder, chosen
from alignet.pipeline.graph.models import model_section, model_weights, network


def perceptual(graph: GraphBuilder, role: str) -> str:
    """Distances of inverted images; role: that of `invert`, <model>.<images>.<method>."""
    made = graph.node("invert", role)
    settings = graph.config.perceptual
    distances, inputs = {}, {"invert": made}
    for name in settings.used:
        distances[name], needed = distance(graph, name, "perceptual.use")
        inputs |= needed
    section: dict[str, Any] = {"distances": distances, "batch": settings.batch}
    return graph.add("perceptual", graph.nodes[made].role, section, inputs)


def distance(graph: GraphBuilder, name: str, key: str) -> tuple[dict[str, Any], dict[str, str]]:
    """A distance of `perceptual.distances` for a node's section, and the node's input with weights if there is one.

    key: of the configuration, where the distance is named.
    The input is called distance_<name>; networks of a package or a hub, and pixels, have none.
    `alignet.stages._distances.distance` makes it again from both.
    """
    settings = graph.config.perceptual.named(name, key)
    section = chosen(settings)
    if settings.kind == "lpips":
        if getattr(graph.config.data.sets.get(settings.trunk), "kind", "") != "weights":
            raise ValueError(
                f"perceptual.distances.{name}.trunk: expected a set of data.sets of kind weights, found "
                f"{settings.trunk!r}"
            )
        del section["trunk"]  # its digest counts, not its name
        return section, {f"distance_{name}": graph.node("index", settings.trunk)}
    if settings.kind != "layers":
        return section, {}
    base = network(graph, settings.model, f"perceptual.distances.{name}.model", "name another model")
    weights = model_weights(graph, settings.model).get("weights")
    del section["model"]
    section["network"] = model_section(base)
    return section, {f"distance_{name}": weights} if weights else {}
