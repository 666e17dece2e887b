"""The page's blocks on where networks and people look: scores, controls, pictures, accuracy against alignment.

From the scores and tables of the family `where`; the row `data` has what needs no network (centre bias, split halves).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Figure, Look, Pictures, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import (
    BOLD,
    best_of,
    counted,
    grouped_notes,
    met,
    moved,
    score_cell,
    spread,
)  # fmt: skip
from alignet.report.plot_style import FONT, dress, legend, panels
from alignet.report.scatter import Points, front, front_of, front_rows, name_points, scatter, start_of

PEOPLE = Row("data", "data")
_PANELS = 4  # kinds of maps whose figure is shown; tables have all
_COLUMNS = {  # metric -> title of its column, scale, decimals
    "where": ("Spearman's rho", 1, 3), "where_of_ceiling": ("of the ceiling, %", 100, 1),
    "where_over_centre": ("above the centre bias, rho", 1, 3), "dice": ("Dice, top 10%", 1, 3),
    "iou": ("IoU, top 10%", 1, 3), "rollout": ("attention rollout, rho", 1, 3), "accuracy": ("accuracy, %", 100, 1),
}  # fmt: skip
CLAIMS = (
    "The most aligned of 84 networks reaches 38% of people's own agreement; more accurate networks are less aligned.",
    "The centre bias, the mean ClickMe map against each map, was outperformed by 42 of the 84 networks. The groups of "
    "networks that the paper names add up to 85.",
    "ClickMe: 196,499 images; the ceiling is the mean split-half correlation over 1,000 splits, .66 (.65753 in the "
    "published code). Maps of people are smoothed in the published code.",
    "Over models, scores on ClickMe and Clicktionary correlate with .77 (.85 with harmonized models), on ClickMe and "
    "in the masking experiment with .51 (.68), on Clicktionary and there with .21, not significant (.53).",
    "The text does not say whether attention rollouts are divided by the ceiling.",
    "Top-1 of ViT is not printed in the text; harmonized it is 4% higher.",
)


@dataclass(frozen=True)
class Printed:
    """A network as the paper prints it; "" where its text prints no number."""

    network: str
    of_ceiling: str  # %
    top1: str  # %
    rollout: str  # Spearman


PUBLISHED = (
    Printed("DenseNet121, the most aligned", "38", "", ""),
    Printed("ConvNext, the most accurate", "22", "85.8", ""),
    Printed("BagNet33", "22", "63.0", ""),
    Printed("ViT", "28.7", "", ".393"),
    Printed("ViT, harmonized", "72.6", "+4", ".38"),
)


def where(every: Sequence[Gathered]) -> list[Block]:
    """Of each data set tables, accuracy against alignment, how kinds of maps agree, pictures; then published values."""
    blocks: list[Block] = []
    for one in every:
        names = _names(one)
        blocks += [_table(one, name, folded=name != names[0]) for name in names]
        figure = _against_accuracy(one, names)
        blocks += [figure] if figure is not None else []
        blocks += [_between(one, table) for row, table in one.tables("between").items() if row == PEOPLE]
        pictures = _pictures(one)
        blocks += [pictures] if pictures is not None else []
    return [*blocks, published()] if blocks else []


def published() -> Table:
    """The paper's own values, which are of other images, maps and networks."""
    rows = [
        [
            Cell(text or "–", text or None, published=True)
            for text in (one.network, one.of_ceiling, one.top1, one.rollout)
        ]
        for one in PUBLISHED
    ]  # fmt: skip
    return Table(
        "where_published", "Published values: ClickMe",
        ["", "alignment, % of the ceiling", "ImageNet top-1, %", "rollout, rho"],
        rows,
        "As printed in the text of Fel et al. (NeurIPS 2022): of ClickMe and of the networks named, no result of this "
        "run. They stand beside the run's values as an orientation; other maps have another ceiling. – no number in "
        "the text.",
        notes=CLAIMS,
    )  # fmt: skip


def _names(gathered: Gathered) -> list[str]:
    """The names of the data set's scores: one for each key of its maps."""
    scores = (score for result in gathered.results.values() for score in result.scores)
    return list(dict.fromkeys(one.dataset for one in scores if one.metric in ("where", "centre_bias")))


def _score(gathered: Gathered, row: Row, metric: str, name: str) -> Score | None:
    """The score of a row for one key; accuracy is the same for all keys."""
    result = gathered.results.get(row)
    return next(
        (
            score for score in (result.scores if result is not None else ()) if score.metric == metric
            and (score.dataset == name or metric == "accuracy")
        ), None,
    )  # fmt: skip


def _of_rows(gathered: Gathered, metric: str, name: str) -> dict[Row, Score]:
    found = {row: _score(gathered, row, metric, name) for row in gathered.results}
    return {row: score for row, score in found.items() if score is not None}


