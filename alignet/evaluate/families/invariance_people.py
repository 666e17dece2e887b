"""Answers of people on IRIs, as `survey import` writes them: choices.csv -> scores, and agreement with distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.data.tables import read_rows
from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.material import Material, Options

if TYPE_CHECKING:
    from alignet.evaluate.families.invariance_read import Method

COLUMNS = ("participant", "kind", "image", "draw", "options", "choice", "right", "used")
USED = ("yes", "catch trial", "too fast", "too slow", "participant set aside")
TWO, MATCH = "two", "match"
TARGET, SEED = "target", "seed"


@dataclass(frozen=True)
class Answers:
    """The answers of one kind that count: of a answers.

    image, draw: (a,) int64, the target and which of its IRIs. right: (a,) bool. participant: (a,). options: of match
    (a,) arrays of targets; chosen: (a,) int64, of match the target, of two 1 for the target. aside: reason -> number.
    """

    image: np.ndarray
    draw: np.ndarray
    right: np.ndarray
    participant: np.ndarray
    options: Sequence[np.ndarray]
    chosen: np.ndarray
    aside: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.image)


def people_file(material: Material, options: Options) -> Path | None:
    """The file of answers on this row's IRIs: `people <setting>`, or `people` where people_of names the setting.

    ValueError for `people` without people_of: answers on one network's images say nothing of another's.
    """
    own = material.files.get(f"people {material.setting}")
    if own is not None or "people" not in material.files:
        return own
    if not options.get("people_of"):
        raise ValueError(
            f"evaluate.datasets.{material.dataset}.options.people_of: expected the setting whose inverted images "
            "people saw, beside data.people, found none; set it, such as people_of=original."
        )
    return material.files["people"] if options["people_of"] == material.setting else None


def read_answers(path: Path, ids: Sequence[str], draws: int) -> dict[str, Answers]:
    """The answers that count, by kind (two | match). ids: the targets in order; draws: IRIs of each.

    ValueError for missing columns, unknown images, draws, kinds or reasons, or a `right` that the choice contradicts.
    """
    rows = read_rows(path, COLUMNS)
    lacking = [name for name in COLUMNS if rows and name not in rows[0]]
    if lacking:
        raise ValueError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, found no {', '.join(lacking)}; give the "
            "choices.csv that `survey import` writes of the kinds two and match."
        )
    place = {name: row for row, name in enumerate(ids)}
    kept: dict[str, list[Any]] = {TWO: [], MATCH: []}
    aside: dict[str, dict[str, int]] = {TWO: {}, MATCH: {}}
    for number, row in enumerate(rows, 2):
        kind, used = row["kind"], row["used"]
        if kind not in kept or used not in USED:
            raise ValueError(
                f"{path}:{number}: expected kind two or match and used one of {', '.join(USED)}, found {kind!r} and "
                f"{used!r}; import the survey again."
            )
        if used != "yes":
            aside[kind][used] = aside[kind].get(used, 0) + 1
            continue
        kept[kind].append(_answer(row, place, draws, f"{path}:{number}"))
    return {kind: _gathered(found, aside[kind]) for kind, found in kept.items() if found or aside[kind]}


def _answer(
    row: Mapping[str, str], place: Mapping[str, int], draws: int, where: str
) -> tuple[int, int, bool, str, np.ndarray, int]:
    shown = row["options"].split("|") if row["kind"] == MATCH else []
    unknown = next((name for name in (row["image"], *shown) if name not in place), None)
    if unknown is not None:
        raise ValueError(
            f"{where}: expected images that were inverted, found {unknown!r}; give answers on these inverted images."
        )
    draw = int(row["draw"]) if row["draw"].isdecimal() else -1
    if not 0 <= draw < draws:
        raise ValueError(
            f"{where}: expected a draw of 0 to {draws - 1}, found {row['draw']!r}; give the answers on these inverted "
            "images."
        )
    valid = (TARGET, SEED) if row["kind"] == TWO else tuple(shown)
    true = TARGET if row["kind"] == TWO else row["image"]
    if row["choice"] not in valid or true not in valid or row["right"] != str(int(row["choice"] == true)):
        raise ValueError(
            f"{where}: expected a choice among {', '.join(valid)}, right 1 where it is {true} and 0 elsewhere, found "
            f"{row['choice']!r} and {row['right']!r}; import the survey again."
        )
    chosen = int(row["choice"] == TARGET) if row["kind"] == TWO else place[row["choice"]]
    options = np.array([place[name] for name in shown], dtype=np.int64)
    return place[row["image"]], draw, row["right"] == "1", row["participant"], options, chosen


def _gathered(rows: Sequence[Any], aside: Mapping[str, int]) -> Answers:
    image, draw, right, participant, options, chosen = zip(*rows, strict=True) if rows else ((),) * 6
    return Answers(
        np.array(image, dtype=np.int64), np.array(draw, dtype=np.int64), np.array(right, dtype=bool),
        np.array(participant, dtype=object), list(options), np.array(chosen, dtype=np.int64), dict(aside),
    )  # fmt: skip


def people_scores(material: Material, path: Path, method: Method) -> Iterator[Score | None]:
    """`two_people`, `match_people`, and with each distance `<kind>_agree_<distance>` and `<kind>_rho_<distance>`."""
    from alignet.evaluate.invariance import answer_share

    answers = read_answers(path, method.inverted.ids, method.inverted.draws)
    if not answers:
        raise ValueError(
            f"{path}: expected answers on inverted images, found none; give another file, or leave it out."
        )
    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed}
    for kind, found in answers.items():
        if not len(found):
            raise ValueError(
                f"{path}: expected answers of the kind {kind} that count, found 0 of {sum(found.aside.values()):,} "
                f"({_reasons(found.aside)}); ask further people."
            )
        yield answer_share(
            found.right.astype(np.float64), found.image, f"{kind}_people", material.dataset,
            chance=chance_of(kind, found), note=_note(found), **shared,
        )  # fmt: skip
        for name in method.distances:
            yield from _agreement(material, kind, found, method, name)


def chance_of(kind: str, found: Answers) -> float:
    """The share of right answers by clicking at random."""
    return 0.5 if kind == TWO else float(np.mean([1 / len(shown) for shown in found.options]))


def _agreement(
    material: Material, kind: str, found: Answers, method: Method, name: str
) -> Iterator[Score | None]:
    """How often a distance chooses as people do, and how it ranks IRIs beside people's shares."""
    from alignet.evaluate.invariance import answer_share, choice_among, nearer_target, random_matches
    from alignet.evaluate.item_correlation import correlation

    one, shared = method.distances[name], {"draws": material.bootstrap, "seed": material.seed}
    if kind == TWO:
        same = (nearer_target(one)[found.image, found.draw] == found.chosen.astype(bool)).astype(np.float64)
        total = one.to_seed + one.to_target
        margin = np.divide(one.to_seed - one.to_target, total, out=np.zeros_like(total), where=total > 0)
        said = "of (d(seed) - d(target)) / (d(seed) + d(target))"
    else:
        same = np.array([
            choice_among(one, image, draw, shown, chosen)
            for image, draw, shown, chosen in zip(found.image, found.draw, found.options, found.chosen, strict=True)
        ])  # fmt: skip
        margin = random_matches(one)
        said = "of the share of all triples in which the distance matches an IRI"
    yield answer_share(
        same, found.image, f"{kind}_agree_{name}", material.dataset, chance=chance_of(kind, found),
        note=f"answers that are those of the distance {name}", **shared,
    )  # fmt: skip
    draws = method.inverted.draws
    counts = np.bincount(found.image * draws + found.draw, minlength=margin.size)
    right = np.bincount(found.image * draws + found.draw, weights=found.right, minlength=margin.size)
    share = np.divide(right, counts, out=np.full(margin.size, np.nan), where=counts > 0)
    images = np.arange(margin.size) // draws
    ranked = correlation(
        share, margin.reshape(-1), bootstrap=material.bootstrap, seed=material.seed, clusters=images
    )
    if np.isfinite(ranked.rho):
        low, high = ranked.ends
        note = "; ".join(
            text for text in (f"over IRIs, {said}, with people's share of right answers", ranked.note) if text
        )
        yield Score(
            f"{kind}_rho_{name}", material.dataset, ranked.rho, low, high, ranked.n, "IRIs",
            "" if low is None else "images", 0.0, note=note,
        )  # fmt: skip


def _note(found: Answers) -> str:
    """Participants, how they differ, and what was left out."""
    people, place = np.unique(found.participant.astype(str), return_inverse=True)
    shares = np.bincount(place, weights=found.right) / np.bincount(place)
    spread = f", SD of their shares {100 * shares.std(ddof=1):.1f} points" if len(people) > 1 else ""
    images = len(np.unique(found.image))
    said = f"{len(people):,} participant{'s' * (len(people) != 1)}{spread}; {images:,} image{'s' * (images != 1)}"
    return f"{said}; left out: {_reasons(found.aside)}" if found.aside else said


def _reasons(aside: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in aside.items()) or "none"
