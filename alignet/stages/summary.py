"""The table over several seeds: mean and range of every figure, from the reports of `pipeline -m seed=...`.

reads   the report of each seed in `seeds`, which must exist
writes  nothing; prints the table
cost    seconds
"""

from __future__ import annotations

from alignet.config import Config
from alignet.pipeline.cli import main


def act(config: Config) -> None:
    """Print mean, least and largest over the seeds for every setting and metric."""
    import json
    import sys

    from alignet.pipeline.cli import load
    from alignet.pipeline.messages import given_options
    from alignet.pipeline.runner import Pipeline
    from alignet.report.seeds_table import seeds_table
    from alignet.runtime.artifacts import ArtifactError

    given = [item for item in sys.argv[1:] if not item.startswith(("seed=", "seeds="))]
    reports = []
    for seed in config.seeds:
        state = Pipeline(load([*given, f"seed={seed}"])).state("report")
        if state.artifact is None or state.state != "cached":
            raise ArtifactError(
                f"the report of seed {seed} is {state.state}; make it with: "
                f"python -m alignet.stages.pipeline{given_options()} seed={seed}"
            )
        state.artifact.verify()
        reports.append(json.loads(state.artifact.file("table.json").read_text(encoding="utf-8")))
    print(seeds_table(reports, list(config.seeds)))


if __name__ == "__main__":
    main("summary", __doc__ or "", act)
