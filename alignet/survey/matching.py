"""A survey of identically represented inputs (IRIs): which picture is one of them most like?

    folder of invert-*.npz -> Inverted -> InvertedSurvey (survey.py) and its pictures -> the page (page.py)

`two`: an IRI above its target and its seed, sides shuffled. `match`: three targets, and one below the other two IRIs of
each. After Nanda et al., "Do invariances in deep neural networks align with human perception?" (AAAI 2023).

Shape suffixes: n targets, k IRIs of each, t triples of targets.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from alignet.data.judgements import as_similarity, hard_triples, load_judgements
from alignet.data.npy import read_arrays, read_npz
from alignet.data.text import read_text
from alignet.survey.choose import random_triplets
from alignet.survey.survey import Block, InvertedSurvey, Shown

EACH = 2  # IRIs of each target that are matched, as in the paper


@dataclass(frozen=True)
class Inverted:
    """Images and what a network takes for the same, in 8 bit: image (n, 3, H, W), seed, inverted (n, k, 3, H, W)."""

    ids: tuple[str, ...]
    image: np.ndarray
    seed: np.ndarray
    inverted: np.ndarray

    @property
    def source(self) -> str:
        """A hash of all of it."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        for one in (self.image, self.seed, self.inverted):
            digest.update(str(one.shape).encode() + np.ascontiguousarray(one).tobytes())
        return digest.hexdigest()

    def picture(self, shown: Shown) -> Image.Image:
        """One of its pictures, as RGB."""
        pixels = {
            "target": self.image[shown.object], "seed": self.seed[shown.object, shown.draw],
            "inverted": self.inverted[shown.object, shown.draw],
        }[shown.what]  # fmt: skip
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def inverted_ids(folder: Path | str) -> list[str]:
    """The ids of all images of a folder's invert-NNNNN.npz in their order; ValueError as of `read_inverted`."""
    return [name for _, names in _shards(Path(folder)) for name in names]


