"""The perceptual distances of a run, over the networks that doctor has loaded: made as the stages make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from alignet.doctor.measure_gradients import unchanged
from alignet.doctor.models import Models, base_of, device, distances_of
from alignet.doctor.sources import Sources

if TYPE_CHECKING:
    from alignet.invariances.perceptual import Distance

PACKAGES = {"lpips": "lpips", "stlpips": "stlpips_pytorch"}  # kind of a distance -> module of its package


def used(sources: Sources) -> dict[str, list[str]]:
    """Distances that nodes compute or push up, by name, and the keys of these nodes."""
    found: dict[str, list[str]] = {}
    for node in sources.graph.values():
        for name in distances_of(node):
            found.setdefault(name, []).append(node.key)
    return found


def model_of(sources: Sources, name: str) -> str | None:
    """The configured model over whose layers a distance is; None of others."""
    return base_of(sources.config.perceptual.named(name, "perceptual.distances").model) or None


@contextmanager
def made(sources: Sources, models: Models, name: str) -> Iterator[Distance | None]:
    """A distance by its name, inside; None where weights are not here, which other checks say. The network is as it was
    afterwards. Of one that is built with few blocks, the default layers stand for those that are named.

    ValueError where its package is not installed, its weights do not fit, or its network has no such layers.
    """
    from alignet.invariances.make import make_distance

    one, base = sources.config.perceptual.named(name, "perceptual.distances"), model_of(sources, name)
    encoder = models.encoder(base) if base is not None else None
    trunk = sources.path(one.trunk) if one.kind == "lpips" and sources.is_there(one.trunk) else None
    if (base is not None and encoder is None) or (one.kind == "lpips" and trunk is None):
        yield None
        return
    layers = () if base is not None and models.short(base) is not None else one.layers
    with unchanged(encoder) if encoder is not None else nullcontext():
        yield make_distance(name, one.kind, one.net, trunk, encoder, layers, device(sources))
