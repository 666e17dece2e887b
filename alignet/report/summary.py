"""What a run came to, at a glance: a few sentences and numbers, worked out from its scores, whichever way they went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignet.evaluate.bootstrap import Score
from alignet.report.metric_styles import number, title_of
from alignet.report.settings_table import STUDENT, Row, distance_closed

HEADLINES = ("odd_one_out", "agreement", "rsa_spearman")  # metrics of a summary, the first that there is
COSTS = ("top1", "linear_probe", "zero_shot")  # what alignment may cost, the first that there is
_SAID = {
    "odd_one_out": "picks the odd one out that people picked in {value} of {n} {unit} (`{dataset}`)",
    "agreement": "picks the odd one out that the teacher picks in {value} of {n} {unit} (`{dataset}`)",
    "rsa_spearman": "has similarities that correlate with people's at {value} over {n} {unit} (`{dataset}`)",
}


@dataclass(frozen=True)
class Number:
    """One large number: what it is, the number, and a line below it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Mark:
    """A place on the way from chance to the ceiling: 0 at chance (or the least value), 1 at the ceiling."""

    label: str
    value: str
    at: float
    kind: str  # chance | original | control | alignet | ceiling


@dataclass(frozen=True)
class Summary:
    """Sentences, large numbers and the way from chance to the ceiling; marks are none without a ceiling."""

    sentences: Sequence[str]
    numbers: Sequence[Number]
    marks: Sequence[Mark]


def summarise(rows: Sequence[Row], headline: str | None) -> Summary:
    """The summary of a run from the rows of its table; headline: the data set that it is about, or None."""
    found = _headline(rows, headline)
    if found is None:
        return Summary(("This run has no student before and after alignment to compare.",), (), ())
    metric, dataset = found
    before, after, control = (
        _score(rows, setting, metric, dataset) for setting in ("original", "alignet", "distillation")
    )
    assert before is not None
    assert after is not None
    sentences, numbers = [_change(before, after)], [_aligned(before, after), _way(before, after)]
    if control is not None:
        sentences.append(_control(before, after, control))
        numbers.append(Number("control without human data", _text(control), _share(before, control)))
    cost = next((one for name in COSTS if (one := _pair(rows, name)) is not None), None)
    if cost is not None:
        sentences.append(_cost(*cost))
        numbers.append(
            Number(title_of(cost[1].metric).partition(",")[0], _text(cost[1]), f"before: {_text(cost[0])}")
        )
    return Summary(sentences, numbers, _marks(before, after, control))


def _headline(rows: Sequence[Row], wanted: str | None) -> tuple[str, str] | None:
    before = {
        (score.metric, score.dataset): None for row in rows if _is(row, "original") for score in row.scores
    }
    both = [
        (score.metric, score.dataset)
        for row in rows if _is(row, "alignet")
        for score in row.scores if (score.metric, score.dataset) in before and score.metric in HEADLINES
    ]  # fmt: skip
    if wanted is not None:
        names = list(dict.fromkeys(dataset for _, dataset in both))
        if wanted not in names:
            raise ValueError(
                f"report.headline: expected a data set measured before and after alignment, one of "
                f"{', '.join(names) or 'none here'}, found {wanted!r}"
            )
        both = [key for key in both if key[1] == wanted]
    return min(both, key=lambda key: HEADLINES.index(key[0]), default=None)


def _is(row: Row, setting: str) -> bool:
    return row.model == STUDENT and row.setting == setting


def _score(rows: Sequence[Row], setting: str, metric: str, dataset: str) -> Score | None:
    return next(
        (
            score
            for row in rows if _is(row, setting)
            for score in row.scores if (score.metric, score.dataset) == (metric, dataset)
        ),
        None,
    )  # fmt: skip


