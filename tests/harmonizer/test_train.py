"""Harmonizer training: a planted map comes back, parts and interruptions change nothing, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from alignet.backbones import Backbone, load_encoder
from alignet.backbones.gradients import Classifier, input_gradient
from alignet.config import HarmonizeSettings
from alignet.evaluate.where import spearman
from alignet.harmonizer.batches import Labelled, Source, Steps
from alignet.harmonizer.labelled import decayed, learning_rate, optimizer_of
from alignet.harmonizer.train import Alignment, Harmonizer, harmonize, others_maps
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes
from tests.makers.cut import Cut, Cutting
from tests.student.test_finetune import changed as finetune_settings
from tests.student.test_finetune import pool_teacher

SETTINGS = HarmonizeSettings(
    steps=4, batch=8, mapped=0.5, part=4, map_weight=1.0, scalar="label", order="pyramid_first", norm="mean_squares",
    levels=3, reduction="max", blur="none", decay=1e-4, decay_form="squares", decay_of="kernels", optimizer="sgd",
    lr=1e-3, momentum=0.9, nesterov=True, warmup=1, schedule="cosine", drops=(), smoothing=0.1, flip=0.5, crop=0.8,
    mixup=0.5, mixup_alpha=0.3, batch_norm="frozen", precision="float32", seed=0,
)  # fmt: skip
TOY = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
VIT = Backbone("timm", "test_vit", "random", {"num_classes": 4, "img_size": 32}, 32, "pooled")


def pictures(count=24, seed=1):
    """A bright square in one of four corners, which is the class, on noise; people look at the corner across."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, (count, 3, 32, 32), dtype=np.uint8)
    labels, maps = np.arange(count) % 4, np.zeros((count, 32, 32), np.float32)
    for row, label in enumerate(labels):
        y, x = 4 + 14 * (label // 2) + rng.integers(3), 4 + 14 * (label % 2) + rng.integers(3)
        images[row, :, y : y + 8, x : x + 8] = 250
        maps[row, 24 - y : 32 - y, 24 - x : 32 - x] = 1
    return torch.from_numpy(images), labels, maps


def labelled(with_maps=True, **options):
    images, labels, maps = pictures(**options)
    return Labelled(images, labels, maps.__getitem__ if with_maps else None)


def run(settings=SETTINGS, backbone=TOY, **options):
    encoder = load_encoder(backbone, seed=0)
    options = {"plain": labelled(False, count=16, seed=2)} | options
    return harmonize(encoder, labelled(), settings=settings, **options), encoder


def vector(result):
    return torch.cat([value.flatten().double() for value in result.state.values()])


def looks_at(encoder):
    """Mean Spearman of saliency and people's maps of other pictures, and accuracy."""
    images, labels, maps = pictures(40, seed=5)
    classify = Classifier(encoder)
    found = input_gradient(classify, classify.pixels(images), torch.from_numpy(labels))
    saliency = found.gradient.abs().amax(1).flatten(1).numpy()
    right = (found.logits.argmax(1).numpy() == labels).mean()
    return spearman(saliency, maps.reshape(40, -1)).mean(), right


def test_a_planted_map_comes_back_and_vanishes_when_maps_are_shuffled():
    settings = replace(
        SETTINGS, steps=90, optimizer="adam", lr=3e-3, mixup=0.0, crop=1.0, flip=0.0, warmup=5,
        map_weight=3.0, batch=16, part=8,
    )  # fmt: skip
    scores = {}
    for name, options in (("with", {}), ("without", {"use_maps": False}), ("shuffled", {"shuffled": True})):
        result, encoder = run(settings, **options)
        scores[name] = looks_at(encoder)
        assert (result.curves["maps"][-1] > 0) == (name != "without")
    assert scores["with"][0] > max(scores["without"][0], scores["shuffled"][0]) + 0.1, scores
    assert scores["with"][1] >= scores["without"][1] - 0.1, scores


@pytest.mark.parametrize("change", [{"part": 2}, {"part": 3}])
def test_parts_change_nothing(change):
    whole, parted = run()[0], run(replace(SETTINGS, **change))[0]
    torch.testing.assert_close(vector(whole), vector(parted), rtol=1e-5, atol=1e-6)


def test_recomputing_changes_nothing():
    torch.testing.assert_close(vector(run()[0]), vector(run(recompute=True)[0]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [SETTINGS, replace(SETTINGS, optimizer="adam", batch_norm="training", part=8)]
)
@pytest.mark.parametrize("aligned", [False, True])
def test_a_run_that_was_cut_ends_in_the_same_bytes(settings, aligned, tmp_path):
    def options():
        images = torch.randint(
            0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
        )
        alignment = Alignment(images, pool_teacher(), finetune_settings(flip=0.5), 0.5)
        return {"alignment": alignment} if aligned else {}

    with pytest.raises(Cut):
        run(settings, checkpoints=Cutting(tmp_path, 0, signals=False), **options())
    resumed, _ = run(settings, checkpoints=Checkpoints(tmp_path, 1e9, signals=False), **options())
    whole, _ = run(settings, **options())
    assert torch.equal(vector(resumed), vector(whole))
    np.testing.assert_array_equal(resumed.curves["maps"], whole.curves["maps"])
    assert (whole.curves["alignet"] > 0).all() == aligned


def test_without_maps_it_is_cross_entropy_alone():
    """The control is the same as a weight of 0, and the first step's gradient is SGD's on cross-entropy."""
    torch.testing.assert_close(
        vector(run(use_maps=False)[0]), vector(run(replace(SETTINGS, map_weight=0.0))[0])
    )
    plain = replace(
        SETTINGS, steps=1, warmup=0, mixup=0.0, flip=0.0, crop=1.0, map_weight=0.0, decay=0.0, smoothing=0.2, batch=4,
        mapped=1.0,
    )  # fmt: skip
    _, encoder = run(plain)
    other = load_encoder(TOY, seed=0)
    source = Source(labelled(), 4, (0, 1))
    images, labels, _ = pictures()
    rows = source.rows(0)
    logits = Classifier(other, frozen=False)(images[torch.from_numpy(rows)] / 255)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]), label_smoothing=0.2)
    loss.backward()
    for (name, held), after in zip(other.module.named_parameters(), encoder.module.parameters(), strict=True):
        # Nesterov's first step is lr * (1 + momentum) * gradient
        torch.testing.assert_close(held - 1e-3 * 1.9 * held.grad, after, rtol=1e-4, atol=1e-7, msg=name)


