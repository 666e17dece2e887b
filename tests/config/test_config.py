"""Configuration: the values in conf/ are complete, and a wrong one is named with what was expected."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from alignet.pipeline.cli import compose, conf_folder, explain, help_text, load, names_in, product
from alignet.pipeline.graph import build_graph

CONF = conf_folder()
PHOTOS = ["experiment=photos", "paths.photos=/nowhere"]


def message(overrides):
    with pytest.raises(Exception) as caught:
        load(overrides)
    text = explain(caught.value, overrides)
    assert text is not None
    assert "\n" not in text
    return text


@pytest.mark.parametrize("overrides", [[], PHOTOS])
def test_every_experiment_is_complete(overrides):
    config = load(overrides)
    assert config.seed == 0
    assert config.finetune.settings.tau_teacher > 0


def test_a_key_that_does_not_exist_is_named_with_the_nearest():
    text = message(["finetune.settings.pul=3"])
    assert "finetune.settings.pul" in text
    assert "finetune.settings.pull" in text


@pytest.mark.parametrize("content", [b"seed: [1", b"seed: caf\xe9", b"seed: " + b"[" * 5000])
def test_a_damaged_file_of_the_configuration_is_named_and_a_defect_of_ours_is_not(
    tmp_path, monkeypatch, content
):
    monkeypatch.setattr("alignet.pipeline.conf.conf_folder", lambda: tmp_path)
    shutil.copytree(CONF, tmp_path, dirs_exist_ok=True)
    (tmp_path / "experiment" / "mine.yaml").write_bytes(content)
    assert message(["experiment=mine"]).startswith(f"expected files below {tmp_path} in YAML, found ")
    assert explain(RecursionError("maximum recursion depth exceeded")) is None
    assert "found one of 3,000 that begins with 'xxxx" in explain(
        OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "/conf/" + 3000 * "x")
    )
    assert explain(UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid")) is None


def test_a_new_key_forced_in_is_refused_too():
    assert "vice.settings.dims" in message(["+vice.settings.dims=3"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("finetune.settings.lr=fast", "finetune.settings.lr: expected a number, found 'fast'"),
        ("finetune.settings.steps=1.5", "finetune.settings.steps: expected a whole number, found 1.5"),
        (
            "finetune.settings.loss=mse",
            "finetune.loss: expected one of kl, jsd, hard, found 'mse'",
        ),
        ("embed.unreadable=maybe", "embed.unreadable: expected one of 'stop', 'skip'"),
        ("vice.settings.alpha=2", "VICE alpha: expected a rate inside (0, 1), found 2.0"),
        ("cluster.clusters=many", "cluster.clusters: expected"),
        ("data.objects=nothing", "data.objects: expected one of"),
        ("finetune.settings.lr=null", "finetune.settings.lr: expected a number, found None"),
    ],
)
def test_a_value_of_the_wrong_type_says_key_expected_and_found(override, expected):
    assert expected in message([override])


def test_an_experiment_that_does_not_exist_lists_those_that_do():
    text = message(["experiment=wordl"])
    assert "world" in text
    assert "photos" in text


def test_an_ablation_that_does_not_exist_lists_the_ablations():
    text = message(["experiment=ablation/sampilng"])
    assert "experiment: expected one of ablation/direct, ablation/images, " in text
    assert "found 'ablation/sampilng'. Did you mean ablation/sampling?" in text
    assert "own_dataset" not in text
    assert "Did you mean" not in message(["experiment=ablation/nope"])
    assert "also: expected one of attack, breeds, clickme, everything, few_shot, " in message(
        ["+also=levelz"]
    )
    assert "Did you mean levels?" in message(["+also=levelz"])


def test_keys_are_suggested_of_the_experiment_that_was_chosen_and_never_the_wrong_one():
    text = message(["experiment=ablation/sampling", "ablation.values.sampling=[random]"])
    assert "Did you mean ablation.values.samplings" in text
    text = message([*PHOTOS, "evaluate.datasets.coarse.family=rsa"])  # a key of the world's alone
    assert "no configuration key 'evaluate.datasets.coarse" in text
    assert "Did you mean evaluate.datasets.coarse.family" not in text


def test_photos_has_no_default_folder():
    text = message(["experiment=photos"])
    assert "paths.photos" in text
    assert "data/README.md" in text


def test_a_multirun_is_the_product_of_its_lists():
    jobs = product(["seed=0,1", "finetune.settings.lr=0.1", "triplets.sampling=random,class_boundary"])
    assert len(jobs) == 4
    assert sorted(job[0] for job in jobs) == ["seed=0", "seed=0", "seed=1", "seed=1"]


def test_the_seed_reaches_every_section():
    values = compose(["seed=7"])
    seeds = [values["soft_labels"]["seed"], values["cluster"]["seed"], values["vice"]["settings"]["seed"]]
    assert seeds == [7, 7, 7]
    assert values["world"]["seed"] == values["finetune"]["settings"]["seed"] == 7


def test_help_shows_the_section_with_its_comments():
    text = help_text("soft_labels", "What it does.")
    assert "posterior samples" in text
    assert "experiment" in text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024", "2024"), ("a,b", "a,b"), ("[a]", "[a]"), ("{a}", "{a}"), ("true", "true"), ("null", None),
        ("Übung", "Übung"),
        ("a\\b", "a\\b"), ("a\\", "a\\"), ("a\\'b", "a\\'b"), ("it's", "it's"),
        ("'x y'", "x y"), ('"x y"', "x y"), ("'", "'"),
        ("~/ph", str(Path.home() / "ph")), ("x~", "x~"), ("${paths.artifacts}/x y", "./artifacts/x y"),
        ("${oc.env:NOWHERE,'a b'}", "a b"), ("${paths.artifacts}", "./artifacts"),
    ],
)  # fmt: skip
def test_a_path_is_what_was_typed(value, expected):
    assert compose([f"paths.images={value}"])["paths"]["images"] == expected
    sets = compose(["+data.sets.mine={kind: images, path: x, under: ''}", f"data.sets.mine.path={value}"])
    assert sets["data"]["sets"]["mine"]["path"] == expected


def test_texts_of_a_survey_may_hold_anything():
    survey = compose(
        [
            "survey.title=Übung, Teil (2): ~",
            "survey.consent=2024",
            "survey.posterior=null",
            "survey.objects=7",
        ]
    )["survey"]
    assert (survey["title"], survey["consent"], survey["posterior"]) == ("Übung, Teil (2): ~", "2024", None)
    assert survey["objects"] == 7


def test_a_multirun_parts_paths_and_roles_at_commas_outside_of_brackets():
    jobs = product(["paths.photos=~/it's b,2024,'c,d'", "role=evaluate[ud.labels],vice", "seed=1"])
    assert len(jobs) == 6
    found = {(one["paths"]["photos"], one["role"]) for one in map(compose, jobs)}
    assert {photos for photos, _ in found} == {str(Path.home() / "it's b"), "2024", "c,d"}
    assert {role for _, role in found} == {"evaluate[ud.labels]", "vice"}
    assert [compose(job)["seed"] for job in product(["seed=choice(3,4)"])] == [3, 4]
    assert len(product(["paths.photos=choice(a,b)"])) == 2


def test_roles_with_brackets_and_paths_with_spaces_need_no_quotes():
    config = load(["role=distill[teacher]", "paths.artifacts=/tmp/it's (mine)/x y"])
    assert config.role == "distill[teacher]"
    assert config.paths.artifacts == "/tmp/it's (mine)/x y"


@pytest.mark.parametrize("name", names_in("also"))
def test_every_file_of_also_composes_with_the_paper_and_with_own_images(name):
    own = ["experiment=own", "paths.images=/nowhere", "paths.map=/nowhere.npz", "paths.classes=/nowhere.csv"]
    paper = ["experiment=paper"]
    over = {"projection": [["experiment=world"]], "zero_shot": [own]}.get(name, [paper, own])
    also = f"+also={name}" if name != "projection_wordnet" else "+also=[wordnet,projection_wordnet]"
    for experiment in over:
        config = load([*experiment, also])
        graph = build_graph(config)
        added = set(config.evaluate.datasets) - set(load(experiment).evaluate.datasets)
        assert added
        assert all(any(key.endswith(f".{one}]") for key in graph) for one in added)


def test_what_is_untried_together_is_refused():
    with pytest.raises(ValueError, match=r"runtime.compile: expected false with sharding=fsdp2"):
        load(["runtime.compile=true", "runtime.sharding=fsdp2"])
    assert load(["runtime.sharding=fsdp2", "runtime.recompute=true"]).runtime.sharding == "fsdp2"
