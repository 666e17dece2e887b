"""Estimates of adversarial attacks: searches for the smallest perturbations, training against attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from alignet.config import AttackMethod, RobustRole, build
from alignet.doctor.estimate_base import HASH, KEPT, SMALL, BaseEstimates, Estimate, of_role, processes
from alignet.doctor.estimate_harmonizer import NO_CLASSIFIER
from alignet.doctor.findings import duration, plain
from alignet.doctor.memory import on
from alignet.doctor.models import base_of
from alignet.doctor.sources import Count
from alignet.pipeline.graph import Node
from alignet.runtime.memory import memory_limit

POLISHED = 5  # forward passes at the end of a search of `minimum_norm`
CANDIDATES = (
    9  # gradients of a step of DeepFool: of the nearest classes [foolbox: 10, the answer's own included]
)
CONSTANTS = 6  # searches of Carlini and Wagner, one for each constant
HELD = 40  # bytes of a pixel value of a shard while it is checked: its arrays, and four in float64
BESIDE = 200  # bytes of an image in a shard beside its pixels


class Passes(NamedTuple):
    """Passes of an image through a network: forward and backward ones, and forward ones alone."""

    gradients: int
    forwards: int


def passes_of(method: AttackMethod) -> Passes:
    """The most passes that the search itself takes, of an image that is broken."""
    if method.search is not None:
        from alignet.attacks.pgd_search import bisections  # with torch

        tried = bisections(method.search, method.high)  # the first gradient is that of the image, for all
        return Passes(1 + tried * (method.steps - 1), tried)
    if method.algorithm == "minimum_norm":
        return Passes(method.steps, POLISHED)
    each = {"deepfool": CANDIDATES, "carlini_wagner": CONSTANTS}.get(method.algorithm, 1)
    return Passes(method.steps * each + 1, 1)


def method_of(section: Mapping[str, Any]) -> AttackMethod:
    """The method of a node of the stage attack."""
    return build(AttackMethod, section["method"], "attack.methods")


def attacked_of(method: AttackMethod, images: int) -> int:
    """How many images of a set are attacked, if all of them have a known class."""
    return min(images, method.images) if method.images else images


def stored_bytes(values: int, stored: int) -> int:
    """Bytes of an image in a shard. values: of its pixels; stored: bytes of one as the network saw it, 1 or 4."""
    return values * (stored + 4 + 1) + BESIDE


def attacks_of(role: RobustRole) -> str:
    """How a training attacks images, in words."""
    if not role.attacks:
        return f"{role.loss.replace('_', '-')}, without attacks"
    if role.replays:
        return f"each batch {role.replays} times"
    return f"{role.steps} of PGD in each{'' if role.loss == 'adversarial' else f', {role.loss}'}"


class AttackEstimates(BaseEstimates):
    """Estimates of the stages attack and robust."""

    def attack(self, node: Node) -> Estimate:
        """The passes of the method, of all images: how many are answered right at first is not known beforehand."""
        name, _, images = of_role(node.role)
        model, settings, method = base_of(name), self.sources.config.attack, method_of(node.section)
        whole = self.rows(name, images)
        count = Count(attacked_of(method, whole.number), whole.how)
        forward, search = self.measured.forward(model), self.measured.attacking(model)
        if forward is None or search is None:
            how = NO_CLASSIFIER if forward is not None else "the network cannot be loaded"
            return Estimate(SMALL, self.measured.baseline, 0, how, unknown=True)
        passes = passes_of(method)
        reading = self.measured.reading(images, model, pixels=True)
        shape = self.measured.models.encoder(model).data_config["input_size"]
        values = shape[0] * shape[1] * shape[2]
        disk = count.number * stored_bytes(values, max(reading.size // values, 1))
        more = max(passes.forwards - POLISHED, 0)  # beyond those that were measured
        each = passes.gradients * search.step + search.rest + more * forward.seconds
        passed = self.streamed(count.number, reading.seconds, each)
        on_device = self.measured.device == "cuda"
        at_a_time = settings.batch if on_device else min(settings.batch, search.batch)
        threads = min(self.sources.config.runtime.threads, 2 if on_device else 99)
        grown = search.memory.times(threads * at_a_time / search.batch)
        grown += on(self.measured.device, forward.weights)
        held = HELD * values * min(settings.shard, count.number)
        memory = processes(self.sources) * (self.measured.baseline + grown.host + held)
        rate = count.number / passed if passed else 0.0
        how = f"{count} images, all attacked: assumed; at most {passes.gradients:,} forward and backward passes each, "
        how += f"{plain(rate)} images/s ({search.how})"
        return Estimate(SMALL + forward.load + passed + disk / HASH, memory, disk, how, gpu=grown.gpu,
                        unknown=count.how == "unknown")  # fmt: skip

    def robust(self, node: Node) -> Estimate:
        """Steps, measured with their attacks; images are read beforehand where they fit, as by fine-tuning."""
        section, forward = self.sources.config.robust, self.measured.forward("student")
        assert section is not None
        if "snapshot" in node.section:
            weights = forward.weights if forward is not None else 0
            return self.small("weights that a training kept", weights / HASH, weights)
        role, settings = section.roles[node.role], section.settings
        step = self.measured.robust(role)
        if forward is None or step is None:
            how = NO_CLASSIFIER if forward is not None else "the network cannot be loaded"
            return Estimate(SMALL, self.measured.baseline, 0, how, unknown=True)
        many, replays = processes(self.sources), max(role.replays, 1)
        count, reading = (
            self.sources.images(section.images),
            self.measured.reading(section.images, "student", pixels=True),
        )
        in_memory = count.number * reading.size * many <= memory_limit() // 4
        batches = settings.steps / replays
        read = count.number if in_memory else round(batches * settings.batch)
        seconds = settings.steps * step.seconds + self.while_reading(read, reading.seconds, 0.0)
        waiting = reading.size * (count.number if in_memory else settings.batch)
        grown = step.memory + on(self.measured.device, forward.weights)
        how = f"{settings.steps:,} steps of {duration(step.seconds)} ({step.how}), {attacks_of(role)}"
        how += "" if in_memory else "; images are read anew in each step"
        carried = 4 * reading.size * settings.batch if role.replays else 0  # perturbations, in a checkpoint
        memory = many * (self.measured.baseline + grown.host + waiting)
        kept = len(role.snapshots) * forward.weights  # beside the checkpoints, and then in the artifact
        return Estimate(
            SMALL + forward.load + seconds, memory, forward.weights + kept, how,
            extra_disk=KEPT * step.trained + 3 * carried + kept, gpu=grown.gpu, unknown=count.how == "unknown",
        )  # fmt: skip
