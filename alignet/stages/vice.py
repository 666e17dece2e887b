"""Fit VICE: a variational posterior over a sparse non-negative embedding of the judged objects.

reads   index[train triplets], index[validation triplets], index[object table]
writes  posterior.npz {loc, scale}, pruned.npz {pruned_loc, pruned_scale, dimensions}, curves.json
cost    900,000 triplets of 1,854 objects: minutes on 2 cores; the paper's settings: days
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Fit, prune, and measure the mean of the posterior samples on the validation triplets."""
    import numpy as np
    import torch

    from alignet.artifacts import write_json
    from alignet.checkpoints import Checkpoints
    from alignet.config import ViceSettings, build
    from alignet.data.concepts import load_concepts
    from alignet.stages import _read
    from alignet.vice.fit import fit_vice

    settings = build(ViceSettings, work.section["settings"], "vice")
    objects = len(load_concepts(work.sources["objects"]))
    train, val = (torch.from_numpy(_read.triplets(work, name, objects)) for name in ("train", "val"))
    checkpoints = Checkpoints(work.checkpoints, work.runtime.checkpoint_seconds)
    fit = fit_vice(
        train, val, objects=objects, settings=settings, checkpoints=checkpoints, device=work.runtime.device
    )
    np.savez(work.folder / "posterior.npz", loc=fit.loc.numpy(), scale=fit.scale.numpy())
    np.savez(
        work.folder / "pruned.npz",
        pruned_loc=fit.pruned_loc.numpy(), pruned_scale=fit.pruned_scale.numpy(), dimensions=fit.kept.numpy(),
    )  # fmt: skip
    write_json(work.folder / "curves.json", fit.curves)
    figures: dict[str, Any] = {
        "triplets": len(train), "epochs": len(fit.curves["nll"]), "kept_dimensions": len(fit.kept),
        "converged": fit.converged,
    }  # fmt: skip
    if fit.warning:
        figures["warning"] = fit.warning
    return figures | {f"validation_{name}": value for name, value in fit.validation.items()}


if __name__ == "__main__":
    from alignet.cli import stage_main

    stage_main("vice", __doc__ or "")
