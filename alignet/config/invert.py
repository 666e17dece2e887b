"""Inputs that a network takes for the same: conf's section `invert`. Read by the stage of that name.

Pixels are in [0, 1]; errors are relative, |g(x) - g(target)| / |g(target)| in l2, for a network's representation g.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least, finite, positive


@dataclass(frozen=True)
class Noise:
    """An image of independent normal pixels, cut to [0, 1]."""

    mean: float
    sd: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.sd) and self.sd >= 0):
            raise ValueError(
                f"invert.methods: expected noise with a finite mean and an sd of at least 0, found mean {self.mean} "
                f"and sd {self.sd}"
            )


@dataclass(frozen=True)
class Transformations:
    """Random changes of an image in each step, under which its representation must stay; each drawn uniformly."""

    jitter: float  # moved by at most this share of a side, in both directions
    scale: float  # enlarged or shrunk by a factor of at most 1 + scale
    rotate: float  # degrees, either way
    colour: float  # brightness, contrast and saturation, each by a factor in 1 - colour .. 1 + colour

    def __post_init__(self) -> None:
        finite("invert.methods.transform", **vars(self))
        at_least("invert.methods.transform", 0, **vars(self))
        for name, high in (("jitter", 1), ("scale", 1), ("rotate", 180), ("colour", 1)):
            if getattr(self, name) > high:
                raise ValueError(
                    f"invert.methods.transform.{name}: expected at most {high}, found {getattr(self, name)}"
                )


@dataclass(frozen=True)
class InvertMethod:
    """One way to look for an image of the same representation: error + weight * R, minimised from noise.

    R = tv * TV(x) + l_p * |x - 1/2|_p + blur * |x - blurred(x)|^2 - distance(x, target).
    """

    # unit: steps of length lr | quasi_newton: Adam, then L-BFGS on the squared error; of a regularised loss Adam alone
    optimizer: Literal["adam", "sgd", "unit", "quasi_newton"]
    lr: float  # of quasi_newton: Adam's
    schedule: Literal["constant", "cosine", "linear"]  # of lr, to 0; of quasi_newton over Adam's steps
    steps: int  # forward and backward passes at most
    finish: int  # so many of these, the last ones, without R and transformations and until the error is at most `stop`
    stop: float  # relative error of a match; 0: all steps are made
    start: Noise  # x0
    target: Noise | None = None  # null: the images themselves
    weight: float = 0.0  # lambda
    tv: float = 0.0
    l_p: float = 0.0
    p: float = 1.0
    blur: float = 0.0
    sigma: float = 1.0  # of the blur, pixels
    distance: str = ""  # one of perceptual.distances
    fourier: bool = False  # steps are taken in Fourier coefficients, scaled by 1/frequency
    transform: Transformations | None = None

    def __post_init__(self) -> None:
        where = "invert.methods"
        at_least(where, 1, steps=self.steps, p=self.p)
        at_least(
            where,
            0,
            finish=self.finish,
            stop=self.stop,
            weight=self.weight,
            tv=self.tv,
            l_p=self.l_p,
            blur=self.blur,
        )
        positive(where, lr=self.lr, sigma=self.sigma)
        for name in ("lr", "stop", "weight", "tv", "l_p", "blur", "p", "sigma"):
            finite(where, **{name: getattr(self, name)})
        if self.finish >= self.steps:
            raise ValueError(f"{where}.finish: expected fewer than steps ({self.steps}), found {self.finish}")
        terms = [name for name in ("tv", "l_p", "blur", "distance") if getattr(self, name)]
        if bool(terms) != (self.weight > 0):
            found = f"{self.weight:g} with {', '.join(terms)}" if terms else f"{self.weight:g}"
            raise ValueError(
                f"{where}.weight: expected above 0 where one of tv, l_p, blur and distance is set, else 0, "
                f"found {found}"
            )
        if self.finish and not self.changed:
            raise ValueError(
                f"{where}.finish: expected 0 without a regulariser or transformations, found {self.finish}"
            )

        if self.optimizer == "quasi_newton" and self.changed and not self.finish:
            raise ValueError(
                f"{where}.finish: expected above 0 with optimizer=quasi_newton and a regulariser or transformations, "
                f"since their loss is no squared error, found 0"
            )

    @property
    def changed(self) -> bool:
        """Whether steps minimise anything else than the error of the image itself."""
        return self.weight > 0 or self.transform is not None


@dataclass(frozen=True)
class InvertSection:
    """The inversion of the images of a set."""

    layer: str  # of the network, by its module's name; "": what its classifier reads
    images: int  # so many images of a set, drawn at random, those of fewer among those of more; 0 takes all
    draws: int  # IRIs of each
    batch: int  # images of one pass
    shard: int
    seed: int  # of the images that are drawn, of noise and of transformations
    methods: Mapping[str, InvertMethod]

    def __post_init__(self) -> None:
        at_least("invert", 0, images=self.images)
        at_least("invert", 1, draws=self.draws, batch=self.batch, shard=self.shard)
        for name in self.methods:
            if "." in name or "]" in name:
                raise ValueError(
                    f"invert.methods: expected names without dots and brackets, found {name!r}; rename it"
                )
