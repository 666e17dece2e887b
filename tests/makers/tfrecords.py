"""TFRecord files as ClickMe distributes them, written by another library's writer."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from tfrecord.writer import TFRecordWriter


def write(path: Path, records: list[dict]) -> Path:
    """records: name -> (value, kind), kind one of byte, float, int."""
    writer = TFRecordWriter(str(path))
    for record in records:
        writer.write(record)
    writer.close()
    return path


def jpeg(pixels: np.ndarray) -> bytes:
    handle = io.BytesIO()
    Image.fromarray(pixels).save(handle, "JPEG", quality=95)
    return handle.getvalue()


def drawn(seed: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture, uint8 (side, side, 3), and a map, uint8 (side, side)."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BILINEAR))
    spot = Image.fromarray(generator.integers(0, 256, (5, 5), dtype=np.uint8))
    return picture, np.asarray(spot.resize((side, side), Image.Resampling.BILINEAR))


def clickme(path: Path, count: int, layout: str = "jpeg", high: int = 255, seed: int = 0) -> Path:
    """A file of `count` records with labels 0, 1, 2, ..."""
    side = 224 if layout == "raw 224" else 256
    records = []
    for number in range(count):
        picture, spot = drawn(seed + number, side)
        if layout == "jpeg":
            image, heatmap = jpeg(picture), jpeg(spot)
        else:
            image = (picture.astype("<f4") / np.float32(255 / high)).astype("<f4").tobytes()
            heatmap = (spot.astype("<f4") / 100).tobytes()
        records.append({"image": (image, "byte"), "heatmap": (heatmap, "byte"), "label": (number, "int")})
    return write(path, records)
