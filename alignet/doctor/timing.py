"""How long a piece of work takes on this machine, its steps apart from what comes once, and whether to believe it.

A measurement is repeated until two of its times agree. It is doubted where they never do, where this process wanted
the processor and other work had it, and where its memory was swapped to disk meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGREE = 0.05  # two times agree: apart by no more than this share of the lesser
_APART = 0.25  # never agreed: the two least are farther apart than this
_TIMES = 20  # a measurement is made at most so often
_WAITED = 0.2  # of the time that threads ran or wanted to: so much waiting is other work's doing
_SWAPPED = 16_000_000  # bytes that were swapped out meanwhile


@dataclass(eq=False)  # one within another is not the same, though neither has a reason yet
class Doubt:
    """What speaks against the measurements that were made while this was the current one."""

    reasons: list[str] = field(default_factory=list)


_CURRENT: list[Doubt] = []  # the innermost last


@contextmanager
def doubted() -> Iterator[Doubt]:
    """What speaks against the times that are measured inside: known when they are done."""
    found, before, swap = Doubt(), _scheduled(), _swapped()
    _CURRENT.append(found)
    try:
        yield found
    finally:
        _CURRENT.remove(found)
        after = _scheduled()  # of threads that ended meanwhile nothing is known, of new ones all
        ran = sum(one[0] - before.get(name, (0.0, 0.0))[0] for name, one in after.items())
        waited = sum(one[1] - before.get(name, (0.0, 0.0))[1] for name, one in after.items())
        if waited > _WAITED * (ran + waited) and waited > 0.05:
            found.reasons.insert(0, "other work had the processor")
        if _swapped() - swap > _SWAPPED:
            found.reasons.insert(0, "memory was swapped to disk meanwhile")


def _scheduled() -> dict[str, tuple[float, float]]:
    """By thread of this process: seconds that it ran, and that it wanted to and could not; nothing outside Linux."""
    found = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError):  # the thread has ended
            ran, waited, _ = file.read_text(encoding="ascii").split()
            found[file.parent.name] = int(ran) / 1e9, int(waited) / 1e9
    return found


def _swapped() -> int:
    try:
        found = re.search(r"VmSwap:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


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
    short = settled(lambda: run(first), most / 4)
    more = first + max(1, min(at_most, int(most / 8 / max(short / first, 1e-5))))
    long = settled(lambda: run(more), most / 2)
    step = (long - short) / (more - first)
    if step < 0.1 * long / more:
        step = long / more
    return step, max(short - first * step, 0.0)


def settled(run: Callable[[], float], most: float) -> float:
    """The least of several times: until two agree, or as many as `most` seconds allow, at least one."""
    found = [run()]
    while len(found) < _TIMES and sum(found) + found[-1] < most:
        found.append(run())
        least, next_one = sorted(found)[:2]
        if next_one <= (1 + AGREE) * least:
            return least
    if len(found) > 1 and _CURRENT and sorted(found)[1] > (1 + _APART) * min(found):
        _CURRENT[-1].reasons.append("equal runs took different times")
    return min(found)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
