"""Run by test_many_train in two processes: trains a toy against attacks together, and is interrupted."""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from alignet.attacks.train import adversarial_training
from alignet.backbones import load_encoder
from alignet.runtime import distributed, interrupt
from alignet.runtime.checkpoints import Checkpoints
from tests.attacks.test_augmentations import STRONG
from tests.attacks.test_ingredients import MART, SIMCLR_ADVERSARIAL, TRADES, UNMIXED
from tests.attacks.test_train import FREE, L2, LINF, SETTINGS, TOY, labelled

VARIANTS = {
    "l2": (L2, replace(SETTINGS, batch=9)),
    "linf": (LINF, replace(SETTINGS, optimizer="adam")),
    "free": (FREE, replace(SETTINGS, batch=9)),
    "trades": (TRADES, replace(SETTINGS, batch=9)),
    "mart": (MART, replace(UNMIXED, batch=9)),
    "simclr": (SIMCLR_ADVERSARIAL, replace(UNMIXED, batch=9)),
}


def run(name, **options):
    """Train the toy; the same call everywhere."""
    role, settings = VARIANTS[name]
    augmentation = STRONG if name == "simclr" else None
    return adversarial_training(
        load_encoder(TOY, seed=0), labelled(), settings, role, augmentation=augmentation, **options
    )


def weights(result):
    """All numbers of the result's state in one row."""
    return np.concatenate([value.flatten().numpy().astype(float) for value in result.state.values()])


def loss_of(result):
    """The first curve of a training that is its loss."""
    return next(
        result.curves[name]
        for name in ("cross_entropy", "boosted_cross_entropy", "nt_xent")
        if name in result.curves
    )


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
        run("free", checkpoints=Checkpoints(folder, 1e9, signals=False), processes=everyone)
    everyone.agree = agree
    interrupt._received.clear()
    return steps, run("free", checkpoints=Checkpoints(folder, 1e9, signals=False), processes=everyone)


def main():
    """One process of several."""
    folder, everyone, found = Path(sys.argv[1]), distributed.join(), {}
    for name in VARIANTS:
        result = run(name)
        found |= {f"{name}.weights": weights(result), f"{name}.loss": loss_of(result)}
    with interrupt.listening():
        steps, resumed = interrupted(everyone, folder / "checkpoints")
    found |= {"steps": np.array(steps), "resumed": weights(resumed)}
    np.savez(folder / f"{everyone.rank}.npz", **found)
    everyone.wait()


if __name__ == "__main__":
    main()
