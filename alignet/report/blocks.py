"""What a page is made of. A builder of sections returns these; alignet.report.page writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text; `code` may stand in backticks."""

    text: str


@dataclass(frozen=True)
class Cell:
    """One entry of a table: what is shown, and what stands in the CSV file where that is more exact."""

    text: str
    value: float | str | None = None
    low: float | None = None
    high: float | None = None
    best: bool = False
    published: bool = False  # printed in the paper, not measured here


@dataclass(frozen=True)
class Table:
    """A table. name: of its files, letters, digits and _. rows: as many cells as `header` has names.

    groups: titles over neighbouring columns, (title, number of columns), or none. folded: it is shown on a click.
    A cell's text may end in an interval in brackets, `72.8 [72.5, 73.4]`, which is then printed smaller.
    """

    name: str
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str
    groups: Sequence[tuple[str, int]] = ()
    notes: Sequence[str] = ()
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure. name: of its files. draw: makes the matplotlib figure, and is called once for each look.

    draw takes the look whose colours it is to use. caption: what is shown and over what n, and
    one sentence with what there is to see, from the figures themselves. alt: for readers who cannot see it.
    """

    name: str
    title: str
    draw: Callable[[Look], Drawing]
    caption: str
    alt: str


@dataclass(frozen=True)
class Look:
    """Colours of a figure on a light or a dark page."""

    name: str  # light | dark
    ink: str  # text and axes
    faint: str  # grid, chance, ceilings
    paper: str  # background
    hues: Sequence[str]  # of settings and categories, told apart by colour-blind readers on this paper


LIGHT = Look("light", "#1f2328", "#8b929c", "#ffffff",
             ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#3a93c2", "#7a4fbf", "#8a6d3b"))  # fmt: skip
DARK = Look("dark", "#e6e6e6", "#8b929c", "#16181c",
            ("#56b4e9", "#f08a3c", "#2fc296", "#e09ac3", "#f0c24b", "#8fd0f5", "#b79aef", "#c9ab78"))  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """Examples with pictures: rows of images (JPEG bytes) with a line below each, and a sentence for the row.

    marks: for each row and each of its images the words that are put on it, as who chose it; or none at all. An image
    with a mark has a border.
    """

    name: str
    title: str
    rows: Sequence[tuple[str, Sequence[tuple[bytes, str]]]]
    caption: str
    marks: Sequence[Sequence[Sequence[str]]] = ()


Block = Text | Table | Figure | Pictures


@dataclass(frozen=True)
class Section:
    """A part of the page. key: its anchor and the place of its files, letters, digits and _."""

    key: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
