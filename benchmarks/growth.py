"""Does cost grow as `plan` says? Stages measured at 10^4 to 10^7 triplets or images, beside the prediction.

    uv run python -m benchmarks.growth               curves: benchmarks/growth.json, docs/scaling.md, docs/growth.png
    uv run python -m benchmarks.growth --constants   alignet/plan/constants.py, and what follows from it
    uv run python -m benchmarks.growth --run experiment=photos paths.photos=FOLDER paths.artifacts=FINISHED_STORE

Both write what they measure where it stands (benchmarks/scaling.py); `--constants` writes the rates of plan.machines
in conf/config.yaml too. `--quick` stops at 10^5 and writes nothing. `--busy`, where other work shares the machine,
counts CPU seconds of one thread, beside the prediction for one core of the two, and leaves rates as they are. A size
that is predicted to take longer than PATIENCE is left out and said so. Run it on a quiet machine, `--constants` first.
`--run` ends with status 1 where a stage above 3 s is off by more than a factor of 2.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignet.config.plan import MachineSettings
from alignet.pipeline.cli import load
from alignet.plan import formulas
from alignet.plan.constants import REFERENCE, UNITS
from alignet.plan.formulas import Work
from alignet.plan.machines import Machine, machine_of
from benchmarks import scaling, units
from benchmarks.__main__ import _machine
from benchmarks.frame import machine_rates
from benchmarks.units import fastest, jpeg, measure, stored_features, triplets_of

HERE = Path(__file__).parent
PATIENCE = 60.0  # seconds that one size may be predicted to take
POOL = 1_281_167


@dataclass(frozen=True)
class Curve:
    """A stage at several sizes. run: does the work at a size; work: what `plan` says that it is."""

    name: str
    counts: str  # what a size counts
    sizes: tuple[int, ...]
    run: Callable[[int], Callable[[], Any]]
    work: Callable[[int], Work]


def curves(folder: Path) -> Iterator[Curve]:
    """Every curve; what they need is made in `folder`."""
    yield _vice()
    yield _soft_labels()
    yield _answers()
    yield from _data_set(folder)
    yield _clusters()
    yield _embedding(folder)


def _vice() -> Curve:
    from alignet.vice.fit import fit_vice

    config = load(["experiment=paper"])
    assert config.vice is not None
    m, d, batch = 1854, 100, 8192
    one = replace(config.vice.settings, batch=batch, max_epochs=1, burn_in=0, window=1, k=0)

    def run(n: int) -> Callable[[], Any]:
        rows = torch.from_numpy(triplets_of(m, n))
        return lambda: fit_vice(rows, None, objects=m, settings=one)

    def work(n: int) -> Work:
        steps = math.ceil(n / batch)
        return formulas.vice_step(m, d, n / steps).times(steps) + formulas.vice_epoch(m, d)

    return Curve("VICE, an epoch, 1,854 x 100", "triplets", (10**4, 10**5, 10**6, 10**7), run, work)


def _soft_labels() -> Curve:
    from alignet.vice.soft_labels import soft_labels

    m, d, samples = 1854, 60, 50
    loc, scale = torch.rand(m, d), torch.full((m, d), 0.1)

    def run(n: int) -> Callable[[], Any]:
        rows = torch.from_numpy(triplets_of(m, n))
        return lambda: soft_labels(loc, scale, rows, samples=samples, seed=0)

    def work(n: int) -> Work:
        return formulas.probabilities(m, d, n).times(samples)

    return Curve("soft labels, 50 samples, 1,854 x 60", "triplets", (10**4, 10**5, 10**6, 10**7), run, work)


def _answers() -> Curve:
    from alignet.triplets import similarities

    m, p = 1854, 768
    features = torch.randn(m, p)

    def run(n: int) -> Callable[[], Any]:
        rows = torch.from_numpy(triplets_of(m, n))
        return lambda: similarities(features, rows).argmax(1)

    def work(n: int) -> Work:
        return formulas.answers(m, p, n)

    return Curve("odd-one-out, 1,854 x 768", "triplets", (10**4, 10**5, 10**6, 10**7), run, work)


def _data_set(folder: Path) -> Iterator[Curve]:
    """Drawing from ImageNet's number of images; labelling 100,000 images' features in half precision."""
    from alignet.teacher.labelling import label
    from alignet.teacher.sampling import cluster_boundary

    assignment = np.random.default_rng(0).integers(0, 500, POOL)
    sizes = (10**4, 10**5, 10**6, 10**7)
    yield Curve(
        "drawing triplets, 1,281,167 images", "triplets", sizes,
        lambda n: lambda: cluster_boundary(assignment, n, 0), lambda n: formulas.draw(n, POOL),
    )  # fmt: skip
    p, images = 1152, 100_000
    features = stored_features(folder, images, p)

    def run(n: int) -> Callable[[], Any]:
        rows = cluster_boundary(assignment[:images], n, 0)
        return lambda: label(features, rows)

    yield Curve(
        "labelling, 1,152 half-precision features", "triplets", sizes, run, lambda n: formulas.label(n, p, 2)
    )


def _clusters() -> Curve:
    from alignet.teacher.clusters import fit_clusters

    p, k, iterations = 64, 500, 4

    def run(n: int) -> Callable[[], Any]:
        rows = np.random.default_rng(0).standard_normal((n, p), dtype=np.float32)
        threads = torch.get_num_threads()
        return lambda: fit_clusters(rows, k=k, seed=0, iterations=iterations, threads=threads, sample=256 * k)

    def work(n: int) -> Work:
        return formulas.clustering(n, p, k, iterations, 1, min(n, 256 * k))

    return Curve("k-means, 64 features, 500 clusters", "images", (10**4, 10**5, 10**6), run, work)


def _embedding(folder: Path) -> Curve:
    """A tiny network, so that what grows is opening, resizing and the loop."""
    from alignet import embed
    from alignet import load as load_model
    from alignet.plan.networks import counted

    model, image = load_model("timm:test_vit", weights="random"), jpeg((96, 72))
    network = counted("test_vit", {})
    paths = [folder / f"{number:05d}.jpg" for number in range(10**4)]

    def run(n: int) -> Callable[[], Any]:
        for path in paths[:n]:
            if not path.exists():
                path.write_bytes(image)
        return lambda: embed(model, paths[:n])

    def work(n: int) -> Work:
        return formulas.read(n, len(image)) + formulas.forward(n, network.forward, network.kind)

    return Curve("embedding, 96 px JPEG, a tiny network", "images", (10**3, 10**4), run, work)


def measured(curve: Curve, machine: Machine, most: int) -> list[tuple[int, float, float]]:
    """(size, measured seconds, predicted seconds) of the sizes that are not too long."""
    rows = []
    for size in curve.sizes:
        predicted = machine.seconds(curve.work(size))
        if size > most:
            continue
        if predicted > PATIENCE:
            print(f"  {curve.name}: {size:,} left out, predicted to take {predicted:.0f} s", flush=True)
            continue
        run = curve.run(size)
        rows.append((size, fastest(run, 3 if predicted < 3 else 1, warm=predicted < 3), predicted))
        ratio = rows[-1][1] / predicted
        print(f"  {curve.name}: {size:>10,} {curve.counts}  {rows[-1][1]:9.4f} s  predicted {predicted:9.4f} s  "
              f"{ratio:5.2f}", flush=True)  # fmt: skip
    return rows


def slope(sizes: list[int], seconds: list[float]) -> float | None:
    """Of log seconds over log size, least squares, over runs that are long enough; None for fewer than two."""
    pairs = [(math.log(n), math.log(s)) for n, s in zip(sizes, seconds) if s >= scaling.COUNTED]
    if len(pairs) < 2:
        return None
    x, y = np.array(pairs).T
    return float(np.polyfit(x, y, 1)[0])


def grow(machine: Machine, quick: bool, busy: bool) -> None:
    """Measure every curve, print, and write benchmarks/growth.json, docs/scaling.md and its picture."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for curve in curves(Path(folder)):
            rows = measured(curve, machine, 10**5 if quick else 10**9)
            sizes, seconds, predicted = ([row[part] for row in rows] for part in range(3))
            found[curve.name] = {
                "counts": curve.counts, "rows": rows, "slope": slope(sizes, seconds),
                "predicted_slope": slope(sizes, predicted),
            }  # fmt: skip
    all_of_it = {"machine": _machine(), "busy": busy, "curves": found}
    print("\n" + scaling.growth(all_of_it))
    if not quick:
        scaling.CURVES.write_text(json.dumps(all_of_it, indent=1) + "\n", encoding="utf-8")
        scaling.draw_picture(found, scaling.PICTURE)
        scaling.main()


