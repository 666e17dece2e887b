"""Short measurements of the real code on this machine, from which `estimates` reckons whole nodes.

Each runs the function that the stage runs, on made-up data of the real shape where that takes no longer than about
`doctor.seconds`, and on less otherwise; then it says so. Every measurement is made once.

Shape suffixes: b images in a batch, m objects, n triplets, p features.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import hashlib
import io
import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignet.doctor.config_checks import images_a_step
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources

_OPENED = 24  # images that are opened to time it


@dataclass(frozen=True)
class Memory:
    """Bytes of this machine's memory and bytes of the GPU's, which are never added to each other."""

    host: int = 0
    gpu: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.host + other.host, self.gpu + other.gpu)

    def times(self, factor: float) -> Memory:
        """As much of both by a factor."""
        return Memory(round(self.host * factor), round(self.gpu * factor))


def on(device: str, number: float) -> Memory:
    """Bytes where a device has its memory."""
    return Memory(gpu=round(number)) if device == "cuda" else Memory(round(number))


@dataclass
class Peak:
    """By how much memory grew at most while something ran."""

    memory: Memory = field(default_factory=Memory)


@contextmanager
def watched(device: str) -> Iterator[Peak]:
    """The growth of memory at its peak while what is inside runs on a device; the GPU's counts on `cuda` alone."""
    import torch

    found = Peak()
    gpu = device == "cuda"
    _forget_peak()
    before = _resident("VmRSS"), torch.cuda.memory_allocated() if gpu else 0
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        yield found
    finally:
        after = _resident("VmHWM"), torch.cuda.max_memory_allocated() if gpu else 0
        found.memory = Memory(*(max(0, late - early) for early, late in zip(before, after)))


def _forget_peak() -> None:
    gc.collect()
    trim = getattr(
        ctypes.CDLL(None), "malloc_trim", None
    )  # of glibc, which keeps what was freed (see set_up)
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # no Linux, or not allowed: the peak since the start is a fair upper bound
        return


