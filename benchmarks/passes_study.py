"""How many images must pass through a student until it agrees with people: all triplets of a batch, or separate ones.

    uv run python -m benchmarks.passes_study --photos FOLDER [--store FOLDER] [--world-store FOLDER] [--only tune ...]

An image that goes forward and backward in one step is one pass; an image that stands in several triplets of a step is
computed, and counted, once. Each way trains at a constant rate after its warm-up, so that every step is a point where
one could stop, and is measured every few steps on the choices that settings may be chosen on (of photographs: the tune
half). A trial ends some steps after it has reached the target. The state at the first point at or above the target is
measured on the report half as well, in the three trials of each way that are reported, and nowhere else.

    tune    settings of both ways, with a seed that is not reported
    report  the chosen settings, seeds 0, 1, 2
    slower  all triplets of a batch at half of the rate, whose curves are less noisy, seeds 0, 1, 2
    draws   all triplets of a batch: images drawn at random, or from some clusters, seeds 0, 1, 2
    world tune, world   the same in the embedded world, where one set of choices serves for both

Every trial is added to passes.jsonl as it ends, and one that is there is not run again. What the trials need of a store
(features, map, clusters) is made there if it is missing. An hour and a half on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignet.backbones import Encoder, ImageFiles
from alignet.config import FinetuneSettings, build
from alignet.pipeline.runner import Pipeline
from alignet.pipeline.stage_run import StageRun
from alignet.student.finetune import PoolTeacher, TripletAnswers, finetune

CURVES = Path(__file__).parent / "passes.jsonl"
SEEDS = (0, 1, 2)
TUNING = 10  # the seed that settings are chosen with
TARGETS = {"photos": 0.48, "world": 0.60}
CONSTANT = (
    100_000  # steps of a cosine of which the beginning is walked: the rate stays within 0.01% of its peak
)
DRAWN = 50_000  # separate triplets, as conf/experiment/photos.yaml


@dataclass(frozen=True)
class Trial:
    """A way of training, by what differs from the experiment's own settings."""

    bench: str  # photos | world
    sampling: str  # in_batch | triplets
    batch: int  # images (in_batch) or triplets of a step
    lr: float
    tau_teacher: float
    seed: int
    clusters: int = 0  # in_batch: 0 draws images at random
    drawn: str = ""  # triplets: boundary (of clusters) | random
    smooth: bool = False  # whether the teacher's features are smoothed as the experiment configures it
    steps: int = (
        CONSTANT  # of the cosine along which the rate falls after its warm-up; CONSTANT: it stays as it is
    )
    most: int = 9600  # passes at which a trial ends that has not reached the target
    least: int = 0  # passes up to which a trial goes on that has
    report: bool = False  # whether the report half is measured where the target is reached


# What was chosen by the trials of part `tune`.
IN_BATCH = Trial("photos", "in_batch", 48, lr=6e-4, tau_teacher=0.14, seed=TUNING, smooth=True, most=2880)
SEPARATE = Trial(
    "photos", "triplets", 16, lr=3e-4, tau_teacher=0.28, seed=TUNING, drawn="boundary", smooth=True, most=4800
)
WORLD_IN_BATCH = Trial("world", "in_batch", 32, lr=1e-4, tau_teacher=1.0, seed=TUNING, most=6400)
WORLD_SEPARATE = Trial(
    "world", "triplets", 11, lr=1e-4, tau_teacher=1.0, seed=TUNING, drawn="boundary", most=6400
)


@dataclass(frozen=True)
class Choices:
    """People's choices about images: pixels (m, 3, H, W) uint8 and triplets (n, 3), rows of them, odd one last."""

    pixels: Tensor
    triplets: np.ndarray

    def accuracy(self, encoder: Encoder) -> float:
        """Odd-one-out accuracy of an encoder's features by dot product; a tie is wrong."""
        from alignet.evaluate.odd_one_out import dot_products
        from alignet.triplets import decided

        with torch.no_grad():
            parts = [encoder.features(encoder.normalise(part)) for part in self.pixels.split(50)]
        dots = dot_products(torch.cat(parts).double(), self.triplets)
        return float(decided(dots.T)[0].double().mean())


