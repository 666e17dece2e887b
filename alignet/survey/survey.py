"""What a survey asks, and the file that remembers it: needed to understand the answers later.

    triplets to ask, object ids -> Survey -> survey.json beside the page -> import of the answers

The page knows pictures by number alone. It holds no file name, so that no name can give an answer away, and it does
not know which trials are catch trials. `survey.json` does, and stays with whoever made the survey.

A catch trial shows an object's picture, a slightly cropped copy of it, and another object: the other is the odd one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from alignet.runtime.artifacts import write_json
from alignet.triplets import check_triplets

FORMAT = "alignet-survey"
Three = tuple[int, int, int]


@dataclass(frozen=True)
class Survey:
    """One survey. Its `id` is a hash of the whole page, so that answers can only meet the survey they belong to.

    objects: image ids, in the order that triplets count. pictures: the object that each picture on the page shows.
    triplets: of objects, ascending; each participant is asked `trials` of them. catch: of pictures, the odd one
    last; everybody is asked all of them. practice: of pictures; not recorded.
    """

    id: str
    objects: tuple[str, ...]
    pictures: tuple[int, ...]
    triplets: tuple[Three, ...]
    trials: int
    catch: tuple[Three, ...]
    practice: tuple[Three, ...]

    @property
    def length(self) -> int:
        """Recorded trials of each participant, catch trials among them."""
        return self.trials + len(self.catch)

    def save(self, path: Path) -> None:
        """Write survey.json."""
        write_json(path, {"format": FORMAT, "version": 1, **asdict(self)})


def load_survey(path: Path | str) -> Survey:
    """A survey.json again; ValueError where it is none or damaged."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a survey's survey.json, found no file; check survey.folder.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if content.pop("format") != FORMAT or content.pop("version") != 1:
            raise ValueError("another format or version")
        values: dict[str, Any] = {item.name: content[item.name] for item in fields(Survey)}
        for name in ("triplets", "catch", "practice"):
            values[name] = threes(values[name])
        for name in ("objects", "pictures"):
            values[name] = tuple(values[name])
        return Survey(**values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        found = f"found something else ({type(error).__name__}: {error})"
        raise ValueError(
            f"{path}: expected a survey's survey.json, {found}; build the same survey again."
        ) from None


def threes(rows: Any) -> tuple[Three, ...]:
    """Rows of three as plain tuples."""
    return tuple((int(a), int(b), int(c)) for a, b, c in rows)


def plan_survey(
    objects: Sequence[str],
    triplets: np.ndarray,
    *,
    different: np.ndarray,
    trials: int,
    catch: int,
    practice: int,
    seed: int,
) -> Survey:
    """Number the pictures and draw catch and practice trials; `id` is still empty.

    objects: m ids. triplets: (n, 3) int of them. different: (m, m) float, how different two pictures look, any
    unit: a catch trial's odd one is the most different of 16 objects drawn. trials: how many of the triplets each
    participant is asked. catch, practice: how many of these. Of the pictures, the last `catch` before numbers are
    shuffled are copies.
    """
    m = len(objects)
    if m < 4 or len(set(objects)) < m:
        raise ValueError(f"survey: expected at least 4 images, each once, found {m}; add images.")
    check_triplets(np.asarray(triplets), m, "survey triplets")
    rows = np.unique(np.sort(triplets, axis=1), axis=0)
    if len(rows) < len(triplets):
        raise ValueError(
            f"survey triplets: expected each once, found {len(triplets) - len(rows)} repeated; leave these out."
        )
    if not 1 <= trials <= len(rows):
        raise ValueError(f"survey.trials: expected 1..{len(rows)}, the triplets there are, found {trials}.")
    if not 0 <= catch <= m:
        raise ValueError(f"survey.catch: expected 0..{m}, one for each image at most, found {catch}.")
    generator = np.random.default_rng(seed)
    number = generator.permutation(m + catch)  # of each picture: the objects' own, then the copies
    shows = np.empty(m + catch, dtype=np.int64)
    doubled = generator.permutation(m)[:catch]
    shows[number] = np.concatenate([np.arange(m), doubled])
    caught = []
    for place, one in enumerate(doubled):
        drawn = generator.choice(np.delete(np.arange(m), one), min(16, m - 1), replace=False)
        odd = drawn[different[one, drawn].argmax()]
        caught.append((number[one], number[m + place], number[odd]))
    practised = [number[generator.choice(m, 3, replace=False)] for _ in range(practice)]
    return Survey(
        id="", objects=tuple(objects), pictures=tuple(shows.tolist()), triplets=threes(rows), trials=trials,
        catch=threes(caught), practice=threes(practised),
    )  # fmt: skip
