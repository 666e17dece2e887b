"""The graph with importance maps: what a row is measured on is made for its own model, and controls see no people."""

import pytest

from alignet.pipeline.cli import load
from alignet.pipeline.graph import HARMONIZED, build_graph, upstream


def graph_of(*more):
    return build_graph(load(["experiment=harmonize", *more]))


def test_each_row_takes_the_saliency_and_the_decisions_of_its_own_model():
    graph = graph_of()
    for row, model in (
        ("original", "student"),
        ("alignet", "alignet"),
        *((role, role) for role in HARMONIZED),
    ):
        node = graph[f"evaluate[{row}.where]"]
        assert node.inputs["node.saliency"] == f"saliency[{model}.mapped_test]"
    assert "node.saliency" not in graph["evaluate[data.where]"].inputs
    masked = graph["evaluate[harmonized.masking]"].inputs
    assert masked["node.decisions"] == "embed[harmonized:logits.stimuli.mapped_test_maps]"
    assert graph[masked["node.decisions"]].section["model"]["feature"] == "output"
    assert graph[masked["node.decisions"]].inputs["images"] == "stimuli[mapped_test_maps]"


@pytest.mark.parametrize(("stage", "dataset"), [("saliency", "where"), ("attack", "attack")])
def test_a_folder_of_two_names_has_one_table_of_classes(stage, dataset):
    key, more = (
        f"{stage}[student.mapped_test]",
        ["experiment=attack", "+data.sets.again={kind: images, path: images/mapped_test, under: ''}"],
    )
    asked = [*more, f"+evaluate.datasets.{dataset}.nodes.second='{stage}[{{model}}.again]'"]
    found = build_graph(load(more))[key]
    assert found.inputs["labels"] == "index[mapped_test_labels]"
    for same in ([], [f"+{stage}.labels.again=mapped_test_labels"]):
        graph = build_graph(load([*asked, *same]))
        assert graph[key] == found
        assert graph[f"evaluate[original.{dataset}]"].inputs["node.second"] == key
    for change, tables in (
        ([f"+{stage}.labels.again=mapped_labels"], "mapped_test_labels and mapped_labels"),
        ([f"~{stage}.labels.mapped_test", f"+{stage}.labels.again=mapped_labels"], "none and mapped_labels"),
    ):
        with pytest.raises(
            ValueError,
            match=f"^{stage}.labels: expected one table for mapped_test, found {tables} for two names of its folder; "
            "give both names the same$",
        ):
            build_graph(load([*asked, *change]))


def test_what_a_role_begins_with_and_learns_from():
    graph = graph_of()
    starts = {role: graph[f"harmonize[{role}]"].inputs["weights"] for role in HARMONIZED}
    assert starts.pop("alignet-harmonized") == "finetune[alignet]"
    assert set(starts.values()) == {"pretrain[student]"}
    people = {"vice", "soft_labels", "distill[teacher]"}
    for role in ("harmonized", "unharmonized", "shuffled-maps"):
        assert not people & set(upstream(graph, f"harmonize[{role}]"))
    for role in ("alignet-harmonized", "alignet-and-harmonized"):
        assert people - {"soft_labels"} <= set(upstream(graph, f"harmonize[{role}]"))
    assert graph["harmonize[alignet-and-harmonized]"].inputs["pool"] == "index[pool]"


def test_pictures_by_the_maps_of_a_model():
    key = "embed[harmonized:logits.stimuli.student.mapped_test]"
    graph = graph_of(f"evaluate.datasets.masking.nodes.decisions='{key}'")
    assert graph[key].inputs["images"] == "stimuli[student.mapped_test]"
    assert graph["stimuli[student.mapped_test]"].inputs["saliency"] == "saliency[student.mapped_test]"


def test_a_part_of_the_pool_is_a_part_for_both_losses():
    node = graph_of("data.pool_images=500")["harmonize[alignet-and-harmonized]"]
    assert node.section["pool_images"]["count"] == 500


def test_the_world_without_maps_is_the_same_world():
    world = build_graph(load([]))["world"].section
    assert not {"move", "scale", "mapped", "raters"} & set(world)
    assert {"move", "scale", "mapped", "raters"} <= set(graph_of()["world"].section)


def test_the_presets_differ_where_paper_and_code_do():
    shared = ["experiment=paper", "+also=clickme"]
    paper, code = (
        build_graph(load([*shared, f"+harmonizer={name}"]))["harmonize[harmonized]"].section["settings"]
        for name in ("paper", "code")
    )
    changed = {name for name in paper if paper[name] != code[name]}
    assert changed == {
        "steps", "map_weight", "scalar", "order", "norm", "blur", "decay_form", "decay_of", "schedule", "drops",
        "mixup",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["harmonize=null"], "settings that harmonize.roles makes"),
        (["~harmonize.roles.harmonized"], "found harmonized as well"),
        (["+harmonize.roles.other={start:original,maps:true,shuffled:false,alignet:0.0}"], "found 'other'"),
        (["finetune.settings.sampling=triplets", "smooth=null"], "sampling=in_batch"),
        (["harmonize.maps=mapped"], "to be a set of kind maps"),
        (["harmonize.plain=null"], "harmonize.plain"),
        (["evaluate.datasets.where.settings=[pixels]"], "which is pixels"),
        (["~stimuli.maps.mapped_test_maps"], "stimuli.maps"),
        (["evaluate.datasets.masking.nodes.decisions='embed[{model}:other.mapped_test]'"], "<model>:logits"),
        (["evaluate.datasets.where.options.reductions=[largest]"], "reductions"),
        (["world.raters=0"], "world.mapped"),
        (["evaluate.datasets.where.settings=[ud]"], "which is a map of features"),
        (["finetune.settings.retain=0.5"], "finetune.settings.retain"),
        (["harmonize.roles.harmonized.shuffled=true"], "what its name says"),
        (["stimuli.settings.temperature=0"], "stimuli.temperature"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_made(more, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        graph_of(*more)
