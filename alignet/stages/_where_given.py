"""What is given to `python -m alignet.stages.where`: its words and the kinds of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignet.stages import _networks_given as given
from alignet.stages._networks_given import split

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


@dataclass(frozen=True)
class Kinds:
    """The kinds of maps that count. keys: as `load_maps` takes them. matched: images with a map, of each."""

    keys: list[str]
    matched: dict[str, int]
    ceiling: float | str | None  # as the family `where` takes it


def peel(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of OWN that are given, by key, and the others, which are configuration."""
    return given.peel(argv, OWN, SHORT)


def options_of(own: dict[str, str]) -> dict[str, str]:
    """OWN with its defaults; ValueError for what is missing or unknown."""
    options = given.begun(
        own, OWN, "where", paths=("maps", "labels"),
        words={"reduction": ("max", "mean", "abs_mean"), "blur": ("none", "published")},
        needed={"maps": "people's maps (.npz, a folder, .tar)"},
    )  # fmt: skip
    if not options["splits"].isdigit() or not int(options["splits"]):
        raise ValueError(
            f"splits: expected a number of split halves, found {options['splits']!r}; give 1000, for example."
        )
    return options


def kinds_of(options: dict[str, str], ids: Sequence[str]) -> Kinds:
    """The kinds of maps, all of which have maps of these images; ValueError for one that does not, or is not there."""
    from alignet.data.importance_maps import keys_of, load_maps, maps_for

    path = Path(options["maps"])
    keys = (keys_of(path) or [""]) if options["keys"] == "all" else split(options["keys"], "keys")
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
