"""Run by test_many_train in two processes: trains a toy against attacks together, and is interrupted."""

import sys
from dataclasses import replace
from pathlib import Path

from alignet.attacks.train import adversarial_training
from alignet.backbones import load_encoder
from tests.attacks.test_augmentations import STRONG
from tests.attacks.test_ingredients import MART, SIMCLR_ADVERSARIAL, TRADES, UNMIXED
from tests.attacks.test_train import FREE, L2, LINF, SETTINGS, TOY, labelled
from tests.makers.together import one_of_several

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


def loss_of(result):
    """The first curve of a training that is its loss."""
    return next(
        result.curves[name]
        for name in ("cross_entropy", "boosted_cross_entropy", "nt_xent")
        if name in result.curves
    )


if __name__ == "__main__":
    one_of_several(
        Path(sys.argv[1]), run, VARIANTS, lambda name, result: {f"{name}.loss": loss_of(result)}, "free"
    )
