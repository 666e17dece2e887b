"""Adversarial attacks: conf's section `attack`.

Read by the stage of that name. Norms are over all pixels and channels of an image, in units of pixels in [0, 1], at
the network's own resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least, finite, positive

FOOLBOX = ("ddn", "fmn", "deepfool", "carlini_wagner")  # by the package foolbox, extra `attacks`
SPLIT, FINE, COARSE = (
    1.0,
    0.01,
    0.1,
)  # published code's two stages: the norm between them, widths at their ends
FINEST = 1e-6  # smallest width of a bisection as a share of the largest norm: float32 tells 1e-7 apart


@dataclass(frozen=True)
class PgdSearch:
    """How PGD looks for the smallest norm that succeeds (Linsley et al., 2023)."""

    surface: Literal["sphere", "ball"]  # norm equal to eps, or at most eps
    step: float  # length of a step,
    proportional: bool  # as a share of eps, or by itself
    low: float  # smallest norm of the bisection
    threshold: float  # its width at the end, of Algorithm 1
    stages: Literal[1, 2]  # 1: bisect [low, high] | 2: high, then 1, then bisect on either side of 1
    keep: Literal[
        "midpoint", "bound"
    ]  # the attack at the last midpoint, or at the smallest norm that succeeded

    def __post_init__(self) -> None:
        finite("attack.methods.search", step=self.step, low=self.low, threshold=self.threshold)
        positive("attack.methods.search", step=self.step, low=self.low, threshold=self.threshold)


@dataclass(frozen=True)
class AttackMethod:
    """One way to look for the smallest perturbation."""

    algorithm: Literal["minimum_norm", "pgd", "ddn", "fmn", "deepfool", "carlini_wagner"]
    norm: Literal["l2", "linf"]
    steps: int  # forward and backward passes; of pgd, for each norm that is tried
    high: float  # largest norm that is tried; an image that needs more counts as unbroken
    images: int  # so many images of a set, drawn at random, those of fewer among those of more; 0 takes all
    search: PgdSearch | None = None  # of pgd

    def __post_init__(self) -> None:
        at_least("attack.methods", 1, steps=self.steps)
        at_least("attack.methods", 0, images=self.images)
        positive("attack.methods", high=self.high)
        finite("attack.methods", high=self.high)
        if (self.algorithm == "pgd") != (self.search is not None):
            raise ValueError(
                f"attack.methods.search: expected {'a section' if self.algorithm == 'pgd' else 'null'} with "
                f"algorithm={self.algorithm}, found {'null' if self.search is None else 'one'}"
            )
        if self.search is not None and not self.search.low < self.high:
            raise ValueError(
                f"attack.methods.search.low: expected less than high ({self.high:g}), found {self.search.low:g}"
            )
        if self.search is not None:
            self._check_width(self.search)
        if self.algorithm in ("ddn", "carlini_wagner") and self.norm != "l2":
            raise ValueError(
                f"attack.methods.norm: expected l2 with algorithm={self.algorithm}, found {self.norm}"
            )

    def _check_width(self, search: PgdSearch) -> None:
        """ValueError where the bisection would end at a width that float32 cannot tell from 0."""
        if search.stages == 1 and search.threshold < FINEST * self.high:
            raise ValueError(
                f"attack.methods.search.threshold: expected at least {FINEST:g} of high ({self.high:g}), since norms "
                f"are float32, found {search.threshold:g}"
            )
        if search.stages == 2 and self.high > COARSE / FINEST:
            raise ValueError(
                f"attack.methods.high: expected at most {COARSE / FINEST:g} with search.stages=2, whose bisection ends "
                f"at a width of {COARSE:g} and whose norms are float32, found {self.high:g}"
            )


@dataclass(frozen=True)
class AttackSection:
    """The attacks of the images of a set."""

    logit: Literal[
        "label", "top1"
    ]  # label: images answered right, of which the class is known | top1: any answer
    labels: Mapping[str, str]  # image set -> table with its classes; others by the WordNet ids of their names
    column: str  # of these tables: the number of the class, as the classifier counts them
    batch: int
    shard: int
    seed: int  # of the images that are drawn
    method: str  # that of attack[<model>.<images>]; another one is attack[<model>:<method>.<images>]
    methods: Mapping[str, AttackMethod]

    def __post_init__(self) -> None:
        at_least("attack", 1, batch=self.batch, shard=self.shard)
        if self.method not in self.methods:
            raise ValueError(
                f"attack.method: expected one of attack.methods ({', '.join(self.methods)}), found {self.method!r}"
            )
