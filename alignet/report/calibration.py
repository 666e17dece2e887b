"""The page's figures of calibration: reliability curves of every setting, and how the result hangs on the temperature.

From the scores and tables of the family `calibration`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.gathered import TITLES, Gathered, Row
from alignet.report.representations import dress, figure, file_name, legend

_WIDE = 2  # panels beside each other
_SCORES = {  # metric -> title of its column
    "calibration_error": "calibration error", "calibration_error_spread": "at tau = spread",
    "choice_nll": "-log q of choices, nats", "kl_to_people": "KL from people, nats",
    "entropy_rho": "entropies, rho",
}  # fmt: skip


def calibration(gathered: Gathered) -> list[Block]:
    """The scores with their temperatures, the reliability curves, and the curves over temperatures."""
    if not gathered.scores("calibration_error"):
        return []
    return [_table(gathered), _reliability(gathered), _temperatures(gathered)]


def _table(gathered: Gathered) -> Table:
    scores = {metric: gathered.scores(metric) for metric in _SCORES}
    shown = [metric for metric, found in scores.items() if found]
    fits = gathered.tables("fits")
    best = {
        metric: (max if metric == "entropy_rho" else min)(score.value for score in scores[metric].values())
        for metric in shown
    }
    rows = []
    for row in scores["calibration_error"]:
        taus = ", ".join(f"{value:.4g}" for value in np.asarray(fits[row]["tau"])) if row in fits else ""
        cells: list[Cell | str] = [row.title, taus]
        for metric in shown:
            score = scores[metric].get(row)
            if score is None:
                cells.append("")
                continue
            text = f"{score.value:.3f}"
            if score.low is not None and score.high is not None:
                text += f" [{score.low:.3f}, {score.high:.3f}]"
            cells.append(Cell(text, score.value, score.low, score.high, best=score.value == best[metric]))
        rows.append(cells)
    errors = scores["calibration_error"]
    least = min(errors, key=lambda row: errors[row].value)
    count = next(iter(errors.values())).n
    return Table(
        file_name(gathered.dataset, "calibration"), f"Calibration: {gathered.dataset}",
        ["", "tau", *(_SCORES[metric] for metric in shown)], rows,
        f"Expected calibration error of the likeliest answer over {count:,} triplets, and what the probabilities say "
        f"of the choices; intervals over {next(iter(errors.values())).over}. {least.title} has the smallest error, "
        f"{errors[least].value:.3f}; features that are never sure err little too, so read it beside -log q.",
        notes=[f"{row.title}: {score.note}" for row, score in errors.items()],
    )  # fmt: skip


def _by_model(rows: Sequence[Row]) -> dict[str, list[Row]]:
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(row.model, []).append(row)
    return models


def _panels(look: Look, models: Mapping[str, Sequence[Row]], height: float) -> tuple[Any, list[Any]]:
    wide = min(_WIDE, len(models))
    bands = -(-len(models) // wide)
    drawing = figure(look, 8, height * bands + 0.5)
    axes = list(drawing.subplots(bands, wide, squeeze=False).flat)
    for axis in axes[len(models) :]:
        axis.set_axis_off()
    return drawing, axes


def _reliability(gathered: Gathered) -> Figure:
    tables = gathered.tables("reliability")
    models = _by_model(list(tables))

    def draw(look: Look) -> Any:
        drawing, axes = _panels(look, models, 3.8)
        for axis, (model, rows) in zip(axes, models.items()):
            axis.plot([1 / 3, 1], [1 / 3, 1], color=look.faint, linewidth=1)
            for number, row in enumerate(rows):
                _curve(axis, look.hues[number % len(look.hues)], row, tables[row])
            axis.set(xlabel="mean probability of the likeliest answer", ylabel="share chosen by people")
            dress(axis, look, model)
            _own_legend(axis, look)
        return drawing

    count = next(iter(gathered.scores("calibration_error").values())).n
    said = []
    for row, table in tables.items():
        used = _used(table)
        weights = np.asarray(table["count"])[used]
        gap = np.average(
            (np.asarray(table["confidence"]) - np.asarray(table["accuracy"]))[used], weights=weights
        )
        said.append(f"{row.title} is {'more' if gap > 0 else 'less'} sure than right by {abs(gap):.3f}")
    return Figure(
        file_name(gathered.dataset, "reliability"), "Is a probability of 0.8 right in 8 of 10?", draw,
        f"How often people chose the features' likeliest answer, by the probability that the features gave it, over "
        f"{count:,} triplets; bars are 95% intervals, the area of a point grows with its triplets. On the diagonal "
        f"probabilities are true. On average {'; '.join(said)}.",
        "Reliability curves by setting",
    )  # fmt: skip


def _used(table: Columns) -> np.ndarray:
    return np.asarray(table["temperature"], dtype=object) == "used"


def _curve(axis: Any, colour: str, row: Row, table: Columns) -> None:
    used = _used(table)
    x, y, low, high, count = (
        np.asarray(table[name], dtype=np.float64)[used]
        for name in ("confidence", "accuracy", "accuracy_low", "accuracy_high", "count")
    )
    axis.plot(x, y, color=colour, linewidth=1.3, label=TITLES.get(row.setting, row.setting))
    axis.vlines(x, low, high, color=colour, linewidth=1, alpha=0.6)
    axis.scatter(x, y, s=6 + 60 * count / count.sum(), color=colour, zorder=3)


def _own_legend(axis: Any, look: Look) -> None:
    """Models need not have the same settings, so each panel has its own legend."""
    axis.legend(fontsize=9, frameon=False, labelcolor=look.ink)


def _temperatures(gathered: Gathered) -> Figure:
    tables, fits = gathered.tables("temperature"), gathered.tables("fits")
    columns = {"calibration_error": "calibration error", "choice_nll": "-log q of choices, nats"}

    def draw(look: Look) -> Any:
        drawing = figure(look, 8, 3.9)
        axes = drawing.subplots(1, 2)
        for axis, (column, title) in zip(axes, columns.items()):
            for number, (row, table) in enumerate(tables.items()):
                colour = look.hues[number % len(look.hues)]
                x, y = np.asarray(table["tau_over_spread"]), np.asarray(table[column])
                axis.plot(x, y, color=colour, linewidth=1.4, label=row.title,
                          linestyle=("-", "--", "-.", ":")[number // len(look.hues) % 4])  # fmt: skip
                at = np.asarray(fits[row]["tau_over_spread"], dtype=np.float64) if row in fits else x[:0]
                at = at[(at >= x.min()) & (at <= x.max())]
                axis.plot(at, np.interp(np.log(at), np.log(x), y), "o", color=colour, markersize=5)
            axis.set(xscale="log", xlabel="tau / spread of the similarities", ylabel=title)
            if column == "choice_nll":  # sharp temperatures are worse without bound
                axis.axhline(np.log(3), color=look.faint, linewidth=1, linestyle="--")
                axis.set_ylim(top=min(axis.get_ylim()[1], 2.5))
            dress(axis, look)
        legend(drawing, axes[0], look, 4)
        return drawing

    said = []
    for row, table in tables.items():
        errors, at = np.asarray(table["calibration_error"]), np.asarray(table["tau_over_spread"])
        said.append(
            f"{row.title} {errors.min():.3f} (at {at[errors.argmin()]:.3g} of the spread) to {errors.max():.3f}"
        )
    return Figure(
        file_name(gathered.dataset, "temperature"), "How the result hangs on the temperature", draw,
        "Calibration error and mean -log q of the choices over temperatures in units of the spread of each setting's "
        "own similarities; points are the temperatures that the table above uses, dashed is ln 3. The error of "
        f"{'; '.join(said)}.",
        "Calibration error and likelihood over temperatures",
    )  # fmt: skip
