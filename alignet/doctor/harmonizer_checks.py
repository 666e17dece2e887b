"""People's importance maps, classes and classifiers: what stages that read maps or need a classifier ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignet.doctor.estimate_base import of_role
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.models import NETWORKS, Models, base_of
from alignet.doctor.sources import Sources


def check_maps(sources: Sources) -> Iterator[Finding]:
    """Do the maps belong to the images that they are said to be of, and does any of them say something?"""
    for about, maps, images, negative in _pairs(sources):
        held, ids = sources.read(maps), sources.read(images)
        if held is None or not ids:
            continue  # drawn later, or the check of files says so
        for key, one in held.items():
            yield _fit(f"{about}{f' {key}' if len(held) > 1 else ''}", one, maps, images, ids, negative)


def _pairs(sources: Sources) -> Iterator[tuple[str, str, str, bool]]:
    """What reads maps, the set of maps, the image set that they are of, and whether it takes negative values."""
    config, graph = sources.config, sources.graph
    section = config.harmonize
    if section is not None and any(node.stage == "harmonize" for node in graph.values()):
        yield "harmonize.maps", section.maps, section.images, True
    for node in graph.values():
        if node.stage == "stimuli":
            yield f"stimuli.maps.{node.role}", node.role, config.stimuli.maps[node.role], False
    seen = set()
    for name, dataset in config.evaluate.datasets.items():
        node_of = {"where": "node.saliency", "attack": "node.attack"}.get(dataset.family, "")
        if not node_of or "maps" not in dataset.data:
            continue
        for setting in dataset.settings:
            key = graph[f"evaluate[{setting}.{name}]"].inputs.get(node_of)
            images = of_role(graph[key].role)[2] if key is not None else ""
            if images and (name, images) not in seen:
                seen.add((name, images))
                yield f"evaluate.datasets.{name}", dataset.data["maps"], images, True


def _fit(about: str, found: Any, maps: str, images: str, ids: list[str], negative: bool) -> Finding:
    from alignet.data.importance_maps import maps_for

    try:
        rows, by_stem = maps_for(found, ids)
    except ValueError as error:
        return fault(about, f"{maps} for {images}: {error}")
    kept = [int(row) for row in rows if row >= 0]
    constant = sum(bool(np.ptp(found.maps[row]) == 0) for row in kept)
    said = f"{len(kept):,} of {len(ids):,} images of {images} have a map of {maps}"
    said += f", {by_stem:,} by their names without suffixes" if by_stem else ""
    said += f", {constant:,} of them constant" if constant else ""
    if constant == len(kept):
        return fault(
            about, f"{said}: expected maps that rank pixels", "Look at the file, or name another key"
        )
    below = next((row for row in kept if found.maps[row].min() < 0), None)
    if below is not None and not negative:
        least = float(found.maps[below].min())
        return fault(
            about, f"{said}: expected values of at least 0, found {least:g} for {found.ids[below]}",
            "Clip them to 0, or take their size",
        )  # fmt: skip
    few = len(kept) - constant < len(ids) / 2
    return warning(about, said, "The others are left out") if few else ok(about, said)


def check_where(sources: Sources) -> Iterator[Finding]:
    """Do the maps have the keys that an evaluation names, and the raters that its ceiling needs?"""
    for name, dataset in sources.config.evaluate.datasets.items():
        if (
            dataset.family == "where"
            and dataset.options.get("photographs")
            and "pictures" not in {**dataset.images, **dataset.data}
        ):
            yield fault(
                f"evaluate.datasets.{name}", "expected an image set as `pictures` for photographs=true, found none",
                "Add images.pictures, or set options.photographs=false",
            )  # fmt: skip
        if dataset.family != "where" or (held := sources.read(dataset.data["maps"])) is None:
            continue
        about, options = f"evaluate.datasets.{name}", dataset.options
        keys = options["keys"]
        wanted = [] if keys in ("all", "") else [keys] if isinstance(keys, str) else list(keys)
        lacking = [key for key in wanted if key not in held]
        if lacking or (keys == "" and len(held) > 1):
            found = ", ".join(key for key in held if key) or "one kind of map without a name"
            yield fault(
                about,
                f"expected maps {', '.join(lacking) or 'of one kind'}, found {found}",
                "Set options.keys",
            )
        elif options["ceiling"] == "split_half" and any(held[key].raters is None for key in wanted or held):
            yield fault(
                about, "expected maps of single raters for ceiling=split_half, found mean maps only",
                "Give a file with raters, or set options.ceiling to a number or null",
            )  # fmt: skip


def check_classifiers(sources: Sources, models: Models) -> Iterator[Finding]:
    """Has each network whose logits are asked for a classifier, and does it know the images' classes?"""
    for name, keys in _classified(sources).items():
        if sources.config.models[name].library not in NETWORKS or (encoder := models.encoder(name)) is None:
            continue
        classes = models.classes(name)
        if not classes:
            network = f"{encoder.backbone.library}'s {encoder.backbone.architecture}"
            yield fault(
                name, f"{keys[0]} needs the logits of a classifier, and {network} has none",
                "Name a network of timm that was trained on classes",
            )  # fmt: skip
            continue
        for one in _labelled(sources):
            if one.model == name:
                yield from _classes(sources, one, classes)


def _classified(sources: Sources) -> dict[str, list[str]]:
    """Models whose classifier is asked for, and the nodes that do."""
    found: dict[str, list[str]] = {}
    for node in sources.graph.values():
        if node.stage in ("harmonize", "robust"):
            found.setdefault("student", []).append(node.key)
        elif node.stage in ("saliency", "attack") or (
            node.stage == "embed" and of_role(node.role)[1] == "logits"
        ):
            found.setdefault(base_of(of_role(node.role)[0]), []).append(node.key)
    return found


