"""How many steps VICE's published settings need on the real choices: held-out cross-entropy by epoch.

    uv run python -m benchmarks.vice_steps FOLDER [--photos FOLDER] [--epochs 30] [--start half_normal] [--pi 0.6]

Batch 128 at Adam's rate 0.001 as published, counted with our engine, whose steps are the published ones (the tests
hold both to Pyro's). FOLDER takes checkpoints: the count goes on where it ended. Prints a line an epoch: steps,
cross-entropy of the held-out choices (test_10) by the mean of 50 posterior draws of the pruned embedding, kept
dimensions. `benchmarks.vice` holds the result as constants. Some minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import math
import os
from pathlib import Path

import numpy as np
import torch

from alignet.config import ViceSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.vice.fit import fit_vice

OBJECTS = 1854
PUBLISHED = ViceSettings(  # conf/experiment/paper.yaml
    dim=100, prior="gaussian", spike=0.25, slab=1.0, pi=0.5, lr=0.001, batch=128, max_epochs=2000, burn_in=500,
    window=500, k=5, alpha=0.05, init_loc=0.1, init_scale=0.05, samples=50, seed=0, start="released",
    window_from="start",
)  # fmt: skip


def choices(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The real choices: (900000, 3) to fit and (100000, 3) held out, int64, odd one last."""
    parts = [np.load(folder / "things_triplets" / f"{name}.npy") for name in ("train_90", "test_10")]
    train, held = (torch.from_numpy(part.astype(np.int64)) for part in parts)
    return train, held


def main() -> None:
    """Count, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path, default=os.environ.get("ALIGNET_PHOTOS"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--start", choices=("released", "half_normal"), default=PUBLISHED.start)
    parser.add_argument("--pi", type=float, default=PUBLISHED.pi, help="weight of the spike")
    parser.add_argument("--every", type=int, default=1, help="epochs between two lines")
    given = parser.parse_args()
    if given.photos is None:
        parser.error("--photos is missing: the folder of real choices (data/README.md)")
    torch.set_num_threads(1)
    train, held = choices(given.photos)
    steps = math.ceil(len(train) / PUBLISHED.batch)
    done = Checkpoints(given.folder).newest() // steps
    for epoch in range(done + 1, given.epochs + 1):
        if epoch % given.every:
            continue
        settings = dataclasses.replace(PUBLISHED, max_epochs=epoch, start=given.start, pi=given.pi)
        with contextlib.redirect_stderr(io.StringIO()):  # it warns that it has not converged
            fit = fit_vice(
                train,
                held,
                objects=OBJECTS,
                settings=settings,
                checkpoints=Checkpoints(given.folder, seconds=1),
            )
        nats = fit.validation["cross_entropy"]
        print(
            f"epoch {epoch}, {epoch * steps:,} steps: {nats:.4f} nats, {len(fit.kept)} dimensions", flush=True
        )


if __name__ == "__main__":
    main()
