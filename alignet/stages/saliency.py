"""Where a model looks: the gradient of one logit by the pixels of each image, shard by shard.

reads   index[images], the weights of a model with a classifier; tables with the images' classes
writes  saliency-*.npz: gradients (b, 3, H, W) at the network's input size, change of the logit per unit of pixel
        value (pixels in [0, 1]; of precision float16 by each image's largest); logit
        (b,), top1 (b,), label (b,), -1 for none; box (b, 4), the part of the image that the network saw: left, top,
        right, bottom, as shares of its width and height; rollout (b, h, w), where asked for and the network has
        attention; and ids-*.txt, a line for each
roles   <model>.<image set>, e.g. student.mapped_test
cost    a forward and a backward pass over every image; several processes deal the shards among them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones.gradients import Classifier
    from alignet.config import RuntimeSettings, SaliencySettings
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Make what is not there yet. A shard exists once its file has been renamed into place."""
    from alignet.backbones.gradients import Classifier
    from alignet.config import SaliencySettings, build
    from alignet.pipeline import payloads

    settings = build(SaliencySettings, work.section["saliency"], "saliency")
    classify = Classifier(payloads.encoder(work, payloads.base_weights(work)))
    source = payloads.images(work, "images")
    read, ids = payloads.opener(work, source), list(source.ids)
    table, column = work.sources.get("labels"), settings.column
    labels = payloads.class_numbers(ids, table, column, payloads.shards_of(work, "images"))
    return write_saliency(
        classify,
        ids,
        labels,
        read,
        work.folder,
        settings,
        work.runtime,
        name=work.node.role,
        key=work.node.key,
    )


def write_saliency(
    classify: Classifier,
    ids: Sequence[str],
    labels: np.ndarray,
    read: Callable[[str], Any],
    folder: Path,
    settings: SaliencySettings,
    runtime: RuntimeSettings,
    *,
    name: str,
    key: str,
) -> dict[str, Any]:
    """Write the shards that are not there yet into `folder`, see the top of this file; several processes deal them.

    labels: (n,) int64, -1 where a class is not known. read: opens an image by its id. name: of the progress. key: what
    messages call the network. Returns the numbers of images and labelled images, whether there is a rollout, and the
    accuracy where there are labels; of another process than the first nothing.
    """
    import numpy as np

    from alignet.backbones.rollout import rollout_refusal
    from alignet.runtime.distributed import current
    from alignet.stages._image_shards import write_shards

    processes = current()
    why_not = rollout_refusal(classify.encoder.module)
    rollout = settings.rollout and not why_not
    if settings.rollout and why_not and processes.first:
        print(
            f"no attention rollout: expected a plain vision transformer of timm, found {why_not}", flush=True
        )
    files = write_shards(
        "saliency", classify.encoder, ids, labels, read, folder, _computing(classify, settings, rollout), _check,
        batch=settings.batch, shard=settings.shard, runtime=runtime, name=name, key=key,
    )  # fmt: skip
    if not processes.first:
        return {}
    right, known = np.concatenate([_decisions(path) for path in files], 1)
    metrics: dict[str, Any] = {"images": len(ids), "labelled": int(known.sum()), "rollout": bool(rollout)}
    return metrics | ({"accuracy": float(right[known].mean())} if known.any() else {})


def _computing(classify: Any, settings: Any, rollout: bool) -> Callable[[Any, Any], dict[str, np.ndarray]]:
    """(images (b, 3, H, W), labels (b,)) -> arrays of a pass."""
    import torch

    from alignet.backbones.gradients import input_gradient
    from alignet.backbones.rollout import attention_rollout

    def compute(images: Any, labels: Any) -> dict[str, np.ndarray]:
        pixels = classify.pixels(images.to(classify.device))
        found = input_gradient(classify, pixels, labels if settings.logit == "label" else None)
        gradients = found.gradient.float()
        if settings.precision == "float16":  # ranks do not see the scale
            gradients = gradients / gradients.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)
            gradients = gradients.half()
        made = {
            "gradients": gradients,
            "logit": found.logits.gather(1, found.chosen[:, None])[:, 0].float(),
            "top1": found.logits.argmax(1),
        }
        if rollout:
            with torch.no_grad():
                images = classify.encoder.normalise(images.to(classify.device))
                made["rollout"] = attention_rollout(classify.encoder.module, images)
        return {name: value.cpu().numpy() for name, value in made.items()}

    return compute


def _check(key: str, names: Sequence[str], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    import numpy as np

    broken = ~np.isfinite(arrays["gradients"]).all((1, 2, 3))
    if broken.any():
        raise ValueError(
            f"{key}: expected finite gradients, found NaN or infinity for {int(broken.sum())} images, the first "
            f"{names[int(broken.argmax())]}; check the model's weights."
        )
    return arrays


def _decisions(path: Path) -> np.ndarray:
    """Whether top-1 is right, and whether the class is known, (2, b) bool."""
    import numpy as np

    with np.load(path, allow_pickle=False) as shard:
        return np.stack([shard["top1"] == shard["label"], shard["label"] >= 0])


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("saliency", __doc__ or "")
