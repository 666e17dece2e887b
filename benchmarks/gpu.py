"""What a GPU does: VICE, the in-batch term, fine-tuning and embedding, against the baselines of the other files there.

Left out by `python -m benchmarks` where there is no GPU. Both sides run on the GPU, in float32 without reduced products
unless a side's name says bf16. With the folder of real choices (--photos) the fit of VICE is measured as well.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignet.backbones import Backbone, Encoder, load_encoder
from alignet.pipeline.cli import load
from alignet.pipeline.torch_setup import set_up
from alignet.student.batches import PoolTeacher
from alignet.vice.fit import fit_vice
from alignet.vice.graphed import GraphedEngine
from alignet.vice.soft_labels import mean_probabilities
from benchmarks import finetune, in_batch, published_vice
from benchmarks.embedding import draw, photographs
from benchmarks.frame import Case, Floor, Side
from benchmarks.vice import (
    BOTH,
    CLOSE,
    DIM,
    KEPT,
    OURS,
    PRIOR,
    random_triplets,
    start,
    step_floor,
    taking_steps,
)
from benchmarks.vice_steps import OBJECTS, PUBLISHED, choices

HELD = 32 * 10**9  # bytes that the gather of the in-batch baseline may take
VIT_B = "vit_base_patch16_224"
SO400M = "vit_so400m_patch14_siglip_384"
OPERATIONS = {
    VIT_B: 2 * 17.58e9,
    SO400M: 2 * 335.4e9,
}  # of one forward pass, by timm's table of multiply-adds


def cases(quick: bool) -> Iterator[Case]:
    """Everything; where `quick`, in small."""
    set_up(dataclasses.replace(load([]).runtime, device="cuda", threads=os.cpu_count() or 1))
    yield _vice_step(128, 20 if quick else 200)
    yield _vice_step(4096, 20 if quick else 200)
    if "ALIGNET_PHOTOS" in os.environ:
        yield _fit(Path(os.environ["ALIGNET_PHOTOS"]), quick)
    else:
        print("  without --photos: the fit of the real choices is left out", flush=True)
    yield _soft_labels(100_000 if quick else 1_000_000)
    # features of both, three products and the student's gradient: as benchmarks.in_batch counts
    block = (10**9 if quick else HELD) // (12 * 4 * in_batch.WIDTH)
    yield in_batch.case(128 if quick else 512, block, device="cuda")
    yield from _fine_tuning(16 if quick else 256)
    with tempfile.TemporaryDirectory() as folder:
        photos, count = Path(folder) / "photos", 64 if quick else 1000
        photos.mkdir()
        with ProcessPoolExecutor() as pool:
            list(pool.map(draw, [photos / f"{number:04d}.jpg" for number in range(count)], range(count)))
        yield _embedding(photos, VIT_B, "float32")
        yield _embedding(photos, SO400M, "bf16")


def _vice_step(batch: int, steps: int) -> Case:
    ours, theirs = taking_steps(GraphedEngine, batch, steps, steps, "cuda")
    return Case(
        f"step of VICE, {OBJECTS} x {DIM}, batch {batch}", "step", Side("alignet, replayed graph", ours, steps),
        Side("one-hot rows, autograd, Adam, as published", theirs, steps), 1, floor=step_floor(batch),
        note="both sides draw noise in each step; the launches of its operations, not the arithmetic, take the time",
    )  # fmt: skip


def _fit(folder: Path, quick: bool) -> Case:
    train, held = choices(folder)
    rows, eye, steps = train.cuda(), torch.eye(OBJECTS, device="cuda"), 20 if quick else 200
    loc, log_scale = (tensor.cuda() for tensor in start(0))
    model = published_vice.Vice(loc, log_scale)
    adam = torch.optim.Adam(model.parameters(), lr=PUBLISHED.lr)
    settings = dataclasses.replace(OURS, max_epochs=2) if quick else OURS
    fits = []

    def ours() -> None:
        fits[:] = [fit_vice(train, held, objects=OBJECTS, settings=settings, device="cuda")]

    def theirs() -> None:
        for index in range(steps):
            batch = rows[PUBLISHED.batch * index : PUBLISHED.batch * (index + 1)]
            published_vice.step(model, adam, eye, batch, n=len(train), **PRIOR)

    def check() -> Mapping[str, float]:
        found, kept = fits[0].validation["cross_entropy"], len(fits[0].kept)
        if not quick:
            assert found < BOTH.nats + CLOSE, found
        return {
            "held-out nats": found, "published": BOTH.nats, "dimensions": kept, "dimensions, published": BOTH.kept,
            "epochs": len(fits[0].curves["nll"]),
        }  # fmt: skip

    return Case(
        "fit of 900,000 choices" + (", 2 epochs only" if quick else ""), "fit",
        Side(f"alignet, batch {OURS.batch}, rate {OURS.lr}", ours),
        Side(f"published: {BOTH.steps:,} steps of batch {PUBLISHED.batch}, {steps} measured", theirs,
             steps / BOTH.steps),
        1, rounds=1 if quick else 3, check=check, note="as in the file vice, with both sides on the GPU, compared by "
        "nats alone: its noise is another, and fits of one setting end with 58 to 72 dimensions",
    )  # fmt: skip


def _soft_labels(number: int) -> Case:
    triplets, generator = random_triplets(number, 5).cuda(), torch.Generator().manual_seed(6)
    loc = torch.rand((OBJECTS, KEPT), generator=generator).cuda()
    scale, eye, rows = torch.full_like(loc, 0.2), torch.eye(OBJECTS, device="cuda"), 128 * 50
    noise = torch.randn((2, *loc.shape), generator=torch.Generator().manual_seed(7)).cuda()
    return Case(
        f"soft labels, R = 50, {number:,} triplets, {OBJECTS} x {KEPT}", "triplet and draw",
        Side("alignet", lambda: mean_probabilities(loc, scale, triplets, samples=50, seed=7), 50 * number),
        Side("one-hot rows by batches of 128, as published",
             lambda: published_vice.probabilities(loc, scale, eye, triplets[:rows], noise, 128), 2 * rows), 1,
    )  # fmt: skip


def _fine_tuning(size: int) -> Iterator[Case]:
    """A step of a ViT-B/16 against bare loops in float32 and in bfloat16."""
    settings = dataclasses.replace(finetune.SETTINGS, batch=size, steps=6)
    few = dataclasses.replace(settings, steps=2)
    images = torch.randint(
        0, 256, (2 * size, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    teacher = PoolTeacher(
        np.random.default_rng(0).normal(size=(len(images), 256)).astype(np.float32) / 16, None
    )
    backbone = Backbone("timm", VIT_B, "random", {"num_classes": 0}, 0, "pooled")

    def encoder() -> Encoder:
        return load_encoder(backbone, device="cuda", seed=0)

    ours = Side("ours, bf16", partial(finetune.ours, encoder(), images, teacher, settings), settings.steps)
    full = partial(finetune.bare, encoder(), images, teacher, few, bf16=False)
    half = partial(finetune.bare, encoder(), images, teacher, settings, bf16=True)

    def check() -> Mapping[str, float]:
        short = dataclasses.replace(settings, batch=16, steps=3)
        own, bare = (
            run(encoder(), images, teacher, short, **options)
            for run, options in ((finetune.ours, {}), (finetune.bare, {"bf16": True}))
        )
        away = float(np.abs(own - bare).max())
        assert away < 1e-3, (own, bare)
        return {"largest difference of losses": away}

    floor = Floor(
        operations=3 * OPERATIONS[VIT_B] * size, precision="bfloat16", text="matrix products of forward and backward"
    )  # fmt: skip
    what = f"fine-tuning step, ViT-B/16, {size} images"
    note = (
        "random weights; pixels in the host's memory: ours fetches the next ones while the GPU computes, the bare "
        "loops do not"
    )
    yield Case(what, "step", ours, Side("bare loop, float32", full, few.steps), 1.8, floor, note=note)
    yield Case(
        f"{what}: all of ours against its own bare loop", "step", ours,
        Side("bare loop, bf16, our loss, fused Adam", half, settings.steps), 0.97, floor, check=check, note=note,
    )  # fmt: skip


def _embedding(photos: Path, name: str, compute: str) -> Case:
    from alignet import api
    from alignet.backbones.embedding import given_images, write_embedding

    model = api.load(f"timm:{name}", weights="random", seed=0, device="cuda")
    source, cores, count = given_images(photos), os.cpu_count() or 1, len(list(photos.iterdir()))
    found: dict[str, np.ndarray] = {}

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_embedding(
                model, source, folder=Path(folder), checkpoints=Path(folder) / "checkpoints", batch=64, threads=cores,
                decode="exact", compute=compute, format="npy", precision="float32", unreadable="stop", shard=4096,
            )  # fmt: skip
            found["ours"] = np.load(Path(folder) / "features.npy")

    loop = _plain_loop(model.encoder.module, photos, cores, compute)

    def theirs() -> None:
        found["theirs"] = loop()

    def check() -> Mapping[str, float]:
        one, other = (found[side].astype(np.float64) for side in ("ours", "theirs"))
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines.min() > (0.999 if compute == "float32" else 0.98), cosines.min()
        seconds = _forward(model, compute)
        return {
            "largest 1 - cosine": 1 - float(cosines.min()),
            "bare forward, ms an image": 1e3 * seconds,
            "TFLOP/s of the bare forward": OPERATIONS[name] / seconds / 1e12,
        }

    precision = "bfloat16" if compute == "bf16" else "float32"
    return Case(
        f"embedding {count} JPEGs of 1024 px, {name}, {compute}", "image", Side("embed", ours, count),
        Side(f"plain timm loop, {cores} reading processes, {compute}", theirs, count), 1,
        Floor(operations=OPERATIONS[name], precision=precision, text="the network's products"), rounds=3, check=check,
        note="random weights; files in the page cache",
    )  # fmt: skip


def _plain_loop(
    module: torch.nn.Module, photos: Path, workers: int, compute: str
) -> Callable[[], np.ndarray]:
    import timm

    transform = timm.data.create_transform(
        **timm.data.resolve_data_config({}, model=module), is_training=False
    )
    pictures = photographs(sorted(photos.glob("*.jpg")), transform)

    def run() -> np.ndarray:
        parts = []
        loader = torch.utils.data.DataLoader(pictures, batch_size=64, num_workers=workers, pin_memory=True)
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=compute == "bf16"):
            for images in loader:
                features = module.forward_features(images.cuda(non_blocking=True))
                parts.append(module.forward_head(features, pre_logits=True).float().cpu().numpy())
        return np.concatenate(parts)

    return run


def _forward(model: Any, compute: str) -> float:
    """Seconds an image of the network alone, 64 at a time."""
    from alignet.backbones.encoder import encode

    encoder = model.encoder
    side = encoder.data_config["input_size"][-1]
    images = torch.randint(0, 256, (64, 3, side, side), dtype=torch.uint8, device="cuda")
    best = float("inf")
    for _ in range(6):
        torch.cuda.synchronize()
        began = time.perf_counter()
        encode(encoder, images, compute)
        torch.cuda.synchronize()
        best = min(best, (time.perf_counter() - began) / len(images))
    return best
