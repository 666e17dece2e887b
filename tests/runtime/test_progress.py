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
    assert f"vice: 6/{total:,} steps, 6.0 s each, {left:,.0f} s left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "4.0 images/s"), (1.0, "1.0 images/s"), (27.5, "27.5 s each")]
)
def test_rates_below_one_a_second_are_seconds_of_each(clock, capsys, seconds, said):
    with progress.progress("invert", 40, "images") as advance:
        for _ in range(40):
            clock[0] += seconds
            advance()
    assert f"invert: 40/40 images, {said}, 0 s left" in capsys.readouterr().err
