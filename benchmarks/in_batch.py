"""All triplets of a batch, forward and backward: in closed form against a gather of three features for each triplet.

The baseline is the term as the equations read: features (n', 3, p) of a block of triplets, three dot products,
cross-entropy, and autograd back to the features. A block is as large as fits 4 GB; so many blocks of the same batch are
measured as make a few seconds, and the time is for one triplet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from alignet.student.in_batch_loss import Comparison, in_batch_loss
from alignet.triplets import all_triplets, similarities_of
from benchmarks.frame import Case, Floor, Side

WIDTH = 768
# features of both, three products and the gradient of the student's, which is put together once more: at most 12 times
# (n', p) are held
BLOCK = 4 * 10**9 // (12 * 4 * WIDTH)
COMPARE = Comparison("kl", 1.0, 1.0)


def cases(quick: bool) -> Iterator[Case]:
    """A large batch, one of the size that the experiments use, and the large one with logits far apart."""
    large, block = (128, BLOCK // 16) if quick else (512, BLOCK)
    yield case(large, block)
    yield case(48, block)
    yield case(large, block, length=24.0)


def case(size: int, block: int, *, length: float = 2.0, device: str = "cpu") -> Case:
    """Forward and backward of one batch. length: of the features, whose square the logits spread with."""
    draw = torch.Generator().manual_seed(0)
    student, teacher = (
        length * torch.nn.functional.normalize(torch.randn((size, WIDTH), generator=draw)).to(device)
        for _ in "st"
    )
    logits = (student @ student.T)[tuple(torch.triu_indices(size, size, 1))]
    apart = (logits.max() - logits.min()).item()
    far = ", logits far apart" if apart > 60 else ""
    count = size * (size - 1) * (size - 2) // 6
    triplets = _some_triplets(size, min(block, count), draw).to(device)

    def ours() -> tuple[Tensor, Tensor]:
        held = student.clone().requires_grad_()
        gram = held @ held.T
        loss, gradient = in_batch_loss(gram, teacher @ teacher.T, COMPARE)
        gram.backward(gradient)
        assert held.grad is not None
        return loss, held.grad

    def check() -> Mapping[str, float]:
        loss, gradient = ours()
        expected, slope = _by_gram(student, teacher)
        furthest = ((gradient - slope).norm() / slope.norm()).item()
        assert abs(loss - expected) < 1e-6 * max(1.0, abs(expected)), (loss, expected)
        assert furthest < 1e-4, furthest
        if len(triplets) == count:  # the gather, too, saw the whole batch
            total, theirs = gathered(student, teacher, triplets)
            assert abs(total / count - expected) < 1e-5 * max(1.0, abs(expected)), (total / count, expected)
            assert (theirs / count - slope).norm() < 1e-4 * slope.norm()
        return {"loss": loss.item(), "relative difference of gradients": furthest}

    return Case(
        f"all triplets of {size} images x {WIDTH}{far}, forward and backward", "triplet",
        Side("closed form, in blocks of pairs", ours, count),
        Side("gather of (n', 3, p), autograd", lambda: gathered(student, teacher, triplets), len(triplets)),
        goal=20, check=check,
        floor=Floor(
            operations=14 + 10 * size**2 * WIDTH / count, bytes=5 * 4 * size * WIDTH / count,
            text="14 operations a triplet, and products of features with features and with the gradient",
        ),
        note=f"{count:,} triplets; the gather takes {len(triplets):,} of them at once; checked against autograd "
        f"through the list of all triplets of the Gram matrix, in float64; logits up to {apart:.3g} nats apart: beyond "
        "60, exponentials are taken of each triplet instead of each pair, and the term takes longer",
    )  # fmt: skip


def gathered(student: Tensor, teacher: Tensor, triplets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses of triplets (n', 3), and its gradient by features (b, p): the equations as they are written."""
    held = student.clone().requires_grad_()
    # as an embedding, whose gradient is added up faster than an index's
    own, other = (torch.nn.functional.embedding(triplets, features).unbind(1) for features in (held, teacher))
    loss = COMPARE(similarities_of(other), similarities_of(own)).sum()
    loss.backward()
    assert held.grad is not None
    return loss.detach(), held.grad


def _some_triplets(size: int, count: int, draw: torch.Generator) -> Tensor:
    if count == size * (size - 1) * (size - 2) // 6:
        return all_triplets(size)
    rows = torch.rand((count, size), generator=draw).topk(3).indices
    return rows.sort(1).values


def _by_gram(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss and gradient by features, in float64, by the list of all triplets in parts."""
    held = student.double().requires_grad_()
    gram, answers = held @ held.T, teacher.double() @ teacher.double().T
    size = len(student)
    own = gram.detach().requires_grad_()
    total, count = gram.new_zeros(()).detach(), size * (size - 1) * (size - 2) // 6
    for i in range(size - 2):
        j, k = torch.triu_indices(size - i - 1, size - i - 1, 1, device=gram.device) + i + 1
        parts = (torch.stack([one[i][j], one[i][k], one[j, k]], 1) for one in (answers, own))
        loss = COMPARE(*parts).sum() / count
        loss.backward()
        total += loss.detach()
    assert own.grad is not None
    gram.backward(own.grad)
    assert held.grad is not None
    return total, held.grad
