"""Numbers as tables and captions of the page print them: scores with intervals, p-values, counts, and what may be said.

Score -> a cell of a table or a few words of a caption. A caption says how two numbers differ only together with
whether their intervals meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from alignet.report.blocks import Cell
from alignet.report.dataset_results import Row, title_of

if TYPE_CHECKING:
    from alignet.evaluate.bootstrap import Score


BOLD = "Bold: highest of a column, unless its interval reaches chance."  # as best_of marks


def best_of(scores: Iterable[Score], *, largest: bool = True) -> float | None:
    """The value that is marked as best; None without one, or where its interval reaches chance."""
    found = list(scores)
    if not found:
        return None
    best = (max if largest else min)(found, key=lambda score: score.value)
    return None if largest and best.meets_chance else best.value


def counted(number: int, what: str) -> str:
    """A number with its noun: `1 point`, `2 points`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def without_value(note: str) -> str:
    """What a score's note says of draws without a value; "" where it says nothing."""
    return "; ".join(text for text in note.split("; ") if "draws had no value" in text)


def score_cell(score: Score | None, *, digits: int = 3, scale: float = 1.0, best: bool = False) -> Cell:
    """A score with its interval; empty where there is none."""
    if score is None:
        return Cell("")
    return spread(score.value, score.low, score.high, digits=digits, scale=scale, best=best)


def spread(
    value: float,
    low: float | None,
    high: float | None,
    *,
    digits: int = 3,
    scale: float = 1.0,
    best: bool = False,
) -> Cell:
    """A value with its interval, which may be None or NaN; empty where the value is NaN."""
    if not math.isfinite(value):
        return Cell("")
    text = f"{scale * value:.{digits}f}"
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return Cell(text, value, best=best)
    bounds = f"[{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
    return Cell(f"{text} {bounds}", value, low, high, best=best)


def p_text(p: float) -> str:
    """A p-value as text: three decimals, or `p < .001`."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}"


def setting_title(setting: str) -> str:
    """A setting as tables print it."""
    return title_of(setting)


def count(scores: Iterable[Score]) -> str:
    """How many measurements are behind scores: one number, or the least and the largest."""
    found = sorted({score.n for score in scores})
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def apart(one: Score, other: Score) -> bool | None:
    """Whether two intervals have no value in common; None where one has no interval."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    return one.low > other.high or other.low > one.high


def met(one: Score, other: Score) -> str:
    """What two intervals say of a difference, in words."""
    found = apart(one, other)
    return "no interval" if found is None else "intervals apart" if found else "intervals overlap"


def moved(scores: Mapping[Row, Score], *, digits: int = 3, scale: float = 1.0) -> str:
    """Of each model, the original's number, AligNet's (or else UD's), and whether intervals meet; "" without a pair."""
    said = []
    for model in dict.fromkeys(row.model for row in scores):
        before = scores.get(Row(model, "original"))
        setting = next((name for name in ("alignet", "ud") if Row(model, name) in scores), None)
        if before is not None and setting is not None:
            after = scores[Row(model, setting)]
            said.append(
                f"{model} {scale * before.value:.{digits}f} to {scale * after.value:.{digits}f} "
                f"({setting_title(setting)}; {met(before, after)})"
            )
    return f"From the original: {'; '.join(said)}." if said else ""


def grouped_notes(notes: Mapping[Row, str], rows: int) -> list[str]:
    """Notes of rows, equal ones once; a note that not all rows have names those that do. rows: how many there are."""
    found: dict[str, list[Row]] = {}
    for row, note in notes.items():
        if note:
            found.setdefault(note, []).append(row)
    return [
        note if len(having) == rows else f"{', '.join(row.title for row in having)}: {note}"
        for note, having in found.items()
    ]
