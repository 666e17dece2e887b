"""Ending early on a signal: long work looks at a flag between its steps, saves a checkpoint, and stops.

    SIGTERM (kill, SLURM, torchrun), SIGUSR1, SIGUSR2 (sbatch --signal) -> asked() -> Stopped -> exit status 75

The status is sysexits' EX_TEMPFAIL, "try again later": whoever requeues jobs can tell it from a failure. A further
signal changes nothing; kill -9 is safe at any moment. SLURM, `timeout` and a terminal signal all processes of a group:
those that only read images ignore it, and end with the one that they read for.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
STATUS = 75

_received: list[str] = []


class Stopped(Exception):
    """The work ended early because it was asked to; everything that is needed to go on is on the disk."""


def asked() -> bool:
    """Whether a signal has asked this process to end."""
    return bool(_received)


def stop() -> Stopped:
    """The exception to raise once everything is saved."""
    return Stopped(f"stopped by {_received[0] if _received else 'a signal to another process'}")


def stop_if_asked() -> None:
    """Raise Stopped if a signal has asked this process to end: for moments in which nothing is unsaved."""
    if asked():
        raise stop()


def ignore(_: int = 0) -> None:
    """What a DataLoader's worker does first (worker_init_fn): torch lets it die of SIGTERM, and its reader with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def listening() -> Iterator[None]:
    """Note the signals instead of dying from them. Only the main thread may listen."""
    _received.clear()

    def note(number: int, _: object) -> None:
        _received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()
