"""Tables and figures of a page as files: CSV and Markdown, PNG and SVG. Equal input gives equal bytes.

matplotlib draws without the user's own settings; SVG files carry no date and ids from a fixed salt.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.report.blocks import LIGHT, Cell, Figure, Look, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LONGEST = 80  # letters of a part of a file's name; file systems take 255 bytes for the whole
DPI = 160  # of PNG files and of what a figure rasterises
_NAME = re.compile(r"[A-Za-z0-9_]+")
_SPREAD = re.compile(r"(.*\S) (\[[^\[\]]*\])")


def check_name(name: str) -> str:
    """The name of a table, figure or section, which is part of a file's; ValueError if no file could be called so."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the page: expected a name of letters, digits and _, found {name!r}; rename that block."
        )
    return name


def slug(text: str) -> str:
    """Text as a part of a file's name: letters, digits and _. Long ones are cut, and end with a digest of the whole."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "_"
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - len(digest) - 1]}_{digest}"


def as_cell(entry: Cell | str) -> Cell:
    """An entry of a table as a cell."""
    return entry if isinstance(entry, Cell) else Cell(entry)


def split_spread(text: str) -> tuple[str, str]:
    """`72.8 [72.5, 73.4]` as its value and its interval; an interval of "" where there is none."""
    found = _SPREAD.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")


def check_table(table: Table) -> None:
    """ValueError where rows or groups of a table do not have as many columns as its header."""
    check_name(table.name)
    lengths = {len(row) for row in table.rows} | {len(table.header)}
    if table.groups:
        lengths.add(sum(count for _, count in table.groups))
    if len(lengths) > 1:
        raise ValueError(
            f"table {table.name}: expected {len(table.header)} columns in every row and over all groups, found "
            f"{', '.join(map(str, sorted(lengths)))}"
        )


def full_header(table: Table) -> list[str]:
    """Column names that stand alone: with the group's title before them where there are groups."""
    titles = [title for title, count in table.groups for _ in range(count)] or [""] * len(table.header)
    return [f"{title} {name}".strip() for title, name in zip(titles, table.header, strict=True)]


def table_csv(table: Table) -> str:
    """The table as CSV: exact values, an interval as two further columns `<name> low` and `<name> high`."""
    check_table(table)
    rows = [[as_cell(entry) for entry in row] for row in table.rows]
    names = full_header(table)
    spread = [any(row[place].low is not None for row in rows) for place in range(len(names))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            part
            for name, wide in zip(names, spread)
            for part in ([name, f"{name} low", f"{name} high"] if wide else [name])
        ]
    )
    for row in rows:
        line: list[Any] = []
        for cell, wide in zip(row, spread):
            line.append(cell.text if cell.value is None else cell.value)
            line += ["" if bound is None else bound for bound in (cell.low, cell.high)] if wide else []
        writer.writerow(line)
    return text.getvalue()


def table_markdown(table: Table) -> str:
    """The table as GitHub-flavoured Markdown with its title, caption and notes; the best of a column is bold."""
    check_table(table)

    def line(entries: Sequence[str]) -> str:
        safe = (entry.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for entry in entries)
        return "| " + " | ".join(safe) + " |"

    rows = []
    for row in table.rows:
        cells = [as_cell(entry) for entry in row]
        rows.append(line([_bold(cell) for cell in cells]))
    head = [f"### {table.title}", "", line(full_header(table)), "|" + " --- |" * len(table.header)]
    return "\n".join([*head, *rows, "", table.caption, *(f"\n- {note}" for note in table.notes)]) + "\n"


def _bold(cell: Cell) -> str:
    if not cell.best:
        return cell.text
    value, spread = split_spread(cell.text)
    return f"**{value}** {spread}".strip()


def drawn(figure: Figure, look: Look) -> Drawing:
    """The figure's drawing in a look, laid out once for all files that it is saved to."""
    with drawing_style(look):
        drawing = figure.draw(look)
        layout = drawing.get_layout_engine()
        if layout is not None:
            layout.execute(drawing)
            drawing.set_layout_engine("none")
        return drawing


def figure_svg(drawing: Drawing, look: Look) -> bytes:
    """A drawing as SVG, text as outlines so that no font is needed."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas = FigureCanvasSVG(drawing)
    return _saved(drawing, look, canvas.print_svg, {"Date": None, "Creator": None})


def figure_png(drawing: Drawing, look: Look) -> bytes:
    """A drawing as PNG without version or time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return _saved(drawing, look, FigureCanvasAgg(drawing).print_png, {"Software": None})


def _saved(drawing: Drawing, look: Look, write: Callable[..., None], metadata: dict[str, None]) -> bytes:
    """What a canvas writes; savefig draws everything twice, to lay out anew what has its layout."""
    content = io.BytesIO()
    with drawing_style(look):
        drawing.dpi = DPI
        write(content, metadata=metadata)
    return content.getvalue()


@contextmanager
def drawing_style(look: Look) -> Iterator[None]:
    """matplotlib with its own defaults and a look's colours, whatever the user has set."""
    import matplotlib
    from cycler import cycler

    settings: Any = {
        "font.family": "DejaVu Sans", "svg.hashsalt": "alignet", "svg.fonttype": "path",
        "text.color": look.ink, "axes.labelcolor": look.ink, "axes.titlecolor": look.ink,
        "axes.edgecolor": look.faint, "xtick.color": look.faint, "ytick.color": look.faint,
        "xtick.labelcolor": look.ink, "ytick.labelcolor": look.ink, "axes.facecolor": look.paper,
        "figure.facecolor": look.paper, "savefig.facecolor": look.paper, "legend.frameon": False,
        "axes.prop_cycle": cycler(color=list(look.hues)),
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary name, its folder made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_table(folder: Path, section: str, table: Table) -> dict[str, str]:
    """tables/<section>_<name>.csv and .md below a folder: kind -> path from there."""
    stem = f"tables/{section}_{table.name}"
    for ending, text in (("csv", table_csv(table)), ("md", table_markdown(table))):
        write_bytes(folder / f"{stem}.{ending}", text.encode("utf-8"))
    return {"CSV": f"{stem}.csv", "Markdown": f"{stem}.md"}


def write_figure(folder: Path, section: str, figure: Figure) -> tuple[dict[str, str], bytes, bytes]:
    """figures/<section>_<name>.png and .svg in the light look: kind -> path from there, and both files' bytes."""
    stem = f"figures/{section}_{check_name(figure.name)}"
    drawing = drawn(figure, LIGHT)
    svg, png = figure_svg(drawing, LIGHT), figure_png(drawing, LIGHT)
    write_bytes(folder / f"{stem}.svg", svg)
    write_bytes(folder / f"{stem}.png", png)
    return {"PNG": f"{stem}.png", "SVG": f"{stem}.svg"}, svg, png
