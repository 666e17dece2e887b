"""Sets of outside data on this machine: where they are, what is missing of them, and the digest of their contents."""

from __future__ import annotations

import hashlib
from pathlib import Path

from alignet.config import Config, FeaturesSet, SetSettings
from alignet.data.sets import exists


def outside_path(config: Config, name: str) -> Path:
    """The path of a set of outside data; FileNotFoundError says what it is and how to give it."""
    one: SetSettings = config.data.sets[name]
    if one.path is None:
        raise FileNotFoundError(
            f"data set {name!r} ({one.kind}): expected a path, none is set; data/README.md says what it is. "
            f"Add data.sets.{name}.path=<where it is>."
        )
    path = Path(one.path)
    if not exists(one.kind, path):
        raise FileNotFoundError(
            f"data set {name!r} ({one.kind}): expected it at {path}, found nothing there; "
            f"data/README.md says what it is. Set data.sets.{name}.path, or the folder it is part of in paths."
        )
    return path


def outside_ids(config: Config, name: str) -> Path | None:
    """The file of row ids of an outside features set; None for other sets."""
    one = config.data.sets.get(name)
    if not isinstance(one, FeaturesSet):
        return None
    if one.ids is None or not Path(one.ids).is_file():
        raise FileNotFoundError(
            f"data set {name!r}: expected the ids of its rows at {one.ids or 'a path, none is set'}, found nothing "
            f"there; set data.sets.{name}.ids to a text file with one id a line."
        )
    return Path(one.ids)


def checksum_cache(config: Config, root: Path, name: str) -> Path:
    """The file below a store's root that remembers the checksums of a set of outside data."""
    path = outside_path(config, name)
    where = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]
    return root / "seen" / f"{name}-{where}.json"


def outside_digest(config: Config, root: Path, name: str) -> str:
    """Digest of a set of outside data: sizes and times are checked now, contents when they changed."""
    from alignet.data.checksums import scan
    from alignet.data.sets import files_of

    one, path = config.data.sets[name], outside_path(config, name)
    cache = checksum_cache(config, root, name)
    cache.parent.mkdir(parents=True, exist_ok=True)
    files = files_of(one.kind, path, getattr(one, "under", ""), outside_ids(config, name))
    return scan(files, cache=cache, verify=config.data.verify).digest
