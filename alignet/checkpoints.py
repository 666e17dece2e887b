"""Checkpoints of a long computation inside its work folder.

    <folder>/
      <step>.safetensors   tensors, with the JSON state in its metadata; the newest two are kept
      <step>.tmp           being written; ignored by readers

One file holds everything, so a checkpoint exists wholly or not at all. No pickle.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


class Checkpoints:
    """Saves and loads the state of one computation; `folder` is created on the first save."""

    def __init__(self, folder: Path, seconds: float = 60.0):
        """seconds: `due` says yes once this much time has passed since the last save."""
        self.folder = Path(folder)
        self.seconds = seconds
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again. When one saves never changes what is computed."""
        return time.monotonic() - self._saved >= self.seconds

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write tensors and JSON-serialisable state of `step` atomically and drop all but the newest two."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{step}.tmp"
        # clone: safetensors refuses tensors that share memory
        payload = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(payload, temporary, metadata={"state": json.dumps(dict(state)), "step": str(step)})
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, self.folder / f"{step}.safetensors")
        for old in self._steps()[:-2]:
            (self.folder / f"{old}.safetensors").unlink()
        self._saved = time.monotonic()

    def latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint as (step, tensors, state), or None."""
        from safetensors import safe_open

        steps = self._steps()
        if not steps:
            return None
        with safe_open(self.folder / f"{steps[-1]}.safetensors", framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            return steps[-1], tensors, json.loads(handle.metadata()["state"])

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self.folder.glob("*.safetensors"))
