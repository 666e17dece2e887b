"""The configuration as frozen dataclasses: names, types and checks. Values and their meaning are in conf/.

Nothing here has a default, so nothing mirrors conf/. This file imports neither torch nor numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignet.bounds import at_least, between, positive
from alignet.building import build
from alignet.config_plan import PlanSettings


@dataclass(frozen=True)
class PathsSettings:
    """Where things are on this machine; never part of an artifact's identity."""

    artifacts: str
    photos: str | None
    images: str | None
    check: str | None
    map: str | None
    dataset: str | None
    people: str | None
    classes: str | None
    generalise: str
    judged: str
    things: str
    imagenet: str


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks SLURM for, see launch.py."""

    nodes: int
    partition: str | None
    account: str | None
    minutes: int
    cpus: int
    memory_gb: int
    grace: int
    logs: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        at_least("runtime.slurm", 1, nodes=self.nodes, minutes=self.minutes, cpus=self.cpus)
        at_least("runtime.slurm", 0, memory_gb=self.memory_gb, grace=self.grace)


@dataclass(frozen=True)
class RuntimeSettings:
    """How the work is done on this machine; never part of an artifact's identity."""

    device: Literal["cpu", "cuda"]
    threads: int
    workers: int
    download: bool
    checkpoint_seconds: float
    recompute: bool
    compile: bool
    sharding: Literal["none", "fsdp2"]
    launcher: Literal["local", "torchrun", "slurm"]
    processes: int
    slurm: SlurmSettings

    def __post_init__(self) -> None:
        at_least("runtime", 1, threads=self.threads)
        at_least("runtime", 0, workers=self.workers, processes=self.processes)
        if self.compile and self.sharding != "none":
            raise ValueError(
                "runtime.compile: expected false with sharding=fsdp2, as both together are untried, found true"
            )
        if self.launcher == "slurm" and not self.processes:
            raise ValueError(
                "runtime.processes: expected the number of processes (GPUs) on each node with launcher=slurm, found 0"
            )


@dataclass(frozen=True)
class ImagesSet:
    """Images: a folder, at any depth; or WebDataset shards, whose members' names are the ids."""

    kind: Literal["images", "shards"]
    path: (
        str | None
    )  # in the world's own artifact, or on this machine; shards: a folder of .tar, or a pattern
    under: str  # only ids below this subfolder of `path`; '' takes all


@dataclass(frozen=True)
class TripletsSet:
    """Human choices: .npy, .txt, or a table (.csv, .tsv) with columns image1, image2, image3, choice."""

    kind: Literal["triplets"]
    path: str | None
    index_base: Literal[0, 1]  # the number of the first object
    odd_one: Literal["last", "first", "middle", "choice"]  # the column of the odd one out; tables: choice
    where: Mapping[str, tuple[int | str, ...]]  # tables: column -> the values whose rows count


@dataclass(frozen=True)
class FeaturesSet:
    """Precomputed features: an .npy file with a row for each line of `ids`."""

    kind: Literal["features"]
    path: str | None
    ids: str | None


@dataclass(frozen=True)
class DatasetSet:
    """An AligNet data set as the official release stores one: filenames, similarities, indices."""

    kind: Literal["dataset"]
    path: str | None
    missing: Literal["stop", "drop"]  # triplets with an image that the pool lacks
    order: Literal["odd_last", "as_is"]  # odd_last: refuse unless s01 is the largest in 99 of 100


@dataclass(frozen=True)
class FileSet:
    """One file: a CSV table, an .npy array, weights (.safetensors), a W, b map or an embedding (.npz), trials with
    response times (.csv, .parquet), judged similarities (.mat, .npy, .csv), or another that its reader knows."""

    kind: Literal["table", "array", "weights", "map", "embedding", "trials", "judgements", "file"]
    path: str | None


SetSettings = ImagesSet | TripletsSet | FeaturesSet | DatasetSet | FileSet


@dataclass(frozen=True)
class ObjectIds:
    """How the objects that triplets count are named in one set of features: a column of the table."""

    column: str
    prefix: str


# What the stage `world` writes at the top of its folder: a set whose path begins with one of these is drawn.
WORLD_FILES = (
    "concepts.csv", "evaluation", "hierarchy.csv", "images", "objects.csv", "objects.txt", "people", "pool_labels.csv",
    "pretrain", "similarity.npy", "triplets",
)  # fmt: skip


