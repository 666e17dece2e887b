"""Rehearse a configuration: the same graph on little data in a folder of its own, before days are spent on it.

reads   nothing of yours where rehearse.data=drawn; your files where rehearse.data=slice, of each a thin slice
writes  rehearse.folder: `data` and `artifacts`; every page, table and card in it begins with REHEARSAL
prints  what it puts in the place of your values (conf/rehearse.yaml); each node that passed, failed or was not tried
status  1 if a node failed
cost    minutes. Killed at any moment, the same command makes only what is missing
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignet.pipeline import cli
from alignet.stages import pipeline

if TYPE_CHECKING:
    from alignet.config import Config
    from alignet.pipeline.runner import Pipeline
    from alignet.runtime.artifacts import Artifact


TIDY = 10  # nodes after which freed memory is given back


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Options of `paths` may be left out where everything is drawn."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    extra = _stand_ins(arguments)
    cli.main(
        "rehearse", __doc__ or "", rehearse, [*arguments, *extra], finish=pipeline.finish, typed=arguments
    )


def _stand_ins(arguments: Sequence[str]) -> list[str]:
    """Overrides that stand where options of `paths` are left out, if everything is drawn."""
    values = cli.first_job(arguments)
    if values is None or values["rehearse"]["data"] != "drawn":
        return []
    return [f"paths.{name}=left_out/{name}" for name, value in values["paths"].items() if value is None]


def rehearse(config: Config) -> None:
    """Rehearse one configuration; ArtifactError lists what failed."""
    from alignet.pipeline.commands import without_those
    from alignet.pipeline.graph import build_graph
    from alignet.pipeline.runner import Failures
    from alignet.rehearse.cut_down import MARK, cut_down
    from alignet.runtime.artifacts import ArtifactError

    began = time.monotonic()
    folder = Path(config.rehearse.folder)
    small = cut_down(config, folder)
    print(
        f"{MARK} of {config.experiment_name}: {len(build_graph(config))} nodes; {config.banner}", flush=True
    )
    print(
        f"in the place of your values stand, for the rehearsal alone ({len(small.replaced)}, conf/rehearse.yaml):"
    )
    for line in small.replaced:
        print(f"  {line}")
    print(f"its data: {folder / 'data'}, {config.rehearse.data}", flush=True)
    ready, left = _with_data(small.config, folder / "data")
    chain = _small_pipeline(ready)
    failures = Failures(without=[key for key in chain.graph if chain.graph[key].outside in left])
    ran = chain.make_all(list(chain.graph), failures=failures)
    lost = [key for key in build_graph(config) if key not in chain.graph]
    print(f"\n{MARK}: what came of it")
    for key in chain.graph:
        if key in failures.why:
            print(f"  failed     {key}: {failures.why[key].splitlines()[-1]}")
        elif key in failures.without:
            print(f"  not tried  {key}: it needs what failed, or what has no data")
    for key in lost:
        print(f"  not tried  {key}: its data is not there")
    for name, why in left.items():
        print(f"  no data    {name}: {why}")
    every, untried = len(chain.graph) + len(lost), len(failures.without) + len(lost)
    passed = every - untried - len(failures.why)
    print(
        f"{passed} of {every} nodes passed ({len(ran)} made now), {len(failures.why)} failed, {untried} not tried; "
        f"{time.monotonic() - began:.0f} s"
    )
    report = chain.state("report").artifact if "report" in chain.graph else None
    if report is not None and not failures.why:
        print(f"the page: {report.file('report.html')}")
    if failures.why:
        raise ArtifactError(without_those(failures, chain, one=False))
    if config.ablation is not None:
        pipeline.JOBS.append(ready)  # whose page follows when all jobs are made
    print(f"next: python -m alignet.stages.doctor{_given()}")


def _small_pipeline(config: Config) -> Pipeline:
    """A pipeline whose nodes leave no memory behind: hundreds of small ones follow each other in one process."""
    from alignet.pipeline.runner import Pipeline
    from alignet.runtime.memory import give_back

    class Small(Pipeline):
        made = 0

        def make(self, key: str, force: bool = False) -> Artifact:
            made = super().make(key, force)
            self.made += 1
            if self.made % TIDY == 0:
                give_back()
            return made

    return Small(config)


def _given() -> str:
    from alignet.pipeline.messages import given_options

    return given_options()


def _with_data(config: Config, folder: Path) -> tuple[Config, dict[str, str]]:
    """The configuration over the rehearsal's data, without evaluations that have none; why some have none."""
    from alignet.rehearse.miniatures import miniatures
    from alignet.rehearse.slices import slices

    drawn = (miniatures if config.rehearse.data == "drawn" else slices)(config, folder)
    sets = {
        name: replace(one, path=drawn.paths.get(name, one.path)) for name, one in config.data.sets.items()
    }
    for name, ids in drawn.ids.items():
        sets[name] = replace(sets[name], ids=ids)  # type: ignore[arg-type]
    left = drawn.left
    evaluate = config.evaluate
    kept = {
        name: one
        for name, one in evaluate.datasets.items()
        if not {*one.images.values(), *one.data.values()} & set(left)
    }
    ready = replace(
        config,
        data=replace(config.data, sets=sets),
        evaluate=replace(evaluate, datasets=kept),
        export=replace(config.export, scores=tuple(name for name in config.export.scores if name in kept)),
        report=replace(
            config.report, headline=config.report.headline if config.report.headline in kept else None
        ),
    )
    return ready, left


if __name__ == "__main__":
    main()
