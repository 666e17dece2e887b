"""How many images a set has, before it is indexed: counted where it is there, else by the settings of the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignet.config import ImagesSet
from alignet.data.sets import exists, listed_name
from alignet.pipeline.states import States


def pool_images(states: States) -> int | None:
    """Number of images of the pool; None where that cannot be known."""
    config = states.config
    one = config.data.sets["pool"]
    path, drawn = Path(one.path or ""), config.data.drawn("pool")
    folder: Path | None = path if one.path is not None else None
    if folder is not None and drawn:
        artifact = states.state("world").artifact
        folder = None if artifact is None else artifact.folder / path
    if folder is not None and isinstance(one, ImagesSet) and exists(one.kind, folder):
        try:
            return len(image_ids(one, folder))
        except MemoryError:
            raise
        except Exception:  # its index says what is wrong with it
            pass
    return world_images(config.world, path.name) if drawn and config.world is not None else None


def image_ids(one: ImagesSet, path: Path) -> list[str]:
    """The ids of a set of images in a folder or in shards, sorted."""
    if one.kind == "shards":
        from alignet.data.shards import list_shards

        return sorted(list_shards(path, member=one.member).images)
    from alignet.data.images import list_images

    return [listed_name(one.under, name) for name in list_images(path / one.under if one.under else path).ids]


def world_pictures(world: Any) -> int:
    """Pictures in all folders of a drawn world, by the world's settings."""
    names = ("things", "pool", "fresh", "probe", "judged", "mapped", "mapped_plain", "mapped_test")
    return sum(world_images(world, name) for name in names)


def world_images(world: Any, folder: str) -> int:
    """Pictures in one of a drawn world's folders, by the world's settings."""
    from alignet.world.drawing import CATEGORIES

    concepts = len(CATEGORIES) * world.concepts
    judged = len(CATEGORIES) * (world.concepts - world.unjudged)
    counts = {
        "things": judged * world.exemplars, "pool": world.pool, "fresh": concepts * world.fresh,
        "probe": concepts * world.probe, "judged": 2 * concepts + 5 * world.concepts * world.rated,
        "mapped": world.mapped, "mapped_plain": world.mapped_plain, "mapped_test": world.mapped_test,
    }  # fmt: skip
    return counts.get(folder, 0)
