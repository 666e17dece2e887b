"""Odd-one-out trials with response times, as a table holds them: read and checked, nothing left out yet.

    trials.csv or .parquet -> Trials -> alignet.data.levels (who and what counts)

One row for each trial of each participant; the names of the original data set Levels are understood too:
  participant                            who answered
  image1, image2, image3                 the images shown (image1Path, image2Path, image3Path)
  selected_image                         the odd one: the name of one of the three; empty where nobody answered
  triplet_type                           between_class (coarse), within_class (fine), class_border or class_boundary
                                         (boundary), or the level's own name; not read of catch trials
  exp_trial_type                         exp_trial | catch_trial
  rt                                     milliseconds; empty where nobody answered
  correct_image                          the right answer to a catch trial; without it, two of its three images must be
                                         the same, and the third is right
  trial                                  its number, otherwise its place among the participant's rows
Further columns are not read. Empty is: nothing, NA, NaN, None or null.

Shape suffixes: t trials.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignet.data.images import SUFFIXES
from alignet.data.text import open_text, separator_of

LEVELS = ("coarse", "fine", "boundary")
TYPES = {
    "between_class": 0, "coarse": 0, "within_class": 1, "fine": 1,
    "class_border": 2, "class_boundary": 2, "boundary": 2,
}  # fmt: skip
KINDS = ("exp_trial", "catch_trial")
ALIASES = {"image1Path": "image1", "image2Path": "image2", "image3Path": "image3"}
IMAGES = ("image1", "image2", "image3")
NEEDED = ("participant", *IMAGES, "selected_image", "triplet_type", "exp_trial_type", "rt")
OPTIONAL = ("correct_image", "trial")
EMPTY = ("", "NA", "NaN", "nan", "None", "null")
MOST_ROWS = 1_000_000  # of a small Parquet file, whose equal rows take next to no space
LEAST_MEDIAN_MS = 60.0  # a median below is one of seconds: nobody answers in 60 ms

Column = list[str | None]


@dataclass(frozen=True)
class Trials:
    """All trials of a table, in its order. Positions count the images as they were shown, from 0."""

    participants: tuple[str, ...]  # in the order of their first rows
    images: tuple[str, ...]  # every name once, sorted
    participant: np.ndarray  # int64 (t,), index of `participants`
    number: np.ndarray  # int64 (t,)
    shown: np.ndarray  # int64 (t, 3), indices of `images`
    selected: np.ndarray  # int64 (t,), position of the odd one; -1 for a miss
    level: np.ndarray  # int64 (t,), index of LEVELS; -1 for catch trials
    catch: np.ndarray  # bool (t,)
    right: np.ndarray  # int64 (t,), position of the right answer to a catch trial; -1 where unknown
    rt: np.ndarray  # float64 (t,), milliseconds; NaN for a miss


def read_trials(path: Path | str) -> Trials:
    """The trials of a `.csv` (comma, tab or semicolon, as its header shows) or `.parquet` file.

    Raises ValueError for a damaged or empty file, missing columns, types and images that nobody knows, response times
    that are missing, negative or in seconds, and ordinary trials that show an image twice.
    """
    path = Path(path)
    columns = _columns(path)
    rows = len(columns["participant"])
    if not rows:
        raise ValueError(f"{path}: expected at least one trial, found none; check what was exported.")
    people = _filled(path, columns, "participant")
    participants = tuple(dict.fromkeys(people))
    place = {name: index for index, name in enumerate(participants)}
    participant = np.array([place[name] for name in people], dtype=np.int64)
    kind = _known(path, columns, "exp_trial_type", KINDS)
    catch = np.array([name == "catch_trial" for name in kind])
    level = _levels(path, columns, catch)
    shown, images = _shown(path, columns, catch)
    selected = _position(path, "selected_image", columns["selected_image"], shown, images)
    right = _right(path, columns, shown, images, catch)
    number = _numbers(path, columns.get("trial"), participant)
    rt = _response_times(path, columns["rt"], selected)
    return Trials(participants, images, participant, number, shown, selected, level, catch, right, rt)


def _columns(path: Path) -> dict[str, Column]:
    """The known columns of the file by their short names, None where a cell is empty."""
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        raise ValueError(
            f"{path}: expected trials as .csv or .parquet, found {path.suffix or 'no suffix'}; pickles are not opened: "
            "convert one with `python -m alignet.stages.convert levels IN.pkl OUT.parquet`."
        )
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise ValueError(f"{path}: expected a table of trials, found {what}; check the path.")
    found = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    return {name: [None if cell in EMPTY else cell for cell in cells] for name, cells in found.items()}


def _wanted(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Name in the file of each known column that it has, by the short name."""
    wanted: dict[str, str] = {}
    for name in header:
        short = ALIASES.get(name, name)
        if short not in (*NEEDED, *OPTIONAL):
            continue
        if short in wanted:
            raise ValueError(
                f"{path}: expected each column once, found {name} beside {wanted[short]}; drop one."
            )
        wanted[short] = name
    missing = [name for name in NEEDED if name not in wanted]
    if missing:
        raise ValueError(
            f"{path}: expected the columns {', '.join(NEEDED)}, found no {', '.join(missing)} among "
            f"{', '.join(header)[:200] or 'nothing'}; rename the columns."
        )
    return wanted


