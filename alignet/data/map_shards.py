"""Importance maps beside their images as WebDataset shards: from ClickMe's TFRecords or what `load_maps` reads.

    what is given -> sources of samples -> OUT/maps-00000.tar, maps-00001.tar, ... and OUT/maps.json

A sample is NAME.jpg or .png (or the image's own suffix), NAME.map.npy and, where the class is known, NAME.cls. Shards
have the same bytes on every run. Each appears whole or not at all; a stopped conversion goes on with the first that
lacks. maps.json says what the folder is made from, so that shards of different data are never mixed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from alignet.data.clickme import JPEG, ClickMeFile, MapRecord, open_clickme
from alignet.data.images import SUFFIXES, ImageSource, list_images
from alignet.data.importance_maps import ImportanceMaps, load_maps, maps_for
from alignet.data.shards import list_shards, shard_source
from alignet.data.tfrecord import is_tfrecord
from alignet.runtime import interrupt
from alignet.runtime.artifacts import ArtifactError, locked, write_json
from alignet.runtime.progress import progress

SAMPLES = 1000  # in a shard, at most
PLAN = "maps.json"
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


class Sample(NamedTuple):
    """One image with its map, as the shard has it."""

    name: str
    suffix: str  # of the image's member, with its dot
    image: bytes
    map: np.ndarray  # float16 or float32, (h, w) or (raters, h, w)
    label: int | None


@dataclass(frozen=True)
class Converted:
    """What a conversion has made."""

    folder: Path
    samples: int
    shards: int
    kept: int  # shards that an earlier run had finished
    bytes: int
    without_image: int  # maps whose image was not found: left out
    said: tuple[str, ...]  # a line on each input: its layout and range


@dataclass(frozen=True)
class _Records:
    """Samples of a TFRecord file."""

    file: ClickMeFile

    def names(self) -> list[str]:
        stem = self.file.path.name.split(".")[0]
        return [f"{stem}_{number:05d}" for number in range(len(self.file))]

    def identity(self) -> Any:
        return ["records", self.file.path.name, self.file.places.digest, self.file.high]

    def said(self) -> str:
        range_ = "" if self.file.layout == JPEG else f", pixels of 0..{self.file.high}"
        return f"{self.file.path}: {len(self.file):,} records, layout {self.file.layout}{range_}"

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        for record in self.file.records(start, stop):
            yield _of_record(record, half=self.file.layout == JPEG)


@dataclass(frozen=True)
class _Paired:
    """Samples of maps whose images lie in a folder or in shards."""

    path: Path
    maps: ImportanceMaps
    images: ImageSource
    ids: list[str]  # images that have a map
    rows: np.ndarray  # the map of each

    def names(self) -> list[str]:
        return [_sample_name(name) for name in self.ids]

    def identity(self) -> Any:
        seen = hashlib.sha256()
        for name, row in zip(self.ids, self.rows.tolist(), strict=True):
            values = self._values(row)
            seen.update(f"{name}\0{self._size(name)}\0{values.shape}{values.dtype}\0".encode())
            seen.update(np.ascontiguousarray(values).data)
        return ["maps", self.path.name, seen.hexdigest()]

    def said(self) -> str:
        return f"{self.path}: {len(self.ids):,} images of {self.images.root} with a map"

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        for name, row in list(zip(self.ids, self.rows.tolist(), strict=True))[start:stop]:
            suffix = os.path.splitext(name)[1].lower()
            suffix = ".jpg" if suffix in _JPEG else suffix
            yield Sample(_sample_name(name), suffix, self._image(name), self._values(row), None)

    def _values(self, row: int) -> np.ndarray:
        values = self.maps.maps[row] if self.maps.raters is None else self.maps.raters[row]
        return values.astype(np.float16) if self.maps.half else values

    def _size(self, name: str) -> int:
        places = self.images.places
        return places[name].size if places else (self.images.root / name).stat().st_size

    def _image(self, name: str) -> bytes:
        if not self.images.places:
            return (self.images.root / name).read_bytes()
        place = self.images.places[name]
        with open(place.shard, "rb") as handle:
            handle.seek(place.offset)
            return handle.read(place.size)


def convert_maps(
    inputs: Sequence[Path], folder: Path, *, images: Path | None = None, key: str = "", samples: int = SAMPLES,
    side: int = 0,
) -> Converted:  # fmt: skip
    """Write shards of all inputs, in their order, into a folder.

    inputs: TFRecord files, folders of them, or what `load_maps` reads besides shards. images: the folder or shards with
    the images of maps that lie apart from them. key: as of `load_maps`. samples: most in a shard. side: maps are
    averaged down to so many pixels each way; 0 keeps them as they are. float16 and 8-bit maps become float16, others
    float32; images keep their bytes, raw pixels become PNG.
    Raises ValueError for inputs that cannot be read, maps without any image, two samples of one name, and a folder that
    holds shards of other inputs.
    """
    sources, without_image = list[_Records | _Paired](), 0
    for path in _listed(inputs):
        if is_tfrecord(path):
            sources.append(_Records(open_clickme(path)))
        else:
            paired, left = _paired(path, images, key)
            sources.append(paired)
            without_image += left
    _check_names([name for one in sources for name in one.names()])
    total = sum(len(one.names()) for one in sources)
    plan: dict[str, Any] = {
        "format": 1,
        "samples": total,
        "in_a_shard": samples,
        "inputs": [one.identity() for one in sources],
    } | ({"side": side} if side else {})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            _check_plan(folder, plan)
            kept = _write_shards(folder, sources, total, samples, side)
            files = sorted(folder.glob("maps-*.tar"))
            return Converted(
                folder, total, len(files), kept, sum(file.stat().st_size for file in files),
                without_image, tuple(one.said() for one in sources),
            )  # fmt: skip
    except ArtifactError:
        raise ValueError(
            f"{folder}: expected to be the only one to write there, found another process that converts into this "
            "folder; "
            "wait for it to finish."
        ) from None
    except OSError as error:
        raise ValueError(
            f"{folder}: expected to write shards there, which failed ({error.strerror}); make room or name another "
            "place, "
            "and run the same command again."
        ) from None


def _listed(inputs: Sequence[Path]) -> list[Path]:
    """The inputs, a folder of TFRecords replaced by its files."""
    found = list[Path]()
    for path in inputs:
        records = sorted(file for file in path.rglob("*") if is_tfrecord(file)) if path.is_dir() else []
        found += [file for file in records if file.is_file() and not file.name.startswith(".")] or [path]
    if not found:
        raise ValueError("convert maps: expected files or folders of maps, found none; name them.")
    return found


def _paired(path: Path, images: Path | None, key: str) -> tuple[_Paired, int]:
    """Maps with their images, and how many maps have none."""
    names = [file.name.lower() for file in path.iterdir()] if path.is_dir() else [path.name.lower()]
    if any(name.endswith(".tar") for name in names):
        raise ValueError(
            f"{path}: expected maps that are no shards yet, found shards; use them as they are: "
            f"data.sets.<name>.path={path}"
        )
    found = load_maps(path, key=key)
    if images is None and not (path.is_dir() and all(_is_image(path, name) for name in found.ids)):
        raise ValueError(
            f"{path}: expected the images beside their maps, found maps alone, such as {found.ids[0]!r}; say where "
            "the images "
            "are: images=FOLDER"
        )
    where = path if images is None else images
    tar = where.suffix.lower() == ".tar" or (where.is_dir() and any(where.rglob("*.tar")))
    source = shard_source(where, list_shards(where).images) if tar else list_images(where)
    ids = list(found.ids) if images is None else list(source.ids)
    rows, _ = maps_for(found, ids)
    with_map = np.flatnonzero(rows >= 0)
    left = len(found) - len(set(rows[with_map].tolist()))
    return _Paired(path, found, source, [ids[row] for row in with_map], rows[with_map]), left


def _is_image(folder: Path, name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and (folder / name).is_file()


def _of_record(record: MapRecord, half: bool) -> Sample:
    values = record.map.astype(np.float16) if half else record.map
    if isinstance(record.image, bytes):
        return Sample(record.id, ".jpg", record.image, values, record.label)
    handle = io.BytesIO()
    Image.fromarray(record.image).save(handle, "PNG")
    return Sample(record.id, ".png", handle.getvalue(), values, record.label)


def _sample_name(name: str) -> str:
    """An image's id as a sample's name: without its suffix, and without dots, at which WebDataset would cut it."""
    folder, slash, base = os.path.splitext(name)[0].rpartition("/")
    return folder + slash + base.replace(".", "_")


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"convert maps: expected each sample's name once, found {len(twice):,} that stand twice, such as "
            f"{twice[0]!r} "
            "(the file or image without its suffix); rename a file, or convert the inputs into a folder each."
        )


def _check_plan(folder: Path, plan: dict[str, Any]) -> None:
    """Note what the folder is made from; ValueError where it holds shards of something else."""
    file = folder / PLAN
    found: Any = None
    if file.is_file():
        with suppress(ValueError, RecursionError):
            found = json.loads(file.read_text(encoding="utf-8"))
    if found == plan:
        return
    if file.exists() or any(folder.glob("*.tar")):
        raise ValueError(
            f"{folder}: expected an empty folder, or one that this command began, found shards of other inputs or "
            "options; "
            "name another folder, or remove this one."
        )
    write_json(file, plan)


def _write_shards(
    folder: Path, sources: Sequence[_Records | _Paired], total: int, size: int, side: int
) -> int:
    """Write what lacks; how many shards were there already."""
    starts = range(0, total, size)
    files = [folder / f"maps-{number:05d}.tar" for number in range(len(starts))]
    there = [file.is_file() for file in files]
    done = sum(min(size, total - start) for start, kept in zip(starts, there, strict=True) if kept)
    with progress("converting maps", total, "images", done) as advance:
        for file, start, kept in zip(files, starts, there, strict=True):
            if not kept:
                interrupt.stop_if_asked()
                temporary = file.with_name(f"{file.name}.tmp")
                try:
                    with open(temporary, "wb") as handle:
                        samples = _span(sources, start, min(start + size, total))
                        for sample in _write_tar(handle, (_averaged(one, side) for one in samples)):
                            advance(note=sample)
                        handle.flush()
                        os.fsync(handle.fileno())
                    os.replace(temporary, file)
                finally:
                    temporary.unlink(missing_ok=True)
    return sum(there)


def _averaged(sample: Sample, side: int) -> Sample:
    """A sample whose map is averaged down to side x side; as it is where side is 0 or the map is no larger."""
    if not side or min(sample.map.shape[-2:]) <= side:
        return sample
    import torch

    maps = torch.from_numpy(sample.map.astype(np.float32)).reshape(-1, 1, *sample.map.shape[-2:])
    small = torch.nn.functional.adaptive_avg_pool2d(maps, side).numpy()
    return sample._replace(map=small.reshape(*sample.map.shape[:-2], side, side).astype(sample.map.dtype))


def _span(sources: Sequence[_Records | _Paired], start: int, stop: int) -> Iterator[Sample]:
    """Samples start..stop of all sources, counted through."""
    before = 0
    for source in sources:
        count = len(source.names())
        if before + count > start and before < stop:
            yield from source.samples(max(start - before, 0), min(stop - before, count))
        before += count


def _write_tar(handle: Any, samples: Iterator[Sample]) -> Iterator[str]:
    """Write samples as members whose headers say nothing of when and by whom; yields each name once it is written."""
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for sample in samples:
            values = io.BytesIO()
            np.save(values, sample.map, allow_pickle=False)
            members = [(sample.suffix, sample.image), (".map.npy", values.getvalue())]
            if sample.label is not None:
                members.append((".cls", str(sample.label).encode()))
            for suffix, data in members:
                header = tarfile.TarInfo(sample.name + suffix)  # time, user and group are 0 by default
                header.size, header.mode = len(data), 0o644
                archive.addfile(header, io.BytesIO(data))
            yield sample.name
