"""Attack the images of a batch by one method, in float and in 8 bit; and check what was found.

pixels (b, 3, H, W) in [0, 1], classes -> `Attacked`: arrays as they are stored -> `verified`, from these arrays alone

What a method reports is not trusted: range and norm of what is stored are checked in float64, and the network answers
once more to exactly that. 8 bit has a search of its own, since rounding to levels undoes most small perturbations.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alignet.attacks.minimum_norm import Found, minimum_norm
from alignet.attacks.perturbation import (
    broken,
    each,
    lead,
    margins,
    norms,
    unit,
)
from alignet.attacks.pgd_search import pgd_search
from alignet.attacks.stored import as_float64, exact_norms, rounded
from alignet.backbones.gradients import Classifier
from alignet.config import FOOLBOX, AttackMethod

DOUBLINGS, HALVINGS = 10, 6  # of the search in 8 bit: up to 1,024 times the perturbation, then to 2% [ours]
ROUNDING = 1e-6  # by which a norm may exceed the largest one, relative: float32 projections end there


@torch.no_grad()
def attack(
    classify: Classifier, images: Tensor, labels: Tensor, method: AttackMethod, *, any_answer: bool = False
) -> dict[str, np.ndarray]:  # fmt: skip
    """The nearest images that are answered otherwise.

    images: (b, 3, H, W) uint8 or normalised float32, as `Encoder.pixels` gives them. labels: (b,) int64, the classes;
    -1 unknown. any_answer: whatever the network answers at first counts as right. Returns arrays with a row for each
    image: image, attacked (float32 in [0, 1]) and attacked8 (uint8), (b, 3, H, W); top1 (b,) int64; tried, no_gradient
    and blind (b,) bool. Rows that were not tried or not broken keep the image. ValueError for labels that are no class.

    blind: a step as long as what was found (or as the largest norm, where nothing was) towards grey or into noise,
    which needs no gradient, is answered otherwise as well: the gradients did not lead where they should.
    """
    pixels = classify.pixels(images.to(classify.device)).clamp(0, 1)
    logits = finite(classify(pixels))
    top1, labels = logits.argmax(1), labels.to(classify.device)
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise ValueError(
            f"labels: expected classes in 0..{logits.shape[1] - 1}, found {int(labels.max())}; number them as the "
            f"network's classifier does."
        )
    tried = torch.ones_like(top1, dtype=torch.bool) if any_answer else top1 == labels
    rows = tried.nonzero()[:, 0]
    clean, answers = pixels[rows], top1[rows]
    found = _by_method(classify, clean, answers, method)
    attacked, blind, no_gradient = pixels.clone(), torch.zeros_like(tried), torch.zeros_like(tried)
    attacked[rows[found.broken]] = found.images[found.broken]
    no_gradient[rows] = found.no_gradient
    blind[rows] = _blind(classify, clean, answers, found, method)
    eight = _levels(pixels)
    eight[rows] = _eight_bit(classify, clean, answers, found)
    stored = images if images.dtype == torch.uint8 else pixels
    made = {
        "image": stored, "attacked": attacked, "attacked8": eight, "top1": top1, "tried": tried,
        "no_gradient": no_gradient, "blind": blind,
    }  # fmt: skip
    return {name: value.contiguous().cpu().numpy() for name, value in made.items()}


@torch.no_grad()
def verified(
    classify: Classifier, arrays: dict[str, np.ndarray], method: AttackMethod, batch: int
) -> dict[str, np.ndarray]:  # fmt: skip
    """What holds of stored arrays of `attack`: to, to8 (b,) int64, the answers to the attacked images; broken, broken8
    (b,) bool, whether such an image was tried, lies in [0, 1] and within the largest norm, and is answered otherwise
    than at first; in 8 bit than the image rounded to 8 bit, which must be answered as at first. length, length8 (b,)
    float64: its norm, from the image, or in 8 bit from the rounded image. Norms and range in float64. ValueError for
    logits that are not finite.
    """
    made: dict[str, np.ndarray] = {}
    for ending in ("", "8"):
        attacked, first = arrays[f"attacked{ending}"], arrays["image"]
        same = arrays["tried"]
        if ending and first.dtype != np.uint8:
            first = rounded(first)
            same = same & (_answers(classify, first, batch) == arrays["top1"])
        to = _answers(classify, attacked, batch)
        values = as_float64(attacked).reshape(len(attacked), -1)
        valid = np.isfinite(values).all(1) & (values >= 0).all(1) & (values <= 1).all(1)
        length = exact_norms(first, attacked, method.norm)
        valid &= (length > 0) & (length <= method.high * (1 + ROUNDING))
        made |= {f"to{ending}": to, f"length{ending}": length}
        made[f"broken{ending}"] = same & valid & (to != arrays["top1"])
    return made


def _answers(classify: Classifier, images: np.ndarray, batch: int) -> np.ndarray:
    """The network's answers (b,) int64 to stored images."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch])
        pixels = pixels.to(torch.float32) / 255 if images.dtype == np.uint8 else pixels
        pixels = pixels.nan_to_num()  # such an image is no success, whatever it is answered
        found.append(finite(classify(pixels.to(classify.device))).argmax(1).cpu().numpy())
    return np.concatenate(found)


