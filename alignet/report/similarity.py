"""The page's tables of judged similarities, and the scatter of every setting against the original (figures 6 and 7).

From the scores of the families `rsa`, `rsa_mean`, `nights` and `odd_one_out`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import (
    BOLD,
    apart,
    best_of,
    counted,
    grouped_notes,
    moved,
    score_cell,
    setting_title,
)
from alignet.report.plot_style import FONT, WIDTH, dress, hue_of, in_order, marker_of, panels

_WIDE = 3  # panels beside each other
_METRICS = {  # family -> the metric that stands for it, how it is called, what it is multiplied by
    "odd_one_out": ("odd_one_out", "odd-one-out accuracy, %", 100),
    "rsa": ("rsa_spearman", "Spearman's rho", 1),
    "rsa_mean": ("rsa_spearman", "Spearman's rho", 1),
    "nights": ("two_alternatives", "agreement, %", 100),
}


def rsa(every: Sequence[Gathered]) -> list[Block]:
    """One table of all data sets: the correlation of each row with what people judged, its interval and p-value.

    Of a family that averages sets, each set has columns of its own before the mean.
    """
    scores, ps = _of_all(every, "rsa_spearman"), _of_all(every, "rsa_p")
    if not scores:
        return []
    names = list(dict.fromkeys(dataset for found in scores.values() for dataset in found))
    best = {name: best_of(found[name] for found in scores.values() if name in found) for name in names}
    rows: list[list[Cell | str]] = [
        [row.title, *(
            cell for name in names for cell in _rsa_cells(found.get(name), ps.get(row, {}).get(name), best[name])
        )]
        for row, found in scores.items()
    ]  # fmt: skip
    main = [one.dataset for one in every if one.dataset in names]
    columns = {name: {row: found[name] for row, found in scores.items() if name in found} for name in names}
    sizes = ", ".join(f"{name} {next(iter(columns[name].values())).n:,}" for name in main)
    notes = []
    for name in main:
        found = {row: _after_p(score.note) for row, score in columns[name].items()}
        notes += [f"{name}: {note}" for note in grouped_notes(found, len(found))]
    told = moved(columns[main[0]]) if len(main) == 1 else _counted([columns[name] for name in main])
    return [
        Table(
            slug(f"{main[0] if len(every) == 1 else 'all'} rsa"),
            f"Rank correlation with judged similarities: {', '.join(main)}",
            ["", *(title for _ in names for title in ("Spearman's rho [95%]", "p"))], rows,
            "Spearman's rank correlation of the features' Pearson kernel with people's similarities; intervals over "
            f"images, p by relabelling them. Pairs: {sizes}. {BOLD} {told}".strip(),
            [("", 1), *((_short(name, main), 2) for name in names)] if len(names) > 1 else (), notes,
        )
    ]  # fmt: skip


def nights(gathered: Gathered) -> list[Block]:
    """One table: how often the picture that people chose is the nearer one, by dot product and by cosine."""
    dots, cosines = gathered.scores("two_alternatives"), gathered.scores("two_alternatives_cosine")
    if not dots:
        return []
    best = [best_of(scores.values()) for scores in (dots, cosines)]
    rows: list[list[Cell | str]] = [
        [row.title, _percent(dots[row], best[0]), _percent(cosines.get(row), best[1])] for row in dots
    ]
    one = next(iter(dots.values()))
    return [
        Table(
            slug(f"{gathered.dataset} nights"), f"Two alternatives: {gathered.dataset}",
            ["", "agreement, % [95%]", "by cosine, % [95%]"], rows,
            f"How often the picture that people found more like the reference is the more similar one, over {one.n:,} "
            f"items; chance 50%. {BOLD} {moved(dots, digits=1, scale=100)}",
            notes=[one.note] if one.note else [],
        )
    ]  # fmt: skip


def against_original(gathered: Sequence[Gathered]) -> Figure | None:
    """Every setting's alignment against the original's, a panel for each data set; None without a point.

    Data sets of the families odd_one_out, rsa, rsa_mean and nights count, with rows of models that have an original; of
    rsa_mean each of the sets that are averaged, and their mean.
    """
    shown = [shown for one in gathered if one.family in _METRICS for shown in _shown(one)]
    if not shown:
        return None

    def draw(look: Look) -> Any:
        side = WIDTH / min(_WIDE, len(shown))
        drawing, axes = panels(look, len(shown), wide=_WIDE, height=side, more=0.6)
        models = list(dict.fromkeys(row.model for one in shown for row, _, _ in one.points))
        for axis, one in zip(axes, shown):
            _panel(axis, look, one, models)
        _key(drawing, axes[0], look, models, shown)
        return drawing

    every = [point for one in shown for point in one.points]
    above = sum(score.value > original.value for _, original, score in every)
    sizes = "; ".join(f"{one.title}: {one.points[0][2].n:,} {one.points[0][2].unit}" for one in shown)
    aligned = [point for point in every if point[0].setting == "alignet"]
    said = f"{above} of {counted(len(every), 'point')} {'lies' if above == 1 else 'lie'} above the diagonal"
    if aligned:
        better = sum(score.value > original.value for _, original, score in aligned)
        clear = sum(
            score.value > original.value and apart(score, original) is True for _, original, score in aligned
        )
        said += f", {better} of the {len(aligned)} of AligNet ({clear} with intervals apart)"
    return Figure(
        "against_original", "Each setting against the original", draw,
        "Agreement with people of a model's original features (x) and after each way of changing them (y), a panel for "
        "each data set; bars are 95% intervals, dashed lines chance, dotted ones the noise ceiling where it is known. "
        f"{sizes}. {said}.",
        "Scatter of agreement with people after against before",
    )  # fmt: skip


_Point = tuple[Row, Score, Score]  # a row, its model's original, its own


@dataclass(frozen=True)
class _Shown:
    """A panel of the scatter: one data set's points."""

    title: str
    family: str
    points: Sequence[_Point]


