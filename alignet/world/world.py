"""The embedded world: drawn pictures of invented concepts, and simulated participants who judge them.

    objects.txt, objects.csv    judged objects in the order of triplet indices; a table as data/concepts.py reads it
    concepts.csv                index, unique_id, category, judged (0 | 1)
    similarity.npy              concept x concept, the participants' own similarities (dot products)
    images/things/*.png         the judged objects
    images/pool/*.png           unlabelled pictures: judged concepts, and things of known categories that
                                are none of the concepts
    images/probe/*.png          labelled pictures of every concept, to train a linear probe; labels.csv
    images/fresh/*.png          pictures of every concept for evaluation only; labels.csv: id, label, category, judged
    triplets/{train,val}.npy    choices between objects, int32 (n, 3), odd one last
    evaluation/{all,coarse,unjudged}.npy  choices between fresh pictures: rows of their sorted ids, odd one last
    evaluation/*_probabilities.npy        the exact P of the three pairs [01, 02, 12], float32 (n, 3)
    people/, images/judged/, hierarchy.csv, pool_labels.csv               see people
    pretrain/{teacher,student}_images.npy uint8 (n, size, size, 3); teacher_captions.npy uint8 (n, 4) words,
                                0 where none is said; student_labels.npy uint8 (n,); vocabulary.txt

A participant's similarity of two concepts is the dot product of their non-negative embeddings (categories,
their groups, natural or made), and a choice is one draw from the softmax over the three pairs. Looks
(hue, texture, outline) play no part in it. Some concepts of each category are never judged: they are
in no choice and no pool picture.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import WorldSettings
from alignet.runtime.progress import progress
from alignet.world import people
from alignet.world.drawing import BACKGROUNDS, CATEGORIES, COLOURS, OUTLINES, TEXTURES, Look, draw

# What participants attend to beside the category: which categories have it and how much it weighs.
SHARED = (
    (0.85, ("animal", "insect")),
    (0.85, ("fruit", "plant")),
    (0.85, ("vehicle", "building")),
    (0.85, ("tool", "container")),
    (0.75, ("animal", "insect", "fruit", "plant")),
    (0.75, ("vehicle", "building", "tool", "container")),
)
CATEGORY_WEIGHT = 1.0
STRANGER = -1  # in the place of a concept: a pool picture of something that is none of them
SPREAD = 0.2  # a concept's weight on each dimension differs by up to this share

_STREAMS = (  # what is drawn at random; appending keeps the others' draws
    "concepts", "things", "pool", "fresh", "probe", "teacher", "student",
    "train", "val", "all", "coarse", "unjudged", "captions", "judged", "judgments", "trials",
)  # fmt: skip


@dataclass(frozen=True)
class Concepts:
    """The concepts of a world in order; those of one category stand together. Arrays are (concepts,)."""

    names: tuple[str, ...]
    looks: tuple[Look, ...]
    category: np.ndarray  # int64, index into CATEGORIES
    judged: np.ndarray  # bool
    embedding: np.ndarray  # float64 (concepts, dimensions), non-negative

    @property
    def similarity(self) -> np.ndarray:
        """Dot products of the embeddings, (concepts, concepts)."""
        return self.embedding @ self.embedding.T


def write_world(folder: Path, settings: WorldSettings) -> dict[str, Any]:
    """Draw the world into `folder` (see the module's docstring) and return its metrics.

    The same settings give the same bytes. Metrics: numbers of concepts and pictures, and for each
    evaluation set `ceiling_<name>`, the mean probability of the likeliest answer.
    """
    folder = Path(folder)
    world = make_concepts(settings)
    _write_tables(folder, world)
    everything, judged = np.arange(len(world.names)), np.flatnonzero(world.judged)
    drawn = {
        "things": np.repeat(judged, settings.exemplars),
        "pool": np.concatenate(
            [
                _spread(judged, settings.pool - settings.strangers, _rng(settings, "pool")),
                np.full(settings.strangers, STRANGER),
            ]
        ),
        "fresh": np.repeat(everything, settings.fresh),
        "probe": np.repeat(everything, settings.probe),
        "teacher": _spread(everything, settings.teacher_images, _rng(settings, "teacher")),
        "student": _spread(everything, settings.student_images, _rng(settings, "student")),
    }
    judged_sets = people.judged_sets(world, settings)
    drawn["judged"] = np.concatenate(list(judged_sets.values()))
    folders = {"judged": [f"{name}/images" for name, rows in judged_sets.items() for _ in rows]}
    with progress("world: drawing", sum(map(len, drawn.values())), "pictures") as advance:
        made = {
            name: _write_pictures(folder, name, drawn[name], world, settings, advance, folders.get(name))
            for name in drawn
        }
    ids = {name: [one for one, _ in pictures] for name, pictures in made.items()}
    _write_objects(folder, ids["things"], drawn["things"], world)
    _write_people(folder, made, drawn, world, settings)
    np.save(folder / "pretrain" / "student_labels.npy", drawn["student"].astype(np.uint8))
    _write_choices(folder, drawn["things"], world, settings)
    metrics: dict[str, Any] = {"concepts": len(everything), "judged_concepts": len(judged)}
    metrics |= {f"pictures_{name}": len(rows) for name, rows in drawn.items()}
    return metrics | _write_evaluation(folder, drawn["fresh"], world, settings)


def make_concepts(settings: WorldSettings) -> Concepts:
    """Looks, embeddings and the judged ones.

    Hues, textures and outlines are dealt to each category anew, each at most once in it: they tell the
    concepts of a category apart and tell nothing about the category.
    """
    rng = _rng(settings, "concepts")
    each, categories = settings.concepts, len(CATEGORIES)
    texture = np.stack([rng.permutation(len(TEXTURES))[:each] for _ in range(categories)])
    hue = np.stack([rng.permutation(len(COLOURS))[:each] for _ in range(categories)])
    outline = np.stack([rng.permutation(len(OUTLINES))[:each] for _ in range(categories)])
    looks, names, judged = [], [], []
    for category, index in itertools.product(range(categories), range(each)):
        aspect, fineness = float(np.exp(rng.uniform(-0.3, 0.3))), float(rng.uniform(1.6, 2.4))
        look = Look(
            category,
            int(hue[category, index]),
            int(texture[category, index]),
            int(outline[category, index]),
            aspect,
            fineness,
        )
        looks.append(look)
        names.append(f"{CATEGORIES[category]}_{index + 1}")
    for _ in range(categories):
        judged.append(rng.permutation(each) >= settings.unjudged)
    category_of = np.repeat(np.arange(categories), each)
    embedding = _embedding(category_of, rng)
    embedding *= np.sqrt(_decidedness(embedding @ embedding.T, settings.ceiling))
    return Concepts(tuple(names), tuple(looks), category_of, np.concatenate(judged), embedding)


def stranger(world: Concepts, rng: np.random.Generator) -> Look:
    """The look of something of a known category that is none of the concepts.

    It shares at most one of hue, texture and outline with any concept of its category that is never judged.
    """
    while True:
        category = int(rng.integers(len(CATEGORIES)))
        hue, texture, outline = (int(rng.integers(len(many))) for many in (COLOURS, TEXTURES, OUTLINES))
        aspect, fineness = float(np.exp(rng.uniform(-0.3, 0.3))), float(rng.uniform(1.6, 2.4))
        hidden = [
            world.looks[index] for index in np.flatnonzero(~world.judged & (world.category == category))
        ]
        shared = [
            (look.hue == hue) + (look.texture == texture) + (look.outline == outline) for look in hidden
        ]
        if max(shared, default=0) <= 1:
            return Look(category, hue, texture, outline, aspect, fineness)


def choose(
    similarity: np.ndarray, triplets: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One simulated choice per triplet of concepts.

    similarity: (c, c). triplets: (n, 3) concept indices. Returns (order (n, 3), probabilities (n, 3)): the
    columns of each triplet reordered so that the odd one stands last, and the exact P of the pairs
    [01, 02, 12] of the reordered triplet.
    """
    probs = pair_probabilities(similarity, triplets)
    chosen = (rng.random((len(triplets), 1)) > probs.cumsum(1)[:, :2]).sum(1)
    order = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[chosen]
    swap = rng.random(len(order)) < 0.5  # which of the chosen pair stands first tells nothing
    order[swap, :2] = order[swap, 1::-1]
    return order, pair_probabilities(similarity, np.take_along_axis(triplets, order, 1))


def pair_probabilities(similarity: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """softmax of the similarities of the pairs [01, 02, 12] of each triplet of concepts, (n, 3) float64."""
    a, b, c = triplets.T
    sims = np.stack([similarity[a, b], similarity[a, c], similarity[b, c]], 1)
    weights = np.exp(sims - sims.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _rng(settings: WorldSettings, stream: str, *index: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, _STREAMS.index(stream), *index])


def _embedding(category: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    own = [(CATEGORY_WEIGHT, (name,)) for name in CATEGORIES]
    columns = []
    for weight, members in (*own, *SHARED):
        has = np.isin(category, [CATEGORIES.index(name) for name in members])
        columns.append(has * weight * rng.uniform(1 - SPREAD, 1 + SPREAD, len(category)))
    return np.stack(columns, 1)


def _decidedness(similarity: np.ndarray, ceiling: float) -> float:
    """The factor on similarities at which the likeliest answer has mean probability `ceiling`."""
    triplets = np.array(list(itertools.combinations(range(len(similarity)), 3)))
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        reached = pair_probabilities(similarity * middle, triplets).max(1).mean()
        low, high = (middle, high) if reached < ceiling else (low, middle)
    return (low + high) / 2


def _spread(concepts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n concepts (n,), as evenly as possible, in random order."""
    return rng.permutation(np.resize(concepts, n))


def _write_tables(folder: Path, world: Concepts) -> None:
    for name in ("things", "pool", "fresh", "probe"):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
    for name in ("triplets", "evaluation", "pretrain"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rows = [
        (index, name, CATEGORIES[world.category[index]], int(world.judged[index]))
        for index, name in enumerate(world.names)
    ]
    _write_csv(folder / "concepts.csv", ("index", "unique_id", "category", "judged"), rows)
    np.save(folder / "similarity.npy", world.similarity)
    words = ("", *CATEGORIES, *world.names, *COLOURS, *(f"{name} background" for name in BACKGROUNDS))
    (folder / "pretrain" / "vocabulary.txt").write_text("\n".join(words) + "\n", encoding="utf-8")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _write_objects(folder: Path, ids: list[str], concepts: np.ndarray, world: Concepts) -> None:
    (folder / "objects.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    rows = [
        (index, Path(name).stem, CATEGORIES[world.category[concept]], name, "judged", world.names[concept])
        for index, (name, concept) in enumerate(zip(ids, concepts, strict=True))
    ]
    _write_csv(folder / "objects.csv", ("index", "unique_id", "category", "photo", "split", "concept"), rows)


def _write_people(folder: Path, made, drawn, world: Concepts, settings: WorldSettings) -> None:
    """What participants do that is only measured on."""
    fresh: dict[int, list[str]] = {}
    for (name, _), concept in zip(made["fresh"], drawn["fresh"].tolist(), strict=True):
        fresh.setdefault(concept, []).append(name)
    (folder / "people").mkdir(exist_ok=True)
    trials = folder / "people" / "trials.csv"
    people.write_trials(trials, world, fresh, settings, _rng(settings, "trials"))
    people.write_judgments(folder, world, settings, _rng(settings, "judgments"))
    classes = [
        world.names[concept] if concept != STRANGER else f"{CATEGORIES[category]}_other"
        for (_, category), concept in zip(made["pool"], drawn["pool"].tolist(), strict=True)
    ]
    people.write_hierarchy(folder, world, [name for name, _ in made["pool"]], classes)


def _write_pictures(folder, name, concepts, world, settings, advance, folders=None) -> list[tuple[str, int]]:
    """Draw one set of pictures; returns (id, category) in the order of `concepts` (none for pretraining).

    folders: of each picture below the set's own, for sets that are parted.
    """
    rng = _rng(settings, name, 0)
    backgrounds = rng.integers(len(BACKGROUNDS), size=len(concepts))
    pretraining = name in ("teacher", "student")
    if pretraining:
        shape = (len(concepts), settings.size, settings.size, 3)
        target = folder / "pretrain" / f"{name}_images.npy"
        array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    if name == "teacher":
        captions = _captions(concepts, backgrounds, world, settings)
        np.save(folder / "pretrain" / "teacher_captions.npy", captions)
    made = []
    for index, (concept, background) in enumerate(zip(concepts.tolist(), backgrounds.tolist(), strict=True)):
        rng = _rng(settings, name, 1, index)
        look = world.looks[concept] if concept != STRANGER else stranger(world, rng)
        picture = draw(look, background, settings.size, rng)
        if pretraining:
            array[index] = np.asarray(picture)
        else:
            own = f"{index:05d}.png" if name == "pool" else f"{world.names[concept]}_{index:05d}.png"
            if folders is not None:  # numbered first: the order of names is that of the ratings
                own = f"{folders[index]}/{index:05d}_{world.names[concept]}.png"
                (folder / "images" / name / own).parent.mkdir(parents=True, exist_ok=True)
            picture.save(folder / "images" / name / own, compress_level=1)
            made.append((own, look.category))
        advance()
    if pretraining:
        array.flush()
    if name in ("fresh", "probe"):
        _write_labels(folder / "images" / name / "labels.csv", [own for own, _ in made], concepts, world)
    return made


def _write_labels(path: Path, ids: list[str], concepts: np.ndarray, world: Concepts) -> None:
    rows = (
        (name, world.names[concept], CATEGORIES[world.category[concept]], int(world.judged[concept]))
        for name, concept in sorted(zip(ids, concepts, strict=True))
    )
    _write_csv(path, ("id", "label", "category", "judged"), rows)


def _captions(concepts, backgrounds, world: Concepts, settings: WorldSettings) -> np.ndarray:
    """Words (n, 4) uint8: category, concept, colour, background, or 0 where the caption leaves it out."""
    categories, names, colours = len(CATEGORIES), len(world.names), len(COLOURS)
    hues = np.array([look.hue for look in world.looks])
    words = np.stack(
        [
            1 + world.category[concepts],
            1 + categories + concepts,
            1 + categories + names + hues[concepts],
            1 + categories + names + colours + backgrounds,
        ],
        1,
    )
    shares = [settings.say_category, settings.say_concept, settings.say_colour, settings.say_background]
    said = _rng(settings, "captions").random(words.shape) < np.array(shares)
    silent = ~said.any(1)
    said[silent, 0] = True  # a caption says something
    return (words * said).astype(np.uint8)


def _write_choices(folder: Path, concepts: np.ndarray, world: Concepts, settings: WorldSettings) -> None:
    """Human choices between objects: three different ones at random, one draw each."""
    for name, n in (("train", settings.train_triplets), ("val", settings.val_triplets)):
        rng = _rng(settings, name)
        objects = _different(len(concepts), n, rng)
        order, _ = choose(world.similarity, concepts[objects], rng)
        np.save(folder / "triplets" / f"{name}.npy", np.take_along_axis(objects, order, 1).astype(np.int32))


def _different(m: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """n triplets of three different numbers below m, uniformly."""
    first, second, third = rng.integers(m, size=n), rng.integers(m - 1, size=n), rng.integers(m - 2, size=n)
    second += second >= first
    low, high = np.minimum(first, second), np.maximum(first, second)
    third += third >= low
    third += third >= high
    return np.stack([first, second, third], 1)


def _write_evaluation(folder, concepts, world: Concepts, settings: WorldSettings) -> dict[str, float]:
    """Choices of fresh participants between fresh pictures of three different concepts."""
    # ids sort by concept name first, so their sorted order is that of the names
    order = np.argsort(np.array([f"{world.names[c]}_{i:05d}.png" for i, c in enumerate(concepts)]))
    concept_of = concepts[order]
    pictures = {c: np.flatnonzero(concept_of == c) for c in range(len(world.names))}
    ceilings = {}
    for name in ("all", "coarse", "unjudged"):
        rng = _rng(settings, name)
        asked = _questions(name, settings.test_triplets, world, rng)
        columns, probs = choose(world.similarity, asked, rng)
        answered = np.take_along_axis(asked, columns, 1)
        picked = np.array([[rng.choice(pictures[concept]) for concept in row] for row in answered.tolist()])
        np.save(folder / "evaluation" / f"{name}.npy", picked.astype(np.int32))
        np.save(folder / "evaluation" / f"{name}_probabilities.npy", probs.astype(np.float32))
        ceilings[f"ceiling_{name}"] = float(probs.max(1).mean())
    return ceilings


def _questions(name: str, n: int, world: Concepts, rng: np.random.Generator) -> np.ndarray:
    """n triplets of different concepts: of all, of two categories (two and one), or of those never judged."""
    if name == "all":
        return _different(len(world.names), n, rng)
    if name == "unjudged":
        unjudged = np.flatnonzero(~world.judged)
        return unjudged[_different(len(unjudged), n, rng)]
    each, categories = len(world.names) // len(CATEGORIES), len(CATEGORIES)
    home, away = rng.integers(categories, size=n), rng.integers(categories - 1, size=n)
    away += away >= home
    first, second = rng.integers(each, size=n), rng.integers(each - 1, size=n)
    second += second >= first
    third = rng.integers(each, size=n)
    return np.stack([home * each + first, home * each + second, away * each + third], 1)