def finite(logits: Tensor) -> Tensor:
    """The logits; ValueError where one is not finite, which no attack could turn."""
    broken_rows = ~torch.isfinite(logits).all(1)
    if broken_rows.any():
        raise ValueError(
            f"attack: expected finite logits, found NaN or infinity for {int(broken_rows.sum())} of {len(logits)} "
            "images; check the network's weights."
        )
    return logits


def _by_method(classify: Classifier, images: Tensor, labels: Tensor, method: AttackMethod) -> Found:
    if not len(images):
        nothing = torch.zeros(0, dtype=torch.bool, device=images.device)
        return Found(images, nothing, nothing)
    if method.algorithm in FOOLBOX:
        from alignet.attacks.foolbox_attacks import by_foolbox

        return by_foolbox(classify, images, labels, method)
    if method.search is not None:
        return pgd_search(
            classify, images, labels, norm=method.norm, steps=method.steps, high=method.high, search=method.search
        )  # fmt: skip
    return minimum_norm(classify, images, labels, norm=method.norm, steps=method.steps, high=method.high)


def _blind(
    classify: Classifier, images: Tensor, labels: Tensor, found: Found, method: AttackMethod
) -> Tensor:
    """Whether a step of the same length that needs no gradient is answered otherwise, (b,) bool."""
    if not len(images):
        return found.broken
    length = torch.where(found.broken, norms(found.images - images, method.norm), method.high)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape[1:], generator=generator).to(images.device).expand_as(images)
    turned = torch.zeros_like(found.broken)
    for direction in (0.5 - images, noise):
        if method.norm == "l2":
            step = unit(direction) * each(torch.minimum(length, norms(direction, "l2")))
        else:
            step = torch.maximum(torch.minimum(direction, each(length)), -each(length))
        turned |= broken(margins(classify, (images + step).clamp(0, 1), labels))
    return turned


def _levels(pixels: Tensor) -> Tensor:
    """Pixels in [0, 1] at the nearest of 256 levels, uint8."""
    return (pixels * 255).round().to(torch.uint8)


def _eight_bit(classify: Classifier, images: Tensor, labels: Tensor, found: Found) -> Tensor:
    """The perturbation lengthened until the image rounded to levels of 1/255 is answered otherwise: uint8, the rounded
    image where none of these is, or nothing was found in float."""
    best = _levels(images)
    whole = found.images - images

    def turned(rows: Tensor, scale: Tensor) -> Tensor:
        levels = _levels((images[rows] + each(scale) * whole[rows]).clamp(0, 1))
        kept = broken(lead(classify(levels.to(torch.float32) / 255), labels[rows]))
        best[rows[kept]] = levels[kept]
        return kept

    scale = torch.ones(len(images), device=images.device)
    rows, doubled = found.broken.nonzero()[:, 0], []
    for number in range(DOUBLINGS + 1):
        if not len(rows):
            break
        kept = turned(rows, scale[rows])
        doubled.append(rows[kept] if number else rows[:0])  # at its own length there is nothing to shorten
        rows = rows[~kept]
        scale[rows] *= 2
    rows = torch.cat(doubled) if doubled else rows
    low, high = scale[rows] / 2, scale[rows]
    for _ in range(HALVINGS if len(rows) else 0):
        middle = (low + high) / 2
        kept = turned(rows, middle)
        low, high = torch.where(kept, low, middle), torch.where(kept, middle, high)
    return best
