"""Identically represented inputs: what a search starts on, which distances can be computed, what evaluations need."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from typing import Any

from alignet.config import DatasetSettings, InvertMethod
from alignet.doctor import distances
from alignet.doctor.estimate_invert import invert_method, invert_role, inverted_of
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.measure_gradients import unchanged
from alignet.doctor.models import Models, base_of, on_meta
from alignet.doctor.sources import Sources
from alignet.pipeline.graph import Node

MAIN, PERCEPTUAL = "invert", "perceptual"  # nodes of an evaluation whose scores have no name before them


def check_inversions(sources: Sources, models: Models) -> Iterator[Finding]:
    """Can each method start on each network: is the layer there, do images fit, how many targets are there?"""
    nodes = [node for node in sources.graph.values() if node.stage == "invert"]
    if not nodes:
        return
    methods = {invert_role(node.role)[2]: invert_method(node.section) for node in nodes}
    yield ok("invert.methods", "; ".join(f"{name}: {_said(method)}" for name, method in methods.items()))
    for name in dict.fromkeys(base_of(invert_role(node.role)[0]) for node in nodes):
        if models.encoder(name) is None:
            continue  # the check of weights says why
        own = {
            role[2] for role in map(invert_role, (node.role for node in nodes)) if base_of(role[0]) == name
        }
        yield from _network(sources, models, name, [methods[one] for one in sorted(own)])
    for images in dict.fromkeys(invert_role(node.role)[1] for node in nodes):
        yield from _targets(sources, images)


def _said(method: InvertMethod) -> str:
    """A method in words."""
    match = f"a match at {method.stop:g}" if method.stop else "none ends early"
    return f"{method.optimizer}, at most {method.steps:,} steps, {match}"


def _network(
    sources: Sources, models: Models, name: str, methods: Sequence[InvertMethod]
) -> Iterator[Finding]:
    """The layer, the preprocessing and the blur of one network."""
    import torch

    from alignet.backbones.gradients import geometry
    from alignet.invariances.representation import Representation

    encoder, layer = models.encoder(name), sources.config.invert.layer
    short = models.short(name)
    try:
        geometry(encoder, 1, 1)
    except ValueError as error:
        yield fault(name, str(error), "Take its rows out of the settings of this evaluation")
        return
    try:
        if short is not None:
            _is_module(sources, name, [layer] if layer else [], "invert.layer")
            layer = ""
        with unchanged(encoder), torch.no_grad():
            represent = Representation(encoder, layer)
            width = represent(torch.zeros((1, *represent.side), device=encoder.device)).shape[1]
    except ValueError as error:
        yield fault("invert.layer", f"{name}: {error}")
        return
    where = sources.config.invert.layer or "its features"
    counted = (
        f"{width:,} numbers of each image" if short is None or not sources.config.invert.layer else "there"
    )
    yield ok("invert.layer", f"{name}: {where}, {counted}")
    side = min(represent.side[1:])
    for method in methods:
        reach = math.ceil(3 * method.sigma)
        if method.blur and side <= reach:
            yield fault(
                "invert.methods", f"expected a blur whose reach of 3 sigma, {reach} pixels, is less than the {side} of "
                f"{name}'s images, found sigma {method.sigma:g}", "Take a smaller sigma",
            )  # fmt: skip


def _targets(sources: Sources, images: str) -> Iterator[Finding]:
    """How many of a set's images are inverted, and whether three can be matched."""
    number, most = sources.images(images).number, sources.config.invert.images
    count = inverted_of(number, most)
    if not number:
        return
    if count < 3:
        yield warning(
            "invert.images", f"{count} of {images}: clustering needs three targets, and has no score",
            "Invert at least 3",
        )  # fmt: skip
    elif most > number:
        yield warning(
            "invert.images", f"{most:,} were asked for, {images} has {number:,}", "All are inverted"
        )
    else:
        yield ok("invert.images", f"{count:,} of {number:,} images of {images}")


def _is_module(sources: Sources, name: str, layers: Sequence[str], key: str) -> None:
    """ValueError for a layer that a network, of which a few blocks are built here, does not have as a whole."""
    from alignet.backbones.gradients import no_module

    model = sources.config.models[name]
    module = on_meta(model)
    known = [one for one, _ in module.named_modules()] if module is not None else []
    for layer in layers if known else ():
        if layer not in known:
            raise no_module(f"{key}: expected modules of {model.architecture}", layer, known)


# ---- distances


def check_distances(sources: Sources, models: Models) -> Iterator[Finding]:
    """Can each distance be computed: its package, its network's weights and layers, images of each size?"""
    used = distances.used(sources)
    if not used:
        return
    settings = sources.config.perceptual.distances
    for kind, module in distances.PACKAGES.items():
        of_kind = [name for name in used if settings[name].kind == kind]
        if of_kind and importlib.util.find_spec(module) is None:
            yield fault(
                "perceptual.distances",
                f"expected the package {module.replace('_', '-')} for {', '.join(of_kind)}, found none",
                "Install it with pip install 'alignet[perceptual]', or take these distances out of perceptual.use",
            )  # fmt: skip
            used = {name: keys for name, keys in used.items() if name not in of_kind}
    for name, keys in used.items():
        yield from _distance(sources, models, name, [sources.graph[key] for key in keys])
    yield from _judged_by_others(sources)


