"""What is given to `python -m alignet.stages.four`, and which of its commands can measure which networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alignet.stages import _invariances_given
from alignet.stages import _networks_given as given
from alignet.stages._networks_given import (
    Listed,
    arrows_of,
    networks_of,
    split,
)

if TYPE_CHECKING:
    import numpy as np

    from alignet.config import Config
    from alignet.stages._robustness_given import NotMeasured

# key -> what stands there where it is not given; the rest of a command line is configuration
OWN = {
    "images": "", "maps": "", "key": "", "model": "", "names": "", "labels": "", "arrows": "", "common": "true",
    "methods": "", "distances": "", "against": "", "skip": "", "photographs": "true", "output": "",
}  # fmt: skip
SHORT = {  # word -> keys of the configuration
    "logit": ("attack.logit", "saliency.logit"), "column": ("attack.column", "saliency.column"),
    "batch": ("attack.batch", "saliency.batch", "invert.batch"), "count": ("invert.images",),
    "device": ("runtime.device",),
    "threads": ("runtime.threads",),
}  # fmt: skip
COMMANDS = {
    "where": "harmonizer",
    "robustness": "adversarial",
    "invariances": "invariance",
}  # command -> its system
TAKEN = (*COMMANDS, "tables", "figures")  # folders of the output that are no network's
CHOICES = (
    "measured on a network's features by people's choices, which a folder of images does not have; "
    "`experiment=photos`, for example, measures it"
)


@dataclass(frozen=True)
class Plan:
    """Which networks each command measures, and of a system or a network why it does not.

    networks: command -> networks; commands without one are left out. maps: whether there are maps to be beside.
    """

    networks: Mapping[str, Sequence[Listed]]
    missing: Mapping[str, str]
    maps: bool


def peel(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The arguments of OWN that are given, by key, and the others, which are configuration."""
    return given.peel(argv, OWN, SHORT)


def options_of(own: Mapping[str, str]) -> dict[str, str]:
    """OWN with its defaults; ValueError for what is missing or unknown."""
    options = given.begun(own, OWN, "four", paths=("maps", "labels"), words={"common": ("true", "false")})
    skipped = split(options["skip"], "skip") if options["skip"] else []
    unknown = next((one for one in skipped if one not in COMMANDS), None)
    if unknown is not None:
        raise ValueError(
            f"skip: expected some of {', '.join(COMMANDS)}, found {unknown!r}; name commands that are not to run."
        )
    if options["maps"] and Path(options["maps"]).resolve() == Path(options["images"]).resolve():
        raise ValueError(
            f"maps: expected a file or a folder of their own, found the folder of images {options['images']}; put "
            "them elsewhere, since every picture there is inverted."
        )
    return options


def several(options: Mapping[str, str]) -> list[Listed]:
    """The networks; ValueError for fewer than two, which nothing could be compared with."""
    found = networks_of(options["model"], options["names"], TAKEN)
    if len(found) < 2:
        raise ValueError(
            f"model: expected two networks or more, found {found[0].name} alone; add others, separated by commas."
        )
    return found


def plan(
    options: Mapping[str, str],
    networks: Sequence[Listed],
    labels: np.ndarray,
    classifying: Sequence[str],
    config: Config,
) -> Plan:
    """Which command measures which networks. classifying: names of networks with a classifier. ValueError where fewer
    than two systems are left that compare two networks."""
    skipped = split(options["skip"], "skip") if options["skip"] else []
    without = [one.name for one in networks if one.name not in classifying]
    missing = {"AligNet": CHOICES}
    missing |= dict.fromkeys(without, "no classifier, so no saliency, no attacks and no accuracy")
    why = {command: f"left out by skip={command}" for command in skipped}
    if not options["maps"]:
        why.setdefault("where", "no importance maps of people were given: add maps=...")
        if "robustness" not in why:
            missing["perturbations as people's maps"] = (
                "no importance maps of people were given: add maps=..."
            )
    if config.attack.logit != "top1" and not (labels >= 0).any():
        why.setdefault("robustness", "the class of no image is known: give labels=TABLE.csv, or logit=top1")
    found = {}
    for command in COMMANDS:
        those = [one for one in networks if command == "invariances" or one.name in classifying]
        if command not in why and len(those) < 2:
            why[command] = f"fewer than two networks have a classifier ({', '.join(classifying) or 'none'})"
        if command in why:
            missing[_title(command)] = why[command]
        else:
            found[command] = those
    if len(found) < 2:
        raise ValueError(
            "four: expected two or more of where, robustness and invariances that can be measured, found "
            f"{', '.join(found) or 'none'} ({'; '.join(f'{one}: {text}' for one, text in why.items())}); mend that, or "
            "give that command alone."
        )
    return Plan(found, missing, bool(options["maps"]))


def without(planned: Plan, command: str, error: NotMeasured) -> Plan:
    """The plan without the networks, or the maps, that a command cannot measure, or without the command.

    The error itself where fewer than two commands would be left.
    """
    networks, missing = dict(planned.networks), dict(planned.missing)
    if error.maps:
        return replace(planned, maps=False, missing=missing | {"perturbations as people's maps": error.why})
    rest = [one for one in networks[command] if one.name not in error.networks]
    missing |= dict.fromkeys(error.networks, error.why)
    if error.networks and len(rest) > 1:
        networks[command] = rest
    else:
        left = f"fewer than two networks are left ({', '.join(one.name for one in rest) or 'none'})"
        missing[_title(command)] = left if error.networks else error.why
        del networks[command]
    if len(networks) < 2:
        raise error
    return replace(planned, networks=networks, missing=missing)


def check_inversions(options: Mapping[str, str], networks: Sequence[Listed], config: Config) -> None:
    """ValueError for words on inversions that `invariances` would refuse, before other commands run for hours."""
    if "invariances" in (split(options["skip"], "skip") if options["skip"] else []):
        return
    typed = _invariances_given.options_of(words("invariances", options, networks, networks))
    distances = _invariances_given.distances_of(typed["distances"], config.perceptual)
    _invariances_given.methods_of(typed["methods"], typed["against"], config.invert, distances)


def _title(command: str) -> str:
    from alignet.report.four_measures import SYSTEMS

    title = SYSTEMS[COMMANDS[command]]
    return f"{title[0].upper()}{title[1:]}"


def _arrows(typed: str, networks: Sequence[Listed], every: Sequence[Listed]) -> str:
    """The arrows between these networks, by their names."""
    names = [one.name for one in networks]
    pairs = arrows_of(typed, every)
    return ",".join(f"{start}>{end}" for start, end in pairs if start in names and end in names)


def words(
    command: str, options: Mapping[str, str], networks: Sequence[Listed], every: Sequence[Listed]
) -> dict[str, str]:
    """The words that a command is given for some networks of all."""
    ours = {one.name: one for one in networks}
    shared = {
        "images": options["images"], "model": ",".join(one.typed for one in networks), "names": ",".join(ours),
        "photographs": options["photographs"], "output": str(Path(options["output"]) / command),
        "arrows": _arrows(options["arrows"], networks, every),
    }  # fmt: skip
    if command == "invariances":
        return shared | {name: options[name] for name in ("methods", "distances", "against") if options[name]}
    shared |= {"maps": options["maps"], "labels": options["labels"]}
    if command == "where":
        return shared | {"keys": options["key"] or "all"}
    return shared | {"key": options["key"], "common": options["common"]}
