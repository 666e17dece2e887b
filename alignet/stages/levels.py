"""The trials of people who told the odd one out and how long they took: who and what counts, counted by triplet.

reads   index[<set>], a set of kind trials: .csv or .parquet, a row for each trial
writes  trials.parquet: a row for each answer that counts; triplets.parquet: one for each different triplet, with its
        answers, their entropy (nats), the majority's odd one and the mean log response time
roles   one for each set of trials
cost    seconds
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Apply the recipe of data.levels; the metrics say who and what was left out."""
    from alignet.data.levels import tidy, write_tidy
    from alignet.data.trials import read_trials

    path = work.sources["trials"]
    found = tidy(read_trials(path), **work.section, name=str(path))
    write_tidy(work.folder, found)
    return dict(found.summary)


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("levels", __doc__ or "")
