"""From a configuration to the graph of nodes, as pure data. This is the only place that knows the edges.

A node is a stage in a role. The four settings of a student are four ways through the graph; the
`distillation` way uses no human data, so none of its nodes depends on `vice` or `distill`.

     index[human] -> reliability
     index[human] -> vice -> soft_labels -+-> distill[teacher] -+
     embed[teacher.things] ---------------+                     |
     embed[teacher.pool] ---------------------------------------+-> cluster, triplets, finetune[alignet]
     embed[teacher.pool] ---------------------------------------> cluster, triplets, finetune[distillation]
     embed[teacher.pool] + embed[student.pool] -> smooth            (if configured, finetune reads it instead)
     embed[student.pool] ---------------------------------------> finetune          (to keep its classifier's answers)
     embed[student.*] + soft_labels -> distill[student]           (the setting `ud`)
     embed[student.*] + index[human] -> distill[global], distill[glocal]   (older transforms, from bare choices)
     index[human] + index[judged images] -> finetune[direct]      (no teacher)
     index[trials] -> levels                                      (choices with response times, by triplet)
     every setting -> evaluate[setting.dataset] -> report

What somebody else has made enters in the place of a fit and is otherwise the same node: a published
embedding as `vice`, a map W, b as `distill[role]`, an answered set of triplets as `triplets[alignet]`.

A stage is one function, which adds a node with its inputs, and one line in STAGES (stages.py).

    nodes, builder -> data -> people, models -> teacher -> student -> evaluation -> export -> stages
"""

from alignet.pipeline.graph.nodes import FINETUNED, SETTINGS, Node, upstream
from alignet.pipeline.graph.stages import STAGES, VERSIONS, build_graph

__all__ = ["FINETUNED", "SETTINGS", "STAGES", "VERSIONS", "Node", "build_graph", "upstream"]
