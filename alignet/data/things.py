"""The table of THINGS' odd-one-out choices, and the noise ceiling that its repeated triplets give.

A text file with a header and one choice a line. It is named `.csv` and separated by tabs: which character
separates columns is read off the header, which must show `image1 image2 image3 choice`:
  image1, image2, image3   the three objects, numbered from 1 in THINGS
  choice                   which of them is the odd one out: 1, 2 or 3
Any other column can select rows, such as `noise_ceiling`: 0 in the training set, 1 to 3 in the test sets,
whose triplets many people answered.

Shape suffixes: n choices, u different triplets.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignet.data.text import no_utf8
from alignet.triplets import check_triplets

IMAGES = ("image1", "image2", "image3")
CHOICE = "choice"
SEPARATORS = {"\t": "tab", ",": "comma", ";": "semicolon"}
_MOST_OBJECTS = 2_000_000  # so that a triplet fits one 64-bit number
_CHUNK = 1 << 24  # bytes of a table checked at a time

Where = Mapping[str, Sequence[int | str]]


def read_table(path: Path, where: Where) -> np.ndarray:
    """The choices of a table in the numbering of its file: int64 (n, 3), the odd one out last.

    where: column -> the values that count; a row is taken if it fits every column. A number fits whatever
    way it is written (1, 1.0), text must be the same.
    Raises ValueError for missing columns, a line of another length, numbers that are none, a choice
    outside 1..3, and where no row is selected.
    """
    _check_where(where)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            columns, separator = _header(path, handle.readline())
        _check_columns(path, columns, where)
        _check_lines(path, len(columns), separator)
        numeric = list(dict.fromkeys((*IMAGES, CHOICE, *(name for name in where if _by_number(where[name])))))
        values = _read(path, columns, separator, numeric, np.float64)
        selected = np.ones(len(values), dtype=bool)
        for name, wanted in where.items():
            if _by_number(wanted):
                selected &= np.isin(values[:, numeric.index(name)], np.asarray(wanted))
            else:
                selected &= np.isin(
                    _read(path, columns, separator, [name], np.str_)[:, 0], np.asarray(wanted)
                )
    except UnicodeDecodeError as error:
        raise no_utf8(path, "a table of choices", error) from None
    if len(values) and not selected.any():
        rows = ", ".join(f"{name} in {list(wanted)}" for name, wanted in where.items())
        raise ValueError(
            f"{path}: expected rows with {rows}, found none among {len(values):,}; check the values."
        )
    return _choices(path, np.flatnonzero(selected) + 2, values[selected, :4])


def _check_where(where: Where) -> None:
    for column, values in where.items():
        if isinstance(values, str) or not values:
            raise ValueError(f"where: expected a list of values for {column}, found {values!r}; list them.")
        kinds = {isinstance(value, str) for value in values}
        if len(kinds) > 1 or not all(isinstance(value, int | str) for value in values):
            raise ValueError(
                f"where: expected whole numbers or texts for {column}, found {list(values)}; give one kind."
            )


def _by_number(values: Sequence[int | str]) -> bool:
    return not isinstance(values[0], str)


def _header(path: Path, line: str) -> tuple[list[str], str]:
    """The columns and what separates them: whatever makes the header show the columns of choices."""
    best: list[str] = []
    for separator in SEPARATORS:
        fields = next(csv.reader([line], delimiter=separator), [])
        columns = [field.strip() for field in fields]
        if {*IMAGES, CHOICE} <= set(columns):
            return columns, separator
        best = max(best, columns, key=len)
    missing = [name for name in (*IMAGES, CHOICE) if name not in best]
    raise ValueError(
        f"{path}: expected a header with the columns {', '.join((*IMAGES, CHOICE))}, separated by "
        f"{' or '.join(SEPARATORS.values())}, found no {', '.join(missing)} among "
        f"{', '.join(best)[:200] or 'nothing'}; rename the columns."
    )


def _check_columns(path: Path, columns: list[str], where: Where) -> None:
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"{path}: expected each column once, found {name!r} twice; rename one.")
    for name in where:
        if name not in columns:
            raise ValueError(
                f"{path}: expected a column {name}, by which rows are selected, found {', '.join(columns)}; "
                "name one of them in `where`."
            )


def _check_lines(path: Path, columns: int, separator: str) -> None:
    """Every line has as many columns as the header. Counted in bytes, which a table of millions needs."""
    line, rest = 1, b""
    with open(path, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            if b'"' in chunk:
                return _check_quoted_lines(path, columns, separator)
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                line = _check_bytes(path, columns, separator, whole + newline, line)
    if rest:
        _check_bytes(path, columns, separator, rest + b"\n", line)


def _check_bytes(path: Path, columns: int, separator: str, data: bytes, line: int) -> int:
    """Check whole lines, of which the first has the number `line`; returns the number of the next one."""
    characters = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    places = np.flatnonzero(characters == ord(separator))
    found = np.diff(np.searchsorted(places, ends), prepend=0) + 1
    off = np.flatnonzero(found != columns)
    if len(off):
        raise _wrong_length(path, columns, line + int(off[0]), int(found[off[0]]))
    return line + len(ends)


def _check_quoted_lines(path: Path, columns: int, separator: str) -> None:
    with open(path, encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, delimiter=separator)
        for row in reader:
            if len(row) != columns:
                raise _wrong_length(path, columns, reader.line_num, len(row))


def _wrong_length(path: Path, columns: int, line: int, found: int) -> ValueError:
    return ValueError(
        f"{path}: expected {columns} columns on line {line}, found {found}; the file is truncated or damaged, "
        "fetch it again."
    )


def _read(path: Path, columns: list[str], separator: str, names: list[str], dtype: type) -> np.ndarray:
    """Some columns of all rows below the header, (rows, names)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input contained no data")
        try:
            return np.loadtxt(
                path, dtype=dtype, delimiter=separator, skiprows=1, comments=None, quotechar='"', ndmin=2,
                usecols=[columns.index(name) for name in names], encoding="utf-8",
            ).reshape(-1, len(names))  # fmt: skip
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            reason = str(error).rstrip(".")  # numpy says row and column, both counted from 0 or 1
            raise ValueError(
                f"{path}: expected numbers in the columns {', '.join(names)}, found something else ({reason}); "
                "repair that row, or select by text where a column holds text."
            ) from None


