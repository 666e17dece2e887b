"""The loop that every training shares: progress, finite checks, checkpoints, and an end that all processes agree on.

    step(number) -> note, for the steps that are not done; tensors() and state() when it is time to save

A training brings what a step does and what a checkpoint must hold. Saving never changes what is computed, and a run
that goes on at a checkpoint ends in the same bytes, as far as a step depends on its number alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes
from alignet.runtime.interrupt import stop
from alignet.runtime.progress import progress


class Training:
    """Steps `done` to `steps` of one training. Every process of `processes` must run it with the same arguments."""

    def __init__(
        self,
        what: str,
        steps: int,
        *,
        checkpoints: Checkpoints | None = None,
        processes: Processes | None = None,
        advice: str = "lower the learning rate",
    ):
        """what: the name in messages and on the progress line. advice: what to do where a figure is not finite."""
        self.what, self.steps, self.advice = what, steps, advice
        self.checkpoints, self.processes = checkpoints, processes or Processes()
        self.saved = 0

    def restored(self) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        """(step, tensors, state) of the newest checkpoint that the first process sees; (0, {}, {}) without one."""
        if self.checkpoints is None:
            return 0, {}, {}
        newest = self.processes.copy(torch.tensor([self.checkpoints.newest()]))
        self.saved = int(newest.item())
        return self.checkpoints.at(self.saved) if self.saved else (0, {}, {})

    def run(
        self,
        step: Callable[[int], str],
        tensors: Callable[[], Mapping[str, Tensor]],
        state: Callable[[], Mapping[str, Any]],
        *,
        together: bool = False,
    ) -> None:
        """Do the steps that are left. step: does one, returns a note for the progress line. tensors, state: of a
        checkpoint after the step just done; together: every process must help to make the tensors.

        Only the first process saves. Raises Stopped in all of them once one is asked to end and the checkpoint is
        written.
        """
        everyone, checkpoints = self.processes, self.checkpoints
        with progress(self.what, self.steps, "steps", self.saved) as advance:
            for number in range(self.saved, self.steps):
                note = step(number)
                due = everyone.agree(checkpoints is not None and everyone.first and checkpoints.due())
                if checkpoints and (everyone.stopping() or due):
                    held = tensors() if everyone.first or together else {}
                    if everyone.first:
                        checkpoints.save(number + 1, held, state())
                    self.saved = number + 1
                if checkpoints and everyone.stopping():
                    # a process that ended before the checkpoint is written might take the first with it
                    everyone.wait()
                    raise stop()
                advance(note=note)

    def check(self, what: str, figure: float, step: int) -> None:
        """ValueError for a figure that is not finite, before anything is made of it or saved."""
        if math.isfinite(figure):
            return
        where = f"the last checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint"
        raise ValueError(
            f"{self.what}: expected a finite {what}, found {figure} at step {step} of {self.steps} ({where}); "
            f"{self.advice}."
        )
