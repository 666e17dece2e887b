"""The ingredients as nodes: what a tiny world leaves of each, snapshots as rows, old sections, messages."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from alignet.attacks.train import adversarial_training
from alignet.backbones import Backbone, load_encoder
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph, row_of, stage_of
from alignet.pipeline.runner import Pipeline
from alignet.report.dataset_results import title_of
from alignet.stages.report import _notes, _robust
from tests.attacks.test_ingredients import UNKNOWN
from tests.makers.worlds import ATTACK, overrides

ROLES = [
    "+robust.augmentations.strong={crop: 0.5, shift: 0.1, flip: 0.5, rotation: 5.0, jitter: [0.4, 0.4, 0.4, 0.1], "
    "jittered: 0.8, grey: 0.2, blur: 0.5, sigma: [0.1, 2.0]}",
    "+robust.roles.standard-new={loss: cross_entropy, augmentation: strong, begin: random, snapshots: [2, 4]}",
    "+robust.roles.trades-6={loss: trades, beta: 6.0, norm: l2, eps: 0.5, steps: 1, step: 0.5}",
    "+robust.roles.mart-6={loss: mart, beta: 6.0, norm: l2, eps: 0.5, steps: 1, step: 0.5}",
    "+robust.roles.simclr={loss: simclr, temperature: 0.5, projection: 8, augmentation: strong}",
    "robust.settings.batch_norm=training",
]  # fmt: skip
MADE = ("standard-new", "trades-6", "mart-6", "simclr")


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    """A store with the tiny world's student, trained with every loss."""
    root = tmp_path_factory.mktemp("ingredients") / "store"
    shutil.copytree(tiny, root)
    pipeline(root).make_all([f"robust[{role}]" for role in MADE])
    return root


def pipeline(root, *more):
    return Pipeline(load([*overrides(root), *ATTACK, *ROLES, *more]))


def test_each_loss_leaves_its_weights_and_its_figures(store):
    chain = pipeline(store)
    found = {role: chain.state(f"robust[{role}]").artifact for role in MADE}
    states = [load_file(one.file("weights.safetensors")) for one in found.values()]
    name = next(name for name, value in states[0].items() if value.ndim > 1)
    assert not any(torch.equal(a[name], b[name]) for row, a in enumerate(states) for b in states[:row])
    figures = {role: one.metrics for role, one in found.items()}
    assert [one["loss"] for one in figures.values()] == ["cross_entropy", "trades", "mart", "simclr"]
    assert [one["image_passes"] for one in figures.values()] == [32, 32 * 3, 32 * 3, 32 * 2]
    for role, words in (
        ("standard-new", "cross-entropy"), ("trades-6", "divergence"), ("mart-6", "boosted"), ("simclr", "NT-Xent"),
    ):  # fmt: skip
        assert words in _robust(figures[role])


def test_the_page_says_that_images_were_attacked_where_they_were(store, tmp_path):
    chain = pipeline(store)
    found = {role: chain.state(f"robust[{role}]").artifact.metrics for role in MADE}
    assert {role: one["attacked"] for role, one in found.items()} == {
        "standard-new": False, "trades-6": True, "mart-6": True, "simclr": False,
    }  # fmt: skip

    def attacked(**figures):
        (_, said) = _notes("", [], {"robust.trades-6": found["trades-6"] | figures})
        return "image passes, attacks included, 30 images" in said

    assert attacked()
    assert not attacked(attacked=False)
    # what was made before artifacts said so: adversarial training, whose loss was not stored, and others
    old = {name: value for name, value in found["trades-6"].items() if name != "attacked"}
    for figures, expected in ((old, False), ({**old, "loss": "adversarial"}, True)):
        assert ("attacks included" in _notes("", [], {"robust.x": figures})[1]) == expected
    without_loss = {name: value for name, value in old.items() if name != "loss"}
    assert "attacks included" in _notes("", [], {"robust.robust-l2": without_loss})[1]


