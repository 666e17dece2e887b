"""VICE: the engine against Pyro, planted embeddings, convergence and resuming."""

import dataclasses
import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from alignet.runtime.checkpoints import Checkpoints
from alignet.triplets import odd_one_last, probabilities, similarities
from alignet.vice import gradient
from alignet.vice.compiled import CompiledEngine
from alignet.vice.engine import evaluate
from alignet.vice.fit import ViceSettings, fit_vice, split_half_reliability
from alignet.vice.model import guide, model, prior_distribution
from alignet.vice.prior import SpikeSlab
from alignet.vice.soft_labels import heldout_metrics

SETTINGS = ViceSettings(
    dim=10,
    prior="gaussian",
    spike=0.25,
    slab=1.0,
    pi=0.6,
    lr=0.05,
    batch=2000,
    max_epochs=150,
    burn_in=80,
    window=10,
    k=2,
    alpha=0.05,
    init_loc=0.1,
    init_scale=0.05,
    samples=20,
    seed=0,
)


def draw_triplets(m, n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, m, generator=generator).argsort(1)[:, :3]


def planted_choices(embedding, n, seed):
    """Choices drawn from the softmax of dot products, odd one last, like a simulated participant's."""
    triplets = draw_triplets(len(embedding), n, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    probs = probabilities(similarities(embedding, triplets))
    pair = torch.multinomial(probs, 1, generator=generator)
    return odd_one_last(triplets, torch.zeros(n, 3).scatter_(1, pair, 1.0))[0]


def planted_embedding(m=24, d=4, seed=5):
    generator = torch.Generator().manual_seed(seed)
    sparse = torch.rand(m, d, generator=generator) < 0.4
    return sparse * (0.8 + 1.2 * torch.rand(m, d, generator=generator))


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize(("m", "b"), [(9, 40), (60, 40)], ids=["gram", "rows"])
def test_engine_is_pyros_elbo(kind, m, b):
    """On the same noise and batch: n times the loss, and the gradients of both parameters."""
    n, d, prior = 5000, 7, SpikeSlab(kind, 0.25, 1.0, 0.6)
    torch.manual_seed(1)
    loc, log_scale, batch = torch.randn(m, d), torch.randn(m, d) * 0.3 - 1, draw_triplets(m, b, 2)

    def variational(batch, **_):
        guide(batch, loc=loc.clone(), scale=log_scale.exp())

    pyro.clear_param_store()
    pyro.set_rng_seed(3)
    trace = pyro.poutine.trace(variational).get_trace(batch)
    noise = ((trace.nodes["embedding"]["value"] - loc) / log_scale.exp()).detach()
    pyro.set_rng_seed(3)
    arguments = {"n": n, "objects": m, "dim": d, "prior": prior}
    loss = Trace_ELBO().differentiable_loss(model, variational, batch, **arguments) / n
    parameters = dict(pyro.get_param_store().named_parameters())  # unconstrained: the scale as its log
    grad_loc, grad_log = torch.autograd.grad(loss, [parameters["loc"], parameters["scale"]])

    found = evaluate(loc, log_scale, noise, batch, n=n, prior=prior)
    assert (found.nll + found.complexity).item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(found.grad_loc, grad_loc, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.grad_log_scale, grad_log, rtol=1e-4, atol=1e-6)

    engine = CompiledEngine(loc.clone(), log_scale.clone(), n=n, prior=prior, lr=0.01, seed=0)
    engine.step_with_noise(batch, noise, 0)
    assert sum(engine.sums()) == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(torch.from_numpy(engine.slope), grad_loc, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.from_numpy(engine.noise), grad_log, rtol=1e-4, atol=1e-6)


def test_complexity_is_counted_in_full():
    """(1/n)(log q - log p), summed over entries, against scipy's densities."""
    from scipy.stats import norm

    loc, log_scale, noise = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)).unbind()
    found = evaluate(
        loc, log_scale, noise, draw_triplets(6, 5, 0), n=17, prior=SpikeSlab("gaussian", 0.2, 2, 0.3)
    )
    y = (loc + log_scale.exp() * noise).double().numpy()
    log_q = norm.logpdf(y, loc, log_scale.exp()).sum()
    log_p = np.log(0.3 * norm.pdf(y, 0, 0.2) + 0.7 * norm.pdf(y, 0, 2)).sum()
    assert found.complexity.item() == pytest.approx((log_q - log_p) / 17, rel=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_prior_against_pyro_and_autograd(kind):
    prior = SpikeSlab(kind, 0.1, 1.5, 0.7)
    y = torch.tensor([[-40.0, -1.0, -0.01, 0.02, 0.3, 60.0]]).requires_grad_()
    expected = prior_distribution(prior, (1, 6)).log_prob(y)
    log_prob, slope = prior.log_prob_and_slope(y.detach())
    assert log_prob.sum().item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(slope, torch.autograd.grad(expected, y)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_both_ways_is_autograds(soft):
    embedding = torch.randn(11, 5, dtype=torch.float64).requires_grad_()
    triplets = draw_triplets(11, 300, 4)
    targets = torch.softmax(torch.randn(300, 3, dtype=torch.float64), 1)
    log_q = torch.stack(
        [
            torch.log_softmax(
                torch.stack(
                    [embedding[i] @ embedding[j], embedding[i] @ embedding[k], embedding[j] @ embedding[k]]
                ),
                0,
            )
            for i, j, k in triplets.tolist()
        ]
    )
    expected = -(targets * log_q).sum(1).mean() if soft else -log_q[:, 0].mean()
    slope = torch.autograd.grad(expected, embedding)[0]
    for way in (gradient._by_gram, gradient._by_rows):
        loss, found = way(embedding.detach(), triplets, targets if soft else None)
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(found, slope)


def test_blocks_do_not_change_the_result(monkeypatch):
    embedding, triplets = torch.randn(50, 3, dtype=torch.float64), draw_triplets(50, 30, 1)
    targets = torch.softmax(torch.randn(30, 3, dtype=torch.float64), 1)
    whole = gradient._by_rows(embedding, triplets, targets)
    monkeypatch.setattr(gradient, "_BLOCK", 7)
    for one, other in zip(whole, gradient._by_rows(embedding, triplets, targets)):
        torch.testing.assert_close(one, other)


@pytest.fixture(scope="module")
def world():
    embedding = planted_embedding()
    return embedding, planted_choices(embedding, 20000, 7), planted_choices(embedding, 4000, 70)


@pytest.fixture(scope="module")
def fitted(world):
    _, train, val = world
    return fit_vice(train, val, objects=24, settings=SETTINGS)


def test_recovers_a_planted_embedding(world, fitted):
    embedding, _, val = world
    assert fitted.converged
    assert fitted.warning == ""
    assert 4 <= len(fitted.kept) <= 6
    upper = np.triu_indices(24, 1)
    found = fitted.pruned_loc.relu()
    r = np.corrcoef((found @ found.T)[upper], (embedding @ embedding.T)[upper])[0, 1]
    assert r > 0.95
    best = -probabilities(similarities(embedding, val))[:, 0].log().mean().item()
    assert fitted.validation["cross_entropy"] < best + 0.02


def test_curves_say_how_it_went(fitted):
    epochs = len(fitted.curves["kept"])
    assert {len(curve) for curve in fitted.curves.values()} == {epochs}
    assert SETTINGS.burn_in + SETTINGS.window <= epochs < SETTINGS.max_epochs
    assert len(set(fitted.curves["kept"][-SETTINGS.window :])) == 1
    assert fitted.curves["val_nll"][-1] == pytest.approx(fitted.curves["nll"][-1], abs=0.05)


def test_shuffled_choices_teach_nothing(world):
    _, train, val = world
    shuffled = torch.stack([row[torch.randperm(3)] for row in train])
    settings = dataclasses.replace(SETTINGS, max_epochs=30)
    fit = fit_vice(shuffled, val, objects=24, settings=settings)
    # where nothing is kept every similarity ties, and a tie is never correct
    assert fit.validation["accuracy"] < 0.37
    assert fit.validation["cross_entropy"] > math.log(3) - 0.01


def test_says_aloud_that_it_did_not_converge(world, capsys):
    settings = dataclasses.replace(SETTINGS, max_epochs=2)
    fit = fit_vice(world[1], None, objects=24, settings=settings)
    assert not fit.converged
    assert fit.validation == {}
    assert "did not converge in 2 epochs" in fit.warning
    assert fit.warning in capsys.readouterr().err


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", [3, 10, 24])  # steps: in the first epoch, at the end of one, later
def test_resumes_to_the_same_bytes(world, tmp_path, monkeypatch, moment):
    _, train, val = world
    settings = dataclasses.replace(SETTINGS, max_epochs=3)
    whole = fit_vice(train, val, objects=24, settings=settings)
    checkpoints = Checkpoints(tmp_path, seconds=0)
    save = Checkpoints.save

    def die(self, step, *arguments):
        save(self, step, *arguments)
        if step == moment:
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", die)
    with pytest.raises(Killed):
        fit_vice(train, val, objects=24, settings=settings, checkpoints=checkpoints)
    monkeypatch.setattr(Checkpoints, "save", save)
    resumed = fit_vice(train, val, objects=24, settings=settings, checkpoints=Checkpoints(tmp_path))
    assert resumed.curves == whole.curves
    assert resumed.loc.numpy().tobytes() == whole.loc.numpy().tobytes()
    assert resumed.scale.numpy().tobytes() == whole.scale.numpy().tobytes()


def test_seed_decides(world):
    settings = dataclasses.replace(SETTINGS, max_epochs=1)
    one, same = (fit_vice(world[1], None, objects=24, settings=settings) for _ in range(2))
    other = fit_vice(world[1], None, objects=24, settings=dataclasses.replace(settings, seed=1))
    assert torch.equal(one.loc, same.loc)
    assert not torch.equal(one.loc, other.loc)


def test_split_halves_agree_on_structure_and_not_on_noise(world):
    settings = dataclasses.replace(SETTINGS, max_epochs=25)
    _, train, _ = world
    found = split_half_reliability(train, objects=24, settings=settings)
    assert found["spearman"] > 0.9
    hasty = dataclasses.replace(SETTINGS, max_epochs=1)
    assert not split_half_reliability(train, objects=24, settings=hasty)["converged"]
    shuffled = torch.stack([row[torch.randperm(3)] for row in train])
    noise = split_half_reliability(shuffled, objects=24, settings=settings)["spearman"]
    assert not abs(noise) > 0.3  # NaN where nothing is kept


def test_objects_without_a_choice_stay_at_the_prior(world):
    """Two objects nobody judged: their posterior says nothing, and they keep no dimension alive."""
    settings = dataclasses.replace(SETTINGS, max_epochs=25)
    fit = fit_vice(world[1], None, objects=26, settings=settings)
    assert fit.pruned_loc[24:].abs().max() < 0.5 * fit.pruned_loc[:24].max()
    assert heldout_metrics(fit.pruned_loc, fit.pruned_scale, world[2], samples=20, seed=0)["accuracy"] > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": "cauchy"}, "gaussian or laplace"),
        ({"spike": 2.0}, "0 < spike < slab"),
        ({"pi": 1.0}, r"pi inside \(0, 1\)"),
        ({"alpha": 0.0}, "alpha"),
        ({"lr": 0.0}, "lr"),
        ({"window": 0}, "window"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SETTINGS, **change)


def test_a_loss_that_explodes_stops(world):
    settings = dataclasses.replace(SETTINGS, lr=1e30, max_epochs=2)
    with pytest.raises(ValueError, match=r"finite loss.*lower lr"):
        fit_vice(world[1], None, objects=24, settings=settings)


def test_bad_triplets_and_checkpoints(world, tmp_path):
    with pytest.raises(ValueError, match=r"0\.\.22"):
        fit_vice(world[1], None, objects=23, settings=SETTINGS)
    Checkpoints(tmp_path).save(1, {"loc": torch.zeros(2, 2)}, {})
    with pytest.raises(ValueError, match=r"expected loc of shape \(24, 10\), found \(2, 2\)"):
        fit_vice(world[1], None, objects=24, settings=SETTINGS, checkpoints=Checkpoints(tmp_path))


def test_the_benchmark_fits_with_the_settings_of_the_experiments():
    """benchmarks.vice states them as constants; a change of either experiment's must reach it."""
    from alignet.pipeline.cli import compose
    from benchmarks.vice import OURS, PUBLISHED

    for settings, experiment in ((PUBLISHED, "paper"), (OURS, "photos")):
        composed = compose([f"experiment={experiment}"])["vice"]["settings"]
        assert composed | {"seed": 0} == dataclasses.asdict(settings) | {"seed": 0}
