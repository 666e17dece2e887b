"""The page of any networks whose representations were inverted, outside of a run: what `stages.invariances` writes.

results of the family `invariance` of each network -> Page: one table of all networks, the tables and figures of
alignet.report.invariance, tests between networks, and pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report import invariance as blocks_of
from alignet.report.blocks import Block, Cell, Figure, Look, Section, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.formatting import counted, score_cell
from alignet.report.invariance_figures import by_distance, methods_of
from alignet.report.invariance_published import published
from alignet.report.network_points import Network, Points, front, name_points, named, scatter
from alignet.report.network_tables import (
    between_networks,
    details,
    first_rows,
    options_text,
    padded,
    score_of,
    shown,
)
from alignet.report.page import Page
from alignet.report.plot_style import dress, legend, panels
from alignet.report.sections import SECTIONS
from alignet.report.summary import Number, Summary

FEW = 30  # images below which a page says so
PICTURED = 6  # networks whose inverted images are shown


@dataclass(frozen=True)
class Given:
    """What was inverted, and how.

    images: name of the folder. count, total: images that were inverted, and there are. details: of each network what it
    is: title of a column -> text. methods: name -> settings, the first one that of the scores without a name before
    them. distances: name -> what it is. options: of the family, and what else the numbers hang on.
    """

    images: str
    count: int
    total: int
    details: Mapping[str, Mapping[str, str]]
    methods: Mapping[str, Mapping[str, Any]]
    distances: Mapping[str, str]
    arrows: Sequence[tuple[str, str]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def page(given: Given, networks: Mapping[str, Result], dataset: str) -> Page:
    """The page; networks: name -> result of the family `invariance`, in the order of tables. dataset: name of the
    scores' data set."""
    rows: dict[Row, Result] = {Network(name): one for name, one in networks.items()}
    gathered = Gathered(dataset, "invariance", given.options, rows)
    found: list[Block | None] = [
        Text(counting(given)), blocks_of.unmatched(gathered), _overview(given, networks), by_distance(gathered),
        *_against_match(given, networks), blocks_of.matching(gathered), blocks_of.alike(gathered, "two"),
        blocks_of.alike(gathered, "match"), blocks_of.people(gathered), tested(given, networks),
        blocks_of.pictures(first_rows(gathered, PICTURED)), *published(),
    ]  # fmt: skip
    return Page(
        "Identically represented inputs of networks",
        f"{counted(len(networks), 'network')}, {counted(given.count, 'image')} of `{given.images}`",
        f"methods: {', '.join(given.methods)}; distances: {', '.join(given.distances)}",
        f"Only {counted(given.count, 'image')} counted: with so few images the intervals are wide and the order of "
        "networks is uncertain."
        if given.count < FEW
        else "",
        _summary(networks),
        [
            Section("invariance", SECTIONS["invariance"], [block for block in found if block is not None]),
            Section("networks", "Networks", [_details(given)]),
        ],
    )  # fmt: skip


def counting(given: Given) -> str:
    """Which images were inverted, as sentences."""
    drawn = (
        f"{given.count:,} of {given.total:,} images were drawn at random. "
        if given.total > given.count
        else ""
    )
    name, settings = next(iter(given.methods.items()))
    return (
        f"{drawn}Every network was inverted on the same {counted(given.count, 'image')}, at its own resolution and "
        f"on its own crop. Networks compare by `{name}`, {_leaning(settings)}"
    )


def _leaning(settings: Mapping[str, Any]) -> str:
    """What a method's regulariser does to the comparison of networks, which goes on and ends a sentence."""
    if settings.get("distance"):
        return (
            f"which makes the distance `{settings['distance']}` to the target large: it shows how bad it can get, and "
            "almost all networks look bad by it. Compare them by a method without a regulariser."
        )
    terms = {"tv": "total variation", "l_p": "an l_p norm", "blur": "a difference from the blurred image",
             "fourier": "steps in Fourier coefficients", "transform": "random transformations"}  # fmt: skip
    found = [text for key, text in terms.items() if settings.get(key)]
    if found:
        return (
            f"which leans towards natural images ({', '.join(found)}): it flatters networks, since what it adds is not "
            "theirs. Compare them by a method without a regulariser."
        )
    return (
        "which has no regulariser. An adversarial method shows how bad it can get, and one that leans towards natural "
        "images flatters."
    )


