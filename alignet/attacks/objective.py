"""What the objectives of the ingredients share: changed images, random starts, gradients by pixels.

Shape suffixes: b images, c classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from alignet.attacks.augmentations import augmented
from alignet.attacks.pgd import ascend, random_start
from alignet.backbones.gradients import Classifier
from alignet.config import Augmentation, LabelledTraining, RobustRole
from alignet.harmonizer.batches import Source
from alignet.harmonizer.labelled import Objective, seed_of
from alignet.runtime.distributed import Processes


class Ingredient(Objective):
    """A loss on labelled images, attacked or not, after an augmentation of its own or the settings' flip and crop."""

    def __init__(
        self, classify: Classifier, settings: LabelledTraining, sources: Sequence[Source], classes: int,
        everyone: Processes, role: RobustRole, augmentation: Augmentation | None = None,
    ):  # fmt: skip
        super().__init__(classify, settings, sources, classes, everyone, use_maps=False)
        self.role, self.augmentation = role, augmentation

    def _augmented(self, images: Tensor, count: int, places: Tensor, step: int, row: int) -> Tensor:
        if self.augmentation is None:
            return super()._augmented(images, count, places, step, row)
        seeds = [seed_of(self.settings.seed, 5, step, row, place) for place in places.tolist()]
        return augmented(images, self.augmentation, seeds)

    def _starts(
        self, images: Tensor, step: int, places: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]
    ) -> Tensor:
        """Perturbations to begin with: draw(image (1, 3, H, W), generator), from (seed, step, place) alone."""
        start = torch.empty_like(images)
        for row, place in enumerate(places.tolist()):
            generator = torch.Generator(images.device).manual_seed(
                seed_of(self.settings.seed, 4, step, place)
            )
            start[row] = draw(images[row, None], generator)[0]
        return start

    def _uniform(self, images: Tensor, step: int, places: Tensor) -> Tensor:
        """Perturbations drawn uniformly from the ball of the role."""
        eps = images.new_full((1,), self.role.eps)
        return self._starts(
            images, step, places, lambda image, generator: random_start(image, eps, self.role.norm, generator)
        )

    def _ascend(self, value: Callable[[Tensor], Tensor], images: Tensor, start: Tensor) -> Tensor:
        """Images after the role's steps that raise value(pixels) -> (b,), within eps of what they were."""
        role = self.role

        def gradient(pixels: Tensor) -> Tensor:
            pixels = pixels.detach().requires_grad_()
            with torch.enable_grad():
                return torch.autograd.grad(value(pixels).sum(), pixels)[0]

        eps = images.new_full((len(images),), role.eps)
        return ascend(gradient, images, eps, norm=role.norm, steps=role.steps, step=role.step, start=start)


@contextmanager
def answering(classify: Classifier) -> Iterator[None]:
    """The network in eval mode, without gradients by weights; afterwards as it was."""
    module = classify.encoder.module
    modes = [(one, one.training) for one in module.modules()]
    asked = [(one, one.requires_grad) for one in module.parameters()]
    module.eval()
    module.requires_grad_(False)
    try:
        yield
    finally:
        for one, mode in modes:
            one.training = mode
        for held, wanted in asked:
            held.requires_grad_(wanted)
