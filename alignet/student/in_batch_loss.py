"""The loss of all triplets of a batch, and its gradient in closed form, without a list of triplets.

    Gram matrices of student and teacher (b, b) -> in_batch_loss -> mean loss, derivative by the student's (b, b)

Every loss here is a sum over a triplet's three pairs, and symmetric in its three images, so a batch's loss is a sum
over pairs i < j of a sum over all third images k. For some i, some j and every k at once the three similarities are a
column, a row and a part of the matrix: nothing is looked up by index, and a pair's derivative is a sum along k, so
nothing is scattered either. Blocks of pairs are as large as a cache holds; several processes deal them among each
other, and every sum along k is the same one whoever takes it.

Shape suffixes: b images in a batch, i and j of a block's pairs, k the third image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignet.runtime.distributed import Processes
from alignet.triplets import triplet_loss

_NEAR = 60.0  # nats between the largest and the least logit, up to which exponentials of all are taken once
_GPU = 64  # times as many triplets in a block as on a CPU, to fill it


@dataclass(frozen=True)
class Comparison:
    """How student and teacher similarities become a loss; see triplets.triplet_loss."""

    loss: str
    tau_teacher: float
    tau_student: float

    def __call__(self, teacher: Tensor, student: Tensor) -> Tensor:
        """One loss (nats) for each triplet, from similarities (n, 3)."""
        return triplet_loss(
            teacher, student, kind=self.loss, tau_teacher=self.tau_teacher, tau_student=self.tau_student
        )


def in_batch_loss(
    student: Tensor, teacher: Tensor, compare: Comparison, processes: Processes | None = None
) -> tuple[Tensor, Tensor]:
    """Mean triplet loss (nats) over all b(b-1)(b-2)/6 triplets of a batch, and its gradient.

    student, teacher: Gram matrices (b, b) of the batch's features, of which what lies above the diagonal counts; b at
    least 3. processes: those that share the work, each calling this with the same matrices. Returns a float64 scalar,
    and (b, b), the derivative by the student's matrix, 0 on and below the diagonal. Memory: a few blocks besides.
    """
    size = len(student)
    if size < 3:
        raise ValueError(
            f"in_batch_loss: expected at least 3 images, found {size}; set finetune.batch to 3 or more"
        )
    pairs, held = _PAIRS[compare.loss]
    own = _logits(student.detach(), compare.tau_student)
    other: Any = teacher.detach()
    other = _places(other) if compare.loss == "hard" else _logits(other, compare.tau_teacher)
    # each pair's share of the loss, and its derivative; one exchange sums both
    found = torch.zeros((2, size, size), dtype=student.dtype, device=student.device)
    blocks = list(_blocks(size, held * _GPU if student.is_cuda else held))
    rank, ranks = (0, 1) if processes is None else (processes.rank, processes.size)
    for first, second in blocks[rank::ranks]:
        found[0, first, second], found[1, first, second] = pairs(own, other, first, second)
    if processes is not None:
        processes.sum(found)
    loss, gradient = found.triu_(1)
    count = size * (size - 1) * (size - 2) // 6
    return loss.double().sum() / count, gradient / (count * compare.tau_student)


@dataclass(frozen=True)
class _Logits:
    """Similarities over their temperature, symmetric, the largest off the diagonal 0; and the diagonal is 0."""

    values: Tensor  # (b, b)
    exps: Tensor | None  # (b, b); None where they are too far apart for the number format

    def log_sums(self, first: slice, second: slice) -> Tensor:
        """Log of the sum of a triplet's three exponentials, (i, j, k), however far apart they are."""
        x, y, z = _parts(self.values, first, second)
        return torch.logaddexp(torch.logaddexp(y, z), x)

    def shares(self, first: slice, second: slice) -> Iterator[Tensor]:
        """Probabilities of the pairs ij, ik and jk, each (i, j, k); 0 where k is i or j."""
        if self.exps is None:
            sums = _same(self.log_sums(first, second), first, second, math.inf)
            yield from ((part - sums).exp_() for part in _parts(self.values, first, second))
        else:
            over = _same(_sum(self.exps, first, second).reciprocal_(), first, second, 0.0)
            yield from (part * over for part in _parts(self.exps, first, second))


def _logits(gram: Tensor, tau: float) -> _Logits:
    upper = (gram / tau).triu(1)
    values = upper + upper.T
    same = torch.eye(len(gram), dtype=torch.bool, device=gram.device)
    low, high = values.masked_fill(same, math.inf).amin(), values.masked_fill(same, -math.inf).amax()
    values = (values - high).masked_fill_(same, 0)
    return _Logits(values, values.exp() if bool(high - low < _NEAR) else None)


def _places(teacher: Tensor) -> Tensor:
    """How many pairs come before each, (b, b) int32 symmetric: by similarity, equal ones in the order of (i, j)."""
    size = len(teacher)
    i, j = torch.triu_indices(size, size, 1, device=teacher.device)
    order = teacher[i, j].argsort(descending=True, stable=True)
    places = torch.zeros((size, size), dtype=torch.int32, device=teacher.device)
    places[i[order], j[order]] = torch.arange(len(order), dtype=torch.int32, device=teacher.device)
    return places + places.T


