"""Several nodes at a time (runtime.parallel_nodes), in processes forked from this one, which itself computes nothing.

A node's threads follow from the configuration alone, so its bytes do not depend on what else runs beside it. The
parent holds the locks and commits; a worker writes into the work folder that it is told of and says its metrics, one
node after another. The parent imports the libraries that several nodes need, while the first worker is busy. Forking
needs Linux, and a parent that has run no threads of OpenMP; elsewhere nodes are made one after another, on as many
threads.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from alignet.backbones.backbone import LIBRARIES
from alignet.config import RuntimeSettings
from alignet.pipeline.explain import explain, meets_all
from alignet.pipeline.graph import Node, upstream
from alignet.runtime import interrupt, progress
from alignet.runtime.artifacts import ArtifactError
from alignet.runtime.distributed import current

_PR_SET_PDEATHSIG = 1  # prctl(2)
MOST_BYTES = 100 << 20  # a worker that has allocated more when a node is made is followed by a new one
_IMPORTED = {  # by a stage's functions as they run: seconds of CPU and 100 MB for each process that does it anew
    "pretrain": ("torch._dynamo",),  # by torch.optim
    "distill": ("torch._dynamo",),
    "finetune": ("torch._dynamo",),
    "harmonize": ("torch._dynamo",),
    "robust": ("torch._dynamo",),
}
_WAIT_SECONDS = 1.0  # between looks at whether this process was asked to end


def at_a_time(runtime: RuntimeSettings) -> int:
    """How many nodes are made at a time on this machine."""
    alone = sys.platform != "linux" or runtime.device != "cpu" or current().size > 1
    return 1 if alone else min(runtime.parallel_nodes, runtime.threads)


def threads_of(key: str, graph: Mapping[str, Node], runtime: RuntimeSettings) -> int:
    """Threads of a node: its share of runtime.threads, or all where no other node could run beside it."""
    before = upstream(graph, key)
    alone = all(name == key or name in before or key in upstream(graph, name) for name in graph)
    return runtime.threads if alone else max(1, runtime.threads // runtime.parallel_nodes)


def shared_modules(nodes: Iterable[Node]) -> list[str]:
    """Names of slow modules that several of the nodes import when they run."""
    found: Counter[str] = Counter()
    for node in nodes:
        library = node.section.get("model", {}).get("library")
        found.update([*_IMPORTED.get(node.stage, ()), *([library] if library in LIBRARIES else [])])
    return [name for name, count in found.items() if count > 1]


class Failed(Exception):
    """What went wrong with one node. all: the others would meet it as well."""

    def __init__(self, key: str, error: Exception, all_: bool = False):
        super().__init__(key)
        self.key, self.error, self.all = key, error, all_


@dataclass
class _Worker:
    process: int
    to: socket.socket  # its other end is the worker's
    key: str = ""  # of the node that it makes, "" between two


@dataclass
class Workers:
    """At most `most` processes; each does `work` on the texts that it is given, and answers with metrics.

    modules: imported before all but the first process is forked; that one ends after one text.
    """

    most: int
    work: Callable[[str], Mapping[str, Any]]
    modules: list[str] = field(default_factory=list)
    _all: list[_Worker] = field(default_factory=list)

    @property
    def busy(self) -> set[str]:
        """Keys of the nodes that are being made."""
        return {worker.key for worker in self._all} - {""}

    @property
    def free(self) -> bool:
        """Whether one more node can be begun."""
        return len(self.busy) < self.most

    def begin(self, key: str, text: str) -> None:
        """Let a worker that is free, or a new one, do the work."""
        worker = next((one for one in self._all if not one.key), None)
        if worker is None:
            worker = self._fork()
            self._all.append(worker)
        worker.key = key
        worker.to.sendall(text.encode() + b"\n")

    def finish(self) -> tuple[str, Mapping[str, Any]]:
        """Wait for one of the nodes that were begun: its key and metrics. What went wrong with it alone is `Failed`."""
        self._import()
        busy = {worker.to: worker for worker in self._all if worker.key}
        while not (ready := select.select(list(busy), [], [], _WAIT_SECONDS)[0]):
            interrupt.stop_if_asked()
        worker = busy[ready[0]]
        with worker.to.makefile(encoding="utf-8") as lines:
            text = lines.readline()
        if not text.endswith("\n"):
            self._all.remove(worker)
            died = ArtifactError(
                f"{worker.key}: expected its process to say what it made, found that it ended with "
                f"{_status(worker)}; what was finished is kept: run the same command again, with "
                f"runtime.parallel_nodes=1 if memory is short."
            )
            raise Failed(worker.key, died)
        key, worker.key = worker.key, ""
        said = json.loads(text)
        if said["last"]:
            self._all.remove(worker)
            _status(worker)
        if "metrics" in said:
            return key, said["metrics"]
        if "error" in said:
            raise Failed(key, ArtifactError(said["error"]), said["all"])
        if "defect" in said:
            raise Failed(key, RuntimeError(f"{key}:\n{said['defect']}"), said["all"])
        if "interrupted" in said:
            raise KeyboardInterrupt
        raise interrupt.stop()

    def end(self) -> None:
        """Ask what still runs to save and to end, and wait for it."""
        for worker in self._all:
            worker.to.shutdown(socket.SHUT_WR)
        while self._all:
            for worker in self._all:
                if worker.key:  # again each time: Python forgets a signal that comes right after a fork
                    os.kill(worker.process, signal.SIGTERM)
            for ended in select.select([worker.to for worker in self._all], [], [], _WAIT_SECONDS)[0]:
                worker = next(one for one in self._all if one.to is ended)
                self._all.remove(worker)
                _status(worker)
        gc.unfreeze()

    def _import(self) -> None:
        while self.modules:
            interrupt.stop_if_asked()
            name = self.modules.pop(0)
            with suppress(ImportError):  # the stage that needs it says what is missing
                importlib.import_module(name)

    def _fork(self) -> _Worker:
        import torch  # noqa: F401

        if self._all:
            self._import()
        without = bool(self.modules)
        gc.freeze()  # or the first collection in a worker would copy every page of what is shared
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        process = os.fork()
        if process:
            theirs.close()
            return _Worker(process, ours)
        try:
            for other in [ours, *(worker.to for worker in self._all)]:
                other.close()
            _end_with(parent)
            progress.in_lines()
            before = _anonymous_bytes()
            with theirs.makefile("rw", encoding="utf-8") as lines:
                while text := lines.readline():
                    said = _outcome(self.work, text)
                    # a fork is made sooner than modules are imported, or memory is tidied up
                    said["last"] = without or _anonymous_bytes() - before > MOST_BYTES
                    print(json.dumps(said), file=lines, flush=True)
                    if said["last"]:
                        break
        except KeyboardInterrupt:  # as the parent is
            pass
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # nothing of the parent's is this process's to tidy up


def _anonymous_bytes() -> int:
    """Memory of this process that is no file: what it shared when it was forked, and what it has allocated since."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def _end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent dies, whose locks are then gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _outcome(work: Callable[[str], Mapping[str, Any]], text: str) -> dict[str, Any]:
    try:
        return {"metrics": dict(work(text))}
    except interrupt.Stopped:
        return {"stopped": True}
    except KeyboardInterrupt:
        return {"interrupted": True}
    except Exception as error:
        told = None if os.environ.get("ALIGNET_TRACEBACK") else explain(error)
        said = {"error": told} if told is not None else {"defect": traceback.format_exc()}
        return said | {"all": meets_all(error)}


def _status(worker: _Worker) -> str:
    """Wait for a worker's end; what it ended with."""
    with worker.to:
        while worker.to.recv(1 << 16):
            pass
    status = os.waitstatus_to_exitcode(os.waitpid(worker.process, 0)[1])
    return f"{signal.Signals(-status).name} (out of memory?)" if status < 0 else f"status {status}"
