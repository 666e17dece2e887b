"""The sets of data, and what kind each is: conf's section `data`.

The stage `index` reads one set; every other stage names sets and reads what `index` made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from alignet.config.bounds import at_least


@dataclass(frozen=True)
class ImagesSet:
    """Images: a folder, at any depth; or WebDataset shards, whose members' names are the ids."""

    kind: Literal["images", "shards"]
    path: (
        str | None
    )  # in the world's own artifact, or on this machine; shards: a folder of .tar, or a pattern
    under: str  # only ids below this subfolder of `path`; '' takes all
    member: str = ""  # of a sample in shards, the part that is its image, as `jpg`; '' where it has one


@dataclass(frozen=True)
class TripletsSet:
    """Human choices: .npy, .txt, or a table (.csv, .tsv) with columns image1, image2, image3, choice."""

    kind: Literal["triplets"]
    path: str | None
    index_base: Literal[0, 1]  # the number of the first object
    odd_one: Literal["last", "first", "middle", "choice"]  # the column of the odd one out; tables: choice
    where: Mapping[str, tuple[int | str, ...]]  # tables: column -> the values whose rows count
    # of the objects that it numbers: table (or None) | sorted_files | a set of kind table with a column unique_id
    order: str | None = None


@dataclass(frozen=True)
class FeaturesSet:
    """Precomputed features: an .npy file with a row for each line of `ids`."""

    kind: Literal["features"]
    path: str | None
    ids: str | None


@dataclass(frozen=True)
class DatasetSet:
    """An AligNet data set as the official release stores one: filenames, similarities, indices."""

    kind: Literal["dataset"]
    path: str | None
    missing: Literal["stop", "drop"]  # triplets with an image that the pool lacks
    order: Literal["odd_last", "as_is"]  # odd_last: refuse unless s01 is the largest in 99 of 100


@dataclass(frozen=True)
class FileSet:
    """One file: a CSV table, an .npy array, weights (.safetensors), a W, b map or an embedding (.npz), trials with
    response times (.csv, .parquet), judged similarities (.mat, .npy, .csv), or another that its reader knows."""

    kind: Literal["table", "array", "weights", "map", "embedding", "trials", "judgements", "file"]
    path: str | None


@dataclass(frozen=True)
class MapsSet:
    """People's importance maps: an .npz file, a folder of maps, or WebDataset shards with a map in each sample."""

    kind: Literal["maps"]
    path: str | None  # the .npz, a folder of .npz, .png or .npy, a folder of .tar, or a pattern of them
    key: str = ""  # of an .npz with several kinds of maps, the name of the array; '' where it has one


SetSettings = ImagesSet | TripletsSet | FeaturesSet | DatasetSet | FileSet | MapsSet


@dataclass(frozen=True)
class ObjectIds:
    """How the objects that triplets count are named in one set of features: a column of the table."""

    column: str
    prefix: str


# What the stage `world` writes at the top of its folder: a set whose path begins with one of these is drawn.
WORLD_FILES = (
    "concepts.csv", "evaluation", "hierarchy.csv", "images", "maps", "objects.csv", "objects.txt", "people",
    "pool_labels.csv", "pretrain", "similarity.npy", "triplets",
)  # fmt: skip


@dataclass(frozen=True)
class DataSettings:
    """Where the data comes from, and the sets in it."""

    source: Literal["world", "folder"]
    needs: tuple[str, ...]  # of paths: what this experiment cannot do without
    verify: Literal["stat", "full"]
    pool_images: int | None  # so many of the pool's are drawn from and fine-tuned on; null: all
    objects: (
        str | None
    )  # name of the table set whose rows are the objects that triplets count; null without people
    object_ids: Mapping[str, ObjectIds]  # by image set
    sets: Mapping[str, SetSettings]

    def __post_init__(self) -> None:
        at_least("data", 3, pool_images=3 if self.pool_images is None else self.pool_images)
        if self.objects is not None and self.objects not in self.sets:
            raise ValueError(f"data.objects: expected one of {', '.join(self.sets)}, found {self.objects!r}")
        tables = [name for name, one in self.sets.items() if one.kind == "table"]
        for name, one in self.sets.items():
            if isinstance(one, TripletsSet) and one.order not in (None, "table", "sorted_files", *tables):
                raise ValueError(
                    f"data.sets.{name}.order: expected table, sorted_files or a set of kind table "
                    f"({', '.join(tables) or 'there is none'}), found {one.order!r}"
                )

    def drawn(self, name: str) -> bool:
        """Whether a set is a part of the drawn world, and not a file of this machine that is measured on beside it."""
        path = self.sets[name].path
        return self.source == "world" and path is not None and path.partition("/")[0] in WORLD_FILES
