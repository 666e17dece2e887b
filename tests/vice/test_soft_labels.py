"""Soft labels against brute force and closed forms."""

import math

import numpy as np
import pytest
import torch

from alignet.vice import soft_labels as module
from alignet.vice.soft_labels import heldout_metrics, soft_labels

TRIPLETS = torch.tensor([[0, 1, 2], [3, 1, 4], [4, 0, 3], [2, 1, 0]])


def posterior(m=5, d=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(m, d, generator=generator), 0.1 + torch.rand(m, d, generator=generator)


def test_against_brute_force():
    """The same draws, one triplet and one sample at a time, in float64."""
    loc, scale = posterior()
    generator = torch.Generator().manual_seed(9)
    expected = np.zeros((4, 3))
    for _ in range(7):
        noise = torch.randn(5, 3, generator=generator)
        y = np.maximum(0, (loc + scale * noise).double().numpy())
        for row, (i, j, k) in enumerate(TRIPLETS.tolist()):
            weights = np.exp([y[i] @ y[j], y[i] @ y[k], y[j] @ y[k]])
            expected[row] += weights / weights.sum() / 7
    found = soft_labels(loc, scale, TRIPLETS, samples=7, seed=9)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(1).numpy(), 1, atol=1e-6)


def test_many_triplets_by_lookup_and_by_rows(monkeypatch):
    """More triplets than a block holds; the same draws through autograd's functions."""
    loc, scale = posterior(40, 6)
    triplets = torch.rand(3000, 40, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :3]
    fast = soft_labels(8 * loc, scale, triplets, samples=4, seed=2)
    monkeypatch.setattr(module, "_MOST_ROWS", 0)
    torch.testing.assert_close(
        fast, soft_labels(8 * loc, scale, triplets, samples=4, seed=2), atol=1e-6, rtol=0
    )


def test_without_spread_it_is_the_softmax_of_the_mean():
    loc = torch.tensor([[1.0, 0], [2.0, -7], [0, 3.0]])  # the negative weight counts as none
    found = soft_labels(loc, torch.full_like(loc, 1e-9), TRIPLETS[:1], samples=3, seed=0)
    expected = torch.softmax(torch.tensor([2.0, 0, 0]), 0)
    torch.testing.assert_close(found[0], expected)


def test_uncertainty_softens_the_answer():
    loc = torch.tensor([[2.0], [2.0], [-1.0]])
    sharp, soft = (
        soft_labels(loc, torch.full_like(loc, s), TRIPLETS[:1], samples=400, seed=0)[0] for s in (0.01, 2.0)
    )
    assert sharp[0] > 0.95
    assert soft[0] < 0.8


def test_seed_decides():
    loc, scale = posterior()
    one, same, other = (soft_labels(loc, scale, TRIPLETS, samples=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_order_of_the_columns_follows_the_triplet():
    loc, scale = posterior()
    found = soft_labels(loc, scale, TRIPLETS[[0, 3]], samples=5, seed=0)
    torch.testing.assert_close(found[0].flip(0), found[1])  # (2, 1, 0) has pairs s21, s20, s10


def test_heldout_metrics_by_hand():
    loc = torch.tensor([[1.0, 0], [2.0, 0], [0, 3.0]])
    metrics = heldout_metrics(
        loc, torch.full_like(loc, 1e-9), torch.tensor([[0, 1, 2], [0, 2, 1]]), samples=2, seed=0
    )
    total = math.exp(2) + 2
    assert metrics["accuracy"] == 0.5
    assert metrics["cross_entropy"] == pytest.approx((-math.log(math.exp(2) / total) + math.log(total)) / 2)
    assert metrics["n"] == 2


def test_ties_are_never_correct():
    loc = torch.ones(3, 1)
    metrics = heldout_metrics(loc, torch.full_like(loc, 1e-9), TRIPLETS[:1], samples=2, seed=0)
    assert metrics["accuracy"] == 0
    assert metrics["cross_entropy"] == pytest.approx(math.log(3))
    nothing_kept = heldout_metrics(torch.ones(3, 0), torch.ones(3, 0), TRIPLETS[:1], samples=2, seed=0)
    assert nothing_kept["accuracy"] == 0
    assert nothing_kept["cross_entropy"] == pytest.approx(math.log(3))


@pytest.mark.parametrize(
    ("loc", "scale", "message"),
    [
        (torch.zeros(3, 0), torch.ones(3, 0), "at least one dimension"),
        (torch.zeros(3, 2), torch.ones(3, 1), "one shape"),
        (torch.full((3, 2), math.nan), torch.ones(3, 2), "finite"),
        (torch.zeros(3, 2), -torch.ones(3, 2), "at least 0"),
    ],
)
def test_posteriors_that_make_no_sense(loc, scale, message):
    with pytest.raises(ValueError, match=message):
        soft_labels(loc, scale, TRIPLETS[:1], samples=2, seed=0)


@pytest.mark.parametrize("row", [[0, 1, 5], [-1, 1, 2], [0, 1, 10**9], [1, 1, 2]])
def test_triplets_of_other_objects(row):
    loc, scale = posterior()
    with pytest.raises(ValueError, match="soft labels: expected"):
        soft_labels(loc, scale, torch.tensor([[0, 1, 2], row]), samples=1, seed=0)


@pytest.mark.parametrize("most_rows", [0, 4096])
def test_a_choice_costs_at_most_87_nats(monkeypatch, most_rows):
    """By rows and by lookup: e^-300 is 0 in float32, and its logarithm would be infinite."""
    monkeypatch.setattr(module, "_MOST_ROWS", most_rows)
    for gap, expected in ((300.0, 87), (60.0, 60)):
        loc = torch.tensor([[gap**0.5, 0], [0, 1.0], [gap**0.5, 0]])
        found = heldout_metrics(loc, torch.full_like(loc, 1e-9), TRIPLETS[:1], samples=2, seed=0)
        assert found["cross_entropy"] == pytest.approx(expected, rel=1e-5)


def test_needs_a_sample():
    with pytest.raises(ValueError, match="at least 1 posterior sample"):
        soft_labels(torch.ones(3, 1), torch.ones(3, 1), TRIPLETS[:1], samples=0, seed=0)
