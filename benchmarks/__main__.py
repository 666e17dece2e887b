"""Ours against named baselines: a table, benchmarks/results.json, and from it benchmarks/RESULTS.md.

    uv run python -m benchmarks [--quick] [--only NAME ...] [--photos FOLDER]

Each file of benchmarks runs in a process of its own, with the number of threads named in FILES. `--only` keeps the
other rows of results.json as they were. `--quick` takes smaller sizes and writes nothing. Run it with nothing else on
the machine. `gpu` is left out where there is none.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FILES = {  # name -> threads; the module is benchmarks.NAME
    "vice": 1,
    "odd_one_out": 2,
    "clusters": 2,
    "sampling": 2,
    "labelling": 2,
    "embedding": 2,
    "finetune": 2,
    "in_batch": 2,
    "passes": 2,
    "status": 2,
    "harmonizer": 1,
    "attacks": 1,
    "invert": 1,
    "gpu": 16,
}
INTRODUCTION = """\
Made by `uv run python -m benchmarks` from results.json; do not edit. Both sides were measured in turn in one process;
times are medians with the lowest and highest round in brackets, for one unit of work. The ratio is the baseline's time
(or count) over ours. The floor is what this machine needs to move the bytes or to do the operations that the work
cannot do without.
"""
PACKAGES = ("torch", "numpy", "faiss-gpu", "scikit-learn", "timm", "pillow", "numba")


def main() -> None:
    """Run the files asked for, print a table, write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes, nothing written")
    parser.add_argument("--only", nargs="+", choices=FILES, metavar="NAME", help=f"of: {', '.join(FILES)}")
    parser.add_argument(
        "--photos", type=Path, help="the folder of real photographs and choices (data/README.md)"
    )
    parser.add_argument("--file", choices=FILES, help=argparse.SUPPRESS)  # in the process of one file
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.photos is not None:
        os.environ["ALIGNET_PHOTOS"] = str(given.photos.absolute())
    if given.file:
        given.to.write_text(json.dumps(run_here(given.file, given.quick), indent=1), encoding="utf-8")
        return
    path = HERE / "results.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    failed = []
    for name in given.only or _possible():
        print(f"{name}: {FILES[name]} thread{'s' * (FILES[name] > 1)}", flush=True)
        found = run_apart(name, given.quick)
        if found is None:
            failed.append(name)
            continue
        results[name] = found
        if not given.quick:
            path.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            (HERE / "RESULTS.md").write_text(page(results), encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _possible() -> list[str]:
    """All files, without `gpu` where there is none."""
    import torch

    if torch.cuda.is_available():
        return list(FILES)
    print("no GPU on this machine: gpu is left out", flush=True)
    return [name for name in FILES if name != "gpu"]


def run_apart(name: str, quick: bool) -> dict[str, Any] | None:
    """Run a file in a fresh process; its results, None if it failed."""
    threads = str(FILES[name])
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "NUMBA_NUM_THREADS": threads,
    }
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks", "--file", name, "--to", str(to), *["--quick"] * quick]
        if subprocess.run(command, env=environment, cwd=HERE.parent).returncode:
            return None
        return json.loads(to.read_text(encoding="utf-8"))


