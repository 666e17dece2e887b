"""Runs what is missing of a graph, in order, and knows the state of every node.

Stages are imported only when they run. A stage's module offers `run(work: StageRun) -> metrics` and
writes its payload into `work.folder`; everything else about artifacts happens here. Of several processes the first
does all of this, and tells the others of each stage in SHARED, which all run together (`follow`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from alignet.artifacts import Artifact, ArtifactError, Identity, Store, read_manifest
from alignet.config import Config, FeaturesSet, RuntimeSettings, SetSettings, build
from alignet.data.sets import exists
from alignet.graph import Node, build_graph, upstream
from alignet.interrupt import stop_if_asked
from alignet.processes import current

LIBRARIES = (
    "torch",
    "timm",
    "open_clip_torch",
    "transformers",
    "faiss",
    "numpy",
    "scipy",
    "scikit-learn",
    "pyro-ppl",
    "pillow",
    "safetensors",
)


SHARED = ("embed", "finetune")  # stages that all processes of a run work on; the others are the first one's


@dataclass(frozen=True)
class StageRun:
    """What a stage may see: its own section, its inputs, its folders, and how to run on this machine."""

    node: Node
    section: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    sources: Mapping[str, Path]  # inputs that are data sets -> where their files are on this machine
    folder: Path
    checkpoints: Path
    runtime: RuntimeSettings

    def as_text(self) -> str:
        """JSON from which another process makes the same run; paths are absolute, for disks that are shared."""
        inputs = {name: str(artifact.folder.absolute()) for name, artifact in self.inputs.items()}
        sources = {name: str(path.absolute()) for name, path in self.sources.items()}
        folders = [str(self.folder.absolute()), str(self.checkpoints.absolute())]
        return json.dumps([asdict(self.node), inputs, sources, folders, asdict(self.runtime)])

    @classmethod
    def from_text(cls, text: str) -> StageRun:
        """What `as_text` wrote; ArtifactError where this machine does not see the first one's folders."""
        node, inputs, sources, folders, runtime = json.loads(text)
        for path in (*inputs.values(), *sources.values(), folders[0]):
            if not Path(path).exists():
                raise ArtifactError(
                    f"{platform.node()}: expected {path}, which the first process of this run sees, found nothing "
                    f"there; put paths.artifacts and the data on a disk that every machine shares, at the same path."
                )
        return cls(
            Node(**node), node["section"],
            {name: Artifact(Path(path), read_manifest(Path(path))) for name, path in inputs.items()},
            {name: Path(path) for name, path in sources.items()},
            Path(folders[0]), Path(folders[1]), build(RuntimeSettings, runtime, "runtime"),
        )  # fmt: skip


@dataclass
class State:
    """The state of a node: cached | stale | partial | missing | blocked, and why."""

    state: str
    artifact: Artifact | None = None
    why: str = ""


