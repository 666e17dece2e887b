"""Where models look: saliency, pictures of which only the important pixels are shown, and training on people's maps."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import FinetuneSettings, HarmonizeSection, MapsSet
from alignet.pipeline.graph.builder import GraphBuilder, chosen
from alignet.pipeline.graph.data import first_name, labels_input
from alignet.pipeline.graph.models import model_section, model_weights, network, pixels_section, weights
from alignet.pipeline.graph.teacher import part_of_pool, teacher_features


def saliency(graph: GraphBuilder, role: str) -> str:
    """The gradient of a logit by the pixels; role: <model>.<images>."""
    model, _, asked = role.partition(".")
    settings, images = graph.config.saliency, first_name(graph.config, asked)
    base = network(graph, model, f"saliency[{role}]", "take the row out of the settings of this evaluation")
    section = asdict(settings)
    inputs = {"images": graph.node("index", images)} | model_weights(graph, model)
    inputs |= labels_input(graph, "saliency", f"{model}.{images}", asked, images, settings.labels)
    return graph.add(
        "saliency", f"{model}.{images}",
        {"model": model_section(base), "saliency": section | {"labels": {}}, "pixels": pixels_section(graph.config)},
        inputs,
    )  # fmt: skip


def stimuli(graph: GraphBuilder, role: str) -> str:
    """Pictures of which the most important pixels are shown; role: a set of maps, or <model>.<images> for a model's."""
    config = graph.config
    section: dict[str, Any] = {"settings": asdict(config.stimuli.settings), "pixels": pixels_section(config)}
    if "." in role:
        found = graph.node("saliency", role)
        inputs = {"images": graph.nodes[found].inputs["images"], "saliency": found}
        return graph.add("stimuli", role, section | {"key": ""}, inputs)
    if role not in config.stimuli.maps:
        raise ValueError(
            f"stimuli[{role}]: expected a set of maps out of {', '.join(config.stimuli.maps) or 'none'} "
            f"(stimuli.maps), or <model>.<images> for the maps of a model, found {role!r}"
        )
    inputs = {"images": graph.node("index", config.stimuli.maps[role]), "maps": graph.node("index", role)}
    return graph.add("stimuli", role, section | {"key": maps_set(graph, role).key}, inputs)


def harmonize(graph: GraphBuilder, role: str) -> str:
    """The student's weights after training on people's maps."""
    config, section = graph.config, harmonize_section(graph)
    if role not in section.roles:
        raise ValueError(
            f"harmonize.roles: expected {role} among {', '.join(section.roles)}, found it as a row of an evaluation "
            f"alone; add it there or take it out of the settings"
        )
    own = section.roles[role]
    start = "student" if own.start == "original" else own.start
    inputs = {"images": graph.node("index", section.images), "maps": graph.node("index", section.maps)}
    inputs |= {
        name: graph.node("index", one)
        for name, one in (
            ("labels", section.labels),
            ("plain", section.plain),
            ("plain_labels", section.plain_labels),
        )
        if one is not None
    }
    inputs |= model_weights(graph, start) if start != "student" else weights(graph, "student")
    settings = asdict(section.settings)
    blur = settings["blur"]
    made: dict[str, Any] = {
        "settings": settings, "role": asdict(own), "column": section.column, "blur": blur,
        "key": maps_set(graph, section.maps).key, "model": model_section(config.models["student"]),
        "pixels": pixels_section(config),
    }  # fmt: skip
    if own.alignet:
        made["finetune"] = _beside(role, config.finetune.settings)
        made |= part_of_pool(config)
        inputs |= {"pool": graph.node("index", "pool")} | teacher_features(graph, "alignet")
        inputs["features"] = graph.node("smooth")
    return graph.add("harmonize", role, made, inputs)


def _beside(role: str, settings: FinetuneSettings) -> dict[str, Any]:
    """The settings of AligNet's loss in steps of the Harmonizer; ValueError for those that have no place there."""
    expected = {
        "sampling": "in_batch",
        "head": 0,
        "clusters_per_batch": 0,
        "retain": 0.0,
        "accumulate": 1,
        "frozen": (),
    }
    for name, value in expected.items():
        if (found := getattr(settings, name)) != value:
            raise ValueError(
                f"harmonize.roles.{role}.alignet: expected finetune.settings.{name}={value or 0} where AligNet's loss "
                f"stands in the same steps, found {found}; set it so, or alignet=0 for this role"
            )
    return chosen(settings)


def harmonize_section(graph: GraphBuilder) -> HarmonizeSection:
    """The section `harmonize`; ValueError where the experiment has none."""
    if graph.config.harmonize is None:
        raise ValueError(
            "harmonize: expected images and people's maps of them, since a row of this experiment is trained on maps; "
            "found null. Set harmonize, as experiment=harmonize does, or take these rows out"
        )
    return graph.config.harmonize


def maps_set(graph: GraphBuilder, name: str) -> MapsSet:
    """A set of importance maps; ValueError for another kind."""
    one = graph.config.data.sets.get(name)
    if not isinstance(one, MapsSet):
        raise ValueError(
            f"data.sets: expected {name!r} to be a set of kind maps, found {getattr(one, 'kind', 'none')}"
        )
    return one
