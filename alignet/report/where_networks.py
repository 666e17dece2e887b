"""The page of any networks before people's importance maps, outside of a run: what `stages.where` writes.

results of the family `where`, of each network and of people -> Page: the section of alignet.report.where, with accuracy
against alignment and arrows from a network to what became of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.blocks import Block, Figure, Look, Section, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.formatting import counted, met
from alignet.report.network_points import Network, Points, front, name_points, named
from alignet.report.network_points import scatter as scatter_networks
from alignet.report.network_tables import details, options_text, padded, shown
from alignet.report.page import Page
from alignet.report.plot_style import dress, errors, legend, panels
from alignet.report.sections import SECTIONS
from alignet.report.summary import Number, Summary
from alignet.report.where import PEOPLE, where

_PANELS = 4  # kinds of maps whose accuracy against alignment is drawn
_KINDS = 8  # kinds of maps whose alignment is drawn, and whose highest values stand at the top
FEW = 30  # images below which a page says so


@dataclass(frozen=True)
class Given:
    """What was put through people's maps, and how.

    details: of each network, by its name, what it is and what was computed: title of a column -> text. gradients: a
    sentence on whose gradients these are. keys: name of the scores' data set of each kind of maps -> the kind.
    """

    images: str
    maps: str
    count: int  # of images
    keys: Mapping[str, str]
    gradients: str
    details: Mapping[str, Mapping[str, str]]
    arrows: Sequence[tuple[str, str]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def score_of(result: Result, metric: str, name: str) -> Score | None:
    """The score of a metric for one kind of maps, which is its data set; accuracy is the same for all kinds."""
    found = (
        one for one in result.scores if one.metric == metric and (one.dataset == name or metric == "accuracy")
    )
    return next(found, None)


def page(given: Given, networks: Mapping[str, Result], people: Result, dataset: str) -> Page:
    """The page; networks: name -> result, in the order of tables."""
    rows: dict[Row, Result] = {PEOPLE: people, **{Network(name): one for name, one in networks.items()}}
    blocks = [
        block
        for block in where([Gathered(dataset, "where", given.options, rows)])
        if not (isinstance(block, Figure) and block.title.startswith("Accuracy against alignment"))
    ]
    tables = sum(isinstance(block, Table) and block.title.startswith("Where ") for block in blocks)
    figures = [one for one in (_accuracy(given, networks), _alignment(given, networks)) if one is not None]
    shown: list[Block] = [Text(given.gradients), *blocks[:tables], *figures, *blocks[tables:]]
    return Page(
        "Where networks and people look",
        f"{counted(len(networks), 'network')}, {counted(given.count, 'image')} of `{given.images}`, "
        f"{kinds_text(len(given.keys))} of `{given.maps}`",
        f"saliency: {given.gradients[:1].lower()}{given.gradients[1:].partition(':')[0]}",
        f"Only {counted(given.count, 'image')}: intervals over so few say little, and ranks of networks less."
        if given.count < FEW
        else "",
        _summary(given, networks),
        [Section("where", SECTIONS["where"], shown), Section("networks", "Networks", [_details(given)])],
    )


def kinds_text(count: int) -> str:
    """As text."""
    return "one kind of maps" if count == 1 else f"{count} kinds of maps"


def _details(given: Given) -> Table:
    options = options_text({name: value for name, value in given.options.items() if name != "keys"})
    return details("What was put through people's maps", given.details, f"Options: {options}.")


def _summary(given: Given, networks: Mapping[str, Result]) -> Summary:
    """How many networks are above the centre bias of each kind of maps, and the highest correlation of each."""
    said, numbers, any_above = [], [], False
    for name, kind in given.keys.items():
        found = {one: score for one in networks if (score := score_of(networks[one], "where", name))}
        if not found:
            continue
        best = max(found, key=lambda one: found[one].value)
        score = found[best]
        spread = "" if score.low is None else f" [{score.low:.2f}, {score.high:.2f}]"
        numbers.append(Number(kind or "maps", f"{score.value:.2f}", f"{best}{spread}, highest correlation"))
        over = [one for one in networks if (above := score_of(networks[one], "where_over_centre", name)) and above.low
                is not None and above.low > 0]  # fmt: skip
        any_above = any_above or bool(over)
        said.append(f"{len(over)} of {len(found)} for {kind}" if kind else f"{len(over)} of {len(found)}")
    some = f"Above the centre bias, with an interval that does not reach 0: {', '.join(said)}."
    none = "No network is above the centre bias with an interval that does not reach 0, for any kind of maps."
    sentences = [
        "How well a network's saliency agrees with people's importance maps: Spearman's correlation of the two maps of "
        "an image, mean over images.",
        some if any_above else none,
    ]
    return Summary(sentences, numbers[:_KINDS], ())


# ---- figures


def _alignment(given: Given, networks: Mapping[str, Result]) -> Figure | None:
    """A panel for each kind of maps: every network's correlation, and the centre bias of what it saw."""
    kinds = list(given.keys.items())[:_KINDS]
    names = list(networks)

    def draw(look: Look) -> Any:
        height = 0.9 + 0.2 * len(names)
        drawing, axes = panels(look, len(kinds), wide=4, height=height, more=0.5, sharey=True, sharex=True)
        for place, (axis, (name, kind)) in enumerate(zip(axes, kinds)):
            found = {row: score_of(networks[one], "where", name) for row, one in enumerate(names)}
            shown = {row: score for row, score in found.items() if score is not None}
            centres = [(row, score_of(networks[one], "centre_bias", name)) for row, one in enumerate(names)]
            axis.axvline(0, color=look.faint, linewidth=0.8, zorder=0)
            axis.plot(
                [score.value for _, score in centres if score], [row for row, score in centres if score], "|",
                color=look.ink, markersize=9, markeredgewidth=1.6, label="centre bias of what it saw", zorder=2,
            )  # fmt: skip
            values = [score.value for score in shown.values()]
            axis.errorbar(
                values, list(shown), xerr=errors(list(shown.values())), fmt="o", color=look.hues[0], markersize=5,
                elinewidth=1.2, markeredgecolor=look.paper, label="network, 95% interval", zorder=3,
            )  # fmt: skip
            dress(axis, look, kind, x="Spearman's rho" if place + 4 >= len(kinds) else "", grid=True)
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.5, -0.5)
            if place + 4 >= len(kinds):
                axis.tick_params(labelbottom=True)
        legend(drawing, axes[:1], look, columns=3)
        return drawing

    beyond = f" Shown are {len(kinds)} of {len(given.keys)} kinds." if len(kinds) < len(given.keys) else ""
    return Figure(
        "alignment_by_kind", "Agreement with each kind of maps", draw,
        f"Spearman's correlation of saliency with people's maps at full scale, mean over images with 95% intervals; "
        f"the stroke is the centre bias of what the network saw of the maps.{beyond}",
        "Correlations of networks' saliency with people's maps beside the centre bias, a panel for each kind of maps",
    )  # fmt: skip


