"""Five sentences on the four systems, worked out from the numbers, whichever way they went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignet.report.dataset_results import Row
from alignet.report.formatting import counted, p_text
from alignet.report.four_changes import Change
from alignet.report.four_correlations import FEWEST, LEVEL, Pair
from alignet.report.four_figures import scaled
from alignet.report.four_measures import ACCURACY, MAPPED, SYSTEMS, Board

CONTROLS = (
    "distillation",
    "unharmonized",
    "shuffled-maps",
    "standard",
)  # trained without what people said or marked
LISTED = 5  # pairs of measures that a sentence names
_OWN = {
    "alignet": ("alignet",), "harmonized": ("harmonizer",), "alignet-harmonized": ("alignet", "harmonizer"),
    "alignet-and-harmonized": ("alignet", "harmonizer"),
}  # fmt: skip
_ATTACKED = ("robust", "adversarial", "trades", "mart")  # how settings begin that train against attacks


def own_systems(setting: str) -> tuple[str, ...]:
    """Keys of the systems that a setting trains for; none where that is not known."""
    return ("adversarial",) if setting.startswith(_ATTACKED) else _OWN.get(setting, ())


def is_control(setting: str) -> bool:
    """Whether a setting is a control: `standard` and what begins so are trained on labels alone."""
    return setting in CONTROLS or setting.startswith("standard")


def sentences(found: Board, made: Sequence[Change], pairs: Sequence[Pair]) -> list[str]:
    """What training does to the measures of other systems, what goes together, what trades off, the cost, the best row.

    made: changes of every trained row. pairs: correlations between measures.
    """
    return [
        training(made), together(found, pairs), trade_offs(pairs), cost(found, made), compromise(found),
    ]  # fmt: skip


# ---- what training does


def training(made: Sequence[Change]) -> str:
    """What training for one system does to the measures of the others."""
    every = [one for one in made if one.column.measure.system != ACCURACY and one.end.setting not in MAPPED]
    trained = [
        one for one in every
        if not is_control(one.end.setting) and one.column.measure.system not in own_systems(one.end.setting)
    ]  # fmt: skip
    if not trained:
        return (
            "What training for one system does to the measures of the others cannot be said: no trained row stands "
            "beside the one that it began from in them."
        )
    shown = [one for one in trained if one.verdict]
    if any(own_systems(one.end.setting) for one in trained):
        head = (
            f"Training for one system and the measures of the others, {counted(len(trained), 'comparison')}"
        )
    else:
        head = f"From the start of each arrow to its end, {counted(len(trained), 'comparison')}"
    if not shown:
        return f"{head}: no difference is shown in any."
    text = f"{head}: {_by_row(trained)}"
    controls = [one for one in every if is_control(one.end.setting)]
    if any(one.verdict for one in controls):
        text += f". Controls: {_by_row(controls)}"
    elif controls:
        text += f". Controls: no difference is shown in {counted(len(controls), 'comparison')}"
    return f"{text}."


def _by_row(made: Sequence[Change]) -> str:
    """Of each row what is better, what is worse, and how many measures show no difference."""
    said = []
    for row in dict.fromkeys(one.end for one in made):
        mine = [one for one in made if one.end == row]
        parts = [
            f"{word} {', '.join(f'{one.column.name} ({one.number})' for one in mine if one.verdict == word)}"
            for word in ("better", "worse") if any(one.verdict == word for one in mine)
        ]  # fmt: skip
        rest = sum(not one.verdict for one in mine)
        parts += [f"no difference shown in {rest}"] if rest else []
        said.append(f"{mine[0].name}: {', '.join(parts)}")
    return "; ".join(said)


# ---- which measures go together


def together(found: Board, pairs: Sequence[Pair]) -> str:
    """Which measures of different systems order the rows alike."""
    if not pairs:
        return (
            f"Which measures go together cannot be said: correlations need {FEWEST} rows that have both measures and "
            f"differ in them, and there are {counted(len(found.rows), 'row')}."
        )
    return f"Measures that go together: {_signed(pairs, 1)}."


def trade_offs(pairs: Sequence[Pair]) -> str:
    """Which measures of different systems order the rows against each other."""
    if not pairs:
        return "Which measures trade off cannot be said either."
    return f"Measures that trade off: {_signed(pairs, -1)}."


def _signed(pairs: Sequence[Pair], sign: int) -> str:
    """The pairs of different systems of one sign that are more than chance, or how near the nearest comes."""
    between = sorted((one for one in pairs if not one.same_system), key=lambda one: -sign * one.rho)
    if not between:
        return "no pair of different systems has enough rows"
    having = [one for one in between if sign * one.rho > 0]
    side = "above" if sign > 0 else "below"
    head = f"of {counted(len(between), 'pair')} of different systems (accuracy counts as one)"
    sure = [one for one in having if one.adjusted < LEVEL]
    if sure:
        rest = f" and {len(sure) - LISTED} more" if len(sure) > LISTED else ""
        listed = "; ".join(f"{one.names} ({_number(one)})" for one in sure[:LISTED])
        return (
            f"{head}, {len(sure)} with rho {side} 0 and p below .05 after Holm's adjustment: {listed}{rest}"
        )
    if not having:
        return f"{head}, none has rho {side} 0"
    first = having[0]
    return (
        f"{head}, none with rho {side} 0 has p below .05 after Holm's adjustment; the strongest is {first.names} "
        f"({_number(first)}, {p_text(first.adjusted)})"
    )


def _number(one: Pair) -> str:
    ends = "" if one.low is None or one.high is None else f" [{one.low:.2f}, {one.high:.2f}]"
    return f"rho {one.rho:.2f}{ends} over {one.n} rows"


# ---- the cost


def cost(found: Board, made: Sequence[Change]) -> str:
    """What training costs in accuracy."""
    if not any(one.measure.system == ACCURACY for one in found.columns):
        return "What training costs in accuracy cannot be said: no accuracy was measured."
    every = [one for one in made if one.column.measure.system == ACCURACY and not is_control(one.end.setting)]
    if not every:
        return "What training costs in accuracy cannot be said: no trained row has one beside the row it began from."
    head = f"The cost in accuracy, {counted(len(every), 'comparison')}"
    parts = []
    for word, verb in (("worse", "falls"), ("better", "rises")):
        moved = [one for one in every if one.verdict == word]
        for title in dict.fromkeys(one.column.name for one in moved):
            rows = ", ".join(f"{one.name} {_from_to(one)}" for one in moved if one.column.name == title)
            parts.append(f"{title} {verb}: {rows}")
    if not parts:
        largest = min(every, key=lambda one: one.difference)
        return (
            f"{head}: no difference is shown; the lowest is {largest.name}, {largest.number} points of "
            f"{largest.column.name}."
        )
    rest = sum(not one.verdict for one in every)
    return f"{head}: {'; '.join(parts)}; no difference shown in {rest}."


def _from_to(one: Change) -> str:
    first, second = (one.column.text(one.column.scores[row].value) for row in (one.start, one.end))
    return f"{first} to {second}"


# ---- the best compromise


@dataclass(frozen=True)
class Compromise:
    """Rows by their mean place between worst (0) and best (1) row: each system weighs the same.

    places: the best first. measures: how many count. systems: of how many systems, accuracy among them. stable: in how
    many of the `measures` ways to leave one measure out the first row stays first. others: which rows are first then.
    unbeaten: rows that no other one equals or beats in every measure.
    """

    places: Sequence[tuple[Row, float]]
    measures: int
    systems: int
    stable: int
    others: Sequence[Row]
    unbeaten: Sequence[Row]


def best_compromise(found: Board) -> Compromise | None:
    """Over the measures that at least half of the rows have, among the rows that have all of those; None below two
    such rows or two systems."""
    values = found.matrix()
    having = np.isfinite(values)
    kept = [number for number in range(values.shape[1]) if 2 * having[:, number].sum() >= len(found.rows)]
    rows = [number for number in range(len(found.rows)) if having[number, kept].all()]
    systems = [found.columns[number].measure.system for number in kept]
    if len(rows) < 2 or len(set(systems)) < 2:
        return None
    places = scaled(values[np.ix_(rows, kept)])
    means = _means(places, systems)
    order = np.argsort(-means, kind="stable")
    firsts = [
        int(np.argmax(_means(np.delete(places, one, 1), [*systems[:one], *systems[one + 1 :]])))
        for one in range(len(kept))
    ]
    first = int(order[0])
    beaten = [
        any((places[other] >= places[row]).all() and (places[other] > places[row]).any() for other in range(len(rows)))
        for row in range(len(rows))
    ]  # fmt: skip
    named = [found.rows[number] for number in rows]
    return Compromise(
        [(named[one], float(means[one])) for one in order], len(kept), len(set(systems)), firsts.count(first),
        [named[one] for one in dict.fromkeys(firsts) if one != first],
        [row for row, lost in zip(named, beaten, strict=True) if not lost],
    )  # fmt: skip


def _means(places: np.ndarray, systems: Sequence[str]) -> np.ndarray:
    """The mean over systems of each system's mean, of each row (n,)."""
    names = np.array(systems)
    return np.mean([places[:, names == name].mean(1) for name in dict.fromkeys(systems)], axis=0)


