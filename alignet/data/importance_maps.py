"""People's importance maps: for each image, how important each of its pixels was to them, from the files they come in.

    one .npz            `ids` (n,) and one or more arrays (n, h, w) or (n, raters, h, w), each a kind of map
    a folder of .npz    one for each image, `map` (h, w) or `maps` (raters, h, w)
    a folder            NAME_map.png, NAME.map.png, NAME_map.npy or NAME.map.npy, beside NAME.jpg or without the image;
                        or grey .png and .npy alone, NAME.png
    shards              WebDataset's .tar, a member map.npy or map.png in each sample

Maps of different images may differ in size. What a map's values are (0..1, 0..255, counts of clicks) is left as it is.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from alignet.data.images import SUFFIXES, check_name
from alignet.data.npy import open_member, open_npz, read_npy, read_npz
from alignet.data.pixels import open_image
from alignet.data.shards import _key, _members, _part, _read, expand, shard_files
from alignet.data.tfrecord import is_tfrecord
from alignet.runtime.progress import progress

IDS = "ids"
ENDINGS = ("_map.png", ".map.png", "_map.npy", ".map.npy")  # behind the name of an image without its suffix
_MEMBERS = ("map.npy", "map.png")
_NUMBERS = ("float16", "float32", "float64", "uint8", "uint16", "bool")
_HALF = ("float16", "uint8", "bool")  # what float16 holds exactly
_CHANNELS = 4  # a last axis of so many or fewer is one of colours

Maps = list[np.ndarray] | np.ndarray


@dataclass(frozen=True)
class ImportanceMaps:
    """Importance maps by image."""

    ids: list[str]  # n different ids: of images, or their paths without the suffix
    maps: (
        Maps  # float32 (n, h, w), or n arrays (h, w) where sizes differ; finite; of several raters their mean
    )
    raters: list[np.ndarray] | None = (
        None  # n arrays float32 (r, h, w), r may differ; None: not known by rater
    )
    half: bool = False  # whether the file's values are exact in float16

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sizes(self) -> dict[tuple[int, int], int]:
        """How many maps there are of each size (h, w), the most frequent first."""
        counted: dict[tuple[int, int], int] = {}
        for one in self.maps:
            counted[one.shape] = counted.get(one.shape, 0) + 1
        return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))

    @property
    def constant(self) -> int:
        """How many maps have the same value everywhere, so that they rank no pixel above another."""
        return sum(bool(one.min() == one.max()) for one in self.maps)


def load_maps(path: Path | str, *, key: str = "") -> ImportanceMaps:
    """The maps of an .npz file, a folder or shards; see the top of this file for what they hold.

    key: of .npz, the name of the array; needed where there are several. Values are float16, float32, float64, uint8,
    uint16 or bool, and become float32; of PNG files 0..255 or 0..65535. In (raters, h, w) a rater whose values are all
    NaN did not see the image. Raises ValueError, naming the file, for a missing or damaged one, another shape or dtype,
    ids that are missing or stand twice, values that are not finite, and a key that is needed or unknown.
    """
    path = Path(path)
    if path.is_dir():
        files = _files(path)
        if any(name.lower().endswith(".tar") for name in files):
            found = _from_shards(path)
        elif any(is_tfrecord(name) for name in files):
            raise _records(path)
        elif any(name.lower().endswith(".npz") for name in files):
            return _collected(path, _from_npz_files(path, files, key))
        else:
            found = _from_files(path, files)
        return _collected(path, _without_key(path, found, key))
    if path.suffix.lower() == ".npz":
        return _from_npz(path, key)
    if is_tfrecord(path):
        raise _records(path)
    if path.suffix.lower() == ".tar" or len(expand(path)) > 1:
        return _collected(path, _without_key(path, _from_shards(path), key))
    found_there = "another file" if path.exists() else "nothing there"
    raise ValueError(
        f"{path}: expected importance maps (.npz, a folder, or shards: .tar), found {found_there}; check the path."
    )


def keys_of(path: Path | str) -> list[str]:
    """The kinds of maps that `key` of `load_maps` chooses from, in the order of the file; none without a choice.

    Of an .npz the arrays (n, h, w) and (n, raters, h, w); of a folder of .npz the arrays of its first file, unless they
    are called `map` or `maps`.
    """
    path = Path(path)
    if path.is_dir():
        names = [name for name in _files(path) if name.lower().endswith(".npz")]
        found = _arrays(path / names[0], (2, 3)) if names else []
        return [] if {"map", "maps"} & set(found) else found
    return _arrays(path, (3, 4)) if path.suffix.lower() == ".npz" else []


def maps_for(found: ImportanceMaps, ids: Sequence[str]) -> tuple[np.ndarray, int]:
    """Which map belongs to each image: rows of `found`, int64 (len(ids),), -1 for none; and how many by stem alone.

    ids: paths of images with their suffix. A map belongs to an image by the same id, else by the same path without
    suffixes of images. Raises ValueError where none belongs to any, and where two maps could belong to one image.
    """
    exact = {name: row for row, name in enumerate(found.ids)}
    stems: dict[str, list[int]] = {}
    for row, name in enumerate(found.ids):
        stems.setdefault(_stem(name), []).append(row)
    rows, by_stem = np.full(len(ids), -1, dtype=np.int64), 0
    for number, name in enumerate(ids):
        if name in exact:
            rows[number] = exact[name]
            continue
        among = stems.get(_stem(name), [])
        if len(among) > 1:
            raise ValueError(
                f"importance maps: expected one map for the image {name}, found {found.ids[among[0]]} and "
                f"{found.ids[among[1]]}; name maps by the image's whole path."
            )
        if among:
            rows[number], by_stem = among[0], by_stem + 1
    if len(ids) and (rows < 0).all():
        raise ValueError(
            f"importance maps: expected maps of these images, such as {ids[0]!r}, found none among {len(found.ids):,}, "
            f"such as {found.ids[0]!r}; name maps by the path of their image below the image set's folder."
        )
    return rows, by_stem


def files_of_maps(path: Path) -> Mapping[str, Path]:
    """The files of a set of maps by name, which does not say where they are: one file, shards, or all of a folder."""
    if path.is_dir():
        names = _files(path)
        if not any(name.lower().endswith(".tar") for name in names):
            return {name: path / name for name in names} or _none(path)
        return shard_files(path)
    return {"file": path} if path.is_file() else shard_files(path)


def _none(path: Path) -> NoReturn:
    raise ValueError(
        f"{path}: expected importance maps (.npz; NAME_map.png, NAME.map.png or .npy; grey .png or .npy; .tar), found "
        "none in it or below; check the path."
    )


def _stem(name: str) -> str:
    """A path without its suffix, where that is one of images."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in SUFFIXES else name


