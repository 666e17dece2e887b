"""From overrides in Hydra's grammar, as they are typed, to the validated configuration; and the jobs of a multirun."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignet.pipeline import conf

if TYPE_CHECKING:
    from alignet.config import Config


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration as plain values, from conf/ and Hydra overrides."""
    import yaml
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    _check_aliases()
    with initialize_config_dir(str(conf.conf_folder()), version_base="1.3"):
        try:
            composed = hydra_compose("config", overrides=[quoted(item) for item in _based(overrides)])
        except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
            found = " ".join(str(error).split())[:400]
            raise ValueError(
                f"expected files below {conf.conf_folder()} in YAML, found {found}; mend that file."
            ) from None
    return OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)  # type: ignore[return-value]


MOST_ALIASES = 24  # of a configuration file: nested aliases multiply, and so few cannot fill the memory


def _check_aliases() -> None:
    """ValueError for a file below conf/ that repeats its parts so often that reading it might not end."""
    for path in sorted(conf.conf_folder().rglob("*.yaml")):
        found = len(re.findall(rb"(?<![^\s\[{,:-])\*\w", path.read_bytes()))
        if found > MOST_ALIASES:
            raise ValueError(
                f"{path}: expected at most {MOST_ALIASES} aliases (*name), found {found}; write out what they name."
            )


def _based(overrides: Sequence[str]) -> list[str]:
    """`base=photos`, the experiment that an ablation is laid over, as Hydra names the groups that it selects."""
    found = []
    for item in overrides:
        key, _, name = item.partition("=")
        found += [f"experiment@_global_={name}", f"ablation={name}"] if key == "base" else [item]
    return found


# keys whose values are text whatever they look like, and of these the ones that name a file or a folder
_TEXT = re.compile(r"role|survey\.(title|consent|hand_in)")
_PATH = re.compile(
    r"paths\.\w+|data\.sets\.[\w-]+\.(path|ids|under)|runtime\.slurm\.logs"
    r"|survey\.(images|inverted|similarity|folder|posterior|consent_file)"
)
_SWEEP = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)")


def quoted(override: str, several: bool = False) -> str:
    """An override of Hydra's grammar for one that was typed: paths and texts are quoted, and ~ becomes the home folder.

    So a folder may be called `2024`, `a,b` or `[x]`, and a title may hold any letter. null, interpolations and what is
    quoted already stay what they are. several: for a multirun, whose commas part values.
    """
    key, equals, value = override.partition("=")
    name = key.lstrip("+")
    path = bool(_PATH.fullmatch(name))
    if not equals or not (path or _TEXT.fullmatch(name)):
        return override
    if several and _SWEEP.fullmatch(value):
        return override
    parts = _at_commas(value) if several else [value]
    return f"{key}=" + ",".join(_quoted(part, path) for part in parts)


def _quoted(value: str, path: bool) -> str:
    if value in ("", "null") or (len(value) > 1 and value[0] in "'\"" and value[0] == value[-1]):
        return value
    if (
        "${" in value and "'" in value
    ):  # quotes of the interpolation's own, which mean nothing inside of others
        return value
    if path:
        value = os.path.expanduser(value)
    # a backslash is one, unless a quote follows
    return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), value) + "'"


def _at_commas(value: str) -> list[str]:
    """The parts of a text between commas that stand outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in value:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if letter == quote or (letter in "'\"" and len(parts[-1]) == 1):
            quote = "" if quote else letter
        elif not quote:
            depth += (letter in "[{(") - (letter in "]})")
    return parts


def load(overrides: Sequence[str]) -> Config:
    """The validated configuration of a command line."""
    from alignet.config import parse

    return parse(compose(overrides))


def first_job(arguments: Sequence[str]) -> dict[str, Any] | None:
    """The values of a command line's first job; None where it asks for help, or cannot be read: cli.main says so."""
    if {"-h", "--help"} & set(arguments):
        return None
    try:
        return compose(product([item for item in arguments if item not in ("-m", "--multirun")])[0])
    except Exception:
        return None


def product(overrides: Sequence[str]) -> list[list[str]]:
    """The jobs of a multirun: every combination of comma-separated values, by Hydra's own sweeper."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([quoted(item, several=True) for item in overrides])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [[_typed(item) for item in job] for job in jobs]


def _typed(override: str) -> str:
    """What `quoted` makes this override of: a path or a text without the quotes that it was given for Hydra."""
    key, _, value = override.partition("=")
    bare = f"{key}=" + re.sub(r"(\\\\)*(\\')?", _unescaped, value[1:-1])
    return bare if value[:1] == "'" and quoted(bare) == override else override


def _unescaped(found: re.Match[str]) -> str:
    return found[0].replace("\\'", "'").replace("\\\\", "\\") if found[2] else found[0]
