"""What training did to each measure: a row against where it began, and whether a difference is shown.

Board, pairs of rows -> Change of each pair and measure. On the same images by a sign-flip test where their values are
in the files, else by whether two 95% intervals have a value in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignet.report.attack import least_p
from alignet.report.blocks import Cell, Table
from alignet.report.dataset_results import Row
from alignet.report.formatting import apart, counted
from alignet.report.four_measures import SYSTEMS, Board, Column, Values

SEED = 0  # of random sign-flips
LEVEL = 0.05


@dataclass(frozen=True)
class Change:
    """A row's measure less that of the row it began from.

    name: of the row. shown: whether more than chance; None where neither values of images nor intervals tell. p:
    adjusted, of the sign-flip test; None where intervals decide.
    """

    start: Row
    end: Row
    name: str
    column: Column
    difference: float
    shown: bool | None
    p: float | None = None
    n: int = 0

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or "" where no difference is shown."""
        return "" if not self.shown else "better" if self.difference > 0 else "worse"

    @property
    def number(self) -> str:
        """The difference with its sign, in the measure's unit."""
        return f"{self.column.measure.scale * self.difference:+.{self.column.measure.digits}f}"


def pairs_of(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Each row after its model's original, where there is one."""
    return [
        (start, row) for row in rows if row.setting != "original" and (start := Row(row.model, "original")) in rows
    ]  # fmt: skip


def changes(found: Board, pairs: Sequence[tuple[Row, Row]]) -> list[Change]:
    """The change of each measure that both rows of a pair have; sign-flip ps are adjusted by Holm's method."""
    from alignet.evaluate.attack import holm, paired_test

    tested: list[tuple[Row, Row, Column, float, float, int]] = []
    made: dict[tuple[Row, Row, str], Change] = {}
    for start, end in pairs:
        for column in found.columns:
            if start not in column.scores or end not in column.scores:
                continue
            both = _both(column.values, start, end)
            if both is not None:
                tested.append((start, end, column, *paired_test(*both, seed=SEED)))
                continue
            first, second = column.scores[start], column.scores[end]
            made[start, end, column.measure.key] = Change(
                start,
                end,
                found.label(end),
                column,
                second.value - first.value,
                apart(first, second),
                None,
                min(first.n, second.n),
            )
    for (start, end, column, mean, _, n), p in zip(tested, holm([one[4] for one in tested]), strict=True):
        made[start, end, column.measure.key] = Change(
            start, end, found.label(end), column, mean, p < LEVEL, p, n
        )
    keys = [(start, end, column.measure.key) for start, end in pairs for column in found.columns]
    return [made[key] for key in keys if key in made]


def _both(values: Mapping[Row, Values], start: Row, end: Row) -> tuple[np.ndarray, np.ndarray] | None:
    """Values of two rows on the images that both have; None where there are none."""
    first, second = values.get(start, {}), values.get(end, {})
    names = [name for name in first if name in second]
    if not names:
        return None
    return np.array([first[name] for name in names]), np.array([second[name] for name in names])


def changes_table(found: Board, made: Sequence[Change]) -> Table | None:
    """A line for each pair, a column for each measure; None without pairs."""
    pairs = list(dict.fromkeys((one.start, one.end) for one in made))
    if not pairs:
        return None
    columns = [one for one in found.columns if any(change.column is one for change in made)]
    of = {(one.start, one.end, one.column.measure.key): one for one in made}
    rows: list[list[Cell | str]] = []
    for start, end in pairs:
        title = (
            found.label(end) if start.setting == "original" else f"{found.label(start)} to {found.label(end)}"
        )
        rows.append([title, *(_cell(of.get((start, end, one.measure.key))) for one in columns)])
    paired = [one for one in made if one.p is not None]
    counts = [sum(one.verdict == word for one in made) for word in ("better", "worse")]
    unsaid = sum(one.shown is None for one in made)
    return Table(
        "four_changes", "What training changes", ["", *(one.title for one in columns)], rows,
        "Each row less where it began (the original of its model, or the start of an arrow), in the measure's unit; "
        "points of percent where it is in %. `better` or `worse` where the difference is more than chance: "
        f"{counts[0]} and {counts[1]} of {counted(len(made), 'comparison')}; a number alone shows no difference. "
        f"{counted(len(paired), 'comparison')} on the same images: mean change, two-sided sign-flip test, p below .05 "
        "after Holm's adjustment for all of them. The others by whether two 95% intervals have a value in common, "
        "which finds fewer differences and is not adjusted."
        + (f" `?`: without intervals, {unsaid}." if unsaid else "")
        + least_p([one.n for one in paired], "fewer rows leave fewer tests"),
        groups_of(columns),
    )  # fmt: skip


def _cell(one: Change | None) -> Cell | str:
    if one is None:
        return ""
    said = "?" if one.shown is None else one.verdict
    return Cell(f"{one.number} {said}".strip(), one.difference)


def groups_of(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Titles of systems over the columns of a table whose first column is the rows' names."""
    groups: list[tuple[str, int]] = [("", 1)]
    for key, title in SYSTEMS.items():
        count = sum(one.measure.system == key for one in columns)
        groups += [(title, count)] if count else []
    return groups
