"""What is learned from people's choices: the VICE embedding, its reliability, soft labels, levels of difficulty."""

from __future__ import annotations

from typing import Any

from alignet.config import Config, ViceSection
from alignet.data.object_order import SORTED_FILES, TABLE
from alignet.pipeline.graph.builder import GraphBuilder, chosen


def vice(graph: GraphBuilder, role: str) -> str:
    """The embedding of the judged objects, fitted to choices or published."""
    people = human_data(graph.config)
    sets = {"train": people.train, "val": people.val}
    section: dict[str, Any] = {"settings": chosen(people.settings)}
    if people.published is not None:
        sets = {"published": people.published, "val": people.val}
        section = {
            "settings": {name: getattr(people.settings, name) for name in ("k", "alpha", "samples", "seed")}
        }
        if people.published_order is not None:
            section["order"] = people.published_order
    inputs = {name: graph.node("index", item) for name, item in sets.items() if item is not None}
    if people.published is not None and people.published_order not in (None, TABLE, SORTED_FILES):
        inputs["order"] = graph.node("index", table_set(graph.config, str(people.published_order)))
    return graph.add("vice", "", section, inputs | {"objects": objects(graph)})


def reliability(graph: GraphBuilder, role: str) -> str:
    """Two fits on disjoint halves of the choices."""
    people = human_data(graph.config)
    inputs = {"train": graph.node("index", str(people.train)), "objects": objects(graph)}
    return graph.add("reliability", "", {"settings": chosen(people.settings)}, inputs)


def soft_labels(graph: GraphBuilder, role: str) -> str:
    """The answers' probabilities for a set of triplets; role: its name in data.sets."""
    inputs = {"vice": graph.node("vice"), "triplets": graph.node("index", role)}
    return graph.add("soft_labels", role, graph.config.soft_labels, inputs)


def levels(graph: GraphBuilder, role: str) -> str:
    """The trials of a data set of people's choices and response times, cleaned and counted by triplet."""
    return graph.add("levels", role, graph.config.levels, {"trials": graph.node("index", role)})


def table_set(config: Config, name: str) -> str:
    """The name of a set of kind table that lists the objects in an order of its own; ValueError for another."""
    tables = [one for one, settings in config.data.sets.items() if settings.kind == "table"]
    if name not in tables:
        raise ValueError(
            f"vice.published_order: expected {TABLE}, {SORTED_FILES} or a set of kind table ({', '.join(tables)}), "
            f"found {name!r}"
        )
    return name


def objects(graph: GraphBuilder) -> str:
    """The index of the object table."""
    human_data(graph.config)
    return graph.node("index", str(graph.config.data.objects))


def human_data(config: Config) -> ViceSection:
    """The section `vice`; ValueError where the experiment has no human data."""
    if config.vice is None or config.data.objects is None:
        raise ValueError(
            "vice: expected human choices or a published embedding, and an object table (data.objects), since a "
            "part of this experiment is learned from or measured on them; found none. Set vice and data.objects, "
            "or give a map (distill.published) and leave that part out"
        )
    return config.vice
