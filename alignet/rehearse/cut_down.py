"""A configuration on a small scale: the values of conf/rehearse.yaml in the place of its own, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from alignet.config import Config, parse
from alignet.pipeline import conf

MARK = "REHEARSAL"
_PATCH = re.compile(
    r"patch(\d+)|-(\d{2})(?=\D|$)"
)  # of a vision transformer's name, in timm and in open_clip
_PATCHES = 2  # along a side of a rehearsal's images
_SIDE = 64  # pixels of images for networks whose name says no patch
_DEPTH = 2  # blocks of a timm vision transformer


@dataclass
class CutDown:
    """A small configuration, and each replacement as a line `key: value -> value`."""

    config: Config
    replaced: list[str] = field(default_factory=list)


def cut_down(config: Config, folder: Path) -> CutDown:
    """The configuration of a rehearsal in a folder: conf/rehearse.yaml applied, artifacts there, marked."""
    values, rules = asdict(config), _rules()
    replaced = [
        line
        for pattern, value in rules["values"].items()
        for line in _replace(values, pattern.split("."), value, "")
    ]
    replaced += _snapshots(values)
    if not config.rehearse.models:
        for name in ("teacher", "student"):
            replaced += _random(values, name, rules["smaller"])
    values["paths"]["artifacts"] = str(folder / "artifacts")
    values["runtime"]["launcher"] = "local"
    values["rehearse"]["active"] = True
    values["banner"] = f"{MARK}, its figures mean nothing: {config.banner}"
    values["report"]["title"] = f"{MARK}: {config.report.title}"
    return CutDown(parse(values), replaced)


def _rules() -> Mapping[str, Any]:
    import yaml

    with open(conf.conf_folder() / "rehearse.yaml", encoding="utf-8") as handle:
        return yaml.safe_load(handle)


def _replace(values: Any, keys: list[str], rule: Any, where: str) -> Iterator[str]:
    """Put a rule's value at every key that fits; the replacements that changed something."""
    if not isinstance(values, dict):
        return
    for key in [one for one in values if fnmatchcase(str(one), keys[0])]:
        place = f"{where}.{key}" if where else str(key)
        if len(keys) > 1:
            yield from _replace(values[key], keys[1:], rule, place)
            continue
        old = values[key]
        new = rule
        if isinstance(rule, dict) and set(rule) == {"most"}:
            new = (
                min(old, rule["most"]) if isinstance(old, int | float) and not isinstance(old, bool) else old
            )
        if old is not None and _plain(new) != _plain(old):
            values[key] = new
            yield f"{place}: {_plain(old)} -> {_plain(new)}"


def _snapshots(values: dict[str, Any]) -> Iterator[str]:
    """Weights that trainings keep on their way, after the first steps in place of later ones, and the rows of these."""
    robust = values["robust"] or {"roles": {}}
    for name, role in robust["roles"].items():
        kept = tuple(range(1, len(role["snapshots"]) + 1))
        if kept == tuple(role["snapshots"]):
            continue
        rows = {f"{name}@{old}": f"{name}@{new}" for old, new in zip(role["snapshots"], kept, strict=True)}
        yield f"robust.roles.{name}.snapshots: {_plain(role['snapshots'])} -> {_plain(kept)}"
        role["snapshots"] = kept
        robust["settings"]["steps"] = max(robust["settings"]["steps"], len(kept))
        for dataset in values["evaluate"]["datasets"].values():
            dataset["settings"] = tuple(rows.get(one, one) for one in dataset["settings"])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _random(values: dict[str, Any], name: str, smaller: Mapping[str, str]) -> Iterator[str]:
    """The same architecture with random weights at a small image size; a timm vision transformer with few blocks.

    smaller: architecture -> one of the same library and family that stands for it. A student that could not be exported
    at another size keeps its own.
    """
    model = values[name]
    if model["weights"] not in ("hub", "file", "random"):
        return
    changed: dict[str, Any] = {"weights": "random"}
    changed["architecture"] = smaller.get(model["architecture"], model["architecture"])
    patch = _PATCH.search(changed["architecture"])
    side = _PATCHES * int(patch[1] or patch[2]) if patch else _SIDE
    exported = name == "student" and _rebuilt_at_one_size(model["library"], changed["architecture"])
    if model["library"] != "transformers" and model["weights"] != "file" and not exported:
        changed["image_size"] = side
    if model["library"] == "timm" and "patch" in model["architecture"] and "vit" in model["architecture"]:
        changed["model_args"] = {**model["model_args"], "depth": _DEPTH}
    if changed["architecture"] != model["architecture"]:
        model["name"] = f"{model['name']} ({changed['architecture']} in the rehearsal)"
    for key, value in changed.items():
        if model[key] != value:
            yield f"{name}.{key}: {model[key]} -> {value}"
            model[key] = value


def _rebuilt_at_one_size(library: str, architecture: str) -> bool:
    """Whether an export is loaded at the architecture's own image size alone: open_clip's image towers of timm."""
    if library != "open_clip":
        return False
    import open_clip

    config = open_clip.get_model_config(architecture) or {}
    return "timm_model_name" in config.get("vision_cfg", {})
