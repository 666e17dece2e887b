"""Plain lines of progress: rate and time left, and none of what the first of many units took."""

import pytest

from alignet.runtime import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves on by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_lines_only", True)
    return now


@pytest.mark.parametrize(("total", "told"), [(12_000, False), (12, True)])
def test_the_first_of_many_units_foretells_nothing(clock, capsys, total, told):
    with progress.progress("vice", total, "steps") as advance:
        clock[0] += 16.0  # compiling
        advance()
        first = capsys.readouterr().err
        clock[0] += 20.0
        advance(5)
    assert bool(first) == told
    left = (total - 6) * 36.0 / 6
    assert f"vice: 6/{total:,} steps, 0.2 steps/s, {left:,.0f} s left" in capsys.readouterr().err
