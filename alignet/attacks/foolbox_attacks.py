"""Minimum-norm attacks of the package foolbox (MIT): DDN, FMN, DeepFool, Carlini-Wagner; extra `attacks`.

Their results are cut to [0, 1] and, like every other method's, verified by us. A gradient that is not finite is not
told apart by foolbox, so `no_gradient` comes from the gradient at the original.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alignet.attacks.minimum_norm import Found
from alignet.attacks.perturbation import broken, margin_gradient, margins, norms, project, without_direction
from alignet.backbones.gradients import Classifier
from alignet.config import AttackMethod

SEARCHES = 6  # of Carlini and Wagner's constant c


class _Module(nn.Module):
    """A classifier as foolbox takes it."""

    def __init__(self, classify: Classifier):
        super().__init__()
        self.classify = classify

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classify(pixels)


def by_foolbox(classify: Classifier, images: Tensor, labels: Tensor, method: AttackMethod) -> Found:
    """Run an attack of foolbox on (b, 3, H, W) float32 pixels in [0, 1]. ValueError where foolbox is not installed."""
    try:
        import foolbox
    except ImportError:
        raise ValueError(
            f"attack.methods: expected the package foolbox for {method.algorithm}, found none; install it with "
            f"pip install 'alignet[attacks]', or take algorithm=minimum_norm or pgd."
        ) from None
    model = foolbox.PyTorchModel(_Module(classify).eval(), bounds=(0, 1), device=classify.device)
    with torch.enable_grad():
        _, attacked, _ = _made(foolbox.attacks, method)(model, images, labels, epsilons=None)
    attacked = attacked.detach().clamp(0, 1)
    usable = torch.isfinite(attacked).flatten(1).all(1)
    attacked = torch.where(usable.view(-1, 1, 1, 1), attacked, images)
    gradient = margin_gradient(classify, images, labels).gradient
    near = norms(attacked - images, method.norm) <= method.high
    return Found(attacked, broken(margins(classify, attacked, labels)) & near, without_direction(gradient))


def _made(attacks: Any, method: AttackMethod) -> Any:
    ending = {"l2": "L2", "linf": "Linf"}[method.norm]
    if method.algorithm == "ddn":
        return attacks.DDNAttack(steps=method.steps)
    if method.algorithm == "fmn":
        kind = _projected(attacks.L2FMNAttack) if method.norm == "l2" else attacks.LInfFMNAttack
        return kind(steps=method.steps)
    if method.algorithm == "deepfool":
        return getattr(attacks, f"{ending}DeepFoolAttack")(steps=method.steps)
    return attacks.L2CarliniWagnerAttack(binary_search_steps=SEARCHES, steps=method.steps)


def _projected(attack: Any) -> Any:
    """FMN in l2 with the projection onto the ball, which foolbox 3.3.4 leaves out: see findings/foolbox_fmn_l2.sh."""
    import eagerpy

    class Projected(attack):
        def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
            return x0 + eagerpy.astensor(project((x - x0).raw, epsilon.raw, "l2"))

    return Projected
