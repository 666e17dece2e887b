"""The first command of the README, before and after: the whole embedded world from an empty store.

    uv run python -m benchmarks.first_run --base COMMIT --rounds 3 [--keep FOLDER]

The base is checked out into a temporary folder with an environment of its own. Both run in turn, round r with seed r,
so that whatever else the machine does meets both. Python may keep its bytecode, as it does for a user. CPU seconds are
user and system time of the command and all that it starts; memory is the peak of what its processes hold together, each
page that they share counted once.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

HERE = Path(__file__).resolve().parent.parent
GOALS = {"wall": 0.5, "CPU": 0.5, "memory": 1.0}  # ours over the base, at most
UNITS = {"wall": "s", "CPU": "s", "memory": "GB"}
_LOOK_SECONDS = 0.5


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A worktree of `commit` with its own environment, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="first-run-") as folder:
        tree = Path(folder) / "base"
        git = ["git", "-C", str(HERE), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), commit], check=True, capture_output=True)
        try:
            subprocess.run(["uv", "sync", "--frozen", "--project", str(tree)], check=True, cwd=tree)
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def run(tree: Path, options: list[str], keep: Path | None = None) -> dict[str, float]:
    """Figures by GOALS of one whole run of the tree's default pipeline. keep: where its store stays."""
    with tempfile.TemporaryDirectory(prefix="first-run-store-") as store:
        words = ["-m", "alignet.stages.pipeline", f"paths.artifacts={keep or store}", *options]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        before, began = _cpu(), time.monotonic()
        with open(Path(store) / "log.txt", "w+", encoding="utf-8") as log:
            child = subprocess.Popen(
                [str(tree / ".venv" / "bin" / "python"), *words],
                cwd=tree,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            peak = _watch(child)
            wall = time.monotonic() - began
            if child.returncode:
                log.seek(0)
                raise SystemExit(f"{tree}: the pipeline ended with {child.returncode}:\n{log.read()[-3000:]}")
    return {"wall": wall, "CPU": _cpu() - before, "memory": peak / 1e9}


def _watch(child: subprocess.Popen) -> int:
    """Wait for the child; the peak of its and its children's memory in bytes."""
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        peak = max(peak, _held(process))
        time.sleep(_LOOK_SECONDS)
    return peak


def _held(process: psutil.Process) -> int:
    """Bytes held by a process and its children: proportional set sizes, or what is resident where they are unknown."""
    held = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            held += getattr(one.memory_full_info(), "pss", 0) or one.memory_info().rss
    except psutil.Error:  # one of them has just ended
        pass
    return held


def _cpu() -> float:
    """User and system seconds of the children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> bool:
    """Print every round, the medians and their ratios; whether every goal is met."""
    print("| round | " + " | ".join(f"{name} {UNITS[name]}, base | ours" for name in GOALS) + " |")
    print("|---|" + "---|---|" * len(GOALS))
    for number, (base, ours) in enumerate(rounds, 1):
        print(f"| {number} | " + " | ".join(f"{base[name]:.1f} | {ours[name]:.1f}" for name in GOALS) + " |")
    met = True
    for name, goal in GOALS.items():
        before, after = (median(pair[side][name] for pair in rounds) for side in (0, 1))
        reached = after <= goal * before
        met &= reached
        said = f"ratio {after / before:.2f}, goal {goal}: {'met' if reached else 'not met'}"
        print(f"{name}: median {before:.1f} and {after:.1f} {UNITS[name]}, {said}")
    return met


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", required=True, help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a folder in which our stores stay")
    parser.add_argument("options", nargs="*", help="for both pipelines, e.g. runtime.threads=1")
    given = parser.parse_args()
    rounds = []
    with checkout(given.base) as base:
        for number in range(given.rounds):
            options = [f"seed={number}", *given.options]
            rounds.append((run(base, options), run(HERE, options, given.keep)))
            print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr, flush=True)
    sys.exit(0 if report(rounds) else 1)


if __name__ == "__main__":
    main()
