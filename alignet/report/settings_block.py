"""The table of settings as a block of the page: a line for each metric on each data set, a column for each setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alignet.report.blocks import Cell, Table
from alignet.report.dataset_results import title_of
from alignet.report.settings_table import STUDENT, Row, measures

NAME = "all"
FIRST = (STUDENT, "teacher")  # models whose columns come first


def settings_block(rows: Sequence[Row], title: str, name: str = NAME) -> Table:
    """The numbers of settings_table.py, turned: settings are few and metrics many, so settings are the columns."""
    found, footnotes, intervals = measures(rows)
    order = sorted(range(len(rows)), key=lambda index: _place(rows[index].model))
    lines, last = [], ""
    for one in found:
        cells: list[Cell | str] = [
            Cell("" if one.title == last else one.title, one.title),
            one.dataset + one.mark,
        ]
        last = one.title
        for index in order:
            score, (value, spread) = one.scores[index], one.texts[index]
            if score is None:
                cells.append("")
                continue
            text = f"{value} {spread}".strip()
            cells.append(Cell(text, score.value, score.low, score.high, best=index in one.best))
        lines.append([*cells, *(one.closed, one.ceiling, one.chance, one.n)])
    header = ["measure", "data set", *(title_of(rows[index].setting) for index in order),
              "closed, %", "ceiling", "chance", "n"]  # fmt: skip
    groups = [("", 2), *_runs(rows[index].model for index in order), ("", 4)]
    said = (
        f"Bold: best student setting, unless its interval reaches chance. {intervals} "
        "Closed: what AligNet covers of the distance from the original to "
        "the noise ceiling. The files hold shares, not percent, and every digit."
    )
    notes = [f"({mark}) {text}" for mark, text in footnotes]
    return Table(name, title, header, lines, said, groups, notes)


def _place(model: str) -> int:
    return FIRST.index(model) if model in FIRST else len(FIRST)


def _runs(names: Iterable[str]) -> list[tuple[str, int]]:
    """Neighbours of equal name as (name, how many)."""
    found: list[tuple[str, int]] = []
    for name in names:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + 1)
        else:
            found.append((name, 1))
    return found
