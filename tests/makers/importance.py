"""Importance maps made of smooth hills."""

import numpy as np

SIDE = 48


def rng(seed=0):
    return np.random.default_rng(seed)


def blob(y, x, sigma, side=SIDE):
    rows, columns = np.mgrid[:side, :side]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))


def hill(side=SIDE):
    """Two joined hills with nothing around them."""
    found = blob(18, 20, 5, side) + 0.6 * blob(27, 30, 6, side)
    return np.where(found > 0.02, found, 0.0)
