"""The tests between methods over data sets, as a table of the page (the paper's sections 2.4 and B.2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignet.evaluate.significance import anova, improvement
from alignet.report.blocks import Cell, Table
from alignet.report.gathered import Gathered
from alignet.report.generalisation import parts
from alignet.report.numbers import p_text, setting_title

LEAST = 3  # data sets of a comparison: fewer can show nothing, and are left out
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

    A data set counts as one unit of the permutation test and as one subject of the analysis of variance. Models or data
    sets that have only one of two settings are left out of their comparison, and counted in a note. Comparisons over
    fewer than LEAST data sets are left out.
    """
    header = ["tests", "from", "to", "models", "data sets", "cells up / down", "change, points", "permutation p",
              "signed-rank p", "ANOVA, method"]  # fmt: skip
    lines: list[list[Cell | str]] = []
    notes: list[str] = []
    for group in GROUPS:
        for before, after in COMPARED:
            cells = [_cells(every, group, setting) for setting in (before, after)]
            both = [key for key in cells[0] if key in cells[1]]
            if len({dataset for _, dataset in both}) < LEAST:
                continue
            said = f"{group.title}, {setting_title(before)} to {setting_title(after)}"
            left_out = len(cells[0].keys() | cells[1].keys()) - len(both)
            if left_out:
                notes.append(f"{said}: {left_out} cells with only one of the two left out")
            first, second = ({key: one[key] for key in both} for one in cells)
            named = (group.title, setting_title(before), setting_title(after))
            lines.append([*named, *_tested(first, second, said, notes)])
    notes = list(dict.fromkeys(notes))
    ps = [float(cell.value) for line in lines if isinstance(cell := line[7], Cell) and cell.value is not None]
    told = f"the permutation p is below .05 in {sum(p < 0.05 for p in ps)}"
    caption = (
        f"Whether a change between settings is more than chance: {len(lines)} comparisons over data sets, each over "
        f"{LEAST} or more; {told}. Permutation: "
        "two-sided, the sign of each data set's change flipped with all its models, since they share its images. "
        "Signed-rank: over all cells as if they were independent, which flatters. ANOVA: repeated measures, data sets "
        "as subjects. p-values are not corrected for the number of comparisons."
    )
    return Table("tests_between_methods", "Tests between methods", header, lines, caption, notes=notes)


tests_between.__test__ = False  # type: ignore[attr-defined]  # no test of ours, whatever its name begins with


def _cells(every: Sequence[Gathered], group: _Group, setting: str) -> CellsOf:
    """A score for each model and test in a setting; a test set of ImageNet counts as a data set of its own."""
    found: CellsOf = {}
    for gathered in every:
        if gathered.family not in group.families:
            continue
        for test, scores in parts(gathered).items():
            if group.takes(test):
                dataset = f"{gathered.dataset} {test}" if gathered.family == "transfer" else gathered.dataset
                found |= {
                    (row.model, dataset): one.value for row, one in scores.items() if row.setting == setting
                }
    return found


def _tested(before: CellsOf, after: CellsOf, said: str, notes: list[str]) -> list[Cell | str]:
    found = improvement(before, after, seed=SEED)
    models = {model for model, _ in before}
    if found.datasets < 6:
        least = 2 / 2**found.datasets
        notes.append(f"with {found.datasets} data sets the permutation p cannot fall below {least:.3g}")
    try:
        effect = next(one for one in anova({"before": before, "after": after}) if one.name == "method")
        variance: Cell | str = Cell(
            f"F({effect.effect_df:g}, {effect.error_df:g}) = {effect.F:.2f}, {p_text(effect.p)}", effect.p
        )
    except ValueError as error:
        notes.append(f"{said}: {error}")
        variance = "–"
    return [
        Cell(str(len(models)), len(models)),
        Cell(str(found.datasets), found.datasets),
        f"{found.up} / {found.down}",
        Cell(f"{100 * found.difference:+.1f}", found.difference),
        Cell(p_text(found.p) + ("" if found.exact else " (drawn)"), found.p),
        "–" if found.wilcoxon is None else Cell(p_text(found.wilcoxon), found.wilcoxon),
        variance,
    ]
