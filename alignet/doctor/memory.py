"""How much memory grows at its peak while something runs, on this machine and on its GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignet.runtime.memory import give_back


@dataclass(frozen=True)
class Memory:
    """Bytes of this machine's memory and bytes of the GPU's, which are never added to each other."""

    host: int = 0
    gpu: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.host + other.host, self.gpu + other.gpu)

    def times(self, factor: float) -> Memory:
        """As much of both by a factor."""
        return Memory(round(self.host * factor), round(self.gpu * factor))


def on(device: str, number: float) -> Memory:
    """Bytes where a device has its memory."""
    return Memory(gpu=round(number)) if device == "cuda" else Memory(round(number))


@dataclass
class Peak:
    """By how much memory grew at most while something ran."""

    memory: Memory = field(default_factory=Memory)


@contextmanager
def watched(device: str) -> Iterator[Peak]:
    """The growth of memory at its peak while what is inside runs on a device; the GPU's counts on `cuda` alone."""
    import torch

    found = Peak()
    gpu = device == "cuda"
    _forget_peak()
    before = resident("VmRSS"), torch.cuda.memory_allocated() if gpu else 0
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        yield found
    finally:
        after = resident("VmHWM"), torch.cuda.max_memory_allocated() if gpu else 0
        found.memory = Memory(*(max(0, late - early) for early, late in zip(before, after)))


def _forget_peak() -> None:
    give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:  # no Linux, or not allowed: the peak since the start is a fair upper bound
        return


def resident(which: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at the peak (VmHWM); elsewhere than on Linux the peak."""
    try:
        found = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        found = None
    if found:
        return int(found.group(1)) * 1024
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def saved_bytes(encoder: Any, images: Any, reduced: bool) -> int:
    """Bytes that the backward pass of these images keeps of the forward pass, parameters not counted.

    reduced: in bf16, as fine-tuning does. Only parameters with requires_grad are led back to.
    """
    import torch

    held = {value.untyped_storage().data_ptr() for value in encoder.module.state_dict().values()}
    found: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor  # alive until the graph is dropped, so no address comes twice

    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=reduced),
    ):
        features = encoder.features(images)
    del features
    return sum(found.values())


def scaled(measured: Memory, fixed: Memory, factor: float) -> Memory:
    """What grew by `measured`, of which `fixed` does not depend on the batch, for `factor` times the batch."""
    return Memory(
        *(
            min(grown, still) + round(max(grown - still, 0) * factor)
            for grown, still in ((measured.host, fixed.host), (measured.gpu, fixed.gpu))
        )
    )


def most(one: Memory, other: Memory) -> Memory:
    """The larger of two, of each memory by itself."""
    return Memory(max(one.host, other.host), max(one.gpu, other.gpu))
