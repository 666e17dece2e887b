"""Runs what is missing of a graph, in order.

Stages are imported only when they run. A stage's module offers `run(work: StageRun) -> metrics` and
writes its payload into `work.folder`; everything else about artifacts happens here. Of several processes rank 0
does all of this, and broadcasts each stage in SHARED to the others, which all run it together (`follow`).

    stage_run, outside -> states -> messages -> runner;  provenance, torch_setup -> runner
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignet.pipeline.graph import Node, upstream
from alignet.pipeline.messages import announce, what_is_missing
from alignet.pipeline.outside import checksum_cache, outside_ids
from alignet.pipeline.provenance import provenance
from alignet.pipeline.stage_run import StageRun
from alignet.pipeline.states import States
from alignet.pipeline.torch_setup import set_up
from alignet.runtime.artifacts import Artifact, ArtifactError
from alignet.runtime.distributed import current
from alignet.runtime.interrupt import stop_if_asked

SHARED = ("embed", "finetune")  # stages that all processes of a run work on; the others are the first one's


@dataclass
class Pipeline(States):
    """The states of a configuration's nodes, and the making of what is missing."""

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
        self.forget(key)
        announce(key, artifact, time.monotonic() - started)
        return artifact

    def _ready(self, key: str, parent: str) -> Artifact:
        state = self.state(parent)
        if state.state == "blocked":
            raise ArtifactError(state.why)
        if state.artifact is None or state.state == "stale":
            raise ArtifactError(what_is_missing(self, key, parent))
        state.artifact.verify()
        return state.artifact

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
                sources["seen"] = checksum_cache(self.config, self.store.root, node.outside)
            ids = outside_ids(self.config, node.outside)
            if ids is not None:
                sources["ids"] = ids
        return sources


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
