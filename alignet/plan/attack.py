"""What it costs to attack: searches for the smallest perturbations, training against attacks."""

from __future__ import annotations

from alignet.doctor.estimate_attack import (
    HELD,
    POLISHED,
    attacked_of,
    attacks_of,
    method_of,
    passes_of,
    stored_bytes,
)
from alignet.doctor.estimate_base import KEPT, SMALL, of_role
from alignet.doctor.measure_attacks import FORWARDS, forward_passes, views
from alignet.doctor.models import base_of
from alignet.pipeline.graph import Node
from alignet.plan import formulas
from alignet.plan.costs import CONTEXT, NAME, PROCESS, BaseCosts, Cost, kept_bytes, pass_images

STORED = (
    1  # bytes of a pixel value as the network saw it [assumed: 8 bit, as of networks that resize such images]
)


class AttackCosts(BaseCosts):
    """Costs of the stages attack and robust."""

    def _attack(self, node: Node) -> Cost:
        name, _, images = of_role(node.role)
        settings, method = self.config.attack, method_of(node.section)
        many = attacked_of(method, self._rows(images))
        network, on = self.sizes.network(base_of(name)), self.machine.gpu is not None
        values, batch = 3 * network.size**2, pass_images(settings.batch, on)
        passes, each = passes_of(method), stored_bytes(values, STORED)
        forwards = passes.forwards - POLISHED + FORWARDS
        disk = many * each
        work = formulas.gradients(many * passes.gradients, network.forward, network.kept32, network.kind)
        work += formulas.forward(many * forwards, network.forward, network.kind)
        read = formulas.read(many, self.sizes.image_bytes(images))
        seconds, bound = self._while_reading(work, read, False, False)
        seconds += disk / self.machine.settings.disk
        at_once = min(self.config.runtime.threads, 2) if on else self.config.runtime.threads
        gpu = 4 * network.parameters + at_once * batch * network.kept32
        host = HELD * values * min(settings.shard, many) + NAME * many
        host += (1 + 2 * self.workers) * batch * 4 * values
        how = f"{many:,} images, all attacked: assumed; at most {passes.gradients:,} forward and backward passes and "
        how += f"{forwards:,} forward ones each; {each / 1e3:,.0f} kB each"
        return Cost(node.stage, node.role, work + read, SMALL + seconds, bound, PROCESS + host + (0 if on else gpu),
                    CONTEXT + gpu if on else 0, disk, how)  # fmt: skip

    def _robust(self, node: Node) -> Cost:
        section = self.config.robust
        assert section is not None
        if "snapshot" in node.section:
            weights = 4 * self.sizes.network("student").parameters
            return self._fixed(node, weights / 1e8, "weights that a training kept", weights)
        one, role, network = section.settings, section.roles[node.role], self.sizes.network("student")
        recompute, on = self.config.runtime.recompute, self.machine.gpu is not None
        kept, images = kept_bytes(network, False, recompute), self.sizes.images(section.images)
        step = formulas.robust_step(
            one.batch, forward_passes(role, recompute=recompute) * network.forward, network.parameters, kept,
            views(role) + (role.steps if role.attacks and not role.replays else 0), network.kind,
        )  # fmt: skip
        work, pixels = step.times(one.steps), 3 * network.size**2
        fits = pixels * images <= self.machine.settings.memory / 4
        batches = one.steps / max(role.replays, 1)
        reading = formulas.read(
            images if fits else batches * one.batch, self.sizes.image_bytes(section.images)
        )
        seconds, bound = self._while_reading(work, reading, fits, False)
        weights = 4 * network.parameters
        # weights, gradient, momentum, the result
        gpu = 4 * weights + views(role) * one.batch / self.machine.count * kept
        host = weights + pixels * (images if fits else (1 + 2 * self.workers) * one.batch)
        how = f"{one.steps:,} steps of {one.batch:,} images, {attacks_of(role)}"
        how += "" if fits else "; images are read anew in each step"
        carried = 4 * pixels * one.batch if role.replays else 0
        return Cost(node.stage, node.role, work + reading, SMALL + seconds, bound, PROCESS + host + (0 if on else gpu),
                    CONTEXT + gpu if on else 0, weights * (1 + KEPT + 2 * len(role.snapshots)) + 3 * carried,
                    how)  # fmt: skip
