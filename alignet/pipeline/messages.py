"""What is told of nodes: which command makes one, what it lacks, how an artifact differs, what was made."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from alignet.pipeline.graph import Node
from alignet.pipeline.states import States
from alignet.runtime.artifacts import Artifact, Identity

_job: list[str] | None = None  # the overrides of one job of a multirun


def tell_job(overrides: Sequence[str] | None) -> None:
    """Let commands that are told from now on be those of one job of a multirun; None: of the whole command line."""
    global _job
    _job = None if overrides is None else list(overrides)


def given_options() -> str:
    """The overrides of this job or command line, but for role and force, as a shell would take them."""
    typed = sys.argv[1:] if _job is None else _job
    kept = [item for item in typed if not item.startswith(("role=", "force=", "-"))]
    return "".join(" " + shlex.quote(item) for item in kept)


def command(node: Node, options: str | None = None) -> str:
    """The command that makes a node, with these options, by default those that this command line was given."""
    role = f" role={node.role}" if node.role else ""
    return f"python -m alignet.stages.{node.stage}{role}{given_options() if options is None else options}"


def what_is_missing(states: States, key: str, parent: str) -> str:
    """That a node needs an input which is not current, the nearest artifact there is, and the command to make it."""
    state, node = states.state(parent), states.graph[parent]
    lines = [f"{key} needs {parent}, which is {state.state}{': ' + state.why if state.why else ''}."]
    near = nearest(states.store.all(node.stage), states.identity(parent))
    if near is not None and state.artifact is None:
        artifact, found = near
        lines.append(f"The nearest there is, {artifact.folder}, differs in {'; '.join(found[:4])}.")
    lines.append(f"Make it with: {command(node)}")
    lines.append("or everything that is missing with: python -m alignet.stages.pipeline (and your options)")
    return "\n".join(lines)


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
