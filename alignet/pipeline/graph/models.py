"""Backbones: their weights, and their features of a set of images."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import Config
from alignet.pipeline.graph.builder import GraphBuilder
from alignet.pipeline.graph.data import first_name
from alignet.pipeline.graph.nodes import stage_of


def pretrain(graph: GraphBuilder, role: str) -> str:
    """The drawn world's own teacher or student."""
    if graph.config.pretrain is None:
        raise ValueError(
            f"{role}.weights: expected weights from a file or a hub, found pretrain, which only "
            f"experiment=world makes; choose another {role}"
        )
    section = getattr(graph.config.pretrain, role)
    return graph.add("pretrain", role, section, {"world": graph.node("world")})


def embed(graph: GraphBuilder, role: str) -> str:
    """Features; role: <model>.<images>, where a model is teacher, student, a trained setting, or a baseline.

    <model>:logits are what its classifier makes of them. The images of stimuli.<set> are those that `stimuli` made.
    """
    named, _, images = role.partition(".")
    model, _, feature = named.partition(":")
    images = first_name(graph.config, images)
    base, settings = base_model(graph, model)
    section: dict[str, Any] = {
        "model": model_section(settings), "embed": asdict(graph.config.embed), "images": images,
    }  # fmt: skip
    if feature:
        if feature != "logits":
            raise ValueError(f"embed[{role}]: expected <model>:logits or no ending, found :{feature}")
        section["model"] = section["model"] | {"feature": "output"}
    if settings.library == "features":
        if images not in settings.rows:
            raise ValueError(f"{base}.rows: no features for {images!r}, only {', '.join(settings.rows)}")
        rows = settings.rows[images]
        inputs = {"features": graph.node("index", rows.features)}
        if rows.images:
            inputs["images"] = graph.node("index", rows.images)
        return graph.add("embed", f"{named}.{images}", section, inputs)
    section["pixels"] = pixels_section(graph.config)
    stage, _, rest = images.partition(".")
    source = graph.node(stage, rest) if stage == "stimuli" and rest else graph.node("index", images)
    inputs = {"images": source} | model_weights(graph, model)
    return graph.add("embed", f"{named}.{images}", section, inputs)


def base_model(graph: GraphBuilder, model: str) -> tuple[str, Any]:
    """The configured model that a name is of, the student for what is trained from it, and its settings."""
    base = "student" if stage_of(model) else model
    settings = graph.config.models.get(base)
    if settings is None:
        raise ValueError(f"no model {base!r}: expected one of {', '.join(graph.config.models)}")
    return base, settings


def network(graph: GraphBuilder, model: str, where: str, advice: str) -> Any:
    """The settings of a model that is a network; ValueError, which begins with `where`, for features and baselines."""
    _, settings = base_model(graph, model)
    if settings.library in ("features", "pixels", "histogram"):
        raise ValueError(f"{where}: expected a network, found {model}, which is {settings.library}; {advice}")
    return settings


def model_weights(graph: GraphBuilder, model: str) -> dict[str, str]:
    """The input `weights` of a node that runs a model or what was trained from the student."""
    stage = stage_of(model)
    if stage is not None:
        return {"weights": graph.node(stage, model)}
    return weights(graph, model)


def pixels_section(config: Config) -> dict[str, Any]:
    """What pixels mean; an orientation that is not asked for is left out, as before there was a choice."""
    return {
        key: value
        for key, value in asdict(config.pixels).items()
        if (key, value) != ("orientation", "stored")
    }


def weights(graph: GraphBuilder, model: str) -> dict[str, str]:
    """The input `weights` of a node that runs a model as it was pretrained; none where a hub has them."""
    settings = graph.config.models[model]
    if settings.weights == "pretrain":
        return {"weights": graph.node("pretrain", model)}
    if settings.weights == "file":
        return {"weights": graph.node("index", settings.weights_set)}
    return {}


def model_section(model: Any) -> dict[str, Any]:
    """What of a model's configuration determines its features: not its name, licence or file path."""
    section = asdict(model)
    for name in ("name", "licence", "weights_set", "rows"):
        del section[name]
    return section
