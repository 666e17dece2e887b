"""What is said of all data sets of a page together; the one place to add to it."""

from __future__ import annotations

from collections.abc import Sequence

from alignet.report.blocks import Block
from alignet.report.dataset_results import Gathered
from alignet.report.generalisation import before_after, changes
from alignet.report.significance_table import tests_between
from alignet.report.similarity import against_original

BEFORE = ("original", "distillation")  # what AligNet's few-shot accuracy is drawn against


def across(gathered: Sequence[Gathered]) -> list[Block]:
    """Each setting against the original; AligNet's few-shot accuracy against others'; tests between methods."""
    blocks: list[Block] = []
    scatter = against_original(gathered)
    if scatter is not None:
        blocks.append(scatter)
    few = [one for one in gathered if one.family == "few_shot"]
    if len({one.dataset for one in few}) > 1:
        blocks += [before_after(few, before=name) for name in BEFORE if _both(few, "few_shot", name)]
    blocks += [changes(gathered, family) for family in ("breeds", "transfer") if _both(gathered, family)]
    tests = tests_between(gathered)
    return [*blocks, tests] if tests.rows else blocks


def _both(gathered: Sequence[Gathered], family: str, before: str = "original") -> bool:
    """Whether some model has both a setting and AligNet in a data set of a family."""
    for one in gathered:
        if one.family == family:
            settings = {(row.model, row.setting) for row in one.results}
            if any((model, "alignet") in settings for model, setting in settings if setting == before):
                return True
    return False
