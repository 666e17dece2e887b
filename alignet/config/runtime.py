"""How the work is done on this machine: conf's section `runtime`. Never part of an artifact's identity.

Every stage reads it: device, threads, workers, checkpoints; launch.py starts processes and SLURM's jobs by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignet.config.bounds import at_least


@dataclass(frozen=True)
class SlurmSettings:
    """What a job asks SLURM for, see launch.py."""

    nodes: int
    partition: str | None
    account: str | None
    minutes: int
    cpus: int
    memory_gb: int
    grace: int
    logs: str
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        at_least("runtime.slurm", 1, nodes=self.nodes, minutes=self.minutes, cpus=self.cpus)
        at_least("runtime.slurm", 0, memory_gb=self.memory_gb, grace=self.grace)


@dataclass(frozen=True)
class RuntimeSettings:
    """How the work is done on this machine; never part of an artifact's identity."""

    device: Literal["cpu", "cuda"]
    threads: int
    parallel_nodes: int
    workers: int
    download: bool
    checkpoint_seconds: float
    recompute: bool
    compile: bool
    sharding: Literal["none", "fsdp2"]
    launcher: Literal["local", "torchrun", "slurm"]
    processes: int
    slurm: SlurmSettings

    def __post_init__(self) -> None:
        at_least("runtime", 1, threads=self.threads, parallel_nodes=self.parallel_nodes)
        at_least("runtime", 0, workers=self.workers, processes=self.processes)
        if self.compile and self.sharding != "none":
            raise ValueError(
                "runtime.compile: expected false with sharding=fsdp2, as both together are untried, found true"
            )
        if self.launcher == "slurm" and not self.processes:
            raise ValueError(
                "runtime.processes: expected the number of processes (GPUs) on each node with launcher=slurm, found 0"
            )
