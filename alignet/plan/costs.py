"""What a node costs, and what costs of all kinds of nodes share: memory of a process, reading, rows of features."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignet.config import Config
from alignet.doctor.estimate_base import SMALL
from alignet.pipeline.graph import Node
from alignet.plan import formulas
from alignet.plan.formulas import Work
from alignet.plan.machines import Machine
from alignet.plan.networks import Network
from alignet.plan.sizes import Sizes

PROCESS = 700_000_000  # bytes of a process that has loaded torch, faiss and timm [measured: VmRSS]
CONTEXT = 600_000_000  # bytes of a GPU that CUDA, its kernels and libraries take [assumed]
IDENTITY = 120  # bytes of an image in an index: its name and checksum
NAME = 100  # bytes of an id in memory, as Python keeps it
PASS = 16  # images of a pass on a CPU, at most [alignet.backbones.inference.PASS, without torch]
ON_DEVICE = 2  # passes that a GPU holds [alignet.backbones.inference]


@dataclass(frozen=True)
class Cost:
    """What a node costs. Bytes at the peak: host, of one process; gpu, of one GPU; disk: of what it leaves there.

    seconds: of plan.count processes together, where they share it. parts: seconds of what is dealt among them whole;
    none where images are dealt.
    """

    stage: str
    role: str
    work: Work
    seconds: float
    bound: str  # what most of the time is spent on
    host: float
    gpu: float
    disk: float
    how: str
    parts: tuple[float, ...] = ()

    @property
    def key(self) -> str:
        """The node's name, as `status` prints it."""
        return f"{self.stage}[{self.role}]" if self.role else self.stage


@dataclass
class BaseCosts:
    """The configuration, the machine and the sizes that a plan is for."""

    config: Config
    machine: Machine
    sizes: Sizes

    def _cost(
        self, node: Node, work: Work, how: str, *, on_gpu: bool = False, reduced: bool = False, host: float = 0.0,
        gpu: float = 0.0, disk: float = 4_000, more: float = 0.0, waiting: float = 0.0,
    ) -> Cost:  # fmt: skip
        """more: seconds beside the work's. waiting: and those of the disk."""
        times = self.machine.by_bound(work, on_gpu, reduced) | ({"disk": waiting} if waiting else {})
        bound = max(times, key=lambda name: times[name]) if times else ""
        there = CONTEXT + gpu if on_gpu and self.machine.gpu else 0.0
        kept = host + (0.0 if there else gpu)
        seconds = SMALL + sum(times.values()) + more
        return Cost(node.stage, node.role, work, seconds, bound, PROCESS + kept, there, disk, how)

    def _fixed(self, node: Node, seconds: float, how: str, disk: float = 4_000) -> Cost:
        return self._cost(node, Work(), how, more=seconds, disk=disk)

    def _of(self, work: Work, on_gpu: bool = False, reduced: bool = False) -> float:
        return self.machine.seconds(work, on_gpu, reduced)

    @property
    def workers(self) -> int:
        """Processes that read images."""
        plan = self.config.plan
        if plan.workers is not None:
            return plan.workers
        return self.machine.settings.cores if self.machine.gpu else self.config.runtime.workers

    def _read(
        self, node: Node, images: int, size: int, work: Work, disk: float, host: float, gpu: float = 0.0
    ) -> Cost:
        """Images read and computed, dealt to plan.count. Threads read while a GPU computes; cores do either."""
        machine, cores = self.machine, self.machine.settings.cores
        reading = self._of(formulas.read(images, size))  # with all cores at it
        computing = self._of(work, on_gpu=True, reduced=self.config.embed.compute == "bf16")
        late = images * size / machine.settings.disk
        if machine.gpu:
            reading *= cores / min(self.workers or self.config.runtime.threads, cores)
        seconds = max(late, max(reading, computing) if machine.gpu else reading + computing)
        shared = min(machine.count, math.ceil(images / self.config.embed.shard))
        seconds = SMALL + seconds / shared
        bound = "products" if computing > max(reading, late) else "disk" if late > reading else "cores"
        moved = Work(work.flops, work.bytes + images * size + disk, work.units)
        on = machine.gpu is not None and bool(gpu)
        what = f"{images:,} images, {images / seconds:,.0f} a second"
        if shared > 1:
            what += f" on {shared}"
        return Cost(node.stage, node.role, moved, seconds, bound, PROCESS + host + (0 if on else gpu),
                    CONTEXT + gpu if on else 0, disk, what)  # fmt: skip

    def _has(self, images: str) -> bool:
        assumed, sets = self.sizes.assumed, self.config.data.sets
        return images in assumed or (images in sets and self.config.data.drawn(images))

    def _rows(self, images: str) -> int:
        stage, _, maps = images.partition(".")
        if stage == "stimuli" and maps:
            stimuli = self.config.stimuli
            return self.sizes.images(stimuli.maps[maps]) * (stimuli.settings.levels + 1)
        if images == "pool" or self._has(images):
            return self.sizes.images(images)
        return self.sizes.objects() if images not in self.config.data.sets else self.sizes.images(images)

    def _while_reading(self, work: Work, reading: Work, held: bool, reduced: bool) -> tuple[float, str]:
        """Seconds of fine-tuning: pixels are read beforehand, or while the network computes."""
        times = self.machine.by_bound(work, True, reduced)
        computing = sum(times.values()) / self.machine.count
        to_read = self._of(reading) / (1 if held else self.machine.count)
        to_read *= self.machine.settings.cores / max(1, min(self.workers, self.machine.settings.cores))
        bound = max(times, key=lambda name: times[name])
        if held or not self.workers or not self.machine.gpu:
            return computing + to_read, "cores" if to_read > computing else bound
        return max(computing, to_read), "cores" if to_read > computing else bound


def pass_images(batch: int, on_gpu: bool) -> int:
    """Images of a pass of embedding."""
    return batch if on_gpu else min(batch, PASS)


def embed_bytes(network: Network, batch: int, threads: int, on_gpu: bool) -> float:
    """Bytes of weights and of the activations of all passes that are computed at once in embedding."""
    passes = min(threads, ON_DEVICE) if on_gpu else threads
    return 4 * network.parameters + passes * pass_images(batch, on_gpu) * network.working


def kept_bytes(network: Network, reduced: bool, recompute: bool, *, products: bool = False) -> float:
    """Bytes that the backward pass keeps of an image; recompute: of each block its input alone.

    products: on a CPU, where attention under bf16 is computed by products (alignet.student.network.attend_by_products).
    """
    kept = network.kept16 + products * network.attention16 if reduced else network.kept32
    return kept * network.recomputed16 / network.kept16 if recompute else kept
