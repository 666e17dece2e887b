"""The teacher: its map, and its answers about the pool. `alignet` sees mapped features, the control raw ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import Config, MapSource
from alignet.pipeline.graph.builder import GraphBuilder
from alignet.pipeline.graph.data import object_ids
from alignet.pipeline.graph.models import model_section, weights
from alignet.pipeline.graph.people import objects


def distill(graph: GraphBuilder, role: str) -> str:
    """The affine map of a model, learned from choices or published."""
    configured = graph.config.distill
    if role in configured.published:
        inputs = {
            "published": graph.node("index", configured.published[role]),
            "features": graph.node("embed", f"{role}.pool"),  # their width must be the map's
        }
        return graph.add("distill", role, {}, inputs)
    base, other = configured.base(role), configured.others.get(role)
    source = map_source(graph.config, base)
    if base not in configured.settings:
        raise ValueError(
            f"distill.settings: expected those of {base}, found {', '.join(configured.settings)}"
        )
    section = {
        "settings": asdict(configured.settings[base]),
        "object_ids": object_ids(graph.config, source.images),
        "fold_column": source.fold_column,
    }
    inputs = {
        "features": graph.node("embed", f"{base}.{source.images}"),
        "triplets": graph.node("index", source.triplets),
    }
    if other is None or other.loss == "soft":
        inputs["soft_labels"] = graph.node("soft_labels", source.triplets)
    if other is not None and other.local is not None:
        section["local"] = asdict(other.local)
        inputs["local"] = graph.node("embed", f"{base}.{other.local.images}")
    return graph.add("distill", role, section, inputs | {"objects": objects(graph)})


def map_source(config: Config, role: str) -> MapSource:
    """The features and human choices that a role's map is learned on."""
    if role not in config.distill.sources:
        raise ValueError(
            f"distill: expected a source or a published map for {role}, found neither; set "
            f"distill.published.{role} to a set of kind map, or distill.sources.{role}"
        )
    return config.distill.sources[role]


def cluster(graph: GraphBuilder, role: str) -> str:
    """k-means over the teacher's features of the pool."""
    return graph.add("cluster", role, graph.config.cluster, teacher_features(graph, role))


def triplets(graph: GraphBuilder, role: str) -> str:
    """Triplets of the pool that the teacher has answered, or a published set of them."""
    settings = graph.config.triplets
    section = asdict(settings)
    published = section.pop("published")
    if published is not None:
        if role != "alignet":
            raise ValueError(
                f"triplets.published: expected the role alignet alone, found {role}; set finetune.roles=[alignet]"
            )
        inputs = {"published": graph.node("index", published), "images": graph.node("index", "pool")}
        return graph.add("triplets", role, {}, inputs)
    inputs = teacher_features(graph, role)
    if settings.sampling == "cluster_boundary":
        inputs["clusters"] = graph.node("cluster", role)
    elif settings.labels_from == "cls":
        inputs["images"] = graph.node("index", "pool")
    elif "." in settings.labels_from:
        inputs["labels"] = graph.node("index", settings.labels_from.partition(".")[0])
    return graph.add("triplets", role, section | part_of_pool(graph.config), inputs)


def smooth(graph: GraphBuilder, role: str) -> str:
    """The teacher's raw features of the pool, smoothed where that is configured; a map comes afterwards."""
    if graph.config.smooth is None:
        return graph.node("embed", "teacher.pool")
    section = asdict(graph.config.smooth) | {"model": model_section(graph.config.models["student"])}
    inputs = {
        "features": graph.node("embed", "teacher.pool"),
        "original": graph.node("embed", "student.pool"),
    }
    return graph.add("smooth", "", section, inputs | weights(graph, "student"))


def teacher_features(graph: GraphBuilder, role: str) -> dict[str, str]:
    """Inputs that give the teacher's features of the pool, mapped for `alignet` alone."""
    inputs = {"features": graph.node("embed", "teacher.pool")}
    return inputs | ({"map": graph.node("distill", "teacher")} if role == "alignet" else {})


def part_of_pool(config: Config) -> dict[str, Any]:
    """What of a section says that only a part of the pool counts; nothing where all of it does."""
    count = config.data.pool_images
    return {} if count is None else {"pool_images": {"count": count, "seed": config.seed}}
