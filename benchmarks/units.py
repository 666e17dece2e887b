"""Seconds of each unit of work that `plan` reckons with (alignet/plan/constants.py), by the functions that stages run.

`python -m benchmarks.growth --constants` writes them there. A step that several units share is measured at two sizes,
so that each unit has an equation of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignet.config import Config, DistillSettings
from alignet.pipeline.cli import load

TRIES = 5  # of which the fastest counts: other work on the machine only ever adds
CLOCK = time.perf_counter  # growth --busy: CPU seconds, of one thread


def fastest(run: Callable[[], Any], tries: int = TRIES, warm: bool = True) -> float:
    """Seconds of the fastest of some runs, after one that warms up."""
    if warm:
        run()
    best = float("inf")
    for _ in range(tries):
        began = CLOCK()
        run()
        best = min(best, CLOCK() - began)
    return best


def triplets_of(objects: int, count: int, seed: int = 0) -> np.ndarray:
    """Random triplets of three different objects, int64 (count, 3); some may come twice."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, objects, count)
    second = (first + rng.integers(1, objects - 1, count)) % objects
    third = (first + rng.integers(1, objects - 1, count)) % objects
    third = np.where(third == second, (third + 1) % objects, third)
    third = np.where(third == first, (third + 1) % objects, third)
    third = np.where(third == second, (third + 1) % objects, third)
    return np.stack([first, second, third], 1)


def measure(config: Config) -> dict[str, float]:
    """Seconds of every unit, with the present number of threads. config: any; VICE and the map take its settings."""
    found: dict[str, float] = {}
    for part in (
        _products,
        _vice,
        _labels,
        _map,
        _clusters,
        _triplets,
        _networks,
        _reading,
        _student,
        _others,
    ):
        new = part(config, found)
        for name, seconds in new.items():
            print(f"  {name}: {seconds:.3g} s", flush=True)
        found |= new
    return found


def _products(config: Config, known: dict[str, float]) -> dict[str, float]:
    left, right = torch.rand(1854, 1152), torch.rand(1152, 1152)
    return {"product": fastest(lambda: left @ right) / (2 * 1854 * 1152 * 1152)}


def vice_step(config: Config, m: int, d: int, batch: int) -> float:
    """Seconds of a step of VICE: of a longer epoch less a shorter one."""
    short, long = (3, 23) if m * d > 10_000 else (20, 220)
    times = (vice_fit(config, m, d, batch, steps) for steps in (short, long))
    return -float(np.subtract(*times)) / (long - short)


def vice_fit(config: Config, m: int, d: int, batch: int, steps: int) -> float:
    """Seconds of a fit of one epoch of so many steps."""
    from alignet.vice.fit import fit_vice

    assert config.vice is not None
    one = dataclasses.replace(
        config.vice.settings, dim=d, batch=batch, max_epochs=1, burn_in=0, window=1, k=0, lr=1e-4
    )
    rows = torch.from_numpy(triplets_of(m, steps * batch))
    return fastest(lambda: fit_vice(rows, None, objects=m, settings=one))


def _vice(config: Config, known: dict[str, float]) -> dict[str, float]:
    tiny, few, many = (
        vice_step(config, *shape) for shape in ((16, 4, 8), (1854, 100, 128), (1854, 100, 8192))
    )
    value = (many - few) / (100 * (8192 - 128))
    entry = (few - tiny - 128 * 100 * value) / (1854 * 100)
    one = vice_fit(config, 1854, 100, 128, 1)
    epoch = (one - few) / (1854 * 100)
    return {"vice epoch": epoch, "vice step": tiny, "vice value": value, "vice entry": entry}


def _labels(config: Config, known: dict[str, float]) -> dict[str, float]:
    from alignet.triplets import similarities
    from alignet.vice.soft_labels import soft_labels

    loc, scale, rows = (
        torch.rand(1854, 60),
        torch.full((1854, 60), 0.1),
        torch.from_numpy(triplets_of(1854, 10**6)),
    )
    few, many = (
        fastest(lambda samples=samples: soft_labels(loc, scale, rows, samples=samples, seed=0))
        for samples in (4, 12)
    )
    seconds = (many - few) / 8  # of a draw: checks and places of the triplets come once
    features = torch.randn(1854, 768)
    answered = (
        fastest(lambda: similarities(features, rows).argmax(1)) - 2 * 1854 * 1854 * 768 * known["product"]
    )
    return {"answer": answered / 10**6, "lookup": (seconds - 2 * 1854 * 1854 * 60 * known["product"]) / 10**6}


def _map(config: Config, known: dict[str, float]) -> dict[str, float]:
    from alignet.teacher.fit_affine_map import fit_map

    m, p, n, b = 1200, 384, 200_000, 65_536
    features, rows = torch.randn(m, p), torch.from_numpy(triplets_of(m, n))
    targets = torch.softmax(torch.randn(n, 3), 1)
    settings = DistillSettings("scalar", "sgd", 1, b, (1.0,), (1e-6,), 2, 0)

    def run(steps: int) -> float:
        short = dataclasses.replace(settings, steps=steps)
        return fastest(lambda: fit_map(features, rows, targets, penalty=1.0, lr=1e-6, settings=short), 3)

    one, more = run(1), run(11)
    step = (more - one) / 10
    products = (2 * 2 * m * p * p + 3 * 2 * m * m * p) * known["product"]
    return {"map triplet": (step - products) / b, "map row": (one - step) / n}


