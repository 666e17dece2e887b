"""The page of any networks by the measures of four systems, outside of a run: what `stages.four` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignet.report.blocks import Section, Table
from alignet.report.dataset_results import Gathered
from alignet.report.formatting import counted
from alignet.report.four import TITLE, Told, blocks, told
from alignet.report.four_measures import Board, board
from alignet.report.four_sentences import systems_text
from alignet.report.network_points import Network
from alignet.report.page import Page
from alignet.report.summary import Summary

FEW = 30  # images below which a page says so


@dataclass(frozen=True)
class Compared:
    """Networks by measures.

    images, maps: names of the folder and of the file, "" without maps. networks: name -> what it was loaded from.
    pages: command -> its page. missing: of a system or a network why it has no measure. count: of images; inverted: how
    many of them were inverted, 0 where that was left out.
    """

    board: Board
    arrows: Sequence[tuple[str, str]]
    missing: Mapping[str, str]
    told: Told
    images: str
    maps: str
    count: int
    inverted: int
    networks: Mapping[str, str]
    pages: Mapping[str, str]


def compared(
    every: Sequence[Gathered], arrows: Sequence[tuple[str, str]], missing: Mapping[str, str], *, images: str, maps: str,
    count: int, inverted: int, networks: Mapping[str, str], pages: Mapping[str, str],
) -> Compared:  # fmt: skip
    """What the networks came to. ValueError where two systems have no measure that two networks have."""
    found = board(every)
    if found is None:
        raise ValueError(
            "four: expected measures of two systems that two networks have, found fewer; look at the pages "
            f"{', '.join(pages.values())}"
        )
    said = told(found, [(Network(start), Network(end)) for start, end in arrows])
    return Compared(found, arrows, missing, said, images, maps, count, inverted, networks, pages)


def page(result: Compared) -> Page:
    """The page."""
    maps = f", people's maps `{result.maps}`" if result.maps else ""
    inverted = f", {result.inverted:,} inverted" if 0 < result.inverted < result.count else ""
    few, name = _fewest(result.board)
    measured = (
        f"{counted(len(result.networks), 'network')} by {counted(len(result.board.columns), 'measure')}"
    )
    sentences = [f"{measured} of {systems_text(result.board)}. Every measure is better when larger."]
    if not result.arrows:
        sentences.append("No arrows were given, so that nothing is said of what training changed.")
    return Page(
        "Networks by four systems",
        f"{counted(len(result.networks), 'network')}, {counted(result.count, 'image')} of `{result.images}`{inverted}"
        f"{maps}",
        f"measures of {systems_text(result.board)}",
        f"Only {counted(few, 'image')} counted in {name}: with so few the intervals are wide and the order is "
        "uncertain."
        if few < FEW
        else "",
        Summary(sentences, (), ()),
        [
            Section("four", TITLE, blocks(result.board, result.told, result.missing)),
            Section("networks", "Networks", [_networks(result)]),
        ],
    )  # fmt: skip


def _fewest(found: Board) -> tuple[int, str]:
    """Over how many images the measure of fewest is, and its name."""
    return min((one.n, column.name) for column in found.columns for one in column.scores.values())


def _networks(result: Compared) -> Table:
    said = "; ".join(f"{command}: `{path}`" for command, path in result.pages.items())
    return Table(
        "networks", "What was measured", ["", "loaded from"], [[name, text] for name, text in result.networks.items()],
        f"Each command has a page of its own beside this one, with figures, tests and pictures: {said}.",
    )  # fmt: skip
