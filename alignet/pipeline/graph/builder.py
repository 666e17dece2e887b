"""The builder that every stage's function is given: it holds the configuration and the nodes so far.

A function adds the inputs of its node first, so that the order of insertion is a topological order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from alignet.config import Config
from alignet.pipeline.graph.nodes import Node


@dataclass(frozen=True)
class Stage:
    """A stage: its version, the function that adds one of its nodes, and whether configuration may name its nodes.

    Raise the version when what the stage computes from the same section and inputs changes.
    """

    name: str
    version: int
    build: Callable[[GraphBuilder, str], str]  # role -> the node's key
    named: bool = True


def chosen(settings: Any) -> dict[str, Any]:
    """Settings as a section. A field with a default is an option that came later: at its default it is left out, so
    that what was made before there was a choice stays valid."""
    came_later = {one.name: one.default for one in fields(settings) if one.default is not MISSING}
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in came_later or value != came_later[name]
    }


class GraphBuilder:
    """Nodes by key, each after its inputs."""

    def __init__(self, config: Config, stages: Mapping[str, Stage]):
        self.config = config
        self.stages = stages
        self.nodes: dict[str, Node] = {}
        self._keys: dict[tuple[str, str], str] = {}

    def node(self, stage: str, role: str = "") -> str:
        """The key of a node, which is added with everything that it needs unless it is there."""
        if (stage, role) not in self._keys:
            self._keys[stage, role] = self.stages[stage].build(self, role)
        return self._keys[stage, role]

    def named(self, key: str) -> str:
        """The node that configuration calls by its key, e.g. `vice` or `embed[student.pool]`."""
        stage, _, role = key.rstrip("]").partition("[")
        of_images = stage in ("embed", "saliency", "attack")
        if stage not in self.stages or not self.stages[stage].named or (of_images and "." not in role):
            raise ValueError(
                f"no node {key!r}; name one as `status` does: embed[student.pool], index[pool], vice, distill[teacher]"
            )
        return self.node(stage, role)

    def add(self, stage: str, role: str, section: Any, inputs: Mapping[str, str], outside: str = "") -> str:
        """Add a node whose inputs are there. section: a mapping or a dataclass. Returns the key."""
        plain = section if isinstance(section, dict) else asdict(section)
        node = Node(stage, role, self.stages[stage].version, plain, dict(inputs), outside)
        self.nodes.setdefault(node.key, node)
        return node.key
