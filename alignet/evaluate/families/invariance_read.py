"""Artifacts of the stages `invert` and `perceptual` as the family reads them: errors of IRIs, and their distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignet.data.npy import open_member, open_npz, read_arrays
from alignet.evaluate.families.material import Material, Options

if TYPE_CHECKING:
    from alignet.evaluate.families.invariance_pictures import Pictures
    from alignet.evaluate.invariance import Distances

MAIN = "invert"  # the node whose scores have no name before them
PERCEPTUAL = "perceptual"
RESERVED = ("people", "matched", "hard", "agree", "rho")  # what no distance may be called, or begin with


@dataclass(frozen=True)
class Inverted:
    """IRIs of n targets, k of each: relative errors (n, k) float64 of what is stored, and how they were made."""

    ids: list[str]
    error: np.ndarray
    error8: np.ndarray
    begin: np.ndarray
    steps: np.ndarray
    regulariser: str
    distance: str  # that an adversarial regulariser optimised, or ""
    weight: float
    layer: str
    shape: tuple[int, ...]  # (3, H, W)

    @property
    def draws(self) -> int:
        """IRIs of each target."""
        return self.error.shape[1]


@dataclass(frozen=True)
class Method:
    """One method's IRIs with all their distances, by name."""

    inverted: Inverted
    distances: Mapping[str, Distances]

    @property
    def others(self) -> list[str]:
        """Names of the distances that were not optimised."""
        return [name for name, one in self.distances.items() if not one.optimised]


@dataclass
class _Parts:
    """Columns of the shards that were read so far."""

    columns: dict[str, list[np.ndarray]] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)


def prefixes(material: Material) -> dict[str, str]:
    """Name before a method's scores -> its node: "" -> invert, `adversarial_` -> invert_adversarial.

    ValueError for nodes of other names, or an inversion without its distances.
    """
    found = {}
    for node in material.nodes:
        stage, _, more = node.partition("_")
        if stage not in (MAIN, PERCEPTUAL) or (node != stage and not more):
            raise ValueError(
                f"{material.dataset}: expected nodes `{MAIN}` and `{PERCEPTUAL}`, or `{MAIN}_<name>` and "
                f"`{PERCEPTUAL}_<name>` of other methods, found `{node}`; name them so."
            )
        if stage == MAIN:
            found[f"{more}_" if more else ""] = node
    pairs = {node.partition("_")[2] for node in material.nodes}
    lacking = [
        f"{stage}{f'_{more}' if more else ''}"
        for more in ("", *sorted(pairs - {""}))
        for stage in (MAIN, PERCEPTUAL)
        if f"{stage}{f'_{more}' if more else ''}" not in material.nodes
    ]
    if lacking:
        raise ValueError(
            f"{material.dataset}: expected a node of the stage {PERCEPTUAL} beside each of the stage {MAIN}, found no "
            f"`{lacking[0]}`; add it."
        )
    return dict(sorted(found.items(), key=lambda pair: pair[0] != ""))


def read_method(
    material: Material, prefix: str, pictures: Pictures | None, names: Sequence[str] = ()
) -> Method:
    """A method's IRIs and distances from its two artifacts. pictures: that are kept. names: of distances, or all."""
    node = MAIN if not prefix else f"{MAIN}_{prefix[:-1]}"
    inverted = read_inverted(material, node, pictures)
    return Method(inverted, _read_distances(material, node.replace(MAIN, PERCEPTUAL, 1), inverted, names))


def ids_of(material: Material, node: str) -> list[str]:
    """The images of an artifact of the stage invert."""
    return [name for _, names in material.shards(node, "invert") for name in names]


def read_inverted(material: Material, node: str, pictures: Pictures | None) -> Inverted:
    """An artifact of the stage invert; ValueError where shards are missing or damaged, or do not fit each other."""
    parts, about = _Parts(), {}
    shape: tuple[int, ...] = ()
    for path, names in material.shards(node, "invert"):
        shard, shape = _shard(path, len(names))
        for name in _COLUMNS:
            parts.columns.setdefault(name, []).append(shard[name])
        about = {name: shard[name] for name in _ABOUT}
        if pictures is not None and set(names) & set(pictures.drawn):
            pictures.add(node, names, read_arrays(path, ("image", "seed", "inverted8", "error8")))
        parts.ids += names
    draws = {one.shape[1] for one in parts.columns["error"]}
    if len(draws) > 1:
        raise ValueError(
            f"{material.nodes[node]}: expected one number of draws in all shards, found {sorted(draws)}; invert the "
            "images again."
        )
    values = {name: np.concatenate(one) for name, one in parts.columns.items()}
    for name in ("error", "error8", "begin"):
        bad = int((~np.isfinite(values[name]) | (values[name] < 0)).sum())
        if bad or values[name].ndim != 2:
            raise ValueError(
                f"{material.nodes[node]}: expected finite relative errors (n, k) of at least 0, found {bad:,} others "
                f"of {values[name].size:,} in {name}; invert the images again."
            )
    return Inverted(
        parts.ids, values["error"].astype(np.float64), values["error8"].astype(np.float64),
        values["begin"].astype(np.float64), values["steps"], str(about["regulariser"]), str(about["distance"]),
        float(about["weight"]), str(about["layer"]), tuple(shape),
    )  # fmt: skip


_COLUMNS = ("error", "error8", "begin", "steps")
_ABOUT = ("regulariser", "distance", "weight", "layer")


