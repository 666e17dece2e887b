"""Fine-tune the student on the teacher's answers, holding its weights near where they started (eq. 6).

reads   index[pool] and the student's weights; embed[student.pool] where the classifier's answers are retained
        sampling `triplets`: triplets
        sampling `in_batch`: embed[teacher.pool] (or smooth, where it is configured), for `alignet`
        distill[teacher] too, and cluster where batches are drawn by clusters
        direct: index[judged images], index[human triplets] and the object table, in the place of a teacher
writes  weights.safetensors (the student's own keys), head.safetensors (if any), curves.npz; for students of
        transformers or from a folder, the configuration beside the weights
roles   alignet, distillation (the control: raw teacher, no human data), direct (people's choices, no teacher)
cost    steps x (forward and backward pass of a batch), which several processes share; a killed run goes on at its last
        checkpoint
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Fine-tune from the student's pretrained weights."""
    import numpy as np
    from safetensors.torch import save_file

    from alignet.backbones import ImageFiles
    from alignet.config import FinetuneSettings, build
    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.distributed import current
    from alignet.student.finetune import finetune

    everyone = current()

    settings = build(FinetuneSettings, work.section["settings"], "finetune.settings")
    encoder = payloads.encoder(work, payloads.base_weights(work))
    source = payloads.images(work, "images")
    ids = _usable(work, source.ids)
    images = ImageFiles(ids, payloads.opener(work, source), encoder)
    teacher, entropy = _teacher(work, ids, settings)
    pixels = _in_memory(images, everyone.local_size, work.runtime.workers)
    result = finetune(
        encoder, pixels, teacher, settings, original=_original(work, ids),
        workers=work.runtime.workers if pixels is images else 0, processes=everyone,
        checkpoints=Checkpoints(work.checkpoints, work.runtime.checkpoint_seconds, signals=False),
        recompute=work.runtime.recompute, compiled=work.runtime.compile, sharding=work.runtime.sharding,
    )  # fmt: skip
    if everyone.first:
        save_file(result.state, work.folder / "weights.safetensors")
        payloads.save_configuration(encoder, work.folder)
        if result.head:
            save_file(result.head, work.folder / "head.safetensors")
        np.savez(work.folder / "curves.npz", **result.curves)  # type: ignore[arg-type]
    images_a_step = settings.batch * (settings.accumulate if settings.sampling == "in_batch" else 3)
    return {
        "steps": settings.steps,
        "image_passes": settings.steps * images_a_step,
        "loss_first": float(result.curves["loss"][0]),
        "loss_last": float(result.curves["loss"][-1]),
        "retained_last": float(result.curves["retained"][-1]),
        "distance_from_start": float(result.curves["distance"][-1]),
        "tau_teacher": settings.tau_teacher,
        "tau_student": result.tau_student,
        "label_entropy_nats": entropy,
    }


def _usable(work: StageRun, listed: Any) -> list[str]:
    """The pool's images in order, without those that an embedding among the inputs has set aside as unreadable.

    Of these the part that the configuration asks for (data.pool_images).
    """
    from alignet.pipeline import payloads

    ids = list(listed)
    for name in ("features", "original", "opened"):
        if name in work.inputs:
            known = set(payloads.embedded_ids(work.inputs[name]))
            ids = [one for one in ids if one in known]
    if len(ids) < len(listed):
        print(
            f"{len(listed) - len(ids):,} images of the pool were set aside when it was embedded", flush=True
        )
    return [ids[row] for row in payloads.part_of_pool(work, ids)]


def _teacher(work: StageRun, ids: list[str], settings: Any) -> tuple[Any, float]:
    """The teacher as fine-tuning takes it, and the mean entropy of its labels in nats."""
    import numpy as np

    from alignet.data.features import rows_for
    from alignet.data.triplets import restrict, rows_of_objects
    from alignet.pipeline import payloads
    from alignet.student.finetune import PoolTeacher, TripletAnswers
    from alignet.teacher.labelling import label_entropy, teacher_similarities
    from alignet.teacher.sampling import random_triplets

    if "choices" in work.inputs:
        return _people(work, ids), 0.0  # a choice knows no uncertainty
    if settings.sampling == "triplets":
        folder = work.inputs["triplets"].folder
        rows = rows_of_objects(payloads.read_lines(folder / "ids.txt"), ids)
        used = restrict(np.load(folder / "triplets.npy", allow_pickle=False), rows)
        sims = np.load(folder / "similarities.npy", allow_pickle=False)[used.kept]
        if used.dropped:
            print(f"{used.dropped:,} triplets with an image that was set aside are left out", flush=True)
        return TripletAnswers(used.triplets, sims), label_entropy(sims, settings.tau_teacher)
    features, have = payloads.mapped_features(work)
    features = features[rows_for(ids, have)]
    if settings.center_teacher:  # so that images close to everything lose their pull
        features = features - features.mean(0)
    clusters = payloads.assignment(work)[rows_for(ids, have)] if "clusters" in work.inputs else None
    sample = random_triplets(len(features), min(100_000, len(features) ** 2), 0)
    entropy = label_entropy(teacher_similarities(features, sample), settings.tau_teacher)
    return PoolTeacher(features, clusters), entropy


def _people(work: StageRun, ids: list[str]) -> Any:
    """People's own choices as answers: of the three similarities the chosen pair's is one, the others' zero."""
    import numpy as np

    from alignet.data.triplets import restrict
    from alignet.pipeline import payloads
    from alignet.student.finetune import TripletAnswers

    rows = payloads.object_rows(work, ids)
    used = restrict(payloads.triplets(work, "choices", len(rows)), rows)
    if used.dropped:
        print(f"{used.dropped:,} triplets with an object that has no image are left out", flush=True)
    return TripletAnswers(used.triplets, np.eye(1, 3, dtype=np.float32).repeat(len(used.triplets), 0))


def _original(work: StageRun, ids: list[str]) -> Any:
    """The initial network's features of the pool (m, p), where the stage is to keep its classifier's answers."""
    from alignet.data.features import rows_for
    from alignet.pipeline import payloads

    if "original" not in work.inputs:
        return None
    features, have = payloads.embedding(work.inputs["original"])
    return features[rows_for(ids, have)]


def _in_memory(images: Any, processes: int, workers: int) -> Any:
    """All pixels as one tensor while they fit into a quarter of the memory, else the files themselves.

    processes: on this machine; each holds its own. workers: that read the images.
    """
    import torch

    from alignet.runtime.interrupt import ignore
    from alignet.runtime.memory import memory_limit

    first = images[0]
    if first.nbytes * len(images) * processes > memory_limit() // 4:
        return images
    held = torch.empty((len(images), *first.shape), dtype=first.dtype)
    # torch asks the global generator for a seed unless it is given one
    loader = torch.utils.data.DataLoader(
        images, batch_size=64, num_workers=workers, generator=torch.Generator(),
        multiprocessing_context="fork" if workers else None, worker_init_fn=ignore,
    )  # fmt: skip
    done = 0
    for part in loader:
        held[done : done + len(part)] = part
        done += len(part)
    return held


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("finetune", __doc__ or "")
