"""The processes of one run: who is the first, and the few things that they do together.

    torchrun, accelerate launch, srun -> RANK, WORLD_SIZE, ... -> join() -> current()

The first process (rank 0) runs the program: it reads the configuration, holds the store's lock, writes, prints. The
others wait for a stage that is shared (`follow` in alignet/pipeline/), join in, and wait again, as long as it takes.

Every exchange is a sum over processes of equally shaped tensors: a copy of the first's is the sum with zeros from
the others, and rows that each computed a part of are gathered as the sum of arrays that are zero elsewhere. Adding
zero is exact, so a gathered row has the bits it was computed with.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from alignet.runtime import interrupt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MEET = timedelta(minutes=10)  # for all processes to have started
_STEP = timedelta(hours=2)  # for a sum: longer than the slowest part of one step, checkpoint included
_IDLE = timedelta(
    days=20
)  # for a stage that the first process makes alone; gloo counts milliseconds in 32 bits
_BUCKET = 1 << 25  # numbers that are summed at once: 128 MB of float32
_SAID, _ASKED = "alignet/said", "alignet/asked"


class PeerLost(RuntimeError):
    """Another process of this run has ended; it has said why, or it was killed."""


@dataclass
class Processes:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on this machine
    local_size: int = 1
    _steps: Any = None  # the group of sums: gloo, or nccl once GPUs are used
    _control: Any = None  # the group of messages: gloo, patient
    _store: Any = None
    _stopping: bool = False

    @property
    def first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """The part of `count` rows that is this process's: contiguous, parts differ by at most one row."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over processes, the same bits on each of them."""
        import torch.distributed as dist

        if self.size > 1:
            plain = tensor.contiguous()  # networks keep their kernels with channels last
            with _others_alive():
                dist.all_reduce(plain, group=self._steps if tensor.is_cuda else None)
            if plain is not tensor:
                tensor.copy_(plain)
        return tensor

    def gather(self, own: Tensor, count: int) -> Tensor:
        """All `count` rows (count, p), of which `own` are those of `share(count)`. No gradient flows."""
        if self.size == 1:
            return own.detach()
        rows = own.new_zeros((count, *own.shape[1:]))
        rows[self.share(count)] = own.detach()
        return self.sum(rows)

    def copy(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by the first process's."""
        return self.sum(tensor if self.first else tensor.zero_())

    def sum_flat(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over processes, many of them in one exchange."""
        if self.size == 1:
            return
        import torch

        for bucket in _buckets(tensors):
            flat = self.sum(torch.cat([tensor.reshape(-1) for tensor in bucket]))
            for tensor, part in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def agree(self, due: bool = False) -> bool:
        """Let all processes know whether any was asked to end; every process must call this at the same step.

        Returns the first one's `due`, for all.
        """
        self._stopping = interrupt.asked()
        if self.size > 1:
            import torch

            said = self.sum(torch.tensor([float(self._stopping), float(due and self.first)])).tolist()
            self._stopping, due = bool(said[0]), bool(said[1])
        return due

    def stopping(self) -> bool:
        """What was agreed last."""
        return self._stopping

    def wait(self) -> None:
        """Return when every process has come here, however long that takes."""
        import torch.distributed as dist

        if self.size > 1:
            with _others_alive():
                dist.barrier(group=self._control)

    def tell(self, message: str) -> None:
        """First process: send a text to all others, which `hear` it."""
        if self.size > 1:
            import torch

            text = torch.frombuffer(bytearray(message.encode() or b" "), dtype=torch.uint8)
            self._broadcast(torch.tensor([len(text)]))
            self._broadcast(text)

    def hear(self) -> str:
        """Other processes: wait for the first one's next text, however long that takes; without outer spaces."""
        import torch

        length = torch.zeros(1, dtype=torch.int64)
        self._broadcast(length)
        text = torch.zeros(int(length.item()), dtype=torch.uint8)
        self._broadcast(text)
        return bytes(text.tolist()).decode().strip()

    def _broadcast(self, tensor: Tensor) -> None:
        import torch.distributed as dist

        with _others_alive():
            dist.broadcast(tensor, src=0, group=self._control)

    def use(self, device: str) -> None:
        """Sum on the GPUs' own network from now on, where the work is on GPUs; all processes call this together."""
        import torch.distributed as dist

        if self.size > 1 and device == "cuda" and self._steps is None:
            self._steps = dist.new_group(backend="nccl", timeout=_STEP)

    def group(self, device: str) -> Any:
        """The torch.distributed group in which tensors of a device are summed; None for the default one."""
        return self._steps if device == "cuda" else None

    def note_asked(self) -> None:
        """Let the others know that this process ends because it was asked to, and not of a failure."""
        if self._store is not None:
            with suppress(RuntimeError):  # the store has ended, with whoever would have asked
                self._store.add(_ASKED, 1)

    def was_asked(self) -> bool:
        """Whether this process, or another that has said so, was asked to end."""
        if interrupt.asked() or self._store is None:
            return interrupt.asked()
        try:
            return self._store.add(_ASKED, 0) > 0
        except RuntimeError:
            return False

    def may_speak(self, lost: bool) -> bool:
        """Whether this process is the one to say why the run ends: only the first that asks is.

        lost: it only knows that another has ended, so the other goes first.
        """
        if self._store is None:
            return self.size == 1
        try:
            until = time.monotonic() + (3 if lost else 0)
            while time.monotonic() < until and not self._store.add(_SAID, 0):
                time.sleep(0.1)
            return self._store.add(_SAID, 1) == 1
        except RuntimeError:  # the store has ended, with the first process or with torchrun
            return self.first or not lost


_current = Processes()


def current() -> Processes:
    """The processes of this run; one, unless `join` has found more."""
    return _current


def launched() -> bool:
    """Whether a launcher started this process, as one of several or as the only one."""
    return "WORLD_SIZE" in os.environ


def join() -> Processes:
    """Meet the other processes of this run, if it was started with several."""
    global _current
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _current.size > 1:
        return _current
    import torch.distributed as dist
    from accelerate import PartialState

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # accelerate chooses a number of threads, and says so; runtime.threads is ours
        store, rank, size = next(dist.rendezvous("env://", timeout=_MEET))
        state = PartialState(cpu=True, backend="gloo", store=store, timeout=_STEP)
    _current = Processes(
        rank, size, state.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        _control=dist.new_group(backend="gloo", timeout=_IDLE), _store=store,
    )  # fmt: skip
    if rank:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        warnings.simplefilter("ignore")
    return _current


def leave() -> None:
    """Part from the other processes at the end of a run that went well."""
    global _current
    if _current.size > 1:
        import torch.distributed as dist

        _current.wait()
        dist.destroy_process_group()
        _current = Processes()


@contextmanager
def _others_alive() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLost((str(error).splitlines() or [""])[0]) from error


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    held: list[torch.Tensor] = []
    for tensor in tensors:
        if held and sum(one.numel() for one in held) + tensor.numel() > _BUCKET:
            yield held
            held = []
        held.append(tensor)
    if held:
        yield held
