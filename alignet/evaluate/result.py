"""What one evaluation came to: its scores, and the tables behind its figures, as files.

scores.json      a list of Score
<table>.parquet  columns of equal length: numbers, text or bytes
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from alignet.evaluate.bootstrap import Score
from alignet.runtime.artifacts import write_json

Columns = Mapping[str, np.ndarray | Sequence[str] | Sequence[bytes]]


@dataclass(frozen=True)
class Result:
    """Scores for the table of settings, and named tables (column -> values of equal length) for the page."""

    scores: Sequence[Score]
    tables: Mapping[str, Columns] = field(default_factory=dict)


def write_result(folder: Path, result: Result) -> None:
    """Write scores.json and a Parquet file for each table. ValueError where columns differ in length."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_json(folder / "scores.json", [asdict(score) for score in result.scores])
    for name, columns in result.tables.items():
        lengths = {column: len(values) for column, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"table {name}: expected columns of one length, found {lengths}")
        pq.write_table(
            pa.table({key: pa.array(values) for key, values in columns.items()}), folder / f"{name}.parquet"
        )


def read_result(folder: Path) -> Result:
    """The inverse of write_result: numeric columns as arrays, text and bytes as object arrays."""
    import pyarrow.parquet as pq

    entries = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    tables = {}
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        tables[path.stem] = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    return Result([Score.from_json(entry) for entry in entries], tables)
