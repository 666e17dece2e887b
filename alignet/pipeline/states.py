"""The state of every node of a configuration: what its artifact is, and whether that is there and current."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from alignet.config import Config
from alignet.pipeline.graph import Node, build_graph, upstream
from alignet.pipeline.outside import outside_digest, outside_path
from alignet.runtime.artifacts import Artifact, Identity, Store


@dataclass
class State:
    """The state of a node: cached | stale | partial | missing | blocked, and why."""

    state: str
    artifact: Artifact | None = None
    why: str = ""


@dataclass
class States:
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

    def identity(self, key: str) -> Identity:
        """The identity of a node; ArtifactError when outside data that it needs is not there."""
        if key not in self._identities:
            node = self.graph[key]
            inputs = {name: self.identity(parent).fingerprint for name, parent in node.inputs.items()}
            if node.outside:
                inputs["data"] = self._outside_digest(node.outside)
            if self.config.rehearse.active:
                inputs["rehearsal"] = "its artifacts are no real ones"
            self._identities[key] = Identity(node.stage, node.role, node.version, node.section, inputs)
        return self._identities[key]

    def _outside_digest(self, name: str) -> str:
        if name not in self._outside:
            self._outside[name] = outside_digest(self.config, self.store.root, name)
        return self._outside[name]

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

    def locate(self, key: str) -> Path:
        """Where the files of an index node's data are: below the world's artifact, or on this machine."""
        node = self.graph[key]
        if node.outside:
            return outside_path(self.config, node.outside)
        return self.store.folder(self.identity(node.inputs["world"])) / node.section["path"]

    def forget(self, key: str) -> None:
        """Drop what is known of the state of a node and of all that is built from it."""
        for name in list(self._states):
            if name == key or key in upstream(self.graph, name):
                del self._states[name]
