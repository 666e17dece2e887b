"""Adversarial attacks: the smallest change of each image that turns a network's answer, shard by shard.

reads   index[images], the weights of a model with a classifier; a table with the images' classes
writes  attack-*.npz, a row for each image: image, what the network saw, and attacked (float32 pixels in [0, 1]) and
        attacked8 (uint8), the nearest images found that it answers otherwise (b, 3, H, W); label (b,), -1 for none;
        top1, to and to8 (b,), the answers to the three; tried (b,), whether it was right at first; broken and broken8
        (b,), verified; length and length8 (b,), norms of the perturbations; no_gradient and blind (b,), signs that
        gradients mislead; box (b, 4), the part of the image that the network saw, as shares; norm and high, the
        method's; and ids-*.txt, a line for each
roles   <model>.<image set>, e.g. student.mapped_test, by attack.method; <model>:<method>.<image set> by another
cost    by the method: `fast` 20 forward and backward passes over every image that is answered right, and about 20
        forward passes for 8 bit; several processes deal the shards among them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones.gradients import Classifier
    from alignet.config import AttackMethod, RuntimeSettings
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Make what is not there yet. A shard exists once its file has been renamed into place."""
    from alignet.backbones.gradients import Classifier
    from alignet.config import AttackMethod, build
    from alignet.data.drawn import drawn
    from alignet.pipeline import payloads

    section = work.section
    method = build(AttackMethod, section["method"], "attack.methods")
    classify = Classifier(payloads.encoder(work, payloads.base_weights(work)))
    source = payloads.images(work, "images")
    read, ids = payloads.opener(work, source), list(source.ids)
    shards = payloads.shards_of(work, "images")
    labels = payloads.class_numbers(ids, work.sources.get("labels"), section["column"], shards)
    any_answer = section["logit"] == "top1"
    if not any_answer and not (labels >= 0).any():
        raise ValueError(
            f"{work.node.key}: expected the class of at least one image, found none of {len(labels):,}; name a table "
            f"of classes in attack.labels, or attack whatever the network answers with attack.logit=top1."
        )
    rows = drawn(labels, method.images, section["seed"], any_answer)
    ids, labels = [ids[row] for row in rows], labels[rows]
    return write_attacks(
        classify, ids, labels, read, work.folder, method, work.runtime, any_answer=any_answer,
        batch=section["batch"], shard=section["shard"], name=work.node.role, key=work.node.key,
    )  # fmt: skip


def write_attacks(
    classify: Classifier,
    ids: Sequence[str],
    labels: np.ndarray,
    read: Callable[[str], Any],
    folder: Path,
    method: AttackMethod,
    runtime: RuntimeSettings,
    *,
    any_answer: bool,
    batch: int,
    shard: int,
    name: str,
    key: str,
) -> dict[str, Any]:
    """Write the shards that are not there yet into `folder`, see the top of this file; several processes deal them.

    labels: (n,) int64, -1 where a class is not known. read: opens an image by its id. any_answer: attack every image,
    whatever it is answered. name: of the progress. key: what messages call the network. Returns counts, and mean norms
    of what was broken (NaN-free: absent where nothing was); of another process than the first nothing. ValueError where
    no image is answered right.
    """
    import numpy as np

    from alignet.attacks.attack import attack, verified
    from alignet.runtime.distributed import current
    from alignet.stages._image_shards import write_shards

    def compute(images: Any, known: Any) -> dict[str, np.ndarray]:
        return attack(classify, images, known, method, any_answer=any_answer)

    def finish(_: str, names: Sequence[str], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        beside = {"norm": np.array(method.norm), "high": np.array(method.high)}
        return arrays | verified(classify, arrays, method, batch) | beside

    paths = write_shards(
        "attack", classify.encoder, ids, labels, read, folder, compute, finish,
        batch=batch, shard=shard, runtime=runtime, name=name, key=key,
    )  # fmt: skip
    if not current().first:
        return {}
    counts = _counts(paths, method.norm)
    if not counts["tried"]:
        known = int((labels >= 0).sum())
        raise ValueError(
            f"{key}: expected images that the network names right, found 0 of {known:,} with a known class, of "
            f"{len(ids):,} in all; check that classes are numbered as its classifier does (attack.column), or attack "
            f"whatever it answers with attack.logit=top1."
        )
    return {"images": len(ids)} | counts


def _counts(paths: Sequence[Path], norm: str) -> dict[str, Any]:
    """How many images were tried and broken, and the means of the norms of those that were."""
    import numpy as np

    counts = dict.fromkeys(("tried", "broken", "broken8", "blind", "no_gradient"), 0)
    lengths: dict[str, list[np.ndarray]] = {"": [], "8": []}
    for path in paths:
        with np.load(path, allow_pickle=False) as shard:
            for one in counts:
                counts[one] += int(shard[one].sum())
            for ending, found in lengths.items():
                found.append(shard[f"length{ending}"][shard[f"broken{ending}"]])
    means = {f"mean_{norm}{'_8bit' * bool(end)}": np.concatenate(one) for end, one in lengths.items()}
    return counts | {name: float(values.mean()) for name, values in means.items() if len(values)}


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("attack", __doc__ or "")
