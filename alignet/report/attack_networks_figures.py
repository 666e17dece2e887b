"""The figures of any networks under attack: survival curves; tolerance, alignment and accuracy against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.attack_figures import CENTRE, FRONT, PIXELS, centre_lines, same_images
from alignet.report.attack_networks_given import Given
from alignet.report.attack_values import Measure
from alignet.report.blocks import Figure, Look
from alignet.report.formatting import apart, counted, met
from alignet.report.network_points import LONG, Network, Points, front, name_points, named, scatter
from alignet.report.network_tables import pairs_of, score_of
from alignet.report.plot_style import LINES, dress, legend, log_norms, panels

OWN_HUES = 8  # networks of which each has a hue of its own; of more, each kind
_KINDS = (0, 2, 4, 6)  # hues of kinds, in their order


def figures(given: Given, networks: Mapping[str, Result], how: Measure) -> list[Figure]:
    """All that the scores allow."""
    accuracy, tolerance, alignment = (
        {name: score for name in networks if (score := score_of(networks[name], metric)) is not None}
        for metric in ("accuracy", how.metric, "attack_alignment")
    )
    found = [_survival(given, networks, how)]
    against = {
        what: _points(accuracy, scores)
        for what, scores in (("tolerance", tolerance), ("alignment", alignment))
    }
    panels_of = {what: points for what, points in against.items() if points}
    if panels_of:
        found.append(_against_accuracy(given, networks, panels_of, how))
    both = _points(tolerance, alignment)
    if both:
        found.append(_trade_off(given, networks, both, how))
    return found


def _points(x: Mapping[str, Score], y: Mapping[str, Score]) -> dict[Network, tuple[Score, Score]]:
    return {Network(name): (x[name], y[name]) for name in x if name in y}


def _kinds(given: Given, look: Look, points: Points) -> list[tuple[str, str, list[Network]]]:
    """A colour and a label for the networks of each group, and for those of none."""
    names = list(given.groups)
    found = [
        (look.hues[_KINDS[place % len(_KINDS)]], name, [row for row in points if row.model in given.groups[name]])
        for place, name in enumerate(names)
    ]  # fmt: skip
    return [
        *found,
        (look.hues[7], "other", [row for row in points if not given.kind(row.model)]),
    ]


def _survival(given: Given, networks: Mapping[str, Result], how: Measure) -> Figure:
    """Of each network; each has a hue where they are few, else its kind has."""
    tables = {name: result.tables["survival"] for name, result in networks.items()}
    groups = list(given.groups)
    title = how.norm_title
    own = len(tables) <= OWN_HUES

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=3.8, more=0.8)
        least = min(float(np.asarray(table["eps"])[1]) for table in tables.values())
        labels: set[str] = set()
        for place, (name, table) in enumerate(tables.items()):
            x, y = (np.asarray(table[column], dtype=np.float64) for column in ("eps", "share"))
            x = np.concatenate([[0.8 * least], x[1:]])
            if y[-1] == 0:  # no image is left: nothing beyond the last one
                x, y = (one[: int(np.argmin(y > 0)) + 1] for one in (x, y))
            kind = given.kind(name)
            number = groups.index(kind) if kind in groups else len(groups)
            label = name if own else kind or "other"
            colour = look.hues[place] if own else look.hues[_KINDS[number % len(_KINDS)] if kind else 7]
            axes[0].plot(
                x, 100 * y, drawstyle="steps-post", color=colour, linestyle=LINES[number % len(LINES)],
                linewidth=1.6 if own else 1.0, alpha=1.0 if own else 0.7, label=label if label not in labels else None,
            )  # fmt: skip
            labels.add(label)
        axes[0].axhline(50, color=look.faint, linewidth=0.8, linestyle=":", zorder=0)
        log_norms(axes[0], look)
        axes[0].set_ylim(0, 102)
        dress(axes[0], look, x=f"{title} norm of the perturbation ({PIXELS})", y="images unbroken, %")
        legend(drawing, axes, look, 3)
        return drawing

    found = {name: score for name in networks if (score := score_of(networks[name], how.metric)) is not None}
    most = max(found, key=lambda name: found[name].value)
    tied = [name for name in found if name != most and apart(found[name], found[most]) is False]
    seen = f"Highest mean: {most}, {how.scale * found[most].value:.3f} ({how.unit})"
    seen += f"; its interval overlaps those of {_listed(tied)}." if tied else "."
    if not same_images(result.tables["images"] for result in networks.values()):
        seen += " Rows are means over different images, those that each answers right"
        seen += "; the table of tests compares the same images." if pairs_of(given.arrows, networks) else "."
    if how.differ and how.norm == "l2":
        seen += " Curves of different resolutions do not compare."
    lines = "" if own else " Colours are kinds of networks."
    return Figure(
        "networks_survival", "How much must change?", draw,
        "Share of the images that count which are unbroken; a curve crosses 50% at the median. Unbroken: no "
        f"perturbation up to this norm was found.{lines} {seen}",
        "Survival curves of answers by the norm of the perturbation, for each network",
    )  # fmt: skip


def _against_accuracy(
    given: Given, networks: Mapping[str, Result], every: Mapping[str, Points], how: Measure
) -> Figure:
    """A panel for tolerance, and one for alignment where there are maps."""

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, len(every), wide=1 if long else 2, height=3.7, more=0.5)
        named_in = []
        for axis, (what, points) in zip(axes, every.items()):
            scales = (100.0, how.scale if what == "tolerance" else 1.0)
            scatter(axis, look, points, scales, _kinds(given, look, points), given.arrows)
            named_in.append((axis, points, scales, names[what]))
            if what == "alignment":
                centre_lines(axis, look, centres)
            axis.margins(x=0.15, y=0.1)
            axis.set_xlim(right=min(axis.get_xlim()[1], 102))
            y = how.title if what == "tolerance" else "Spearman's rho with people's maps"
            dress(axis, look, what, x="accuracy, %", y=y)
        legend(drawing, axes[:1], look, columns=4)
        name_points(drawing, look, named_in)
        return drawing

    centres = _centres(networks)
    names = {what: named(points, given.arrows, few=len(every) > 1) for what, points in every.items()}
    long = max(len(row.title) for rows in names.values() for row in rows) > LONG
    fewer = any(len(names[what]) < len(points) for what, points in every.items())
    said = " ".join(
        f"On the front of {what}: {_listed([row.title for row in front(points)])}."
        for what, points in every.items()
    )
    n = counted(next(iter(next(iter(every.values())).values()))[0].n, "image")
    return Figure(
        "networks_accuracy", f"{' and '.join(every).capitalize()} against accuracy", draw,
        f"Accuracy on {n} with a label (x) and {' and '.join(every)} (y), 95% intervals over images. "
        f"{_drawn(given, centres if 'alignment' in every else ())} {said}{_ways(given, every, how)} {_named(fewer)}",
        "Scatter of perturbation tolerance and of adversarial alignment against accuracy",
    )  # fmt: skip


def _trade_off(given: Given, networks: Mapping[str, Result], points: Points, how: Measure) -> Figure:
    """Alignment against tolerance."""

    def draw(look: Look) -> Any:
        drawing, axes = panels(look, 1, wide=1, height=4.2, more=0.5)
        scatter(axes[0], look, points, (how.scale, 1.0), _kinds(given, look, points), given.arrows)
        centre_lines(axes[0], look, centres)
        axes[0].margins(x=0.15, y=0.1)
        dress(axes[0], look, x=how.title, y="Spearman's rho with people's maps")
        legend(drawing, axes, look, columns=4)
        name_points(drawing, look, [(axes[0], points, (how.scale, 1.0), names)])
        return drawing

    centres, names = _centres(networks), named(points, given.arrows)
    return Figure(
        "networks_trade_off", "Alignment against tolerance", draw,
        "Perturbation tolerance (x) and agreement of perturbations with people's maps (y), 95% intervals over images. "
        f"{_drawn(given, centres)} On the front: {_listed([row.title for row in front(points)])}. "
        f"{_named(len(names) < len(points))}",
        "Scatter of adversarial alignment against perturbation tolerance",
    )  # fmt: skip


def _drawn(given: Given, centres: Sequence[float]) -> str:
    """What the lines and arrows of a scatter are."""
    said = f"{FRONT} all networks (means; intervals are ignored)."
    said += " Arrows: from a network to its other training setting, as given." if given.arrows else ""
    return f"{said} {CENTRE}" if centres else said


def _named(fewer: bool) -> str:
    """Which networks have a name beside their points."""
    if fewer:
        return "Named are the networks on the front and at arrows, where there is room; the table has all."
    return "Networks are named where there is room; the table has all."


def _listed(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _ways(given: Given, every: Mapping[str, Points], how: Measure) -> str:
    """What the arrows show, in words."""
    said = []
    for start, end in given.arrows:
        parts: list[str] = []
        for what, points in every.items():
            if Network(start) in points and Network(end) in points:
                (x0, y0), (x1, y1) = points[Network(start)], points[Network(end)]
                scale = how.scale if what == "tolerance" else 1.0
                if not parts:
                    parts.append(f"{100 * (x1.value - x0.value):+.1f} points of accuracy ({met(x0, x1)})")
                parts.append(f"{scale * (y1.value - y0.value):+.3f} of {what} ({met(y0, y1)})")
        if parts:
            said.append(f" From {start} to {end}: {', '.join(parts)}.")
    return "".join(said)


def _centres(networks: Mapping[str, Result]) -> list[float]:
    """The centre bias of each network's broken images."""
    found = (score_of(result, "attack_centre_bias") for result in networks.values())
    return [score.value for score in found if score is not None]
