"""ImageNet and what is made of it: classes in the ids of images, corruptions in folders, the labels of ReaL.

<wnid>/<name>.JPEG                            ImageNet (validation images once they are sorted), A, R
<class number>/<name>.jpeg                    V2, whose folders count from 0 in the order of the sorted wnids
<corruption>/<severity>/<wnid>/<name>.JPEG    C; folders above the corruption are ignored
real.json                                     ReaL: for each validation image, in the order of its number, a list of
                                              class numbers, which may be empty
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignet.data.text import read_text
from alignet.data.wordnet import wordnet_id

CLASSES = 1000
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})\b")


def wnids(ids: Sequence[str], where: str) -> np.ndarray:
    """The WordNet id of the folder that each image lies in, or else that its name starts with: text (n,)."""
    found = []
    for name in ids:
        wnid = wordnet_id(name)
        if not wnid:
            raise ValueError(
                f"{where}: expected images in folders named by WordNet ids such as n01440764, found {name}; sort them "
                "into the folders of their classes."
            )
        found.append(wnid)
    return np.array(found)


def class_numbers(ids: Sequence[str], classes: Sequence[str], where: str) -> np.ndarray:
    """The row in the sorted wnids `classes` of each image, whose folder is a wnid or a class number: int64 (n,)."""
    parents = [name.rpartition("/")[0].rpartition("/")[2] for name in ids]
    if all(parent.isdecimal() for parent in parents):
        numbers = np.array([int(parent) for parent in parents], dtype=np.int64)
        if numbers.max() >= len(classes):
            raise ValueError(
                f"{where}: expected folders named 0..{len(classes) - 1}, as there are classes in training, found "
                f"{numbers.max()}; train on all classes, or name the folders by WordNet ids."
            )
        return numbers
    index = {wnid: number for number, wnid in enumerate(classes)}
    found = wnids(ids, where)
    strange = sorted(set(found.tolist()) - index.keys())
    if strange:
        raise ValueError(
            f"{where}: expected classes of the training images, found {len(strange)} others, the first {strange[0]}; "
            "train on their classes too, or take them out."
        )
    return np.array([index[wnid] for wnid in found], dtype=np.int64)


@dataclass(frozen=True)
class Corrupted:
    """Where the images of ImageNet-C come from, each (n,): text, int64, and text that images of one original share."""

    corruption: np.ndarray
    severity: np.ndarray
    original: np.ndarray


def corruptions(ids: Sequence[str], where: str) -> Corrupted:
    """Read `<corruption>/<severity>/<wnid>/<name>` off the ids; ValueError for the first that is not so."""
    parts = [name.split("/")[-4:] for name in ids]
    for name, part in zip(ids, parts, strict=True):
        if len(part) < 4 or not part[1].isdecimal():
            raise ValueError(
                f"{where}: expected images as <corruption>/<severity>/<wnid>/<name>, found {name}; name the folder "
                "above the corruptions."
            )
    return Corrupted(
        np.array([part[0] for part in parts]),
        np.array([int(part[1]) for part in parts], dtype=np.int64),
        np.array([f"{part[2]}/{part[3]}" for part in parts]),
    )


def load_real(path: Path, classes: int) -> list[list[int]]:
    """The labels of ReaL: a list of class numbers for each validation image. ValueError for anything else."""
    text = read_text(path, "ReaL's real.json")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, found a damaged file ({error}); fetch it again.") from None
    if not isinstance(found, list) or not found:
        raise ValueError(
            f"{path}: expected a list of lists of class numbers, found {str(found)[:60]}; fetch it."
        )
    for row, labels in enumerate(found):
        whole = isinstance(labels, list) and all(type(label) is int for label in labels)
        if not whole or any(not 0 <= label < classes for label in labels):
            raise ValueError(
                f"{path}: expected lists of class numbers in 0..{classes - 1}, found {str(labels)[:60]} for image "
                f"{row + 1}; fetch it again, or train on all classes."
            )
    return found


def validation_rows(ids: Sequence[str], images: int, where: str) -> np.ndarray:
    """The row in ReaL's list of each validation image, by the number in its name: int64 (n,)."""
    rows = []
    for name in ids:
        match = _VALIDATION.search(name.rpartition("/")[2])
        if match is None or not 1 <= int(match[1]) <= images:
            raise ValueError(
                f"{where}: expected names such as ILSVRC2012_val_00000001.JPEG with a number up to {images:,}, as "
                f"ReaL has, found {name}; keep the official names."
            )
        rows.append(int(match[1]) - 1)
    return np.array(rows, dtype=np.int64)
