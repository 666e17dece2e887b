"""VICE: a step, a whole fit of the real choices, and soft labels, against the published algorithm (published_vice).

Both sides run on one thread. The fit needs the folder of real choices (--photos); without it that case is left out,
which is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from alignet.config import ViceSettings
from alignet.vice.compiled import CompiledEngine
from alignet.vice.engine import Engine
from alignet.vice.fit import fit_vice, spike_slab
from alignet.vice.soft_labels import mean_probabilities
from benchmarks import published_vice
from benchmarks.frame import Case, Floor, Side
from benchmarks.units import triplets_of
from benchmarks.vice_steps import OBJECTS, PUBLISHED, choices

DIM, KEPT, LARGE = 100, 60, 900_000
PRIOR = {"spike": PUBLISHED.spike, "slab": PUBLISHED.slab, "pi": PUBLISHED.pi}
OURS = dataclasses.replace(
    PUBLISHED,
    pi=0.6,
    lr=0.01,
    batch=8192,
    max_epochs=80,
    burn_in=30,
    window=3,
    start="half_normal",
    window_from="burn_in",
)  # experiment=photos


@dataclass(frozen=True)
class Published:
    """Where the published settings are after so many steps; counted by `python -m benchmarks.vice_steps FOLDER`."""

    steps: int
    nats: float  # held-out cross-entropy
    kept: int  # dimensions


# The first epoch (55) in which no more dimensions are kept than 10% above what OURS keeps at its end: 66 with seed 0,
# at OURS_NATS. By then held-out cross-entropy has long been level: .8499, .8498, .8499, .8490 after 22, 31, 40 and 52
# epochs.
BOTH = Published(386_760, 0.8493, 72)
# The first epoch (4) in which cross-entropy is within CLOSE of OURS_NATS, whatever dimensions are kept; .8530 after 3.
# OURS is first so close in epoch 11 (.8525); .8543, .8537, .8531, .8532 after 4, 5, 6, 10.
NATS_ALONE, OURS_CLOSE, OURS_NATS = Published(28_128, 0.8483, 100), 11, 0.8496
CLOSE, DIMENSIONS = 0.003, 0.10  # nats and share of the dimensions within which two fits count as equal


def cases(quick: bool) -> Iterator[Case]:
    """Steps at two batches, fits, soft labels against two baselines."""
    yield step_case(128, 8, 10 if quick else 40)
    yield step_case(4096, 30, 1 if quick else 3)
    if "ALIGNET_PHOTOS" in os.environ:
        yield from fit_cases(Path(os.environ["ALIGNET_PHOTOS"]), quick)
    else:
        print("  without --photos: the fit of the real choices is left out", flush=True)
    yield from soft_label_cases(100_000 if quick else 1_000_000, quick)


def random_triplets(number: int, seed: int) -> torch.Tensor:
    """(number, 3) int64 of three different objects each."""
    return torch.from_numpy(triplets_of(OBJECTS, number, seed))


def start(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """loc and log scale as in the midst of a fit."""
    generator = torch.Generator().manual_seed(seed)
    loc = 0.5 * torch.randn((OBJECTS, DIM), generator=generator)
    return loc, torch.full((OBJECTS, DIM), -2.0)


def step_case(batch: int, goal: float, published_steps: int) -> Case:
    """One step of the fit, noise and Adam included."""
    own_steps = 10 * published_steps
    ours, theirs = taking_steps(CompiledEngine, batch, own_steps, published_steps)
    return Case(
        f"step, {OBJECTS} x {DIM}, batch {batch}", "step", Side("alignet", ours, own_steps),
        Side("one-hot rows, autograd, Adam, as published", theirs, published_steps), goal, floor=step_floor(batch),
        check=lambda: same_step(batch),
        note="both sides draw noise in each step; at 128 a quarter of ours is noise, two thirds complexity and Adam",
    )  # fmt: skip


def taking_steps(
    make: type[Engine], batch: int, own_steps: int, published_steps: int, device: str = "cpu"
) -> tuple[Callable[[], None], Callable[[], None]]:
    """What takes so many steps of an engine of ours, and of the published algorithm."""
    loc, log_scale = (tensor.to(device) for tensor in start(0))
    triplets, eye = random_triplets(batch, batch).to(device), torch.eye(OBJECTS, device=device)
    engine = make(loc.clone(), log_scale.clone(), n=LARGE, prior=spike_slab(PUBLISHED), lr=0.001, seed=0)
    model = published_vice.Vice(loc, log_scale)
    adam = torch.optim.Adam(model.parameters(), lr=0.001)

    def ours() -> None:
        for index in range(own_steps):
            engine.step(triplets, index)
        engine.sums()

    def theirs() -> None:
        for _ in range(published_steps):
            published_vice.step(model, adam, eye, triplets, n=LARGE, **PRIOR)

    return ours, theirs


def step_floor(batch: int) -> Floor:
    """What a step moves and computes at least."""
    return Floor(
        bytes=4 * (OBJECTS * DIM * 12 + min(3 * batch, OBJECTS) * DIM * 3), operations=batch * DIM * 18,
        text="loc, log scale and Adam's moments read and written once, the batch's rows read, their slopes added; "
        "as if all came from memory, though it fits a cache",
    )  # fmt: skip


def same_step(batch: int) -> Mapping[str, float]:
    """Loss and gradients of both sides on one noise: AssertionError where they differ.

    For so few choices that the complexity's share of each gradient is far above what is let pass.
    """
    n = 500
    triplets, (loc, log_scale) = random_triplets(batch, 1), start(1)
    noise = torch.randn(loc.shape, generator=torch.Generator().manual_seed(2))
    model = published_vice.Vice(loc, log_scale)
    one_hot = published_vice.encode(torch.eye(OBJECTS), triplets)
    value = published_vice.loss(model, one_hot, n=n, noise=noise, **PRIOR)
    value.backward()
    engine = CompiledEngine(loc, log_scale, n=n, prior=spike_slab(PUBLISHED), lr=0.001, seed=0)
    engine.step_with_noise(triplets, noise, 0)
    assert abs(sum(engine.sums()) - value.item()) < 1e-5 * abs(value.item()), (engine.sums(), value)
    for own, other in ((engine.slope, model.loc.grad), (engine.noise, model.log_scale.grad)):
        assert other is not None
        torch.testing.assert_close(torch.from_numpy(own), other, rtol=1e-3, atol=1e-6)
    return {}


def fit_cases(folder: Path, quick: bool) -> Iterator[Case]:
    """Our fit until it has converged, against the published steps to equal held-out cross-entropy and dimensions; and
    both until cross-entropy alone is close to where ours ends."""
    choices_of = choices(folder)
    measured = (
        "cross-entropy of test_10 by the mean of 50 posterior draws of the pruned embedding. The published steps were "
        "counted with our engine (benchmarks.vice_steps); the time of the published program's own validation and "
        "convergence is not counted against it. "
    )
    yield fit_case(
        "fit of 900,000 choices" + (", 2 epochs only" if quick else ""), choices_of,
        dataclasses.replace(OURS, max_epochs=2) if quick else OURS, BOTH, (BOTH.nats, DIMENSIONS), quick,
        measured + "Level from epoch 13 on at the latest on the published side, while the number of kept dimensions "
        "still falls: the steps are those until both agree. By cross-entropy alone fewer would do: the next row",
    )  # fmt: skip
    if not quick:
        yield fit_case(
            "the same until cross-entropy alone is close", choices_of,
            dataclasses.replace(OURS, max_epochs=OURS_CLOSE), NATS_ALONE, (OURS_NATS, None), quick,
            measured + f"Each side until the first epoch within {CLOSE} of the {OURS_NATS} nats where ours ends: "
            f"epoch 5 of the published settings, {OURS_CLOSE} of ours (5 of ours give .8537). Neither has converged",
        )  # fmt: skip


def fit_case(
    name: str, choices_of: tuple[torch.Tensor, torch.Tensor], settings: ViceSettings, published: Published,
    goals: tuple[float, float | None], quick: bool, note: str,
) -> Case:  # fmt: skip
    """One fit. goals: the nats that ours must be within CLOSE of, or below; the share of dimensions within which both
    must agree, None where they need not."""
    train, held = choices_of
    eye, published_steps = torch.eye(OBJECTS), 10 if quick else 40
    loc, log_scale = start(0)
    model = published_vice.Vice(loc, log_scale)
    adam = torch.optim.Adam(model.parameters(), lr=PUBLISHED.lr)
    fits = []

    def ours() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # where it is stopped early, it warns
            fits[:] = [fit_vice(train, held, objects=OBJECTS, settings=settings)]

    def theirs() -> None:
        for index in range(published_steps):
            batch = train[PUBLISHED.batch * index : PUBLISHED.batch * (index + 1)]
            published_vice.step(model, adam, eye, batch, n=len(train), **PRIOR)

    def check() -> Mapping[str, float]:
        found, kept = fits[0].validation["cross_entropy"], len(fits[0].kept)
        nats, dimensions = goals
        if not quick:
            assert found < nats + CLOSE, found
            assert dimensions is None or abs(kept / published.kept - 1) <= dimensions, kept
        return {
            "held-out nats": found, "published": published.nats,
            "dimensions": kept, "dimensions, published": published.kept,
            "epochs": len(fits[0].curves["nll"]), "steps, published": published.steps,
        }  # fmt: skip

    return Case(
        name, "fit", Side(f"alignet, batch {OURS.batch}, rate {OURS.lr}, {settings.max_epochs} epochs at most", ours),
        Side(
            f"published: {published.steps:,} steps of batch {PUBLISHED.batch}, rate {PUBLISHED.lr}, of which "
            f"{published_steps} are measured", theirs, published_steps / published.steps,
        ),
        goal=30, rounds=1 if quick else 5, check=check, note=note,
    )  # fmt: skip


def soft_label_cases(number: int, quick: bool) -> Iterator[Case]:
    """50 posterior draws on our side; on the other 2 of them and a part of the triplets."""
    triplets = random_triplets(number, 5)
    generator = torch.Generator().manual_seed(6)
    loc, scale = torch.rand((OBJECTS, KEPT), generator=generator), torch.full((OBJECTS, KEPT), 0.2)
    eye, draws, rows = torch.eye(OBJECTS), 50, 128 * 50
    part = triplets[:rows]

    def own(some: torch.Tensor, samples: int) -> torch.Tensor:
        return mean_probabilities(loc, scale, some, samples=samples, seed=7)

    def noise() -> torch.Tensor:
        source = torch.Generator().manual_seed(7)
        return torch.stack([torch.randn(loc.shape, generator=source) for _ in range(2)])

    def one_hot() -> torch.Tensor:
        return published_vice.probabilities(loc, scale, eye, part, noise(), 128)

    def gathered() -> torch.Tensor:
        total = torch.zeros(rows, 3)
        for one in noise():
            draw = (loc + scale * one).relu()
            parts = [
                torch.softmax(published_vice.similarities(draw[few.flatten()]), 1) for few in part.split(128)
            ]
            total += torch.cat(parts)
        return total / 2

    def check() -> Mapping[str, float]:
        for other in (one_hot(), gathered()):
            torch.testing.assert_close(own(part, 2), other, atol=2e-6, rtol=0)
        return {}

    ours = Side("alignet", lambda: own(triplets, draws), draws * number)
    floor = Floor(
        bytes=3 * 4 * 4, operations=2 * OBJECTS**2 * KEPT / number,
        text="a Gram matrix a draw, three places read, three probabilities added; the matrix lies in a cache",
    )  # fmt: skip
    yield Case(
        f"soft labels, R = 50, {number:,} triplets, {OBJECTS} x {KEPT}", "triplet and draw", ours,
        Side("one-hot rows by batches of 128, as published", one_hot, 2 * rows), goal=50, floor=floor, check=check,
        rounds=2 if quick else 5, note="both sides draw the same noise once for each of the samples",
    )  # fmt: skip
    yield Case(
        "the same against gathered rows", "triplet and draw", ours,
        Side("rows gathered by batches of 128", gathered, 2 * rows), goal=1, floor=floor, rounds=2 if quick else 5,
        note="the published loop without its one-hot matrices: what index gathers alone would bring",
    )  # fmt: skip
