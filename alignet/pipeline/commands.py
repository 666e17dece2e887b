"""What the command lines do with a pipeline: make one node, make everything, say what there is.

cli.main -> a configuration -> one of these -> pipeline
"""

from __future__ import annotations

import difflib
import shlex
import time
from typing import TYPE_CHECKING

from alignet.config import Config
from alignet.pipeline.ablation import job_name
from alignet.pipeline.explain import shortened
from alignet.pipeline.graph import upstream
from alignet.pipeline.messages import command, given_options
from alignet.pipeline.runner import Failures, Pipeline
from alignet.runtime.artifacts import ArtifactError

if TYPE_CHECKING:
    pass


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
    print(config.said, flush=True)
    began = time.monotonic()
    if config.force:
        raise ValueError("force=true rebuilds one node: give it to that node's stage, with its role")
    wanted = list(pipeline.graph)
    if config.role is not None:
        if config.role not in pipeline.graph:
            near = difflib.get_close_matches(config.role, pipeline.graph, n=4, cutoff=0.3)
            raise ValueError(
                f"role: expected a node as `status` lists it, found {config.role!r}; near: {', '.join(near)}"
            )
        wanted = [*upstream(pipeline.graph, config.role), config.role]
    blocked = {pipeline.state(key).why for key in wanted if pipeline.state(key).state == "blocked"}
    if blocked:
        raise ArtifactError("\n".join(sorted(blocked)[:6]))
    failures = Failures()
    ran = pipeline.make_all(wanted[-1:] if config.role else wanted, failures=failures)
    if failures.why:
        raise ArtifactError(without_those(failures, pipeline))
    if config.role is not None:
        if not ran:
            made = pipeline.state(config.role).artifact
            assert made is not None
            print(f"cached: {config.role} -> {made.folder}")
        return
    report = pipeline.state("report").artifact
    assert report is not None
    report.verify()
    print()
    print(report.file("table.txt").read_text(encoding="utf-8"))
    cached = len(pipeline.graph) - len(ran)
    print(f"{len(ran)} nodes made, {cached} cached, {time.monotonic() - began:.0f} s.")
    print(f"the page: {report.file('report.html')}; its tables and figures as files beside it")
    if "export[alignet]" in pipeline.graph:
        exported = pipeline.state("export[alignet]").artifact
        assert exported is not None
        print(f'the aligned student: {exported.folder}; its README.md says how {config.student.library} loads it, or: '
              f'alignet.load("{exported.folder}")')  # fmt: skip
    print(f"next: python -m alignet.stages.status{given_options()}")


def without_those(failures: Failures, pipeline: Pipeline, one: bool = True) -> str:
    """What failed and why, what was not tried for want of it, and how to go on. one: with the command for one node."""
    if len(failures.why) == 1 and not failures.without:
        return next(iter(failures.why.values()))
    done = sum(pipeline.state(key).state == "cached" for key in pipeline.graph)
    lines = [
        f"{len(failures.why)} of {len(pipeline.graph)} nodes failed, {len(failures.without)} that need them were not "
        f"tried, {done} are there:"
    ]
    lines += [f"  {key}: {shortened(why)}" for key, why in failures.why.items()]
    lines.append("Mend that and run the same command again: it goes on.")
    if one:
        role = shlex.quote(next(iter(failures.why)))
        lines[-1] += (
            f" One node with all that it needs: python -m alignet.stages.pipeline{given_options()} role={role}"
        )
    return "\n".join(lines)


def print_status(*configs: Config) -> None:
    """A table of every node: state, size, and the command that makes it, or what blocks it.

    configs: one, or the jobs of an ablation. What jobs share stands once; what is of one job alone with its values.
    """
    options = given_options()
    if options:
        print(f'the options, which a shell then puts in the place of "$@" below: set --{options}')
    pipelines = [Pipeline(config) for config in configs]
    pipeline, rows, reasons = pipelines[0], [], []
    for (key, _), users in _distinct(pipelines).items():
        one = users[0]
        state, node = one.state(key), one.graph[key]
        size = f"{state.artifact.size / 1e6:,.1f} MB" if state.artifact else ""
        act = (
            str(state.artifact.folder)
            if state.artifact and state.state == "cached"
            else command(node, ' "$@"' if options else "")
        )
        if state.state == "blocked":
            if state.why not in reasons:
                reasons.append(state.why)
            act = f"by ({reasons.index(state.why) + 1})"
        rows.append(
            (
                key + ("" if len(users) == len(pipelines) else f" {{{job_name(one.config)}}}"),
                state.state,
                size,
                act,
            )
        )
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


def _distinct(pipelines: list[Pipeline]) -> dict[tuple[str, str], list[Pipeline]]:
    """Nodes of several configurations by key and identity (of blocked ones, why): which pipelines have each."""
    found: dict[tuple[str, str], list[Pipeline]] = {}
    for pipeline in pipelines:
        for key in pipeline.graph:
            state = pipeline.state(key)
            what = state.why if state.state == "blocked" else pipeline.identity(key).fingerprint
            found.setdefault((key, what), []).append(pipeline)
    return found
