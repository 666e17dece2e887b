"""Artifacts of the stage `attack` as the family reads them: what is kept of each image, and maps beside people's."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from alignet.evaluate.families.attack_pictures import Pictures
from alignet.evaluate.families.material import Material

if TYPE_CHECKING:
    from alignet.data.importance_maps import ImportanceMaps
    from alignet.evaluate.attack import Norms

SMALL = 64  # pixels a side at which the centre bias is taken
_COUNTED = ("tried", "broken", "broken8", "blind", "no_gradient")  # false of images that are not in a list
_KEPT = ("label", "top1", "to", "tried", "broken", "broken8", "blind", "no_gradient")


@dataclass
class Attack:
    """One attack of n images, image by image; NaN where there is no value.

    columns: of the artifact label, top1, to, tried, broken, broken8, blind and no_gradient; norm, norm8, rms and the
    alignment by each reduction. seen: people's maps as the network saw them, small (n of them or none), in the order of
    `mapped`, rows of the images that have one. listed: whether only the images of a list count.
    """

    ids: list[str]
    norm: str = "l2"
    high: float = 0.0
    shape: tuple[int, ...] = ()  # (3, H, W)
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    seen: list[np.ndarray] = field(default_factory=list)
    mapped: list[int] = field(default_factory=list)
    listed: bool = False

    def add(self, **columns: np.ndarray) -> None:
        """Those of further images."""
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values)

    def __getitem__(self, name: str) -> np.ndarray:
        return np.concatenate(self.parts[name])

    def only(self, common: AbstractSet[str] | None) -> Attack:
        """The same of which only images of a list count: others are as if they had not been tried. None: all count."""
        from alignet.evaluate.attack import REDUCTIONS

        if common is None:
            return self
        counted = np.array([one in common for one in self.ids])
        columns = {name: self[name] for name in self.parts}
        columns |= {name: columns[name] & counted for name in _COUNTED}
        columns |= {how: np.where(counted, columns[how], np.nan) for how in REDUCTIONS}
        return replace(self, parts={name: [values] for name, values in columns.items()}, listed=True)

    def norms(self, ending: str = "") -> Norms:
        """Of the images that were tried; ending "8": in 8 bit."""
        from alignet.evaluate.attack import censored

        tried = self["tried"]
        return censored(self[f"norm{ending}"][tried], self[f"broken{ending}"][tried], self.high)

    def everywhere(self, values: np.ndarray) -> np.ndarray:
        """Values of the tried images as (n,), NaN elsewhere."""
        found = np.full(len(self.ids), np.nan)
        found[self["tried"]] = values
        return found


def attacked_images(
    material: Material, node: str, people: ImportanceMaps | None, common: AbstractSet[str] | None = None
) -> tuple[list[str], np.ndarray]:
    """The images of an attack, and which of them can be shown (n,) bool: broken, with a map where any has one.

    common: the images that count, or all. ValueError where none of these was tried.
    """
    from alignet.data.importance_maps import maps_for

    ids: list[str] = []
    broken: list[np.ndarray] = []
    tried = known = 0
    for path, names in material.shards(node, "attack"):
        with np.load(path, allow_pickle=False) as found:
            counted = np.array([common is None or one in common for one in names])
            broken.append(found["broken"] & counted)
            tried += int((found["tried"] & counted).sum())
            known += int((found["label"] >= 0).sum())
        ids += names
    if not tried and common is not None:
        raise ValueError(
            f"{material.dataset}: expected images that the network names right among the {len(common):,} listed in "
            f"{material.files['common']}, found none of the {len(ids):,} of {node}; list others, or leave the list out."
        )
    if not tried:
        raise ValueError(
            f"{material.dataset}: expected images that the network names right, found 0 of {known:,} with a known "
            f"class, of {len(ids):,} in all; check classes' numbering (attack.column), or attack whatever it answers "
            "with attack.logit=top1."
        )
    shown = np.concatenate(broken)
    if people is not None:
        having = shown & (maps_for(people, ids)[0] >= 0)
        shown = having if having.any() else shown
    return ids, shown


def read_attack(
    material: Material, node: str, people: ImportanceMaps | None, reduction: str, pictures: Pictures | None
) -> Attack:
    """One attack from its shards. pictures: of the first attack, which also keeps people's maps for the centre bias."""
    from alignet.attacks.stored import as_float64, exact_norms
    from alignet.data.importance_maps import maps_for
    from alignet.evaluate.attack import REDUCTIONS, magnitude, root_mean_square
    from alignet.evaluate.where import seen, spearman

    files = material.shards(node, "attack")
    made = Attack([name for _, names in files for name in names])
    rows_of = maps_for(people, made.ids)[0] if people is not None else np.full(len(made.ids), -1)
    start = 0
    for path, names in files:
        with np.load(path, allow_pickle=False) as found:
            shard = {name: found[name] for name in found.files}
        if len(names) != len(shard["image"]):
            raise ValueError(
                f"{path}: expected as many ids as images, found {len(names)} and {len(shard['image'])}; compute the "
                "attacks again."
            )
        image, attacked = as_float64(shard["image"]), as_float64(shard["attacked"])
        made.norm, made.high, made.shape = str(shard["norm"]), float(shard["high"]), image.shape[1:]
        lengths = exact_norms(image, attacked, made.norm)
        euclidean = lengths if made.norm == "l2" else exact_norms(image, attacked, "l2")
        made.add(
            norm=lengths, norm8=shard["length8"],
            rms=root_mean_square(euclidean, made.shape), **{name: shard[name] for name in _KEPT},
        )  # fmt: skip
        humans: dict[int, np.ndarray] = {}
        for row in range(len(names)):
            if people is not None and rows_of[start + row] >= 0:
                humans[row] = seen(people.maps[rows_of[start + row]], shard["box"][row], image.shape[2:])
                if pictures is not None:
                    made.seen.append(_small(humans[row]))
                    made.mapped.append(start + row)
        alignment = {how: np.full(len(names), np.nan) for how in REDUCTIONS}
        for row in np.flatnonzero(shard["broken"]).tolist():
            where = {how: magnitude(image[[row]], attacked[[row]], how) for how in REDUCTIONS}
            if row in humans:
                theirs = humans[row].reshape(1, -1)
                for how, one in where.items():
                    alignment[how][row] = spearman(one.reshape(1, -1), theirs)[0]
            if pictures is not None:
                pictures.add(
                    names[row], image[row], attacked[row], humans.get(row), where[reduction][0],
                    float(lengths[row]), float(alignment[reduction][row]),
                )  # fmt: skip
        made.add(**alignment)
        start += len(names)
    return made


def _small(human: np.ndarray) -> np.ndarray:
    """A map (H, W) at SMALL x SMALL where it is larger, float32; resampled, so that ties stay ties."""
    from alignet.evaluate.where import WHOLE, seen

    size = min(SMALL, human.shape[0]), min(SMALL, human.shape[1])
    return (human if size == human.shape else seen(human, WHOLE, size)).astype(np.float32)
