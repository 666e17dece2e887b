"""All stages in a list, and the nodes of a configuration, which are what it asks for and what that needs."""

from __future__ import annotations

from alignet.config import AblationSettings, Config
from alignet.pipeline.graph import data, evaluation, export, models, people, student, teacher
from alignet.pipeline.graph.builder import GraphBuilder, Stage
from alignet.pipeline.graph.nodes import Node

# named: whether configuration (evaluate.datasets.<name>.nodes) may call the stage's nodes by their keys
STAGES = (
    Stage("world", 4, data.world, named=False),
    Stage("index", 1, data.index),
    Stage("pretrain", 1, models.pretrain, named=False),
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
