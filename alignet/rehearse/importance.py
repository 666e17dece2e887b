"""People's importance maps of a miniature, and what goes with them: classes of their images, a curve of people.

A map has a blob for each of its raters, at a place that follows from the image's name. Images whose classes no table
tells are named by real WordNet ids, some of animals, so that a network's classes are theirs.
"""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import Config, ImagesSet, MapsSet
from alignet.rehearse.pictures import generator_of, picture

CLASSES, EACH = 5, 4  # classes of a set with maps, images of each
RATERS = 3
SIDE = 24  # pixels of a map
_NODE = re.compile(r"(?:saliency|stimuli|attack)\[(?:[^.\]]*\.)?([^\]]+)\]")
_READ_BY = {
    "where": "saliency",
    "attack": "attack",
}  # family that reads maps -> its node that has their images


def maps_of(config: Config) -> dict[str, str]:
    """Set of maps -> the images that they are of, as the configuration uses them."""
    found = dict(config.stimuli.maps)
    if config.harmonize is not None:
        found[config.harmonize.maps] = config.harmonize.images
    for dataset in config.evaluate.datasets.values():
        node = _NODE.fullmatch(str(dataset.nodes.get(_READ_BY.get(dataset.family, ""), "")))
        if node is not None and "maps" in dataset.data:
            found.setdefault(dataset.data["maps"], node[1])
    return found


