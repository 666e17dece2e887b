"""A step of fine-tuning a ViT-S/16 on 48 images of 224 px: ours in bfloat16, a bare loop in float32, and in bfloat16.

Both bare loops are what one writes by hand: timm's forward, all triplets of the batch from a list, backward, Adam, and
a Python loop that pulls each parameter towards its start. The one in bfloat16 has our attention, loss and fused Adam:
what ours takes longer is what the rest of it costs, reading images, checks, curves. Each run begins with an optimizer
of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from alignet.backbones import Backbone, Encoder, load_encoder
from alignet.config import FinetuneSettings
from alignet.pipeline.torch_setup import keep_freed_memory
from alignet.student.batches import ImageBatches, PoolTeacher
from alignet.student.finetune import finetune
from alignet.student.in_batch_loss import Comparison, in_batch_loss
from alignet.student.network import attend_by_products
from alignet.triplets import all_triplets
from benchmarks.frame import Case, Floor, Limit, Side

VIT = Backbone("timm", "vit_small_patch16_224", "random", {"num_classes": 0}, 0, "pooled")
OPERATIONS = 3 * 2 * 4.25e9  # of one image, forward and backward; timm counts 4.25e9 multiply-adds
SETTINGS = FinetuneSettings(
    sampling="in_batch", batch=48, accumulate=1, clusters_per_batch=0, loss="kl", tau_teacher=1.0, tau_student=100.0,
    steps=1, warmup=0, lr=1e-4, beta1=0.9, beta2=0.999, epsilon=1e-8, pull=10.0, retain=0.0, head=0,
    flip=0.0, crop=1.0, colour=0.0, grey=0.0, precision="bf16", seed=0, frozen=(), center_teacher=False,
    shuffle_teacher=False,
)  # fmt: skip


def cases(quick: bool) -> Iterator[Case | Limit]:
    """Against float32, against our own bare loop, and what the triplet term costs in a large batch."""
    from dataclasses import replace

    keep_freed_memory()
    settings = replace(SETTINGS, batch=6) if quick else SETTINGS
    longer = replace(settings, steps=1 if quick else 2)  # a few percent are to be seen
    pool = 2 * settings.batch
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (pool, 3, 224, 224), dtype=torch.uint8, generator=draw)
    teacher = PoolTeacher(np.random.default_rng(0).normal(size=(pool, 256)).astype(np.float32) / 16, None)
    # each side keeps a network, whose weights no run moves far
    own = partial(ours, _encoder(), images, teacher, settings)
    plain = partial(bare, _encoder(), images, teacher, settings, bf16=False)
    long = partial(ours, _half(), images, teacher, longer)
    half = partial(bare, _half(), images, teacher, longer, bf16=True)
    what = f"fine-tuning step, ViT-S/16, {settings.batch} images"
    floor = Floor(
        operations=OPERATIONS * settings.batch,
        precision="bfloat16",
        text="matrix products of forward and backward",
    )
    yield Case(
        what, "step", Side("ours, bf16", own, settings.steps), Side("bare loop, float32", plain, settings.steps),
        goal=1.8, floor=floor, check=lambda: _check(images, teacher, settings),
        note="random weights, pixels in memory, no augmentation; matrix products are what bfloat16 makes faster, "
        "and the rest (normalisation, softmax, GELU, the optimizer) is not",
    )  # fmt: skip
    yield Case(
        f"{what}: all of ours against its own bare loop", "step", Side("ours, bf16", long, longer.steps),
        Side("bare loop, bf16, our attention, loss, fused Adam", half, longer.steps), goal=0.97,
        note="0.97 is an overhead of 3%",
    )  # fmt: skip
    yield _share(images, quick)


def ours(encoder: Encoder, images: Tensor, teacher: PoolTeacher, settings: FinetuneSettings) -> np.ndarray:
    """The losses of `finetune`."""
    return finetune(encoder, images, teacher, settings).curves["loss"]


def _encoder() -> Encoder:
    return load_encoder(VIT, seed=0)


def _half() -> Encoder:
    encoder = _encoder()
    attend_by_products(encoder)
    return encoder


def bare(
    encoder: Encoder, images: Tensor, teacher: PoolTeacher, settings: FinetuneSettings, *, bf16: bool
) -> np.ndarray:
    """The losses of the same steps on the same images."""
    model, losses = encoder.module, []
    batches = ImageBatches(
        teacher, len(images), batch=settings.batch, parts=1, clusters=0, seed=settings.seed
    )
    initial = [parameter.detach().clone() for parameter in model.parameters()]
    adam = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, eps=settings.epsilon, weight_decay=0.0, fused=bf16, foreach=False
    )
    term: Callable[[Tensor, Tensor], Tensor] = _closed if bf16 else _listed
    for step in range(settings.steps):
        rows = batches.rows(step, 0)
        batch = images[rows].to(encoder.device)
        with torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=bf16):
            features = model(encoder.normalise(batch))
        loss = term(features.float(), torch.from_numpy(teacher.features[rows]).to(encoder.device))
        rate = settings.lr * 0.5 * (1 + np.cos(np.pi * step / settings.steps))
        for group in adam.param_groups:
            group["lr"] = rate
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            for parameter, start in zip(model.parameters(), initial, strict=True):
                parameter.sub_(parameter - start, alpha=rate * settings.pull)
        losses.append(loss.item())
    _ = {name: held.cpu().clone() for name, held in model.state_dict().items()}  # what a loop is run for
    return np.array(losses)


def _listed(features: Tensor, answers: Tensor) -> Tensor:
    i, j, k = all_triplets(len(features)).to(features.device).unbind(1)
    own, other = features @ features.T, answers @ answers.T
    pairs = (torch.stack([gram[i, j], gram[i, k], gram[j, k]], 1) for gram in (other, own))
    loss = Comparison(SETTINGS.loss, SETTINGS.tau_teacher, float(SETTINGS.tau_student))(*pairs).mean()
    loss.backward()
    return loss.detach()


def _closed(features: Tensor, answers: Tensor) -> Tensor:
    gram = features @ features.T
    compare = Comparison(SETTINGS.loss, SETTINGS.tau_teacher, float(SETTINGS.tau_student))
    loss, gradient = in_batch_loss(gram, answers @ answers.T, compare)
    gram.backward(gradient)
    return loss


def _check(images: Tensor, teacher: PoolTeacher, settings: FinetuneSettings) -> Mapping[str, float]:
    """Three steps of ours, each after the last one's update: in float32 the losses of the bare loop in float32, in
    bfloat16 those of its own."""
    from dataclasses import replace

    settings = replace(settings, steps=3, batch=6)
    full, half = (
        np.abs(
            ours(_encoder(), images, teacher, replace(settings, precision=precision))
            - bare(
                _half() if precision == "bf16" else _encoder(),
                images,
                teacher,
                settings,
                bf16=precision == "bf16",
            )
        )
        for precision in ("float32", "bf16")
    )
    assert full.max() < 1e-5, full
    assert half.max() < 1e-4, half
    return {"largest difference of losses, float32": full.max(), "bf16": half.max()}


def _share(images: Tensor, quick: bool) -> Limit:
    """The triplet term of 512 images over forward and backward of as many."""
    size, few = (128, 2) if quick else (512, 16)
    encoder = _half()
    batch, features = encoder.normalise(images[:few]), torch.randn((size, encoder.width)) / 20

    def network() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            encoder.module(batch).float().sum().backward()

    found = []
    for _ in range(6):
        began = time.perf_counter()
        network()
        middle = time.perf_counter()
        _closed(features.clone().requires_grad_(), features)
        ended = time.perf_counter()
        found.append(100 * (ended - middle) / ((middle - began) * size / few))
    return Limit(
        f"all triplets of {size} images beside forward and backward of a ViT-S", "%", found[1:], 5,
        note=f"the network in bfloat16, {few} images at a time",
    )  # fmt: skip
