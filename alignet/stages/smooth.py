"""Smooth the teacher's features of the pool over what the student's pretrained classifier takes each image for.

reads   embed[teacher.pool], embed[student.pool], the student's weights
writes  features-00000.npy and ids-00000.txt, as `embed` does, in the teacher's raw space
cost    an eigendecomposition of the smaller of images and student features; images x classes of memory
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Predict the features from the classifier and keep the prediction."""
    import numpy as np

    from alignet.backbones import classifier_head
    from alignet.data.features import rows_for
    from alignet.pipeline import payloads
    from alignet.teacher.smoothing import class_expectations, smooth

    head = classifier_head(payloads.encoder(work, payloads.base_weights(work)))
    if head is None:
        raise ValueError(
            f"smooth: expected a student with a linear classifier on its pooled features, found "
            f"{work.section['model']['architecture']} without; set smooth=null."
        )
    features, ids = payloads.embedding(work.inputs["features"])
    seen, have = payloads.embedding(work.inputs["original"])
    weights, bias = (tensor.cpu().numpy() for tensor in head)
    expected = class_expectations(seen[rows_for(ids, have)], weights, bias)
    found = smooth(expected, features, work.section["penalties"])
    np.save(work.folder / "features-00000.npy", found.features)
    (work.folder / "ids-00000.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return {"images": len(ids), "penalty": found.penalty, "explained_left_out": found.explained}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("smooth", __doc__ or "")
