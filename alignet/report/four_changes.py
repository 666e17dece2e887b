"""What training did to each measure: a row against where it began, and whether a difference is shown.

Board, pairs of rows -> Change of each pair and measure. On the same images by a sign-flip test where their values are
in the files, else by whether two 95% intervals have a value in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignet.report.blocks import Cell, Table
from alignet.report.dataset_results import Row
from alignet.report.formatting import apart, counted
from alignet.report.four_measures import SYSTEMS, Board, Column
from alignet.report.network_tables import from_original, least_p, tested

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


def pairs_of(rows: Sequence[Row], fresh: Sequence[str] = ()) -> list[tuple[Row, Row]]:
    """Each row after its model's original, where there is one, that began with its weights.

    fresh: roles that began with new weights, of which no row is less another.
    """
    return [pair for pair in from_original(rows) if not is_fresh(pair[1], fresh)]


def is_fresh(row: Row, fresh: Sequence[str]) -> bool:
    """Whether a row, or the training that it is a snapshot of, began with new weights."""
    return row.setting.partition("@")[0] in fresh


def changes(found: Board, pairs: Sequence[tuple[Row, Row]]) -> list[Change]:
    """The change of each measure that both rows of a pair have; sign-flip ps are adjusted by Holm's method."""
    columns = {one.measure.key: one for one in found.columns}
    both = {
        (start, end, key): one for start, end in pairs for key, one in columns.items()
        if start in one.scores and end in one.scores
    }  # fmt: skip
    paired = {
        (one.start, one.end, one.measure): one
        for one in tested(pairs, {key: one.values for key, one in columns.items()})
    }
    made = []
    for place, column in both.items():
        start, end, _ = place
        said: tuple[float, bool | None, float | None, int]
        if place in paired:
            test = paired[place]
            said = test.change, test.adjusted < LEVEL, test.adjusted, test.n
        else:
            first, second = column.scores[start], column.scores[end]
            said = second.value - first.value, apart(first, second), None, min(first.n, second.n)
        made.append(Change(start, end, found.label(end), column, *said))
    return made


def changes_table(found: Board, made: Sequence[Change], fresh: Sequence[str] = ()) -> Table | None:
    """A line for each pair, a column for each measure; None without pairs. fresh: as of pairs_of."""
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
    new = "; ".join(found.label(row) for row in found.rows if is_fresh(row, fresh))
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
        groups_of(columns), notes=[f"began with new weights, so that no row is where it began: {new}"] if new else (),
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
