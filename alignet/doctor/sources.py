"""The sets of data that a configuration's graph needs: where they are on this machine, and what is in them.

Every set is read once. What cannot be read is remembered with its message in `broken`, so that the check of
files reports it and every other check leaves it alone.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import Config, DatasetSet, FeaturesSet, ImagesSet, MapsSet, SetSettings, TripletsSet
from alignet.data.object_order import SORTED_FILES, TABLE, numbering
from alignet.data.sets import exists, files_of
from alignet.data.tables import read_rows
from alignet.data.text import open_text, separator_of
from alignet.pipeline.graph import Node, upstream
from alignet.pipeline.outside import checksum_cache, outside_path
from alignet.pipeline.pool import image_ids, world_images
from alignet.pipeline.runner import Pipeline
from alignet.pipeline.states import State
from alignet.runtime.artifacts import ArtifactError

_REMEMBERED = 90  # bytes that a checksum and what goes with it take in the list of them, at least


@dataclass(frozen=True)
class Count:
    """How many there are of something, and how that is known: counted | drawn | assumed | unknown."""

    number: int
    how: str

    def __str__(self) -> str:
        said = {"counted": "", "drawn": ""}.get(self.how, f" ({self.how})")
        return f"{self.number:,}{said}"


@dataclass
class Sources:
    """The data of one configuration. `overrides`: the command line that made it."""

    config: Config
    overrides: tuple[str, ...]
    pipeline: Pipeline
    broken: dict[str, str] = field(default_factory=dict)  # set -> why it cannot be read
    _held: dict[str, Any] = field(default_factory=dict)
    _states: dict[str, State] = field(default_factory=dict)

    @property
    def graph(self) -> Mapping[str, Node]:
        """The nodes by key."""
        return self.pipeline.graph

    def state(self, key: str) -> State:
        """The state of a node; `blocked` where that cannot be told."""
        if key not in self._states:
            try:
                self._states[key] = self.pipeline.state(key) if self._any_made(key) else self._absent(key)
            except (OSError, ValueError, ArtifactError) as error:
                self._states[key] = State("blocked", why=str(error))
        return self._states[key]

    def _any_made(self, key: str) -> bool:
        """Whether the store has anything of a node's stage. If not, its state needs no checksums of 150 GB."""
        return (self.pipeline.store.root / self.graph[key].stage).is_dir()

    def _absent(self, key: str) -> State:
        """The state of a node whose stage has made nothing; FileNotFoundError where outside data is not there."""
        for one in (key, *upstream(self.graph, key)):
            if self.graph[one].outside:
                outside_path(self.config, self.graph[one].outside)
        return State("missing")

    def sets(self) -> dict[str, SetSettings]:
        """The sets that the graph reads."""
        names = [node.role for node in self.graph.values() if node.stage == "index"]
        return {name: self.config.data.sets[name] for name in names}

    def path(self, name: str) -> Path | None:
        """Where a set is, or None: no path is set, or the world that holds it has not been drawn."""
        one = self.config.data.sets[name]
        if one.path is None:
            return None
        if self.config.data.drawn(name):
            artifact = self.state("world").artifact
            return None if artifact is None else artifact.folder / one.path
        return Path(one.path)

    def is_there(self, name: str) -> bool:
        """Whether there is something at its path."""
        path = self.path(name)
        return path is not None and exists(self.config.data.sets[name].kind, path)

    def read(self, name: str) -> Any:
        """What a set holds, or None where it is not there or cannot be read (then `broken` says why).

        images, shards: their ids. triplets: int64 (n, 3), odd one last. features: Features. table: its rows.
        array: (...). weights: names of tensors. map: AffineMap. embedding: (loc, scale). dataset: as loaded.
        maps: ImportanceMaps by key.
        """
        if name in self._held:
            return self._held[name]
        self._held[name] = None
        if self.is_there(name):
            try:
                self._held[name] = self._read(name, self.config.data.sets[name], self._path(name))
            except MemoryError:
                raise
            except Exception as error:
                kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
                self.broken[name] = f"{kind}{error}"
        return self._held[name]

    def _path(self, name: str) -> Path:
        path = self.path(name)
        assert path is not None
        return path

    def numbering(self, order: str | None) -> np.ndarray | None:
        """The object table's row of each object in some order: int64 (m,); None for the table's own."""
        if order in (None, TABLE) or self.config.data.objects is None:
            return None
        other = None if order == SORTED_FILES else self._path(str(order))
        return numbering(str(order), self._path(self.config.data.objects), other)

    def _read(self, name: str, one: SetSettings, path: Path) -> Any:
        if isinstance(one, ImagesSet):
            return image_ids(one, path)
        if isinstance(one, TripletsSet):
            found = read_triplets(one, path, self.objects_of(name).number)
            numbered = self.numbering(one.order)
            return found if numbered is None else numbered[found]
        if isinstance(one, FeaturesSet):
            return self._features(one, path)
        if one.kind == "table":
            return self._table(name, path)
        if one.kind == "array":
            from alignet.data.npy import read_npy

            return read_npy(path)
        if one.kind == "weights":
            return weight_names(path)
        if one.kind == "map":
            from alignet.teacher.affine_map import AffineMap

            return AffineMap.load_npz(path)
        if one.kind == "embedding":
            from alignet.data.embeddings import load_embedding

            return load_embedding(path, self.objects().number)
        if isinstance(one, DatasetSet):
            from alignet.data.alignet_npz import load_dataset

            ids = self.read("pool")
            return None if ids is None else load_dataset(path, ids, missing=one.missing, order=one.order)
        if one.kind == "trials":
            from alignet.data.trials import read_trials

            return read_trials(path)
        if isinstance(one, MapsSet):
            from alignet.data.importance_maps import keys_of, load_maps

            keys = [one.key] if one.key else keys_of(path) or [""]
            return {key: load_maps(path, key=key) for key in keys}
        if one.kind == "judgements":
            from alignet.data.sets import judgements_file

            return judgements_file(path)  # see doctor.evaluations
        return path

    def _features(self, one: FeaturesSet, path: Path) -> Any:
        from alignet.data.features import load_features

        if one.ids is None or not Path(one.ids).is_file():
            raise ValueError(
                f"no ids of its rows at {one.ids}: give a text file with one id a line (its option `ids`)"
            )
        return load_features(path, one.ids)

    def _table(self, name: str, path: Path) -> Any:
        if name == self.config.data.objects:
            from alignet.data.concepts import COLUMNS, load_concepts

            load_concepts(path)
            with open_text(path, "a table of concepts") as handle:
                separator = separator_of(handle.readline(), COLUMNS)
                handle.seek(0)
                rows = list(csv.DictReader(handle, delimiter=separator))
        else:
            rows = read_rows(path)
        if not rows:
            raise ValueError(f"{path}: expected a header and at least one row, found none; export it again")
        return rows

    def checksums_are_remembered(self, name: str) -> bool:
        """Whether an earlier command hashed the files of a set that is there, for this store: by the size of what it
        remembers, since a list of a million checksums takes long to read. One that was stopped remembers less."""
        remembered = checksum_cache(self.config, self.pipeline.store.root, name)
        count = self.images(name).number if self.config.data.sets[name].kind == "images" else 1
        return remembered.is_file() and remembered.stat().st_size >= _REMEMBERED * count

    def left_out(self, name: str) -> Mapping[str, int]:
        """What a folder of images holds beside them, by suffix; nothing of shards, whose members have many kinds."""
        from alignet.data.images import list_images

        one, path = self.config.data.sets[name], self._path(name)
        return list_images(path / one.under).left_out if one.kind == "images" else {}

    def opener(self, name: str) -> Callable[[str], Any]:
        """The function that opens one image of a set by its id, as every stage does."""
        from alignet.data.pixels import open_image, reading

        one, path = self.config.data.sets[name], self._path(name)
        options = reading(asdict(self.config.pixels))
        if one.kind == "shards":
            key = f"{name} (source)"
            if key not in self._held:
                from alignet.data.shards import list_shards, shard_source

                self._held[key] = shard_source(path, list_shards(path, member=one.member).images)
            return lambda identity: self._held[key].open(identity, **options)
        return lambda identity: open_image(path / identity, **options)

    # ---- numbers

    def images(self, name: str) -> Count:
        """Number of images of an image set."""
        ids = self.read(name)
        if ids is not None:
            return Count(len(ids), "counted")
        world = self.config.world
        if self.config.data.drawn(name) and world is not None:
            return Count(world_images(world, Path(self.config.data.sets[name].path or "").name), "drawn")
        return self._assumed(name)

    def bytes(self, name: str) -> int:
        """Bytes of the files of a set that is there."""
        one = self.config.data.sets[name]
        ids = Path(one.ids) if isinstance(one, FeaturesSet) and one.ids else None
        found = files_of(one.kind, self._path(name), getattr(one, "under", ""), ids)
        files = found.values() if isinstance(found, Mapping) else (p for p in found.rglob("*") if p.is_file())
        return sum(file.stat().st_size for file in files if file.exists())

    def triplets(self, name: str) -> Count:
        """Number of triplets of a set."""
        held = self.read(name)
        if held is not None:
            return Count(len(held), "counted")
        world, path = self.config.world, Path(self.config.data.sets[name].path or "")
        if self.config.data.drawn(name) and world is not None:
            number = {"train": world.train_triplets, "val": world.val_triplets}.get(
                path.stem, world.test_triplets
            )
            return Count(number, "drawn")
        return self._assumed(name)

    def objects(self) -> Count:
        """m: number of objects that human triplets count."""
        name = self.config.data.objects
        if name is None:
            return Count(0, "unknown")
        rows = self.read(name)
        if rows is not None:
            return Count(len(rows), "counted")
        if self.config.data.drawn(name) and self.config.world is not None:
            return Count(world_images(self.config.world, "things"), "drawn")
        return self._assumed(name)

    def objects_of(self, name: str) -> Count:
        """How many things the triplets of a set count: the objects, or the images that they are about."""
        for dataset in self.config.evaluate.datasets.values():
            if dataset.data.get("triplets") == name and "objects" not in dataset.data:
                return self.images(dataset.images["test"])
        found = self.objects()
        return found if found.number else Count(2**31, "unknown")

    def _assumed(self, name: str) -> Count:
        assumed = self.config.doctor.assume
        return Count(assumed[name], "assumed") if name in assumed else Count(0, "unknown")

    def unique_ids(self) -> list[str] | None:
        """The objects by name, in the order of their table; None without one."""
        table = self.config.data.objects
        if table is None or self.read(table) is None:
            return None
        from alignet.data.concepts import load_concepts

        return [one.unique_id for one in load_concepts(self._path(table))]

    def object_names(self, images: str) -> list[str] | None:
        """The id that each object has in a set, '' where it has none; None without an object table."""
        table = self.config.data.objects
        naming = self.config.data.object_ids.get(images)
        if table is None or naming is None or self.read(table) is None:
            return None
        from alignet.data.concepts import load_concepts

        values = [str(getattr(one, naming.column, "")) for one in load_concepts(self._path(table))]
        return [naming.prefix + value if value else "" for value in values]

    def set_ids(self, images: str) -> list[str] | None:
        """The ids by which a model's features of an image set are named, as far as they can be known now."""
        rows = self.config.teacher.rows.get(images)
        if images in self.config.data.sets:
            return self.read(images)
        if rows is not None and not rows.images:  # every row of a features file, by its own id
            features = self.read(rows.features)
            return None if features is None else features.ids
        return None

    def cached_features(self, key: str) -> tuple[np.ndarray, list[str]] | None:
        """The rows of an `embed` node that has been made, or of the features file that it would copy."""
        from alignet.pipeline import payloads

        artifact = self.state(key).artifact if key in self.graph else None
        if artifact is not None:
            return payloads.embedding(artifact)
        node = self.graph.get(key)
        if node is None or node.section["model"]["library"] != "features":
            return None
        features = self.read(self.graph[node.inputs["features"]].role)
        return None if features is None else (features.values, list(features.ids))


def read_triplets(one: TripletsSet, path: Path, objects: int) -> np.ndarray:
    """The triplets of a set, int64 (n, 3), odd one last."""
    from alignet.data.triplets import load_triplets

    return load_triplets(
        path, objects=objects, index_base=one.index_base, odd_one=one.odd_one, where=one.where
    )


def weight_names(path: Path) -> list[str]:
    """Names of the tensors of a .safetensors file, or of each such file in a folder."""
    from safetensors import SafetensorError, safe_open

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"{path}: expected a .safetensors file in this folder, found none")
    names: list[str] = []
    for file in files:
        if file.suffix != ".safetensors":
            raise ValueError(
                f"{file}: expected a .safetensors file, found {file.suffix or 'no suffix'}; convert it with "
                f"safetensors.torch.save_file"
            )
        try:
            with safe_open(file, framework="numpy") as handle:
                names += list(handle.keys())
        except SafetensorError as error:
            raise ValueError(f"{file}: expected readable .safetensors ({error}); fetch it again") from None
    return names
