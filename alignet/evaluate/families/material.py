"""What a family of metrics is given: named features, files and nodes; and what it may draw from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result

if TYPE_CHECKING:
    from PIL import Image

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Material:
    """What an evaluation may read, by the names that the configuration gives: features, files, nodes.

    features: name -> (float32 (m, p) as this setting sees them, ids). files: name -> path. nodes: name ->
    folder of another artifact. raw: name of a node -> its embedding (features, ids), where it is one. transform:
    what this setting does to raw float32 rows.
    picture: opens an image of the data set `pictures` by its id. object_rows: row in the features `test` of each
    object that triplets count, -1 for none.
    """

    dataset: str
    setting: str
    features: Mapping[str, tuple[np.ndarray, list[str]]]
    files: Mapping[str, Path]
    nodes: Mapping[str, Path]
    raw: Mapping[str, tuple[np.ndarray, list[str]]]
    transform: Callable[[np.ndarray], np.ndarray]
    triplets: Callable[[str, int], np.ndarray]
    picture: Callable[[str], Image.Image]
    object_rows: np.ndarray | None
    bootstrap: int
    seed: int

    def array(self, name: str) -> np.ndarray:
        """The array of the .npy file `name`."""
        from alignet.data.npy import read_npy

        return read_npy(self.files[name])

    def shards(self, node: str, stage: str) -> list[tuple[Path, list[str]]]:
        """The shards that a stage wrote into a node's folder, in their order, with the ids of their images."""
        folder = self.nodes[node]
        paths = sorted(folder.glob(f"{stage}-*.npz"))
        if not paths:
            raise ValueError(
                f"{self.dataset}: expected {stage}-NNNNN.npz in {folder}, found none; name a node of the stage {stage} "
                f"as `{node}`."
            )
        beside = [
            path.with_name(path.name.replace(f"{stage}-", "ids-")).with_suffix(".txt") for path in paths
        ]
        return [
            (path, ids.read_text(encoding="utf-8").splitlines())
            for path, ids in zip(paths, beside, strict=True)
        ]

    def column(self, table: str, column: str, ids: list[str], **naming: str) -> np.ndarray:
        """The column of a CSV table for each of `ids`, as text (m,). naming: see data.tables.column_for."""
        from alignet.data.tables import column_for

        return np.array(column_for(self.files[table], ids, column, **naming))


Family = Callable[[Material, Options], list[Score] | Result]
