"""What a node is, and the settings of a student, which are rows of the report's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignet.config.harmonizer import HARMONIZED
from alignet.config.robust import INGREDIENTS, ROBUST, trained_role

# A row of the table: the model whose features are read, and the node whose affine map is applied to them.
SETTINGS: dict[str, tuple[str | None, str | None]] = {
    "data": (None, None),  # no model: what an evaluation says of people, triplets or data alone
    "pixels": ("pixels", None),
    "histogram": ("histogram", None),
    "teacher-original": ("teacher", None),
    "teacher-ud": ("teacher", "distill[teacher]"),
    "original": ("student", None),
    "distillation": ("distillation", None),
    "ud": ("student", "distill[student]"),
    "alignet": ("alignet", None),
    "global": ("student", "distill[global]"),
    "glocal": ("student", "distill[glocal]"),
    "direct": ("direct", None),
    "harmonized": ("harmonized", None),
    "unharmonized": ("unharmonized", None),
    "shuffled-maps": ("shuffled-maps", None),
    "alignet-harmonized": ("alignet-harmonized", None),
    "alignet-and-harmonized": ("alignet-and-harmonized", None),
    "robust-l2": ("robust-l2", None),
    "robust-linf": ("robust-linf", None),
    "robust-free": ("robust-free", None),
}
FINETUNED = ("alignet", "distillation", "direct")  # roles of the stage `finetune`
TRAINED = (  # role -> its stage
    dict.fromkeys(FINETUNED, "finetune")
    | dict.fromkeys(HARMONIZED, "harmonize")
    | dict.fromkeys(ROBUST, "robust")
)


def row_of(setting: str) -> tuple[str | None, str | None] | None:
    """What SETTINGS says of a row, also of the rows that a configuration names itself (trades-6, standard@50)."""
    if setting in SETTINGS:
        return SETTINGS[setting]
    return (setting, None) if trained_role(setting) else None


def stage_of(model: str) -> str | None:
    """The stage that trains a model from the student, None for a model that no stage trains from it."""
    return TRAINED.get(model) or ("robust" if trained_role(model) else None)


def rows_text() -> str:
    """All rows, as messages list them."""
    return f"{', '.join(SETTINGS)}, or roles of robust.roles, which begin with {', '.join(INGREDIENTS)}"


@dataclass(frozen=True)
class Node:
    """One stage in one role: what it is configured by and built from. `outside` names a set of outside data."""

    stage: str
    role: str
    version: int
    section: Mapping[str, Any]
    inputs: Mapping[str, str]  # name inside the stage -> key of another node
    outside: str = ""

    @property
    def key(self) -> str:
        """The node's name, `stage[role]` or `stage`."""
        return f"{self.stage}[{self.role}]" if self.role else self.stage


def upstream(graph: Mapping[str, Node], key: str) -> list[str]:
    """Keys of everything that `key` depends on, each after its own inputs; `key` itself not included."""
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        for parent in graph[name].inputs.values():
            if parent not in found:
                visit(parent)
                found[parent] = None

    visit(key)
    return list(found)
