"""Examples on the page: triplets with pictures on which the student changed its mind, and how many there were."""

from __future__ import annotations

from alignet.evaluate.result import Columns
from alignet.report.blocks import Block, Pictures, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import slug

_TITLES = {"towards": "changed its mind towards people", "against": "changed its mind against people"}
_SAID = {
    "towards": "The original student chose another odd one out than people; AligNet chooses theirs.",
    "against": "The original student chose the odd one out that people chose; AligNet chooses another, or none.",
}
_WHO = (("human", "people"), ("before", "original"), ("after", "AligNet"))


def examples_blocks(one: Gathered) -> list[Block]:
    """What changed in each model, in numbers, and the pictures that were drawn."""
    blocks: list[Block] = []
    for row in one.results:
        counts = {direction: _count(one, row, direction) for direction in _TITLES}
        n = one.scores("changed_towards")[row].n
        blocks.append(Text(_told(row, counts, n, one.dataset)))
        table = one.tables("examples").get(row)
        if table is not None:
            blocks += [
                _pictures(row, direction, table, counts[direction])
                for direction in _TITLES
                if counts[direction]
            ]
    return blocks


def _count(one: Gathered, row: Row, direction: str) -> int:
    score = one.scores(f"changed_{direction}")[row]
    return round(score.value * score.n)


def _told(row: Row, counts: dict[str, int], n: int, dataset: str) -> str:
    gained = counts["towards"] - counts["against"]
    text = (
        f"Of {n:,} triplets (`{dataset}`), the {row.model} changed its answer towards people's in "
        f"{counts['towards']:,} and away from it in {counts['against']:,}: "
    )
    text += f"{abs(gained):,} more {'towards' if gained > 0 else 'away'}." if gained else "as many each way."
    return f"{text} The examples are a random draw from all of each kind; none was chosen by hand."


def _pictures(row: Row, direction: str, table: Columns, count: int) -> Pictures:
    rows, marks = [], []
    for number in [place for place, found in enumerate(table["direction"]) if found == direction]:
        pictures = [
            (_jpeg(table[f"picture{place}"][number]), str(table[f"name{place}"][number]))
            for place in (1, 2, 3)
        ]
        rows.append(("", pictures))
        marks.append(
            [[said for who, said in _WHO if int(table[who][number]) == place] for place in (1, 2, 3)]
        )
    caption = (
        f"{_SAID[direction]} {len(rows)} of {count:,} such triplets, drawn at random. A frame and a label mark the odd "
        "one out of people (a solid frame), of the original and of AligNet; where one of them has no label, two pairs "
        "were equally similar to it."
    )
    return Pictures(
        slug(f"{direction} {row.model}"),
        f"{row.model[:1].upper()}{row.model[1:]}: {_TITLES[direction]}",
        rows,
        caption,
        marks,
    )


def _jpeg(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
