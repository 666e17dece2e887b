"""The artifact store: what exists is complete, what is unfinished resumes, what changed is noticed.

    <root>/<stage>/
      <fingerprint12>/            exists if and only if it is complete
        MANIFEST.json             identity, files with sizes and checksums, metrics, provenance
        ...                       the payload
      <fingerprint12>.partial/    work in progress
        STARTED.json              digests of the inputs it was started from
        checkpoints/              state of the computation, dropped at the commit
      <fingerprint12>.lock        kernel file lock, held by the one process that works on it
      <fingerprint12>.old/        the replaced artifact, for the instant of a forced swap

The short name is only a name: the full identity is in the manifest and is compared. A commit writes
and syncs the payload, then the manifest, then renames. This file knows no stage.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
STARTED = "STARTED.json"
CHECKPOINTS = "checkpoints"

_SETTLED_NS = 100_000_000  # of a file's time, coarser than the clock of any disk that stages work on
_DIGESTS: dict[tuple[int, ...], str] = {}


class ArtifactError(RuntimeError):
    """Something about the store that its user must know: what is missing, damaged, or in use."""


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(identity: Mapping[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON of an identity."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def file_digest(path: Path | str) -> str:
    """sha256 (hex) of a file's bytes, which this process reads again only if the file has changed since.

    Changed is another size, time or place on the disk. A file of this very moment may change again within the
    resolution of its time: it is not remembered.
    """
    known = os.stat(path)
    key = known.st_dev, known.st_ino, known.st_size, known.st_mtime_ns, known.st_ctime_ns
    if key in _DIGESTS:
        return _DIGESTS[key]
    with open(path, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    if time.time_ns() - max(key[3:]) > _SETTLED_NS:
        _DIGESTS[key] = digest
    return digest


def write_json(path: Path, value: Any) -> None:
    """Write JSON through a temporary name, synced, so that readers see the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


@dataclass(frozen=True)
class Identity:
    """What an artifact is: everything that determines its bytes on purpose."""

    stage: str
    role: str
    version: int
    section: Mapping[str, Any]  # the node's resolved configuration
    inputs: Mapping[str, str]  # name of each input -> its full fingerprint (or the digest of outside data)

    def as_dict(self) -> dict[str, Any]:
        """The identity as plain JSON values."""
        return {
            "stage": self.stage,
            "role": self.role,
            "version": self.version,
            "section": dict(self.section),
            "inputs": dict(self.inputs),
        }

    @property
    def fingerprint(self) -> str:
        """Full sha256 of the identity."""
        return fingerprint(self.as_dict())


@dataclass(frozen=True)
class Artifact:
    """A complete artifact on disk."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """sha256 over names and checksums of the payload: equal digests mean equal bytes."""
        return self.manifest["digest"]

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures that the stage reported."""
        return self.manifest["metrics"]

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return sum(entry["size"] for entry in self.manifest["files"].values())

    def file(self, name: str) -> Path:
        """The path of one payload file; ArtifactError if the artifact has no such file."""
        if name not in self.manifest["files"]:
            have = ", ".join(sorted(self.manifest["files"])[:8])
            raise ArtifactError(
                f"{self.folder}: expected a file {name!r}, found {have}; rebuild with force=true."
            )
        return self.folder / name

    def verify(self) -> None:
        """Compare every file with its checksum; ArtifactError names the first that differs."""
        for name, entry in self.manifest["files"].items():
            path = f"{self.folder}/{name}"
            try:
                status = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                status = None
            if status is None or not stat.S_ISREG(status.st_mode):
                raise ArtifactError(
                    f"{path}: expected a file of a finished artifact, found none; {self._rebuild()}"
                )
            if status.st_size != entry["size"] or file_digest(path) != entry["sha256"]:
                raise ArtifactError(
                    f"{path}: expected the bytes that were written, found others (checksum differs: damaged or "
                    f"edited); {self._rebuild()}"
                )

    def _rebuild(self) -> str:
        role = self.manifest["identity"]["role"]
        stage = self.manifest["identity"]["stage"]
        role_option = f" role={role}" if role else ""
        return f"rebuild it with: python -m alignet.stages.{stage}{role_option} force=true (and your options)"


class Store:
    """Artifacts below one root folder."""

    def __init__(self, root: Path):
        self.root = Path(root)

    def folder(self, identity: Identity) -> Path:
        """Where the artifact of this identity lives, whether it exists or not."""
        return self.root / identity.stage / identity.fingerprint[:12]

    def find(self, identity: Identity) -> Artifact | None:
        """The complete artifact of this identity, or None. Reads its manifest only."""
        folder = self.folder(identity)
        if not folder.is_dir():
            old = folder.with_name(folder.name + ".old")
            if not old.is_dir():
                return None
            folder = old  # a forced swap was interrupted: the old one is still whole
        manifest = read_manifest(folder)
        if manifest["identity"] != json.loads(canonical(identity.as_dict())):
            raise ArtifactError(
                f"{folder}: expected the artifact of {identity.stage}[{identity.role}], found another identity "
                f"under the same short name; move that folder away."
            )
        return Artifact(folder, manifest)

    def partial(self, identity: Identity) -> Path:
        """The work folder of this identity."""
        folder = self.folder(identity)
        return folder.with_name(folder.name + ".partial")

    def all(self, stage: str) -> list[Artifact]:
        """Every complete artifact of a stage, by folder name; damaged manifests are passed over."""
        found = []
        for folder in sorted((self.root / stage).glob("*")):
            if folder.is_dir() and folder.suffix == "" and (folder / MANIFEST).is_file():
                try:
                    found.append(Artifact(folder, read_manifest(folder)))
                except ArtifactError:
                    continue
        return found

    @contextmanager
    def work(self, identity: Identity, built_from: Mapping[str, str], *, fresh: bool) -> Iterator[Work]:
        """Hold the lock of this identity and yield its work folder; the caller commits.

        built_from: name of each input -> digest of the bytes used; work begun from other bytes is
        dropped. fresh: drop any work begun before. An exception leaves the work folder to be resumed.
        """
        with work_at(self.folder(identity), identity, built_from, fresh=fresh) as work:
            yield work


