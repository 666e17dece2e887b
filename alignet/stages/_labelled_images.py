"""The labelled images that a student is trained on, as the stages `harmonize` and `robust` read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones import Encoder
    from alignet.harmonizer.batches import Labelled
    from alignet.pipeline.stage_run import StageRun


def labelled_images(
    work: StageRun,
    name: str,
    table: str,
    encoder: Encoder,
    *,
    ids: Sequence[str] | None = None,
    maps: Callable[[int], np.ndarray] | None = None,
) -> Labelled:
    """The images of the input `name` with their classes, in memory where there is room.

    table: the source with their classes, else WordNet ids in names or members of shards. ids: some of the images alone.
    maps: their importance maps by row. ValueError where the class of an image is not known.
    """
    from alignet.backbones import ImageFiles
    from alignet.harmonizer.batches import Labelled
    from alignet.pipeline import payloads
    from alignet.runtime.distributed import current
    from alignet.stages.finetune import in_memory

    source, what = payloads.images(work, name), work.node.stage
    chosen = list(source.ids if ids is None else ids)
    labels = payloads.class_numbers(
        chosen, work.sources.get(table), work.section["column"], payloads.shards_of(work, name)
    )
    if (labels < 0).any():
        lacking = [one for one, label in zip(chosen, labels, strict=True) if label < 0]
        raise ValueError(
            f"{what}: expected a class for each image, found none for {len(lacking):,} of {len(chosen):,}, the first "
            f"{lacking[0]}; set {what}.{table} to a table with their classes, or name files by WordNet ids."
        )
    images = ImageFiles(chosen, payloads.opener(work, source), encoder)
    return Labelled(in_memory(images, current().local_size, work.runtime.workers), labels, maps)
