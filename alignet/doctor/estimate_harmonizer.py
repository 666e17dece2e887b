"""Estimates of where models look: gradients by pixels, pictures shown in part, training on people's maps."""

from __future__ import annotations

from alignet.doctor.estimate_base import HASH, KEPT, SMALL, BaseEstimates, Estimate, of_role, processes
from alignet.doctor.findings import duration, plain
from alignet.doctor.memory import on
from alignet.doctor.models import base_of
from alignet.pipeline.graph import Node
from alignet.runtime.memory import memory_limit

NO_CLASSIFIER = "the network has no classifier"
GREY, COLOUR = 0.7, 2.2  # bytes of a PNG picture for each of its pixels [measured: half of it noise]


class HarmonizerEstimates(BaseEstimates):
    """Estimates of the stages saliency, stimuli and harmonize."""

    def saliency(self, node: Node) -> Estimate:
        """A forward and a backward pass of each image, and shards of gradients."""
        model, _, images = of_role(node.role)
        settings, count = self.sources.config.saliency, self.rows(model, images)
        forward, gradient = self.measured.forward(base_of(model)), self.measured.gradient(base_of(model))
        if forward is None or gradient is None:
            how = NO_CLASSIFIER if forward is not None else "the network cannot be loaded"
            return Estimate(SMALL, self.measured.baseline, 0, how, unknown=True)
        side = self.measured.models.encoder(base_of(model)).data_config["input_size"]
        pixels = side[0] * side[1] * side[2]
        each = pixels * (2 if settings.precision == "float16" else 4) + 200
        disk = count.number * each
        reading = self.measured.reading(images, base_of(model))
        passed = self.streamed(count.number, reading.seconds, gradient.seconds)
        seconds = passed + disk / HASH
        rate = count.number / passed if passed else 0.0
        held = 2 * min(settings.shard, count.number) * each  # its parts, and the whole
        at_a_time = min(settings.batch, gradient.batch) if self.measured.device == "cpu" else settings.batch
        threads = min(self.sources.config.runtime.threads, 2 if self.measured.device == "cuda" else 99)
        grown = gradient.memory.times(threads * at_a_time / gradient.batch)
        grown += on(self.measured.device, forward.weights)
        memory = processes(self.sources) * (self.measured.baseline + grown.host + held)
        how = f"{count} images; {plain(rate)} images/s {gradient.how}"
        return Estimate(SMALL + forward.load + seconds, memory, disk, how, gpu=grown.gpu,
                        unknown=count.how == "unknown")  # fmt: skip

    def stimuli(self, node: Node) -> Estimate:
        """Pictures of each image with a map, on one core each."""
        settings, count = self.sources.config.stimuli.settings, self.shown(node.role)
        each, pixels = self.measured.stimulus(), settings.size**2
        size = pixels * (GREY if settings.grey else COLOUR)
        pictures = count.number * (settings.levels + 1)
        how = f"{count} images at {settings.levels} levels of {duration(each)} an image"
        memory = self.measured.baseline + 40 * pixels * settings.levels
        seconds = each * count.number + pictures * size / HASH
        return Estimate(SMALL + seconds, memory, round(pictures * size), how, unknown=count.how == "unknown")

    def harmonize(self, node: Node) -> Estimate:
        """Steps, measured; images are read beforehand where they fit, as by fine-tuning."""
        section, forward = self.sources.config.harmonize, self.measured.forward("student")
        assert section is not None
        role, settings = section.roles[node.role], section.settings
        maps = role.maps and settings.map_weight > 0
        step = self.measured.harmonizing(maps)
        if forward is None or step is None:
            how = NO_CLASSIFIER if forward is not None else "the network cannot be loaded"
            return Estimate(SMALL, self.measured.baseline, 0, how, unknown=True)
        many, seconds, waiting, unknown = processes(self.sources), settings.steps * step.seconds, 0, False
        for name, passes in ((section.images, round(settings.batch * settings.mapped)),
                             (section.plain, settings.batch - round(settings.batch * settings.mapped))):  # fmt: skip
            if name is None or not passes:
                continue
            count, reading = self.sources.images(name), self.measured.reading(name, "student", pixels=True)
            unknown |= count.how == "unknown"
            held = count.number * reading.size * many <= memory_limit() // 4
            read = count.number if held else settings.steps * passes
            read += count.number if name == section.images else 0  # opened once more for their sizes
            seconds += self.while_reading(read, reading.seconds, 0.0)
            waiting += reading.size * (count.number if held else settings.batch)
        kept = settings.steps * settings.batch
        how = f"{settings.steps:,} steps of {duration(step.seconds)} ({step.how}); {kept:,} image passes"
        grown = step.memory + on(self.measured.device, forward.weights)
        if role.alignet:
            beside = self.measured.step()
            if beside is not None:
                seconds += settings.steps * beside.seconds
                grown += beside.memory
                how += f"; beside each one of fine-tuning, {duration(beside.seconds)}"
        memory = many * (self.measured.baseline + grown.host + waiting) + self._maps(section.maps)
        return Estimate(SMALL + forward.load + seconds, memory, forward.weights, how, extra_disk=KEPT * step.trained,
                        gpu=grown.gpu, unknown=unknown)  # fmt: skip

    def _maps(self, name: str) -> int:
        """Bytes of a set of maps in memory, with those of its raters."""
        held = self.sources.read(name)
        if not held:
            return 0
        one = next(iter(held.values()))
        arrays = [*one.maps, *(one.raters or ())]
        return sum(array.nbytes for array in arrays)