def _clusters(config: Config, known: dict[str, float]) -> dict[str, float]:
    from alignet.teacher.clusters import fit_clusters

    rows = np.random.default_rng(0).standard_normal((50_000, 256), dtype=np.float32)
    threads = torch.get_num_threads()

    def run(iterations: int) -> float:
        return fastest(lambda: fit_clusters(rows, k=500, seed=0, iterations=iterations, threads=threads), 2)

    return {"distance": (run(6) - run(1)) / 5 / (2 * 50_000 * 256 * 500)}


def _triplets(config: Config, known: dict[str, float]) -> dict[str, float]:
    from alignet.teacher.labelling import label
    from alignet.teacher.sampling import cluster_boundary

    assignment = np.random.default_rng(0).integers(0, 500, 1_281_167)
    few, many = (fastest(lambda n=n: cluster_boundary(assignment, n, 0), 2) for n in (10_000, 1_000_000))
    draw = (many - few) / (1_000_000 - 10_000)
    grouped = (few - 10_000 * draw) / len(assignment)
    with tempfile.TemporaryDirectory() as folder:
        features = stored_features(Path(folder), 100_000, 1152)
        drawn = cluster_boundary(assignment[:100_000], 50_000, 0)
        seconds = fastest(lambda: label(features, drawn), 2)
    return {"draw": draw, "grouped image": grouped, "label value": seconds / (50_000 * 1152)}


def stored_features(folder: Path, images: int, width: int) -> np.ndarray:
    """Random features in half precision, memory-mapped from a file."""
    path, rng = folder / "features.npy", np.random.default_rng(0)
    held = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(images, width))
    for start in range(0, images, 1 << 14):
        held[start : start + (1 << 14)] = rng.standard_normal(
            (len(held[start : start + (1 << 14)]), width), np.float32
        )
    held.flush()
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _networks(config: Config, known: dict[str, float]) -> dict[str, float]:
    import timm

    from alignet.plan.networks import counted

    found = {}
    kinds = (("transformer", "vit_small_patch16_224", 8), ("convolution", "tf_efficientnet_lite0", 16))
    for kind, name, batch in kinds:
        network, module = counted(name, {}), timm.create_model(name, num_classes=0).eval()
        images = torch.randn(batch, 3, 224, 224)

        def forward(module: Any = module, images: Any = images) -> None:
            with torch.no_grad():
                module(images)

        def both(module: Any = module, images: Any = images) -> None:
            module(images).square().mean().backward()
            module.zero_grad()

        found[kind] = fastest(forward, 3) / (batch * network.forward)
        found[f"trained {kind}"] = fastest(both, 3) / (batch * network.training)
    return found


def jpeg(side: tuple[int, int], coarse: int = 48, quality: int = 90) -> bytes:
    """A JPEG file of smoothed noise."""
    from PIL import Image

    field = np.random.default_rng(0).integers(0, 256, (coarse, coarse, 3)).astype(np.uint8)
    image = np.asarray(Image.fromarray(field).resize(side, Image.Resampling.BICUBIC), np.float32)
    image = image + np.random.default_rng(1).normal(0, 12, image.shape)
    held = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(held, "JPEG", quality=quality)
    return held.getvalue()


def _reading(config: Config, known: dict[str, float]) -> dict[str, float]:
    """On one core, divided by the cores: a large and a small photograph make two equations."""
    from alignet import load as load_model
    from alignet.data.pixels import open_image

    model = load_model("timm:tf_efficientnet_lite0", weights="random")
    seconds, sizes = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(((250, 190), (1000, 750))):
            path = Path(folder) / f"{number}.jpg"
            path.write_bytes(jpeg(side))
            sizes.append(path.stat().st_size)
            seconds.append(fastest(lambda path=path: model.encoder.transform(open_image(path)), 20))
    byte = (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
    cores = config.plan.machines["2cores"].cores
    return {"decoded byte": byte / cores, "image": max(seconds[0] - byte * sizes[0], 0.0) / cores}


def _student(config: Config, known: dict[str, float]) -> dict[str, float]:
    from alignet.student.batches import Comparison, in_batch_loss

    size = 96
    student, teacher = torch.randn(size, 64), torch.randn(size, 64)
    compare = Comparison("kl", 1.0, 10.0)
    grams = student @ student.T, teacher @ teacher.T
    loss = fastest(lambda: in_batch_loss(*grams, compare))
    parameter = torch.nn.Parameter(torch.randn(8_000_000))
    start, parameter.grad = parameter.detach().clone(), torch.randn(8_000_000)
    adam = torch.optim.Adam([parameter], lr=1e-4, fused=True)

    def step() -> None:
        adam.step()
        with torch.no_grad():
            parameter.lerp_(start, 1e-4)
            (parameter - start).norm().item()

    return {
        "in-batch triplet": loss / (size * (size - 1) * (size - 2) // 6),
        "parameter": fastest(step) / 8_000_000,
    }


def _others(config: Config, known: dict[str, float]) -> dict[str, float]:
    from alignet.plan.formulas import ridge
    from alignet.teacher.smoothing import smooth
    from alignet.world.concepts import make_concepts
    from alignet.world.drawing import BACKGROUNDS, draw

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1500, 512)), rng.standard_normal((1500, 384))
    solved = fastest(lambda: smooth(x, y, [0.3]), 3) / ridge(1500, 512, 384).flops
    block = bytes(32 << 20)
    hashed = fastest(lambda: hashlib.sha256(block).digest()) / len(block)
    settings = load([]).world
    assert settings is not None
    looks = make_concepts(settings).looks

    def pictures() -> None:
        for row in range(50):
            image = draw(looks[row % len(looks)], row % len(BACKGROUNDS), settings.size, rng)
            image.save(io.BytesIO(), "PNG")

    picture = fastest(pictures, 2) / 50 / settings.size**2
    return {"double": solved, "hashed byte": hashed / 2, "picture": picture}
