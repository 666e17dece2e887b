"""Keeping what a student's own classifier says of the images, beside what the teacher teaches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alignet.backbones import Encoder, classifier_head
from alignet.triplets import kl_divergence


class Retention:
    """Keeps what the network's own classifier says of the images (learning without forgetting).

    Beyond the paper: settings.retain * KL(p0 || p), the mean over images, where p0 are the class probabilities
    of the initial network for the whole image and p those of the fine-tuned one for its crop, through the
    initial head, which is not trained. Li and Hoiem, "Learning without forgetting" (ECCV 2016).
    """

    def __init__(self, encoder: Encoder, original: np.ndarray | None, images: int):
        head = classifier_head(encoder)
        if head is None:
            raise ValueError(
                f"finetune.retain: expected a network with a linear classifier on its features, found "
                f"{encoder.backbone.architecture} without one; set finetune.settings.retain=0."
            )
        if original is None or original.shape != (images, encoder.width):
            found = "none" if original is None else str(original.shape)
            raise ValueError(
                f"finetune.retain: expected the initial features {(images, encoder.width)} of the images, found {found}"
            )
        self.weights, self.bias = head
        self.original = original

    def backward(self, features: Tensor, rows: np.ndarray, shares: Tensor, weight: float) -> Tensor:
        """Add the gradient of features (b, p) of images `rows`; returns the part's unweighted share of the mean.

        shares: (b,) of the mean that each image counts for; over a step they sum to 1.
        """
        before = torch.from_numpy(np.ascontiguousarray(self.original[rows], np.float32)).to(features.device)
        target = torch.softmax(before @ self.weights + self.bias, 1)
        log_q = torch.log_softmax(features @ self.weights + self.bias, 1)
        lost = (shares.to(features.device) * kl_divergence(target, log_q)).sum()
        (weight * lost).backward()
        return lost.detach().double()
