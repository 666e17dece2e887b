"""What the world's simulated participants do beside the choices that VICE is fitted to: they are only measured on.

    people/trials.csv                  odd-one-out trials at three levels, with response times, as `levels` reads them
    images/judged/<set>/images/*.png   pictures that were rated: various, five categories, set1, set2, cichy
    images/judged/<set>/sim_judgments/sim.mat   mean ratings 0..10 of all pairs (as Peterson et al. store them)
    images/judged/judgments_general.mat         raters x m x m dissimilarities of `cichy` (as Cichy et al.)
    images/judged/BEHAVIOR.mat                  nested structure with dissimilarities of set1 and set2 (as King et al.)
    hierarchy.csv                      class, basic, superordinate
    pool_labels.csv                    id, class of each pool picture; only the page reads it

Between categories participants judge by their concept embedding, as everywhere in the world. Where three things
are of one category they judge by what tells those apart, the look. The more even the answers, the longer they take.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from alignet.config import WorldSettings
from alignet.world.concepts import Concepts, pair_probabilities
from alignet.world.drawing import CATEGORIES, COLOURS, Look

SUPERORDINATE = {
    "animal": "creature", "insect": "creature", "fruit": "growth", "plant": "growth",
    "vehicle": "structure", "building": "structure", "tool": "utensil", "container": "utensil",
}  # fmt: skip
Pictures = Mapping[int, Sequence[str]]  # concept -> ids of its pictures
LEVELS = ("between_class", "within_class", "class_border")
RATED = CATEGORIES[:5]  # the categories whose pictures are rated among themselves
ANSWERS = 5  # participants who see a triplet
CATCH = 8  # catch trials of each participant
LOOK_WEIGHT = 2.6  # of looks, where all three things are of one category
RATERS, RATING_NOISE = (
    20,
    0.6,
)  # of the similarity judgments; noise in standard deviations of the similarities
TRIAL_HEADER = (
    "participant", "trial", "image1", "image2", "image3", "selected_image", "triplet_type", "exp_trial_type", "rt",
    "correct_image",
)  # fmt: skip


def look_similarity(a: Look, b: Look) -> float:
    """How alike two looks are, within [-1, 1]: hue on its circle, texture and outline."""
    turn = 2 * np.pi * (a.hue - b.hue) / len(COLOURS)
    return float(0.5 * np.cos(turn) + 0.25 * (a.texture == b.texture) + 0.25 * (a.outline == b.outline))


def pair_similarity(world: Concepts, level: str) -> np.ndarray:
    """The participants' similarity of two concepts (c, c) at a level of LEVELS."""
    if level != "within_class":
        return world.similarity
    return LOOK_WEIGHT * np.array([[look_similarity(a, b) for b in world.looks] for a in world.looks])


def judged_sets(world: Concepts, settings: WorldSettings) -> dict[str, np.ndarray]:
    """The concept of each rated picture by set: one of each, several of those of five categories, two halves, and one
    of each again, with other pictures and raters."""
    everything = np.arange(len(world.names))
    sets = {"various": everything}
    for category in RATED:
        members = np.flatnonzero(world.category == CATEGORIES.index(category))
        sets[category] = np.repeat(members, settings.rated)
    return sets | {"set1": everything[::2], "set2": everything[1::2], "cichy": everything}


def write_judgments(folder: Path, world: Concepts, settings: WorldSettings, rng: np.random.Generator) -> None:
    """The rated matrices in the formats that the original data sets have; pictures are in order of their names."""
    from scipy.io import savemat

    raters: dict[str, np.ndarray] = {}
    for name, concepts in judged_sets(world, settings).items():
        level = "within_class" if name in RATED else "between_class"
        similar = pair_similarity(world, level)[np.ix_(concepts, concepts)]
        raters[name] = _rated(similar, rng)
        if name not in ("set1", "set2", "cichy"):
            target = folder / "images" / "judged" / name / "sim_judgments"
            target.mkdir(parents=True, exist_ok=True)
            savemat(target / "sim.mat", {"simmatrix": raters[name].mean(0)})
    root = folder / "images" / "judged"
    savemat(root / "judgments_general.mat", {"judgments": 10 - raters["cichy"]})
    behaviour = {name: {"pairwisedistances": 10 - raters[name].mean(0)} for name in ("set1", "set2")}
    savemat(root / "BEHAVIOR.mat", {"BEHAVIOR": behaviour})
    for path in root.rglob("*.mat"):
        _fixed_header(path)


def _fixed_header(path: Path) -> None:
    """Take the time of day out of a MATLAB file's first 116 bytes, which are free text: same world, same bytes."""
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 5.0 MAT-file".ljust(116))


