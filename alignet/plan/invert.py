"""What identically represented inputs cost: the searches for them, and their perceptual distances."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from alignet.doctor.estimate_base import SMALL
from alignet.doctor.estimate_invert import (
    CHECKED,
    HELD,
    PER_IMAGE,
    compared_of,
    distance_bytes,
    invert_method,
    invert_role,
    inverted_bytes,
    inverted_of,
    passes_of,
)
from alignet.doctor.measure_inversions import quasi_steps
from alignet.doctor.models import base_of
from alignet.pipeline.graph import Node
from alignet.plan import formulas
from alignet.plan.costs import CONTEXT, NAME, PROCESS, BaseCosts, Cost, pass_images
from alignet.plan.formulas import Work

STORED = 1  # bytes of a pixel value as the network saw it [assumed: 8 bit, as of networks that resize images]
QUASI = (
    335  # float32 arrays of an image that a step of L-BFGS reads or writes [counted: test_plan_inversions.py]
)
WORKING = 0.1  # share of what a backward pass keeps that a forward pass alone holds at once [assumed]
POSITIONS = 256  # of a layer of a network that is neither a vision transformer nor says its stages [assumed]


class Trunk(NamedTuple):
    """A distance's network, of one image. flops: of a forward pass; kept: bytes that it keeps of an image to compare;
    backward: bytes that a backward pass keeps; kind: transformer | convolution; weights: bytes."""

    flops: float = 0.0
    kept: float = 0.0
    backward: float = 0.0
    kind: str = "convolution"
    weights: float = 0.0


class InversionCosts(BaseCosts):
    """Costs of the stages invert and perceptual."""

    def _invert(self, node: Node) -> Cost:
        name, images, _ = invert_role(node.role)
        settings, method = self.config.invert, invert_method(node.section)
        many, draws = inverted_of(self._rows(images), settings.images), settings.draws
        network, on = self.sizes.network(base_of(name)), self.machine.gpu is not None
        values, passes, found = 3 * network.size**2, passes_of(method), many * draws
        trunk = self._trunk(method.distance, network.size) if method.distance else Trunk()
        each = inverted_bytes(values, STORED, draws)
        work = formulas.gradients(found * passes.gradients, network.forward, network.kept32, network.kind)
        checks = many * (1 + PER_IMAGE * draws)
        work += formulas.forward(found * passes.forwards + checks, network.forward, network.kind)
        work += formulas.gradients(found * passes.pushed, trunk.flops, trunk.backward, trunk.kind)
        work += formulas.forward(found * passes.compared, trunk.flops, trunk.kind)
        read = formulas.read(many, self.sizes.image_bytes(images))
        seconds, bound = self._while_reading(work, read, False, False)
        copy = self.machine.gpu.copy if self.machine.gpu else self.machine.settings.copy
        moved = 4 * QUASI * values * quasi_steps(method) * found
        seconds += moved / copy / self.machine.count + many * each / self.machine.settings.disk
        at_once = pass_images(max(1, settings.batch // draws), on) * draws
        at_once *= min(self.config.runtime.threads, 2) if on else self.config.runtime.threads
        pairs = (
            4 * values * (2 * _memory() * bool(quasi_steps(method)) + 10)
        )  # and gradients, moments, the best
        gpu = (
            8 * network.parameters
            + trunk.weights
            + at_once * (network.kept32 + trunk.backward + trunk.kept + pairs)
        )
        host = min(settings.shard, many) * (HELD * each + CHECKED * network.width * (1 + PER_IMAGE * draws))
        how = f"{many:,} images x {draws} draws x {passes.gradients:,} forward and backward passes at most"
        how += f", {passes.pushed:,} of them with {method.distance}" if passes.pushed else ""
        how += f"; {each / 1e3:,.0f} kB each"
        return Cost(node.stage, node.role, work + read + Work(0, moved), SMALL + seconds, bound,
                    PROCESS + host + NAME * many + (0 if on else gpu), CONTEXT + gpu if on else 0, many * each,
                    how)  # fmt: skip

    def _perceptual(self, node: Node) -> Cost:
        name, images, _ = invert_role(node.role)
        settings, batch = self.config.invert, self.config.perceptual.batch
        n, draws = inverted_of(self._rows(images), settings.images), settings.draws
        network, each, gpu, passes = self.sizes.network(base_of(name)), list[Work](), 0.0, 0
        for one in node.section["distances"]:
            trunk = self._trunk(one, network.size)
            done = compared_of(n, draws, trunk.kept, batch, settings.shard)
            passes += done.passes
            work = formulas.forward(done.passes, trunk.flops, trunk.kind)
            each.append(work + formulas.compared(done.pairs, trunk.kept / 4))
            held = min(2 * n * trunk.kept, _block() + trunk.kept)
            gpu = max(gpu, trunk.weights + held + batch * (2 * trunk.kept + WORKING * trunk.backward))
        made, count = distance_bytes(n, draws), len(each)
        shard = min(settings.shard, n) * inverted_bytes(3 * network.size**2, 4, draws)
        how = f"{count} distances of {n:,} targets x {draws} draws; {passes:,} forward passes"
        every = self.machine.count
        dealt = [sum(each[rank::every], Work()) for rank in range(min(every, count))]
        slowest = max(dealt, key=lambda work: self._of(work, on_gpu=True))
        cost = self._cost(node, slowest, how, on_gpu=True, host=2 * made + shard, gpu=gpu, disk=count * made)
        parts = tuple(self._of(work, on_gpu=True) for work in each)
        return dataclasses.replace(cost, work=sum(each, Work()), parts=parts)

    def _trunk(self, name: str, size: int) -> Trunk:
        """What an image of so many pixels a side costs a distance."""
        one = self.config.perceptual.named(name, "perceptual.distances")
        if one.kind == "pixels":
            return Trunk(kept=4 * 3 * size**2)
        if one.kind != "layers":
            return _counted(one.kind, one.net, size)
        model = base_of(one.model)
        network = self.sizes.network(model)
        kept = 4 * self._values(model, one.layers)
        return Trunk(network.forward, kept, network.kept32, network.kind, 4 * network.parameters)

    def _values(self, model: str, layers: Sequence[str]) -> float:
        """Numbers that layers of a network make of an image: as timm says of its stages, else of blocks of a
        transformer; of layers that are neither the mean of these."""
        from alignet.doctor.models import on_meta
        from alignet.invariances.layers import DEFAULT, evenly
        from alignet.plan.networks import vit_of

        settings, network = self.config.models[model], self.sizes.network(model)
        vit = vit_of(settings.library, settings.architecture, settings.image_size)
        module = on_meta(settings) if vit is None else None
        info = list(getattr(module, "feature_info", None) or ())
        if not info:
            tokens = vit.patches if vit is not None else POSITIONS
            return (len(layers) or DEFAULT) * tokens * network.width
        sizes = {one["module"]: one["num_chs"] * (network.size / one["reduction"]) ** 2 for one in info}
        chosen = list(layers) or [list(sizes)[row] for row in evenly(len(sizes))]
        mean = sum(sizes.values()) / len(sizes)
        return sum(sizes.get(one, mean) for one in chosen)


def _counted(kind: str, net: str, size: int) -> Trunk:
    """LPIPS or shift-tolerant LPIPS, run once without memory for its weights."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from alignet.invariances.trunks import empty_trunk
    from alignet.plan.networks import saved

    trunk = empty_trunk(kind, net)
    pixels = torch.zeros((1, 3, size, size), device="meta", requires_grad=True)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        maps = trunk(pixels)
    backward, _ = saved(trunk, pixels)
    weights = sum(4 * one.numel() for one in trunk.parameters())
    return Trunk(
        counter.get_total_flops(), sum(4 * one.numel() for one in maps), backward, "convolution", weights
    )


def _memory() -> int:
    from alignet.invariances.optimizers import MEMORY  # with torch

    return MEMORY


def _block() -> int:
    from alignet.invariances.measure import HELD as BLOCK  # with torch

    return BLOCK
