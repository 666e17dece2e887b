"""Where models look: conf's sections `saliency`, `harmonize` and `stimuli`; null where no maps are at hand.

Read by the stages of those names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least

# roles of the stage `harmonize`: with people's maps | the same training without them | with another image's maps |
# after AligNet | AligNet's loss and the maps' in the same steps
HARMONIZED = ("harmonized", "unharmonized", "shuffled-maps", "alignet-harmonized", "alignet-and-harmonized")


@dataclass(frozen=True)
class SaliencySettings:
    """The gradient of one logit by the pixels, for each image of a set."""

    logit: Literal["label", "top1"]  # label: the image's own class, where it is known
    labels: Mapping[str, str]  # image set -> table with its classes; others by the WordNet ids of their names
    column: str  # of these tables: the number of the class, as the classifier counts them
    batch: int
    shard: int
    precision: Literal[
        "float32", "float16"
    ]  # float16: each image's gradient divided by its largest magnitude
    rollout: bool  # attention rollout beside it, where the network has it

    def __post_init__(self) -> None:
        at_least("saliency", 1, batch=self.batch, shard=self.shard)


@dataclass(frozen=True)
class LabelledTraining:
    """How a student is trained on labelled images: what the Harmonizer and adversarial training share."""

    steps: int
    batch: int  # images a step
    decay: float  # lambda_2
    decay_form: Literal["squares", "half_squares"]  # of lambda_2 * sum of squares
    decay_of: Literal["all", "kernels"]  # kernels: no norms, biases and embeddings
    optimizer: Literal["sgd", "adam"]
    lr: float  # peak rate
    momentum: float  # of SGD; Adam's beta_1
    nesterov: bool
    warmup: int  # steps of linear warm-up
    schedule: Literal["cosine", "drops"]
    drops: tuple[float, ...]  # shares of all steps after which the rate is a tenth
    smoothing: float  # of the labels
    flip: float  # probability of mirroring an image, and its map
    crop: float  # least share of the area in a random crop; 1 for none
    mixup: float  # probability that a batch is mixed, mapped images among themselves and the others among themselves
    mixup_alpha: float  # of Beta(alpha, alpha)
    batch_norm: Literal["frozen", "training"]  # training: statistics of each batch
    seed: int

    def __post_init__(self) -> None:
        at_least(self._section, 1, steps=self.steps, batch=self.batch)
        self._within(
            ("decay", 0, math.inf), ("lr", 0, math.inf), ("momentum", 0, 1 - 1e-9), ("warmup", 0, self.steps),
            ("smoothing", 0, 1 - 1e-9), ("flip", 0, 1), ("crop", 1e-3, 1), ("mixup", 0, 1),
            ("mixup_alpha", 1e-6, math.inf),
        )  # fmt: skip
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise ValueError(
                f"{self._section}.nesterov: expected a momentum above 0, found 0; set nesterov=false"
            )

    @property
    def _section(self) -> str:
        return "robust.settings"

    def _within(self, *bounds: tuple[str, float, float]) -> None:
        for name, low, high in bounds:
            found = getattr(self, name)
            if not low <= found <= high:
                raise ValueError(
                    f"{self._section}.{name}: expected a value within [{low:g}, {high:g}], found {found:g}"
                )


@dataclass(frozen=True)
class HarmonizeSettings(LabelledTraining):
    """Everything that decides the result, besides images, maps and the initial weights."""

    mapped: float  # share of a step's images that have people's map; the others give cross-entropy alone
    part: int  # images that a second derivative is taken of at once; bounds the memory, changes nothing else
    map_weight: float  # lambda_1
    scalar: Literal["label", "sum"]
    order: Literal["pyramid_first", "once"]
    norm: Literal["mean_squares", "sum_squares", "l2"]
    levels: int  # of the pyramid, the full size included
    reduction: Literal["mean", "max", "abs_mean"]
    blur: Literal["none", "published"]  # of people's maps
    precision: Literal["float32", "bf16"]  # bf16: of images without a map; a second derivative stays float32

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self._section, 1, part=self.part, levels=self.levels)
        self._within(("mapped", 0, 1), ("map_weight", 0, math.inf))
        if self.batch_norm == "training" and self.part < self.batch:
            raise ValueError(
                f"{self._section}.part: expected the whole batch of {self.batch}, whose statistics count with "
                f"batch_norm=training, found {self.part}; set part={self.batch}"
            )

    @property
    def _section(self) -> str:
        return "harmonize.settings"


@dataclass(frozen=True)
class HarmonizeRole:
    """One training, which is a row of the table: where it starts, and what of the objective it has."""

    start: Literal["original", "alignet"]  # the student as it was pretrained, or after AligNet
    maps: bool  # whether the loss on maps is there at all: without, the control of the same training
    shuffled: bool  # every image gets another's map: the control in which no gain can be real
    alignet: float  # weight of AligNet's triplet loss on batches of the pool, in the same steps; 0 for none


@dataclass(frozen=True)
class HarmonizeSection:
    """What a student is harmonised on, and in which variants."""

    images: str  # set of images with maps, for training
    maps: str  # set of kind maps
    labels: str | None  # table with their classes; null: by the WordNet ids of their names
    plain: str | None  # set of further labelled images without maps; null for none
    plain_labels: str | None
    column: str  # of both tables: the number of the class, as the classifier counts them
    roles: Mapping[str, HarmonizeRole]
    settings: HarmonizeSettings

    def __post_init__(self) -> None:
        for name, role in self.roles.items():
            meant = ("alignet" if name == "alignet-harmonized" else "original", name != "unharmonized",
                     name == "shuffled-maps", name == "alignet-and-harmonized")  # fmt: skip
            found = (role.start, role.maps, role.shuffled, role.alignet > 0)
            if name in HARMONIZED and found != meant:
                raise ValueError(
                    f"harmonize.roles.{name}: expected what its name says, (start, maps, shuffled, alignet > 0) = "
                    f"{meant}, found {found}; cards and pages go by the name"
                )
        if self.settings.mapped < 1 and self.plain is None:
            raise ValueError(
                f"harmonize.plain: expected a set of labelled images for {1 - self.settings.mapped:.0%} of each batch, "
                f"found null; name one, or set harmonize.settings.mapped=1"
            )


@dataclass(frozen=True)
class StimuliSettings:
    """Images of which only the most important pixels are shown (section 4.2 and appendix A of the Harmonizer)."""

    levels: int  # shares that are revealed, from `low` to 1 at equal ratios
    low: float
    equal_pixels: bool  # the same number of pixels for every image at a level, or the same share of each map
    grey: bool
    centred: bool
    background: Literal["phase", "grey"]
    temperature: float  # of the flood fill; 0.25
    size: int  # pixels, square
    seed: int

    def __post_init__(self) -> None:
        at_least("stimuli", 2, levels=self.levels, size=self.size)
        if not self.temperature > 0:
            raise ValueError(f"stimuli.temperature: expected a number above 0, found {self.temperature}")
        if not 0 < self.low < 1:
            raise ValueError(f"stimuli.low: expected a share in (0, 1), found {self.low}")


@dataclass(frozen=True)
class StimuliSection:
    """Which images are shown in part, by whose maps."""

    maps: Mapping[str, str]  # set of kind maps -> the image set that they are of
    settings: StimuliSettings
