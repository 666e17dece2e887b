"""Training a student on labelled images: conf's section `robust`, the ingredients of a network's training.

Read by the stage of that name: losses with and without attacks, augmentation, and where the training begins. Norms are
over all pixels and channels of an image, in units of pixels in [0, 1], at the network's own resolution.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alignet.config.bounds import at_least, finite, positive
from alignet.config.harmonizer import LabelledTraining

# roles of the stage `robust`: PGD in every step, in l2 and in l-inf | "free", in l-inf
ROBUST = ("robust-l2", "robust-linf", "robust-free")
# further roles begin with one of these and end as one likes: trades-6, simclr-no-colour
INGREDIENTS = ("standard", "adversarial", "trades", "mart", "simclr")
_NAME = re.compile(rf"({'|'.join(INGREDIENTS)})(-[a-z0-9]+)*")
_LOSSES = dict(zip(INGREDIENTS, ("cross_entropy", "adversarial", "trades", "mart", "simclr"), strict=True))


def trained_role(setting: str) -> str | None:
    """The role of the stage `robust` that a row of the table comes from, None for a row of another stage.

    A row is a role, or <role>@<steps>: the same training after so many of its steps.
    """
    role, at, steps = setting.partition("@")
    if not (role in ROBUST or _NAME.fullmatch(role)) or (at and not re.fullmatch("[1-9][0-9]*", steps)):
        return None
    return role


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random before a network trains on them, in this order."""

    crop: float  # least share of the area in a random crop before its sides are cut to the image, resized back; 1: none
    shift: float  # moved by up to this share of the side each way, black where nothing is left
    flip: float  # probability of mirroring
    rotation: float  # degrees, at most, either way
    jitter: tuple[
        float, ...
    ]  # brightness, contrast, saturation: factors within 1 +- x; hue: +- x of the circle
    jittered: float  # probability of these four, in random order
    grey: float  # probability of making an image grey
    blur: float  # probability of a Gaussian blur,
    sigma: tuple[float, ...]  # of so many pixels: least, most

    def __post_init__(self) -> None:
        where = "robust.augmentations"
        for name, low, high in (
            ("crop", 1e-3, 1), ("shift", 0, 0.5), ("flip", 0, 1), ("rotation", 0, 180), ("jittered", 0, 1),
            ("grey", 0, 1), ("blur", 0, 1),
        ):  # fmt: skip
            found = getattr(self, name)
            if not low <= found <= high:
                raise ValueError(
                    f"{where}.{name}: expected a value within [{low:g}, {high:g}], found {found:g}"
                )
        if len(self.jitter) != 4 or not all(0 <= one <= 1 for one in self.jitter) or self.jitter[3] > 0.5:
            raise ValueError(
                f"{where}.jitter: expected brightness, contrast and saturation in [0, 1] and hue in [0, 0.5], found "
                f"{list(self.jitter)}"
            )
        if len(self.sigma) != 2 or not 0 < self.sigma[0] <= self.sigma[1] < math.inf:
            raise ValueError(
                f"{where}.sigma: expected the least and the most, above 0, found {list(self.sigma)}"
            )


