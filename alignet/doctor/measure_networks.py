"""Short measurements of images and networks: reading, hashing, a forward pass, a step of fine-tuning.

Shape suffixes: b images in a batch, m images, p features.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignet.doctor.config_checks import images_a_step
from alignet.doctor.memory import Memory, most, on, resident, saved_bytes, scaled, watched
from alignet.doctor.models import Models
from alignet.doctor.short import BLOCKS
from alignet.doctor.sources import Sources
from alignet.doctor.timing import cores, doubted, rate, seconds_of, settled
from alignet.runtime.memory import give_back

_OPENED = 24  # images that are opened to time it
_LARGE = 0.5  # seconds: a measurement that takes longer leaves memory that is worth giving back
_LEAST = 4  # images in a pass that is timed


@dataclass(frozen=True)
class Forward:
    """A network on this machine. seconds: of one image in a batch of `batch`; memory: growth at the peak with it."""

    seconds: float
    batch: int
    width: int
    weights: int  # bytes
    memory: Memory
    load: float  # seconds to build it
    built: float = 1.0  # share of the seconds that what was built takes: less where that is a few blocks

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
class NetworkMeasurements:
    """Measurements of images and networks in one run of doctor; each is made when it is first asked for."""

    sources: Sources
    models: Models
    baseline: int = 0  # bytes of a process that has loaded the libraries; set when this is made
    # measurements that were asked for, until it is emptied
    asked: dict[Any, None] = field(default_factory=dict)
    doubts: dict[Any, str] = field(default_factory=dict)  # measurement -> why its time is not to be trusted
    _held: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.baseline = resident("VmRSS")

    @property
    def budget(self) -> float:
        """Seconds that one measurement may take, about."""
        return self.sources.config.doctor.seconds

    def once(self, key: Any, measure: Callable[[], Any]) -> Any:
        """The result of a measurement, made the first time it is asked for; what it prints is dropped."""
        self.asked[key] = None
        if key not in self._held:
            began = time.perf_counter()
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), doubted() as doubt:
                self._held[key] = measure()
            if doubt.reasons:
                self.doubts[key] = doubt.reasons[0]
            if time.perf_counter() - began > _LARGE:
                give_back()
        return self._held[key]

    @property
    def device(self) -> str:
        """Where the work is done."""
        from alignet.doctor.models import device

        return device(self.sources)

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
        if images.startswith("stimuli."):
            size, kind = self.sources.config.stimuli.settings.size, "PNG"
        coarse = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
        held = io.BytesIO()
        Image.fromarray(coarse).resize((size, size)).save(held, kind)
        return [lambda: Image.open(io.BytesIO(held.getvalue())).convert("RGB")] * _OPENED

    def hashing(self) -> float:
        """Bytes a second that checksums of several files are made with, where the disk is no slower."""

        def measure() -> float:
            block = bytes(32 * 2**20)
            return len(block) / settled(lambda: seconds_of(lambda: hashlib.sha256(block).digest()), 1.0)

        return self.once("hashing", measure) * min(4, cores())  # data.checksums reads four files at a time

    def forward(self, model: str) -> Forward | None:
        """A network's forward pass at embed.batch, or at fewer images where that would take too long."""
        return self.once(("forward", model), lambda: self._forward(model))

    def _forward(self, model: str) -> Forward | None:
        import torch

        encoder = self.models.encoder(model)
        if encoder is None:
            return None
        from alignet.backbones.inference import PASS

        shape, most_images = tuple(encoder.data_config["input_size"]), self.sources.config.embed.batch
        if encoder.device.type == "cpu":
            most_images = min(most_images, PASS)  # no pass of `embed` has more there
        batch = min(_LEAST, most_images)  # one image alone takes other ways than several
        one = torch.zeros((1, *shape), device=encoder.device)
        with torch.no_grad():
            encoder.features(one)  # what is kept once is no image's share
        with torch.no_grad(), watched(encoder.device.type) as peak:
            taken = self._batch(encoder, one.expand(batch, *shape).contiguous())
            while batch < most_images and 4 * taken < self.budget / 2:
                batch = min(4 * batch, most_images)
                taken = self._batch(encoder, one.expand(batch, *shape).contiguous())
        taken /= batch
        weights = sum(value.numel() * value.element_size() for value in encoder.module.state_dict().values())
        load, short = self.models.seconds[model], self.models.short(model)
        if short is not None:
            with torch.no_grad(), short.one_block(encoder.module):
                first = self._batch(encoder, one.expand(batch, *shape).contiguous()) / batch
            load *= short.weights / weights
            built, weights = taken, short.weights
            taken = short.whole(first, built)
            if model != "student":  # which trains a few steps; others only prepare images from here on
                encoder.module.to("meta")
            return Forward(taken, batch, encoder.width, weights, peak.memory, load, built / taken)
        return Forward(taken, batch, encoder.width, weights, peak.memory, load)

    @staticmethod
    def _blank(encoder: Any, images: int) -> Any:
        import torch

        return torch.zeros((images, *encoder.data_config["input_size"]), device=encoder.device)

    def _batch(self, encoder: Any, images: Any) -> float:
        encoder.features(images)
        return settled(lambda: seconds_of(lambda: encoder.features(images)), self.budget / 4)

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
        built = whole * forward.built
        if built * least / part * 3 > 4 * self.budget:
            how = f"3 forward passes an image; one of {forward.batch} images was measured"
            return Step(whole * settings.accumulate, reckoned, how, trained)
        size = min(part, max(4 * least, round(part * self.budget / 4 / built)))  # few images are slow ones
        steps = max(2, min(8, int(2 * self.budget / (built * size / part))))
        small = dataclasses.replace(
            settings, batch=size, accumulate=1, warmup=0, tau_student=1e6, clusters_per_batch=0, lr=1e-9, pull=0.0,
            steps=steps + 1,
        )  # fmt: skip
        with watched(self.device) as peak:
            taken = self._finetune(small)
        how = f"{steps} steps of {size:,} {'triplets' if drawn else 'images'}"
        memory, short = reckoned, self.models.short("student")
        if short is None:
            memory = most(reckoned, scaled(peak.memory, fixed, part / size))
        else:
            how += f" through {BLOCKS} of {short.depth} blocks"
        return Step(taken * part / size / forward.built * settings.accumulate, memory, how, trained)

    def _training(self) -> tuple[int, int, int]:
        """Bytes of the parameters that train; bytes kept for the backward pass of any batch, and of each image."""

        from alignet.student.network import attend_by_products

        settings, encoder = self.sources.config.finetune.settings, self.models.encoder("student")
        names = [name for name in encoder.trainable() if not name.startswith(tuple(settings.frozen))]
        held = dict(encoder.module.named_parameters())
        if settings.precision == "bf16":
            attend_by_products(encoder)

        def kept() -> tuple[float, float]:
            first, both = (
                saved_bytes(encoder, self._blank(encoder, count), settings.precision == "bf16")
                for count in (1, 2)
            )
            return first, both

        with self._trainable(names):
            first, both = kept()
            if (short := self.models.short("student")) is not None:
                with short.one_block(encoder.module):
                    less = kept()
                first, both = (short.whole(one, two) for one, two in zip(less, (first, both)))
        trained = sum(held[name].numel() * held[name].element_size() for name in names)
        if short is not None:
            block = f"{short.blocks}.{BLOCKS - 1}."
            added = sum(
                held[name].numel() * held[name].element_size() for name in names if name.startswith(block)
            )
            trained += added * (short.depth - BLOCKS)
        each = max(both - first, 0)
        return (
            round(trained + 4 * settings.head * (encoder.width + 1)),
            round(max(first - each, 0)),
            round(each),
        )

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
