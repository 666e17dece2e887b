"""Checkpoints of a long computation inside its work folder.

    <folder>/
      <step>.safetensors   tensors, with the JSON state in its metadata; the newest two are kept
      <step>.tmp           being written; ignored by readers

One file holds everything, so a checkpoint exists wholly or not at all. No pickle. Work that is asked to end (see
interrupt) finds a checkpoint due, and ends once that is written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from alignet.runtime import interrupt
from alignet.runtime.tensors import save_tensors


class Checkpoints:
    """Saves and loads the state of one computation; `folder` is created on the first save."""

    def __init__(self, folder: Path, seconds: float = 60.0, signals: bool = True):
        """seconds: `due` says yes once this much time has passed since the last save.

        signals: whether `due` says yes as well once the process is asked to end, and `save` then raises Stopped;
        processes that share the work agree on that among themselves instead.
        """
        self.folder = Path(folder)
        self.seconds = seconds
        self.signals = signals
        self._saved = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save again. When one saves never changes what is computed."""
        return (self.signals and interrupt.asked()) or time.monotonic() - self._saved >= self.seconds

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Write tensors and JSON-serialisable state of `step` atomically and drop all but the newest two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{step}.tmp"
        # clone: safetensors refuses tensors that share memory
        payload = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_tensors(payload, temporary, metadata={"state": json.dumps(dict(state)), "step": str(step)})
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, self.folder / f"{step}.safetensors")
        for old in self._steps()[:-2]:
            (self.folder / f"{old}.safetensors").unlink()
        self._saved = time.monotonic()
        if self.signals:
            interrupt.stop_if_asked()

    def latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint as (step, tensors, state), or None."""
        steps = self._steps()
        return self.at(steps[-1]) if steps else None

    def newest(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        return max(self._steps(), default=0)

    def at(self, step: int) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        """The checkpoint of `step` as (step, tensors, state); ValueError if this machine does not see it."""
        from safetensors import SafetensorError, safe_open

        path = self.folder / f"{step}.safetensors"
        if not path.is_file():
            raise ValueError(
                f"expected the checkpoint {path}, found nothing there; put paths.artifacts on a disk that every "
                f"machine of the run shares."
            )
        try:
            with safe_open(path, framework="pt") as handle:
                tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
                return step, tensors, json.loads(handle.metadata()["state"])
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path}: expected the checkpoint that was written, found a damaged file ({str(error)[:200]}); delete "
                "it, and the run goes on from the one before, or from the beginning."
            ) from None

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdigit())
