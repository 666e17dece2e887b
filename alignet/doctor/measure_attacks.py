"""Short measurements of attacks: the search for the smallest perturbation, and a step of training against attacks.

Shape suffixes: b images in a batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignet.config import LabelledTraining, RobustRole
from alignet.doctor.measure_gradients import PLAIN, STATES, GradientMeasurements, unchanged
from alignet.doctor.measure_networks import Forward, Step
from alignet.doctor.memory import Memory, most, on, scaled, watched
from alignet.doctor.short import BLOCKS
from alignet.doctor.timing import rate, seconds_of

GRADIENT = 2  # forward passes that a forward pass and a gradient by pixels take, in products
FORWARDS = (
    21  # forward passes of an image beside a search's steps: its end, 8 bit, the check of what was found
)
_FEW = 4  # steps of a search that is timed on a network too slow for more
_BEYOND = 1e6  # a norm that changes every answer


@dataclass(frozen=True)
class Search:
    """An attack of one image. step: seconds of a forward and a backward pass and what goes with them; rest: of all
    else; batch: images at once; memory: growth at the peak with these."""

    step: float
    rest: float
    batch: int
    memory: Memory
    how: str


class AttackMeasurements(GradientMeasurements):
    """Measurements of what the stages attack and robust do."""

    def attacking(self, model: str) -> Search | None:
        """The search of `fast` on noise, every answer of which is attacked; None for a network without a classifier."""
        return self.once(("attacking", model), lambda: self._attacking(model))

    def _attacking(self, model: str) -> Search | None:
        from alignet.backbones.inference import PASS

        forward = self.forward(model)
        if forward is None or not self.models.classes(model):
            return None
        encoder = self.models.encoder(model)
        at_most = self.sources.config.attack.batch
        if self.device == "cpu":
            at_most = min(at_most, PASS)
        built = forward.seconds * forward.built * (FORWARDS + GRADIENT * _FEW)  # of one image
        away = next(encoder.module.parameters()).is_meta  # shortened, measured and let go
        if away or built > self.budget:
            return Search(
                GRADIENT * forward.seconds, FORWARDS * forward.seconds, forward.batch, forward.memory.times(2),
                f"{GRADIENT} forward passes a step; one of {forward.batch} images was measured",
            )  # fmt: skip
        batch = max(1, min(at_most, int(self.budget / 2 / max(built, 1e-6))))
        with unchanged(encoder), watched(self.device) as peak:
            step, rest = self._searched(encoder, batch)
        step, rest = (one / batch / forward.built for one in (step, rest))
        return Search(
            step, rest, batch, peak.memory.times(1 / forward.built), f"attacks of {batch} images of noise"
        )

    def _searched(self, encoder: Any, batch: int) -> tuple[float, float]:
        """Seconds of a step of a batch's search, and of the rest."""
        import torch

        from alignet.attacks.attack import attack, verified
        from alignet.backbones.gradients import Classifier
        from alignet.config import AttackMethod

        classify = Classifier(encoder)
        draw = torch.Generator().manual_seed(0)
        pixels = torch.randint(
            0, 256, (batch, *encoder.data_config["input_size"]), dtype=torch.uint8, generator=draw
        )
        unknown = torch.full((batch,), -1)

        def run(steps: int) -> float:
            method = AttackMethod("minimum_norm", "l2", steps, _BEYOND, batch)
            return seconds_of(
                lambda: verified(
                    classify, attack(classify, pixels, unknown, method, any_answer=True), method, batch
                )
            )

        return rate(run, 1, self.budget, 20)

    def robust(self, role: RobustRole) -> Step | None:
        """A step of alignet.attacks.train.adversarial_training on noise and random classes.

        None for a network without a classifier.
        """
        key = ("robust", *dataclasses.astuple(role))
        return self.once(key, lambda: self._robust(role))

    def _robust(self, role: RobustRole) -> Step | None:
        section, forward = self.sources.config.robust, self.forward("student")
        if section is None or forward is None or not self.models.classes("student"):
            return None
        one, encoder = section.settings, self.models.encoder("student")
        passes = one.batch * forward_passes(role, recompute=self.sources.config.runtime.recompute)
        built = passes * forward.seconds * forward.built
        fixed = on(self.device, STATES * forward.weights)
        kept = self._kept() / forward.built * one.batch * views(role)
        reckoned = fixed + on(self.device, kept) + forward.memory_of(one.batch)
        least = min(4, one.batch)
        if built * least / one.batch * 3 > 4 * self.budget:
            how = (
                f"{passes / one.batch:g} forward passes an image; one of {forward.batch} images was measured"
            )
            return Step(passes * forward.seconds, reckoned, how, forward.weights)
        size = min(one.batch, max(least, round(one.batch * self.budget / 4 / built)))
        steps = max(2, min(8, int(2 * self.budget / (built * size / one.batch))))
        small = dataclasses.replace(one, batch=size, steps=steps + 1, warmup=0, lr=0.0, drops=())
        with unchanged(encoder), watched(self.device) as peak:
            taken = self._trained(small, role)
        return self._step_of(taken * one.batch / size, steps, size, forward, reckoned,
                             scaled(peak.memory, fixed, one.batch / size))  # fmt: skip

    def _step_of(
        self, seconds: float, steps: int, size: int, forward: Forward, reckoned: Memory, grown: Memory
    ) -> Step:
        """What was measured, of a whole network where it was shortened."""
        how, short = f"{steps} steps of {size:,} images", self.models.short("student")
        if short is not None:
            how += f" through {BLOCKS} of {short.depth} blocks"
            memory = reckoned
        else:
            memory = grown if self.sources.config.runtime.recompute else most(reckoned, grown)
        return Step(seconds / forward.built, memory, how, forward.weights)

    def _trained(self, settings: LabelledTraining, role: RobustRole) -> float:
        """Seconds a step: the difference of a long run and of one of a single step. The rate is 0: nothing changes."""
        import torch

        from alignet.attacks.train import adversarial_training
        from alignet.harmonizer.batches import Labelled

        encoder, classes = self.models.encoder("student"), self.models.classes("student")
        shape = tuple(encoder.data_config["input_size"])
        m, draw = max(2, settings.batch), np.random.default_rng(0)
        images = torch.randint(0, 256, (1, *shape), dtype=torch.uint8).expand(m, *shape)
        data = Labelled(images, draw.integers(0, classes, m))
        recompute, section = self.sources.config.runtime.recompute, self.sources.config.robust
        assert section is not None
        augmentation = section.augmentations[role.augmentation] if role.augmentation else None

        def run(steps: int) -> float:
            short = dataclasses.replace(settings, steps=steps)
            return seconds_of(lambda: adversarial_training(
                encoder, data, short, role, augmentation=augmentation, recompute=recompute
            ))  # fmt: skip

        return rate(run, 1, 2 * self.budget, settings.steps - 1)[0]


def views(role: RobustRole) -> int:
    """Copies of an image that a step leads back to the weights: as it is and attacked, or two views of it."""
    return 2 if role.loss in ("mart", "simclr") or (role.loss == "trades" and role.attacks) else 1


def forward_passes(role: RobustRole, *, recompute: bool) -> int:
    """Forward passes, in products, that an image's part of a step of training on labelled images takes.

    A step of an attack leads back to the pixels alone; attacks on answers or features look at these first. recompute:
    each forward pass is made again for its gradient.
    """
    steps = role.steps if role.attacks and not role.replays else 0
    before = role.attacks and role.loss in ("trades", "simclr")
    return before + steps * (GRADIENT + recompute) + views(role) * (PLAIN + recompute)
