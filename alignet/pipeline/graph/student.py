"""The student: fine-tuned on the teacher's answers, or on people's own choices."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import Config
from alignet.pipeline.graph.builder import GraphBuilder, chosen
from alignet.pipeline.graph.data import object_ids
from alignet.pipeline.graph.models import model_section, pixels_section, weights
from alignet.pipeline.graph.people import objects
from alignet.pipeline.graph.teacher import map_source, part_of_pool, teacher_features


def finetune(graph: GraphBuilder, role: str) -> str:
    """The student's weights after fine-tuning."""
    if role == "direct":
        return _direct(graph)
    config = graph.config
    settings = _settings(config)
    if role == "distillation":
        settings["tau_teacher"] = config.finetune.tau_distillation
    section = _student_section(config, settings) | part_of_pool(config)
    inputs = {"images": graph.node("index", "pool")} | weights(graph, "student")
    if settings["retain"]:
        inputs["original"] = graph.node("embed", "student.pool")
    if settings["sampling"] == "in_batch":
        inputs |= teacher_features(graph, role) | {"features": graph.node("smooth")}
        if settings["clusters_per_batch"]:
            inputs["clusters"] = graph.node("cluster", role)
    else:
        inputs["triplets"] = graph.node("triplets", role)
        if config.triplets.published is not None:  # whose images nobody has opened yet
            inputs["opened"] = graph.node("embed", "student.pool")
    return graph.add("finetune", role, section, inputs)


def _direct(graph: GraphBuilder) -> str:
    """The student fine-tuned on people's choices about the images that its own map would be learned on."""
    config = graph.config
    direct = config.finetune.direct
    if direct is None:
        raise ValueError("finetune.direct: expected {lr, pull, steps, batch} for the row direct, found null")
    source = map_source(config, "student")
    own = asdict(direct) | {
        "sampling": "triplets",
        "loss": "hard",
        "clusters_per_batch": 0,
        "retain": 0.0,
        "center_teacher": False,
    }
    section = _student_section(config, _settings(config) | own)
    section["object_ids"] = object_ids(config, source.images)
    inputs = {
        "images": graph.node("index", source.images),
        "choices": graph.node("index", source.triplets),
        "objects": objects(graph),
    }
    return graph.add("finetune", "direct", section, inputs | weights(graph, "student"))


def _settings(config: Config) -> dict[str, Any]:
    """finetune.settings as a section; how a head starts is none of a student without one."""
    settings = chosen(config.finetune.settings)
    return settings if settings["head"] else {k: v for k, v in settings.items() if k != "head_start"}


def _student_section(config: Config, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "settings": settings,
        "model": model_section(config.models["student"]),
        "pixels": pixels_section(config),
    }