def _points(networks: Mapping[str, Result], name: str) -> dict[Network, tuple[Score, Score]]:
    """(accuracy, alignment) of each network; alignment in shares of the ceiling where all networks have that."""
    found: dict[str, dict[str, Score]] = {metric: {} for metric in ("accuracy", "where", "where_of_ceiling")}
    for metric, scores in found.items():
        for one, result in networks.items():
            score = score_of(result, metric, name)
            if score is not None:
                scores[one] = score
    shares = found["where_of_ceiling"].keys() == found["where"].keys()
    alignment = found["where_of_ceiling" if shares else "where"]
    return {
        Network(one): (found["accuracy"][one], score)
        for one, score in alignment.items()
        if one in found["accuracy"]
    }


def _accuracy(given: Given, networks: Mapping[str, Result]) -> Figure | None:
    """Accuracy against alignment, a panel for each kind of maps; None without labelled images."""
    every = {kind: points for name, kind in given.keys.items() if (points := _points(networks, name))}
    if not every:
        return None
    names = {kind: name for name, kind in given.keys.items()}
    shown = dict(list(every.items())[:_PANELS])

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(shown), wide=2, height=3.7, more=0.3)
        named_in = []
        for axis, (kind, points) in zip(axes, shown.items()):
            centres = _centres(networks, names[kind], points)
            scales = _panel(axis, look, kind, points, centres, given.arrows)
            named_in.append((axis, points, scales, named(points, given.arrows)))
        legend(drawing, axes[:1], look, columns=3)
        name_points(drawing, look, named_in)
        return drawing

    first, points = next(iter(shown.items()))
    said = f"On the front: {', '.join(row.title for row in front(points))}."
    said += "".join(f" {_way(points, start, end)}" for start, end in given.arrows)
    said += f" This is of {first}." if len(every) > 1 else ""
    said += f" Shown are {len(shown)} of {len(every)} kinds of maps." if len(shown) < len(every) else ""
    count = next(iter(points.values()))[0].n
    arrows = ", arrows lead from a network to what became of it" if given.arrows else ""
    return Figure(
        "accuracy_alignment", "Accuracy against alignment", draw,
        f"Accuracy on {counted(count, 'image')} with a label (x) and agreement of saliency with people's maps (y), 95% "
        f"intervals over images; the line is the Pareto front of all networks{arrows}, dotted is the centre bias of "
        f"what networks saw, the lowest and the highest where that differs. {said}",
        "Scatter of agreement with people's importance maps against accuracy",
    )  # fmt: skip


