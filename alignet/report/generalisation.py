"""The page's section on generalisation: few-shot accuracy, BREEDS, the ImageNet probe carried to other test sets.

What evaluate/families/generalisation.py measured -> bars of each data set, and over all of them
scatters, changes, corruptions. The tests between methods are in alignet.report.significance_table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.report.blocks import Block, Cell, Figure, Look, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug
from alignet.report.formatting import BOLD, apart, best_of, count, counted, score_cell, setting_title
from alignet.report.plot_style import dress, errors, hue_of, in_order, legend, marker_of, name_ticks, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Parts = Mapping[str, Mapping[Row, Score]]  # title of a test (1-shot, V2, other subclasses) -> row -> score
Pairs = dict[tuple[str, str, str], tuple[Score, Score]]  # (test, data set, model) -> (before, after)
BREEDS = {"breeds": "other subclasses", "breeds_source": "the same subclasses"}


def parts(gathered: Gathered) -> dict[str, dict[Row, Score]]:
    """The scores of an evaluation of this section by what was tested, each by row, in their own order."""
    found: dict[str, dict[Row, Score]] = {}
    for row, result in gathered.results.items():
        for score in result.scores:
            if score.metric in BREEDS:
                found.setdefault(BREEDS[score.metric], {})[row] = score
            elif score.metric in ("few_shot", "transfer"):
                found.setdefault(score.dataset.removeprefix(gathered.dataset).strip(), {})[row] = score
    return found


def few_shot(gathered: Gathered) -> list[Block]:
    """Bars of each shot number, and their numbers (the paper's figure 12)."""
    return _bars_and_numbers(
        gathered, "few_shot", "few-shot accuracy", "the mean over draws of the training images"
    )


def breeds(gathered: Gathered) -> list[Block]:
    """Bars on other and on the same subclasses, and their numbers (the paper's figure 4B)."""
    return _bars_and_numbers(gathered, "breeds", "superclasses of BREEDS", "subclasses and over images")


def transfer(gathered: Gathered) -> list[Block]:
    """Bars on each test set, the mean change, and ImageNet-C by corruption (the paper's figures 4C and 13)."""
    blocks = _bars_and_numbers(gathered, "transfer", "a linear probe of ImageNet carried over", "images")
    if gathered.tables("corruptions"):
        blocks.append(corruption_table(gathered))
    return blocks


def _bars_and_numbers(gathered: Gathered, name: str, what: str, over: str) -> list[Block]:
    found = parts(gathered)
    counts = ", ".join(f"{title} {count(scores.values())}" for title, scores in found.items())
    caption = (
        f"{gathered.dataset}: {what}, in %, with 95% intervals over {over}; dashed: chance. Test images: {counts}. "
        f"{change_sentence([gathered])}"
    )
    alt = f"Bars of accuracy on {gathered.dataset} for each model and setting"
    title = f"{gathered.dataset}: {what}"
    return [
        Figure(
            f"{name}_{slug(gathered.dataset)}", title, lambda look: _bars(found, look), caption.strip(), alt
        ),
        _numbers(gathered, found, f"{name}_{slug(gathered.dataset)}_numbers", title),
    ]


def _numbers(gathered: Gathered, found: Parts, name: str, title: str) -> Table:
    rows = [row for row in gathered.results if any(row in scores for scores in found.values())]
    lines: list[list[Cell | str]] = []
    for row in rows:
        cells: list[Cell | str] = [row.model, setting_title(row.setting)]
        for scores in found.values():
            best = best_of(scores.values())
            one = scores.get(row)
            cells.append(score_cell(one, digits=1, scale=100, best=one is not None and one.value == best))
        lines.append(cells)
    notes = sorted({score.note for scores in found.values() for score in scores.values() if score.note})
    caption = f"Accuracy in % [95% interval]. {BOLD}"
    return Table(
        name, f"{title}, in numbers", ["model", "setting", *found], lines, caption, notes=notes, folded=True
    )


def corruption_table(gathered: Gathered) -> Table:
    """ImageNet-C: a line for each corruption, its mean over severities and the least and most severe, for each row."""
    tables = gathered.tables("corruptions")
    names = sorted({str(name) for table in tables.values() for name in table["corruption"]})
    lines: list[list[Cell | str]] = []
    for name in names:
        cells: list[Cell | str] = [name.replace("_", " ")]
        for table in tables.values():
            mine = np.array([str(one) == name for one in table["corruption"]])
            accuracy = np.asarray(table["accuracy"])[mine]
            order = np.argsort(np.asarray(table["severity"])[mine])
            mean = float(accuracy.mean()) if len(accuracy) else None
            ends = (
                f" ({100 * accuracy[order[0]]:.1f} to {100 * accuracy[order[-1]]:.1f})"
                if len(accuracy) > 1
                else ""
            )
            cells.append("" if mean is None else Cell(f"{100 * mean:.1f}{ends}", mean))
        lines.append(cells)
    images = sum(int(np.sum(table["images"])) for table in tables.values()) // len(tables)
    caption = (
        f"Accuracy in % on ImageNet-C by corruption: mean over severities (from the least to the most severe), "
        f"{images:,} images in all, not divided by another network's error."
    )
    header = ["corruption", *(row.title for row in tables)]
    return Table(
        f"corruptions_{slug(gathered.dataset)}", f"{gathered.dataset}: corruptions", header, lines, caption
    )


def before_after(every: Sequence[Gathered], *, before: str = "original", after: str = "alignet") -> Figure:
    """Few-shot accuracy before against after, a point for each model and data set (the paper's figures 4A, 12, 15B)."""
    pairs = _pairs([one for one in every if one.family == "few_shot"], before, after)
    if not pairs:
        raise ValueError(
            f"expected few-shot scores in the settings {before} and {after}, found none; evaluate both"
        )
    titles = list(dict.fromkeys(title for title, _, _ in pairs))
    said = []
    for title in titles:
        both = [pair for (one, _, _), pair in pairs.items() if one == title]
        up, far = sum(b.value > a.value for a, b in both), sum(apart(a, b) is True for a, b in both)
        mean = np.mean([b.value - a.value for a, b in both])
        said.append(
            f"{title}: {up} of {len(both)} above, {100 * mean:+.1f} points on average, {far} with intervals apart"
        )
    caption = (
        f"Few-shot accuracy in % of each model (colour) on each data set (shape), {setting_title(after)} (y) against "
        f"{setting_title(before)} (x), n = {counted(len(pairs), 'point')}; above the diagonal is better, axes "
        f"begin where the points do. {'; '.join(said)}."
    )
    return Figure(
        f"few_shot_{before}_{after}", f"Few-shot accuracy, {setting_title(after)} against {setting_title(before)}",
        lambda look: _scatter(pairs, titles, before, after, look), caption,
        f"Scatter of few-shot accuracy in the setting {after} against {before}",
    )  # fmt: skip


def changes(
    every: Sequence[Gathered],
    family: str,
    *,
    before: str = "original",
    after: str = "alignet",
    name: str = "",
) -> Figure:
    """Bars of the change on each data set and test, in percentage points (the paper's figures 4B and 13)."""
    chosen = [one for one in every if one.family == family]
    pairs = _pairs(chosen, before, after)
    if not pairs:
        raise ValueError(
            f"expected {family} scores in the settings {before} and {after}, found none; evaluate both"
        )
    caption = (
        f"Change of accuracy from {setting_title(before)} to {setting_title(after)} in percentage points, on each "
        f"test of each model. {change_sentence(chosen, before=before, after=after)}"
    )
    return Figure(
        name or f"{family}_changes_{before}_{after}", f"Change from {setting_title(before)} to {setting_title(after)}",
        lambda look: _change_bars(pairs, look), caption, f"Bars of the change of accuracy, {before} to {after}",
    )  # fmt: skip


def change_sentence(every: Sequence[Gathered], *, before: str = "original", after: str = "alignet") -> str:
    """How many tests of all models rise, and by how much on average; '' where no model has both settings."""
    pairs = _pairs(every, before, after)
    if not pairs:
        return ""
    values = np.array([b.value - a.value for a, b in pairs.values()])
    far = sum(apart(a, b) is True for a, b in pairs.values())
    return (
        f"From {setting_title(before)} to {setting_title(after)} {int((values > 0).sum())} of {len(values)} "
        f"{'test rises' if len(values) == 1 else 'tests rise'}, {100 * values.mean():+.1f} points on average; "
        f"in {far} the 95% intervals are apart."
    )


def _pairs(every: Sequence[Gathered], before: str, after: str) -> Pairs:
    """(test, data set, model) -> (before, after), where a model has both."""
    found = {}
    for gathered in every:
        for title, scores in parts(gathered).items():
            for row, score in scores.items():
                other = scores.get(Row(row.model, after))
                if row.setting == before and other is not None:
                    found[title, gathered.dataset, row.model] = (score, other)
    return found


def _bars(found: Parts, look: Look) -> Drawing:
    """A panel for each test: models side by side, settings as bars with intervals."""
    figure, axes = panels(look, len(found), wide=3, height=2.6)
    for ax, (title, scores) in zip(axes, found.items()):
        models = list(dict.fromkeys(row.model for row in scores))
        settings = in_order(row.setting for row in scores)
        width = 0.8 / len(settings)
        for number, setting in enumerate(settings):
            here = [
                (models.index(row.model), score) for row, score in scores.items() if row.setting == setting
            ]
            x = [place + (number - (len(settings) - 1) / 2) * width for place, _ in here]
            ax.bar(
                x, [100 * score.value for _, score in here], 0.9 * width, label=setting_title(setting),
                color=hue_of(setting, look), yerr=errors([score for _, score in here], 100), ecolor=look.ink,
            )  # fmt: skip
        chance = next((score.chance for score in scores.values() if score.chance is not None), None)
        if chance is not None:
            ax.axhline(100 * chance, color=look.faint, linestyle="--", linewidth=1)
        name_ticks(ax, models)
        top = max(100 * (score.high or score.value) for score in scores.values())
        ax.set_ylim(0, min(103, 1.1 * top + 1))
        dress(ax, look, f"{title} (n = {count(scores.values())})", y="accuracy, %" if ax is axes[0] else "")
    legend(figure, axes, look)
    return figure


def _scatter(
    pairs: Pairs,
    titles: Sequence[str],
    before: str,
    after: str,
    look: Look,
) -> Drawing:
    figure, axes = panels(look, len(titles), wide=2, height=3.9)
    datasets = list(dict.fromkeys(dataset for _, dataset, _ in pairs))
    models = list(dict.fromkeys(model for _, _, model in pairs))
    for ax, title in zip(axes, titles):
        shown = [100 * score.value for (one, _, _), both in pairs.items() if one == title for score in both]
        margin = max(0.08 * (max(shown) - min(shown)), 0.5)  # percentage points
        limits = (min(shown) - margin, min(max(shown) + margin, 100.1))  # no ticks beyond 100
        ax.plot(limits, limits, color=look.faint, linewidth=1, zorder=0)
        for (one, dataset, model), (a, b) in pairs.items():
            if one == title:
                ax.scatter(
                    100 * a.value, 100 * b.value, 42, color=look.hues[models.index(model) % len(look.hues)],
                    marker=marker_of(datasets.index(dataset)), edgecolor=look.paper, linewidth=0.5,
                )  # fmt: skip
        ax.set(xlim=limits, ylim=limits)
        ax.set_box_aspect(1)
        dress(ax, look, title, x=f"{setting_title(before)}, %", y=f"{setting_title(after)}, %")
    for number, model in enumerate(models if len(models) > 1 else ()):
        axes[0].bar(0, 0, color=look.hues[number % len(look.hues)], label=model)
    for number, dataset in enumerate(datasets):
        axes[0].scatter([], [], color=look.faint, marker=marker_of(number), label=dataset)
    legend(figure, axes[:1], look)
    return figure


def _change_bars(pairs: Pairs, look: Look) -> Drawing:
    labels = list(dict.fromkeys(_label(title, dataset) for title, dataset, _ in pairs))
    models = list(dict.fromkeys(model for _, _, model in pairs))
    figure, axes = panels(look, 1, wide=1, height=0.7 + 0.32 * len(labels) * max(1, len(models) / 2))
    height = 0.8 / len(models)
    for number, model in enumerate(models):
        mine = {
            _label(one, dataset): b.value - a.value
            for (one, dataset, who), (a, b) in pairs.items()
            if who == model
        }
        places = [labels.index(label) + (number - (len(models) - 1) / 2) * height for label in mine]
        colour = look.hues[number % len(look.hues)]
        axes[0].barh(
            places, [100 * value for value in mine.values()], 0.9 * height, color=colour, label=model
        )
    axes[0].axvline(0, color=look.ink, linewidth=1)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].invert_yaxis()
    dress(axes[0], look, x="change, percentage points")
    legend(figure, axes, look)
    return figure


def _label(title: str, dataset: str) -> str:
    return f"{dataset}, {title}"
