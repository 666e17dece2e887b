"""Where values come from: which are the papers' and which are not, read from the marks of the comments in conf/; and
the licences of models and data.

A comment in conf/ ends in a mark where its value has a source or is an assumption: [paper], [official code],
[VICE's default], [ours], [ours; the paper 0.001]. What has no mark is ours as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignet.pipeline.cli import conf_folder

# Sections that decide what is computed; the others say where things are and how they are shown.
METHOD = (
    "teacher", "student", "vice", "soft_labels", "distill", "cluster", "triplets", "smooth", "finetune", "harmonize",
    "saliency", "stimuli", "attack", "robust", "invert", "perceptual",
)  # fmt: skip
GROUPS = ("teacher", "student")  # chosen whole by name
# Sources of data/README.md by how their rows begin -> how it is known that a run reads them: a set of data below a
# folder (`{name}` is one of `paths`), a set of a kind, an evaluation of a family or with a name in its `data`.
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "THINGS": ("below", ("{things}",)),
    "ImageNet": ("below", ("{imagenet}", "{imagenet_val}", "{generalise}/imagenet")),
    "WordNet ids": ("family", ("top1",)),
    "AligNet data": ("kind", ("dataset",)),
    "a published VICE embedding": ("kind", ("embedding",)),
    "Peterson": ("below", ("{judged}/peterson", "{judged}/cichy", "{judged}/king")),
    "Levels": ("below", ("{levels}",)),
    "NIGHTS": ("below", ("{judged}/nights",)),
    "WordNet 3.0": ("data", ("wordnet",)),
    "labelled test sets": ("below", ("{generalise}",)),
}
_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.\- ]+):(?P<rest>.*)$")
_MARK = re.compile(r"\[([^\[\]]*(?:ours|paper|official|VICE|gLocal)[^\[\]]*)\]")


@dataclass(frozen=True)
class Value:
    """One value of the configuration, and what its comment says of its origin ('' where it has no mark)."""

    key: str
    value: Any
    mark: str
    overridden: bool

    @property
    def ours(self) -> bool:
        """Whether it is an assumption of this implementation, not a value of a paper."""
        return self.overridden or not self.mark or "ours" in self.mark


def values(composed: Mapping[str, Any], overrides: Sequence[str], folder: Path | None = None) -> list[Value]:
    """Every value of the sections in METHOD with its mark. composed: the resolved configuration as plain values."""
    marks: dict[str, str] = {}
    for path, prefix in active_files(folder or conf_folder(), overrides, str(composed["experiment_name"])):
        said = comments(path.read_text(encoding="utf-8"), prefix)
        marks |= said  # a later file's own value is no longer what an earlier comment spoke of
    given = {item.lstrip("+~").partition("=")[0] for item in overrides}
    groups = {item.partition("=")[0]: item.partition("=")[2] for item in overrides if "=" in item}
    chosen = [Value(name, groups[name], "", True) for name in GROUPS if name in groups]
    given -= {one.key for one in chosen}  # one choice, whose values have the marks of their file
    found = chosen
    for section in [one for one in METHOD if _decides(one, composed)]:
        for key, value in leaves(_used(section, composed), section):
            changed = any(key == item or key.startswith(f"{item}.") for item in given)
            found.append(Value(key, value, marks.get(key, ""), changed))
    return found


def _decides(section: str, composed: Mapping[str, Any]) -> bool:
    """Whether anything is computed by a section: saliency and pictures shown in part are where there are maps, attacks
    and inversions where an evaluation names them."""
    if section == "stimuli":
        return bool(composed.get("stimuli", {}).get("maps"))
    family = {"attack": "attack", "invert": "invariance", "perceptual": "invariance"}.get(section)
    if family:
        datasets = composed.get("evaluate", {}).get("datasets", {}).values()
        return any(one["family"] == family and one["settings"] for one in datasets)
    sets = composed.get("data", {}).get("sets", {})
    return section != "saliency" or any(one["kind"] == "maps" for one in sets.values())


def _used(section: str, composed: Mapping[str, Any]) -> Any:
    """A section; of `attack`, `invert` and `perceptual` with the methods and distances alone that nodes take."""
    if section not in ("attack", "invert", "perceptual"):
        return composed.get(section)
    found = composed[section]
    if section == "attack":
        named = _named(composed, r"attack\[[^.\]]*:([^.\]]+)\.") | {found["method"]}
        return {**found, "methods": {name: one for name, one in found["methods"].items() if name in named}}
    named = _named(composed, r"invert\[.*\.([^.\]]+)\]")
    methods = {name: one for name, one in composed["invert"]["methods"].items() if name in named}
    if section == "invert":
        return {**found, "methods": methods}
    pushed = {one["distance"] for one in methods.values()}
    named = {"pixels", *(found["use"] or found["distances"]), *pushed}
    return {**found, "distances": {name: one for name, one in found["distances"].items() if name in named}}


def _named(composed: Mapping[str, Any], pattern: str) -> set[str]:
    """What the nodes of evaluations name, by a pattern."""
    nodes = [str(key) for one in composed["evaluate"]["datasets"].values() for key in one["nodes"].values()]
    return {match[1] for key in nodes if (match := re.match(pattern, key))}


def active_files(folder: Path, overrides: Sequence[str], experiment: str) -> list[tuple[Path, str]]:
    """The files of conf/ that make up a configuration, later ones over earlier ones, and the section each fills."""
    chosen = {"experiment": experiment, "teacher": "world", "student": "world"}
    seen: list[tuple[Path, str]] = []
    given = dict(item.split("=", 1) for item in overrides if "=" in item)
    chosen["experiment"] = given.get("experiment", "world")
    file = folder / "experiment" / f"{chosen['experiment']}.yaml"
    recipes = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            if entry := re.match(r"^\s+- override /(teacher|student): *(\S+)", line):
                chosen[entry[1]] = entry[2]
            elif entry := re.match(r"^\s+- /(\S+)", line):
                recipes.append(folder / f"{entry[1]}.yaml")
    for group in GROUPS:
        name = given.get(group, chosen[group])
        seen.append((folder / group / f"{name}.yaml", group))
    files = [(folder / "config.yaml", ""), *seen, *((path, "") for path in recipes), (file, "")]
    return [(path, prefix) for path, prefix in files if path.is_file()]


def comments(text: str, prefix: str = "") -> dict[str, str]:
    """Dotted key -> the mark in its comment ('' without one). Comment lines below a key continue its comment."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = [(-1, prefix)] if prefix else []
    last = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            mark = _MARK.search(line)
            if mark and last and line.startswith("  ") and not found.get(last):
                found[last] = mark[1]
            continue
        match = _LINE.match(line)
        if match is None and last and (names := _in_braces(line.partition(" #")[0])):
            found |= {f"{last}.{name}": found[last] for name in names}  # a mapping below its key
        if match is None:
            last = ""
            continue
        indent = len(match["indent"])
        while above and above[-1][0] >= indent:
            above.pop()
        parent = above[-1][1] if above else ""
        last = f"{parent}.{match['key']}" if parent else match["key"]
        above.append((indent, last))
        comment = match["rest"].partition(" #")[2]
        mark = _MARK.search(comment)
        found[last] = mark[1] if mark else ""
        found |= {
            f"{last}.{name}": found[last] if name != "seed" else ""
            for name in _in_braces(match["rest"].partition(" #")[0])
        }
    return found


