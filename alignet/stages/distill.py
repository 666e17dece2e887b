"""Uncertainty distillation: the affine map that makes a model's similarities answer as people do.

reads   embed[model.images], soft_labels[triplets], index[triplets], index[object table]; or, with distill.published, a
        gLocal npz that was learned elsewhere, which is checked instead of a fit
writes  map.npz (weights, bias, mean, std), cross_validation.json (accuracy and KL by fold, lambda and rate)
        the roles of distill.others: the choices themselves in the place of soft labels (loss=hard), and the embedding
        `local` whose neighbourhoods are kept (gLocal)
roles   teacher, student (the setting `ud`); global, glocal: the same for two older transforms of the student
cost    seconds to minutes; the cross-validation fits folds x lambdas x learning rates maps
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Cross-validate over objects for lambda and learning rate, then fit on all triplets."""
    import numpy as np
    import torch

    from alignet.config import DistillSettings, build
    from alignet.data.triplets import restrict
    from alignet.pipeline import payloads
    from alignet.runtime.artifacts import write_json
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.teacher.distill import choices, cross_validate, fit_map

    if "published" in work.inputs:
        return _take(work)
    settings = build(DistillSettings, work.section["settings"], "distill.settings")
    rows_of_features, ids = payloads.embedding(work.inputs["features"])
    rows = payloads.object_rows(work, ids)
    used = restrict(payloads.triplets(work, "triplets", len(rows)), rows)
    features = torch.from_numpy(rows_of_features.astype(np.float32))
    triplets = torch.from_numpy(used.triplets)
    if "soft_labels" in work.inputs:
        labels = np.load(work.inputs["soft_labels"].file("probabilities.npy"), allow_pickle=False)
        targets = torch.from_numpy(labels[used.kept])
    else:
        targets = choices(len(triplets))
    locality = _locality(work)
    if used.dropped:
        print(f"{used.dropped:,} triplets with an object that has no features are left out", flush=True)

    seconds = work.runtime.checkpoint_seconds
    folds = cross_validate(
        features,
        triplets,
        targets,
        settings=settings,
        groups=_groups(work, rows, len(ids)),
        locality=locality,
        checkpoints=Checkpoints(work.checkpoints / "folds", seconds),
    )
    fit = fit_map(
        features, triplets, targets, penalty=folds.penalty, lr=folds.lr, settings=settings, locality=locality,
        checkpoints=Checkpoints(work.checkpoints / "fit", seconds),
    )  # fmt: skip
    fit.map.save_npz(work.folder / "map.npz")
    best = next(row for row in folds.grid if (row["penalty"], row["lr"]) == (folds.penalty, folds.lr))
    write_json(
        work.folder / "cross_validation.json", {"rows": _plain(folds.rows), "grid": _plain(folds.grid)}
    )
    write_json(work.folder / "curve.json", fit.curve)
    return {
        "lambda": folds.penalty,
        "learning_rate": folds.lr,
        "triplets": len(triplets),
        "triplets_left_out": used.dropped,
        "held_out_triplets": int(best["triplets"]),
        "held_out_accuracy_before": best["accuracy_before"],
        "held_out_accuracy": best["accuracy"],
        "held_out_kl_before": best["kl_before"],
        "held_out_kl": best["kl"],
    }


def _locality(work: StageRun) -> Any:
    """The neighbourhoods that a gLocal map is to keep; None for the other maps."""
    import torch

    from alignet.pipeline import payloads
    from alignet.teacher.locality import Locality

    if "local" not in work.inputs:
        return None
    local = work.section["local"]
    features = torch.from_numpy(payloads.embedding(work.inputs["local"])[0])
    return Locality(features, local["weight"], local["temperature"], local["batch"])


def _take(work: StageRun) -> dict[str, Any]:
    """A map W, b from elsewhere in the place of a fit; ValueError unless its width is the features'."""
    from alignet.teacher.distill import AffineMap

    mapping = AffineMap.load_npz(work.sources["published"])
    width = work.inputs["features"].metrics["width"]
    if len(mapping.weights) != width:
        raise ValueError(
            f"{work.sources['published']}: expected a map of {width} features, as the {work.node.role} has, found one "
            f"of {len(mapping.weights)}; give the map that was learned on this very model."
        )
    mapping.save_npz(work.folder / "map.npz")
    return {"published": True, "width": width}


def _groups(work: StageRun, rows: Any, m: int) -> Any:
    """Which of the m feature rows must share a fold: equal numbers, (m,) int64; None where each stands alone."""
    import numpy as np
    import torch

    from alignet.data.tables import read_column

    column = work.section["fold_column"]
    if not column:
        return None
    values = read_column(work.sources["objects"], column)
    groups = np.full(m, -1)
    known = np.flatnonzero(rows >= 0)
    groups[rows[known]] = np.unique(np.array(values)[known], return_inverse=True)[1]
    return torch.from_numpy(groups)


def _plain(rows: list[dict[str, float]]) -> list[dict[str, Any]]:
    # a fit that diverged has an infinite KL, which JSON cannot hold
    return [
        {name: value if abs(value) != float("inf") else None for name, value in row.items()} for row in rows
    ]


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("distill", __doc__ or "")
