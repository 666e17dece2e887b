"""Run by test_many_processes in two processes: fine-tunes toys together, and is interrupted. Writes to its folder."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import numpy as np

from alignet.backbones import load_encoder
from alignet.runtime import distributed, interrupt
from alignet.runtime.checkpoints import Checkpoints
from alignet.student.finetune import finetune
from tests.student.test_finetune import TOY, images, originals, pool_teacher, triplet_teacher


def run(settings, **options):
    """Fine-tune the toy; the same call everywhere."""
    encoder = load_encoder(TOY, seed=0)
    teacher = pool_teacher() if settings.sampling == "in_batch" else triplet_teacher()
    original = originals(encoder) if settings.retain else None
    return finetune(encoder, images(), teacher, settings, original=original, **options)


class InterruptedAt(Checkpoints):
    """Signals the last process alone after so many steps, and saves nothing of its own accord."""

    def __init__(self, folder, everyone, step):
        super().__init__(folder, 1e9, signals=False)
        self.everyone, self.step, self.stopped = everyone, step, 0

    def count(self):
        """Called once a step by every process."""
        self.stopped += 1
        if self.stopped == self.step and self.everyone.rank == self.everyone.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)


def interrupted(settings, everyone, folder, **options):
    """Start, be signalled, note the step; then go on with the same processes."""
    checkpoints = InterruptedAt(folder, everyone, step=2)
    agree = everyone.agree

    def counted(due=False):
        checkpoints.count()
        return agree(due)

    everyone.agree = counted
    with contextlib.suppress(interrupt.Stopped):
        run(settings, checkpoints=checkpoints, processes=everyone, **options)
    everyone.agree = agree
    interrupt._received.clear()
    checkpoints_left = Checkpoints(folder)
    return checkpoints.stopped, run(settings, checkpoints=checkpoints_left, processes=everyone, **options)


def main():
    """One process of several."""
    from tests.pipeline.test_many_processes import VARIANTS

    folder = Path(sys.argv[1])
    everyone = distributed.join()
    found = {}
    for name, settings in VARIANTS.items():
        result = run(settings)
        found |= {f"{name}.{curve}": values for curve, values in result.curves.items()}
        found[f"{name}.tau"] = np.array(result.tau_student)
        found[f"{name}.weights"] = np.concatenate([value.flatten() for value in result.state.values()])
    sharded = run(VARIANTS["in_batch"], sharding="fsdp2", recompute=True)
    found |= {f"sharded.{curve}": values for curve, values in sharded.curves.items()}
    found["sharded.weights"] = np.concatenate([value.flatten() for value in sharded.state.values()])
    with interrupt.listening():
        stopped, resumed = interrupted(VARIANTS["in_batch"], everyone, folder / "checkpoints")
    found["stopped"] = np.array(stopped)
    found["resumed"] = np.concatenate([value.flatten() for value in resumed.state.values()])
    with interrupt.listening():
        options = {"sharding": "fsdp2"}
        stopped, resumed = interrupted(VARIANTS["in_batch"], everyone, folder / "sharded", **options)
    found["sharded.stopped"] = np.array(stopped)
    found["sharded.resumed"] = np.concatenate([value.flatten() for value in resumed.state.values()])
    np.savez(folder / f"{everyone.rank}.npz", **found)
    distributed.leave()


if __name__ == "__main__":
    main()
