"""The figures on attacks: survival, tolerance and alignment against accuracy, and alignment against tolerance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alignet.report.blocks import Figure, Look
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import apart, count, counted
from alignet.report.plot_style import FONT, dress, hue_of, legend, line_of, log_norms, panels
from alignet.report.scatter import Points, front, front_of, front_rows, name_points, scatter, start_of

BANDED = 5  # rows whose survival curves have bands; those of more would cover each other
NORMS = {"l2": "l2", "linf": "l-inf"}  # as text
PIXELS = "pixels in [0, 1]"  # in which norms are
BROKEN = "An image is broken if a perturbation was found that changes the network's answer."
FRONT = "Thick grey line: Pareto front of"
CENTRE = "Dotted band: centre bias, lowest to highest row."


def norm_title(gathered: Gathered, node: str) -> str:
    """The norm of a node's attack, as text; "" where no row has the node."""
    for table in gathered.tables("attacks").values():
        for name, norm in zip(table["node"], table["norm"], strict=True):
            if name == node:
                return NORMS[str(norm)]
    return ""


def unit_title(gathered: Gathered) -> str:
    """The unit of the first attack's norms, as text."""
    return f"{norm_title(gathered, 'attack')}, {PIXELS}"


def comparable(gathered: Gathered) -> tuple[str, str, str, float]:
    """In which metric rows compare: its name, its title, its unit and by what values are multiplied.

    The norm, or the root mean square change of a pixel value where networks see different resolutions in l2.
    """
    if norm_title(gathered, "attack") == "l2" and len(resolutions(gathered)) > 1:
        return "tolerance_rms", "RMS pixel change (1/255)", "RMS pixel change, 1/255", 255.0
    return "tolerance", f"tolerance ({unit_title(gathered)})", unit_title(gathered), 1.0


def resolutions(gathered: Gathered) -> list[tuple[int, int]]:
    """(height, width) of what the rows' networks saw, each once."""
    tables = gathered.tables("attacks").values()
    return sorted({(int(one["height"][0]), int(one["width"][0])) for one in tables})


def same_images(tables: Iterable[Mapping[str, Any]]) -> bool:
    """Whether all tables `images` have the same attacked images."""
    tried = [
        {str(name) for name, one in zip(table["id"], table["tried"], strict=True) if one} for table in tables
    ]
    return all(one == tried[0] for one in tried)


def figures(gathered: Gathered) -> list[Figure]:
    """All that the scores allow."""
    tolerance, alignment, accuracy = (
        gathered.scores(metric) for metric in (comparable(gathered)[0], "attack_alignment", "accuracy")
    )
    against = {
        what: {row: (accuracy[row], score) for row, score in scores.items() if row in accuracy}
        for what, scores in (("tolerance", tolerance), ("alignment", alignment))
    }
    both = {row: (tolerance[row], score) for row, score in alignment.items() if row in tolerance}
    found = [_survival(gathered)]
    if against["tolerance"]:
        found.append(
            _against_accuracy(gathered, {what: points for what, points in against.items() if points})
        )
    if both:
        found.append(_trade_off(gathered, both))
    return found


def _survival(gathered: Gathered) -> Figure:
    metric, _, unit, scale = comparable(gathered)
    tables, scores = gathered.tables("survival"), gathered.scores(metric)
    models, banded = list(dict.fromkeys(row.model for row in tables)), len(tables) <= BANDED

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=3.8, more=0.8)
        least = min(float(np.asarray(table["eps"])[1]) for table in tables.values())
        for row, table in tables.items():
            x, y, low, high = (
                np.asarray(table[name], dtype=np.float64) for name in ("eps", "share", "low", "high")
            )
            x = np.concatenate([[0.8 * least], x[1:]])
            if y[-1] == 0:  # no image is left: nothing beyond the last one
                x, y, low, high = (one[: int(np.argmin(y > 0)) + 1] for one in (x, y, low, high))
            colour = hue_of(row.setting, look)
            if banded:
                axes[0].fill_between(
                    x, 100 * low, 100 * high, step="post", color=colour, alpha=0.12, linewidth=0
                )
            axes[0].plot(x, 100 * y, drawstyle="steps-post", color=colour, label=row.title, linewidth=1.6,
                         linestyle=line_of(models.index(row.model), row.setting))  # fmt: skip
        axes[0].axhline(50, color=look.faint, linewidth=0.8, linestyle=":", zorder=0)
        log_norms(axes[0], look)
        axes[0].set_ylim(0, 102)
        dress(
            axes[0],
            look,
            x=f"{norm_title(gathered, 'attack')} norm of the perturbation ({PIXELS})",
            y="images unbroken, %",
        )
        legend(drawing, axes, look, 3)
        return drawing

    most = max(scores, key=lambda row: scores[row].value)
    tied = [row.title for row in scores if row != most and apart(scores[row], scores[most]) is False]
    seen = f"Highest mean: {most.title}, {scale * scores[most].value:.3f} ({unit})"
    seen += f"; its interval overlaps those of {', '.join(tied)}." if tied else "."
    if not same_images(gathered.tables("images").values()):
        seen += " Rows are means over different images, those that each answers right"
        seen += "; the table of tests compares the same images." if has_tests(scores) else "."
    if metric != "tolerance":
        seen += " Curves of different resolutions do not compare."
    bands = "; bands are 95% intervals over images" if banded else ""
    return Figure(
        slug(f"{gathered.dataset} survival"), f"How much must change? {gathered.dataset}", draw,
        f"Share of the attacked images that are unbroken, over {count(scores.values())} images{bands}; a curve crosses "
        f"50% at the median. Unbroken: no perturbation up to this norm was found. {seen}",
        "Survival curves of answers by the norm of the perturbation, for each model and setting",
    )  # fmt: skip


