"""What a check found: one line each, and the summary that decides the exit status."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line: how bad, what it is about, what was found, and what to do ('' if nothing)."""

    level: Level
    about: str
    found: str
    fix: str = ""

    def line(self, width: int) -> str:
        """As it is printed; `width` aligns the second column."""
        text = f"{self.level:7}  {self.about:{width}}  {one_line(self.found)}"
        return f"{text.rstrip('. ')}. {one_line(self.fix)}" if self.fix else text


def ok(about: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", about, found)


def warning(about: str, found: str, fix: str = "") -> Finding:
    """It will run, and perhaps not do what is meant."""
    return Finding("warning", about, found, fix)


def fault(about: str, found: str, fix: str = "") -> Finding:
    """It will stop, or give results that mean nothing."""
    return Finding("fault", about, found, fix)


def one_line(text: str) -> str:
    """Text of several lines as one."""
    return " ".join(text.split())


def collect(checks: Iterable[tuple[str, Callable[[], Iterator[Finding]]]]) -> Iterator[Finding]:
    """The findings of each check, one after the other; an error ends its own check alone, as a fault.

    With ALIGNET_TRACEBACK set it is raised instead, for who works on the checks themselves.
    """
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            if os.environ.get("ALIGNET_TRACEBACK"):
                raise
            known = isinstance(error, (ValueError, OSError, RuntimeError))
            kind = "" if known else f"{type(error).__name__}: "
            yield fault(name, f"{kind}{error}" if str(error) else type(error).__name__)


def summary(findings: Iterable[Finding]) -> str:
    """How many of each level, in words."""
    levels = [finding.level for finding in findings]
    counts = [(levels.count(level), level) for level in ("fault", "warning", "ok")]
    return ", ".join(
        f"{count} {level}{'s' if count != 1 and level != 'ok' else ''}" for count, level in counts
    )
