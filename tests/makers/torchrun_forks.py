"""torchrun whose processes are forks of itself: as new ones, but with imported what it has imported.

Imported by the process that runs command lines of the tests (ready.py). With REAL in the environment torchrun starts
new Pythons, as ever.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from typing import Any

from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

REAL = "ALIGNET_TESTS_REAL_TORCHRUN"
_started = SubprocessHandler._popen


class _Fork:
    """`python -u -m module ...` or `python -u file ...` in a fork, with what torchrun asks of subprocess.Popen."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]):
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_run, args=(list(arguments), environment))
        self._process.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("a fork", timeout or 0)
        return status


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    os.setsid()
    os.closerange(3, 4096)  # sockets of torchrun's own
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.disable(logging.NOTSET)
    os.environ.clear()
    os.environ.update(environment)
    assert arguments[:2] == [sys.executable, "-u"], arguments
    by_name = arguments[2] == "-m"
    sys.argv = arguments[3 if by_name else 2 :]
    if by_name:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")


def _forked(self: Any, arguments: tuple[str, ...], environment: dict[str, str]) -> Any:
    if REAL in environment or self._stdout or self._stderr:
        return _started(self, arguments, environment)
    return _Fork(arguments, environment)


SubprocessHandler._popen = _forked
