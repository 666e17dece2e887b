"""Values that the authors' released code gives on inputs written down here, against ours.

VICE (commit 5f80103), gLocal (635fdaa) and AligNet (aae22c7) were run on these inputs, in double precision where they
allow it; flax and optax where AligNet's code calls them.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch

from alignet.backbones import load_encoder
from alignet.student.network import CUT_DEVIATION, Student, _random_head
from alignet.student.optimizer import Optimizer, learning_rate
from alignet.teacher.fit_affine_map import objective
from alignet.teacher.locality import local_loss
from alignet.triplets import triplet_loss
from alignet.vice.engine import evaluate
from alignet.vice.fit import fit_vice, start
from alignet.vice.prior import SpikeSlab
from alignet.vice.soft_labels import heldout_metrics, released_correct, released_metrics
from tests.student.test_finetune import TOY, changed
from tests.vice.test_vice import SETTINGS, planted_choices, planted_embedding

M, D = 6, 4
ROW, COLUMN = torch.meshgrid(
    torch.arange(M, dtype=torch.float64), torch.arange(D, dtype=torch.float64), indexing="ij"
)
LOC = 0.6 * torch.sin(ROW + 2 * COLUMN) + 0.3
LOG_SCALE = -1.5 + 0.2 * torch.cos(3 * ROW - COLUMN)
NOISE = torch.cos(1 + ROW * COLUMN + ROW)
TRIPLETS = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 5, 3], [2, 1, 4]])
WEIGHTS = torch.eye(D, dtype=torch.float64) * 0.7 + 0.05 * torch.sin(ROW[:D] + COLUMN[:D])
BIAS = 0.1 * torch.cos(torch.arange(D, dtype=torch.float64))


def test_a_step_of_vice():
    """Loss, complexity over 1,000 choices, and the sums of the gradients' magnitudes."""
    nll, complexity = 0.8772150571668111, 0.029454697518659197
    by_loc, by_log_scale = 1.1157797659602073, 0.18304581335556136
    one = SpikeSlab("gaussian", 0.25, 1.0, 0.5)
    found = evaluate(LOC, LOG_SCALE, NOISE, TRIPLETS, n=1000, prior=one)
    assert found.nll.item() == pytest.approx(nll, rel=1e-7)
    assert found.complexity.item() == pytest.approx(complexity, rel=1e-7)
    assert found.grad_loc.abs().sum().item() == pytest.approx(by_loc, rel=1e-7)
    assert found.grad_log_scale.abs().sum().item() == pytest.approx(by_log_scale, rel=1e-7)


