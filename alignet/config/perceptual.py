"""Perceptual distances: conf's section `perceptual`.

Read by the stage of that name, and by `invert` where a method pushes one up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least

TRUNKS = {"lpips": ("alex", "squeeze", "vgg"), "stlpips": ("alex", "vgg")}


@dataclass(frozen=True)
class PerceptualDistance:
    """One distance of two images."""

    # root mean square difference | layers of a model | LPIPS and shift-tolerant LPIPS, calibrated on people
    kind: Literal["pixels", "layers", "lpips", "stlpips"]
    model: str = ""  # layers: teacher, student, one of `baselines`, or a role that is trained
    layers: tuple[str, ...] = ()  # of that model, by the names of its modules; empty: up to 5, evenly spaced
    net: Literal["alex", "vgg", "squeeze", ""] = ""  # lpips, stlpips
    trunk: str = ""  # lpips: set of kind weights with torchvision's network, which the package lacks

    def __post_init__(self) -> None:
        where, known = "perceptual.distances", TRUNKS.get(self.kind, ())
        if known and self.net not in known:
            raise ValueError(
                f"{where}.net: expected one of {', '.join(known)} with kind={self.kind}, found {self.net!r}"
            )
        belongs = {"model": ("layers",), "layers": ("layers",), "trunk": ("lpips",), "net": tuple(TRUNKS)}
        for key, kinds in belongs.items():
            value = getattr(self, key)
            if value and self.kind not in kinds:
                raise ValueError(
                    f"{where}.{key}: expected none with kind={self.kind}, found {value!r}; take it out, or set "
                    f"kind={' or '.join(kinds)}"
                )
        if self.kind == "layers" and not self.model:
            raise ValueError(
                f"{where}.model: expected a model with kind=layers, found none; name teacher, for example"
            )
        if self.kind == "lpips" and not self.trunk:
            raise ValueError(
                f"{where}.trunk: expected a set of kind weights with the network below the linear layers, which the "
                f"package lpips does not contain, found none; add one to data.sets, or take kind=stlpips, whose "
                f"package does"
            )


@dataclass(frozen=True)
class PerceptualSection:
    """By which distances images are compared."""

    distances: Mapping[str, PerceptualDistance]
    use: tuple[str, ...]  # of these; pixels is always there; empty: all
    batch: int  # images of one forward pass

    def __post_init__(self) -> None:
        at_least("perceptual", 1, batch=self.batch)
        for name in self.distances:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
                raise ValueError(
                    f"perceptual.distances: expected names of at most 64 letters, digits, - and _, which name files, "
                    f"found {name!r}; rename it"
                )
        if getattr(self.distances.get("pixels"), "kind", "") != "pixels":
            raise ValueError(
                "perceptual.distances.pixels: expected kind=pixels, which needs no network, found none or another; "
                "put it back"
            )
        for name in self.use:
            self.named(name, "perceptual.use")

    @property
    def used(self) -> tuple[str, ...]:
        """The names of the distances that are computed, each once, pixels first."""
        return tuple(dict.fromkeys(("pixels", *(self.use or self.distances))))

    def named(self, name: str, key: str) -> PerceptualDistance:
        """The distance of a name; ValueError naming `key` where there is none."""
        if name not in self.distances:
            raise ValueError(
                f"{key}: expected some of perceptual.distances ({', '.join(self.distances)}), found {name!r}"
            )
        return self.distances[name]
