"""Split-half reliability of VICE: do two fits on disjoint halves of the choices find the same similarities?

reads   index[train triplets], index[object table]
writes  reliability.json: Spearman correlation of the two similarity matrices, dimensions kept in each half, and
        whether both fits converged; null where a half keeps none: then the choices are too few
cost    two fits of VICE on half of the choices, with the settings of the stage vice
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Fit both halves and compare."""
    import math

    import torch

    from alignet.config import ViceSettings, build
    from alignet.data.concepts import load_concepts
    from alignet.pipeline import payloads
    from alignet.runtime.artifacts import write_json
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.vice.fit import split_half_reliability

    settings = build(ViceSettings, work.section["settings"], "vice")
    objects = len(load_concepts(work.sources["objects"]))
    train = torch.from_numpy(payloads.triplets(work, "train", objects))
    halves = [
        Checkpoints(work.checkpoints / half, work.runtime.checkpoint_seconds) for half in ("first", "second")
    ]
    found = split_half_reliability(
        train, objects=objects, settings=settings, checkpoints=halves, device=work.runtime.device
    )
    # JSON has no NaN: where a half keeps no dimension there is nothing to correlate, and the table says so
    rho = None if math.isnan(found["spearman"]) else found["spearman"]
    counts = {name: int(found[name]) for name in ("objects", "kept_first", "kept_second", "converged")}
    write_json(work.folder / "reliability.json", {"spearman": rho} | counts)
    return {"spearman": rho} | counts


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("reliability", __doc__ or "")