@dataclass
class Pipeline:
    """A configuration's graph over a store. Fingerprints need no data beyond the digests of the indexes."""

    config: Config
    graph: dict[str, Node] = field(init=False)
    store: Store = field(init=False)
    _identities: dict[str, Identity] = field(init=False, default_factory=dict)
    _states: dict[str, State] = field(init=False, default_factory=dict)
    _outside: dict[str, str] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.graph = build_graph(self.config)
        self.store = Store(Path(self.config.paths.artifacts))

    # ---- identities and states

    def identity(self, key: str) -> Identity:
        """The identity of a node; ArtifactError when outside data that it needs is not there."""
        if key not in self._identities:
            node = self.graph[key]
            inputs = {name: self.identity(parent).fingerprint for name, parent in node.inputs.items()}
            if node.outside:
                inputs["data"] = self.outside_digest(node.outside)
            self._identities[key] = Identity(node.stage, node.role, node.version, node.section, inputs)
        return self._identities[key]

    def outside_digest(self, name: str) -> str:
        """Digest of a set of outside data: sizes and times are checked now, contents when they changed."""
        if name not in self._outside:
            from alignet.data.index import scan
            from alignet.data.sets import files_of

            one, path = self.config.data.sets[name], outside_path(self.config, name)
            cache = self.seen(name)
            cache.parent.mkdir(parents=True, exist_ok=True)
            under = getattr(one, "under", "")
            files = files_of(one.kind, path, under, outside_ids(self.config, name))
            listing = scan(files, cache=cache, verify=self.config.data.verify)
            self._outside[name] = listing.digest
        return self._outside[name]

    def seen(self, name: str) -> Path:
        """The file that remembers checksums of a set of outside data."""
        path = outside_path(self.config, name)
        where = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]
        return self.store.root / "seen" / f"{name}-{where}.json"

    def state(self, key: str) -> State:
        """Whether a node is cached, stale, partial, missing, or blocked by data that is not there."""
        if key not in self._states:
            self._states[key] = self._find_state(key)
        return self._states[key]

    def _find_state(self, key: str) -> State:
        try:
            identity = self.identity(key)
        except (FileNotFoundError, ValueError) as error:
            return State("blocked", why=str(error))
        artifact = self.store.find(identity)
        if artifact is None:
            return State("partial" if self.store.partial(identity).is_dir() else "missing")
        for name, parent in self.graph[key].inputs.items():
            above = self.state(parent)
            if above.state == "stale":
                return State("stale", artifact, f"{parent} is stale")
            if (
                above.artifact is not None
                and artifact.manifest["built_from"].get(name) != above.artifact.digest
            ):
                return State("stale", artifact, f"{parent} has changed since")
        return State("cached", artifact)

    # ---- making

    def make_all(self, targets: list[str], force: bool = False) -> list[str]:
        """Make the targets and whatever of their inputs is missing, in order. Returns the keys that ran."""
        wanted = {name for target in targets for name in [*upstream(self.graph, target), target]}
        ran = []
        for key in self.graph:
            if key in wanted and (self.state(key).state != "cached" or (force and key in targets)):
                stop_if_asked()
                self.make(key, force=force and key in targets)
                ran.append(key)
        return ran

    def make(self, key: str, force: bool = False) -> Artifact:
        """Make one node from inputs that exist; ArtifactError names those that do not."""
        node, identity = self.graph[key], self.identity(key)
        inputs = {name: self._ready(key, parent) for name, parent in node.inputs.items()}
        built_from = {name: artifact.digest for name, artifact in inputs.items()}
        stage = stage_module(node)
        started = time.monotonic()
        with self.store.work(identity, built_from, fresh=force) as work:
            if work.finished():
                artifact = work.publish()
            else:
                run = StageRun(
                    node,
                    node.section,
                    inputs,
                    self._sources(node),
                    work.folder,
                    work.checkpoints,
                    self.config.runtime,
                )
                began = datetime.now(UTC).isoformat(timespec="seconds")
                metrics = _run(stage, run)
                artifact = work.commit(
                    metrics, provenance(began, time.monotonic() - started, run.runtime, _size(node))
                )
        self._forget(key)
        announce(key, artifact, time.monotonic() - started)
        return artifact

    def _forget(self, key: str) -> None:
        """Drop what is known of the state of a node and of all that is built from it."""
        for name in list(self._states):
            if name == key or key in upstream(self.graph, name):
                del self._states[name]

    def _ready(self, key: str, parent: str) -> Artifact:
        state = self.state(parent)
        if state.state == "blocked":
            raise ArtifactError(state.why)
        if state.artifact is None or state.state == "stale":
            raise ArtifactError(self._what_is_missing(key, parent, state))
        state.artifact.verify()
        return state.artifact

    def _what_is_missing(self, key: str, parent: str, state: State) -> str:
        lines = [f"{key} needs {parent}, which is {state.state}{': ' + state.why if state.why else ''}."]
        near = nearest(self.store.all(self.graph[parent].stage), self.identity(parent))
        if near is not None and state.artifact is None:
            artifact, differences = near
            lines.append(f"The nearest there is, {artifact.folder}, differs in {'; '.join(differences[:4])}.")
        lines.append(f"Make it with: {command(self.graph[parent])}")
        lines.append(
            "or everything that is missing with: python -m alignet.stages.pipeline (and your options)"
        )
        return "\n".join(lines)

    def _sources(self, node: Node) -> dict[str, Path]:
        sources = {}
        for name, parent in node.inputs.items():
            if parent.startswith("index["):
                sources[name] = self.locate(parent)
                ids = outside_ids(self.config, self.graph[parent].outside)
                if ids is not None:
                    sources[f"{name}.ids"] = ids
        if node.stage == "index":
            sources["data"] = self.locate(node.key)
            if node.outside:
                sources["seen"] = self.seen(node.outside)
            ids = outside_ids(self.config, node.outside)
            if ids is not None:
                sources["ids"] = ids
        return sources

    def locate(self, key: str) -> Path:
        """Where the files of an index node's data are: below the world's artifact, or on this machine."""
        node = self.graph[key]
        if node.outside:
            return outside_path(self.config, node.outside)
        return self.store.folder(self.identity(node.inputs["world"])) / node.section["path"]


def stage_module(node: Node) -> Any:
    """The module of a node's stage."""
    return importlib.import_module(f"alignet.stages.{node.stage}")


def _size(node: Node) -> int:
    """How many processes make a node."""
    return current().size if node.stage in SHARED else 1


def _run(stage: Any, run: StageRun) -> Mapping[str, Any]:
    """Run a stage, with the other processes where it is one that they share."""
    if _size(run.node) > 1:
        current().tell(run.as_text())
    set_up(run.runtime, together=_size(run.node) > 1)
    metrics = stage.run(run)
    if _size(run.node) > 1:
        current().wait()
    return metrics


