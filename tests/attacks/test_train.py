"""Adversarial training: what it is to a linear network in closed form, "free" by hand, interruptions, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alignet.attacks.train import LOSSES, adversarial_training, passes_of
from alignet.backbones import load_encoder
from alignet.backbones.gradients import Classifier
from alignet.config import LabelledTraining, RobustRole
from alignet.harmonizer.batches import Labelled, Source, Steps
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.distributed import Processes
from tests.harmonizer.test_train import TOY, VIT, pictures, vector
from tests.makers.cut import Cut, Cutting
from tests.makers.toy_networks import linear

SETTINGS = LabelledTraining(
    steps=4, batch=8, decay=1e-4, decay_form="squares", decay_of="kernels", optimizer="sgd", lr=1e-3, momentum=0.9,
    nesterov=True, warmup=1, schedule="cosine", drops=(), smoothing=0.1, flip=0.5, crop=0.8, mixup=0.5,
    mixup_alpha=0.3, batch_norm="frozen", seed=0,
)  # fmt: skip
PLAIN = replace(
    SETTINGS, decay=0.0, momentum=0.0, nesterov=False, warmup=0, smoothing=0.0, flip=0.0, crop=1.0, mixup=0.0
)
L2 = RobustRole("l2", eps=0.5, steps=3, step=0.5, replays=0)
LINF = RobustRole("linf", eps=0.02, steps=3, step=0.5, replays=0)
FREE = RobustRole("linf", eps=0.02, steps=1, step=1.0, replays=3)
ROLES = {"l2": L2, "linf": LINF, "free": FREE}


def labelled(count=24, seed=1):
    images, labels, _ = pictures(count, seed)
    return Labelled(images, labels)


def run(role, settings=SETTINGS, backbone=TOY, **options):
    return adversarial_training(load_encoder(backbone, seed=0), labelled(), settings, role, **options)


# +-1 over the whole image; a block in a corner, which has no part in it
FRAGILE = torch.ones(3, 8, 8)
FRAGILE[:, ::2, 1::2] = FRAGILE[:, 1::2, ::2] = -1
ROBUST = torch.zeros(3, 8, 8)
ROBUST[:, :2, :2] = 1
FRAGILE[:, :2, :2] = 0


def drawn(fragile, robust):
    """Images (b, 3, 8, 8) with the two features of signs (b,): 0.03 everywhere, and 0.3 in a corner."""
    return 0.5 + 0.03 * fragile.view(-1, 1, 1, 1) * FRAGILE + 0.3 * robust.view(-1, 1, 1, 1) * ROBUST


def two_features(count=200):
    """The sign of the fragile feature is the class, that of the robust one in 9 images of 10."""
    labels = np.arange(count) % 2
    sign = torch.from_numpy(2.0 * labels - 1).float()
    lies = torch.where(torch.arange(count) % 20 < 2, -1.0, 1.0)
    return Labelled(drawn(sign, sign * lies), labels)


def follows(role):
    """The share of images of contradicting features that is answered by the robust one, after training."""
    encoder = linear()
    settings = replace(PLAIN, steps=300, batch=40, optimizer="adam", lr=0.01, momentum=0.9)
    adversarial_training(encoder, two_features(), settings, role)
    robust = torch.tensor([1.0, -1.0])
    answers = Classifier(encoder)(drawn(-robust, robust)).argmax(1)
    return (answers == (robust > 0).long()).float().mean().item()


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", 0.06), ("l2", 0.6)]
)  # more than the fragile feature has, less than the robust one
def test_plain_training_uses_the_fragile_feature_and_adversarial_training_the_robust_one(norm, eps):
    assert follows(RobustRole(norm, eps=1e-6, steps=1, step=1.0, replays=0)) == 0
    assert follows(RobustRole(norm, eps=eps, steps=5, step=0.5, replays=0)) == 1
    assert follows(RobustRole(norm, eps=eps, steps=1, step=1.0, replays=4)) == 1


def objective(encoder, role, settings=PLAIN, augmentation=None):
    source = Source(labelled(), settings.batch, (settings.seed, 1))
    encoder.module.requires_grad_(True)
    return LOSSES[role.loss](
        Classifier(encoder, frozen=False), settings, [source], int(encoder.module.num_classes), Processes(), role,
        augmentation,
    )  # fmt: skip


def test_the_attack_of_a_linear_network_is_the_closed_form():
    """From any start, as many steps as cross the ball end in its farthest point along the difference of weights."""
    data = two_features(8)
    targets = F.one_hot(torch.from_numpy(data.labels), 2).float()
    for norm, eps, steps in (("linf", 0.05, 4), ("l2", 0.5, 40)):
        encoder = linear()
        difference = (encoder.module.head.weight[0] - encoder.module.head.weight[1]).detach().view(3, 8, 8)
        away = torch.from_numpy(1 - 2.0 * data.labels).float().view(-1, 1, 1, 1) * difference
        worst = away.sign() if norm == "linf" else away / difference.norm()
        found = objective(encoder, RobustRole(norm, eps, steps, 0.5, 0)).attacked(
            data.images, targets, 3, torch.arange(8)
        )
        torch.testing.assert_close(found, data.images - eps * worst, rtol=0, atol=1e-5)
        # in closed form the loss is that of a margin less eps times the dual norm
        loss = F.cross_entropy(Classifier(encoder)(found), torch.from_numpy(data.labels))
        dual = difference.abs().sum() if norm == "linf" else difference.norm()
        clean = Classifier(encoder)(data.images)
        margin = (clean * (2 * targets - 1)).sum(1) - eps * dual
        torch.testing.assert_close(loss, F.softplus(-margin).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_attacked_images_stay_within_eps_and_within_0_and_1_and_raise_the_loss(norm):
    role = replace(ROLES[norm], eps=1.0 if norm == "l2" else 0.05)
    encoder = load_encoder(TOY, seed=0)
    held = objective(encoder, role)
    images, labels, _ = pictures(8)
    pixels, targets = held.classify.pixels(images), F.one_hot(torch.from_numpy(labels), 4).float()
    found = held.attacked(pixels, targets, 0, torch.arange(8))
    lengths = (found - pixels).flatten(1).double().norm(dim=1, p=2 if norm == "l2" else torch.inf)
    assert (lengths <= role.eps * (1 + 1e-5)).all()
    assert (lengths > 0.3 * role.eps).all()
    assert 0 <= found.min() <= found.max() <= 1
    loss = [F.cross_entropy(held.classify(one), torch.from_numpy(labels)) for one in (pixels, found)]
    assert loss[1] > loss[0]
    assert all(one.requires_grad and one.grad is None for one in encoder.module.parameters())
    # a share of the batch is attacked as the whole batch is: every draw is of a place
    part = held.attacked(pixels[5:], targets[5:], 0, torch.arange(5, 8))
    assert (found[5:] - part).abs().flatten(1).mean(1).max() < 1e-5
    other = held.attacked(pixels, targets, 1, torch.arange(8))
    assert not torch.equal(found, other)


def by_hand(settings, step_of):
    """SGD on the toy's clean or changed images, in plain torch: step_of(network, images, labels, number)."""
    encoder, data = load_encoder(TOY, seed=0), labelled()
    classify, source = Classifier(encoder, frozen=False), Source(data, settings.batch, (settings.seed, 1))
    encoder.module.requires_grad_(True)
    optimizer = torch.optim.SGD(encoder.module.parameters(), lr=settings.lr)
    for number in range(settings.steps):
        optimizer.zero_grad()
        step_of(classify, source, number)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + np.cos(np.pi * number / settings.steps))
        optimizer.step()
    return torch.cat([value.flatten().double() for value in encoder.module.state_dict().values()])


