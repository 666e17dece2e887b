"""The losses of the ingredients as functions of logits and embeddings: TRADES, MART, SimCLR's NT-Xent.

Shapes: b images, c classes, n pairs of views, d values of an embedding. Natural logarithms.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(p(clean) || p(attacked)) of logits (b, c), of each image (b,), in nats; with gradients by both."""
    first, second = clean.log_softmax(1), attacked.log_softmax(1)
    return (first.exp() * (first - second)).sum(1)


def boosted_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p(label) - log(1 - the largest other probability), of logits (b, c) and labels (b,) int64; (b,), in nats.

    MART's loss on attacked images (Wang et al., 2020, eq. 8). 1 - p is the sum of the other probabilities, so that no
    constant is needed where p is 1.
    """
    rival = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    others = logits.scatter(1, rival[:, None], -torch.inf).logsumexp(1)
    return F.cross_entropy(logits, labels, reduction="none") - (others - logits.logsumexp(1))


def weighted_divergence(clean: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
    """KL(p(clean) || p(attacked)) times 1 - p(label | clean), of each image (b,): MART's second term (eq. 9).

    The weight has a gradient too, as in the authors' code.
    """
    return divergence(clean, attacked) * (1 - clean.softmax(1).gather(1, labels[:, None])[:, 0])


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross-entropy of n pairs of views (Chen et al., 2020, eq. 1).

    first, second: embeddings (n, d) of the two views of each image, of any length. Every view is told its partner among
    the 2n - 1 other views, by cosine similarity over the temperature. Returns the loss (2n,) of each view, those of
    `first` before those of `second`, and whether its nearest other view is its partner (2n,) bool.
    """
    views, count = F.normalize(torch.cat([first, second]), dim=1), len(first)
    itself = torch.eye(2 * count, dtype=torch.bool, device=views.device)
    similarities = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * count, device=views.device).roll(count)
    right = similarities.argmax(1) == partner
    return F.cross_entropy(similarities, partner, reduction="none"), right
