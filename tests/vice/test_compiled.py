"""The compiled loops of VICE: their scalar functions, noise and steps, and what happens when a fit diverges."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numba import njit
from safetensors.torch import load_file
from scipy.stats import kstest

from alignet.runtime.checkpoints import Checkpoints
from alignet.vice import arithmetic
from alignet.vice.compiled import CompiledEngine, fill_normal
from alignet.vice.engine import Engine, evaluate
from alignet.vice.fit import fit_vice
from alignet.vice.noise import normal
from alignet.vice.prior import SpikeSlab
from tests.vice.test_vice import SETTINGS, draw_triplets, planted_choices, planted_embedding


def filled(n, k0=1, k1=2, c2=3, c3=4):
    out = np.empty(n, np.float32)
    fill_normal(out, k0, k1, c2, c3)
    return out


def test_exp_and_log_against_float64():
    @njit
    def both(x, y, to_exp, to_log):
        for i in range(len(x)):
            to_exp[i], to_log[i] = arithmetic.exp(x[i]), arithmetic.log(y[i])

    x = np.linspace(-86.9, 86.9, 200_001, dtype=np.float32)
    y = np.concatenate([np.geomspace(1.2e-38, 3e38, 100_000), np.linspace(0.4, 2.5, 100_001)]).astype(
        np.float32
    )
    e, ln = np.empty_like(x), np.empty_like(y)
    both(x, y, e, ln)
    np.testing.assert_allclose(e, np.exp(x.astype(float)), rtol=2e-7)
    np.testing.assert_allclose(ln, np.log(y.astype(float)), rtol=2e-7, atol=1e-7)


def test_random_bits_are_philoxs():
    """The published test vectors of Philox4x32-10 (Salmon et al., Random123)."""

    @njit
    def bits(c, k):
        u = np.uint32
        return arithmetic.random_bits(u(c[0]), u(c[1]), u(c[2]), u(c[3]), u(k[0]), u(k[1]))

    def words(text):
        return np.array([int(word, 16) for word in text.split()], np.uint32)

    for counter, key, expected in (
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):
        assert list(bits(words(counter), words(key))) == list(words(expected))


def test_noise_is_standard_normal_and_known_by_its_numbers():
    x = filled(400_000)
    assert kstest(x, "norm").pvalue > 0.01
    quarters = np.corrcoef(x.reshape(4, -1))  # two of them are sine and cosine of one angle
    assert np.abs(quarters - np.eye(4)).max() < 5 / math.sqrt(100_000)
    assert np.abs(np.corrcoef(x.reshape(4, -1) ** 2) - np.eye(4)).max() < 5 / math.sqrt(100_000)
    assert kstest(filled(400_000, c2=4), "norm").pvalue > 0.01
    np.testing.assert_array_equal(x, filled(400_000))
    for other in ({"k0": 2}, {"k1": 3}, {"c2": 4}, {"c3": 5}):
        assert abs(np.corrcoef(x, filled(400_000, **other))[0, 1]) < 5 / math.sqrt(400_000)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize(("m", "d"), [(9, 7), (60, 130)])
def test_ten_steps_are_those_of_torchs_adam(kind, m, d):
    """On the same noise, from closed-form gradients that the tests of the engine hold to Pyro's."""
    prior = SpikeSlab(kind, 0.25, 1.0, 0.6)
    generator = torch.Generator().manual_seed(0)
    loc, log_scale = torch.randn((2, m, d), generator=generator) * 0.3 - torch.tensor([0.0, 1.5]).view(
        2, 1, 1
    )
    own = CompiledEngine(loc.clone(), log_scale.clone(), n=500, prior=prior, lr=0.01, seed=3)
    parameters = [loc.clone().requires_grad_(), log_scale.clone().requires_grad_()]
    adam = torch.optim.Adam(parameters, lr=0.01)
    plain = Engine(loc.clone(), log_scale.clone(), n=500, prior=prior, lr=0.01, seed=3)
    sums = torch.zeros(2)
    for index in range(10):
        noise = torch.randn((m, d), generator=generator)
        batch = draw_triplets(m, 40, index)
        found = evaluate(*(p.detach() for p in parameters), noise, batch, n=500, prior=prior)
        parameters[0].grad, parameters[1].grad = found.grad_loc, found.grad_log_scale
        adam.step()
        sums += torch.stack([found.nll, found.complexity])
        own.step_with_noise(batch, noise, index)
        plain.step_with_noise(batch, noise, index)
        torch.testing.assert_close(torch.from_numpy(own.slope), found.grad_loc, rtol=1e-4, atol=1e-6)
    for engine in (own, plain):
        torch.testing.assert_close(engine.loc, parameters[0].detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(engine.log_scale, parameters[1].detach(), rtol=1e-4, atol=1e-5)
        assert engine.sums() == pytest.approx(sums.tolist(), rel=1e-5)


def test_both_engines_fit_the_same_people(monkeypatch):
    """The engine for other devices, on the CPU: the same on its own noise but for rounding, close on other noise."""
    train, val = (planted_choices(planted_embedding(), n, seed) for n, seed in ((20000, 7), (4000, 70)))
    settings = dataclasses.replace(SETTINGS, max_epochs=60)
    fast = fit_vice(train, val, objects=24, settings=settings)
    monkeypatch.setattr("alignet.vice.compiled.CompiledEngine", Engine)
    slow = fit_vice(train, val, objects=24, settings=settings)
    assert not torch.equal(fast.loc, slow.loc)
    assert fast.validation["cross_entropy"] == pytest.approx(slow.validation["cross_entropy"], abs=0.003)
    upper = np.triu_indices(24, 1)
    first, second = ((fit.pruned_loc.relu() @ fit.pruned_loc.relu().T).numpy()[upper] for fit in (fast, slow))
    assert np.corrcoef(first, second)[0, 1] > 0.98

    def on_its_noise(self, batch, index):
        self.step_with_noise(batch, normal(tuple(self.loc.shape), self.seed, "noise", index), index)

    monkeypatch.setattr("alignet.vice.compiled.CompiledEngine", CompiledEngine)
    monkeypatch.setattr(CompiledEngine, "step", on_its_noise)
    same = fit_vice(train, val, objects=24, settings=settings)
    assert same.curves["kept"] == slow.curves["kept"]
    assert same.curves["val_nll"] == pytest.approx(slow.curves["val_nll"], abs=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_fit_that_diverges_keeps_its_last_finite_checkpoint(tmp_path, monkeypatch, compiled):
    """Adam's moments of 25 steps are made to overflow the next one."""
    engine = CompiledEngine if compiled else Engine
    monkeypatch.setattr("alignet.vice.compiled.CompiledEngine", engine)
    monkeypatch.setattr("alignet.vice.fit._EVERY", 7)
    step = engine.step

    def spoiled(self, batch, index):
        if index == 25:
            self.state["adam.loc.exp_avg"].fill_(torch.inf)
        step(self, batch, index)

    monkeypatch.setattr(engine, "step", spoiled)
    train = planted_choices(planted_embedding(), 20000, 7)
    checkpoints = Checkpoints(tmp_path, seconds=0)
    with pytest.raises(
        ValueError, match=r"after step 26; lower lr \(now 0.05\).*step 25 is finite and was kept"
    ):
        fit_vice(train, None, objects=24, settings=SETTINGS, checkpoints=checkpoints)
    assert checkpoints.newest() == 25
    tensors = load_file(tmp_path / "25.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_checkpoint_of_another_shape_or_engine_is_refused(tmp_path):
    Checkpoints(tmp_path).save(1, {"loc": torch.zeros(24, 10)}, {})
    train = planted_choices(planted_embedding(), 100, 7)
    with pytest.raises(ValueError, match=r"expected log_scale of shape \(24, 10\), found none; remove"):
        fit_vice(train, None, objects=24, settings=SETTINGS, checkpoints=Checkpoints(tmp_path))
