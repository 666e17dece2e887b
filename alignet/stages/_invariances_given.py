"""What is given to `python -m alignet.stages.invariances`: its words, methods, distances and people's answers."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignet.stages import _networks_given as given
from alignet.stages._networks_given import (
    Listed,
    networks_of,
    split,
)
from alignet.stages._networks_page import without_folders

if TYPE_CHECKING:
    from alignet.config import InvertMethod, InvertSection, PerceptualSection

# key -> what stands there where it is not given; the rest of a command line is configuration
OWN = {
    "images": "", "model": "", "names": "", "methods": "free", "distances": "pixels", "against": "", "matched": "0.05",
    "arrows": "", "people": "", "similarity": "", "kind": "similarity", "order": "", "photographs": "true",
    "output": "",
}  # fmt: skip
SHORT = {
    "count": "invert.images", "draws": "invert.draws", "layer": "invert.layer", "batch": "invert.batch",
    "device": "runtime.device", "threads": "runtime.threads",
}  # fmt: skip
TAKEN = ("tables", "figures")  # folders of the output that are no network's
PIXELS = "pixels"
HERE = ("pixels", "stlpips")  # kinds of distances that need no node of a run


@dataclass(frozen=True)
class Compared:
    """A distance of the command line: of `perceptual.distances`, or over the layers of a network."""

    name: str
    kind: str  # pixels | stlpips | layers
    net: str = ""  # of stlpips
    network: Listed | None = None  # of layers

    @property
    def names(self) -> list[str]:
        """How it may be called: by its name, or as its network was typed or is called."""
        return [self.name, *([self.network.typed, self.network.name] if self.network is not None else [])]

    @property
    def title(self) -> str:
        """What it is, in words."""
        if self.network is not None:
            return f"layers of {without_folders(self.network)}"
        return (
            "root mean square difference of pixels"
            if self.kind == PIXELS
            else f"shift-tolerant LPIPS, {self.net}"
        )


def peel(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of OWN that are given, by key, and the others, which are configuration."""
    return given.peel(argv, OWN, SHORT)


def options_of(own: dict[str, str]) -> dict[str, str]:
    """OWN with its defaults; ValueError for what is missing or unknown."""
    order = "a table with a column id, in the order of similarity="
    options = given.begun(
        own, OWN, "invariances", paths=("similarity", "order"),
        words={"kind": ("similarity", "dissimilarity")}, needed={"order": order} if own.get("similarity") else {},
    )  # fmt: skip
    alone = next((name for name in ("order", "kind") if own.get(name) and not options["similarity"]), None)
    if alone is not None:
        raise ValueError(
            f"{alone}: expected people's similarities beside {alone}={own[alone]}, found none; add similarity=FILE."
        )
    for name in ("similarity", "order"):
        if options[name] and not Path(options[name]).is_file():
            raise ValueError(f"{name}: expected a file, found none at {options[name]}; check the path.")
    try:
        most = float(options["matched"])
    except ValueError:
        most = -1.0
    if not 0 < most < 1:
        raise ValueError(
            f"matched: expected a relative error above 0 and below 1, found {options['matched']}; set it to 0.05."
        )
    return options


def distances_of(typed: str, section: PerceptualSection) -> dict[str, Compared]:
    """The distances by their names, `pixels` always the first; ValueError for unknown ones, or a package that lacks.

    The distance over a network's layers has the name of its folder, or of the network, in which anything but letters,
    digits, `_` and `-` is a hyphen.
    """
    from alignet.evaluate.families.invariance_read import RESERVED

    found = {PIXELS: Compared(PIXELS, PIXELS)}
    networks: list[str] = []
    parts = split(typed, "distances")
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise ValueError(f"distances: expected each once, found {twice} twice; take one out.")
    for part in parts:
        if part in section.distances:
            one = section.distances[part]
            if one.kind not in HERE:
                raise ValueError(
                    f"distances: expected distances of kind {' or '.join(HERE)}, or networks, found {part} of kind "
                    f"{one.kind}, which a run alone has; name its network as LIBRARY:NAME=FILE.safetensors."
                )
            found[part] = Compared(part, one.kind, one.net)
        elif ":" in part or "=" in part or Path(part).is_dir():
            networks.append(part)
        else:
            raise ValueError(
                f"distances: expected some of {', '.join(section.distances)}, or networks as model= takes them, found "
                f"{part!r}; name one of them."
            )
    for network in networks_of(",".join(networks)) if networks else ():
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", network.folder)[:64]
        if name in found:
            raise ValueError(
                f"distances: expected names of distances that differ, found {name} twice; leave one out."
            )
        found[name] = Compared(name, "layers", network=network)
    reserved = next((name for name in found if name.partition("_")[0] in RESERVED), None)
    if reserved is not None:
        raise ValueError(
            f"distances: expected names that do not begin with {', '.join(RESERVED)}, as other scores do, "
            f"found {reserved}; call the network's folder, or the distance of perceptual.distances, otherwise."
        )
    if any(one.kind == "stlpips" for one in found.values()):
        from importlib.util import find_spec

        if find_spec("stlpips_pytorch") is None:
            raise ValueError(
                "distances: expected the package stlpips-pytorch for shift-tolerant LPIPS, found none; install it with "
                "pip install 'alignet[perceptual]', or name other distances."
            )
    return found


def methods_of(
    typed: str, against: str, section: InvertSection, distances: Mapping[str, Compared]
) -> dict[str, InvertMethod]:
    """The methods by their names, the first one that of the scores without a name before them.

    against: the distance that an adversarial method makes large, by its name or as its network was typed; "" for the
    method's own. ValueError for unknown methods, or a distance that is not among those that are measured.
    """
    names = split(typed, "methods")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"methods: expected each once, found {twice} twice; take one out.")
    unknown = next((name for name in names if name not in section.methods), None)
    if unknown is not None:
        raise ValueError(
            f"methods: expected some of invert.methods ({', '.join(section.methods)}), found {unknown!r}; name some of "
            "them."
        )
    found = {name: section.methods[name] for name in names}
    if against and not any(one.distance for one in found.values()):
        raise ValueError(
            f"against: expected a method that makes a distance large beside against={against}, found "
            f"{', '.join(names)}; add methods=...,adversarial."
        )
    for name, one in found.items():
        if one.distance:
            wanted = os.path.expanduser(against or one.distance)
            meant = next((key for key, other in distances.items() if wanted in other.names), None)
            if meant is None:
                raise ValueError(
                    f"against: expected one of {', '.join(distances)} for the method {name}, found {wanted!r}; add it "
                    "to distances=, or name another."
                )
            found[name] = replace(one, distance=meant)
    return found


def people_of(typed: str, networks: Sequence[Listed]) -> dict[str, Path]:
    """Files of people's answers by network: FILE for one network, or NAME=FILE,...; ValueError for others."""
    found: dict[str, Path] = {}
    names = [one.name for one in networks]
    for part in split(typed, "people") if typed else []:
        name, equals, file = part.rpartition("=")
        name = name if equals else names[0] if len(names) == 1 else ""
        path = Path(file).expanduser()
        if name not in names or name in found:
            raise ValueError(
                f"people: expected NAME=FILE for networks out of {', '.join(names)}, each once, found {part!r}; say on "
                "whose inverted images people answered."
            )
        if not path.is_file():
            raise ValueError(
                f"people: expected choices.csv of `survey import`, found no file {path}; check the path."
            )
        found[name] = path
    return found
