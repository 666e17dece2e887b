"""Train a student on labelled images: the ingredients of a network's training, with and without attacks.

reads   index[labelled images], their classes; the student's weights as it was pretrained, unless a role begins with new
        ones; a role with @: robust[the role before it]
writes  weights.safetensors (the keys of the library's files), curves.npz, and weights-<steps>.safetensors for each of
        the role's snapshots; for students of transformers or from a folder, the configuration beside the weights
roles   robust-l2, robust-linf (PGD in every step, in either norm); robust-free ("free" adversarial training: each batch
        several times, the perturbation carried on); any name that begins with standard (cross-entropy), adversarial,
        trades, mart or simclr; <role>@<steps>: that training after so many steps
cost    steps x (forward and backward passes of a batch and of its attacks), which several processes share; a killed run
        goes on at its last checkpoint
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.backbones import Encoder
    from alignet.config import RobustRole
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Train as the role says, or hand out what a training kept on its way."""
    import numpy as np

    from alignet.attacks.train import adversarial_training, passes_of
    from alignet.backbones import stored_names
    from alignet.config import Augmentation, LabelledTraining, RobustRole, build
    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.distributed import current
    from alignet.runtime.tensors import save_tensors
    from alignet.stages._labelled_images import labelled_images

    processes, runtime, section = current(), work.runtime, work.section
    if "snapshot" in section:
        return _snapshot(work)
    settings = build(LabelledTraining, section["settings"], "robust.settings")
    role = build(RobustRole, section["role"], "robust.roles")
    augmentation = None
    if "augmentation" in section:
        augmentation = build(Augmentation, section["augmentation"], "robust.augmentations")
    if role.begin == "random":
        encoder = payloads.encoder(work, "random", settings.seed)
    else:
        encoder = payloads.encoder(work, payloads.base_weights(work))
    data = labelled_images(work, "images", "labels", encoder)
    result = adversarial_training(
        encoder, data, settings, role, augmentation=augmentation, workers=runtime.workers, processes=processes,
        recompute=runtime.recompute, snapshot=_keeping(work, encoder, role) if role.snapshots else None,
        checkpoints=Checkpoints(work.checkpoints, runtime.checkpoint_seconds, signals=False),
    )  # fmt: skip
    if processes.first:
        save_tensors(stored_names(encoder, result.state), work.folder / "weights.safetensors")
        payloads.save_configuration(encoder, work.folder)
        np.savez(work.folder / "curves.npz", **result.curves)  # type: ignore[arg-type]
        _hand_over(work, role)
    figures: dict[str, Any] = {
        "steps": settings.steps,
        "image_passes": settings.steps * settings.batch * passes_of(role),
        "images": len(data),
        "attacked": role.attacks,
    }
    if role.loss != "adversarial":
        figures["loss"] = role.loss
    for name, curve in result.curves.items():
        if name != "lr":
            figures |= {f"{name}_first": float(curve[0]), f"{name}_last": float(curve[-1])}
    return figures


def _kept(steps: int) -> str:
    return f"weights-{steps}.safetensors"


def _keeping(work: StageRun, encoder: Encoder, role: RobustRole) -> Callable[[int], None]:
    """What keeps the weights after the steps that a role names, beside the checkpoints: a killed run finds them there.

    A snapshot is written before a checkpoint of its step or of a later one, so a run that goes on lacks none.
    """
    import os

    from alignet.backbones import stored_names
    from alignet.runtime.distributed import current
    from alignet.runtime.tensors import save_tensors

    def keep(done: int) -> None:
        if done not in role.snapshots or not current().first:
            return
        state = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in encoder.module.state_dict().items()
        }
        work.checkpoints.mkdir(parents=True, exist_ok=True)
        temporary = work.checkpoints / f"{_kept(done)}.tmp"
        save_tensors(stored_names(encoder, state), temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, work.checkpoints / _kept(done))

    return keep


def _hand_over(work: StageRun, role: RobustRole) -> None:
    """Copy the role's snapshots from beside the checkpoints, which go with the work folder, to the artifact."""
    import shutil

    for steps in role.snapshots:
        shutil.copyfile(work.checkpoints / _kept(steps), work.folder / _kept(steps))


def _snapshot(work: StageRun) -> dict[str, Any]:
    """The weights of a training after so many steps, as an artifact that is read like any other's."""
    import shutil

    from alignet.runtime.distributed import current

    training, steps = work.inputs["training"], int(work.section["snapshot"])
    if current().first:
        shutil.copyfile(training.file(_kept(steps)), work.folder / "weights.safetensors")
        for name in training.manifest["files"]:
            if Path(name).suffix != ".npz" and not Path(name).match("weights*.safetensors"):
                shutil.copyfile(training.file(name), work.folder / name)  # a configuration, a tokenizer
    return {"steps": steps}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("robust", __doc__ or "")
