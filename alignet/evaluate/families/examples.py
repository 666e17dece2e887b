"""The family of examples: triplets with pictures on which the student changed its mind."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Result


def examples(material: Material, options: Options) -> Result:
    """Triplets that changed towards people's answer and against it, drawn by chance; see evaluate.examples.

    Names: features `test`; the raw node `before`, the original student's embedding of the same images; `triplets`; the
    image set `pictures`. With an object table, triplets count objects, and those of objects without features are left
    out. options: count of triplets of each kind at most, pixels of a thumbnail's longer side, and name: the column of
    the table `labels` that names an image, or "" for its file's name.

    Table `examples`, a row for each: direction, triplet (its number in the file), and for the places 1 to 3 id, name
    and picture (JPEG bytes); human, before, after: the place of each one's odd one out, 0 for none.
    """
    from alignet.evaluate.examples import DIRECTIONS, changes

    after, ids = material.features["test"]
    before = _before(material, ids)
    rows = material.object_rows
    triplets = material.triplets("triplets", len(after) if rows is None else len(rows))
    numbers = np.arange(len(triplets))
    if rows is not None:
        kept = (rows[triplets] >= 0).all(1)
        triplets, numbers = rows[triplets][kept], numbers[kept]
    found = changes(
        before, after, triplets, count=options["count"], seed=material.seed, name=material.dataset
    )
    names = _names(material, options["name"], ids)
    columns: dict[str, list[Any]] = {"direction": [], "triplet": [], "human": [], "before": [], "after": []}
    columns |= {f"{what}{place}": [] for place in (1, 2, 3) for what in ("id", "name", "picture")}
    for direction in DIRECTIONS:
        for number, order in zip(found.drawn[direction], found.places[direction], strict=True):
            columns["direction"].append(direction)
            columns["triplet"].append(int(numbers[number]))
            for who, odd in (("human", 2), ("before", found.before[number]), ("after", found.after[number])):
                columns[who].append(int(np.flatnonzero(order == odd)[0]) + 1 if odd >= 0 else 0)
            for place, column in enumerate(order, start=1):
                image = int(triplets[number, column])
                columns[f"id{place}"].append(ids[image])
                columns[f"name{place}"].append(names[image])
                columns[f"picture{place}"].append(_thumbnail(material, ids[image], options["pixels"]))
    scores = [
        Score(f"changed_{direction}", material.dataset, count / found.n, None, None, found.n, "triplets", "")
        for direction, count in zip(DIRECTIONS, (found.towards, found.against), strict=True)
    ]
    tables = {"examples": columns} if columns["direction"] else {}
    return Result(scores, tables)


def _names(material: Material, column: str, ids: list[str]) -> list[str]:
    """What each image is called on the page."""
    return (
        material.column("labels", column, ids).tolist()
        if column
        else [PurePosixPath(name).stem for name in ids]
    )


def _before(material: Material, ids: list[str]) -> np.ndarray:
    features, theirs = material.raw["before"]
    if theirs != ids:
        raise ValueError(
            f"{material.dataset}: expected the node `before` to be an embedding of the same images as `test`, found "
            f"{len(theirs)} images against {len(ids)}, or others; name the original student's of that set."
        )
    return features


def _thumbnail(material: Material, name: str, pixels: int) -> bytes:
    """An image as JPEG whose longer side has at most so many pixels."""
    from PIL import Image

    picture = material.picture(name).convert("RGB")
    picture.thumbnail((pixels, pixels), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=85)
    return content.getvalue()
