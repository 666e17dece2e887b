"""Writes a page: report.html, which needs nothing beside it, and its tables and figures as files.

sections -> Page -> report.html, tables/*.csv, tables/*.md, figures/*.png, figures/*.svg
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from alignet.report.blocks import DARK, LIGHT, Block, Figure, Look, Pictures, Section, Table, Text
from alignet.report.files import (
    as_cell,
    check_name,
    check_table,
    drawn,
    figure_png,
    figure_svg,
    split_spread,
    write_bytes,
    write_figure,
    write_table,
)
from alignet.report.inline_svg import inches, inline, variables
from alignet.report.summary import Summary

PAGE = "report.html"
NARROW = 7  # columns of a table, at most, that have room between them


@dataclass(frozen=True)
class Page:
    """What a page holds. banner: what kind of data it is made from. warning: what must not be done with it, or ""."""

    title: str
    subtitle: str
    banner: str
    warning: str
    summary: Summary
    sections: Sequence[Section]


def write_page(folder: Path, page: Page) -> Path:
    """Write the page into a folder; returns the path of report.html. ValueError names a block that does not fit."""
    keys = [section.key for section in page.sections]
    if len(set(keys)) < len(keys):
        raise ValueError(f"the page: expected sections with different keys, found {', '.join(keys)}")
    sections = [
        {"key": section.key, "title": section.title, "blocks": _blocks(folder, section)}
        for section in page.sections if section.blocks
    ]  # fmt: skip
    text = _template().render(page=page, sections=sections, light=_css(LIGHT), dark=_css(DARK))
    write_bytes(folder / PAGE, text.encode("utf-8"))
    return folder / PAGE


def _css(look: Look) -> str:
    """A look's colours as CSS variables."""
    return "; ".join(f"--{name}: {colour}" for name, colour in variables(look).items())


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["code"] = _code
    return environment.get_template("page.html.j2")


def _code(text: str) -> Any:
    """Escaped text in which `words` between backticks stand as code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick that nothing closes is only a letter
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part)
        for place, part in enumerate(parts)
    )


def _blocks(folder: Path, section: Section) -> list[dict[str, Any]]:
    check_name(section.key)
    found: list[dict[str, Any]] = []
    taken: set[str] = set()
    for block in section.blocks:
        if not isinstance(block, Text):
            block = _renamed(block, taken)
            taken.add(block.name)
        found.append(_block(folder, section.key, block))
    return found


def _renamed(block: Table | Figure | Pictures, taken: set[str]) -> Table | Figure | Pictures:
    """The block under a name that no other of its section has, by a number behind it."""
    name, number = block.name, 2
    while name in taken:
        name, number = f"{block.name}_{number}", number + 1
    return block if name == block.name else replace(block, name=name)


def _block(folder: Path, section: str, block: Block) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"kind": "text", "text": block.text}
    anchor = f"{section}-{check_name(block.name)}"
    if isinstance(block, Table):
        return _table(block) | {"anchor": anchor, "files": write_table(folder, section, block)}
    if isinstance(block, Figure):
        return _figure(folder, section, block) | {"anchor": anchor}
    return _pictures(block) | {"anchor": anchor}


def _table(table: Table) -> dict[str, Any]:
    check_table(table)
    rows = []
    for row in table.rows:
        cells = [as_cell(entry) for entry in row]
        told = [cell for cell in cells if cell.text]
        rows.append(
            {
                "cells": [(cell, *split_spread(cell.text)) for cell in cells],
                "published": bool(told) and all(cell.published for cell in told),
            }
        )
    starts, place = set(), 0  # columns at which a group begins, where a line is drawn
    for _, count in table.groups:
        starts.add(place)
        place += count
    left = {
        place
        for place in range(len(table.header))
        if any(_is_words(as_cell(row[place]).text) for row in table.rows)
    }
    mixed = len({row["published"] for row in rows}) > 1
    return {
        "kind": "table", "block": table, "rows": rows, "starts": starts - {0}, "mixed": mixed, "left": left,
        "narrow": len(table.header) <= NARROW,
    }  # fmt: skip


def _is_words(text: str) -> bool:
    """Whether an entry is text, which stands to the left, and not a number."""
    return bool(text) and text[0].isalpha()


def _figure(folder: Path, section: str, figure: Figure) -> dict[str, Any]:
    """The figure's files, and what stands in the page: its SVG, or PNG where that is smaller."""
    from markupsafe import Markup, escape

    files, svg, png = write_figure(folder, section, figure)
    dark = cache(lambda: drawn(figure, DARK))
    shown = inline(svg, lambda: figure_svg(dark(), DARK), _prefix(section, figure.name), figure.alt)
    light = _data("png", png)
    if sum(len(text) for _, text in shown) > 2 * len(light):  # the dark look's is about as large
        pictures = [("on-light", light), ("on-dark", _data("png", figure_png(dark(), DARK)))]
        shown = [(name, f'<img alt="{escape(figure.alt)}" src="{source}">') for name, source in pictures]
    return {
        "kind": "figure", "block": figure, "files": files, "inches": round(inches(svg), 2),
        "shown": [(name, Markup(text)) for name, text in shown],
    }  # fmt: skip


def _prefix(section: str, name: str) -> str:
    """Of the ids within a figure: few letters, which no other figure of the page has."""
    return "f" + hashlib.sha256(f"{section} {name}".encode()).hexdigest()[:6] + "_"


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _pictures(block: Pictures) -> dict[str, Any]:
    marks = block.marks or [[() for _ in pictures] for _, pictures in block.rows]
    if [len(row) for row in marks] != [len(pictures) for _, pictures in block.rows]:
        raise ValueError(f"pictures {block.name}: expected marks for each of its pictures, or none at all")
    rows = [
        (
            sentence,
            [
                {"source": _data("jpeg", content), "line": line, "marks": list(words)}
                for (content, line), words in zip(pictures, chosen, strict=True)
            ],
        )
        for (sentence, pictures), chosen in zip(block.rows, marks, strict=True)
    ]
    return {"kind": "pictures", "block": block, "rows": rows}
