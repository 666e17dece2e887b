"""Short measurements of gradients by pixels: a saliency map, a step on people's maps, a picture of masked recognition.

Shape suffixes: b images in a batch, H and W pixels.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignet.doctor.measure_networks import NetworkMeasurements, Step
from alignet.doctor.memory import Memory, most, on, saved_bytes, scaled, watched
from alignet.doctor.short import BLOCKS
from alignet.doctor.timing import rate, seconds_of, settled

PLAIN = 3  # forward passes that forward and backward take, in products
SECOND = (
    2 * PLAIN
)  # with a second derivative: twice the products (counted; of vision transformers and of ResNets)
SECOND_KEPT = 2.5  # times what a backward pass keeps that a second derivative keeps (counted: 1.7 to 2.6)
_MAP = 64  # pixels a side of a map that is not here
STATES = 4  # copies of the weights: gradient, momentum or two moments, the result


@dataclass(frozen=True)
class Gradient:
    """A gradient by pixels. seconds: of one image in a batch of `batch`; memory: growth at the peak with it."""

    seconds: float
    batch: int
    memory: Memory
    how: str


class GradientMeasurements(NetworkMeasurements):
    """Measurements of what the stages saliency, stimuli and harmonize do."""

    def gradient(self, model: str) -> Gradient | None:
        """The gradient of a logit by an image's pixels; None for a network without a classifier."""
        return self.once(("gradient", model), lambda: self._gradient(model))

    def _gradient(self, model: str) -> Gradient | None:
        import torch

        from alignet.backbones.gradients import Classifier, input_gradient
        from alignet.backbones.inference import PASS

        forward = self.forward(model)
        if forward is None or not self.models.classes(model):
            return None
        encoder = self.models.encoder(model)
        most_images = self.sources.config.saliency.batch
        if self.device == "cpu":
            most_images = min(most_images, PASS)
        if next(encoder.module.parameters()).is_meta:  # a shortened network that has been measured and let go
            return Gradient(
                2 * forward.seconds, forward.batch, forward.memory.times(2), "2 forward passes an image"
            )
        batch = max(
            1, min(most_images, int(self.budget / 2 / max(2 * forward.seconds * forward.built, 1e-6)))
        )
        with unchanged(encoder), watched(self.device) as peak:
            classify = Classifier(encoder)
            pixels = torch.rand((batch, *encoder.data_config["input_size"]), device=encoder.device)
            input_gradient(classify, pixels)
            taken = settled(lambda: seconds_of(lambda: input_gradient(classify, pixels)), self.budget / 2)
        taken = taken / batch / forward.built
        return Gradient(taken, batch, peak.memory.times(1 / forward.built), f"in batches of {batch}")

    def stimulus(self) -> float:
        """Seconds of all pictures of one image: drawn by its map, and written."""
        from PIL import Image

        from alignet.evaluate.masking import levels, pixel_counts, stimuli

        def measure() -> float:
            one = self.sources.config.stimuli.settings
            y, x = np.mgrid[: one.size, : one.size] / one.size
            people = np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.05).astype(np.float32)
            image = np.random.default_rng(0).integers(0, 256, (one.size, one.size, 3)).astype(np.uint8)
            counts = pixel_counts(levels(one.levels, one.low), one.size**2)

            def run() -> None:
                pictures = stimuli(
                    image, people, counts, np.random.default_rng(0), grey=one.grey, centred=one.centred,
                    background=one.background, temperature=one.temperature,
                )  # fmt: skip
                for picture in [*pictures, image]:
                    Image.fromarray(picture[..., 0] if one.grey else picture).save(io.BytesIO(), "PNG")

            run()
            return settled(lambda: seconds_of(run), self.budget)

        return self.once("stimulus", measure)

    def harmonizing(self, maps: bool) -> Step | None:
        """A step of alignet.harmonizer.train.harmonize on noise, random classes and random maps, or without maps.

        None for a network without a classifier.
        """
        return self.once(("harmonizing", maps), lambda: self._harmonizing(maps))

    def _harmonizing(self, maps: bool) -> Step | None:
        section, forward = self.sources.config.harmonize, self.forward("student")
        if section is None or forward is None or not self.models.classes("student"):
            return None
        one, encoder = section.settings, self.models.encoder("student")
        mapped = round(one.batch * one.mapped) if maps else 0
        if (
            mapped and one.batch_norm == "training"
        ):  # one pass, whose second derivative goes through all of them
            mapped = one.batch
        plain = one.batch - mapped
        passes = PLAIN * plain + SECOND * mapped
        built = passes * forward.seconds * forward.built
        at_once = min(one.part, mapped) if one.batch_norm == "frozen" else mapped
        fixed = on(self.device, STATES * forward.weights)
        kept = self._kept() / forward.built * max(SECOND_KEPT * at_once, plain)
        reckoned = fixed + on(self.device, kept) + forward.memory_of(max(at_once, plain))
        least = min(4, one.batch)
        if built * least / one.batch * 3 > 4 * self.budget:
            how = f"{PLAIN} forward passes an image, {SECOND} with a map; one of {forward.batch} images was measured"
            return Step(passes * forward.seconds, reckoned, how, forward.weights)
        size = min(one.batch, max(least, round(one.batch * self.budget / 4 / built)))
        steps = max(2, min(8, int(2 * self.budget / (built * size / one.batch))))
        part = size if one.batch_norm == "training" else max(1, round(one.part * size / one.batch))
        small = dataclasses.replace(
            one, batch=size, part=part, steps=steps + 1, warmup=0, lr=0.0, drops=(),
            mapped=max(one.mapped, 1 / size),
        )  # fmt: skip
        with unchanged(encoder), watched(self.device) as peak:
            taken = self._harmonize(small, maps)
        how, short = f"{steps} steps of {size:,} images", self.models.short("student")
        if short is not None:
            how += f" through {BLOCKS} of {short.depth} blocks"
            memory = reckoned
        else:
            grown = scaled(peak.memory, fixed, one.batch / size)
            memory = grown if self.sources.config.runtime.recompute else most(reckoned, grown)
        return Step(taken * one.batch / size / forward.built, memory, how, forward.weights)

    def _kept(self) -> float:
        """Bytes that the backward pass of one image keeps where everything trains."""
        encoder = self.models.encoder("student")
        with unchanged(encoder):
            encoder.module.requires_grad_(True)
            first, both = (saved_bytes(encoder, self._blank(encoder, count), False) for count in (1, 2))
        return max(both - first, 0)

    def _harmonize(self, settings: Any, maps: bool) -> float:
        """Seconds a step: the difference of a long run and of one of a single step. The rate is 0: nothing changes."""
        import torch

        from alignet.evaluate.where import WHOLE, seen
        from alignet.harmonizer.batches import Labelled
        from alignet.harmonizer.train import harmonize

        encoder, classes = self.models.encoder("student"), self.models.classes("student")
        shape = tuple(encoder.data_config["input_size"])
        m, draw = max(2, settings.batch), np.random.default_rng(0)
        images = torch.randint(0, 256, (1, *shape), dtype=torch.uint8).expand(m, *shape)
        people = draw.random((m, *self._size_of_map())).astype(np.float32)
        mapped = Labelled(
            images,
            draw.integers(0, classes, m),
            lambda row: seen(people[row], WHOLE, shape[1:]).astype(np.float32),
        )
        plain = Labelled(images, draw.integers(0, classes, m)) if settings.mapped < 1 else None

        def run(steps: int) -> float:
            short = dataclasses.replace(settings, steps=steps)
            recompute = self.sources.config.runtime.recompute
            return seconds_of(
                lambda: harmonize(encoder, mapped, plain, short, use_maps=maps, recompute=recompute)
            )

        return rate(run, 1, 2 * self.budget, settings.steps - 1)[0]

    def _size_of_map(self) -> tuple[int, int]:
        """(h, w) of most of people's maps, where they are here."""
        section = self.sources.config.harmonize
        held = self.sources.read(section.maps) if section is not None else None
        return next(iter(next(iter(held.values())).sizes)) if held else (_MAP, _MAP)


@contextmanager
def unchanged(encoder: Any) -> Iterator[None]:
    """A network that is trained inside, without a rate: what requires a gradient, what batches counted and how its
    blocks run are as they were afterwards."""
    module = encoder.module
    flags = {name: held.requires_grad for name, held in module.named_parameters()}
    counted = {name: held.clone() for name, held in module.named_buffers()}
    own = {id(part) for part in module.modules() if "forward" in vars(part)}
    try:
        yield
    finally:
        for name, held in module.named_parameters():
            held.requires_grad_(flags[name])
            held.grad = None
        for name, held in module.named_buffers():
            held.copy_(counted[name])
        for part in module.modules():
            if id(part) not in own:
                vars(part).pop("forward", None)
        module.eval()
