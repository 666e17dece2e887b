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
    from alignet.runtime.progress import progress

    processes = current()
    why_not = rollout_refusal(classify.encoder.module)
    rollout = settings.rollout and not why_not
    if settings.rollout and why_not and current().first:
        print(
            f"no attention rollout: expected a plain vision transformer of timm, found {why_not}", flush=True
        )
    compute = _computing(classify, settings, rollout)
    shards = [
        range(start, min(start + settings.shard, len(ids))) for start in range(0, len(ids), settings.shard)
    ]
    own = range(processes.rank, len(shards), processes.size)
    done = [number for number in own if (folder / f"saliency-{number:05d}.npz").is_file()]
    counts = [sum(len(shards[number]) for number in numbers) for numbers in (own, done)]
    with progress(f"saliency {name}", counts[0], "images", done=counts[1]) as advance:
        for number in own:
            if number in done:
                continue
            rows = shards[number]
            names, known = [ids[row] for row in rows], labels[rows.start : rows.stop]
            found = _shard(classify, names, known, read, compute, settings, runtime, advance)
            _check(key, names, found["gradients"])
            _write(folder, number, names, found)
    processes.wait()
    if not processes.first:
        return {}
    right, known = np.concatenate(
        [_decisions(folder / f"saliency-{number:05d}.npz") for number in range(len(shards))], 1
    )
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


def _shard(classify, names, labels, read, compute, settings, runtime, advance) -> dict[str, np.ndarray]:
    """All arrays of a shard's images."""
    from contextlib import closing

    import numpy as np
    import torch

    from alignet.backbones.gradients import geometry
    from alignet.backbones.inference import stream
    from alignet.runtime.interrupt import stop_if_asked

    known = dict(zip(names, labels.tolist(), strict=True))
    encoder = classify.encoder
    shape, plain = encoder.data_config["input_size"], torch.float32

    def prepare(name: str) -> torch.Tensor:
        """Bytes of the box, the label and the pixels: what one image came to travels together."""
        image = read(name)
        beside = torch.tensor([*geometry(encoder, *image.size), known[name]], dtype=torch.float64)
        pixels = encoder.pixels(image).contiguous()
        return torch.cat([beside.view(torch.uint8), pixels.reshape(-1).view(torch.uint8)])

    def computed(packed: torch.Tensor) -> Any:
        beside = packed[:, :40].contiguous().view(torch.float64)
        pixels = packed[:, 40:].contiguous()
        if pixels.shape[1] > shape[0] * shape[1] * shape[2]:
            pixels = pixels.view(plain)
        label = beside[:, 4].long()
        box = beside[:, :4].cpu().numpy()
        return compute(pixels.view(-1, *shape), label) | {"box": box, "label": label.cpu().numpy()}

    parts: list[Any] = []
    passes = stream(
        names, prepare, computed, batch=settings.batch, threads=runtime.threads, workers=runtime.workers,
        device=runtime.device,
    )  # fmt: skip
    with closing(passes):
        for kept, found, refused in passes:
            stop_if_asked()  # the shard is begun again
            if refused:
                raise ValueError(f"{refused[0][1]} Take it out of the set: its map would be missing.")
            parts.append(found)
            advance(len(kept))
    return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}


def _check(key: str, names: Sequence[str], gradients: np.ndarray) -> None:
    import numpy as np

    broken = ~np.isfinite(gradients).all((1, 2, 3))
    if broken.any():
        raise ValueError(
            f"{key}: expected finite gradients, found NaN or infinity for {int(broken.sum())} images, the first "
            f"{names[int(broken.argmax())]}; check the model's weights."
        )


def _write(folder: Path, number: int, ids: Sequence[str], arrays: dict[str, np.ndarray]) -> None:
    import os

    import numpy as np

    (folder / f"ids-{number:05d}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    temporary = folder / f"saliency-{number:05d}.tmp"
    with open(temporary, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, folder / f"saliency-{number:05d}.npz")


def _decisions(path: Path) -> np.ndarray:
    """Whether top-1 is right, and whether the class is known, (2, b) bool."""
    import numpy as np

    with np.load(path, allow_pickle=False) as shard:
        return np.stack([shard["top1"] == shard["label"], shard["label"] >= 0])


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("saliency", __doc__ or "")
