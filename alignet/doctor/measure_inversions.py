"""Short measurements of identically represented inputs: a step of the search for them, a perceptual distance.

Shape suffixes: b images in a batch, k draws of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignet.config import InvertMethod
from alignet.doctor.distances import made, model_of
from alignet.doctor.measure_attacks import GRADIENT, AttackMeasurements, Search
from alignet.doctor.measure_gradients import unchanged
from alignet.doctor.memory import Memory, watched
from alignet.doctor.timing import rate, seconds_of, settled

if TYPE_CHECKING:
    from torch import Tensor

    from alignet.invariances.perceptual import Distance

_FEW = 4  # steps of a search that is timed on a network too slow for more; images that a distance is timed on
_CHECKED = 4  # forward passes of a draw beside the steps, about
_POSITIONS = 256  # of a layer, where a network was measured and let go [assumed]


@dataclass(frozen=True)
class Embedding:
    """A distance. seconds: of what it makes of one image; kept: bytes of that; pair: seconds of a pair; memory: growth
    at the peak, of an image."""

    seconds: float
    kept: float
    pair: float
    memory: Memory


def quasi_steps(method: InvertMethod) -> int:
    """Steps of a search that are L-BFGS's, at most."""
    from alignet.invariances.optimizers import WARM  # with torch

    if method.optimizer != "quasi_newton":
        return 0
    return method.finish if method.changed else max(method.steps - WARM, 0)


class InversionMeasurements(AttackMeasurements):
    """Measurements of what the stages invert and perceptual do."""

    def distance(self, name: str, shape: tuple[int, ...]) -> Embedding | None:
        """A distance of images of this shape (3, H, W); None where its network cannot be loaded."""
        return self.once(("distance", name, shape), lambda: self._distance(name, shape))

    def _distance(self, name: str, shape: tuple[int, ...]) -> Embedding | None:
        import torch

        from alignet.invariances.layers import DEFAULT
        from alignet.invariances.perceptual import LayerDistance

        if (one := self._let_go(name)) is not None:
            forward = self.forward(one)
            assert forward is not None
            layers = self.sources.config.perceptual.distances[name].layers
            one_layer = torch.rand(_FEW, _POSITIONS * forward.width, device=self.device)
            kept = [one_layer] * (len(layers) or DEFAULT)
            pair = self._pair(LayerDistance(name, lambda pixels: []), kept)
            size = sum(part.nbytes for part in kept) / _FEW
            return Embedding(forward.seconds, size, pair, forward.memory_of(1) + Memory(round(2 * size)))
        with made(self.sources, self.models, name) as distance, torch.no_grad():
            if distance is None:
                return None
            pixels = torch.rand((_FEW, *shape), device=self.device)
            distance.embed(pixels)
            with watched(self.device) as peak:
                taken = settled(lambda: seconds_of(lambda: distance.embed(pixels)), self.budget / 4) / _FEW
                kept = distance.embed(pixels)
            size = sum(part.nbytes for part in kept) / _FEW
            return Embedding(taken, size, self._pair(distance, kept), peak.memory.times(1 / _FEW))

    def _pair(self, distance: Distance, kept: Sequence[Tensor]) -> float:
        """Seconds of a pair of images of which so much is kept."""
        return settled(lambda: seconds_of(lambda: distance.between(kept, kept)), self.budget / 8) / _FEW**2

    def _let_go(self, name: str) -> str | None:
        """The model of a distance whose network was shortened, measured and let go; None of any other."""
        model = model_of(self.sources, name)
        if model is None or self.models.short(model) is None:
            return None
        encoder = self.models.encoder(model)
        gone = encoder is not None and next(encoder.module.parameters()).is_meta
        return model if gone else None

    def inverting(self, model: str, kind: str, method: InvertMethod) -> Search | None:
        """The search of a method on noise, which nothing ends; None where a network cannot be loaded.

        kind: the method's name. Seconds are those of one draw.
        """
        return self.once(("inverting", model, kind), lambda: self._inverting(model, method))

    def _inverting(self, model: str, method: InvertMethod) -> Search | None:
        from alignet.backbones.inference import PASS

        forward = self.forward(model)
        if forward is None:
            return None
        encoder, settings = self.models.encoder(model), self.sources.config.invert
        shape = tuple(encoder.data_config["input_size"])
        pushed = self.distance(method.distance, shape) if method.distance else None
        if method.distance and pushed is None:
            return None
        beside = GRADIENT * pushed.seconds if pushed is not None else 0.0  # what is pushed up
        turns = quasi_steps(method)
        away = next(encoder.module.parameters()).is_meta
        away |= bool(method.distance) and self._let_go(method.distance) is not None
        built = forward.seconds * forward.built * (_CHECKED + GRADIENT * _FEW) + beside * _FEW
        if away or built > self.budget:
            memory = forward.memory.times(2)
            if pushed is not None:
                memory += pushed.memory.times(2 * forward.batch)
            moved, held = self._moved(method, shape, forward.batch) if turns else (0.0, Memory())
            return Search(
                GRADIENT * forward.seconds + beside, _CHECKED * forward.seconds + turns * moved, forward.batch,
                memory + held,
                f"{GRADIENT} forward passes; one of {forward.batch} images was measured",
            )  # fmt: skip
        targets = max(1, settings.batch // settings.draws)
        targets = min(targets, PASS) if self.device == "cpu" else targets
        targets = max(1, min(targets, int(self.budget / 2 / max(built * settings.draws, 1e-6))))
        with unchanged(encoder), watched(self.device) as peak:
            step, rest = self._searched_for(model, method, targets)
        batch = targets * settings.draws
        step, rest = (one / batch / forward.built for one in (step, rest))
        moved, held = self._moved(method, shape, batch) if turns else (0.0, Memory())
        return Search(
            step, rest + turns * moved, batch, peak.memory.times(1 / forward.built) + held,
            f"of {batch} searches from noise at once",
        )  # fmt: skip

    def _moved(self, method: InvertMethod, shape: tuple[int, ...], batch: int) -> tuple[float, Memory]:
        """Seconds of an image in a step of L-BFGS beside its gradient, and memory of what it keeps of the batch."""
        import torch

        from alignet.invariances.optimizers import MEMORY, Optimizer

        with watched(self.device) as peak, torch.no_grad():
            places = torch.rand((batch, *shape), device=self.device)
            optimizer = Optimizer(method, places, MEMORY, last=True)
            error = torch.ones(batch, device=self.device)

            def move() -> None:
                nonlocal places
                places = optimizer.move(places, places - 0.5, error, True).clamp(0, 1)

            for _ in range(MEMORY + 1):
                move()
            taken = settled(lambda: seconds_of(move), self.budget / 8)
        return taken / batch, peak.memory

    def _searched_for(self, model: str, method: InvertMethod, targets: int) -> tuple[float, float]:
        """Seconds of a step of so many targets with their draws, and of the rest: the targets, the end, the check."""
        import torch

        from alignet.invariances.invert import invert, noise, verified
        from alignet.invariances.representation import Representation

        encoder, settings = self.models.encoder(model), self.sources.config.invert
        layer = settings.layer if self.models.short(model) is None else ""
        represent = Representation(encoder, layer)
        search, shape = represent.searching(), represent.side
        draw = np.random.default_rng(0)
        images = draw.integers(0, 256, (targets, *shape)).astype(np.uint8)
        starts = np.stack(
            [[noise(method.start, shape, row, k) for k in range(settings.draws)] for row in range(targets)]
        )
        pixels, begin = (
            torch.from_numpy(one).to(self.device, torch.float32) / 255 for one in (images, starts)
        )
        keys = [(row, k) for row in range(targets) for k in range(settings.draws)]
        last = int(method.finish > 0)  # one step of the last part, so that the others are not those

        with ExitStack() as stack:
            distance = (
                stack.enter_context(made(self.sources, self.models, method.distance))
                if method.distance
                else None
            )

            def run(steps: int) -> float:
                short = dataclasses.replace(method, steps=steps + last, finish=last, stop=0.0)

                def act() -> None:
                    found = invert(
                        search, pixels.repeat_interleave(settings.draws, 0), begin.flatten(0, 1), short,
                        distance=distance, keys=keys,
                    )  # fmt: skip
                    inverted = found.images.cpu().numpy().reshape(starts.shape)
                    rounded = np.round(inverted * 255).astype(np.uint8)
                    arrays = {"image": images, "seed": starts, "inverted": inverted, "inverted8": rounded}
                    verified(represent, arrays, settings.batch)

                return seconds_of(act)

            return rate(run, 1, self.budget, 20)