@dataclass(frozen=True)
class Frozen(Encoder):
    """An EfficientNet whose first blocks do not train: what they make of the very same pixels is computed once.

    Draws of images and of their random changes follow from (seed, step), so trials that differ in rate or temperature
    see the same pixels, and the photographs that are measured stay the same. Results are the same bit for bit.
    """

    first: int = 0  # blocks that do not train
    memory: dict[bytes, Tensor] = field(default_factory=dict)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features (b, p), as Encoder gives them."""
        network: Any = self.module
        key = hashlib.sha1(images.contiguous().numpy().data).digest()
        if key not in self.memory:
            with torch.no_grad():
                held = network.bn1(network.conv_stem(images.contiguous(memory_format=torch.channels_last)))
                self.memory[key] = network.blocks[: self.first](held)
        held = network.bn2(network.conv_head(network.blocks[self.first :](self.memory[key])))
        return network.forward_head(held, pre_logits=True)


@dataclass
class Bench:
    """A student, its pool, its teacher and people's choices, out of a store."""

    name: str
    encoder: Encoder
    initial: Mapping[str, Tensor]  # the student's state before training
    pool: Tensor  # (m, 3, H, W) uint8
    original: (
        np.ndarray | None
    )  # (m, p) the student's features before training, where its answers are retained
    teacher: dict[bool, np.ndarray]  # smoothed or not -> (m, q) mapped features
    clusters: np.ndarray  # (m,)
    settings: FinetuneSettings
    choices: dict[str, Choices]  # tune, and report where there is one
    draws: tuple[Any, ...] = ()  # what the draws of images in the last trial followed from

    def answers(self, trial: Trial) -> PoolTeacher | TripletAnswers:
        """The teacher as fine-tuning takes it."""
        from alignet.teacher.labelling import label
        from alignet.teacher.sampling import cluster_boundary, random_triplets

        features = self.teacher[trial.smooth]
        if trial.sampling == "in_batch":
            return PoolTeacher(features, self.clusters)
        if trial.drawn == "random":
            drawn = random_triplets(len(features), DRAWN, trial.seed)
        else:
            drawn = cluster_boundary(self.clusters, DRAWN, trial.seed)
        return TripletAnswers(*label(features, drawn))


class Reached(Exception):
    """A trial is over."""


class Watch:
    """Stands where checkpoints would: called after every step, it measures the student as it is."""

    def __init__(self, bench: Bench, trial: Trial, rows: Any):
        """rows(step): the images of a step."""
        self.bench, self.trial, self.rows = bench, trial, rows
        self.passes, self.points = 0, [[0, 0, bench.choices["tune"].accuracy(bench.encoder)]]
        self.report: float | None = None
        self.crossed = False

    def newest(self) -> int:
        """No earlier work."""
        return 0

    def due(self) -> bool:
        """After every step."""
        return True

    def save(self, step: int, *_: Any) -> None:
        """Count the passes of the step, measure where it is time to, and end the trial where it is over."""
        self.passes += len(self.rows(step - 1))
        if step % 2 and step < self.trial.steps:
            return
        found = self.bench.choices["tune"].accuracy(self.bench.encoder)
        self.points.append([step, self.passes, round(found, 5)])
        if found >= TARGETS[self.trial.bench] and not self.crossed:
            self.crossed = True
            if self.trial.report:
                self.report = self.bench.choices["report"].accuracy(self.bench.encoder)
        if self.passes >= self.trial.most or (self.crossed and self.passes >= self.trial.least):
            raise Reached


