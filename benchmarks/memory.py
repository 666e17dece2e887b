"""How memory grows with the number of small images that are embedded: it must grow by their ids and places alone.

    python -m benchmarks.memory [--images 100000] [--network NAME]

Writes shards of one 32-pixel PNG under many names, embeds a tenth of them and then all, in one process, and
prints the peak after each (ru_maxrss). Status 1 where the peak grows by more than BYTES for each further image.
--network none: the mean of the colours in place of a network, which is quick.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

BYTES = 2000  # of an image: its id, its place in a shard, and what dictionaries and lists of these take
SLACK = 16e6  # bytes: what the allocator and the interpreter hold beside it


def main() -> None:
    """Measure, print, and end with status 1 where memory grew by more than it may."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--network", default="test_efficientnet", help="a name of timm, or none")
    given = parser.parse_args()
    model = network(given.network)
    few, many = given.images // 10, given.images
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            write_shards(Path(folder) / str(count), count)
        peaks = [embed(model, Path(folder) / str(count), count) for count in (few, many)]
    each = (peaks[1] - peaks[0]) / (many - few)
    allowed = BYTES + SLACK / (many - few)
    print(f"{each:,.0f} bytes of memory for each further image, at most {allowed:,.0f} expected")
    sys.exit(each > allowed)


def network(name: str) -> Any:
    """A model of timm with random weights, or what stands for one."""
    from alignet import api

    if name != "none":
        return api.load(f"timm:{name}", weights="random")
    import torch

    encoder = SimpleNamespace(
        pixels=lambda image: torch.from_numpy(np.array(image)), device=torch.device("cpu"), enough_pixels=0
    )

    def encode(images: Any, compute: str) -> np.ndarray:
        return images.float().mean((1, 2)).numpy()

    return SimpleNamespace(encoder=encoder, width=3, name=name, encode=encode)


def write_shards(folder: Path, count: int) -> None:
    """Shards of at most 10,000 members, all the same picture."""
    from PIL import Image

    folder.mkdir()
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(held, "PNG")
    for start in range(0, count, 10_000):
        with tarfile.open(folder / f"{start // 10_000:04d}.tar", "w") as archive:
            for number in range(start, min(start + 10_000, count)):
                member = tarfile.TarInfo(f"{number:08d}.png")
                member.size = len(held.getvalue())
                archive.addfile(member, io.BytesIO(held.getvalue()))


def embed(model: Any, shards: Path, count: int) -> int:
    """The peak of this process in bytes after embedding a folder of shards as the command line does."""
    from alignet.backbones.embedding import given_images, write_embedding

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures, _ = write_embedding(
            model, given_images(shards), folder=Path(folder), checkpoints=Path(folder) / "checkpoints", format="npy",
            precision="float32", batch=64, shard=1000, unreadable="stop", threads=2, decode="exact", compute="float32",
        )  # fmt: skip
    assert figures["images"] == count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{count:,} images: peak {peak / 1e6:,.0f} MB, {time.monotonic() - began:,.0f} s", flush=True)
    return peak


if __name__ == "__main__":
    main()
