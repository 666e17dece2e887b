"""The stage `robust` on a tiny world: what it leaves and counts, its model card, bad input in one message."""

import shutil

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from alignet.config import ROBUST
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from tests.makers.worlds import ATTACK, overrides

EXPORT = ["export.roles=[robust-l2,robust-free]", "export.scores=[]"]


@pytest.fixture(scope="module")
def store(mapped, tmp_path_factory):
    """A store with the tiny world's student, trained against every kind of attack."""
    root = tmp_path_factory.mktemp("robust") / "store"
    shutil.copytree(mapped, root)
    pipeline(root).make_all([f"robust[{role}]" for role in ROBUST])
    return root


def pipeline(root, *more):
    return Pipeline(load([*overrides(root), *ATTACK, *EXPORT, *more]))


def test_it_leaves_weights_that_moved_and_curves(store):
    chain = pipeline(store)
    before = load_file(chain.state("pretrain[student]").artifact.file("weights.safetensors"))
    found = {}
    for role in ROBUST:
        artifact = chain.state(f"robust[{role}]").artifact
        found[role] = load_file(artifact.file("weights.safetensors"))
        assert {name: value.shape for name, value in found[role].items()} == {
            name: value.shape for name, value in before.items()
        }
        with np.load(artifact.file("curves.npz"), allow_pickle=False) as curves:
            assert sorted(curves) == ["cross_entropy", "lr", "right"]
            assert all(curve.shape == (4,) and np.isfinite(curve).all() for curve in curves.values())
            assert artifact.metrics["cross_entropy_last"] == pytest.approx(curves["cross_entropy"][-1])
        # 8 images a step: of PGD in k steps 1 + k passes, of free one
        steps = 0 if role == "robust-free" else chain.config.robust.roles[role].steps
        assert artifact.metrics["image_passes"] == 4 * 8 * (1 + steps)
        assert artifact.metrics["images"] == 30
    one = next(name for name, value in before.items() if value.ndim > 1)
    values = [before[one], *(state[one] for state in found.values())]
    assert not any(torch.equal(a, b) for row, a in enumerate(values) for b in values[:row])


def test_an_export_says_what_it_was_trained_against_and_loads(store):
    chain = pipeline(store)
    chain.make_all(["export[robust-l2]", "export[robust-free]"])
    folder = chain.state("export[robust-l2]").artifact.folder
    text = (folder / "README.md").read_text()
    role = chain.config.robust.roles["robust-l2"]
    assert f"perturbations of l2 norm at most {role.eps:g}" in text
    assert f"PGD of {role.steps} steps from a random start" in text
    assert f"| attack, eps | {role.eps:g} |" in text
    free = (chain.state("export[robust-free]").artifact.folder / "README.md").read_text()
    role = chain.config.robust.roles["robust-free"]
    assert f"l-inf norm at most {role.eps:g}" in free
    assert f"each batch taken {role.replays} times" in free
    held = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    trained = load_file(chain.state("robust[robust-l2]").artifact.file("weights.safetensors"))
    assert all(torch.equal(held[name], value) for name, value in trained.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["robust.labels=null"], "robust: expected a class for each image, .* set robust.labels"),
        (["robust.settings.lr=1e30"], "lower robust.settings.lr"),
        (["robust.settings.batch=0"], "robust.settings.batch"),
        (["robust.settings.crop=0"], "robust.settings.crop"),
        (["robust=null"], "settings that robust.roles makes, found robust-free"),
    ],
)
def test_bad_input_is_one_message(store, change, message):
    with pytest.raises(ValueError, match=message):
        pipeline(store, *change).make_all(["robust[robust-l2]"])
