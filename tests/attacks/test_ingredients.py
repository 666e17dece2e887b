"""The ingredients as trainings: steps by hand, closed forms, what equals what, interruptions, snapshots, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alignet.attacks.contrastive import Contrastive, projection_head
from alignet.attacks.losses import divergence
from alignet.attacks.supervised import Trades
from alignet.attacks.train import adversarial_training, passes_of
from alignet.backbones import load_encoder
from alignet.config import RobustRole, RobustSection, trained_role
from alignet.harmonizer.batches import Labelled
from alignet.harmonizer.labelled import seed_of
from alignet.runtime.checkpoints import Checkpoints
from tests.attacks.test_augmentations import NONE, STRONG, USUAL
from tests.attacks.test_train import (
    L2,
    PLAIN,
    SETTINGS,
    batch_of,
    by_hand,
    follows,
    labelled,
    objective,
    run,
    two_features,
)
from tests.harmonizer.test_train import TOY, VIT, pictures, vector
from tests.makers.cut import Cut, Cutting
from tests.makers.toy_networks import linear

UNMIXED = replace(SETTINGS, mixup=0.0, smoothing=0.0)
STANDARD = RobustRole(loss="cross_entropy")
TRADES = replace(L2, loss="trades", beta=6.0)
MART = replace(L2, loss="mart", beta=6.0)
SIMCLR = RobustRole(loss="simclr", temperature=0.5, projection=8)
SIMCLR_ADVERSARIAL = replace(L2, loss="simclr", temperature=0.5, projection=8)
ROLES = {
    "standard": STANDARD, "trades": TRADES, "mart": MART, "simclr": SIMCLR, "simclr-adversarial": SIMCLR_ADVERSARIAL,
}  # fmt: skip
UNKNOWN = (
    "^robust.roles: expected some of robust-l2, robust-linf, robust-free, or names that begin with one of standard, "
    "adversarial, trades, mart, simclr, in small letters, digits and hyphens, found '{}'$"
)


def test_cross_entropy_is_plain_training():
    def plain(classify, source, number):
        images, labels = batch_of(source, number)
        F.cross_entropy(classify(images), labels).backward()

    settings = replace(PLAIN, lr=0.05)
    torch.testing.assert_close(
        vector(run(STANDARD, settings)), by_hand(settings, plain), rtol=1e-4, atol=1e-5
    )


def test_trades_without_beta_is_cross_entropy_to_the_byte():
    settings = replace(SETTINGS, batch_norm="training")
    standard = run(STANDARD, settings, augmentation=USUAL)
    trades = run(replace(TRADES, beta=0.0), settings, augmentation=USUAL)
    assert torch.equal(vector(trades), vector(standard))
    for curve in ("cross_entropy", "right"):
        np.testing.assert_array_equal(trades.curves[curve], standard.curves[curve])
    assert not torch.equal(vector(run(TRADES, settings, augmentation=USUAL)), vector(standard))
    assert not torch.equal(vector(run(STANDARD, settings, augmentation=STRONG)), vector(standard))


def l2_ascent(value, images, start, role):
    """Written out anew: normalised steps onto the l2 ball and into [0, 1]."""
    delta = start.clone()
    for _ in range(role.steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(value(images + delta).sum(), delta)
        delta = delta.detach() + role.step * role.eps * F.normalize(gradient.flatten(1)).view_as(gradient)
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = (images + delta * (role.eps / length).clamp_max(1)).clamp(0, 1) - images
    return images + delta


def normal_start(images, number):
    noise = torch.stack(
        [
            torch.randn(
                images.shape[1:], generator=torch.Generator().manual_seed(seed_of(0, 4, number, place))
            )
            for place in range(len(images))
        ]
    )
    return (images + 1e-3 * noise).clamp(0, 1) - images


def kl(clean, attacked):
    return F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="none").sum(1)


def test_trades_by_hand():
    def trades(classify, source, number):
        images, labels = batch_of(source, number)
        before = classify(images).detach()
        attacked = l2_ascent(
            lambda pixels: kl(before, classify(pixels)), images, normal_start(images, number), TRADES
        ).detach()
        classify.encoder.module.zero_grad()
        clean = classify(images)
        apart = F.kl_div(classify(attacked).log_softmax(1), clean.softmax(1), reduction="batchmean")
        (F.cross_entropy(clean, labels) + 6 * apart).backward()

    settings = replace(PLAIN, lr=0.05)
    result = run(TRADES, settings)
    torch.testing.assert_close(vector(result), by_hand(settings, trades), rtol=1e-3, atol=1e-4)
    assert sorted(result.curves) == ["cross_entropy", "divergence", "lr", "right"]
    assert (result.curves["divergence"] > 0).all()


def test_mart_by_hand():
    def mart(classify, source, number):
        images, labels = batch_of(source, number)
        attacked = objective(classify.encoder, MART).attacked(
            images, F.one_hot(labels, 4).float(), number, torch.arange(8)
        )
        p, q = classify(images).softmax(1), classify(attacked).softmax(1)
        rows = torch.arange(8)
        rival = q.scatter(1, labels[:, None], 0).amax(1)
        boosted = -q[rows, labels].log() - (1 - rival).log()
        weighted = (p * (p / q).log()).sum(1) * (1 - p[rows, labels])
        (boosted + 6 * weighted).mean().backward()

    settings = replace(PLAIN, lr=0.05)
    torch.testing.assert_close(vector(run(MART, settings)), by_hand(settings, mart), rtol=1e-3, atol=1e-4)


def test_simclr_by_hand():
    """Two views by the changes of their places, the head's own seed, and the loss of the paper in a matrix."""
    head = projection_head(load_encoder(TOY, seed=0).width, 8, seed_of(0, 6))
    heads = torch.optim.SGD(head.parameters(), lr=0.05)
    settings = replace(PLAIN, lr=0.05)

    def simclr(classify, source, number):
        held = objective(classify.encoder, STANDARD, augmentation=STRONG)
        images, _ = batch_of(source, number)
        views = [held._augmented(images, 8, torch.arange(8), number, view) for view in (0, 1)]
        z = F.normalize(head(classify.features(torch.cat(views))), dim=1)
        powers = (z @ z.T / 0.5).exp()
        powers = powers - powers.diag().diag()
        partner = torch.arange(16).roll(8)
        heads.zero_grad()
        loss = -(powers[torch.arange(16), partner] / powers.sum(1)).log().mean()
        loss.backward()
        for group in heads.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + np.cos(np.pi * number / settings.steps))
        heads.step()

    result = run(SIMCLR, settings, augmentation=STRONG)
    torch.testing.assert_close(vector(result), by_hand(settings, simclr), rtol=1e-4, atol=1e-5)
    start = load_encoder(TOY, seed=0).module.state_dict()
    unchanged = [name for name, value in result.state.items() if torch.equal(value, start[name])]
    assert {"classifier.weight", "classifier.bias"} <= set(unchanged)  # which took no part
    assert "conv_stem.weight" not in unchanged


