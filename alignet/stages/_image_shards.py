"""Shards of what a network computes of each image of a set: dealt among processes, each there once it is complete.

<what>-NNNNN.npz holds arrays with a row for each image, with `label` (b,) int64 and `box` (b, 4), what the network saw:
left, top, right, bottom, as shares of the image's width and height. ids-NNNNN.txt has a line for each image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from alignet.backbones import Encoder
    from alignet.config import RuntimeSettings

    Arrays = dict[str, np.ndarray]


def write_shards(
    what: str,
    encoder: Encoder,
    ids: Sequence[str],
    labels: np.ndarray,
    read: Callable[[str], Any],
    folder: Path,
    compute: Callable[[torch.Tensor, torch.Tensor], Arrays],
    finish: Callable[[str, Sequence[str], Arrays], Arrays],
    *,
    batch: int,
    shard: int,
    runtime: RuntimeSettings,
    name: str,
    key: str,
) -> list[Path]:
    """Write the shards that are not there yet into `folder`; several processes deal them. Returns all shards' paths.

    labels: (n,) int64, -1 where a class is not known. read: opens an image by its id. compute: images (b, 3, H, W) as
    `Encoder.pixels` gives them and labels (b,) -> arrays with a row for each. finish: key, ids and arrays of a shard ->
    what is written; an error of it ends the stage. name: of the progress. key: what messages call the network.
    """
    from alignet.backbones.gradients import geometry
    from alignet.runtime.distributed import current
    from alignet.runtime.progress import progress

    processes = current()
    geometry(encoder, 1, 1)  # a network that pads images is refused before any of them is blamed
    shards = [range(start, min(start + shard, len(ids))) for start in range(0, len(ids), shard)]
    paths = [folder / f"{what}-{number:05d}.npz" for number in range(len(shards))]
    own = range(processes.rank, len(shards), processes.size)
    done = [number for number in own if paths[number].is_file()]
    counts = [sum(len(shards[number]) for number in numbers) for numbers in (own, done)]
    with progress(f"{what} {name}", counts[0], "images", done=counts[1]) as advance:
        for number in own:
            if number in done:
                continue
            rows = shards[number]
            names = [ids[row] for row in rows]
            known = dict(zip(names, labels[rows.start : rows.stop].tolist(), strict=True))
            found = _computed(encoder, names, known, read, compute, batch, runtime, advance)
            _write(paths[number], folder / f"ids-{number:05d}.txt", names, finish(key, names, found))
    processes.wait()
    return paths


def _computed(
    encoder: Encoder,
    names: Sequence[str],
    labels: dict[str, int],
    read: Callable[[str], Any],
    compute: Callable[[torch.Tensor, torch.Tensor], Arrays],
    batch: int,
    runtime: RuntimeSettings,
    advance: Callable[[int], None],
) -> Arrays:
    """All arrays of a shard's images."""
    from contextlib import closing

    import numpy as np
    import torch

    from alignet.backbones.gradients import geometry
    from alignet.backbones.inference import stream
    from alignet.runtime.interrupt import stop_if_asked

    shape, plain = encoder.data_config["input_size"], torch.float32

    def prepare(name: str) -> torch.Tensor:
        """Bytes of the box, the label and the pixels: what one image came to travels together."""
        image = read(name)
        beside = torch.tensor([*geometry(encoder, *image.size), labels[name]], dtype=torch.float64)
        pixels = encoder.pixels(image).contiguous()
        return torch.cat([beside.view(torch.uint8), pixels.reshape(-1).view(torch.uint8)])

    def computed(packed: torch.Tensor) -> Any:
        beside = packed[:, :40].contiguous().view(torch.float64)
        pixels = packed[:, 40:].contiguous()
        if pixels.shape[1] > shape[0] * shape[1] * shape[2]:
            pixels = pixels.view(plain)
        label = beside[:, 4].long()
        box = beside[:, :4].cpu().numpy()
        return compute(pixels.view(-1, *shape), label) | {"box": box, "label": label.cpu().numpy()}

    parts: list[Any] = []
    passes = stream(
        names, prepare, computed, batch=batch, threads=runtime.threads, workers=runtime.workers, device=runtime.device,
    )  # fmt: skip
    with closing(passes):
        for kept, found, refused in passes:
            stop_if_asked()  # the shard is begun again
            if refused:
                raise ValueError(f"{refused[0][1]} Take it out of the set: its row would be missing.")
            parts.append(found)
            advance(len(kept))
    return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}


def _write(path: Path, listing: Path, ids: Sequence[str], arrays: Arrays) -> None:
    import os

    import numpy as np

    listing.write_text("\n".join(ids) + "\n", encoding="utf-8")
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)
