"""`status` with everything cached, as it is typed: a process of its own, from the first import to the last line.

The graph is the embedded world's with all that it measures, at the sizes of the tests, made once in a temporary folder;
its outside files are none, so nothing is read but manifests. With ALIGNET_PHOTOS and a finished run of
experiment=photos in the store that ALIGNET_STORE names, that graph is measured too: 900,000 choices and photographs
whose checksums are remembered.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.frame import ROUNDS, Limit

LIMIT = 2.0  # seconds


def cases(quick: bool) -> Iterator[Limit]:
    """The world, and the photographs where there is a finished run."""
    from tests.makers.worlds import everything, overrides

    with tempfile.TemporaryDirectory() as folder:
        options = (overrides if quick else everything)(Path(folder))
        command("pipeline", options)
        yield case("world", options, 1 if quick else ROUNDS)
    photos, store = os.environ.get("ALIGNET_PHOTOS"), os.environ.get("ALIGNET_STORE")
    if photos and store:
        options = ["experiment=photos", f"paths.photos={photos}", f"paths.artifacts={store}"]
        yield case("photos", options, 1 if quick else ROUNDS)


def case(name: str, options: list[str], rounds: int) -> Limit:
    """Once unmeasured, so that files are in the system's cache and checksums remembered; then `rounds` times."""
    lines = command("status", options).splitlines()
    states = [line.split()[1] for line in lines if len(line.split()) > 1 and "[" in line.split()[0]]
    others = [state for state in states if state != "cached"]
    assert states
    assert not others, f"expected every node cached, found {others or lines}"
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        command("status", options)
        found.append(time.perf_counter() - began)
    return Limit(
        f"`status`, experiment={name}, everything cached",
        "s",
        found,
        LIMIT,
        note=lines[-1].partition(";")[0].strip(),
    )


def command(stage: str, options: list[str]) -> str:
    """What a stage prints; an error with what it said where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", f"alignet.stages.{stage}", *options], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{stage}: {done.stderr or done.stdout}")
    return done.stdout
