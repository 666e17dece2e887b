"""WebDataset shards: tar files that hold images, listed once and then read in any order.

A shard is a plain `.tar`; its members belong together by the part of their name before the first dot, as
`000017.jpg`, `000017.cls` and `000017.json`. An image's id is the name of its member, so the same files in a folder
have the same ids. Nothing is ever unpacked: images are read where they lie.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignet.data.images import SUFFIXES, ImageSource, Place, check_name
from alignet.runtime.progress import progress

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_BLOCK = tarfile.BLOCKSIZE  # bytes; a tar file ends with two such blocks of zeros


@dataclass(frozen=True)
class ShardListing:
    """The images of all shards, sorted by id."""

    shards: Mapping[str, Path]  # name, which does not say where the folder is -> path; sorted by name
    images: Mapping[str, tuple[str, int, int]]  # id -> name of its shard, offset and size in bytes


def shard_files(path: Path | str) -> dict[str, Path]:
    """The tar files of a folder (at any depth), of one file, or of a pattern such as `train-{000000..000146}.tar`.

    Names are relative to the folder that they share. Raises ValueError where there is none, where one of a pattern
    is missing, and for compressed tar files, within which nothing can be read at random.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(_tar_files(path))
        if not found:
            raise ValueError(f"{path}: expected shards (.tar), found none in it or below; check the path.")
        return {file.relative_to(path).as_posix(): file for file in found}
    files = expand(path)
    for file in files:
        _check_suffix(file)
        if not file.is_file():
            among = f" among the {len(files)} of {path}" if len(files) > 1 else ""
            raise ValueError(
                f"{file}: expected a shard{among}, found no file; check the path or the pattern."
            )
    root = Path(os.path.commonpath([file.parent for file in files]))
    return {file.relative_to(root).as_posix(): file for file in sorted(files)}


def expand(path: Path) -> list[Path]:
    """The paths that a pattern with braces stands for, as WebDataset reads them; without braces, the path itself."""
    if "{" not in str(path) or path.exists():
        return [path]
    from braceexpand import braceexpand

    try:
        return [Path(name) for name in braceexpand(str(path))]
    except ValueError as error:
        raise ValueError(
            f"{path}: expected braces that close, found others ({error}); mend the pattern."
        ) from None


def _tar_files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(_COMPRESSED):
                _check_suffix(Path(where) / name)
            if name.lower().endswith(".tar"):
                yield Path(where) / name


def _check_suffix(file: Path) -> None:
    if file.name.lower().endswith(_COMPRESSED):
        raise ValueError(
            f"{file}: expected a plain tar file, found a compressed one, in which images cannot be read at random; "
            "unpack it once (for .gz: gunzip), the images are compressed already."
        )
    if file.suffix.lower() != ".tar":
        raise ValueError(
            f"{file}: expected a shard (.tar), found {file.suffix or 'no suffix'}; check the path."
        )


def list_shards(path: Path | str, *, member: str = "") -> ShardListing:
    """Every image of the shards, by its suffix (alignet.data.images.SUFFIXES); names with a part `.x` are skipped.

    member: which part of a sample is its image, as WebDataset calls it: what follows the first dot of the name, such as
    `jpg`, or several after another, `jpg,png`; '' takes the only image that each sample has. Raises ValueError for a
    sample of several images and no word which counts (a mask or a depth map beside a photograph), for a shard that is
    broken, truncated or without such images, for members that are links or devices or have names that lead out of a
    folder, and for an id that stands twice.
    """
    wanted = {part.strip().lstrip(".").lower() for part in member.split(",") if part.strip()}
    shards, images = shard_files(path), dict[str, tuple[str, int, int]]()
    with progress("listing shards", len(shards), "shards") as advance:
        for shard, file in shards.items():
            before, samples = len(images), dict[str, str]()
            for name, header in _members(file):
                if name.lower().endswith(SUFFIXES) and (not wanted or _part(name) in wanted):
                    check_name(file, name)
                    if _key(name) in samples:
                        raise _several(file, samples[_key(name)], name, member)
                    samples[_key(name)] = name
                    if name in images:
                        raise ValueError(
                            f"{file}: expected each id once, found {name!r} here and in {images[name][0]}; give every "
                            "image a name of its own."
                        )
                    images[name] = (shard, header.offset_data, header.size)
            if len(images) == before:
                kinds = member or " ".join(SUFFIXES)
                raise ValueError(
                    f"{file}: expected images ({kinds}), found none in this shard; take it out, or check "
                    "how it was written."
                )
            advance()
    return ShardListing(shards, dict(sorted(images.items())))


def _several(file: Path, first: str, second: str, member: str) -> ValueError:
    parts = sorted({_part(first), _part(second)})
    return ValueError(
        f"{file}: expected one image in each sample{f' of member={member}' if member else ''}, found {first} and "
        f"{second}; say which is the image: member={' or member='.join(parts)} (of a set, data.sets.<name>.member)."
    )


