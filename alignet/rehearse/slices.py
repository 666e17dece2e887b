"""Thin slices of the user's own files, so that their true readers meet the true files.

Of a set of images some folders, and of each some images: files are linked (copied where a disk cannot), never changed.
Of choices so many rows, in the file's own form. Sets whose files depend on each other (judged images, Levels, the
photographs of objects) and all tables, matrices and features are read whole, where they lie.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import Config
from alignet.config.data import ImagesSet, MapsSet, TripletsSet
from alignet.rehearse.importance import maps_of
from alignet.rehearse.miniatures import Drawn, Miniatures
from alignet.runtime.artifacts import fingerprint

WHOLE = ("rsa", "rsa_mean", "nights", "levels", "levels_people")  # families that ask for every image of a set
EVERY_CLASS = ("breeds", "transfer")  # families that ask for images of every class
SLICED = "SLICED"  # a file beside a slice: what it was taken from


def slices(config: Config, folder: Path) -> Drawn:
    """Take the slices of every outside data set of a configuration into a folder; what is there already stays."""
    found = Drawn()
    places = Miniatures(config, folder)  # the same places as a miniature's
    kinds = _kinds(config)
    mapped = {images: maps for maps, images in maps_of(config).items()}
    for name, one in config.data.sets.items():
        if config.data.drawn(name) or one.path is None:
            continue
        source, place = Path(one.path), places.place(name)
        if isinstance(one, TripletsSet):
            if source.is_file():
                _once(place, [str(source), config.rehearse.rows], lambda: _choices(config, source, place))  # noqa: B023
                found.paths[name] = str(place)
        elif isinstance(one, ImagesSet) and name not in kinds["whole"]:
            if one.kind == "images" and source.is_dir():
                every = str(source) in kinds["every"]
                what = [str(source), one.under, config.rehearse.classes, config.rehearse.images, every]
                maps = mapped.get(name)
                what += [str(config.data.sets[maps].path)] if maps else []
                _once(place, what, lambda: _folders(config, source, one.under, place, every, maps))  # noqa: B023
                found.paths[name] = str(place)
            elif one.kind == "shards":
                _once(place, [str(source), config.rehearse.images], lambda: _shards(config, source, place))  # noqa: B023
                found.paths[name] = str(place)
    return found


def _kinds(config: Config) -> dict[str, set[str]]:
    """Image sets that are taken whole, by name; folders of which every class is needed, by path."""
    datasets = config.evaluate.datasets.values()
    whole = {one for dataset in datasets if dataset.family in WHOLE for one in dataset.images.values()}
    every = {one for dataset in datasets if dataset.family in EVERY_CLASS for one in dataset.images.values()}
    return {
        "whole": whole | set(config.data.object_ids),
        "every": {str(Path(path)) for one in every if (path := config.data.sets[one].path) is not None},
    }


def _once(place: Path, what: list[Any], take: Any) -> None:
    """Take a slice, unless it is there: what it was taken from and how stands beside it."""
    note = place.with_name(f"{place.name}.{SLICED}")
    wanted = fingerprint({"of": what})
    if note.is_file() and note.read_text(encoding="utf-8") == wanted:
        return
    if place.is_dir():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    take()
    note.write_text(wanted, encoding="utf-8")


def _choices(config: Config, source: Path, place: Path) -> None:
    """So many rows, drawn at random without replacement, in the order and the form of the file."""
    rng, most = np.random.default_rng(config.rehearse.seed), config.rehearse.rows
    if source.suffix.lower() == ".npy":
        rows = np.load(source, mmap_mode="r", allow_pickle=False)
        np.save(place, np.array(rows[_some(rng, len(rows), most)]))
        return
    header = source.suffix.lower() in (".csv", ".tsv")
    with open(source, encoding="utf-8-sig") as lines:
        count = sum(1 for _ in lines) - header
    wanted = set(_some(rng, count, most).tolist())
    with open(source, encoding="utf-8-sig") as lines, open(place, "w", encoding="utf-8") as taken:
        if header:
            taken.write(next(lines))
        taken.writelines(line for number, line in enumerate(lines) if number in wanted)


def _some(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    return np.sort(rng.choice(count, min(count, most), replace=False))


def _folders(
    config: Config, source: Path, under: str, place: Path, every: bool, maps: str | None = None
) -> None:
    """Some images of some folders below `under`, evenly over their names; of every folder where all are needed.

    maps: the set of maps that are of these images, whose others are passed over.
    """
    from alignet.data.images import list_images

    by_folder: dict[str, list[str]] = {}
    names = sorted(list_images(source).ids)
    for name in names if maps is None else _with_maps(config, maps, names):
        if not under or name.startswith(f"{under.rstrip('/')}/"):
            by_folder.setdefault(name.rpartition("/")[0], []).append(name)
    folders = sorted(by_folder)
    if not every:
        folders = _evenly(folders, config.rehearse.classes)
    each = -(-config.rehearse.images * config.rehearse.classes // len(folders))
    for folder in folders:
        for name in _evenly(by_folder[folder], 2 if every else each):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(os.path.realpath(source / name), place / name)
            except OSError:
                shutil.copyfile(source / name, place / name)


def _with_maps(config: Config, maps: str, names: list[str]) -> list[str]:
    """The images that have a map which says something; all where the maps cannot be read, as their stage will say."""
    from alignet.data.importance_maps import keys_of, load_maps, maps_for

    one = config.data.sets[maps]
    assert isinstance(one, MapsSet)
    try:
        path = Path(one.path or "")
        found = load_maps(path, key=one.key or next(iter(keys_of(path)), ""))
        rows, _ = maps_for(found, names)
    except (ValueError, OSError):
        return names
    return [name for name, row in zip(names, rows) if row >= 0 and np.ptp(found.maps[row]) > 0]


def _evenly(items: list[str], count: int) -> list[str]:
    """At most so many of a list, evenly over it."""
    return [items[place * len(items) // count] for place in range(count)] if len(items) > count else items


def _shards(config: Config, source: Path, place: Path) -> None:
    """The first samples of some shards, each in a shard of its own."""
    from alignet.data.shards import expand

    place.mkdir(parents=True, exist_ok=True)
    for file in [Path(one) for one in _evenly(sorted(map(str, expand(source))), config.rehearse.classes)]:
        with tarfile.open(file) as whole, tarfile.open(place / file.name, "w") as taken:
            for member in _first(whole, config.rehearse.images):
                taken.addfile(member, whole.extractfile(member))


def _first(archive: tarfile.TarFile, count: int) -> Iterable[tarfile.TarInfo]:
    """The members of the first so many samples: files whose names agree up to the first dot."""
    samples: set[str] = set()
    for member in archive:
        if not member.isfile():
            continue
        folder, _, name = member.name.rpartition("/")
        samples.add(f"{folder}/{name.partition('.')[0]}")
        if len(samples) > count:
            return
        yield member
