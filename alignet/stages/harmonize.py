"""Train a student to look where people look: cross-entropy, and people's importance maps where there are any.

reads   index[images with maps], index[maps], their classes; further labelled images without maps; the student's
        weights, as it was pretrained or after AligNet; with AligNet's loss beside it, what finetune[alignet] reads
writes  weights.safetensors (the keys of the library's files), curves.npz; for students of transformers or from a
        folder, the configuration beside the weights
roles   harmonized; unharmonized (the same training without maps); shuffled-maps (every image gets another's);
        alignet-harmonized (begins after AligNet); alignet-and-harmonized (both losses in the same steps)
cost    steps x (forward and backward pass of a batch, and a second derivative for its images with maps), which several
        processes share; a killed run goes on at its last checkpoint
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones import Encoder
    from alignet.harmonizer.train import Alignment
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Train from the weights that the role begins with."""
    import numpy as np

    from alignet.backbones import stored_names
    from alignet.config import HarmonizeRole, HarmonizeSettings, build
    from alignet.harmonizer.train import harmonize
    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.distributed import current
    from alignet.runtime.tensors import save_tensors
    from alignet.stages._labelled_images import labelled_images

    processes, runtime, section = current(), work.runtime, work.section
    settings = build(HarmonizeSettings, section["settings"], "harmonize.settings")
    role = build(HarmonizeRole, section["role"], "harmonize.roles")
    encoder = payloads.encoder(work, payloads.base_weights(work))
    ids, maps = _maps(work, list(payloads.images(work, "images").ids), encoder, section["blur"])
    mapped = labelled_images(work, "images", "labels", encoder, ids=ids, maps=maps)
    plain = labelled_images(work, "plain", "plain_labels", encoder) if "plain" in work.inputs else None
    result = harmonize(
        encoder, mapped, plain, settings, use_maps=role.maps, shuffled=role.shuffled,
        alignment=_alignment(work, encoder, role.alignet) if role.alignet else None,
        workers=runtime.workers, processes=processes, recompute=runtime.recompute,
        checkpoints=Checkpoints(work.checkpoints, runtime.checkpoint_seconds, signals=False),
    )  # fmt: skip
    if processes.first:
        save_tensors(stored_names(encoder, result.state), work.folder / "weights.safetensors")
        payloads.save_configuration(encoder, work.folder)
        np.savez(work.folder / "curves.npz", **result.curves)  # type: ignore[arg-type]
    curves = result.curves
    return {
        "steps": settings.steps,
        "image_passes": settings.steps * settings.batch,
        "mapped_images": len(mapped),
        "cross_entropy_first": float(curves["cross_entropy"][0]),
        "cross_entropy_last": float(curves["cross_entropy"][-1]),
        "maps_first": float(curves["maps"][0]),
        "maps_last": float(curves["maps"][-1]),
    }


def _maps(work: StageRun, ids: list[str], encoder: Encoder, blur: str) -> tuple[list[str], Any]:
    """The ids of images that have a map which is not constant, and their maps by row, as the network sees them."""
    import numpy as np

    from alignet.backbones.gradients import geometry
    from alignet.data.importance_maps import load_maps, maps_for
    from alignet.evaluate.where import blurred, seen
    from alignet.pipeline import payloads

    found = load_maps(work.sources["maps"], key=work.section["key"])
    rows, _ = maps_for(found, ids)
    constant = {int(row) for row in rows if row >= 0 and np.ptp(found.maps[row]) == 0}
    kept = [place for place, row in enumerate(rows) if row >= 0 and int(row) not in constant]
    without = int((rows < 0).sum())
    if without or constant:
        print(
            f"{without:,} of {len(ids):,} images have no map and {len(constant):,} a constant one: left out; images "
            f"without a map belong into harmonize.plain",
            flush=True,
        )
    if not kept:
        raise ValueError(
            "harmonize: expected maps that are not constant of some images, found none; check harmonize.maps."
        )
    size = encoder.data_config["input_size"][1:]
    source = payloads.images(work, "images")
    read = payloads.opener(work, source)
    boxes = [geometry(encoder, *read(ids[place]).size) for place in kept]
    chosen = [int(rows[place]) for place in kept]

    def of(row: int) -> np.ndarray:
        held = np.asarray(found.maps[chosen[row]], np.float32)
        return seen(blurred(held) if blur == "published" else held, boxes[row], size).astype(np.float32)

    return [ids[place] for place in kept], of


def _alignment(work: StageRun, encoder: Encoder, weight: float) -> Alignment:
    """AligNet's objective: the pool and the teacher's features of it."""
    from alignet.backbones import ImageFiles
    from alignet.config import FinetuneSettings, build
    from alignet.harmonizer.train import Alignment
    from alignet.pipeline import payloads
    from alignet.runtime.distributed import current
    from alignet.stages.finetune import in_memory, pool_teacher, readable, rows_of

    settings = build(FinetuneSettings, work.section["finetune"], "finetune.settings")
    source = payloads.images(work, "pool")
    ids = readable(source.ids, [payloads.embedded_ids(work.inputs["features"])])
    ids = [ids[row] for row in payloads.part_of_pool(work.section.get("pool_images"), len(ids))]
    mapped = rows_of(*payloads.mapped_features(work.inputs["features"], work.inputs.get("map")), ids)
    teacher, _ = pool_teacher(mapped, None, settings)
    images = ImageFiles(ids, payloads.opener(work, source), encoder)
    held = in_memory(images, current().local_size, work.runtime.workers)
    return Alignment(held, teacher, settings, weight)


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("harmonize", __doc__ or "")
