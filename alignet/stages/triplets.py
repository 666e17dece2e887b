"""The AligNet data set: triplets of pool images and the teacher's similarities of their pairs.

reads   embed[teacher.pool], distill[teacher] (alignet only), cluster (cluster_boundary only); or, with
        triplets.published, an official AligNet npz and the pool's list of images
writes  triplets.npy n x 3 int64 (rows of ids.txt, odd one last), similarities.npy n x 3 float32 [s01, s02, s12]
roles   alignet (mapped teacher), distillation (raw teacher)
cost    seconds for a million triplets
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Draw distinct triplets and let the teacher answer them."""
    import numpy as np

    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.memory import memory_left
    from alignet.teacher.labelling import label, label_entropy

    if "published" in work.inputs:
        return _take(work)
    features, ids = payloads.embedded_rows(work.inputs["features"])
    part = payloads.part_of_pool(work, ids)
    if len(part) < len(ids):
        features, ids = features[part], [ids[row] for row in part]
    drawn = _draw(work, ids, part)
    checkpoints = Checkpoints(work.checkpoints, work.runtime.checkpoint_seconds)
    triplets, sims = label(
        features, drawn, transform=payloads.transform(work), hold_bytes=memory_left() // 4, scratch=work.checkpoints,
        threads=work.runtime.threads, checkpoints=checkpoints,
    )  # fmt: skip
    np.save(work.folder / "triplets.npy", triplets)
    np.save(work.folder / "similarities.npy", sims)
    (work.folder / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return {"triplets": len(triplets), "images": len(ids), "entropy_at_tau_1_nats": label_entropy(sims, 1.0)}


def _take(work: StageRun) -> dict[str, Any]:
    """A published data set in the place of drawing and answering; images are found by file name."""
    import numpy as np
    import torch

    from alignet.data.alignet_npz import load_dataset
    from alignet.pipeline import payloads
    from alignet.teacher.labelling import label_entropy
    from alignet.triplets import odd_one_last

    ids = payloads.listed_ids(work.inputs["images"])
    options = work.inputs["published"].manifest["identity"]["section"]
    found = load_dataset(work.sources["published"], ids, missing=options["missing"], order=options["order"])
    if found.dropped:
        print(f"{found.dropped:,} triplets with an image that is not in the pool are left out", flush=True)
    # a file's own order is only reported: whoever reads these counts on the odd one standing last
    ordered = odd_one_last(torch.from_numpy(found.triplets), torch.from_numpy(found.similarities))
    triplets, sims = (tensor.numpy() for tensor in ordered)
    np.save(work.folder / "triplets.npy", triplets)
    np.save(work.folder / "similarities.npy", sims)
    (work.folder / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    return {
        "triplets": len(found.triplets),
        "images": len(np.unique(found.triplets)),
        "triplets_left_out": found.dropped,
        "odd_one_last_in_file": found.holds,
        "entropy_at_tau_1_nats": label_entropy(found.similarities, 1.0),
    }


def _draw(work: StageRun, ids: list[str], part: Any) -> Any:
    from alignet.pipeline import payloads
    from alignet.teacher.sampling import class_boundary, cluster_boundary, random_triplets

    count, seed, sampling = work.section["count"], work.section["seed"], work.section["sampling"]
    threads = work.runtime.threads
    if sampling == "cluster_boundary":
        return cluster_boundary(payloads.assignment(work)[part], count, seed, threads)
    labels = _labels(work, ids)
    if sampling == "class_boundary":
        if labels is None:
            raise ValueError(
                "triplets.sampling=class_boundary needs class labels; set triplets.labels_from to wnid, cls or "
                "<table set>.<column>"
            )
        return class_boundary(labels, count, seed, threads)
    if labels is None:
        print("random sampling without class labels: images of one triplet may share a class", flush=True)
    return random_triplets(len(ids), count, seed, labels, threads)


def _labels(work: StageRun, ids: list[str]) -> Any:
    """The class of each image (m,), or None where the configuration names no source of classes."""
    import numpy as np

    from alignet.data.shards import shard_labels
    from alignet.data.tables import column_for
    from alignet.data.wordnet import wordnet_id

    if "labels" in work.inputs:
        return np.array(
            column_for(work.sources["labels"], ids, work.section["labels_from"].partition(".")[2])
        )
    if work.section["labels_from"] == "wnid":
        labels = np.array([wordnet_id(name) for name in ids])
        if (labels == "").any():
            raise ValueError(
                f"triplets.labels_from=wnid: expected image names that start with a WordNet id, found "
                f"{ids[int((labels == '').argmax())]}; set labels_from to '' or rename the images."
            )
        return labels
    if work.section["labels_from"] == "cls":
        if work.inputs["images"].manifest["identity"]["section"]["kind"] != "shards":
            raise ValueError(
                "triplets.labels_from=cls: expected a pool of WebDataset shards, whose .cls members are labels; found "
                "a folder; set data.sets.pool.kind=shards, or labels_from to wnid or ''."
            )
        known = shard_labels(work.sources["images"])
        return np.array([known[name] for name in ids])
    return None


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("triplets", __doc__ or "")
