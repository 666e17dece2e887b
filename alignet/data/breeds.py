"""BREEDS (Santurkar et al. 2020): superclasses of ImageNet whose training and test images show different subclasses.

The benchmark's three hierarchy files -> superclasses at a level, each with source and target subclasses; or a plain
table that says which subclass is where:

  class_hierarchy.txt       a line for each edge, `parent child`: WordNet ids, or names such as dummy12
  node_names.txt            `wnid<tab>name` of every node; classes without a name are left out
  dataset_class_info.json   [[class number, wnid, name], ...]: the classes, which are the leaves
  a table (.csv)            columns superclass, subclass (a wnid), domain (source | target)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alignet.data.text import read_text

ROOT = "n00001740"  # entity
_CUT = re.compile(r"n\d{0,7}")  # the beginning of a WordNet id


@dataclass(frozen=True)
class Task:
    """One of the benchmark's four: superclasses at a level below an ancestor, and the subclasses that each has."""

    level: int
    subclasses: int  # of each superclass, half of them source
    ancestor: str
    superclasses: int  # that the benchmark's own files give


TASKS = {
    "entity13": Task(3, 20, ROOT, 13),
    "entity30": Task(4, 8, ROOT, 30),
    "living17": Task(5, 4, "n00004258", 17),
    "nonliving26": Task(5, 4, "n00021939", 26),
}


@dataclass(frozen=True)
class Superclass:
    """A superclass and the WordNet ids of its subclasses, in two domains."""

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]


@dataclass(frozen=True)
class Hierarchy:
    """A hierarchy of classes: the part of it that leads to classes."""

    children: Mapping[str, tuple[str, ...]]
    names: Mapping[str, str]
    classes: frozenset[str]  # those that descend from the root
    where: str = "class hierarchy"  # the file that it is from
    left_out: tuple[
        str, ...
    ] = ()  # classes that do not, sorted: 110 of ImageNet's 1,000 in the benchmark's own files

    @property
    def note(self) -> str:
        """How many classes no task can use, or ''."""
        count, every = len(self.left_out), len(self.left_out) + len(self.classes)
        return f"{count:,} of {every:,} classes are not in the hierarchy" if count else ""

    def below(self, node: str) -> set[str]:
        """A node and everything that descends from it."""
        found, left = {node}, [node]
        while left:
            new = set(self.children.get(left.pop(), ())) - found
            found |= new
            left += new
        return found

    def leaves(self, node: str) -> list[str]:
        """Classes at or below a node, sorted; below a class nothing is looked for.

        Every node is looked at once, by however many ways it is reached.
        """
        found, seen, left = [], {node}, [node]
        while left:
            one = left.pop()
            if one in self.classes:
                found.append(one)
                continue
            new = set(self.children.get(one, ())) - seen
            seen |= new
            left += new
        return sorted(found)

    def levels(self) -> dict[str, int]:
        """The length of the longest path from the root to each node."""
        found = {ROOT: 0}
        here, depth = {ROOT}, 0
        while here:
            depth += 1
            here = {child for node in here for child in self.children.get(node, ())}
            if depth > len(self.names) + len(self.children) + len(self.classes):
                raise ValueError(
                    f"{self.where}: expected no circles, found a node below itself; fetch it again."
                )
            found |= dict.fromkeys(here, depth)
        return found


def load_hierarchy(edges: Path, names: Path, classes: Path) -> Hierarchy:
    """Read the three files. ValueError for lines, entries and nodes that are not as the module says."""
    known = frozenset(_classes(classes))
    parents: dict[str, list[str]] = {}
    for number, line in enumerate(_lines(edges), 1):
        words = line.split()
        if len(words) != 2:
            raise ValueError(
                f"{edges}: expected `parent child` in line {number}, found {line!r}; fetch it again."
            )
        if any(_CUT.fullmatch(word) for word in words):
            raise ValueError(
                f"{edges}: expected WordNet ids of n and eight digits in line {number}, found {line!r}; the file is "
                "cut short: fetch it again."
            )
        parents.setdefault(words[1], []).append(words[0])
    titles = {}
    for number, line in enumerate(_lines(names), 1):
        node, tab, name = line.partition("\t")
        if not tab:
            raise ValueError(
                f"{names}: expected `wnid<tab>name` in line {number}, found {line!r}; fetch it again."
            )
        titles[node] = name
    children: dict[str, set[str]] = {}
    left, seen = set(known), set(known)
    while left:  # upwards from the classes: what leads to none of them is left out
        node = left.pop()
        for parent in parents.get(node, ()):
            children.setdefault(parent, set()).add(node)
            left |= {parent} - seen
            seen.add(parent)
    if ROOT not in children:
        raise ValueError(
            f"{edges}: expected edges from {ROOT} (entity) down to the classes of {classes.name}, found none; name the "
            "files of one hierarchy."
        )
    tree = Hierarchy(
        {node: tuple(sorted(found)) for node, found in children.items()}, titles, known, str(edges)
    )
    there = known & tree.below(ROOT)
    lost = sorted(known - there)
    if lost and (titles.keys() & set(lost) or there - titles.keys()):  # named: it was to be in the hierarchy
        lost = sorted(titles.keys() & set(lost)) or lost
        raise ValueError(
            f"{edges}: expected every class of {classes.name} that {names.name} names below {ROOT} (entity), found "
            f"{len(lost)} of {len(known)} that are not, the first {lost[0]}; the file is cut short or of another "
            "hierarchy: fetch it again."
        )
    return replace(tree, classes=frozenset(there), left_out=tuple(lost))


