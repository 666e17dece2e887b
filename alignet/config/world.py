"""The drawn world and its own networks: conf's sections `world` and `pretrain`; null with data from elsewhere.

Read by the stages of those names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


def _check_world(name: str, fits: bool, expected: str, found: object) -> None:
    if not fits:
        raise ValueError(f"world.{name}: expected {expected}, found {found}")


@dataclass(frozen=True)
class WorldSettings:
    """Everything that a world is made from.

    size: pixels, even. concepts: per category, at most 6. unjudged: of these, never judged.
    exemplars: judged pictures of each judged concept. pool: pictures. fresh, probe: pictures of each
    concept. train_triplets, val_triplets: human choices; test_triplets: choices of each evaluation set.
    ceiling: mean probability of the likeliest answer over all triplets of concepts, which fixes how
    decided participants are. strangers: of the pool's pictures, those of things that are no concept of the
    world: people judge a few hundred things, and a pool shows many more. teacher_images, student_images:
    pictures for pretraining.
    say_category, say_concept, say_colour, say_background: how often a caption names each.
    participants: of the trials with response times, in fives; participant_trials: of each. rated: pictures of each
    concept in the sets of one category that are rated for similarity.
    move: how far an object's middle may be from the picture's, as a share of its side. scale: how large objects are; 1
    fits the picture. mapped, mapped_test: labelled pictures with importance maps, to train on and to measure on;
    mapped_plain: such pictures without maps. raters: simulated people who mark each of them.
    """

    size: int
    concepts: int
    unjudged: int
    exemplars: int
    pool: int
    strangers: int
    fresh: int
    probe: int
    train_triplets: int
    val_triplets: int
    test_triplets: int
    ceiling: float
    teacher_images: int
    student_images: int
    say_category: float
    say_concept: float
    say_colour: float
    say_background: float
    participants: int
    participant_trials: int
    rated: int
    seed: int
    move: float = 0.04
    scale: float = 1.0
    mapped: int = 0
    mapped_plain: int = 0
    mapped_test: int = 0
    raters: int = 0

    def __post_init__(self) -> None:
        counts = ("exemplars", "pool", "fresh", "probe", "train_triplets", "val_triplets", "test_triplets")
        for name in (*counts, "teacher_images", "student_images", "participant_trials", "rated"):
            _check_world(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        _check_world("size", self.size >= 16 and self.size % 2 == 0, "an even number from 16", self.size)
        _check_world("concepts", 2 <= self.concepts <= 6, "2..6", self.concepts)
        _check_world("strangers", 0 <= self.strangers < self.pool, f"0..{self.pool - 1}", self.strangers)
        _check_world("unjudged", 0 < self.unjudged < self.concepts, f"1..{self.concepts - 1}", self.unjudged)
        _check_world("ceiling", 0.4 <= self.ceiling <= 0.95, "0.4..0.95", self.ceiling)
        fives = self.participants >= 15 and self.participants % 5 == 0
        _check_world("participants", fives, "a multiple of 5 from 15", self.participants)
        _check_world("move", 0 <= self.move <= 0.5, "a share in 0..0.5", self.move)
        _check_world("scale", 0.2 <= self.scale <= 3, "0.2..3", self.scale)
        maps = (self.mapped, self.mapped_plain, self.mapped_test, self.raters)
        expected = "all of mapped, mapped_plain, mapped_test and raters, or none"
        _check_world("mapped", not any(maps) or min(maps) >= 1, expected, maps)
        _check_world("seed", self.seed >= 0, "zero or more", self.seed)
        for name in ("say_category", "say_concept", "say_colour", "say_background"):
            _check_world(name, 0 <= getattr(self, name) <= 1, "a share in 0..1", getattr(self, name))


@dataclass(frozen=True)
class TrainingSettings:
    """How one of the models is pretrained.

    architecture, model_args: timm's; num_classes is the width of the teacher's output, or at least the number
    of labels for the student. steps: of `batch` pictures each, every picture once an epoch. lr: AdamW's
    peak rate after `warmup` steps of linear rise; it falls to zero on a cosine. weight_decay: AdamW's, on
    matrices and kernels. shift: each picture is moved by up to so many pixels each way (edges repeat).
    smoothing: of the labels, student only. text_width: of the text tower, teacher only.
    """

    architecture: str
    model_args: Mapping[str, Any]
    steps: int
    batch: int
    lr: float
    warmup: int
    weight_decay: float
    shift: int
    smoothing: float
    text_width: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 1),
            ("batch", 2),
            ("warmup", 0),
            ("shift", 0),
            ("text_width", 1),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"pretrain {name}: expected at least {least}, found {getattr(self, name)}.")
        if not self.lr > 0 or self.weight_decay < 0 or not 0 <= self.smoothing < 1:
            raise ValueError(
                "pretrain: expected lr above 0, weight_decay of at least 0 and smoothing in [0, 1), found "
                f"{self.lr}, {self.weight_decay} and {self.smoothing}."
            )


@dataclass(frozen=True)
class PretrainSection:
    """The world's own teacher and student."""

    teacher: TrainingSettings
    student: TrainingSettings