def _in_braces(text: str) -> list[str]:
    """The keys of a mapping that is written on one line, which share its comment; a seed has no source."""
    inner = re.fullmatch(r"\s*\{(.*)\}\s*", text)
    return re.findall(r"(?:^|,)\s*([\w.\-]+):(?=\s)", inner[1]) if inner else []


def leaves(value: Any, key: str) -> list[tuple[str, Any]]:
    """Dotted key and value of everything inside that is no mapping."""
    if not isinstance(value, Mapping):
        return [] if value is None else [(key, value)]
    return [pair for name, item in value.items() for pair in leaves(item, f"{key}.{name}")]


def assumption_lines(found: Sequence[Value]) -> list[str]:
    """The values that are no paper's: with their marks, then those that the command line set, then the rest by name."""
    method = [one for one in found if one.key.partition(".")[0] not in GROUPS]
    shown = [
        (one.key, _short(one.value), "given on this command line" + (f" (comment: {one.mark})" if one.mark else "")
         if one.overridden else one.mark)
        for one in found
        if one.overridden or (one.mark and one.ours)
    ]  # fmt: skip
    widths = [max((len(row[column]) for row in shown), default=0) for column in range(2)]
    lines = [f"{key:{widths[0]}}  {value:{widths[1]}}  {mark}" for key, value, mark in shown]
    rest = [one.key for one in method if not one.mark and not one.overridden]
    if rest:
        lines.append(f"ours, without a mark ({len(rest)}): {', '.join(rest)}")
    sourced = [f"{one.key} [{one.mark}]" for one in method if not one.ours]
    lines.append(f"with a source ({len(sourced)}): {', '.join(sourced) or 'none'}")
    return lines


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def licence_lines(composed: Mapping[str, Any], used: Collection[str]) -> list[str]:
    """The licences of the two models, of the data as report.licences has them, and what data/README.md says of it.

    composed: the resolved configuration as plain values. used: the sets of data that the run reads; a row of
    data/README.md stands where one of them is of its source.
    """
    lines = [f"{what}: {composed[what]['name']}: {composed[what]['licence'] or 'none stated'}"
             for what in ("teacher", "student")]  # fmt: skip
    lines += [f"data: {name}: {licence}" for name, licence in composed["report"]["licences"].items()]
    readme = conf_folder().parent / "data" / "README.md"
    if readme.is_file():
        section = readme.read_text(encoding="utf-8").partition("## Sources")[2]
        rows = [row.strip("| ") for row in section.splitlines() if row.startswith("|")]
        lines += [
            " | ".join(cell.strip() for cell in row.split("|"))
            for row in rows[2:]
            if _is_used(row, composed, used)
        ]
    lines.append(
        "your own files have the licences that you know; a student inherits those of what it was trained on"
    )
    return lines


def _is_used(row: str, composed: Mapping[str, Any], used: Collection[str]) -> bool:
    """Whether a run reads what a row of data/README.md is about; rows that nothing is known of are always shown."""
    source = next((name for name in SOURCES if row.startswith(name)), None)
    if source is None:
        return True
    sets = [composed["data"]["sets"][name] for name in used]
    how, values = SOURCES[source]
    if how == "below":
        roots = [
            Path(value.format_map({name: str(path) for name, path in composed["paths"].items()}))
            for value in values
        ]
        paths = [Path(str(one["path"])) for one in sets]
        return any(root == path or root in path.parents for root in roots for path in paths)
    if how == "kind":
        return any(one["kind"] in values for one in sets)
    evaluated = [one for one in composed["evaluate"]["datasets"].values() if one["settings"]]
    if how == "family":
        return any(one["family"] in values for one in evaluated)
    return any(name in one["data"] for one in evaluated for name in values)
