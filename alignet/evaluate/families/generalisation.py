"""Families of generalisation: readouts learned on little or on other data than they are tested on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alignet.data.categories import one_each, read_categories
from alignet.data.tables import column_for, for_each
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Result


def few_shot(material: Material, options: Options) -> Result:
    """Accuracy after a few labelled images of each class; see evaluate.few_shot.

    Names: features `train` and `test`; or `all`, of which the share options.split trains, drawn anew in each draw.
    options: shots, draws, C, few (stop | skip), standardize (feature | scalar; each feature where it is left out);
    labels: `folder` (an id's part before the first slash), `table` (the column options.label of the tables train_labels
    and test_labels, or all_labels, with id_column and id_prefix where its ids are not in `id`; images without a label
    are left out) or `cls` (of shards: the sets train_shards and test_shards, or all_shards, are the same shards).
    merge, of a table: label -> the larger class that it is part of; with it, a cell of several labels, separated by
    commas, counts as its first. several, of a table: one of data.categories.RULES, for images of several labels (in a
    cell, in several rows, or with label "0/1" in columns of 0 and 1); of `all`, each combination is a class.
    """
    from alignet.evaluate.few_shot import few_shot as measure
    from alignet.evaluate.few_shot import few_shot_split

    shared = {name: options[name] for name in ("shots", "draws", "C", "few")}
    shared["standardize"] = options.get("standardize", "feature")
    if "all" in material.features:
        features, labels, note = _labelled(material, options, "all")
        notes = [note]
        if options["few"] == "skip":  # a class of one image cannot be split
            names, counts = np.unique(labels, return_counts=True)
            kept = np.isin(labels, names[counts > 1])
            features, labels = features[kept], labels[kept]
            alone = int((counts == 1).sum())
            notes.append(f"{alone} classes of a single image left out" if alone else "")
        return few_shot_split(
            features, labels, split=options["split"], dataset=material.dataset, seed=material.seed,
            note="; ".join(text for text in notes if text), **shared,
        )  # fmt: skip
    train, test = (_labelled(material, options, part) for part in ("train", "test"))
    return measure(
        *train[:2], *test[:2], dataset=material.dataset, seed=material.seed, note=test[2], **shared
    )


def table_labels(path: Path, ids: list[str], options: Options) -> tuple[np.ndarray, str]:
    """The label of each image in a table, text (n,), '' where it has none; and what became of several labels."""
    naming = {name: options[name] for name in ("id_column", "id_prefix") if name in options}
    merge = options.get("merge", {})
    if "several" not in options:
        labels = column_for(path, ids, options["label"], **naming)
        if "merge" not in options:
            return np.array(labels), ""
        first = [name.split(",")[0].strip() for name in labels]
        return np.array([merge.get(name, name) for name in first]), ""
    prefix = naming.get("id_prefix", "")
    categories = read_categories(
        path, naming.get("id_column", "id"), options["label"], merge, rows_differ=True
    )
    known = {prefix + name: several for name, several in categories.items()}
    chosen, note = one_each(dict(zip(ids, for_each(path, known, ids), strict=True)), options["several"])
    return np.array([chosen[name] for name in ids]), note


def _features(material: Material, part: str) -> np.ndarray:
    if part not in material.features:
        raise ValueError(
            f"evaluate.datasets.{material.dataset}.images: expected {part}, found {', '.join(material.features)}; "
            "add it"
        )
    return material.features[part][0]


def _labelled(material: Material, options: Options, part: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Features and classes of the images of a part that have one; and what became of images of several labels."""
    features, (labels, note) = _features(material, part), _labels(material, options, part)
    known = labels != ""
    return features[known], labels[known], note


def _labels(material: Material, options: Options, part: str) -> tuple[np.ndarray, str]:
    """The class of each image of a part, text or numbers (n,); and what became of images of several."""
    _features(material, part)
    ids, source = material.features[part][1], options["labels"]
    if source == "table":
        return table_labels(material.files[f"{part}_labels"], ids, options)
    if source == "folder":
        return _folders(ids, material.dataset), ""
    if source == "cls":
        return _in_shards(material, part, ids), ""
    raise ValueError(
        f"evaluate.datasets.{material.dataset}.options.labels: expected folder, table or cls, found {source!r}"
    )