@dataclass(frozen=True)
class DataSettings:
    """Where the data comes from, and the sets in it."""

    source: Literal["world", "folder"]
    needs: tuple[str, ...]  # of paths: what this experiment cannot do without
    verify: Literal["stat", "full"]
    pool_images: int | None  # so many of the pool's are drawn from and fine-tuned on; null: all
    objects: (
        str | None
    )  # name of the table set whose rows are the objects that triplets count; null without people
    object_ids: Mapping[str, ObjectIds]  # by image set
    sets: Mapping[str, SetSettings]

    def __post_init__(self) -> None:
        at_least("data", 3, pool_images=3 if self.pool_images is None else self.pool_images)
        if self.objects is not None and self.objects not in self.sets:
            raise ValueError(f"data.objects: expected one of {', '.join(self.sets)}, found {self.objects!r}")

    def drawn(self, name: str) -> bool:
        """Whether a set is a part of the drawn world, and not a file of this machine that is measured on beside it."""
        path = self.sets[name].path
        return self.source == "world" and path is not None and path.partition("/")[0] in WORLD_FILES


@dataclass(frozen=True)
class FeatureRows:
    """Precomputed rows: a features set, and the image set whose ids select from it ('' takes all rows)."""

    features: str
    images: str


@dataclass(frozen=True)
class ModelSettings:
    """A backbone: an architecture with weights, or precomputed features."""

    name: str
    library: Literal["timm", "open_clip", "transformers", "features", "pixels", "histogram"]
    architecture: str  # timm's or open_clip's name; transformers: a repository, or a model type
    tag: str  # open_clip: of the pretrained weights; transformers: a revision; '' for timm, whose names hold it
    weights: Literal["pretrain", "file", "hub", "random", ""]
    weights_set: str  # weights=file: the set with the .safetensors file, or the folder that the library loads
    model_args: Mapping[str, Any]
    image_size: int  # pixels; 0 is the model's own
    feature: Literal["pooled", "output", ""]
    rows: Mapping[str, FeatureRows]  # library=features: by image set
    licence: str


