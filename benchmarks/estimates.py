"""What `doctor` estimates against what a finished run took.

    uv run python -m benchmarks.estimates [experiment=photos paths.photos=FOLDER] paths.artifacts=FINISHED_STORE

Measures as `doctor` does, for every node of the graph, and divides by the seconds in the manifest of the node's
artifact. Run it with nothing else on the machine, if the run had the machine for itself. Prints the nodes that took
longest and the sum; exit status 1 if the sum is off by more than a factor of 2.
"""

from __future__ import annotations

import sys

from alignet.doctor import machine
from alignet.doctor.estimates import Estimates
from alignet.doctor.measure import Measurements
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.pipeline.torch_setup import set_up

SHOWN = 20  # nodes that took longest


def main() -> None:
    """Measure, divide, print."""
    config = load(sys.argv[1:])
    sources = Sources(config, tuple(sys.argv[1:]), Pipeline(config))
    start_up = machine.load_libraries()
    set_up(config.runtime)
    estimates = Estimates(sources, Measurements(sources, Models(sources)))
    rows = []
    for key in sources.graph:
        artifact = sources.state(key).artifact
        if artifact is not None:
            rows.append((artifact.manifest["provenance"]["seconds"], estimates.of(key).seconds, key))
    if not rows:
        raise SystemExit(f"no finished node in {config.paths.artifacts}; run the pipeline first")
    rows.sort(reverse=True)
    width = max(len(key) for _, _, key in rows)
    print(f"{'node':{width}}      took  estimated  ratio")
    for took, guess, key in rows[:SHOWN]:
        print(f"{key:{width}}  {took:6.1f} s   {guess:6.1f} s   {guess / max(took, 1e-3):.2f}")
    rest = rows[SHOWN:]
    print(
        f"{f'{len(rest)} others':{width}}  {sum(row[0] for row in rest):6.1f} s   {sum(row[1] for row in rest):6.1f} s"
    )
    took, guess = sum(row[0] for row in rows), start_up + sum(row[1] for row in rows)
    missing = len(sources.graph) - len(rows)
    left_out = f"; {missing} of {len(sources.graph)} nodes are not there and left out" if missing else ""
    print(f"{'sum':{width}}  {took:6.1f} s   {guess:6.1f} s   {guess / took:.2f}{left_out}")
    if not 0.5 <= guess / took <= 2:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
