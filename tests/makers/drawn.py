"""What the tests of properties draw: Hypothesis's profile, always the same inputs, and triplets of a few objects."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

settings.register_profile(
    "alignet", deadline=None, derandomize=True, max_examples=40, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("alignet")


@st.composite
def choices(draw, most=12):
    """(triplets (n, 3) of different objects, m)."""
    m = draw(st.integers(3, most))
    row = st.lists(st.integers(0, m - 1), min_size=3, max_size=3, unique=True)
    return np.array(draw(st.lists(row, min_size=1, max_size=20)), dtype=np.int64), m