@dataclass(frozen=True)
class Work:
    """Unfinished work on one artifact. The payload goes into `folder`, checkpoints into `checkpoints`."""

    folder: Path
    target: Path
    identity: Identity
    built_from: Mapping[str, str]

    @property
    def checkpoints(self) -> Path:
        """Folder for the state of the computation; not part of the artifact."""
        return self.folder / CHECKPOINTS

    def finished(self) -> bool:
        """Whether an earlier process got as far as the manifest, so only the rename is missing."""
        if not (self.folder / MANIFEST).is_file():
            return False
        try:
            manifest = read_manifest(self.folder)
            Artifact(self.folder, manifest).verify()
        except ArtifactError:
            manifest = {}
        if manifest.get("built_from") == dict(self.built_from):
            return True
        (self.folder / MANIFEST).unlink()
        return False

    def commit(self, metrics: Mapping[str, Any], provenance: Mapping[str, Any]) -> Artifact:
        """Sync the payload, write the manifest, rename into place. Returns the artifact."""
        files = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if not path.is_file() or name == STARTED or name.startswith(CHECKPOINTS + "/"):
                continue
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
            files[name] = {"size": path.stat().st_size, "sha256": file_digest(path)}
        digest = fingerprint({name: entry["sha256"] for name, entry in files.items()})
        written = {
            "identity": self.identity.as_dict(),
            "fingerprint": self.identity.fingerprint,
            "files": files,
            "digest": digest,
            "built_from": dict(self.built_from),
            "metrics": dict(metrics),
            "provenance": dict(provenance),
        }
        manifest = json.loads(canonical(written))  # as it is read: keys are text, and sort as text
        write_json(self.folder / MANIFEST, manifest | {"checksum": fingerprint(manifest)})
        return self.publish()

    def publish(self) -> Artifact:
        """Rename the finished work folder into place, swapping an older artifact out of the way."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        (self.folder / STARTED).unlink(missing_ok=True)
        _sync_folder(self.folder)
        old = self.target.with_name(self.target.name + ".old")
        if self.target.is_dir():
            os.rename(self.target, old)
        os.rename(self.folder, self.target)
        _sync_folder(self.target.parent)
        if old.is_dir():
            shutil.rmtree(old)
        return Artifact(self.target, read_manifest(self.target))


@contextmanager
def work_at(
    folder: Path, identity: Identity, built_from: Mapping[str, str], *, fresh: bool
) -> Iterator[Work]:
    """As `Store.work`, for an artifact that is to stand at a folder of the caller's choice."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(folder.name + ".lock")):
        _finish_swap(folder)
        partial = folder.with_name(folder.name + ".partial")
        if partial.is_dir() and (fresh or _started_from(partial) != dict(built_from)):
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        for leftover in [*partial.rglob("*.tmp"), *partial.rglob(".tmp*")]:  # ours, and safetensors' own
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)
        if not (partial / STARTED).is_file():
            write_json(partial / STARTED, dict(built_from))
        yield Work(partial, folder, identity, dict(built_from))


def _finish_swap(folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    if old.is_dir():
        if folder.is_dir():
            shutil.rmtree(old)
        else:
            os.rename(old, folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete artifact; ArtifactError when it is missing or unreadable."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not _is_whole(manifest):
            raise ValueError("another content than was written")
        return manifest
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{folder}: expected a readable {MANIFEST}, found {str(error)[:200] or type(error).__name__}; delete that "
            f"folder and run the stage again."
        ) from error


def _is_whole(manifest: Any) -> bool:
    """Whether every part of a manifest is there, of its kind, and as its checksum says (older ones have none)."""
    parts = {"identity": dict, "files": dict, "digest": str, "built_from": dict, "metrics": dict}
    if not isinstance(manifest, dict) or any(
        type(manifest.get(key)) is not kind for key, kind in parts.items()
    ):
        return False
    named = {"stage": str, "role": str, "version": int, "section": dict, "inputs": dict}
    entries = manifest["files"].values()
    typed = all(type(manifest["identity"].get(key)) is kind for key, kind in named.items()) and all(
        isinstance(entry, dict) and type(entry.get("size")) is int and type(entry.get("sha256")) is str
        for entry in entries
    )
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return typed and ("checksum" not in manifest or manifest["checksum"] == fingerprint(content))


def _started_from(partial: Path) -> dict[str, str] | None:
    if (partial / MANIFEST).is_file():  # STARTED is dropped first when the finished work is renamed
        try:
            return dict(read_manifest(partial)["built_from"])
        except ArtifactError:
            return None
    try:
        return json.loads((partial / STARTED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file of one artifact; ArtifactError names the process that has it."""
    # POSIX record locks die with the process and are not inherited by loader workers
    with open(path, "a+", encoding="utf-8") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise ArtifactError(
                f"{path.parent.name}/{path.stem}: another process is making this artifact ({holder}); wait for "
                f"it to finish, or stop it, and run again."
            ) from error
        handle.seek(0)
        handle.truncate()
        handle.write(f"pid {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield
