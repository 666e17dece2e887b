"""What other programs load: a fine-tuned student with its scores, a map, the teacher's answered triplets."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import Config
from alignet.pipeline.graph.builder import GraphBuilder
from alignet.pipeline.graph.evaluation import evaluation
from alignet.pipeline.graph.models import model_section
from alignet.pipeline.graph.nodes import TRAINED


def export(graph: GraphBuilder, role: str) -> str:
    """A fine-tuned student, a map, or the answered triplets (role dataset), for other programs."""
    config = graph.config
    section: dict[str, Any] = {"experiment": config.experiment_name, "banner": config.said}
    teacher, student = config.models["teacher"], config.models["student"]
    if role == "dataset":
        return graph.add("export", role, section, {"triplets": graph.node("triplets", "alignet")})
    if role not in TRAINED:
        base = teacher if role == "teacher" else student
        section["card"] = {"name": base.title, "licence": base.licence}
        inputs = {"map": graph.node("distill", "teacher" if role == "teacher" else "student")}
        return graph.add("export", role, section, inputs)
    section |= {"precision": config.export.precision, "model": model_section(student)}
    section["card"] = {
        "name": student.title,
        "licence": student.licence,
        "data": _data(config, role),
        "smooth": asdict(config.smooth) if config.smooth else None,
    }
    inputs = {"weights": graph.node(TRAINED[role], role)}
    for name in config.export.scores:
        for setting in ("original", role):
            if setting in config.evaluate.datasets[name].settings:
                inputs[f"score.{setting}.{name}"] = evaluation(graph, setting, name)
    return graph.add("export", role, section, inputs)


def _data(config: Config, role: str) -> dict[str, str]:
    """What a student was trained on, in words."""
    if TRAINED[role] == "harmonize":
        return _harmonized_data(config, role)
    if TRAINED[role] == "robust":
        return {
            "human data": "none: this is the control",
            "images": "labelled images, attacked in every step",
        }
    teacher = config.models["teacher"]
    return {
        "teacher": f"{teacher.title}; licence: {teacher.licence}",
        "human choices": _human_choices(config) if "alignet" in role else "none: this is the control",
        "images": "the pool",
    }


def _harmonized_data(config: Config, role: str) -> dict[str, str]:
    """What a harmonized student was trained on, in words."""
    section = config.harmonize
    maps = section.maps if section is not None and role != "unharmonized" else "none: this is the control"
    data = {
        "importance maps": f"of other images: this is the control ({maps})"
        if role == "shuffled-maps"
        else maps
    }
    if "alignet" in role:
        data |= {
            "teacher": f"{config.models['teacher'].title}; licence: {config.models['teacher'].licence}",
            "human choices": _human_choices(config),
        }
    return data | {"images": "labelled images, with maps and without"}


def _human_choices(config: Config) -> str:
    """What the aligned student knows of people, in words."""
    if config.triplets.published is not None:
        return "none here; a published AligNet data set answered the triplets"
    if "teacher" in config.distill.published:
        return "none here; the teacher's map W, b was learned elsewhere"
    vice = config.vice
    if vice is None:
        return ""
    return vice.train or f"{vice.published} (an embedding of choices, fitted elsewhere)"
