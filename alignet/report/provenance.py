"""Where a page comes from: every artifact behind it, how each was made, and the values that determined it.

Times and commands stay in the manifests: they differ between runs that give the same results. Read off the manifests
of the artifacts alone; none of their payload is opened.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignet.report.blocks import Block, Cell, Section, Table, Text

if TYPE_CHECKING:
    from alignet.runtime.artifacts import Artifact

KEY = "provenance"
LONGEST = 120  # letters of a value


def lineage(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """The artifacts and all that they were built from, each after its inputs, each once; outside data has none."""
    from alignet.runtime.artifacts import MANIFEST, Artifact, read_manifest

    found: dict[str, Artifact] = {}

    def visit(artifact: Artifact) -> None:
        if artifact.manifest["fingerprint"] in found:
            return
        root = artifact.folder.parent.parent
        for _, name in sorted(artifact.manifest["identity"]["inputs"].items()):
            if name not in found:
                for path in sorted(root.glob(f"*/{name[:12]}/{MANIFEST}")):
                    above = Artifact(path.parent, read_manifest(path.parent))
                    if above.manifest["fingerprint"] == name:
                        visit(above)
        found[artifact.manifest["fingerprint"]] = artifact

    for artifact in artifacts:
        visit(artifact)
    return list(found.values())


def provenance(artifacts: Iterable[Artifact], sections: Sequence[Mapping[str, Any]]) -> Section:
    """The part of the page that says where it comes from. sections: of the node `report`, of each run on the page."""
    made = lineage(artifacts)
    blocks: list[Block] = [Text(_how(made, sections)), _sources(sections)]
    blocks += [_nodes(made), _values(made)]
    return Section(KEY, "Provenance", blocks)


def node_key(artifact: Artifact) -> str:
    """The node's name, `stage[role]` or `stage`."""
    identity = artifact.manifest["identity"]
    return f"{identity['stage']}[{identity['role']}]" if identity["role"] else identity["stage"]


def _told(made: Sequence[Artifact], name: str) -> list[str]:
    """What the manifests say of something, in order, each once."""
    return list(dict.fromkeys(str(one.manifest["provenance"][name]) for one in made))


def _how(made: Sequence[Artifact], sections: Sequence[Mapping[str, Any]]) -> str:
    seeds = list(dict.fromkeys(str(section["seed"]) for section in sections))
    commits = [commit[:12] for commit in _told(made, "git")]
    return (
        f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}. {len(made)} artifacts. "
        f"Git commit: {', '.join(commits)}. When each was made, how long it took and by which command stands in its "
        "`MANIFEST.json` and not here, so that equal runs give equal pages."
    )


def _sources(sections: Sequence[Mapping[str, Any]]) -> Table:
    found: dict[tuple[str, str, str], None] = {}
    for section in sections:
        for name, entry in section["models"].items():
            found[name, entry["name"] or "-", entry["licence"] or "not stated"] = None
        for name, licence in section["licences"].items():
            found["data", name, licence] = None
    rows = [list(entry) for entry in found]
    return Table(
        name="licences", title="Models, data and their licences", header=["what", "name", "licence"], rows=rows,
        caption="As the configuration states them; weights made from them inherit their terms.",
    )  # fmt: skip


def _nodes(made: Sequence[Artifact]) -> Table:
    rows: list[list[Cell | str]] = []
    for one in made:
        how = one.manifest["provenance"]
        rows.append(
            [
                node_key(one), one.manifest["fingerprint"][:12], one.digest[:12], how["device"], str(how["threads"]),
                str(how["world_size"]), how["git"][:12],
            ]
        )  # fmt: skip
    versions = [one.manifest["provenance"]["versions"] for one in made]
    told = {
        name: list(dict.fromkeys(str(entry.get(name, "")) for entry in versions)) for name in _names(versions)
    }
    said = ", ".join(f"{name} {' and '.join(found)}" for name, found in told.items())
    return Table(
        name="nodes", title=f"The {len(made)} artifacts behind this page",
        header=["node", "fingerprint", "bytes", "device", "threads", "processes", "git"],
        rows=rows,
        caption=(
            "In the order in which each could be made. Fingerprint: of what determines the artifact; bytes: of what it "
            f"holds. Software: {said}."
        ),
        folded=True,
    )  # fmt: skip


def _names(versions: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for entry in versions for name in entry))


def _values(made: Sequence[Artifact]) -> Table:
    """Every configured value of every node but the evaluations' own data sets, equal nodes of a stage once."""
    rows, seen = [], set()
    for one in made:
        identity = one.manifest["identity"]
        if identity["stage"] in ("index", "evaluate"):
            continue
        for key, value in _leaves(identity["section"]):
            entry = (identity["stage"], key, value)
            if entry not in seen:
                seen.add(entry)
                rows.append([node_key(one), key, value])
    return Table(
        name="values", title="Configured values", header=["node", "value", "is"], rows=rows, folded=True,
        caption="What each node was configured by; a value that several nodes of a stage share stands once.",
    )  # fmt: skip


def _leaves(value: Any, where: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{where}.{name}" if where else str(name))
        return
    text = shlex.join(map(str, value)) if isinstance(value, list) else str(value)
    yield where, text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
