"""Triplets chosen by the VICE posterior against triplets at random: how many choices a correlation costs.

    uv run python -m benchmarks.active [docs/active.png]

Simulated participants answer by a planted non-negative embedding. A first round is random; after each round VICE is
fitted to all choices so far and the next round is chosen, at random or by a criterion of `alignet.survey.choose`.
Shown is Spearman's rho between the planted and the recovered similarities of all pairs, over SEEDS (the criterion, the
limit per pair and the size of the first round were chosen on seeds 100 to 103). Minutes on two cores.
"""

from __future__ import annotations

import contextlib
import io
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from alignet.config import ViceSettings
from alignet.survey.choose import CRITERIA, active_triplets, random_triplets, spread_out
from alignet.triplets import all_triplets, odd_one_last, probabilities, similarities
from alignet.vice.fit import ViceFit, fit_vice

OBJECTS, DIMENSIONS = 30, 6
FIRST, BATCH, ROUNDS = 500, 200, 7
PER_PAIR = 2
SEEDS = (0, 1, 2, 3, 4, 5)
WORLDS = {"decided": 2.0, "undecided": 1.3}  # name -> scale of the planted embedding: how decided answers are
WAYS = ("random", "spread", *CRITERIA)  # spread: at random, under the limit per pair that the criteria have