def split_task(hierarchy: Hierarchy, task: Task, *, seed: int = 2) -> list[Superclass]:
    """The superclasses of a task, balanced, each with as many source as target subclasses drawn at random.

    All nodes at the task's level (the longest path from the root) at or below its ancestor that have enough classes,
    sorted by WordNet id; one legacy numpy generator draws for them in this order, from each one's sorted classes,
    source before target. With seed 2 and the benchmark's own files these are its published random splits. ValueError
    where there are not as many as the benchmark has, or one has no name.
    """
    generator = np.random.RandomState(seed)
    levels, below = hierarchy.levels(), hierarchy.below(task.ancestor)
    found, half = [], task.subclasses // 2
    for node in sorted(name for name, level in levels.items() if level == task.level and name in below):
        if len(hierarchy.leaves(node)) < task.subclasses:
            continue
        if node not in hierarchy.names:
            raise ValueError(
                f"{hierarchy.where}: expected a name of the superclass {node} in the file of names, found none; fetch "
                "that file again."
            )
        drawn = generator.choice(_pool(hierarchy, node), 2 * half, replace=False).tolist()
        found.append(Superclass(hierarchy.names[node], tuple(drawn[:half]), tuple(drawn[half:])))
    if len(found) != task.superclasses:
        raise ValueError(
            f"{hierarchy.where}: expected {task.superclasses} superclasses at level {task.level} below {task.ancestor} "
            f"with {task.subclasses} classes, as the benchmark has, found {len(found)}; the file is cut short or of "
            "another hierarchy: fetch it again, or give the split as a table."
        )
    check_split(found, hierarchy.where)
    return found


def _pool(hierarchy: Hierarchy, node: str) -> list[str]:
    """The classes that are drawn from, sorted: below the first descendant with several children.

    A class below two of those children stands twice, as in the benchmark.
    """
    children = hierarchy.children.get(node, ())
    while len(children) == 1:
        children = hierarchy.children.get(children[0], ())
    return sorted(leaf for child in children for leaf in hierarchy.leaves(child))


def load_split(path: Path) -> list[Superclass]:
    """A split from a table with columns superclass, subclass, domain; superclasses in the order of the file."""
    from alignet.data.tables import read_column

    columns = [read_column(path, name) for name in ("superclass", "subclass", "domain")]
    found: dict[str, dict[str, list[str]]] = {}
    for name, subclass, domain in zip(*columns, strict=True):
        if domain not in ("source", "target"):
            raise ValueError(
                f"{path}: expected domain source or target, found {domain!r} of {subclass}; mend it."
            )
        found.setdefault(name, {"source": [], "target": []})[domain].append(subclass)
    split = [Superclass(name, tuple(one["source"]), tuple(one["target"])) for name, one in found.items()]
    check_split(split, str(path))
    return split


def check_split(split: Sequence[Superclass], where: str) -> None:
    """ValueError unless there are several superclasses with both domains, and no subclass stands twice."""
    if len(split) < 2:
        raise ValueError(f"{where}: expected at least two superclasses, found {len(split)}; add the others.")
    every = [name for one in split for name in (*one.source, *one.target)]
    for one in split:
        if not one.source or not one.target:
            raise ValueError(
                f"{where}: expected source and target subclasses of {one.name}, found {len(one.source)} and "
                f"{len(one.target)}; add some, or take the superclass out."
            )
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise ValueError(
            f"{where}: expected each subclass once, found {len(twice)} more often, the first {twice[0]}; a subclass in "
            "both domains would be no shift."
        )


def _lines(path: Path) -> list[str]:
    return [line for line in read_text(path, f"BREEDS' {path.name}").splitlines() if line.strip()]


def _classes(path: Path) -> list[str]:
    text = "\n".join(_lines(path))
    try:
        return [str(wnid) for _, wnid, _ in json.loads(text)]
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected JSON, a list of [class number, wnid, name], found something else ({error}); fetch it "
            "again."
        ) from None
