"""Runs alone, in a process of its own: a pickle of trials comes in, lines of JSON go out, nothing in it is executed.

    python -I -S unpickle_levels.py IN.pkl MEGABYTES SECONDS TRIALS  ->  one line for each trial, or one {"error": text}

A pickle is a program, so it is never opened in the process of whoever uses alignet (alignet.data.pickled starts this
file and checks what it says). Here every name that a pickle may ask for is looked up in one short table, whose entries
are functions of this file that only build text and numbers; any other name ends the reading. Before that the process
gives up writing files, and bounds its memory and time. It uses the standard library alone: numpy is not even found.

What is understood: a dict participant -> list of trials, each a dict of text and numbers; numpy's scalars too.
"""

from __future__ import annotations

import json
import math
import pickle
import resource
import struct
import sys
from typing import Any, NoReturn

MOST_TEXT = 1_000  # characters of one text
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


def _limit(megabytes: int, seconds: int) -> None:
    """Bound memory and time of this process, and let it write no file."""
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _plain(value: Any) -> Any:
    """A text, number, truth value or None; anything else is left out as None."""
    if isinstance(value, str):
        return value[:MOST_TEXT]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _write(people: Any, most: int) -> None:
    if not isinstance(people, dict):
        raise ValueError(f"it holds a {type(people).__name__}, not a dictionary of participants")
    count = 0
    for participant, trials in people.items():
        if not isinstance(participant, str | int) or not isinstance(trials, list | tuple):
            raise ValueError(f"participant {str(participant)[:40]!r} has no list of trials")
        for trial in trials:
            if not isinstance(trial, dict) or len(trial) > MOST_FIELDS:
                raise ValueError(f"participant {str(participant)[:40]!r} has a trial that is no dictionary")
            count += 1
            if count > most:
                raise ValueError(f"it holds more than {most:,} trials")
            fields = {name[:100]: _plain(value) for name, value in trial.items() if isinstance(name, str)}
            sys.stdout.write(json.dumps([str(participant)[:MOST_TEXT], fields]) + "\n")


def main(path: str, megabytes: str, seconds: str, most: str) -> None:
    """Read the pickle at `path` and print its trials, or one line that says why not."""
    try:
        with open(path, "rb") as handle:
            _limit(int(megabytes), int(seconds))
            people = _Reader(handle).load()
        _write(people, int(most))
        message = ""
    except MemoryError:
        message = f"it needs more than {megabytes} MB of memory"
    except Exception as error:  # a damaged pickle may raise anything
        message = " ".join(str(error).split())[:300] or type(error).__name__
    print(json.dumps({"error": message} if message else {"end": True}))
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
