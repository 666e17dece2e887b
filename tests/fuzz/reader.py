"""A seed and its reader, the inputs made of it, and what holds of arrays and triplets. For tests.fuzz.kinds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutations import mutate

MAX_PIXELS = 1_000_000


@dataclass(frozen=True)
class Reader:
    """A seed and its reader. read: path -> what it holds. holds: of what was read, '' or what is wrong with it."""

    file: str  # its name, whose suffix counts
    seed: bytes
    read: Callable[[Path], Any]
    holds: Callable[[Any, int], str]  # given the size of the file in bytes
    text: bool = False
    sealed: bool = False
    made: Callable[[random.Random], bytes] | None = (
        None  # an input made from nothing, in a third of the cases
    )


def input_of(reader: Reader, chance: random.Random) -> tuple[bytes, str]:
    """The bytes of one input, and what became of the seed: `as it is`, `mutated`, `made`."""
    share = chance.random()
    if share < 0.01:
        return reader.seed, "as it is"
    if reader.made is not None and share < 0.34:
        return reader.made(chance), "made"
    return mutate(reader.seed, chance, reader.text), "mutated"


def wrong_array(values: Any, finite: bool = True) -> str:
    if not isinstance(values, np.ndarray) or values.dtype.hasobject:
        return f"no plain array but {type(values).__name__}"
    return "" if not finite or values.dtype.kind != "f" or np.isfinite(values).all() else "NaN or infinity"


def are_arrays(found: dict[str, np.ndarray], size: int) -> str:
    return next((wrong for array in found.values() if (wrong := wrong_array(array, finite=False))), "")


def are_triplets(triplets: np.ndarray, objects: int) -> str:
    if triplets.ndim != 2 or triplets.shape[1] != 3 or not len(triplets) or triplets.dtype != np.int64:
        return f"no triplets but {triplets.dtype} {triplets.shape}"
    if triplets.min() < 0 or triplets.max() >= objects:
        return f"objects {triplets.min()}..{triplets.max()}"
    return "" if all(len(set(row)) == 3 for row in triplets.tolist()) else "an object twice"


def all_finite(found: dict[str, np.ndarray], size: int) -> str:
    return next((wrong for array in found.values() if (wrong := wrong_array(array))), "")


def nothing_wrong(found: Any, size: int) -> str:
    return ""
