"""What the programs that several processes run share: a signal to one of them, and results as numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from alignet.runtime import distributed, interrupt
from alignet.runtime.checkpoints import Checkpoints
from tests.pipeline.test_many_processes import finish, ranks_of_two


def weights(result) -> np.ndarray:
    """All numbers of the result's state in one row."""
    return np.concatenate([value.flatten().numpy().astype(float) for value in result.state.values()])


def interrupted(everyone, run: Callable[..., Any], name: str, folder: Path) -> tuple[int, Any]:
    """Be signalled in the second step, in the last process alone; then go on. Returns the steps that were done."""
    agree, steps = everyone.agree, 0

    def counted(due=False):
        nonlocal steps
        steps += 1
        if steps == 2 and everyone.rank == everyone.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return agree(due)

    everyone.agree = counted
    with suppress(interrupt.Stopped):
        run(name, checkpoints=Checkpoints(folder, 1e9, signals=False), processes=everyone)
    everyone.agree = agree
    interrupt._received.clear()
    return steps, run(name, checkpoints=Checkpoints(folder, 1e9, signals=False), processes=everyone)


def one_of_several(
    folder: Path, run: Callable[..., Any], names, figures: Callable[[str, Any], dict], stopped: str
) -> None:
    """One process: every variant, then the one that is interrupted; writes <rank>.npz."""
    everyone, found = distributed.join(), {}
    for name in names:
        result = run(name)
        found |= {f"{name}.weights": weights(result)} | figures(name, result)
    with interrupt.listening():
        steps, resumed = interrupted(everyone, run, stopped, folder / "checkpoints")
    found |= {"steps": np.array(steps), "resumed": weights(resumed)}
    np.savez(folder / f"{everyone.rank}.npz", **found)
    everyone.wait()


def by_two(ready, program: str, folder: Path, stopped: str) -> dict[str, np.ndarray]:
    """What two processes found: equal in both, and after the signal as without it."""
    ranks = [ready.start(program, str(folder), environment=environment) for environment in ranks_of_two()]
    for status, _, err in map(finish, ranks):
        assert status == 0, err
    first, second = (dict(np.load(folder / f"{rank}.npz")) for rank in (0, 1))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)  # replicas never drift apart
    assert first["steps"] == 2  # one process alone was signalled; both saw it in that step,
    np.testing.assert_array_equal(
        first["resumed"], first[f"{stopped}.weights"]
    )  # and went on to the same bytes
    return first
