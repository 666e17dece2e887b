"""The AligNet data set: triplets of pool images and the teacher's similarities of their pairs.

reads   embed[teacher.pool], distill[teacher] (alignet only), cluster (cluster_boundary only); or, with
        triplets.published, an official AligNet npz and the pool's list of images
writes  triplets.npy n x 3 int64 (rows of ids.txt, odd one last), similarities.npy n x 3 float32 [s01, s02, s12]
roles   alignet (mapped teacher), distillation (raw teacher)
cost    seconds for a million triplets
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Draw distinct triplets and let the teacher answer them."""
    import numpy as np

    from alignet.data.tables import column_for
    from alignet.pipeline import payloads
    from alignet.runtime.checkpoints import Checkpoints
    from alignet.runtime.memory import memory_left
    from alignet.teacher.labelling import label, label_entropy

    if "published" in work.inputs:
        return take_published(
            work.sources["published"],
            work.inputs["published"].manifest["identity"]["section"],
            payloads.listed_ids(work.inputs["images"]),
            work.folder,
        )
    section, threads = work.section, work.runtime.threads
    features, ids = payloads.embedded_rows(work.inputs["features"])
    part = payloads.part_of_pool(section.get("pool_images"), len(ids))
    if len(part) < len(ids):
        features, ids = features[part], [ids[row] for row in part]
    if section["sampling"] == "cluster_boundary":
        groups = payloads.assignment(work.inputs["clusters"])[part]
    elif "labels" in work.inputs:
        column = section["labels_from"].partition(".")[2]
        groups = np.array(column_for(work.sources["labels"], ids, column))
    elif section["labels_from"] == "wnid":
        groups = wordnet_labels(ids)
    elif section["labels_from"] == "cls":
        kind = work.inputs["images"].manifest["identity"]["section"]["kind"]
        groups = labels_in_shards(work.sources["images"], kind, ids)
    else:
        groups = None
    drawn = draw(section["sampling"], groups, len(ids), section["count"], section["seed"], threads)
    checkpoints = Checkpoints(work.checkpoints, work.runtime.checkpoint_seconds)
    triplets, sims = label(
        features, drawn, transform=payloads.transform(work.inputs.get("map")),
        hold_bytes=memory_left() // 4, scratch=work.checkpoints, threads=threads, checkpoints=checkpoints,
    )  # fmt: skip
    save(work.folder, triplets, sims, ids)
    return {"triplets": len(triplets), "images": len(ids), "entropy_at_tau_1_nats": label_entropy(sims, 1.0)}


def take_published(source: Path, options: Mapping[str, Any], ids: list[str], folder: Path) -> dict[str, Any]:
    """A published data set in the place of drawing and answering; images are found by file name."""
    import numpy as np
    import torch

    from alignet.data.alignet_npz import load_dataset
    from alignet.teacher.labelling import label_entropy
    from alignet.triplets import odd_one_last

    found = load_dataset(source, ids, missing=options["missing"], order=options["order"])
    if found.dropped:
        print(f"{found.dropped:,} triplets with an image that is not in the pool are left out", flush=True)
    # a file's own order is only reported: whoever reads these counts on the odd one standing last
    ordered = odd_one_last(torch.from_numpy(found.triplets), torch.from_numpy(found.similarities))
    triplets, sims = (tensor.numpy() for tensor in ordered)
    save(folder, triplets, sims, ids)
    return {
        "triplets": len(found.triplets),
        "images": len(np.unique(found.triplets)),
        "triplets_left_out": found.dropped,
        "odd_one_last_in_file": found.holds,
        "entropy_at_tau_1_nats": label_entropy(found.similarities, 1.0),
    }


def save(folder: Path, triplets: np.ndarray, sims: np.ndarray, ids: list[str]) -> None:
    """Write the payload."""
    import numpy as np

    np.save(folder / "triplets.npy", triplets)
    np.save(folder / "similarities.npy", sims)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")


def draw(
    sampling: str, groups: np.ndarray | None, images: int, count: int, seed: int, threads: int
) -> np.ndarray:
    """Distinct triplets (count, 3). groups: the cluster or class of each image, None where none is known."""
    from alignet.teacher.sampling import class_boundary, cluster_boundary, random_triplets

    if sampling == "cluster_boundary":
        assert groups is not None
        return cluster_boundary(groups, count, seed, threads)
    if sampling == "class_boundary":
        if groups is None:
            raise ValueError(
                "triplets.sampling=class_boundary needs class labels; set triplets.labels_from to wnid, cls or "
                "<table set>.<column>"
            )
        return class_boundary(groups, count, seed, threads)
    if groups is None:
        print("random sampling without class labels: images of one triplet may share a class", flush=True)
    return random_triplets(images, count, seed, groups, threads)


def wordnet_labels(ids: list[str]) -> np.ndarray:
    """The WordNet id that each image's name starts with (m,)."""
    import numpy as np

    from alignet.data.wordnet import wordnet_id

    labels = np.array([wordnet_id(name) for name in ids])
    if (labels == "").any():
        raise ValueError(
            f"triplets.labels_from=wnid: expected image names that start with a WordNet id, found "
            f"{ids[int((labels == '').argmax())]}; set labels_from to '' or rename the images."
        )
    return labels


def labels_in_shards(pool: Path, kind: str, ids: list[str]) -> np.ndarray:
    """The `.cls` member of each image of a pool of shards (m,)."""
    import numpy as np

    from alignet.data.shards import shard_labels

    if kind != "shards":
        raise ValueError(
            "triplets.labels_from=cls: expected a pool of WebDataset shards, whose .cls members are labels; found "
            "a folder; set data.sets.pool.kind=shards, or labels_from to wnid or ''."
        )
    known = shard_labels(pool, ids=frozenset(ids))
    return np.array([known[name] for name in ids])


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("triplets", __doc__ or "")
