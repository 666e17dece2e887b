"""The concepts of the drawn world: their looks, their embeddings, and the choices that follow from these.

A participant's similarity of two concepts is the dot product of their non-negative embeddings (categories,
their groups, natural or made), and a choice is one draw from the softmax over the three pairs. Looks
(hue, texture, outline) play no part in it. Some concepts of each category are never judged.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from alignet.config import WorldSettings
from alignet.world.drawing import CATEGORIES, COLOURS, OUTLINES, TEXTURES, Look

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
SPREAD = 0.2  # a concept's weight on each dimension differs by up to this share

_STREAMS = (  # what is drawn at random; appending keeps the others' draws
    "concepts", "things", "pool", "fresh", "probe", "teacher", "student",
    "train", "val", "all", "coarse", "unjudged", "captions", "judged", "judgments", "trials",
    "mapped", "mapped_plain", "mapped_test",
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


def make_concepts(settings: WorldSettings) -> Concepts:
    """Looks, embeddings and the judged ones.

    Hues, textures and outlines are dealt to each category anew, each at most once in it: they tell the
    concepts of a category apart and tell nothing about the category.
    """
    rng = generator(settings, "concepts")
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


def generator(settings: WorldSettings, stream: str, *index: int) -> np.random.Generator:
    """The generator of one of _STREAMS; index: of a picture in it."""
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
