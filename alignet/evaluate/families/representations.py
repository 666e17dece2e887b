"""Families of what representations are like: the conceptual hierarchy in them, their components, a projection.

What images are comes from two sources, by the names of their files in the configuration:

  labels      a table with the class of each image: option labels {column, id_column, id_prefix}. Without it the
              classes are the WordNet ids that the images' names begin with.
  hierarchy   a table with the basic and superordinate category of each class: option hierarchy {class, basic,
              superordinate, merge} and several, see data.hierarchy.table_hierarchy; or `wordnet`, data.noun of
              WordNet 3.0: option wordnet {basic, superordinate}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignet.data.hierarchy import Levels, table_hierarchy, wordnet_hierarchy
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Result

_KEYS = {
    "labels": {"column", "id_column", "id_prefix"},
    "hierarchy": {"class", "basic", "superordinate", "merge"},  # and, where it is given, several
    "wordnet": {"basic", "superordinate"},
}  # of the options that say how to read a file of the same name


def hierarchy(material: Material, options: Options) -> Result:
    """Distances by relation, and how they changed; see evaluate.hierarchy.

    Names: features `test`; the raw node `before`, the original network's embedding of the same images, for settings
    that are not original; labels and hierarchy as above. options: distance (euclidean | angle), pairs (drawn at most),
    categories (basic ones in the matrix).
    """
    from alignet.data.features import rows_for
    from alignet.evaluate.hierarchy import hierarchy as measure

    features, ids = material.features["test"]
    before = None
    if material.setting == "teacher-ud":
        raise ValueError(
            f"{material.dataset}: expected settings of the student, whose original features are `before`, found "
            "teacher-ud; take it out of the settings."
        )
    if material.setting.rpartition("-")[2] != "original":
        original, have = material.raw["before"]
        before = original[rows_for(ids, have, "the features before")]
    return measure(
        features, _levels(material, ids, options), dataset=material.dataset, before=before,
        distance=options["distance"], pairs=options["pairs"], categories=options["categories"], seed=material.seed,
        bootstrap=material.bootstrap,
    )  # fmt: skip


def relations(material: Material, options: Options) -> Result:
    """How triplets fall over relations; see evaluate.relations.

    Names: node `triplets`, answered ones; and node `clusters` with the raw node `pool`, an embedding of what was
    clustered, from which cluster-boundary triplets are drawn; either or both. Random triplets of the same images
    stand beside them. Labels and hierarchy as above. option: count of triplets of each sampling.
    """
    from alignet.evaluate.relations import relations as measure
    from alignet.teacher.sampling import cluster_boundary, random_triplets

    drawn, ids = {}, []
    if "triplets" in material.nodes:
        folder = material.nodes["triplets"]
        ids = (folder / "ids.txt").read_text(encoding="utf-8").splitlines()
        answered = np.load(folder / "triplets.npy", mmap_mode="r", allow_pickle=False)
        few = np.random.default_rng(material.seed).permutation(len(answered))[: options["count"]]
        drawn["answered"] = np.asarray(answered[np.sort(few)])
    if "clusters" in material.nodes:
        pool = material.raw["pool"][1]
        if ids and ids != pool:
            raise ValueError(
                f"{material.dataset}: expected the triplets' {len(ids):,} images in node pool, found {len(pool):,} of "
                "which some are others; name the embedding that was clustered."
            )
        ids = pool
        with np.load(material.nodes["clusters"] / "clusters.npz", allow_pickle=False) as clusters:
            drawn["cluster_boundary"] = cluster_boundary(
                clusters["assignment"], options["count"], material.seed
            )
    if not drawn:
        raise ValueError(f"{material.dataset}: expected the node triplets or clusters, found neither.")
    drawn["random"] = random_triplets(len(ids), options["count"], material.seed)
    levels = _levels(material, ids, options)
    return measure(drawn, levels, dataset=material.dataset, bootstrap=material.bootstrap, seed=material.seed)


def space(material: Material, options: Options) -> Result:
    """Principal components and a compact RSM; see evaluate.space.

    Names: features `test`; labels and hierarchy as above, for the colours, or neither. options: points (images drawn
    at most), rsm_images (of the RSM, at most).
    """
    from alignet.evaluate.principal_components import space as measure

    features, ids = material.features["test"]
    return measure(
        features, ids, _superordinate(material, ids, options), dataset=material.dataset, seed=material.seed,
        points=options["points"], images=options["rsm_images"],
    )  # fmt: skip


def projection(material: Material, options: Options) -> Result:
    """A nonlinear map of the images to two dimensions; see evaluate.projection. Names and option points as `space`."""
    from alignet.evaluate.projection import project
    from alignet.evaluate.rsa_models import shared_rows

    features, ids = material.features["test"]
    categories = _superordinate(material, ids, options)
    rows = shared_rows(ids, options["points"], material.seed)
    x, y = project(features[rows], material.seed).T
    table = {"id": [ids[row] for row in rows], "category": [categories[row] for row in rows], "x": x, "y": y}
    return Result([], {"points": table})


def _superordinate(material: Material, ids: list[str], options: Options) -> list[str]:
    if not {"hierarchy", "wordnet"} & material.files.keys():
        return [""] * len(ids)
    return [str(name) for name in _levels(material, ids, options).superordinate]


def _levels(material: Material, ids: list[str], options: Options) -> Levels:
    return levels_of(material.files, ids, options, material.dataset)


def levels_of(files: Mapping[str, Path], ids: list[str], options: Options, where: str) -> Levels:
    """The levels of images by their ids, from the files that the module names. where: the evaluation's name."""
    from alignet.data.tables import column_for
    from alignet.data.wordnet import wordnet_id

    if "labels" in files:
        naming = _reading(where, "labels", options)
        classes = column_for(files["labels"], ids, naming.pop("column"), **naming)
    else:
        classes = [wordnet_id(name) for name in ids]
        if not any(classes):
            raise ValueError(
                f"{where}: expected images whose names begin with WordNet ids, such as n02084071_12.jpg, found none of "
                f"{len(ids):,}, for example {ids[0]!r}; name them so, or name a table with the class of each image as "
                "data.labels, with options.labels."
            )
    if "wordnet" in files:
        lists = _reading(where, "wordnet", options)
        return wordnet_hierarchy(files["wordnet"], classes, **lists).levels(classes, where)
    if "hierarchy" not in files:
        raise ValueError(
            f"{where}: expected a table as data.hierarchy, or data.noun as data.wordnet, found neither; name one in "
            "evaluate.datasets."
        )
    columns = _reading(where, "hierarchy", options)
    return table_hierarchy(files["hierarchy"], class_=columns.pop("class"), **columns).levels(classes, where)


def _reading(where: str, name: str, options: Options) -> dict[str, Any]:
    """The option `name`, which says how to read the file `name`."""
    given = options.get(name)
    found = set(given) if isinstance(given, Mapping) else set()
    free = {"several"} if name == "hierarchy" else set()
    if not isinstance(given, Mapping) or found - free != _KEYS[name]:
        raise ValueError(
            f"{where}: expected options.{name} with {', '.join(sorted(_KEYS[name]))}, found "
            f"{', '.join(sorted(found)) or given!r}."
        )
    return dict(given)
