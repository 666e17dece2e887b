"""Run a backbone over a set of images, shard by shard; or pick the rows of precomputed features.

reads   index[images], the weights; or index[features]
writes  features-*.npy (raw, unmapped) and ids-*.txt, a pair for each shard; unreadable.txt if images were set aside
roles   <model>.<image set>, e.g. student.pool
cost    the backbone's forward pass over every image
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    from alignet.progress import progress
    from alignet.stages import _read

    settings = work.section["embed"]
    ids = _read.listed_ids(work.inputs["images"])
    shards = [ids[start : start + settings["shard"]] for start in range(0, len(ids), settings["shard"])]
    done = [row for row in range(len(shards)) if (work.folder / f"features-{row:05d}.npy").is_file()]
    finished = sum(len(shards[row]) for row in done)
    width = 0
    with progress(f"embedding {work.node.role}", len(ids), "images", done=finished) as advance:
        for number, names in enumerate(shards):
            if number in done:
                continue
            kept, features = _embed_shard(work, names, transform, features_of, advance)
            _write_shard(work.folder, number, kept, features.astype(settings["precision"]))
    first = np.load(work.folder / "features-00000.npy", mmap_mode="r", allow_pickle=False)
    width = first.shape[1]
    set_aside = _collect_unreadable(work)
    return {"images": len(ids) - set_aside, "width": width, "unreadable": set_aside}


def _embed_shard(
    work: StageRun, names: list[str], transform: Any, features_of: Any, advance: Any
) -> tuple[list[str], Any]:
    import numpy as np
    import torch

    from alignet.data.images import open_image

    settings = work.section["embed"]
    kept: list[str] = []
    rows, bad = [], []
    for start in range(0, len(names), settings["batch"]):
        tensors = []
        for name in names[start : start + settings["batch"]]:
            try:
                tensors.append(
                    transform(open_image(work.sources["images"] / name, max_pixels=settings["max_pixels"]))
                )
            except ValueError as error:
                if settings["unreadable"] == "stop":
                    raise ValueError(
                        f"{error} Or set embed.unreadable=skip to set such images aside."
                    ) from error
                bad.append(f"{name}\t{error}")
                continue
            kept.append(name)
        if tensors:
            with torch.no_grad():
                rows.append(features_of(torch.stack(tensors).to(work.runtime.device)).float().cpu().numpy())
        advance(len(names[start : start + settings["batch"]]))
    if not rows:
        raise ValueError(
            f"{work.sources['images']}: none of {len(names)} images of a shard could be read: {bad[0]}"
        )
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
    import numpy as np

    from alignet.data.features import load_features, rows_for
    from alignet.stages import _read

    features, ids, constant = load_features(work.sources["features"], work.sources["features.ids"])
    if "images" in work.inputs:
        wanted = _read.listed_ids(work.inputs["images"])
        features, ids = features[rows_for(wanted, ids)], wanted
    _write_shard(work.folder, 0, ids, features.astype(np.dtype(work.section["embed"]["precision"])))
    return {"images": len(ids), "width": features.shape[1], "constant_columns": constant}


if __name__ == "__main__":
    from alignet.cli import stage_main

    stage_main("embed", __doc__ or "")
