"""Families of similarity: judged pairs of images, a matrix that people's choices give, and NIGHTS' two alternatives."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.families.options import of_set


def rsa(material: Material, options: Options) -> list[Score]:
    """Spearman correlation of the Pearson kernel of `test` with judged similarities; see evaluate.rsa.

    Names: the file `matrix`, any square matrix or one of the formats of data.judgements; its rows are the images of
    `test` sorted by id, or in the order of the option order_column of the table `order`. options: format (peterson |
    cichy | king | matrix, which is the default), kind (similarity | dissimilarity), set (king: set1 | set2), key (of a
    .mat file), under (only images below this folder of `test` were judged), sorted (plain | natural: which order of the
    names is meant, where img10 comes before img2 in one and after it in the other), note (a sentence that each score's
    note ends in). With a table `labels` and the option mean_over, features are first averaged over each value of that
    column, in the order of the table `order`.
    Or, instead of `matrix`, the triplets `choices`: how often two objects were kept together of all times that both
    were shown, among the objects of the data `objects` that have features. Or the node `vice`, whose similarities of
    the objects that people judged are compared; with the data `objects`, and the data `judged`, the triplets that tell
    which objects were judged at all.
    """
    from alignet.evaluate.rsa import rsa as measure

    given = [name for name in ("matrix", "choices", "vice") if name in {**material.files, **material.nodes}]
    if len(given) != 1:
        raise ValueError(
            f"{material.dataset}: expected one of data.matrix, data.choices and nodes.vice, found "
            f"{' and '.join(given) or 'none'}; name one."
        )
    if "choices" in material.files:
        features, matrix, note = _kept_together(material)
    elif "vice" in material.nodes:
        features, matrix, note = _recovered(material)
    elif "labels" in material.files:
        features, matrix, note = _averaged(material, options)
    else:
        features, matrix, note = _judged(material, options, "test", "matrix")
    return measure(
        features,
        matrix,
        dataset=material.dataset,
        seed=material.seed,
        bootstrap=material.bootstrap,
        note=_ended(note, options),
    )


def rsa_mean(material: Material, options: Options) -> list[Score]:
    """The same over several sets of images, whose names in `images` and `data` are the same, and the mean of their
    correlations; see evaluate.rsa.rsa_mean. options as of rsa, for all sets alike, where {} in `under` is the name of
    the set; key, kind and sorted may be mappings from the names of sets instead. `order <name>` may be a table.
    """
    from alignet.evaluate.rsa import rsa_mean as measure

    names = list(material.features)
    missing = sorted(set(names) ^ {name for name in material.files if not name.startswith("order ")})
    if missing:
        raise ValueError(
            f"{material.dataset}: expected the same names in images and data, found {', '.join(missing)} in one of "
            "them alone; name each set of images as its judgments."
        )
    strange = sorted(
        {one for value in options.values() if isinstance(value, Mapping) for one in value} - set(names)
    )
    if strange:
        raise ValueError(
            f"{material.dataset}: expected options for the sets {', '.join(names)}, found some for "
            f"{', '.join(strange)}; name the sets as images does."
        )
    found = {name: _judged(material, of_set(options, name), name, name) for name in names}
    return measure(
        {name: (features, matrix) for name, (features, matrix, _) in found.items()},
        dataset=material.dataset,
        seed=material.seed,
        bootstrap=material.bootstrap,
        notes={name: _ended(note, options) for name, (_, _, note) in found.items()},
    )


def nights(material: Material, options: Options) -> list[Score]:
    """How often the nearer of two pictures is the one that people chose; see evaluate.nights and data.nights.

    Names: features `test` over the data set's folder; the file `items`, its data.csv. options: split, min_votes,
    is_imagenet (true, false, or null for both).
    """
    from alignet.data.nights import load_nights
    from alignet.evaluate.nights import two_alternatives

    features, ids = material.features["test"]
    items = load_nights(
        material.files["items"], split=options["split"], min_votes=options["min_votes"],
        is_imagenet=options["is_imagenet"],
    )  # fmt: skip
    return two_alternatives(
        features,
        items.rows(ids),
        items.right_chosen,
        dataset=material.dataset,
        seed=material.seed,
        bootstrap=material.bootstrap,
        note=items.note,
    )


def _judged(
    material: Material, options: Options, images: str, name: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """Features and judged similarities of one set of images, rows in the order of the judgments."""
    from alignet.data.judgements import load_judgements
    from alignet.data.tables import read_column

    features, ids = material.features[images]
    order = "order" if images == "test" else f"order {images}"
    if order in material.files:
        names, note = read_column(material.files[order], options["order_column"]), ""
    else:
        names, note = judged_images(ids, options, name, material.dataset)
    row_of = {name: row for row, name in enumerate(ids)}
    missing = [one for one in names if one not in row_of]
    if missing or len(set(names)) != len(names):
        raise ValueError(
            f"{material.dataset}: expected images once each in the order of the judgments, found no image "
            f"{(missing or ['; one stands there twice'])[0]!r} among {len(ids)}; write them as the image set does, "
            f"such as {ids[0]!r}."
        )
    judgements = load_judgements(
        material.files[name], format=options.get("format", "matrix"), images=len(names), part=options.get("set"),
        kind=options.get("kind"), key=options.get("key"),
    )  # fmt: skip
    rows = features[[row_of[one] for one in names]]
    return rows, judgements.similarity, "; ".join(text for text in (judgements.note, note) if text)


def judged_images(ids: list[str], options: Options, name: str, dataset: str) -> tuple[list[str], str]:
    """The images that were judged, in the order of the judgments, where no table says which; and a note.

    name: of the set of images, which stands for {} in the option `under`.
    """
    under = options.get("under", "").replace("{}", name)
    below = [one for one in ids if one.startswith(under)]
    if not below:
        raise ValueError(
            f"evaluate.datasets.{dataset}.options.under: no image id begins with {under!r}; ids look like {ids[0]!r}."
        )
    return _sorted(below, options, dataset)


def _sorted(names: list[str], options: Options, dataset: str) -> tuple[list[str], str]:
    """Names in the order that the option `sorted` says, which may be left out where both orders are one; and a note."""
    orders = {"plain": sorted(names), "natural": sorted(sorted(names), key=_natural)}
    asked = options.get("sorted")
    if asked is None and orders["plain"] != orders["natural"]:
        place = next(row for row in range(len(names)) if orders["plain"][row] != orders["natural"][row])
        raise ValueError(
            f"{dataset}: expected to be told the order of the judgments, since by plain sorting image {place + 1} is "
            f"{orders['plain'][place]!r} and by numbers {orders['natural'][place]!r}; set options.sorted to plain or "
            "natural, or name a table as data.order."
        )
    if asked is not None and asked not in orders:
        raise ValueError(f"{dataset}: expected options.sorted plain or natural, found {asked!r}")
    return orders[
        asked or "plain"
    ], f"rows are the images sorted by name{', as numbers' * (asked == 'natural')}"


def _natural(name: str) -> list[tuple[int, str]]:
    """What sorts img2 before img10: text, and the numbers within it as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _ended(note: str, options: Options) -> str:
    return "; ".join(text for text in (note, options.get("note", "")) if text)


