"""The drawn world's importance maps: where its people say that what marks a picture's category is.

    images/mapped/*.png, labels.csv         pictures with maps, to train on: id, class, label, category, natural (0 | 1)
    images/mapped_plain/*.png, labels.csv   such pictures without maps
    images/mapped_test/*.png, labels.csv    further ones with maps, to measure on
    maps/mapped.npz, maps/mapped_test.npz   ids (n,); maps (n, raters, size / 2, size / 2) uint8, scaled to 255

A category is marked by its parts (eyes and legs, wheels, a stem with a leaf), which a second pen marks where they show.
Each rater clicks on them some times, not quite where they wanted; a map is the density of the clicks. class: the number
of the concept, as the world's own student counts its classes.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import WorldSettings
from alignet.runtime.progress import progress
from alignet.world.concepts import Concepts, generator
from alignet.world.drawing import BACKGROUNDS, CATEGORIES, Scene, draw_with_parts

NATURAL = ("animal", "insect", "fruit", "plant")
CLICKS = 24  # of each rater on each picture
AIM = 0.02  # standard deviation of a click from where it was meant, as a share of the picture's side
BLUR = 0.07  # of the density, likewise


def write_importance(folder: Path, world: Concepts, settings: WorldSettings) -> dict[str, Any]:
    """Draw the pictures and their maps into `folder` and return the numbers of pictures. The seed decides the bytes."""
    sizes = {
        "mapped": settings.mapped, "mapped_plain": settings.mapped_plain, "mapped_test": settings.mapped_test
    }  # fmt: skip
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    with progress("world: importance maps", sum(sizes.values()), "pictures") as advance:
        for name, count in sizes.items():
            _write(folder, name, count, world, settings, advance)
    return {f"pictures_{name}": count for name, count in sizes.items()}


def _write(
    folder: Path, name: str, count: int, world: Concepts, settings: WorldSettings, advance: Any
) -> None:
    images = folder / "images" / name
    images.mkdir(parents=True, exist_ok=True)
    rng = generator(settings, name, 0)
    concepts = rng.permutation(np.resize(np.arange(len(world.names)), count))
    backgrounds = rng.integers(len(BACKGROUNDS), size=count)
    scene = Scene(settings.move, settings.scale)
    rows, maps = [], []
    for number, concept in enumerate(concepts.tolist()):
        pens = generator(settings, name, 1, number)
        picture, parts = draw_with_parts(
            world.looks[concept], int(backgrounds[number]), settings.size, pens, scene
        )
        one = f"{number:05d}.png"
        picture.save(images / one, compress_level=1)
        category = CATEGORIES[world.category[concept]]
        rows.append((one, concept, world.names[concept], category, int(category in NATURAL)))
        if name != "mapped_plain":
            clicks = generator(settings, name, 2, number)
            maps.append([clicked(np.asarray(parts), clicks) for _ in range(settings.raters)])
        advance()
    with open(images / "labels.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("id", "class", "label", "category", "natural"))
        writer.writerows(rows)
    if maps:
        np.savez(folder / "maps" / f"{name}.npz", ids=np.array([row[0] for row in rows]), maps=np.array(maps))


def clicked(parts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One rater's map (size / 2, size / 2) uint8, the largest value 255, of parts (size, size) uint8.

    All zero where no part shows, which is rare: a body may hide what is behind it, and objects may leave the picture.
    """
    from scipy.ndimage import gaussian_filter

    size = len(parts)
    held = np.zeros((size // 2, size // 2))
    down, across = np.nonzero(parts > 127)
    if not len(down):
        return held.astype(np.uint8)
    hits = rng.integers(len(down), size=CLICKS)
    where = np.stack([down[hits], across[hits]]) + rng.normal(0, AIM * size, (2, CLICKS))
    y, x = np.clip(where / 2, 0, size // 2 - 1).astype(int)
    np.add.at(held, (y, x), 1.0)
    density = gaussian_filter(held, BLUR * size / 2, mode="constant")
    return np.round(255 * density / density.max()).astype(np.uint8)