def _folders(ids: list[str], dataset: str) -> np.ndarray:
    bare = [name for name in ids if "/" not in name]
    if bare:
        raise ValueError(
            f"{dataset}: expected images in folders of classes, found {len(bare)} beside them, the first {bare[0]}; "
            "move them into the folders of their classes, or give a table (options.labels=table)."
        )
    return np.array([name.partition("/")[0] for name in ids])


def _in_shards(material: Material, part: str, ids: list[str]) -> np.ndarray:
    from alignet.data.shards import shard_labels

    name = f"{part}_shards"
    if name not in material.files:
        raise ValueError(
            f"evaluate.datasets.{material.dataset}.data: expected {name}, the set of shards whose .cls members are the "
            f"labels, found {', '.join(material.files) or 'nothing'}; add it"
        )
    known: dict[str, Any] = shard_labels(material.files[name], ids=frozenset(ids))
    missing = [one for one in ids if one not in known]
    if missing:
        raise ValueError(
            f"{material.files[name]}: expected the labels of every image of {part}, found none for {len(missing)}, the "
            f"first {missing[0]}; name the same shards as images and as data."
        )
    return np.array([known[one] for one in ids])


def breeds(material: Material, options: Options) -> Result:
    """Superclasses learned on source subclasses and tested on target ones; see evaluate.breeds.

    Names: features `train` and `test` of ImageNet's training and validation images, in folders of wnids. Files: the
    benchmark's `hierarchy`, `names` and `classes` with options.task (entity13, entity30, living17, nonliving26); or the
    table `split`. options: C, per_subclass (training images of each at most, or null).
    """
    from alignet.data.breeds import TASKS, load_hierarchy, load_split, split_task
    from alignet.data.imagenet import wnids
    from alignet.evaluate.breeds import breeds as measure

    note = ""
    if "split" in material.files:
        split = load_split(material.files["split"])
    elif {"hierarchy", "names", "classes"} <= material.files.keys():
        if options["task"] not in TASKS:
            raise ValueError(
                f"{material.dataset}: expected options.task among {', '.join(TASKS)}, found {options['task']!r}"
            )
        paths = (material.files[name] for name in ("hierarchy", "names", "classes"))
        hierarchy = load_hierarchy(*paths)
        split, note = split_task(hierarchy, TASKS[options["task"]]), hierarchy.note
    else:
        raise ValueError(
            f"evaluate.datasets.{material.dataset}.data: expected hierarchy, names and classes, or split, found "
            f"{', '.join(material.files) or 'nothing'}; add them"
        )
    (train, train_ids), (test, test_ids) = (
        (_features(material, part), material.features[part][1]) for part in ("train", "test")
    )
    return measure(
        train, wnids(train_ids, f"{material.dataset}: train"), test, wnids(test_ids, f"{material.dataset}: test"),
        split, dataset=material.dataset, C=options["C"], per_subclass=options["per_subclass"], seed=material.seed,
        bootstrap=material.bootstrap, note=note,
    )  # fmt: skip


def transfer(material: Material, options: Options) -> Result:
    """A linear probe on ImageNet carried to its other test sets; see evaluate.transfer.

    Names: features `train`, and any of `val`, `v2`, `a`, `r`, `c`; the file `real` (ReaL's labels of `val`). options:
    C, per_class (training images of each class at most, or null).
    """
    from alignet.data.imagenet import load_real, wnids
    from alignet.evaluate.transfer import transfer as measure

    features = _features(material, "train")
    ids = material.features["train"][1]
    classes = len(set(wnids(ids, f"{material.dataset}: train").tolist()))
    real = load_real(material.files["real"], classes) if "real" in material.files else None
    tests = {name: rows for name, rows in material.features.items() if name != "train"}
    return measure(
        features, ids, tests, dataset=material.dataset, C=options["C"], per_class=options["per_class"],
        seed=material.seed, bootstrap=material.bootstrap, real=real,
    )  # fmt: skip
