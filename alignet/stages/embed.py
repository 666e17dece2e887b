"""Run a backbone over a set of images, shard by shard; or pick the rows of precomputed features.

Or embed any images with any model, outside of the graph (docs/embed.md):
    images=FOLDER model=FOLDER|LIBRARY:NAME [output=FOLDER] [format=npy|parquet] [map=NPZ] [batch=64] [device=cpu]

reads   index[images], the weights; or index[features]
writes  features-*.npy (raw, unmapped) and ids-*.txt, a pair for each shard; unreadable.txt if images were set aside
roles   <model>.<image set>, e.g. student.pool
cost    the backbone's forward pass over every image; several processes deal the shards among them
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from alignet.config import RuntimeSettings
    from alignet.pipeline.graph import Node
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Embed what is not embedded yet. A shard exists once its features file has been renamed into place."""
    from alignet.pipeline import payloads

    library, settings = work.section["model"]["library"], work.section["embed"]
    if library == "features":
        wanted = payloads.listed_ids(work.inputs["images"]) if "images" in work.inputs else None
        files = work.sources["features"], work.sources["features.ids"]
        return _pick_rows(*files, wanted, work.folder, settings["precision"])
    at_least = 0
    if library in ("pixels", "histogram"):
        prepare, compute = _baseline(library)
    else:
        from alignet.backbones import encode

        encoder = payloads.encoder(work, payloads.base_weights(work))
        prepare = encoder.pixels
        at_least = encoder.enough_pixels if settings["decode"] == "fast" else 0

        def compute(images: Any) -> np.ndarray:
            return encode(encoder, images, settings["compute"]).cpu().numpy()

    source = payloads.images(work, "images")
    read = payloads.opener(work, source)

    def opened(name: str) -> Any:
        return prepare(read(name, at_least=at_least))

    ids = list(source.ids)
    return _embed(work.node, ids, opened, compute, settings, work.runtime, work.folder, work.checkpoints)


def _baseline(library: str) -> tuple[Callable[[Any], Any], Callable[[Any], np.ndarray]]:
    import torch

    from alignet.evaluate.baselines import colour_histogram, raw_pixels

    extract = raw_pixels if library == "pixels" else colour_histogram
    return (lambda image: torch.from_numpy(extract([image])[0])), (lambda batch: batch.numpy())


def _embed(
    node: Node,
    ids: list[str],
    opened: Callable[[str], Any],
    compute: Callable[[Any], np.ndarray],
    settings: Mapping[str, Any],
    runtime: RuntimeSettings,
    folder: Path,
    checkpoints: Path,
) -> dict[str, Any]:
    """Write every shard that is not there yet. opened: id -> pixels; compute: a batch of pixels -> features."""
    import numpy as np

    from alignet.backbones.inference import stored
    from alignet.runtime.distributed import current
    from alignet.runtime.progress import progress

    processes = current()
    shards = [ids[start : start + settings["shard"]] for start in range(0, len(ids), settings["shard"])]
    # dealt by number alone, so that no process need know how far another is
    own = range(processes.rank, len(shards), processes.size)
    done = [row for row in own if (folder / f"features-{row:05d}.npy").is_file()]
    total, finished = (sum(len(shards[row]) for row in rows) for rows in (own, done))
    with progress(f"embedding {node.role}", total, "images", done=finished) as advance:
        for number in own:
            if number in done:
                continue
            kept, features, bad = _embed_shard(
                node.key, shards[number], opened, compute, settings, runtime, advance
            )
            if bad:
                checkpoints.mkdir(exist_ok=True)
                listed = "\n".join(bad) + "\n"
                (checkpoints / f"unreadable-{number:05d}.txt").write_text(listed, encoding="utf-8")
            _write_shard(folder, number, kept, stored(features, kept, settings["precision"]))
    processes.wait()
    first = np.load(folder / "features-00000.npy", mmap_mode="r", allow_pickle=False)
    unreadable = _collect_unreadable(checkpoints, folder) if processes.first else 0
    return {"images": len(ids) - unreadable, "width": first.shape[1], "unreadable": unreadable}


def _embed_shard(
    key: str,
    names: list[str],
    opened: Callable[[str], Any],
    compute: Callable[[Any], np.ndarray],
    settings: Mapping[str, Any],
    runtime: RuntimeSettings,
    advance: Callable[[int], None],
) -> tuple[list[str], np.ndarray, list[str]]:
    """The images that could be read, their features, and a line for each other one: id, tab, reason."""
    from contextlib import closing

    import numpy as np

    from alignet.backbones.inference import stream
    from alignet.runtime.interrupt import stop_if_asked

    kept: list[str] = []
    rows, bad = [], []
    passes = stream(
        names, opened, compute,
        batch=settings["batch"], threads=runtime.threads, workers=runtime.workers, device=runtime.device,
    )  # fmt: skip
    with closing(passes):
        for names_read, found, refused in passes:
            stop_if_asked()  # the shard is begun again
            if refused and settings["unreadable"] == "stop":
                raise ValueError(f"{refused[0][1]} Or set embed.unreadable=skip to set such images aside.")
            kept += names_read
            bad += [f"{name}\t{reason}" for name, reason in refused]
            if found is not None:
                rows.append(found)
            advance(len(names_read) + len(refused))
    if not rows:
        raise ValueError(f"{key}: none of {len(names)} images of a shard could be read: {bad[0]}")
    features = np.concatenate(rows)
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise ValueError(
            f"{key}: the backbone gave NaN or infinite features for {kept[row]}; check its weights."
        )
    return kept, features, bad


def _write_shard(folder: Path, number: int, ids: list[str], features: np.ndarray) -> None:
    import os

    import numpy as np

    (folder / f"ids-{number:05d}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    temporary = folder / f"features-{number:05d}.tmp"
    with open(temporary, "wb") as handle:
        np.save(handle, features)
    os.replace(temporary, folder / f"features-{number:05d}.npy")


def _collect_unreadable(checkpoints: Path, folder: Path) -> int:
    """Put the lists of all shards into one; how many images are on it."""
    files = sorted(checkpoints.glob("unreadable-*.txt")) if checkpoints.is_dir() else []
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    if lines:
        (folder / "unreadable.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(
            f"{len(lines)} unreadable images set aside, listed in unreadable.txt; the first: {lines[0]}",
            flush=True,
        )
    return len(lines)


def _pick_rows(
    features_file: Path, ids_file: Path, wanted: list[str] | None, folder: Path, precision: str
) -> dict[str, Any]:
    """The rows of precomputed features that belong to the images `wanted`, or all of them."""
    from alignet.backbones.inference import stored
    from alignet.data.features import load_features, rows_for
    from alignet.runtime.distributed import current

    processes = current()
    if not processes.first:  # nothing to share: reading is all there is to do
        processes.wait()
        return {}
    features, ids, constant = load_features(features_file, ids_file)
    if wanted is not None:
        features, ids = features[rows_for(wanted, ids)], wanted
    _write_shard(folder, 0, ids, stored(features, ids, precision))
    processes.wait()
    return {"images": len(ids), "width": features.shape[1], "constant_columns": constant}


if __name__ == "__main__":
    from alignet.stages import _embed_images

    _embed_images.main(__doc__ or "")