def _choices(path: Path, lines: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Odd one last, from the columns image1, image2, image3, choice of the rows that stand on `lines`."""
    off = np.argwhere(~(values == np.rint(values)) | (np.abs(values) >= 2**53))  # NaN is not equal to itself
    if len(off):
        row, column = off[0]
        raise ValueError(
            f"{path}: expected a whole number in column {(*IMAGES, CHOICE)[column]} on line {lines[row]}, found "
            f"{values[row, column]}; repair that line."
        )
    whole = values.astype(np.int64)
    wrong = np.flatnonzero((whole[:, 3] < 1) | (whole[:, 3] > 3))
    if len(wrong):
        raise ValueError(
            f"{path}: expected a choice of 1, 2 or 3, the position of the odd one out, found "
            f"{whole[wrong[0], 3]} on line {lines[wrong[0]]}; number the positions from 1."
        )
    order = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[whole[:, 3] - 1]  # columns that put the choice last
    return np.take_along_axis(whole[:, :3], order, axis=1)


@dataclass(frozen=True)
class RepeatedCeiling:
    """How well people who answered the same triplets agree: what no model of the average person surpasses.

    share: the mean over triplets of the share of answers that the most frequent one got, as THINGS reports
    it. Chance raises it where a triplet has few answers; leave_one_out does not: the mean over triplets of
    how often an answer is the most frequent one of the others (where the others have several, it counts as
    wrong). *_untied: the same over the triplets whose answers have one most frequent.
    """

    triplets: int  # u, different triplets with at least two answers
    answers: int  # to those
    single: int  # different triplets with one answer, which say nothing and are left out
    ties: int  # of the u: several answers are the most frequent
    share: float  # within [1/3, 1]
    share_untied: float  # NaN where all are tied
    leave_one_out: float  # within [0, 1]
    leave_one_out_untied: float


def repeated_ceiling(triplets: np.ndarray) -> RepeatedCeiling:
    """The noise ceiling of choices (n, 3) int, odd one out last, among which triplets are repeated.

    Two rows are answers to the same triplet if they hold the same objects in any order.
    Raises ValueError where no triplet has two answers. Objects count from 0, up to two million.
    """
    check_triplets(triplets, _MOST_OBJECTS, "noise ceiling")
    members = np.sort(triplets.astype(np.int64), axis=1)
    base = int(members.max()) + 1
    distinct, triplet = np.unique(
        (members[:, 0] * base + members[:, 1]) * base + members[:, 2], return_inverse=True
    )
    position = (members < triplets[:, 2:]).sum(axis=1)  # of the odd one out among the sorted objects
    counts = np.bincount(triplet * 3 + position, minlength=3 * len(distinct)).reshape(-1, 3)
    answers = counts.sum(axis=1)
    single = int((answers == 1).sum())
    counts, answers = counts[answers > 1], answers[answers > 1]
    if not len(counts):
        raise ValueError(
            f"noise ceiling: expected triplets that were answered at least twice, found {single:,} answered "
            "once; give a test set with repeated triplets."
        )
    share = counts.max(axis=1) / answers
    tied = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1
    agrees = np.zeros(len(counts))
    for odd in range(3):  # an answer `odd` agrees if it stays ahead without itself
        others = np.delete(counts, odd, axis=1).max(axis=1)
        agrees += np.where(counts[:, odd] - 1 > others, counts[:, odd], 0)
    agrees /= answers
    return RepeatedCeiling(
        triplets=len(counts),
        answers=int(answers.sum()),
        single=single,
        ties=int(tied.sum()),
        share=float(share.mean()),
        share_untied=_mean(share[~tied]),
        leave_one_out=float(agrees.mean()),
        leave_one_out_untied=_mean(agrees[~tied]),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
