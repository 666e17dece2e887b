"""A pickle of trials as a table, without ever loading a pickle in this process.

    IN.pkl -> unpickle_levels.py in a process of its own -> lines of JSON, checked here -> OUT.parquet or OUT.csv

The data set Levels is distributed as a pickle: a dict participant -> list of trials. Once converted, it is read as any
table of trials (alignet.data.trials).
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from alignet.data.trials import ALIASES, NEEDED

READER = Path(__file__).with_name("unpickle_levels.py")
MEGABYTES, SECONDS, TRIALS = 4096, 300, 2_000_000  # at most, of the process that reads the pickle
_MOST_BYTES = 1 << 30  # of what it may say

Columns = dict[str, list[Any]]


def convert_levels(
    source: Path, target: Path, *, megabytes: int = MEGABYTES, seconds: int = SECONDS, most: int = TRIALS
) -> dict[str, int]:
    """Write the trials of a pickle as `.parquet` or `.csv`, and return how many participants, trials and columns.

    The columns are the fields of the trials, and `participant` and `trial` (its place in the list, from 0) before them.
    Raises ValueError for a file that is no pickle, is damaged, holds anything but text and numbers in lists and
    dictionaries, needs more than `megabytes` of memory or `seconds`, holds more than `most` trials, or is not of that
    form. `target` is then untouched.
    """
    if target.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{target}: expected a name that ends in .parquet or .csv; rename it.")
    if not source.is_file():
        raise ValueError(f"{source}: expected a pickle, found no file; check the path.")
    columns = _columns(source, _read_apart(source, megabytes, seconds, most))
    temporary = target.with_name(f"{target.name}.tmp")
    if target.suffix.lower() == ".csv":
        temporary.write_text(_as_csv(columns), encoding="utf-8", newline="")
    else:
        _write_parquet(columns, temporary)
    os.replace(temporary, target)
    people = len(set(columns["participant"]))
    return {"participants": people, "trials": len(columns["participant"]), "columns": len(columns)}


def _read_apart(source: Path, megabytes: int, seconds: int, most: int) -> list[tuple[str, dict[str, Any]]]:
    """(participant, fields) of every trial, as the other process says."""
    command = [sys.executable, "-I", "-S", str(READER), str(source.absolute())]
    command += [str(megabytes), str(seconds), str(most)]
    trials: list[tuple[str, dict[str, Any]]] = []
    error = "the process that reads it ended without a word"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={}, cwd="/"
    ) as process:
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            said = 0
            for line in process.stdout or ():
                said += len(line)
                if said > _MOST_BYTES:
                    error = f"more than {_MOST_BYTES:,} bytes of trials"
                    break
                entry = json.loads(line)
                if isinstance(entry, dict):
                    error = "" if entry == {"end": True} else str(entry.get("error"))
                    break
                participant, fields = entry
                trials.append((participant, fields))
        except (ValueError, TypeError):
            error = (
                "the process that reads it was ended (it took too long, or said something else than trials)"
            )
        finally:
            timer.cancel()
            process.kill()
    if error:
        raise ValueError(
            f"{source}: expected a pickle of trials, a dictionary participant -> list of dictionaries of text and "
            f"numbers; it was not opened here, and the process that reads such files found: {error}."
        )
    return trials


def _columns(source: Path, trials: list[tuple[str, dict[str, Any]]]) -> Columns:
    """The trials by column, in the order in which fields first appear; None where a trial lacks one."""
    names = list(dict.fromkeys(name for _, fields in trials for name in fields))
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
    for participant, _ in trials:
        number.append(places.get(participant, 0))
        places[participant] = number[-1] + 1
    columns: Columns = {"participant": [participant for participant, _ in trials], "trial": number}
    for name in names:
        if name not in columns:
            columns[name] = _one_type([fields.get(name) for _, fields in trials])
    return columns


def _one_type(values: list[Any]) -> list[Any]:
    """Numbers if all of them are, otherwise text; None stays."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        return values
    if kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [None if value is None else str(value) for value in values]


def _as_csv(columns: Columns) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))  # None as an empty cell
    return text.getvalue()


def _write_parquet(columns: Columns, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path)
