"""Run by test_many in two processes: harmonizes a toy together, and is interrupted. Writes to its folder."""

import sys
from dataclasses import replace
from pathlib import Path

from alignet.backbones import load_encoder
from alignet.harmonizer.train import Alignment, harmonize
from tests.harmonizer.test_train import SETTINGS, TOY, labelled
from tests.makers.together import one_of_several
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


if __name__ == "__main__":
    one_of_several(
        Path(sys.argv[1]), run, VARIANTS, lambda name, result: {f"{name}.maps": result.curves["maps"]}, "maps"
    )
