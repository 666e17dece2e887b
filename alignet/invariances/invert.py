"""Look for images that a network represents as it does given ones; and check what was found.

    targets, noise to start from -> steps on error + weight * R -> `Inverted` -> `verified`, from what is stored alone

The loss is eq. 2 of Nanda et al. (2023): the relative error |g(x) - g(target)| / |g(target)| in l2, plus a weighted
regulariser. An image without a regulariser is done at its first match. With one, the search runs on, since the loss may
fall further, and its last steps (`finish`) minimise the error alone until it is a match again. Kept is, of each image,
the iterate of the lowest loss among those that match, or where none does the one of the lowest error.

Shape suffixes: b images, each with a target and a start of its own; H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alignet.config import InvertMethod, Noise
from alignet.harmonizer.labelled import seed_of
from alignet.invariances.optimizers import Optimizer
from alignet.invariances.perceptual import Distance
from alignet.invariances.regularisers import Fourier, regulariser, transformed
from alignet.invariances.representation import FOLDED, Representation

TINY = 1e-12  # least norm of a target's representation that an error is relative to
MARGIN = FOLDED  # an image is done so far below `stop`: the check is a pass of its own, through the network as it is


class Inverted(NamedTuple):
    """Images (b, 3, H, W) float32 in [0, 1], and the steps (b,) int64 that led to each; 0 is the start."""

    images: Tensor
    steps: Tensor


def noise(settings: Noise, shape: Sequence[int], *key: int) -> np.ndarray:
    """An image of normal pixels, cut to [0, 1] and rounded to levels of 1/255: uint8 of this shape."""
    drawn = np.random.default_rng(key).standard_normal(shape)
    return np.round(np.clip(settings.mean + settings.sd * drawn, 0, 1) * 255).astype(np.uint8)


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """|found - wanted| / |wanted| in l2, (b,), of representations (b, f); equal ones are at 0."""
    length = torch.linalg.vector_norm(wanted, dim=1).clamp_min(TINY)
    return torch.linalg.vector_norm(found - wanted, dim=1) / length


def invert(
    represent: Representation,
    targets: Tensor,
    starts: Tensor,
    method: InvertMethod,
    *,
    distance: Distance | None = None,
    keys: Sequence[tuple[int, ...]] | None = None,
    after: Callable[[], None] | None = None,
) -> Inverted:
    """Images that are represented as the targets are, from `starts`.

    targets, starts: (b, 3, H, W) float32 in [0, 1], on the network's device. distance: what the regulariser pushes up;
    needed where method.distance names one. keys: (b) integers that the transformations of each image are drawn by.
    after: called before each step, to stop for example. ValueError where the network or a gradient is not finite.
    """
    if bool(method.distance) != (distance is not None):
        raise ValueError(
            f"invert: expected {'a distance' if method.distance else 'no distance'} for this method, found "
            f"{'none' if distance is None else 'one'}"
        )
    if method.transform is not None and keys is None:
        raise ValueError("invert: expected keys to draw transformations by, found none")
    search = _Search(represent, targets, starts, method, distance, keys)
    for step in range(method.steps):
        if not len(search.rows):
            break
        if after is not None:
            after()
        search.step(step)
    if len(search.rows):
        search.last()
    return Inverted(search.best, search.best_step)


class _Search:
    """Where every image is. Images that are done leave what is computed."""

    def __init__(
        self, represent: Representation, targets: Tensor, starts: Tensor, method: InvertMethod,
        distance: Distance | None, keys: Sequence[tuple[int, ...]] | None,
    ):  # fmt: skip
        self.represent, self.method, self.distance, self.keys = represent, method, distance, keys
        count, device = len(targets), targets.device
        self.rows = torch.arange(count, device=device)
        self.now = starts
        with torch.no_grad():
            self.wanted = _finite(represent(targets), "representation")
            self.kept = [] if distance is None else distance.embed(targets)
        self.basis = Fourier(targets.shape[2], targets.shape[3], device) if method.fourier else None
        self.place = self.encode(starts)
        self.best, self.best_step = starts.clone(), torch.zeros(count, dtype=torch.int64, device=device)
        self.best_error = torch.full((count,), torch.inf, device=device)
        self.best_loss = torch.full((count,), torch.inf, device=device)
        first = method.steps - method.finish
        self.optimizer = Optimizer(method, self.place, first, last=False)

    def encode(self, pixels: Tensor) -> Tensor:
        return pixels if self.basis is None else self.basis.encode(pixels)

    def decode(self, place: Tensor) -> Tensor:
        return place if self.basis is None else self.basis.decode(place)

    def step(self, step: int) -> None:
        """Look at where the images are, keep what is better, and move those that go on."""
        method, first = self.method, self.method.steps - self.method.finish
        if method.finish and step == first:
            self.optimizer = Optimizer(method, self.place, method.finish, last=True)
        finishing = step >= first
        place = self.place.detach().requires_grad_()
        with torch.enable_grad():
            pixels = self.decode(place)
            seen = pixels
            if method.transform is not None and not finishing:
                seen = transformed(pixels, method.transform, self._draws(step))
            error = relative_error(_finite(self.represent(seen), "representation"), self.wanted)
            loss = error if finishing or not method.weight else error + self._regularised(pixels)
            (gradient,) = torch.autograd.grad(loss.sum(), place)
        gradient = _finite(gradient, "gradient")
        with torch.no_grad():
            going = self._look(step, error.detach(), loss.detach(), seen is pixels, finishing)
            gradient, error = self._only(going, gradient, error.detach())
            if len(self.rows):
                self.place = self.optimizer.move(self.place, gradient, error, self.basis is None)
                self.now = self.decode(self.place).clamp(0, 1)
                self.place = self.encode(self.now)

    @torch.no_grad()
    def last(self) -> None:
        """Look at where the last step led."""
        error = relative_error(_finite(self.represent(self.now), "representation"), self.wanted)
        self._keep(self.method.steps, error, self._loss(error))

    def _loss(self, error: Tensor) -> Tensor:
        """The loss of the images as they are; infinite for what is no match, whose loss decides nothing."""
        rows = error <= self.method.stop - MARGIN
        if not self.method.weight or not bool(rows.any()):
            return error
        loss = torch.full_like(error, torch.inf)
        loss[rows] = error[rows] + self._regularised(self.now[rows], rows)
        return loss

    def _regularised(self, pixels: Tensor, rows: Tensor | None = None) -> Tensor:
        """The weighted R of pixels: of all images that go on, or of these `rows` of them, bool."""
        kept = self.kept if rows is None else [one[rows] for one in self.kept]
        return self.method.weight * regulariser(self.method, pixels, self.distance, kept)

    def _draws(self, step: int) -> list[int]:
        assert self.keys is not None
        return [seed_of(*self.keys[row], step) for row in self.rows.tolist()]

    def _look(self, step: int, error: Tensor, loss: Tensor, plain: bool, finishing: bool) -> Tensor:
        """Keep what is better than before; which images go on, (b,) bool."""
        method = self.method
        if not plain:
            if method.finish:  # what counts is where the last part ends
                return torch.ones_like(self.rows, dtype=torch.bool)
            error = relative_error(self.represent(self.now), self.wanted)
        elif finishing:
            loss = self._loss(error)
        self._keep(step, error, loss)
        if method.changed and not finishing:
            return torch.ones_like(self.rows, dtype=torch.bool)
        return error > method.stop - MARGIN

    def _keep(self, step: int, error: Tensor, loss: Tensor) -> None:
        """A match is better than none; of two matches the lower loss, of two others the lower error."""
        matched = error <= self.method.stop - MARGIN
        before = self.best_error[self.rows] <= self.method.stop - MARGIN
        lower = torch.where(matched, loss < self.best_loss[self.rows], error < self.best_error[self.rows])
        better = torch.where(matched == before, lower, matched)
        rows = self.rows[better]
        self.best[rows], self.best_step[rows] = self.now[better], step
        self.best_error[rows], self.best_loss[rows] = error[better], loss[better]

    def _only(self, going: Tensor, gradient: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """Let the others leave; gradient and error of those that go on."""
        if bool(going.all()):
            return gradient, error
        for name in ("rows", "now", "wanted", "place"):
            setattr(self, name, getattr(self, name)[going])
        self.kept = [one[going] for one in self.kept]
        self.optimizer.only(going)
        return gradient[going], error[going]


def _finite(values: Tensor, what: str) -> Tensor:
    """The values; ValueError where one is not finite."""
    broken = ~torch.isfinite(values).flatten(1).all(1)
    if bool(broken.any()):
        raise ValueError(
            f"invert: expected a finite {what}, found NaN or infinity for {int(broken.sum())} of {len(values)} images; "
            f"check the network's weights."
        )
    return values


@torch.no_grad()
def verified(represent: Representation, arrays: dict[str, np.ndarray], batch: int) -> dict[str, np.ndarray]:
    """The errors of what is stored: of `inverted` (error), `inverted8` (error8) and `seed` (begin), (b, k) float64.

    arrays: image (b, 3, H, W) uint8 or float32, the others (b, k, 3, H, W). Norms in float64.
    """
    wanted = _represented(represent, arrays["image"], batch)
    length = np.maximum(np.linalg.norm(wanted, axis=1), TINY)[:, None]
    made = {}
    for name, stored in (("error", "inverted"), ("error8", "inverted8"), ("begin", "seed")):
        images = arrays[stored]
        found = _represented(represent, images.reshape(-1, *images.shape[2:]), batch)
        difference = found.reshape(*images.shape[:2], -1) - wanted[:, None]
        made[name] = np.linalg.norm(difference, axis=2) / length
    return made


def _represented(represent: Representation, images: np.ndarray, batch: int) -> np.ndarray:
    """Representations (b, f) float64 of stored images."""
    parts = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(images[start : start + batch])
        pixels = pixels.to(torch.float32) / 255 if images.dtype == np.uint8 else pixels
        parts.append(_finite(represent(pixels.to(represent.device)), "representation").cpu().double().numpy())
    return np.concatenate(parts)
