"""Fit VICE: a variational posterior over a sparse non-negative embedding of the judged objects.

reads   index[train triplets], index[validation triplets], index[object table]; or, with vice.published, an embedding
        that was fitted elsewhere, which is checked and pruned instead of a fit
writes  posterior.npz {loc, scale}, pruned.npz {pruned_loc, pruned_scale, dimensions}, curves.json
cost    900,000 triplets of 1,854 objects: minutes on 2 cores; the paper's settings: days
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Fit, prune, and measure the mean of the posterior samples on the validation triplets."""
    import numpy as np
    import torch

    from alignet.config import ViceSettings, build
    from alignet.data.concepts import load_concepts
    from alignet.data.object_order import numbering
    from alignet.pipeline import payloads
    from alignet.runtime.artifacts import write_json
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.vice.fit import fit_vice

    names = [one.unique_id for one in load_concepts(work.sources["objects"])]
    objects = len(names)
    if "published" in work.inputs:
        choices = payloads.triplets(work, "val", objects) if "val" in work.inputs else None
        order = work.section.get("order")
        rows = None if order is None else numbering(order, work.sources["objects"], work.sources.get("order"))
        return _take_published(work.sources["published"], names, work.section, rows, choices, work.folder)
    settings = build(ViceSettings, work.section["settings"], "vice")
    train, val = (torch.from_numpy(payloads.triplets(work, name, objects)) for name in ("train", "val"))
    checkpoints = Checkpoints(work.checkpoints, work.runtime.checkpoint_seconds)
    fit = fit_vice(
        train, val, objects=objects, settings=settings, checkpoints=checkpoints, device=work.runtime.device
    )
    if not len(fit.kept):
        raise ValueError(
            f"vice: expected a dimension in which more than {settings.k} of {objects} objects stay above zero, found "
            f"none of {settings.dim} after {len(fit.curves['nll'])} epochs of {len(train):,} choices, which show no "
            f"structure under these settings: check odd_one of data.sets, give more choices, or raise vice.settings.lr "
            f"or max_epochs."
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


def _take_published(
    source: Path,
    names: Sequence[str],
    section: Mapping[str, Any],
    numbered: np.ndarray | None,
    val: np.ndarray | None,
    folder: Path,
) -> dict[str, Any]:
    """A published embedding in the place of a fit. Without a scale it is a point: its labels know no uncertainty.

    names: of the objects, in the table's order. numbered: the table's row of each row of the embedding (m,), None
    where nobody said. val: triplets (n, 3) to measure it on, None where there are none.
    """
    import numpy as np
    import torch

    from alignet.data.embeddings import load_embedding
    from alignet.runtime.artifacts import write_json
    from alignet.vice.object_order import in_table_order
    from alignet.vice.pruning import kept_dimensions
    from alignet.vice.soft_labels import heldout_metrics

    notes: list[str] = []
    found, spread = load_embedding(source, len(names), notes)
    rows, said = in_table_order(found, names, section.get("order"), numbered, val, str(source))
    found, spread = found[rows], None if spread is None else spread[rows]
    for note in [*notes, *([said] if said else [])]:
        print(f"note: {note}", flush=True)
    settings = section["settings"]
    loc = torch.from_numpy(found)
    scale = torch.zeros_like(loc) if spread is None else torch.from_numpy(spread)
    kept = torch.arange(loc.shape[1])
    if spread is not None:
        kept = kept_dimensions(loc, scale, k=settings["k"], alpha=settings["alpha"])
    if not len(kept):
        raise ValueError(
            f"{source}: expected a dimension in which more than {settings['k']} objects are above "
            f"zero, found none of {loc.shape[1]}; check the file, or lower vice.settings.k"
        )
    np.savez(folder / "posterior.npz", loc=loc.numpy(), scale=scale.numpy())
    np.savez(
        folder / "pruned.npz",
        pruned_loc=loc[:, kept].numpy(), pruned_scale=scale[:, kept].numpy(), dimensions=kept.numpy(),
    )  # fmt: skip
    write_json(folder / "curves.json", {})
    figures: dict[str, Any] = {
        "published": True,
        "kept_dimensions": len(kept),
        "has_scale": spread is not None,
    }
    if val is None:
        return figures
    measured = heldout_metrics(
        loc[:, kept],
        scale[:, kept],
        torch.from_numpy(val),
        samples=settings["samples"],
        seed=settings["seed"],
    )
    return figures | {f"validation_{name}": value for name, value in measured.items()}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("vice", __doc__ or "")
