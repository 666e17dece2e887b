"""Runs what is missing of a graph, in order.

Stages are imported only when they run. A stage's module offers `run(work: StageRun) -> metrics` and
writes its payload into `work.folder`; everything else about artifacts happens here. Of several processes rank 0
does all of this, and broadcasts each stage in SHARED to the others, which all run it together (`follow`).

    stage_run, outside -> states -> messages -> runner;  provenance, torch_setup, parallel -> runner
"""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignet.pipeline import parallel
from alignet.pipeline.explain import explain, meets_all, shortened
from alignet.pipeline.graph import Node, upstream
from alignet.pipeline.messages import announce, what_is_missing
from alignet.pipeline.outside import checksum_cache, outside_ids
from alignet.pipeline.provenance import provenance
from alignet.pipeline.stage_run import StageRun
from alignet.pipeline.states import States
from alignet.pipeline.torch_setup import set_up
from alignet.runtime.artifacts import Artifact, ArtifactError, Work
from alignet.runtime.distributed import current
from alignet.runtime.interrupt import Stopped, stop_if_asked

# stages that all processes of a run work on; the others are the first one's
SHARED = ("attack", "embed", "finetune", "harmonize", "invert", "perceptual", "robust", "saliency", "stimuli")


@dataclass
class Failures:
    """What went wrong with single nodes of a run that goes on without them."""

    why: dict[str, str] = field(default_factory=dict)  # node -> its message, or the traceback of a defect
    without: list[str] = field(default_factory=list)  # nodes that need one of those, and were not tried

    def take(self, key: str, error: Exception) -> bool:
        """Note what went wrong with a node, and say so; False where it would end the other nodes as well."""
        if isinstance(error, Stopped) or meets_all(error) or current().size > 1:
            return False
        told = explain(error)
        self.why[key] = told or "".join(traceback.format_exception(error)).rstrip()
        print(f"failed: {key}: {self.why[key] if told is None else shortened(told, 500)}", flush=True)
        return True

    def stop(self, key: str, graph: Mapping[str, Node]) -> bool:
        """Whether a node needs one that failed; it is noted then."""
        if key in self.without:
            return True
        lost = not {*self.why, *self.without}.isdisjoint(graph[key].inputs.values())
        if lost:
            self.without.append(key)
        return lost


