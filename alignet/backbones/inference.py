"""Images into features in passes: some threads read and compute at once, in order, with a bounded number in memory.

    names -> passes of some images -> pixels (this thread, or a reading process) -> features -> Pass, in order

Each thread takes a whole pass: it decodes the images and runs the network on them. On a CPU a pass has one core to
itself, so no core waits for another's part of a product, and decoding fills whatever the network leaves; the features
do not depend on how many threads there are. Used by alignet/stages/embed.py and embedding.py.

Shape suffixes: b images of a pass, p features.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from threading import Semaphore
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignet.runtime.interrupt import ignore

PASS = (
    16  # images of a pass on a CPU: more are no faster, and from 16 on one thread has oneDNN's convolutions
)
_ON_DEVICE = (
    2  # passes that a GPU holds: the next is queued behind the one that computes, so that the GPU never waits
)


class Read(NamedTuple):
    """Images of one pass: ids, pixels (b, ...) or None where none could be read, and (id, reason) of the others."""

    ids: list[str]
    pixels: Tensor | None
    refused: list[tuple[str, str]]


class Pass(NamedTuple):
    """Features (b, p) of one pass or None where no image could be read, their ids, and (id, reason) of the others."""

    ids: list[str]
    features: np.ndarray | None
    refused: list[tuple[str, str]]


def read_pass(names: Sequence[str], prepare: Callable[[str], Tensor]) -> Read:
    """The prepared images of these names; a ValueError of one sets it aside."""
    kept: list[str] = []
    tensors: list[Tensor] = []
    refused: list[tuple[str, str]] = []
    for name in names:
        try:
            tensors.append(prepare(name))
        except ValueError as error:
            refused.append((name, str(error)))
        else:
            kept.append(name)
    return Read(kept, torch.stack(tensors) if tensors else None, refused)


def stream(
    names: Sequence[str],
    prepare: Callable[[str], Tensor],
    compute: Callable[[Tensor], np.ndarray],
    *,
    batch: int,
    threads: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Generator[Pass]:
    """Features of named images, a pass at a time, in the order of `names`.

    prepare: the pixels of one image; ValueError where it cannot be read. compute: features of a stack of them; several
    threads call it. batch: images of a pass; on a CPU at most PASS of them. threads: passes at once, on a CPU each
    on one core. workers: processes that read in place of the threads. Held in memory are the pixels of
    `threads` passes, of 1 + 2 `workers` more with processes, and the activations of `threads` (on a GPU 2) passes.
    """
    there = torch.device(device)
    size = batch if there.type == "cuda" else min(batch, PASS)
    parts = [names[start : start + size] for start in range(0, len(names), size)]
    one = partial(_one, compute=compute, there=there, room=Semaphore(_ON_DEVICE))
    at_once = max(1, min(threads, len(parts)))
    # reading processes are forked before there are threads
    loaded = iter(_loader(parts, prepare, workers)) if workers else None
    with _threads(at_once, there) as pool:
        waiting: deque[Future[Pass]] = deque()
        for part in parts if loaded is None else loaded:
            work = (
                (lambda read=part: one(read))
                if workers
                else (lambda part=part: one(read_pass(part, prepare)))
            )
            waiting.append(pool.submit(work))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _one(read: Read, compute: Callable[[Tensor], np.ndarray], there: torch.device, room: Semaphore) -> Pass:
    if read.pixels is None:
        return Pass(read.ids, None, read.refused)
    if there.type != "cuda":
        return Pass(read.ids, compute(read.pixels), read.refused)
    pinned = read.pixels.pin_memory()  # so that the copy need not be waited for
    with room:
        return Pass(read.ids, compute(pinned), read.refused)


def stored(features: np.ndarray, ids: Sequence[str], precision: str) -> np.ndarray:
    """Features (m, p) in the number format they are kept in: float32 or float16.

    ValueError where one is too large for float16, which would make it infinite.
    """
    with np.errstate(over="ignore"):
        kept = features.astype(precision)
    lost = ~np.isfinite(kept).all(1)
    if lost.any():
        raise ValueError(
            f"embed.precision: expected features that fit into {precision}, found one of "
            f"{np.abs(features[lost]).max():.3g} for {ids[int(lost.argmax())]}; take precision float32"
        )
    return kept


@contextmanager
def _threads(count: int, there: torch.device) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads on the caller's GPU, or each on one core; what is not begun when it is left is given up."""
    before = torch.get_num_threads()
    gpu = torch.cuda.current_device() if there.type == "cuda" else None

    def begin() -> None:
        # of the calling thread, and of threads that begin later. A pass that found several would sum in another order
        torch.set_num_threads(max(1, before // count) if there.type == "cuda" else 1)
        if gpu is not None:
            torch.cuda.set_device(gpu)

    pool = ThreadPoolExecutor(count, initializer=begin)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _loader(parts: Sequence[Sequence[str]], prepare: Callable[[str], Tensor], workers: int) -> Iterable[Any]:
    class Parts(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(parts)

        def __getitem__(self, number: int) -> Read:
            return read_pass(parts[number], prepare)

    # torch asks the global generator for a seed unless it is given one
    return torch.utils.data.DataLoader(
        Parts(), batch_size=None, num_workers=workers, generator=torch.Generator(),
        multiprocessing_context="fork", worker_init_fn=ignore, collate_fn=lambda read: read,
    )  # fmt: skip
