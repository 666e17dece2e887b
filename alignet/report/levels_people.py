"""What people did in trials with response times, on the page: the paper's figure 5 and its numbers.

results of the family levels_people (setting data) -> table by level, t-tests, figure
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.data.trials import LEVELS
from alignet.report.blocks import Block, Cell, Figure, Look, Table, Text
from alignet.report.dataset_results import Gathered
from alignet.report.files import slug
from alignet.report.formatting import p_text, spread, without_value
from alignet.report.plot_style import canvas, dress, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

NAMES = {"coarse": "coarse-grained", "fine": "fine-grained", "boundary": "class-boundary"}
BIN = 0.1  # nats, of the degrees of disagreement that are counted together
POINTS = 800  # of a scatter, at most: drawn at random where there are more

Columns = Mapping[str, Any]


def levels_people(gathered: Gathered) -> Sequence[Block]:
    """Response times, disagreement and the ceiling by level; the t-tests between levels; figure 5."""
    result = next(iter(gathered.results.values()))
    tables = result.tables
    name = slug(gathered.dataset)
    lost = [
        f"{NAMES[score.dataset.removeprefix(f'{gathered.dataset} ')]}, RT with disagreement: {said}"
        for score in result.scores
        if score.metric == "rt_spearman" and (said := without_value(score.note))
    ]
    blocks: list[Block] = [_by_level(name, gathered.dataset, tables["levels"], lost)]
    if len(tables["tests"].get("t", ())):
        blocks.append(Text(_tests(tables["tests"])))
    blocks.append(_figure(name, gathered.dataset, tables))
    return blocks


def some(n: int) -> np.ndarray:
    """At most POINTS of n numbers, at random but always the same, ascending."""
    return np.sort(np.random.default_rng(0).permutation(n)[:POINTS])


def hue_of(level: str, look: Look) -> str:
    """The colour of a level."""
    return look.hues[LEVELS.index(level)]


def _by_level(name: str, dataset: str, rows: Columns, lost: Sequence[str]) -> Table:
    header = ("level", "median RT, s", "SE", "disagreement, nats", "RT with disagreement, rho", "ceiling, %",
              "without modal ties, %", "triplets", "modal ties", "timed trials", "participants")  # fmt: skip
    cells: list[list[Cell | str]] = []
    for place, level in enumerate(rows["level"]):
        at = {key: values[place] for key, values in rows.items()}
        untied = at["ceiling_untied"]
        cells.append([
            NAMES[str(level)], spread(at["rt_median"], at["rt_low"], at["rt_high"], digits=2),
            Cell(f"{at['rt_se']:.3f}", float(at["rt_se"])) if math.isfinite(at["rt_se"]) else "",
            spread(at["entropy"], at["entropy_low"], at["entropy_high"]),
            spread(at["rho"], at["rho_low"], at["rho_high"]),
            spread(at["ceiling"], at["ceiling_low"], at["ceiling_high"], digits=1, scale=100),
            Cell(f"{100 * untied:.1f}", float(untied)) if math.isfinite(untied) else "",
            *(Cell(f"{at[key]:,}", int(at[key])) for key in ("triplets", "modal_ties", "timed", "participants")),
        ])  # fmt: skip
    slow = [str(level) for level in np.array(rows["level"])[np.argsort(-np.array(rows["rt_median"]))]]
    caption = (
        "People's choices by level. RT: response time, SE over trials. Disagreement: entropy of the answers to a "
        "triplet (at most ln 3 = 1.099), over the triplets with the commonest number of answers. Ceiling: how often an "
        "answer is the most frequent one of the triplet's others; where the others are tied it counts by its share, so "
        "that answers at random come to a third. Intervals of the three are for other participants. "
        f"Slowest to fastest: {', '.join(NAMES[level] for level in slow)}."
    )
    strict = ", ".join(
        f"{NAMES[str(level)]} {100 * value:.1f}% ({100 * untied:.1f}% without modal ties)"
        for level, value, untied in zip(rows["level"], rows["ceiling_wrong"], rows["ceiling_wrong_untied"])
    )
    notes = [f"Where a tie of the others counts as wrong instead, the ceilings are {strict}.", *lost]
    return Table(f"{name}_by_level", f"{dataset}: people by level", header, cells, caption, notes=notes)


def _tests(tests: Columns) -> str:
    told = []
    for first, second, difference, t, df, p in zip(*(tests[name] for name in
                                                     ("first", "second", "difference", "t", "df", "p"))):  # fmt: skip
        told.append(
            f"{NAMES[str(first)]} against {NAMES[str(second)]}: t({df}) = {t:.2f}, {p_text(p)} (responses take "
            f"{math.exp(difference):.2f} times as long)"
        )
    return "Paired t-tests over participants' mean log response times. " + "; ".join(told) + "."


def _figure(name: str, dataset: str, tables: Mapping[str, Columns]) -> Figure:
    rows = tables["levels"]
    rhos = [
        f"{spread(rho, low, high, digits=2).text} ({NAMES[str(level)]}, {n:,} triplets)"
        for level, rho, low, high, n in zip(*(rows[key] for key in ("level", "rho", "rho_low", "rho_high", "rho_n")))
        if math.isfinite(rho)
    ]  # fmt: skip
    said = f"The rank correlation of the two is {', '.join(rhos)}." if rhos else ""
    caption = (
        f"A: response times of {int(sum(rows['timed'])):,} trials; the line is the median. B: mean response time of a "
        f"triplet against the disagreement about it, with least-squares lines over all triplets (points: at most "
        f"{POINTS} of each level). C: how triplets fall over degrees of disagreement, in bins of {BIN:g} nats. {said}"
    )

    def draw(look: Look) -> Drawing:
        drawing = canvas(look, 3.4)
        first, second, third = axes = drawing.subplots(1, 3)
        _times(first, look, tables)
        _against(second, look, tables["items"], rows)
        _degrees(third, look, tables["entropies"], rows)
        legend(drawing, axes, look)
        return drawing

    alt = "Three panels: response times by level, response time against disagreement, distribution of disagreement."
    return Figure(f"{name}_people", f"{dataset}: response times and disagreement", draw, caption, alt)


def _times(axes: Axes, look: Look, tables: Mapping[str, Columns]) -> None:
    """Violins of log RT, from the histogram."""
    dress(axes, look, y="response time, s", title="A")
    rt, rows = tables["rt"], tables["levels"]
    levels = [str(level) for level in rows["level"]]
    for place, level in enumerate(levels):
        mine = np.array(rt["level"]) == level
        if not mine.any():
            continue
        low, density = np.array(rt["low"])[mine], np.array(rt["density"])[mine]
        width = np.diff(np.unique(np.array(rt["low"]))).min(initial=0.1)
        size = 0.84 * density / density.max()
        axes.barh(
            low + width / 2, size, height=width, left=place - size / 2, color=hue_of(level, look), alpha=0.75
        )
        median = math.log(rows["rt_median"][place])
        axes.plot([place - 0.42, place + 0.42], [median, median], color=look.ink, linewidth=1.5)
    seconds = [0.5, 1, 2, 4, 8]
    axes.set_yticks([math.log(value) for value in seconds], [f"{value:g}" for value in seconds])
    axes.set_xticks(range(len(levels)), [NAMES[level].replace("-", "-\n") for level in levels])


def _against(axes: Axes, look: Look, items: Columns, rows: Columns) -> None:
    dress(axes, look, x="disagreement, nats", y="mean log RT (s)", title="B")
    for level, rho in zip(rows["level"], rows["rho"]):
        mine = np.array(items["level"]) == level
        x, y = np.array(items["entropy"])[mine], np.array(items["mean_log_rt"])[mine]
        held = np.isfinite(x) & np.isfinite(y)
        x, y = x[held], y[held]
        colour = hue_of(str(level), look)
        shown = some(len(x))
        # few values: points would hide each other
        jitter = np.random.default_rng(1).uniform(-0.03, 0.03, len(shown))
        axes.scatter(x[shown] + jitter, y[shown], s=7, color=colour, alpha=0.35, linewidths=0)
        if math.isfinite(rho):
            slope, at = np.polyfit(x, y, 1)
            ends = np.array([x.min(), x.max()])
            axes.plot(ends, at + slope * ends, color=colour, linewidth=2)


def _degrees(axes: Axes, look: Look, found: Columns, rows: Columns) -> None:
    dress(axes, look, x="disagreement, nats", y="share of triplets", title="C")
    bins = np.floor(np.array(found["entropy"]) / BIN + 1e-6).astype(int)
    there = np.unique(bins)
    levels = [str(level) for level in rows["level"]]
    for place, level in enumerate(levels):
        mine = np.array(found["level"]) == level
        share = [float(np.array(found["share"])[mine & (bins == value)].sum()) for value in there]
        offset = (place - (len(levels) - 1) / 2) * 0.3 * BIN  # levels beside each other within a bin
        axes.bar(
            (there + 0.5) * BIN + offset, share, 0.28 * BIN, color=hue_of(level, look), label=NAMES[level]
        )
