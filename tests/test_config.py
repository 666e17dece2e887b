"""Configuration: the values in conf/ are complete, and a wrong one is named with what was expected."""

import pytest

from alignet.cli import compose, explain, help_text, load, product

PHOTOS = ["experiment=photos", "paths.photos=/nowhere"]


def message(overrides):
    with pytest.raises(Exception) as caught:
        load(overrides)
    text = explain(caught.value)
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


def test_roles_with_brackets_and_paths_with_spaces_need_no_quotes():
    config = load(["role=distill[teacher]", "paths.artifacts=/tmp/it's (mine)/x y"])
    assert config.role == "distill[teacher]"
    assert config.paths.artifacts == "/tmp/it's (mine)/x y"
