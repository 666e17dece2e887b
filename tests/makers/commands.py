"""A command line run in this process: its options given once each, and the one message of what it refuses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest


def once(*options: str) -> list[str]:
    """Of options with one key the last, where the first stood."""
    return list({one.partition("=")[0]: one for one in options}.values())


def refused(capsys, main: Callable[[Sequence[str]], None], options: Sequence[str]) -> str:
    """The one message of a command that ends with status 1."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(options)
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 1
    assert said.startswith("error: "), said
    assert "Traceback" not in said
    return said


_KILLED = """
import importlib, os, signal
from alignet.stages import _image_shards
kept, calls = _image_shards._write, []
def write(*given):
    calls.append(given)
    if len(calls) == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    kept(*given)
_image_shards._write = write
importlib.import_module("alignet.stages.{command}").main({argv!r})
"""


def killed(command: str, argv: Sequence[str], calls: int) -> None:
    """Run a command in a process of its own, which is killed where it would write its so many-th shard."""
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED.format(command=command, argv=list(argv), calls=calls)], capture_output=True,
        timeout=120, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


def check_links(folder: Path, html: str) -> None:
    """A page asks nothing of a server, and every table and figure that it names is there."""
    assert not re.search(r"""(src|href)=["'](https?:)?//""", html)
    for link in re.findall(r'href="((?:tables|figures)/[^"]+)"', html):
        assert (folder / link).is_file()
