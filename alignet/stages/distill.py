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
    from pathlib import Path

    import numpy as np
    import torch

    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Cross-validate over objects for lambda and learning rate, then fit on all triplets."""
    import numpy as np
    import torch

    from alignet.config import DistillSettings, build
    from alignet.data.tables import read_column
    from alignet.data.triplets import restrict
    from alignet.pipeline import payloads
    from alignet.runtime.artifacts import write_json
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.teacher.cross_validation import cross_validate
    from alignet.teacher.fit_affine_map import choices, fit_map
    from alignet.teacher.locality import Locality

    if "published" in work.inputs:
        width = work.inputs["features"].metrics["width"]
        return take_published(work.sources["published"], work.folder / "map.npz", work.node.role, width)
    settings = build(DistillSettings, work.section["settings"], "distill.settings")
    rows_of_features, ids = payloads.embedding(work.inputs["features"])
    rows = payloads.object_rows(work.section["object_ids"], work.sources["objects"], ids)
    used = restrict(payloads.triplets(work, "triplets", len(rows)), rows)
    features = torch.from_numpy(rows_of_features.astype(np.float32))
    triplets = torch.from_numpy(used.triplets)
    if "soft_labels" in work.inputs:
        labels = np.load(work.inputs["soft_labels"].file("probabilities.npy"), allow_pickle=False)
        targets = torch.from_numpy(labels[used.kept])
    else:
        targets = choices(len(triplets))
    locality = None
    if "local" in work.inputs:  # the neighbourhoods that a gLocal map is to keep
        near, local = work.section["local"], torch.from_numpy(payloads.embedding(work.inputs["local"])[0])
        locality = Locality(local, near["weight"], near["temperature"], near["batch"])
    column = work.section["fold_column"]
    values = read_column(work.sources["objects"], column) if column else None
    if used.dropped:
        print(f"{used.dropped:,} triplets with an object that has no features are left out", flush=True)

    seconds = work.runtime.checkpoint_seconds
    folds = cross_validate(
        features,
        triplets,
        targets,
        settings=settings,
        groups=None if values is None else groups_of(values, rows, len(ids)),
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


def take_published(source: Path, target: Path, role: str, width: int) -> dict[str, Any]:
    """A map W, b from elsewhere in the place of a fit; ValueError unless its width is the features'."""
    from alignet.teacher.affine_map import AffineMap

    mapping = AffineMap.load_npz(source)
    if len(mapping.weights) != width:
        raise ValueError(
            f"{source}: expected a map of {width} features, as the {role} has, found one "
            f"of {len(mapping.weights)}; give the map that was learned on this very model."
        )
    mapping.save_npz(target)
    return {"published": True, "width": width}


def groups_of(values: list[str], rows: np.ndarray, m: int) -> torch.Tensor:
    """Which of m feature rows must share a fold, (m,) int64: those whose objects have equal values.

    rows: the feature row of each object, -1 where it has none.
    """
    import numpy as np
    import torch

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
