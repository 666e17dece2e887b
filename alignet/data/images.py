"""Images on disk: which of them a folder holds, and how any is opened by its id.

An image's id is its path relative to the folder, with forward slashes; in WebDataset shards (alignet.data.shards) it
is the name of a tar member. An ImageSource opens images of either by id.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from alignet.data.pixels import DEFAULT, MAX_PIXELS, PixelPolicy, open_image
from alignet.runtime.progress import progress

SUFFIXES = (  # of files that `open_image` reads
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k",
)  # fmt: skip


class Place(NamedTuple):
    """Where the bytes of an image lie within a tar file."""

    shard: Path
    offset: int  # bytes
    size: int  # bytes


@dataclass(frozen=True)
class ImageSource:
    """The images of a folder or of shards, opened by id at random. Holds no open file, so workers can have copies."""

    root: Path  # the folder; of shards, what was named
    ids: tuple[str, ...]  # sorted
    places: Mapping[str, Place] = field(default_factory=dict)  # of shards: id -> place; empty for a folder
    # files that are no images, by suffix in lower case
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def open(
        self, name: str, *, max_pixels: int = MAX_PIXELS, policy: PixelPolicy = DEFAULT, at_least: int = 0
    ) -> Image.Image:
        """The RGB image behind an id; ValueError as of `open_image`, or where the shard ends too early."""
        said: dict[str, Any] = {"max_pixels": max_pixels, "policy": policy, "at_least": at_least}
        if not self.places:
            return open_image(self.root / name, **said)
        if name not in self.places:
            raise ValueError(f"{self.root}: expected an image {name!r}, found none; list the shards again.")
        place = self.places[name]
        try:
            with open(place.shard, "rb") as handle:
                handle.seek(place.offset)
                data = handle.read(place.size)
        except FileNotFoundError:
            raise ValueError(f"{place.shard}: expected a shard, found none; check the path.") from None
        if len(data) != place.size:
            raise ValueError(
                f"{place.shard}: expected {place.size:,} bytes of {name}, found {len(data):,}; the shard is "
                "truncated, fetch it again."
            )
        return open_image(data, name=f"{place.shard}: {name}", **said)


def list_images(folder: Path | str) -> ImageSource:
    """Every image below a folder, sorted by id (code point order).

    A file counts by its suffix, in any case: SUFFIXES. Names that start with a dot are skipped (macOS
    leaves `._name.jpg` beside images), and so are links to folders inside `folder`, whose images are
    listed under their own names. Other files are counted in `left_out`. Raises ValueError for a missing
    folder, for one without images, for a link that leads out of it, and for names that cannot stand in a
    list with one id per line.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of images, found no folder; check the path.")
    ids: list[str] = []
    left_out: Counter[str] = Counter()
    _collect(folder, "", os.path.realpath(folder), ids, left_out)
    if not ids:
        found = f"only {in_words(left_out)}" if left_out else "none"
        raise ValueError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}), found {found} in it or below; check the path, or "
            "convert them to PNG or JPEG."
        )
    return ImageSource(folder, tuple(sorted(ids)), left_out=dict(sorted(left_out.items())))


def number_of(name: str) -> int:
    """A number of 64 bits out of an image's id, to draw by, so that a draw does not depend on the other images."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def in_words(left_out: Mapping[str, int]) -> str:
    """Counts by suffix as a line tells them, the most frequent first: `12 .heic, 1 .txt`."""
    many = sorted(left_out.items(), key=lambda pair: (-pair[1], pair[0]))
    more = f" and {len(many) - 8} more suffixes" if len(many) > 8 else ""
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in many[:8]) + more


def say_left_out(where: Path | str, left_out: Mapping[str, int]) -> None:
    """One line on what a folder holds beside its images; nothing where there is nothing."""
    if left_out:
        print(f"{where}: left out, as no images by their suffix: {in_words(left_out)}", flush=True)


def _collect(folder: Path, prefix: str, root: str, ids: list[str], left_out: Counter[str]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            is_image = entry.name.lower().endswith(SUFFIXES)
            if entry.is_symlink() and (is_image or entry.is_dir()):
                _check_link(Path(entry.path), root)
                if entry.is_dir():
                    continue
            if entry.is_dir(follow_symlinks=False):
                _collect(Path(entry.path), f"{prefix}{entry.name}/", root, ids, left_out)
            elif is_image:
                check_name(folder, prefix + entry.name)
                ids.append(prefix + entry.name)
            else:
                left_out[os.path.splitext(entry.name)[1].lower()] += 1


def _check_link(link: Path, root: str) -> None:
    target = os.path.realpath(link)
    if os.path.commonpath([target, root]) != root:
        raise ValueError(
            f"{link}: expected files of the image folder itself, found a link to {target}; "
            "copy the files into the folder, or give the folder that they are in."
        )


def check_name(where: Path, name: str) -> None:
    """ValueError for an id that cannot stand on a line of its own; `where` names the folder or shard."""
    # ids are written one per line, and read back without outer spaces
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        found = f"found {os.fsencode(name)!r}"
        raise ValueError(f"{where}: expected file names in UTF-8, {found}; rename the file.") from None
    if name.splitlines() != [name] or name != name.strip():
        raise ValueError(
            f"{where}: expected file names without line breaks or outer spaces, found {name!r}; rename it."
        )


def check_images(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, policy: PixelPolicy = DEFAULT
) -> list[tuple[str, str]]:
    """Decode every image wholly and return (id, reason) of those that `open_image` refuses."""
    refused: list[tuple[str, str]] = []
    with progress("checking images", len(source), "images") as advance:
        for name in source.ids:
            try:
                source.open(name, max_pixels=max_pixels, policy=policy)
            except ValueError as error:
                refused.append((name, str(error)))
            advance()
    return refused