def _resident(which: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at the peak (VmHWM); elsewhere than on Linux the peak."""
    try:
        found = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        found = None
    if found:
        return int(found.group(1)) * 1024
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def saved_bytes(encoder: Any, images: Any, reduced: bool) -> int:
    """Bytes that the backward pass of these images keeps of the forward pass, parameters not counted.

    reduced: in bf16, as fine-tuning does. Only parameters with requires_grad are led back to.
    """
    import torch

    held = {value.untyped_storage().data_ptr() for value in encoder.module.state_dict().values()}
    found: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor  # alive until the graph is dropped, so no address comes twice

    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=reduced),
    ):
        features = encoder.features(images)
    del features
    return sum(found.values())


def seconds_of(act: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, with the GPU's work done where one is in use."""
    import torch

    began = time.perf_counter()
    act()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def rate(run: Callable[[int], float], first: int, most: float, at_most: int) -> tuple[float, float]:
    """Seconds of a step, and of what a run costs beside its steps; run(steps) gives a run's seconds.

    From short and longer runs, together about `most` seconds, of no more than `at_most` steps beyond the first; of
    equal runs the fastest counts, since other work on the machine only ever adds. Where it disturbed the short ones
    so much that nothing is left between the two, the longer one alone counts.
    """
    run(first)  # caches and kernels settle
    short = _fastest(lambda: run(first), most / 4)
    more = first + max(2, min(at_most, int(most / 2 / max(short / first, 1e-5))))
    long = _fastest(lambda: run(more), most / 2)
    step = (long - short) / (more - first)
    if step < 0.1 * long / more:
        step = long / more
    return step, max(short - first * step, 0.0)


def _fastest(run: Callable[[], float], most: float) -> float:
    """The least of up to five results, as many as `most` seconds allow, at least one."""
    found = [run()]
    while len(found) < 5 and sum(found) + found[-1] < most:
        found.append(run())
    return min(found)


@dataclass(frozen=True)
class Forward:
    """A network on this machine. seconds: of one image in a batch of `batch`; memory: growth at the peak with it."""

    seconds: float
    batch: int
    width: int
    weights: int  # bytes
    memory: Memory
    load: float  # seconds to build it

    def memory_of(self, images: int) -> Memory:
        """The growth with so many images at once."""
        return self.memory.times(images / self.batch)


@dataclass(frozen=True)
class Step:
    """A step of fine-tuning. seconds: of a whole step; memory: growth at the peak with the whole batch; how: what was
    measured; trained: bytes of the parameters that train."""

    seconds: float
    memory: Memory
    how: str
    trained: int


@dataclass(frozen=True)
class Reading:
    """Opening and preparing an image. seconds: of one; size: bytes of what it becomes."""

    seconds: float
    size: int


@dataclass
class Measurements:
    """All measurements of one run of doctor; each is made when it is first asked for."""

    sources: Sources
    models: Models
    baseline: int = 0  # bytes of a process that has loaded the libraries; set when this is made
    _held: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.baseline = _resident("VmRSS")

    @property
    def budget(self) -> float:
        """Seconds that one measurement may take, about."""
        return self.sources.config.doctor.seconds

    def once(self, key: Any, measure: Callable[[], Any]) -> Any:
        """The result of a measurement, made the first time it is asked for; what it prints is dropped."""
        if key not in self._held:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                self._held[key] = measure()
        return self._held[key]

    # ---- images and networks

    def reading(self, images: str, model: str, pixels: bool = False) -> Reading:
        """Opening and preparing one image of a set for a model (`pixels`: without normalising)."""
        return self.once(("reading", images, model, pixels), lambda: self._reading(images, model, pixels))

    def _reading(self, images: str, model: str, pixels: bool) -> Reading:
        from alignet.evaluate.baselines import colour_histogram, raw_pixels

        encoder = self.models.encoder(model) if model in self.models.networks() else None
        library = self.sources.config.models[model].library
        act: Callable[[Any], Any]
        if encoder is not None:
            act = encoder.pixels if pixels else encoder.transform
        else:
            act = (
                (lambda one: raw_pixels([one]))
                if library == "pixels"
                else (lambda one: colour_histogram([one]))
            )
        opens = self._opens(images)
        size = act(opens[0]()).nbytes  # lazy imports
        began = time.perf_counter()
        for open_it in opens:
            act(open_it())
        return Reading((time.perf_counter() - began) / len(opens), size)

    def _opens(self, images: str) -> list[Callable[[], Any]]:
        """Functions that open some images of a set, without those that cannot be read, which the check of files
        reports; of a set that is not here, a picture as a file of its kind."""
        from PIL import Image

        from alignet.doctor.files import open_one, refusal, sample

        ids = self.sources.read(images) if images in self.sources.config.data.sets else None
        chosen = sample(ids, _OPENED, self.sources.config.doctor.seed) if ids else []
        readable = [name for name in chosen if not refusal(self.sources, images, name)]
        if readable:
            return [lambda name=name: open_one(self.sources, images, name) for name in readable]  # type: ignore[misc]
        world = self.sources.config.world
        size, kind = (
            (world.size, "PNG") if world is not None else (500, "JPEG")
        )  # ImageNet's are about 500 x 400
        coarse = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
        held = io.BytesIO()
        Image.fromarray(coarse).resize((size, size)).save(held, kind)
        return [lambda: Image.open(io.BytesIO(held.getvalue())).convert("RGB")] * _OPENED

    def hashing(self) -> float:
        """Bytes a second that checksums of several files are made with, where the disk is no slower."""

        def measure() -> float:
            block = bytes(32 * 2**20)
            return len(block) / _fastest(lambda: seconds_of(lambda: hashlib.sha256(block).digest()), 1.0)

        return self.once("hashing", measure) * min(4, cores())  # data.index reads four files at a time

    def forward(self, model: str) -> Forward | None:
        """A network's forward pass at embed.batch, or at fewer images where that would take too long."""
        return self.once(("forward", model), lambda: self._forward(model))

    def _forward(self, model: str) -> Forward | None:
        import torch

        encoder = self.models.encoder(model)
        if encoder is None:
            return None
        shape = tuple(encoder.data_config["input_size"])
        one = torch.zeros((1, *shape), device=encoder.device)
        with torch.no_grad():
            encoder.features(one)  # what is kept once is no image's share
        with torch.no_grad(), watched(encoder.device.type) as peak:
            batch, taken = 1, _fastest(lambda: seconds_of(lambda: encoder.features(one)), self.budget / 8)
            while batch < self.sources.config.embed.batch and 4 * taken < self.budget / 2:
                batch = min(4 * batch, self.sources.config.embed.batch)
                taken = self._batch(encoder, one.expand(batch, *shape).contiguous())
        taken /= batch
        weights = sum(value.numel() * value.element_size() for value in encoder.module.state_dict().values())
        return Forward(taken, batch, encoder.width, weights, peak.memory, self.models.seconds[model])

    def _batch(self, encoder: Any, images: Any) -> float:
        encoder.features(images)
        return _fastest(lambda: seconds_of(lambda: encoder.features(images)), self.budget / 4)

    def step(self) -> Step | None:
        """A step of fine-tuning through alignet.student.finetune.finetune, on pictures of noise and random answers."""
        return self.once("step", self._step)

    def _step(self) -> Step | None:
        forward = self.forward("student")
        if forward is None:
            return None
        settings = self.sources.config.finetune.settings
        drawn = settings.sampling == "triplets"
        part = (
            math.ceil(settings.batch / settings.accumulate) if drawn else settings.batch
        )  # backpropagated at once
        images = math.ceil(images_a_step(self.sources) / settings.accumulate)
        whole = 3 * forward.seconds * images  # backward: about two forward
        least = min(1 if drawn else 8, part)
        trained, once, each = self._training()
        # the start, the gradient and Adam's moments; on a GPU the result as well, which is copied from there
        fixed = on(self.device, 4 * trained + once) + Memory(forward.weights if self.device == "cuda" else 0)
        # what backward needs of each image, and one layer's work
        reckoned = fixed + on(self.device, each * images) + forward.memory_of(images)
        if whole * least / part * 3 > 4 * self.budget:
            how = f"3 forward passes an image; one of {forward.batch} images was measured"
            return Step(whole * settings.accumulate, reckoned, how, trained)
        size = min(part, max(least, round(part * self.budget / whole)))
        steps = max(2, min(8, int(2 * self.budget / (whole * size / part))))
        small = dataclasses.replace(
            settings, batch=size, accumulate=1, warmup=0, tau_student=1e6, clusters_per_batch=0, lr=1e-9, pull=0.0,
            steps=steps + 1,
        )  # fmt: skip
        with watched(self.device) as peak:
            taken = self._finetune(small)
        what = "triplets" if drawn else "images"
        memory = _most(reckoned, scaled(peak.memory, fixed, part / size))
        return Step(
            taken * part / size * settings.accumulate, memory, f"{steps} steps of {size:,} {what}", trained
        )

    def _training(self) -> tuple[int, int, int]:
        """Bytes of the parameters that train; bytes kept for the backward pass of any batch, and of each image."""
        import torch

        from alignet.student.network import attend_by_products

        settings, encoder = self.sources.config.finetune.settings, self.models.encoder("student")
        names = [name for name in encoder.trainable() if not name.startswith(tuple(settings.frozen))]
        held = dict(encoder.module.named_parameters())
        if settings.precision == "bf16":
            attend_by_products(encoder)
        with self._trainable(names):
            two = torch.zeros((2, *encoder.data_config["input_size"]), device=encoder.device)
            first, both = (
                saved_bytes(encoder, two[:count], settings.precision == "bf16") for count in (1, 2)
            )
        trained = sum(held[name].numel() * held[name].element_size() for name in names)
        each = max(both - first, 0)
        return trained + 4 * settings.head * (encoder.width + 1), max(first - each, 0), each

    @contextmanager
    def _trainable(self, names: Collection[str]) -> Iterator[None]:
        """The student with gradients for these parameters alone; as it was afterwards."""
        held = dict(self.models.encoder("student").module.named_parameters())
        flags = {name: value.requires_grad for name, value in held.items()}
        for name, value in held.items():
            value.requires_grad_(name in names)
        try:
            yield
        finally:
            for name, value in held.items():
                value.requires_grad_(flags[name])

    def _finetune(self, settings: Any) -> float:
        """Seconds a step: the difference of a long run and of one of a single step."""
        import torch

        from alignet.student.finetune import PoolTeacher, TripletAnswers, finetune

        encoder = self.models.encoder("student")
        shape = tuple(encoder.data_config["input_size"])
        pool = self.sources.images("pool").number or 1024
        m = max(settings.batch, 3, min(pool, 3 * settings.batch))
        draw = np.random.default_rng(0)
        images = torch.randint(0, 256, (1, *shape), dtype=torch.uint8).expand(m, *shape)
        teacher: Any = PoolTeacher(draw.standard_normal((m, 256)).astype(np.float32), None)
        if settings.sampling == "triplets":
            rows = np.stack([draw.permutation(m)[:3] for _ in range(2 * settings.batch)])
            teacher = TripletAnswers(rows, draw.standard_normal(rows.shape).astype(np.float32))
        original = draw.standard_normal((m, encoder.width)).astype(np.float32) if settings.retain else None

        def run(steps: int) -> float:
            short = dataclasses.replace(settings, steps=steps)
            return seconds_of(lambda: finetune(encoder, images, teacher, short, original=original))

        with self._trainable(encoder.trainable()):  # finetune freezes by itself, and leaves it so
            return rate(run, 1, 2 * self.budget, settings.steps - 1)[0]

    # ---- people

    def vice(self, m: int, n: int) -> tuple[float, float, Memory]:
        """Seconds of a step and of the end of an epoch of VICE for m objects, and the peak memory."""
        return self.once(("vice", m, n), lambda: self._vice(m, n))

    def _vice(self, m: int, n: int) -> tuple[float, float, Memory]:
        import torch

        from alignet.vice.fit import fit_vice

        vice = self.sources.config.vice
        assert vice is not None
        settings = dataclasses.replace(vice.settings, burn_in=0, window=1, max_epochs=1, k=0)
        batch = min(settings.batch, n)

        def run(steps: int) -> float:
            triplets = random_rows(m, batch * steps)
            rows = torch.from_numpy(triplets)
            return seconds_of(lambda: fit_vice(rows, None, objects=m, settings=settings, device=self.device))

        with watched(self.device) as peak:
            step, rest = rate(run, 3, self.budget / 2, 60)
        return step, rest, peak.memory

    @property
    def device(self) -> str:
        """Where the work is done."""
        from alignet.doctor.models import device

        return device(self.sources)

    def soft_labels(self, m: int, d: int, n: int) -> float:
        """Seconds of one posterior sample over n triplets."""
        import torch

        from alignet.vice.soft_labels import mean_probabilities

        def measure() -> float:
            less = min(n, 200_000)
            triplets = torch.from_numpy(random_rows(m, less))
            loc, scale = torch.rand(m, d), torch.full((m, d), 0.1)

            def run() -> Any:
                return mean_probabilities(loc, scale, triplets, samples=2, seed=0)

            run()
            return seconds_of(run) / 2 * n / less

        return self.once(("soft", m, d, n), measure)

    def distill(self, role: str, m: int, p: int, n: int) -> tuple[float, float, Memory]:
        """Seconds of a step, and of the rest of a fit of a map, for n triplets of m objects; peak memory."""
        return self.once(("distill", role, m, p, n), lambda: self._distill(role, m, p, n))

    def _distill(self, role: str, m: int, p: int, n: int) -> tuple[float, float, Memory]:
        import torch

        from alignet.teacher.distill import fit_map

        settings = self.sources.config.distill.settings[role]
        less = min(n, max(settings.batch, 100_000))
        triplets = torch.from_numpy(random_rows(m, less))
        generator = torch.Generator().manual_seed(0)
        features = torch.randn((m, p), generator=generator)
        targets = torch.softmax(torch.randn((less, 3), generator=generator), 1)

        def run(steps: int) -> float:
            short = dataclasses.replace(settings, steps=steps)
            return seconds_of(
                lambda: fit_map(
                    features, triplets, targets, penalty=settings.penalties[0], lr=1e-6, settings=short
                )
            )

        with watched("cpu") as peak:
            step, rest = rate(run, 1, self.budget / 2, 20)
        return step * (n / less if settings.batch >= n else 1), rest * n / less, peak.memory

    # ---- the data set, the measurements of it, the world

    def kmeans(self, n: int, p: int, k: int) -> float:
        """Seconds of one iteration of k-means from one start, over n images."""
        from alignet.teacher.clusters import fit_clusters

        def measure() -> float:
            less = min(n, max(4 * k, 20_000 if p * k < 10**6 else 4_000))
            rows = np.random.default_rng(0).standard_normal((less, p)).astype(np.float32)
            threads = self.sources.config.runtime.threads

            def run(iterations: int) -> float:
                return seconds_of(
                    lambda: fit_clusters(
                        rows, k=min(k, less), seed=0, iterations=iterations, redo=1, threads=threads
                    )
                )

            return rate(run, 1, self.budget / 4, 8)[0] * n / less

        return self.once(("kmeans", n, p, k), measure)

    def drawing(self, pool: int, p: int, count: int, mapped: bool) -> float:
        """Seconds to draw and answer `count` triplets of the pool."""
        from alignet.teacher.labelling import label
        from alignet.teacher.sampling import random_triplets

        def measure() -> float:
            m, less = min(pool, 8_000), min(count, 20_000)  # a large pool is not answered by one Gram matrix
            features = np.random.default_rng(0).standard_normal((m, p)).astype(np.float32)

            def run() -> None:
                label(
                    features,
                    random_triplets(m, min(less, m), 0),
                    transform=(lambda rows: rows) if mapped else None,
                )

            run()
            return seconds_of(run) * count / min(less, m)

        return self.once(("drawing", pool, p, count, mapped), measure)

    def bootstrap(self, m: int, n: int) -> float:
        """Seconds of the bootstrap over m objects of the accuracy on n triplets."""
        from alignet.evaluate.bootstrap import object_draws

        def measure() -> float:
            less = min(n, 4_000)
            units, values = random_rows(max(m, 3), less), np.random.default_rng(0).random((less, 3))
            draws = self.sources.config.evaluate.bootstrap
            object_draws(values[:8], units[:8], draws=draws, seed=0)
            return seconds_of(lambda: object_draws(values, units, draws=draws, seed=0)) * n / less

        return self.once(("bootstrap", m, n), measure)

    def refit(self, n: int, p: int, classes: int = 1000) -> float:
        """Seconds to refit a classifier of p features to the logits of n images."""
        from alignet.evaluate.top1 import refit_head

        def measure() -> float:
            less = min(n, 2_000)
            draw = np.random.default_rng(0)
            return seconds_of(
                lambda: refit_head(draw.standard_normal((less, p)), draw.standard_normal((less, classes)))
            ) * n / less  # fmt: skip

        return self.once(("refit", n, p, classes), measure)

    def smoothing(self, n: int, q: int, p: int, classes: int = 1000) -> float:
        """Seconds of the smoothing of n images with q student and p teacher features."""
        from alignet.teacher.smoothing import class_expectations, smooth

        def measure() -> float:
            less = min(n, 2_000)
            draw = np.random.default_rng(0)
            seen, taught = (draw.standard_normal((less, width)).astype(np.float32) for width in (q, p))
            weights, bias = (
                draw.standard_normal((q, classes)).astype(np.float32) / q**0.5,
                np.zeros(classes, np.float32),
            )
            return (
                seconds_of(lambda: smooth(class_expectations(seen, weights, bias), taught, [0.3])) * n / less
            )

        return self.once(("smoothing", n, q, p), measure)

    def picture(self) -> float:
        """Seconds to draw a picture of the world and write it."""
        from alignet.world.concepts import make_concepts
        from alignet.world.drawing import BACKGROUNDS, draw

        def measure() -> float:
            settings = self.sources.config.world
            assert settings is not None
            looks, rng = make_concepts(settings).looks, np.random.default_rng(0)

            def run() -> None:
                for row in range(60):
                    image = draw(looks[row % len(looks)], row % len(BACKGROUNDS), settings.size, rng)
                    image.save(io.BytesIO(), "PNG")

            run()
            return seconds_of(run) / 60

        return self.once("picture", measure)

    def pretraining(self, role: str) -> tuple[float, Memory]:
        """Seconds of a step of the world's own pretraining, and the peak memory."""
        from alignet.world.pretrain import pretrain_student, pretrain_teacher

        def measure() -> tuple[float, Memory]:
            config = self.sources.config
            assert config.pretrain is not None
            assert config.world is not None
            settings = getattr(config.pretrain, role)
            draw, size, n = np.random.default_rng(0), config.world.size, 2 * settings.batch
            images = draw.integers(0, 256, (n, size, size, 3)).astype(np.uint8)

            def run(steps: int) -> float:
                short = dataclasses.replace(settings, steps=steps, warmup=0, lr=1e-6)
                if role == "teacher":
                    said = draw.integers(0, 50, (n, 4))
                    return seconds_of(lambda: pretrain_teacher(images, said, words=60, settings=short))
                return seconds_of(lambda: pretrain_student(images, draw.integers(0, 2, n), settings=short))

            with watched("cpu") as peak:
                step = rate(run, 1, self.budget, 10)[0]
            return step, peak.memory

        return self.once(("pretraining", role), measure)


def scaled(measured: Memory, fixed: Memory, factor: float) -> Memory:
    """What grew by `measured`, of which `fixed` does not depend on the batch, for `factor` times the batch."""
    return Memory(
        *(
            min(grown, still) + round(max(grown - still, 0) * factor)
            for grown, still in ((measured.host, fixed.host), (measured.gpu, fixed.gpu))
        )
    )


def _most(one: Memory, other: Memory) -> Memory:
    return Memory(max(one.host, other.host), max(one.gpu, other.gpu))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def random_rows(m: int, n: int) -> np.ndarray:
    """n triplets of m objects at random, int64 (n, 3), each of three different ones."""
    draw = np.random.default_rng(0)
    rows = draw.integers(0, m, (n, 3))
    while len(same := np.flatnonzero((np.diff(np.sort(rows, axis=1), axis=1) == 0).any(1))):
        rows[same] = draw.integers(0, m, (len(same), 3))
    return rows
