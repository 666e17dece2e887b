"""What `plan` reckons with: conf's section `plan`, machines, sizes, and which of them. Read by the stage `plan`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignet.config.bounds import at_least, positive


@dataclass(frozen=True)
class GpuSettings:
    """A GPU, for `plan`: its rates as measured or by its data sheet."""

    float32: float  # FLOP a second
    bfloat16: float  # FLOP a second of dense products
    copy: float  # bytes a second of its memory
    memory: float  # bytes
    share: float  # of these rates of products that networks reach

    def __post_init__(self) -> None:
        rates = {"float32": self.float32, "bfloat16": self.bfloat16, "copy": self.copy, "memory": self.memory}
        positive("plan.machines.*.gpu", share=self.share, **rates)


@dataclass(frozen=True)
class MachineSettings:
    """A machine that `plan` reckons with: a whole one, or the part of one that belongs to a GPU."""

    about: str
    cores: int
    float32: float  # FLOP a second of float32 products, all cores
    bfloat16: float
    copy: float  # bytes a second read and written, all cores
    memory: float  # bytes
    disk: float  # bytes a second that files are read with
    gpu: GpuSettings | None

    def __post_init__(self) -> None:
        at_least("plan.machines.*", 1, cores=self.cores)
        rates = {"float32": self.float32, "bfloat16": self.bfloat16, "copy": self.copy}
        positive("plan.machines.*", memory=self.memory, disk=self.disk, **rates)


@dataclass(frozen=True)
class PlanSize:
    """A number of pool images, and of triplets drawn from them."""

    images: int
    triplets: int

    def __post_init__(self) -> None:
        at_least("plan.sizes.*", 3, images=self.images)
        at_least("plan.sizes.*", 1, triplets=self.triplets)


@dataclass(frozen=True)
class PlanSettings:
    """For how much, and for which machine, `plan` reckons; never part of an artifact's identity."""

    size: str | None  # one of `sizes`
    images: int | None  # N, pool images; over `size`
    triplets: int | None  # n', drawn triplets; over `size`
    image_bytes: int  # of a pool image's file, mean
    assume: Mapping[str, int]  # set -> its images or rows, beside doctor.assume, which wins
    machine: str  # one of `machines`
    count: int  # GPUs, or machines without one, that share the work that can be shared
    workers: (
        int | None
    )  # processes that read images, for each GPU; null: all cores beside a GPU, else runtime.workers
    sizes: Mapping[str, PlanSize]
    machines: Mapping[str, MachineSettings]

    def __post_init__(self) -> None:
        at_least("plan", 1, count=self.count, image_bytes=self.image_bytes)
        at_least("plan", 3, images=3 if self.images is None else self.images)
        at_least("plan", 1, triplets=1 if self.triplets is None else self.triplets)
        at_least("plan", 0, workers=0 if self.workers is None else self.workers)
        for key, value, known in (("size", self.size, self.sizes), ("machine", self.machine, self.machines)):
            if value is not None and value not in known:
                raise ValueError(f"plan.{key}: expected one of {', '.join(known)}, found {value!r}")
