"""Puts the parts of one run's page in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignet.report.blocks import Block, Section, Text
from alignet.report.cross_dataset import across
from alignet.report.dataset_results import Gathered
from alignet.report.four import TITLE, four
from alignet.report.page import Page
from alignet.report.published import published_blocks
from alignet.report.sections import BUILDERS, SECTIONS, TOGETHER
from alignet.report.settings_block import settings_block
from alignet.report.settings_table import Row
from alignet.report.summary import summarise

WARNING = "This page shows pictures that may not be handed on: keep it where the pictures themselves may be."


def run_page(
    section: Mapping[str, Any],
    rows: Sequence[Row],
    gathered: Sequence[Gathered],
    *,
    notes: Sequence[str],
    before: Sequence[Block],
    source: Section,
) -> Page:
    """The page of one run.

    section: of the node `report`. rows: of the table of settings. notes: what the run has to say of itself, below the
    table. before: blocks that show the features before and after, or none. source: where it all comes from.
    """
    synthetic = " (synthetic)" if "synthetic" in section["banner"] else ""
    sections = [
        Section("settings", "All settings", [
            settings_block(rows, "Every measure in every setting"), *across(gathered),
        ]),
        Section("four", TITLE, four(gathered, section["headline"], section.get("fresh", ()))),
        Section("features", "Features", list(before)),
        Section("published", "The paper's tables", published_blocks(
            gathered, section["published"], f"this run{synthetic}"
        )),
        *family_sections(gathered),
        source,
        Section("notes", "Notes", [Text(sentence(note)) for note in notes if note != section["banner"]]),
    ]  # fmt: skip
    return Page(
        title=sentence(section["title"]), subtitle=f"Student: {section['models']['student']['name']}. "
        f"Teacher: {section['models']['teacher']['name']}. Seed {section['seed']}.",
        banner=sentence(section["banner"]), warning=warning(section["redistribute"]),
        summary=summarise(rows, section["headline"]), sections=sections,
    )  # fmt: skip


def family_sections(gathered: Sequence[Gathered]) -> list[Section]:
    """What the builders of all families make, in the order of SECTIONS; sections without a block are left out."""
    blocks: dict[str, list[Block]] = {key: [] for key in SECTIONS}
    done: set[str] = set()
    for one in gathered:
        if one.family in BUILDERS:
            key, builder = BUILDERS[one.family]
            blocks[key].extend(builder(one))
        elif one.family in TOGETHER and one.family not in done:
            done.add(one.family)
            key, together = TOGETHER[one.family]
            blocks[key].extend(together([other for other in gathered if other.family == one.family]))
    return [Section(key, SECTIONS[key], found) for key, found in blocks.items() if found]


def warning(redistribute: bool | str) -> str:
    """What the page says at its top of pictures that may not be handed on; "" where it says nothing."""
    if isinstance(redistribute, str):
        return redistribute.strip()
    return "" if redistribute else WARNING


def sentence(text: str) -> str:
    """Text with a capital first letter."""
    return text[:1].upper() + text[1:]
