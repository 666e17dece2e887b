"""Properties that hold of every input: the algebra of triplets.

Hypothesis draws the inputs, always the same ones (derandomize), and shrinks what fails.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from alignet import triplets as algebra
from tests.makers.drawn import choices


@st.composite
def scenes(draw):
    """(features (m, p) float64, triplets (n, 3) int64) as tensors."""
    triplets, m = draw(choices())
    features = draw(hn.arrays(np.float64, (m, draw(st.integers(1, 5))), elements=st.floats(-8, 8)))
    return torch.from_numpy(features), torch.from_numpy(triplets)


SIMS = hn.arrays(np.float64, st.tuples(st.integers(1, 10), st.just(3)), elements=st.floats(-30, 30)).map(
    torch.from_numpy
)
TAUS = st.floats(0.25, 100)


@given(scenes())
def test_similarities_are_the_same_by_gram_matrix_by_gathered_rows_and_by_hand(scene):
    features, triplets = scene
    found = algebra.similarities(features, triplets)
    gathered = algebra.similarities_of(features[triplets].unbind(1))
    by_hand = [
        [float(features[row[a]] @ features[row[b]]) for a, b in algebra.PAIRS] for row in triplets.tolist()
    ]
    torch.testing.assert_close(found, gathered, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    padded = torch.cat([features, features.new_zeros(4097 - len(features), features.shape[1])])
    torch.testing.assert_close(algebra.similarities(padded, triplets), found, rtol=1e-12, atol=1e-12)


@given(scenes())
def test_the_order_within_the_pair_changes_no_similarity_but_its_place(scene):
    features, triplets = scene
    sims, swapped = (algebra.similarities(features, one) for one in (triplets, triplets[:, [1, 0, 2]]))
    torch.testing.assert_close(swapped, sims[:, [0, 2, 1]], rtol=1e-12, atol=1e-12)
    clear = algebra.near_largest(sims.T).sum(0) == 1  # rounding may break a tie of equal images either way
    assert torch.equal(algebra.correct(swapped)[clear], algebra.correct(sims[:, [0, 2, 1]])[clear])
    assert algebra.accuracy(sims) == algebra.correct(sims).double().mean().item()


@given(scenes())
def test_the_odd_one_goes_last_and_every_similarity_stays_with_its_pair(scene):
    features, triplets = scene
    sims = algebra.similarities(features, triplets)
    turned, order = algebra.odd_one_last(triplets, sims)
    torch.testing.assert_close(order, algebra.similarities(features, turned), rtol=1e-12, atol=1e-12)
    assert torch.equal(order[:, 0], sims.max(1).values)
    assert torch.equal(turned.sort(1).values, triplets.sort(1).values)
    again, same = algebra.odd_one_last(turned, order)
    assert torch.equal(again, turned)
    assert torch.equal(same, order)


@given(SIMS, TAUS, st.floats(-20, 20))
def test_probabilities_sum_to_one_keep_their_order_and_ignore_a_constant(sims, tau, shift):
    found = algebra.probabilities(sims, tau)
    torch.testing.assert_close(found.sum(1), torch.ones(len(sims), dtype=torch.float64))
    assert (found >= 0).all()
    torch.testing.assert_close(algebra.probabilities(sims + shift, tau), found, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(algebra.probabilities(2 * sims, 2 * tau), found, rtol=1e-9, atol=1e-12)
    best = found.gather(1, sims.argmax(1, keepdim=True)).squeeze(1)
    assert torch.equal(best, found.max(1).values)


@given(SIMS, TAUS)
def test_entropy_lies_between_certainty_and_chance(sims, tau):
    found = algebra.entropy(algebra.probabilities(sims, tau))
    assert (found >= 0).all()
    assert (found <= math.log(3) + 1e-12).all()
    same = torch.full_like(sims, 0.5)
    torch.testing.assert_close(
        algebra.entropy(algebra.probabilities(same)), torch.full_like(found, math.log(3))
    )
    certain = torch.eye(3, dtype=torch.float64)
    assert torch.equal(algebra.entropy(certain), torch.zeros(3, dtype=torch.float64))


@given(SIMS, st.data())
def test_divergences_are_zero_for_equal_distributions_alone_and_bounded(sims, data):
    other = torch.from_numpy(data.draw(hn.arrays(np.float64, tuple(sims.shape), elements=st.floats(-30, 30))))
    log_p, log_q = (torch.log_softmax(one, -1) for one in (sims, other))
    p, q = log_p.exp(), log_q.exp()
    kl, js = algebra.kl_divergence(p, log_q), algebra.js_divergence(p, log_q)
    far = (p - q).abs().max(1).values
    assert (kl >= far**2 / 2 - 1e-12).all()  # Pinsker: total variation is at least the largest difference
    assert (algebra.kl_divergence(p, log_p).abs() < 1e-12).all()
    assert (algebra.js_divergence(p, log_p).abs() < 1e-12).all()
    torch.testing.assert_close(js, algebra.js_divergence(q, log_p), rtol=1e-9, atol=1e-12)
    assert (js >= -1e-12).all()
    assert (js <= math.log(2) + 1e-12).all()
    assert (js <= kl / 2 + algebra.kl_divergence(q, log_p) / 2 + 1e-12).all()
    cross = -(p * log_q).sum(1)
    torch.testing.assert_close(kl, cross - algebra.entropy(p), rtol=1e-9, atol=1e-9)


@given(SIMS, TAUS, TAUS, st.data())
def test_losses_are_those_of_their_parts_and_their_gradients_sum_to_zero(sims, tau, other_tau, data):
    student = torch.from_numpy(
        data.draw(hn.arrays(np.float64, tuple(sims.shape), elements=st.floats(-30, 30)))
    )
    log_q, p = torch.log_softmax(student / tau, -1), algebra.probabilities(sims, other_tau)
    expected = {
        "kl": algebra.kl_divergence(p, log_q), "jsd": algebra.js_divergence(p, log_q),
        "hard": -log_q.gather(1, sims.argmax(1, keepdim=True)).squeeze(1),
    }  # fmt: skip
    for kind in algebra.LOSSES:
        leaf = student.clone().requires_grad_()
        loss = algebra.triplet_loss(sims, leaf, kind=kind, tau_teacher=other_tau, tau_student=tau)
        torch.testing.assert_close(loss.detach(), expected[kind], rtol=1e-9, atol=1e-12)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        assert gradient.sum(1).abs().max() < 1e-9  # a constant changes nothing
    assert torch.equal(algebra.hard_loss(log_q), -log_q[:, 0])
    with pytest.raises(ValueError, match="expected one of kl, jsd, hard"):
        algebra.triplet_loss(sims, student, kind="cosine", tau_teacher=1, tau_student=1)


@given(st.integers(3, 9))
def test_all_triplets_are_all_of_them_once(m):
    found = algebra.all_triplets(m)
    assert len(found) == math.comb(m, 3)
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    algebra.check_triplets(found.numpy(), m, "all")


@given(choices(), st.data())
def test_restricting_keeps_triplets_whose_objects_have_rows_in_the_new_numbering(drawn, data):
    from alignet.data.triplets import restrict, rows_of_objects

    triplets, m = drawn
    names = [f"o{number}" for number in range(m)]
    there = data.draw(st.lists(st.sampled_from(names), unique=True))
    found = restrict(triplets, rows_of_objects(names, there))
    kept = [row for row in triplets.tolist() if all(names[one] in there for one in row)]
    assert [[there[one] for one in row] for row in found.triplets.tolist()] == [
        [names[one] for one in row] for row in kept
    ]
    assert found.dropped == len(triplets) - len(kept)


@given(st.lists(st.integers(0, 4), min_size=6, max_size=30), st.integers(0, 5), st.integers(1, 25))
def test_sampling_repeats_no_triplet_and_keeps_to_its_clusters(labels, seed, wanted):
    from alignet.teacher.sampling import cluster_boundary, random_triplets

    labels, m = np.array(labels), len(labels)
    _, sizes = np.unique(labels, return_counts=True)
    possible = sum(math.comb(size, 2) * (m - size) for size in sizes.tolist())
    n = min(wanted, possible)
    if n:
        found = cluster_boundary(labels, n, seed)
        assert found.shape == (n, 3)
        assert len({tuple(sorted(row)) for row in found.tolist()}) == n
        first, second, third = labels[found].T
        assert (first == second).all()
        assert (first != third).all()
        assert np.array_equal(found, cluster_boundary(labels, n, seed))
    with pytest.raises(ValueError):
        cluster_boundary(labels, possible + 1, seed)
    n = min(wanted, math.comb(m, 3))
    plain = random_triplets(m, n, seed)
    assert len({tuple(sorted(row)) for row in plain.tolist()}) == n
    assert all(len(set(row)) == 3 for row in plain.tolist())
