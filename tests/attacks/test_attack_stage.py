"""The stage `attack` on a tiny world: what it stores is what it says, in one process and in two; bad input."""

import json
import shutil

import numpy as np
import pytest
import torch

from alignet.attacks.stored import exact_norms
from alignet.backbones import Backbone, load_encoder
from alignet.backbones.gradients import Classifier
from alignet.data.drawn import drawn
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from tests.makers.stored import shards, student
from tests.makers.worlds import ATTACK, overrides
from tests.pipeline.test_many_processes import finish, stage

FAST, LINF = "attack[student.mapped_test]", "attack[student:linf.mapped_test]"


def pipeline(root, *more):
    return Pipeline(load([*overrides(root), *ATTACK, *more]))


@pytest.fixture(scope="module")
def store(mapped, tmp_path_factory):
    """A store with the tiny world's student attacked in l2 and in l-inf."""
    root = tmp_path_factory.mktemp("attacked") / "store"
    shutil.copytree(mapped, root)
    pipeline(root).make_all([FAST, LINF])
    return root


@pytest.mark.parametrize(("key", "norm"), [(FAST, "l2"), (LINF, "linf")])
def test_every_success_that_is_stored_is_one(store, key, norm):
    """By the network loaded anew, one image at a time, and norms in float64."""
    chain = pipeline(store)
    artifact = chain.state(key).artifact
    classify = Classifier(student(chain))
    counts = dict.fromkeys(("tried", "broken", "broken8"), 0)
    for arrays, ids in shards(artifact, "attack"):
        assert len(ids) == len(arrays["image"]) <= 8
        assert arrays["norm"] == norm
        length = exact_norms(arrays["image"], arrays["attacked"], norm)
        for row in range(len(ids)):
            answers = []
            for name in ("image", "attacked", "attacked8"):
                pixels = torch.from_numpy(arrays[name][row : row + 1])
                pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
                assert 0 <= pixels.min() <= pixels.max() <= 1
                with torch.no_grad():
                    answers.append(int(classify(pixels).argmax()))
            assert answers == [arrays[name][row] for name in ("top1", "to", "to8")]
            assert (answers[1] != answers[0]) == arrays["broken"][row]
            assert (answers[2] != answers[0]) == arrays["broken8"][row]
            assert (length[row] > 1e-5) == arrays["broken"][row]
        for name in counts:
            counts[name] += int(arrays[name].sum())
    assert counts["tried"] == 20
    assert counts["broken"] > 10
    assert {name: artifact.metrics[name] for name in counts} == counts


def test_two_processes_store_the_same_bytes(ready, store, tmp_path):
    shutil.copytree(store, tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "attack")
    options = [*ATTACK, f"role={FAST}", "runtime.launcher=torchrun", "runtime.processes=2"]
    status, _, err = finish(ready.start(*stage(tmp_path / "two", "pipeline", *options)))
    assert status == 0, err
    found = [json.loads(path.read_text()) for path in (tmp_path / "two" / "attack").glob("*/MANIFEST.json")]
    assert [one["provenance"]["world_size"] for one in found] == [2]
    assert found[0]["digest"] == pipeline(store).state(FAST).artifact.manifest["digest"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ["attack.logit=label", "~attack.labels.mapped_test"],
            "expected the class of at least one image, found none of 20; .*attack.logit=top1",
        ),
        (["attack.method=best"], r"attack.method: expected one of attack.methods \(fast, .*found 'best'"),
        (["attack.methods.fast.high=0"], "attack.methods.high: expected a positive number, found 0"),
        (["attack.methods.ddn.norm=linf"], "expected l2 with algorithm=ddn, found linf"),
        (
            ["attack.methods.fast.algorithm=pgd"],
            "attack.methods.search: expected a section with algorithm=pgd",
        ),
        (
            ["attack.column=name"],
            r"labels.csv: expected a column name, found id, class, label, category, natural; name one that is there",
        ),
    ],
)
def test_bad_input_is_one_message(store, change, message):
    with pytest.raises(ValueError, match=message):
        pipeline(store, *change).make_all([FAST])


def test_images_are_drawn_and_nested():
    labels = np.arange(40) % 5 - 1
    few, more = (drawn(labels, count, 0, False) for count in (5, 20))
    assert set(few) < set(more)
    assert (labels[more] >= 0).all()
    assert len(drawn(labels, 0, 0, False)) == 32
    assert len(drawn(labels, 36, 0, True)) == 36
    assert not np.array_equal(few, drawn(labels, 5, 1, False))


def test_a_model_without_pixels_is_refused(store):
    with pytest.raises(ValueError, match=r"attack\[pixels.mapped_test\]: expected a network, found pixels"):
        pipeline(store, "evaluate.datasets.attack.settings=[pixels]")


def test_a_network_without_a_classifier_is_refused():
    headless = Backbone("timm", "test_vit", "random", {"num_classes": 0, "img_size": 32}, 32, "pooled")
    with pytest.raises(ValueError, match="expected a network with a classifier"):
        Classifier(load_encoder(headless, seed=0))
