"""Runs alone, in a process of its own: a pickle of trials comes in, lines of JSON go out, nothing in it is executed.

    python -I -S unpickle_levels.py IN.pkl MEGABYTES SECONDS TRIALS FIELDS
    ->  lines of JSON: {"participant": name} before the trials of each, {"field": name} before the first trial that has
        it, a list of values for each trial, in the order of the fields so far, null for those that it lacks; at the end
        {"end": true, "emptied": n}, or {"error": text}

A pickle is a program, so it is never opened in the process of whoever uses alignet (alignet.data.pickled starts this
file and checks what it says). Here every name that a pickle may ask for is looked up in one short table, whose entries
are functions of this file that only build text and numbers; any other name ends the reading. Before that the process
bounds its memory and time, and lets nothing be written into files (which is no sandbox: it could still make an empty
one, or read others, if any of its functions did). It uses the standard library alone: numpy is not even found.

What is understood: a dict participant -> list of trials, each a dict of text and numbers; numpy's scalars too. FIELDS
are the names, separated by commas, whose values must be text or numbers; elsewhere other values are left empty and
counted (`emptied`). Text that is too long or no valid Unicode is refused everywhere.
"""

from __future__ import annotations

import json
import math
import pickle
import resource
import struct
import sys
from typing import Any, NoReturn

MOST_TEXT = 10_000  # characters of one text
MOST_NAME = 100  # of a field's name
MOST_FIELDS = 200  # of one trial
FORMATS = {  # numpy's kind and size of a number -> struct's letter
    "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e", "f4": "f",
    "f8": "d", "b1": "?",
}  # fmt: skip


class _Kind:
    """What numpy calls a dtype: the kind and size of a number or text, and its byte order."""

    def __init__(self, code: str) -> None:
        self.code = code.lstrip("<>=|")
        self.big = False

    def __setstate__(self, state: Any) -> None:
        self.big = isinstance(state, tuple) and len(state) > 1 and state[1] == ">"


def _dtype(code: Any, *_: Any) -> _Kind:
    if not isinstance(code, str):
        raise pickle.UnpicklingError("a dtype that is no text")
    return _Kind(code)


def _scalar(kind: Any, data: Any = b"") -> Any:
    """The number or text that numpy stored as bytes."""
    if not isinstance(kind, _Kind) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a numpy scalar of unknown form")
    order = ">" if kind.big else "<"
    if kind.code in FORMATS:
        return struct.unpack(order + FORMATS[kind.code], data)[0]
    if kind.code.startswith("U"):
        return data.decode("utf-32-be" if kind.big else "utf-32-le").rstrip("\0")
    raise pickle.UnpicklingError(f"a numpy scalar of type {kind.code!r}")


def _encode(text: Any, coding: Any) -> bytes:
    """How bytes are written into old pickles."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes of unknown form")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """Empty bytes, as old pickles make them."""
    return b""


def _dict(*arguments: Any) -> dict[Any, Any]:
    """An ordered or default dictionary, empty: what is in it comes after."""
    if len(arguments) > 1:
        raise pickle.UnpicklingError("a dictionary of unknown form")
    pairs = arguments[0] if arguments else None
    return dict(pairs) if isinstance(pairs, list) else {}  # an OrderedDict of old pickles brings its pairs


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _dict, ("collections", "defaultdict"): _dict,
    # what a default dictionary would make, which is never called
    ("builtins", "list"): None, ("builtins", "dict"): None,
    ("__builtin__", "list"): None, ("__builtin__", "dict"): None,
    ("builtins", "bytes"): _no_bytes, ("__builtin__", "bytes"): _no_bytes,
    ("_codecs", "encode"): _encode, ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar, ("numpy._core.multiarray", "scalar"): _scalar,
}  # fmt: skip


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of an allowed name. Never imports anything."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}; only text, numbers, lists and dictionaries are read"
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to objects outside of it")


def _limit(megabytes: int, seconds: int) -> int:
    """Bound memory (returned, MB) and processor time of this process, and let nothing be written into files.

    Where the machine already allows less, that stays.
    """
    try:
        memory = _bounded(resource.RLIMIT_AS, megabytes << 20)
        _bounded(resource.RLIMIT_CPU, seconds, more=1)  # a signal that tells time is up, then the end
        _bounded(resource.RLIMIT_FSIZE, 0)
        _bounded(resource.RLIMIT_CORE, 0)
    except (ValueError, OSError) as error:
        raise RuntimeError(f"its memory and time could not be bounded on this machine ({error})") from None
    return memory >> 20


def _bounded(kind: int, wanted: int, *, more: int = 0) -> int:
    """Set the soft limit to what is wanted, the hard one `more` above, neither above today's hard limit."""
    hard = resource.getrlimit(kind)[1]
    soft, upper = (
        amount if hard == resource.RLIM_INFINITY else min(amount, hard) for amount in (wanted, wanted + more)
    )
    resource.setrlimit(kind, (soft, upper))
    return soft