def test_maps_follow_their_images_through_flips_crops_and_mixup():
    """A dot that is drawn into image and map stays in one place, and is mixed with its partner's in one share."""
    images, maps = torch.zeros(12, 3, 32, 32, dtype=torch.uint8), np.zeros((12, 32, 32), np.float32)
    for row in range(12):
        y, x = 8 + row, 20 - row
        images[row, :, y, x], maps[row, y, x] = 255, 1
    data = Labelled(images, np.arange(12) % 4, maps.__getitem__)
    settings = replace(SETTINGS, batch=12, mapped=1.0, part=12, crop=0.5, mixup=1.0)
    source = Source(data, 12, (0, 1))
    classify = Classifier(load_encoder(TOY, seed=0))
    objective = Harmonizer(classify, settings, [source], 4, Processes(), use_maps=True)
    (part,) = Steps([source], settings, 0, Processes(), None)[0]
    changed, targets, moved = objective._prepare(part, source, 0, 0)
    torch.testing.assert_close(changed[:, 0], moved)
    places, share = source.partners(0, settings)
    rows = source.rows(0)
    expected = torch.zeros(12, 4)
    for place in range(12):
        expected[place, data.labels[rows[place]]] += share[place]
        expected[place, data.labels[rows[places[place]]]] += 1 - share[place]
    torch.testing.assert_close(targets, expected)
    assert ((moved > 0).flatten(1).sum(1) >= 4).all()  # two dots, each spread over some pixels


@pytest.mark.parametrize("count", [2, 3, 900])
def test_no_image_keeps_its_own_map_in_the_control(count):
    for seed in range(5):
        order = others_maps(count, seed)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()


def test_epochs_are_permutations_and_partners_come_from_the_same_source():
    source = Source(labelled(), 6, (0, 1))
    rows = np.concatenate([source.rows(step) for step in range(4)])
    assert sorted(rows) == list(range(24))
    places, share = source.partners(0, replace(SETTINGS, mixup=1.0))
    assert sorted(places) == list(range(6))
    assert ((share >= 0) & (share <= 1)).all()
    assert source.partners(0, replace(SETTINGS, mixup=0.0)) is None


def test_rates_and_what_decays():
    rates = [learning_rate(step, replace(SETTINGS, steps=10, warmup=2, lr=1.0)) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    drops = replace(SETTINGS, steps=10, warmup=0, lr=1.0, schedule="drops", drops=(0.3, 0.8))
    assert [learning_rate(step, drops) for step in (0, 2, 3, 7, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    module = load_encoder(VIT, seed=0).module
    names = decayed(module, "kernels")
    assert "head.weight" in names
    assert not {"pos_embed", "cls_token", "head.bias", "norm.weight"} & names
    assert decayed(module, "all") == {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize(("form", "factor"), [("squares", 2.0), ("half_squares", 1.0)])
def test_the_decays_gradient(form, factor):
    """lambda * theta^2 has the gradient 2 lambda theta, and half of it lambda theta."""
    module = load_encoder(TOY, seed=0).module
    optimizer = optimizer_of(module, replace(SETTINGS, decay=0.01, decay_form=form, decay_of="all"))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(0.01 * factor)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapped": Labelled(pictures()[0], np.full(24, 9), pictures()[2].__getitem__)}, "expected labels in 0..3"),
        ({"plain": None}, "images without maps for the rest"),
        ({"settings": replace(SETTINGS, mapped=0.01)}, "at least one image with a map"),
        ({"settings": replace(SETTINGS, levels=6)}, "expected 1 or more levels"),
        ({"settings": replace(SETTINGS, lr=1e30)}, "expected a finite"),
        ({"backbone": replace(TOY, model_args={"num_classes": 0})}, "with a classifier"),
        ({"settings": replace(SETTINGS, batch_norm="training", part=8), "recompute": True}, "runtime.recompute=false"),
        ({"processes": Processes(0, 9)}, "an image for each of 9 processes"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, message):
    given = {"mapped": labelled(), "plain": labelled(False), "settings": SETTINGS, "backbone": TOY} | change
    encoder = load_encoder(given.pop("backbone"), seed=0)
    with pytest.raises(ValueError, match=message):
        harmonize(encoder, **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_norm": "training", "part": 4}, "harmonize.settings.part"),
        ({"momentum": 0.0}, "nesterov"),
        ({"mapped": 1.5}, "harmonize.settings.mapped"),
        ({"crop": 0.0}, "harmonize.settings.crop"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SETTINGS, **change)