def _kl(own: _Logits, other: _Logits, first: slice, second: slice) -> tuple[Tensor, Tensor]:
    """Pairs' shares of sum KL(p || q) = log(sum of q's exponentials / sum of p's) + sum of p (log p's - log q's), and
    the derivative q - p, both summed over k: (i, j)."""
    t, a = other.values[first, second], own.values[first, second]
    if own.exps is None or other.exps is None:
        sums, others = own.log_sums(first, second), other.log_sums(first, second)
        logs = _same(sums - others, first, second, 0.0).sum(-1)
        q = (a[..., None] - _same(sums, first, second, math.inf)).exp_().sum(-1)
        p = (t[..., None] - _same(others, first, second, math.inf)).exp_().sum(-1)
    else:
        sums = _same(_sum(own.exps, first, second), first, second, 1.0)
        over = _same(_sum(other.exps, first, second), first, second, 1.0).reciprocal_()
        logs = (sums * over).log_().sum(-1)
        # the 1 where k is i or j stands twice in each row
        q = (sums.reciprocal_().sum(-1) - 2) * own.exps[first, second]
        p = (over.sum(-1) - 2) * other.exps[first, second]
    return logs / 3 + p * (t - a), q - p


def _jsd(own: _Logits, other: _Logits, first: slice, second: slice) -> tuple[Tensor, Tensor]:
    """Pairs' shares of the sum of (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, and the derivative
    q (log(q / m) - sum of q log(q / m)) / 2, both summed over k: (i, j)."""
    least = torch.finfo(own.values.dtype).tiny  # what is 0 has a log, which 0 is multiplied by
    found: list[Tensor] = []
    mean = torch.zeros((), dtype=own.values.dtype)
    for q, p in zip(own.shares(first, second), other.shares(first, second), strict=True):
        half = ((p + q) / 2).clamp_(min=least)
        log_q = (q / half).clamp_(min=least).log_()
        if not found:
            found = [q, log_q, p * (p / half).clamp_(min=least).log_()]
            mean = q * log_q
        else:
            mean.addcmul_(q, log_q)
    q, log_q, against = found
    return against.addcmul_(q, log_q).sum(-1) / 2, (log_q.sub_(mean).mul_(q)).sum(-1) / 2


def _hard(own: _Logits, places: Tensor, first: slice, second: slice) -> tuple[Tensor, Tensor]:
    """Pairs' shares of the sum of -log q of the teacher's choice, and the derivative q - p, summed over k: (i, j).

    places: of `_places`; of a triplet's pairs the one that comes first is chosen.
    """
    x, y, z = _parts(places, first, second)
    a = own.values[first, second]
    chosen = _same((torch.minimum(y, z) > x).to(a.dtype), first, second, 0.0).sum(-1)
    if own.exps is None:
        sums = own.log_sums(first, second)
        q = (a[..., None] - _same(sums.clone(), first, second, math.inf)).exp_().sum(-1)
        logs = _same(sums, first, second, 0.0).sum(-1)
    else:
        sums = _same(_sum(own.exps, first, second), first, second, 1.0)
        logs = sums.log().sum(-1)
        q = (sums.reciprocal_().sum(-1) - 2) * own.exps[first, second]
    return logs / 3 - chosen * a, q - chosen


# the loss, and the triplets of a block on a CPU: as many as its second cache holds
_PAIRS: dict[str, tuple[Callable[..., tuple[Tensor, Tensor]], int]] = {
    "kl": (_kl, 1 << 18), "jsd": (_jsd, 1 << 16), "hard": (_hard, 1 << 18),
}  # fmt: skip


def _parts(matrix: Tensor, first: slice, second: slice) -> tuple[Tensor, Tensor, Tensor]:
    return matrix[first, second, None], matrix[first, None, :], matrix[None, second, :]


def _sum(matrix: Tensor, first: slice, second: slice) -> Tensor:
    x, y, z = _parts(matrix, first, second)
    return (y + z).add_(x)


def _same(block: Tensor, first: slice, second: slice, value: float) -> Tensor:
    """Set what stands for no triplet, because k is i or j, in place: (i, j, k)."""
    block.diagonal(first.start, 0, 2).fill_(value)
    block.diagonal(second.start, 1, 2).fill_(value)
    return block


def _blocks(size: int, elements: int) -> Iterator[tuple[slice, slice]]:
    """Every pair i < j of `size` images once, as ranges of i and of j; pairs with j <= i count for nothing."""
    firsts, seconds = max(1, elements // size**2), max(1, elements // size)
    for first in range(0, size - 1, firsts):
        last = min(first + firsts, size - 1)
        for second in range(first + 1, size, seconds):
            yield slice(first, last), slice(second, min(second + seconds, size))