def _shard(path: Path, images: int) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Columns (b, k) of a shard of so many images and what it says of itself; and the shape of an image."""
    found = read_arrays(path, (*_COLUMNS, *_ABOUT))
    with open_npz(path) as archive, open_member(path, archive, "image.npy") as member:
        shape = member.shape
    wanted = found["error"].shape
    whole = all(found[name].shape == wanted and found[name].dtype.kind in "iuf" for name in _COLUMNS)
    kinds = {"weight": "iuf"}
    told = all(found[name].shape == () and found[name].dtype.kind in kinds.get(name, "U") for name in _ABOUT)
    if not whole or not told or len(wanted) != 2 or len(shape) != 4 or wanted[0] != shape[0]:
        shown = ", ".join(f"{name} {one.dtype} {one.shape}" for name, one in found.items())
        raise ValueError(
            f"{path}: expected {', '.join(_COLUMNS)} (b, k) of images (b, 3, H, W), and single {', '.join(_ABOUT)}, "
            f"found {shown}, images {shape}; invert the images again."
        )
    if wanted[0] != images:
        raise ValueError(
            f"{path}: expected as many ids as images, found {images} and {wanted[0]}; invert the images again."
        )
    return found, shape[1:]


def read_distances(path: Path) -> Distances:
    """The distances of one file of the stage perceptual; ValueError where they do not fit each other or are damaged."""
    from alignet.evaluate.invariance import checked_distances

    one = read_arrays(path, ("to_target", "to_seed", "to_targets", "optimised"))
    numbers = all(one[name].dtype.kind == "f" for name in ("to_target", "to_seed", "to_targets"))
    if not numbers or one["optimised"].shape or one["optimised"].dtype.kind != "b":
        shown = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in one.items())
        raise ValueError(
            f"{path}: expected distances as floating-point numbers and one truth value `optimised`, found {shown}; "
            "compute them again."
        )
    return checked_distances(
        one["to_target"], one["to_seed"], one["to_targets"], bool(one["optimised"]), str(path)
    )


def _distance_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """<distance>.npz of these names, below folders of their own where they have some; without names all, or one that
    is not there."""
    if not names:
        return sorted(folder.glob("*.npz")) or [folder / "<distance>.npz"]
    own = [folder / name / f"{name}.npz" for name in names]
    return [path if path.parent.is_dir() else folder / path.name for path in own]


def _read_distances(
    material: Material, node: str, inverted: Inverted, names: Sequence[str]
) -> dict[str, Distances]:
    folder, found = material.nodes[node], {}
    for path in _distance_files(folder, names):
        name, listing = path.stem, path.with_name("ids.txt")
        if not path.is_file() or not listing.is_file():
            raise ValueError(
                f"{material.dataset}: expected ids.txt and {path.name} in {path.parent}, found "
                f"{'no ids.txt' if path.is_file() else f'no {path.name}'}; name a node of the stage {PERCEPTUAL} as "
                f"`{node}`, with these distances (perceptual.use)."
            )
        ids = listing.read_text(encoding="utf-8").splitlines()
        if ids != inverted.ids:
            raise ValueError(
                f"{material.dataset}: expected the images of `{node.replace(PERCEPTUAL, MAIN, 1)}` in `{node}`, in "
                f"their order, found {len(ids):,} images where that has {len(inverted.ids):,}; name nodes of one role."
            )
        if name.partition("_")[0] in RESERVED:
            raise ValueError(
                f"{material.dataset}: expected a distance by a name that does not begin with {', '.join(RESERVED)}, "
                f"found {name}; call it otherwise in perceptual.distances."
            )
        found[name] = read_distances(path)
        if found[name].to_target.shape != inverted.error.shape:
            raise ValueError(
                f"{path}: expected distances of {inverted.error.shape} IRIs, found {found[name].to_target.shape}; "
                "compute them again."
            )
    return found


# ---- similarities of people


def read_similarity(
    files: Mapping[str, Path], options: Options, ids: Sequence[str], dataset: str
) -> tuple[np.ndarray, np.ndarray, str]:
    """People's similarities (m, m), the target (m,) that each row is (-1 for none), and a note.

    files: of the evaluation, by their names. ids: of the targets. dataset: the evaluation's name.
    Of `similarity`, rows are the images in the order of the table `order` (option order_column), or these images sorted
    by name. With a table `labels` and the option mean_over, rows are values of that column instead, in the order of the
    table `order`: two images are as similar as their values are, and most of all where the value is the same.
    """
    from alignet.data.judgements import load_judgements
    from alignet.data.tables import column_for, read_column
    from alignet.evaluate.families.similarity import judged_images

    if "order" in files:
        names, note = read_column(files["order"], str(options["order_column"])), ""
    else:
        names, note = judged_images(list(ids), options, "test", dataset)
    judged = load_judgements(
        files["similarity"], format=options.get("format", "matrix"), images=len(names),
        part=options.get("set"), kind=options.get("kind"), key=options.get("key"),
    )  # fmt: skip
    note = "; ".join(text for text in (judged.note, note) if text)
    place = {name: row for row, name in enumerate(ids)}
    if "labels" not in files:
        rows = np.array([place.get(name, -1) for name in names], dtype=np.int64)
        kept = np.flatnonzero(rows >= 0)
        return judged.similarity[np.ix_(kept, kept)], rows[kept], note
    values = column_for(files["labels"], list(ids), str(options["mean_over"]))
    row_of = {name: row for row, name in enumerate(names)}
    labels = np.array([row_of.get(one, -1) for one in values], dtype=np.int64)
    kept = np.flatnonzero(labels >= 0)
    matrix = judged.similarity[np.ix_(labels[kept], labels[kept])]
    same = labels[kept][:, None] == labels[kept][None, :]
    return np.where(same, judged.similarity.max() + 1, matrix), kept, note
