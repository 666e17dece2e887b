"""A Python that has imported what takes long, and runs each command line in a fork: as a new process, but sooner."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_LOOP = """
import importlib, json, os, runpy, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
    os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
sys.argv = [asked["module"], *asked["arguments"]]
os.environ.update(asked["environment"])
if asked["program"]:
    exec(compile(asked["program"], "<string>", "exec"), {"__name__": "__main__"})
else:
    runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
"""


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

    def run(
        self, module: str = "", *arguments: str, program: str = "", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What `python -m module arguments` gives, or `python -c program`, with more variables in its environment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        out, err = (self.folder / f"{kind}_{self._count}.txt" for kind in ("out", "err"))
        asked = {
            "module": module,
            "arguments": arguments,
            "program": program,
            "environment": environment or {},
            "out": str(out),
            "err": str(err),
        }
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        return subprocess.CompletedProcess([module, *arguments], status, out.read_text(), err.read_text())