def run(bench: Bench, trial: Trial) -> dict[str, Any]:
    """One trial: its curve as [steps, passes, accuracy], and where it reached the target."""
    from alignet.student.finetune import _batches
    from alignet.teacher.labelling import label_entropy, teacher_similarities
    from alignet.teacher.sampling import random_triplets

    bench.encoder.module.load_state_dict(dict(bench.initial))
    draws = (trial.sampling, trial.batch, trial.clusters, trial.drawn, trial.seed)
    if isinstance(bench.encoder, Frozen) and draws != bench.draws:
        bench.encoder.memory.clear()
    bench.draws = draws
    teacher = bench.answers(trial)
    settings = replace(
        bench.settings, sampling=trial.sampling, batch=trial.batch, lr=trial.lr, tau_teacher=trial.tau_teacher,
        clusters_per_batch=trial.clusters, seed=trial.seed, steps=trial.steps,
    )  # fmt: skip
    batches = _batches(teacher, len(bench.pool), settings)
    watch = Watch(bench, trial, lambda step: batches.rows(step, 0))
    began = time.monotonic()
    with contextlib.suppress(Reached), contextlib.redirect_stderr(io.StringIO()):
        finetune(bench.encoder, bench.pool, teacher, settings, original=bench.original, checkpoints=watch)  # type: ignore[arg-type]
    sims = (
        teacher.sims
        if isinstance(teacher, TripletAnswers)
        else teacher_similarities(teacher.features, random_triplets(len(teacher.features), DRAWN, 0))
    )
    return {
        "trial": asdict(trial), "points": watch.points, "passes": passes_to(watch.points, TARGETS[trial.bench]),
        "report": watch.report, "label_entropy": label_entropy(sims, trial.tau_teacher),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def passes_to(points: list[list[float]], target: float) -> float | None:
    """Passes at the first measured point at or above the target; None if there is none."""
    return next((passes for _, passes, found in points if found >= target), None)


def steadily(points: list[list[float]], target: float) -> float | None:
    """Passes at the last of the first three points in a row whose mean is at or above the target; None without."""
    for three in zip(points, points[1:], points[2:]):
        if sum(found for _, _, found in three) / 3 >= target:
            return three[-1][1]
    return None


def open_bench(name: str, overrides: list[str]) -> Bench:
    """Everything that trials need, out of a store, where it is made if it is missing."""
    from alignet.data.features import rows_for
    from alignet.pipeline import payloads
    from alignet.pipeline.cli import load
    from alignet.pipeline.torch_setup import set_up
    from alignet.stages.finetune import in_memory

    pipeline = Pipeline(
        load([*overrides, "finetune.settings.clusters_per_batch=4"])
    )  # it needs the clusters then
    set_up(pipeline.config.runtime)
    work = stage_run(pipeline, "finetune[alignet]")
    settings = build(FinetuneSettings, work.section["settings"], "finetune.settings")
    encoder = payloads.encoder(work, payloads.base_weights(work))
    source = payloads.images(work, "images")
    ids = list(source.ids)
    found, have = payloads.mapped_features(work.inputs["features"], work.inputs.get("map"))
    teacher = {pipeline.config.smooth is not None: found[rows_for(ids, have)]}
    if pipeline.config.smooth is not None:
        plain = stage_run(Pipeline(load([*overrides, "smooth=null"])), "finetune[alignet]")
        found, have = payloads.mapped_features(plain.inputs["features"], plain.inputs.get("map"))
        teacher[False] = found[rows_for(ids, have)]
    original = None
    if "original" in work.inputs:
        found, have = payloads.embedding(work.inputs["original"])
        original = found[rows_for(ids, have)]
    if settings.frozen:
        shared = {key: getattr(encoder, key) for key in Encoder.__dataclass_fields__}
        first = sum(one.startswith("blocks.") for one in settings.frozen)
        cached = Frozen(**shared, first=first)
        probe = torch.randn(2, *encoder.data_config["input_size"])
        assert torch.equal(cached.features(probe), encoder.features(probe))
        encoder = cached
    clusters = payloads.assignment(work.inputs["clusters"])
    return Bench(
        name, encoder, {key: value.clone() for key, value in encoder.module.state_dict().items()},
        in_memory(ImageFiles(ids, payloads.opener(work, source), encoder), 1, 0), original, teacher,
        clusters[rows_for(ids, have)], settings, read_choices(pipeline, name, encoder),
    )  # fmt: skip


def stage_run(pipeline: Pipeline, key: str) -> StageRun:
    """A node's inputs as its stage would see them; what is missing of them is made."""
    node = pipeline.graph[key]
    pipeline.make_all(list(node.inputs.values()))
    inputs = {name: pipeline.state(parent).artifact for name, parent in node.inputs.items()}
    sources = {
        name: pipeline.locate(parent) for name, parent in node.inputs.items() if parent.startswith("index[")
    }
    nowhere = Path(os.devnull)
    return StageRun(node, node.section, inputs, sources, nowhere, nowhere, pipeline.config.runtime)  # type: ignore[arg-type]


def read_choices(pipeline: Pipeline, name: str, encoder: Encoder) -> dict[str, Choices]:
    """The choices to choose by, and the report half; in the world its choices about fresh pictures, one set."""
    from alignet.pipeline import payloads
    from alignet.stages.finetune import in_memory

    image_set = {"photos": "photographs", "world": "fresh"}[name]
    datasets = {"photos": {"tune": "tune", "report": "report"}, "world": {"tune": "all"}}[name]
    opened = stage_run(pipeline, f"embed[student.{image_set}]")
    source = payloads.images(opened, "images")
    ids, choices = list(source.ids), {}
    for half, dataset in datasets.items():
        work = stage_run(pipeline, f"evaluate[original.{dataset}]")
        if "object_ids" in work.section:
            rows = payloads.object_rows(work.section["object_ids"], work.sources["data.objects"], ids)
            triplets = rows[payloads.triplets(work, "data.triplets", len(rows))]
        else:
            triplets = payloads.triplets(work, "data.triplets", len(ids))
        used, triplets = np.unique(triplets, return_inverse=True)
        assert used[0] >= 0
        files = ImageFiles([ids[row] for row in used], payloads.opener(opened, source), encoder)
        choices[half] = Choices(in_memory(files, 1, 0), triplets.reshape(-1, 3))
    return choices


def trials_by_part() -> dict[str, list[Trial]]:
    """Every trial of the study, in the order in which they are run."""
    own = [replace(IN_BATCH, seed=seed, report=True, least=960) for seed in SEEDS]
    separate = [replace(SEPARATE, seed=seed, report=True, least=1920) for seed in SEEDS]
    slower = [replace(IN_BATCH, lr=3e-4, seed=seed, least=960) for seed in SEEDS]
    draws = [replace(IN_BATCH, seed=seed, clusters=clusters) for clusters in (6, 8, 12) for seed in SEEDS]
    world_tune = [
        replace(way, lr=lr, tau_teacher=tau)
        for way in (WORLD_IN_BATCH, WORLD_SEPARATE)
        for lr in (1e-4, 3e-4)
        for tau in (0.5, 1.0)
    ]
    world = [
        replace(way, lr=3e-4, tau_teacher=0.5, seed=seed)
        for way in (WORLD_IN_BATCH, replace(WORLD_IN_BATCH, clusters=8), WORLD_SEPARATE)
        for seed in SEEDS
    ]
    return {
        "tune": tuning(), "report": own + separate, "slower": slower, "draws": draws, "world tune": world_tune,
        "world": world,
    }  # fmt: skip


def tuning() -> list[Trial]:
    """What was tried on the tune half before settings were chosen."""
    own = [
        {"lr": 3e-4, "tau_teacher": 0.28}, {"lr": 6e-4, "tau_teacher": 0.28}, {"lr": 12e-4, "tau_teacher": 0.28},
        {"lr": 6e-4, "tau_teacher": 0.14}, {"lr": 6e-4, "tau_teacher": 0.56},
        *({"most": 1440} | one for one in (
            {"lr": 3e-4, "tau_teacher": 0.14}, {"lr": 3e-4, "tau_teacher": 0.56},
            {"lr": 3e-4, "tau_teacher": 0.28, "smooth": False}, {"lr": 2e-4, "tau_teacher": 0.28},
            {"lr": 3e-4, "tau_teacher": 0.07}, {"lr": 6e-4, "tau_teacher": 0.07},
            {"lr": 3e-4, "tau_teacher": 0.14, "batch": 24},
        )),
    ]  # fmt: skip
    separate = [
        *({"lr": lr, "tau_teacher": 0.28, "smooth": False} for lr in (3e-4, 6e-4)), {"lr": 3e-4, "tau_teacher": 0.28},
        *({"most": 9600, "steps": 50} | one for one in (
            {"lr": 3e-4, "tau_teacher": 0.28}, {"lr": 3e-4, "tau_teacher": 0.14}, {"lr": 1.5e-4, "tau_teacher": 0.14},
        )),
    ]  # fmt: skip
    return [
        replace(way, **changed) for way, tried in ((IN_BATCH, own), (SEPARATE, separate)) for changed in tried
    ]


def main() -> None:
    """Run what is missing of the parts asked for, then draw."""
    given = arguments().parse_args()
    options = {
        "photos": [
            "experiment=photos",
            f"paths.photos={given.photos}",
            f"paths.artifacts={given.store}",
            "runtime.threads=1",
        ],
        "world": ["experiment=world", f"paths.artifacts={given.world_store}", "runtime.threads=1"],
    }
    benches: dict[str, Bench] = {}
    for part, trials in trials_by_part().items():
        for trial in trials if part in given.only else []:
            if trial.seed not in given.seeds or _is_there(part, trial):
                continue
            if trial.bench not in benches:
                benches[trial.bench] = open_bench(trial.bench, options[trial.bench])
            add(record := {"part": part} | run(benches[trial.bench], trial))
            print(
                part, asdict(trial), record["passes"], record["report"], f"{record['seconds']} s", flush=True
            )
    if given.picture:
        draw(recorded(), given.picture)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.passes_study", description=(__doc__ or "").splitlines()[0]
    )
    parts = tuple(trials_by_part())
    parser.add_argument(
        "--photos", type=Path, help="the folder of real photographs and choices (data/README.md)"
    )
    parser.add_argument("--store", type=Path, default=Path("artifacts"), help="a store for the photographs")
    parser.add_argument("--world-store", type=Path, default=Path("artifacts"), help="a store for the world")
    parser.add_argument(
        "--only", nargs="*", choices=parts, default=parts, metavar="PART", help=f"of: {', '.join(parts)}"
    )
    seeds = (*SEEDS, TUNING)
    parser.add_argument("--seeds", nargs="*", type=int, default=seeds, help="trials of these seeds alone")
    parser.add_argument("--picture", type=Path, help="where to draw the curves, such as docs/passes.png")
    return parser


