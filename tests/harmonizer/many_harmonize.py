"""Run by test_many in two processes: harmonizes a toy together, and is interrupted. Writes to its folder."""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignet.backbones import load_encoder
from alignet.harmonizer.train import Alignment, harmonize
from alignet.runtime import distributed, interrupt
from alignet.runtime.checkpoints import Checkpoints
from tests.harmonizer.test_train import SETTINGS, TOY, labelled
from tests.student.test_finetune import changed, images, pool_teacher

VARIANTS = {
    "maps": replace(SETTINGS, batch=10, part=2),
    "more processes than maps": replace(SETTINGS, batch=4, mapped=0.25, mixup=0.0),
    "aligned": replace(SETTINGS, optimizer="adam"),
}


def run(name, **options):
    """Train the toy; the same call everywhere."""
    alignment = Alignment(images(), pool_teacher(), changed(flip=0.5), 0.5) if name == "aligned" else None
    encoder = load_encoder(TOY, seed=0)
    return harmonize(
        encoder, labelled(), labelled(False, count=16, seed=2), VARIANTS[name], alignment=alignment, **options
    )


def weights(result):
    """All numbers of the result's state in one row."""
    return np.concatenate([value.flatten().numpy().astype(float) for value in result.state.values()])


def interrupted(everyone, folder):
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
        run("maps", checkpoints=Checkpoints(folder, 1e9, signals=False), processes=everyone)
    everyone.agree = agree
    interrupt._received.clear()
    return steps, run("maps", checkpoints=Checkpoints(folder, 1e9, signals=False), processes=everyone)


def main():
    """One process of several."""
    folder, everyone, found = Path(sys.argv[1]), distributed.join(), {}
    for name in VARIANTS:
        result = run(name)
        found |= {f"{name}.weights": weights(result), f"{name}.maps": result.curves["maps"]}
    with interrupt.listening():
        steps, resumed = interrupted(everyone, folder / "checkpoints")
    found |= {"steps": np.array(steps), "resumed": weights(resumed)}
    np.savez(folder / f"{everyone.rank}.npz", **found)
    everyone.wait()


if __name__ == "__main__":
    main()
