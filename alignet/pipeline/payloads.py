"""How stages read each other's payloads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.data.feature_blocks import Stacked

if TYPE_CHECKING:
    from PIL import Image

    from alignet.backbones import Encoder
    from alignet.data.images import ImageSource
    from alignet.pipeline.stage_run import StageRun
    from alignet.runtime.artifacts import Artifact


def embedding(artifact: Artifact) -> tuple[np.ndarray, list[str]]:
    """Raw features (m, p) and ids of an `embed` artifact, its shards in order."""
    shards = sorted(name for name in artifact.manifest["files"] if name.startswith("features-"))
    views = [np.load(artifact.folder / name, mmap_mode="r", allow_pickle=False) for name in shards]
    features = np.concatenate(views)  # from views of the files, so that the rows are held once
    return features, embedded_ids(artifact)


def embedded_rows(artifact: Artifact) -> tuple[np.ndarray | Stacked, list[str]]:
    """What `embedding` gives, left in its files until rows are asked for."""
    shards = sorted(name for name in artifact.manifest["files"] if name.startswith("features-"))
    views = [np.load(artifact.folder / name, mmap_mode="r", allow_pickle=False) for name in shards]
    return (views[0] if len(views) == 1 else Stacked(views)), embedded_ids(artifact)


def embedded_ids(artifact: Artifact) -> list[str]:
    """The ids of an `embed` artifact's rows."""
    shards = sorted(name for name in artifact.manifest["files"] if name.startswith("features-"))
    return [line for name in shards for line in read_lines(artifact.folder / _ids_name(name))]


def _ids_name(features_name: str) -> str:
    return features_name.replace("features-", "ids-").replace(".npy", ".txt")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without their ends."""
    return path.read_text(encoding="utf-8").splitlines()


def saliency_maps(artifact: Artifact) -> tuple[np.ndarray, list[str]]:
    """Maps (m, h, w) float32 of a `saliency` artifact and their ids: the gradient's largest magnitude over channels.

    Each covers its whole image: what the network did not see of it is 0.
    """
    from alignet.evaluate.where import reduce_channels, seen

    maps, ids = [], []
    for name in sorted(one for one in artifact.manifest["files"] if one.startswith("saliency-")):
        with np.load(artifact.folder / name, allow_pickle=False) as shard:
            found, boxes = reduce_channels(shard["gradients"], "max"), shard["box"]
        ids += read_lines(artifact.folder / name.replace("saliency-", "ids-").replace(".npz", ".txt"))
        for one, (left, top, right, bottom) in zip(found, boxes, strict=True):
            wide, high = right - left, bottom - top
            box = (-left / wide, -top / high, (1 - left) / wide, (1 - top) / high)
            whole = seen(one, box, one.shape, beyond=True)
            maps.append(whole.astype(np.float32))
    return np.stack(maps), ids


def transform(mapping: Artifact | None) -> Callable[[np.ndarray], np.ndarray] | None:
    """The map of a `distill` artifact as a function of rows that gives float32; None for the raw space."""
    import torch

    from alignet.teacher.affine_map import AffineMap

    if mapping is None:
        return None
    affine = AffineMap.load_npz(mapping.file("map.npz"))
    return lambda rows: affine.apply(torch.from_numpy(np.ascontiguousarray(rows))).numpy()


def mapped_features(embedded: Artifact, mapping: Artifact | None) -> tuple[np.ndarray, list[str]]:
    """float32 features of an `embed` artifact and their ids, through the map of a `distill` artifact, if given."""
    features, ids = embedding(embedded)
    mapped = transform(mapping)
    return (mapped(features) if mapped is not None else features.astype(np.float32, copy=False)), ids


def assignment(clustered: Artifact) -> np.ndarray:
    """Cluster of each pool image, int64 (m,), of a `cluster` artifact."""
    with np.load(clustered.file("clusters.npz"), allow_pickle=False) as clusters:
        return clusters["assignment"]


def part_of_pool(drawn: Mapping[str, int] | None, images: int) -> np.ndarray:
    """Rows of the pool's images that count, ascending int64: all, or those that the section `pool_images` draws.

    A smaller part of the same seed lies within a larger one. ValueError where it asks for more than there are.
    """
    if drawn is None:
        return np.arange(images)
    if drawn["count"] > images:
        raise ValueError(
            f"data.pool_images: expected at most {images:,}, all images of the pool, found {drawn['count']:,}"
        )
    return np.sort(np.random.default_rng([drawn["seed"], 5]).permutation(images)[: drawn["count"]])


def object_rows(naming: Mapping[str, str], table: Path, ids: list[str]) -> np.ndarray:
    """Row in `ids` of every object of the object table, -1 where the object has none. int64 (objects,).

    naming: the section `object_ids`, which says how ids name objects.
    """
    from alignet.data.concepts import load_concepts
    from alignet.data.triplets import rows_of_objects

    values = [str(getattr(concept, naming["column"])) for concept in load_concepts(table)]
    return rows_of_objects([naming["prefix"] + value if value else "" for value in values], ids)


def shards_of(run: StageRun, name: str) -> Path | None:
    """Where the shards of an image set are, if it lies in such."""
    in_shards = run.inputs[name].manifest["identity"]["section"].get("kind") == "shards"
    return run.sources[name] if in_shards else None


def class_numbers(
    ids: Sequence[str], table: Path | None, column: str, shards: Path | None = None
) -> np.ndarray:
    """The class of each image, (n,) int64, -1 where it is not known.

    From a column of a table; without one by the WordNet ids of ImageNet's names; without these by the .cls members of
    `shards`, where the images lie in such. ValueError for a value that is no whole number.
    """
    from alignet.data.shards import has_labels, shard_labels
    from alignet.data.tables import column_for
    from alignet.data.wordnet import wordnet_id
    from alignet.evaluate.top1 import imagenet_labels

    if table is not None:
        values, where = column_for(table, list(ids), column), f"{table}, column {column!r}"
    elif any(wordnet_id(one) for one in ids):
        return imagenet_labels(ids)
    elif shards is not None and has_labels(shards):
        known = shard_labels(shards, ids=frozenset(ids))
        values, where = [str(known[one]) for one in ids], f"{shards}, .cls members"
    else:
        return np.full(len(ids), -1)
    for one, value in zip(ids, values, strict=True):
        if not str(value).isdigit():
            raise ValueError(
                f"{where}: expected the number of a class, found {value!r} for {one}; number the classes as the "
                f"network's classifier does, from 0."
            )
    return np.array([int(value) for value in values], dtype=np.int64)


def listed_ids(artifact: Artifact) -> list[str]:
    """The ids of an `index` artifact of images, sorted."""
    return sorted(json.loads(artifact.file("listing.json").read_text(encoding="utf-8"))["files"])


def images(run: StageRun, name: str) -> ImageSource:
    """The images of an index input, of a folder or of shards, to be opened by id."""
    from alignet.data.images import ImageSource
    from alignet.data.shards import shard_source

    listing = json.loads(run.inputs[name].file("listing.json").read_text(encoding="utf-8"))
    root, files = run.sources[name], listing["files"]
    if listing["kind"] != "shards":
        return ImageSource(root, tuple(sorted(files)))
    places = {key: (entry["shard"], entry["offset"], entry["size"]) for key, entry in files.items()}
    return shard_source(root, places)


def opener(run: StageRun, source: ImageSource) -> Callable[..., Image.Image]:
    """What opens an image by id as the stage's section `pixels` says; it can be sent to loader workers."""
    from alignet.data.pixels import reading

    return partial(source.open, **reading(run.section["pixels"]))


