"""Progress of long work: a rich bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from alignet.runtime.distributed import current

Advance = Callable[..., None]
_PLAIN_SECONDS = 10.0  # at most one plain line in this many seconds
_SHORT_SECONDS = 3.0  # work that took less gets no plain line at all
_MANY = 100  # units; the first of more says nothing of the time that is left
_lines_only = False


def in_lines() -> None:
    """Report in plain lines from now on: a terminal that several processes share has no place for their bars."""
    global _lines_only
    _lines_only = True


@contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Report progress of `total` units of work, of which `done` were finished in an earlier run.

    Yields advance(count=1, note=""): call it after each piece of work; `note` is shown behind the bar. Of several
    processes only the first reports.
    """
    if not current().first:
        yield lambda count=1, note="": None
    elif sys.stderr.isatty() and not _lines_only:
        with _terminal(what, total, unit, done) as advance:
            yield advance
    else:
        with _plain(what, total, unit, done) as advance:
            yield advance


@contextmanager
def _terminal(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    began, finished = time.monotonic(), done
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="", note="")

        def advance(count: int = 1, note: str = "") -> None:
            nonlocal finished
            finished += count
            rate = (finished - done) / max(time.monotonic() - began, 1e-9)
            bar.update(task, advance=count, rate=_rate(rate, unit), note=note)

        yield advance


@contextmanager
def _plain(what: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    began = said = time.monotonic()
    finished = done

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal finished, said
        first, finished = finished == done, finished + count
        now = time.monotonic()
        if first and total > _MANY * count:  # it may hold what is done once, such as compiling
            return
        if finished < total and now - said < _PLAIN_SECONDS:
            return
        if finished >= total and now - began < _SHORT_SECONDS:
            return
        said = now
        rate = (finished - done) / max(now - began, 1e-9)
        left = (total - finished) / rate if rate > 0 else float("nan")
        line = f"{what}: {finished:,}/{total:,} {unit}, {_rate(rate, unit)}, {left:,.0f} s left"
        print(f"{line}  {note}".rstrip(), file=sys.stderr, flush=True)

    yield advance


def _rate(rate: float, unit: str) -> str:
    """A rate (units a second) in words: below one a second as the seconds of each."""
    return f"{rate:,.1f} {unit}/s" if rate >= 1 or rate <= 0 else f"{1 / rate:,.1f} s each"
