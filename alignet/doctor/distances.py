"""The perceptual distances of a run, over the networks that doctor has loaded: made as the stages make them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from alignet.doctor.measure_gradients import unchanged
from alignet.doctor.models import Models, device, distances_of
from alignet.doctor.sources import Sources
from alignet.pipeline.graph import stage_of

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


def network_of(sources: Sources, name: str) -> str | None:
    """The configured model over whose layers a distance is, the student for what is trained from it; None of others."""
    model = sources.config.perceptual.named(name, "perceptual.distances").model
    return ("student" if stage_of(model) else model) or None


@contextmanager
def made(sources: Sources, models: Models, name: str) -> Iterator[Distance | None]:
    """A distance by its name, inside; None where weights are not here, which other checks say. The network is as it was
    afterwards. Of one that is built with few blocks, the default layers stand for those that are named.

    ValueError where its package is not installed, its weights do not fit, or its network has no such layers.
    """
    from alignet.backbones.weights import read_weights
    from alignet.invariances.layers import EncoderLayers
    from alignet.invariances.perceptual import LayerDistance, Pixels
    from alignet.invariances.trunks import lpips_distance, stlpips_distance

    one, where = sources.config.perceptual.named(name, "perceptual.distances"), device(sources)
    with ExitStack() as stack:
        if one.kind == "pixels":
            yield Pixels(name)
        elif one.kind == "stlpips":
            yield stlpips_distance(name, one.net, where)
        elif one.kind == "lpips":
            path = sources.path(one.trunk) if sources.is_there(one.trunk) else None
            yield None if path is None else lpips_distance(name, one.net, read_weights(path, name), where)
        else:
            base = network_of(sources, name)
            assert base is not None
            encoder = models.encoder(base)
            if encoder is None:
                yield None
                return
            stack.enter_context(unchanged(encoder))
            layers = () if models.short(base) is not None else one.layers
            yield LayerDistance(name, EncoderLayers(encoder, layers))
