"""The graph: four settings are four ways, and only those that use people depend on people."""

import pytest

from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph, upstream
from alignet.pipeline.runner import Pipeline
from alignet.runtime.artifacts import canonical

EXPERIMENTS = {"world": [], "photos": ["experiment=photos", "paths.photos=/nowhere"]}


def graph_of(name, *overrides):
    return build_graph(load([*EXPERIMENTS[name], *overrides]))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_node_comes_after_its_inputs_and_has_canonical_json(name):
    graph, seen = graph_of(name), set()
    for key, node in graph.items():
        assert key == node.key
        assert set(node.inputs.values()) <= seen
        seen.add(key)
        canonical(node.section)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("sampling", ["in_batch", "triplets"])
def test_distillation_uses_no_human_data(name, sampling):
    smooth = [] if sampling == "in_batch" else ["smooth=null"]
    graph = graph_of(name, f"finetune.settings.sampling={sampling}", *smooth)
    way = ["finetune[distillation]", "cluster[distillation]"]
    way += [key for key in graph if key.startswith("embed[distillation.")]
    way += [key for key in graph if key.startswith("triplets[distillation")]
    for key in way:
        stages = {graph[parent].stage for parent in upstream(graph, key)}
        assert not stages & {"vice", "soft_labels", "distill"}, key
    mapped = {graph[parent].stage for parent in upstream(graph, "finetune[alignet]")}
    assert {"vice", "soft_labels", "distill"} <= mapped


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_raw_embedding_never_depends_on_the_map(name):
    graph = graph_of(name)
    for key in graph:
        if key.startswith(("embed[teacher.", "embed[student.")):
            assert "distill" not in {graph[parent].stage for parent in upstream(graph, key)}


def test_the_paper_s_sampling_brings_the_triplets_stage_in():
    assert "triplets[alignet]" not in graph_of("world")
    graph = graph_of("world", "finetune.settings.sampling=triplets")
    assert graph["finetune[alignet]"].inputs["triplets"] == "triplets[alignet]"
    assert graph["triplets[alignet]"].inputs["clusters"] == "cluster[alignet]"


def test_keeping_the_classifier_brings_the_initial_features_in_and_no_human_data():
    assert "original" not in graph_of("world")["finetune[alignet]"].inputs
    graph = graph_of("photos")
    for role in ("alignet", "distillation"):
        assert graph[f"finetune[{role}]"].inputs["original"] == "embed[student.pool]"
    assert not {"vice", "reliability", "distill[teacher]"} & set(upstream(graph, "finetune[distillation]"))


def test_batches_by_cluster_bring_the_clusters_in():
    graph = graph_of("world", "finetune.settings.clusters_per_batch=8")
    assert graph["finetune[alignet]"].inputs["clusters"] == "cluster[alignet]"


def test_a_change_touches_only_what_is_downstream():
    before, after = graph_of("world"), graph_of("world", "vice.settings.lr=0.0123")
    changed = {key for key in before if before[key].section != after[key].section}
    assert changed == {"vice", "reliability"}
    assert "finetune[distillation]" not in {key for key in before if "vice" in upstream(before, key)}


def test_the_temperature_of_the_control_is_a_value_not_an_edge():
    before, after = graph_of("world"), graph_of("world", "finetune.tau_distillation=0.5")
    changed = {key for key in before if before[key].section != after[key].section}
    assert changed == {"finetune[distillation]", "evaluate[teacher-ud.labels]"}


def test_where_and_how_one_runs_changes_no_section():
    before = graph_of("world")
    after = graph_of(
        "world", "paths.artifacts=/elsewhere", "runtime.threads=1", "runtime.checkpoint_seconds=3"
    )
    assert {key: node.section for key, node in before.items()} == {
        key: node.section for key, node in after.items()
    }


def test_names_that_do_not_exist_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="expected some of"):
        graph_of("world", "evaluate.datasets.all.settings=[originl]")
    with pytest.raises(ValueError, match="no data set 'nothing': expected one of"):
        graph_of("world", "vice.train=nothing")


def test_models_of_the_world_are_refused_outside_of_it():
    with pytest.raises(
        ValueError, match=r"student\.weights: expected .* found pretrain, which only experiment=world"
    ):
        graph_of("photos", "student=world")


def test_smoothing_is_refused_where_triplets_were_answered_beforehand():
    with pytest.raises(ValueError, match=r"smooth: expected null .* add smooth=null"):
        graph_of("photos", "finetune.settings.sampling=triplets")


def test_a_file_of_this_machine_beside_the_drawn_world_is_outside_data(tmp_path):
    """Whoever replaces it gets new scores: its digest is part of what is built from it."""
    more = ["+also=nights", f"paths.judged={tmp_path}", f"paths.artifacts={tmp_path / 'store'}"]
    graph = build_graph(load(more))
    assert graph["index[nights_items]"].outside == "nights_items"
    assert "world" not in graph["index[nights_items]"].inputs
    drawn = {name for name in graph if name.startswith("index[") and not graph[name].outside}
    assert "index[fresh]" in drawn
    assert all(graph[name].inputs == {"world": "world"} for name in drawn)
    (tmp_path / "nights").mkdir()
    items = tmp_path / "nights" / "data.csv"
    items.write_text("id\n1\n")
    before = Pipeline(load(more)).identity("index[nights_items]").fingerprint
    items.write_text("id\n22\n")
    assert Pipeline(load(more)).identity("index[nights_items]").fingerprint != before


def test_the_world_writes_what_configuration_takes_for_drawn(tiny):
    from alignet.config import WORLD_FILES

    (folder,) = (path for path in (tiny / "world").iterdir() if path.is_dir())
    # maps are of worlds that have raters alone, see tests/harmonizer/test_stages.py
    assert {path.name for path in folder.iterdir()} - {"MANIFEST.json"} == set(WORLD_FILES) - {"maps"}
