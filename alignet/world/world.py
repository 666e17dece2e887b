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
    people/, images/judged/, hierarchy.csv, pool_labels.csv               see people.py
    images/mapped*/, maps/      where world.mapped asks for them, see importance.py
    pretrain/{teacher,student}_images.npy uint8 (n, size, size, 3); teacher_captions.npy uint8 (n, 4) words,
                                0 where none is said; student_labels.npy uint8 (n,); vocabulary.txt

How participants choose is in concepts.py. Some concepts of each category are never judged: they are in no choice and
no pool picture.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import WorldSettings
from alignet.runtime.interrupt import ignore
from alignet.runtime.progress import progress
from alignet.world import people
from alignet.world.concepts import Concepts, choose, generator, make_concepts, stranger
from alignet.world.drawing import BACKGROUNDS, CATEGORIES, COLOURS, Scene, draw
from alignet.world.importance import write_importance

PART = 100  # pictures that a process draws at a time
STRANGER = -1  # in the place of a concept: a pool picture of something that is none of them


def write_world(folder: Path, settings: WorldSettings, workers: int = 0) -> dict[str, Any]:
    """Draw the world into `folder` (see the module's docstring) and return its metrics.

    workers: processes that draw; 0 draws in this one. The same settings give the same bytes, whatever it is.
    Metrics: numbers of concepts and pictures, and for each evaluation set `ceiling_<name>`, the mean probability of
    the likeliest answer.
    """
    folder = Path(folder)
    world = make_concepts(settings)
    _write_tables(folder, world)
    everything, judged = np.arange(len(world.names)), np.flatnonzero(world.judged)
    drawn = {
        "things": np.repeat(judged, settings.exemplars),
        "pool": np.concatenate(
            [
                _spread(judged, settings.pool - settings.strangers, generator(settings, "pool")),
                np.full(settings.strangers, STRANGER),
            ]
        ),
        "fresh": np.repeat(everything, settings.fresh),
        "probe": np.repeat(everything, settings.probe),
        "teacher": _spread(everything, settings.teacher_images, generator(settings, "teacher")),
        "student": _spread(everything, settings.student_images, generator(settings, "student")),
    }
    judged_sets = people.judged_sets(world, settings)
    drawn["judged"] = np.concatenate(list(judged_sets.values()))
    folders = {"judged": [f"{name}/images" for name, rows in judged_sets.items() for _ in rows]}
    with progress("world: drawing", sum(map(len, drawn.values())), "pictures") as advance:
        made = {
            name: _write_pictures(
                folder, name, drawn[name], world, settings, advance, folders.get(name), workers
            )
            for name in drawn
        }
    ids = {name: [one for one, _ in pictures] for name, pictures in made.items()}
    _write_objects(folder, ids["things"], drawn["things"], world)
    _write_people(folder, made, drawn, world, settings)
    np.save(folder / "pretrain" / "student_labels.npy", drawn["student"].astype(np.uint8))
    _write_choices(folder, drawn["things"], world, settings)
    metrics: dict[str, Any] = {"concepts": len(everything), "judged_concepts": len(judged)}
    metrics |= {f"pictures_{name}": len(rows) for name, rows in drawn.items()}
    if settings.mapped:
        metrics |= write_importance(folder, world, settings)
    return metrics | _write_evaluation(folder, drawn["fresh"], world, settings)


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
    people.write_trials(trials, world, fresh, settings, generator(settings, "trials"))
    people.write_judgments(folder, world, settings, generator(settings, "judgments"))
    classes = [
        world.names[concept] if concept != STRANGER else f"{CATEGORIES[category]}_other"
        for (_, category), concept in zip(made["pool"], drawn["pool"].tolist(), strict=True)
    ]
    people.write_hierarchy(folder, world, [name for name, _ in made["pool"]], classes)


