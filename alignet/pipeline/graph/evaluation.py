"""What is measured of every setting, and the report that it goes into."""

from __future__ import annotations

from dataclasses import asdict

from alignet.pipeline.graph.builder import GraphBuilder
from alignet.pipeline.graph.data import object_ids
from alignet.pipeline.graph.models import pixels_section
from alignet.pipeline.graph.nodes import row_of, rows_text


def evaluation(graph: GraphBuilder, setting: str, name: str) -> str:
    """The node that measures a setting on a data set."""
    if row_of(setting) is None:
        raise ValueError(
            f"evaluate.datasets.{name}.settings: expected some of {rows_text()}, found {setting!r}"
        )
    return graph.node("evaluate", f"{setting}.{name}")


def evaluate(graph: GraphBuilder, role: str) -> str:
    """One data set of evaluate.datasets in one setting; role: <setting>.<data set>."""
    from alignet.evaluate.families import family
    from alignet.evaluate.families.options import check_options

    setting, _, name = role.partition(".")
    config = graph.config
    dataset = config.evaluate.datasets[name]
    family(dataset.family, name)
    check_options(name, dataset.family, dataset.options)
    inputs: dict[str, str] = {}
    for part, images in dataset.images.items():
        for kind, key in features(graph, setting, images).items():
            inputs["map" if kind == "map" else f"features.{part}"] = key
    inputs |= {f"data.{part}": graph.node("index", item) for part, item in dataset.data.items()}
    # {model}: what a stage made for this row's own model
    model, mapping = row_of(setting) or (None, None)
    if mapping and any("{model}" in item for item in dataset.nodes.values()):
        raise ValueError(
            f"evaluate.datasets.{name}.settings: expected rows that are networks, found {setting}, which is a map of "
            f"features: it has no saliency and no logits of its own; take it out"
        )
    inputs |= {
        f"node.{part}": graph.named(item.replace("{model}", model or ""))
        for part, item in dataset.nodes.items()
        if model or "{model}" not in item
    }
    section = {
        "family": dataset.family, "options": dict(dataset.options), "bootstrap": config.evaluate.bootstrap,
        "seed": config.evaluate.seed, "dataset": name, "setting": setting,
    }  # fmt: skip
    if "objects" in dataset.data and "test" in dataset.images:
        section["object_ids"] = object_ids(config, dataset.images["test"])
    if "pictures" in dataset.data:
        section["pixels"] = pixels_section(config)
    return graph.add("evaluate", role, section, inputs)


def features(graph: GraphBuilder, setting: str, images: str) -> dict[str, str]:
    """Inputs that give a table row's features of an image set: raw rows and perhaps a map."""
    model, mapping = row_of(setting) or (None, None)
    if model is None:
        raise ValueError(
            f"evaluate: expected no images in the setting {setting}, which has no model, found {images!r}"
        )
    inputs = {"features": graph.node("embed", f"{model}.{images}")}
    if mapping:
        inputs["map"] = graph.named(mapping)
    return inputs


def report(graph: GraphBuilder, role: str) -> str:
    """The page of all evaluations, with the figures of what they were built from."""
    config, inputs = graph.config, {}
    for name, dataset in config.evaluate.datasets.items():
        for setting in dataset.settings:
            inputs[f"{setting}.{name}"] = evaluation(graph, setting, name)
    if config.report.picture_images is not None:
        for setting in ("original", "alignet"):
            inputs[f"picture.{setting}"] = features(graph, setting, config.report.picture_images)["features"]
        if config.report.picture_labels is not None:
            inputs["labels"] = graph.node("index", config.report.picture_labels)
        else:
            inputs["clusters"] = graph.node("cluster", "alignet")
    section = asdict(config.report) | {"banner": config.said, "seed": config.seed}
    section["models"] = {
        name: {"name": model.title, "licence": model.licence}
        for name, model in (("teacher", config.teacher), ("student", config.student))
    }
    roles = config.robust.roles.items() if config.robust else ()
    fresh = sorted(name for name, role in roles if role.begin == "random")
    section |= {"fresh": fresh} if fresh else {}  # rows that did not begin as the original
    for one in config.harmonize.roles if config.harmonize else ():
        inputs[f"harmonize.{one}"] = graph.node("harmonize", one)
    for one in config.robust.roles if config.robust else ():
        inputs[f"robust.{one}"] = graph.node("robust", one)
    for one in config.finetune.roles:
        inputs[f"finetune.{one}"] = graph.node("finetune", one)
    if config.vice is not None:
        inputs["vice"] = graph.node("vice")
        if config.vice.published is None:
            inputs["reliability"] = graph.node("reliability")
    if config.triplets.published is None and "alignet" in config.finetune.roles:
        inputs["map"] = graph.node("distill", "teacher")
    if config.smooth:
        inputs["smooth"] = graph.node("smooth")
    return graph.add("report", "", section, inputs)