def _csv(path: Path) -> dict[str, Column]:
    with open_text(path, "a table of trials") as handle:
        first, above = handle.readline(), 1
        while first and not first.strip():
            first, above = handle.readline(), above + 1
        if not first:
            raise ValueError(
                f"{path}: expected a table of trials, found an empty file; check what was exported."
            )
        separator = separator_of(first, (*NEEDED, *ALIASES))
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
        wanted = _wanted(path, header)
        rows = []
        reader = csv.reader(handle, delimiter=separator)
        for row in reader:
            if not any(map(str.strip, row)):
                continue  # a blank line
            if len(row) != len(header):
                raise ValueError(
                    f"{path}: expected {len(header)} columns on line {reader.line_num + above}, found {len(row)}; the "
                    "file is truncated or damaged, fetch it again."
                )
            rows.append(row)
    places = {short: header.index(name) for short, name in wanted.items()}
    return {short: [row[place].strip() for row in rows] for short, place in places.items()}


def _parquet(path: Path) -> dict[str, Column]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_rows(path, file.metadata.num_rows)
            wanted = _wanted(path, file.schema_arrow.names)
            table = file.read(columns=list(wanted.values()))
        return {
            short: [None if cell is None else str(cell) for cell in table[name].to_pylist()]
            for short, name in wanted.items()
        }
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(
            f"{path}: expected a Parquet file, found a damaged or truncated one ({str(error)[:200].splitlines()[0]}); "
            "export it again."
        ) from None


def _check_rows(path: Path, rows: int) -> None:
    """Refuse more rows than response times could be told apart in so small a file: a decompression bomb."""
    size = path.stat().st_size
    if rows > max(MOST_ROWS, 10 * size):
        raise ValueError(
            f"{path}: expected at most ten trials for each of the file's {size:,} bytes, found {rows:,}, as of a "
            "decompression bomb; export it again."
        )


def _filled(path: Path, columns: Mapping[str, Column], name: str) -> list[str]:
    for row, cell in enumerate(columns[name]):
        if cell is None:
            raise ValueError(
                f"{path}: expected {name} in every row, found none in row {row + 1}; fill it in."
            )
    return [str(cell) for cell in columns[name]]


def _known(path: Path, columns: Mapping[str, Column], name: str, valid: Sequence[str]) -> list[str]:
    cells = _filled(path, columns, name)
    for row, cell in enumerate(cells):
        if cell not in valid:
            raise ValueError(
                f"{path}: expected {name} to be one of {', '.join(valid)}, found {cell!r} in row {row + 1}; take rows "
                "of other kinds out."
            )
    return cells


def _levels(path: Path, columns: Mapping[str, Column], catch: np.ndarray) -> np.ndarray:
    level = np.full(len(catch), -1, dtype=np.int64)
    cells = columns["triplet_type"]
    for row in np.flatnonzero(~catch):
        name = cells[row]
        if name not in TYPES:
            raise ValueError(
                f"{path}: expected triplet_type to be one of {', '.join(TYPES)}, found {name!r} in row {row + 1}; "
                "rename it."
            )
        level[row] = TYPES[str(name)]
    return level


