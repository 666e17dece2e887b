"""An ablation: its jobs one by one, and the page that puts them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alignet.config import Config
from alignet.pipeline.pool import pool_images
from alignet.pipeline.runner import Pipeline
from alignet.runtime.artifacts import ArtifactError

if TYPE_CHECKING:
    from alignet.report.blocks import Section


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
    ablation = pipeline.config.ablation
    asked = [] if ablation is None else ablation.over.get("data.pool_images", ())
    most = max((count for count in asked if count is not None), default=0)
    if not most:
        return
    there = pool_images(pipeline)
    if there is not None and most > there:
        raise ValueError(
            f"data.pool_images: expected at most {there:,}, all images of the pool, found {most:,} among the "
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
    print(f"\n{configs[0].said}\n")
    for block in made:
        if isinstance(block, Table):
            print(table_markdown(block))
        elif isinstance(block, Figure):
            print(f"{block.caption}\n")
    said = sentence(ablation.figure, measures, points, beside)
    source = _ablation_source(pipelines)
    print(f"page: {write_page(folder, page(ablation.title, configs[0].said, said, made, source))}")
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
