"""List and hash one set of data; everything downstream uses its digest, never its path.

reads   a folder of images, WebDataset shards, or one file
writes  listing.json: ids, sizes and checksums; of images in shards also their shard and offset
cost    the time to read the data once; later runs look at sizes and times only
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """List the set."""
    from alignet.runtime.artifacts import write_json

    kind = work.section["kind"]
    files = _in_shards(work) if kind == "shards" else _on_disk(work, kind)
    write_json(work.folder / "listing.json", {"kind": kind, "files": files})
    return {"files": len(files), "bytes": sum(entry["size"] for entry in files.values())}


def _on_disk(work: StageRun, kind: str) -> dict[str, dict[str, Any]]:
    from alignet.data.index import scan
    from alignet.data.sets import files_of, listed_name

    under = work.section.get("under", "")
    files = files_of(kind, work.sources["data"], under, work.sources.get("ids"))
    listing = scan(files, cache=work.sources.get("seen"))  # what the pipeline has just read to name this node
    return {
        listed_name(under, name): {"size": size, "sha256": sha256}
        for name, size, sha256 in zip(listing.ids, listing.sizes, listing.sha256, strict=True)
    }


def _in_shards(work: StageRun) -> dict[str, dict[str, Any]]:
    from alignet.data.shards import checksums, list_shards

    listing = list_shards(work.sources["data"])
    sums, under = checksums(listing), work.section["under"]
    files = {
        name: {"size": size, "sha256": sums[name], "shard": shard, "offset": offset}
        for name, (shard, offset, size) in listing.images.items()
        if not under or name.startswith(f"{under}/")
    }
    if not files:
        raise ValueError(
            f"{work.sources['data']}: expected images below {under!r} in the shards, found names such as "
            f"{next(iter(listing.images))!r}; set `under` to '' or to the beginning of these names"
        )
    return files


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("index", __doc__ or "")