def _members(file: Path) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Name and header of every regular member that is not hidden, in the order of the file; none stands twice."""
    seen: set[str] = set()
    try:
        with tarfile.open(file, "r:") as archive:
            for member in _headers(file, archive):
                name = _checked_name(file, member)
                if not member.isreg() or any(part.startswith(".") for part in name.split("/")):
                    continue
                if name in seen:
                    raise ValueError(
                        f"{file}: expected each member once, found {name!r} twice; write the shard again."
                    )
                seen.add(name)
                yield name, member
            end = archive.offset
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _broken(file, str(error)) from None
    with open(file, "rb") as handle:  # tarfile stops at a damaged header without a word
        handle.seek(end)
        if handle.read(_BLOCK) != bytes(_BLOCK):
            raise _broken(file, f"no end of the archive at byte {end:,}")
        while rest := handle.read(1 << 20):
            if rest.strip(b"\0"):
                raise _broken(
                    file, f"more data behind its end at byte {end:,}, as of tar files that were joined"
                )


def _headers(file: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    try:
        yield from archive
    except (ValueError, OverflowError) as error:  # a length beyond what a file can have
        raise _broken(file, str(error)) from None


def _broken(file: Path, found: str) -> ValueError:
    return ValueError(
        f"{file}: expected a whole tar file, found a broken or truncated one ({found}); fetch it again, or write it "
        "again with tar or webdataset."
    )


def _checked_name(file: Path, member: tarfile.TarInfo) -> str:
    name = member.name
    while name.startswith("./"):
        name = name[2:]
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(
            f"{file}: expected names below the archive, found {member.name!r}; write the shard again "
            "with relative names."
        )
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise ValueError(
            f"{file}: expected plain files, found {member.name!r}, a link, a device or a sparse file; write the shard "
            "again with the files themselves (tar --dereference)."
        )
    return name


def shard_source(path: Path | str, images: Mapping[str, tuple[str, int, int]]) -> ImageSource:
    """The images of a listing (its `images`), to be opened by id. path: as of `shard_files`, on this machine."""
    files = shard_files(path)
    lacking = {shard for shard, _, _ in images.values()} - files.keys()
    if lacking:
        raise ValueError(
            f"{path}: expected a shard {min(lacking)}, as when it was listed, found {', '.join(list(files)[:3])}; "
            "list the shards again."
        )
    places = {name: Place(files[shard], offset, size) for name, (shard, offset, size) in images.items()}
    return ImageSource(Path(path), tuple(sorted(places)), places)


def checksums(listing: ShardListing) -> dict[str, str]:
    """sha256 in hex of the bytes of every image, in the order of the listing."""
    sums = {}
    by_place = sorted(
        listing.images, key=lambda name: listing.images[name]
    )  # each shard is read from front to back
    with progress("hashing images", len(by_place), "images") as advance:
        for name in by_place:
            shard, offset, size = listing.images[name]
            sums[name] = hashlib.sha256(_read(listing.shards[shard], offset, size)).hexdigest()
            advance()
    return {name: sums[name] for name in listing.images}


def _read(file: Path, offset: int, size: int) -> bytes:
    with open(file, "rb") as handle:
        handle.seek(offset)
        data = handle.read(size)
    if len(data) != size:
        raise _broken(file, f"{len(data):,} of {size:,} bytes at byte {offset:,}")
    return data


def has_labels(path: Path | str) -> bool:
    """Whether the first shard has members `.cls` at all."""
    first = next(iter(shard_files(path).values()))
    return any(name.lower().endswith(".cls") for name, _ in _members(first))


def shard_labels(path: Path | str, *, field: str = "", ids: Collection[str] | None = None) -> dict[str, int]:
    """The class of every image, a whole number: id -> label, sorted by id.

    field: '' reads the member `.cls` beside the image; otherwise that field of the member `.json`. ids: the images,
    where they are not all that the shards hold.
    Raises ValueError for an image without a label and for a label that is no whole number.
    """
    suffix, labels = (".json" if field else ".cls"), dict[str, int]()
    for file in shard_files(path).values():
        beside = dict(_members(file))
        for name in beside:
            if not name.lower().endswith(SUFFIXES) or (ids is not None and name not in ids):
                continue
            member = beside.get(_key(name) + suffix)
            if member is None:
                raise ValueError(
                    f"{file}: expected {_key(name)}{suffix} with the label of {name}, found none; name where labels "
                    "are: .cls, or a field of .json."
                )
            labels[name] = _label(file, member, field)
    return dict(sorted(labels.items()))


def _key(name: str) -> str:
    """What the members of one sample share: everything before the first dot of the file name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".", 1)[0]


def _part(name: str) -> str:
    """What a member is of its sample, in lower case: everything behind the first dot of the file name."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def _label(file: Path, member: tarfile.TarInfo, field: str) -> int:
    data = _read(file, member.offset_data, member.size)
    try:
        if not field:
            return int(data)
        value = json.loads(data)[field]
        if type(value) is not int:
            raise ValueError
        return value
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        where = f"a whole number as {field!r}" if field else "a whole number"
        raise ValueError(
            f"{file}: expected {where} in {member.name}, found {data[:60]!r}; write labels as class numbers."
        ) from None
