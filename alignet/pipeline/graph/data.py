"""What everything else is made from: the drawn world, sets of outside data, and how their ids name objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from alignet.config import Config, ImagesSet, SetSettings, TripletsSet
from alignet.pipeline.graph.builder import GraphBuilder, chosen

# options that mean what the stage did before it had them: left out, stores stay valid
_AS_BEFORE = (("member", ""), ("order", None), ("order", "table"))


def world(graph: GraphBuilder, role: str) -> str:
    """The world that is drawn where no data are given."""
    return graph.add("world", "", None if graph.config.world is None else chosen(graph.config.world), {})


def index(graph: GraphBuilder, role: str) -> str:
    """The list of a data set's files; role: its name in data.sets."""
    data, name = graph.config.data, first_name(graph.config, role)
    if name not in data.sets:
        raise ValueError(f"no data set {name!r}: expected one of {', '.join(data.sets)} (data.sets)")
    one = data.sets[name]
    section = {key: value for key, value in asdict(one).items() if (key, value) not in _AS_BEFORE}
    inputs = _numbering(graph, one)
    if data.drawn(name):
        return graph.add("index", name, section, {"world": graph.node("world")} | inputs)
    section = {key: value for key, value in section.items() if key not in ("path", "ids")}
    return graph.add("index", name, section, inputs, outside=name)


def _numbering(graph: GraphBuilder, one: SetSettings) -> dict[str, str]:
    """What says which object each number of a triplets file is, where that is not the object table's order."""
    objects = graph.config.data.objects
    if not isinstance(one, TripletsSet) or one.order in (None, "table"):
        return {}
    if objects is None:
        raise ValueError(
            "data.sets: expected an object table (data.objects) beside triplets with an `order`, found none; name one"
        )
    named = {} if one.order == "sorted_files" else {"order": graph.node("index", one.order)}
    return {"objects": graph.node("index", objects)} | named


def first_name(config: Config, images: str) -> str:
    """The first image set with the same settings, so that a folder under two names is read once."""
    sets = config.data.sets
    one = sets.get(images)
    if isinstance(one, ImagesSet) and one.path is not None:
        return next(name for name, other in sets.items() if other == one)
    return images


def labels_input(
    graph: GraphBuilder, stage: str, role: str, asked: str, images: str, labels: Mapping[str, str]
) -> dict[str, str]:
    """The input `labels` of a node that knows its images' classes; none where no table has them.

    role: the node's. asked: the image set by the name that asks; images: by the first name of its folder. labels: image
    set -> table. ValueError where the node is there, asked for by another name of the folder, with other labels.
    """
    table = labels.get(asked, labels.get(images))
    inputs = {} if table is None else {"labels": graph.node("index", table)}
    before = graph.nodes.get(f"{stage}[{role}]")
    if before is not None and before.inputs.get("labels") != inputs.get("labels"):
        found = [
            one.get("labels", "none").removeprefix("index[").rstrip("]") for one in (before.inputs, inputs)
        ]
        raise ValueError(
            f"{stage}.labels: expected one table for {images}, found {' and '.join(found)} for two names of its "
            f"folder; give both names the same"
        )
    return inputs


def object_ids(config: Config, images: str) -> dict[str, Any]:
    """How the ids of an image set name objects of the object table."""
    known = config.data.object_ids
    if images not in known:
        raise ValueError(
            f"data.object_ids: expected how ids of {images!r} name objects, found {', '.join(known) or 'none'}; "
            f"add data.object_ids.{images} with column and prefix"
        )
    return asdict(known[images])