def read_inverted(folder: Path | str, ids: Collection[str] | None = None) -> Inverted:
    """The images of a folder's invert-NNNNN.npz, in the order of the shards. ids: those to read, None for all.

    ValueError where a shard is missing, damaged, or fits no other, or an id is there twice.
    """
    shards = _shards(Path(folder))
    wanted = {name for _, names in shards for name in names} if ids is None else set(ids)
    parts = [_read(path, names, wanted) for path, names in shards]
    shapes = {part[1].shape[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{folder}: expected images of one size and one number of draws, found {sorted(shapes)}."
        )
    image, seed, inverted = (np.concatenate([part[place] for part in parts]) for place in range(3))
    kept = tuple(name for _, names in shards for name in names if name in wanted)
    return Inverted(kept, image, seed, inverted)


def _shards(folder: Path) -> list[tuple[Path, list[str]]]:
    """The shards of the stage invert in their order, and the ids of each."""
    paths = sorted(folder.glob("invert-*.npz"))
    if not paths:
        raise ValueError(
            f"survey.inverted: expected a folder with invert-00000.npz, found none in {folder}; give the folder that "
            "the stage `invert` wrote for one network."
        )
    numbers = [path.stem.removeprefix("invert-") for path in paths]
    if numbers != [f"{number:05d}" for number in range(len(paths))]:
        raise ValueError(
            f"{folder}: expected the shards invert-00000.npz to invert-{len(paths) - 1:05d}.npz, found "
            f"{', '.join(numbers)[:80]}; let the stage `invert` finish."
        )
    listings = [folder / f"ids-{number}.txt" for number in numbers]
    names = [read_text(path, "ids of inverted images").splitlines() for path in listings]
    if len({name for part in names for name in part}) < sum(map(len, names)):
        raise ValueError(
            f"{folder}: expected each image once, found ids twice in ids-*.txt; invert the images again."
        )
    return list(zip(paths, names, strict=True))


def _read(path: Path, ids: Sequence[str], wanted: set[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """image, seed and inverted8 of a shard's wanted rows, 8 bit."""
    arrays = read_arrays(path, ("image", "seed", "inverted8"))
    image, seed, inverted = arrays.values()
    if (
        image.dtype == np.float32 and image.size and image.min() >= 0 and image.max() <= 1
    ):  # NaN is in no range
        image = np.round(image * 255).astype(np.uint8)
    fits = seed.ndim == 5 and seed.shape == inverted.shape and image.shape == (len(seed), *seed.shape[2:])
    whole = all(one.dtype == np.uint8 for one in (image, seed, inverted))
    if not fits or not whole or seed.shape[2] != 3 or 0 in seed.shape:
        found = ", ".join(f"{name} {one.dtype} {one.shape}" for name, one in arrays.items())
        raise ValueError(
            f"{path}: expected image (n, 3, H, W), seed and inverted8 (n, k, 3, H, W) in 8 bit or image as float32 in "
            f"[0, 1], found {found}; invert the images again."
        )
    if len(ids) != len(image):
        raise ValueError(
            f"{path}: expected an id for each of {len(image)} images, found {len(ids)} in the ids beside it."
        )
    rows = [row for row, name in enumerate(ids) if name in wanted]
    return image[rows], seed[rows], inverted[rows]


def read_similarity(path: Path | str, images: int) -> np.ndarray:
    """(images, images) float64 from an .npz with one array, or any file of a matrix that `load_judgements` reads."""
    path = Path(path)
    if path.suffix != ".npz":
        return load_judgements(path, format="matrix", images=images, kind="similarity").similarity
    arrays = list(read_npz(path).values())
    if len(arrays) != 1 or arrays[0].shape != (images, images):
        raise ValueError(
            f"{path}: expected one array of similarities ({images}, {images}), in the order of the ids, found "
            f"{', '.join(str(one.shape) for one in arrays) or 'none'}."
        )
    return as_similarity(arrays[0], "similarity", str(path))


def drawn_triples(similarity: np.ndarray, first: Sequence[int], count: int, seed: int) -> np.ndarray:
    """At most `count` hard triples (t, 3) int64, ascending, each once: those of the images `first`, in random order.

    similarity: (n, n); a triple's other two are the images of all that are most similar to it, see `hard_triples`.
    """
    generator = np.random.default_rng(seed)
    triples = np.sort(hard_triples(similarity, generator), axis=1).tolist()
    found = dict.fromkeys(tuple(triples[one]) for one in generator.permutation(first).tolist())
    return np.array(list(found)[:count], dtype=np.int64)


def plan_matching(
    inverted: Inverted,
    *,
    kind: Literal["two", "match"],
    questions: int,
    triples: np.ndarray | None,
    trials: int,
    catch: int,
    practice: int,
    seed: int,
) -> InvertedSurvey:
    """Choose the questions, number the pictures and draw checks and practice; `id` is still empty.

    questions: at most so many IRIs (two) or triples of targets (match) in all, drawn at random. triples: (t, 3) rows of
    targets to ask about instead of random ones. trials: questions of each participant, at most all there
    are; of `match` so many IRIs, in whole triples of six. catch: how many of a participant's pairs or triples have a
    check: the picture asked about is one of the options. practice: questions before these.
    """
    generator = np.random.default_rng(seed)
    n, k = inverted.seed.shape[:2]
    if kind == "two":
        drawn = generator.permutation(n * k)[:questions].tolist()
        asked = [([Shown(one // k, one % k, "inverted")],
                  [Shown(one // k, -1, "target"), Shown(one // k, one % k, "seed")]) for one in drawn]  # fmt: skip
    else:
        asked = _rows_of(inverted, questions, triples, seed, generator)
    each = len(asked[0][0])
    own = min(trials // each, len(asked))
    if not own:
        raise ValueError(
            f"survey.trials: expected at least {each}, the pictures of one triple, found {trials}."
        )
    if not 0 <= catch <= own:
        raise ValueError(
            f"survey.catch: expected 0..{own}, at most one for each {'pair' if kind == 'two' else 'triple'} that a "
            f"participant is asked about, found {catch}; lower it, or ask more (survey.trials, survey.triplets)."
        )
    shown = list(dict.fromkeys(one for rows, options in asked for one in (*rows, *options)))
    copied = [options[generator.integers(len(options))] for _, options in asked] if catch else []
    number = generator.permutation(len(shown) + len(copied)).tolist()
    numbers = dict(zip(shown, number))
    pictures: list[Shown] = [shown[0]] * len(number)
    for place, one in zip(number, [*shown, *copied]):
        pictures[place] = one
    checks = number[len(shown) :] or [-1] * len(asked)
    blocks = [
        Block(
            tuple(sorted(map(numbers.__getitem__, rows))),
            tuple(sorted(map(numbers.__getitem__, options))),
            check,
        )
        for (rows, options), check in zip(asked, checks)
    ]
    first = generator.permutation(len(blocks))
    tried = [blocks[first[turn % len(blocks)]] for turn in range(practice)]
    return InvertedSurvey(
        id="", kind=kind, source=inverted.source, objects=inverted.ids, pictures=tuple(pictures), blocks=tuple(blocks),
        trials=own, catch=catch, practice=tuple((int(generator.choice(one.rows)), *one.options) for one in tried),
    )  # fmt: skip


def _rows_of(
    inverted: Inverted, count: int, triples: np.ndarray | None, seed: int, generator: np.random.Generator
) -> list[tuple[list[Shown], list[Shown]]]:
    """Of each triple of targets, two IRIs of each and the targets."""
    n, k = inverted.seed.shape[:2]
    if n < 3 or k < EACH:
        raise ValueError(
            f"survey.kind=match: expected at least 3 images with {EACH} IRIs each, found {n} with {k}; invert more "
            "images, or from more seeds."
        )
    barred = [name for name in inverted.ids if "|" in name]
    if barred:
        raise ValueError(
            f"survey.kind=match: expected ids without '|', found {barred[0]!r}; rename the image."
        )
    if triples is None:
        triples = random_triplets(n, min(count, math.comb(n, 3)), seed=seed)
    return [
        (
            [
                Shown(one, draw, "inverted")
                for one in row
                for draw in generator.permutation(k)[:EACH].tolist()
            ],
            [Shown(one, -1, "target") for one in row],
        )
        for row in triples.tolist()
    ]
