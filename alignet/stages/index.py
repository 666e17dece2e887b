"""List and hash one set of data; everything downstream uses its digest, never its path.

reads   a folder of images, or one file
writes  listing.json: ids, sizes and checksums
cost    the time to read the data once; later runs look at sizes and times only
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """List the set."""
    from alignet.artifacts import write_json
    from alignet.data.index import scan
    from alignet.data.sets import files_of, listed_name

    under = work.section.get("under", "")
    listing = scan(files_of(work.section["kind"], work.sources["data"], under, work.sources.get("ids")))
    files = {
        listed_name(under, name): {"size": size, "sha256": sha256}
        for name, size, sha256 in zip(listing.ids, listing.sizes, listing.sha256, strict=True)
    }
    write_json(work.folder / "listing.json", {"kind": work.section["kind"], "files": files})
    return {"files": len(files), "bytes": sum(listing.sizes)}


if __name__ == "__main__":
    from alignet.cli import stage_main

    stage_main("index", __doc__ or "")
