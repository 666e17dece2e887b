"""What is given to `python -m alignet.stages.where`: its words, the networks, the kinds of maps, the classes.

Everything that can be said before a network is loaded is said here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones.embedding import GivenImages
    from alignet.config import Config

# key -> what stands there where it is not given; the rest of a command line is configuration
OWN = {
    "images": "",
    "maps": "",
    "model": "",
    "names": "",
    "keys": "all",
    "labels": "",
    "ceiling": "",
    "splits": "1000",
    "arrows": "",
    "reduction": "max",
    "blur": "none",
    "photographs": "true",
    "output": "",
}
SHORT = {
    "logit": "saliency.logit", "column": "saliency.column", "batch": "saliency.batch",
    "device": "runtime.device", "threads": "runtime.threads",
}  # fmt: skip
SCALES = (1, 4, 16)  # linear factors, as published
TAKEN = ("people", "tables", "figures")  # folders of the output that are no network's


@dataclass(frozen=True)
class Listed:
    """A network of the command line. weights: a .safetensors file in the place of its own weights, or ""."""

    name: str  # of its row
    model: str  # as `alignet.load` takes it
    weights: str
    typed: str

    @property
    def folder(self) -> str:
        """The name of its folder below the output."""
        return folder_name(self.name)


@dataclass(frozen=True)
class Kinds:
    """The kinds of maps that count. keys: as `load_maps` takes them. matched: images with a map, of each."""

    keys: list[str]
    matched: dict[str, int]
    ceiling: float | str | None  # as the family `where` takes it


def peel(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of OWN that are given, by key, and the others, which are configuration."""
    pairs = [item.partition("=") for item in argv]
    own = {key: value for key, equals, value in pairs if equals and key in OWN}
    others = [(key, equals, value) for key, equals, value in pairs if not (equals and key in OWN)]
    return own, ["".join([SHORT.get(key, key), *more]) for key, *more in others]


def options_of(own: dict[str, str]) -> dict[str, str]:
    """OWN with its defaults; ValueError for what is missing or unknown."""
    options = OWN | own
    for name in ("images", "maps", "labels", "output"):  # shells expand ~ behind = only in some cases
        options[name] = os.path.expanduser(options[name])
    for name, meant in (
        ("images", "a folder of images"), ("maps", "people's maps (.npz, a folder, .tar)"),
        ("model", "networks: LIBRARY:NAME, LIBRARY:NAME=FILE.safetensors or folders, separated by commas"),
    ):  # fmt: skip
        if not options[name]:
            raise ValueError(f"{name}: expected {meant}, found none; add {name}=...")
    for name, known in (
        ("reduction", ("max", "mean", "abs_mean")), ("blur", ("none", "published")), ("photographs", ("true", "false")),
    ):  # fmt: skip
        if options[name] not in known:
            raise ValueError(
                f"{name}: expected one of {', '.join(known)}, found {options[name]!r}; name one of them."
            )
    if not options["splits"].isdigit() or not int(options["splits"]):
        raise ValueError(
            f"splits: expected a number of split halves, found {options['splits']!r}; give 1000, for example."
        )
    options["output"] = options["output"] or f"where/{folder_name(Path(options['images']).absolute().name)}"
    return options


