"""Classes with WordNet ids for miniatures of ImageNet: a data.noun that holds them, and BREEDS' three files about them.

The ids that a configuration names stand at their own offsets, as in WordNet 3.0: glosses are padded up to the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from alignet.data.breeds import ROOT, TASKS

_LIVING, _THINGS = TASKS["living17"].ancestor, TASKS["nonliving26"].ancestor
# BREEDS' tree: groups at level 3 below each ancestor, and of each group its parts at level 4 (see _tree)
_GROUPS = {_LIVING: (5, TASKS["living17"].superclasses), _THINGS: (8, TASKS["nonliving26"].superclasses)}
_LINE = 120  # bytes that a synset takes at least
_FIRST_INNER = 90_000_000  # ids of BREEDS' own inner nodes, beyond those of WordNet


def class_ids(count: int, taken: Iterable[str], among: Sequence[str] = ()) -> list[str]:
    """So many WordNet ids of classes, sorted, at offsets that the ids in `taken` leave free.

    among: ids of which they are some, evenly; ValueError where too few of these leave room for each other.
    """
    used = sorted(int(name[1:]) for name in taken)
    found: list[str] = []
    if among:
        free: list[str] = []
        for name in sorted(among):
            if all(
                abs(int(name[1:]) - one) >= 3 * _LINE for one in [*used, *(int(one[1:]) for one in free[-1:])]
            ):
                free.append(name)
        if len(free) < count:
            raise ValueError(
                f"rehearse: expected {count} classes with room for their synsets, found {len(free)}"
            )
        return [free[row * len(free) // count] for row in range(count)]
    offset = 1_440_000  # about where ImageNet's begin
    while len(found) < count:
        near = [one for one in used if abs(one - offset) < 2 * _LINE]
        if not near:
            found.append(f"n{offset:08}")
        offset += 3 * _LINE
    return found


def write_noun(path: Path, parents: Mapping[str, str]) -> None:
    """data.noun with these synsets: id -> the id of its hypernym, '' for the root."""
    order = sorted(parents)
    lines = []
    place = 0
    for name, following in zip(order, [*order[1:], ""]):
        offset = int(name[1:])
        while offset - place > 1:  # the licence at its top is indented, and so is what lies between here
            step = min(offset - place, 50_000)
            step -= (offset - place - step) == 1
            lines.append("  ".ljust(step - 1) + "\n")
            place += step
        above = parents[name]
        pointers = f"001 @ {above[1:]} n 0000" if above else "000"
        line = f"{offset:08} 03 n 01 {name} 0 {pointers} | drawn\n"
        if following and place + len(line) > int(following[1:]):
            raise ValueError(
                f"rehearse: expected room for the synset {name} before {following}, found too little"
            )
        lines.append(line)
        place += len(line)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="ascii")


def hypernyms(classes: Sequence[str], basic: Sequence[str], superordinate: Sequence[str]) -> dict[str, str]:
    """id -> hypernym for write_noun: classes below basic categories in turn, these below superordinate ones in turn."""
    found = {ROOT: ""} | dict.fromkeys(superordinate, ROOT)
    basic = [name for name in basic if name not in found]
    for number, name in enumerate(basic):
        found[name] = superordinate[number % len(superordinate)] if superordinate else ROOT
    for number, name in enumerate(classes):
        found.setdefault(name, basic[number % len(basic)] if basic else ROOT)
    return found


def breeds_tree() -> tuple[list[tuple[int, int]], dict[int, list[int]]]:
    """Edges between numbered inner nodes (0 living, 1 things), and how many classes hang below which: see write_breeds.

    Levels count from entity at 0: 1 living and things, 2 one node below each, 3 the groups of entity13, 4 the parts
    of entity30, 5 the superclasses of living17 and nonliving26.
    """
    edges: list[tuple[int, int]] = []
    classes: dict[int, list[int]] = {}
    number = 2
    extra = (
        TASKS["entity30"].superclasses - 2 * TASKS["entity13"].superclasses
    )  # groups of three parts, not two
    for root, (groups, leaves) in enumerate(_GROUPS.values()):
        below, number = number, number + 1
        edges.append((root, below))
        parts: list[tuple[int, int]] = []
        for _ in range(groups):
            group, number = number, number + 1
            edges.append((below, group))
            three = extra > 0 and (root == 1 or extra > 2)
            extra -= three
            for _ in range(2 + three):
                edges.append((group, number))
                parts.append((number, 8 if three else 10))
                number += 1
        twice = leaves - len(parts)  # parts with two superclasses below them
        for place, (part, count) in enumerate(parts):
            for one in range(1 + (place < twice)):
                edges.append((part, number))
                share = count if place >= twice else count // 2
                classes[number] = [share, one]
                number += 1
    return edges, classes


def breeds_classes() -> int:
    """How many classes the four tasks need."""
    return sum(share for share, _ in breeds_tree()[1].values())


def write_breeds(hierarchy: Path, names: Path, info: Path, classes: Sequence[str]) -> None:
    """BREEDS' three files: every class below a superclass of each task, and one more that is in no hierarchy."""
    edges, below = breeds_tree()
    inner = {0: _LIVING, 1: _THINGS}
    title = lambda number: inner.get(number, f"n{_FIRST_INNER + number:08}")  # noqa: E731
    lines = [f"{ROOT} {inner[0]}", f"{ROOT} {inner[1]}"]
    lines += [f"{title(parent)} {title(child)}" for parent, child in edges]
    left = list(classes)
    for node, (share, _) in below.items():
        own, left = left[:share], left[share:]
        lines += [f"{title(node)} {name}" for name in own]
    nodes = {word for line in lines for word in line.split()}
    for path, text in (
        (hierarchy, "\n".join(lines) + "\n"),
        (names, "".join(f"{node}\tdrawn {node}\n" for node in sorted(nodes))),
        (info, json.dumps([[row, name, f"class {row}"] for row, name in enumerate(classes)])),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
