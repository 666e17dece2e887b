"""Train a student on attacked images, so that larger changes of an image are needed for it to err.

reads   index[labelled images], their classes; the student's weights as it was pretrained
writes  weights.safetensors (the keys of the library's files), curves.npz; for students of transformers or from a
        folder, the configuration beside the weights
roles   robust-l2, robust-linf (PGD in every step, in either norm); robust-free ("free" adversarial training: each batch
        several times, the perturbation carried on)
cost    steps x (forward and backward pass of a batch) x (1 + steps of PGD), of free 1, which several processes share; a
        killed run goes on at its last checkpoint
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Train from the student's weights, against the attacks of the role."""
    import numpy as np

    from alignet.attacks.train import adversarial_training, passes_of
    from alignet.backbones import stored_names
    from alignet.config import LabelledTraining, RobustRole, build
    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.distributed import current
    from alignet.runtime.tensors import save_tensors
    from alignet.stages._labelled_images import labelled_images

    processes, runtime, section = current(), work.runtime, work.section
    settings = build(LabelledTraining, section["settings"], "robust.settings")
    role = build(RobustRole, section["role"], "robust.roles")
    encoder = payloads.encoder(work, payloads.base_weights(work))
    data = labelled_images(work, "images", "labels", encoder)
    result = adversarial_training(
        encoder, data, settings, role, workers=runtime.workers, processes=processes, recompute=runtime.recompute,
        checkpoints=Checkpoints(work.checkpoints, runtime.checkpoint_seconds, signals=False),
    )  # fmt: skip
    if processes.first:
        save_tensors(stored_names(encoder, result.state), work.folder / "weights.safetensors")
        payloads.save_configuration(encoder, work.folder)
        np.savez(work.folder / "curves.npz", **result.curves)  # type: ignore[arg-type]
    curves = result.curves
    return {
        "steps": settings.steps,
        "image_passes": settings.steps * settings.batch * passes_of(role),
        "images": len(data),
        "cross_entropy_first": float(curves["cross_entropy"][0]),
        "cross_entropy_last": float(curves["cross_entropy"][-1]),
        "right_first": float(curves["right"][0]),
        "right_last": float(curves["right"][-1]),
    }


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("robust", __doc__ or "")