def half(settings: MachineSettings) -> MachineSettings:
    """One core of a machine of two."""
    rates = {name: getattr(settings, name) / 2 for name in ("float32", "bfloat16", "copy")}
    return replace(settings, cores=settings.cores // 2, **rates)


def constants(busy: bool) -> None:
    """Measure the constants of `plan` and write them where they stand; with nothing else going on, the rates too.

    busy: seconds are of one thread, and what has all cores to itself is taken to need half of them on two.
    """
    if not busy:
        rates = machine_rates()
        print("  " + ", ".join(f"{name} {value:.2e}" for name, value in rates.items()), flush=True)
        scaling.CONF.write_text(
            scaling.with_rates(scaling.CONF.read_text(encoding="utf-8"), rates), encoding="utf-8"
        )
    found = measure(load(["experiment=paper"]))
    read = ("decoded byte", "image", "hashed byte")  # measured on one core already
    if busy:
        found = {
            name: seconds / (1 if UNITS[name].bound == "one core" or name in read else 2)
            for name, seconds in found.items()
        }
    source = scaling.CONSTANTS.read_text(encoding="utf-8")
    scaling.CONSTANTS.write_text(scaling.with_units(source, found, busy), encoding="utf-8")
    # examples on the page follow from the new constants, which this process has not read
    subprocess.run([sys.executable, "-m", "benchmarks.scaling"], check=True, cwd=HERE.parent)


def against_run(overrides: list[str]) -> bool:
    """Print `plan` beside the seconds of a finished run; whether every stage above 3 s is within a factor of 2."""
    from alignet.pipeline.runner import Pipeline
    from alignet.plan.nodes import plan_nodes

    config = load(overrides)
    pipeline = Pipeline(config)
    machine = machine_of(config.plan.machine, config.plan.machines, config.plan.count)
    stages: dict[str, list[float]] = {}
    for cost in plan_nodes(config, machine):
        artifact = pipeline.state(cost.key).artifact
        if artifact is not None:
            took = artifact.manifest["provenance"]["seconds"]
            held = stages.setdefault(cost.stage, [0.0, 0.0])
            held[0], held[1] = held[0] + took, held[1] + cost.seconds
            if took > 3:
                print(f"  {cost.key:36} {took:7.1f} s  plan {cost.seconds:7.1f} s  {cost.seconds / took:.2f}")
    for stage, (took, planned) in stages.items():
        print(f"{stage:12} {took:7.1f} s  plan {planned:7.1f} s  {planned / max(took, 1e-9):.2f}")
    took, planned = (sum(pair[part] for pair in stages.values()) for part in (0, 1))
    print(f"{'all':12} {took:7.1f} s  plan {planned:7.1f} s  {planned / max(took, 1e-9):.2f}")
    return all(0.5 <= planned / took <= 2 for took, planned in stages.values() if took > 3)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="up to 10^5, nothing written")
    parser.add_argument(
        "--constants", action="store_true", help="measure the constants of plan, and this machine"
    )
    parser.add_argument("--run", nargs="+", metavar="KEY=VALUE", help="a finished run's options")
    parser.add_argument(
        "--busy", action="store_true", help="CPU seconds of one thread: other work is going on here"
    )
    given = parser.parse_args()
    torch.set_num_threads(1 if given.busy else 2)
    units.CLOCK = time.process_time if given.busy else time.perf_counter
    if given.constants:
        constants(given.busy)
    elif given.run:
        sys.exit(0 if against_run(given.run) else 1)
    else:
        config = load(["experiment=paper"])
        machine = machine_of(REFERENCE, config.plan.machines, 1)
        grow(
            replace(machine, settings=half(machine.settings)) if given.busy else machine,
            given.quick,
            given.busy,
        )


if __name__ == "__main__":
    main()