def _rated(similar: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ratings (raters, m, m) within 0..10, symmetric, 10 on the diagonal."""
    upper = np.triu_indices(len(similar), 1)
    values = similar[upper]
    scaled = (values - values.mean()) / max(values.std(), 1e-12)
    ratings = np.full((RATERS, *similar.shape), 10.0)
    for rater in range(RATERS):
        noisy = np.clip(5 + 2 * (scaled + RATING_NOISE * rng.standard_normal(len(scaled))), 0, 10)
        ratings[rater][upper] = noisy
        ratings[rater].T[upper] = noisy
    return ratings


def write_trials(
    path: Path,
    world: Concepts,
    pictures: Pictures,
    settings: WorldSettings,
    rng: np.random.Generator,
) -> None:
    """The trials of all participants, among them some whom the recipe leaves out.

    pictures: ids of the pictures of each concept. The last participants are a random clicker, one who often gives no
    answer, and one whose trials are those of another.
    """
    number, each = settings.participants, settings.participant_trials
    triplets = _triplets(world, -(-number * each // ANSWERS), pictures, rng)
    shown = _dealt(len(triplets), number, each, rng)
    known = [_catch(world, pictures, rng) for _ in range(CATCH)]
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(TRIAL_HEADER)
        people = [(f"p{index + 1:03d}", shown[index], "") for index in range(number)]
        people += [
            ("clicker", shown[0][::-1], "clicks"),
            ("absent", shown[1][::-1], "misses"),
            ("twin", shown[2], ""),
        ]
        for name, own, habit in people:
            slow = rng.normal(0, 0.2)
            trials = [(*triplets[index], "exp_trial") for index in own] + [
                (*one, "catch_trial") for one in known
            ]
            for place, one in enumerate(rng.permutation(len(trials)).tolist()):
                writer.writerow([name, place + 1, *_answered(world, trials[one], habit, slow, rng)])


def _answered(world: Concepts, trial: tuple, habit: str, slow: float, rng: np.random.Generator) -> list[str]:
    """One row without participant and place."""
    concepts, ids, level, kind = trial
    order = rng.permutation(3)
    similar = pair_similarity(world, level)
    probs = pair_probabilities(similar, np.array([concepts]))[0][
        ::-1
    ]  # of the odd one: 12 -> 0, 02 -> 1, 01 -> 2
    odd = int(rng.choice(3, p=np.full(3, 1 / 3) if habit == "clicks" else probs))
    nats = float(-(probs * np.log(np.maximum(probs, 1e-300))).sum())
    seconds = max(float(np.exp(0.35 + 0.75 * nats + slow + rng.normal(0, 0.35))), 1.0)
    missed = seconds > 15 or (habit == "misses" and rng.random() < 0.5)
    right = ids[2] if kind == "catch_trial" else ""
    chosen = "" if missed else ids[odd]
    return [
        *(ids[one] for one in order),
        chosen,
        level,
        kind,
        "" if missed else f"{1000 * seconds:.0f}",
        right,
    ]


def _triplets(world: Concepts, number: int, pictures: Pictures, rng: np.random.Generator) -> list[tuple]:
    """(concepts, picture ids, level) of different triplets, the levels in turn."""
    found: dict[tuple[str, ...], tuple] = {}
    while len(found) < number:
        level = LEVELS[len(found) % 3]
        concepts, ids = _drawn(world, level, pictures, rng)
        if len(set(ids)) == 3:
            found.setdefault(tuple(sorted(ids)), (concepts, ids, level))
    return list(found.values())


def _drawn(world: Concepts, level: str, pictures: Pictures, rng: np.random.Generator) -> tuple:
    if level == "between_class":  # three categories
        categories = rng.choice(len(CATEGORIES), 3, replace=False)
        concepts = [int(rng.choice(np.flatnonzero(world.category == one))) for one in categories]
    elif level == "within_class":  # three concepts of one
        own = np.flatnonzero(world.category == rng.integers(len(CATEGORIES)))
        concepts = rng.choice(own, 3, replace=len(own) < 3).tolist()
    else:  # two of one, one of another
        home, away = rng.choice(len(CATEGORIES), 2, replace=False)
        pair = rng.choice(np.flatnonzero(world.category == home), 2, replace=False).tolist()
        concepts = [*pair, int(rng.choice(np.flatnonzero(world.category == away)))]
    return concepts, [str(rng.choice(pictures[concept])) for concept in concepts]


def _catch(world: Concepts, pictures: Pictures, rng: np.random.Generator) -> tuple:
    """Two pictures of one concept and the one least like it, which is the answer; its level is class_border."""
    concept = int(rng.integers(len(world.names)))
    other = int(world.similarity[concept].argmin())
    pair = rng.choice(len(pictures[concept]), 2, replace=False)
    ids = [*(str(pictures[concept][one]) for one in pair), str(rng.choice(pictures[other]))]
    return [concept, concept, other], ids, "class_border"


def _dealt(triplets: int, people: int, each: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Which triplets each participant sees: every triplet goes to ANSWERS of them, nobody sees one twice."""
    step = people // ANSWERS  # rounds of participants that together see every triplet once
    shown: list[list[int]] = [[] for _ in range(people)]
    for answer in range(ANSWERS):
        for place, triplet in enumerate(rng.permutation(triplets).tolist()):
            shown[answer * step + place % step].append(triplet)
    return [np.array(own) for own in shown]


def write_hierarchy(folder: Path, world: Concepts, pool: Sequence[str], pool_class: Sequence[str]) -> None:
    """hierarchy.csv, and pool_labels.csv: a pool picture of no concept is of the class `<category>_other`."""
    rows = [
        (name, CATEGORIES[category], SUPERORDINATE[CATEGORIES[category]])
        for name, category in zip(world.names, world.category.tolist(), strict=True)
    ]
    rows += [(f"{category}_other", category, SUPERORDINATE[category]) for category in CATEGORIES]
    for name, header, lines in (
        ("hierarchy.csv", ("class", "basic", "superordinate"), rows),
        ("pool_labels.csv", ("id", "class"), sorted(zip(pool, pool_class, strict=True))),
    ):
        with open(folder / name, "w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(lines)