def run_here(name: str, quick: bool) -> dict[str, Any]:
    """Measure every case of a file in this process, printing each."""
    import torch

    from benchmarks.frame import machine_rates, measure

    torch.set_num_threads(FILES[name])
    began = time.monotonic()
    device = "cuda" if name == "gpu" else "cpu"
    rates = machine_rates(device)
    rows = []
    for case in importlib.import_module(f"benchmarks.{name}").cases(quick):
        rows.append(measure(case, rates))
        print("  " + line(rows[-1]), flush=True)
    return {
        "rows": rows, "rates": rates, "threads": FILES[name], "seconds": time.monotonic() - began,
        "machine": _machine(device), "versions": _versions(), "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }  # fmt: skip


def line(row: Mapping[str, Any]) -> str:
    """A row in a line of text."""
    if row["kind"] == "limit":
        return f"{row['name']}: {row['found']['median']:.3g} {row['unit']}, limit {row['limit']:g}"
    text = f"{row['name']}: {_ratio(row)}x of {row['baseline']['name']} (goal {row['goal']:g}x)"
    if row["kind"] == "time":
        text += f"; {_time(row['ours'])} against {_time(row['baseline'])} per {row['unit']}"
    if "floor" in row:
        text += f"; floor {_seconds(row['floor']['seconds'])}"
    return text + "".join(f"; {name} {value:.4g}" for name, value in row.get("figures", {}).items())


def page(results: Mapping[str, Any]) -> str:
    """RESULTS.md."""
    return "\n".join(_page(results)) + "\n"


def _page(results: Mapping[str, Any]) -> Iterator[str]:
    yield "# Benchmarks\n"
    yield INTRODUCTION
    for name in [name for name in FILES if name in results]:
        group = results[name]
        yield f"## {name}\n"
        yield _measured_on(name, group)
        yield "| what | ours | baseline | ratio | goal | floor | |"
        yield "|---|---|---|---|---|---|---|"
        yield from (_cells(row) for row in group["rows"])
        yield ""
        for row in group["rows"]:
            told = [row["note"]] if row["note"] else []
            told += [f"{key} {value:.4g}" for key, value in row.get("figures", {}).items()]
            if row.get("floor", {}).get("text"):
                told.append(f"floor: {row['floor']['text']}")
            if told:
                yield f"- **{row['name']}**: {'; '.join(told)}."
        yield ""


def _measured_on(name: str, group: Mapping[str, Any]) -> str:
    rates, threads = group["rates"], group["threads"]
    versions = ", ".join(f"{package} {number}" for package, number in group["versions"].items())
    return (
        f"`uv run python -m benchmarks --only {name}`, {group['date']}, {group['seconds']:.0f} s, {group['machine']}, "
        f"{threads} thread{'s' * (threads > 1)}: {rates['copy'] / 1e9:.1f} GB/s read and written, "
        f"{rates['float32'] / 1e9:.0f} GFLOP/s in float32, {rates['bfloat16'] / 1e9:.0f} in bfloat16. {versions}.\n"
    )


def _cells(row: Mapping[str, Any]) -> str:
    met = "met" if row["met"] else "not met"
    if row["kind"] == "limit":
        found = row["found"]
        values = f"{found['median']:.3g} [{found['low']:.3g}, {found['high']:.3g}] {row['unit']}"
        return f"| {row['name']} | {values} | | | below {row['limit']:g} | | {met} |"
    sides = []
    for side in (row["ours"], row["baseline"]):
        value = _time(side) if row["kind"] == "time" else _count(side)
        sides.append(f"{side['name']}: {value}")
    floor = _seconds(row["floor"]["seconds"]) if "floor" in row else ""
    ratio = f"{_ratio(row)}x | {row['goal']:g}x"
    return f"| {row['name']} (per {row['unit']}) | {sides[0]} | {sides[1]} | {ratio} | {floor} | {met} |"


def _time(side: Mapping[str, float]) -> str:
    return f"{_seconds(side['median'])} [{_seconds(side['low'])}, {_seconds(side['high'])}]"


def _ratio(row: Mapping[str, Any]) -> str:
    return f"{row['ratio']:,.0f}" if row["ratio"] >= 100 else f"{row['ratio']:.3g}"


def _count(side: Mapping[str, float]) -> str:
    return f"{side['median']:.4g} [{side['low']:.4g}, {side['high']:.4g}]"


def _seconds(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f} s"
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def _machine(device: str = "cpu") -> str:
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores of its host"
    names = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    model = names[0] if names else platform.processor()
    return f"{model}, {os.cpu_count()} cores"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if os.path.exists(path) else []


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except ImportError:  # PackageNotFoundError
            continue
    return found


if __name__ == "__main__":
    main()
