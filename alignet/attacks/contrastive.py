"""The ingredient that knows no classes: SimCLR (Chen et al., 2020), with and without adversarial augmentation.

    images -> two views of each, changed at random -> features -> projection head -> NT-Xent over all views of a step

Adversarial augmentation (Kim et al., 2020; Nanda et al., 2023): a view is moved within eps to where its features are
farthest from what they were, in l2, as the paper prints (C); its published code takes the relative distance of what the
head makes of them, and moves both views. Here the first view alone is moved [ours]. The head is thrown away; features
are what it was given.

Shape suffixes: b images of this process, n of the step, p features, d values of an embedding, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alignet.attacks.losses import nt_xent
from alignet.attacks.objective import Ingredient, answering
from alignet.backbones.gradients import Classifier
from alignet.config import Augmentation, LabelledTraining, RobustRole
from alignet.harmonizer.batches import Part, Source
from alignet.harmonizer.labelled import seed_of
from alignet.runtime.distributed import Processes


class Contrastive(Ingredient):
    """NT-Xent of two views of each image. The classifier takes no part and stays as it was."""

    curves = ("nt_xent", "right")  # in nats; share of views whose nearest other view is their partner

    def __init__(
        self, classify: Classifier, settings: LabelledTraining, sources: Sequence[Source], classes: int,
        everyone: Processes, role: RobustRole, augmentation: Augmentation | None = None,
    ):  # fmt: skip
        super().__init__(classify, settings, sources, classes, everyone, role, augmentation)
        self.head = projection_head(classify.encoder.width, role.projection, seed_of(settings.seed, 6))
        self.head.to(classify.device)
        for held in self.head.parameters():
            everyone.copy(held.data)

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64.

        Every process computes the loss of all views, from embeddings that are gathered, and leads its gradient by its
        own embeddings back through the network. Summed over processes that is the gradient of one process.
        """
        (part,), (source,) = parts, self.sources
        first, second = (self._prepare(part, source, step, view)[0] for view in (0, 1))
        if self.role.attacks:
            first = self.moved(first, step, part.places)
        assert self.head is not None
        embedded = self.head(self.classify.features(torch.cat([first, second])))
        own = torch.stack(embedded.chunk(2), 1).double()  # (b, 2, d)
        views = self.everyone.gather(own, self.batch).detach().requires_grad_()
        losses, right = nt_xent(views[:, 0], views[:, 1], self.role.temperature)
        loss = losses.mean()
        (gradient,) = torch.autograd.grad(loss, views)
        own.backward(gradient[self.everyone.share(self.batch)])
        figures = torch.tensor([loss.item(), right.double().mean().item()], dtype=torch.float64)
        return figures if self.everyone.first else torch.zeros_like(figures)

    def moved(self, images: Tensor, step: int, places: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] whose features are as far from before as the role's steps bring them.

        From a random start: at the images themselves the distance has no gradient.
        """
        start = self._uniform(images, step, places)
        with answering(self.classify):
            with torch.no_grad():
                before = self.classify.features(images)
            return self._ascend(
                lambda pixels: (self.classify.features(pixels) - before).square().sum(1), images, start
            )


def projection_head(width: int, out: int, seed: int) -> nn.Module:
    """Features (b, width) to embeddings (b, out), with a hidden layer of the same width; torch's start, from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
