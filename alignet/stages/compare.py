"""One page over several finished runs: their students and settings side by side, and what differs.

reads   the reports and evaluations of every run, which must exist
writes  <paths.artifacts>/compare/<digest>/: report.html, tables/, figures/
cost    seconds

`compare student=vit_small_16,vit_base_16` takes every combination of comma-separated values, as a multirun does.
`compare seed=0 vs seed=0 finetune.settings.pull=1` takes two command lines; `vs` may stand several times. What stands
on one side of it does not hold for the other. What all of them need stands once, after the word `all`:
`compare seed=0 vs seed=1 all experiment=photos paths.photos=FOLDER`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignet.pipeline.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from alignet.config import Config
    from alignet.report.compare import Run

_APART = "options on one side of `vs` do not hold for the other; put what both need once after the word `all`"


def jobs_of(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each run of a command line. ValueError where they are fewer than two."""
    from alignet.pipeline.cli import product

    sides: list[list[str]] = [[]]
    shared: list[str] = []
    place = sides[0]
    for item in arguments:
        if item == "all":
            place = shared
        elif item == "vs":
            place = []
            sides.append(place)
        elif item not in ("-m", "--multirun"):
            place.append(item)
    jobs = [[_as_typed(item) for item in job] for side in sides for job in product([*shared, *side])]
    if len(jobs) < 2:
        raise ValueError(
            f"compare: expected two runs or more, found {len(jobs)}; part values by commas, as student=a,b, or whole "
            "command lines by the word vs, as `compare seed=0 vs seed=0 finetune.settings.pull=1`"
        )
    return jobs


def _as_typed(item: str) -> str:
    """A path without the quotes that the multirun put around it; what the user quoted stays."""
    from alignet.pipeline.cli import quoted

    key, _, value = item.partition("=")
    plain = f"{key}={value[1:-1]}"
    return plain if value[:1] == "'" and quoted(plain) == item else item


def compare(arguments: Sequence[str]) -> None:
    """Write the page of these runs, and say where it is and what the runs came to."""
    from alignet.pipeline.cli import load
    from alignet.report.compare import labels
    from alignet.runtime.artifacts import fingerprint

    jobs = jobs_of(arguments)
    configs = [load(job) for job in jobs]
    names = labels(jobs, [config.student.title for config in configs])
    runs, reports = [], {}
    for job, config, name in zip(jobs, configs, names, strict=True):
        run, report = _finished(job, config, name, apart="vs" in arguments)
        runs.append(run)
        reports[name] = report
    roots = {config.paths.artifacts for config in configs}
    if len(roots) > 1:
        raise ValueError(
            f"paths.artifacts: expected one store of all runs, found {', '.join(sorted(roots))}"
            + (f"; {_APART}" if "vs" in arguments else "")
        )
    page = _write(runs, configs[0].paths.artifacts, fingerprint(reports)[:12])
    for run in runs:
        print(f"{run.label}: {_told(run)}")
    print(f"page: {page}")


def _finished(job: Sequence[str], config: Config, label: str, *, apart: bool) -> tuple[Run, str]:
    """A run that has its report, and the report's fingerprint; ArtifactError with the command that makes it.

    apart: whether command lines were parted by `vs`, which the error then explains.
    """
    import json
    import shlex

    from alignet.evaluate.bootstrap import Score
    from alignet.pipeline.runner import Pipeline
    from alignet.report.compare import Run
    from alignet.report.settings_table import Row
    from alignet.runtime.artifacts import ArtifactError

    pipeline = Pipeline(config)
    state = pipeline.state("report")
    if state.artifact is None or state.state != "cached":
        options = "".join(f" {shlex.quote(item)}" for item in job)
        raise ArtifactError(
            f"the report of {label} in {config.paths.artifacts} is {state.state}"
            f"{': ' + state.why if state.why else ''}; its command line is `{' '.join(map(shlex.quote, job))}`"
            f"{f' ({_APART})' if apart else ''}; make it with: python -m alignet.stages.pipeline{options}"
        )
    state.artifact.verify()
    table = json.loads(state.artifact.file("table.json").read_text(encoding="utf-8"))
    rows = [
        Row(row["model"], row["setting"], [Score.from_json(score) for score in row["scores"]], row["note"])
        for row in table["rows"]
    ]
    found = [pipeline.state(key).artifact for key, node in pipeline.graph.items() if node.stage == "evaluate"]
    evaluated = [artifact for artifact in found if artifact is not None]
    for artifact in evaluated:
        artifact.verify()
    section = state.artifact.manifest["identity"]["section"]
    return Run(label, section, rows, evaluated), state.artifact.manifest["fingerprint"]


def _write(runs: Sequence[Run], root: str, name: str) -> Path:
    """The page in a folder of its own below the store, under a temporary name first."""
    import shutil
    from pathlib import Path

    from alignet.report.compare import compare_page
    from alignet.report.page import PAGE, write_page

    target = Path(root) / "compare" / name
    partial = target.with_name(f"{name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_page(partial, compare_page(runs))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target / PAGE


def _told(run: Run) -> str:
    from alignet.report.summary import summarise

    numbers = summarise(run.rows, run.section["headline"]).numbers
    return "; ".join(f"{one.label} {one.value}" for one in numbers) or "no student before and after alignment"


if __name__ == "__main__":
    words = sys.argv[1:]
    main(
        "compare",
        __doc__ or "",
        lambda _: compare(words),
        [item for item in words if item in ("-h", "--help")],
        typed=words,
    )
