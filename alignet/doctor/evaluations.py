"""Can every evaluation read its own files? Each is opened as its family opens it, and what is in it is told briefly.

That a file is there does not say that it is whole, or of as many images as the set that it is about; only its reader
can tell. What this module opens is listed by `opened`; features, triplets and trials are read by doctor.sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alignet.config import DatasetSettings
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.sources import Sources

_BREEDS = ("hierarchy", "names", "classes")  # one hierarchy in three files
_TREES = ("hierarchy", "relations", "space", "projection")  # families that read the conceptual hierarchy


class _AbsentError(Exception):
    """A set that something is checked against is not there, by its name."""


def check_evaluations(sources: Sources) -> Iterator[Finding]:
    """One line for each file of an evaluation and each way in which it is read."""
    said: set[tuple[str, str]] = set()
    for name, dataset in sources.config.evaluate.datasets.items():
        for part in _opened(dataset):
            about = f"data.sets.{dataset.data[part]}"
            if not all(sources.is_there(dataset.data[one]) for one in _together(dataset, part)):
                continue  # the check of files says so
            try:
                found = ok(about, _described(sources, name, dataset, part))
            except _AbsentError as absent:
                found = warning(about, f"not read, since data.sets.{absent}, which it is about, is not there")
            except ValueError as error:
                found = fault(about, str(error), f"It is read for evaluate.datasets.{name}")
            if (about, found.found) not in said:
                yield found
            said.add((about, found.found))


def opened(sources: Sources) -> set[str]:
    """The sets that check_evaluations opens."""
    return {
        dataset.data[one]
        for dataset in sources.config.evaluate.datasets.values()
        for part in _opened(dataset)
        for one in _together(dataset, part)
    }


def _opened(dataset: DatasetSettings) -> list[str]:
    """The parts of `data` that are opened here; of what is read together, the first."""
    parts = list(dataset.data)
    if dataset.family == "rsa":
        return [part for part in parts if part == "matrix"]
    if dataset.family == "rsa_mean":
        return [part for part in parts if not part.startswith("order ")]
    if dataset.family == "nights":
        return [part for part in parts if part == "items"]
    if dataset.family == "breeds":
        return [
            part for part in parts if part == "split" or (part == "hierarchy" and set(_BREEDS) <= set(parts))
        ]
    if dataset.family == "transfer":
        return [part for part in parts if part == "real"]
    if dataset.family == "masking":
        return [part for part in parts if part == "human"]
    if dataset.family == "invariance" and dataset.settings:
        return [part for part in parts if part == "similarity" or part.partition(" ")[0] == "people"]
    if dataset.family in _TREES:
        return [part for part in parts if part in ("wordnet", "hierarchy", "labels")]
    if dataset.family == "few_shot" and dataset.options["labels"] == "table":
        return [part for part in parts if part in ("train_labels", "test_labels", "all_labels")]
    if "unit_column" in dataset.options:
        return [part for part in parts if part == "labels"]
    return []


def _together(dataset: DatasetSettings, part: str) -> list[str]:
    """The parts that are read with one: the three files of BREEDS, the table that orders a matrix, an image's class."""
    if dataset.family == "breeds" and part == "hierarchy":
        return list(_BREEDS)
    beside = {
        "matrix": ["order"],
        "wordnet": ["labels"],
        "hierarchy": ["labels"],
        "similarity": ["order", "labels"],
    }
    if dataset.family == "rsa_mean":
        beside = {part: [f"order {part}"]}
    return [part, *(one for one in beside.get(part, []) if one in dataset.data)]


def _described(sources: Sources, name: str, dataset: DatasetSettings, part: str) -> str:
    """What a file holds, as its family reads it; ValueError where it cannot."""
    path = _path(sources, dataset, part)
    if dataset.family in ("rsa", "rsa_mean"):
        return _judged(sources, name, dataset, part, path)
    if dataset.family == "nights":
        return _nights(sources, dataset, path)
    if dataset.family == "breeds":
        return _breeds(sources, dataset, part, path)
    if dataset.family == "transfer":
        return _real(sources, name, dataset, path)
    if dataset.family == "masking":
        return _curve(path)
    if dataset.family == "invariance":
        return _alike(sources, name, dataset, part, path)
    if part == "hierarchy" or part == "wordnet":
        return _tree(sources, name, dataset, part, path)
    return _labelled(sources, dataset, part, path)


def _path(sources: Sources, dataset: DatasetSettings, part: str) -> Path:
    path = sources.path(dataset.data[part])
    assert path is not None  # is_there says so
    return path


def _ids(sources: Sources, dataset: DatasetSettings, part: str) -> list[str]:
    """The ids of the images of a part; of an evaluation that names none, those of the pool."""
    name = dataset.images.get(part, "pool")
    ids = sources.set_ids(name)
    if ids is None:
        raise _AbsentError(name)
    return ids


def _judged(sources: Sources, name: str, dataset: DatasetSettings, part: str, path: Path) -> str:
    from alignet.data.judgements import load_judgements
    from alignet.data.tables import read_column
    from alignet.evaluate.families.options import of_set
    from alignet.evaluate.families.similarity import judged_images

    several = dataset.family == "rsa_mean"
    options = of_set(dataset.options, part) if several else dataset.options
    order = f"order {part}" if several else "order"
    if order in dataset.data:
        count = len(read_column(_path(sources, dataset, order), options["order_column"]))
    else:
        count = len(
            judged_images(_ids(sources, dataset, part if several else "test"), options, part, name)[0]
        )
    found = load_judgements(
        path, format=options.get("format", "matrix"), images=count, part=options.get("set"),
        kind=options.get("kind"), key=options.get("key"),
    )  # fmt: skip
    return f"{path}: judgments of {count:,} images ({found.note})"


