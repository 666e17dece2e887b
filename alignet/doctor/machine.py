"""What this machine has against what the missing nodes need: the table of estimates, free disk, free memory."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignet.doctor.estimate_base import Estimate
from alignet.doctor.estimates import Estimates
from alignet.doctor.findings import Finding, duration, fault, ok, one_line, size, warning
from alignet.doctor.sources import Sources
from alignet.runtime.memory import memory_left, memory_limit

UNTRUSTED = "not trusted"  # in the place of a time
PART = 0.05  # of the sum: with more of it in doubt, the sum is


@dataclass(frozen=True)
class Row:
    """A node of the table: its key, its state, and what making it takes (None: it is there).

    failed: why that could not be measured, ''.
    """

    key: str
    state: str
    estimate: Estimate | None
    failed: str = ""


def table(sources: Sources, estimates: Estimates) -> list[Row]:
    """A row for every node of the graph, in the order in which they run."""
    return [_row(sources, estimates, key) for key in sources.graph]


def _row(sources: Sources, estimates: Estimates, key: str) -> Row:
    """One row. A measurement that fails takes its own rows' numbers, and no others."""
    state = sources.state(key).state
    if state == "cached":
        return Row(key, state, None)
    measured = estimates.measured
    measured.asked.clear()
    try:
        found = estimates.of(key)
        reasons = [measured.doubts[one] for one in measured.asked if one in measured.doubts]
        return Row(key, state, replace(found, doubt=reasons[0]) if reasons else found)
    except Exception as error:
        if os.environ.get("ALIGNET_TRACEBACK"):
            raise
        why = one_line(f"{type(error).__name__}: {error}")
        return Row(
            key, state, Estimate(0.0, estimates.measured.baseline, 0, "not measured", unknown=True), why
        )


def check_measured(rows: Sequence[Row]) -> Iterator[Finding]:
    """What could not be measured, or not be trusted, each reason once."""
    doubtful = [row for row in rows if row.estimate is not None and row.estimate.doubt]
    if doubtful:
        reasons = "; ".join(dict.fromkeys(row.estimate.doubt for row in doubtful if row.estimate is not None))
        yield warning(
            "estimates", f"the times of {len(doubtful)} nodes are not to be trusted: {reasons}",
            "Run doctor again when the machine is free, or with doctor.seconds=20",
        )  # fmt: skip
    for why in dict.fromkeys(row.failed for row in rows if row.failed):
        keys = [row.key for row in rows if row.failed == why]
        yield warning(", ".join(keys), f"could not be measured: {why}")


def lines(rows: Sequence[Row], start_up: float) -> list[str]:
    """The table as text: every node that has to be made, then the sums."""
    missing = [(row, row.estimate) for row in rows if row.estimate is not None]
    shown: list[tuple[str, ...]] = [
        ("node", "state", "time", "memory", "of the GPU", "disk", "how it was estimated")
    ]
    for row, estimate in missing:
        mark = "at least " if estimate.unknown else ""
        taken = UNTRUSTED if estimate.doubt else mark + duration(estimate.seconds)
        how = f"{estimate.how}; {estimate.doubt}" if estimate.doubt else estimate.how
        shown.append((row.key, row.state, taken, size(estimate.memory),
                      size(estimate.gpu), size(estimate.disk), how))  # fmt: skip
    total = start_up + sum(estimate.seconds for _, estimate in missing)
    least = "at least " if any(estimate.unknown for _, estimate in missing) else ""
    doubtful = sum(estimate.seconds for _, estimate in missing if estimate.doubt) > PART * total
    shown.append((f"{len(missing)} of {len(rows)} nodes", "", UNTRUSTED if doubtful else least + duration(total),
                  size(max((estimate.memory for _, estimate in missing), default=0)),
                  size(max((estimate.gpu for _, estimate in missing), default=0)),
                  size(sum(estimate.disk for _, estimate in missing)),
                  f"in one process, one after the other; {start_up:.0f} s to load the libraries"))  # fmt: skip
    if not any(estimate.gpu for _, estimate in missing):
        shown = [(*row[:4], *row[5:]) for row in shown]
    last = len(shown[0]) - 1
    widths = [max(len(row[column]) for row in shown) for column in range(last)]
    sides = ["<", "<", *">" * (last - 2)]
    return [
        "  ".join(
            [*(f"{row[column]:{sides[column]}{widths[column]}}" for column in range(last)), row[last]]
        ).rstrip()
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
    largest = max(rows, key=lambda row: row.estimate.memory if row.estimate is not None else -1)
    assert largest.estimate is not None
    yield _fits("memory", largest.key, largest.estimate.memory, memory_left(), memory_limit())
    if sources.config.runtime.device == "cuda":
        yield from _check_gpu(rows)


def _check_gpu(rows: Sequence[Row]) -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        return  # a fault of its own
    largest = max(rows, key=lambda row: row.estimate.gpu if row.estimate is not None else -1)
    free, total = torch.cuda.mem_get_info()
    held = torch.cuda.memory_reserved()  # by the networks that doctor has loaded
    yield _fits(
        "GPU memory", largest.key, largest.estimate.gpu if largest.estimate else 0, free + held, total
    )


def _fits(about: str, key: str, needed: int, free: int, total: int) -> Finding:
    """What the node with the largest need takes, against what is free and what there is."""
    said = f"{size(needed)} needed by {key}, {size(free)} free of {size(total)}"
    fix = (
        "Lower finetune.settings.batch, embed.batch or embed.shard, or split the batch with "
        "finetune.settings.accumulate"
    )
    if key.startswith("harmonize"):
        fix = "Lower harmonize.settings.part or harmonize.settings.batch, or set runtime.recompute=true"
    elif key.startswith("saliency"):
        fix = "Lower saliency.batch or saliency.shard"
    elif key.startswith("attack"):
        fix = "Lower attack.batch or attack.shard"
    elif key.startswith("invert"):
        fix = "Lower invert.batch or invert.shard"
    elif key.startswith("perceptual"):
        fix = "Lower perceptual.batch or invert.images"
    elif key.startswith("robust"):
        fix = "Lower robust.settings.batch, or set runtime.recompute=true"
    if needed > total:
        return fault(about, said, fix)
    return warning(about, said) if needed > free else ok(about, said)


def load_libraries() -> float:
    """Import what the stages import; seconds that it took. A million objects of libraries are then passed over where
    garbage is collected, which is after each measurement."""
    began = time.perf_counter()
    import faiss  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import timm  # noqa: F401

    import alignet.student.finetune  # noqa: F401

    seconds = time.perf_counter() - began
    gc.collect()
    gc.freeze()
    return seconds