def _is_there(part: str, trial: Trial) -> bool:
    return any(one["part"] == part and one["trial"] == asdict(trial) for one in recorded())


def recorded() -> list[dict[str, Any]]:
    """The trials in passes.jsonl."""
    if not CURVES.is_file():
        return []
    return [json.loads(line) for line in CURVES.read_text(encoding="utf-8").splitlines()]


def add(record: dict[str, Any]) -> None:
    """Append a trial to passes.jsonl as a line, in one write, so that several processes may share the file."""
    with open(CURVES, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def draw(records: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against image passes: each way on both benches, and how batches are drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ways = {
        "all triplets of a batch": (
            "#c0392b",
            lambda trial: trial["sampling"] == "in_batch" and not trial["clusters"],
        ),
        "separate triplets": ("#2471a3", lambda trial: trial["sampling"] == "triplets"),
    }
    drawn = {
        f"{count} clusters a batch" if count else "images at random": (
            colour, lambda trial, count=count: trial["sampling"] == "in_batch" and trial["clusters"] == count
        )
        for count, colour in ((0, "#c0392b"), (6, "#555555"), (8, "#b9770e"), (12, "#229954"))
    }  # fmt: skip
    panels = (
        ("photographs, tune half", ("report",), "photos", ways), ("embedded world", ("world",), "world", ways),
        ("photographs: batches", ("report", "draws"), "photos", drawn),
    )  # fmt: skip
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.6), constrained_layout=True)
    for axis, (title, parts, bench, lines) in zip(axes, panels):
        for name, (colour, wanted) in lines.items():
            found = [one for one in records if one["part"] in parts and one["trial"]["bench"] == bench]
            for row, one in enumerate(one for one in found if wanted(one["trial"])):
                _, passes, accuracy = zip(*one["points"])
                axis.plot(passes, accuracy, color=colour, lw=1.2, alpha=0.8, label="" if row else name)
        axis.axhline(TARGETS[bench], color="#999999", lw=0.8, ls=":")
        axis.set(title=title, xlabel="image passes", ylabel="odd-one-out accuracy")
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
