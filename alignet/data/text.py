"""Text files from outside: UTF-8, with or without the mark that some editors set before it (a BOM); else one message.

Every reader of text in this package opens its file here, so that a mark never becomes part of the first word, and
bytes of another encoding end in one message that names the file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

SEPARATORS = (",", "\t", ";")
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a zip or Excel file", b"PAR1": "Parquet"}


@contextmanager
def open_text(path: Path, what: str) -> Iterator[TextIO]:
    """The file for reading, line ends as they are. `what` it should be, such as `a table`, stands in the messages.

    Raises ValueError for no file, and for bytes that are no UTF-8 or lines that are no CSV, wherever they are met.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"{path}: expected {what}, found {found}; check the path.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            yield handle
    except UnicodeDecodeError as error:
        raise no_utf8(path, what, error) from None
    except csv.Error as error:
        raise ValueError(
            f"{path}: expected {what}, found a line that is none ({error}); save it as CSV again."
        ) from None


def read_text(path: Path, what: str) -> str:
    """The whole text of a file, its lines ended by a line feed alone; see open_text."""
    with open_text(path, what) as handle:
        return handle.read().replace("\r\n", "\n").replace("\r", "\n")


def no_utf8(path: Path, what: str, error: UnicodeDecodeError) -> ValueError:
    """What is raised for bytes that are no UTF-8."""
    with open(path, "rb") as handle:
        start = handle.read(4)
    kind = next((f", as {name} begins" for mark, name in _MARKS.items() if start.startswith(mark)), "")
    return ValueError(
        f"{path}: expected {what} as text in UTF-8, found other bytes (0x{error.object[error.start]:02x}{kind}); save "
        "it as UTF-8."
    )


def separator_of(header: str, columns: Sequence[str] = ()) -> str:
    """What separates the columns of a table: comma, tab or semicolon, by its first line.

    The one that makes the header show the most of `columns`; of equals the one that it holds most often, and else the
    comma.
    """

    def rank(separator: str) -> tuple[int, int]:
        fields = [field.strip() for field in next(csv.reader([header], delimiter=separator), [])]
        return sum(name in fields for name in columns), header.count(separator)

    return max(SEPARATORS, key=rank)
