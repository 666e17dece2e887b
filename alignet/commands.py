"""What the command lines do with a pipeline: make one node, make everything, say what there is, tidy up.

cli.main -> a configuration -> one of these -> pipeline
"""

from __future__ import annotations

import difflib
import shlex
import sys
import time
from pathlib import Path

from alignet.artifacts import ArtifactError, Store
from alignet.config import Config
from alignet.pipeline import Pipeline, command, given_options, outside_ids, outside_path


def run_stage(config: Config, stage: str) -> None:
    """Make one stage in the role that `role` names, or its default role; say what to run next."""
    pipeline = Pipeline(config)
    roles = {node.role: key for key, node in pipeline.graph.items() if node.stage == stage}
    role = config.role if config.role is not None else next(iter(roles), "")
    if config.role is None and "alignet" in roles:
        role = "alignet"
    if role not in roles:
        shown = ", ".join(sorted(roles)) or "none in this experiment"
        raise ValueError(f"role: expected one of {shown} for the stage {stage}, found {role!r}")
    key = roles[role]
    state = pipeline.state(key)
    if state.state == "blocked":
        raise ArtifactError(state.why)
    if state.state == "cached" and not config.force:
        assert state.artifact is not None
        print(f"cached: {key} -> {state.artifact.folder}")
    else:
        pipeline.make(key, force=config.force)
    then = [name for name, node in pipeline.graph.items() if key in node.inputs.values()]
    if then:
        print(f"next: {command(pipeline.graph[then[0]])}")


def run_pipeline(config: Config) -> None:
    """Make everything that is missing and print the report's table; with role=<node>, only what it needs."""
    pipeline = Pipeline(config)
    print(config.banner, flush=True)
    began = time.monotonic()
    if config.force:
        raise ValueError("force=true rebuilds one node: give it to that node's stage, with its role")
    blocked = {pipeline.state(key).why for key in pipeline.graph if pipeline.state(key).state == "blocked"}
    if blocked:
        raise ArtifactError("\n".join(sorted(blocked)[:6]))
    if config.role is not None:
        if config.role not in pipeline.graph:
            near = difflib.get_close_matches(config.role, pipeline.graph, n=4, cutoff=0.3)
            raise ValueError(
                f"role: expected a node as `status` lists it, found {config.role!r}; near: {', '.join(near)}"
            )
        if not pipeline.make_all([config.role]):
            made = pipeline.state(config.role).artifact
            assert made is not None
            print(f"cached: {config.role} -> {made.folder}")
        return
    ran = pipeline.make_all(list(pipeline.graph))
    report = pipeline.state("report").artifact
    assert report is not None
    report.verify()
    print()
    print(report.file("table.txt").read_text(encoding="utf-8"))
    cached = len(pipeline.graph) - len(ran)
    print(f"{len(ran)} nodes made, {cached} cached, {time.monotonic() - began:.0f} s.")
    print(f"table and pictures: {report.folder}")
    if "export[alignet]" in pipeline.graph:
        exported = pipeline.state("export[alignet]").artifact
        assert exported is not None
        print(f'the aligned student: {exported.folder}; its README.md says how {config.student.library} loads it, or: '
              f'alignet.load("{exported.folder}")')  # fmt: skip
    print(f"next: python -m alignet.stages.status{given_options()}")


def print_status(config: Config) -> None:
    """A table of every node: state, size, and the command that makes it, or what blocks it."""
    pipeline = Pipeline(config)
    rows, reasons = [], []
    for key, node in pipeline.graph.items():
        state = pipeline.state(key)
        size = f"{state.artifact.size / 1e6:,.1f} MB" if state.artifact else ""
        act = str(state.artifact.folder) if state.artifact and state.state == "cached" else command(node)
        if state.state == "blocked":
            if state.why not in reasons:
                reasons.append(state.why)
            act = f"by ({reasons.index(state.why) + 1})"
        rows.append((key, state.state, size, act))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for key, state_name, size, act in rows:
        print(f"{key:{widths[0]}}  {state_name:{widths[1]}}  {size:>{widths[2]}}  {act}".rstrip())
    counts = {
        name: sum(row[1] == name for row in rows)
        for name in ("cached", "stale", "partial", "missing", "blocked")
    }
    print(
        ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        + f"; in {pipeline.store.root}"
    )
    for number, reason in enumerate(reasons, start=1):
        print(f"({number}) {reason}")
    if reasons:
        print(
            f"next: put these in place, and check them with: python -m alignet.stages.doctor{given_options()}"
        )
    elif counts["cached"] < len(rows):
        print(f"next: python -m alignet.stages.pipeline{given_options()}")


def print_leftovers(configs: list[Config], delete: bool) -> None:
    """What lies in the store and is no node of these configurations; deleted if told so."""
    from alignet.graph import VERSIONS
    from alignet.housekeeping import leftovers, remove

    roots = {str(Path(config.paths.artifacts).absolute()) for config in configs}
    if len(roots) > 1:
        raise ValueError(f"paths.artifacts: expected one store to prune, found {', '.join(sorted(roots))}")
    store, needed = Store(Path(configs[0].paths.artifacts)), set()
    for config in configs:
        pipeline = Pipeline(config)
        for key in pipeline.graph:
            state = pipeline.state(key)
            if state.state == "blocked":
                raise ArtifactError(
                    f"{key} cannot be named, so what it needs cannot be told from what nothing needs: {state.why}"
                )
            needed.add(store.folder(pipeline.identity(key)))
            outside = pipeline.graph[key].outside
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
