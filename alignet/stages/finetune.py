"""Fine-tune the student on the teacher's answers, holding its weights near where they started (eq. 6).

reads   index[pool] and the student's weights; embed[student.pool] where the classifier's answers are retained
        sampling `triplets`: triplets
        sampling `in_batch`: embed[teacher.pool] (or smooth, where it is configured), for `alignet`
        distill[teacher] too, and cluster where batches are drawn by clusters
        direct: index[judged images], index[human triplets] and the object table, in the place of a teacher
writes  weights.safetensors (the keys of the library's files), head.safetensors (if any), curves.npz; for students of
        transformers or from a folder, the configuration beside the weights
roles   alignet, distillation (the control: raw teacher, no human data), direct (people's choices, no teacher)
cost    steps x (forward and backward pass of a batch), which several processes share; a killed run goes on at its last
        checkpoint
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from alignet.config import FinetuneSettings
    from alignet.pipeline.stage_run import StageRun
    from alignet.student.finetune import PoolTeacher, TripletAnswers


def run(work: StageRun) -> dict[str, Any]:
    """Fine-tune from the student's pretrained weights."""
    import numpy as np

    from alignet.backbones import ImageFiles, stored_names
    from alignet.config import FinetuneSettings, build
    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.distributed import current
    from alignet.runtime.tensors import save_tensors
    from alignet.student.export import rehearse
    from alignet.student.finetune import finetune

    processes, inputs, runtime = current(), work.inputs, work.runtime
    settings = build(FinetuneSettings, work.section["settings"], "finetune.settings")
    encoder = payloads.encoder(work, payloads.base_weights(work))
    checkpoints = Checkpoints(work.checkpoints, runtime.checkpoint_seconds, signals=False)
    if processes.first and not checkpoints.newest():
        rehearse(encoder, work.folder / "rehearsal.tmp")
    source = payloads.images(work, "images")
    embedded = [inputs[name] for name in ("features", "original", "opened") if name in inputs]
    ids = readable(source.ids, map(payloads.embedded_ids, embedded))
    ids = [ids[row] for row in payloads.part_of_pool(work.section.get("pool_images"), len(ids))]
    teacher: TripletAnswers | PoolTeacher
    if "choices" in inputs:
        rows = payloads.object_rows(work.section["object_ids"], work.sources["objects"], ids)
        teacher = human_choices(payloads.triplets(work, "choices", len(rows)), rows)
        entropy = 0.0  # a choice knows no uncertainty
    elif settings.sampling == "triplets":
        teacher, entropy = answered_triplets(inputs["triplets"].folder, ids, settings.tau_teacher)
    else:
        clusters = None
        if "clusters" in inputs:
            clusters = rows_of(
                payloads.assignment(inputs["clusters"]), payloads.embedded_ids(inputs["features"]), ids
            )
        mapped = rows_of(*payloads.mapped_features(inputs["features"], inputs.get("map")), ids)
        teacher, entropy = pool_teacher(mapped, clusters, settings)
        del mapped  # a teacher that is centred has its own
    original = None if "original" not in inputs else rows_of(*payloads.embedding(inputs["original"]), ids)
    images = ImageFiles(ids, payloads.opener(work, source), encoder)
    pixels = in_memory(images, processes.local_size, runtime.workers)
    result = finetune(
        encoder, pixels, teacher, settings, original=original,
        workers=runtime.workers if pixels is images else 0, processes=processes,
        checkpoints=checkpoints,
        recompute=runtime.recompute, compiled=runtime.compile, sharding=runtime.sharding,
    )  # fmt: skip
    if processes.first:
        save_tensors(stored_names(encoder, result.state), work.folder / "weights.safetensors")
        payloads.save_configuration(encoder, work.folder)
        if result.head:
            save_tensors(result.head, work.folder / "head.safetensors")
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


def readable(listed: Iterable[str], embedded: Iterable[list[str]]) -> list[str]:
    """The pool's images in order, without those that one of the embeddings has set aside as unreadable."""
    listed = list(listed)
    ids = listed
    for have in embedded:
        known = set(have)
        ids = [one for one in ids if one in known]
    if len(ids) < len(listed):
        print(
            f"{len(listed) - len(ids):,} images of the pool were set aside when it was embedded", flush=True
        )
    return ids


def rows_of(values: np.ndarray, have: list[str], ids: list[str]) -> np.ndarray:
    """The rows of `ids`, out of rows that are named by `have`."""
    from alignet.data.features import rows_for

    return values[rows_for(ids, have)]


def human_choices(triplets: np.ndarray, rows: np.ndarray) -> TripletAnswers:
    """People's own choices as answers: of the three similarities the chosen pair's is one, the others' zero.

    rows: the image of each object that the triplets (n, 3) count, -1 where it has none.
    """
    import numpy as np

    from alignet.data.triplets import restrict
    from alignet.student.finetune import TripletAnswers

    used = restrict(triplets, rows)
    if used.dropped:
        print(f"{used.dropped:,} triplets with an object that has no image are left out", flush=True)
    return TripletAnswers(used.triplets, np.eye(1, 3, dtype=np.float32).repeat(len(used.triplets), 0))


def answered_triplets(folder: Path, ids: list[str], tau: float) -> tuple[TripletAnswers, float]:
    """Triplets of these images with the teacher's similarities, and the mean entropy of its labels in nats."""
    import numpy as np

    from alignet.data.triplets import restrict, rows_of_objects
    from alignet.pipeline.payloads import read_lines
    from alignet.student.finetune import TripletAnswers
    from alignet.teacher.labelling import label_entropy

    rows = rows_of_objects(read_lines(folder / "ids.txt"), ids)
    used = restrict(np.load(folder / "triplets.npy", allow_pickle=False), rows)
    sims = np.load(folder / "similarities.npy", allow_pickle=False)[used.kept]
    if used.dropped:
        print(f"{used.dropped:,} triplets with an image that was set aside are left out", flush=True)
    return TripletAnswers(used.triplets, sims), label_entropy(sims, tau)


def pool_teacher(
    features: np.ndarray, clusters: np.ndarray | None, settings: FinetuneSettings
) -> tuple[PoolTeacher, float]:
    """The teacher that answers as batches come, and the mean entropy of its labels in nats.

    features (n, p), clusters (n,): of the images that the student is fine-tuned on.
    """
    from alignet.student.finetune import PoolTeacher
    from alignet.teacher.labelling import label_entropy, teacher_similarities
    from alignet.teacher.sampling import random_triplets

    if settings.center_teacher:  # so that images close to everything lose their pull
        features = features - features.mean(0)
    sample = random_triplets(len(features), min(100_000, len(features) ** 2), 0)
    entropy = label_entropy(teacher_similarities(features, sample), settings.tau_teacher)
    return PoolTeacher(features, clusters), entropy


def in_memory(images: Any, processes: int, workers: int) -> Any:
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
