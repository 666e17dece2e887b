"""From short measurements to time, memory and disk of every node of the graph.

    seconds = what was measured x how often the stage does it; bytes = shapes x sizes of numbers

Numbers come from the data where it is here, from the settings of the world where it is drawn, and from
`doctor.assume` where it is neither. What nobody can know beforehand is assumed and said: the epochs after which
VICE converges (EPOCHS), the dimensions that it keeps (half), the width of features that are not here (WIDTH).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from alignet.doctor.config_checks import images_a_step
from alignet.doctor.estimate_attack import AttackEstimates
from alignet.doctor.estimate_base import HASH, KEPT, SMALL, Estimate, of_role, processes
from alignet.doctor.estimate_harmonizer import HarmonizerEstimates
from alignet.doctor.estimate_invert import InversionEstimates
from alignet.doctor.estimate_results import ResultEstimates
from alignet.doctor.findings import duration, plain, size
from alignet.doctor.memory import on
from alignet.doctor.models import NETWORKS, base_of
from alignet.doctor.sources import Count
from alignet.pipeline.graph import Node
from alignet.pipeline.pool import world_pictures
from alignet.runtime.memory import memory_limit

EPOCHS = 0.2  # of the way from the earliest stop of VICE to max_epochs
IMAGE = 115_000  # bytes of an image that is not here: the mean of ImageNet's training images


class Estimates(HarmonizerEstimates, AttackEstimates, InversionEstimates, ResultEstimates):
    """Estimates of the nodes of one configuration."""

    def of(self, key: str) -> Estimate:
        """The estimate of one node, whether or not it has been made."""
        node = self.sources.graph[key]
        kinds: Mapping[str, Callable[[Node], Estimate]] = {
            "world": self._world, "pretrain": self._pretrain, "index": self._index, "vice": self._vice,
            "reliability": self._reliability, "soft_labels": self._soft_labels, "embed": self._embed,
            "distill": self._distill, "cluster": self._cluster, "triplets": self._triplets, "smooth": self._smooth,
            "finetune": self._finetune, "harmonize": self.harmonize, "saliency": self.saliency,
            "stimuli": self.stimuli, "levels": self.levels, "evaluate": self.evaluate, "export": self.export,
            "report": self.report, "attack": self.attack, "robust": self.robust, "invert": self.invert,
            "perceptual": self.perceptual,
        }  # fmt: skip
        if node.stage not in kinds:
            return self.small(f"no estimate for the stage {node.stage}: a few seconds", 5.0)
        return kinds[node.stage](node)

    # ---- the world

    def _world(self, node: Node) -> Estimate:
        world = self.sources.config.world
        assert world is not None
        files = world_pictures(world)
        arrays = world.teacher_images + world.student_images
        disk = files * world.size**2 * 2 + arrays * world.size**2 * 3
        seconds = (files + arrays) * self.measured.picture() + 2 + disk / HASH
        return self.small(f"{files + arrays:,} pictures; some were drawn", seconds, disk)

    def _pretrain(self, node: Node) -> Estimate:
        step, grown = self.measured.pretraining(node.role)
        steps, disk = node.section["steps"], self._weights(node.role)
        how = f"{steps:,} steps of {duration(step)}"
        memory = self.measured.baseline + grown.host + 4 * disk
        return Estimate(SMALL + steps * step, memory, disk, how, extra_disk=KEPT * disk)

    def _weights(self, model: str) -> int:
        forward = self.measured.forward(model)
        return forward.weights if forward is not None else 0

    # ---- data and people

    def _index(self, node: Node) -> Estimate:
        name = node.role
        kind, count = self.sources.config.data.sets[name].kind, Count(1, "counted")
        if kind in ("images", "shards"):
            count = self.sources.images(name)
        # remembered checksums of files that are here; those of images in shards are made again
        there = node.outside and self.sources.is_there(name) and name not in self.sources.broken
        known = there and self.sources.checksums_are_remembered(name)
        if known and kind != "shards":
            what = f"{count} images" if kind == "images" else "one file"
            return self.small(f"{what}, checksums are remembered", 2e-5 * count.number, 120 * count.number)
        number, said = self._bytes(name, count)
        again = 2 if kind == "shards" and node.outside and not known else 1
        seconds = again * number / self.measured.hashing() + 2e-5 * count.number
        disk, unknown = 120 * count.number, count.how == "unknown"
        how = f"{f'{count} images, ' if kind in ('images', 'shards') else ''}{said} to hash"
        return Estimate(SMALL + seconds, self.measured.baseline, disk, how, unknown=unknown)

    def _bytes(self, name: str, count: Count) -> tuple[int, str]:
        """Bytes of a set that are hashed, and in words."""
        kind, world = self.sources.config.data.sets[name].kind, self.sources.config.world
        if self.sources.is_there(name):
            number = self.sources.bytes(name)
            return number, size(number)
        if kind not in ("images", "shards"):
            return 0, "one file"
        if self.sources.config.data.drawn(name) and world is not None:
            number = count.number * world.size**2 * 2
            return number, size(number)
        number = count.number * IMAGE
        return number, f"{size(number)} (assumed: {IMAGE // 1000} kB each, as ImageNet's)"

    def _numbers(self, triplets: str | None) -> tuple[int, int, str, bool]:
        """m, n, in words, and whether one of them is unknown."""
        m, n = (
            self.sources.objects(),
            self.sources.triplets(str(triplets)) if triplets else Count(0, "unknown"),
        )
        return m.number, n.number, f"{n} triplets, {m} objects", "unknown" in (m.how, n.how)

    def _vice(self, node: Node) -> Estimate:
        vice = self.sources.config.vice
        assert vice is not None
        if vice.published is not None:
            return self.small("a published embedding is checked", 1.0)
        m, n, said, unknown = self._numbers(vice.train)
        if not m or not n:
            return Estimate(SMALL, self.measured.baseline, 0, said, unknown=True)
        one = vice.settings
        step, close, grown = self.measured.vice(m, n)
        steps, epochs = math.ceil(n / one.batch), self._epochs()
        held = self.sources.triplets(str(vice.val)).number if vice.val else 0
        measure = self.measured.soft_labels(m, one.dim // 2 or 1, held) if held else 0.0
        seconds = epochs * (steps * step + close + measure / 2) + one.samples * measure
        how = f"{said}; {epochs} epochs assumed, of {self._earliest()} to {one.max_epochs}; {duration(step)} a step"
        disk = m * one.dim * 8 * 2
        memory, gpu = self.measured.baseline + grown.host + 24 * n, grown.gpu and grown.gpu + 24 * n
        return Estimate(SMALL + seconds, memory, disk, how, extra_disk=KEPT * 8 * m * one.dim, gpu=gpu,
                        unknown=unknown)  # fmt: skip

    def _earliest(self) -> int:
        vice = self.sources.config.vice
        assert vice is not None
        return min(vice.settings.earliest, vice.settings.max_epochs)

    def _epochs(self) -> int:
        vice = self.sources.config.vice
        assert vice is not None
        first = self._earliest()
        return round(first + EPOCHS * (vice.settings.max_epochs - first))

    def _reliability(self, node: Node) -> Estimate:
        vice = self.sources.config.vice
        assert vice is not None
        m, n, said, unknown = self._numbers(vice.train)
        if not m or not n:
            return Estimate(SMALL, self.measured.baseline, 0, said, unknown=True)
        step, close, grown = self.measured.vice(m, n)
        steps = 2 * math.ceil(n / 2 / vice.settings.batch)
        seconds = self._epochs() * (steps * step + 2 * close)
        return Estimate(
            SMALL + seconds,
            self.measured.baseline + grown.host + 24 * n,
            4_000,
            f"two fits on halves of {said}; as vice",
            extra_disk=2 * KEPT * m * vice.settings.dim * 8,
            gpu=grown.gpu and grown.gpu + 24 * n,
            unknown=unknown,
        )

    def _soft_labels(self, node: Node) -> Estimate:
        vice = self.sources.config.vice
        assert vice is not None
        m, n, said, unknown = self._numbers(node.role)
        if not m or not n:
            return Estimate(SMALL, self.measured.baseline, 0, said, unknown=True)
        samples = self.sources.config.soft_labels.samples
        seconds = samples * self.measured.soft_labels(m, vice.settings.dim // 2 or 1, n)
        memory = self.measured.baseline + 60 * n + 4 * m * m
        return Estimate(SMALL + seconds, memory, 12 * n, f"{samples} samples, {said}", unknown=unknown)

    # ---- features

    def _embed(self, node: Node) -> Estimate:
        from alignet.backbones.inference import PASS  # with torch

        model, feature, images = of_role(node.role)
        base = base_of(model)
        library = self.sources.config.models[base].library
        count, width = self.rows(model, images), self.width(model, feature)
        disk = count.number * (width * (2 if self.sources.config.embed.precision == "float16" else 4) + 40)
        unknown = count.how == "unknown"
        if library == "features":
            return Estimate(SMALL + disk / HASH, self.measured.baseline + 3 * disk, disk, f"{count} rows are copied",
                            unknown=unknown)  # fmt: skip
        reading, embed = self.measured.reading(images, base), self.sources.config.embed
        shard = embed.shard * width * 8
        workers, many = self.sources.config.runtime.workers, processes(self.sources)
        at_once = self.sources.config.runtime.threads
        at_a_time = embed.batch if self.measured.device == "cuda" else min(embed.batch, PASS)
        ahead = (1 + 2 * workers + at_once) * at_a_time * reading.size  # passes that are ready or being read
        if library not in NETWORKS:
            seconds = self.streamed(count.number, reading.seconds, 0.0)
            return Estimate(SMALL + seconds, many * (self.measured.baseline + shard + ahead), disk,
                            f"{count} images", unknown=unknown)  # fmt: skip
        forward = self.measured.forward(base)
        if forward is None:
            return Estimate(SMALL, self.measured.baseline, disk, "the network cannot be loaded", unknown=True)
        seconds = self.streamed(count.number, reading.seconds, forward.seconds)
        rate = count.number / seconds if count.number else 1 / (reading.seconds + forward.seconds)
        how = f"{count} images; {plain(rate)} images/s in batches of {forward.batch}"
        passes = min(at_once, 2) if self.measured.device == "cuda" else at_once
        grown = forward.memory_of(at_a_time * passes) + on(self.measured.device, forward.weights)
        return Estimate(
            SMALL + forward.load + seconds,
            many * (self.measured.baseline + grown.host + shard + ahead),
            disk,
            how,
            gpu=grown.gpu,
            unknown=unknown,
        )

    def _distill(self, node: Node) -> Estimate:
        role = self.sources.config.distill.base(node.role)
        width = self.width(role)
        disk = 4 * width * (width + 1)
        if "published" in node.inputs:
            return self.small("a published map is checked", 0.2, disk)
        source, settings = (
            self.sources.config.distill.sources[role],
            self.sources.config.distill.settings[role],
        )
        m, n, said, unknown = self._numbers(source.triplets)
        m, n = self.among(source.images, source.triplets, m, n)
        if not m or not n:
            return Estimate(SMALL, self.measured.baseline, disk, said, unknown=True)
        inside = 1 - 1 / settings.folds  # of the objects; of the triplets its cube
        members = max(3, round(m * inside))
        step, rest, grown = self.measured.distill(role, members, width, max(1, round(n * inside**3)))
        fits = settings.folds * len(settings.penalties) * len(settings.lrs)
        seconds = fits * (settings.steps * step + rest) + settings.steps * step / inside**2 + rest / inside**3
        how = f"{fits + 1} fits of {settings.steps:,} steps; {n:,} triplets of {m:,} objects; {duration(step)} a step"
        return Estimate(
            SMALL + seconds,
            self.measured.baseline + grown.host + 60 * n,
            disk,
            how,
            extra_disk=KEPT * disk,
            unknown=unknown,
        )

    # ---- the AligNet data set

    def _cluster(self, node: Node) -> Estimate:
        settings, pool, width = (
            self.sources.config.cluster,
            self.sources.images("pool"),
            self.width("teacher"),
        )
        if not pool.number:
            return Estimate(SMALL, self.measured.baseline, 0, "number of images unknown", unknown=True)
        numbers = [value for value in settings.grid if value <= pool.number]
        if settings.clusters == "elbow" and not numbers:
            return Estimate(
                SMALL, self.measured.baseline, 0, "no number of cluster.grid fits the pool", unknown=True
            )
        numbers = (
            [*numbers, numbers[len(numbers) // 2]]
            if settings.clusters == "elbow"
            else [int(settings.clusters)]
        )
        each = settings.rows_per_cluster
        rows = min(pool.number, each * max(numbers)) if each else pool.number
        # over all images, the last of which assigns them
        passes = settings.redo * settings.iterations * rows / pool.number + 1
        seconds = passes * sum(self.measured.kmeans(pool.number, width, min(k, pool.number)) for k in numbers)
        how = (
            f"{pool} images, {len(numbers)} fits x {settings.redo} starts x {settings.iterations} iterations "
            f"over {rows:,} rows"
        )
        memory = self.measured.baseline + 8 * rows * width
        return Estimate(SMALL + seconds, memory, 8 * pool.number + 4 * max(numbers) * width, how)

    def _triplets(self, node: Node) -> Estimate:
        settings, pool, width = (
            self.sources.config.triplets,
            self.sources.images("pool"),
            self.width("teacher"),
        )
        count = self.sources.triplets(settings.published).number if settings.published else settings.count
        if settings.published or not pool.number:
            return self.small(f"{count:,} triplets are copied", count * 1e-6, 36 * count, 60 * count)
        seconds = self.measured.drawing(pool.number, width, count, node.role == "alignet")
        memory = self.measured.baseline + min(8 * 2**30, 4 * pool.number * width) + 100 * count
        return Estimate(
            SMALL + seconds, memory, 36 * count + 40 * pool.number, f"{count:,} triplets; some were drawn",
            extra_disk=36 * count,
        )  # fmt: skip

    def _smooth(self, node: Node) -> Estimate:
        pool, p, q = self.sources.images("pool"), self.width("teacher"), self.width("student")
        if not pool.number:
            return Estimate(SMALL, self.measured.baseline, 0, "number of images unknown", unknown=True)
        forward = self.measured.forward("student")
        seconds = self.measured.smoothing(pool.number, q, p) + (forward.load if forward is not None else 0)
        memory = self.measured.baseline + 16 * pool.number * (p + 1000)
        return Estimate(SMALL + seconds, memory, pool.number * (4 * p + 40), f"{pool} images")

    def _finetune(self, node: Node) -> Estimate:
        forward, step = self.measured.forward("student"), self.measured.step()
        settings, pool = self.sources.config.finetune.settings, self.sources.images("pool")
        if forward is None or step is None:
            return Estimate(SMALL, self.measured.baseline, 0, "the network cannot be loaded", unknown=True)
        passes = settings.steps * images_a_step(self.sources)
        reading, many = self.measured.reading("pool", "student", pixels=True), processes(self.sources)
        pixels = reading.size * pool.number
        held = pixels * many <= memory_limit() // 4  # as the stage decides; each process holds its own
        steps = settings.steps * step.seconds
        if held:
            steps += self.while_reading(pool.number, reading.seconds, 0.0)
        else:
            steps = self.while_reading(passes, reading.seconds, steps / max(passes, 1))
        first = 256 * forward.seconds if isinstance(settings.tau_student, str) else 0.0
        grown = step.memory + on(self.measured.device, forward.weights)
        batch = math.ceil(images_a_step(self.sources) / settings.accumulate) * reading.size
        waiting = pixels if held else (1 + 2 * self.sources.config.runtime.workers) * batch
        memory = many * (
            self.measured.baseline + grown.host + waiting + 4 * pool.number * self.width("teacher")
        )
        how = f"{settings.steps:,} steps of {duration(step.seconds)} ({step.how}); {passes:,} image passes"
        how += "" if held else "; images are read anew in each step"
        return Estimate(SMALL + forward.load + first + steps, memory, forward.weights, how,
                        extra_disk=KEPT * step.trained, gpu=grown.gpu, unknown=pool.how == "unknown")  # fmt: skip