def follow() -> None:
    """What every process but the first does: join in the stages that it is told of, until the run ends."""
    while text := current().hear():
        run = StageRun.from_text(text)
        set_up(run.runtime, together=True)
        stage_module(run.node).run(run)
        current().wait()


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


def given_options() -> str:
    """The overrides of this command line, but for role and force, as a shell would take them."""
    kept = [item for item in sys.argv[1:] if not item.startswith(("role=", "force=", "-"))]
    return "".join(" " + shlex.quote(item) for item in kept)


def command(node: Node) -> str:
    """The command that makes a node, with the options that this command line was given."""
    role = f" role={node.role}" if node.role else ""
    return f"python -m alignet.stages.{node.stage}{role}{given_options()}"


def nearest(candidates: list[Artifact], identity: Identity) -> tuple[Artifact, list[str]] | None:
    """The artifact of the same stage and role that differs least from `identity`, and in what."""
    found = []
    for artifact in candidates:
        other = artifact.manifest["identity"]
        if other["role"] != identity.role:
            continue
        found.append((artifact, differences(dict(identity.as_dict()), other)))
    return min(found, key=lambda pair: len(pair[1]), default=None)


def differences(wanted: Any, there: Any, where: str = "") -> list[str]:
    """Leaf by leaf, where two nested values differ: `name: there, wanted`."""
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        keys = [*wanted, *(key for key in there if key not in wanted)]
        return [
            line
            for key in keys
            for line in differences(wanted.get(key), there.get(key), f"{where}.{key}" if where else str(key))
        ]
    if wanted == there or list_like(wanted) == list_like(there):
        return []
    shown = [str(value)[:12] if where.startswith("inputs") else repr(value) for value in (there, wanted)]
    return [f"{where.removeprefix('section.')}: {shown[0]} there, {shown[1]} wanted"]


def list_like(value: Any) -> Any:
    """Tuples as lists, as JSON has them."""
    return list(value) if isinstance(value, tuple) else value


def set_up(runtime: RuntimeSettings, together: bool = False) -> None:
    """Threads, determinism and this process's device, for every stage alike; together: all processes call this."""
    import torch

    keep_freed_memory()
    torch.set_num_threads(runtime.threads)
    # read when the first CUDA context is made; without it cuBLAS may differ from run to run
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # of a GPU's attention: results are equal to the byte on CPUs alone; and of a thread's first product on a GPU
    for message in (".*defaults to a non-deterministic algorithm", ".*there was no current CUDA context"):
        warnings.filterwarnings("ignore", message=message)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if runtime.device == "cuda":
        _choose_gpu()
    if together:
        current().use(runtime.device)


def _choose_gpu() -> None:
    """Make `cuda` this process's own GPU: the one of its number on this machine."""
    import torch

    if not torch.cuda.is_available():
        raise ValueError("runtime.device: expected a CUDA device, found none; set runtime.device=cpu")
    found, needed = torch.cuda.device_count(), current().local_size
    if found < needed:
        raise ValueError(
            f"runtime.device: expected a GPU for each of {needed} processes on {platform.node()}, found {found}; start "
            f"fewer processes (torchrun --nproc-per-node, runtime.processes)"
        )
    torch.cuda.set_device(current().local_rank)


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed instead of mapping and zeroing new pages in every step.

    Measured on a convolutional network of 48 images a step: 2.5 s without, 1.6 s with. Other C libraries have
    no mallopt and are left alone.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX: other threads' own arenas would go on giving back
        no_mmap, no_trim, one_arena = (-4, 0), (-1, 2**31 - 1), (-8, 1)
        for option in (no_mmap, no_trim, one_arena):
            mallopt(*option)


def provenance(began: str, seconds: float, runtime: RuntimeSettings, processes: int) -> dict[str, Any]:
    """When, by what command and with what software an artifact was made."""
    return {
        "began": began,
        "seconds": round(seconds, 2),
        "command": " ".join(sys.argv),
        "git": _git_commit(),
        "versions": dict(_versions()),
        "machine": platform.machine(),
        "device": runtime.device,
        "threads": runtime.threads,
        "world_size": processes,
    }


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"alignet": version("alignet"), "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = version("faiss-gpu" if name == "faiss" else name)
        except PackageNotFoundError:
            versions[name] = "faiss-cpu" if name == "faiss" else "absent"
    return versions


@cache
def _git_commit() -> str:
    """Of the code that this process runs: what is checked out later is not."""
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"


def announce(key: str, artifact: Artifact, seconds: float) -> None:
    """One line: what was made, where, and the figures that matter."""
    shown = [
        f"{name} {_figure(value)}"
        for name, value in artifact.metrics.items()
        if not isinstance(value, (dict, list))
    ]
    print(f"[{seconds:6.1f} s] {key} -> {artifact.folder}  {', '.join(shown)}".rstrip(), flush=True)


def _figure(value: Any) -> str:
    return (
        f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )
