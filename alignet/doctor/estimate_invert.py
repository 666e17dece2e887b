"""Estimates of identically represented inputs: the searches for them, and their perceptual distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from alignet.config import InvertMethod, build
from alignet.doctor.estimate_base import HASH, SMALL, BaseEstimates, Estimate, processes
from alignet.doctor.findings import duration, plain
from alignet.doctor.memory import on
from alignet.doctor.models import base_of
from alignet.doctor.sources import Count
from alignet.pipeline.graph import Node

BESIDE = 400  # bytes of a target in a shard beside its pixels
HELD = 2  # times the bytes of a shard that its arrays take while they are joined, and double precision while checked
CHECKED = 16  # bytes of a number of a representation while it is checked
PER_IMAGE = 3  # forward passes that check a draw: what was found, the same in 8 bit, and where it began


class Passes(NamedTuple):
    """Passes of one search, at most. gradients, forwards: of the network, forward and backward, and forward alone;
    pushed, compared: of a distance that is pushed up, with a gradient and without."""

    gradients: int
    forwards: int
    pushed: int = 0
    compared: int = 0


def passes_of(method: InvertMethod) -> Passes:
    """The most passes that a search takes, of an image that does not match before its last step."""
    forwards = 2  # the target, and the end
    if method.transform is not None and not method.finish:
        forwards += method.steps  # where an image is, beside its transformed copy
    if not method.distance:
        return Passes(method.steps, forwards)
    beside = 2  # the target, and the end where it matches
    return Passes(method.steps, forwards, method.steps - method.finish, beside)


def invert_role(role: str) -> tuple[str, str, str]:
    """Model, images and method of a role of `invert` or `perceptual`."""
    model, _, rest = role.partition(".")
    images, _, method = rest.rpartition(".")
    return model, images, method


def invert_method(section: Mapping[str, Any]) -> InvertMethod:
    """The method of a node of the stage invert."""
    return build(InvertMethod, section["method"], "invert.methods")


def inverted_of(images: int, most: int) -> int:
    """How many images of a set are inverted; most: invert.images, 0 for all."""
    return min(images, most) if most else images


def inverted_bytes(values: int, stored: int, draws: int) -> int:
    """Bytes of a target in a shard: as the network saw it, and of each draw its seed, float32 and its rounding.

    values: of its pixels; stored: bytes of one as the network saw it, 1 or 4.
    """
    return values * (stored + draws * (1 + 4 + 1)) + BESIDE


def distance_bytes(n: int, draws: int) -> int:
    """Bytes of a distance's arrays: to_target, to_seed, to_targets and between_targets, float32."""
    return 4 * n * (2 * draws + draws * n + n)


class Compared(NamedTuple):
    """What a distance computes of n targets and their draws: forward passes of images, and pairs of images."""

    passes: int
    pairs: int


def compared_of(n: int, draws: int, kept: float, batch: int, shard: int) -> Compared:
    """See `Compared`, as `alignet.invariances.measure` works.

    kept: bytes that the distance keeps of an image. batch: images of a pass. shard: targets of a shard.
    """
    from alignet.invariances.measure import HELD as BLOCK  # with torch

    blocks, held = 1, 0
    for first in range(0, n, shard):
        for start in range(first, min(first + shard, n), batch):
            more = min(batch, first + shard - start, n - start)
            if held and 2 * (held + more) * kept > BLOCK:
                blocks, held = blocks + 1, 0
            held += more
    # targets once and seeds; inverted images for each block, and the targets again where one block does not hold them
    passes = n * (2 * draws + 1) if blocks == 1 else n * (draws + 1) * (blocks + 1)
    return Compared(passes, n * (n * draws + n + draws))


class InversionEstimates(BaseEstimates):
    """Estimates of the stages invert and perceptual."""

    def invert(self, node: Node) -> Estimate:
        """The passes of the method, of all draws: after how many steps they match is not known beforehand."""
        name, images, kind = invert_role(node.role)
        model, settings, method = base_of(name), self.sources.config.invert, invert_method(node.section)
        whole = self.rows(name, images)
        count = Count(inverted_of(whole.number, settings.images), whole.how)
        forward, search = self.measured.forward(model), self.measured.inverting(model, kind, method)
        if forward is None or search is None:
            why = "the network" if forward is None else f"the distance {method.distance}"
            return Estimate(SMALL, self.measured.baseline, 0, f"{why} cannot be loaded", unknown=True)
        reading = self.measured.reading(images, model, pixels=True)
        shape = self.measured.models.encoder(model).data_config["input_size"]
        values, draws = shape[0] * shape[1] * shape[2], settings.draws
        stored = 1 if method.target is not None else max(reading.size // values, 1)
        each = inverted_bytes(values, stored, draws)
        disk, passes = count.number * each, passes_of(method)
        steps = passes.gradients
        passed = self.streamed(count.number, reading.seconds, draws * (steps * search.step + search.rest))
        on_device = self.measured.device == "cuda"
        targets = max(1, settings.batch // draws)
        at_a_time = targets * draws if on_device else min(targets * draws, search.batch)
        threads = min(self.sources.config.runtime.threads, 2 if on_device else 99)
        grown = search.memory.times(threads * at_a_time / search.batch)
        grown += on(self.measured.device, 2 * forward.weights)  # and a copy with folded layers
        shard = min(settings.shard, count.number)
        held = shard * (HELD * each + CHECKED * forward.width * (1 + PER_IMAGE * draws))
        memory = processes(self.sources) * (self.measured.baseline + grown.host + held)
        how = f"{count} images x {draws} draws x {steps:,} forward and backward passes at most"
        how += f", {passes.pushed:,} of them with {method.distance}" if passes.pushed else ""
        how += f"; {duration(search.step)} a pass ({search.how})"
        return Estimate(SMALL + forward.load + passed + disk / HASH, memory, disk, how, gpu=grown.gpu,
                        unknown=count.how == "unknown")  # fmt: skip

    def perceptual(self, node: Node) -> Estimate:
        """Of each distance: what it makes of every image, and all pairs of inverted images and targets."""
        name, images, _ = invert_role(node.role)
        model, config = base_of(name), self.sources.config
        whole, encoder = self.rows(name, images), self.measured.models.encoder(model)
        if encoder is None:
            return Estimate(SMALL, self.measured.baseline, 0, "the network cannot be loaded", unknown=True)
        n, draws = inverted_of(whole.number, config.invert.images), config.invert.draws
        shape = tuple(encoder.data_config["input_size"])
        seconds, lacking, most_memory, gpu, passes = 0.0, [], 0, 0, 0
        for one in node.section["distances"]:
            found = self.measured.distance(one, shape)
            if found is None:
                lacking.append(one)
                continue
            work = compared_of(n, draws, found.kept, node.section["batch"], config.invert.shard)
            seconds += work.passes * found.seconds + work.pairs * found.pair
            passes += work.passes
            grown = found.memory.times(node.section["batch"])
            block = on(self.measured.device, min(2 * n * found.kept, self._block(found.kept)))
            most_memory = max(most_memory, grown.host + block.host)
            gpu = max(gpu, grown.gpu + block.gpu)
        made = distance_bytes(n, draws)
        disk = made * len(node.section["distances"])
        values = shape[0] * shape[1] * shape[2]
        shard = inverted_bytes(values, 4, draws) * min(config.invert.shard, n)
        many = min(processes(self.sources), len(node.section["distances"]))
        memory = many * (self.measured.baseline + most_memory + 2 * made + shard)
        how = f"{len(node.section['distances'])} distances of {n:,} targets x {draws} draws, {passes:,} forward passes"
        how += f"; {', '.join(lacking)} cannot be loaded" if lacking else ""
        rate = passes / seconds if seconds else 0.0
        how += f"; {plain(rate)} images/s"
        unknown = bool(lacking) or whole.how == "unknown"
        return Estimate(SMALL + seconds, memory, disk, how, gpu=gpu, unknown=unknown)

    @staticmethod
    def _block(kept: float) -> int:
        """Bytes of what is kept of targets at once, at most."""
        from alignet.invariances.measure import HELD as BLOCK

        return round(BLOCK + kept)
