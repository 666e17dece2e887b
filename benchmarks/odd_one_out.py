"""Odd-one-out evaluation at the size of THINGS: a million triplets about 1,854 objects x 768 features.

Ours is the whole public function: checks, dot product, cosine, entropy, ties. The baseline is the published evaluation
of these choices (Muttenthaler et al. 2023, "Human alignment of neural network representations"), a loop over triplets
in PyTorch that computes the same figures, re-implemented here. Features and triplets are random: the time does not
depend on what they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from alignet.evaluate.odd_one_out import odd_one_out
from alignet.pipeline.torch_setup import keep_freed_memory
from benchmarks.frame import Case, Floor, Side
from benchmarks.units import triplets_of

OBJECTS, WIDTH = 1854, 768
PAIRS = ((0, 1), (0, 2), (1, 2))


def cases(quick: bool) -> Iterator[Case]:
    """Without an interval, and with one of 1,000 draws of objects; with the memory settings that every stage has."""
    keep_freed_memory()
    number, few, rows = (100_000, 500, 20_000) if quick else (1_000_000, 2_000, 100_000)
    generator = np.random.default_rng(0)
    features = generator.normal(size=(OBJECTS, WIDTH)).astype(np.float32)
    triplets = triplets_of(OBJECTS, number)

    def ours(bootstrap: int) -> dict[str, float]:
        scores = odd_one_out(features, triplets, dataset="random", tau=1.0, seed=0, bootstrap=bootstrap)
        return {score.metric: score.value for score in scores}

    def check() -> Mapping[str, float]:
        """Equal figures on the triplets that the loop sees; and how fast a loop is that does no more than it must."""
        part = triplets[:few]
        scores = odd_one_out(features, part, dataset="random", tau=1.0, seed=0, bootstrap=0)
        found, theirs = {score.metric: score.value for score in scores}, published(features, part)
        assert abs(found["odd_one_out"] - theirs["dot"]) < 1 / few + 1e-9, (found, theirs)
        assert abs(found["odd_one_out_cosine"] - theirs["cosine"]) < 1 / few + 1e-9, (found, theirs)
        assert abs(found["triplet_entropy"] - theirs["entropy"]) < 1e-4, (found, theirs)
        blocks = in_blocks(torch.from_numpy(features), torch.from_numpy(triplets[:rows]))
        bare = odd_one_out(features, triplets[:rows], dataset="random", tau=1.0, seed=0, bootstrap=0)
        assert abs(blocks - bare[0].value) < 1e-4
        return {}

    loop = Side("published loop over triplets", lambda: published(features, triplets[:few]), few)
    yield Case(
        "without interval", "triplet", Side("alignet", lambda: ours(0), number), loop, goal=1000, check=check,
        floor=Floor(
            bytes=3 * 8 + 3 * 8, operations=OBJECTS**2 * WIDTH / number,
            text="half a Gram matrix of float32, each index read and each similarity written once",
        ),
        note="odd_one_out(bootstrap=0), float64; the loop: three cosines, three dot products, softmax, argmax, in "
        f"one thread, as so small operations have; ours has {torch.get_num_threads()}",
    )  # fmt: skip
    yield Case(
        "the same against the leanest loop", "triplet", Side("alignet", lambda: ours(0), number),
        Side("numpy loop over triplets, three dot products and argmax", lambda: lean(features, triplets[:few]), few),
        goal=30, note="no cosine, no probabilities, no ties: less than the published evaluation computes; the loop in "
        f"one thread, ours in {torch.get_num_threads()}",
    )  # fmt: skip
    yield Case(
        "with an interval of 1,000 draws over objects", "triplet", Side("alignet", lambda: ours(1000), number), loop,
        goal=30, rounds=3 if quick else 5,
        note="the loop gives no interval; a draw weighs each triplet once, so 1,000 draws are 1,000 passes over them",
    )  # fmt: skip
    yield Case(
        "the same against rows gathered in blocks", "triplet", Side("alignet", lambda: ours(0), number),
        Side(
            "three rows gathered for 65,536 triplets at a time, float32",
            lambda: in_blocks(torch.from_numpy(features), torch.from_numpy(triplets[:rows])), rows,
        ),
        goal=1, note="what a vectorised evaluation does without a Gram matrix; dot product only",
    )  # fmt: skip


def published(features: np.ndarray, triplets: np.ndarray) -> dict[str, float]:
    """Accuracy by dot product and by cosine, mean entropy, one triplet at a time."""
    rows = torch.from_numpy(features)
    choices, by_dot = torch.zeros(len(triplets)), torch.zeros(len(triplets))
    probabilities = torch.zeros(len(triplets), 3)
    for index, (i, j, k) in enumerate(triplets):
        triplet = torch.stack([rows[i], rows[j], rows[k]])
        cosines = torch.tensor([cosine_similarity(triplet[a], triplet[b], dim=0) for a, b in PAIRS])
        dots = torch.tensor([triplet[a] @ triplet[b] for a, b in PAIRS])
        choices[index] = -1 if len(torch.unique(cosines)) == 1 else 2 - cosines.argmax().item()
        probabilities[index] = torch.softmax(dots, 0)
        by_dot[index] = 2 - dots.argmax().item()
    nats = -torch.xlogy(probabilities, probabilities).sum(1)
    return {
        "cosine": (choices == 2).double().mean().item(),
        "dot": (by_dot == 2).double().mean().item(),
        "entropy": nats.mean().item(),
    }


def lean(features: np.ndarray, triplets: np.ndarray) -> float:
    """Accuracy by dot product alone, one triplet at a time, in numpy."""
    right = 0
    for i, j, k in triplets:
        x, y, z = features[i], features[j], features[k]
        right += np.argmax([x @ y, x @ z, y @ z]) == 0
    return right / len(triplets)


def in_blocks(features: torch.Tensor, triplets: torch.Tensor) -> float:
    """Accuracy by dot product alone, gathering rows, a block of triplets at a time."""
    right = 0
    for part in triplets.split(65536):
        x, y, z = (features[part[:, column]] for column in range(3))
        sims = torch.stack([(x * y).sum(1), (x * z).sum(1), (y * z).sum(1)], 1)
        right += int((sims.argmax(1) == 0).sum())
    return right / len(triplets)
