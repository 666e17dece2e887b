"""The table of settings, as a paper prints it: on the terminal, in Markdown, and in JSON.

One row for each model in each setting; one column for each metric on each data set; below them the
distance closed to the noise ceiling, the ceiling, chance and n. Percent with one decimal.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass

from alignet.evaluate.bootstrap import LEVEL, Score
from alignet.report.metric_styles import STYLES, Style, hidden, style_of

STUDENT = "student"  # the model whose best setting is marked
ORIGINAL = "original"  # the setting that the others are measured from
BEST = "*"
_GAP = "   "  # between columns
_Drawn = tuple[str, list[str]]  # a column as text: its metric's title, its lines


@dataclass(frozen=True)
class Row:
    """One model (teacher, student, baseline) in one setting, and its scores."""

    model: str
    setting: str
    scores: Sequence[Score]
    note: str = ""  # a footnote to the row, for example the label entropy it was taught with


@dataclass(frozen=True)
class _Column:
    metric: str
    dataset: str
    cells: tuple[Score | None, ...]  # one for each row

    @property
    def style(self) -> Style:
        return style_of(self.metric)

    def number(self, value: float | None) -> str:
        return "" if value is None else self.style.number(value)

    def shared(self, name: str) -> float | None:
        """The chance or ceiling that all rows name; a ValueError if they differ: then so did the data."""
        found = {getattr(cell, name) for cell in self.cells if cell is not None} - {None}
        if found and max(found) - min(found) > 1e-6:
            values = ", ".join(f"{value:.4f}" for value in sorted(found))
            raise ValueError(
                f"{self.metric} on {self.dataset}: expected one {name} for all rows, found {values}; "
                "evaluate every setting on the same data."
            )
        return found.pop() if found else None


def distance_closed(original: float, value: float, ceiling: float) -> float:
    """Share of the distance from `original` to `ceiling` that `value` covers; negative if it fell below."""
    if not ceiling > original:
        raise ValueError(
            f"expected a ceiling above the original score, found ceiling {ceiling:.4f} and original "
            f"{original:.4f}: there is no distance to close."
        )
    return (value - original) / (ceiling - original)


def settings_table(
    rows: Sequence[Row], *, title: str = "", notes: Iterable[str] = (), width: int = 118
) -> str:
    """Plain text, at most `width` characters wide where a single column allows: wide tables are split.

    The best student row of a column carries a star. `title` is the first line, `notes` the last ones.
    """
    columns = _columns(rows)
    marks = _Footnotes(rows, columns)
    summary = _summary(rows, columns)
    left = [("model", "setting"), *((row.model, row.setting + marks.row(row)) for row in rows)]
    first = max(len(model) for model, _ in left)
    labels = [f"{model:<{first}}  {setting}" for model, setting in left]
    label_width = max(len(label) for label in [*labels, *(label for label, _ in summary)])
    drawn = []
    for position, column in enumerate(columns):
        entries = [entries[position] for _, entries in summary]
        drawn.append((column.style.title, _text_column(column, rows, entries, marks)))
    text = [title, ""] if title else []
    for block in _packed(drawn, width - label_width):
        text += [*_text_block(block, labels, [label for label, _ in summary], label_width, _breaks(rows)), ""]
    text.append(
        f"{BEST} best student row of the column, unless its interval reaches chance. {_intervals(columns)}"
    )
    text += [f"({mark}) {note}" for mark, note in marks.texts]
    wrapped = []
    for line in [*text, *notes]:  # only the footnotes can be longer than the width
        wrapped += textwrap.wrap(line, width, subsequent_indent="    ") if len(line) > width else [line]
    return "\n".join(line.rstrip() for line in wrapped) + "\n"


def settings_markdown(rows: Sequence[Row], *, title: str = "", notes: Iterable[str] = ()) -> str:
    """The same table as one GitHub-flavoured Markdown table; the best student row of a column is bold."""
    columns = _columns(rows)
    marks = _Footnotes(rows, columns)
    heads = [f"{column.style.title}: {column.dataset}{marks.column(column)}" for column in columns]
    lines = [["model", "setting", *heads], ["---", "---", *["--:"] * len(columns)]]
    best = [_best(column, rows) for column in columns]
    for index, row in enumerate(rows):
        cells = []
        for column, top in zip(columns, best):
            value, spread = _cell(column, column.cells[index])
            cells.append(f"**{value}** {spread}".strip() if index in top else f"{value} {spread}".strip())
        lines.append([row.model, row.setting + marks.row(row), *cells])
    for label, entries in _summary(rows, columns):
        lines.append([f"*{label}*", "", *entries])
    text = [f"**{title}**", ""] if title else []
    text += ["| " + " | ".join(entry.replace("|", "\\|") for entry in line) + " |" for line in lines]
    foot = [
        f"Bold: best student row of the column, unless its interval reaches chance. {_intervals(columns)}"
    ]
    foot += [f"({mark}) {note}" for mark, note in marks.texts]
    return "\n".join(text) + "\n\n" + "  \n".join([*foot, *notes]) + "\n"


def settings_json(rows: Sequence[Row], *, title: str = "", notes: Iterable[str] = ()) -> str:
    """Everything as JSON: title, notes, and each row with its scores in full (shares, not percent)."""
    _columns(rows)
    content = [asdict(row) | {"scores": [asdict(score) for score in row.scores]} for row in rows]
    return json.dumps(
        {"title": title, "notes": list(notes), "level": LEVEL, "rows": content},
        indent=1,
        allow_nan=False,
        ensure_ascii=False,
    )


@dataclass(frozen=True)
class Measure:
    """One metric on one data set over all rows, as it is printed."""

    title: str
    dataset: str
    mark: str  # " (a)", of its footnote, or ""
    scores: Sequence[Score | None]  # one for each row
    texts: Sequence[tuple[str, str]]  # value and interval of each
    best: Collection[int]  # the best student rows
    closed: str  # what `alignet` covers of the way from the original to the ceiling, in percent
    ceiling: str
    chance: str
    n: str


def measures(rows: Sequence[Row]) -> tuple[list[Measure], list[tuple[str, str]], str]:
    """The columns of the table one by one, its footnotes (mark, text), and what its brackets are."""
    columns = _columns(rows)
    marks = _Footnotes(rows, columns)
    aligned = [index for index, row in enumerate(rows) if (row.model, row.setting) == (STUDENT, "alignet")]
    found = [
        Measure(
            column.style.title, column.dataset, marks.column(column), column.cells,
            [_cell(column, cell) for cell in column.cells], _best(column, rows),
            _closed(column, rows, aligned[0]) if aligned else "",
            column.number(column.shared("ceiling")), column.number(column.shared("chance")),
            f"{_commonest_n(column):,} {_unit(column)}",
        )
        for column in columns
    ]  # fmt: skip
    return found, marks.texts, _intervals(columns)


def shown(score: Score) -> str:
    """A score as the table prints it, `72.8 [72.5, 73.4]`."""
    return " ".join(part for part in _cell(_Column(score.metric, score.dataset, (score,)), score) if part)


def _columns(rows: Sequence[Row]) -> list[_Column]:
    """Columns by metric, in the order of STYLES and then of appearance, and by data set."""
    if not rows:
        raise ValueError("the table: expected at least one row, found none; evaluate a setting first.")
    named = [(row.model, row.setting) for row in rows]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        raise ValueError(f"the table: expected each model and setting once, found {twice} twice")
    scores: list[dict[tuple[str, str], Score]] = []
    for row in rows:
        keyed = {(score.metric, score.dataset): score for score in row.scores}
        if len(keyed) < len(row.scores):
            raise ValueError(f"the table: expected each metric once per data set, found one twice in "
                             f"{row.model} {row.setting}")  # fmt: skip
        scores.append(keyed)
    keys = list(dict.fromkeys(key for keyed in scores for key in keyed))
    order = [*STYLES, *dict.fromkeys(metric for metric, _ in keys if metric not in STYLES)]
    keys = [key for metric in order for key in keys if key[0] == metric and not hidden(metric)]
    return [_Column(*key, tuple(keyed.get(key) for keyed in scores)) for key in keys]


def _best(column: _Column, rows: Sequence[Row]) -> set[int]:
    """Rows that hold the best student value, as printed; none without competition, or where it may be chance."""
    held = {
        index: column.number(cell.value)
        for index, cell in enumerate(column.cells)
        if cell is not None and rows[index].model == STUDENT
    }
    if not column.style.best or len(held) < 2:
        return set()
    top = max(held.values(), key=float)
    best = {index for index, value in held.items() if value == top}
    cells = [cell for index in best if (cell := column.cells[index]) is not None]
    return set() if all(cell.meets_chance for cell in cells) else best


def _cell(column: _Column, score: Score | None) -> tuple[str, str]:
    if score is None:
        return "", ""
    if score.low is None or score.high is None:
        return column.number(score.value), ""
    return column.number(score.value), f"[{column.number(score.low)}, {column.number(score.high)}]"


def _summary(rows: Sequence[Row], columns: Sequence[_Column]) -> list[tuple[str, list[str]]]:
    """The lines below the rows: (label, one entry for each column)."""
    lines = [
        (f"closed by {row.setting}, %", [_closed(column, rows, index) for column in columns])
        for index, row in enumerate(rows)
        if row.model == STUDENT and row.setting != ORIGINAL
    ]
    for name, label in (("ceiling", "noise ceiling"), ("chance", "chance")):
        lines.append((label, [column.number(column.shared(name)) for column in columns]))
    lines.append(("n", [f"{_commonest_n(column):,} {_unit(column)}" for column in columns]))
    return [line for line in lines if any(line[1])]


def _closed(column: _Column, rows: Sequence[Row], index: int) -> str:
    ceiling, mine = column.shared("ceiling"), column.cells[index]
    first = [cell for row, cell in zip(rows, column.cells) if (row.model, row.setting) == (STUDENT, ORIGINAL)]
    original = first[0] if first else None
    if ceiling is None or mine is None or original is None or ceiling <= original.value:
        return ""
    if mine.value > ceiling:  # a model of the majority may agree with it more often than single people do
        return "above"
    return f"{100 * distance_closed(original.value, mine.value, ceiling):.0f}"


def _commonest_n(column: _Column) -> int:
    counts = [cell.n for cell in column.cells if cell is not None]
    return max(counts, key=counts.count)


class _Footnotes:
    """Letters for what rows and columns have to say; equal texts share a letter."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[_Column]) -> None:
        self.texts: list[tuple[str, str]] = []
        self._names = [f"{row.model} {row.setting}" for row in rows]
        self._rows = {(row.model, row.setting): self._mark(row.note) for row in rows}
        self._columns = {
            (column.metric, column.dataset): self._mark(self._column_note(column)) for column in columns
        }

    def row(self, row: Row) -> str:
        return self._rows[row.model, row.setting]

    def column(self, column: _Column) -> str:
        return self._columns[column.metric, column.dataset]

    def _mark(self, text: str) -> str:
        if not text:
            return ""
        for mark, known in self.texts:
            if known == text:
                return f" ({mark})"
        number = len(self.texts)
        mark = chr(97 + number % 26) * (1 + number // 26)
        self.texts.append((mark, text))
        return f" ({mark})"

    def _column_note(self, column: _Column) -> str:
        """What all rows of the column say, then what single ones say, each named."""
        usual = _commonest_n(column)
        said: list[tuple[str, list[str]]] = []
        for name, cell in zip(self._names, column.cells):
            if cell is not None:
                parts = cell.note.split("; ") if cell.note else []
                said.append((name, parts + ([f"n = {cell.n:,}"] if cell.n != usual else [])))
        common = [part for part in said[0][1] if all(part in parts for _, parts in said)]
        own: dict[str, list[str]] = {}
        for name, parts in said:
            rest = ", ".join(part for part in parts if part not in common)
            if rest:
                own.setdefault(rest, []).append(name)
        single = [f"{', '.join(names)}: {rest}" for rest, names in own.items()]
        return "; ".join(common + single)


def _text_column(
    column: _Column, rows: Sequence[Row], summary: Sequence[str], marks: _Footnotes
) -> list[str]:
    """Lines of one width: data set, a cell for each row, the entries of the summary."""
    best = _best(column, rows)
    cells = [_cell(column, cell) for cell in column.cells]
    size = max(len(value) for value, _ in cells)
    lines = [column.dataset + marks.column(column)]
    for index, (value, spread) in enumerate(cells):
        star = BEST if index in best else " "
        lines.append(f"{value:>{size}}{star} {spread}" if value else f"{'-':>{size}}")
    lines += [f"{entry:>{size}}" for entry in summary]
    wide = max(len(line.rstrip()) for line in lines)
    return [f"{line.rstrip():<{wide}}" for line in lines]


def _packed(drawn: Sequence[_Drawn], width: int) -> list[list[_Drawn]]:
    """Columns in blocks of at most `width`; a metric's columns stay together where a block can hold them."""
    blocks: list[list[_Drawn]] = []
    for title in dict.fromkeys(title for title, _ in drawn):
        group = [column for column in drawn if column[0] == title]
        parts = [group] if _wide(group) <= width else [[column] for column in group]
        for part in (_titled(part) for part in parts):
            place = next((block for block in blocks if _wide([*block, *part]) <= width), None)
            if place is None:
                blocks.append(list(part))
            else:
                place.extend(part)
    return blocks


def _titled(part: list[_Drawn]) -> list[_Drawn]:
    """Columns of one metric, the last widened where their title needs it."""
    title, lines = part[-1]
    wide = len(lines[0]) + max(len(title) - (_wide(part) - len(_GAP)), 0)
    return [*part[:-1], (title, [f"{line:<{wide}}" for line in lines])]


def _wide(block: Sequence[_Drawn]) -> int:
    return sum(len(_GAP) + len(lines[0]) for _, lines in block)


def _text_block(
    block: Sequence[_Drawn], labels: Sequence[str], below: Sequence[str], label_width: int, breaks: set[int]
) -> list[str]:
    titles = []  # each over all columns of its metric
    for title in dict.fromkeys(title for title, _ in block):
        titles.append(f"{title:<{_wide([column for column in block if column[0] == title]) - len(_GAP)}}")
    rule = "-" * (label_width + _wide(block))
    text = [_GAP.join([" " * label_width, *titles])]
    for index, label in enumerate([*labels, *below]):
        entries = [lines[index] for _, lines in block]
        if index < len(labels) or any(entry.strip() for entry in entries):
            text.append(_GAP.join([f"{label:<{label_width}}", *entries]))
        if index in breaks:
            text.append(rule)
    return text


def _breaks(rows: Sequence[Row]) -> set[int]:
    """Label lines (0 is the header) below which a rule is drawn: the header and each model's last row."""
    ends = {index + 1 for index, row in enumerate(rows) if row.model != _next_model(rows, index)}
    return {0} | ends


def _next_model(rows: Sequence[Row], index: int) -> str:
    return rows[index + 1].model if index + 1 < len(rows) else ""


def _unit(column: _Column) -> str:
    return " or ".join(dict.fromkeys(cell.unit for cell in column.cells if cell is not None))


def _intervals(columns: Sequence[_Column]) -> str:
    """What the brackets are and what they resample, by metric."""
    over: dict[str, dict[str, None]] = {}
    for column in columns:
        for cell in column.cells:
            if cell is not None and cell.over:
                over.setdefault(cell.over, {})[column.style.title.split(",")[0]] = None
    if not over:
        return "No intervals."
    if len(over) == 1:
        return f"Brackets: {LEVEL:.0%} bootstrap interval over {next(iter(over))}."
    told = [f"over {unit} ({', '.join(titles)})" for unit, titles in over.items()]
    return f"Brackets: {LEVEL:.0%} bootstrap interval {', '.join(told)}."
