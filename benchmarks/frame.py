"""How a benchmark is measured: ours and a named baseline in turn, in one process, beside what the machine allows.

A file of benchmarks has a function `cases(quick) -> Iterator[Case | Count | Limit]`. Both sides of a Case run once
unmeasured and then in turn, `rounds` times each, so that whatever else the machine does meets both. Reported are
medians, the lowest and highest round, and the floor: bytes that must be moved over the measured memory bandwidth, or
operations over the measured rate of matrix products, whichever takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

ROUNDS = 5


@dataclass(frozen=True)
class Side:
    """One way of doing it: `run` does `work` units of the case at a call."""

    name: str
    run: Callable[[], Any]
    work: float = 1


@dataclass(frozen=True)
class Floor:
    """What one unit of work needs at least: bytes of memory that are moved, operations (a multiply-add is two)."""

    bytes: float = 0
    operations: float = 0
    precision: str = "float32"  # of the operations: float32 or bfloat16
    text: str = ""  # what is counted


@dataclass(frozen=True)
class Case:
    """A comparison. goal: the ratio to reach; check: figures shown beside it, AssertionError where sides disagree."""

    name: str
    unit: str  # what `work` counts
    ours: Side
    baseline: Side
    goal: float
    floor: Floor | None = None
    rounds: int = ROUNDS
    check: Callable[[], Mapping[str, float]] | None = None
    note: str = ""


@dataclass(frozen=True)
class Count:
    """A comparison of counts that are no times, such as image passes: a figure for each repetition (seed)."""

    name: str
    unit: str
    ours: tuple[str, list[float]]
    baseline: tuple[str, list[float]]
    goal: float
    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Limit:
    """A figure that must stay below a limit, such as the seconds of a command."""

    name: str
    unit: str
    found: list[float]
    limit: float
    note: str = ""


def measure(case: Case | Count | Limit, rates: Mapping[str, float]) -> dict[str, Any]:
    """The row of results.json for a case."""
    if isinstance(case, Limit):
        row = {"kind": "limit", "name": case.name, "unit": case.unit, "found": spread(case.found)}
        return row | {"limit": case.limit, "met": max(case.found) <= case.limit, "note": case.note}
    if isinstance(case, Count):
        ours, baseline = spread(case.ours[1]), spread(case.baseline[1])
        row = _row(case, "count", case.ours[0], ours, case.baseline[0], baseline)
        return (
            row
            | {"ratio": baseline["median"] / ours["median"], "figures": dict(case.figures)}
            | _met(case, row)
        )
    for side in (case.baseline, case.ours):
        _finished(side)
    seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
    for _ in range(case.rounds):
        for which, side in (("baseline", case.baseline), ("ours", case.ours)):
            began = time.perf_counter()
            _finished(side)
            seconds[which].append((time.perf_counter() - began) / side.work)
    row = _row(
        case, "time", case.ours.name, spread(seconds["ours"]), case.baseline.name, spread(seconds["baseline"])
    )
    ratios = [theirs / own for theirs, own in zip(seconds["baseline"], seconds["ours"])]
    row |= {"work": {"ours": case.ours.work, "baseline": case.baseline.work}, "ratios": spread(ratios)}
    if case.floor is not None:
        row["floor"] = _floor(case.floor, rates) | {"text": case.floor.text}
    row["figures"] = dict(case.check()) if case.check is not None else {}
    return row | _met(case, row)


def _finished(side: Side) -> None:
    """Run a side and wait for the GPU, where one is used."""
    side.run()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest, highest and number of repetitions."""
    return {"median": median(values), "low": min(values), "high": max(values), "rounds": len(values)}


def _row(case: Case | Count, kind: str, own: str, ours: dict, other: str, baseline: dict) -> dict[str, Any]:
    sides = {"ours": {"name": own} | ours, "baseline": {"name": other} | baseline}
    return {"kind": kind, "name": case.name, "unit": case.unit, "goal": case.goal, "note": case.note} | sides


def _met(case: Case | Count, row: Mapping[str, Any]) -> dict[str, Any]:
    ratio = row["baseline"]["median"] / row["ours"]["median"]
    return {"ratio": ratio, "met": ratio >= case.goal}


def _floor(floor: Floor, rates: Mapping[str, float]) -> dict[str, float]:
    by_bytes = floor.bytes / rates["copy"]
    return {"seconds": max(by_bytes, floor.operations / rates[floor.precision])}


def machine_rates(device: str = "cpu") -> dict[str, float]:
    """What this machine does with the present number of threads: `copy` bytes a second that are read or written,
    `float32` and `bfloat16` operations a second in products of two square matrices. The best of some tries."""
    gpu = device == "cuda"
    # larger than any cache, and enough work to fill the device
    elements, side = (1 << 30, 8192) if gpu else (1 << 26, 2048)
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    rates = {"copy": 2 * source.nbytes / _fastest(lambda: target.copy_(source))}
    for name in ("float32", "bfloat16"):
        matrix = torch.randn(side, side, device=device).to(getattr(torch, name))
        rates[name] = 2 * side**3 / _fastest(lambda held=matrix: held @ held)
    return rates


def _fastest(run: Callable[[], Any]) -> float:
    side = Side("", run)
    _finished(side)
    best = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        _finished(side)
        best = min(best, time.perf_counter() - began)
    return best
