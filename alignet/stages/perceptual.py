"""Perceptual distances of inverted images: to what they look like to the network, and to what they began as.

reads   invert[...] of the same role; the weights of the networks by which images are compared
writes  <distance>.npz for each distance, over all n targets with k draws each: to_target and to_seed (n, k), from each
        inverted image to its target and to its seed; to_targets (n, k, n), to every target; between_targets (n, n), of
        the targets themselves; float32, of `inverted` as it is stored, not rounded; optimised, whether this is the
        distance that the method pushed up; and ids.txt, a line for each target
roles   as of `invert`: <model>.<image set>.<method>, e.g. student.mapped_test.free
cost    for each distance n (2 k + 1) forward passes, or n (k + 1) (B + 1) where targets take B > 1 blocks, each two
        gigabytes of what a distance keeps. Several processes deal the distances; one that is complete is kept
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.invariances.perceptual import Distance
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Make what is not there yet. A distance exists once its file has been renamed into place."""
    from alignet.runtime.distributed import current
    from alignet.stages._distances import distance

    section, processes = work.section, current()
    names = list(section["distances"])
    made = work.inputs["invert"]
    paths = [made.folder / one for one in sorted(made.manifest["files"]) if one.endswith(".npz")]
    for name in names[processes.rank :: processes.size]:
        if not (work.folder / f"{name}.npz").is_file():
            one = distance(work, name, section["distances"][name])
            write_distance(one, paths, work.folder, section["batch"], work.runtime.device, work.node.role)
    processes.wait()
    return finish(names, paths, work.folder) if processes.first else {}


def write_distance(
    distance: Distance, paths: Sequence[Path], folder: Path, batch: int, device: str, name: str
) -> None:  # fmt: skip
    """Write <distance>.npz into `folder`, see the top of this file.

    paths: the shards of the stage `invert` in their order. name: of the progress.
    """
    import os

    import numpy as np

    from alignet.invariances.measure import measure
    from alignet.runtime.interrupt import stop_if_asked
    from alignet.runtime.progress import progress

    def shards() -> Iterator[dict[str, np.ndarray]]:
        for path in paths:
            with np.load(path, allow_pickle=False) as shard:
                yield {one: shard[one] for one in ("image", "seed", "inverted")}

    n = k = 0
    for path in paths:
        with np.load(path, allow_pickle=False) as shard:
            rows, k = shard["steps"].shape
            n, optimised = n + rows, str(shard["distance"]) == distance.name
    with progress(f"perceptual {name} {distance.name}", n * k * n, "distances") as report:

        def advance(count: int) -> None:
            stop_if_asked()
            report(count)

        arrays = measure(distance, shards, batch=batch, device=device, advance=advance)
    temporary = folder / f"{distance.name}.tmp"
    with open(temporary, "wb") as handle:
        np.savez(handle, optimised=np.array(optimised), **arrays)  # type: ignore[arg-type]
    os.replace(temporary, folder / f"{distance.name}.npz")


def finish(names: Sequence[str], paths: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Write ids.txt; returns counts, and by each distance the share of inverted images that are nearer to their target
    than to their seed."""
    import numpy as np

    from alignet.pipeline.payloads import read_lines

    listings = [path.with_name(path.name.replace("invert-", "ids-")).with_suffix(".txt") for path in paths]
    ids = [line for path in listings for line in read_lines(path)]
    (folder / "ids.txt").write_text("".join(f"{one}\n" for one in ids), encoding="utf-8")
    figures: dict[str, Any] = {"targets": len(ids), "distances": len(names)}
    for name in names:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as one:
            figures |= {f"nearer_{name}": float((one["to_target"] < one["to_seed"]).mean())}
            figures["draws"] = one["to_seed"].shape[1]
    return figures


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("perceptual", __doc__ or "")
