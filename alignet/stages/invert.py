"""Inputs that a network takes for the same: images found from noise that it represents as it does each image of a set.

reads   index[images], the weights of a model; of a method that pushes a perceptual distance up, its network's weights
writes  invert-*.npz, a row for each target: image (b, 3, H, W), what the network saw; seed (b, k, 3, H, W) uint8, the
        starts of k searches; inverted, float32 in [0, 1], and inverted8, uint8, what they found; error, error8 and
        begin (b, k), the relative errors of these three, computed again from what is stored; steps (b, k) to it; label
        (b,), its class by WordNet id, or -1; box (b, 4), the part of the image that the network saw, as shares; layer,
        regulariser (the method's name), distance (what it pushed up, or "") and weight; and ids-*.txt, a line for each
roles   <model>.<image set>.<method>, e.g. student.mapped_test.free; methods are those of invert.methods
cost    images x draws x at most `steps` forward and backward passes; several processes deal the shards among them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones import Encoder
    from alignet.config import InvertMethod, RuntimeSettings
    from alignet.invariances.perceptual import Distance
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Make what is not there yet. A shard exists once its file has been renamed into place."""
    import numpy as np

    from alignet.config import InvertMethod, build
    from alignet.data.drawn import drawn
    from alignet.pipeline import payloads
    from alignet.stages._distances import distance

    section = work.section
    method = build(InvertMethod, section["method"], "invert.methods")
    encoder = payloads.encoder(work, payloads.base_weights(work))
    source = payloads.images(work, "images")
    ids = list(source.ids)
    if not ids:
        raise ValueError(f"{work.node.key}: expected images to invert, found an empty set; check its path.")
    rows = drawn(np.zeros(len(ids), np.int64), section["images"], section["seed"], True)
    labels = payloads.class_numbers(ids, None, "", payloads.shards_of(work, "images"))
    pushed = distance(work, method.distance, section["distance"]) if method.distance else None
    return write_inverted(
        encoder, [ids[row] for row in rows], payloads.opener(work, source), work.folder, method, work.runtime,
        labels=labels[rows], distance=pushed, regulariser=section["regulariser"], layer=section["layer"],
        draws=section["draws"], seed=section["seed"], batch=section["batch"], shard=section["shard"],
        name=work.node.role, key=work.node.key,
    )  # fmt: skip


def write_inverted(
    encoder: Encoder,
    ids: Sequence[str],
    read: Callable[[str], Any],
    folder: Path,
    method: InvertMethod,
    runtime: RuntimeSettings,
    *,
    labels: np.ndarray | None = None,
    distance: Distance | None,
    regulariser: str,
    layer: str,
    draws: int,
    seed: int,
    batch: int,
    shard: int,
    name: str,
    key: str,
) -> dict[str, Any]:
    """Write the shards that are not there yet into `folder`, see the top of this file; several processes deal them.

    read: opens an image by its id. labels: (n,) int64, -1 where a class is not known; None where none is. distance:
    what the method pushes up, if anything. regulariser: the method's name. layer: "" for what the classifier reads.
    draws: k. batch: images of one pass, in which draws count. name: of the progress. key: what messages call the
    network. Returns counts and mean errors; of another process than the first nothing. ValueError for a network whose
    representations are not finite, and for a layer that it lacks.
    """
    import numpy as np
    import torch

    from alignet.data.images import number_of
    from alignet.invariances.invert import invert, noise, verified
    from alignet.invariances.representation import Representation
    from alignet.runtime.distributed import current
    from alignet.runtime.interrupt import stop_if_asked
    from alignet.stages._image_shards import write_shards

    represent = Representation(encoder, layer)
    search = represent.searching()
    classes = np.full(len(ids), -1, np.int64) if labels is None else labels
    shape, known = represent.side, dict(zip(ids, classes.tolist(), strict=True))

    def compute(images: torch.Tensor, rows: torch.Tensor) -> dict[str, np.ndarray]:
        own = [number_of(ids[row]) for row in rows.tolist()]
        if method.target is not None:
            images = torch.from_numpy(np.stack([noise(method.target, shape, seed, 1, one) for one in own]))
        pixels = represent.pixels(images.to(represent.device))
        starts = np.stack(
            [[noise(method.start, shape, seed, 0, one, k) for k in range(draws)] for one in own]
        )
        keys = [(seed, 2, one, k) for one in own for k in range(draws)]
        found = invert(
            search, pixels.repeat_interleave(draws, 0),
            torch.from_numpy(starts).flatten(0, 1).to(represent.device).to(torch.float32) / 255,
            method, distance=distance, keys=keys, after=stop_if_asked,
        )  # fmt: skip
        inverted = found.images.contiguous().cpu().numpy().reshape(starts.shape)
        return {
            "image": (images if images.dtype == torch.uint8 else pixels).contiguous().cpu().numpy(), "seed": starts,
            "inverted": inverted, "inverted8": np.round(inverted * 255).astype(np.uint8),
            "steps": found.steps.cpu().numpy().reshape(starts.shape[:2]),
        }  # fmt: skip

    def finish(_: str, names: Sequence[str], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        beside: dict[str, Any] = {
            "layer": np.array(layer), "regulariser": np.array(regulariser), "distance": np.array(method.distance),
            "weight": np.array(method.weight, np.float64), "label": np.array([known[one] for one in names], np.int64),
        }  # fmt: skip
        return arrays | verified(represent, arrays, batch) | beside

    rows = np.arange(len(ids))  # in the place of classes, which say nothing here: noise is drawn by image
    paths = write_shards(
        "invert", encoder, ids, rows, read, folder, compute, finish, batch=max(1, batch // draws), shard=shard,
        runtime=runtime, name=name, key=key,
    )  # fmt: skip
    if not current().first:
        return {}
    return {"images": len(ids), "draws": draws} | _counts(paths, method.stop)


def _counts(paths: Sequence[Path], stop: float) -> dict[str, Any]:
    """How many of the images found are a match, in float and rounded, and mean errors and steps."""
    import numpy as np

    found: dict[str, list[np.ndarray]] = {"error": [], "error8": [], "begin": [], "steps": []}
    for path in paths:
        with np.load(path, allow_pickle=False) as shard:
            for name, parts in found.items():
                parts.append(shard[name].ravel())
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    matched = (
        {f"matched{end}": int((values[f"error{end}"] <= stop).sum()) for end in ("", "8")} if stop else {}
    )
    return matched | {f"mean_{name}": float(one.mean()) for name, one in values.items()}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("invert", __doc__ or "")