def _against_accuracy(gathered: Gathered, every: Mapping[str, Points]) -> Figure:
    """A panel for tolerance, and one for alignment where there are maps."""
    _, title, _, scale = comparable(gathered)
    models = list(dict.fromkeys(row.model for points in every.values() for row in points))
    centres = _centres(gathered)

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(every), wide=2, height=3.6, more=0.9)
        for axis, (what, points) in zip(axes, every.items()):
            scatter(axis, look, points, models, (100, scale if what == "tolerance" else 1), faint=True)
            if what == "alignment":
                centre_lines(axis, look, centres)
            y = title if what == "tolerance" else "Spearman's rho with people's maps"
            dress(axis, look, what, x="accuracy, %", y=y)
        name_points(axes[0], look, [row for points in every.values() for row in points], models, faint=True)
        legend(drawing, axes[:1], look, columns=3)
        return drawing

    said = " ".join(
        f"On the front of {what}: {', '.join(row.title for row in front(points, front_rows(points)))}."
        for what, points in every.items()
    )
    points = next(iter(every.values()))
    n = counted(next(iter(points.values()))[0].n, "image")
    return Figure(
        slug(f"{gathered.dataset} accuracy attacks"),
        f"{' and '.join(every).capitalize()} against accuracy: {gathered.dataset}", draw,
        f"Accuracy on {n} with a label (x) and {' and '.join(every)} (y), 95% intervals over images. "
        f"{_drawn(points, centres if 'alignment' in every else ())} {said}",
        "Scatter of perturbation tolerance and of adversarial alignment against accuracy",
    )  # fmt: skip


def _trade_off(gathered: Gathered, points: Points) -> Figure:
    """Alignment against tolerance."""
    _, title, _, scale = comparable(gathered)
    models, centres = list(dict.fromkeys(row.model for row in points)), _centres(gathered)

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=4.2, more=0.8)
        scatter(axes[0], look, points, models, (scale, 1), faint=True)
        centre_lines(axes[0], look, centres)
        dress(axes[0], look, x=title, y="Spearman's rho with people's maps")
        name_points(axes[0], look, points, models, faint=True)
        legend(drawing, axes, look, columns=3)
        return drawing

    said = f"On the front: {', '.join(row.title for row in front(points, front_rows(points)))}."
    said += " Differences on the same images are in the table of tests." if has_tests(points) else ""
    return Figure(
        slug(f"{gathered.dataset} tolerance alignment"), f"Alignment against tolerance: {gathered.dataset}", draw,
        "Perturbation tolerance (x) and agreement of perturbations with people's maps (y), 95% intervals over images. "
        f"{_drawn(points, centres)} {said}",
        "Scatter of adversarial alignment against perturbation tolerance",
    )  # fmt: skip


def has_tests(rows: Iterable[Row]) -> bool:
    """Whether a row stands beside its model's original, with which the table of tests compares it."""
    every = list(rows)
    return any(row.setting != "original" and Row(row.model, "original") in every for row in every)


def _drawn(points: Points, centres: Sequence[float]) -> str:
    """What the lines and arrows of a scatter are."""
    said = f"{FRONT} {front_of(points)} (means; intervals are ignored)."
    if any(start_of(points, row) is not None for row in points):
        said += " Arrows: from a network's original to its other training settings."
    return f"{said} {CENTRE}" if centres else said


def _centres(gathered: Gathered) -> list[float]:
    """The centre bias of each row's broken images."""
    return [score.value for score in gathered.scores("attack_centre_bias").values()]


def centre_lines(axis: Any, look: Look, centres: Sequence[float]) -> None:
    """The lowest and the highest centre bias as dotted lines, one where they are equal; none without values."""
    for value in sorted({min(centres), max(centres)}) if centres else ():
        axis.axhline(value, color=look.faint, linewidth=1.2, linestyle=":", zorder=0)
    if centres:
        axis.annotate(
            "centre bias", (0.99, max(centres)), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            color=look.ink, fontsize=FONT - 1,
        )  # fmt: skip