@dataclass
class Pipeline(States):
    """The states of a configuration's nodes, and the making of what is missing."""

    def make_all(
        self, targets: list[str], force: bool = False, failures: Failures | None = None
    ) -> list[str]:
        """Make the targets and whatever of their inputs is missing. Returns the keys that ran, as they were done.

        They are made in the graph's order, runtime.parallel_nodes at a time. failures: takes what goes wrong with
        single nodes, and everything that does not need them is made; without it the first error ends the run.
        """
        wanted = {name for target in targets for name in [*upstream(self.graph, target), target]}
        left = [key for key in self.graph if key in wanted]
        forced = set(targets) if force else set()
        if parallel.at_a_time(self.config.runtime) > 1:
            return self._make_together(left, forced, failures)
        ran = []
        for key in left:
            if failures is not None and failures.stop(key, self.graph):
                continue
            if self.state(key).state != "cached" or key in forced:
                stop_if_asked()
                try:
                    self.make(key, force=key in forced)
                except Exception as error:
                    if failures is None or not failures.take(key, error):
                        raise
                    continue
                ran.append(key)
        return ran

    def _make_together(self, left: list[str], forced: set[str], failures: Failures | None) -> list[str]:
        ran: list[str] = []
        begun: dict[str, tuple[_Making, ExitStack]] = {}
        missing = [self.graph[key] for key in left if self.state(key).state != "cached" or key in forced]
        workers = parallel.Workers(
            parallel.at_a_time(self.config.runtime), _run_text, parallel.shared_modules(missing)
        )
        with ExitStack() as locks:
            try:
                while left or begun:
                    stop_if_asked()
                    for key in list(left):
                        if failures is not None and failures.stop(key, self.graph):
                            left.remove(key)
                            continue
                        if not workers.free or {*left, *begun} & set(self.graph[key].inputs.values()):
                            continue
                        left.remove(key)
                        if self.state(key).state != "cached" or key in forced:
                            own = locks.enter_context(ExitStack())
                            try:
                                begun[key] = own.enter_context(self._making(key, key in forced)), own
                            except Exception as error:
                                if failures is None or not failures.take(key, error):
                                    raise
                                continue
                            workers.begin(key, begun[key][0].text())
                    if begun:
                        try:
                            key, metrics = workers.finish()
                        except parallel.Failed as failed:
                            if failures is None or failed.all or not failures.take(failed.key, failed.error):
                                raise failed.error from None
                            begun.pop(failed.key)[1].close()
                            continue
                        making, own = begun.pop(key)
                        with own:
                            self._made(making, metrics)
                        ran.append(key)
            finally:
                workers.end()
        return ran

    def make(self, key: str, force: bool = False) -> Artifact:
        """Make one node from inputs that exist; ArtifactError names those that do not."""
        with self._making(key, force) as making:
            return self._made(making, making.metrics())

    @contextmanager
    def _making(self, key: str, force: bool) -> Iterator[_Making]:
        """Hold the lock of a node whose inputs exist."""
        node, identity = self.graph[key], self.identity(key)
        inputs = {name: self._ready(key, parent) for name, parent in node.inputs.items()}
        built_from = {name: artifact.digest for name, artifact in inputs.items()}
        runtime = replace(
            self.config.runtime, threads=parallel.threads_of(key, self.graph, self.config.runtime)
        )
        with self.store.work(identity, built_from, fresh=force) as work:
            sources = self._sources(node)
            run = StageRun(node, node.section, inputs, sources, work.folder, work.checkpoints, runtime)
            yield _Making(run, work)

    def _made(self, making: _Making, metrics: Mapping[str, Any]) -> Artifact:
        """Commit what a node's work folder holds, and say so."""
        node, seconds = making.run.node, time.monotonic() - making.started
        if making.finished:
            artifact = making.work.publish()
        else:
            size = _size(node)
            artifact = making.work.commit(
                metrics, provenance(making.began, seconds, making.run.runtime, size)
            )
        self.forget(node.key)
        announce(node.key, artifact, time.monotonic() - making.started)
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
            elif parent.startswith("stimuli["):  # an image set that lies in its artifact
                sources[name] = self.store.folder(self.identity(parent))
        if node.stage == "index":
            sources["data"] = self.locate(node.key)
            if node.outside:
                sources["seen"] = checksum_cache(self.config, self.store.root, node.outside)
            ids = outside_ids(self.config, node.outside)
            if ids is not None:
                sources["ids"] = ids
        return sources


@dataclass
class _Making:
    """A node that is being made."""

    run: StageRun
    work: Work
    finished: bool = field(init=False)  # by an earlier process, which did not come to publish it
    started: float = field(init=False, default_factory=time.monotonic)
    began: str = field(init=False, default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __post_init__(self) -> None:
        self.finished = self.work.finished()

    def metrics(self) -> Mapping[str, Any]:
        """Do what is left to do."""
        return {} if self.finished else _run(self.run)

    def text(self) -> str:
        """What `_run_text` does the same from, in another process."""
        return "" if self.finished else self.run.as_text()


def stage_module(node: Node) -> Any:
    """The module of a node's stage."""
    return importlib.import_module(f"alignet.stages.{node.stage}")


def _size(node: Node) -> int:
    """How many processes make a node."""
    return current().size if node.stage in SHARED else 1


def _run(run: StageRun) -> Mapping[str, Any]:
    """Run a stage, with the other processes where it is one that they share."""
    if _size(run.node) > 1:
        current().tell(run.as_text())
    set_up(run.runtime, together=_size(run.node) > 1)
    metrics = stage_module(run.node).run(run)
    if _size(run.node) > 1:
        current().wait()
    return metrics


def _run_text(text: str) -> Mapping[str, Any]:
    """What a worker is told of: one stage, run in this process."""
    if not text.strip():
        return {}
    run = StageRun.from_text(text)
    return _run(run)


def follow() -> None:
    """What every process but the first does: join in the stages that it is told of, until the run ends."""
    while text := current().hear():
        run = StageRun.from_text(text)
        set_up(run.runtime, together=True)
        stage_module(run.node).run(run)
        current().wait()