def _nights(sources: Sources, dataset: DatasetSettings, path: Path) -> str:
    from alignet.data.nights import load_nights

    options = dataset.options
    items = load_nights(
        path, split=options["split"], min_votes=options["min_votes"], is_imagenet=options["is_imagenet"]
    )
    items.rows(_ids(sources, dataset, "test"))
    return f"{path}: {len(items.pictures):,} items whose pictures are all there ({items.note})"


def _breeds(sources: Sources, dataset: DatasetSettings, part: str, path: Path) -> str:
    from alignet.data.breeds import TASKS, load_hierarchy, load_split, split_task

    note = ""
    if part == "split":
        split = load_split(path)
    else:
        paths = (_path(sources, dataset, one) for one in _BREEDS)
        hierarchy = load_hierarchy(*paths)
        split, note = split_task(hierarchy, TASKS[dataset.options["task"]]), hierarchy.note
    said = f"{path}: {len(split)} superclasses of {len(split[0].source) + len(split[0].target)} subclasses"
    return f"{said}; {note}" if note else said


def _real(sources: Sources, name: str, dataset: DatasetSettings, path: Path) -> str:
    from alignet.data.imagenet import load_real, validation_rows, wnids

    classes = len(set(wnids(_ids(sources, dataset, "train"), f"{name}: train").tolist()))
    labels = load_real(path, classes)
    rows = validation_rows(_ids(sources, dataset, "val"), len(labels), f"{name}: val")
    return f"{path}: labels of {len(labels):,} images, {len(rows):,} of them there"


def _curve(path: Path) -> str:
    from alignet.evaluate.families.masking import read_human

    found = read_human(path)
    low, high = found["share"][0], found["share"][-1]
    return f"{path}: people's accuracy at {len(found['share'])} shares from {low:g} to {high:g}"


def _alike(sources: Sources, name: str, dataset: DatasetSettings, part: str, path: Path) -> str:
    """People's answers on inverted images, or their similarities of the targets."""
    from alignet.evaluate.families.invariance_people import read_answers
    from alignet.evaluate.families.invariance_read import read_similarity

    ids, settings = _inverted(sources, name, dataset), sources.config.invert
    if part != "similarity":
        answers = read_answers(path, ids, settings.draws)
        said = ", ".join(f"{len(one):,} of the kind {kind}" for kind, one in answers.items())
        return f"{path}: answers that count: {said or 'none'}"
    files = {one: _path(sources, dataset, one) for one in _together(dataset, part)}
    matrix, _, note = read_similarity(files, dataset.options, ids, name)
    said = f"{path}: similarities of {len(matrix):,} of {len(ids):,} inverted images"
    return f"{said}; {note}" if note else said


def _inverted(sources: Sources, name: str, dataset: DatasetSettings) -> list[str]:
    """The ids of the images that the stage invert draws from a set, as it draws them."""
    from alignet.data.drawn import drawn

    graph, settings = sources.graph, sources.config.invert
    key = graph[f"evaluate[{dataset.settings[0]}.{name}]"].inputs.get("node.invert")
    node = graph[key] if key is not None else None
    images = graph[node.inputs["images"]].role if node is not None and node.stage == "invert" else ""
    ids = sources.set_ids(images) if images else None
    if ids is None:
        raise _AbsentError(images or "of the node `invert`")
    rows = drawn(np.zeros(len(ids), np.int64), settings.images, settings.seed, True)
    return [ids[row] for row in rows.tolist()]


def _tree(sources: Sources, name: str, dataset: DatasetSettings, part: str, path: Path) -> str:
    from alignet.data.categories import one_each, read_categories
    from alignet.evaluate.families.representations import levels_of

    files = {one: _path(sources, dataset, one) for one in _together(dataset, part)}
    levels = levels_of(files, _ids(sources, dataset, "test"), dataset.options, name)
    count = len(set(levels.superordinate.tolist()) - {""})
    said = [f"{count} superordinate categories", levels.unknown()]
    if part == "hierarchy":
        given = dataset.options["hierarchy"]
        rule = given.get("several")
        categories = read_categories(
            path, given["class"], given["superordinate"], given["merge"], rows_differ=bool(rule)
        )
        said.append(one_each(categories, rule or "first")[1])
    return f"{path}: {', '.join(text for text in said if text)}"


def _labelled(sources: Sources, dataset: DatasetSettings, part: str, path: Path) -> str:
    from alignet.data.tables import column_for
    from alignet.evaluate.families.generalisation import table_labels

    options, note = dataset.options, ""
    ids = _ids(sources, dataset, part.rpartition("_")[0] or "test")
    if dataset.family == "few_shot":
        column = options["label"]
        labels, note = table_labels(path, ids, options)
        values = labels.tolist()
    else:
        naming = dict(options["labels"]) if dataset.family in _TREES else {"column": options["unit_column"]}
        column = naming.pop("column")
        values = column_for(path, ids, column, **naming)
    said = f"{path}: {column} of each of {len(ids):,} images, {len(set(values) - {''}):,} different"
    return f"{said}; {note}" if note else said
