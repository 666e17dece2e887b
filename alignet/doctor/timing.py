"""How long a piece of work takes on this machine, and its steps apart from what comes once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any


def seconds_of(act: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, with the GPU's work done where one is in use."""
    import torch

    began = time.perf_counter()
    act()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def rate(run: Callable[[int], float], first: int, most: float, at_most: int) -> tuple[float, float]:
    """Seconds of a step, and of what a run costs beside its steps; run(steps) gives a run's seconds.

    From short and longer runs, together about `most` seconds, of no more than `at_most` steps beyond the first; of
    equal runs the fastest counts, since other work on the machine only ever adds. Where it disturbed the short ones
    so much that nothing is left between the two, the longer one alone counts.
    """
    run(first)  # caches and kernels settle
    short = fastest(lambda: run(first), most / 4)
    more = first + max(2, min(at_most, int(most / 2 / max(short / first, 1e-5))))
    long = fastest(lambda: run(more), most / 2)
    step = (long - short) / (more - first)
    if step < 0.1 * long / more:
        step = long / more
    return step, max(short - first * step, 0.0)


def fastest(run: Callable[[], float], most: float) -> float:
    """The least of up to five results, as many as `most` seconds allow, at least one."""
    found = [run()]
    while len(found) < 5 and sum(found) + found[-1] < most:
        found.append(run())
    return min(found)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