# ---- tables


def _methods(networks: Mapping[str, Result]) -> dict[str, str]:
    """What stands before a method's scores -> the method as text, of all networks."""
    every: dict[str, str] = {}
    for result in networks.values():
        every |= methods_of(result.tables["methods"])
    return every


def _overview(given: Given, networks: Mapping[str, Result]) -> Table:
    """A row for each network: by each method how many match, and the means over distances."""
    methods = _methods(networks)
    clustered = any(score_of(result, "match") is not None for result in networks.values())
    columns, groups = [""], [("", 1)]
    for title in methods.values():
        own = ["matched, %", "2AFC, %", *(["clustering, %"] if clustered else [])]
        columns, groups = [*columns, *own], [*groups, (title, len(own))]
    best = max((one.value for result in networks.values() if (one := score_of(result, "two"))), default=None)
    rows: list[list[Cell | str]] = []
    for name, result in networks.items():
        cells: list[Cell | str] = []
        for prefix in methods:
            two = score_of(result, f"{prefix}two")
            marked = not prefix and two is not None and two.value == best and not two.meets_chance
            cells.append(score_cell(score_of(result, f"{prefix}matched"), digits=1, scale=100))
            cells.append(score_cell(two, digits=1, scale=100, best=marked))
            if clustered:
                cells.append(score_cell(score_of(result, f"{prefix}match"), digits=1, scale=100))
        rows.append([name, *cells])
    most = float(given.options["matched"])
    return Table(
        "networks_inverted", "All networks", columns, rows,
        f"Matched: share of inverted images whose representation is within a relative error of {most:g}. 2AFC: "
        "share of images nearer to the target than to the start (50% by guessing). Clustering: share of images nearest "
        "to their own target among three (33.3% by guessing). Means over the distances that were not optimised, with "
        "95% intervals over images. Empty: all distances were optimised. Bold: highest 2AFC of the first method, "
        "unless its interval reaches 50%.",
        groups,
    )  # fmt: skip


def tested(given: Given, networks: Mapping[str, Result]) -> Block | None:
    """Pairs of networks on the same images: all pairs, or those of arrows; None for one network."""
    tables = {name: result.tables["images"] for name, result in networks.items()}
    columns = (("2AFC", "two_mean"), ("clustering", "match_mean"))
    measures = {title: blocks_of.by_image(tables, column) for title, column in columns}
    return between_networks(
        given.arrows, list(networks), measures,
        "The change from one network to another on the same images, inverted by the first method; mean over starts and "
        "over the distances that were not optimised", change="change, points", scale=100, digits=1,
    )  # fmt: skip


def _details(given: Given) -> Table:
    methods = "; ".join(f"{name}: {options_text(settings)}" for name, settings in given.methods.items())
    distances = "; ".join(f"{name}: {text}" for name, text in given.distances.items())
    return details(
        "What was inverted", given.details,
        f"Methods: {methods}. Distances: {distances}. Options: {options_text(given.options)}.",
    )  # fmt: skip


# ---- figures