def _table(gathered: Gathered, name: str, *, folded: bool) -> Table:
    scales = sorted(
        {
            score.metric for result in gathered.results.values() for score in result.scores
            if score.metric.startswith("where_") and score.metric.endswith("x")
        }, key=lambda metric: int(metric[6:-1]),
    )  # fmt: skip
    columns = {"where": _COLUMNS["where"], **{one: (f"at 1/{one[6:-1]}", 1, 3) for one in scales}, **_COLUMNS}
    found = {metric: _of_rows(gathered, metric, name) for metric in columns}
    shown = [metric for metric in columns if found[metric]]
    centre = _score(gathered, PEOPLE, "centre_bias", name)
    best = {metric: best_of(found[metric].values()) for metric in shown}
    rows: list[list[Cell | str]] = []
    for row in found["where"]:
        line: list[Cell | str] = [row.title]
        for metric in shown:
            score = found[metric].get(row)
            marked = score is not None and score.value == best[metric]
            line.append(score_cell(score, digits=columns[metric][2], scale=columns[metric][1], best=marked))
        rows.append(line)
    halves = _score(gathered, PEOPLE, "split_half", name)
    for title, score in (("centre bias of whole maps (control)", centre), ("people, split halves", halves)):
        if score is not None:
            rows.append([title, *_people_cells(score, shown, columns)])
    header = ["", *(columns[metric][0] for metric in shown)]
    notes = grouped_notes({row: score.note for row, score in found["where"].items()}, len(found["where"]))
    if centre is not None:
        notes.append(f"Centre bias of whole maps, {counted(centre.n, 'map')}: {centre.note}.")
    return Table(
        slug(f"{name} where"), f"Where networks and people look: {name}", header, rows,
        f"{_said(gathered, name, found)} {BOLD}", notes=notes, folded=folded,
    )  # fmt: skip


def _people_cells(
    score: Score, shown: Sequence[str], columns: Mapping[str, tuple[str, int, int]]
) -> list[Cell | str]:
    """A value of people's maps in the columns of correlations: as it is, and of the ceiling where that is known."""
    cells: list[Cell | str] = []
    for metric in shown:
        if metric == "where":
            cells.append(score_cell(score))
        elif metric == "where_of_ceiling" and score.ceiling:
            value, low, high = (
                None if one is None else one / score.ceiling for one in (score.value, score.low, score.high)
            )
            cells.append(spread(value or 0.0, low, high, digits=columns[metric][2], scale=100))
        else:
            cells.append("")
    return cells


def _said(gathered: Gathered, name: str, found: Mapping[str, Mapping[Row, Score]]) -> str:
    scores = found["where"]
    if not scores:
        return "Controls without a network."
    first = next(iter(scores.values()))
    text = (
        f"Spearman's correlation of a network's saliency with people's importance maps, mean over {first.n:,} images, "
        "with 95% intervals over images; at full scale and at 1/4 or 1/16 of width and height where shown."
    )
    over, centres = found["where_over_centre"], _of_rows(gathered, "centre_bias", name)
    if over:
        above = [row for row, score in over.items() if score.value > 0]
        clear = sum((over[row].low or 0) > 0 for row in above)
        values = " and ".join(sorted({f"{centres[row].value:.3f}" for row in over}))
        text += (
            f" The centre bias is the mean of the other images' maps as the network saw them, {values}: {len(above)} "
            f"of {counted(len(over), 'row')} {'is' if len(above) == 1 else 'are'} above it, {clear} with an interval "
            "above 0."
        )
    return f"{text} {moved(scores)}".strip()


def _between(gathered: Gathered, table: Any) -> Table:
    keys = list(dict.fromkeys([*map(str, table["a"]), *map(str, table["b"])]))
    values = {}
    for a, b, *numbers in zip(*(table[name] for name in ("a", "b", "value", "low", "high")), strict=True):
        cell = spread(*(float(number) for number in numbers), digits=2)
        values[str(a), str(b)] = values[str(b), str(a)] = cell
    halves = {key: _score(gathered, PEOPLE, "split_half", f"{gathered.dataset} {key}") for key in keys}
    rows: list[list[Cell | str]] = [
        [one, *(score_cell(halves[one], digits=2) if one == other else values[one, other] for other in keys)]
        for one in keys
    ]
    counts = sorted({int(n) for n in table["n"]})
    n = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    diagonal = " On the diagonal split halves of the raters." if any(halves.values()) else ""
    return Table(
        slug(f"{gathered.dataset} between"), f"How alike people's kinds of maps are: {gathered.dataset}", ["", *keys],
        rows, f"Spearman's correlation of two kinds of maps of the same image, mean over {n} images.{diagonal}",
        folded=len(keys) > 4,
    )  # fmt: skip


def _points(gathered: Gathered, name: str) -> dict[Row, tuple[Score, Score]]:
    """(accuracy, alignment) of each row that has both; alignment in shares of the ceiling where all rows have that."""
    accuracy = _of_rows(gathered, "accuracy", name)
    plain, shares = (_of_rows(gathered, metric, name) for metric in ("where", "where_of_ceiling"))
    alignment = shares if shares.keys() == plain.keys() else plain
    return {row: (accuracy[row], score) for row, score in alignment.items() if row in accuracy}