def _shown(gathered: Gathered) -> list[_Shown]:
    """The panels of an evaluation: one for each data set of its scores that has a point."""
    by_row = _by_dataset(gathered, _METRICS[gathered.family][0])
    names = list(dict.fromkeys(name for found in by_row.values() for name in found))
    panels_of = []
    for name in names:
        title = f"{name}, mean" if name == gathered.dataset and len(names) > 1 else name
        points = _points({row: found[name] for row, found in by_row.items() if name in found})
        if points:
            panels_of.append(_Shown(title, gathered.family, points))
    return panels_of


def _points(scores: Mapping[Row, Score]) -> list[_Point]:
    originals = {row.model: score for row, score in scores.items() if row.setting == "original"}
    return [
        (row, originals[row.model], score) for row, score in scores.items()
        if row.setting != "original" and row.model in originals
    ]  # fmt: skip


def _panel(axis: Any, look: Look, shown: _Shown, models: Sequence[str]) -> None:
    _, title, scale = _METRICS[shown.family]
    points = shown.points
    for row, original, score in points:
        x, y = scale * original.value, scale * score.value
        for one, other in ((original, "x"), (score, "y")):
            if one.low is not None and one.high is not None:
                ends = [scale * one.low, scale * one.high]
                axis.plot(
                    *((ends, [y, y]) if other == "x" else ([x, x], ends)), color=look.faint, linewidth=1
                )
        axis.plot(
            x, y, marker_of(models.index(row.model)), color=hue_of(row.setting, look), markersize=7,
            markeredgecolor=look.paper, zorder=3,
        )  # fmt: skip
    ends = [value for _, *both in points for one in both for value in (one.value, one.low, one.high, one.chance,
            one.ceiling) if value is not None]  # fmt: skip
    low, high = scale * min(ends), scale * max(ends)
    margin = 0.06 * max(high - low, 1e-3 * scale)
    limits = (low - margin, high + margin)
    axis.plot(limits, limits, color=look.faint, linewidth=1, zorder=0)
    chance, ceiling = points[0][2].chance, points[0][2].ceiling
    if chance is not None:
        axis.axhline(scale * chance, color=look.faint, linewidth=1, linestyle="--", zorder=0)
    if ceiling is not None:
        axis.axhline(scale * ceiling, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    dress(axis, look, shown.title, x="original", y=title)


def _key(drawing: Any, axis: Any, look: Look, models: Sequence[str], shown: Sequence[_Shown]) -> None:
    """Colours of settings and, where there are several, markers of models."""
    settings = in_order(row.setting for one in shown for row, _, _ in one.points)
    handles = [
        axis.plot([], [], "o", color=hue_of(name, look), label=setting_title(name))[0] for name in settings
    ]
    if len(models) > 1:
        handles += [
            axis.plot([], [], marker_of(number), color=look.faint, label=name, linestyle="")[0]
            for number, name in enumerate(models)
        ]
    drawing.legend(
        handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=FONT, frameon=False,
        labelcolor=look.ink,
    )  # fmt: skip


def _of_all(every: Sequence[Gathered], metric: str) -> dict[Row, dict[str, Score]]:
    """The scores of each row by data set, over all results together."""
    found: dict[Row, dict[str, Score]] = {}
    for one in every:
        for row, scores in _by_dataset(one, metric).items():
            found.setdefault(row, {}).update(scores)
    return found


def _by_dataset(gathered: Gathered, metric: str) -> dict[Row, dict[str, Score]]:
    """The scores of each row by data set: a family that averages sets has several of one metric."""
    found = {
        row: {score.dataset: score for score in result.scores if score.metric == metric}
        for row, result in gathered.results.items()
    }
    return {row: scores for row, scores in found.items() if scores}


def _rsa_cells(score: Score | None, p: Score | None, best: float | None) -> list[Cell]:
    cell = score_cell(score, best=score is not None and score.value == best)
    return [cell, Cell("") if p is None else Cell(f"{p.value:.3f}", p.value)]


def _percent(score: Score | None, best: float | None) -> Cell:
    return score_cell(score, digits=1, scale=100, best=score is not None and score.value == best)


def _counted(columns: Sequence[Mapping[Row, Score]]) -> str:
    """In how many data sets each setting of a model correlates better than its original, and for how many surely."""
    said = []
    for row in dict.fromkeys(row for found in columns for row in found):
        start = Row(row.model, "original")
        pairs = [(found[start], found[row]) for found in columns if start in found and row in found]
        if row != start and pairs:
            up = [(one, other) for one, other in pairs if other.value > one.value]
            clear = sum(apart(one, other) is True for one, other in up)
            said.append(f"{row.title} {len(up)} of {len(pairs)} ({clear} with intervals apart)")
    return f"Higher than the original: {'; '.join(said)}." if said else ""


def _short(name: str, main: Sequence[str]) -> str:
    """A column's title: of the parts of one data set, their own names and `mean`."""
    if len(main) > 1:
        return name
    return "mean" if name == main[0] else name.removeprefix(f"{main[0]} ")


def _after_p(note: str) -> str:
    """A note without the p-value, which has its own column."""
    return "; ".join(text for text in note.split("; ") if not text.startswith("p = "))
