"""The figures on identically represented inputs: 2AFC by each distance and method, and clustering against 2AFC."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignet.report.blocks import Figure, Look
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import apart, count
from alignet.report.plot_style import FONT, dress, errors, hue_of, legend, marker_of, panels
from alignet.report.scatter import name_points, scatter

PANELS = 3  # methods beside each other


def methods_of(table: Mapping[str, Any]) -> dict[str, str]:
    """A table `methods` as what stands before a method's scores -> the method as text."""
    found = {}
    for name, regulariser, optimised in zip(
        table["name"], table["regulariser"], table["optimised"], strict=True
    ):
        title = str(regulariser) if not name or str(name) == str(regulariser) else f"{name} ({regulariser})"
        found[f"{name}_" if name else ""] = f"{title}, against {optimised}" if optimised else title
    return found


def optimised_of(gathered: Gathered, row: Row, prefix: str) -> list[str]:
    """Distances that a row's method optimised."""
    table, methods = gathered.tables("distances")[row], gathered.tables("methods")[row]
    node = {
        f"{name}_" if name else "": str(node)
        for name, node in zip(methods["name"], methods["node"], strict=True)
    }
    return [
        str(name) for one, name, optimised in zip(table["node"], table["distance"], table["optimised"], strict=True)
        if optimised and node.get(prefix) == str(one)
    ]  # fmt: skip


def task_distances(gathered: Gathered, task: str) -> dict[Row, list[str]]:
    """Names of the distances by which a row's first method has scores of a task."""
    found: dict[Row, list[str]] = {}
    for row, table in gathered.tables("distances").items():
        names = dict.fromkeys(str(name) for name in table["distance"])
        found[row] = [name for name in names if row in gathered.scores(f"{task}_{name}")]
    return found


def figures(gathered: Gathered) -> list[Figure]:
    """All that the scores allow."""
    two, match = gathered.scores("two"), gathered.scores("match")
    both = {row: (two[row], score) for row, score in match.items() if row in two}
    return [by_distance(gathered), *([_two_tasks(gathered)] if len(both) > 1 else [])]


def by_distance(gathered: Gathered) -> Figure:
    """A panel for each method: a line for each row, its 2AFC by each distance."""
    tables = gathered.tables("methods")
    methods = {prefix: title for table in tables.values() for prefix, title in methods_of(table).items()}
    names = list(dict.fromkeys(name for found in task_distances(gathered, "two").values() for name in found))
    rows = list(tables)

    def draw(look: Look) -> Any:
        drawing, axes = panels(
            look, len(methods), wide=PANELS, height=1.2 + 0.32 * len(rows), more=0.7, sharey=True
        )
        for axis, (prefix, title) in zip(axes, methods.items()):
            axis.axvline(50, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
            for place, row in enumerate(rows):
                optimised = optimised_of(gathered, row, prefix)
                for number, name in enumerate(names):
                    score = gathered.scores(f"{prefix}two_{name}").get(row)
                    if score is None:
                        continue
                    y = place + 0.5 * (number - (len(names) - 1) / 2) / max(len(names), 2)
                    hue = hue_of(row.setting, look) if row.setting else look.hues[place % len(look.hues)]
                    axis.errorbar(
                        [100 * score.value], [y], xerr=errors([score], 100), fmt=marker_of(number), color=hue,
                        ecolor=look.faint, elinewidth=1, markersize=6, clip_on=False, zorder=3,
                        markerfacecolor=look.paper if name in optimised else hue, markeredgecolor=hue,
                    )  # fmt: skip
            axis.set_xlim(-2, 102)
            dress(axis, look, title, x="nearer to the target, %")
            axis.set_yticks(range(len(rows)), [row.title for row in rows])
        axes[0].invert_yaxis()
        for number, name in enumerate(names):
            axes[0].plot([], [], marker_of(number), color=look.ink, label=name)
        legend(drawing, axes, look, columns=4)
        return drawing

    scores = gathered.scores("two")
    seen = ""
    if scores:
        most = max(scores, key=lambda row: scores[row].value)
        tied = [row.title for row in scores if row != most and apart(scores[row], scores[most]) is False]
        seen = f" Highest mean of the first panel: {most.title}, {100 * scores[most].value:.1f}%"
        seen += f"; its interval overlaps those of {', '.join(tied)}." if tied else "."
    hollow = any(optimised_of(gathered, row, prefix) for row in rows for prefix in methods)
    of = scores or gathered.scores(f"two_{names[0]}")
    return Figure(
        slug(f"{gathered.dataset} inverted by distance"), f"What do networks keep? {gathered.dataset}", draw,
        f"Share of inverted images that are nearer to their target than to their start, by each distance (marker), "
        f"over {count(of.values())} targets, with 95% intervals over images. A panel for each method. Dotted: guessing."
        f"{' Hollow: the distance that was optimised.' if hollow else ''}{seen}",
        "Share of inverted images nearer to the target, for each row, distance and method",
    )  # fmt: skip


def _two_tasks(gathered: Gathered) -> Figure:
    """Clustering against 2AFC."""
    two, match = gathered.scores("two"), gathered.scores("match")
    points = {row: (two[row], score) for row, score in match.items() if row in two}
    models = list(dict.fromkeys(row.model for row in points))

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=4.0, more=0.8)
        scatter(axes[0], look, points, models, (100, 100), faint=True)
        axes[0].axhline(100 / 3, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
        axes[0].annotate(
            "guessing", (0.99, 100 / 3), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=look.ink,
            fontsize=FONT - 1,
        )  # fmt: skip
        dress(axes[0], look, x="2AFC, %", y="clustering, %")
        name_points(axes[0], look, points, models, faint=True)
        legend(drawing, axes, look, columns=3)
        return drawing

    return Figure(
        slug(f"{gathered.dataset} inverted tasks"), f"Two tasks: {gathered.dataset}", draw,
        "2AFC (x) and clustering of all triples (y) of images inverted by the first method, means over the distances "
        f"that were not optimised, over {count(two.values())} targets, 95% intervals over images. Thick grey line: "
        "Pareto front.",
        "Scatter of clustering against two-alternative forced choice",
    )  # fmt: skip