def _against_accuracy(gathered: Gathered, names: Sequence[str]) -> Figure | None:
    """A panel for each key; None without a row that has both numbers."""
    every = {name: points for name in names if (points := _points(gathered, name))}
    if not every:
        return None
    shown = dict(list(every.items())[:_PANELS])

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(shown), wide=2, height=3.7, more=0.6)
        models = list(dict.fromkeys(row.model for points in shown.values() for row in points))
        for axis, (name, points) in zip(axes, shown.items()):
            _panel(axis, look, gathered, name, points, models)
        name_points(axes[0], look, [row for points in shown.values() for row in points], models)
        legend(drawing, axes[:1], look, columns=3)
        return drawing

    points = next(iter(shown.values()))
    on_front, of = front(points, front_rows(points)), front_of(points)
    ways = []
    for row, (x, y) in points.items():
        start = start_of(points, row)
        if start is not None:
            ways.append(
                f"{row.title} {100 * (x.value - start[0].value):+.1f} points of accuracy, "
                f"{100 * (y.value - start[1].value):+.1f} of alignment ({met(start[1], y)})"
            )
    count = next(iter(points.values()))[0].n
    said = f"On the front: {', '.join(row.title for row in on_front)}."
    said += f" From the original: {'; '.join(ways)}." if ways else ""
    said += (
        f" This is of {names[0]}; shown are {len(shown)} of {len(every)} kinds of maps."
        if len(every) > 1
        else ""
    )
    return Figure(
        slug(f"{gathered.dataset} accuracy alignment"), f"Accuracy against alignment: {gathered.dataset}", draw,
        f"Accuracy on {count:,} images with a label (x) and agreement of saliency with people's maps (y), 95% "
        f"intervals over images; the line is the Pareto front of {of}, arrows lead from a network's original to its "
        f"other selves, dotted is the centre bias. {said}",
        "Scatter of agreement with people's importance maps against accuracy",
    )  # fmt: skip


def _panel(
    axis: Any, look: Look, gathered: Gathered, name: str, points: Points, models: Sequence[str],
) -> None:  # fmt: skip
    shares = next(iter(points.values()))[1].metric == "where_of_ceiling"
    scale = 100 if shares else 1
    scatter(axis, look, points, models, (100, scale))
    ceiling = _of_rows(gathered, "where", name)[next(iter(points))].ceiling if shares else 1.0
    for number, value in enumerate(_centres(gathered, name, points)):
        axis.axhline(scale * value / (ceiling or 1), color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
        if number == 0:
            axis.annotate(
                "centre bias", (0.99, scale * value / (ceiling or 1)), xycoords=("axes fraction", "data"), ha="right",
                va="bottom", color=look.ink, fontsize=FONT - 1,
            )  # fmt: skip
    title = "of the ceiling, %" if shares else "Spearman's rho"
    dress(axis, look, name, x="accuracy, %", y=title)


def _centres(gathered: Gathered, name: str, rows: Mapping[Row, Any]) -> list[float]:
    """The centre bias of what networks saw: one value, or one for each crop."""
    found = _of_rows(gathered, "centre_bias", name)
    return list({f"{found[row].value:.3f}": found[row].value for row in rows if row in found}.values())


def _pictures(gathered: Gathered) -> Pictures | None:
    """A row for each image that was drawn: the photograph, people's map, and each row's."""
    tables = gathered.tables("pictures")
    if not tables:
        return None
    rows = []
    of_image = {
        row: {str(name): place for place, name in enumerate(table["id"])} for row, table in tables.items()
    }
    for name in dict.fromkeys(name for places in of_image.values() for name in places):
        having = {row: (tables[row], places[name]) for row, places in of_image.items() if name in places}
        table, place = next(iter(having.values()))
        line = [(_bytes(table["image"][place]), "photograph")] if _bytes(table["image"][place]) else []
        line.append((_bytes(table["human"][place]), "people"))
        for row, (own, here) in having.items():
            rho = float(own["spearman"][here])
            said = f"{row.title}, {rho:.2f}" if np.isfinite(rho) else f"{row.title}, constant"
            line.append((_bytes(own["model"][here]), said))
        rows.append((f"`{name}`", line))
    key = str(next(iter(tables.values()))["key"][0])
    return Pictures(
        slug(f"{gathered.dataset} maps"), f"Maps of people and networks: {gathered.dataset}", rows,
        f"{counted(len(rows), 'image')}, drawn at random: what the networks saw of them, people's map"
        f"{f' ({key})' if key else ''}, and each network's saliency with its Spearman correlation. Each map has its "
        "own scale from black, 1st percentile, to white, 99th; correlations are of the maps at full scale.",
    )  # fmt: skip


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
