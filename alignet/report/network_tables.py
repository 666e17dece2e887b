"""Tables that every page of a list of networks has: what each network is, and tests between them on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.attack import least_p
from alignet.report.blocks import Block, Cell, Table, Text
from alignet.report.formatting import counted, p_text

PAIRED = 10  # networks of which all pairs are tested; of more, arrows alone
SEED = 0  # of random sign-flips

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


def between_networks(
    arrows: Sequence[tuple[str, str]],
    networks: Sequence[str],
    measures: Mapping[str, Values],
    said: str,
    *,
    change: str = "change",
    scale: float = 1,
    digits: int = 3,
) -> Block | None:
    """Pairs of networks on the images that both have: all pairs, or those of arrows; None for one network.

    measures: title -> value of each image. said: the caption's first sentence, without its full stop. change: title of
    the column with the mean change, which is shown times `scale`.
    """
    from alignet.evaluate.attack import holm, paired_test

    if len(networks) < 2:
        return None
    pairs = pairs_of(arrows, networks)
    if not pairs:
        return Text(
            f"Of more than {PAIRED} networks no pairs are tested; name those that matter as arrows=FROM>TO."
        )
    done: list[tuple[str, str, str, float, float, int]] = []
    for start, end in pairs:
        for title, values in measures.items():
            first, second = values.get(start, {}), values.get(end, {})
            both = [one for one in first if one in second]
            if both:
                a, b = (np.array([one[image] for image in both]) for one in (first, second))
                done.append((start, end, title, *paired_test(a, b, seed=SEED)))
    if not done:
        return Text("No two networks have a common image, so that none are tested.")
    adjusted = holm([one[4] for one in done])
    lines: list[list[Cell | str]] = [
        [start, end, title, Cell(f"{n:,}", n), Cell(f"{scale * mean:+.{digits}f}", mean), Cell(p_text(p), p),
         Cell(p_text(own), own)]
        for (start, end, title, mean, p, n), own in zip(done, adjusted, strict=True)
    ]  # fmt: skip
    below = sum(p < 0.05 for p in adjusted)
    return Table(
        "pairs_of_networks", "Tests between networks",
        ["from", "to", "measure", "images", change, "p", "p, adjusted"], lines,
        f"{said}. Two-sided permutation test, the sign of each image's change flipped; adjusted by Holm's method for "
        f"all {counted(len(done), 'test')} of this table, of which {below} {'is' if below == 1 else 'are'} below .05."
        f"{least_p([one[5] for one in done], 'fewer networks or arrows= leave fewer tests')}",
        folded=len(lines) > 12,
    )  # fmt: skip
