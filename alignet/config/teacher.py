"""From people to answered triplets: conf's sections `distill`, `cluster`, `triplets` and `smooth`.

Read by the stages of those names; `finetune` takes what they made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least, between, positive


@dataclass(frozen=True)
class MapSource:
    """Which features and which human triplets an affine map is learned on."""

    images: str
    triplets: str
    fold_column: str  # of the object table: rows of one value share a fold; '' lets each object fold alone


@dataclass(frozen=True)
class DistillSettings:
    """How a map is fitted and its two numbers chosen.

    standardize: by the training objects' `scalar` mean and std, by those of each `feature`, or `none`.
    optimizer: `sgd` (plain, as in the paper) or `adam`; the rate falls to zero on a cosine over `steps`.
    batch: triplets a step, drawn with replacement; all of them where there are no more than that.
    penalties: lambda of eq. 3, and lrs: learning rates; cross-validation tries every pair of them.
    folds: groups of objects, at least 2.
    """

    standardize: str
    optimizer: str
    steps: int
    batch: int
    penalties: tuple[float, ...]
    lrs: tuple[float, ...]
    folds: int
    seed: int

    def __post_init__(self) -> None:
        for name, known in (("standardize", ("scalar", "feature", "none")), ("optimizer", ("sgd", "adam"))):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"distill {name}: expected one of {', '.join(known)}, found {getattr(self, name)!r}."
                )
        for name, least in (("steps", 1), ("batch", 1), ("folds", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"distill {name}: expected at least {least}, found {getattr(self, name)}.")
        if not self.penalties or min(self.penalties) < 0 or not self.lrs or min(self.lrs) <= 0:
            raise ValueError(
                "distill: expected at least one penalty, none negative, and one positive learning rate, "
                f"found {self.penalties} and {self.lrs}."
            )


@dataclass(frozen=True)
class LocalSettings:
    """gLocal's local term, see locality.local_loss."""

    images: str  # the image set whose neighbourhoods are kept
    weight: float  # alpha
    temperature: float  # of cosines
    batch: int  # images a step

    def __post_init__(self) -> None:
        between("distill.others.*.local", 0, 1, weight=self.weight)
        positive("distill.others.*.local", temperature=self.temperature)
        at_least("distill.others.*.local", 3, batch=self.batch)


@dataclass(frozen=True)
class OtherMap:
    """Another transform of a model that has a map: learned on the same, compared in an ablation."""

    of: str  # the role whose source and settings it shares
    loss: Literal["soft", "hard"]  # VICE's soft labels, or the choices themselves
    local: LocalSettings | None


@dataclass(frozen=True)
class DistillSection:
    """By role, what an affine map is learned on, and how; or a map learned elsewhere."""

    published: Mapping[str, str]  # role -> a set of kind map (gLocal npz), taken instead of a fit
    sources: Mapping[str, MapSource]
    settings: Mapping[str, DistillSettings]
    others: Mapping[str, OtherMap]  # further roles, made where a row of the table asks for them

    def base(self, role: str) -> str:
        """The role whose source, settings and model a role shares: its own, but for `others`."""
        return self.others[role].of if role in self.others else role


@dataclass(frozen=True)
class ClusterSettings:
    """k-means over the pool."""

    clusters: int | Literal["elbow"]
    grid: tuple[int, ...]
    iterations: int
    redo: int
    rows_per_cluster: int | None
    seed: int

    def __post_init__(self) -> None:
        if self.rows_per_cluster is not None:
            at_least("cluster", 1, rows_per_cluster=self.rows_per_cluster)


@dataclass(frozen=True)
class TripletsSettings:
    """The AligNet data set: how triplets are drawn and how many; or one that is published."""

    published: str | None  # a set of kind dataset, taken instead of drawing
    sampling: Literal["cluster_boundary", "class_boundary", "random"]
    count: int
    labels_from: str  # class_boundary and random: "" | wnid | cls | <table set>.<column>
    seed: int

    def __post_init__(self) -> None:
        at_least("triplets", 1, count=self.count)
        if self.labels_from not in ("", "wnid", "cls") and "." not in self.labels_from:
            raise ValueError(
                f"triplets.labels_from: expected '', wnid, cls, or a table set and its column as set.column, found "
                f"{self.labels_from!r}"
            )


@dataclass(frozen=True)
class SmoothSettings:
    """Smoothing the teacher's features of the pool over the student's classifier, see smoothing.smooth."""

    penalties: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"smooth: expected penalties above 0, found {list(self.penalties)}")
