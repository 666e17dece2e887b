"""What it costs to see where models look: gradients by pixels, pictures shown in part, training on people's maps."""

from __future__ import annotations

from alignet.doctor.estimate_base import KEPT, SMALL, of_role
from alignet.doctor.estimate_harmonizer import COLOUR, GREY
from alignet.doctor.models import base_of
from alignet.pipeline.graph import Node
from alignet.plan import formulas
from alignet.plan.costs import CONTEXT, NAME, PROCESS, BaseCosts, Cost, kept_bytes, pass_images
from alignet.plan.formulas import PLAIN, SECOND_KEPT, Work

DRAWN = 2.3e-6  # seconds of a pixel of an image at ten levels, on one core [measured: 0.15 s at 256 pixels]
LEVELS = 10  # that it was measured with


class HarmonizerCosts(BaseCosts):
    """Costs of the stages saliency, stimuli and harmonize."""

    def _saliency(self, node: Node) -> Cost:
        name, _, images = of_role(node.role)
        settings, many = self.config.saliency, self._rows(images)
        network = self.sizes.network(base_of(name))
        pixels = 3 * network.size**2
        each = pixels * (2 if settings.precision == "float16" else 4)
        disk, on = many * each, self.machine.gpu is not None
        batch = pass_images(settings.batch, on)
        work = formulas.gradients(many, network.forward, network.kept32, network.kind)
        gpu = (
            4 * network.parameters
            + (min(self.config.runtime.threads, 2) if on else self.config.runtime.threads)
            * batch
            * network.kept32
        )
        read = formulas.read(many, self.sizes.image_bytes(images))
        seconds, bound = self._while_reading(work, read, False, False)
        seconds += disk / self.machine.settings.disk
        host = (
            2 * min(settings.shard, many) * each + NAME * many + (1 + 2 * self.workers) * batch * 4 * pixels
        )
        how = f"{many:,} images, forward and backward; {each / 1e3:,.0f} kB of gradients each"
        return Cost(node.stage, node.role, work + read, SMALL + seconds, bound, PROCESS + host + (0 if on else gpu),
                    CONTEXT + gpu if on else 0, disk, how)  # fmt: skip

    def _stimuli(self, node: Node) -> Cost:
        settings = self.config.stimuli.settings
        many = self.sizes.images(self.config.stimuli.maps[node.role])
        pixels, pictures = settings.size**2, many * (settings.levels + 1)
        shared = self.machine.count if self.machine.gpu else 1
        seconds = many * DRAWN * pixels * settings.levels / LEVELS / shared
        disk = pictures * pixels * (GREY if settings.grey else COLOUR)
        how = f"{many:,} images at {settings.levels} levels; one core: assumed"
        return self._cost(
            node, Work(0, disk), how, more=seconds, disk=disk, host=40 * pixels * settings.levels
        )

    def _harmonize(self, node: Node) -> Cost:
        section = self.config.harmonize
        assert section is not None
        one, role, network = section.settings, section.roles[node.role], self.sizes.network("student")
        count = round(one.batch * one.mapped)
        mapped = count if role.maps and one.map_weight else 0
        if (
            mapped and one.batch_norm == "training"
        ):  # one pass, whose second derivative goes through all of them
            mapped = one.batch
        plain = one.batch - mapped
        recompute, forward = self.config.runtime.recompute, network.forward
        again = 1 + recompute / PLAIN  # the forward pass, once more
        kept = kept_bytes(network, False, recompute)
        reduced = one.precision == "bf16"
        first, second = formulas.harmonize_step(
            plain, mapped, forward * again, network.parameters, kept, network.kind
        )
        work = (first + second).times(one.steps)
        sets = {section.images: count} | (
            {section.plain: one.batch - count} if section.plain is not None else {}
        )
        pixels, settings = 3 * network.size**2, self.machine.settings
        reading, waiting, held = Work(), 0.0, True
        for name, passes in sets.items():
            images = self.sizes.images(name)
            fits = pixels * images <= settings.memory / 4
            held &= fits
            read = (images if fits else one.steps * passes) + (images if name == section.images else 0)
            reading += formulas.read(read, self.sizes.image_bytes(name))
            waiting += pixels * (images if fits else (1 + 2 * self.workers) * passes)
        seconds, bound = self._while_reading(first.times(one.steps), reading, held, reduced)
        seconds += self._of(second.times(one.steps), on_gpu=True) / self.machine.count
        weights = 4 * network.parameters
        at_once = max(SECOND_KEPT * min(one.part, mapped), plain / self.machine.count)
        gpu = 4 * weights + at_once * kept  # weights, gradient, momentum, the result
        how = f"{one.steps:,} steps of {plain:,} images, and {mapped:,} with a second derivative: counted"
        if role.alignet:
            beside = self._beside()
            work += beside.times(one.steps)
            tuned = self.config.finetune.settings
            seconds += (
                one.steps
                * self._of(beside, on_gpu=True, reduced=tuned.precision == "bf16")
                / self.machine.count
            )
            how += f"; {tuned.batch:,} of the pool beside them"
        how += "" if held else "; images are read anew in each step"
        on = self.machine.gpu is not None
        host = waiting + weights
        return Cost(node.stage, node.role, work + reading, SMALL + seconds, bound, PROCESS + host + (0 if on else gpu),
                    CONTEXT + gpu if on else 0, weights + KEPT * weights, how)  # fmt: skip

    def _beside(self) -> Work:
        """AligNet's loss on a batch of the pool, once."""
        one, network = self.config.finetune.settings, self.sizes.network("student", frozen=True)
        triplets = one.batch * (one.batch - 1) * (one.batch - 2) // 6
        kept = kept_bytes(network, one.precision == "bf16", self.config.runtime.recompute)
        return formulas.finetune_step(one.batch, network.training, 0, triplets, kept, network.kind)
