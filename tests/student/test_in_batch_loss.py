"""The loss of all triplets of a batch: by enumeration, by autograd, in blocks, in shares, and far out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignet.runtime.distributed import Processes
from alignet.student import in_batch_loss as in_batch
from alignet.student.in_batch_loss import Comparison, in_batch_loss
from alignet.triplets import all_triplets, triplet_loss

KINDS = ("kl", "jsd", "hard")


def features(size: int, seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn((size, 4), generator=torch.Generator().manual_seed(seed), dtype=dtype) * scale


def by_list(
    student: torch.Tensor, teacher: torch.Tensor, compare: Comparison
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean over a list of all triplets, and autograd's gradient."""
    own = student.clone().requires_grad_()
    i, j, k = all_triplets(len(student)).unbind(1)
    loss = compare(*(torch.stack([gram[i, j], gram[i, k], gram[j, k]], 1) for gram in (teacher, own))).mean()
    loss.backward()
    assert own.grad is not None
    return loss.detach(), own.grad


class _Share(Processes):
    """One of several processes that notes its share, or, with the others' notes, sums these."""

    def __init__(self, rank: int = 0, size: int = 1, others: list[torch.Tensor] | None = None):
        super().__init__(rank, size)
        self.others = others

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        self.found = tensor.clone()
        return tensor if self.others is None else tensor.copy_(torch.stack(self.others).sum(0))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_mean_over_every_triplet(kind: str) -> None:
    student, teacher = features(7, 0).requires_grad_(), features(7, 1)
    gram = student @ student.T
    loss, gradient = in_batch_loss(gram, teacher @ teacher.T, Comparison(kind, 0.7, 2.0))
    (found,) = torch.autograd.grad(gram, student, gradient)

    total, count = torch.zeros((), dtype=torch.float64), 0
    for i in range(7):
        for j in range(i + 1, 7):
            for k in range(j + 1, 7):
                own, other = (
                    torch.stack([x[i] @ x[j], x[i] @ x[k], x[j] @ x[k]]) for x in (student, teacher)
                )
                q, p = torch.softmax(own / 2.0, 0), torch.softmax(other / 0.7, 0)
                middle = (p + q) / 2
                total = (
                    total
                    + {
                        "kl": (p * (p / q).log()).sum(),
                        "jsd": 0.5 * (p * (p / middle).log()).sum() + 0.5 * (q * (q / middle).log()).sum(),
                        "hard": -q[other.argmax()].log(),
                    }[kind]
                )
                count += 1
    (expected,) = torch.autograd.grad(total / count, student)
    assert count == 35
    torch.testing.assert_close(loss, (total / count).detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [0.3, 5.0, 40.0])  # 40: exponentials of all at once would overflow
@pytest.mark.parametrize("size", [3, 4, 20])
def test_it_is_autograd_s_over_a_list(kind: str, scale: float, size: int) -> None:
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-5)):
        student, teacher = features(size, 2, scale, dtype), features(size, 3, scale, dtype)
        if kind == "hard":
            teacher = teacher.round()  # with ties
        compare = Comparison(kind, 0.9, 1.3)
        expected = by_list(student @ student.T, teacher @ teacher.T, compare)
        found = in_batch_loss(student @ student.T, teacher @ teacher.T, compare)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(
                one.double(),
                other.double(),
                rtol=tolerance,
                atol=tolerance * max(1, other.abs().max().item()),
            )


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_shares_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher, compare = features(30, 4), features(30, 5), Comparison(kind, 0.5, 1.5)
    grams = student @ student.T, teacher @ teacher.T
    whole = in_batch_loss(*grams, compare)
    for block in (1, 70, 2000):
        monkeypatch.setitem(in_batch._PAIRS, kind, (in_batch._PAIRS[kind][0], block))
        for one, other in zip(in_batch_loss(*grams, compare), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)
        shares = [_Share(rank, 3) for rank in range(3)]
        for share in shares:
            in_batch_loss(*grams, compare, share)
        last = _Share(others=[share.found for share in shares])
        for one, other in zip(in_batch_loss(*grams, compare, last), whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


def test_every_pair_stands_in_one_block() -> None:
    for size in (3, 4, 9, 30):
        for elements in (1, 40, 300, 1 << 18):
            seen = np.zeros((size, size), int)
            for first, second in in_batch._blocks(size, elements):
                seen[first, second] += 1
                assert (first.stop - first.start) * (second.stop - second.start) * size <= max(elements, size)
            assert (seen[np.triu_indices(size, 1)] == 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 12), st.sampled_from(KINDS), st.integers(0, 10**6), st.floats(0.05, 20))
