"""Image passes until a student agrees with people: all triplets of a batch against separate triplets, a figure a seed.

These are counts, no times, out of passes.jsonl, which `benchmarks.passes_study` makes in more than an hour; see there
what a pass is, and how the settings of both ways were chosen. Where a way was tried with several schedules of the rate,
the one that needed the fewest passes counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from benchmarks.frame import Count
from benchmarks.passes_study import TARGETS, recorded, steadily

WHERE = {"photos": "photographs, tune half", "world": "embedded world"}
GOAL = 3
Record = dict[str, Any]


def cases(quick: bool) -> Iterator[Count]:
    """A comparison for each bench; it takes no time, so quick is the same."""
    records = recorded()
    for bench, where in WHERE.items():
        found = [one for one in records if one["trial"]["bench"] == bench]
        ours, theirs = ([one for one in found if _reported(one, way)] for way in ("in_batch", "triplets"))
        yield Count(
            f"image passes to {TARGETS[bench]:g}, {where}", "trial",
            (f"all triplets of {_images(ours)} images", list(fewest(ours).values())),
            (f"separate triplets, {_images(theirs)} images a step", list(fewest(theirs).values())),
            GOAL, _figures(found, ours, theirs), _note(found, theirs),
        )  # fmt: skip


def fewest(records: list[Record]) -> dict[int, float]:
    """Passes to the target by seed, the fewest of its trials; if none reached it, those of the longest, too few."""
    seeds = sorted({one["trial"]["seed"] for one in records})
    passes = {}
    for seed in seeds:
        own = [one for one in records if one["trial"]["seed"] == seed]
        reached = [one["passes"] for one in own if one["passes"] is not None]
        passes[seed] = min(reached) if reached else max(one["points"][-1][1] for one in own)
    return passes


def _reported(record: Record, way: str) -> bool:
    trial = record["trial"]
    return record["part"] in ("report", "world") and trial["sampling"] == way and not trial["clusters"]


def _images(records: list[Record]) -> int:
    trial = records[0]["trial"]
    return trial["batch"] * (1 if trial["sampling"] == "in_batch" else 3)


def _note(found: list[Record], theirs: list[Record]) -> str:
    tuned = [one["trial"]["sampling"] for one in found if "tune" in one["part"]]
    every, own, other = theirs[0]["points"][1][0], tuned.count("in_batch"), tuned.count("triplets")
    note = (
        f"medians of three seeds; first point at or above the target, measured every {every} steps; settings were "
        f"chosen on the same choices with another seed, in {own} trials (in batch) and in {other} (separate)"
    )
    seeds = {one["trial"]["seed"] for one in theirs}
    never = len(seeds - {one["trial"]["seed"] for one in theirs if one["passes"] is not None})
    if never:
        note += f"; {never} of {len(seeds)} seeds of separate triplets never reached it and count as if at their end"
    return note


def _figures(found: list[Record], *ways: list[Record]) -> dict[str, float]:
    """Accuracy on the report half where the target was reached, and passes with batches drawn by clusters."""
    figures = {}
    for name, records in zip(("in batch", "separate"), ways):
        scores = [one["report"] for one in records if one["report"] is not None]
        if scores:
            figures[f"report half at that point, {name}"] = mean(scores)
    drawn = [one for one in found if one["part"] in ("draws", "world") and one["trial"]["clusters"]]
    for clusters in sorted({one["trial"]["clusters"] for one in drawn}):
        counted = fewest([one for one in drawn if one["trial"]["clusters"] == clusters])
        figures[f"passes with batches of {clusters} clusters"] = median(counted.values())
    slower = [one for one in found if one["part"] == "slower"]
    if not slower:  # the world, whose trials end where they reach the target
        return figures
    figures["passes in batch at half of the rate"] = median(fewest(slower).values())
    for name, records in (
        ("in batch", ways[0]),
        ("in batch at half of the rate", slower),
        ("separate", ways[1]),
    ):
        steady = [steadily(one["points"], TARGETS["photos"]) or one["points"][-1][1] for one in records]
        figures[f"passes until the mean of three points is there, {name}"] = median(steady)
    return figures
