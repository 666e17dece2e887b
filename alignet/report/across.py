"""What is said of all data sets of a page together; the one place to add to it."""

from __future__ import annotations

from collections.abc import Sequence

from alignet.report.between import tests_between
from alignet.report.blocks import Block
from alignet.report.gathered import Gathered
from alignet.report.generalisation import before_after, changes
from alignet.report.similarity import against_original


def across(gathered: Sequence[Gathered]) -> list[Block]:
    """Each setting against the original; few-shot accuracy before and after; tests between methods. What there is."""
    blocks: list[Block] = []
    scatter = against_original(gathered)
    if scatter is not None:
        blocks.append(scatter)
    if _both(gathered, "few_shot") and len({one.dataset for one in gathered if one.family == "few_shot"}) > 1:
        blocks.append(before_after([one for one in gathered if one.family == "few_shot"]))
    blocks += [changes(gathered, family) for family in ("breeds", "transfer") if _both(gathered, family)]
    tests = tests_between(gathered)
    return [*blocks, tests] if tests.rows else blocks


def _both(gathered: Sequence[Gathered], family: str) -> bool:
    """Whether some model has both the original and AligNet in a data set of a family."""
    for one in gathered:
        if one.family == family:
            settings = {(row.model, row.setting) for row in one.results}
            if any((model, "alignet") in settings for model, setting in settings if setting == "original"):
                return True
    return False