def batch_of(source, number):
    rows = source.rows(number)
    images, labels, _ = pictures()
    return images[torch.from_numpy(rows)] / 255, torch.from_numpy(labels[rows])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_without_room_for_attacks_it_is_plain_training(norm):
    def plain(classify, source, number):
        images, labels = batch_of(source, number)
        F.cross_entropy(classify(images), labels).backward()

    settings = replace(PLAIN, lr=0.05)
    result = run(replace(ROLES[norm], eps=1e-7), settings)
    torch.testing.assert_close(vector(result), by_hand(settings, plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("replays", [1, 2])
def test_free_is_fgsm_from_the_perturbation_that_is_carried_on(replays):
    """By hand: one backward pass gives both gradients; the perturbation is clipped to eps and outlives its batch."""
    eps, carried = 0.02, torch.zeros(8, 3, 32, 32)

    def fgsm(classify, source, number):
        images, labels = batch_of(source, number // replays)
        seen = (images + carried).clamp(0, 1).requires_grad_()
        F.cross_entropy(classify(seen), labels).backward()
        carried.copy_((carried + eps * seen.grad.sign()).clamp(-eps, eps))

    settings = replace(PLAIN, lr=0.05)
    expected = by_hand(settings, fgsm)
    result = run(RobustRole("linf", eps, steps=1, step=1.0, replays=replays), settings)
    torch.testing.assert_close(vector(result), expected, rtol=1e-4, atol=1e-5)
    assert (carried.abs() <= eps).all()
    assert carried.abs().max() == pytest.approx(eps)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_carried_perturbation_stays_within_eps(norm):
    role = replace(FREE, norm=norm, eps=0.4, step=0.7)
    settings = replace(PLAIN, steps=6)
    held = objective(load_encoder(TOY, seed=0), role, settings)
    steps = Steps(held.sources, settings, 0, Processes(), None, role.replays)
    for number in range(6):
        held.backward(steps[number], number)
        lengths = held.carried.flatten(1).norm(dim=1, p=2 if norm == "l2" else torch.inf)
        assert (lengths <= role.eps * (1 + 1e-5)).all()
    assert (lengths > 0.5 * role.eps).all()


def test_a_batch_that_is_taken_again_is_the_same_mirrored_cropped_and_mixed_images():
    encoder, seen = load_encoder(TOY, seed=0), []
    settings = replace(SETTINGS, steps=6, mixup=1.0)
    held = objective(encoder, replace(FREE, eps=1e-7), settings)
    encoder.module.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    steps = Steps(held.sources, settings, 0, Processes(), None, FREE.replays)
    for number in range(6):
        held.backward(steps[number], number)
    for number in (1, 2, 4, 5):
        torch.testing.assert_close(seen[number], seen[number // 3 * 3], rtol=0, atol=1e-5)
    assert (seen[0] - seen[3]).abs().max() > 0.1


@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize("change", [{}, {"optimizer": "adam", "batch_norm": "training"}])
def test_a_run_that_was_cut_ends_in_the_same_bytes(name, change, tmp_path):
    settings = replace(SETTINGS, **change)
    with pytest.raises(Cut):
        run(ROLES[name], settings, checkpoints=Cutting(tmp_path, 0, signals=False))
    resumed = run(ROLES[name], settings, checkpoints=Checkpoints(tmp_path, 1e9, signals=False))
    whole = run(ROLES[name], settings)
    assert torch.equal(vector(resumed), vector(whole))
    for curve, values in whole.curves.items():
        np.testing.assert_array_equal(resumed.curves[curve], values)


@pytest.mark.parametrize("backbone", [TOY, VIT])
def test_recomputing_changes_nothing(backbone):
    for role in (L2, FREE):
        torch.testing.assert_close(
            vector(run(role, backbone=backbone)), vector(run(role, backbone=backbone, recompute=True)),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip


def test_the_attack_meets_running_statistics_and_training_those_of_the_batch():
    encoder = load_encoder(TOY, seed=0)
    before = {name: value.clone() for name, value in encoder.module.named_buffers()}
    settings = replace(PLAIN, batch_norm="training")
    held = objective(encoder, L2, settings)
    norms = [one for one in encoder.module.modules() if isinstance(one, nn.BatchNorm2d)]
    for one in norms:
        one.train()
    images, labels, _ = pictures(8)
    held.attacked(
        held.classify.pixels(images), F.one_hot(torch.from_numpy(labels), 4).float(), 0, torch.arange(8)
    )
    assert all(torch.equal(value, before[name]) for name, value in encoder.module.named_buffers())
    assert all(one.training for one in norms)
    result = run(L2, settings)
    moved = [name for name, value in before.items() if not torch.equal(result.state[name], value)]
    assert len(moved) == len(before)
    frozen = run(L2, PLAIN)
    assert all(torch.equal(frozen.state[name], value) for name, value in before.items())


def test_passes_count_those_of_the_attack():
    assert [passes_of(role) for role in (L2, LINF, FREE)] == [4, 4, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": Labelled(pictures()[0], np.full(24, 9))}, "robust: expected labels in 0..3"),
        ({"data": Labelled(pictures()[0][:0], np.zeros(0, np.int64))}, "robust.images"),
        ({"settings": replace(SETTINGS, lr=1e30)}, "expected a finite"),
        ({"backbone": replace(TOY, model_args={"num_classes": 0})}, "with a classifier"),
        ({"settings": replace(SETTINGS, batch_norm="training"), "recompute": True}, "runtime.recompute=false"),
        ({"processes": Processes(0, 9)}, "an image for each of 9 processes"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, message):
    given = {"data": labelled(), "settings": SETTINGS, "backbone": TOY, "role": L2} | change
    encoder = load_encoder(given.pop("backbone"), seed=0)
    with pytest.raises(ValueError, match=message):
        adversarial_training(encoder, **given)
