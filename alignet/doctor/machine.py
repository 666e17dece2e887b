"""What this machine has against what the missing nodes need: the table of estimates, free disk, free memory."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignet.doctor.estimates import Estimate, Estimates
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.sources import Sources
from alignet.memory import memory_left, memory_limit


@dataclass(frozen=True)
class Row:
    """A node of the table: its key, its state, and what making it takes (None: it is there)."""

    key: str
    state: str
    estimate: Estimate | None


def table(sources: Sources, estimates: Estimates) -> list[Row]:
    """A row for every node of the graph, in the order in which they run."""
    rows = []
    for key in sources.graph:
        state = sources.state(key).state
        rows.append(Row(key, state, None if state == "cached" else estimates.of(key)))
    return rows


def lines(rows: Sequence[Row], start_up: float) -> list[str]:
    """The table as text: every node that has to be made, then the sums."""
    missing = [(row, row.estimate) for row in rows if row.estimate is not None]
    shown = [("node", "state", "time", "memory", "disk", "how it was estimated")]
    for row, estimate in missing:
        mark = "at least " if estimate.unknown else ""
        shown.append((row.key, row.state, mark + duration(estimate.seconds), size(estimate.memory),
                      size(estimate.disk), estimate.how))  # fmt: skip
    total = start_up + sum(estimate.seconds for _, estimate in missing)
    least = "at least " if any(estimate.unknown for _, estimate in missing) else ""
    shown.append((f"{len(missing)} of {len(rows)} nodes", "", least + duration(total),
                  size(max((estimate.memory for _, estimate in missing), default=0)),
                  size(sum(estimate.disk for _, estimate in missing)),
                  f"in one process, one after the other; {start_up:.0f} s to load the libraries"))  # fmt: skip
    widths = [max(len(row[column]) for row in shown) for column in range(5)]
    return [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  "
        f"{row[4]:>{widths[4]}}  {row[5]}".rstrip()
        for row in shown
    ]


def check_load() -> Iterator[Finding]:
    """Is the machine busy with something else while it is measured?"""
    if not hasattr(os, "getloadavg"):
        return
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > 0.75 * cores:
        yield warning(
            "load", f"{busy:.1f} processes want the {cores} cores: what is measured now is long and uncertain",
            "Run doctor again when the machine is free",
        )  # fmt: skip


def check_room(sources: Sources, rows: Sequence[Row]) -> Iterator[Finding]:
    """Free disk and free memory against what the missing nodes need."""
    missing = [row.estimate for row in rows if row.estimate is not None]
    if not missing:
        yield ok("disk", "nothing is missing")
        return
    needed = sum(one.disk for one in missing) + max(one.extra_disk for one in missing)
    folder = Path(sources.config.paths.artifacts).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    said = f"{size(needed)} needed, checkpoints included, {size(free)} free in {folder}"
    if needed > free:
        yield fault("disk", said, "Free space, or set paths.artifacts to another disk")
    else:
        yield warning("disk", said) if needed > 0.8 * free else ok("disk", said)
    largest = max(missing, key=lambda one: one.memory)
    key = next(row.key for row in rows if row.estimate is largest)
    there, total = memory_left(), memory_limit()
    said = f"{size(largest.memory)} needed by {key}, {size(there)} free of {size(total)}"
    if sources.config.runtime.device == "cuda":
        yield ok("memory", f"{said}; of the GPU, see the table")
    elif largest.memory > total:
        yield fault("memory", said, "Lower finetune.settings.batch, embed.batch or embed.shard, or split the batch "
                    "with finetune.settings.accumulate")  # fmt: skip
    else:
        yield warning("memory", said) if largest.memory > there else ok("memory", said)


def load_libraries() -> float:
    """Import what the stages import; seconds that it took."""
    began = time.perf_counter()
    import faiss  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import timm  # noqa: F401

    import alignet.finetune  # noqa: F401

    return time.perf_counter() - began


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    for limit, unit, word in ((100, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {word}"
    return f"{seconds / 86400:,.1f} days"


def size(number: float) -> str:
    """Bytes in MB or GB."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