def _write_pictures(
    folder, name, concepts, world, settings, advance, folders=None, workers=0
) -> list[tuple[str, int]]:
    """Draw one set of pictures; returns (id, category) in the order of `concepts` (none for pretraining).

    folders: of each picture below the set's own, for sets that are parted.
    """
    backgrounds = generator(settings, name, 0).integers(len(BACKGROUNDS), size=len(concepts))
    if name in ("teacher", "student"):
        shape = (len(concepts), settings.size, settings.size, 3)
        target = folder / "pretrain" / f"{name}_images.npy"
        array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
        if name == "teacher":
            np.save(
                folder / "pretrain" / "teacher_captions.npy",
                _captions(concepts, backgrounds, world, settings),
            )
        for part, pictures in _drawn(_Pictures(name, concepts, backgrounds, world, settings, None), workers):
            array[part.start : part.stop] = pictures
            advance(len(part))
        array.flush()
        return []
    own = [
        f"{index:05d}.png" if name == "pool" else f"{world.names[concept]}_{index:05d}.png"
        for index, concept in enumerate(concepts.tolist())
    ]
    if folders is not None:  # numbered first: the order of names is that of the ratings
        own = [
            f"{part}/{index:05d}_{world.names[concept]}.png"
            for index, (part, concept) in enumerate(zip(folders, concepts.tolist(), strict=True))
        ]
    paths = [folder / "images" / name / one for one in own]
    for parent in dict.fromkeys(path.parent for path in paths):
        parent.mkdir(parents=True, exist_ok=True)
    categories: list[int] = []
    for part, found in _drawn(_Pictures(name, concepts, backgrounds, world, settings, paths), workers):
        categories += found
        advance(len(part))
    if name in ("fresh", "probe"):
        _write_labels(folder / "images" / name / "labels.csv", own, concepts, world)
    return list(zip(own, categories, strict=True))


@dataclass(frozen=True)
class _Pictures:
    """A set of pictures in parts, each of which any process can draw: a picture's noise depends on its number alone."""

    name: str
    concepts: np.ndarray
    backgrounds: np.ndarray
    world: Concepts
    settings: WorldSettings
    paths: list[Path] | None  # where each is written; None: pixels are returned

    def __len__(self) -> int:
        return -(-len(self.concepts) // PART)

    def part(self, number: int) -> range:
        """The pictures of a part."""
        return range(number * PART, min((number + 1) * PART, len(self.concepts)))

    def __getitem__(self, number: int) -> Any:
        """Draw a part: its pixels, uint8 (b, size, size, 3), or the categories of pictures that were written."""
        made: list[Any] = []
        for index in self.part(number):
            concept, rng = self.concepts[index], generator(self.settings, self.name, 1, index)
            look = self.world.looks[concept] if concept != STRANGER else stranger(self.world, rng)
            scene = Scene(self.settings.move, self.settings.scale)
            picture = draw(look, int(self.backgrounds[index]), self.settings.size, rng, scene)
            if self.paths is None:
                made.append(np.asarray(picture))
            else:
                picture.save(self.paths[index], compress_level=1)
                made.append(look.category)
        return np.stack(made) if self.paths is None else made


def _drawn(pictures: _Pictures, workers: int) -> Iterator[tuple[range, Any]]:
    """The parts of a set in order, drawn by so many processes."""
    if not workers:
        yield from ((pictures.part(number), pictures[number]) for number in range(len(pictures)))
        return
    import torch

    loader: Any = torch.utils.data.DataLoader(
        pictures, batch_size=None, num_workers=workers, generator=torch.Generator(),  # type: ignore[arg-type]
        multiprocessing_context="fork", worker_init_fn=ignore, collate_fn=_as_it_is,
    )  # fmt: skip
    for number, part in enumerate(loader):
        yield pictures.part(number), part


def _as_it_is(part: Any) -> Any:
    return part


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
    said = generator(settings, "captions").random(words.shape) < np.array(shares)
    silent = ~said.any(1)
    said[silent, 0] = True  # a caption says something
    return (words * said).astype(np.uint8)


def _write_choices(folder: Path, concepts: np.ndarray, world: Concepts, settings: WorldSettings) -> None:
    """Human choices between objects: three different ones at random, one draw each."""
    for name, n in (("train", settings.train_triplets), ("val", settings.val_triplets)):
        rng = generator(settings, name)
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
        rng = generator(settings, name)
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
