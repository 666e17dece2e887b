"""Lists outside data once: the size and sha256 of every file, and one digest for them all.

Everything computed from outside data is identified by this digest, never by a path. Hashing 150 GB
takes long, so a cache file remembers each file's size, modification time and sha256, and a later run
only asks for sizes and times:

  {"format": 1, "root": <folder or "">, "files": {<id>: [size, mtime_ns, sha256, path or ""]}}
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alignet.data.images import list_images
from alignet.runtime.progress import progress

_BLOCK = 1024  # files handed to the threads at a time
_SAVE_SECONDS = 60.0  # between saves of an unfinished cache
_SETTLED_NS = 2_000_000_000  # coarsest modification time of a common file system (FAT: 2 s)

Entry = tuple[int, int, str]  # size in bytes, modification time in ns, sha256 in hex


@dataclass(frozen=True)
class Listing:
    """What a source of outside data holds, sorted by id."""

    ids: tuple[str, ...]
    sizes: tuple[int, ...]  # bytes
    sha256: tuple[str, ...]  # hex, of each file's bytes
    digest: str  # sha256 over the sorted (id, size, sha256)
    changed: tuple[str, ...]  # with verify="full": contents changed under the same size and time
    hashed: int  # files whose bytes were read in this run
    left_out: Mapping[str, int] = field(default_factory=dict)  # of a folder: other files, by suffix


def scan(
    source: Path | str | Mapping[str, Path],
    *,
    cache: Path | None = None,
    verify: Literal["stat", "full"] = "stat",
    threads: int = 4,
) -> Listing:
    """Hash a folder of images, or the named files of a mapping {id: path}.

    cache: a JSON file that remembers checksums; None reads every file. verify: `stat` trusts a
    remembered checksum while size and modification time are the same, `full` reads every file and
    reports those that changed behind an unchanged size and time. threads: files read at once, which
    changes no result. Raises ValueError for missing files, files that change while they are read,
    and a cache file that is no such cache.
    """
    if verify not in ("stat", "full"):
        raise ValueError(f"verify: expected stat or full, found {verify!r}.")
    left_out: Mapping[str, int] = {}
    if isinstance(source, Mapping):
        root, paths = "", {name: str(Path(path).absolute()) for name, path in sorted(source.items())}
        if not paths:
            raise ValueError("index: expected at least one file to list, found none; name the files.")
    else:
        root, listed = str(Path(source).absolute()), list_images(source)
        paths, left_out = {name: os.path.join(root, name) for name in listed.ids}, listed.left_out
    known = _read_cache(cache, root, paths) if cache is not None else {}
    entries, changed, hashed = _entries(paths, known, verify, threads, cache, root)
    if cache is not None and (hashed or entries.keys() != known.keys()):
        _write_cache(cache, root, paths, entries)
    return Listing(
        ids=tuple(entries),
        sizes=tuple(size for size, _, _ in entries.values()),
        sha256=tuple(checksum for _, _, checksum in entries.values()),
        digest=_digest(entries),
        changed=changed,
        hashed=hashed,
        left_out=left_out,
    )


def _entries(
    paths: Mapping[str, str],
    known: Mapping[str, Entry],
    verify: str,
    threads: int,
    cache: Path | None,
    root: str,
) -> tuple[dict[str, Entry], tuple[str, ...], int]:
    """Entries of all files in the order of `paths`, the ids that changed unseen, the number hashed."""
    entries = {
        name: entry for name, path in paths.items() if (entry := known.get(name)) and _same(path, entry)
    }
    todo = list(paths) if verify == "full" else [name for name in paths if name not in entries]
    changed: list[str] = []
    saved = time.monotonic()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        with progress("hashing files", len(todo), "files") as advance:
            for start in range(0, len(todo), _BLOCK):
                block = todo[start : start + _BLOCK]
                for name, entry in zip(block, pool.map(_hash, [paths[name] for name in block])):
                    if name in entries and entries[name][:2] == entry[:2] and entries[name][2] != entry[2]:
                        changed.append(name)
                    entries[name] = entry
                    advance()
                if cache is not None and time.monotonic() - saved > _SAVE_SECONDS:
                    _write_cache(cache, root, paths, entries)
                    saved = time.monotonic()
    return {name: entries[name] for name in paths}, tuple(changed), len(todo)


def _same(path: str, entry: Entry) -> bool:
    status = _stat(path)
    return status.st_size == entry[0] and status.st_mtime_ns == entry[1]


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a file, found none; check the path.") from None


def _hash(path: str) -> Entry:
    _stat(path)
    if not os.path.isfile(path):
        raise ValueError(f"{path}: expected a file, found a folder or device; name a file.")
    with open(path, "rb") as handle:
        before = os.fstat(handle.fileno())
        checksum = hashlib.file_digest(handle, "sha256").hexdigest()
        after = os.fstat(handle.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ValueError(f"{path}: expected a finished file, found one being written; wait and run again.")
    return before.st_size, before.st_mtime_ns, checksum


def _digest(entries: Mapping[str, Entry]) -> str:
    total = hashlib.sha256()
    for name in sorted(entries):
        size, _, checksum = entries[name]
        total.update(json.dumps([name, size, checksum], ensure_ascii=False).encode() + b"\n")
    return total.hexdigest()


def _read_cache(cache: Path, root: str, paths: Mapping[str, str]) -> dict[str, Entry]:
    """What an earlier run remembered of these files; nothing if there was none or of another folder."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["format"] != 1 or content["root"] != root:
            return {}
        files = content["files"]
        return {
            name: (int(files[name][0]), int(files[name][1]), str(files[name][2]))
            for name, path in paths.items()
            if name in files and (root or files[name][3] == path)
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        found = f"found something else ({type(error).__name__}: {error})"
        raise ValueError(f"{cache}: expected a cache of checksums, {found}; delete the file.") from None


def _write_cache(cache: Path, root: str, paths: Mapping[str, str], entries: Mapping[str, Entry]) -> None:
    # A file written this very moment may change again within the resolution of its time: not remembered.
    newest = time.time_ns() - _SETTLED_NS
    files = {
        name: [*entry, "" if root else paths[name]] for name, entry in entries.items() if entry[1] < newest
    }
    cache.parent.mkdir(parents=True, exist_ok=True)
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    temporary.write_text(
        json.dumps({"format": 1, "root": root, "files": files}, ensure_ascii=False), encoding="utf-8"
    )
    os.replace(temporary, cache)
