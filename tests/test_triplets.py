"""The triplet convention against closed forms and brute force on five items, and where it degenerates."""

import math
from itertools import combinations, permutations

import numpy as np
import pytest
import torch

import alignet
import alignet.triplets as t
from alignet.evaluate.odd_one_out import odd_one_out

FIVE = torch.tensor([[1.0, 2, 0], [0, 1, -1], [2, -1, 1], [0.5, 0, 3], [-1, 1, 1]], dtype=torch.float64)
ALL = t.all_triplets(5)


def test_all_triplets():
    assert ALL.tolist() == [list(c) for c in combinations(range(5), 3)]
    assert ALL.dtype == torch.int64
    assert len(t.all_triplets(2)) == 0
    assert len(t.all_triplets(48)) == 48 * 47 * 46 // 6


def test_similarities_by_hand_and_by_loop():
    expected = [
        [float(FIVE[i] @ FIVE[j]), float(FIVE[i] @ FIVE[k]), float(FIVE[j] @ FIVE[k])] for i, j, k in ALL
    ]
    assert t.similarities(FIVE, ALL).tolist() == expected
    assert expected[0] == [2, 0, -2]  # items 0, 1, 2
    assert t.similarities_of(FIVE[ALL].unbind(1)).tolist() == expected


def test_many_objects_take_the_other_way():
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(5000, 3)))
    triplets = torch.from_numpy(np.random.default_rng(1).integers(0, 5000, (70_000, 3)))
    small = t.similarities_of(features[triplets].unbind(1))
    torch.testing.assert_close(t.similarities(features, triplets), small)
    assert t.similarities(features, triplets[:0]).shape == (0, 3)
    assert t.similarities(FIVE, ALL[:0]).shape == (0, 3)


def test_rotation_changes_nothing_and_scale_is_temperature():
    rotation = torch.linalg.qr(torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3))))[0]
    sims = t.similarities(FIVE, ALL)
    torch.testing.assert_close(t.similarities(FIVE @ rotation, ALL), sims)
    torch.testing.assert_close(
        t.probabilities(t.similarities(3 * FIVE, ALL), 9.0), t.probabilities(sims, 1.0)
    )


def test_permuting_a_triplet_permutes_its_similarities():
    sims = t.similarities(FIVE, torch.tensor([[0, 3, 4]]))[0]
    for order in permutations(range(3)):
        moved = t.similarities(FIVE, torch.tensor([[[0, 3, 4][place] for place in order]]))[0]
        for new, (a, b) in enumerate(t.PAIRS):
            old = t.PAIRS.index(tuple(sorted((order[a], order[b]))))
            assert moved[new] == sims[old]


def test_probabilities_and_entropy_in_closed_form():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    torch.testing.assert_close(t.probabilities(p.log() + 7), p)
    torch.testing.assert_close(t.probabilities(4 * p.log(), 4.0), p)
    assert float(t.entropy(p)) == pytest.approx(-sum(x * math.log(x) for x in p.tolist()))
    assert float(t.entropy(torch.ones(3) / 3)) == pytest.approx(math.log(3))
    assert float(t.entropy(torch.tensor([1.0, 0, 0]))) == 0
    huge = t.probabilities(torch.tensor([1e30, 0.0, -1e30]))
    assert huge.tolist() == [1, 0, 0]


P, Q = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def kl(p, q):
    return sum(x * math.log(x / y) for x, y in zip(p, q) if x > 0)


def test_divergences_by_hand():
    assert float(t.kl_divergence(P, Q.log())) == pytest.approx(kl(P.tolist(), Q.tolist()))
    assert float(t.kl_divergence(P, P.log())) == pytest.approx(0, abs=1e-12)
    certain = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    assert float(t.kl_divergence(certain, Q.log())) == pytest.approx(-math.log(0.2))
    middle = [(x + y) / 2 for x, y in zip(P.tolist(), Q.tolist())]
    expected = (kl(P.tolist(), middle) + kl(Q.tolist(), middle)) / 2
    assert float(t.js_divergence(P, Q.log())) == pytest.approx(expected)
    assert float(t.js_divergence(Q, P.log())) == pytest.approx(expected)
    other = torch.tensor([-1e4, 0, -1e4], dtype=torch.float64)  # log q of the opposite certainty
    assert float(t.js_divergence(certain, other)) == pytest.approx(math.log(2))


def test_losses_at_their_temperatures():
    teacher, student = P.log() * 3, Q.log() * 50
    settings = {"tau_teacher": 3.0, "tau_student": 50.0}
    assert float(t.triplet_loss(teacher, student, kind="kl", **settings)) == pytest.approx(kl(P, Q))
    assert float(t.triplet_loss(teacher, student, kind="hard", **settings)) == pytest.approx(-math.log(0.2))
    jsd = t.triplet_loss(teacher, student, kind="jsd", **settings)
    assert float(jsd) == pytest.approx(float(t.js_divergence(P, Q.log())))
    with pytest.raises(ValueError, match="kl, jsd, hard"):
        t.triplet_loss(teacher, student, kind="mse", **settings)


