"""What is measured, and what of it an ablation varies: conf's sections `evaluate` and `ablation`.

Read by the stage `evaluate`; `report` shows both, and an ablation's jobs are runs of the stage `pipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class DatasetSettings:
    """One evaluation: a family of metrics over named features and data, for the settings it makes sense for."""

    family: str
    images: Mapping[str, str]  # name in the family -> image set, embedded by the evaluated model
    data: Mapping[str, str]  # name in the family -> data set
    nodes: Mapping[str, str]  # name in the family -> another node of the graph
    settings: tuple[str, ...]  # rows of the table
    options: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluateSection:
    """What is measured, on what, for which rows of the table."""

    bootstrap: int
    seed: int
    rows: tuple[str, ...]  # settings that files of conf/also measure in
    moved: tuple[str, ...]  # of these, whose distances are compared with the original student's
    about: str | None  # image set that files of conf/also look at
    datasets: Mapping[str, DatasetSettings]


@dataclass(frozen=True)
class Measure:
    """One axis of an ablation's figure: a metric; over several data sets, their mean."""

    title: str
    metric: str
    part: str  # where an evaluation has several scores of a metric, which: `1-shot`; '' otherwise
    datasets: tuple[str, ...]  # of evaluate.datasets

    def __post_init__(self) -> None:
        if not self.datasets:
            raise ValueError(f"ablation.measures: expected a data set for {self.title!r}, found none")


@dataclass(frozen=True)
class AblationSettings:
    """Which values are tried, and what is shown of each; every combination is a job, see cli.jobs_of."""

    name: str
    title: str
    figure: Literal["points", "cloud"]  # each point's measures | the first measure against the second
    over: Mapping[str, tuple[Any, ...]]  # key of the configuration -> its values
    seeds: tuple[int, ...]  # every job once with each; none: with the configuration's own
    rows: tuple[str, ...]  # rows of the table that a job is measured by
    beside: tuple[str, ...]  # rows that no job changes, for comparison
    measures: tuple[Measure, ...]
    values: Mapping[str, Any]  # what the experiments of one data set have in common, for interpolation
    point: Mapping[str, Any]  # of a job: its values; filled in by cli.jobs_of

    def __post_init__(self) -> None:
        least = 2 if self.figure == "cloud" else 1
        if not self.rows or len(self.measures) < least or not all(self.over.values()):
            raise ValueError(
                f"ablation: expected rows, {least} or more measures, and values for each key of over, found rows "
                f"{list(self.rows)}, {len(self.measures)} measures, over {dict(self.over)}"
            )