def test_the_perturbations_of_a_linear_network_are_the_closed_forms():
    data = two_features(8)
    encoder = linear()
    role = replace(TRADES, eps=0.5, steps=30, step=0.5)
    difference = (encoder.module.head.weight[0] - encoder.module.head.weight[1]).detach().view(1, 3, 8, 8)
    held = objective(encoder, role)
    assert isinstance(held, Trades)
    found = held.diverted(data.images, 3, torch.arange(8))
    clean = held.classify(data.images).detach()
    reached = divergence(clean, held.classify(found))
    # the divergence grows with the margin's distance either way: both ends of the ball are its local maxima
    ends = [
        divergence(clean, held.classify(data.images + sign * 0.5 * difference / difference.norm()))
        for sign in (-1, 1)
    ]
    off = torch.minimum((reached - ends[0]).abs(), (reached - ends[1]).abs())
    assert (off < 1e-3 * reached).all()
    assert ((found - data.images).flatten(1).norm(dim=1) <= 0.5 * (1 + 1e-5)).all()


class Features(nn.Module):
    """Features linear in the pixels, of which a classifier takes none."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * 8 * 8, 5)
        nn.init.normal_(self.layer.weight, std=0.1, generator=torch.Generator().manual_seed(3))
        self.head = nn.Linear(5, 2)

    def get_classifier(self):
        return self.head

    def forward_features(self, images):
        return self.layer(images.flatten(1))

    def forward_head(self, features, pre_logits=False):
        return features if pre_logits else self.head(features)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


def test_the_adversarial_augmentation_of_linear_features_is_their_first_singular_vector():
    encoder = replace(linear(), module=Features(), width=5)
    held = objective(encoder, replace(SIMCLR_ADVERSARIAL, eps=0.3, steps=200, step=0.5))
    assert isinstance(held, Contrastive)
    images = 0.5 + 0.05 * torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = held.moved(images, 0, torch.arange(6))
    distance = (held.classify.features(found) - held.classify.features(images)).norm(dim=1)
    largest = torch.linalg.matrix_norm(encoder.module.layer.weight.detach(), 2)
    torch.testing.assert_close(distance, (0.3 * largest).expand(6), rtol=1e-2, atol=0)
    assert ((found - images).flatten(1).norm(dim=1) <= 0.3 * (1 + 1e-5)).all()
    other = held.moved(images, 1, torch.arange(6))
    assert not torch.equal(found, other)


@pytest.mark.parametrize(
    ("role", "share"),
    [
        (STANDARD, 0),
        (RobustRole("l2", 0.6, 2, 0.7, loss="trades", beta=6.0), 1),
        (RobustRole("l2", 0.6, 2, 0.7, loss="mart", beta=6.0), 1),
    ],
)
def test_attacks_lead_from_the_fragile_feature_to_the_robust_one(role, share):
    """More room than the fragile feature has, less than the robust one; without attacks nothing leaves it."""
    assert follows(role) == share


def test_simclr_learns_which_views_belong_together_and_not_where_they_do_not(monkeypatch):
    settings = replace(UNMIXED, steps=40, batch=16, optimizer="adam", lr=3e-3, warmup=5, decay=0.0)
    views = replace(NONE, shift=0.1, flip=0.5, jitter=(0.1, 0.1, 0.1, 0.0), jittered=1.0)
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (24, 3, 1, 1)) + rng.integers(-20, 20, (24, 3, 32, 32))
    data = Labelled(torch.from_numpy(colours.clip(0, 255).astype(np.uint8)), np.zeros(24, np.int64))

    def learnt():
        curves = adversarial_training(
            load_encoder(TOY, seed=0), data, settings, SIMCLR, augmentation=views
        ).curves
        return curves["right"][-5:].mean(), curves["nt_xent"][-5:].mean()

    right, loss = learnt()
    prepare = Contrastive._prepare

    def others(self, part, source, step, row):
        images, targets, maps = prepare(self, part, source, step, row)
        return (images.roll(row * (1 + step % 15), 0), targets, maps)

    monkeypatch.setattr(Contrastive, "_prepare", others)
    shuffled, none = learnt()
    assert right > 0.4
    assert loss < 2.8
    assert shuffled < 0.2  # of 31 others
    assert none == pytest.approx(np.log(31), abs=0.3)


@pytest.mark.parametrize("name", ROLES)
def test_a_run_that_was_cut_ends_in_the_same_bytes_and_its_snapshots_are_its_checkpoints(name, tmp_path):
    settings = replace(UNMIXED, optimizer="adam", batch_norm="training")
    kept, encoder = {}, load_encoder(TOY, seed=0)

    def keep(done):
        kept[done] = {key: value.clone() for key, value in encoder.module.state_dict().items()}

    whole = adversarial_training(
        encoder, labelled(), settings, ROLES[name], augmentation=STRONG, snapshot=keep
    )
    with pytest.raises(Cut):
        run(ROLES[name], settings, augmentation=STRONG, checkpoints=Cutting(tmp_path, 0, signals=False))
    step, tensors, _ = Checkpoints(tmp_path).latest()
    assert step == 2
    assert sorted(kept) == [1, 2, 3, 4]
    assert all(torch.equal(tensors[f"model.{key}"], value) for key, value in kept[2].items())
    assert all(torch.equal(whole.state[key], value) for key, value in kept[4].items())
    resumed = run(
        ROLES[name], settings, augmentation=STRONG, checkpoints=Checkpoints(tmp_path, 1e9, signals=False)
    )
    assert torch.equal(vector(resumed), vector(whole))
    for curve, values in whole.curves.items():
        np.testing.assert_array_equal(resumed.curves[curve], values)
    assert not torch.equal(
        vector(run(ROLES[name], replace(settings, seed=1), augmentation=STRONG)), vector(whole)
    )


@pytest.mark.parametrize("name", ["trades", "simclr-adversarial"])
def test_recomputing_changes_nothing(name):
    for backbone in (TOY, VIT):
        plain, again = (run(ROLES[name], UNMIXED, backbone, recompute=which) for which in (False, True))
        torch.testing.assert_close(vector(plain), vector(again), rtol=1e-4, atol=1e-5)


def test_passes_count_views_and_attacks():
    found = [passes_of(role) for role in (*ROLES.values(), replace(TRADES, beta=0.0))]
    assert found == [1, 5, 5, 2, 5, 1]


def test_random_weights_want_the_statistics_of_batches():
    role = replace(STANDARD, begin="random")
    with pytest.raises(ValueError, match=r"robust.settings.batch_norm: expected training"):
        run(role, PLAIN)
    run(role, replace(PLAIN, steps=1, batch_norm="training"))
    run(role, replace(PLAIN, steps=1), VIT)  # which has none


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "cross_entropy"}, "eps, steps and step of 0 where nothing is attacked"),
        ({"loss": "adversarial", "eps": 0.0}, "robust.roles.eps: expected a positive number"),
        ({"loss": "mart", "steps": 0}, "robust.roles.steps"),
        ({"loss": "trades", "beta": -1.0}, "robust.roles.beta"),
        ({"beta": 1.0}, "robust.roles.beta: expected 0 with loss=adversarial"),
        ({"loss": "trades", "steps": 1, "replays": 2}, "robust.roles.replays: expected 0 with loss=trades"),
        ({"loss": "simclr"}, "robust.roles.projection"),
        ({"loss": "simclr", "projection": 8}, "robust.roles.temperature"),
        ({"temperature": 0.5}, "temperature and projection of 0"),
        ({"snapshots": (4, 2)}, "rising numbers of steps"),
        ({"eps": float("inf")}, "robust.roles.eps: expected a finite number, found inf"),
        ({"step": float("inf")}, "robust.roles.step: expected a finite number, found inf"),
        ({"step": float("nan")}, "robust.roles.step: expected a finite number, found nan"),
        ({"loss": "trades", "beta": float("inf")}, "robust.roles.beta: expected a finite number, found inf"),
        (
            {"loss": "simclr", "projection": 8, "temperature": float("inf")},
            "robust.roles.temperature: expected a finite number, found inf",
        ),
    ],
)
def test_bad_roles_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(L2, **change)


@pytest.mark.parametrize(
    ("name", "role", "settings", "message"),
    [
        ("trades-6", replace(TRADES, augmentation="usual"), {}, "robust.roles.trades-6.augmentation"),
        ("trades-6", replace(TRADES, snapshots=(2, 5)), {}, r"robust.roles.trades-6.snapshots: .* \(4\), found 5"),
        ("mart-6", MART, {"smoothing": 0.1}, "robust.roles.mart-6.loss: expected .*mixup and smoothing of 0"),
        ("simclr", SIMCLR, {"mixup": 0.5}, "robust.roles.simclr.loss"),
        ("standard", TRADES, {}, "robust.roles.standard.loss: expected cross_entropy"),
        ("robust-l2", TRADES, {}, "robust.roles.robust-l2.loss: expected adversarial"),
        ("best", MART, {}, UNKNOWN.format("best")),
        ("Trades-6", TRADES, {}, UNKNOWN.format("Trades-6")),
        ("trades-6@2", TRADES, {}, UNKNOWN.format("trades-6@2")),
    ],
)  # fmt: skip
def test_what_a_section_refuses(name, role, settings, message):
    with pytest.raises(ValueError, match=message):
        RobustSection("mapped", None, "class", {name: role}, replace(PLAIN, **settings))


def test_rows_that_are_trainings():
    for setting in ("robust-l2", "standard", "trades-6", "simclr-no-colour", "mart-6@50"):
        assert trained_role(setting) == setting.partition("@")[0]
    for setting in ("original", "robust", "robust-l3", "trades_6", "trades-", "Trades-6", "trades-6@", "trades-6@x",
                    "standardised", "trades-6.fine", "trades-6@0"):  # fmt: skip
        assert trained_role(setting) is None
    section = RobustSection("mapped", None, "class", {"trades-6": replace(TRADES, snapshots=(2,))}, PLAIN)
    assert section.of_row("trades-6@2") is section.of_row("trades-6") is section.roles["trades-6"]
    assert section.of_row("trades-6@3") is section.of_row("mart-6") is None


def test_labels_are_not_used_by_simclr():
    settings, images = replace(UNMIXED, steps=2), pictures()[0]
    one, other = (
        vector(adversarial_training(load_encoder(TOY, seed=0), Labelled(images, labels), settings, SIMCLR))
        for labels in (np.arange(24) % 4, np.zeros(24, np.int64))
    )
    assert torch.equal(one, other)