def _pair(rows: Sequence[Row], metric: str) -> tuple[Score, Score] | None:
    """The first data set's scores of a metric before and after."""
    for row in rows:
        for score in row.scores if _is(row, "alignet") else ():
            before = _score(rows, "original", metric, score.dataset)
            if score.metric == metric and before is not None:
                return before, score
    return None


def _text(score: Score, value: float | None = None) -> str:
    text = number(score.metric, score.value if value is None else value)
    return text + "%" if title_of(score.metric).endswith("%") else text


def _apart(before: Score, after: Score) -> bool | None:
    """Whether two intervals have nothing in common; None where there is none."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return after.low > before.high or after.high < before.low


def _change(before: Score, after: Score) -> str:
    said = _SAID[after.metric].format(
        value=_text(after), n=f"{after.n:,}", unit=after.unit, dataset=after.dataset
    )
    text = f"After AligNet the student {said}; before, {_text(before)}"
    if after.value < before.value:
        text += ": it fell"
    elif after.ceiling is not None and after.ceiling > before.value:
        share = distance_closed(before.value, after.value, after.ceiling)
        text += f". That is {share:.0%} of the way to the noise ceiling of {_text(after, after.ceiling)}"
    if after.chance is not None:
        text += f"; chance is {_text(after, after.chance)}"
    if _apart(before, after) is False:
        text += ". The two intervals overlap"
    return text + "."


def _aligned(before: Score, after: Score) -> Number:
    label = title_of(after.metric).partition(",")[0]
    note = (
        ""
        if after.low is None or after.high is None
        else f"95%: {_text(after, after.low)} to {_text(after, after.high)}"
    )
    return Number(label, f"{number(before.metric, before.value)} → {_text(after)}", note)


def _way(before: Score, after: Score) -> Number:
    if after.ceiling is None or after.ceiling <= before.value:
        change = number(after.metric, after.value - before.value)
        return Number(
            "change", f"{'+' if after.value >= before.value else ''}{change}", "there is no ceiling"
        )
    share = distance_closed(before.value, after.value, after.ceiling)
    return Number(
        "of the way to the ceiling", f"{share:.0%}", f"noise ceiling: {_text(after, after.ceiling)}"
    )


def _share(before: Score, other: Score) -> str:
    if other.ceiling is None or other.ceiling <= before.value:
        return f"before: {_text(before)}"
    return f"{distance_closed(before.value, other.value, other.ceiling):.0%} of the way"


def _control(before: Score, after: Score, control: Score) -> str:
    text = f"The control, distillation without human data, comes to {_text(control)}"
    if control.value < after.value:
        apart = _apart(control, after)
        text += ", below AligNet" + ("" if apart is None or apart else " but within its interval's reach")
    else:
        text += ", no less than AligNet: what people said added nothing here"
    return text + "."


def _cost(before: Score, after: Score) -> str:
    title = title_of(after.metric).partition(",")[0]
    text = f"What it cost: {title} on `{after.dataset}`"
    if _text(before) == _text(after):
        return f"{text} stayed at {_text(after)}."
    text += f" {'rose' if after.value > before.value else 'fell'} from {_text(before)} to {_text(after)}"
    return text + (", within the intervals." if _apart(before, after) is False else ".")


def _marks(before: Score, after: Score, control: Score | None) -> list[Mark]:
    if after.ceiling is None:
        return []
    values = [before.value, after.value] + ([control.value] if control is not None else [])
    left = min([*values, after.chance if after.chance is not None else 0.0])
    right = max([*values, after.ceiling])
    named: list[tuple[str, float | None, str]] = [
        ("chance", after.chance, "chance"), ("original", before.value, "original"),
        ("distillation", control.value if control is not None else None, "control"),
        ("AligNet", after.value, "alignet"), ("noise ceiling", after.ceiling, "ceiling"),
    ]  # fmt: skip
    return [
        Mark(label, _text(after, value), (value - left) / (right - left) if right > left else 0.0, kind)
        for label, value, kind in named
        if value is not None
    ]
