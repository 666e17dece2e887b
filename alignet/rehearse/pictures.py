"""Small pictures for miniatures: those of one class look alike, and a name always gives the same bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 40  # pixels
_GRID = 4  # coarse squares of colour along a side


def generator_of(*parts: object) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(repr(parts).encode()).digest()))


def picture(seed: int, name: str) -> bytes:
    """An image of SIDE x SIDE pixels in the format of the name's suffix: its folder's colours, and noise of its own."""
    folder, _, _ = name.rpartition("/")
    base = generator_of(seed, folder or name).uniform(0, 255, (_GRID, _GRID, 3))
    own = generator_of(seed, "image", name).normal(0, 40, (_GRID, _GRID, 3))
    pixels = np.clip(base + own, 0, 255).astype(np.uint8)
    large = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    large.save(content, "PNG" if name.lower().endswith(".png") else "JPEG")
    return content.getvalue()


def write_folder(folder: Path, names: Iterable[str], seed: int) -> None:
    """Each name as a file below a folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed, name))


def write_shards(path: Path, names: list[str], seed: int, member: str, each: int = 100) -> None:
    """The names as samples of WebDataset shards (`<n>.jpg`, `<n>.cls`) in a folder; classes are their folders."""
    path.mkdir(parents=True, exist_ok=True)
    classes = sorted({name.rpartition("/")[0] for name in names})
    for start in range(0, len(names), each):
        with tarfile.open(path / f"{start // each:06}.tar", "w") as shard:
            for number, name in enumerate(names[start : start + each], start):
                label = str(classes.index(name.rpartition("/")[0])).encode()
                for ending, content in ((member or "jpg", picture(seed, name)), ("cls", label)):
                    entry = tarfile.TarInfo(f"{number:08}.{ending}")
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