def _centres(networks: Mapping[str, Result], name: str, points: Points) -> list[float]:
    """The centre bias of what networks saw, in the unit of their alignment: one value, or one for each crop."""
    values: dict[str, float] = {}
    for row, (_, alignment) in points.items():
        centre, plain = (score_of(networks[row.model], metric, name) for metric in ("centre_bias", "where"))
        if centre is not None and plain is not None:
            shares = alignment.metric == "where_of_ceiling"
            values[f"{centre.value:.3f}"] = centre.value / ((plain.ceiling or 1) if shares else 1)
    return list(values.values())


def _way(points: Points, start: str, end: str) -> str:
    """What an arrow shows, in words."""
    (x0, y0), (x1, y1) = points[Network(start)], points[Network(end)]
    shares = y0.metric == "where_of_ceiling"
    moved = f"{100 * (y1.value - y0.value):+.1f} points" if shares else f"{y1.value - y0.value:+.3f}"
    return (
        f"From {start} to {end}: {100 * (x1.value - x0.value):+.1f} points of accuracy ({met(x0, x1)}), {moved} of "
        f"alignment ({met(y0, y1)})."
    )


def _panel(
    axis: Any, look: Look, title: str, points: Points, centres: Sequence[float], arrows: Sequence[tuple[str, str]],
) -> tuple[float, float]:  # fmt: skip
    """One kind of maps; returns what values along x and y are multiplied by."""
    shares = next(iter(points.values()))[1].metric == "where_of_ceiling"
    scale = 100 if shares else 1
    ends = {end for _, end in arrows}
    kinds = (
        (look.hues[0], "network", [row for row in points if row.model not in ends]),
        (look.hues[1], "what became of one", [row for row in points if row.model in ends]),
    )
    scatter_networks(axis, look, points, (100, scale), kinds, arrows)
    if centres:
        low, high = scale * min(centres), scale * max(centres)
        axis.axhspan(low, high, color=look.faint, alpha=0.15, linewidth=0, zorder=0)
        for place, value in enumerate(dict.fromkeys((low, high))):
            axis.axhline(
                value, color=look.faint, linewidth=1.2, linestyle=":", zorder=0,
                label="centre bias" if place == 0 else None,
            )  # fmt: skip
    axis.margins(x=0.15, y=0.1)
    axis.set_xlim(right=min(axis.get_xlim()[1], 102))
    dress(axis, look, title, x="accuracy, %", y="of the ceiling, %" if shares else "Spearman's rho")
    return 100, scale


# ---- as text


def printed(given: Given, networks: Mapping[str, Result]) -> str:
    """A table for each kind of maps, a row for each network, for a terminal; two decimals."""
    every: list[Score] = [score for result in networks.values() for score in result.scores]
    there = {score.metric for score in every}
    columns = {name: one for name, one in _PRINTED.items() if name in there}
    lines = []
    for name, kind in given.keys.items():
        rows = [["", *(title for title, _ in columns.values()), "beside the centre bias"]]
        for one, result in networks.items():
            cells = [
                shown(score_of(result, metric, name), scale, 0 if scale == 100 else 2)
                for metric, (_, scale) in columns.items()
            ]
            rows.append([one, *cells, _beside(score_of(result, "where_over_centre", name))])
        lines.append(f"people's maps: {kind}\n{padded(rows)}")
    return "\n\n".join(lines)


_PRINTED = {  # metric -> title of its column, scale
    "where": ("rho", 1), "where_4x": ("rho at 1/4", 1), "where_16x": ("rho at 1/16", 1),
    "where_of_ceiling": ("of ceiling, %", 100), "dice": ("Dice", 1), "iou": ("IoU", 1), "rollout": ("rollout", 1),
    "accuracy": ("accuracy, %", 100), "centre_bias": ("centre bias", 1),
}  # fmt: skip


def _beside(over: Score | None) -> str:
    """Whether a network is above the centre bias of what it saw, by the interval of their difference."""
    if over is None or over.low is None or over.high is None:
        return "-"
    return "above" if over.low > 0 else "below" if over.high < 0 else "not told apart"
