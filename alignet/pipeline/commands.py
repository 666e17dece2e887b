"""What the command lines do with a pipeline: make one node, make everything, say what there is, tidy up.

cli.main -> a configuration -> one of these -> pipeline
"""

from __future__ import annotations

import difflib
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from alignet.config import Config
from alignet.pipeline.runner import Pipeline, command, given_options, outside_ids, outside_path
from alignet.runtime.artifacts import ArtifactError, Store

if TYPE_CHECKING:
    from alignet.report.blocks import Section


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
    print(f"the page: {report.file('report.html')}; its tables and figures as files beside it")
    if "export[alignet]" in pipeline.graph:
        exported = pipeline.state("export[alignet]").artifact
        assert exported is not None
        print(f'the aligned student: {exported.folder}; its README.md says how {config.student.library} loads it, or: '
              f'alignet.load("{exported.folder}")')  # fmt: skip
    print(f"next: python -m alignet.stages.status{given_options()}")


def print_status(*configs: Config) -> None:
    """A table of every node: state, size, and the command that makes it, or what blocks it.

    configs: one, or the jobs of an ablation. What jobs share stands once; what is of one job alone with its values.
    """
    pipelines = [Pipeline(config) for config in configs]
    pipeline, rows, reasons = pipelines[0], [], []
    for (key, _), users in _distinct(pipelines).items():
        one = users[0]
        state, node = one.state(key), one.graph[key]
        size = f"{state.artifact.size / 1e6:,.1f} MB" if state.artifact else ""
        act = str(state.artifact.folder) if state.artifact and state.state == "cached" else command(node)
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


def job_name(config: Config) -> str:
    """The values of a job of an ablation, in words."""
    assert config.ablation is not None
    seed = f"seed={config.seed}" if len(config.ablation.seeds) > 1 else ""
    return " ".join([*(f"{key}={value}" for key, value in config.ablation.point.items()), seed]).strip()


def run_ablation(config: Config) -> None:
    """Make what one job of an ablation measures, and what of its inputs is missing."""
    pipeline = Pipeline(config)
    if config.force or config.role is not None:
        raise ValueError(
            "force, role: expected neither with an ablation's pipeline; give them to that node's stage"
        )
    _check_pool(pipeline)
    print(f"[{job_name(config) or 'one job'}]", flush=True)
    blocked = {pipeline.state(key).why for key in pipeline.graph if pipeline.state(key).state == "blocked"}
    if blocked:
        raise ArtifactError("\n".join(sorted(blocked)[:6]))
    ran = pipeline.make_all(list(pipeline.graph))
    print(f"{len(ran)} nodes made, {len(pipeline.graph) - len(ran)} cached", flush=True)


def _check_pool(pipeline: Pipeline) -> None:
    """ValueError where some job of the ablation asks for more images than the pool has, before the first is made."""
    from alignet.doctor.sources import Sources

    ablation = pipeline.config.ablation
    asked = [] if ablation is None else ablation.over.get("data.pool_images", ())
    most = max((count for count in asked if count is not None), default=0)
    if not most:
        return
    there = Sources(pipeline.config, (), pipeline).images("pool")
    if there.how in ("counted", "drawn") and most > there.number:
        raise ValueError(
            f"data.pool_images: expected at most {there.number:,}, all images of the pool, found {most:,} among the "
            "ablation's values; nothing was made: leave it out (ablation.values.images)."
        )


def show_ablation(configs: list[Config]) -> Path:
    """Write the page of an ablation whose jobs are made, print what stands on it, and return its folder."""
    from alignet.pipeline.ablation_scores import ablation_points
    from alignet.report.ablation import blocks, page, sentence
    from alignet.report.ablation_against import against
    from alignet.report.blocks import Figure, Table
    from alignet.report.files import table_markdown
    from alignet.report.page import write_page
    from alignet.runtime.artifacts import fingerprint

    ablation = configs[0].ablation
    assert ablation is not None
    pipelines = [Pipeline(config) for config in configs]
    points, beside, prints = ablation_points(pipelines)
    measures = [one.title for one in ablation.measures]
    made = blocks(ablation.name, ablation.title, ablation.figure, measures, points, beside)
    scatter = against(ablation.name, ablation.title, measures, points, beside)
    made[1:1] = [] if scatter is None else [scatter]
    folder = Path(configs[0].paths.artifacts) / "ablation" / f"{ablation.name}-{fingerprint(prints)[:12]}"
    print(f"\n{configs[0].banner}\n")
    for block in made:
        if isinstance(block, Table):
            print(table_markdown(block))
        elif isinstance(block, Figure):
            print(f"{block.caption}\n")
    said = sentence(ablation.figure, measures, points, beside)
    source = _ablation_source(pipelines)
    print(f"page: {write_page(folder, page(ablation.title, configs[0].banner, said, made, source))}")
    return folder


def _ablation_source(pipelines: list[Pipeline]) -> Section:
    """Where the page of an ablation comes from: the evaluations of all jobs, and what these were built from."""
    from alignet.report.provenance import provenance

    found = {}
    for pipeline in pipelines:
        for key, node in pipeline.graph.items():
            artifact = pipeline.state(key).artifact
            if node.stage == "evaluate" and artifact is not None:
                found[artifact.manifest["fingerprint"]] = artifact
    configs = [pipeline.config for pipeline in pipelines]
    return provenance(
        found.values(),
        [
            {
                "seed": config.seed, "licences": config.report.licences,
                "models": {
                    name: {"name": model.name, "licence": model.licence}
                    for name, model in (("teacher", config.teacher), ("student", config.student))
                },
            }
            for config in configs
        ],
    )  # fmt: skip


def print_leftovers(configs: list[Config], delete: bool) -> None:
    """What lies in the store and is no node of these configurations; deleted if told so."""
    from alignet.pipeline.graph import VERSIONS
    from alignet.pipeline.housekeeping import leftovers, remove

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
