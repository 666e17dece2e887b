"""Which measures go together over networks, and which trade off: rank correlations between all pairs of measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from alignet.report.blocks import Cell, Figure, Look, Table
from alignet.report.formatting import counted, p_text, spread
from alignet.report.four_measures import Board, Column
from alignet.report.plot_style import FONT, canvas, colour_bar, dress

FEWEST = 4  # rows below which nothing is correlated: of three, one order in three is as extreme as any
SEED, DRAWS = 0, 1000  # of resamples and permutations; resamples behind an interval
LEVEL = 0.05
MANY = 12  # pairs from which on the table is shown on a click


@dataclass(frozen=True)
class Pair:
    """Spearman's rho of two measures over the rows that have both. p: two-sided; adjusted: by Holm for all pairs."""

    first: Column
    second: Column
    n: int
    rho: float
    low: float | None
    high: float | None
    p: float
    exact: bool
    adjusted: float

    @property
    def same_system(self) -> bool:
        """Whether both measures are of one system."""
        return self.first.measure.system == self.second.measure.system

    @property
    def names(self) -> str:
        """Both measures."""
        return f"{self.first.name} and {self.second.name}"


def correlations(found: Board) -> tuple[list[Pair], list[str]]:
    """All pairs of measures that FEWEST rows have and in which they differ; and what is to be said of the others."""
    from alignet.evaluate.attack import holm
    from alignet.evaluate.item_correlation import Correlation, correlation, permuted

    values = found.matrix()
    kept: list[tuple[Column, Column, Correlation, float, bool]] = []
    few, constant = [], []
    for a, b in combinations(range(len(found.columns)), 2):
        first, second = found.columns[a], found.columns[b]
        both = np.isfinite(values[:, a]) & np.isfinite(values[:, b])
        x, y = values[both, a], values[both, b]
        if len(x) < FEWEST:
            few.append(f"{first.name} and {second.name} ({len(x)})")
        elif np.ptp(x) == 0 or np.ptp(y) == 0:
            constant.append(f"{first.name} and {second.name}")
        else:
            of = correlation(x, y, bootstrap=DRAWS, seed=SEED)
            kept.append((first, second, of, *permuted(x, y, seed=SEED)))
    adjusted = holm([p for _, _, _, p, _ in kept])
    pairs = [
        Pair(first, second, of.n, of.rho, *of.ends, p, exact, own)
        for (first, second, of, p, exact), own in zip(kept, adjusted, strict=True)
    ]
    notes = [f"fewer than {FEWEST} rows have both, and no correlation: {'; '.join(few)}"] if few else []
    notes += [f"the same value in all rows, and no correlation: {'; '.join(constant)}"] if constant else []
    return pairs, notes


def correlations_table(pairs: Sequence[Pair], notes: Sequence[str]) -> Table | None:
    """A line for each pair of measures, the strongest first; None without pairs."""
    if not pairs:
        return None
    rows: list[list[Cell | str]] = [
        [one.first.name, one.second.name, "yes" if one.same_system else "no", Cell(f"{one.n}", one.n),
         spread(one.rho, one.low, one.high, digits=2), Cell(f"{p_text(one.p)}{'' if one.exact else ' (drawn)'}", one.p),
         Cell(p_text(one.adjusted), one.adjusted)]
        for one in sorted(pairs, key=lambda one: -abs(one.rho))
    ]  # fmt: skip
    below = sum(one.adjusted < LEVEL for one in pairs)
    return Table(
        "four_correlations", "Which measures go together", ["", "and", "one system", "rows", "Spearman's rho", "p",
                                                            "p, adjusted"], rows,
        "Spearman's rank correlation of two measures over the rows that have both, with a 95% bootstrap interval over "
        "rows and a two-sided permutation test: all orders are counted up to 7 rows, 10,000 are drawn above; adjusted "
        f"by Holm's method for all {counted(len(pairs), 'pair')}, of which {below} {'is' if below == 1 else 'are'} "
        "below .05. Rows are not a random sample of networks, and rows that began as one network are not independent: "
        f"p may be too small.{_least(pairs)}",
        notes=notes, folded=len(rows) > MANY,
    )  # fmt: skip


def _least(pairs: Sequence[Pair]) -> str:
    """A sentence where no adjusted p below .05 is possible whatever the data; "" else."""
    floors = [max(2 / math.factorial(one.n), 0.0 if one.exact else 1e-4) for one in pairs]
    if min(floors) * len(pairs) < LEVEL:
        return ""
    most = max(one.n for one in pairs)
    return (
        f" With {counted(len(pairs), 'pair')} over at most {most} rows no adjusted p below .05 is possible."
    )


def heat_map(pairs: Sequence[Pair], found: Board) -> Figure | None:
    """Rho of each pair of measures as a colour and a number; None where fewer than three measures are correlated."""
    having = [one for one in found.columns if any(one in (pair.first, pair.second) for pair in pairs)]
    if len(having) < 3:
        return None
    place = {one.measure.key: number for number, one in enumerate(having)}
    grid = np.full((len(having), len(having)), np.nan)
    for pair in pairs:
        grid[place[pair.second.measure.key], place[pair.first.measure.key]] = pair.rho

    def draw(look: Look) -> Any:
        from matplotlib.colors import LinearSegmentedColormap

        drawing = canvas(look, 1.6 + 0.42 * len(having))
        axis = dress(drawing.add_subplot(), look)
        hues = LinearSegmentedColormap.from_list("rho", [look.hues[1], look.paper, look.hues[0]])
        shown = grid[1:, :-1]
        image = axis.imshow(np.ma.masked_invalid(shown), cmap=hues, vmin=-1, vmax=1, aspect="auto")
        for pair in pairs:
            row, column = place[pair.second.measure.key] - 1, place[pair.first.measure.key]
            sure = pair.adjusted < LEVEL
            axis.text(
                column, row, f"{pair.rho:.2f}{'*' if sure else ''}".replace("0.", ".").replace("-", "−"), ha="center",
                va="center", color=look.paper if abs(pair.rho) > 0.6 else look.ink, fontsize=FONT - 1,
                fontweight="bold" if sure else "normal",
            )  # fmt: skip
        axis.set_yticks(range(len(having) - 1), [one.name for one in having[1:]])
        axis.set_xticks(range(len(having) - 1), [one.name for one in having[:-1]])
        for label in axis.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
        colour_bar(drawing, image, axis, look, "Spearman's rho")
        return drawing

    counts = sorted({one.n for one in pairs})
    over = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    sure = sum(one.adjusted < LEVEL for one in pairs)
    return Figure(
        "four_heat", "Rank correlations between measures", draw,
        f"Spearman's rho over {over} rows. Every measure is better when larger, so a positive rho means that what is "
        f"good by one is good by the other. Bold with a star: p below .05 after Holm's adjustment ({sure} of "
        f"{counted(len(pairs), 'pair')}). Empty: too few rows have both, or all have the same value.",
        "Matrix of rank correlations between the measures of the four systems",
    )  # fmt: skip
