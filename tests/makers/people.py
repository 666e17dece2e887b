"""Simulated participants of a survey: files as the page saves them, and the planted embedding they answer by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from alignet.survey.page import Texts, build_page
from alignet.survey.survey import Survey

TEXTS = Texts("Odd one out", "You agree.", "Send the file to us.")


def planted(m: int, d: int, seed: int, scale: float = 2.0) -> np.ndarray:
    """(m, d) non-negative: a category each, in turns, and a part in each other dimension with probability 0.3."""
    generator = np.random.default_rng(seed)
    embedding = (generator.random((m, d)) < 0.3) * generator.uniform(0.2, 1.0, (m, d))
    embedding[np.arange(m), np.arange(m) % d] = generator.uniform(1.0, 1.6, m)
    return scale * embedding


def picture(seed: int, size: tuple[int, int] = (60, 40)) -> Image.Image:
    """Coarse random colours, so that two pictures differ clearly."""
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 3, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


def make_survey(m: int, triplets: np.ndarray, **options) -> tuple[str, Survey]:
    """A page about m pictures."""
    values = {
        "texts": TEXTS, "trials": len(triplets), "catch": 4, "practice": 2, "pixels": 48, "quality": 80,
        "max_megabytes": 5.0, "seed": 0,
    } | options  # fmt: skip
    names = [f"picture {number:02}.png" for number in range(m)]
    return build_page(names, lambda name: picture(names.index(name)), triplets, **values)


def sheet(
    survey: Survey,
    seed: int,
    embedding: np.ndarray | None,
    *,
    trials: int | None = None,
    attentive: bool = True,
) -> dict:
    """What one participant's page saves. embedding None: answers at random. attentive: right on catch trials."""
    generator = np.random.default_rng(seed)
    number = {shown: place for place, shown in reversed(list(enumerate(survey.pictures)))}
    for _, copy, _ in survey.catch:  # an object's own picture, not its copy
        same = [
            place
            for place, shown in enumerate(survey.pictures)
            if shown == survey.pictures[copy] and place != copy
        ]
        number[survey.pictures[copy]] = same[0]
    own = generator.permutation(len(survey.triplets))[: survey.trials]
    asked = [([number[item] for item in survey.triplets[row]], None) for row in own]
    asked += [(list(row), row[2]) for row in survey.catch]
    rows = []
    for place in generator.permutation(len(asked)):
        pictures, odd = asked[place]
        pictures = [pictures[column] for column in generator.permutation(3)]
        choice = _answer(generator, [survey.pictures[item] for item in pictures], embedding)
        if odd is not None and attentive:
            choice = pictures.index(odd)
        rows.append(
            {"pictures": pictures, "choice": choice, "rt": round(float(generator.uniform(400, 4000)), 1)}
        )
    rows = rows[:trials]
    return {
        "format": "alignet-survey-answers", "version": 1, "survey": survey.id,
        "participant": generator.bytes(16).hex(), "complete": len(rows) == survey.length, "trials": rows,
    }  # fmt: skip


def _answer(generator: np.random.Generator, objects: list[int], embedding: np.ndarray | None) -> int:
    if embedding is None:
        return int(generator.integers(3))
    rows = embedding[objects]
    pairs = np.array([rows[1] @ rows[2], rows[0] @ rows[2], rows[0] @ rows[1]])  # of the odd one at 0, 1, 2
    weights = np.exp(pairs - pairs.max())
    return int(generator.choice(3, p=weights / weights.sum()))


def save(folder: Path, sheets: list[dict]) -> list[Path]:
    """Each as a file."""
    paths = []
    for number, content in enumerate(sheets):
        paths.append(folder / f"answers-{number:03}.json")
        paths[-1].write_text(json.dumps(content))
    return paths
