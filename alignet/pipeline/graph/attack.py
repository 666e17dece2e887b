"""Adversarial attacks: the smallest changes that turn a model's answers, and training against such changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import RobustRole
from alignet.pipeline.graph.builder import GraphBuilder
from alignet.pipeline.graph.data import first_name, labels_input
from alignet.pipeline.graph.models import model_section, model_weights, network, pixels_section, weights


def attack(graph: GraphBuilder, role: str) -> str:
    """The smallest perturbations found; role: <model>.<images>, or <model>:<method>.<images> for another method."""
    named, _, asked = role.partition(".")
    model, _, method = named.partition(":")
    settings = graph.config.attack
    method = method or settings.method
    if method not in settings.methods:
        raise ValueError(
            f"attack[{role}]: expected a method out of attack.methods ({', '.join(settings.methods)}), found {method!r}"
        )
    images = first_name(graph.config, asked)
    base = network(graph, model, f"attack[{role}]", "take the row out of the settings of this evaluation")
    name = f"{model}{'' if method == settings.method else f':{method}'}.{images}"
    inputs = {"images": graph.node("index", images)} | model_weights(graph, model)
    inputs |= labels_input(graph, "attack", name, asked, images, settings.labels)
    of_method = asdict(settings.methods[method])
    section: dict[str, Any] = {
        "model": model_section(base), "method": of_method, "pixels": pixels_section(graph.config),
        "logit": settings.logit, "batch": settings.batch, "shard": settings.shard,
        "column": settings.column if "labels" in inputs else "", "seed": settings.seed if of_method["images"] else 0,
    }  # fmt: skip
    return graph.add("attack", name, section, inputs)


def robust(graph: GraphBuilder, role: str) -> str:
    """The student's weights after training on labelled images; role: one of robust.roles, or <role>@<steps>."""
    config = graph.config
    if config.robust is None:
        raise ValueError(
            "robust: expected labelled images to train on, since a row of this experiment is trained against attacks; "
            "found null. Set robust, as experiment=attack does, or take these rows out"
        )
    section = config.robust
    chosen = section.of_row(role)
    name, _, steps = role.partition("@")
    if chosen is None and steps and name in section.roles:
        raise ValueError(
            f"robust.roles.{name}.snapshots: expected {steps} among {list(section.roles[name].snapshots)}, found it as "
            f"a row of an evaluation alone; add it there or take {role} out of the settings"
        )
    if chosen is None:
        raise ValueError(
            f"robust.roles: expected {role} among {', '.join(section.roles)}, found it as a row of an evaluation "
            f"alone; add it there or take it out of the settings"
        )
    if steps:  # what that training kept on its way
        taken = {"snapshot": int(steps), "model": model_section(config.models["student"])}
        return graph.add("robust", role, taken, {"training": graph.node("robust", name)})
    inputs = {"images": graph.node("index", section.images)}
    if chosen.begin == "student":
        inputs |= weights(graph, "student")
    if section.labels is not None:
        inputs["labels"] = graph.node("index", section.labels)
    made: dict[str, Any] = {
        "settings": asdict(section.settings), "role": _role(chosen), "column": section.column,
        "model": model_section(config.models["student"]), "pixels": pixels_section(config),
    }  # fmt: skip
    if chosen.augmentation:
        made["augmentation"] = asdict(section.augmentations[chosen.augmentation])
    return graph.add("robust", role, made, inputs)


def _role(role: RobustRole) -> dict[str, Any]:
    """A role as a section: the attack always, other options where they are set, as before there was a choice."""
    attack = {"norm", "eps", "steps", "step", "replays"}
    usual = asdict(RobustRole("l2", 1.0, 1, 1.0))
    found = asdict(role) | {"augmentation": ""}  # stored with its values, not by its name
    return {name: value for name, value in found.items() if name in attack or value != usual[name]}