def tables_of(config: Config) -> dict[str, list[tuple[str, str, bool]]]:
    """Image set -> the tables about it: (table, column, whether the column is of classes, or of animals and others)."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    section, robust = config.harmonize, config.robust
    given = [(images, table, config.saliency.column) for images, table in config.saliency.labels.items()]
    given += [(images, table, config.attack.column) for images, table in config.attack.labels.items()]
    if robust is not None:
        given += [(robust.images, robust.labels or "", robust.column)]
    if section is not None:
        given += [(section.images, section.labels or "", section.column)]
        given += [(section.plain or "", section.plain_labels or "", section.column)]
    for images, table, column in given:
        if images and table:
            found.setdefault(images, []).append((table, column, True))
    for dataset in config.evaluate.datasets.values():
        node = _NODE.fullmatch(str(dataset.nodes.get("stimuli", "")))
        if dataset.family == "masking" and "labels" in dataset.data and dataset.options.get("label") and node:
            images = config.stimuli.maps.get(node[1], "")
            found.setdefault(images, []).append((dataset.data["labels"], dataset.options["label"], False))
    return found


def classes(config: Config) -> list[str]:
    """WordNet ids of the classes of networks, where images have to be of these: training by the names of files."""
    section, robust = config.harmonize, config.robust
    named = section is not None and (
        section.labels is None or (section.plain is not None and not section.plain_labels)
    )
    named |= robust is not None and robust.labels is None
    return _imagenet() if named else []


def _imagenet() -> list[str]:
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


def add(made: Any) -> None:
    """Let the miniatures hold maps from outside, and the images, classes and curves that go with them."""
    config, sets = made.config, made.config.data.sets
    pairs, tables = maps_of(config), tables_of(config)
    section, robust = config.harmonize, config.robust
    plain = [section.plain] if section is not None and section.plain is not None else []
    plain += [robust.images] if robust is not None and robust.images not in pairs.values() else []
    for name in dict.fromkeys([*pairs.values(), *plain]):
        if name not in made.drawn.paths or not isinstance(sets[name], ImagesSet):
            continue
        by_table = any(is_class for _, _, is_class in tables.get(name, []))
        if name in plain and made.place(name) in made._by_wnid:
            made._labelled(name, 2)  # of the classes that its others have
        else:
            made._images(name, names(labelled=by_table))
    for images, those in tables.items():
        for table, column, is_class in those:
            if table in made.drawn.paths and images in made.drawn.paths:
                made._file(table, _of(made, images, lambda path, ids, column=column, is_class=is_class: write_table(  # type: ignore[misc]
                    path, ids, column, is_class)))  # fmt: skip
    for maps, images in pairs.items():
        one = sets.get(maps)
        if isinstance(one, MapsSet) and {maps, images} <= set(made.drawn.paths):
            if sets[images].kind == "shards" and one.path == sets[images].path:
                shard = made.place(images) / "000000.tar"
                made._files[shard] = _of(made, images, lambda path, ids: write_shard(path, ids, made.seed))
                made.drawn.paths[maps] = made.drawn.paths[images]
                continue
            if sets[images].kind == "shards":
                made.drawn.left.setdefault(maps, "maps apart from their images in shards are not drawn")
                continue
            keys = _keys(config, maps, one.key)
            made._file(maps, _of(made, images, lambda path, ids, keys=keys: write_maps(  # type: ignore[misc]
                path, ids, keys, made.seed)))  # fmt: skip
    for dataset in config.evaluate.datasets.values():
        if dataset.family == "masking" and dataset.data.get("human") in made.drawn.paths:
            made._file(dataset.data["human"], write_curve)


def _of(made: Any, images: str, write: Callable[[Path, list[str]], None]) -> Callable[[Path], None]:
    """A writer that is told all images of a set when they are known."""
    place, one = made.place(images), made.config.data.sets[images]
    under = one.under if isinstance(one, ImagesSet) else ""
    return lambda path: write(path, [name for name in made._names[place] if name.startswith(under)])


def _keys(config: Config, maps: str, key: str) -> list[str]:
    """The arrays of an .npz that are asked for."""
    found = {key: None} if key else {}
    for dataset in config.evaluate.datasets.values():
        if dataset.family in _READ_BY and dataset.data.get("maps") == maps:
            keys = dataset.options["keys"] if dataset.family == "where" else dataset.options.get("key", "")
            found |= dict.fromkeys(
                one for one in ([keys] if isinstance(keys, str) else keys) if one not in ("", "all")
            )
    return list(found) or ["maps"]


def names(*, labelled: bool) -> list[str]:
    """Images of a few classes: by folders where a table tells their classes, else by WordNet ids of ImageNet-1k."""
    if labelled:
        return [f"class_{kind}/{number:03}.jpg" for kind in range(CLASSES) for number in range(EACH)]
    ids = _imagenet()
    return [f"{one}/{one}_{number}.JPEG" for one in ids[:: len(ids) // CLASSES] for number in range(EACH)]


def write_maps(path: Path, ids: Sequence[str], keys: Sequence[str], seed: int) -> None:
    """An .npz with `ids` and, for each key, maps (n, raters, h, w) uint8."""
    arrays = {key: np.stack([_map(seed, key, name) for name in ids]) for key in keys}
    with open(path, "wb") as handle:
        np.savez(handle, ids=np.array(ids), **arrays)  # type: ignore[arg-type]


def write_shard(path: Path, ids: Sequence[str], seed: int) -> None:
    """One shard in the place of all others of its folder: of each sample its image, its mean map and its class."""
    for other in path.parent.glob("*.tar"):
        other.unlink()
    kinds = list(dict.fromkeys(name.rpartition("/")[0] for name in ids))
    with tarfile.open(path, "w") as shard:
        for name in ids:
            values, folder = io.BytesIO(), name.rpartition("/")[0]
            np.save(values, _map(seed, "maps", name).mean(0).astype(np.float32))
            key = name.rpartition(".")[0]
            for ending, content in (("jpg", picture(seed, name)), ("map.npy", values.getvalue()),
                                    ("cls", str(kinds.index(folder)).encode())):  # fmt: skip
                entry = tarfile.TarInfo(f"{key}.{ending}")
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))


def _map(seed: int, key: str, name: str) -> np.ndarray:
    rng = generator_of(seed, key, name)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    middle = rng.uniform(0.2, 0.8, 2) + rng.normal(0, 0.05, (RATERS, 2))
    blobs = [np.exp(-((y - row) ** 2 + (x - column) ** 2) / 0.05) for row, column in middle]
    return np.round(255 * np.stack(blobs)).astype(np.uint8)


def write_table(path: Path, ids: Sequence[str], column: str, is_class: bool = True) -> None:
    """A table with a row for each image: the number of its folder, or animal and object in turns."""
    folders = {
        name: number for number, name in enumerate(dict.fromkeys(one.rpartition("/")[0] for one in ids))
    }
    rows: dict[str, dict[str, Any]] = {}
    if path.is_file():  # another column of it was written
        with open(path, newline="", encoding="utf-8") as handle:
            rows = {row["id"]: dict(row) for row in csv.DictReader(handle)}
    for one in ids:
        number = folders[one.rpartition("/")[0]]
        rows.setdefault(one, {"id": one})[column] = number if is_class else ("animal", "object")[number % 2]
    _write_rows(path, list(rows.values()))


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def write_curve(path: Path) -> None:
    """People's accuracy by share of important pixels, over that on whole images."""
    _write_rows(path, [{"share": share, "accuracy": 0.5 + share / 2} for share in (0.01, 0.1, 1.0)])
