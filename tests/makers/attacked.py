"""Artifacts of the stage `attack` with planted perturbations: of known norms, where people look or elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignet.attacks.stored import exact_norms
from alignet.evaluate.families.material import Material

SIDE = 16
OPTIONS = {"reduction": "mean", "key": "", "eps": [0.5, 1.0], "photographs": True}


def ids_of(count: int) -> list[str]:
    """Names of images."""
    return [f"n0/img{row:02}.jpg" for row in range(count)]


def maps_of(count: int, seed: int = 0) -> np.ndarray:
    """Smooth maps (count, SIDE, SIDE) in (0, 1], each with a peak of its own."""
    places = np.random.default_rng(seed).uniform(3, SIDE - 3, (count, 2))
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((y - places[:, :1, None]) ** 2 + (x - places[:, 1:, None]) ** 2) / 40)


def write_maps(path: Path, maps: np.ndarray) -> Path:
    """The maps as a file under the names of ids_of."""
    np.savez(path, ids=np.array(ids_of(len(maps))), clicks=maps.astype(np.float32))
    return path


def write_attack(
    folder: Path,
    where: np.ndarray,
    lengths: np.ndarray,
    *,
    norm: str = "l2",
    high: float = 2.0,
    right: np.ndarray | None = None,
    label: np.ndarray | None = None,
    blind: int = 0,
    no_gradient: int = 0,
    rows: np.ndarray | None = None,
    shard: int = 7,
) -> Path:
    """Perturbations proportional to `where` (n, SIDE, SIDE), of the norms `lengths` (n,); unbroken where above high.

    right: (n,) bool, else all; those that are not are not tried. label: (n,) int64, else the row modulo 5. blind and
    no_gradient: so many of the tried show that sign. rows: the images that are attacked, else all.
    """
    n = len(where)
    folder.mkdir(parents=True)
    rows = np.arange(n) if rows is None else rows
    label = np.arange(n) % 5 if label is None else label
    right = np.ones(n, bool) if right is None else right
    top1 = np.where(right, np.arange(n) % 5, 9)
    broken = right & (lengths <= high)
    image = np.random.default_rng(1).integers(100, 150, (n, 3, SIDE, SIDE)).astype(np.uint8)
    change = np.repeat(where[:, None], 3, 1)
    size = np.sqrt((change**2).sum((1, 2, 3))) if norm == "l2" else np.abs(change).max((1, 2, 3))
    change = change * (np.where(broken, lengths, 0) / size)[:, None, None, None]
    attacked = image / 255 + change
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    levels = attacked * 255 + np.where(broken, 2, 0)[:, None, None, None]
    tried = right.copy()
    signs = [np.cumsum(tried) <= count for count in (blind, no_gradient)]
    arrays = {
        "image": image, "attacked": attacked.astype(np.float32),
        "attacked8": np.round(levels).clip(0, 255).astype(np.uint8),
        "label": label, "top1": top1, "to": np.where(broken, 7, top1), "to8": np.where(broken, 7, top1), "tried": tried,
        "broken": broken, "broken8": broken, "blind": tried & signs[0], "no_gradient": tried & signs[1],
        "box": np.tile([0.0, 0, 1, 1], (n, 1)),
    }  # fmt: skip
    arrays |= {
        f"length{end}": exact_norms(image, arrays[f"attacked{end}"], norm) for end in ("", "8")
    }  # fmt: skip
    for number, start in enumerate(range(0, len(rows), shard)):
        part = rows[start : start + shard]
        np.savez(
            folder / f"attack-{number:05}.npz", norm=np.array(norm), high=np.array(high),
            **{name: values[part] for name, values in arrays.items()},
        )  # fmt: skip
        names = [ids_of(n)[row] for row in part]
        (folder / f"ids-{number:05}.txt").write_text("".join(f"{one}\n" for one in names), encoding="utf-8")
    return folder


def material(nodes: dict[str, Path], maps: Path | None = None, bootstrap: int = 50) -> Material:
    """What the family is given."""

    def none(*_: object):
        raise NotImplementedError("the family `attack` reads neither features nor triplets nor pictures")

    files = {} if maps is None else {"maps": maps}
    return Material("attacks", "original", {}, files, nodes, {}, none, none, none, None, bootstrap, 1)