def _shown(
    path: Path, columns: Mapping[str, Column], catch: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Images of each trial as numbers (t, 3), and their names. Images of catch trials have numbers too."""
    names = np.array([_filled(path, columns, name) for name in IMAGES], dtype=object).T
    images = sorted(set(names.ravel().tolist()))
    number = {name: index for index, name in enumerate(images)}
    shown = np.array([[number[name] for name in row] for row in names.tolist()], dtype=np.int64)
    twice = (
        (shown[:, 0] == shown[:, 1]) | (shown[:, 0] == shown[:, 2]) | (shown[:, 1] == shown[:, 2])
    ) & ~catch
    if twice.any():
        row = int(np.flatnonzero(twice)[0])
        raise ValueError(
            f"{path}: expected three different images in each ordinary trial, found one twice in {int(twice.sum())} "
            f"rows, the first row {row + 1} ({', '.join(names[row])}); mark catch trials as catch_trial."
        )
    return shown, tuple(images)


def _position(path: Path, name: str, cells: Column, shown: np.ndarray, images: Sequence[str]) -> np.ndarray:
    """Where the image that a cell names was shown, -1 where it is empty.

    A name that is no image of the table may lack its folders, its suffix or both where that fits one of the three.
    """
    number = {image: index for index, image in enumerate(images)}
    codes = np.array([-1 if cell is None else number.get(cell, -2) for cell in cells], dtype=np.int64)
    match = shown == codes[:, None]
    position = np.where(match.any(1), match.argmax(1), -1)
    for row in np.flatnonzero((position < 0) & (codes != -1)):
        three = [images[image] for image in shown[row]]
        fitting = _fitting(str(cells[row]), three) if codes[row] < 0 else []
        if len({three[place] for place in fitting}) != 1:
            raise ValueError(
                f"{path}: expected {name} to name one of the three images, found {cells[row]!r} in row {row + 1}, "
                f"which shows {', '.join(three)}; write it as the image columns do, or leave it empty for a miss."
            )
        position[row] = fitting[0]
    return position


def _fitting(name: str, three: Sequence[str]) -> list[int]:
    """Places of the images that a name fits: without suffixes; where none does, without folders; then without both."""
    for part in (_stem, _base, lambda one: _stem(_base(one))):
        fitting = [place for place, image in enumerate(three) if part(image) == part(name)]
        if fitting:
            return fitting
    return []


def _stem(name: str) -> str:
    """The name without the suffix of an image."""
    start, _, suffix = name.rpartition(".")
    return start if start and f".{suffix.lower()}" in SUFFIXES else name


def _base(name: str) -> str:
    """The last part of a path, whichever way its slashes lean."""
    return name.replace("\\", "/").rpartition("/")[2]


def _right(
    path: Path, columns: Mapping[str, Column], shown: np.ndarray, images: Sequence[str], catch: np.ndarray
) -> np.ndarray:
    """Position of the right answer to each catch trial: as correct_image says, or else the image that is no copy."""
    right = np.full(len(catch), -1, dtype=np.int64)
    if "correct_image" in columns:
        rows = np.flatnonzero(catch)
        cells = [columns["correct_image"][row] for row in rows]
        right[rows] = _position(path, "correct_image", cells, shown[rows], images)
    pairs = ((0, 1, 2), (0, 2, 1), (1, 2, 0))  # two places and the third
    for first, second, third in pairs:
        lone = catch & (shown[:, first] == shown[:, second]) & (shown[:, first] != shown[:, third])
        right[lone & (right < 0)] = third
    return right


def _numbers(path: Path, cells: Column | None, participant: np.ndarray) -> np.ndarray:
    if cells is None:  # the place among the participant's rows
        order = np.argsort(participant, kind="stable")
        starts = np.searchsorted(participant[order], participant[order])
        number = np.empty(len(participant), dtype=np.int64)
        number[order] = np.arange(len(participant)) - starts
        return number
    values = _floats(path, "trial", cells)
    if not np.array_equal(values, np.rint(values)):
        row = int(np.flatnonzero(values != np.rint(values))[0])
        raise ValueError(
            f"{path}: expected a whole number as trial, found {cells[row]!r} in row {row + 1}; number the trials."
        )
    return values.astype(np.int64)


def _floats(path: Path, name: str, cells: Column) -> np.ndarray:
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        try:
            values[row] = np.nan if cell is None else float(cell)
        except ValueError:
            raise ValueError(
                f"{path}: expected a number as {name}, found {cell!r} in row {row + 1}; repair it."
            ) from None
    return values


def _response_times(path: Path, cells: Column, selected: np.ndarray) -> np.ndarray:
    rt = _floats(path, "rt", cells)
    answered = selected >= 0
    bad = answered & ~(np.isfinite(rt) & (rt > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{path}: expected rt above 0 ms wherever an image was selected, found {cells[row]!r} in row {row + 1}, "
            f"one of {int(bad.sum())} such rows; repair them, or leave selected_image empty for a miss."
        )
    if answered.any() and np.median(rt[answered]) < LEAST_MEDIAN_MS:
        raise ValueError(
            f"{path}: expected rt in milliseconds, found a median of {np.median(rt[answered]):g}, as if in seconds; "
            "multiply by 1000."
        )
    return np.where(answered, rt, np.nan)
