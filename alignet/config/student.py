"""Fine-tuning and what is handed out: conf's sections `finetune` and `export`.

Read by the stages of those names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import positive


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that decides the result, besides images, teacher and the initial weights."""

    sampling: str  # "triplets": drawn beforehand | "in_batch": all triplets of each batch of images
    batch: int  # triplets of a step, or images of a batch
    accumulate: (
        int  # triplets: parts that a step's batch is computed in | in_batch: batches averaged in a step
    )
    clusters_per_batch: (
        int  # in_batch: 0 draws images at random, else this many clusters, equally many of each
    )
    loss: str  # kl (eq. 5) | jsd (the official code's) | hard (the teacher's choice)
    tau_teacher: float  # temperature of the teacher's similarities
    tau_student: float | str  # a number | "spread" | "fit", see student_temperature
    steps: int
    warmup: int  # steps of linear warm-up
    lr: float  # peak rate of Adam
    beta1: float
    beta2: float
    epsilon: float
    pull: float  # of the decay to the initial weights; lr * pull is the share taken back in a step
    retain: float  # weight of keeping the original classifier's answers; 0 for none, see finetune.Retention
    head: int  # width of a random linear layer between features and similarities; 0 for none
    flip: float  # probability of mirroring an image
    crop: float  # least share of the image's area in a random crop, resized back; 1 for none
    colour: float  # strength of random changes of saturation, contrast and brightness, see finetune.recolour
    grey: float  # probability of making an image grey
    precision: str  # float32 | bf16 (autocast of the network; losses and weights stay float32)
    seed: int
    frozen: tuple[str, ...]  # parameters that do not train, by how their names begin
    center_teacher: bool  # in_batch: subtract the pool's mean from the teacher's features before they answer
    shuffle_teacher: bool  # control: each image gets the answers of another, so no gain can be real
    # of a head: isometric keeps similarities at their scale | released: as the official code, whose layer starts at
    # N(0, 1 / features), so that similarities are head / features times as large, and is pulled to its start as well
    head_start: Literal["isometric", "released"] = "isometric"

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("sampling", self.sampling, ("triplets", "in_batch")),
            ("loss", self.loss, ("kl", "jsd", "hard")),
            ("precision", self.precision, ("float32", "bf16")),
        ):
            if value not in valid:
                raise ValueError(f"finetune.{name}: expected one of {', '.join(valid)}, found {value!r}")
        if isinstance(self.tau_student, str) and self.tau_student not in ("spread", "fit"):
            raise ValueError(
                f"finetune.tau_student: expected a number, spread or fit, found {self.tau_student!r}"
            )
        if self.center_teacher and self.sampling != "in_batch":
            raise ValueError(
                "finetune.center_teacher: expected false with sampling=triplets, whose answers are given"
            )
        tau = self.tau_student if not isinstance(self.tau_student, str) else 1.0
        one = 1 if self.sampling == "triplets" else 3
        for name, number, low, high in (
            ("tau_student", tau, 1e-12, math.inf),
            ("tau_teacher", self.tau_teacher, 1e-12, math.inf),
            ("batch", self.batch, one, math.inf),
            ("accumulate", self.accumulate, 1, self.batch if self.sampling == "triplets" else math.inf),
            ("clusters_per_batch", self.clusters_per_batch, 0, self.batch),
            ("steps", self.steps, 1, math.inf),
            ("warmup", self.warmup, 0, self.steps),
            ("lr", self.lr, 0, math.inf),
            ("beta1", self.beta1, 0, 1 - 1e-9),
            ("beta2", self.beta2, 0, 1 - 1e-9),
            ("epsilon", self.epsilon, 0, math.inf),
            ("pull", self.pull, 0, 1 / self.lr if self.lr else math.inf),  # more would overshoot the start
            ("retain", self.retain, 0, math.inf),
            ("head", self.head, 0, math.inf),
            ("flip", self.flip, 0, 1),
            ("crop", self.crop, 1e-3, 1),
            ("colour", self.colour, 0, 1),
            ("grey", self.grey, 0, 1),
        ):
            if not low <= number <= high:
                raise ValueError(
                    f"finetune.{name}: expected a value within [{low:g}, {high:g}], found {number}"
                )


@dataclass(frozen=True)
class DirectSettings:
    """Fine-tuning on people's choices themselves, in the place of the same names in finetune.settings."""

    lr: float
    pull: float
    steps: int
    batch: int  # triplets of a step


@dataclass(frozen=True)
class FinetuneSection:
    """How the student is fine-tuned. `tau_distillation` takes the place of tau_teacher in the control."""

    roles: tuple[Literal["alignet", "distillation"], ...]
    tau_distillation: float
    settings: FinetuneSettings
    direct: DirectSettings | None  # the row `direct`, made where the table asks for it

    def __post_init__(self) -> None:
        positive("finetune", tau_distillation=self.tau_distillation)


@dataclass(frozen=True)
class ExportSection:
    """What is handed out. `dataset` is the drawn and answered triplets in the official format."""

    roles: tuple[
        Literal[
            "alignet", "distillation", "harmonized", "unharmonized", "shuffled-maps", "alignet-harmonized",
            "alignet-and-harmonized", "robust-l2", "robust-linf", "robust-free", "ud", "teacher", "dataset",
        ],
        ...,
    ]  # fmt: skip
    precision: Literal["float32", "float16", "bfloat16"]
    scores: tuple[str, ...]  # evaluations that the model card tells; others leave the export as it is
