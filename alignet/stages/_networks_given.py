"""What is given to a command that lists networks on images: its words, networks, arrows, images, maps and classes.

Read by `stages.where`, `robustness`, `invariances` and `four`. Everything that can be said before a network is loaded
is said here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from alignet.backbones import Encoder
    from alignet.backbones.embedding import GivenImages
    from alignet.config import Config

TAKEN = ("people", "tables", "figures")  # folders of an output that are no network's


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


def peel(
    argv: Sequence[str], own: Mapping[str, str], short: Mapping[str, str | Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """The arguments of a command's own words, by key, and the others, which are configuration.

    own: key -> what stands there where it is not given. short: word -> the keys of the configuration that it sets.
    """
    pairs = [item.partition("=") for item in argv]
    given = {key: value for key, equals, value in pairs if equals and key in own}
    others: list[str] = []
    for key, equals, value in pairs:
        if not (equals and key in own):
            keys = short.get(key, key)
            others += [f"{one}{equals}{value}" for one in ([keys] if isinstance(keys, str) else keys)]
    return given, others


def begun(
    own: Mapping[str, str], defaults: Mapping[str, str], command: str, *, paths: Sequence[str],
    words: Mapping[str, Sequence[str]], needed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:  # fmt: skip
    """A command's own words with their defaults; ValueError for what is missing or unknown.

    paths: words that name a file or a folder. words: key -> what it takes. needed: key -> what it means, beside images
    and model.
    """
    options = {**defaults, **own}
    expand(options, (*paths, "images", "output"))
    check_given(
        options,
        {
            "images": "a folder of images",
            "model": "networks: LIBRARY:NAME, LIBRARY:NAME=FILE.safetensors or folders, separated by commas",
            **needed,
        },
    )
    check_words(options, {**words, "photographs": ("true", "false")})
    if options.get("key") and not options["maps"]:
        raise ValueError(f"key: expected maps=... beside key={options['key']}, found none; add maps=...")
    options["output"] = (
        options["output"] or f"{command}/{folder_name(Path(options['images']).absolute().name)}"
    )
    return options


def expand(options: dict[str, str], names: Sequence[str]) -> None:
    """Paths with ~ for the home folder, in place; shells expand ~ behind = only in some cases."""
    for name in names:
        options[name] = os.path.expanduser(options[name])


def check_given(options: Mapping[str, str], needed: Mapping[str, str]) -> None:
    """ValueError for a word that is missing. needed: key -> what it means."""
    for name, meant in needed.items():
        if not options[name]:
            raise ValueError(f"{name}: expected {meant}, found none; add {name}=...")


def check_words(options: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> None:
    """ValueError for a value that is none of the known ones. known: key -> the words that it takes."""
    for name, words in known.items():
        if options[name] not in words:
            raise ValueError(
                f"{name}: expected one of {', '.join(words)}, found {options[name]!r}; name one of them."
            )


def folder_name(name: str) -> str:
    """A text as the name of a folder: no braces, no colons, no slashes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-._") or "network"


def networks_of(typed: str, names: str = "", taken: Sequence[str] = TAKEN) -> list[Listed]:
    """The networks of a command line, each under a name and a folder of its own. ValueError where one stands twice.

    taken: names of folders that are no network's.
    """
    parts = [os.path.expanduser(part) for part in split(typed, "model")]
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise ValueError(f"model: expected each network once, found {twice} twice; take one out.")
    found = [_parted(part) for part in parts]
    chosen = split(names, "names") if names else []
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
        if len(set(folders)) == len(folders) and not set(folders) & set(taken):
            return [Listed(name, *pair, part) for name, pair, part in zip(way, found, parts, strict=True)]
    raise ValueError(
        f"names: expected names that differ in their letters and digits and are not {', '.join(taken)}, found "
        f"{', '.join(ways[-1])}; give others as names=A,B."
    )


def split(typed: str, what: str) -> list[str]:
    """A list of a command line; ValueError for an empty part. what: its key."""
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
    for part in split(typed, "arrows") if typed else []:
        start, arrow, end = (text.strip() for text in part.partition(">"))
        unknown = next((name for name in (start, end) if name not in names), None)
        if not arrow or unknown is not None or names[start] == names[end]:
            raise ValueError(
                f"arrows: expected FROM>TO, two of {', '.join(one.name for one in networks)}, found {part!r}; name "
                "them as they are named here."
            )
        found.append((names[start], names[end]))
    return found


def images_of(folder: str, maps: str, config: Config) -> GivenImages:
    """The images; maps that lie among them, as NAME_map.png does beside NAME.jpg, are none."""
    from dataclasses import asdict

    from alignet.backbones.embedding import given_images
    from alignet.data.images import say_left_out
    from alignet.data.importance_maps import ENDINGS
    from alignet.data.pixels import reading

    source = given_images(folder, **reading(asdict(config.pixels)))
    say_left_out(folder, source.left_out)
    if not maps or Path(maps).resolve() != Path(folder).resolve():
        return source
    rows = [row for row, name in enumerate(source.ids) if not name.lower().endswith(ENDINGS)]
    if not rows:
        raise ValueError(
            f"{folder}: expected images beside their maps, found maps alone; give the images' folder."
        )
    opened = source.open
    return replace(
        source,
        ids=tuple(source.ids[row] for row in rows),
        open=lambda row, at_least: opened(rows[row], at_least),
    )


def labels_of(table: str, ids: Sequence[str], column: str) -> np.ndarray:
    """The class of each image, -1 where it is not known. table: a file with the classes, or "" for ImageNet's names."""
    import numpy as np

    from alignet.data.wordnet import wordnet_id
    from alignet.pipeline.payloads import class_numbers

    if table:
        return class_numbers(ids, Path(table), column)
    try:
        return class_numbers(ids, None, column)
    except ValueError:  # WordNet ids of other classes than ImageNet's
        if not any(wordnet_id(one) for one in ids):
            raise
        return np.full(len(ids), -1)


def loaded(one: Listed, what: str, device: str) -> Encoder:
    """The network. what: of it, for messages, such as `model NAME`; ValueError where it cannot be loaded."""
    from alignet import api

    try:
        return api.load(one.model, weights=one.weights, device=device).encoder
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def opener(source: GivenImages) -> Callable[..., Any]:
    """What opens an image by its id."""
    rows = {name: row for row, name in enumerate(source.ids)}
    return lambda name: source.open(rows[name], 0)


def maps_digest(path: Path) -> str:
    """sha256 over the names and bytes of all files of maps."""
    from alignet.data.importance_maps import files_of_maps
    from alignet.runtime.artifacts import file_digest, fingerprint

    return fingerprint({name: file_digest(file) for name, file in files_of_maps(path).items()})
