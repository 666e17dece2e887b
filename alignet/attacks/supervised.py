"""The ingredients that know classes: cross-entropy, adversarial training, TRADES and MART.

PGD (Madry et al., 2018): each step looks for perturbations within the ball that raise the loss most, from a random
start, and trains on these. "Free" (Shafahi et al., 2019): each batch is taken `replays` times; one backward pass gives
the gradients by weights and by pixels, and the perturbation is carried on, also into the next batch. TRADES (Zhang et
al., 2019): cross-entropy of the images as they are, and beta times how far answers move under the perturbation that
moves them most. MART (Wang et al., 2020): a boosted cross-entropy of attacked images, and beta times the same distance,
weighted by how unsure the label was.

Shape suffixes: b images, c classes, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from alignet.attacks.losses import boosted_cross_entropy, divergence, weighted_divergence
from alignet.attacks.objective import Ingredient, answering
from alignet.attacks.perturbation import each, project, steepest
from alignet.attacks.pgd import pgd
from alignet.backbones.gradients import Classifier
from alignet.config import Augmentation, LabelledTraining, RobustRole
from alignet.harmonizer.batches import Part, Source
from alignet.runtime.distributed import Processes

# standard deviation of TRADES' start (its authors' code): at the images themselves the divergence has no gradient
_NOISE = 1e-3


class CrossEntropy(Ingredient):
    """Cross-entropy of images that nothing attacks: the control."""

    curves: tuple[str, ...] = ("cross_entropy", "right")  # share of right labels

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""
        (part,), (source,) = parts, self.sources
        images, targets, _ = self._prepare(part, source, step, 0)
        logits, loss = self._pass(images, targets)
        return torch.tensor([loss, self.right(logits, targets)], dtype=torch.float64)

    def _pass(self, images: Tensor, targets: Tensor) -> tuple[Tensor, float]:
        """Add the gradients of one forward and backward pass; logits (b, c), and the images' part of the loss."""
        logits = self.classify(images)
        loss = self.entropy(logits, targets)
        loss.backward()
        return logits.detach(), loss.item()

    def attacked(self, images: Tensor, targets: Tensor, step: int, places: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] after PGD against their classes, within eps of what they were.

        targets: (b, c); of a mixed image the class of the larger share is attacked. places: (b,) int64, the images'
        among the step's. The network is as it is when it answers: running statistics, no random parts.
        """
        role = self.role
        eps = images.new_full((len(images),), role.eps)
        start = self._uniform(images, step, places)
        with answering(self.classify):
            return pgd(
                self.classify, images, targets.argmax(1), eps, norm=role.norm, steps=role.steps, step=role.step,
                start=start,
            )  # fmt: skip


class Adversarial(CrossEntropy):
    """Cross-entropy of attacked images."""

    curves = ("cross_entropy", "right")  # of the attacked images; share of right labels

    def __init__(
        self, classify: Classifier, settings: LabelledTraining, sources: Sequence[Source], classes: int,
        everyone: Processes, role: RobustRole, augmentation: Augmentation | None = None,
    ):  # fmt: skip
        super().__init__(classify, settings, sources, classes, everyone, role, augmentation)
        if role.replays:
            own = everyone.share(self.batch)
            side = classify.encoder.data_config["input_size"][1:]
            self.carried = torch.zeros(own.stop - own.start, 3, *side, device=classify.device)

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""
        (part,), (source,) = parts, self.sources
        images, targets, _ = self._prepare(part, source, step // max(self.role.replays, 1), 0)
        if self.carried is None:
            logits, loss = self._pass(self.attacked(images, targets, step, part.places), targets)
        else:
            logits, loss = self._free(images, targets, self.carried)
        return torch.tensor([loss, self.right(logits, targets)], dtype=torch.float64)

    def _free(self, images: Tensor, targets: Tensor, perturbation: Tensor) -> tuple[Tensor, float]:
        """One pass that trains the weights and moves the perturbation, in place, by the pixels' gradient.

        The perturbation stays within eps, and is cut to [0, 1] only where it is added: the next batch has other pixels.
        """
        attacked = (images + perturbation).clamp(0, 1).requires_grad_()
        logits, loss = self._pass(attacked, targets)
        assert attacked.grad is not None
        eps = images.new_full((len(images),), self.role.eps)
        moved = perturbation + each(self.role.step * eps) * steepest(attacked.grad, self.role.norm)
        perturbation.copy_(project(moved, eps, self.role.norm))
        return logits, loss


class Trades(CrossEntropy):
    """Cross-entropy of the images as they are, and beta times the divergence of attacked answers from theirs."""

    curves = (
        "cross_entropy",
        "divergence",
        "right",
    )  # both losses in nats; share of right labels, not attacked

    def loss(self, figures: Sequence[float]) -> float:
        """What must be finite."""
        return figures[0] + self.role.beta * figures[1]

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""
        (part,), (source,) = parts, self.sources
        images, targets, _ = self._prepare(part, source, step, 0)
        if not self.role.attacks:  # beta is 0
            logits, loss = self._pass(images, targets)
            return torch.tensor([loss, 0.0, self.right(logits, targets)], dtype=torch.float64)
        attacked = self.diverted(images, step, part.places)
        logits = self.classify(images)
        entropy = self.entropy(logits, targets)
        apart = divergence(logits, self.classify(attacked)).sum() / self.batch
        (entropy + self.role.beta * apart).backward()
        figures = [entropy.item(), apart.item(), self.right(logits, targets)]
        return torch.tensor(figures, dtype=torch.float64)

    def diverted(self, images: Tensor, step: int, places: Tensor) -> Tensor:
        """Images (b, 3, H, W) in [0, 1] whose answers are as far from before as the role's steps bring them."""

        def draw(image: Tensor, generator: torch.Generator) -> Tensor:
            noise = torch.randn(image.shape, generator=generator, device=image.device)
            return (image + _NOISE * noise).clamp(0, 1) - image

        start = self._starts(images, step, places, draw)
        with answering(self.classify):
            with torch.no_grad():
                before = self.classify(images)
            return self._ascend(lambda pixels: divergence(before, self.classify(pixels)), images, start)


class Mart(CrossEntropy):
    """Boosted cross-entropy of attacked images, and beta times the weighted divergence of their answers."""

    curves = (
        "boosted_cross_entropy",
        "divergence",
        "right",
    )  # divergence weighted; share of right labels, attacked

    def loss(self, figures: Sequence[float]) -> float:
        """What must be finite."""
        return figures[0] + self.role.beta * figures[1]

    def backward(self, parts: Sequence[Part], step: int) -> Tensor:
        """Add the gradients of this process's images; returns its part of the figures by `curves`, float64."""
        (part,), (source,) = parts, self.sources
        images, targets, _ = self._prepare(part, source, step, 0)
        labels = targets.argmax(1)
        logits = self.classify(self.attacked(images, targets, step, part.places))
        boosted = boosted_cross_entropy(logits, labels).sum() / self.batch
        apart = weighted_divergence(self.classify(images), logits, labels).sum() / self.batch
        (boosted + self.role.beta * apart).backward()
        figures = [boosted.item(), apart.item(), self.right(logits, targets)]
        return torch.tensor(figures, dtype=torch.float64)