def test_the_start_of_vice():
    """Of 1,854 objects in 100 dimensions the released code drew a deviation of 0.14121 and a scale of 0.00084055."""
    released = dataclasses.replace(SETTINGS, start="released", dim=100)
    loc, log_scale = start(torch.randn((1854, 100), generator=torch.Generator().manual_seed(0)), released)
    assert loc.std().item() == pytest.approx(0.1412140429019928, rel=0.01)
    assert (loc < 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert log_scale.exp().unique().numel() == 1
    assert log_scale[0, 0].item() == pytest.approx(-1 / loc.std().item(), rel=1e-6)
    assert log_scale.exp()[0, 0].item() == pytest.approx(0.0008405545576751858, rel=0.1)
    loc, log_scale = start(torch.randn(50, 10), SETTINGS)
    assert bool((loc >= 0).all())
    assert log_scale.exp().unique().tolist() == pytest.approx([SETTINGS.init_scale])


def test_the_window_may_begin_inside_the_burn_in():
    """The number of dimensions is constant from early on: 82 epochs in the released code, 90 by ours."""
    choices = planted_choices(planted_embedding(), 3000, 2)
    ours = fit_vice(choices, None, objects=24, settings=SETTINGS)
    released = dataclasses.replace(SETTINGS, window_from="start")
    theirs = fit_vice(choices, None, objects=24, settings=released)
    assert ours.converged
    assert theirs.converged
    assert (SETTINGS.earliest, released.earliest) == (90, 82)
    assert len(theirs.curves["kept"]) >= 82
    assert len(theirs.curves["kept"]) < len(ours.curves["kept"])
    assert len(set(theirs.curves["kept"][-SETTINGS.window :])) == 1


def test_ties_of_vice():
    """The released code chose [0, none, none, none, 1, 0] of these."""
    rows = [[0.5, 0.3, 0.2], [0.334, 0.333, 0.333], [0.4, 0.4, 0.2], [0.3349, 0.3340, 0.3311], [0.2, 0.5, 0.3],
            [0.336, 0.333, 0.331]]  # fmt: skip
    assert released_correct(torch.tensor(rows)).tolist() == [True, False, False, False, False, True]


def test_held_out_figures_before_pruning_are_given_beside_ours():
    choices = planted_choices(planted_embedding(), 4000, 3)
    fit = fit_vice(choices[:3000], choices[3000:], objects=24, settings=SETTINGS)
    ours = heldout_metrics(fit.pruned_loc, fit.pruned_scale, choices[3000:], samples=20, seed=0)
    theirs = released_metrics(fit.loc, fit.scale, choices[3000:], seed=0)
    assert fit.validation == ours | theirs
    assert theirs["released_accuracy"] != ours["accuracy"]


def test_the_terms_of_gLocal():
    """The local term at T = 0.1 of features that are not standardised, and the distance from a multiple of I."""
    found = local_loss(LOC, LOC @ WEIGHTS + BIAS, 0.1)
    assert found.item() == pytest.approx(0.48452882184762314, rel=1e-7)
    targets = torch.full((4, 3), 1 / 3, dtype=torch.float64)
    value = objective(WEIGHTS, BIAS, LOC, TRIPLETS, targets, penalty=1.0)
    assert value.penalty.item() == pytest.approx(0.01901909771850823, rel=1e-6)


LOGITS = 5 * np.stack(
    [np.sin(np.arange(24).reshape(2, 3, 4) * 0.7), np.cos(np.arange(24).reshape(2, 3, 4) * 0.3)]
).reshape(4, 3, 4)
TARGETS = torch.tensor(
    [[1.0, 0.2, -0.5], [0.3, 0.4, 2.0], [-1.0, 0.5, 0.1], [0.0, 0.0, 0.0]], dtype=torch.float64
)


@pytest.mark.parametrize(
    ("kind", "tau", "values"),
    [
        ("kl", 1.0, [61.46811250099383, 64.64642580924273, 45.62166921119433, 53.53917879497871]),
        ("jsd", 1.0, [0.36564732811913797, 0.4747849315692172, 0.3041057099280446, 0.3182570841474064]),
        ("kl", 100.0, [0.3173653047251088, 0.5330147966332892, 0.3485797210950492, 0.0867094335799714]),
        ("jsd", 100.0, [0.0733036248715554, 0.1271172165945441, 0.08276754614947268, 0.021471756317903656]),
    ],
)
def test_losses_of_the_student(kind, tau, values):
    a, b, c = torch.from_numpy(LOGITS).unbind(1)
    student = torch.stack([(a * b).sum(1), (a * c).sum(1), (b * c).sum(1)], 1)
    found = triplet_loss(TARGETS, student, kind=kind, tau_teacher=1.0, tau_student=tau)
    assert found.tolist() == pytest.approx(values, rel=1e-7)


def test_the_head_starts_as_flax_has_it_and_is_pulled_to_that():
    """flax drew 1024 outputs of 768 features: deviation 1.0009 / sqrt(768), none beyond 2.2737 / sqrt(768), no bias."""
    settings = changed(head=1024, head_start="released", steps=4, warmup=0, lr=0.01, pull=30.0)
    head = _random_head(768, settings)
    weights = head.weight.detach() * math.sqrt(768)
    assert weights.std().item() == pytest.approx(1.000912, abs=0.005)
    assert weights.abs().max().item() == pytest.approx(2.2736607, abs=1e-3)
    assert not head.bias.any()
    cut = 1 - 2 * 2 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(
        math.sqrt(2)
    )  # variance, in closed form
    assert pytest.approx(math.sqrt(cut), rel=1e-9) == CUT_DEVIATION
    features = torch.randn((64, 768), generator=torch.Generator().manual_seed(7))
    heads = (head, _random_head(768, changed(head=1024)))
    scale = [(one(features).square().sum() / features.square().sum()).item() for one in heads]
    assert scale == pytest.approx([1024 / 768, 1.0], rel=0.02)  # of similarities, by theirs and by ours

    for kind, left in (("released", 0.7), ("isometric", 1.0)):
        one = dataclasses.replace(settings, head=16, head_start=kind)
        student = Student(load_encoder(TOY, seed=0), one)
        optimizer = Optimizer(student, one)
        before = student.head.weight.detach().clone()
        with torch.no_grad():
            student.head.weight += 1.0
        for parameter in optimizer.parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step(0)
        assert (student.head.weight - before).mean().item() == pytest.approx(left, abs=1e-4), kind


def test_our_warm_up_is_one_step_ahead():
    """optax gave [0, 6e-9, 2.9994e-5, 3e-5] at steps [0, 1, 4999, 5000], and 1.5e-5 halfway through the cosine."""
    settings = changed(steps=100_000, warmup=5000, lr=3e-5)
    assert [learning_rate(step - 1, settings) for step in (1, 4999, 5000)] == pytest.approx(
        [6e-9, 2.9994e-5, 3e-5]
    )
    assert [learning_rate(step, settings) for step in (5000, 52_500)] == pytest.approx([3e-5, 1.5e-5])


def test_our_decay_acts_on_the_weights_after_adam():
    """In AdamW's order, which the released code has, the weights would be `share` times Adam's step further on."""
    settings = changed(steps=1, warmup=0, lr=0.01, pull=25.0, epsilon=0.0)
    optimizer = Optimizer(Student(load_encoder(TOY, seed=0), settings), settings)
    away, rate, share = 0.5, 0.01, 0.25
    with torch.no_grad():
        for held in optimizer.held:
            held += away
    for held in optimizer.held:
        held.grad = torch.ones_like(held)  # Adam's first step is the rate
    optimizer.step(0)
    released = away - rate - share * away
    for held, initial in zip(optimizer.held, optimizer.initial, strict=True):
        moved = (held.detach() - initial).double()
        torch.testing.assert_close(moved, torch.full_like(moved, released + share * rate), rtol=0, atol=1e-5)
