"""Simulated participants of odd-one-out trials with response times, as tables of raw trials."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

COLUMNS = (
    "participant", "trial", "image1Path", "image2Path", "image3Path", "selected_image", "triplet_type",
    "exp_trial_type", "rt", "correct_image",
)  # fmt: skip
TYPES = ("between_class", "within_class", "class_border")


@dataclass(frozen=True)
class Study:
    """What was simulated. features: (m, d) the true embedding; rows: of the table; triplets: (n, 3), by level."""

    features: np.ndarray
    images: list[str]
    triplets: np.ndarray
    levels: np.ndarray
    probabilities: np.ndarray  # (n, 3), of the odd one at column 0, 1, 2
    rows: list[dict[str, object]]


def odd_probabilities(features: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """P of the odd one at each column (n, 3): the softmax of the dot products of the other two."""
    x = features[triplets].astype(np.float64)
    sims = np.stack([(x[:, 1] * x[:, 2]).sum(1), (x[:, 0] * x[:, 2]).sum(1), (x[:, 0] * x[:, 1]).sum(1)], 1)
    weights = np.exp(sims - sims.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def study(
    seed: int,
    *,
    classes: int = 12,
    images: int = 6,
    triplets: int = 120,
    answers: int = 5,
    slope: float = 1.0,
) -> Study:
    """`triplets` of each level, each answered by about `answers` participants; RT grows by `slope` per nat of entropy.

    Every participant has a set of triplets of their own and 16 catch trials, answered right.
    """
    generator = np.random.default_rng(seed)
    centres = generator.gamma(1.0, 0.6, size=(classes, 8))
    features = np.repeat(centres, images, 0) + 0.4 * generator.gamma(1.0, 0.6, size=(classes * images, 8))
    names = [f"class{row // images:02}/image{row % images}.jpg" for row in range(classes * images)]
    drawn = _drawn(generator, classes, images, triplets)
    levels = np.repeat(np.arange(3), triplets)
    p = odd_probabilities(features, drawn)
    nats = -(p * np.log(p)).sum(1)
    people = 2 * answers  # of each pair, one answers the even triplets and one the odd ones
    order = generator.permutation(len(drawn))
    rows = []
    for person in range(people):
        half = order[person % 2 :: 2]
        own = np.delete(half, person // 2)  # so that no two sets are equal
        for number, row in enumerate(generator.permutation(own)):
            shown = drawn[row][(columns := generator.permutation(3))]
            odd = shown[generator.choice(3, p=p[row][columns] / p[row].sum())]
            rt = 1000 * np.exp(0.3 + slope * nats[row] + 0.2 * generator.normal())
            rows.append(
                trial(f"p{person}", number, [names[i] for i in shown], names[odd], TYPES[levels[row]], rt)
            )
        rows += [catch(f"p{person}", 1000 + number, names, right=True) for number in range(16)]
    return Study(features.astype(np.float32), names, drawn, levels, p, rows)


def _drawn(generator: np.random.Generator, classes: int, images: int, triplets: int) -> np.ndarray:
    """So many different triplets of each level (n, 3)."""
    found: dict[tuple[int, ...], np.ndarray] = {}
    for level in range(3):
        while len(found) < (level + 1) * triplets:
            row = _draw(generator, level, classes, images)
            found.setdefault(tuple(sorted(row.tolist())), row)
    return np.array(list(found.values()))


def _draw(generator: np.random.Generator, level: int, classes: int, images: int) -> np.ndarray:
    kinds = generator.permutation(classes)[:3]
    if level == 1:
        return kinds[0] * images + generator.permutation(images)[:3]
    if level == 2:
        pair = kinds[0] * images + generator.permutation(images)[:2]
        return np.array([*pair, kinds[1] * images + generator.integers(images)])
    return kinds * images + generator.integers(images, size=3)


def trial(
    participant: str, number: int, shown: list[str], odd: str, kind: str, rt: float | str = 1500.0
) -> dict[str, object]:
    """One ordinary trial; odd '' is a miss."""
    values = (participant, number, *shown, odd, kind, "exp_trial", rt, "")
    return dict(zip(COLUMNS, values, strict=True))


def catch(participant: str, number: int, names: list[str], *, right: bool) -> dict[str, object]:
    """A trial with two equal images, of which the third is right."""
    shown = [names[0], names[1], names[0]]
    values = (
        participant,
        number,
        *shown,
        names[1] if right else names[0],
        "class_border",
        "catch_trial",
        900.0,
        "",
    )
    return dict(zip(COLUMNS, values, strict=True))


def save(path: Path, rows: list[dict[str, object]]) -> Path:
    """As a CSV file."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
