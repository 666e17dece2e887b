"""People's similarity judgments of all pairs of some images, from the files that their authors share.

file + number of images -> similarities (m, m), larger is more similar -> evaluate.rsa

  peterson  <category>/sim_judgments/*.mat: similarities, the only square matrix of that many images
  cichy     judgments_general.mat, key `judgments`: dissimilarities of each participant, of which the mean is taken
  king      BEHAVIOR.mat, BEHAVIOR.set1.pairwisedistances and set2 (or set1.pairwisedistances): dissimilarities
  matrix    any square .npy, .csv or .mat

A matrix may also be a vector of its upper triangle, row by row: (1, 2), (1, 3), ..., (2, 3), as MATLAB's pdist and
scipy's squareform have it. Nothing in a file says which image a row is: that is the caller's to say.

Shape suffixes: m images, q = m (m - 1) / 2 pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignet.data.matlab import read_mat
from alignet.data.npy import read_npy
from alignet.data.sets import judgements_file
from alignet.data.text import read_text, separator_of

KINDS = ("similarity", "dissimilarity")
FORMATS = {"peterson": "similarity", "cichy": "dissimilarity", "king": "dissimilarity", "matrix": None}
KING_SETS = ("set1", "set2")


@dataclass(frozen=True)
class Judgements:
    """Judged similarities of m images."""

    similarity: np.ndarray  # (m, m) float64, symmetric, zero diagonal; larger is more similar
    note: str  # what was read, in words


def load_judgements(
    path: Path | str,
    *,
    format: str,
    images: int,
    part: str | None = None,
    kind: str | None = None,
    key: str | Sequence[str] | None = None,
) -> Judgements:
    """The judged similarities of `images` images, whose number must be the file's.

    format: see the module. part: set1 or set2 of King's. kind: similarity or dissimilarity, by default what the
    format's authors share; a plain matrix has no default. key: which array of a .mat file, parts of structs joined by
    dots, by default what the format says; several, such as two batches of participants, are averaged, and the note says
    how far they agree (Spearman's rho over pairs). Several participants of one array are averaged; a pair that some of
    them did not judge (NaN) is averaged over the others, and the note counts it.
    Raises ValueError for a file that is damaged, holds objects instead of numbers, or fits no single reading.
    """
    path = judgements_file(Path(path))
    if key is not None and not isinstance(key, str):
        return _together(
            [
                load_judgements(path, format=format, images=images, part=part, kind=kind, key=one)
                for one in key
            ]
        )
    kind = _checked_kind(path, format, part, kind)
    if path.suffix.lower() == ".mat":
        name, array = _chosen(path, read_mat(path), format, part, key, images)
        where = f"{path} ({name})"
    elif format == "matrix" and key is None:
        array, where, name = _plain(path), str(path), ""
    else:
        raise ValueError(
            f"{path}: expected a .mat file for the format {format}{' with a key' if key else ''}, found "
            f"{path.suffix or 'no suffix'!r}; set format to matrix for a plain .npy or .csv."
        )
    matrix, participants = _square(array, images, where)
    mean, said = _mean(matrix, where)
    texts = [
        f"{kind} {name}".strip(),
        f"mean of {participants} participants" if participants > 1 else "",
        said,
    ]
    return Judgements(as_similarity(mean, kind, where), ", ".join(text for text in texts if text))


def _together(parts: Sequence[Judgements]) -> Judgements:
    """The mean of several judgments of the same images, and how far any two of them agree."""
    from scipy.stats import spearmanr

    upper = np.triu_indices(len(parts[0].similarity), 1)
    vectors = [one.similarity[upper] for one in parts]
    agree = [float(spearmanr(a, b).statistic) for row, a in enumerate(vectors) for b in vectors[row + 1 :]]
    note = f"mean of {'; '.join(one.note for one in parts)}"
    if agree:
        note += f"; their pairs correlate, Spearman's rho {min(agree):.3f}"
    return Judgements(np.mean([one.similarity for one in parts], 0), note)


def as_similarity(matrix: np.ndarray, kind: str, name: str) -> np.ndarray:
    """The matrix (m, m) as float64 similarities, or a ValueError that says what is wrong with it."""
    if kind not in KINDS:
        raise ValueError(f"{name}: unknown kind of matrix {kind!r}: expected one of {', '.join(KINDS)}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, found shape {matrix.shape}")
    if len(matrix) < 3:
        raise ValueError(f"{name}: expected at least 3 objects, found {len(matrix)}")
    if matrix.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected real numbers, found dtype {matrix.dtype}; save it as float32.")
    values = np.asarray(matrix, dtype=np.float64).copy()
    np.fill_diagonal(values, 0)  # never used, and often NaN or empty in published matrices
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"{name}: expected finite numbers, found {len(bad)} NaN or infinite entries, the first at row "
            f"{bad[0][0]}, column {bad[0][1]}; leave out objects with missing pairs."
        )
    gap = np.abs(values - values.T)
    if gap.max() > 1e-5 * max(np.abs(values).max(), 1e-30):
        row, column = np.unravel_index(gap.argmax(), gap.shape)
        raise ValueError(
            f"{name}: expected a symmetric matrix, found {values[row, column]:.6g} at row {row}, column "
            f"{column} but {values[column, row]:.6g} mirrored; average it with its transpose."
        )
    return values if kind == "similarity" else -values


def hard_triples(similarity: np.ndarray, seed: int | np.random.Generator) -> np.ndarray:
    """Triples (m, 3) of an image and the two that people find most similar to it, each image once the first.

    similarity: (m, m), larger is more similar, its diagonal is not read. seed: of one random order of all images, or a
    generator that draws it; of equally similar images those come first that it has first. ValueError below 3 images or
    for values that are not finite.
    """
    m = len(similarity)
    if m < 3 or similarity.shape != (m, m):
        raise ValueError(
            f"hard triples: expected similarities (m, m) of at least 3 images, found {similarity.shape}; give "
            "judgments of more of the images."
        )
    values = np.array(similarity, dtype=np.float64)
    np.fill_diagonal(values, -np.inf)
    if not np.isfinite(values[~np.eye(m, dtype=bool)]).all():
        raise ValueError("hard triples: expected finite similarities, found others; leave those images out.")
    order = np.random.default_rng(seed).permutation(m)
    most = np.argsort(-values[:, order], axis=1, kind="stable")[:, :2]
    return np.column_stack([np.arange(m), order[most]])


def _checked_kind(path: Path, format: str, part: str | None, kind: str | None) -> str:
    if format not in FORMATS:
        raise ValueError(
            f"{path}: unknown format of judgments {format!r}: expected one of {', '.join(FORMATS)}"
        )
    if (part in KING_SETS) != (format == "king") or (part is not None and format != "king"):
        raise ValueError(
            f"{path}: expected options.set to be {' or '.join(KING_SETS)} for the format king and none for others, "
            f"found {part!r} for {format}."
        )
    kind = kind or FORMATS[format]
    if kind not in KINDS:
        raise ValueError(
            f"{path}: expected options.kind to be {' or '.join(KINDS)}, found {kind!r}; nothing in the file says it."
        )
    return kind


def _plain(path: Path) -> np.ndarray:
    """The numbers of a .npy, or of a .csv without header or labels, separated by commas, tabs or semicolons."""
    if path.suffix.lower() == ".npy":
        return read_npy(path)
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(
            f"{path}: expected a .npy, .csv or .mat matrix, found {path.suffix or 'no suffix'!r}; save it as "
            "one of these."
        )
    text = read_text(path, "a .csv matrix")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"{path}: expected a .csv matrix, found an empty file; export it again.")
    separator = separator_of(lines[0][1])
    rows = [[cell.strip() for cell in line.split(separator)] for _, line in lines]
    values = np.empty((len(rows), len(rows[0])))
    for (number, _), cells, row in zip(lines, rows, values, strict=True):
        if len(cells) != len(row):
            raise ValueError(
                f"{path}: expected {len(row)} numbers in every row, as in the first, found {len(cells)} in line "
                f"{number}; the file is cut short or damaged, or this line is no part of the matrix."
            )
        for column, cell in enumerate(cells):
            try:
                row[column] = float(cell)
            except ValueError:
                raise ValueError(
                    f"{path}: expected a matrix of numbers alone, found {cell[:40]!r} in line {number}, column "
                    f"{column + 1}; remove headers and labels, write NaN where nothing was judged, and decimals with "
                    "a point."
                ) from None
    return values


def _chosen(
    path: Path, arrays: Mapping[str, Any], format: str, part: str | None, key: str | None, images: int
) -> tuple[str, np.ndarray]:
    """The array of a .mat file that holds the judgments, and its name."""
    if key is None and format == "king":
        names = [f"BEHAVIOR.{part}.pairwisedistances", f"{part}.pairwisedistances", f"{part}"]
        fitting = [name for name in names if name in arrays][:1]
    elif key is None and format == "cichy":
        fitting = ["judgments"] if "judgments" in arrays else []
    elif key is None:
        fitting = [name for name, array in arrays.items() if array.shape == (images, images)]
    else:
        fitting = [key] if key in arrays else []
    if len(fitting) != 1:
        wanted = {
            "king": f"BEHAVIOR.{part}.pairwisedistances", "cichy": "judgments"
        }.get(format, f"one square matrix of {images} images")  # fmt: skip
        found = (
            ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:20]) or "no numbers"
        )
        raise ValueError(
            f"{path}: expected {key or wanted}, found {'several in ' if len(fitting) > 1 else ''}{found}; the image "
            f"set has {images} images: check its number, or name the array with options.key."
        )
    return fitting[0], arrays[fitting[0]]


def _square(array: np.ndarray, m: int, where: str) -> tuple[np.ndarray, int]:
    """Matrices (participants, m, m) float64 and their number, from every shape that m images allow."""
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{where}: expected real numbers, found dtype {array.dtype}; save it as float32.")
    values, q = array.astype(np.float64), m * (m - 1) // 2
    readings = []
    if values.shape == (m, m):
        readings.append(values[None])
    elif values.shape == (q, q):
        raise ValueError(
            f"{where}: expected more or fewer participants than the {q} pairs, found shape {array.shape}, which does "
            "not say which axis the participants are; average over them and save a vector of pairs or a square .npy."
        )
    elif values.ndim == 2 and values.shape[1] == q:  # a vector of pairs for each participant
        readings.append(_from_vectors(values, m))
    elif values.ndim == 1 and len(values) == q:
        readings.append(_from_vectors(values[None], m))
    elif values.ndim == 2 and values.shape[0] == q:
        readings.append(_from_vectors(values.T, m))
    elif values.ndim == 3 and values.shape[0] == values.shape[1] == values.shape[2] == m:
        raise ValueError(
            f"{where}: expected fewer or more participants than images, found shape {array.shape}, which does not say "
            "which axis the participants are; average over them and save a square .npy."
        )
    elif values.ndim == 3 and values.shape[1:] == (m, m):
        readings.append(values)
    elif values.ndim == 3 and values.shape[:2] == (m, m):  # participants last
        readings.append(np.moveaxis(values, 2, 0))
    if not readings:
        raise ValueError(
            f"{where}: expected judgments of {m} images, the number in the image set: ({m}, {m}), or {q} pairs, of "
            f"one or more participants; found shape {array.shape}. Give the images that were judged, and no others."
        )
    return readings[0], len(readings[0])


def _from_vectors(vectors: np.ndarray, m: int) -> np.ndarray:
    first, second = np.triu_indices(m, k=1)
    matrices = np.zeros((len(vectors), m, m))
    matrices[:, first, second] = matrices[:, second, first] = vectors
    return matrices


def _mean(matrices: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """Mean over participants (m, m) of who judged each pair, and how many judgments are missing, in words."""
    known = np.isfinite(matrices)
    if len(matrices) == 1 or known.all():
        return matrices.mean(0), ""  # a NaN of a single matrix is told by as_similarity
    counts = known.sum(0)
    off = ~np.eye(len(counts), dtype=bool)
    if (counts[off] == 0).any():
        row, column = np.argwhere((counts == 0) & off)[0]
        raise ValueError(
            f"{where}: expected every pair to be judged by somebody, found {int((counts[off] == 0).sum()) // 2} that "
            f"are not, the first of rows {row} and {column}; leave those images out."
        )
    missing = int((~known)[:, off].sum()) // 2
    mean = np.where(known, matrices, 0).sum(0) / np.maximum(counts, 1)
    return mean, f"{missing} judgments of single participants missing" if missing else ""