@dataclass(frozen=True)
class RobustRole:
    """One training, which is a row of the table."""

    norm: Literal["l2", "linf"] = "l2"
    eps: float = 0.0  # norm of the perturbations that are trained against; 0 for none
    steps: int = 0  # of PGD for each batch; 1 where replays are above 0
    step: float = 0.0  # length of a step as a share of eps
    replays: int = (
        0  # 0: PGD of `steps` | m: "free", each batch m times, gradients by pixels from the same pass
    )
    loss: Literal["cross_entropy", "adversarial", "trades", "mart", "simclr"] = "adversarial"
    beta: float = 0.0  # of trades and mart: weight of the divergence of attacked answers from those before
    augmentation: str = ""  # one of robust.augmentations; "": flip and crop of the settings
    begin: Literal["student", "random"] = "student"  # the student's weights, or new ones drawn from the seed
    temperature: float = 0.0  # of simclr
    projection: int = 0  # of simclr: width of what the head makes of features, which alone meets the loss
    snapshots: tuple[int, ...] = ()  # numbers of steps after which the weights are kept as well

    def __post_init__(self) -> None:
        where = "robust.roles"
        at_least(where, 0, eps=self.eps, steps=self.steps, replays=self.replays, beta=self.beta)
        finite(where, eps=self.eps, beta=self.beta, step=self.step, temperature=self.temperature)
        if self.attacks:
            at_least(where, 1, steps=self.steps)
            positive(where, eps=self.eps, step=self.step)
        elif self.loss != "trades" and (self.eps or self.steps or self.step):
            raise ValueError(
                f"{where}: expected eps, steps and step of 0 where nothing is attacked, with loss={self.loss}, found "
                f"{self.eps:g}, {self.steps}, {self.step:g}; set loss=adversarial to train against attacks"
            )
        if self.replays and self.loss != "adversarial":
            raise ValueError(
                f"{where}.replays: expected 0 with loss={self.loss}, found {self.replays}: only adversarial training "
                f"has a free form"
            )
        if self.replays and self.steps != 1:
            raise ValueError(
                f"{where}.steps: expected 1 with replays={self.replays}, of which each is a step of the attack, "
                f"found {self.steps}"
            )
        if self.beta and self.loss not in ("trades", "mart"):
            raise ValueError(f"{where}.beta: expected 0 with loss={self.loss}, found {self.beta:g}")
        if self.loss == "simclr":
            at_least(where, 1, projection=self.projection)
            positive(where, temperature=self.temperature)
        elif self.temperature or self.projection:
            raise ValueError(
                f"{where}: expected temperature and projection of 0 with loss={self.loss}, found "
                f"{self.temperature:g}, {self.projection}"
            )
        if any(step < 1 for step in self.snapshots) or sorted({*self.snapshots}) != list(self.snapshots):
            raise ValueError(
                f"{where}.snapshots: expected rising numbers of steps from 1, found {list(self.snapshots)}"
            )

    @property
    def attacks(self) -> bool:
        """Whether images are attacked in each step."""
        if self.loss == "simclr":
            return self.eps > 0
        return self.loss in ("adversarial", "mart") or (self.loss == "trades" and self.beta > 0)

    @property
    def views(self) -> int:
        """How many forms of an image train the weights in a step: clean and attacked, or two views."""
        return 2 if self.loss in ("mart", "simclr") or (self.loss == "trades" and self.attacks) else 1

    @property
    def searching(self) -> int:
        """Forward and backward passes of an image that look for its perturbation alone."""
        return self.steps if self.attacks and not self.replays else 0


@dataclass(frozen=True)
class RobustSection:
    """What a student is trained on, with which losses, and in which variants."""

    images: str  # set of labelled images
    labels: str | None  # table with their classes; null: by the WordNet ids of their names
    column: str
    roles: Mapping[str, RobustRole]
    settings: LabelledTraining
    augmentations: Mapping[str, Augmentation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, role in self.roles.items():
            if trained_role(name) != name:
                raise ValueError(
                    f"robust.roles: expected some of {', '.join(ROBUST)}, or names that begin with one of "
                    f"{', '.join(INGREDIENTS)}, in small letters, digits and hyphens, found {name!r}"
                )
            where = f"robust.roles.{name}"
            if role.augmentation and role.augmentation not in self.augmentations:
                raise ValueError(
                    f"{where}.augmentation: expected one of robust.augmentations "
                    f"({', '.join(self.augmentations) or 'none are there'}), found {role.augmentation!r}"
                )
            if role.snapshots and role.snapshots[-1] > self.settings.steps:
                raise ValueError(
                    f"{where}.snapshots: expected at most robust.settings.steps ({self.settings.steps}), found "
                    f"{role.snapshots[-1]}"
                )
            if role.loss in ("mart", "simclr") and (self.settings.mixup or self.settings.smoothing):
                raise ValueError(
                    f"{where}.loss: expected robust.settings.mixup and smoothing of 0 with loss={role.loss}, found "
                    f"{self.settings.mixup:g} and {self.settings.smoothing:g}"
                )
            meant = _LOSSES.get(name.partition("-")[0], "adversarial")
            if role.loss != meant:
                raise ValueError(
                    f"{where}.loss: expected {meant}, which its name says, found {role.loss}; pages go by the name"
                )

    def of_row(self, setting: str) -> RobustRole | None:
        """The training that a row comes from, None where it is not made: an unknown role, or no such snapshot."""
        name, _, steps = setting.partition("@")
        role = self.roles.get(name)
        return None if role is None or (steps and int(steps) not in role.snapshots) else role
