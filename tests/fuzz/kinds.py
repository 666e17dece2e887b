"""What is fuzzed: valid files of every kind, how each is read, and what must hold of whatever a reader accepts.

kind -> Reader (seed file, read, holds, sealed) -> tests.fuzz

`sealed`: the format has checksums, so bytes that changed are refused or do not matter: what is accepted is equal to
what the seed held. Otherwise what is accepted has the stated shape and range.
"""

from __future__ import annotations

from functools import cache

from tests.fuzz import archives, arrays, people, pictures, store
from tests.fuzz.reader import Reader

KINDS = (
    "jpeg",
    "png",
    "image",
    "tar",
    "npz",
    "npy",
    "csv",
    "text",
    "json",
    "mat",
    "parquet",
    "weights",
    "yaml",
)
# of 100 inputs; a configuration takes a hundred times as long to compose as an array to read
SHARES = {"jpeg": 10, "png": 12, "image": 8, "tar": 10, "npz": 14, "npy": 14, "csv": 13, "text": 6, "json": 6, "mat": 3,
          "parquet": 2, "weights": 1.5, "yaml": 0.5}  # fmt: skip


@cache
def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind, with its reader."""
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    modules = (pictures, archives, arrays, people, store)
    return tuple(reader for module in modules for reader in module.readers(kind))