def test_it_is_symmetric_in_the_images_and_blind_to_a_shift(
    size: int, kind: str, seed: int, tau: float
) -> None:
    student, teacher, compare = features(size, seed), features(size, seed + 1), Comparison(kind, tau, 2 * tau)
    grams = student @ student.T, teacher @ teacher.T
    loss, gradient = in_batch_loss(*grams, compare)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(size))
    moved = in_batch_loss(*(gram[order][:, order] + 3.0 for gram in grams), compare)
    torch.testing.assert_close(moved[0], loss, rtol=1e-9, atol=1e-12)
    both = gradient + gradient.T
    torch.testing.assert_close(moved[1] + moved[1].T, both[order][:, order], rtol=1e-8, atol=1e-12)
    assert abs(gradient.sum().item()) < 1e-12  # probabilities sum to one in each triplet
    assert loss >= -1e-12


@pytest.mark.parametrize("kind", ["kl", "jsd"])
def test_a_student_equal_to_its_teacher_has_no_loss_and_no_gradient(kind: str) -> None:
    gram = features(6, 0, dtype=torch.float32)
    gram = gram @ gram.T
    loss, gradient = in_batch_loss(3 * gram, gram, Comparison(kind, 1.0, 3.0))
    assert abs(loss.item()) < 1e-6
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_that_knows_nothing_has_the_closed_form(kind: str) -> None:
    """All of the student's similarities are equal: q is a third."""
    teacher = features(9, 1)
    teacher = teacher @ teacher.T
    loss, _ = in_batch_loss(torch.ones((9, 9), dtype=torch.float64), teacher, Comparison(kind, 1.0, 1.0))
    i, j, k = all_triplets(9).unbind(1)
    p = torch.softmax(torch.stack([teacher[i, j], teacher[i, k], teacher[j, k]], 1), 1)
    middle = (p + 1 / 3) / 2
    expected = {
        "kl": math.log(3) - torch.special.entr(p).sum(1).mean(),
        "jsd": (torch.special.entr(middle).sum(1) - torch.special.entr(p).sum(1) / 2).mean()
        - math.log(3) / 2,
        "hard": torch.tensor(math.log(3), dtype=torch.float64),
    }[kind]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)


def test_what_is_not_a_number_stays_visible_and_two_images_are_refused() -> None:
    gram = torch.ones((5, 5))
    for value in (math.nan, math.inf):
        broken = gram.clone()
        broken[1, 3] = value
        for kind in KINDS:
            loss, gradient = in_batch_loss(broken, gram, Comparison(kind, 1.0, 1.0))
            assert not (math.isfinite(loss.item()) and bool(gradient.isfinite().all()))
    with pytest.raises(ValueError, match="expected at least 3 images, found 2"):
        in_batch_loss(torch.eye(2), torch.eye(2), Comparison("kl", 1.0, 1.0))


def test_triplet_loss_is_the_one_shared_definition() -> None:
    sims = torch.randn((4, 3), generator=torch.Generator().manual_seed(0))
    expected = triplet_loss(sims, 2 * sims, kind="jsd", tau_teacher=1.5, tau_student=0.5)
    assert torch.equal(Comparison("jsd", 1.5, 0.5)(sims, 2 * sims), expected)
