"""Soft labels: what a VICE posterior says about every answer to a triplet (AligNet A.1.1).

Shape suffixes: m objects, d dimensions, n triplets, R posterior samples.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from alignet.triplets import PAIRS, check_triplets, correct, probabilities, similarities

RELEASED_SAMPLES = 10  # the default of the authors' code, VICE's main_optimization
_MOST_NATS = 87.0  # of one choice: the compiled exponential is never below e^-87
_MOST_ROWS = 4096  # whose Gram matrix is looked up: 64 MB


def soft_labels(loc: Tensor, scale: Tensor, triplets: Tensor, *, samples: int, seed: int) -> Tensor:
    """p*(pair | triplet): the mean over posterior samples of the softmax of dot products of relu(Y).

    loc, scale: (m, d) float, the pruned posterior Y = loc + scale * eps. triplets: (n, 3) int64.
    samples: R (50 in the paper). Returns (n, 3) float32, ordered [p01, p02, p12], rows summing to 1.
    ValueError where the posterior is not finite or has no dimension, and for triplets that are not of its objects.
    """
    if loc.shape != scale.shape or loc.ndim != 2:
        raise ValueError(
            f"VICE posterior: expected loc and scale of one shape (m, d), found {tuple(loc.shape)} and "
            f"{tuple(scale.shape)}; give both arrays of one fit."
        )
    if loc.shape[1] == 0:
        raise ValueError(
            "VICE posterior: expected at least one dimension after pruning, found none; the choices show no "
            "structure under these settings: check their order (odd one last), or train longer."
        )
    if samples < 1:
        raise ValueError(f"soft labels: expected at least 1 posterior sample, found {samples}.")
    if not (loc.isfinite().all() and scale.isfinite().all() and bool((scale >= 0).all())):
        raise ValueError(
            "VICE posterior: expected finite loc and finite scale of at least 0; fit VICE again."
        )
    check_triplets(triplets.cpu().numpy(), len(loc), "soft labels")
    return mean_probabilities(loc, scale, triplets, samples=samples, seed=seed)


def mean_probabilities(loc: Tensor, scale: Tensor, triplets: Tensor, *, samples: int, seed: int) -> Tensor:
    """What `soft_labels` computes, without its checks; a posterior without dimensions gives 1/3.

    The caller has checked the triplets (`check_triplets`): compiled loops read whatever memory lies at an index.
    """
    generator = torch.Generator(loc.device).manual_seed(seed)
    draws = (
        (loc + scale * torch.randn(loc.shape, generator=generator, dtype=loc.dtype, device=loc.device)).relu()
        for _ in range(samples)
    )
    if loc.device.type == "cpu" and len(loc) <= _MOST_ROWS:
        return _looked_up(draws, triplets, len(loc)) / samples
    total = torch.zeros(len(triplets), 3, dtype=torch.float32, device=loc.device)
    for draw in draws:
        total += probabilities(similarities(draw, triplets))
    return total / samples


def _looked_up(draws: Iterable[Tensor], triplets: Tensor, m: int) -> Tensor:
    """Sum (n, 3) float32 over draws (m, d) of the probabilities, by one Gram matrix a draw."""
    from alignet.vice.compiled import add_probabilities

    places = [(triplets[:, one] * m + triplets[:, other]).to(torch.int32).numpy() for one, other in PAIRS]
    total = torch.zeros(3, len(triplets), dtype=torch.float32)
    for draw in draws:
        add_probabilities((draw @ draw.T).float().flatten().numpy(), *places, *total.numpy())
    return total.T.contiguous()


def heldout_metrics(
    loc: Tensor, scale: Tensor, triplets: Tensor, *, samples: int, seed: int
) -> dict[str, float]:
    """How well the mean over posterior samples predicts choices (n, 3) that were not fitted.

    The caller has checked the triplets (`check_triplets`). Returns `accuracy` (a tie is never correct; chance 1/3),
    `cross_entropy` in nats (chance log 3; a choice counts at most 87 nats, as its probability in float32 may be 0) and
    `n`.
    """
    probs = mean_probabilities(loc, scale, triplets, samples=samples, seed=seed)
    nll = -probs[:, 0].double().log().clamp_min(-_MOST_NATS)
    return {
        "accuracy": correct(probs).double().mean().item(),
        "cross_entropy": nll.mean().item(),
        "n": float(len(triplets)),
    }


def released_metrics(loc: Tensor, scale: Tensor, triplets: Tensor, *, seed: int) -> dict[str, float]:
    """The held-out figures as the authors' code takes them: all dimensions, pruned or not, and RELEASED_SAMPLES draws.

    `released_accuracy` counts a triplet as wrong where two of its mean probabilities are equal, or where all three are
    once they are rounded to two decimals. `released_cross_entropy` is in nats, of the mean probability of the choice.
    """
    probs = mean_probabilities(loc, scale, triplets, samples=RELEASED_SAMPLES, seed=seed)
    nll = -probs[:, 0].double().log().clamp_min(-_MOST_NATS)
    return {
        "released_accuracy": released_correct(probs).double().mean().item(),
        "released_cross_entropy": nll.mean().item(),
    }


def released_correct(probs: Tensor) -> Tensor:
    """Which choices (n,) are found by probabilities (n, 3), as the authors' code counts them: see released_metrics."""
    ordered = probs.sort(1).values
    equal = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    rounded = (probs * 100).round()
    level = (rounded == rounded[:, :1]).all(1)
    return (probs.argmax(1) == 0) & ~equal & ~level