def planted(seed: int, scale: float) -> torch.Tensor:
    """(30, 6) float32: a category each, in turns, and a part in each other dimension with probability 0.3."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.zeros(OBJECTS, DIMENSIONS)
    rows = torch.arange(OBJECTS)
    embedding[rows, rows % DIMENSIONS] = 1 + 0.6 * torch.rand(OBJECTS, generator=generator)
    parts = torch.rand(OBJECTS, DIMENSIONS, generator=generator) < 0.3
    return scale * (embedding + parts * (0.2 + 0.8 * torch.rand(OBJECTS, DIMENSIONS, generator=generator)))


def choices(embedding: torch.Tensor, triplets: np.ndarray, seed: int) -> torch.Tensor:
    """One simulated answer to each triplet: (n, 3) int64, odd one last."""
    rows = torch.from_numpy(triplets)
    generator = torch.Generator().manual_seed(seed)
    pair = torch.multinomial(probabilities(similarities(embedding, rows)), 1, generator=generator)
    return odd_one_last(rows, torch.zeros(len(rows), 3).scatter_(1, pair, 1.0))[0]


def fit(answers: torch.Tensor, seed: int) -> ViceFit:
    """VICE for a fixed 500 epochs of one step each: whether few choices show a dimension yet does not matter here."""
    settings = ViceSettings(
        dim=12, prior="gaussian", spike=0.25, slab=1.0, pi=0.6, lr=0.05, batch=100_000, max_epochs=500, burn_in=499,
        window=1, k=2, alpha=0.05, init_loc=0.1, init_scale=0.1, samples=20, seed=seed,
    )  # fmt: skip
    with contextlib.redirect_stderr(io.StringIO()):  # it warns where no dimension is kept yet
        return fit_vice(answers, None, objects=OBJECTS, settings=settings)


def recovered(found: ViceFit, embedding: torch.Tensor) -> float:
    """Spearman's rho of the posterior's mean similarities (50 draws) and the planted ones, over all pairs."""
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    draws = [
        (found.loc + found.scale * torch.randn(found.loc.shape, generator=generator)).relu()
        for _ in range(50)
    ]
    mean = torch.stack([draw @ draw.T for draw in draws]).mean(0)
    upper = np.triu_indices(OBJECTS, 1)
    return float(spearmanr(mean.numpy()[upper], (embedding @ embedding.T).numpy()[upper]).statistic)


def curve(job: tuple[str, str, int]) -> list[float]:
    """rho after each round, for (world, way of choosing, seed)."""
    world, way, seed = job
    torch.set_num_threads(1)
    embedding = planted(seed, WORLDS[world])
    asked = random_triplets(OBJECTS, FIRST, seed=1000 * seed)
    answers = choices(embedding, asked, 1000 * seed + 500)
    found = fit(answers, seed)
    rhos = [recovered(found, embedding)]
    for turn in range(1, ROUNDS + 1):
        draw = 1000 * seed + turn
        if way == "random":
            new = random_triplets(OBJECTS, BATCH, seed=draw, exclude=asked)
        elif way == "spread":
            left = random_triplets(OBJECTS, 2000, seed=draw, exclude=asked)
            new = spread_out(left, BATCH, objects=OBJECTS, per_pair=PER_PAIR)
        else:
            new = active_triplets(
                found.loc, found.scale, BATCH, criterion=way, samples=100, candidates=20_000, per_pair=PER_PAIR,
                seed=draw, exclude=asked,
            )  # fmt: skip
        asked = np.concatenate([asked, new])
        answers = torch.cat([answers, choices(embedding, new, draw + 500)])
        found = fit(answers, seed)
        rhos.append(recovered(found, embedding))
    return rhos


def cost(counts: np.ndarray, rhos: np.ndarray, rho: float) -> float:
    """Choices at which a curve first reaches rho, on a straight line between rounds; NaN if it never does."""
    best = np.maximum.accumulate(rhos)
    if rho > best[-1]:
        return float("nan")
    return float(np.interp(rho, best, counts)) if rho > best[0] else float(counts[0])


def draw(curves: dict[tuple[str, str], np.ndarray], counts: np.ndarray, path: str) -> None:
    """Mean and range over seeds, one panel a world."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(WORLDS), figsize=(9, 3.4), constrained_layout=True)
    colours = {
        "random": "#555555",
        "spread": "#aaaaaa",
        "rank": "#c0392b",
        "information": "#2471a3",
        "entropy": "#b9770e",
    }
    for panel, world in zip(panels, WORLDS):
        for way in WAYS:
            rhos = curves[world, way]
            panel.plot(counts, rhos.mean(0), color=colours[way], label=way, lw=1.6)
            if way in ("random", "rank"):
                panel.fill_between(counts, rhos.min(0), rhos.max(0), color=colours[way], alpha=0.15, lw=0)
        panel.set(title=f"{world} participants", xlabel="choices", ylabel="Spearman's rho with the planted")
        panel.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run, print, draw."""
    path = sys.argv[1] if len(sys.argv) > 1 else "docs/active.png"
    counts = FIRST + BATCH * np.arange(ROUNDS + 1)
    jobs = [(world, way, seed) for world in WORLDS for way in WAYS for seed in SEEDS]
    with ProcessPoolExecutor(2) as pool:
        done = list(pool.map(curve, jobs))
    curves = {
        (world, way): np.array([rhos for job, rhos in zip(jobs, done) if job[:2] == (world, way)])
        for world in WORLDS
        for way in WAYS
    }
    for world, scale in WORLDS.items():
        likeliest = [
            probabilities(similarities(planted(seed, scale), all_triplets(OBJECTS))).amax(1).mean().item()
            for seed in SEEDS
        ]
        print(f"{world}: the likeliest answer has probability {np.mean(likeliest):.2f} on average")
        print("  " + " " * 12 + " ".join(f"{count:>18}" for count in counts))
        for way in WAYS:
            rhos = curves[world, way]
            cells = [f"{row.mean():.3f} [{row.min():.3f}, {row.max():.3f}]" for row in rhos.T]
            print(f"  {way:12}" + " ".join(f"{cell:>18}" for cell in cells))
        goal = curves[world, "random"].mean(0).max()
        print(
            f"  choices until the mean curve reaches the best of random, {goal:.3f}; seeds on which the end is higher:"
        )
        for way in WAYS:
            higher = (curves[world, way][:, -1] > curves[world, "random"][:, -1]).sum()
            print(
                f"  {way:12}{cost(counts, curves[world, way].mean(0), goal):6.0f}   {higher} of {len(SEEDS)}"
            )
    draw(curves, counts, path)
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
