"""The page of a run: conf's section `report`, read by the stage `report`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ReportSettings:
    """The page, its table and its picture.

    table: the evaluations in the table that is printed; empty: all, as on the page. headline: the data set of the
    summary; null: the first that asks for odd ones out, else for agreement. published: which of this run's data sets
    are read against the paper's (report.published.KEYS), or the mean of several. redistribute: false or a sentence:
    pictures on the page may not be handed on. licences: what data -> its licence.
    """

    title: str
    table: tuple[str, ...]
    headline: str | None
    published: Mapping[str, str | tuple[str, ...]]
    redistribute: bool | str
    licences: Mapping[str, str]
    picture_images: str | None  # null: no picture
    picture_labels: str | None  # a table with a row for each of those images; null: by cluster of the teacher
    id_column: str
    id_prefix: str
    concept_column: str
    category_column: str
