"""All stages in a list, and the nodes of a configuration, which are what it asks for and what that needs.

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
     index[images with maps] + index[maps] -> harmonize[role]     (the student, or finetune[alignet] before it)
     index[images] + weights -> saliency[model.images]            (what a row's own model looks at)
     index[images] + index[maps] -> stimuli[maps] -> embed[model:logits.stimuli.maps]
     index[images] + their classes -> robust[role]                (the student, trained on attacked images)
     index[images] + weights -> attack[model.images]              (the smallest changes that turn a row's own model)
     index[images] + weights -> invert[model.images.method]       (inputs that a row's own model takes for the same)
     invert[model.images.method] + weights -> perceptual[...]     (how far inverted images are from what they look like)
     every setting -> evaluate[setting.dataset] -> report

What somebody else has made enters in the place of a fit and is otherwise the same node: a published
embedding as `vice`, a map W, b as `distill[role]`, an answered set of triplets as `triplets[alignet]`.
"""

from __future__ import annotations

from alignet.config import AblationSettings, Config
from alignet.pipeline.graph import (
    attack,
    data,
    evaluation,
    export,
    harmonizer,
    invert,
    models,
    people,
    perceptual,
    student,
    teacher,
)
from alignet.pipeline.graph.builder import GraphBuilder, Stage
from alignet.pipeline.graph.nodes import Node

# named: whether configuration (evaluate.datasets.<name>.nodes) may call the stage's nodes by their keys
STAGES = (
    Stage("world", 5, data.world, named=False),
    Stage("index", 1, data.index),
    Stage("pretrain", 2, models.pretrain, named=False),
    Stage("embed", 2, models.embed),
    Stage("vice", 2, people.vice),
    Stage("reliability", 3, people.reliability, named=False),
    Stage("soft_labels", 2, people.soft_labels),
    Stage("levels", 1, people.levels),
    Stage("distill", 1, teacher.distill),
    Stage("cluster", 2, teacher.cluster),
    Stage("triplets", 2, teacher.triplets),
    Stage("smooth", 1, teacher.smooth),
    Stage("finetune", 3, student.finetune),
    Stage("harmonize", 1, harmonizer.harmonize, named=False),
    Stage("saliency", 1, harmonizer.saliency),
    Stage("stimuli", 1, harmonizer.stimuli),
    Stage("robust", 1, attack.robust, named=False),
    Stage("attack", 1, attack.attack),
    Stage("invert", 1, invert.invert),
    Stage("perceptual", 1, perceptual.perceptual),
    Stage("export", 2, export.export, named=False),
    Stage("evaluate", 3, evaluation.evaluate, named=False),
    Stage("report", 3, evaluation.report, named=False),
)
VERSIONS = {stage.name: stage.version for stage in STAGES}


def build_graph(config: Config) -> dict[str, Node]:
    """All nodes of a configuration by key, each after its inputs."""
    graph = GraphBuilder(config, {stage.name: stage for stage in STAGES})
    if config.ablation is not None:
        _ask_for_ablation(graph, config.ablation)
    else:
        _ask_for_everything(graph)
    return graph.nodes


def _ask_for_everything(graph: GraphBuilder) -> None:
    config = graph.config
    for role in config.finetune.roles:
        if config.triplets.published is None:
            graph.node("cluster", role)
        graph.node("finetune", role)
    for name in config.harmonize.roles if config.harmonize else ():
        graph.node("harmonize", name)
    for name in config.robust.roles if config.robust else ():
        graph.node("robust", name)
    for name, dataset in config.evaluate.datasets.items():
        for setting in dataset.settings:
            evaluation.evaluation(graph, setting, name)
    for kind in config.export.roles:
        graph.node("export", kind)
    graph.node("report")


def _ask_for_ablation(graph: GraphBuilder, ablation: AblationSettings) -> None:
    """What one job of an ablation measures."""
    for measure in ablation.measures:
        for name in measure.datasets:
            if name not in graph.config.evaluate.datasets:
                known = ", ".join(graph.config.evaluate.datasets)
                raise ValueError(f"ablation.measures: expected data sets out of {known}, found {name!r}")
            for setting in (*ablation.rows, *ablation.beside):
                evaluation.evaluation(graph, setting, name)
