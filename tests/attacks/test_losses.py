"""TRADES, MART and NT-Xent against loops that are written out, their gradients, and what they do at the edges."""

import math

import numpy as np
import pytest
import torch

from alignet.attacks.losses import boosted_cross_entropy, divergence, nt_xent, weighted_divergence


def logits(seed, scale=2.0, rows=6, classes=4):
    return scale * torch.randn(
        rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


LABELS = torch.tensor([0, 1, 2, 3, 1, 0])


def softmax(row):
    powers = [math.exp(value) for value in row]
    return [one / sum(powers) for one in powers]


def test_divergence_is_the_sum_that_the_paper_prints():
    clean, attacked = logits(0), logits(1)
    for found, one, other in zip(divergence(clean, attacked), clean.tolist(), attacked.tolist(), strict=True):
        p, q = softmax(one), softmax(other)
        assert found == pytest.approx(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), rel=1e-12)
    torch.testing.assert_close(divergence(clean, clean), torch.zeros(6, dtype=torch.float64))
    assert not torch.allclose(divergence(clean, attacked), divergence(attacked, clean))


def test_mart_is_the_sum_that_the_paper_prints():
    clean, attacked = logits(2), logits(3)
    boosted = boosted_cross_entropy(attacked, LABELS)
    weighted = weighted_divergence(clean, attacked, LABELS)
    for row, label in enumerate(LABELS.tolist()):
        p, q = softmax(clean[row].tolist()), softmax(attacked[row].tolist())
        rival = max(value for place, value in enumerate(q) if place != label)
        assert boosted[row] == pytest.approx(-math.log(q[label]) - math.log(1 - rival), rel=1e-12)
        apart = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        assert weighted[row] == pytest.approx(apart * (1 - p[label]), rel=1e-12)


def test_mart_stays_finite_where_the_network_is_sure():
    """In the paper's form 1 - p is 0 there, and its log needs a constant."""
    sure = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    found = boosted_cross_entropy(sure, torch.tensor([0, 0]))
    torch.testing.assert_close(found.detach(), torch.tensor([0.0, 400.0 - math.log(2)]), atol=1e-4, rtol=1e-6)
    found.sum().backward()
    assert sure.grad.isfinite().all()


def by_loops(first, second, temperature):
    """Equation 1 of Chen et al. (2020), view by view, in plain numbers."""
    views = [*first.tolist(), *second.tolist()]
    count, losses, right = len(first), [], []

    def cosine(one, other):
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))

    for row, view in enumerate(views):
        partner = (row + count) % (2 * count)
        others = {place: cosine(view, views[place]) for place in range(2 * count) if place != row}
        total = sum(math.exp(value / temperature) for value in others.values())
        losses.append(-math.log(math.exp(others[partner] / temperature) / total))
        right.append(max(others, key=others.get) == partner)
    return losses, right


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_the_loop_over_all_pairs(temperature):
    first, second = logits(4, rows=5), logits(5, rows=5)
    second = second + first
    losses, right = nt_xent(first, second, temperature)
    expected = by_loops(first, second, temperature)
    np.testing.assert_allclose(losses.numpy(), expected[0], rtol=1e-12)
    assert right.tolist() == expected[1]
    assert 0 < right.double().mean() < 1
    # neither the length of an embedding nor the order of images counts
    torch.testing.assert_close(nt_xent(3 * first, 0.2 * second, temperature)[0], losses)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved, _ = nt_xent(first[order], second[order], temperature)
    torch.testing.assert_close(moved, losses[torch.cat([order, order + 5])])
    # in float32, to rounding
    single, _ = nt_xent(first.float(), second.float(), temperature)
    torch.testing.assert_close(single.double(), losses, rtol=1e-5, atol=1e-5)


def test_nt_xent_in_closed_form():
    """Orthogonal images: equal views e^(1/t) against 2n - 2 zeros. All equal: log(2n - 1), whatever the temperature."""
    eye = torch.eye(4, dtype=torch.float64)
    losses, right = nt_xent(eye, eye, 0.5)
    expected = math.log(1 + 6 * math.exp(-2))
    torch.testing.assert_close(losses, torch.full((8,), expected, dtype=torch.float64))
    assert right.all()
    same = torch.ones(4, 3, dtype=torch.float64)
    torch.testing.assert_close(
        nt_xent(same, same, 0.1)[0], torch.full((8,), math.log(7), dtype=torch.float64)
    )


def test_gradients_in_float64():
    first, second = logits(6).requires_grad_(), logits(7).requires_grad_()
    for loss in (
        divergence,
        lambda a, b: boosted_cross_entropy(b, LABELS),
        lambda a, b: weighted_divergence(a, b, LABELS),
        lambda a, b: nt_xent(a, b, 0.5)[0],
    ):
        assert torch.autograd.gradcheck(loss, (first, second))


def test_the_divergence_has_no_gradient_where_answers_are_equal():
    """Why TRADES starts from noise."""
    clean = logits(8)
    attacked = clean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(clean, attacked).sum(), attacked)
    assert gradient.abs().max() < 1e-14