@dataclass(frozen=True)
class ViceSettings:
    """How VICE is fitted.

    dim: d, dimensions before pruning. prior: `gaussian` or `laplace`; spike, slab: its scales; pi: weight of
    the spike. lr: Adam's rate. batch: triplets a step. max_epochs: where a fit that has not converged
    stops. burn_in: epochs before convergence may be declared. window: epochs over which the number
    of kept dimensions must not change. k: a dimension is kept if more than k objects stay in it.
    alpha: false discovery rate. init_loc: loc starts as |N(0, init_loc^2)|. init_scale: scale starts
    constant. samples: posterior samples behind the validation metrics.
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
class SoftLabelsSettings:
    """Monte-Carlo estimate of the triplet distribution from the posterior."""

    samples: int
    seed: int

    def __post_init__(self) -> None:
        at_least("soft_labels", 1, samples=self.samples)


@dataclass(frozen=True)
class PixelsSettings:
    """What pixels mean where a file does not say so, see alignet.data.pixels.PixelPolicy; for every model alike."""

    range: tuple[float, ...] | None  # low, high
    bands: tuple[int, ...] | None
    transparency: Literal["white", "drop"]
    max_pixels: int

    def __post_init__(self) -> None:
        for name, value, count in (("range", self.range, 2), ("bands", self.bands, 3)):
            if value is not None and len(value) != count:
                raise ValueError(f"pixels.{name}: expected null or {count} numbers, found {list(value)}")
        at_least("pixels", 1, max_pixels=self.max_pixels)


@dataclass(frozen=True)
class EmbedSettings:
    """A backbone over an image set."""

    batch: int
    shard: int
    precision: Literal["float32", "float16"]  # of what is stored
    decode: Literal["exact", "fast"]
    compute: Literal["float32", "bf16"]  # of the forward pass
    unreadable: Literal["stop", "skip"]

    def __post_init__(self) -> None:
        at_least("embed", 1, batch=self.batch, shard=self.shard)


@dataclass(frozen=True)
class MapSource:
    """Which features and which human triplets an affine map is learned on."""

    images: str
    triplets: str
    fold_column: str  # of the object table: rows of one value share a fold; '' lets each object fold alone


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
class DatasetSettings:
    """One evaluation: a family of metrics over named features and data, for the settings it makes sense for."""

    family: str
    images: Mapping[str, str]  # name in the family -> image set, embedded by the evaluated model
    data: Mapping[str, str]  # name in the family -> data set
    nodes: Mapping[str, str]  # name in the family -> another node of the graph
    settings: tuple[str, ...]  # rows of the table
    options: Mapping[str, Any]


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
    smoothing: of the labels, student only. text_width: of the text tower, teacher only. reduced: the share of the
    steps, at the beginning, that see the pictures at half of their size.
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
    reduced: float = 0.0

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
        if not 0 <= self.reduced <= 1:
            raise ValueError(f"pretrain reduced: expected a share in 0..1, found {self.reduced}.")


@dataclass(frozen=True)
class ViceSection:
    """Which triplets VICE is fitted to and measured on, and how it is fitted; or an embedding fitted elsewhere."""

    train: str | None  # null with a published embedding
    val: str | None  # null with a published embedding: nothing is measured then
    published: str | None  # a set of kind embedding, taken instead of a fit
    settings: ViceSettings

    def __post_init__(self) -> None:
        if self.published is None and (self.train is None or self.val is None):
            raise ValueError(
                "vice: expected the names of triplet sets for train and val, or of a published embedding, found "
                f"train {self.train}, val {self.val}; set them"
            )


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
class PretrainSection:
    """The world's own teacher and student."""

    teacher: TrainingSettings
    student: TrainingSettings


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

    roles: tuple[Literal["alignet", "distillation", "ud", "teacher", "dataset"], ...]
    precision: Literal["float32", "float16", "bfloat16"]
    scores: tuple[str, ...]  # evaluations that the model card tells; others leave the export as it is


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
class EvaluateSection:
    """What is measured, on what, for which rows of the table."""

    bootstrap: int
    seed: int
    rows: tuple[str, ...]  # settings that files of conf/also measure in
    moved: tuple[str, ...]  # of these, whose distances are compared with the original student's
    about: str | None  # image set that files of conf/also look at
    datasets: Mapping[str, DatasetSettings]


@dataclass(frozen=True)
class Measure:
    """One axis of an ablation's figure: a metric; over several data sets, their mean."""

    title: str
    metric: str
    part: str  # where an evaluation has several scores of a metric, which: `1-shot`; '' otherwise
    datasets: tuple[str, ...]  # of evaluate.datasets

    def __post_init__(self) -> None:
        if not self.datasets:
            raise ValueError(f"ablation.measures: expected a data set for {self.title!r}, found none")


@dataclass(frozen=True)
class AblationSettings:
    """Which values are tried, and what is shown of each; every combination is a job, see cli.jobs_of."""

    name: str
    title: str
    figure: Literal["points", "cloud"]  # each point's measures | the first measure against the second
    over: Mapping[str, tuple[Any, ...]]  # key of the configuration -> its values
    seeds: tuple[int, ...]  # every job once with each; none: with the configuration's own
    rows: tuple[str, ...]  # rows of the table that a job is measured by
    beside: tuple[str, ...]  # rows that no job changes, for comparison
    measures: tuple[Measure, ...]
    values: Mapping[str, Any]  # what the experiments of one data set have in common, for interpolation
    point: Mapping[str, Any]  # of a job: its values; filled in by cli.jobs_of

    def __post_init__(self) -> None:
        least = 2 if self.figure == "cloud" else 1
        if not self.rows or len(self.measures) < least or not all(self.over.values()):
            raise ValueError(
                f"ablation: expected rows, {least} or more measures, and values for each key of over, found rows "
                f"{list(self.rows)}, {len(self.measures)} measures, over {dict(self.over)}"
            )


