"""Odd-one-out evaluation at the size of THINGS: 4.7 million triplets about 1,854 objects x 768 features.

    uv run python -m benchmarks.evaluation [triplets]

Ours, with an interval of 1,000 draws over objects, against gathering the three rows of every triplet in blocks, as
published evaluations do, without any interval; in one run, in turn. Features and triplets are random: the time does
not depend on what they are. Prints seconds, the ratio, and the peak of memory.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import torch

from alignet.evaluate.odd_one_out import odd_one_out

OBJECTS, WIDTH, ROUNDS, BLOCK = 1854, 768, 3, 65536


def gathered(features: torch.Tensor, triplets: torch.Tensor) -> float:
    """Accuracy by gathering rows, a block of triplets at a time."""
    right = 0
    for part in triplets.split(BLOCK):
        a, b, c = (features[part[:, column]] for column in range(3))
        sims = torch.stack([(a * b).sum(1), (a * c).sum(1), (b * c).sum(1)], 1)
        right += int((sims.argmax(1) == 0).sum())
    return right / len(triplets)


def main() -> None:
    """Measure, print."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 4_700_000
    generator = np.random.default_rng(0)
    features = generator.normal(size=(OBJECTS, WIDTH)).astype(np.float32)
    first = generator.integers(OBJECTS, size=(number, 1))
    triplets = (first + np.array([[0, 1, 1]]) * generator.integers(1, 600, (number, 1))) % OBJECTS
    triplets[:, 2:] = (triplets[:, 1:2] + generator.integers(1, 600, (number, 1))) % OBJECTS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours, theirs = [], []
    for _ in range(ROUNDS):
        began = time.monotonic()
        scores = odd_one_out(features, triplets, dataset="random", tau="spread", seed=0, bootstrap=1000)
        ours.append(time.monotonic() - began)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        plain = gathered(torch.from_numpy(features), torch.from_numpy(triplets))
        theirs.append(time.monotonic() - began)
    assert abs(scores[0].value - plain) < 1e-5
    threads = torch.get_num_threads()
    print(f"{number:,} triplets, {OBJECTS:,} x {WIDTH}, {threads} threads, median of {ROUNDS} [least, most]")
    for name, times in (("ours, with 1,000 draws", ours), ("rows gathered, no interval", theirs)):
        print(f"{name:28}{np.median(times):7.1f} s  [{min(times):.1f}, {max(times):.1f}]")
    ratio, grown = np.median(theirs) / np.median(ours), (peak - before) / 1024
    whole = number * WIDTH * 4 / 2**20
    print(
        f"ratio {ratio:.1f}; ours took {grown:,.0f} MiB beyond the data, where n x p would be {whole:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