def _text(value: str, who: str, what: str, most: int = MOST_TEXT) -> str:
    """The text, if it is short enough and valid Unicode."""
    if len(value) > most:
        raise ValueError(f"{who}{what} has {len(value):,} characters, more than {most:,}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{who}{what} is no valid text (a lone surrogate)") from None
    return value


def _plain(value: Any, who: str, what: str) -> tuple[Any, bool]:
    """A text, number, truth value or None, and whether it is one; a number that is none (NaN) is None."""
    if isinstance(value, str):
        return _text(value, who, what), True
    if isinstance(value, bool) or value is None:
        return value, True
    if isinstance(value, int):
        return (value, True) if abs(value) < 1 << 63 else (None, False)
    if isinstance(value, float):
        return (value if math.isfinite(value) else None), not math.isinf(value)
    return None, False


def _fields(trial: dict[Any, Any], needed: frozenset[str], who: str) -> tuple[dict[str, Any], int]:
    """The trial's plain values by field, and how many others were left empty."""
    found, emptied = {}, 0
    for name, value in trial.items():
        if not isinstance(name, str):
            raise ValueError(f"{who}a trial has a field whose name is no text")
        _text(name, who, "the name of a field", MOST_NAME)
        found[name], plain = _plain(value, who, name)
        if not plain and name in needed:
            raise ValueError(f"{who}{name} is a {type(value).__name__}, neither text nor a finite number")
        emptied += not plain
    return found, emptied


def _write(people: Any, most: int, needed: frozenset[str]) -> int:
    """Print a line for each trial; how many values were left empty."""
    if not isinstance(people, dict):
        raise ValueError(f"it holds a {type(people).__name__}, not a dictionary of participants")
    count, emptied, seen = 0, 0, set()
    columns: dict[str, None] = {}
    for participant, trials in people.items():
        if not isinstance(participant, str | int):
            raise ValueError(f"a participant is a {type(participant).__name__}, neither text nor a number")
        name = _text(str(participant), "", "a participant's name")
        who = f"participant {name[:40]!r}"
        if name in seen:
            raise ValueError(f"{who} occurs twice, as text and as a number")
        seen.add(name)
        if not isinstance(trials, list | tuple):
            raise ValueError(f"{who} has no list of trials")
        _say({"participant": name})
        for trial in trials:
            if not isinstance(trial, dict) or len(trial) > MOST_FIELDS:
                raise ValueError(f"{who} has a trial that is no dictionary of at most {MOST_FIELDS} fields")
            count += 1
            if count > most:
                raise ValueError(f"it holds more than {most:,} trials")
            fields, others = _fields(trial, needed, f"{who}: ")
            emptied += others
            for field in fields:
                if field not in columns:  # a dictionary, for its order
                    columns[field] = None
                    _say({"field": field})
            if len(columns) > MOST_FIELDS:
                raise ValueError(f"its trials have more than {MOST_FIELDS} different fields")
            _say([fields.get(column) for column in columns])
    return emptied


def _say(what: Any) -> None:
    sys.stdout.write(json.dumps(what, separators=(",", ":")) + "\n")


def main(path: str, megabytes: str, seconds: str, most: str, fields: str) -> None:
    """Read the pickle at `path` and print its trials, then one line that says that this is all, or why not."""
    bound = int(megabytes)
    try:
        with open(path, "rb") as handle:
            bound = _limit(bound, int(seconds))
            people = _Reader(handle).load()
        end: dict[str, Any] = {
            "end": True,
            "emptied": _write(people, int(most), frozenset(fields.split(","))),
        }
    except MemoryError:
        end = {"error": f"it needs more than {bound} MB of memory"}
    except Exception as error:  # a damaged pickle may raise anything
        end = {"error": " ".join(str(error).split())[:300] or type(error).__name__}
    _say(end)
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
