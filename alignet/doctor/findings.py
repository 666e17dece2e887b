"""What a check found: one line each, and the summary that decides the exit status."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "fault"]
NOT_GIVEN = "paths_{name}_is_not_given"  # stands where an option of `paths` should be


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
    """How many of each level, in words, and what the faults are about."""
    found = list(findings)
    said = []
    for level in ("fault", "warning", "ok"):
        about = [finding.about for finding in found if finding.level == level]
        named = f" ({', '.join(dict.fromkeys(about))})" if about and level == "fault" else ""
        said.append(f"{len(about)} {level}{'s' if len(about) != 1 and level != 'ok' else ''}{named}")
    return ", ".join(said)


def plain(number: float) -> str:
    """A number with about three digits that count, and no exponent."""
    if number == 0 or abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.{max(0, 2 - math.floor(math.log10(abs(number))))}f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 0.1:
        return f"{plain(1000 * seconds)} ms"
    for limit, unit, word in ((100, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{2 if seconds < 10 else 1}f} {word}"
    return f"{seconds / 86400:,.1f} days"


def size(number: float) -> str:
    """Bytes in MB, GB or TB."""
    if number >= 1e12:
        return f"{number / 1e12:,.1f} TB"
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
