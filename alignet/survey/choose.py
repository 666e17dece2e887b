"""Which triplets a survey asks: at random without repetition, or those that a VICE posterior can learn most from.

    posterior (loc, scale), triplets asked before -> triplets to ask next -> the page -> answers -> VICE -> ...

A triplet here is a question, three objects in ascending order, not yet a choice.
Shape suffixes: m objects, d dimensions, n triplets, R posterior draws, q pairs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from alignet.triplets import all_triplets, entropy, probabilities, similarities

CRITERIA = ("rank", "information", "entropy")
_PAIRS = 4000  # pairs of objects whose ranks are followed; beyond, a random sample of them
_BLOCK = 500  # triplets scored at once, so that 3 x 500 x 4000 floats are the most that is held


def random_triplets(objects: int, count: int, *, seed: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """`count` different triplets of 0..objects-1, uniformly: (count, 3) int64, each row ascending, in random order.

    exclude: (n, 3) int triplets in any order that are not drawn. ValueError where fewer than `count` are left.
    """
    total = math.comb(objects, 3)
    taken = set() if exclude is None else {tuple(sorted(row)) for row in exclude.tolist()}
    if not 1 <= count <= total - len(taken):
        raise ValueError(
            f"survey.triplets: expected 1..{total - len(taken):,} ({objects} objects have {total:,} triplets, "
            f"{len(taken):,} were asked before), found {count:,}; ask for fewer, or add images."
        )
    generator = np.random.default_rng(seed)
    if total <= 4 * (count + len(taken)):  # few are left, and drawing would meet the others again and again
        left = [row for row in all_triplets(objects).tolist() if tuple(row) not in taken]
        return np.array(left, dtype=np.int64)[generator.permutation(len(left))[:count]]
    rows: list[tuple[int, ...]] = []
    while len(rows) < count:
        for drawn in np.sort(generator.integers(0, objects, (count, 3)), axis=1).tolist():
            row = tuple(drawn)
            if row[0] < row[1] < row[2] and row not in taken and len(rows) < count:
                taken.add(row)
                rows.append(row)
    return np.array(rows, dtype=np.int64)


def active_triplets(
    loc: Tensor,
    scale: Tensor,
    count: int,
    *,
    criterion: str,
    samples: int,
    candidates: int,
    per_pair: int,
    seed: int,
    exclude: np.ndarray | None = None,
) -> np.ndarray:
    """The `count` triplets with the best scores, a pair of objects at most `per_pair` times: (count, 3) int64,
    see `spread_out`.

    loc, scale: (m, d) float32, the posterior Y = loc + scale * eps. criterion: one of CRITERIA, see `scores`.
    samples: R. candidates: so many random triplets are scored, or all where there are fewer. Alike triplets score
    alike, so the best alone would ask one thing many times. exclude: triplets that were asked before.
    """
    m = len(loc)
    taken = 0 if exclude is None else len({tuple(sorted(row)) for row in exclude.tolist()})
    available = math.comb(m, 3) - taken
    drawn = random_triplets(m, max(count, min(candidates, available)), seed=seed, exclude=exclude)
    found = scores(loc, scale, torch.from_numpy(drawn), criterion=criterion, samples=samples, seed=seed)
    best = drawn[found.argsort(descending=True, stable=True).numpy()]
    return spread_out(best, count, objects=m, per_pair=per_pair)


def spread_out(triplets: np.ndarray, count: int, *, objects: int, per_pair: int) -> np.ndarray:
    """The first `count` of (n, 3) triplets among which no pair of objects occurs more than `per_pair` times.

    Where that leaves fewer than `count`, the limit rises by one, and the rest is gone through again.
    """
    chosen: list[list[int]] = []
    used = np.zeros((objects, objects), dtype=np.int64)
    left, limit = triplets.tolist(), per_pair
    while len(chosen) < count and left:
        later = []
        for i, j, k in left:
            if len(chosen) < count and max(used[i, j], used[i, k], used[j, k]) < limit:
                chosen.append([i, j, k])
                for one, two in ((i, j), (i, k), (j, k)):
                    used[one, two] += 1
            else:
                later.append([i, j, k])
        left, limit = later, limit + 1
    return np.array(chosen, dtype=np.int64)


def scores(
    loc: Tensor, scale: Tensor, triplets: Tensor, *, criterion: str, samples: int, seed: int
) -> Tensor:
    """How much an answer to each triplet is worth: (n,) float32, higher is better.

    rank         how much of the variance of the ranks of all similarities an answer is expected to take away:
                 the variance, over the three answers, of each pair's expected rank given the answer, summed over pairs
    information  mutual information of answer and embedding in nats (BALD; Houlsby et al. 2011): the entropy of the
                 mean answer less the mean entropy of the draws' answers; high where draws are decided and disagree
    entropy      of the mean answer, in nats: as high where all draws agree that people do not
    """
    if criterion not in CRITERIA:
        raise ValueError(f"survey.criterion: expected one of {', '.join(CRITERIA)}, found {criterion!r}.")
    if samples < 2:
        raise ValueError(f"survey.samples: expected at least 2 posterior draws, found {samples}.")
    if loc.shape != scale.shape or loc.ndim != 2 or not bool((scale > 0).all() and loc.isfinite().all()):
        raise ValueError(
            f"survey.posterior: expected finite loc and positive scale of one shape (m, d), found {tuple(loc.shape)} "
            f"and {tuple(scale.shape)}; give the posterior.npz of a VICE fit."
        )
    generator = torch.Generator().manual_seed(seed)
    draws = [(loc + scale * torch.randn(loc.shape, generator=generator)).relu() for _ in range(samples)]
    answers = torch.stack([probabilities(similarities(draw, triplets)) for draw in draws])  # R x n x 3
    if criterion == "entropy":
        return entropy(answers.mean(0))
    if criterion == "information":
        return entropy(answers.mean(0)) - entropy(answers).mean(0)
    ranks = _ranks(draws, generator)
    found = [_explained(answers[:, rows], ranks) for rows in torch.arange(len(triplets)).split(_BLOCK)]
    return torch.cat(found)


def _ranks(draws: list[Tensor], generator: torch.Generator) -> Tensor:
    """Rank of each pair's similarity in each draw, in 0..1, less its mean over draws: (R, q) float32."""
    first, second = torch.triu_indices(len(draws[0]), len(draws[0]), 1)
    if len(first) > _PAIRS:
        some = torch.randperm(len(first), generator=generator)[:_PAIRS]
        first, second = first[some], second[some]
    sims = torch.stack([(draw @ draw.T)[first, second] for draw in draws])
    ranks = sims.argsort(1).argsort(1).float() / len(first)
    return ranks - ranks.mean(0)


def _explained(answers: Tensor, ranks: Tensor) -> Tensor:
    """Sum over pairs of the variance, over answers, of the expected rank given the answer.

    answers: (R, n, 3). ranks: (R, q), mean 0 over draws. Given answer a, draw r has the weight p_r(a) / sum p(a).
    """
    joint = torch.einsum("rna,rq->naq", answers, ranks) / len(ranks)
    return (joint.square().sum(-1) / answers.mean(0)).sum(-1)
