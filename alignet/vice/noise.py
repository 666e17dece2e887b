"""Random numbers of a fit of VICE that depend on the seed, what they are for, and a number alone.

So a resumed fit needs no state of a generator: step 1000 draws the same noise whether or not step 999 came before it.
"""

from __future__ import annotations

import numpy as np
import torch

STREAMS = {"start": 0, "order": 1, "noise": 2, "validation": 3, "halves": 4}


def generator(seed: int, stream: str, index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on these three alone."""
    mixed = np.random.SeedSequence([seed, STREAMS[stream], index]).generate_state(1)[0]
    return torch.Generator(device).manual_seed(int(mixed))


def normal(
    shape: tuple[int, ...], seed: int, stream: str, index: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Standard normal float32 of this shape."""
    return torch.randn(shape, generator=generator(seed, stream, index, device), device=device)


def key(seed: int, stream: str) -> tuple[int, int]:
    """Two 32-bit numbers for a generator that counts, such as `compiled.fill_normal`."""
    first, second = np.random.SeedSequence([seed, STREAMS[stream]]).generate_state(2)
    return int(first), int(second)
