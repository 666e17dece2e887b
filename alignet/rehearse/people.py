"""People of a miniature: an embedding that they answer by, and what they did in the forms that readers know.

Objects are the rows of a planted embedding; choices and trials follow from it. seed: of everything that is drawn.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config.data import TripletsSet

OBJECTS = [f"object{number:02}" for number in range(48)]
CHOICES = 4000  # triplets of each set
PARTICIPANTS, ANSWERED, CATCH = 12, 24, 16  # of Levels; triplets of each level; catch trials
KINDS = 5  # categories of the objects
_LEVELS = ("between_class", "within_class", "class_border")
_TRIAL = (
    "participant", "trial", "image1Path", "image2Path", "image3Path", "selected_image", "triplet_type",
    "exp_trial_type", "rt",
)  # fmt: skip


def write_objects(path: Path) -> None:
    if path.suffix.lower() == ".tsv":
        header, rows = ["Word", "uniqueID"], [[name, name] for name in OBJECTS]
    else:
        header = ["index", "unique_id", "category", "photo", "split"]
        splits = ("train", "tune", "report")
        rows = [
            [str(row), name, f"kind {row % KINDS}", f"{name}.jpg", splits[row % 3]]
            for row, name in enumerate(OBJECTS)
        ]
    write_table(path, header, rows, "\t" if path.suffix.lower() == ".tsv" else ",")


def embedding(seed: int) -> np.ndarray:
    """What people answer by: a category each, in turns, and a part in some further dimensions."""
    rng = np.random.default_rng([seed, 1])
    found = (rng.random((len(OBJECTS), 8)) < 0.25) * rng.uniform(0.2, 1.0, (len(OBJECTS), 8))
    found[np.arange(len(OBJECTS)), np.arange(len(OBJECTS)) % 8] = 1.5
    return 1.6 * found


def write_embedding(path: Path, seed: int) -> None:
    loc = embedding(seed)
    np.savez(path, loc=loc.astype(np.float32), scale=np.full(loc.shape, 0.05, np.float32))


def choices(seed: int, count: int, stream: int) -> np.ndarray:
    """Triplets (count, 3) of objects, the odd one last, answered by the softmax of dot products."""
    rng = np.random.default_rng([seed, 2, stream])
    triplets = np.argsort(rng.random((count, len(OBJECTS))), axis=1)[:, :3]
    x = embedding(seed)[triplets]
    sims = np.stack([(x[:, 1] * x[:, 2]).sum(1), (x[:, 0] * x[:, 2]).sum(1), (x[:, 0] * x[:, 1]).sum(1)], 1)
    odd = np.argmax(sims + rng.gumbel(size=sims.shape), axis=1)
    order = np.stack([(odd + 1) % 3, (odd + 2) % 3, odd], axis=1)
    return np.take_along_axis(triplets, order, axis=1)


def write_choices(path: Path, seed: int, kinds: Sequence[TripletsSet]) -> None:
    base = kinds[0].index_base
    stream = zlib.crc32(path.name.encode())  # so that files hold different choices
    if path.suffix.lower() in (".csv", ".tsv"):
        _write_choice_table(path, seed, kinds, stream)
        return
    triplets = choices(seed, CHOICES, stream) + base
    turned = {"last": [0, 1, 2], "first": [2, 0, 1], "middle": [0, 2, 1]}[kinds[0].odd_one]
    if path.suffix.lower() == ".txt":
        np.savetxt(path, triplets[:, turned], fmt="%d")
    else:
        np.save(path, triplets[:, turned].astype(np.int64))


def _write_choice_table(path: Path, seed: int, kinds: Sequence[TripletsSet], stream: int) -> None:
    """The form of THINGS' table: three numbers, which of them was chosen, and the columns that select rows."""
    columns = sorted({column for one in kinds for column in one.where})
    rng, rows = np.random.default_rng([seed, 3, stream]), []
    for number, one in enumerate(kinds):
        triplets = choices(seed, CHOICES, stream + number)
        places = np.argsort(rng.random((CHOICES, 3)), axis=1)
        for row, (triplet, place) in enumerate(zip(triplets, places)):
            shown = triplet[place] + one.index_base
            where = [str(one.where[c][row % len(one.where[c])]) if c in one.where else "" for c in columns]
            rows.append([*map(str, shown), str(int(np.flatnonzero(place == 2)[0]) + 1), *where])
    write_table(path, ["image1", "image2", "image3", "choice", *columns], rows, "\t")


def write_trials(path: Path, seed: int, names: list[str]) -> None:
    """Everybody answers nearly all triplets of each level, and the catch trials right."""
    rng = np.random.default_rng([seed, 5])
    kinds, each = 8, len(names) // 8
    triplets = []
    for level in range(3):
        for _ in range(ANSWERED):
            one = rng.permutation(kinds)
            first, second = (rng.permutation(each) for _ in range(2))
            rows = (
                [one[0] * each + first[0], one[1] * each + first[1], one[2] * each + first[2]],
                [one[0] * each + first[0], one[0] * each + first[1], one[0] * each + first[2]],
                [one[0] * each + first[0], one[0] * each + first[1], one[1] * each + second[0]],
            )[level]
            triplets.append((level, rows))
    rows = []
    for person in range(PARTICIPANTS):
        for number in rng.permutation(np.delete(np.arange(len(triplets)), person)):
            level, shown = triplets[number]
            place = rng.permutation(3)
            odd = shown[2] if rng.random() < 0.8 else shown[rng.integers(3)]
            rows.append([f"p{person:02}", str(number), *(names[shown[i]] for i in place), names[odd],
                         _LEVELS[level], "exp_trial", f"{rng.uniform(700, 4000):.0f}"])  # fmt: skip
        for number in range(CATCH):
            a, b = names[number % len(names)], names[(number + 7) % len(names)]
            rows.append(
                [f"p{person:02}", str(1000 + number), a, b, a, b, "class_border", "catch_trial", "900"]
            )
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        values: dict[str, list[Any]] = {
            name: [row[place] for row in rows] for place, name in enumerate(_TRIAL)
        }
        values["rt"] = [float(one) for one in values["rt"]]
        pyarrow.parquet.write_table(pyarrow.table(values), path)
        return
    write_table(path, _TRIAL, rows, ",")


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], separator: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter=separator, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
