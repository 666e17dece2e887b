"""Run a backbone over a set of images, shard by shard; or pick the rows of precomputed features.

Or embed any images with any model, outside of the graph (docs/embed.md):
    images=FOLDER model=FOLDER|LIBRARY:NAME [output=FOLDER] [format=npy|parquet] [map=NPZ] [batch=64] [device=cpu]

reads   index[images], the weights; or index[features]
writes  features-*.npy (raw, unmapped) and ids-*.txt, a pair for each shard; unreadable.txt if images were set aside
roles   <model>.<image set>, e.g. student.pool
cost    the backbone's forward pass over every image; several processes deal the shards among them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Embed what is not embedded yet. A shard exists once its features file has been renamed into place."""
    library = work.section["model"]["library"]
    if library == "features":
        return _pick_rows(work)
    if library in ("pixels", "histogram"):
        return _embed(work, *_baseline(library))
    from alignet.backbones import encode
    from alignet.pipeline import payloads

    encoder = payloads.encoder(work, payloads.base_weights(work))
    settings = work.section["embed"]
    at_least = encoder.enough_pixels if settings["decode"] == "fast" else 0
    return _embed(
        work,
        encoder.pixels,
        lambda images: encode(encoder, images, settings["compute"]).cpu().numpy(),
        at_least,
    )


def _baseline(library: str) -> tuple[Any, Any]:
    import torch

    from alignet.evaluate.baselines import colour_histogram, raw_pixels

    extract = raw_pixels if library == "pixels" else colour_histogram
    return (lambda image: torch.from_numpy(extract([image])[0])), (lambda batch: batch.numpy())


def _embed(work: StageRun, prepare: Any, compute: Any, at_least: int = 0) -> dict[str, Any]:
    import numpy as np

    from alignet.backbones.inference import stored
    from alignet.pipeline import payloads
    from alignet.runtime.distributed import current
    from alignet.runtime.progress import progress

    everyone, settings = current(), work.section["embed"]
    source = payloads.images(work, "images")
    read = payloads.opener(work, source)

    def opened(name: str) -> Any:
        return prepare(read(name, at_least=at_least))

    ids = list(source.ids)
    shards = [ids[start : start + settings["shard"]] for start in range(0, len(ids), settings["shard"])]
    # dealt by number alone, so that no process need know how far another is
    own = range(everyone.rank, len(shards), everyone.size)
    done = [row for row in own if (work.folder / f"features-{row:05d}.npy").is_file()]
    total, finished = (sum(len(shards[row]) for row in rows) for rows in (own, done))
    with progress(f"embedding {work.node.role}", total, "images", done=finished) as advance:
        for number in own:
            if number in done:
                continue
            kept, features = _embed_shard(work, number, shards[number], opened, compute, advance)
            _write_shard(work.folder, number, kept, stored(features, kept, settings["precision"]))
    everyone.wait()
    first = np.load(work.folder / "features-00000.npy", mmap_mode="r", allow_pickle=False)
    set_aside = _collect_unreadable(work) if everyone.first else 0
    return {"images": len(ids) - set_aside, "width": first.shape[1], "unreadable": set_aside}


def _embed_shard(
    work: StageRun, number: int, names: list[str], opened: Any, compute: Any, advance: Any
) -> tuple[list[str], Any]:
    from contextlib import closing

    import numpy as np

    from alignet.backbones.inference import stream
    from alignet.runtime.interrupt import stop_if_asked

    kept: list[str] = []
    rows, bad = [], []
    settings, runtime = work.section["embed"], work.runtime
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
        raise ValueError(f"{work.node.key}: none of {len(names)} images of a shard could be read: {bad[0]}")
    features = np.concatenate(rows)
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise ValueError(
            f"{work.node.key}: the backbone gave NaN or infinite features for {kept[row]}; check its weights."
        )
    if bad:
        work.checkpoints.mkdir(exist_ok=True)
        listed = "\n".join(bad) + "\n"
        (work.checkpoints / f"unreadable-{number:05d}.txt").write_text(listed, encoding="utf-8")
    return kept, features


def _write_shard(folder: Any, number: int, ids: list[str], features: Any) -> None:
    import os

    import numpy as np

    (folder / f"ids-{number:05d}.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    temporary = folder / f"features-{number:05d}.tmp"
    with open(temporary, "wb") as handle:
        np.save(handle, features)
    os.replace(temporary, folder / f"features-{number:05d}.npy")


def _collect_unreadable(work: StageRun) -> int:
    files = sorted(work.checkpoints.glob("unreadable-*.txt")) if work.checkpoints.is_dir() else []
    lines = [line for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    if lines:
        (work.folder / "unreadable.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(
            f"{len(lines)} unreadable images set aside, listed in unreadable.txt; the first: {lines[0]}",
            flush=True,
        )
    return len(lines)


def _pick_rows(work: StageRun) -> dict[str, Any]:
    from alignet.backbones.inference import stored
    from alignet.data.features import load_features, rows_for
    from alignet.pipeline import payloads
    from alignet.runtime.distributed import current

    everyone = current()
    if not everyone.first:  # nothing to share: reading is all there is to do
        everyone.wait()
        return {}
    features, ids, constant = load_features(work.sources["features"], work.sources["features.ids"])
    if "images" in work.inputs:
        wanted = payloads.listed_ids(work.inputs["images"])
        features, ids = features[rows_for(wanted, ids)], wanted
    _write_shard(work.folder, 0, ids, stored(features, ids, work.section["embed"]["precision"]))
    everyone.wait()
    return {"images": len(ids), "width": features.shape[1], "constant_columns": constant}


if __name__ == "__main__":
    from alignet.stages import _embed_images

    _embed_images.main(__doc__ or "")
