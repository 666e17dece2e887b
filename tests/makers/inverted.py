"""Artifacts of the stages `invert` and `perceptual` with planted images: IRIs that keep everything, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from alignet.evaluate.families.material import Material

SIDE = 16
OPTIONS = {"matched": 0.05, "photographs": True}


def ids_of(count: int) -> list[str]:
    """Names of images."""
    return [f"n0/img{row:02}.jpg" for row in range(count)]


def images_of(count: int, seed: int = 0) -> np.ndarray:
    """Targets (count, 3, SIDE, SIDE) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE)).astype(np.uint8)


def seeds_of(count: int, draws: int, seed: int = 9) -> np.ndarray:
    """Seeds (count, draws, 3, SIDE, SIDE) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, draws, 3, SIDE, SIDE)).astype(np.uint8)


def mixed(images: np.ndarray, seeds: np.ndarray, share: float) -> np.ndarray:
    """IRIs that are the target to a share and the seed for the rest: 1 keeps everything, 0 nothing; float32."""
    return (share * images[:, None] / 255 + (1 - share) * seeds / 255).astype(np.float32)


def write_inverted(
    folder: Path, images: np.ndarray, seeds: np.ndarray, inverted: np.ndarray, *, error: np.ndarray | None = None,
    regulariser: str = "free", distance: str = "", weight: float = 0.0, shard: int = 5, names: list[str] | None = None,
) -> Path:  # fmt: skip
    """An artifact of the stage invert. error: (n, k), else .01. names: of the images, else ids_of."""
    n, k = inverted.shape[:2]
    folder.mkdir(parents=True)
    error = np.full((n, k), 0.01) if error is None else error
    names = ids_of(n) if names is None else names
    arrays = {
        "image": images, "seed": seeds, "inverted": inverted, "inverted8": np.round(255 * inverted).astype(np.uint8),
        "error": error, "error8": 2 * error, "begin": np.ones((n, k)), "steps": np.full((n, k), 30),
        "label": np.arange(n) % 5, "box": np.tile([0.0, 0, 1, 1], (n, 1)),
    }  # fmt: skip
    single = {"layer": "", "regulariser": regulariser, "distance": distance, "weight": weight}
    for number, start in enumerate(range(0, n, shard)):
        part = {name: values[start : start + shard] for name, values in arrays.items()}
        np.savez(
            folder / f"invert-{number:05}.npz",
            **part,
            **{name: np.array(one) for name, one in single.items()},
        )
        (folder / f"ids-{number:05}.txt").write_text(
            "".join(f"{one}\n" for one in names[start : start + shard])
        )
    return folder


def measured(
    images: np.ndarray, seeds: np.ndarray, inverted: np.ndarray, channel: int | None = None
) -> dict[str, np.ndarray]:
    """Root mean square differences of pixels, or of one channel, as the stage perceptual stores them."""
    pick = slice(None) if channel is None else slice(channel, channel + 1)
    target, seed, own = (
        images[:, pick] / 255,
        seeds[:, :, pick] / 255,
        inverted[:, :, pick].astype(np.float64),
    )

    def far(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a - b) ** 2).mean((-3, -2, -1))).astype(np.float32)

    return {
        "to_target": far(own, target[:, None]), "to_seed": far(own, seed),
        "to_targets": far(own[:, :, None], target[None, None]), "between_targets": far(target[:, None], target[None]),
    }  # fmt: skip


def write_perceptual(
    folder: Path, distances: Mapping[str, Mapping[str, np.ndarray]], *, optimised: str = "",
    names: list[str] | None = None,
) -> Path:  # fmt: skip
    """An artifact of the stage perceptual. optimised: the name of the distance that was."""
    folder.mkdir(parents=True)
    for name, one in distances.items():
        np.savez(folder / f"{name}.npz", optimised=np.array(name == optimised), **one)
    count = len(next(iter(distances.values()))["to_target"])
    names = ids_of(count) if names is None else names
    (folder / "ids.txt").write_text("".join(f"{one}\n" for one in names))
    return folder


def planted(
    folder: Path, count: int, share: float, *, draws: int = 2, error: np.ndarray | None = None, name: str = "",
    optimised: str = "",
) -> dict[str, Path]:  # fmt: skip
    """The two nodes of a network whose IRIs keep a share of their target, measured by `pixels` and by `red`."""
    images, seeds = images_of(count), seeds_of(count, draws)
    inverted = mixed(images, seeds, share)
    every = {"pixels": measured(images, seeds, inverted), "red": measured(images, seeds, inverted, 0)}
    ending = f"_{name}" if name else ""
    return {
        f"invert{ending}": write_inverted(
            folder / f"invert{ending}", images, seeds, inverted, error=error, regulariser=name or "free",
            distance=optimised, weight=1.0 if optimised else 0.0,
        ),
        f"perceptual{ending}": write_perceptual(folder / f"perceptual{ending}", every, optimised=optimised),
    }  # fmt: skip


def material(
    nodes: dict[str, Path],
    files: dict[str, Path] | None = None,
    *,
    setting: str = "original",
    bootstrap: int = 50,
) -> Material:
    """What the family is given."""

    def none(*_: object):
        raise NotImplementedError("the family `invariance` reads neither features nor triplets nor pictures")

    return Material("iris", setting, {}, files or {}, nodes, {}, none, none, none, None, bootstrap, 1)


def write_choices(path: Path, rows: list[dict[str, object]]) -> Path:
    """choices.csv as `survey import` writes it; columns that a row lacks have defaults."""
    columns = (
        "survey", "participant", "trial", "kind", "image", "draw", "options", "choice", "right", "rt_ms", "used"
    )  # fmt: skip
    usual = {"survey": "s", "participant": "p1", "draw": 0, "options": "", "rt_ms": 900, "used": "yes"}
    lines = [",".join(columns)]
    for trial, row in enumerate(rows):
        lines.append(",".join(str((usual | {"trial": trial} | row)[name]) for name in columns))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
