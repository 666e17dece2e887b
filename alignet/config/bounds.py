"""Bounds of configured numbers: a wrong one is one message with its key. For every section's file."""

from __future__ import annotations

import math


def at_least(where: str, low: float, **values: float) -> None:
    """ValueError for a value below `low`, naming the key below `where`."""
    for name, value in values.items():
        if value < low:
            raise ValueError(f"{where}.{name}: expected at least {low}, found {value}")


def positive(where: str, **values: float) -> None:
    """ValueError for a value that is not above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{where}.{name}: expected a positive number, found {value}")


def finite(where: str, **values: float) -> None:
    """ValueError for a value that is infinite or NaN."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{where}.{name}: expected a finite number, found {value}")


def between(where: str, low: float, high: float, **values: float) -> None:
    """ValueError for a value that is not inside (low, high)."""
    for name, value in values.items():
        if not low < value < high:
            raise ValueError(f"{where}.{name}: expected a number inside ({low}, {high}), found {value}")
