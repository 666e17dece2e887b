"""What people chose: conf's sections `vice`, `soft_labels`, `levels` and `survey`.

Read by the stages of those names, and by `reliability`, which fits VICE to parts of the choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least, between, positive


@dataclass(frozen=True)
class ViceSettings:
    """How VICE is fitted.

    dim: d, dimensions before pruning. prior: `gaussian` or `laplace`; spike, slab: its scales; pi: weight of
    the spike. lr: Adam's rate. batch: triplets a step. max_epochs: where a fit that has not converged
    stops. burn_in: epochs before convergence may be declared. window: epochs over which the number
    of kept dimensions must not change. k: a dimension is kept if more than k objects stay in it.
    alpha: false discovery rate. start: `half_normal`: loc starts as |N(0, init_loc^2)| and scale at the constant
    init_scale; `released`: as the authors' code does, loc at N(0, 2/d) of either sign and scale at exp(-1 / sd of loc).
    window_from: `burn_in`: the whole window lies after the burn-in; `start`: it may begin inside, as in the authors'
    code, and is as long as there are epochs where these are fewer. samples: posterior samples behind the validation
    metrics.
    """

    dim: int
    prior: str
    spike: float
    slab: float
    pi: float
    lr: float
    batch: int
    max_epochs: int
    burn_in: int
    window: int
    k: int
    alpha: float
    init_loc: float
    init_scale: float
    samples: int
    seed: int
    start: Literal["half_normal", "released"] = "half_normal"
    window_from: Literal["burn_in", "start"] = "burn_in"

    @property
    def earliest(self) -> int:
        """The fewest epochs after which a fit may have converged."""
        if self.window_from == "start":
            return self.burn_in + 2  # the released code looks from the second epoch after it on
        return self.burn_in + self.window

    def __post_init__(self) -> None:
        for name in ("dim", "batch", "max_epochs", "window", "samples", "lr", "init_loc", "init_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"VICE {name}: expected a positive number, found {getattr(self, name)}.")
        for name in ("burn_in", "k", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"VICE {name}: expected zero or more, found {getattr(self, name)}.")
        if not 0 < self.alpha < 1:
            raise ValueError(f"VICE alpha: expected a rate inside (0, 1), found {self.alpha}.")
        if self.prior not in ("gaussian", "laplace"):
            raise ValueError(f"VICE prior: expected gaussian or laplace, found {self.prior!r}.")
        if not 0 < self.spike < self.slab or not 0 < self.pi < 1:
            raise ValueError(
                f"VICE prior: expected 0 < spike < slab and pi inside (0, 1), found spike {self.spike}, slab "
                f"{self.slab} and pi {self.pi}."
            )


@dataclass(frozen=True)
class ViceSection:
    """Which triplets VICE is fitted to and measured on, and how it is fitted; or an embedding fitted elsewhere."""

    train: str | None  # null with a published embedding
    val: str | None  # null with a published embedding: nothing is measured then
    published: str | None  # a set of kind embedding, taken instead of a fit
    settings: ViceSettings
    published_order: str | None = None  # of its rows: table | sorted_files | a set of kind table

    def __post_init__(self) -> None:
        if self.published is None and (self.train is None or self.val is None):
            raise ValueError(
                "vice: expected the names of triplet sets for train and val, or of a published embedding, found "
                f"train {self.train}, val {self.val}; set them"
            )


@dataclass(frozen=True)
class SoftLabelsSettings:
    """Monte-Carlo estimate of the triplet distribution from the posterior."""

    samples: int
    seed: int

    def __post_init__(self) -> None:
        at_least("soft_labels", 1, samples=self.samples)


@dataclass(frozen=True)
class LevelsSection:
    """Which participants and trials of a data set with response times count, see data.levels."""

    catch_accuracy: float
    max_misses: int
    slow_ms: float
    shared_sets: Literal["first", "all"]

    def __post_init__(self) -> None:
        at_least("levels", 0, catch_accuracy=self.catch_accuracy, max_misses=self.max_misses)
        positive("levels", slow_ms=self.slow_ms)


@dataclass(frozen=True)
class SurveySettings:
    """A page that asks people for odd-one-out choices, or what an identically represented input (IRI) is most like, and
    what is made of their answers.

    kind: odd_one_out; of IRIs, `two`: target or seed, and `match`: which of three targets. images: an image set of
    data.sets, or a folder. inverted: a folder of invert-*.npz, in place of images. similarity: a file of people's
    similarities (n, n) of all inverted images, for hard triples. objects: so many of the images at most, drawn at
    random; 0 takes all. after: ids of earlier surveys, whose images in their order are asked about again, and whose
    questions are not. triplets: questions in all, or triples of `match`. trials: of these questions, asked of each
    participant.
    """

    folder: str
    kind: Literal["odd_one_out", "two", "match"]
    images: str
    inverted: str | None
    similarity: str | None
    objects: int
    after: tuple[str, ...]
    choose: Literal["random", "active"]
    triplets: int
    posterior: str | None
    criterion: str  # rank | information | entropy, see survey.choose.scores
    samples: int
    candidates: int
    per_pair: int
    trials: int
    catch: int
    practice: int
    pixels: int
    quality: int
    lossless: bool
    max_megabytes: float
    dead_ms: float
    title: str | None
    consent: str
    consent_file: str | None
    hand_in: str
    catch_accuracy: float
    max_misses: int
    fast_ms: float
    slow_ms: float
    incomplete: Literal["set_aside", "use"]
    damaged: Literal["stop", "skip"]
    validation: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("triplets", "candidates", "per_pair", "trials"):
            at_least("survey", 1, **{name: getattr(self, name)})
        for name in ("objects", "catch", "practice", "max_misses", "fast_ms", "dead_ms", "seed"):
            at_least("survey", 0, **{name: getattr(self, name)})
        at_least("survey", 16, pixels=self.pixels)
        at_least("survey", 2, samples=self.samples)
        positive("survey", max_megabytes=self.max_megabytes)
        between("survey", 0, 96, quality=self.quality)
        between("survey", 0, 1, validation=self.validation)
        if not 0 <= self.catch_accuracy <= 1:
            raise ValueError(
                f"survey.catch_accuracy: expected a share within [0, 1], found {self.catch_accuracy}"
            )
        if self.slow_ms <= self.fast_ms:
            raise ValueError(
                f"survey.slow_ms: expected more than fast_ms, {self.fast_ms}, found {self.slow_ms}"
            )
        asks = self.kind != "odd_one_out"
        if asks != (self.inverted is not None):
            raise ValueError(
                f"survey.inverted: expected {'a folder of invert-*.npz' if asks else 'null'} with "
                f"survey.kind={self.kind}, found {self.inverted}; the kinds two and match ask about inverted images, "
                "odd_one_out about survey.images"
            )
        if asks and (self.after or self.choose == "active"):
            raise ValueError(
                f"survey.kind={self.kind}: expected survey.choose=random and no survey.after, found {self.choose} and "
                f"{list(self.after)}; only odd-one-out questions can be chosen by earlier answers"
            )
        if self.similarity is not None and self.kind != "match":
            raise ValueError(
                f"survey.similarity: expected null with survey.kind={self.kind}, found {self.similarity}; it chooses "
                "the triples of survey.kind=match"
            )
