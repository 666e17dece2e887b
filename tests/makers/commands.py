"""A command line run in this process: its options given once each, and the one message of what it refuses."""

from __future__ import annotations

import importlib
import os
import re
import signal
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

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


def killed(command: str, argv: Sequence[str], calls: int) -> None:
    """Run a command in a fork of this process, which is killed where it would write its so many-th shard."""
    child = os.fork()
    if child == 0:
        _run_until_killed(command, argv, calls)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == -signal.SIGKILL, f"{command} ended with status {status}"


def _run_until_killed(command: str, argv: Sequence[str], calls: int) -> NoReturn:
    try:
        from alignet.stages import _image_shards

        kept, written = _image_shards._write, []

        def write(*given: object) -> None:
            written.append(given)
            if len(written) == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            kept(*given)

        _image_shards._write = write
        signal.alarm(120)
        importlib.import_module(f"alignet.stages.{command}").main(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)  # it was to be killed


def check_links(folder: Path, html: str) -> None:
    """A page asks nothing of a server, and every table and figure that it names is there."""
    assert not re.search(r"""(src|href)=["'](https?:)?//""", html)
    for link in re.findall(r'href="((?:tables|figures)/[^"]+)"', html):
        assert (folder / link).is_file()
