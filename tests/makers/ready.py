"""A Python that has imported what takes long, and runs each command line in a fork: as a new process, but sooner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_LOOP = """
import importlib, json, os, runpy, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    asked = json.loads(line)
    waiting = os.fork()
    if waiting:
        os.waitpid(waiting, 0)
        continue
    if os.fork():
        os._exit(0)
    child = os.fork()
    if child == 0:
        break
    os.write(1, b"%d\\n" % child)
    os.close(0), os.close(1)
    with open(asked["status"] + ".tmp", "w") as written:
        written.write(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    os.rename(asked["status"] + ".tmp", asked["status"])
    os._exit(0)
else:
    sys.exit()
for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
if asked["own_session"]:
    os.setsid()
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["environment"])
sys.argv = [asked["module"] or asked["file"] or "-c", *asked["arguments"]]
if asked["program"]:
    exec(compile(asked["program"], "<string>", "exec"), {"__name__": "__main__"})
elif asked["file"]:
    runpy.run_path(asked["file"], run_name="__main__")
else:
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
"""


class Started:
    """A command that runs, with the part of subprocess.Popen's interface that tests use."""

    def __init__(self, pid: int, out: Path, err: Path, status: Path):
        self.pid, self._out, self._err, self._status = pid, out, err, status

    @property
    def returncode(self) -> int | None:
        return int(self._status.read_text()) if self._status.exists() else None

    poll = returncode.fget

    def wait(self, timeout: float = 600) -> int:
        end = time.monotonic() + timeout
        while (status := self.returncode) is None:
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f"still running after {timeout} s: {self._err.read_text()}")
            time.sleep(0.005)
        return status

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """All of stdout and stderr, when it has ended."""
        self.wait(timeout)
        return self._out.read_text(), self._err.read_text()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Ready:
    """A process with `modules` imported; close it, or use it in a `with`."""

    def __init__(self, folder: Path, modules: list[str]):
        self.folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LOOP, *modules], env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
            text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __enter__(self) -> Ready:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.communicate()

    def start(
        self, module: str = "", *arguments: str, program: str = "", file: str = "",
        environment: Mapping[str, str] | None = None, folder: Path | None = None, own_session: bool = False,
    ) -> Started:  # fmt: skip
        """`python -m module arguments`, `python -c program` or `python file`, with more in its environment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        out, err, status = (self.folder / f"{kind}_{self._count}.txt" for kind in ("out", "err", "status"))
        status.unlink(missing_ok=True)  # of another that worked in this folder
        asked = {
            "module": module,
            "arguments": arguments,
            "program": program,
            "file": file,
            "environment": os.environ | {"PYTHONPATH": str(CHECKOUT)} | dict(environment or {}),
            "folder": str(folder or Path.cwd()),
            "own_session": own_session,
            "out": str(out),
            "err": str(err),
            "status": str(status),
        }
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return Started(int(self._process.stdout.readline()), out, err, status)

    def run(
        self, module: str = "", *arguments: str, program: str = "", environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """What such a command gives when it has ended."""
        started = self.start(module, *arguments, program=program, environment=environment, folder=folder)
        status = started.wait()
        return subprocess.CompletedProcess([module, *arguments], status, *started.communicate())
