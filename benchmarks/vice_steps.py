"""How many steps VICE's published settings need on the real choices: held-out cross-entropy by epoch.

    uv run python -m benchmarks.vice_steps FOLDER [--photos FOLDER] [--epochs 250]

Batch 128 at Adam's rate 0.001 as published, counted with our engine, whose steps are the published ones (the tests
hold both to Pyro's). FOLDER takes checkpoints: the count goes on where it ended. Prints, for every epoch that has been
written, steps, held-out cross-entropy of one posterior draw on test_10 (nats), and kept dimensions; at the end the
first epoch within 0.003 nats of the best. `benchmarks.vice` holds the result as constants. Half an hour and more.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
from pathlib import Path

import numpy as np
import torch

from alignet.checkpoints import Checkpoints
from alignet.config import ViceSettings
from alignet.vice.fit import fit_vice
from alignet.vice.pruning import kept_dimensions
from alignet.vice.soft_labels import heldout_metrics

OBJECTS = 1854
PUBLISHED = ViceSettings(  # conf/experiment/paper.yaml
    dim=100, prior="gaussian", spike=0.25, slab=1.0, pi=0.6, lr=0.001, batch=128, max_epochs=1000, burn_in=500,
    window=50, k=5, alpha=0.05, init_loc=0.1, init_scale=0.05, samples=50, seed=0,
)  # fmt: skip
CLOSE = 0.003  # nats: held-out cross-entropies this close count as equal


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
    parser.add_argument("--epochs", type=int, default=250)
    parser.add_argument(
        "--print", action="store_true", dest="only_print", help="of what is there; do not go on"
    )
    given = parser.parse_args()
    checkpoints = Checkpoints(given.folder, seconds=60)
    train, held = choices(Path(given.photos))
    steps = math.ceil(len(train) / PUBLISHED.batch)
    if not given.only_print:
        settings = dataclasses.replace(PUBLISHED, max_epochs=given.epochs)
        fit_vice(train, held, objects=OBJECTS, settings=settings, checkpoints=checkpoints)
    saved = checkpoints.latest()
    if saved is None:
        raise SystemExit(f"nothing was counted yet in {given.folder}")
    curves = saved[2]["curves"]
    for epoch, (nats, kept) in enumerate(zip(curves["val_nll"], curves["kept"]), 1):
        print(f"epoch {epoch}, {epoch * steps:,} steps: {nats:.4f} nats, {kept:.0f} dimensions")
    best = min(curves["val_nll"])
    first = next(epoch for epoch, nats in enumerate(curves["val_nll"], 1) if nats <= best + CLOSE)
    print(f"best {best:.4f}; within {CLOSE} of it after epoch {first}, {first * steps:,} steps")
    loc, scale = saved[1]["loc"], saved[1]["log_scale"].exp()
    kept = kept_dimensions(loc, scale, k=PUBLISHED.k, alpha=PUBLISHED.alpha)
    last = heldout_metrics(loc[:, kept], scale[:, kept], held, samples=PUBLISHED.samples, seed=0)
    print(f"at the last: {len(kept)} dimensions, {last['cross_entropy']:.4f} nats by the mean of 50 draws")


if __name__ == "__main__":
    main()
