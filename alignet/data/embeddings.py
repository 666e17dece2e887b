"""A published embedding of VICE or SPoSE from a file, to stand where a fit of our own would.

  parameters.npz      loc, scale                  every dimension of the posterior
  pruned_params.npz   pruned_loc, pruned_scale    the dimensions that VICE keeps
  final_embedding.npy, SPoSE's .npy and .txt      non-negative values without an uncertainty

SPoSE's text files hold a row of numbers for each object; its arrays go down to -0.001 where the optimiser stopped.

Shape suffixes: m objects, d dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignet.data.npy import read_npy, read_npz
from alignet.data.text import open_text

BELOW = 0.01  # of the largest value: so far below zero a value counts as zero
PAIRS = (("loc", "scale"), ("pruned_loc", "pruned_scale"))


class Embedding(NamedTuple):
    """Where each object lies, and how sure that is."""

    loc: np.ndarray  # float32 (m, d); negative values count as 0 in VICE's likelihood
    scale: np.ndarray | None  # float32 (m, d), at least 0; None where the file holds no uncertainty


def load_embedding(path: Path | str, objects: int, notes: list[str] | None = None) -> Embedding:
    """The embedding of `objects` objects in an `.npz`, `.npy` or `.txt` file, its rows in their order.

    Of an embedding without a scale, values down to -BELOW of the largest are set to zero. notes: where what was
    changed, and that there is no scale, is said. Raises ValueError for another type of file, for text that is no
    numbers (VICE's `.txt` results are pickles, which are not opened), for missing arrays, for anything but
    (objects, d) finite floats, for loc and scale of different shapes, for a negative scale, and for values further
    below zero.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        loc, scale = _pair(path, read_npz(path))
    elif suffix == ".npy":
        loc, scale = read_npy(path), None
    elif suffix == ".txt":
        loc, scale = _read_text(path), None
    else:
        raise ValueError(
            f"{path}: expected an embedding of type .npz, .npy or .txt, found {suffix or 'no suffix'}; give "
            "VICE's parameters.npz, pruned_params.npz or final_embedding.npy, or SPoSE's .txt or .npy."
        )
    loc = _checked(path, "loc" if scale is not None else "embedding", loc, objects)
    if scale is None:
        said = [] if notes is None else notes
        said.append(
            f"{path}: no scale, so a point for each object; soft labels know no uncertainty of the fit"
        )
        below = loc < 0
        if below.any() and loc.min() >= -BELOW * loc.max():
            said.append(f"{path}: {int(below.sum()):,} values below 0 (down to {loc.min():.4g}) count as 0")
            loc = np.where(below, np.float32(0), loc)
        _check_not_negative(path, "embedding", loc, "save what may be negative as npz with loc and scale")
        return Embedding(loc, None)
    if scale.shape != loc.shape:
        raise ValueError(
            f"{path}: expected loc and scale of one shape, found {loc.shape} and {scale.shape}; export both from "
            "the same fit."
        )
    scale = _checked(path, "scale", scale, objects)
    _check_not_negative(path, "scale", scale, "it is a standard deviation: undo a logarithm before saving it")
    return Embedding(loc, scale)


def _read_text(path: Path) -> np.ndarray:
    """The numbers of a text file, a row for each object: float64 (m, d)."""
    try:
        with open_text(path, "an embedding, a row of numbers for each object") as handle:
            return np.loadtxt(handle, dtype=np.float64, comments=None, ndmin=2)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path}: expected an embedding, a row of numbers for each object, found other content ({reason}); "
            "VICE's .txt results are pickles, which are not opened: save the array with numpy.savetxt or numpy.save."
        ) from None


def _pair(path: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    there = [pair for pair in PAIRS if set(pair) <= arrays.keys()]
    if len(there) != 1:
        wanted = " or ".join(" and ".join(pair) for pair in PAIRS)
        found = ", ".join(sorted(arrays)) or "nothing"
        raise ValueError(
            f"{path}: expected arrays {wanted}, found {found}; save {'one pair' if there else 'both of a pair'}."
        )
    loc, scale = there[0]
    return arrays[loc], arrays[scale]


def _checked(path: Path, name: str, values: np.ndarray, objects: int) -> np.ndarray:
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(
            f"{path}: expected floats as {name}, found dtype {values.dtype}; save the real values as float32."
        )
    if values.ndim != 2 or len(values) != objects or not values.shape[1]:
        fix = "give the table of objects that this embedding belongs to."
        if values.ndim == 2 and values.shape[1] == objects:
            fix = "it looks transposed: save array.T, with a row for each object."
        raise ValueError(
            f"{path}: expected {name} of shape ({objects}, dimensions), a row for each of {objects} objects, "
            f"found {values.shape}; {fix}"
        )
    with np.errstate(over="ignore"):  # what overflows float32 is refused as infinite
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(narrow).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{path}: expected finite numbers as {name}, found NaN or infinity in {len(bad)} rows, the first "
            f"{bad[0]}; export it again."
        )
    return narrow


def _check_not_negative(path: Path, name: str, values: np.ndarray, fix: str) -> None:
    if values.min() < 0:
        raise ValueError(
            f"{path}: expected values of at least 0 as {name}, found {int((values < 0).sum())} below, the least "
            f"{values.min():.4g}; {fix}."
        )
