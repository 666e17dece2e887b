"""List and hash one set of data; everything downstream uses its digest, never its path.

reads   a folder of images, WebDataset shards, or one file
writes  listing.json: ids, sizes and checksums; of images in shards also their shard and offset; of triplets with an
        `order`, objects.npy: the object table's row of each number in the file
cost    the time to read the data once; later runs look at sizes and times only
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """List the set."""
    from alignet.data.images import say_left_out
    from alignet.runtime.artifacts import write_json

    kind = work.section["kind"]
    under, data = work.section.get("under", ""), work.sources["data"]
    left_out: Mapping[str, int] = {}
    if kind == "shards":
        files = _in_shards(data, under, work.section.get("member", ""))
    else:
        files, left_out = _on_disk(kind, data, under, work.sources.get("ids"), work.sources.get("seen"))
    write_json(work.folder / "listing.json", {"kind": kind, "files": files})
    if "objects" in work.inputs:
        _write_numbering(work)
    if "world" in work.inputs:  # what stands beside drawn pictures is the world's own
        left_out = {}
    say_left_out(data / under, left_out)
    figures = {"files": len(files), "bytes": sum(entry["size"] for entry in files.values())}
    return figures | ({"left_out": dict(left_out)} if left_out else {})


def _on_disk(
    kind: str, data: Path, under: str, ids: Path | None, checksums: Path | None
) -> tuple[dict[str, dict[str, Any]], Mapping[str, int]]:
    """Size and checksum by id, and what else a folder of images holds, by suffix.

    checksums: the file that remembers those that were read before.
    """
    from alignet.data.checksums import scan
    from alignet.data.sets import files_of, listed_name

    files = files_of(kind, data, under, ids)
    listing = scan(files, cache=checksums)  # what the pipeline has just read to name this node
    return {
        listed_name(under, name): {"size": size, "sha256": sha256}
        for name, size, sha256 in zip(listing.ids, listing.sizes, listing.sha256, strict=True)
    }, listing.left_out


def _write_numbering(work: StageRun) -> None:
    import numpy as np

    from alignet.data.object_order import numbering

    rows = numbering(work.section["order"], work.sources["objects"], work.sources.get("order"))
    np.save(work.folder / "objects.npy", rows)
    moved = int((rows != np.arange(len(rows))).sum())
    print(
        f"{work.section['order']}: {moved:,} of {len(rows):,} objects stand elsewhere than in the object table"
    )


def _in_shards(data: Path, under: str, member: str) -> dict[str, dict[str, Any]]:
    """Size, checksum, shard and offset by id."""
    from alignet.data.shards import checksums, list_shards

    listing = list_shards(data, member=member)
    sums = checksums(listing)
    files = {
        name: {"size": size, "sha256": sums[name], "shard": shard, "offset": offset}
        for name, (shard, offset, size) in listing.images.items()
        if not under or name.startswith(f"{under}/")
    }
    if not files:
        raise ValueError(
            f"{data}: expected images below {under!r} in the shards, found names such as "
            f"{next(iter(listing.images))!r}; set `under` to '' or to the beginning of these names"
        )
    return files


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("index", __doc__ or "")
