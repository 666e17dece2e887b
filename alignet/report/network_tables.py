"""What pages of several networks share: a table of what each is, tests on the same images, tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Generic, TypeVar

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.blocks import Block, Cell, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.formatting import counted, p_text, score_cell, setting_title

PAIRED = 10  # networks of which all pairs are tested; of more, arrows alone
FOLDED = 12  # tests between networks from which on the table is shown on a click
SEED = 0  # of random sign-flips

Key = TypeVar("Key")  # a row, or the name of a network

Values = Mapping[str, Mapping[str, float]]  # network -> image -> value


def score_of(result: Result, metric: str) -> Score | None:
    """The score of a metric."""
    return next((one for one in result.scores if one.metric == metric), None)


def details(title: str, about: Mapping[str, Mapping[str, str]], caption: str) -> Table:
    """What each network is. about: network -> title of a column -> text."""
    columns = list(dict.fromkeys(name for one in about.values() for name in one))
    rows: list[list[Cell | str]] = [
        [name, *(one.get(column, "") for column in columns)] for name, one in about.items()
    ]
    return Table("networks", title, ["", *columns], rows, caption)


def options_text(options: Mapping[str, Any]) -> str:
    """Options that are given, as text."""
    return ", ".join(f"{name} {_text(value)}" for name, value in options.items() if value not in ("", None))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({options_text(value)})"
    if isinstance(value, (list, tuple)):
        return "/".join(map(_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def pairs_of(arrows: Sequence[tuple[str, str]], networks: Iterable[str]) -> list[tuple[str, str]]:
    """Which pairs are tested: those of arrows, or all of up to PAIRED networks."""
    names = list(networks)
    return list(arrows) or (list(combinations(names, 2)) if len(names) <= PAIRED else [])


def from_original(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Each row after its model's original, where there is one."""
    every = list(rows)
    return [
        (start, row) for row in every if row.setting != "original" and (start := Row(row.model, "original")) in every
    ]  # fmt: skip


def first_rows(gathered: Gathered, count: int) -> Gathered:
    """The same of the first rows alone, as pictures are shown of so many."""
    return replace(gathered, results=dict(list(gathered.results.items())[:count]))


# ---- tests on the same images


@dataclass(frozen=True)
class Tested(Generic[Key]):
    """A measure's mean change from one row to another over the n images of both. adjusted: p by Holm's method."""

    start: Key
    end: Key
    measure: str
    change: float
    p: float
    adjusted: float
    n: int


def tested(
    pairs: Iterable[tuple[Key, Key]], measures: Mapping[str, Mapping[Key, Mapping[str, float]]]
) -> list[Tested[Key]]:
    """Sign-flip tests of each pair in each measure; those without a common image are left out.

    measures: title -> row -> image -> value, finite.
    """
    from alignet.evaluate.attack import holm, paired_test

    done: list[tuple[Key, Key, str, float, float, int]] = []
    for start, end in pairs:
        for title, values in measures.items():
            first, second = values.get(start, {}), values.get(end, {})
            both = [image for image in first if image in second]
            if both:
                a, b = (np.array([one[image] for image in both]) for one in (first, second))
                done.append((start, end, title, *paired_test(a, b, seed=SEED)))
    adjusted = holm([p for _, _, _, _, p, _ in done])
    return [
        Tested(start, end, title, change, p, own, n)
        for (start, end, title, change, p, n), own in zip(done, adjusted, strict=True)
    ]


def sign_flip_table(
    done: Sequence[Tested[Key]], name: str, title: str, heads: tuple[str, str], named: Callable[[Key, Key], list[str]],
    said: str, advice: str, *, change: str = "change", scale: float = 1, digits: int = 3, folded: bool = False,
) -> Table:  # fmt: skip
    """A line for each test. heads, named: titles of the first two columns, and what stands there of a pair.

    said: the caption's first sentence, without its full stop. advice: on how there are fewer tests. change: title of
    the column with the mean change, which is shown times `scale`.
    """
    lines: list[list[Cell | str]] = [
        [*named(one.start, one.end), one.measure, Cell(f"{one.n:,}", one.n),
         Cell(f"{scale * one.change:+.{digits}f}", one.change), Cell(p_text(one.p), one.p),
         Cell(p_text(one.adjusted), one.adjusted)]
        for one in done
    ]  # fmt: skip
    below = sum(one.adjusted < 0.05 for one in done)
    return Table(
        name, title, [*heads, "measure", "images", change, "p", "p, adjusted"], lines,
        f"{said}. Two-sided permutation test, the sign of each image's change flipped; adjusted by Holm's method for "
        f"all {counted(len(done), 'test')} of this table, of which {below} {'is' if below == 1 else 'are'} below .05."
        f"{least_p([one.n for one in done], advice)}",
        folded=folded,
    )  # fmt: skip


def against_original(
    rows: Iterable[Row], measures: Mapping[str, Mapping[Row, Mapping[str, float]]], name: str, dataset: str, said: str,
    *, scale: float = 1, digits: int = 3,
) -> Table | None:  # fmt: skip
    """Each row beside its model's original on the same images; None without such a pair."""
    done = tested(from_original(rows), measures)
    if not done:
        return None
    return sign_flip_table(
        done, name, f"Tests against the original: {dataset}", ("model", "setting"),
        lambda _, end: [end.model, setting_title(end.setting)], said, "fewer rows leave fewer tests", scale=scale,
        digits=digits,
    )  # fmt: skip


def between_networks(
    arrows: Sequence[tuple[str, str]], networks: Sequence[str], measures: Mapping[str, Values], said: str, *,
    change: str = "change", scale: float = 1, digits: int = 3,
) -> Block | None:  # fmt: skip
    """Pairs of networks on the images that both have: all pairs, or those of arrows; None for one network.

    measures: title -> value of each image. The others as of sign_flip_table.
    """
    if len(networks) < 2:
        return None
    pairs = pairs_of(arrows, networks)
    if not pairs:
        return Text(
            f"Of more than {PAIRED} networks no pairs are tested; name those that matter as arrows=FROM>TO."
        )
    done = tested(pairs, measures)
    if not done:
        return Text("No two networks have a common image, so that none are tested.")
    return sign_flip_table(
        done, "pairs_of_networks", "Tests between networks", ("from", "to"), lambda start, end: [start, end], said,
        "fewer networks or arrows= leave fewer tests", change=change, scale=scale, digits=digits,
        folded=len(done) > FOLDED,
    )  # fmt: skip


def least_p(counts: Sequence[int], advice: str) -> str:
    """A sentence on sign-flip tests that have no adjusted p below .05, whatever the data; "" where all can.

    counts: images of each test. A test of n images has no p below 2 / 2^n, and Holm's p of such ps are the least.
    """
    from alignet.evaluate.attack import holm

    floors = holm([2 / 2**n for n in counts])
    stuck = [n for n, p in zip(counts, floors, strict=True) if p >= 0.05]
    if not stuck:
        return ""
    images = (
        counted(min(stuck), "image") if len(set(stuck)) == 1 else f"{min(stuck):,} to {max(stuck):,} images"
    )
    tests_of = counted(len(counts), "test")
    if len(stuck) == len(counts):
        return f" With {images} and {tests_of} no adjusted p below {min(floors):.2g} is possible; {advice}."
    return f" In {len(stuck)} of {tests_of}, with {images}, no adjusted p below .05 is possible; {advice}."


# ---- as text


def padded(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal, the first row its header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def shown(score: Score | None, scale: float, digits: int) -> str:
    """A score with its interval, for a terminal; `-` where there is none."""
    return "-" if score is None else score_cell(score, digits=digits, scale=scale).text