def encoder(run: StageRun, weights: Path | str, seed: int = 0) -> Encoder:
    """The backbone of a stage's `model` section with the given weights: a file, a folder, '' (the hub's) or "random".

    seed: of random weights.
    """
    from alignet.backbones import Backbone, load_encoder

    model = run.section["model"]
    backbone = Backbone(
        library=model["library"],
        architecture=model["architecture"],
        weights=str(weights) or ("random" if model["weights"] == "random" else ""),
        model_args=model["model_args"],
        image_size=model["image_size"],
        feature=model["feature"],
        tag=model["tag"],
    )
    return load_encoder(backbone, device=run.runtime.device, seed=seed)


def base_weights(run: StageRun) -> Path | str:
    """Where the weights of a stage's `weights` input are: an artifact's, outside ones, or '' (the hub's)."""
    if "weights" in run.sources:
        return run.sources["weights"]
    return weights_of(run.inputs["weights"]) if "weights" in run.inputs else ""


def weights_of(artifact: Artifact) -> Path:
    """The weights of a `pretrain` or `finetune` artifact: its folder where the network's configuration is in it."""
    described = {"config.json", "open_clip_config.json"} & artifact.manifest["files"].keys()
    return artifact.folder if described else artifact.file("weights.safetensors")


def save_configuration(encoder: Encoder, folder: Path) -> None:
    """Put the network's configuration and tokenizer beside its weights, where its name alone does not say them."""
    import shutil

    from alignet.backbones import configuration
    from alignet.student.export import tokenizer_files

    source = encoder.backbone.folder
    if source is None and encoder.backbone.library != "transformers":
        return
    for name, text in configuration(encoder).items():
        (folder / name).write_text(text, encoding="utf-8")
    for path in tokenizer_files(source) if source else []:
        shutil.copyfile(path, folder / path.name)


def triplets(run: StageRun, name: str, objects: int) -> np.ndarray:
    """Triplets (n, 3) int64, odd one last, of an index input, checked against the number of objects."""
    from alignet.data.triplets import load_triplets

    index = run.inputs[name]
    options: dict[str, Any] = dict(index.manifest["identity"]["section"])
    found = load_triplets(
        run.sources[name],
        objects=objects,
        index_base=options["index_base"],
        odd_one=options["odd_one"],
        where=options["where"],
    )
    if "objects.npy" not in index.manifest["files"]:
        return found
    rows = np.load(index.file("objects.npy"), allow_pickle=False)
    if len(rows) != objects:
        raise ValueError(
            f"{run.sources[name]}: expected triplets of the {len(rows):,} objects of the table, which its `order` is "
            f"about, found that they count {objects:,} things here; leave data.sets.*.order out for this set"
        )
    return rows[found]
