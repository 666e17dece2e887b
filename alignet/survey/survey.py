"""What a survey asks, and the file that remembers it: needed to understand the answers later.

    triplets to ask, object ids -> Survey -> survey.json beside the page -> import of the answers
    identically represented inputs -> InvertedSurvey (planned in matching.py) -> the same

The page knows pictures by number alone. It holds no file name, so that no name can give an answer away. Which trials
are catch trials shows neither on screen nor in a file of answers, and in no page does it say which choice is right;
the source of a page about inverted images does say which questions are checks, that of another which ones everybody is
asked. `survey.json` says all of it, and stays with whoever made the survey.

A catch trial shows an object's picture, a slightly cropped copy of it, and another object: the other is the odd one.
Of inverted images, it asks about a picture that is one of the options itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from alignet.runtime.artifacts import write_json
from alignet.triplets import check_triplets

FORMAT = "alignet-survey"
WHAT = ("target", "seed", "inverted")  # what a picture of an InvertedSurvey may show
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

    @property
    def catches(self) -> int:
        """Catch trials of each participant."""
        return len(self.catch)

    @property
    def shown(self) -> int:
        """Pictures of one question."""
        return 3

    @property
    def places(self) -> int:
        """Pictures of one question that can be chosen."""
        return 3

    def save(self, path: Path) -> None:
        """Write survey.json."""
        write_json(path, {"format": FORMAT, "version": 1, **asdict(self)})


class Shown(NamedTuple):
    """What a picture of an InvertedSurvey shows: a target (draw -1), or the seed or the IRI of one of its draws."""

    object: int
    draw: int
    what: Literal["target", "seed", "inverted"]


class Block(NamedTuple):
    """Pictures that are asked about one after the other with the same options: which is it most like?

    check: a further picture that shows what one of the options shows; -1 where a survey has no catch trials.
    """

    rows: tuple[int, ...]
    options: tuple[int, ...]
    check: int


@dataclass(frozen=True)
class InvertedSurvey:
    """One survey of identically represented inputs (IRIs). Its `id` is a hash of the whole page.

    kind: `two`: is an IRI more like its target or its seed? `match`: which of three targets is an IRI most like?
    source: a hash of the images that were inverted, of their seeds and of the IRIs. objects: ids of the targets.
    pictures: what each picture on the page shows. blocks: all questions; each participant is asked `trials` of these
    blocks, and the checks of `catch` of them. practice: a picture and its options; not recorded.
    """

    id: str
    kind: Literal["two", "match"]
    source: str
    objects: tuple[str, ...]
    pictures: tuple[Shown, ...]
    blocks: tuple[Block, ...]
    trials: int
    catch: int
    practice: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        """Recorded trials of each participant, catch trials among them."""
        return self.trials * len(self.blocks[0].rows) + self.catch

    @property
    def catches(self) -> int:
        """Catch trials of each participant."""
        return self.catch

    @property
    def shown(self) -> int:
        """Pictures of one question."""
        return 1 + self.places

    @property
    def places(self) -> int:
        """Pictures of one question that can be chosen."""
        return 2 if self.kind == "two" else 3

    @cached_property
    def questions(self) -> dict[tuple[int, ...], bool]:
        """The picture asked about and its options, ascending, of each question: whether it is a catch trial."""
        asked = {(row, *sorted(block.options)): False for block in self.blocks for row in block.rows}
        return asked | {
            (block.check, *sorted(block.options)): True for block in self.blocks if block.check >= 0
        }

    def save(self, path: Path) -> None:
        """Write survey.json."""
        write_json(path, {"format": FORMAT, "version": 1, **asdict(self)})


AnySurvey = Survey | InvertedSurvey


def load_survey(path: Path | str) -> AnySurvey:
    """A survey.json again, of either kind; ValueError where it is none or damaged."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a survey's survey.json, found no file; check survey.folder.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if content.pop("format") != FORMAT or content.pop("version") != 1:
            raise ValueError("another format or version")
        if "kind" in content:
            return _inverted(content)
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


def _inverted(content: dict[str, Any]) -> InvertedSurvey:
    """An InvertedSurvey from what survey.json holds; any error of `load_survey` where it is damaged."""
    values: dict[str, Any] = {item.name: content[item.name] for item in fields(InvertedSurvey)}
    kind, trials, catch = values["kind"], values["trials"], values["catch"]
    objects = tuple(values["objects"])
    pictures = tuple(Shown(int(item), int(draw), what) for item, draw, what in values["pictures"])
    blocks = tuple(
        Block(_whole(rows), _whole(options), int(check)) for rows, options, check in values["blocks"]
    )
    practice = tuple(map(_whole, values["practice"]))
    if (
        kind not in ("two", "match")
        or not isinstance(values["id"], str)
        or not isinstance(values["source"], str)
    ):
        raise ValueError(f"a survey of kind {str(kind)[:40]!r}")
    if not all(isinstance(name, str) for name in objects) or not blocks:
        raise ValueError("no ids of images, or no questions")
    if not all(0 <= one.object < len(objects) and one.draw >= -1 and one.what in WHAT for one in pictures):
        raise ValueError("pictures of unknown images")
    rows, options = (1, 2) if kind == "two" else (6, 3)
    named = [number for one in blocks for number in (*one.rows, *one.options)]
    if any((len(one.rows), len(one.options)) != (rows, options) for one in blocks):
        raise ValueError(f"questions without {rows} pictures and {options} options")
    if not all(0 <= number < len(pictures) for number in named):
        raise ValueError("questions about unknown pictures")
    if not all(-1 <= one.check < len(pictures) for one in blocks):
        raise ValueError("checks of unknown pictures")
    if not (type(trials) is int and type(catch) is int and 0 <= catch <= trials <= len(blocks) and trials):
        raise ValueError(f"{str(trials)[:40]} trials and {str(catch)[:40]} checks of {len(blocks)} questions")
    return InvertedSurvey(
        values["id"], kind, values["source"], objects, pictures, blocks, trials, catch, practice
    )


def _whole(numbers: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in numbers)


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
