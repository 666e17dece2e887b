"""k-means over the teacher's features of the pool: mapped for `alignet`, raw for `distillation`.

reads   embed[teacher.pool], distill[teacher] (alignet only)
writes  clusters.npz {centroids, assignment}, elbow.json (the inertia curve, where the elbow chose k)
roles   alignet, distillation
cost    seconds; ImageNet with 500 clusters: minutes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Cluster with the configured number, or with the elbow of the inertia curve over the grid."""
    import numpy as np

    from alignet.pipeline import payloads
    from alignet.runtime.artifacts import write_json
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.teacher.clusters import elbow, fit_clusters

    section, k, each = work.section, work.section["clusters"], work.section["rows_per_cluster"]
    features, _ = payloads.embedded_rows(work.inputs["features"])
    grid = [value for value in section["grid"] if value <= len(features)]
    most = max(grid, default=1) if k == "elbow" else k
    transform = payloads.transform(work.inputs.get("map"))
    common = {
        "seed": section["seed"], "iterations": section["iterations"], "redo": section["redo"],
        "threads": work.runtime.threads, "transform": transform, "sample": each and each * most,
    }  # fmt: skip
    if k == "elbow":
        found = elbow(features, grid=grid, checkpoints=Checkpoints(work.checkpoints), **common)
        write_json(work.folder / "elbow.json", {"grid": list(found.grid), "inertia": list(found.inertia)})
        k = found.k
    clusters = fit_clusters(features, k=k, **common)
    np.savez(work.folder / "clusters.npz", centroids=clusters.centroids, assignment=clusters.assignment)
    sizes = np.bincount(clusters.assignment, minlength=k)
    return {
        "images": len(features), "clusters": k, "inertia": float(clusters.inertia),
        "smallest": int(sizes.min()), "largest": int(sizes.max()), "empty": int((sizes == 0).sum()),
    }  # fmt: skip


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("cluster", __doc__ or "")
