"""The four systems on one page: every row against every measure, what goes together, what training costs the others.

AligNet (odd-one-out choices), Neural Harmonizer (importance maps), adversarial alignment (perturbations) and
identically represented inputs each came with measures of their own. Gathered results of all families -> blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignet.report.blocks import Block, Cell, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.formatting import best_of, score_cell
from alignet.report.four_changes import Change, changes, changes_table, groups_of, pairs_of
from alignet.report.four_correlations import Pair, correlations, correlations_table, heat_map
from alignet.report.four_figures import parallel
from alignet.report.four_measures import Board, board, reasons
from alignet.report.four_sentences import sentences, systems_text

TITLE = "The four systems together"
HEADS = ("Training", "Together", "Against each other", "Cost", "Compromise")


@dataclass(frozen=True)
class Told:
    """What a board comes to: the change of each trained row, correlations with notes, and five sentences."""

    changes: Sequence[Change]
    pairs: Sequence[Pair]
    notes: Sequence[str]
    sentences: Sequence[str]


def four(every: Sequence[Gathered], headline: str | None = None, fresh: Sequence[str] = ()) -> list[Block]:
    """The blocks; none where fewer than two systems were measured.

    headline: the data set whose choices are shown. fresh: roles that began with new weights.
    """
    found = board(every, headline)
    return [] if found is None else blocks(found, told(found, pairs_of(found.rows, fresh)), {}, fresh)


def blocks(found: Board, said: Told, missing: Mapping[str, str], fresh: Sequence[str] = ()) -> list[Block]:
    """All blocks of a board. missing: see reasons. fresh: as of `four`."""
    rest = (
        parallel(found), changes_table(found, said.changes, fresh), heat_map(said.pairs, found),
        correlations_table(said.pairs, said.notes),
    )  # fmt: skip
    lines: list[Block] = [Text(line) for line in said.sentences]
    return [*lines, measures_table(found, missing), *(one for one in rest if one is not None)]


def told(found: Board, pairs: Sequence[tuple[Row, Row]]) -> Told:
    """What the board comes to, each sentence after its number and a word that says what it is about.

    pairs: from where each trained row began.
    """
    made, (correlated, notes) = changes(found, pairs), correlations(found)
    lines = [
        f"{number}. {head}. {text}"
        for number, (head, text) in enumerate(zip(HEADS, sentences(found, made, correlated), strict=True), 1)
    ]
    return Told(made, correlated, notes, lines)


def _smaller(found: Board) -> list[str]:
    """Rows whose score is over less than half as many as others', as tolerance is of a network that names few right."""
    said = []
    for column in found.columns:
        most = max((one.n for one in column.scores.values()), default=0)
        few = {row: one for row, one in column.scores.items() if 2 * one.n < most}
        if few:
            listed = ", ".join(f"{found.label(row)} {one.n:,}" for row, one in few.items())
            said.append(
                f"{column.name}: over fewer {next(iter(few.values())).unit} than others' {most:,}: {listed}"
            )
    return said


def measures_table(found: Board, missing: Mapping[str, str]) -> Table:
    """A line for each row, a column for each measure."""
    best = [best_of(one.scores.values()) if len(one.scores) > 1 else None for one in found.columns]
    rows: list[list[Cell | str]] = []
    for row in found.rows:
        cells = []
        for column, top in zip(found.columns, best, strict=True):
            score, measure = column.scores.get(row), column.measure
            marked = score is not None and score.value == top
            cells.append(score_cell(score, digits=measure.digits, scale=measure.scale, best=marked))
        rows.append([found.label(row), *cells])
    where = "; ".join(f"{one.title}: {one.dataset}" for one in found.columns)
    notes = [f"data sets: {where}", *reasons(found, missing), *found.notes, *_smaller(found)]
    notes += [f"{title}: also measured on {', '.join(names)}" for title, names in found.unused.items()]
    return Table(
        "four_measures", "Every row against every measure", ["", *(one.title for one in found.columns)], rows,
        f"Measures of {systems_text(found)}; every one is better when larger. Brackets: 95% intervals, over what each "
        "measure's own table says. Bold: highest of a column, unless its interval reaches chance. Networks alone: "
        "teachers and baselines are left out.",
        groups_of(found.columns), notes=notes,
    )  # fmt: skip
