"""Kill -9 a run at random moments, rerun until it ends, and compare every payload with an undisturbed run.

    uv run python -m benchmarks.kills --kills 25 [override ...]
    uv run python -m benchmarks.kills --kills 50 --photos FOLDER

At least one kill falls into every stage, and one between a manifest and its rename; the others fall at random moments
after a run has begun to work, and on from nothing where all is made. --photos takes experiment=photos with few steps
and epochs (PHOTOS): every node of it in about a minute. Prints each kill and ends with the number of artifacts whose
checksums are equal; exit status 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph

# experiment=photos with all its nodes, short: 64 px, three steps, two epochs, one candidate of each grid
PHOTOS = [
    "experiment=photos", "runtime.threads=1", "runtime.checkpoint_seconds=0.5", "vice.settings.max_epochs=2",
    "vice.settings.burn_in=0", "vice.settings.window=1", "vice.settings.dim=20", "soft_labels.samples=3",
    "distill.settings.teacher.steps=4", "distill.settings.teacher.penalties=[0.1]",
    "distill.settings.teacher.lrs=[0.001]", "distill.settings.teacher.batch=8192",
    "distill.settings.student.steps=4", "distill.settings.student.penalties=[1.0]",
    "distill.settings.student.lrs=[0.0003]", "cluster.clusters=20", "finetune.settings.steps=6",
    "finetune.settings.warmup=1", "finetune.settings.batch=8", "student.image_size=64",
    "evaluate.bootstrap=20", "evaluate.datasets.labels.options.count=2000",
]  # fmt: skip


def digests(root: Path) -> dict[str, str]:
    """Payload digest of every artifact below a store's root."""
    found = {}
    for manifest in root.glob("*/*/MANIFEST.json"):
        if manifest.parent.suffix == "":
            found[f"{manifest.parent.parent.name}/{manifest.parent.name}"] = json.loads(manifest.read_text())[
                "digest"
            ]
    return found


def start(root: Path, overrides: list[str], log: Path) -> subprocess.Popen:
    """A pipeline run over the store `root`, in its own process group."""
    command = [sys.executable, "-m", "alignet.stages.pipeline", f"paths.artifacts={root}", *overrides]
    with open(log, "a", encoding="utf-8") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def kill_when(process: subprocess.Popen, ready, delay: float, patience: float, look: float) -> str | None:
    """Wait for `ready()`, asked every `look` seconds, to name something, wait `delay` seconds, kill -9. None if the run
    ended first. (Asked without a pause it would take a core of two, and what computes on both would crawl.)"""
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < patience:
        time.sleep(look)
        where = ready()
        if where:
            if delay:
                time.sleep(delay)
            if process.poll() is not None:
                return None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return where
    return None


def working(root: Path, stage: str):
    """A function that names unfinished work of a stage, or gives ''."""
    return lambda: next((str(path.relative_to(root)) for path in (root / stage).glob("*.partial")), "")


def begun(root: Path):
    """A function that names the first change of the store since it was made, or gives ''."""
    before = _entries(root)
    return lambda: ", ".join(sorted(_entries(root) - before)[:1])


def _entries(root: Path) -> set[str]:
    """Work folders and artifacts, each with the time of its last change."""
    try:
        return {
            f"{path.relative_to(root)} at {path.stat().st_mtime_ns}"
            for path in root.glob("*/*")
            if path.is_dir()
        }
    except FileNotFoundError:  # renamed while we looked
        return set()


def before_rename(root: Path):
    """A function that names a work folder that has its manifest and is not renamed yet, or gives ''."""

    def look() -> str:
        for stage in os.scandir(root) if root.is_dir() else []:
            if not stage.is_dir():
                continue
            for entry in os.scandir(stage):
                if entry.name.endswith(".partial") and os.path.exists(entry.path + "/MANIFEST.json"):
                    return f"{entry.path} (manifest written, not renamed)"
        return ""

    return look


def _differing(one: dict[str, str], other: dict[str, str]) -> str:
    return ", ".join(sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name)))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=None, help="of the two stores; default: a temporary one"
    )
    parser.add_argument(
        "--photos", type=Path, default=None, help="a folder as data/README.md says: kill experiment=photos"
    )
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()
    if arguments.photos is not None:
        arguments.overrides = [*PHOTOS, f"paths.photos={arguments.photos.absolute()}", *arguments.overrides]
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        whole, broken = folder / "whole", folder / "broken"
        began = time.monotonic()
        if start(whole, arguments.overrides, folder / "whole.log").wait():
            sys.exit(f"the undisturbed run failed:\n{(folder / 'whole.log').read_text()[-2000:]}")
        duration = time.monotonic() - began
        patience = 10 * duration  # of a machine that others use too
        reference = digests(whole)
        made = {name.partition("/")[0] for name in reference}
        order = dict.fromkeys(node.stage for node in build_graph(load(arguments.overrides)).values())
        stages = [stage for stage in order if stage in made]
        print(
            f"undisturbed: {len(reference)} artifacts of {len(stages)} stages in {duration:.0f} s", flush=True
        )

        # one kill in every stage as the run comes to it; between them one before a rename, and random moments
        plan = list(stages)
        for kind in ("rename", *["moment"] * max(0, arguments.kills - len(stages) - 1)):
            plan.insert(chance.randrange(len(plan) + 1), kind)
        done: dict[str, int] = {}
        attempts = 0
        while plan and attempts < 3 * arguments.kills:
            attempts += 1
            kind = plan.pop(0)
            process = start(broken, arguments.overrides, folder / "broken.log")
            if kind == "moment":
                delay = chance.uniform(0, max(0.5, 2 * duration / max(1, arguments.kills)))
                where = kill_when(process, begun(broken), delay, patience, 0.02)
            elif kind == "rename":
                where = kill_when(process, before_rename(broken), 0, patience, 0.0002)
            else:
                where = kill_when(process, working(broken, kind), chance.uniform(0, 0.3), patience, 0.002)
            if where is None:
                if process.wait():
                    sys.exit(f"a rerun failed:\n{(folder / 'broken.log').read_text()[-2000:]}")
                # the run ended before the moment came: begin again from nothing for what is left of the plan
                if digests(broken) != reference:
                    sys.exit(
                        f"checksums differ from the undisturbed run's: {_differing(reference, digests(broken))}"
                    )
                subprocess.run(["rm", "-rf", str(broken)], check=True)
                plan.insert(0, kind)
                continue
            done[kind] = done.get(kind, 0) + 1
            at = where.partition(" at ")[0]
            print(f"kill {sum(done.values()):2d}: {kind}: {at}", flush=True)
        if plan:
            sys.exit(f"after {attempts} runs these kills never came about: {', '.join(plan)}")
        if start(broken, arguments.overrides, folder / "broken.log").wait():
            sys.exit(f"the last rerun failed:\n{(folder / 'broken.log').read_text()[-2000:]}")
        after = digests(broken)
        equal = sum(after.get(name) == digest for name, digest in reference.items())
        print(
            f"{sum(done.values())} kills ({', '.join(f'{name} {count}' for name, count in sorted(done.items()))})"
        )
        print(f"{equal} of {len(reference)} artifacts have the same checksums as the undisturbed run")
        sys.exit(0 if equal == len(reference) == len(after) else 1)


if __name__ == "__main__":
    main()