def _distance(sources: Sources, models: Models, name: str, nodes: Sequence[Node]) -> Iterator[Finding]:
    import torch

    about, one = f"perceptual.distances.{name}", sources.config.perceptual.distances[name]
    base = distances.model_of(sources, name)
    sizes = sorted({size for node in nodes if (size := _side(models, node)) is not None})
    try:
        if base is not None and models.encoder(base) is not None and models.short(base) is not None:
            _is_module(sources, base, one.layers, about)
        with distances.made(sources, models, name) as distance, torch.no_grad():
            if distance is None:
                return  # the checks of files and of weights say so
            for size in sizes:
                pixels = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0))
                kept = distance.embed(pixels.to(_device(models, base)))
                if not bool(torch.isfinite(distance.between(kept, kept)).all()):
                    raise ValueError("expected finite distances, found NaN or infinity; check the weights")
    except (ValueError, RuntimeError) as error:
        yield fault(about, str(error))
        return
    shown = ", ".join(f"{high} x {wide}" for high, wide in sizes)
    yield ok(about, f"{_network_said(sources, models, name)}{f'; images of {shown} pixels' if shown else ''}")


def _side(models: Models, node: Node) -> tuple[int, int] | None:
    """Height and width of the images of a node."""
    encoder = models.encoder(base_of(invert_role(node.role)[0]))
    if encoder is None:
        return None
    _, high, wide = encoder.data_config["input_size"]
    return high, wide


def _device(models: Models, base: str | None) -> Any:
    from alignet.doctor.models import device

    return device(models.sources) if base is None else models.encoder(base).device


def _network_said(sources: Sources, models: Models, name: str) -> str:
    """What a distance is over, in words."""
    from alignet.invariances.layers import default_layers

    one, base = sources.config.perceptual.distances[name], distances.model_of(sources, name)
    if base is None:
        return f"{one.kind} {one.net}".strip()
    encoder = models.encoder(base)
    layers = list(one.layers) or (list(default_layers(encoder)) if models.short(base) is None else [])
    after = f" after {', '.join(layers)}" if layers else ", layers evenly spaced"
    return f"{encoder.backbone.architecture}{after}"


def _judged_by_others(sources: Sources) -> Iterator[Finding]:
    """Whether any distance is left to judge by, where one was pushed up."""
    for node in sources.graph.values():
        if node.stage != "perceptual":
            continue
        pushed = sources.graph[node.inputs["invert"]].section["method"].get("distance", "")
        if pushed and set(node.section["distances"]) == {pushed}:
            yield warning(
                node.key, f"{pushed} was pushed up, and no other distance is computed: its 2AFC has no score",
                "Add a distance to perceptual.use",
            )  # fmt: skip
            return


# ---- evaluations


def check_invariance(sources: Sources) -> Iterator[Finding]:
    """Does every evaluation name pairs of nodes, distances that are computed, and whose images people saw?"""
    for name, dataset in sources.config.evaluate.datasets.items():
        if dataset.family == "invariance" and dataset.settings:
            yield from _evaluation(sources, name, dataset)


def _evaluation(sources: Sources, name: str, dataset: DatasetSettings) -> Iterator[Finding]:
    from alignet.evaluate.families.invariance_read import RESERVED

    about, options = f"evaluate.datasets.{name}", dataset.options
    node = sources.graph[f"evaluate[{dataset.settings[0]}.{name}]"]
    made = {
        key.removeprefix("node."): sources.graph[one]
        for key, one in node.inputs.items()
        if key.startswith("node.")
    }
    endings = {part.partition("_")[2] for part in made}
    for ending in sorted(endings | {""}):
        pair = [f"{stage}{f'_{ending}' if ending else ''}" for stage in (MAIN, PERCEPTUAL)]
        wrong = [
            one for one, stage in zip(pair, (MAIN, PERCEPTUAL)) if one not in made or made[one].stage != stage
        ]
        if wrong:
            yield fault(
                about, f"expected nodes `{pair[0]}` and `{pair[1]}` of these stages, found no "
                f"`{'` and no `'.join(wrong)}`", f"Add nodes.{' and nodes.'.join(wrong)}",
            )  # fmt: skip
        elif made[pair[0]].role != made[pair[1]].role:
            yield fault(
                about, f"expected one role in `{pair[0]}` and `{pair[1]}`, found {made[pair[0]].role} and "
                f"{made[pair[1]].role}", "Name the same images and method in both",
            )  # fmt: skip
    computed = sources.config.perceptual.used
    lacking = [one for one in options.get("distances") or () if one not in computed]
    if lacking:
        yield fault(
            about, f"expected options.distances among {', '.join(computed)}, found {', '.join(lacking)}",
            "Add them to perceptual.use, or take them out",
        )  # fmt: skip
    taken = [one for one in computed if one.partition("_")[0] in RESERVED]
    if taken:
        yield fault(
            about, f"expected distances by names that do not begin with {', '.join(RESERVED)}, found "
            f"{', '.join(taken)}", "Call them otherwise in perceptual.distances",
        )  # fmt: skip
    if "people" in dataset.data and options.get("people_of") not in dataset.settings:
        yield fault(
            about, f"expected options.people_of to be one of its settings beside data.people, found "
            f"{options.get('people_of') or 'none'}", "Name the row of the network whose inverted images people saw",
        )  # fmt: skip
    least = float(options["matched"])
    for part, one in made.items():
        stop = invert_method(one.section).stop if one.stage == "invert" else 0.0
        if stop > least:
            yield warning(
                about, f"options.matched is {least:g}, and searches of `{part}` end at {stop:g}: few of their images "
                f"count as a match", f"Set options.matched to {stop:g}, or a smaller stop in invert.methods",
            )  # fmt: skip
