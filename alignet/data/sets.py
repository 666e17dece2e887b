"""A set of data on disk: a folder of images (perhaps below a subfolder), shards, or one file with its companions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alignet.data.shards import expand, shard_files


def exists(kind: str, path: Path) -> bool:
    """Whether anything of a set is there. Shards may be named by a pattern, which is no path."""
    return any(file.exists() for file in expand(path)) if kind == "shards" else path.exists()


def files_of(kind: str, path: Path, under: str, ids: Path | None = None) -> Path | Mapping[str, Path]:
    """What `index.scan` is to list for a set: a folder for images, named files otherwise.

    The names do not depend on where the files are, so a moved file keeps its digest.
    """
    if kind == "images":
        return path / under if under else path
    if kind == "shards":
        return shard_files(path)
    return {"file": path} | ({"ids": ids} if ids is not None else {})


def listed_name(under: str, name: str) -> str:
    """An image's id relative to the set's root, given its id below `under`."""
    return f"{under}/{name}" if under else name


def exists(kind: str, path: Path) -> bool:
    """Whether there is something at a set's path."""
    return path.exists()
