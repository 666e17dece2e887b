"""Pretrain the world's own teacher (image/text) and student (fine labels).

reads   world
writes  weights.safetensors (of timm.create_model(architecture, **model_args)), curve.json
roles   teacher, student
cost    about a minute each on 2 cores
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Train from random weights on the world's pretraining pictures."""
    import numpy as np

    from alignet.config import TrainingSettings, build
    from alignet.pipeline import payloads
    from alignet.runtime.artifacts import write_json
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.tensors import save_tensors
    from alignet.world.pretrain import pretrain_student, pretrain_teacher

    role, world = work.node.role, work.inputs["world"]
    settings = build(TrainingSettings, work.section, f"pretrain.{role}")
    checkpoints = Checkpoints(work.checkpoints, work.runtime.checkpoint_seconds, signals=False)
    images = np.load(world.file(f"pretrain/{role}_images.npy"), mmap_mode="r", allow_pickle=False)
    if role == "teacher":
        captions = np.load(world.file("pretrain/teacher_captions.npy"), allow_pickle=False)
        words = len(payloads.read_lines(world.file("pretrain/vocabulary.txt")))
        fit = pretrain_teacher(images, captions, words=words, settings=settings, checkpoints=checkpoints)
    else:
        labels = np.load(world.file("pretrain/student_labels.npy"), allow_pickle=False)
        fit = pretrain_student(images, labels, settings=settings, checkpoints=checkpoints)
    save_tensors(fit.state, work.folder / "weights.safetensors")
    write_json(work.folder / "curve.json", fit.curve)
    return {"steps": settings.steps, "last_loss": fit.curve[-1], "training_accuracy": fit.accuracy}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("pretrain", __doc__ or "")
