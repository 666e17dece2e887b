"""Draw the embedded world: pictures, captions, simulated participants and their choices.

reads   nothing
writes  images/, triplets/, evaluation/, pretrain/ and tables, laid out as data/README.md describes
cost    about 20 s on 2 cores
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Write the world of this section into the work folder."""
    from alignet.config import WorldSettings, build
    from alignet.world.world import write_world

    workers = work.runtime.threads if work.runtime.threads > 1 else 0
    return write_world(work.folder, build(WorldSettings, work.section, "world"), workers)


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("world", __doc__ or "")
