"""The scores of an ablation's jobs, as its figure takes them. Reads evaluate nodes that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignet.config import Measure
    from alignet.evaluate.bootstrap import Score
    from alignet.pipeline.runner import Pipeline
    from alignet.report.ablation import Point

Prints = dict[str, list[str]]


def ablation_points(pipelines: list[Pipeline]) -> tuple[list[Point], list[Point], Prints]:
    """Points of the jobs, points beside them, and the fingerprints that they come from.

    Jobs of one point (its seeds) are put together. ValueError where a row beside the jobs is not the same for all.
    """
    from alignet.report.ablation import Point

    ablation = pipelines[0].config.ablation
    assert ablation is not None
    jobs: dict[str, list[Pipeline]] = {}
    for pipeline in pipelines:
        assert pipeline.config.ablation is not None
        jobs.setdefault(repr(dict(pipeline.config.ablation.point)), []).append(pipeline)
    points = []
    for point, seeds in jobs.items():
        if len({one.config.seed for one in seeds}) < len(seeds):
            raise ValueError(
                f"ablation: expected one job of each seed, found {len(seeds)} for {point}; only seeds and "
                f"names of ablations may be varied by -m, anything else by ablation.over or by a command of its own"
            )
        own = seeds[0].config.ablation
        assert own is not None
        points += [Point(own.point, row, _scores(seeds, row)) for row in ablation.rows]
    beside = []
    for row in ablation.beside:
        found = [_scores(seeds, row) for seeds in jobs.values()]
        if any(one != found[0] for one in found):
            raise ValueError(
                f"ablation.beside: expected rows that no job changes, found {row!r} changed; put it into ablation.rows"
            )
        beside.append(Point({}, row, found[0]))
    prints = {
        f"{number} {key}": [pipeline.identity(key).fingerprint]
        for number, pipeline in enumerate(pipelines)
        for key in pipeline.graph
        if pipeline.graph[key].stage == "evaluate"
    }
    return points, beside, prints


def _scores(seeds: list[Pipeline], row: str) -> dict[str, list[list[Score]]]:
    """By measure, for each seed the scores of its data sets."""
    ablation = seeds[0].config.ablation
    assert ablation is not None
    return {
        measure.title: [[_score(one, row, name, measure) for name in measure.datasets] for one in seeds]
        for measure in ablation.measures
    }


def _score(pipeline: Pipeline, row: str, dataset: str, measure: Measure) -> Score:
    from alignet.evaluate.result import read_result
    from alignet.runtime.artifacts import ArtifactError

    key = f"evaluate[{row}.{dataset}]"
    state = pipeline.state(key)
    if state.artifact is None or state.state != "cached":
        raise ArtifactError(f"{key} is {state.state}; run the ablation's pipeline again")
    state.artifact.verify()
    scores = {(score.metric, score.dataset): score for score in read_result(state.artifact.folder).scores}
    wanted = measure.metric, f"{dataset} {measure.part}".strip()
    if wanted not in scores:
        known = ", ".join(" of ".join(name) for name in scores)
        raise ValueError(
            f"ablation.measures: expected a score of {key} out of {known}, found {' of '.join(wanted)}"
        )
    return scores[wanted]
