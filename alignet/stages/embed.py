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
    from alignet.data.images import ImageSource
    from alignet.pipeline import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Embed what is not embedded yet. A shard exists once its features file has been renamed into place."""
    library = work.section["model"]["library"]
    if library == "features":
        return _pick_rows(work)
    if library in ("pixels", "histogram"):
        return _embed(work, *_baseline(library))
    from alignet.stages import _read

    encoder = _read.encoder(work, _read.base_weights(work))
    return _embed(work, encoder.transform, lambda batch: encoder.features(batch))


def _baseline(library: str) -> tuple[Any, Any]:
    import torch

    from alignet.evaluate.baselines import colour_histogram, raw_pixels

    extract = raw_pixels if library == "pixels" else colour_histogram
    return (lambda image: torch.from_numpy(extract([image])[0])), (lambda batch: batch)


def _embed(work: StageRun, transform: Any, features_of: Any) -> dict[str, Any]:
    import numpy as np

    from alignet.processes import current
    from alignet.progress import progress
    from alignet.stages import _read

    everyone, settings = current(), work.section["embed"]
    source = _read.images(work, "images")
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
            kept, features = _embed_shard(work, source, shards[number], transform, features_of, advance)
            _write_shard(work.folder, number, kept, _stored(features, kept, settings["precision"]))
    everyone.wait()
    first = np.load(work.folder / "features-00000.npy", mmap_mode="r", allow_pickle=False)
    set_aside = _collect_unreadable(work) if everyone.first else 0
    return {"images": len(ids) - set_aside, "width": first.shape[1], "unreadable": set_aside}


def _embed_shard(
    work: StageRun, source: ImageSource, names: list[str], transform: Any, features_of: Any, advance: Any
) -> tuple[list[str], Any]:
    import numpy as np
    import torch

    from alignet.interrupt import stop_if_asked

    kept: list[str] = []
    rows, bad = [], []
    for names_read, images, refused in _opened(work, source, names, transform):
        stop_if_asked()  # the shard is begun again
        if refused and work.section["embed"]["unreadable"] == "stop":
            raise ValueError(f"{refused[0][1]} Or set embed.unreadable=skip to set such images aside.")
        kept += names_read
        bad += [f"{name}\t{reason}" for name, reason in refused]
        if images is not None:
            with torch.no_grad():
                there = images.to(work.runtime.device, non_blocking=True)
                rows.append(features_of(there).float().cpu().numpy())
        advance(len(names_read) + len(refused))
    if not rows:
        raise ValueError(f"{source.root}: none of {len(names)} images of a shard could be read: {bad[0]}")
    features = np.concatenate(rows)
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise ValueError(
            f"{work.node.key}: the backbone gave NaN or infinite features for {kept[row]}; check its weights."
        )
    if bad:
        work.checkpoints.mkdir(exist_ok=True)
        (work.checkpoints / f"unreadable-{names[0].replace('/', '_')}.txt").write_text("\n".join(bad) + "\n")
    return kept, features


def _opened(work: StageRun, source: ImageSource, names: list[str], transform: Any) -> Any:
    """The batches of a shard: (ids, images or None, [(id, why it cannot be read)]), read ahead by `runtime.workers`."""
    import torch

    from alignet.interrupt import ignore
    from alignet.stages import _read

    settings, workers, read = work.section["embed"], work.runtime.workers, _read.opener(work, source)

    class Batches(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return -(-len(names) // settings["batch"])

        def __getitem__(self, number: int) -> tuple[list[str], Any, list[tuple[str, str]]]:
            kept, tensors, refused = [], [], []
            for name in names[number * settings["batch"] : (number + 1) * settings["batch"]]:
                try:
                    image = read(name)
                except ValueError as error:
                    refused.append((name, str(error)))
                    continue
                tensors.append(transform(image))
                kept.append(name)
            return kept, torch.stack(tensors) if tensors else None, refused

    # torch asks the global generator for a seed unless it is given one
    return torch.utils.data.DataLoader(
        Batches(), batch_size=None, num_workers=workers, generator=torch.Generator(),
        pin_memory=work.runtime.device == "cuda", multiprocessing_context="fork" if workers else None,
        worker_init_fn=ignore,
    )  # fmt: skip


def _stored(features: Any, ids: list[str], precision: str) -> Any:
    """Features as they are stored; ValueError where one is too large for float16, which would make it infinite."""
    import numpy as np

    with np.errstate(over="ignore"):
        stored = features.astype(precision)
    lost = ~np.isfinite(stored).all(1)
    if lost.any():
        raise ValueError(
            f"embed.precision: expected features that fit into {precision}, found one of "
            f"{np.abs(features[lost]).max():.3g} for {ids[int(lost.argmax())]}; set embed.precision=float32"
        )
    return stored


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
    from alignet.data.features import load_features, rows_for
    from alignet.processes import current
    from alignet.stages import _read

    everyone = current()
    if not everyone.first:  # nothing to share: reading is all there is to do
        everyone.wait()
        return {}
    features, ids, constant = load_features(work.sources["features"], work.sources["features.ids"])
    if "images" in work.inputs:
        wanted = _read.listed_ids(work.inputs["images"])
        features, ids = features[rows_for(wanted, ids)], wanted
    _write_shard(work.folder, 0, ids, _stored(features, ids, work.section["embed"]["precision"]))
    everyone.wait()
    return {"images": len(ids), "width": features.shape[1], "constant_columns": constant}


if __name__ == "__main__":
    from alignet.stages import _embed_images

    _embed_images.main(__doc__ or "")