def _against_match(given: Given, networks: Mapping[str, Result]) -> list[Figure]:
    """Clustering against 2AFC; none for fewer than two networks that have both."""
    points: Points = {
        Network(name): (two, match)
        for name, result in networks.items()
        if (two := score_of(result, "two")) is not None and (match := score_of(result, "match")) is not None
    }
    if len(points) < 2:
        return []
    names = named(points, given.arrows)

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=4.2, more=0.5)
        scatter(
            axes[0], look, points, (100.0, 100.0), [(look.hues[0], "networks", list(points))], given.arrows
        )
        axes[0].axvline(50, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
        axes[0].axhline(100 / 3, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
        axes[0].margins(x=0.15, y=0.1)
        dress(axes[0], look, x="2AFC, %", y="clustering, %")
        legend(drawing, axes, look, columns=4)
        name_points(drawing, look, [(axes[0], points, (100.0, 100.0), names)])
        return drawing

    ends = " Arrows: from a network to its other training setting, as given." if given.arrows else ""
    ahead = ", ".join(row.title for row in front(points))
    return [Figure(
        "networks_tasks", "Two tasks", draw,
        "2AFC (x) and clustering (y) of images inverted by the first method, means over the distances that were not "
        f"optimised, 95% intervals over images. Dotted: guessing. Thick grey line: Pareto front of all networks.{ends} "
        f"On the front: {ahead}.",
        "Scatter of clustering against two-alternative forced choice, a point for each network",
    )]  # fmt: skip


def _summary(networks: Mapping[str, Result]) -> Summary:
    """The network whose inverted images look most like their targets, by each method."""
    sentences, numbers = [
        "What may change in an image without a network taking notice, and would people notice? A share near 100%: "
        "images that the network takes for the same look the same; near 0%: they keep nothing of what is seen."
    ], []  # fmt: skip
    for prefix, title in _methods(networks).items():
        found = {
            name: one for name in networks if (one := score_of(networks[name], f"{prefix}two")) is not None
        }
        if not found:
            sentences.append(f"By {title} every distance was optimised, so that there is no mean.")
            continue
        name = max(found, key=lambda one: found[one].value)
        score = found[name]
        ends = (
            ""
            if score.low is None or score.high is None
            else f" [{100 * score.low:.0f}, {100 * score.high:.0f}]"
        )
        alike = len(found) > 1 and all(one.value == score.value for one in found.values())
        said = "of every network" if alike else f"{name}{ends}, highest"
        numbers.append(Number(f"2AFC, {title}", f"{100 * score.value:.0f}%", said))
    unmatched = [name for name in networks if any(
        (one := score_of(networks[name], f"{prefix}matched")) is not None and one.value < 1
        for prefix in _methods(networks)
    )]  # fmt: skip
    if unmatched:
        sentences.append(
            f"Not all inverted images match in {len(unmatched)} of {len(networks)} networks: see below."
        )
    return Summary(sentences, numbers, ())


# ---- as text


def printed(networks: Mapping[str, Result]) -> str:
    """A row for each network and method, for a terminal."""
    lines: list[list[str]] = []
    names = list(dict.fromkeys(
        str(name) for result in networks.values() for name in result.tables["distances"]["distance"]
    ))  # fmt: skip
    clustered = any(score_of(result, "match") is not None for result in networks.values())
    header = [
        "",
        "method",
        "error",
        "matched, %",
        "2AFC, %",
        *names,
        *(["clustering, %"] if clustered else []),
    ]
    for name, result in networks.items():
        gathered = Gathered("", "invariance", {}, {Row(name, ""): result})
        for prefix, title in methods_of(result.tables["methods"]).items():
            optimised = blocks_of.optimised_of(gathered, Row(name, ""), prefix)
            of = [_cell(score_of(result, f"{prefix}two_{one}"), one in optimised) for one in names]
            error = score_of(result, f"{prefix}error")
            matched, two, match = (score_of(result, f"{prefix}{one}") for one in ("matched", "two", "match"))
            lines.append([
                name, title, "-" if error is None else f"{error.value:.3g}", _cell(matched), _cell(two), *of,
                *([_cell(match)] if clustered else []),
            ])  # fmt: skip
    return padded([header, *lines])


def _cell(score: Score | None, optimised: bool = False) -> str:
    return f"{shown(score, 100, 0)}{' (optimised)' if optimised and score is not None else ''}"
