"""The tests between methods over data sets, as a table of the page (the paper's sections 2.4 and B.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignet.evaluate.significance import anova, improvement
from alignet.report.blocks import Cell, Table
from alignet.report.dataset_results import Gathered
from alignet.report.formatting import p_text, setting_title
from alignet.report.generalisation import parts

FEWEST = 3  # units below which nothing is tested: of two, half of all sign-flips are at least as large
SEED = 0  # of random sign-flips, where there are too many data sets to count them all
COMPARED = (("original", "alignet"), ("distillation", "alignet"), ("original", "distillation"))

CellsOf = dict[tuple[str, str], float]  # (model, data set) -> score


@dataclass(frozen=True)
class _Group:
    """Tests that are put together: of which families, and which of their tests."""

    title: str
    families: tuple[str, ...]
    takes: Callable[[str], bool]


GROUPS = (
    _Group("1-shot", ("few_shot",), lambda test: test == "1-shot"),
    _Group("10-shot", ("few_shot",), lambda test: test == "10-shot"),
    _Group("BREEDS, other subclasses", ("breeds",), lambda test: test == "other subclasses"),
    _Group("ImageNet probe carried over", ("transfer",), lambda test: test != "ImageNet"),
)


def tests_between(every: Sequence[Gathered]) -> Table:
    """Each pair of settings on each group of tests: change, cells up and down, and three tests of it.

    Evaluations whose images are the same (option images_of; by default each has its own) count as one unit of the
    permutation test and as one subject of the analysis of variance. Comparisons over fewer than FEWEST units are left
    out and named. Models or data sets that have only one of two settings are left out of their comparison, and counted
    in a note.
    """
    header = ["tests", "from", "to", "models", "data sets", "units", "cells up / down", "change, points",
              "permutation p", "signed-rank p", "ANOVA, method"]  # fmt: skip
    lines: list[list[Cell | str]] = []
    notes: list[str] = []
    too_few: dict[str, None] = {}
    units = {name: source for group in GROUPS for name, source in _units(every, group).items()}
    for group in GROUPS:
        for before, after in COMPARED:
            cells = [_cells(every, group, setting) for setting in (before, after)]
            both = [key for key in cells[0] if key in cells[1]]
            if not both:
                continue
            if len({units[name] for _, name in both}) < FEWEST:
                too_few[group.title] = None
                continue
            said = f"{group.title}, {setting_title(before)} to {setting_title(after)}"
            left_out = len(cells[0].keys() | cells[1].keys()) - len(both)
            if left_out:
                notes.append(f"{said}: left out {_only_one(left_out)}")
            first, second = ({key: one[key] for key in both} for one in cells)
            lines.append(
                [
                    group.title,
                    setting_title(before),
                    setting_title(after),
                    *_tested(first, second, units, said, notes),
                ]
            )
    notes = list(dict.fromkeys(notes))
    ps = [float(cell.value) for line in lines if isinstance(cell := line[8], Cell) and cell.value is not None]
    told = f"the permutation p is below .05 in {sum(p < 0.05 for p in ps)}"
    caption = (
        f"Whether a change between settings is more than chance: {len(lines)} comparisons over data sets, {told}; a "
        "unit is what shares its images. Permutation: two-sided, the sign of each unit's change flipped with all its "
        "models and data sets. Signed-rank: over all cells as if they were independent, which flatters. ANOVA: "
        "repeated measures, units as subjects. p-values are not corrected for the number of comparisons."
        + (f" Fewer than {FEWEST} units, and not tested: {', '.join(too_few)}." if too_few else "")
    )
    return Table("tests_between_methods", "Tests between methods", header, lines, caption, notes=notes)


tests_between.__test__ = False  # type: ignore[attr-defined]  # no test of ours, whatever its name begins with


def _only_one(number: int) -> str:
    """Combinations of model and data set that a comparison cannot use, in words."""
    if number == 1:
        return "1 combination of model and data set, which has only one of the two settings"
    return f"{number} combinations of model and data set, which have only one of the two settings"


def _cells(every: Sequence[Gathered], group: _Group, setting: str) -> CellsOf:
    """A score for each model and test in a setting; a test set of ImageNet counts as a data set of its own."""
    found: CellsOf = {}
    for gathered in every:
        if gathered.family not in group.families:
            continue
        for test, scores in parts(gathered).items():
            if group.takes(test):
                dataset = _name(gathered, test)
                found |= {
                    (row.model, dataset): one.value for row, one in scores.items() if row.setting == setting
                }
    return found


def _name(gathered: Gathered, test: str) -> str:
    return f"{gathered.dataset} {test}" if gathered.family == "transfer" else gathered.dataset


def _units(every: Sequence[Gathered], group: _Group) -> dict[str, str]:
    """What the images of each data set of a group come from: the option images_of, a text or one for each test."""
    found = {}
    for gathered in every:
        if gathered.family in group.families:
            given = gathered.options.get("images_of", {})
            for test in parts(gathered):
                name = _name(gathered, test)
                found[name] = str(given.get(test, name) if isinstance(given, Mapping) else given)
    return found


def _by_unit(cells: CellsOf, units: Mapping[str, str]) -> CellsOf:
    """The mean score of each model over the data sets of each unit."""
    several: dict[tuple[str, str], list[float]] = {}
    for (model, dataset), value in cells.items():
        several.setdefault((model, units[dataset]), []).append(value)
    return {key: float(np.mean(values)) for key, values in several.items()}


def _tested(
    before: CellsOf, after: CellsOf, units: Mapping[str, str], said: str, notes: list[str]
) -> list[Cell | str]:
    found = improvement(before, after, units=units, seed=SEED)
    models = {model for model, _ in before}
    if found.units < 6:
        least = 2 / 2**found.units
        notes.append(f"{said}: with {found.units} units the permutation p cannot fall below {least:.3g}")
    try:
        methods = {"before": _by_unit(before, units), "after": _by_unit(after, units)}
        effect = next(one for one in anova(methods) if one.name == "method")
        variance: Cell | str = Cell(
            f"F({effect.effect_df:g}, {effect.error_df:g}) = {effect.F:.2f}, {p_text(effect.p)}", effect.p
        )
    except ValueError as error:
        notes.append(f"{said}: {error}")
        variance = "–"
    return [
        Cell(str(len(models)), len(models)),
        Cell(str(found.datasets), found.datasets),
        Cell(str(found.units), found.units),
        f"{found.up} / {found.down}",
        Cell(f"{100 * found.difference:+.1f}", found.difference),
        Cell(p_text(found.p) + ("" if found.exact else " (drawn)"), found.p),
        "–" if found.wilcoxon is None else Cell(p_text(found.wilcoxon), found.wilcoxon),
        variance,
    ]
