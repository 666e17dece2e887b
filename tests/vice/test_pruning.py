"""Pruning of a VICE posterior against scipy and by hand."""

import numpy as np
import torch
from scipy.stats import false_discovery_control, norm

from alignet.vice.pruning import benjamini_hochberg, kept_dimensions, p_values


def test_p_value_is_the_posterior_mass_at_or_below_zero():
    loc, scale = (
        torch.tensor([[-1.0, 0.0, 0.5], [3.0, 30.0, -40.0]]),
        torch.tensor([[1.0, 2.0, 0.25]]).expand(2, 3),
    )
    expected = norm.cdf(0, loc.double().numpy(), scale.double().numpy())
    np.testing.assert_allclose(p_values(loc, scale).numpy(), expected, rtol=1e-9)


def test_benjamini_hochberg_is_scipys():
    generator = np.random.default_rng(0)
    p = generator.uniform(size=(50, 40)) ** generator.integers(1, 6, size=40)
    for alpha in (0.01, 0.05, 0.3):
        expected = false_discovery_control(p, axis=0) <= alpha
        found = benjamini_hochberg(torch.from_numpy(p), alpha).numpy()
        assert expected.any()
        assert not expected.all()
        np.testing.assert_array_equal(found, expected)


def test_benjamini_hochberg_by_hand():
    # ranks 1..4 have thresholds .0125 .025 .0375 .05: rank 3 passes and carries rank 2 with it
    p = torch.tensor([[0.036], [0.2], [0.01], [0.03]], dtype=torch.float64)
    assert benjamini_hochberg(p, 0.05).flatten().tolist() == [True, False, True, True]


def test_degenerate_p_values():
    assert not benjamini_hochberg(torch.ones(5, 2), 0.05).any()
    assert benjamini_hochberg(torch.zeros(5, 2), 0.05).all()
    assert benjamini_hochberg(torch.full((3, 1), 0.05, dtype=torch.float64), 0.05).all()  # ties at the edge
    assert benjamini_hochberg(torch.tensor([[0.04]]), 0.05).all()


def posterior(counts, heights):
    """A dimension for each count: that many of 20 objects clearly at `height`, the others at zero."""
    loc = torch.zeros(20, len(counts))
    for dimension, (count, height) in enumerate(zip(counts, heights)):
        loc[:count, dimension] = height
    return loc, torch.full_like(loc, 0.1)


def test_a_dimension_needs_more_than_k_objects():
    loc, scale = posterior([5, 6, 0, 20], [2.0, 2.0, 2.0, 2.0])
    assert kept_dimensions(loc, scale, k=5, alpha=0.05).tolist() == [3, 1]
    assert kept_dimensions(loc, scale, k=4, alpha=0.05).tolist() == [3, 1, 0]
    assert kept_dimensions(loc, scale, k=0, alpha=0.05).tolist() == [3, 1, 0]


def test_sorted_by_l1_norm_and_stable():
    loc, scale = posterior([10, 8, 12, 8], [1.0, 3.0, 1.0, 3.0])
    assert kept_dimensions(loc, scale, k=5, alpha=0.05).tolist() == [1, 3, 2, 0]


def test_weight_below_zero_keeps_nothing():
    loc, scale = posterior([20, 20], [-5.0, 0.0])
    assert kept_dimensions(loc, scale, k=0, alpha=0.05).tolist() == []
