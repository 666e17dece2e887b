"""From a configuration to the graph of nodes, as pure data. This is the only place that knows the edges.

In: a Config. Out: nodes (stage, role, version, section, inputs), each after its inputs. A stage is one function, in the
file for what it is about (data, people, models, teacher, student, evaluation, export), which adds a node with its
inputs, and one line in STAGES. Open first: stages.py, then teacher.py.
"""

from alignet.pipeline.graph.nodes import (
    FINETUNED,
    HARMONIZED,
    SETTINGS,
    TRAINED,
    Node,
    row_of,
    stage_of,
    upstream,
)
from alignet.pipeline.graph.stages import STAGES, VERSIONS, build_graph

__all__ = [
    "FINETUNED",
    "HARMONIZED",
    "SETTINGS",
    "STAGES",
    "TRAINED",
    "VERSIONS",
    "Node",
    "build_graph",
    "row_of",
    "stage_of",
    "upstream",
]
