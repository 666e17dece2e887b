"""Images that a network takes for the same: against a loop with Adam on the pixels, as one would write it.

    photographs -> images from noise of nearly the same representation by EfficientNet-Lite0 and Lite1

With a folder of photographs (--photos) that has the networks' weights; without one there is nothing to measure. The
loop makes 300 steps of torch.optim.Adam at a rate of .02 and calls loss.backward() with a
network whose weights want gradients, as tutorials do; a second row has the loop with the weights frozen. Ours is asked
for the loop's mean error for every image, so that its match is no worse. Photographs: of the tune half.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.frame import Case, Limit, Side

NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1")
STEPS, LR, STOP = 300, 0.02, 0.05
SHOWN = ("free", "human", "adversarial")  # conf's methods


def cases(quick: bool) -> Iterator[Case | Limit]:
    """Time at equal match, and errors and 2AFC of three methods."""
    folder = Path(os.environ.get("ALIGNET_PHOTOS", ""))
    if not (folder / f"{NETWORKS[0]}.safetensors").is_file():
        return
    steps, count = (30, 2) if quick else (STEPS, 2)
    encoder = network(folder, NETWORKS[0])
    images = photographs(encoder, folder, count)
    for frozen in (False, True):
        found: dict[str, Tensor] = {}
        loop = plain(network(folder, NETWORKS[0]), images, steps, found, frozen)
        what = "weights frozen" if frozen else "loss.backward()"
        yield Case(
            f"inversion to the error that {steps} steps of Adam reach, {what}", "image",
            Side("alignet, free", ours(encoder, images, found, steps), count), Side("a loop of Adam", loop, count),
            1.0 if frozen else 2.0, rounds=1, check=lambda found=found: errors(encoder, images, found),
        )  # fmt: skip
    for name, methods in (NETWORKS[0], SHOWN), (NETWORKS[1], SHOWN[:1]):
        encoder = network(folder, name)
        images = photographs(encoder, folder, 2 if quick else 4)
        for method in methods:
            yield matched(encoder, images, method, steps)


def network(folder: Path, name: str) -> Any:
    """The encoder with its trained weights."""
    from alignet import api

    return api.load(f"timm:{name}", weights=str(folder / f"{name}.safetensors")).encoder


def photographs(encoder: Any, folder: Path, count: int) -> Tensor:
    """The first photographs of the tune half, (count, 3, H, W) float32 in [0, 1]."""
    from PIL import Image

    with open(folder / "concepts.csv", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == "tune" and row["photo"]]
    paths = [folder / "images" / "things" / Path(row["photo"]).name for row in rows[:count]]
    return torch.stack([encoder.pixels(Image.open(path).convert("RGB")) for path in paths]).float() / 255


def noise_for(images: Tensor) -> Tensor:
    """Where searches start: a draw of N(0, 1) for each image."""
    from alignet.config import Noise
    from alignet.invariances.invert import noise

    drawn = np.stack([noise(Noise(0.0, 1.0), images.shape[1:], 0, row) for row in range(len(images))])
    return torch.from_numpy(drawn).float() / 255


def plain(
    encoder: Any, images: Tensor, steps: int, found: dict[str, Tensor], frozen: bool
) -> Callable[[], Any]:
    """Adam on the pixels of one image at a time, the iterate of the lowest error kept; the first call warms up."""
    module = encoder.module.eval().requires_grad_(not frozen)
    mean, std = (torch.tensor(encoder.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))

    def g(pixels: Tensor) -> Tensor:
        return module.forward_head(module.forward_features((pixels - mean) / std), pre_logits=True)

    calls = [min(2, steps), steps]

    def run() -> None:
        made, passes = [], calls.pop(0) if len(calls) > 1 else calls[0]
        for row, start in enumerate(noise_for(images)):
            with torch.no_grad():
                wanted = g(images[row, None])
            pixels = start[None].clone().requires_grad_()
            optimizer = torch.optim.Adam([pixels], lr=LR)
            best, kept = torch.inf, start
            for _ in range(passes):
                optimizer.zero_grad()
                loss = (g(pixels) - wanted).norm() / wanted.norm()
                if loss.item() < best:
                    best, kept = loss.item(), pixels.detach()[0].clone()
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    pixels.clamp_(0, 1)
            module.zero_grad()
            made.append(kept)
        if passes == steps:
            found["loop"] = torch.stack(made)

    return run


def ours(encoder: Any, images: Tensor, found: dict[str, Tensor], steps: int) -> Callable[[], Any]:
    """The method `free`, all images at once, each until it is as good as the loop's."""
    from alignet.invariances.invert import invert

    method = of_conf("free", steps)

    def run() -> None:
        if "loop" not in found:  # the warm-up comes before the loop's
            found["ours"] = invert(
                represent(encoder), images, noise_for(images), replace(method, steps=2)
            ).images
            return
        stop = errors(encoder, images, found)["mean error, loop"]
        found["ours"] = invert(
            represent(encoder), images, noise_for(images), replace(method, stop=stop)
        ).images

    return run


def of_conf(name: str, steps: int) -> Any:
    """One of conf's methods, with fewer steps where so many are asked for."""
    from alignet.pipeline.cli import load

    method = load([]).invert.methods[name]
    return replace(method, steps=min(method.steps, steps), finish=min(method.finish, steps // 3))


def represent(encoder: Any) -> Any:
    """The network as a search uses it; folding it is part of the time."""
    from alignet.invariances.representation import Representation

    return Representation(encoder).searching()


def errors(encoder: Any, images: Tensor, found: dict[str, Tensor]) -> dict[str, float]:
    """Mean and largest relative errors of what was found, by the network itself."""
    from alignet.invariances.invert import relative_error
    from alignet.invariances.representation import Representation

    g, made = Representation(encoder), {}
    with torch.no_grad():
        wanted = g(images)
        for name, pixels in found.items():
            error = relative_error(g(pixels), wanted)
            made |= {f"mean error, {name}": error.mean().item(), f"largest error, {name}": error.max().item()}
    return made


def matched(encoder: Any, images: Tensor, name: str, steps: int) -> Limit:
    """The largest relative error of a method against the limit of a match; errors and 2AFC in its note."""
    from alignet.invariances.invert import invert, relative_error
    from alignet.invariances.perceptual import Pixels
    from alignet.invariances.representation import Representation

    method, start, distance, g = of_conf(name, steps), noise_for(images), Pixels(), Representation(encoder)
    keys = [(0, row) for row in range(len(images))]
    far = distance if method.distance else None
    found = invert(g.searching(), images, start, method, distance=far, keys=keys)
    with torch.no_grad():
        error = relative_error(g(found.images), g(images))
        eight = relative_error(g((found.images * 255).round() / 255), g(images))
        right = distance(found.images, images) < distance(found.images, start)
    note = (
        f"mean {error.mean():.3f}, in 8 bit {eight.mean():.3f}; matched {(error <= STOP).sum()} of {len(error)}; 2AFC "
        f"by pixels {right.double().mean():.2f}; {found.steps.double().mean():.0f} steps"
    )
    return Limit(
        f"{encoder.backbone.architecture}, {name}: relative error, median", "relative", [error.median().item()], STOP,
        note=note,
    )  # fmt: skip
