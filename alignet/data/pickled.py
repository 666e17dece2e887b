"""A pickle of trials as a table, without ever loading a pickle in this process.

    IN.pkl -> unpickle_levels.py in a process of its own -> lines of JSON, checked here -> OUT.parquet or OUT.csv

The data set Levels is distributed as a pickle: a dict participant -> list of trials. Once converted, it is read as any
table of trials (alignet.data.trials). What this process takes in is bounded too: bytes, lines, columns and cells.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from alignet.data.trials import ALIASES, NEEDED, OPTIONAL

READER = Path(__file__).with_name("unpickle_levels.py")
MEGABYTES, SECONDS, TRIALS = 4096, 300, 2_000_000  # at most, of the process that reads the pickle
MOST_BYTES = 96 << 20  # of what it may say: 400 bytes for each of 500 trials of 500 participants
MOST_LINE = 1 << 20  # bytes of one trial
MOST_COLUMNS, MOST_CELLS = 200, 1 << 23
ODD = "something else than trials"
_MOST_TEXTS = 1 << 20  # different texts that are held once, however often they occur

Columns = dict[str, list[Any]]


@dataclass
class _Taken:
    """What has been said so far, by column: each as long as there are trials, None where one lacks the field."""

    names: list[str] = field(default_factory=list)
    values: list[list[Any]] = field(default_factory=list)  # of each name
    participants: list[str] = field(default_factory=list)
    emptied: int = 0
    participant: str = ""  # whose trials come now
    texts: dict[str, str] = field(default_factory=dict)

    def name(self, text: str) -> str:
        """Begin a column; why it may not be, or ''."""
        if text in self.names or len(self.names) >= MOST_COLUMNS:
            return f"a field twice, or more than {MOST_COLUMNS}"
        self.names.append(text)
        self.values.append([None] * len(self.participants))
        return self._too_many()

    def add(self, row: list[Any]) -> str:
        """Append a trial; why it may not be, or ''."""
        if len(row) != len(self.names) or any(isinstance(value, list | dict) for value in row):
            return ODD
        self.participants.append(self.participant)
        for column, value in zip(self.values, row, strict=True):
            column.append(self._once(value) if isinstance(value, str) else value)
        return self._too_many()

    def _too_many(self) -> str:
        held = len(self.names) * len(self.participants)
        return f"more than {MOST_CELLS:,} cells (trials times fields)" if held > MOST_CELLS else ""

    def _once(self, text: str) -> str:
        """The text, as the object that already holds it."""
        if len(self.texts) >= _MOST_TEXTS:
            return self.texts.get(text, text)
        return self.texts.setdefault(text, text)


def convert_levels(
    source: Path, target: Path, *, megabytes: int = MEGABYTES, seconds: int = SECONDS, most: int = TRIALS
) -> dict[str, int]:
    """Write the trials of a pickle as `.parquet` or `.csv`; how many participants, trials, columns and emptied cells.

    The columns are the fields of the trials, and `participant` and `trial` (its place in the list, from 0) before them.
    Emptied are values of fields that trials do not need (alignet.data.trials) and that are neither text nor number.
    Raises ValueError for a file that is no pickle, is damaged, holds anything but text and numbers in lists and
    dictionaries, needs more than `megabytes` of memory or `seconds`, holds more than `most` trials, or is not of that
    form. `target` is then untouched.
    """
    if target.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{target}: expected a name that ends in .parquet or .csv; rename it.")
    if not source.is_file():
        raise ValueError(f"{source}: expected a pickle, found no file; check the path.")
    taken = _read_apart(source, megabytes, seconds, most)
    columns = _columns(source, taken)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        if target.suffix.lower() == ".csv":
            _write_csv(columns, temporary)
        else:
            _write_parquet(columns, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    people = len(set(columns["participant"]))
    return {
        "participants": people, "trials": len(columns["participant"]), "columns": len(columns),
        "emptied": taken.emptied,
    }  # fmt: skip


def _read_apart(source: Path, megabytes: int, seconds: int, most: int) -> _Taken:
    """Every trial, as the other process says."""
    command = [sys.executable, "-I", "-S", str(READER), str(source.absolute())]
    fields = (*NEEDED[1:], *ALIASES, OPTIONAL[0])
    command += [str(megabytes), str(seconds), str(most), ",".join(fields)]
    expired = threading.Event()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/"
    ) as process:

        def stop() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(seconds, stop)
        timer.start()
        try:
            taken, error = _taken(process.stdout)
            if error is None:
                error = _ended(process.wait(), expired.is_set(), seconds)
        finally:
            timer.cancel()
            process.kill()
    if error:
        raise ValueError(
            f"{source}: expected a pickle of trials, a dictionary participant -> list of dictionaries of text and "
            f"numbers; it was not opened here, and the process that reads such files found: {error}."
        )
    return taken


def _taken(stream: IO[bytes] | None) -> tuple[_Taken, str | None]:
    """What the lines of the stream say, and what is wrong: '' for nothing, None where they end before it is said."""
    taken, said = _Taken(), 0
    while stream is not None and (line := stream.readline(MOST_LINE + 1)):
        said += len(line)
        if len(line) > MOST_LINE or said > MOST_BYTES:
            return taken, f"more than {MOST_LINE:,} bytes of one trial or {MOST_BYTES:,} of all"
        if not line.endswith(b"\n"):
            return taken, None  # it was ended within a line
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return taken, ODD
        if isinstance(entry, dict) and ("end" in entry or "error" in entry):
            taken.emptied = int(entry.get("emptied", 0))
            return taken, "" if entry.get("end") is True else str(entry.get("error"))
        if error := _add(taken, entry):
            return taken, error
    return taken, None


def _add(taken: _Taken, entry: Any) -> str:
    """What one line adds: a participant, a field, or a trial; why it may not, or ''."""
    if isinstance(entry, list):
        return taken.add(entry)
    if not isinstance(entry, dict) or len(entry) != 1:
        return ODD
    ((what, text),) = entry.items()
    if not isinstance(text, str) or what not in ("participant", "field"):
        return ODD
    if what == "field":
        return taken.name(text)
    taken.participant = text
    return ""


def _ended(code: int, expired: bool, seconds: int) -> str:
    """Why the process ended before it said so."""
    if expired or code == -signal.SIGXCPU:
        return f"it takes more than {seconds} s"
    if code == -signal.SIGKILL:
        return "the system ended the process, perhaps for want of memory"
    return f"the process ended without a word (status {code})"


def _columns(source: Path, taken: _Taken) -> Columns:
    """The trials by column, in the order in which fields first appear; None where a trial lacks one."""
    names = taken.names
    missing = [
        name for name in NEEDED[1:] if not {name, *(k for k, v in ALIASES.items() if v == name)} & set(names)
    ]
    if missing:
        raise ValueError(
            f"{source}: expected trials with the fields {', '.join(NEEDED[1:])}, found no {', '.join(missing)} among "
            f"{', '.join(names)[:200] or 'nothing'}; this is no pickle of Levels."
        )
    places: dict[str, int] = {}
    number = []
    for participant in taken.participants:
        number.append(places.get(participant, 0))
        places[participant] = number[-1] + 1
    columns: Columns = {"participant": taken.participants, "trial": number}
    for name, values in zip(names, taken.values, strict=True):
        if name not in columns:
            columns[name] = _one_type(values)
    return columns


def _one_type(values: list[Any]) -> list[Any]:
    """Numbers if all of them are, otherwise text; None stays."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds <= {str}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _write_csv(columns: Columns, path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))  # None as an empty cell


def _write_parquet(columns: Columns, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