def _files(folder: Path) -> list[str]:
    """Every file below a folder by its relative path, sorted; hidden ones are passed over."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            (Path(where) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")
        ]
    return sorted(found)


def _records(path: Path) -> ValueError:
    return ValueError(
        f"{path}: expected importance maps (.npz, a folder, or shards), found TFRecords; convert them once: "
        f"python -m alignet.stages.convert maps {path} OUT_FOLDER"
    )


def _without_key(path: Path, found: Iterator[_One], key: str) -> Iterator[_One]:
    if key:
        raise ValueError(
            f"{path}: expected no key, since these files hold one kind of map, found {key!r}; leave it out."
        )
    return found


@dataclass(frozen=True)
class _One:
    """What was read for one image."""

    id: str
    values: np.ndarray  # (h, w) or (raters, h, w), of the file's type
    where: str  # for messages


def _collected(path: Path, found: Iterator[_One]) -> ImportanceMaps:
    """All of them, checked; maps of one size become one array."""
    maps, raters, seen, half = [], list[np.ndarray | None](), dict[str, str](), True
    for one in found:
        if one.id in seen:
            raise ValueError(
                f"{path}: expected one map of each image, found {seen[one.id]} and {one.where}, both of {one.id}; "
                "keep one."
            )
        check_name(path, one.id)
        seen[one.id] = one.where
        half &= one.values.dtype.newbyteorder("=").name in _HALF
        by_rater = _by_rater(one)
        raters.append(by_rater)
        maps.append(_checked(one.values, one.where) if by_rater is None else by_rater.mean(axis=0))
    known = [one for one in raters if one is not None]
    if not maps:
        _none(path)
    if known and len(known) != len(raters):
        first = next(name for name, one in zip(seen, raters, strict=True) if one is None)
        raise ValueError(
            f"{path}: expected (raters, h, w) for every image, as for {len(known):,} of them, found (h, w) for "
            f"{first}; "
            "save a single rater's map as (1, h, w)."
        )
    same = len({one.shape for one in maps}) == 1
    return ImportanceMaps(list(seen), np.stack(maps) if same else maps, known or None, half)


def _by_rater(one: _One) -> np.ndarray | None:
    """float32 (r, h, w) of the raters that saw the image; None for one map (h, w)."""
    if one.values.ndim != 3:
        return None
    there = one.values
    if there.dtype.kind == "f":
        there = there[~np.isnan(there).all(axis=(1, 2))]
    if not len(there):
        raise ValueError(
            f"{one.where}: expected at least one rater of {one.id}, found none; leave the image out."
        )
    return _checked(there, one.where, dimensions=3)


def _checked(values: np.ndarray, where: str, dimensions: int = 2) -> np.ndarray:
    """float32 (h, w) or (raters, h, w), finite."""
    if values.dtype.newbyteorder("=").name not in _NUMBERS:
        raise ValueError(
            f"{where}: expected a map of {', '.join(_NUMBERS)}, found {values.dtype}; save it as float32."
        )
    if values.ndim != dimensions or 0 in values.shape:
        raise _shape(where, values.shape)
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        bad = int((~np.isfinite(result)).sum())
        raise ValueError(
            f"{where}: expected finite values, found {bad:,} of {result.size:,} NaN or infinite; leave such images out."
        )
    return result


def _shape(where: str, found: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"{where}: expected a map (h, w) or (raters, h, w) with at least one pixel, found {found}; leave out axes of "
        "colour, and save an image's maps along the first axis."
    )


# ---- one .npz


def _arrays(path: Path, dimensions: Collection[int]) -> list[str]:
    """Names of the arrays that could be maps, by their number of axes."""
    found = []
    with open_npz(path) as archive:
        for name in archive.namelist():
            with open_member(path, archive, name) as member:
                if member.name != IDS and len(member.shape) in dimensions:
                    found.append(member.name)
    return found


def _from_npz(path: Path, key: str) -> ImportanceMaps:
    kinds = _arrays(path, (3, 4))
    with open_npz(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    if IDS not in names:
        raise ValueError(
            f"{path}: expected an array {IDS!r} with the image of each map, found {', '.join(names) or 'nothing'}; add "
            "ids: text, the paths of the images."
        )
    chosen = _chosen(path, key, names, kinds, "(n, h, w) or (n, raters, h, w)")
    with open_npz(path) as archive:
        with open_member(path, archive, f"{IDS}.npy") as member:
            ids = _text(path, member.read())
        with open_member(path, archive, f"{chosen}.npy") as member:
            values = member.read()
    where = f"{path}: {chosen}"
    if values.ndim not in (3, 4) or len(values) != len(ids) or not len(ids):
        raise ValueError(
            f"{where}: expected (n, h, w) or (n, raters, h, w) for the {len(ids):,} ids, found {values.shape}; save a "
            "map for "
            "each id, in their order."
        )
    if values.ndim == 4 and values.shape[-1] <= _CHANNELS:
        raise _shape(where, values.shape[1:])
    rows = (_One(name, one, f"{where} of {name}") for name, one in zip(ids, values, strict=True))
    return _collected(path, rows)


def _chosen(path: Path, key: str, names: Sequence[str], kinds: Sequence[str], shape: str) -> str:
    """The array to read: `key`, or the only one that can be maps."""
    listed = ", ".join(kinds) or f"none of shape {shape}"
    if key:
        if key not in names or key == IDS:
            raise ValueError(f"{path}: expected maps {key!r}, found {listed}; name one of these as key.")
        return key
    if len(kinds) != 1:
        raise ValueError(
            f"{path}: expected one array of maps, or a key that says which, found {listed}; name one as key."
        )
    return kinds[0]


def _text(path: Path, ids: np.ndarray) -> list[str]:
    if ids.ndim != 1 or ids.dtype.kind not in "US":
        raise ValueError(
            f"{path}: expected ids of shape (n,) of text, found {ids.shape} of {ids.dtype}; save the images' paths."
        )
    if ids.dtype.kind == "S":
        try:
            ids = np.char.decode(ids, "utf-8")
        except UnicodeDecodeError:
            raise ValueError(
                f"{path}: expected ids in UTF-8, found other bytes; save them as text."
            ) from None
    return [str(name) for name in ids]


# ---- a folder of .npz, of pairs, of maps alone; shards


def _from_npz_files(path: Path, files: Sequence[str], key: str) -> Iterator[_One]:
    names = [name for name in files if name.lower().endswith(".npz")]
    with progress("reading maps", len(names), "files") as advance:
        for name in names:
            file = path / name
            arrays = read_npz(file)
            kinds = sorted(arrays.keys() & {"map", "maps"}, reverse=True)[:1]
            kinds = kinds or [one for one in arrays if one != IDS and arrays[one].ndim in (2, 3)]
            values = arrays[_chosen(file, key, list(arrays), kinds, "(h, w) or (raters, h, w)")]
            yield _One(name[: -len(".npz")], _plain(values, str(file)), str(file))
            advance()


def _plain(values: np.ndarray, where: str) -> np.ndarray:
    """ValueError unless (h, w) or (raters, h, w) without an axis of colours."""
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[-1] <= _CHANNELS):
        raise _shape(where, values.shape)
    return values


def _from_files(path: Path, files: Sequence[str]) -> Iterator[_One]:
    marked = {name: _ending(name) for name in files if _ending(name)}
    images: dict[str, list[str]] = {}
    if marked:
        for name in files:
            if name not in marked and name.lower().endswith(SUFFIXES):
                images.setdefault(_stem(name), []).append(name)
    else:
        marked = {name: name[-4:] for name in files if name.lower().endswith((".png", ".npy"))}
    with progress("reading maps", len(marked), "files") as advance:
        for name, ending in marked.items():
            stem, file = name[: -len(ending)], path / name
            beside = images.get(stem, [])
            if len(beside) > 1:
                raise ValueError(
                    f"{file}: expected one image of this map, found {beside[0]} and {beside[1]}; rename one."
                )
            yield _One(beside[0] if beside else stem, _from_file(file), str(file))
            advance()


def _ending(name: str) -> str:
    """What stands behind the image's name where a file's name says that it is a map; '' for others."""
    return next((name[-len(ending) :] for ending in ENDINGS if name.lower().endswith(ending)), "")


def _from_file(file: Path) -> np.ndarray:
    if file.suffix.lower() == ".npy":
        return _plain(read_npy(file), str(file))
    return _png(file.read_bytes(), str(file))


def _png(data: bytes, where: str) -> np.ndarray:
    """A grey PNG as uint8 or uint16 (h, w)."""
    pixels = np.asarray(open_image(data, name=where))  # all its checks; 16 bits become 8
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        grey = bool((pixels == pixels[:, :, :1]).all())
        if not grey or picture.has_transparency_data:
            found = "one with transparency" if grey else "one in colour"
            raise ValueError(
                f"{where}: expected a grey PNG, whose values are the map, found {found}; save the values, not a "
                "picture of them."
            )
        if picture.mode.startswith("I"):
            return np.asarray(picture).astype(np.uint16)
    return pixels[:, :, 0]


def _from_shards(path: Path) -> Iterator[_One]:
    shards = shard_files(path)
    with progress("reading maps", len(shards), "shards") as advance:
        for file in shards.values():
            for name, header in _members(file):
                if _part(name) not in _MEMBERS:
                    continue
                where, data = f"{file}: {name}", _read(file, header.offset_data, header.size)
                values = _npy(data, where) if name.lower().endswith(".npy") else _png(data, where)
                yield _One(_key(name), values, where)
            advance()


def _npy(data: bytes, where: str) -> np.ndarray:
    """The map of an .npy file that lies in a tar file."""
    handle = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(handle)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(handle)
        if dtype.hasobject or handle.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data):
            raise ValueError(f"{shape} of {dtype} in {len(data):,} bytes")
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, KeyError, EOFError, OSError, SyntaxError, OverflowError) as error:
        raise ValueError(
            f"{where}: expected a whole .npy array of numbers, found something else or a damaged one "
            f"({str(error)[:100]}); "
            "write the shard again."
        ) from None
    return _plain(values, where)
