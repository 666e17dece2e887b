"""VICE as a probabilistic program: the Pyro model and guide that define what `engine` computes.

Fitting by SVI on these two gives the same losses and gradients as the engine, more slowly; the tests
hold the engine to them. Shape suffixes: m objects, d dimensions, n triplets, b of them in a batch.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor

from alignet.triplets import similarities
from alignet.vice.prior import SpikeSlab


def prior_distribution(prior: SpikeSlab, shape: tuple[int, int]) -> dist.TorchDistribution:
    """The spike-and-slab mixture, independent over an (m, d) embedding (one event)."""
    component = dist.Normal if prior.kind == "gaussian" else dist.Laplace
    weights = dist.Categorical(probs=torch.tensor([prior.pi, 1 - prior.pi]))
    parts = component(torch.zeros(2), torch.tensor([prior.spike, prior.slab]))
    return dist.MixtureSameFamily(weights, parts).expand(shape).to_event(2)


def model(batch: Tensor, *, n: int, objects: int, dim: int, prior: SpikeSlab) -> None:
    """p(choices, Y): Y ~ spike-and-slab, choice ~ softmax of the dot products of relu(Y).

    batch: (b, 3) int64 with the odd one last, a sample of n triplets; its log-likelihood counts n / b
    times, so the loss of `Trace_ELBO` is n times the loss of the engine.
    """
    embedding = pyro.sample("embedding", prior_distribution(prior, (objects, dim)))
    logits = similarities(embedding.relu(), batch)
    with pyro.plate("triplets", n, subsample=torch.arange(len(batch))):
        chosen = torch.zeros(len(batch), dtype=torch.int64)  # entry 0 is the pair that was chosen
        pyro.sample("choice", dist.Categorical(logits=logits), obs=chosen)


def guide(batch: Tensor, *, loc: Tensor, scale: Tensor) -> None:
    """q(Y): Y = loc + scale * eps, independent standard normal eps. loc, scale: initial (m, d)."""
    del batch
    mean = pyro.param("loc", loc)
    deviation = pyro.param("scale", scale, constraint=constraints.positive)
    pyro.sample("embedding", dist.Normal(mean, deviation).to_event(2))