def test_the_hard_loss_takes_the_teachers_pair():
    teacher = torch.tensor([[0.0, 1, 0], [0, 0, 9]])
    log_q = torch.stack([P, Q]).float().log()
    loss = t.triplet_loss(teacher, log_q, kind="hard", tau_teacher=1, tau_student=1)
    torch.testing.assert_close(loss, -torch.log(torch.tensor([0.2, 0.3])))
    torch.testing.assert_close(t.hard_loss(log_q), -log_q[:, 0])


@pytest.mark.parametrize("kind", t.LOSSES)
def test_gradients_are_those_of_finite_differences(kind):
    teacher = t.similarities(FIVE, ALL)
    student = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 3))).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: t.triplet_loss(teacher, s, kind=kind, tau_teacher=2.0, tau_student=0.7), student
    )


@pytest.mark.parametrize("kind", t.LOSSES)
def test_gradients_stay_finite_where_probabilities_vanish(kind):
    teacher = torch.tensor([[1e4, 0.0, -1e4]])
    student = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    loss = t.triplet_loss(teacher, student, kind=kind, tau_teacher=1.0, tau_student=1.0)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(student.grad).all()


def test_accuracy_counts_no_tie():
    sims = torch.tensor([[3.0, 1, 2], [2, 2, 1], [1, 2, 3], [0, 0, 0], [2, 1, 2], [5, 4, 4]])
    assert t.correct(sims).tolist() == [True, False, False, False, False, True]
    assert t.accuracy(sims) == 1 / 3
    assert t.accuracy(torch.zeros(100, 3)) == 0  # a collapsed model is never right
    assert math.isnan(t.accuracy(sims[:0]))
    assert t.accuracy(torch.tensor([[math.nan, 0, 0]])) == 0


def test_accuracy_of_noise_is_a_third():
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(30_000, 3)))
    assert t.accuracy(noise) == pytest.approx(1 / 3, abs=0.01)


def test_odd_one_last_is_a_permutation_that_puts_the_best_pair_first():
    sims = t.similarities(FIVE, ALL)
    triplets, ordered = t.odd_one_last(ALL, sims)
    torch.testing.assert_close(ordered, t.similarities(FIVE, triplets))
    assert torch.equal(ordered[:, 0], sims.max(1).values)
    assert torch.equal(triplets.sort(1).values, ALL)
    for row, (old, new) in enumerate(zip(ALL.tolist(), triplets.tolist())):
        assert new[2] == old[2 - int(sims[row].argmax())]
        assert old.index(new[0]) < old.index(new[1])
    again = t.odd_one_last(triplets, ordered)
    assert torch.equal(again[0], triplets)


def test_similarities_that_only_rounding_tells_apart_tie():
    """By each of the ways that a triplet is decided: evaluation, calibration, and the answer to a caller."""
    close, clear = 1 - 7e-11, 1 - 2e-10
    rows = [[1.0, close, 0.0], [1.0, clear, 0.0], [close, 1.0, 0.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -2.0]]
    sims = torch.tensor(rows, dtype=torch.float64)
    for scale in (1.0, 1e-150, -1.0):
        right, ties = t.decided(scale * sims.T)
        if scale > 0:
            assert right.tolist() == [False, True, False, False, True]
            assert ties == 3
        else:  # the second and third are largest, alike or 0 by itself
            assert right.tolist() == [False] * 5
            assert ties == 2
    for third, tied in ((close, True), (clear, False)):
        rows = np.array([[1.0, 0.0], [1.0, 0.0], [third, 0.0]])
        assert alignet.odd_one_out(rows).position.tolist() == [-1 if tied else 2]
        scores = odd_one_out(rows, np.array([[0, 1, 2]]), dataset="x", tau=1.0, seed=0, bootstrap=0)
        assert [scores[0].value, scores[-1].value] == ([0, 1] if tied else [1, 0])


def test_odd_one_last_on_ties():
    triplets = torch.tensor([[4, 2, 3]] * 3)
    sims = torch.tensor([[1.0, 1, 1], [0, 1, 1], [1, 0, 1]])
    assert t.odd_one_last(triplets, sims)[0].tolist() == [[4, 2, 3], [4, 3, 2], [4, 2, 3]]


@pytest.mark.parametrize(
    ("triplets", "message"),
    [
        (np.zeros((2, 2), int), r"shape \(n, 3\), found \(2, 2\)"),
        (np.zeros((0, 3), int), "found none"),
        (np.zeros((2, 3)), "found dtype float64"),
        (np.array([[1, 2, 5], [3, 4, 1]]), "index_base to 1"),
        (np.array([[0, 2, 5]]), r"0\.\.4, found 0\.\.5"),
        (np.array([[0, -1, 2]]), "found -1"),
        (np.array([[0, 1, 2], [3, 4, 3], [1, 1, 0]]), r"2 rows with a repeated index, the first at row 1"),
    ],
)
def test_check_triplets(triplets, message):
    with pytest.raises(ValueError, match=message):
        t.check_triplets(triplets, 5, "here")
    t.check_triplets(ALL.numpy().astype(np.uint8), 5, "here")