def folder_name(name: str) -> str:
    """A text as the name of a folder: no braces, no colons, no slashes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-._") or "network"


def networks_of(typed: str, names: str = "") -> list[Listed]:
    """The networks of a command line, each under a name and a folder of its own. ValueError where one stands twice."""
    parts = [os.path.expanduser(part) for part in _split(typed, "model")]
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise ValueError(f"model: expected each network once, found {twice} twice; take one out.")
    found = [_parted(part) for part in parts]
    chosen = _split(names, "names") if names else []
    if chosen and len(chosen) != len(parts):
        raise ValueError(
            f"names: expected one for each of the {len(parts)} networks, found {len(chosen)}; give as many."
        )
    bare = [
        Path(model.rstrip("/")).name if Path(model).is_dir() else model.partition(":")[2] or model
        for model, _ in found
    ]
    with_files = [
        f"{name} {Path(file).stem}" if file else name for name, (_, file) in zip(bare, found, strict=True)
    ]
    ways = [chosen] if chosen else [bare, with_files, parts]
    for way in ways:
        folders = [folder_name(name).lower() for name in way]  # some disks do not tell letters' case
        if len(set(folders)) == len(folders) and not set(folders) & set(TAKEN):
            return [Listed(name, *pair, part) for name, pair, part in zip(way, found, parts, strict=True)]
    raise ValueError(
        f"names: expected names that differ in their letters and digits and are not {', '.join(TAKEN)}, found "
        f"{', '.join(ways[-1])}; give others as names=A,B."
    )


def _split(typed: str, what: str) -> list[str]:
    parts = [part.strip() for part in typed.split(",")]
    if not all(parts):
        raise ValueError(
            f"{what}: expected values separated by single commas, found {typed!r}; mend the list."
        )
    return parts


def _parted(typed: str) -> tuple[str, str]:
    """A network as (name or folder, file of weights or "")."""
    if Path(typed).is_dir() or "=" not in typed:
        return typed, ""
    name, _, file = typed.partition("=")
    path = Path(os.path.expanduser(file))
    if path.suffix != ".safetensors" or not path.is_file():
        found = "nothing there" if not path.exists() else "another file"
        raise ValueError(
            f"model: expected NAME=FILE.safetensors, a state dict of {name}, found {found} at {path}; check the path, "
            "or leave it out for the network's own weights."
        )
    return name, str(path)


def arrows_of(typed: str, networks: Sequence[Listed]) -> list[tuple[str, str]]:
    """FROM>TO,... as pairs of names; ValueError for a name that no network has."""
    found = []
    names = {text: one.name for one in networks for text in (one.typed, one.name)}
    for part in _split(typed, "arrows") if typed else []:
        start, arrow, end = (text.strip() for text in part.partition(">"))
        unknown = next((name for name in (start, end) if name not in names), None)
        if not arrow or unknown is not None or names[start] == names[end]:
            raise ValueError(
                f"arrows: expected FROM>TO, two of {', '.join(one.name for one in networks)}, found {part!r}; name "
                "them as they are named here."
            )
        found.append((names[start], names[end]))
    return found


def images_of(options: dict[str, str], config: Config) -> GivenImages:
    """The images; maps that lie among them, as NAME_map.png does beside NAME.jpg, are none."""
    from dataclasses import asdict

    from alignet.backbones.embedding import given_images
    from alignet.data.images import say_left_out
    from alignet.data.importance_maps import ENDINGS
    from alignet.data.pixels import reading

    source = given_images(options["images"], **reading(asdict(config.pixels)))
    say_left_out(options["images"], source.left_out)
    if Path(options["maps"]).resolve() != Path(options["images"]).resolve():
        return source
    rows = [row for row, name in enumerate(source.ids) if not name.lower().endswith(ENDINGS)]
    if not rows:
        raise ValueError(
            f"{options['images']}: expected images beside their maps, found maps alone; give the images' folder."
        )
    opened = source.open
    return replace(
        source,
        ids=tuple(source.ids[row] for row in rows),
        open=lambda row, at_least: opened(rows[row], at_least),
    )


def kinds_of(options: dict[str, str], ids: Sequence[str]) -> Kinds:
    """The kinds of maps, all of which have maps of these images; ValueError for one that does not, or is not there."""
    from alignet.data.importance_maps import keys_of, load_maps, maps_for

    path = Path(options["maps"])
    keys = (keys_of(path) or [""]) if options["keys"] == "all" else _split(options["keys"], "keys")
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"keys: expected each kind of maps once, found {twice} twice; take one out.")
    matched, several = {}, []
    for key in keys:
        people = load_maps(path, key=key)
        rows, _ = maps_for(people, ids)
        matched[key] = int((rows >= 0).sum())
        several.append(people.raters is not None and any(len(one) > 1 for one in people.raters))
    return Kinds(list(keys), matched, _ceiling(options["ceiling"], all(several)))


def _ceiling(typed: str, raters: bool) -> float | str | None:
    """The option `ceiling` of the family; not given, it is of the raters' split halves where all maps have raters."""
    if typed in ("", "none", "null"):
        return "split_half" if not typed and raters else None
    if typed in ("split_half", "clickme"):
        return typed
    try:
        value = float(typed)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise ValueError(
            f"ceiling: expected split_half, clickme, none or a number above 0 and of at most 1, found {typed!r}; name "
            "one of them."
        )
    return value


def labels_of(options: dict[str, str], ids: Sequence[str], column: str) -> np.ndarray:
    """The class of each image, -1 where it is not known."""
    import numpy as np

    from alignet.data.wordnet import wordnet_id
    from alignet.pipeline.payloads import class_numbers

    if options["labels"]:
        return class_numbers(ids, Path(options["labels"]), column)
    try:
        return class_numbers(ids, None, column)
    except ValueError:  # WordNet ids of other classes than ImageNet's
        if not any(wordnet_id(one) for one in ids):
            raise
        return np.full(len(ids), -1)


def opener(source: GivenImages) -> Callable[..., Any]:
    """What opens an image by its id."""
    rows = {name: row for row, name in enumerate(source.ids)}
    return lambda name: source.open(rows[name], 0)


def maps_digest(path: Path) -> str:
    """sha256 over the names and bytes of all files of maps."""
    from alignet.data.importance_maps import files_of_maps
    from alignet.runtime.artifacts import file_digest, fingerprint

    return fingerprint({name: file_digest(file) for name, file in files_of_maps(path).items()})
