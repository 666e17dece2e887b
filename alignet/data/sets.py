"""A set of data on disk: images in a folder (or below one of its subfolders) or in shards, maps, a model, or one file.

A model's folder counts by its weights, configuration and tokenizer; its card and pictures may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ASIDE = ("MANIFEST.json",)  # when and by what command an artifact was made
MODEL = (".safetensors", ".json", ".txt", ".model")  # what of a model's folder determines its features


def exists(kind: str, path: Path) -> bool:
    """Whether anything of a set is there. Shards may be named by a pattern, which is no path."""
    if kind in ("shards", "maps"):
        from alignet.data.shards import expand  # with the readers of images, which `status` does without

        return any(file.exists() for file in expand(path))
    return path.exists()


def files_of(kind: str, path: Path, under: str, ids: Path | None = None) -> Path | Mapping[str, Path]:
    """What `checksums.scan` is to list for a set: a folder for images, named files otherwise.

    The names do not depend on where the files are, so a moved file keeps its digest.
    """
    if kind == "images":
        return path / under if under else path
    if kind == "shards":
        from alignet.data.shards import shard_files

        return shard_files(path)
    if kind == "weights" and path.is_dir():
        files = {
            file.name: file
            for file in sorted(path.iterdir())
            if file.suffix in MODEL and file.name not in ASIDE and file.is_file()
        }
        if not any(name.endswith(".safetensors") for name in files):
            raise ValueError(
                f"{path}: expected a model's folder with a .safetensors file, found none; name the file itself, or "
                f"convert other formats with safetensors.torch.save_file."
            )
        return files
    if kind == "judgements":
        return {"file": judgements_file(path)}
    if kind == "maps":
        from alignet.data.importance_maps import files_of_maps

        return files_of_maps(path)
    return {"file": path} | ({"ids": ids} if ids is not None else {})


def judgements_file(path: Path) -> Path:
    """The file of a set of judged similarities: itself, or the only .mat file of a folder."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("*.mat"))
    if len(found) != 1:
        raise ValueError(
            f"{path}: expected one .mat file of judged similarities in this folder, found {len(found)}; name the file."
        )
    return found[0]


def listed_name(under: str, name: str) -> str:
    """An image's id relative to the set's root, given its id below `under`."""
    return f"{under}/{name}" if under else name
