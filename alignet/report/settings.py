"""The table of settings as a block of the page: a line for each metric on each data set, a column for each setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alignet.report.blocks import Cell, Table
from alignet.report.gathered import TITLES
from alignet.table import Row, measures

NAME = "settings"


def settings_block(rows: Sequence[Row], title: str, name: str = NAME) -> Table:
    """alignet.table's figures, turned: settings are few and metrics many, so settings are the columns."""
    found, footnotes, intervals = measures(rows)
    lines = []
    for one in found:
        cells: list[Cell | str] = [one.title, one.dataset + one.mark]
        for index, (score, (value, spread)) in enumerate(zip(one.scores, one.texts)):
            if score is None:
                cells.append("")
                continue
            cells.append(
                Cell(f"{value} {spread}".strip(), score.value, score.low, score.high, best=index in one.best)
            )
        lines.append([*cells, *(one.closed, one.ceiling, one.chance, one.n)])
    header = ["measure", "data set", *(TITLES.get(row.setting, row.setting) for row in rows),
              "of the way, %", "ceiling", "chance", "n"]  # fmt: skip
    groups = [("", 2), *_runs(row.model for row in rows), ("", 4)]
    said = (
        f"Bold: best student setting. {intervals} Of the way: what AligNet covers of the distance from the original to "
        "the noise ceiling. The files hold shares, not percent, and every digit."
    )
    notes = [f"({mark}) {text}" for mark, text in footnotes]
    return Table(name, title, header, lines, said, groups, notes)


def _runs(names: Iterable[str]) -> list[tuple[str, int]]:
    """Neighbours of equal name as (name, how many)."""
    found: list[tuple[str, int]] = []
    for name in names:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + 1)
        else:
            found.append((name, 1))
    return found
