"""The conceptual hierarchy: the basic and the superordinate category of each class, from a table or from WordNet.

Families of metrics read it to say how two images are related: by one class (subordinate), one basic category, one
superordinate category, or none. Two sources:

  a table       with columns that the caller names (class, basic, superordinate); superordinate categories in any
                form that data.categories reads
  data.noun     WordNet's own database of nouns, as text; classes are WordNet ids such as n02084071, which are offsets
                of WordNet 3.0. A class belongs to the nearest listed synset at or above it.

What a source does not know stays empty and is counted by whoever uses it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignet.data.categories import JOINED, one_each, read_categories
from alignet.data.tables import read_column
from alignet.data.text import open_text

RELATIONS = ("subordinate", "basic", "superordinate", "across")  # of two images, the nearest first
UNKNOWN = -1  # of a relation
_WNID = re.compile(r"n\d{8}")
_MOST_MISSING = 0.2  # of WordNet ids; beyond it the file is of another version


@dataclass(frozen=True)
class Levels:
    """Class, basic and superordinate category of m images: text arrays (m,), '' where unknown.

    A text may join several superordinate categories (data.categories.JOINED): then a shared one relates two images.
    """

    subordinate: np.ndarray
    basic: np.ndarray
    superordinate: np.ndarray
    note: str = ""  # of the rule for several categories, where one was asked for

    def __len__(self) -> int:
        return len(self.subordinate)

    def pick(self, rows: np.ndarray) -> Levels:
        """The levels of some images, by their rows."""
        return Levels(self.subordinate[rows], self.basic[rows], self.superordinate[rows], self.note)

    def relation(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """How the images of rows `first` and `second` (n,) are related: int8 (n,), an index of RELATIONS or UNKNOWN.

        One class: subordinate. Otherwise one basic category: basic. Otherwise two superordinate categories: across.
        Otherwise one superordinate category and two basic ones: superordinate. All else cannot be told.
        """
        (a, b), (c, d) = (
            (codes[first], codes[second]) for codes in map(_codes, (self.subordinate, self.basic))
        )
        names, codes = np.unique(self.superordinate, return_inverse=True)
        related = codes[first] == codes[second]
        if any(JOINED in name for name in names.tolist()):
            related = _share_one(names)[codes[first], codes[second]]
        both = (self.superordinate != "")[first] & (self.superordinate != "")[second]
        found = np.full(len(a), UNKNOWN, dtype=np.int8)
        found[both & related & (c >= 0) & (d >= 0)] = 2
        found[both & ~related] = 3
        found[(c >= 0) & (c == d)] = 1
        found[(a >= 0) & (a == b)] = 0
        return found

    def unknown(self) -> str:
        """How many images lack which level, in words; '' where none does."""
        levels = (
            ("class", self.subordinate), ("basic category", self.basic), ("superordinate category", self.superordinate)
        )  # fmt: skip
        lacking = [(int((values == "").sum()), what) for what, values in levels]
        said = ", ".join(f"{count:,} have no {what}" for count, what in lacking if count)
        return f"of {len(self):,} images {said}" if said else ""


@dataclass(frozen=True)
class Hierarchy:
    """Basic and superordinate category of each class that the source knows; '' where it does not say."""

    basic: Mapping[str, str]
    superordinate: Mapping[str, str]
    note: str = ""  # see Levels

    def levels(self, classes: Sequence[str], where: str = "hierarchy") -> Levels:
        """The levels of images by their classes ('' where an image has none). ValueError where no class is known.

        where: stands before the message.
        """
        if not any(name in self.basic for name in classes):
            some = sorted({name for name in classes if name})[:3]
            raise ValueError(
                f"{where}: expected classes such as {', '.join(list(self.basic)[:3]) or 'none'}, found "
                f"{', '.join(some) or 'none'}; name the columns that hold the same names."
            )
        return Levels(
            np.array(classes, dtype=str),
            np.array([self.basic.get(name, "") for name in classes], dtype=str),
            np.array([self.superordinate.get(name, "") for name in classes], dtype=str),
            self.note,
        )


def table_hierarchy(
    path: Path,
    *,
    class_: str,
    basic: str,
    superordinate: str,
    merge: Mapping[str, str],
    several: str | None = None,
) -> Hierarchy:
    """The hierarchy of a table; class_, basic and superordinate name its columns, of which two may be one.

    superordinate: or "0/1", for a column of each category. merge: superordinate category -> the larger one that it is
    part of ({} for none). several: one of data.categories.RULES, for classes of several superordinate categories; None
    takes the first of a cell and refuses a class whose rows differ. Rows without a class are left out. ValueError for
    a missing column, or a class with two basic categories.
    """
    known: dict[str, str] = {}
    for name, one in zip(*([value.strip() for value in read_column(path, name)] for name in (class_, basic))):
        if name and known.setdefault(name, one) != one:
            raise ValueError(
                f"{path}: expected one basic category for each class, found {known[name]!r} and {one!r} for {name!r}; "
                "make the rows agree."
            )
    categories = read_categories(path, class_, superordinate, merge, rows_differ=several is not None)
    larger, note = one_each(categories, several or "first")
    return Hierarchy(known, larger, note if several else "")


def wordnet_hierarchy(
    path: Path,
    classes: Iterable[str],
    *,
    basic: Mapping[str, str | Sequence[str]],
    superordinate: Mapping[str, str | Sequence[str]],
) -> Hierarchy:
    """The hierarchy of WordNet ids: the nearest synset at or above each class that is listed as basic or superordinate.

    path: data.noun. classes: WordNet ids ('' is passed over). basic, superordinate: name -> one or several WordNet
    ids. Nearest is by the number of hypernyms, then by WordNet's own order. ValueError where more than a fifth of
    the ids are not in the file, and then it is of another version; a few of them are left unknown.
    """
    above = read_hypernyms(path)
    wanted = sorted({name for name in classes if name})
    strange = [name for name in wanted if not _WNID.fullmatch(name)]
    if strange:
        raise ValueError(
            f"hierarchy: expected WordNet ids such as n02084071 as classes, found {strange[0]!r}; name the images by "
            "them, or give a table of the hierarchy."
        )
    named = {
        level: _by_synset(level, names)
        for level, names in (("basic", basic), ("superordinate", superordinate))
    }
    asked = {*wanted, *named["basic"], *named["superordinate"]}
    missing = sorted(asked - above.keys())
    if len(missing) > _MOST_MISSING * len(asked):
        raise ValueError(
            f"{path}: expected WordNet 3.0, by whose offsets ImageNet numbers its classes, found {len(missing):,} of "
            f"{len(asked):,} ids missing, the first {missing[0]}; WordNet 3.1 has other offsets: take data.noun of 3.0 "
            "(Debian's wordnet-base)."
        )
    known = [name for name in wanted if name in above]
    nearest = {level: {name: _nearest(name, above, ids) for name in known} for level, ids in named.items()}
    return Hierarchy(nearest["basic"], nearest["superordinate"])


def read_hypernyms(path: Path) -> dict[str, list[str]]:
    """WordNet id -> ids of its hypernyms (kinds and instances), of every synset in data.noun.

    A line: offset, file, type, number of words (hexadecimal), each word and a number, number of pointers, each pointer
    as symbol, offset, part of speech, source/target; then `|` and the gloss. The licence at its top is indented.
    """
    above: dict[str, list[str]] = {}
    with open_text(path, "WordNet's data.noun") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.startswith("  "):
                above.update([_synset(path, number, line)])
    if not above:
        raise ValueError(f"{path}: expected WordNet's data.noun, found no synset; take it from wordnet-base.")
    lost = next((parent for parents in above.values() for parent in parents if parent not in above), None)
    if lost is not None:
        raise ValueError(
            f"{path}: expected every hypernym to be there, found no {lost}; the file is cut short: copy it again."
        )
    return above


def _synset(path: Path, number: int, line: str) -> tuple[str, list[str]]:
    fields = line.partition(" | ")[0].split()
    try:
        words = 4 + 2 * int(fields[3], 16)
        pointers = int(fields[words])
        if not 0 <= 4 * pointers < len(fields) - words:  # before so many are looked for
            raise IndexError
        entries = [fields[words + 1 + 4 * index :][:4] for index in range(pointers)]
        whole = fields[2] == "n" and len(fields[0]) == 8 and fields[0].isdigit()
        if not whole or any(len(entry) < 4 for entry in entries):
            raise IndexError
    except (IndexError, ValueError):
        raise ValueError(
            f"{path}: expected a synset of WordNet's data.noun on line {number}, found {line[:40].strip()!r}; the file "
            "is another one or damaged: copy it again."
        ) from None
    return f"n{fields[0]}", [
        f"n{entry[1]}" for entry in entries if entry[0] in ("@", "@i") and entry[2] == "n"
    ]


def _by_synset(level: str, names: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, ids in names.items():
        for one in [ids] if isinstance(ids, str) else ids:
            if not _WNID.fullmatch(one) or found.setdefault(one, name) != name:
                raise ValueError(
                    f"{level} categories: expected each WordNet id (n and eight digits) once, found {one!r} for "
                    f"{name!r}{f' and {found[one]!r}' if one in found else ''}."
                )
    return found


def _nearest(start: str, above: Mapping[str, Sequence[str]], listed: Mapping[str, str]) -> str:
    """Name of the first listed synset on the way up, breadth first; '' where there is none."""
    waiting, seen = deque([start]), {start}
    while waiting:
        one = waiting.popleft()
        if one in listed:
            return listed[one]
        for parent in above[one]:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return ""


def _codes(names: np.ndarray) -> np.ndarray:
    """Numbers of text (m,), -1 for ''."""
    unique, codes = np.unique(names, return_inverse=True)
    return np.where(unique[codes] == "", -1, codes) if len(unique) else codes


def _share_one(names: np.ndarray) -> np.ndarray:
    """Whether two texts have a category in common: bool (k, k) for k texts that may join several."""
    split = [set(name.split(JOINED)) for name in names.tolist()]
    return np.array([[bool(one & other) for other in split] for one in split]).reshape(len(split), len(split))