def _averaged(material: Material, options: Options) -> tuple[np.ndarray, np.ndarray, str]:
    """Mean features of each value of a column of `labels`, in the order of the table `order`, and the matrix."""
    from alignet.data.judgements import load_judgements
    from alignet.data.tables import read_column

    features, ids = material.features["test"]
    column = material.column("labels", options["mean_over"], ids)
    names = read_column(material.files["order"], options["order_column"])
    without = sorted(set(names) - set(column))
    if without:
        raise ValueError(
            f"{material.dataset}: expected images of every {options['mean_over']} in the order of the matrix, found "
            f"none of {without[0]!r}; add them."
        )
    features = np.stack([features[column == name].mean(0) for name in names])
    judgements = load_judgements(
        material.files["matrix"], format=options.get("format", "matrix"), images=len(names), part=options.get("set"),
        kind=options.get("kind"), key=options.get("key"),
    )  # fmt: skip
    return features, judgements.similarity, f"mean features of {len(names)} {options['mean_over']}s"


def _kept_together(material: Material) -> tuple[np.ndarray, np.ndarray, str]:
    """Features and shares of being kept together of the objects that choices show and that have features."""
    from alignet.evaluate.rsa import kept_together

    features, rows = material.features["test"][0], material.object_rows
    if rows is None:
        rows = np.arange(len(features))
    triplets = material.triplets("choices", len(rows))
    triplets = triplets[(rows[triplets] >= 0).all(1)]
    objects, index = np.unique(triplets, return_inverse=True)
    matrix, fewest = kept_together(index.reshape(triplets.shape), len(objects), material.dataset)
    note = f"shares of {len(triplets):,} choices that kept a pair together, each pair shown {fewest} times or more"
    return features[rows[objects]], matrix, note


def _recovered(material: Material) -> tuple[np.ndarray, np.ndarray, str]:
    """Features and VICE's similarities of the objects that people judged and that have features."""
    rows = material.object_rows
    if rows is None:
        raise ValueError(
            f"{material.dataset}: expected data.objects beside nodes.vice, whose rows are these objects, found none"
        )
    with np.load(material.nodes["vice"] / "pruned.npz", allow_pickle=False) as pruned:
        embedding = np.maximum(pruned["pruned_loc"].astype(np.float64), 0)
    if len(embedding) != len(rows):
        raise ValueError(
            f"{material.dataset}: expected {len(rows)} objects in the embedding of nodes.vice, as in data.objects, "
            f"found {len(embedding)}; give the table that it was fitted with."
        )
    kept, judged = rows >= 0, np.ones(len(rows), dtype=bool)
    if "judged" in material.files:
        judged = np.isin(np.arange(len(rows)), material.triplets("judged", len(rows)))
    objects = np.flatnonzero(kept & judged)
    note = f"similarities that VICE recovers from choices, {len(objects):,} of {len(rows):,} objects have features"
    if (kept & ~judged).any():
        note += f"; {int((kept & ~judged).sum()):,} with features were never judged and are left out"
    features = material.features["test"][0][rows[objects]]
    return features, embedding[objects] @ embedding[objects].T, note
