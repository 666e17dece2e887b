"""The named configurations of test sets: they add their own nodes to any experiment and change no other."""

from pathlib import Path

import pytest

from alignet.evaluate.families import FAMILIES
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph

CONF = Path(__file__).parents[3] / "conf/also"
NAMES = sorted(
    path.stem for path in CONF.glob("*.yaml") if path.stem.startswith(("few_shot", "breeds", "imagenet"))
)
PAPER = ["experiment=paper"]
OWN = ["experiment=own", "paths.images=/photos", "paths.map=/map.npz"]


def test_there_are_all_that_the_paper_names():
    assert len([name for name in NAMES if name.startswith("few_shot_")]) == 9
    together = load([*PAPER, "+also=few_shot"]).evaluate.datasets
    each = {
        key
        for name in NAMES
        if name.startswith("few_shot_")
        for key in load([*PAPER, f"+also={name}"]).evaluate.datasets
    }
    assert together.keys() == each  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("experiment", [PAPER, OWN], ids=["paper", "own"])
def test_a_configuration_adds_nodes_and_leaves_the_others(name, experiment):
    before = build_graph(load(experiment))
    config = load([*experiment, f"+also={name}", "paths.generalise=/tests"])
    after = build_graph(config)
    changed = {
        key for key, node in before.items() if key not in ("report", "export[alignet]") and after[key] != node
    }
    assert not changed
    added = after.keys() - before.keys()
    assert any(key.startswith("evaluate[alignet.") for key in added)
    assert all(key.partition("[")[0] in ("index", "embed", "evaluate") for key in added)
    assert all(dataset.family in FAMILIES for dataset in config.evaluate.datasets.values())


def test_imagenets_training_images_are_embedded_once():
    graph = build_graph(load([*PAPER, "+also=[few_shot_imagenet,breeds,imagenet_transfer]"]))
    assert graph["evaluate[original.ImageNet]"].inputs["features.train"] == "embed[student.pool]"
    for name in ("living17", "probe"):
        assert graph[f"evaluate[original.{name}]"].inputs["features.train"] == "embed[student.pool]"
    assert "embed[student.imagenet_train]" not in graph


def test_a_test_set_that_is_not_here_can_be_left_out():
    graph = build_graph(load([*PAPER, "+also=imagenet_transfer", "~evaluate.datasets.probe.images.c"]))
    assert "index[imagenet_c]" not in graph
    assert "index[imagenet_r]" in graph
