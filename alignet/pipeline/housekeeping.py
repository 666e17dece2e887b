"""What lies in a store and is needed by nothing current: found with its size, and removed only when that is asked for.

Only folders that the store itself made are looked at, <stage>/<fingerprint12> and its `.partial` and `.old`; anything
else below the root is left alone and not listed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from alignet.config import Config
from alignet.pipeline.graph import VERSIONS
from alignet.pipeline.outside import outside_ids, outside_path
from alignet.pipeline.states import States
from alignet.runtime.artifacts import MANIFEST, ArtifactError, Store, locked, read_manifest

_NAME = re.compile(r"[0-9a-f]{12}(\.partial|\.old|\.removed)?")


@dataclass(frozen=True)
class Leftover:
    """One folder of a store that no current node is."""

    folder: Path
    what: str  # artifact | unfinished work | damaged
    node: str  # stage[role], as far as it is known
    size: int  # bytes on disk, checkpoints included
    began: str  # when it was made, "" where that is not known


def leftovers(store: Store, needed: Collection[Path], stages: Iterable[str]) -> list[Leftover]:
    """Folders of these stages that are none of `needed` (artifact folders) nor their unfinished work, by path."""
    kept = {path.resolve() for path in needed}
    found = []
    for stage in sorted(stages):
        for folder in sorted((store.root / stage).glob("*")):
            if not folder.is_dir() or folder.is_symlink() or not _NAME.fullmatch(folder.name):
                continue
            if folder.with_suffix("").resolve() not in kept or folder.suffix == ".removed":
                found.append(_described(stage, folder))
    return found


def _described(stage: str, folder: Path) -> Leftover:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if folder.suffix in (".partial", ".removed"):
        return Leftover(
            folder, "unfinished work" if folder.suffix == ".partial" else "half removed", stage, size, ""
        )
    try:
        manifest = read_manifest(folder)
        role = manifest["identity"]["role"]
        return Leftover(
            folder,
            "artifact",
            f"{stage}[{role}]" if role else stage,
            size,
            str(manifest["provenance"]["began"]),
        )
    except (ArtifactError, KeyError, TypeError):
        return Leftover(folder, "damaged", stage, size, "")


def remove(leftover: Leftover) -> None:
    """Delete one leftover while holding its lock; ArtifactError if another process is working on it.

    The folder is renamed first, so that a kill in the middle leaves no half artifact under a valid name.
    """
    folder = leftover.folder
    with locked(folder.with_suffix(".lock")):
        doomed = folder if folder.suffix == ".removed" else folder.with_suffix(".removed")
        if doomed != folder:
            shutil.rmtree(doomed, ignore_errors=True)
            os.rename(folder, doomed)
        (doomed / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(doomed)


def print_leftovers(configs: list[Config], delete: bool) -> None:
    """What lies in the store and is no node of these configurations; deleted if told so."""
    roots = {str(Path(config.paths.artifacts).absolute()) for config in configs}
    if len(roots) > 1:
        raise ValueError(f"paths.artifacts: expected one store to prune, found {', '.join(sorted(roots))}")
    store, needed = Store(Path(configs[0].paths.artifacts)), set()
    for config in configs:
        states = States(config)
        for key in states.graph:
            state = states.state(key)
            if state.state == "blocked":
                raise ArtifactError(
                    f"{key} cannot be named, so what it needs cannot be told from what nothing needs: {state.why}"
                )
            needed.add(store.folder(states.identity(key)))
            outside = states.graph[key].outside
            if outside:  # a map, weights or features that another run left in this very store
                needed |= _holding(store.root, outside_path(config, outside), outside_ids(config, outside))
    found = leftovers(store, needed, VERSIONS)
    for leftover in found:
        if delete:
            remove(leftover)
        print(
            f"{'removed' if delete else 'not needed'}  {leftover.size / 1e6:12,.1f} MB  {leftover.what:15}  "
            f"{leftover.node:32}  {leftover.began:25}  {leftover.folder}".rstrip()
        )
    total = sum(leftover.size for leftover in found)
    print(
        f"{len(found)} folders, {total / 1e6:,.1f} MB {'removed from' if delete else 'not needed in'} {store.root}"
    )
    if found and not delete:
        print(
            f"next, to delete them: python -m alignet.stages.status prune remove {_prune_options()}".rstrip()
        )


def _holding(root: Path, *paths: Path | None) -> set[Path]:
    """The artifact folders of a store that paths lead into."""
    inside = [path.resolve().relative_to(root.resolve()).parts for path in paths
              if path is not None and path.resolve().is_relative_to(root.resolve())]  # fmt: skip
    return {root.joinpath(*parts[:2]) for parts in inside if len(parts) >= 2}


def _prune_options() -> str:
    return " ".join(shlex.quote(item) for item in sys.argv[2:])
