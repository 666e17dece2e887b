"""The page's tables of judged similarities, and the scatter of every setting against the original (figures 6 and 7).

From the scores of the families `rsa`, `rsa_mean`, `nights` and `odd_one_out`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.gathered import SETTINGS, TITLES, Gathered, Row
from alignet.report.representations import dress, figure, file_name

_WIDE = 3  # panels beside each other
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")  # of models
_METRICS = {  # family -> the metric that stands for it, how it is called, what it is multiplied by
    "odd_one_out": ("odd_one_out", "odd-one-out accuracy, %", 100),
    "rsa": ("rsa_spearman", "Spearman's rho", 1),
    "rsa_mean": ("rsa_spearman", "Spearman's rho", 1),
    "nights": ("two_alternatives", "agreement, %", 100),
}


def rsa(gathered: Gathered) -> list[Block]:
    """One table: the correlation of each row with what people judged, its interval and p-value."""
    scores = _by_dataset(gathered, "rsa_spearman")
    ps = _by_dataset(gathered, "rsa_p")
    if not scores:
        return []
    names = list(dict.fromkeys(dataset for found in scores.values() for dataset in found))
    best = {name: max(found[name].value for found in scores.values() if name in found) for name in names}
    rows: list[list[Cell | str]] = [
        [row.title, *(
            cell for name in names for cell in _rsa_cells(found.get(name), ps.get(row, {}).get(name), best[name])
        )]
        for row, found in scores.items()
    ]  # fmt: skip
    mean = gathered.dataset in names and len(names) > 1
    groups = (
        [("", 1), *((_short(name, gathered.dataset, mean), 2) for name in names)] if len(names) > 1 else ()
    )
    main = {row: found[gathered.dataset] for row, found in scores.items() if gathered.dataset in found}
    counts = ", ".join(sorted({f"{score.n:,}" for score in main.values()}))
    notes = list(dict.fromkeys(_after_p(score.note) for score in main.values()))
    return [
        Table(
            file_name(gathered.dataset, "rsa"), f"Similarity judgments: {gathered.dataset}",
            ["", *(title for _ in names for title in ("Spearman's rho [95%]", "p"))], rows,
            f"Spearman's rank correlation of the features' Pearson kernel with people's similarities over {counts} "
            f"pairs; intervals over images, p by relabelling them.{_moved(main, 1, 'rho')}",
            groups, [note for note in notes if note],
        )
    ]  # fmt: skip


def nights(gathered: Gathered) -> list[Block]:
    """One table: how often the picture that people chose is the nearer one, by dot product and by cosine."""
    dots, cosines = gathered.scores("two_alternatives"), gathered.scores("two_alternatives_cosine")
    if not dots:
        return []
    best = [max(score.value for score in scores.values()) for scores in (dots, cosines)]
    rows: list[list[Cell | str]] = [
        [row.title, _cell(dots[row], best[0], 100), _cell(cosines.get(row), best[1], 100)] for row in dots
    ]
    one = next(iter(dots.values()))
    return [
        Table(
            file_name(gathered.dataset, "nights"), f"Two alternatives: {gathered.dataset}",
            ["", "agreement, % [95%]", "by cosine, % [95%]"], rows,
            f"How often the picture that people found more like the reference is the more similar one, over {one.n:,} "
            f"items; chance 50%.{_moved(dots, 100, 'agreement')}",
            notes=[one.note] if one.note else [],
        )
    ]  # fmt: skip


def against_original(gathered: Sequence[Gathered]) -> Figure | None:
    """Every setting's alignment against the original's, a panel for each data set; None without a point.

    Data sets of the families odd_one_out, rsa, rsa_mean and nights count, with rows of models that have an original.
    """
    panels = []
    for one in gathered:
        if one.family in _METRICS:
            points = _points(one)
            if points:
                panels.append((one, points))
    if not panels:
        return None

    def draw(look: Look) -> Any:
        wide = min(_WIDE, len(panels))
        bands = -(-len(panels) // wide)
        drawing = figure(look, 8, 8 / wide * bands + 0.6)
        axes = drawing.subplots(bands, wide, squeeze=False)
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        models = list(dict.fromkeys(row.model for _, points in panels for row, _, _ in points))
        for axis, (one, points) in zip(axes.flat, panels):
            _panel(axis, look, one, points, models)
        _key(drawing, axes.flat[0], look, models, panels)
        return drawing

    above = sum(score.value > original.value for _, points in panels for _, original, score in points)
    total = sum(len(points) for _, points in panels)
    sizes = "; ".join(f"{one.dataset}: {points[0][2].n:,} {points[0][2].unit}" for one, points in panels)
    aligned = [point for _, points in panels for point in points if point[0].setting == "alignet"]
    said = f"{above} of {total} points lie above the diagonal"
    if aligned:
        better = sum(score.value > original.value for _, original, score in aligned)
        said += f", {better} of the {len(aligned)} of AligNet"
    return Figure(
        "against_original", "Each setting against the original", draw,
        "Agreement with people of a model's original features (x) and after each way of changing them (y), a panel for "
        "each data set; bars are 95% intervals, dashed lines chance, dotted ones the noise ceiling where it is known. "
        f"{sizes}. {said}.",
        "Scatter of agreement with people after against before",
    )  # fmt: skip


_Point = tuple[Row, Score, Score]  # a row, its model's original, its own


def _points(gathered: Gathered) -> list[_Point]:
    metric = _METRICS[gathered.family][0]
    scores = {
        row: found[gathered.dataset] for row, found in _by_dataset(gathered, metric).items()
        if gathered.dataset in found
    }  # fmt: skip
    originals = {row.model: score for row, score in scores.items() if row.setting == "original"}
    return [
        (row, originals[row.model], score) for row, score in scores.items()
        if row.setting != "original" and row.model in originals
    ]  # fmt: skip


def _hue(look: Look, setting: str) -> str:
    order = [*SETTINGS[1:], "direct", "global", "glocal"]
    return look.hues[order.index(setting)] if setting in order else look.faint


def _panel(
    axis: Any, look: Look, gathered: Gathered, points: Sequence[_Point], models: Sequence[str]
) -> None:
    _, title, scale = _METRICS[gathered.family]
    for row, original, score in points:
        x, y = scale * original.value, scale * score.value
        for one, other in ((original, "x"), (score, "y")):
            if one.low is not None and one.high is not None:
                ends = [scale * one.low, scale * one.high]
                axis.plot(
                    *((ends, [y, y]) if other == "x" else ([x, x], ends)), color=look.faint, linewidth=1
                )
        axis.plot(
            x, y, _MARKERS[models.index(row.model) % len(_MARKERS)], color=_hue(look, row.setting), markersize=7,
            markeredgecolor=look.paper, zorder=3,
        )  # fmt: skip
    shown = [value for _, *both in points for one in both for value in (one.value, one.low, one.high, one.chance,
             one.ceiling) if value is not None]  # fmt: skip
    low, high = scale * min(shown), scale * max(shown)
    margin = 0.06 * max(high - low, 1e-3 * scale)
    limits = (low - margin, high + margin)
    axis.plot(limits, limits, color=look.faint, linewidth=1, zorder=0)
    chance, ceiling = points[0][2].chance, points[0][2].ceiling
    if chance is not None:
        axis.axhline(scale * chance, color=look.faint, linewidth=1, linestyle="--", zorder=0)
    if ceiling is not None:
        axis.axhline(scale * ceiling, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
    axis.set(xlim=limits, ylim=limits, aspect="equal", xlabel="original", ylabel=title)
    dress(axis, look, gathered.dataset)


def _key(
    drawing: Any, axis: Any, look: Look, models: Sequence[str], panels: Sequence[tuple[Gathered, list]]
) -> None:
    """Colours of settings and, where there are several, markers of models."""
    settings = list(dict.fromkeys(row.setting for _, points in panels for row, _, _ in points))
    handles = [
        axis.plot([], [], "o", color=_hue(look, name), label=TITLES.get(name, name))[0] for name in settings
    ]
    if len(models) > 1:
        handles += [
            axis.plot([], [], _MARKERS[number % len(_MARKERS)], color=look.ink, label=name, linestyle="")[0]
            for number, name in enumerate(models)
        ]
    drawing.legend(
        handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=9, frameon=False,
        labelcolor=look.ink,
    )  # fmt: skip


def _by_dataset(gathered: Gathered, metric: str) -> dict[Row, dict[str, Score]]:
    """The scores of each row by data set: a family that averages sets has several of one metric."""
    found = {
        row: {score.dataset: score for score in result.scores if score.metric == metric}
        for row, result in gathered.results.items()
    }
    return {row: scores for row, scores in found.items() if scores}


def _rsa_cells(score: Score | None, p: Score | None, best: float) -> list[Cell]:
    return [_cell(score, best, 1), Cell("", None) if p is None else Cell(f"{p.value:.3f}", p.value)]


def _cell(score: Score | None, best: float, scale: int) -> Cell:
    if score is None:
        return Cell("")
    digits = 1 if scale == 100 else 3
    text = f"{scale * score.value:.{digits}f}"
    if score.low is not None and score.high is not None:
        text += f" [{scale * score.low:.{digits}f}, {scale * score.high:.{digits}f}]"
    return Cell(text, score.value, score.low, score.high, best=score.value == best)


def _short(name: str, dataset: str, mean: bool) -> str:
    if mean and name == dataset:
        return "mean"
    return name.removeprefix(f"{dataset} ")


def _after_p(note: str) -> str:
    """A note without the p-value, which has its own column."""
    return "; ".join(text for text in note.split("; ") if not text.startswith("p = "))


def _moved(scores: Mapping[Row, Score], scale: int, what: str) -> str:
    """From the original to AligNet, or else UD, of each model, as a sentence; "" where a model has no two of them."""
    said = []
    for model in dict.fromkeys(row.model for row in scores):
        own = {row.setting: score for row, score in scores.items() if row.model == model}
        after = next((setting for setting in ("alignet", "ud") if setting in own), None)
        if "original" in own and after is not None:
            digits = 1 if scale == 100 else 3
            ends = [f"{scale * own[setting].value:.{digits}f}" for setting in ("original", after)]
            said.append(f"{model} {TITLES[after]} {ends[1]} after {ends[0]}")
    return f" The {what}: {'; '.join(said)}." if said else ""
