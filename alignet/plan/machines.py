"""Seconds of work on a named machine, from the seconds on the reference machine and the rates of both.

A unit that waits for memory takes as much longer as the other machine's memory is slower, and so on. On a GPU products
run at a share of its rate (plan.machines.NAME.gpu.share), and a step of VICE takes LAUNCH beside its arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignet.config.plan import GpuSettings, MachineSettings
from alignet.plan.constants import REFERENCE, UNITS, Bound
from alignet.plan.formulas import Work

# seconds of a step of VICE on a GPU beside its arrays: batch 128 on an H200 (benchmarks, gpu)
LAUNCH = 2.5e-4
WORDS = {
    "products": "products of matrices",
    "memory": "memory bandwidth",
    "cores": "reading on the cores",
    "one core": "one core",
}


@dataclass(frozen=True)
class Machine:
    """A configured machine. count: its GPUs, or machines without one, that share what can be shared."""

    name: str
    settings: MachineSettings
    reference: MachineSettings
    count: int = 1

    @property
    def gpu(self) -> GpuSettings | None:
        """Its GPU, or None."""
        return self.settings.gpu

    def by_bound(self, work: Work, on_gpu: bool = False, reduced: bool = False) -> dict[str, float]:
        """Seconds of work by the resource that bounds them. reduced: products of networks in bfloat16."""
        found: dict[str, float] = {}
        for name, number in work.units.items():
            unit = UNITS[name]
            found[unit.bound] = found.get(unit.bound, 0.0) + number * self._seconds(name, on_gpu, reduced)
        return found

    def seconds(self, work: Work, on_gpu: bool = False, reduced: bool = False) -> float:
        """Seconds of work."""
        return sum(self.by_bound(work, on_gpu, reduced).values())

    def _seconds(self, name: str, on_gpu: bool, reduced: bool) -> float:
        seconds, bound, _ = UNITS[name]
        gpu = self.gpu if on_gpu else None
        network = name.removeprefix("trained ") in ("transformer", "convolution")
        if gpu is not None:
            if name == "vice step":
                return LAUNCH
            if bound == "products":
                rate = gpu.bfloat16 if network and reduced else gpu.float32
                share = gpu.share / 2 if name.endswith("convolution") else gpu.share
                return 1 / (rate * share)
            return seconds * self.reference.copy / gpu.copy
        return seconds * self._ratio(bound, network and reduced)

    def _ratio(self, bound: Bound, reduced: bool) -> float:
        here, there = self.settings, self.reference
        if bound == "products":
            return there.float32 / (here.bfloat16 if reduced else here.float32)
        if bound == "memory":
            return there.copy / here.copy
        return there.cores / here.cores if bound == "cores" else 1.0


def machine_of(name: str, machines: Mapping[str, MachineSettings], count: int) -> Machine:
    """The machine of that name; ValueError names those that are configured."""
    if name not in machines:
        raise ValueError(
            f"plan.machine: expected one of {', '.join(machines)}, found {name!r}; add yours to plan.machines"
        )
    return Machine(name, machines[name], machines[REFERENCE], count)
