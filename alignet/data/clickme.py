"""ClickMe's and Clicktionary's TFRecord files: images, the maps of what people found important in them, and classes.

Every record has the features `image`, `heatmap` and mostly `label`. Three layouts are in use, told apart by the bytes:

    jpeg       image and heatmap are JPEG files, the heatmap grey (the published shards: 256 pixels)
    raw 224    float32, little-endian: image (224, 224, 3), heatmap (224, 224, 1)
    raw 256    float32, little-endian: image (256, 256, 3), heatmap (256, 256, 1)

Raw pixels run from 0 to 255 or from 0 to 1. The largest of the whole file says which, so that a dark image counts as
the others do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignet.data.pixels import open_image
from alignet.data.tfrecord import Places, parse_example, read_record, record_places
from alignet.runtime.progress import progress

_JPEG = b"\xff\xd8\xff"
JPEG, RAW = "jpeg", {224: "raw 224", 256: "raw 256"}
_SLACK = 0.5  # grey levels that resizing may overshoot by


@dataclass(frozen=True)
class MapRecord:
    """One image and its map."""

    id: str  # <stem of the file>_<number of the record, five digits>
    image: bytes | np.ndarray  # the bytes of a JPEG file, or uint8 (H, W, 3)
    map: np.ndarray  # float32 (h, w), finite; of a JPEG 0..255
    label: int | None  # the class as the file counts it; None where the record has none


@dataclass(frozen=True)
class ClickMeFile:
    """A TFRecord file whose records are read by number."""

    path: Path
    places: Places
    layout: str  # jpeg | raw 224 | raw 256
    high: int  # the value of white in raw pixels: 1 or 255; 255 for jpeg

    def __len__(self) -> int:
        return len(self.places.places)

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[MapRecord]:
        """Records start..stop, in the order of the file.

        Raises ValueError, naming the record, for one that is damaged, of another layout than the first, or with values
        that are not finite or out of range.
        """
        with open(self.path, "rb") as handle:
            for number, place in list(enumerate(self.places.places))[start:stop]:
                data = read_record(self.path, handle, number, place)
                yield self._record(number, *_fields(data, f"{self.path}: record {number}"))

    def _record(self, number: int, image: bytes, heatmap: bytes, label: int | None) -> MapRecord:
        where = f"{self.path}: record {number}"
        layout = _layout(image, heatmap, where)
        if layout != self.layout:
            raise ValueError(
                f"{where}: expected the layout {self.layout}, as record 0 has, found {layout}; convert files of one "
                "layout "
                "at a time."
            )
        identity = f"{self.path.name.split('.')[0]}_{number:05d}"
        if layout == JPEG:
            return MapRecord(identity, image, _grey(heatmap, f"{where}, heatmap"), label)
        pixels = _checked_pixels(image, where) * (255 // self.high)
        picture = np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)
        side = next(side for side, name in RAW.items() if name == layout)
        values = np.frombuffer(heatmap, dtype="<f4").astype(np.float32).reshape(side, side)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{where}: expected a finite heatmap, found NaN or infinite values; leave the record out."
            )
        return MapRecord(identity, picture.reshape(side, side, 3), values, label)


def open_clickme(path: Path | str) -> ClickMeFile:
    """The records of a file, their layout, and the range of raw pixels.

    Reads every record's length, and of raw files the images until one has a pixel above 1. Raises ValueError for a file
    that is damaged, and for records that are none of ClickMe's layouts.
    """
    path = Path(path)
    places = record_places(path)
    with open(path, "rb") as handle:
        first = read_record(path, handle, 0, places.places[0])
        image, heatmap, _ = _fields(first, f"{path}: record 0")
        layout = _layout(image, heatmap, f"{path}: record 0")
        if layout == JPEG:
            return ClickMeFile(path, places, layout, 255)
        high = 1
        with progress(f"looking for the range of {path.name}", len(places.places), "records") as advance:
            for number, place in enumerate(places.places):
                where = f"{path}: record {number}"
                image, _, _ = _fields(read_record(path, handle, number, place), where)
                if _checked_pixels(image, where).max(initial=0) > 1 + _SLACK / 255:
                    high = 255
                    break
                advance()
    return ClickMeFile(path, places, layout, high)


def _fields(data: bytes, where: str) -> tuple[bytes, bytes, int | None]:
    """Image, heatmap and label of a record."""
    found = parse_example(data, where)
    taken = []
    for name in ("image", "heatmap"):
        value = found.get(name)
        if not isinstance(value, list) or len(value) != 1:
            held = ", ".join(sorted(found)) or "no feature"
            raise ValueError(
                f"{where}: expected ClickMe's features image and heatmap, one bytes value each, found {held}; give "
                "ClickMe "
                "or Clicktionary TFRecords."
            )
        taken.append(value[0])
    label = found.get("label")
    if label is None or len(label) == 0:
        return taken[0], taken[1], None
    if not isinstance(label, np.ndarray) or label.dtype != np.int64 or len(label) != 1:
        raise ValueError(f"{where}: expected one whole number as label, found {str(label)[:60]}; mend it.")
    return taken[0], taken[1], int(label[0])


def _layout(image: bytes, heatmap: bytes, where: str) -> str:
    for side, name in RAW.items():
        if len(image) == side * side * 3 * 4 and len(heatmap) == side * side * 4:
            return name
    if image.startswith(_JPEG) and heatmap.startswith(_JPEG):
        return JPEG
    raise ValueError(
        f"{where}: expected JPEG files, or float32 of 224 or 256 pixels a side, found an image of {len(image):,} bytes "
        f"({image[:4].hex(' ')} ...) and a heatmap of {len(heatmap):,} ({heatmap[:4].hex(' ')} ...); give ClickMe or "
        "Clicktionary TFRecords."
    )


def _checked_pixels(image: bytes, where: str) -> np.ndarray:
    """Raw pixels, float32 in 0..255 or 0..1, flat."""
    pixels = np.frombuffer(image, dtype="<f4")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_SLACK and high <= 255 + _SLACK):  # NaN too
        raise ValueError(
            f"{where}: expected raw pixels in 0..255 or 0..1, found {low:g} to {high:g}; undo the normalisation of the "
            "images before they are written."
        )
    return pixels


def _grey(data: bytes, where: str) -> np.ndarray:
    """A grey JPEG file as float32 (h, w), 0..255."""
    pixels = np.asarray(open_image(data, name=where))
    if (pixels != pixels[:, :, :1]).any():
        raise ValueError(
            f"{where}: expected a grey JPEG, found one in colour; give the maps themselves, not a picture of them."
        )
    return pixels[:, :, 0].astype(np.float32)