def compromise(found: Board) -> str:
    """Which row is the best compromise, and how much that depends on the choice of measures."""
    best = best_compromise(found)
    if best is None:
        return "No best compromise can be named: fewer than two rows have all measures that half of the rows have."
    (first, at), (second, then), *_ = best.places
    among = f"{counted(len(best.places), 'row')} that have all {best.measures} measures"
    how = (
        "mean place between the worst row (0) and the best (1), each of "
        f"{best.systems} systems weighing the same{', accuracy among them' if _with_accuracy(found) else ''}"
    )
    text = f"Best compromise of {among}: {found.label(first)}, {at:.2f} ({how}), then {found.label(second)}, {then:.2f}"
    text += f". It stays first in {best.stable} of {best.measures} ways to leave one measure out"
    if best.others:
        text += f"; else {_listed(found, best.others)}"
    return f"{text}. Beaten by no other row in every measure: {_listed(found, best.unbeaten)}."


def _listed(found: Board, rows: Sequence[Row]) -> str:
    return "; ".join(found.label(row) for row in rows)


def _with_accuracy(found: Board) -> bool:
    return any(
        one.measure.system == ACCURACY and 2 * len(one.scores) >= len(found.rows) for one in found.columns
    )


def systems_text(found: Board) -> str:
    """The systems that have a measure, in words."""
    return ", ".join(SYSTEMS[key] for key in found.systems)
