"""The smallest perturbation: against foolbox's DDN, and against the paper's algorithm as one would write it.

    photographs that EfficientNet-Lite0 names right -> the nearest images that it names otherwise

With a folder of photographs (--photos) that has the network's weights; without one there is nothing to measure, since a
network with random weights is fooled by next to nothing. Both sides get a network whose weights need no gradient but
for the plain loop, which calls loss.backward() as tutorials do; a second row has the loop without those gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.frame import Case, Limit, Side

NETWORK = "tf_efficientnet_lite0"
LOW, HIGH, THRESHOLD, STEPS, STEP = 0.001, 10.0, 0.01, 3, 0.5  # Algorithm 1 as conf/ has it


def cases(quick: bool) -> Iterator[Case | Limit]:
    """Time and norm of ours and of the baselines on the same images."""
    folder = os.environ.get("ALIGNET_PHOTOS", "")
    if not (Path(folder) / f"{NETWORK}.safetensors").is_file():
        return
    classify = network(Path(folder))
    images, labels = right(classify, Path(folder), 4 if quick else 16)
    found: dict[str, Tensor] = {}
    fast, ddn = ours(classify, images, labels, "fast", found), by_foolbox(classify, images, labels, found)
    count = len(images)
    yield Case(
        "smallest l2 perturbation, 20 steps", "image", Side("alignet, fast", fast, count),
        Side("foolbox, DDN of 50 steps", ddn, count), 2.0, rounds=3, check=lambda: lengths(images, found),
    )  # fmt: skip
    norms = lengths(images, found)
    yield Limit(
        "mean l2 norm of what they find: ours over DDN's", "ratio",
        [norms["mean norm, fast"] / norms["mean norm, ddn"]], 1.0,
        note=f"{norms['mean norm, fast']:.4f} and {norms['mean norm, ddn']:.4f} over {count} photographs",
    )  # fmt: skip
    few, of_few = images[: 2 if quick else 8], labels[: 2 if quick else 8]
    batched = ours(classify, few, of_few, "algorithm1", found)
    for backward in (True, False):
        what = "loss.backward()" if backward else "gradients by pixels alone"
        plain = algorithm1(network(Path(folder)), few, of_few, found, backward)
        yield Case(
            f"Algorithm 1, plain loop with {what}", "image", Side("alignet, algorithm1", batched, len(few)),
            Side("a loop over images", plain, len(few)), 2.0 if backward else 1.3, rounds=3, check=lambda: same(found),
        )  # fmt: skip


def network(folder: Path) -> Any:
    """The network with its trained weights."""
    from alignet import api
    from alignet.backbones.gradients import Classifier

    return Classifier(api.load(f"timm:{NETWORK}", weights=str(folder / f"{NETWORK}.safetensors")).encoder)


def right(classify: Any, folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Photographs (count, 3, H, W) float32 in [0, 1] that the network names right, and their classes."""
    from PIL import Image

    from alignet.pipeline.payloads import class_numbers

    names = sorted(path.name for path in (folder / "images" / "things").glob("*.jpg"))
    labels = class_numbers(names, None, "class")
    kept: list[Tensor] = []
    classes: list[int] = []
    for row in np.random.default_rng(0).permutation(len(names)):
        picture = Image.open(folder / "images" / "things" / names[row]).convert("RGB")
        pixels = classify.pixels(classify.encoder.pixels(picture)[None])
        with torch.no_grad():
            if int(classify(pixels).argmax()) == labels[row]:
                kept.append(pixels)
                classes.append(int(labels[row]))
        if len(kept) == count:
            break
    return torch.cat(kept), torch.tensor(classes)


def ours(
    classify: Any, images: Tensor, labels: Tensor, method: str, found: dict[str, Tensor]
) -> Callable[[], Any]:
    """One of conf's methods, 16 images at once, as the stage takes them."""
    from alignet.attacks.attack import _by_method
    from alignet.pipeline.cli import load

    settings = load([]).attack.methods[method]

    def run() -> None:
        parts = [
            _by_method(classify, images[start : start + 16], labels[start : start + 16], settings).images
            for start in range(0, len(images), 16)
        ]
        found[method] = torch.cat(parts)

    return run


def by_foolbox(classify: Any, images: Tensor, labels: Tensor, found: dict[str, Tensor]) -> Callable[[], Any]:
    """DDN of 50 steps, 16 images at once."""
    import foolbox

    class Network(torch.nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            return classify(pixels)

    model = foolbox.PyTorchModel(Network().eval(), bounds=(0, 1), device="cpu")

    def run() -> None:
        attack = foolbox.attacks.DDNAttack(steps=50)
        parts = [
            attack(model, images[start : start + 16], labels[start : start + 16], epsilons=None)[1]
            for start in range(0, len(images), 16)
        ]
        found["ddn"] = torch.cat(parts)

    return run


def algorithm1(
    classify: Any, images: Tensor, labels: Tensor, found: dict[str, Tensor], backward: bool
) -> Callable[[], Any]:
    """Algorithm 1 of Linsley et al. (2023), one image at a time."""
    module = classify.encoder.module.requires_grad_(backward)

    def attacked(image: Tensor, label: Tensor, eps: float) -> Tensor:
        moved = torch.zeros_like(image)
        for _ in range(STEPS):
            pixels = (image + moved).requires_grad_()
            loss = F.cross_entropy(classify(pixels), label)
            if backward:
                loss.backward()
                gradient = pixels.grad
                module.zero_grad()
            else:
                (gradient,) = torch.autograd.grad(loss, pixels)
            assert gradient is not None
            moved = moved + STEP * gradient / gradient.norm()
            moved = (image + moved * eps / moved.norm()).clamp(0, 1) - image
        return image + moved

    def run() -> None:
        parts = []
        for row in range(len(images)):
            image, label = images[row : row + 1], labels[row : row + 1]
            low, high = LOW, HIGH
            while high - low >= THRESHOLD:
                middle = low + (high - low) / 2
                moved = attacked(image, label, middle)
                with torch.no_grad():
                    turned = classify(moved).argmax() != label
                low, high = (low, middle) if turned else (middle, high)
            parts.append(attacked(image, label, middle))
        found["plain"] = torch.cat(parts)

    return run


def lengths(images: Tensor, found: dict[str, Tensor]) -> dict[str, float]:
    """Mean l2 norms of what was found."""
    return {
        f"mean norm, {name}": (attacked - images).flatten(1).norm(dim=1).mean().item()
        for name, attacked in found.items()
        if name in ("fast", "ddn")
    }


def same(found: dict[str, Tensor]) -> dict[str, float]:
    """How far the two ways of Algorithm 1 are apart: an image whose bisection meets a tie may end elsewhere."""
    apart = (found["algorithm1"] - found["plain"]).flatten(1).abs().amax(1)
    share = (apart < 1e-3).double().mean().item()
    assert share > 0.9, apart
    return {"share of images that end alike": share}
