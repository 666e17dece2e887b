"""Are the files of every needed set there, and can they be read? Images are decoded, arrays opened, tables parsed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import ImagesSet
from alignet.data.images import in_words
from alignet.doctor.evaluations import opened
from alignet.doctor.findings import NOT_GIVEN, Finding, fault, ok, warning
from alignet.doctor.sources import Sources

LAYOUT = "data/README.md says what belongs there"


def check_files(sources: Sources) -> Iterator[Finding]:
    """One line for each set of data that the graph reads."""
    for name in sources.config.data.needs:
        if getattr(sources.config.paths, name) == NOT_GIVEN.format(name=name):
            yield fault(
                f"paths.{name}", f"not given, and experiment={sources.config.experiment_name} needs it",
                f"Add paths.{name}=<where it is>; {LAYOUT}",
            )  # fmt: skip
    data = sources.config.data
    names = list(sources.sets())
    if data.source == "world" and sources.state("world").artifact is None:
        outside = [name for name in names if not data.drawn(name)]
        further = f"; from outside: {', '.join(outside)}" if outside else "; nothing is needed from outside"
        yield ok("data", f"drawn by the stage world{further}")
        names = outside
    for name in names:
        yield from _check_set(sources, name)


def _check_set(sources: Sources, name: str) -> Iterator[Finding]:
    one, path = sources.config.data.sets[name], sources.path(name)
    about = f"data.sets.{name}"
    if path is None:
        yield fault(
            about, f"no path is set ({one.kind})", f"Add data.sets.{name}.path=<where it is>; {LAYOUT}"
        )
        return
    if not sources.is_there(name):
        yield fault(about, *_missing(sources, name, path))
        return
    held = sources.read(name)
    if name in sources.broken:
        yield fault(about, sources.broken[name])
    elif held is None:
        yield warning(about, f"{path} could not be checked, since what it is checked against is not there")
    elif isinstance(one, ImagesSet):
        yield from _check_images(sources, name, held)
    elif isinstance(held, Path):
        read = "read for its evaluations below" if name in opened(sources) else "not opened by this check"
        yield ok(about, f"{path}: {describe(one.kind, held)}, {read}")
    else:
        yield ok(about, f"{path}: {describe(one.kind, held)}")


def _missing(sources: Sources, name: str, path: Path) -> tuple[str, str]:
    """What is missing and what to do; where a whole folder was not given, its option is named, not a path."""
    kind = sources.config.data.sets[name].kind
    for option in vars(sources.config.paths):
        stands = NOT_GIVEN.format(name=option)
        if stands in path.parts:
            rest = "/".join(path.parts[path.parts.index(stands) + 1 :])
            return (
                f"missing ({kind}): {f'{rest} in ' if rest else ''}paths.{option}, which is not given",
                LAYOUT,
            )
    return f"nothing at {path} ({kind})", f"Put it there or set data.sets.{name}.path; {LAYOUT}"


def describe(kind: str, held: Any) -> str:
    """What was read, in a few words."""
    if kind == "triplets":
        return f"{len(held):,} triplets of objects {held.min()}..{held.max()} (counted from 0)"
    if kind == "features":
        constant = f", {held.constant} of them constant" if held.constant else ""
        return f"{held.values.shape[0]:,} rows of {held.values.shape[1]:,} features{constant}"
    if kind == "table":
        return f"{len(held):,} rows with columns {', '.join(held[0])}"
    if kind == "weights":
        return f"{len(held):,} tensors"
    if kind == "map":
        return f"a map of {len(held.weights):,} features"
    if kind == "embedding":
        loc, scale = held
        return f"{loc.shape[0]:,} objects, {loc.shape[1]} dimensions{'' if scale is not None else ', without scale'}"
    if kind == "dataset":
        return (
            f"{len(held.triplets):,} triplets, s01 the largest in {held.holds:.1%}, {held.dropped:,} left out"
        )
    if kind == "maps":
        said = {key: _maps_said(one) for key, one in held.items()}
        if len(set(said.values())) == 1:
            kinds = f", each of {', '.join(said)}" if len(said) > 1 else ""
            return next(iter(said.values())) + kinds
        return "; ".join(f"{key}: {one}" for key, one in said.items())
    if kind == "trials":
        return f"{len(held.rt):,} trials of {len(held.participants):,} participants about {len(held.images):,} images"
    if isinstance(held, Path):
        return f"a file of {held.stat().st_size:,} bytes"
    return f"an array {held.shape}"


def _maps_said(held: Any) -> str:
    """How many importance maps, of what sizes, by how many raters, and how many say nothing."""
    sizes = [f"{height}x{width}" for height, width in held.sizes]
    more = f" and {len(sizes) - 3:,} more sizes" if len(sizes) > 3 else ""
    constant = f", {held.constant:,} of them constant" if held.constant else ""
    by = ""
    if held.raters is not None:
        raters = sorted(len(one) for one in held.raters)
        by = (
            f", by {raters[0]} to {raters[-1]} raters"
            if raters[0] < raters[-1]
            else f", by {raters[0]} raters"
        )
    return f"{len(held):,} importance maps of {', '.join(sizes[:3])}{more}{by}{constant}"


def _check_images(sources: Sources, name: str, ids: list[str]) -> Iterator[Finding]:
    """Decode some images (doctor.images) or all; an unreadable one stops `embed` unless it may skip them."""
    chosen = sample(ids, sources.config.doctor.images, sources.config.doctor.seed)
    refused, turned = [], 0
    for identity in chosen:
        try:
            turned += open_one(sources, name, identity).info["orientation"] != 1
        except ValueError as error:
            refused.append(str(error))
    about, left_out = f"data.sets.{name}", sources.left_out(name)
    said = f"{sources.path(name)}: {len(ids):,} images, {len(chosen):,} of them decoded"
    if left_out:
        yield warning(
            about, f"{sources.path(name)} holds other files, which are left out: {in_words(left_out)}",
            "Convert what are images to PNG or JPEG",
        )  # fmt: skip
    if turned:
        yield warning(
            about, f"{turned:,} of {len(chosen):,} images decoded lie on their side or mirrored for models, as timm "
            "and torchvision read them; viewers turn them by their EXIF orientation",
            "Set pixels.orientation=exif to turn them for models too",
        )  # fmt: skip
    if not refused:
        yield ok(about, said)
        return
    found = f"{said}, {len(refused)} cannot be read, for example {refused[0]}"
    if sources.config.embed.unreadable == "skip":
        yield warning(about, found, "embed.unreadable=skip sets such images aside")
    else:
        yield fault(about, found, "Or set embed.unreadable=skip to set such images aside")


def refusal(sources: Sources, name: str, identity: str) -> str:
    """Why an image of a set cannot be read, '' where it can."""
    try:
        open_one(sources, name, identity)
    except ValueError as error:
        return str(error)
    return ""


def open_one(sources: Sources, name: str, identity: str) -> Any:
    """One image of a set, as every stage opens it."""
    return sources.opener(name)(identity)


def sample(ids: list[str], number: int | str, seed: int) -> list[str]:
    """Some of the ids at random, in their order; all of them with `all`."""
    if isinstance(number, str) or number >= len(ids):
        return ids
    rows = np.sort(np.random.default_rng(seed).choice(len(ids), number, replace=False))
    return [ids[row] for row in rows]