@dataclass(frozen=True)
class ReportSettings:
    """The page, its table and its picture.

    table: the evaluations in the table that is printed; empty: all, as on the page. headline: the data set of the
    summary; null: the first that asks for odd ones out, else for agreement. published: which of this run's data sets
    are read against the paper's (report.published.KEYS), or the mean of several. redistribute: false or a sentence:
    pictures on the page may not be handed on. licences: what data -> its licence.
    """

    title: str
    table: tuple[str, ...]
    headline: str | None
    published: Mapping[str, str | tuple[str, ...]]
    redistribute: bool | str
    licences: Mapping[str, str]
    picture_images: str | None  # null: no picture
    picture_labels: str | None  # a table with a row for each of those images; null: by cluster of the teacher
    id_column: str
    id_prefix: str
    concept_column: str
    category_column: str


@dataclass(frozen=True)
class DoctorSettings:
    """How closely `doctor` looks; never part of an artifact's identity."""

    images: int | Literal["all"]  # images of each set that are decoded
    seconds: float  # about how long one measurement may take
    seed: int  # of what is drawn for a check
    assume: Mapping[
        str, int
    ]  # set -> its images or rows (features: columns), where it is not on this machine

    def __post_init__(self) -> None:
        positive("doctor", seconds=self.seconds)
        at_least("doctor", 0, images=0 if self.images == "all" else self.images, seed=self.seed)


@dataclass(frozen=True)
class SurveySettings:
    """A page that asks people for odd-one-out choices, and what is made of their answers.

    images: an image set of data.sets, or a folder. objects: so many of its images at most, drawn at random; 0
    takes all. after: ids of earlier surveys, whose images in their order are asked about again, and whose questions are
    not. triplets: questions in all. trials: of these, asked of each participant.
    """

    folder: str
    images: str
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
    max_megabytes: float
    title: str
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
        for name in ("objects", "catch", "practice", "max_misses", "fast_ms", "seed"):
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


@dataclass(frozen=True)
class Config:
    """Everything that a command line configures."""

    experiment_name: str
    banner: str
    seed: int
    seeds: tuple[int, ...]
    role: str | None
    force: bool
    data: DataSettings
    world: WorldSettings | None
    pretrain: PretrainSection | None
    teacher: ModelSettings
    student: ModelSettings
    baselines: Mapping[str, ModelSettings]
    vice: ViceSection | None
    soft_labels: SoftLabelsSettings
    pixels: PixelsSettings
    embed: EmbedSettings
    distill: DistillSection
    cluster: ClusterSettings
    triplets: TripletsSettings
    smooth: SmoothSettings | None
    finetune: FinetuneSection
    export: ExportSection
    levels: LevelsSection
    evaluate: EvaluateSection
    ablation: AblationSettings | None
    report: ReportSettings
    doctor: DoctorSettings
    plan: PlanSettings
    survey: SurveySettings
    paths: PathsSettings
    runtime: RuntimeSettings

    @property
    def models(self) -> dict[str, ModelSettings]:
        """Every model by the name that a node's role gives it."""
        return {"teacher": self.teacher, "student": self.student} | dict(self.baselines)

    def __post_init__(self) -> None:
        taken = {"teacher", "student"} & set(self.baselines)
        if taken:
            raise ValueError(
                f"baselines: expected names beside teacher and student, found {', '.join(taken)}"
            )
        for name in self.data.needs:
            if not getattr(self.paths, name):
                raise ValueError(
                    f"paths.{name}: experiment={self.experiment_name} needs it and it has no default; data/README.md "
                    f"says what belongs there: add paths.{name}=<where it is>"
                )
        for name in self.export.scores:
            if name not in self.evaluate.datasets:
                raise ValueError(
                    f"export.scores: expected names of evaluate.datasets ({', '.join(self.evaluate.datasets)}), "
                    f"found {name!r}"
                )
        known = {setting for dataset in self.evaluate.datasets.values() for setting in dataset.settings}
        unmade = known & {"alignet", "distillation"} - set(self.finetune.roles)
        if unmade:
            raise ValueError(
                f"evaluate.datasets: expected settings that finetune.roles makes, found {', '.join(sorted(unmade))} as "
                f"well; add it to finetune.roles or take it out of the data sets"
            )
        if self.smooth and self.finetune.settings.sampling != "in_batch":
            raise ValueError(
                "smooth: expected null where finetune.settings.sampling is triplets, whose answers come from the "
                "teacher as it is; add smooth=null"
            )


def parse(values: Mapping[str, Any]) -> Any:
    """The configuration from plain values; ValueError names the key, what was expected and found."""
    return build(Config, values, "")