@dataclass(frozen=True)
class _Labelled:
    """Images whose classes are asked for. about: the option that names their table; table: None for names that carry
    WordNet ids; needed: all (every image), some (at least one) or none; without: what becomes of the others."""

    about: str
    model: str
    images: str
    table: str | None
    column: str
    needed: str
    without: str = ""


def _labelled(sources: Sources) -> list[_Labelled]:
    """All of them, each once."""
    config, graph = sources.config, sources.graph
    found: list[_Labelled] = []
    section, robust = config.harmonize, config.robust
    if section is not None and any(node.stage == "harmonize" for node in graph.values()):
        column = section.column
        found.append(_Labelled("harmonize.labels", "student", section.images, section.labels, column, "all"))
        if section.plain is not None:
            about = "harmonize.plain_labels"
            found.append(_Labelled(about, "student", section.plain, section.plain_labels, column, "all"))
    if robust is not None and any(node.stage == "robust" for node in graph.values()):
        found.append(
            _Labelled("robust.labels", "student", robust.images, robust.labels, robust.column, "all")
        )
    for node in graph.values():
        if node.stage not in ("saliency", "attack"):
            continue
        given = config.attack if node.stage == "attack" else config.saliency
        if given.logit != "label":
            continue
        model, _, images = of_role(node.role)
        table = graph[node.inputs["labels"]].role if "labels" in node.inputs else None
        needed, without = "none", "Their saliency is that of the largest logit"
        if node.stage == "attack":
            needed, without = "some", "They are not attacked"
        about = f"{node.stage}.labels"
        found.append(_Labelled(about, base_of(model), images, table, given.column, needed, without))
    return list(dict.fromkeys(found))


def _classes(sources: Sources, one: _Labelled, classes: int) -> Iterator[Finding]:
    """Whether the classes of an image set can be read, as the stages read them, and are within 0..classes - 1."""
    about, images = one.about, one.images
    ids = sources.read(images) if images in sources.config.data.sets else None
    if not ids or (one.table is not None and not sources.is_there(one.table)):
        return
    try:
        labels = _numbers(sources, images, ids, one.table, one.column)
    except ValueError as error:
        yield fault(about, f"{images}: {error}")
        return
    known = labels[labels >= 0]
    said = f"{images}: {len(np.unique(known)):,} classes of {len(known):,} images, {classes:,} of the network"
    if len(known) and int(known.max()) >= classes:
        yield fault(
            about, f"{images}: expected classes in 0..{classes - 1}, found {int(known.max())}",
            "Number them as the network's classifier does",
        )  # fmt: skip
    elif len(known) < len(ids) and one.needed == "all":
        lacking = ids[int(np.flatnonzero(labels < 0)[0])]
        yield fault(
            about, f"{images}: expected a class for each image, found none for {len(ids) - len(known):,} of "
            f"{len(ids):,}, the first {lacking}", f"Set {about} to a table, or name files by WordNet ids",
        )  # fmt: skip
    elif not len(known) and one.needed == "some":
        yield fault(
            about, f"{images}: expected images of known class, found none of {len(ids):,}",
            f"Attack whatever the network answers with attack.logit=top1, or let {about} name a table",
        )  # fmt: skip
    elif len(known) < len(ids):
        yield warning(
            about, f"{images}: no class of {len(ids) - len(known):,} of {len(ids):,} images is known",
            f"{one.without}; {about} may name a table",
        )  # fmt: skip
    else:
        yield ok(about, said)


def _numbers(sources: Sources, images: str, ids: list[str], table: str | None, column: str) -> np.ndarray:
    """Classes (n,) int64, -1 where none is known."""
    from alignet.pipeline.payloads import class_numbers

    shards = sources.path(images) if sources.config.data.sets[images].kind == "shards" else None
    return class_numbers(ids, None if table is None else sources.path(table), column, shards)


def check_harmonize(sources: Sources, models: Models) -> Iterator[Finding]:
    """Levels of the pyramid that fit the image size, images with maps in each step, passes over them."""
    section = sources.config.harmonize
    if section is None or not any(node.stage == "harmonize" for node in sources.graph.values()):
        return
    settings, mapped = section.settings, round(section.settings.batch * section.settings.mapped)
    if mapped < 1:
        yield fault(
            "harmonize.settings.mapped", f"a share of {settings.mapped:g} is none of {settings.batch} images",
            f"Set it to at least {1 / settings.batch:g}",
        )  # fmt: skip
    encoder = models.encoder("student") if "student" in models.networks() else None
    if encoder is not None:
        side = min(encoder.data_config["input_size"][1:])
        last = side >> (settings.levels - 1)
        said = f"{settings.levels} levels of maps of {side} pixels, the last of {last}"
        yield (
            ok("harmonize.settings.levels", said)
            if last >= 2
            else fault("harmonize.settings.levels", f"{said}: at least 2 are needed", "Set fewer levels")
        )
    number = sources.images(section.images).number
    if number:
        passes = settings.steps * mapped / number
        said = f"{settings.steps:,} steps of {mapped:,} images with maps: {passes:,.1f} times through {section.images}"
        fix = "Few maps are seen at all: more steps, or a larger share"
        yield (
            warning("harmonize.settings.steps", said, fix)
            if passes < 0.5
            else ok("harmonize.settings.steps", said)
        )