def test_a_training_from_new_weights_begins_with_those_of_its_seed_and_needs_no_student(store):
    chain = pipeline(store)
    node = chain.graph["robust[standard-new]"]
    assert sorted(node.inputs) == ["images", "labels"]
    model = node.section["model"]
    start = load_encoder(
        Backbone("timm", model["architecture"], "random", model["model_args"], model["image_size"], "pooled"), seed=0
    ).module.state_dict()  # fmt: skip
    trained = load_file(chain.state("robust[standard-new]").artifact.file("weights.safetensors"))
    student = load_file(chain.state("pretrain[student]").artifact.file("weights.safetensors"))
    key = max(start, key=lambda name: start[name].numel())
    assert (trained[key] - start[key]).norm() < 0.2 * start[key].norm() < (trained[key] - student[key]).norm()


def test_snapshots_are_rows_that_are_not_trained_again(store, monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr("alignet.attacks.train.adversarial_training", never)
    rows = "evaluate.datasets.fine.settings=[standard-new@2,standard-new@4,standard-new]"
    chain = pipeline(store, rows)
    assert chain.graph["embed[standard-new@2.probe]"].inputs["weights"] == "robust[standard-new@2]"
    chain.make_all([f"evaluate[standard-new{step}.fine]" for step in ("@2", "@4", "")])
    end = load_file(chain.state("robust[standard-new]").artifact.file("weights.safetensors"))
    half, whole = (
        load_file(chain.state(f"robust[standard-new@{step}]").artifact.file("weights.safetensors"))
        for step in (2, 4)
    )
    assert all(torch.equal(whole[name], value) for name, value in end.items())
    assert any(not torch.equal(half[name], value) for name, value in end.items())
    scores = {
        step: json.loads(
            chain.state(f"evaluate[standard-new{step}.fine]").artifact.file("scores.json").read_text()
        )
        for step in ("", "@4")
    }
    assert [one["value"] for one in scores[""]] == [one["value"] for one in scores["@4"]]


def test_a_killed_training_goes_on_to_the_same_snapshots(store, tiny, tmp_path, monkeypatch):
    """Ended after the step of a snapshot: the next run trains on from there, and hands over what the first one kept."""
    root = tmp_path / "store"
    shutil.copytree(tiny, root)
    trained = []

    def ending(*arguments, **options):
        keep = options["snapshot"]

        def snapshot(done):
            keep(done)
            trained.append(done)
            if trained == [1, 2, 3]:
                raise KeyboardInterrupt

        return adversarial_training(*arguments, **options | {"snapshot": snapshot})

    monkeypatch.setattr("alignet.attacks.train.adversarial_training", ending)
    chain = pipeline(root, "runtime.checkpoint_seconds=0")
    with pytest.raises(KeyboardInterrupt):
        chain.make_all(["robust[standard-new]"])
    chain.make_all(["robust[standard-new]"])
    assert trained == [1, 2, 3, 3, 4]
    whole = pipeline(store).state("robust[standard-new]").artifact
    found = chain.state("robust[standard-new]").artifact
    for name in ("weights.safetensors", "weights-2.safetensors", "weights-4.safetensors", "curves.npz"):
        assert found.file(name).read_bytes() == whole.file(name).read_bytes()


def test_sections_of_older_roles_know_nothing_of_the_new_options():
    graph = build_graph(load(["experiment=attack"]))
    for name in ("robust-l2", "robust-linf", "robust-free"):
        section = graph[f"robust[{name}]"].section
        assert sorted(section["role"]) == ["eps", "norm", "replays", "step", "steps"]
        assert sorted(section) == ["column", "model", "pixels", "role", "settings"]


def test_the_matched_control_of_the_attacked_world_differs_in_its_loss_alone():
    rows = "evaluate.datasets.attack.settings=[original,standard,robust-l2]"
    graph = build_graph(load(["experiment=attack", "+robust.roles.standard={loss: cross_entropy}", rows]))
    control, attacked = graph["robust[standard]"], graph["robust[robust-l2]"]
    assert control.inputs == attacked.inputs
    assert control.section == attacked.section | {"role": control.section["role"]}
    assert control.section["role"] == {
        "norm": "l2", "eps": 0.0, "steps": 0, "step": 0.0, "replays": 0, "loss": "cross_entropy",
    }  # fmt: skip
    assert "evaluate[standard.attack]" in graph


def test_augmentations_with_and_without_colour_differ_in_colour_alone():
    graph = build_graph(load(["experiment=ingredients"]))
    strong, without = (
        graph[f"robust[{role}]"].section["augmentation"] for role in ("simclr", "simclr-no-colour")
    )
    assert without == strong | {"jitter": without["jitter"], "jittered": 0.0, "grey": 0.0}
    assert set(without["jitter"]) == {0.0}


def test_the_experiment_trains_each_ingredient_and_every_beta_and_network_that_is_asked_for():
    graph = build_graph(load(["experiment=ingredients"]))
    assert sum(node.stage == "robust" for node in graph.values()) == 10
    assert not any(
        node.stage in ("pretrain", "finetune") and node.role == "student" for node in graph.values()
    )
    usual = graph["robust[adversarial]"].section
    assert {key: value for key, value in graph["robust[standard]"].section.items() if key != "role"} == {
        key: value for key, value in usual.items() if key != "role"
    }  # the exactly matched control
    more = [
        "+robust.roles.trades-3={loss: trades, beta: 3.0, norm: l2, eps: 1.5, steps: 3, step: 0.5}",
        "evaluate.datasets.invariance.settings=[standard,trades-3]",
    ]
    graph = build_graph(load(["experiment=ingredients", *more]))
    assert graph["robust[trades-3]"].section["role"]["beta"] == 3
    other = build_graph(load(["experiment=ingredients", "student=world"]))["robust[adversarial]"].section
    assert other["model"]["architecture"] != usual["model"]["architecture"]
    assert other["role"] == usual["role"]


def test_names_and_titles():
    titles = {
        "standard": "standard", "standard-strong": "standard, strong augmentation", "trades-6": "TRADES, beta 6",
        "mart-6@50": "MART, beta 6, step 50", "adversarial": "adversarial training",
        "adversarial-none": "adversarial training, no augmentation", "simclr": "SimCLR",
        "simclr-no-colour": "SimCLR without colour", "simclr-adversarial": "SimCLR, adversarial augmentation",
        "standard-wide": "standard, wide", "robust-l2@1000": "robust (l2), step 1,000", "original": "original",
    }  # fmt: skip
    assert {setting: title_of(setting) for setting in titles} == titles
    assert row_of("trades-6@50") == ("trades-6@50", None)
    assert stage_of("trades-6@50") == "robust"
    assert row_of("trade-6") is stage_of("student") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["evaluate.datasets.fine.settings=[trades-7]"], "settings that robust.roles makes, found trades-7"),
        (["evaluate.datasets.fine.settings=[standard-new@3]"], "robust.roles makes, found standard-new@3"),
        (
            ["evaluate.datasets.fine.settings=[trade-6]"],
            "expected some of data, pixels, .*begin with standard",
        ),
        (
            ["+robust.roles.best={loss: mart, norm: l2, eps: 1, steps: 1, step: 1}"],
            UNKNOWN.format("best"),
        ),
        (
            ["+robust.roles.trades-9={norm: l2, eps: 1, steps: 1, step: 1}"],
            "^robust.roles.trades-9.loss: expected trades, which its name says, found adversarial; pages go by the "
            "name$",
        ),
        (
            ["robust.roles.simclr.augmentation=usual"],
            "robust.roles.simclr.augmentation: expected one of .*strong",
        ),
        (["robust.settings.batch_norm=frozen"], "robust.settings.batch_norm: expected training"),
    ],
)
def test_bad_input_is_one_message(store, change, message):
    with pytest.raises(ValueError, match=message):
        pipeline(store, *change, "robust.settings.seed=3").make_all(["robust[standard-new]"])
