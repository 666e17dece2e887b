"""What everything else is made from: the drawn world, sets of outside data, and how their ids name objects."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from alignet.config import Config, ImagesSet
from alignet.pipeline.graph.builder import GraphBuilder


def world(graph: GraphBuilder, role: str) -> str:
    """The world that is drawn where no data are given."""
    return graph.add("world", "", graph.config.world, {})


def index(graph: GraphBuilder, role: str) -> str:
    """The list of a data set's files; role: its name in data.sets."""
    data, name = graph.config.data, first_name(graph.config, role)
    if name not in data.sets:
        raise ValueError(f"no data set {name!r}: expected one of {', '.join(data.sets)} (data.sets)")
    one = data.sets[name]
    section = {key: value for key, value in asdict(one).items() if (key, value) != ("member", "")}
    if data.drawn(name):
        return graph.add("index", name, section, {"world": graph.node("world")})
    section = {key: value for key, value in section.items() if key not in ("path", "ids")}
    return graph.add("index", name, section, {}, outside=name)


def first_name(config: Config, images: str) -> str:
    """The first image set with the same settings, so that a folder under two names is read once."""
    sets = config.data.sets
    one = sets.get(images)
    if isinstance(one, ImagesSet) and one.path is not None:
        return next(name for name, other in sets.items() if other == one)
    return images


def object_ids(config: Config, images: str) -> dict[str, Any]:
    """How the ids of an image set name objects of the object table."""
    known = config.data.object_ids
    if images not in known:
        raise ValueError(
            f"data.object_ids: expected how ids of {images!r} name objects, found {', '.join(known) or 'none'}; "
            f"add data.object_ids.{images} with column and prefix"
        )
    return asdict(known[images])
