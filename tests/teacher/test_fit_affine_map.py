"""Uncertainty distillation: objective, affine map, folds, planted maps and resuming."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from alignet.config import DistillSettings
from alignet.runtime.checkpoints import Checkpoints
from alignet.teacher.affine_map import AffineMap
from alignet.teacher.cross_validation import cross_validate
from alignet.teacher.fit_affine_map import fit_map, map_metrics, objective
from alignet.triplets import odd_one_last, probabilities, similarities

SETTINGS = DistillSettings(
    standardize="scalar",
    optimizer="adam",
    steps=150,
    batch=4096,
    penalties=(0.01,),
    lrs=(0.01,),
    folds=3,
    seed=0,
)


def draw_triplets(m, n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, m, generator=generator).argsort(1)[:, :3]


def planted(m=60, p=12, n=15000, seed=0):
    """Features of which people's similarity knows only three, hidden in a rotation and an offset."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(m, p, generator=generator)
    rotation = torch.linalg.qr(torch.randn(p, p, generator=generator)).Q
    seen = latent * torch.tensor([1.5] * 3 + [0.0] * (p - 3))
    sims = similarities(seen, triplets := draw_triplets(m, n, seed))
    triplets, sims = odd_one_last(triplets, sims)
    return latent @ rotation * 3 + 0.7, triplets, probabilities(sims)


def brute_objective(weights, bias, inputs, triplets, targets, penalty):
    """Eq. 3 as printed (with KL), in autograd, one triplet at a time. W = weights.T."""
    total = 0.0
    for (i, j, k), target in zip(triplets.tolist(), targets):
        x, y, z = (weights.T @ inputs[index] + bias for index in (i, j, k))
        log_q = torch.log_softmax(torch.stack([x @ y, x @ z, y @ z]), 0)
        total = total + (target * (target.log() - log_q)).sum() / len(triplets)
    w = weights.T
    p = len(w)
    mean = sum(w[j, j] for j in range(p)) / p
    return total + penalty * sum((w[a, b] - mean * (a == b)) ** 2 for a in range(p) for b in range(p))


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_objective_against_brute_force(penalty):
    generator = torch.Generator().manual_seed(0)
    double = {"generator": generator, "dtype": torch.float64}
    weights, bias, inputs = torch.randn(4, 4, **double), torch.randn(4, **double), torch.randn(7, 4, **double)
    triplets = draw_triplets(7, 20, 1)
    targets = torch.softmax(torch.randn(20, 3, **double), 1)
    found = objective(weights, bias, inputs, triplets, targets, penalty=penalty)
    weights.requires_grad_()
    bias.requires_grad_()
    expected = brute_objective(weights, bias, inputs, triplets, targets, penalty)
    torch.testing.assert_close(found.kl + penalty * found.penalty, expected.detach())
    slopes = torch.autograd.grad(expected, [weights, bias])
    torch.testing.assert_close(found.grad_weights, slopes[0])
    torch.testing.assert_close(found.grad_bias, slopes[1])


def test_penalty_spares_multiples_of_the_identity():
    inputs, triplets = torch.randn(5, 3), draw_triplets(5, 4, 0)
    targets = torch.full((4, 3), 1 / 3)
    assert objective(-2.5 * torch.eye(3), torch.ones(3), inputs, triplets, targets, penalty=1).penalty == 0
    off = objective(torch.eye(3) + torch.ones(3, 3), torch.ones(3), inputs, triplets, targets, penalty=1)
    assert off.penalty.item() == pytest.approx(6)  # six entries off the diagonal, each 1


def test_objective_is_zero_where_the_map_answers_like_people():
    inputs, triplets = torch.randn(6, 3), draw_triplets(6, 50, 0)
    targets = probabilities(similarities(inputs * 2 + 1, triplets))
    found = objective(2 * torch.eye(3), torch.ones(3), inputs, triplets, targets, penalty=0.1)
    assert found.kl.item() == pytest.approx(0, abs=1e-6)
    assert found.grad_weights.abs().max() < 1e-5


@pytest.mark.parametrize("standardize", ["scalar", "feature", "none"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_recovers_a_planted_map_on_objects_never_trained_on(standardize, optimizer):
    features, triplets, targets = planted()
    lrs = (0.01,) if optimizer == "adam" else (0.1,)
    settings = dataclasses.replace(SETTINGS, standardize=standardize, optimizer=optimizer, lrs=lrs, folds=2)
    if standardize == "none":
        features = features / 3
    found = cross_validate(features, triplets, targets, settings=settings)
    (point,) = found.grid
    assert point["accuracy_before"] < 0.62
    assert point["accuracy"] > 0.85
    assert point["kl"] < 0.5 * point["kl_before"]


def test_learns_nothing_transferable_from_shuffled_soft_labels():
    features, triplets, targets = planted()
    generator = torch.Generator().manual_seed(3)
    turns = torch.rand(len(triplets), 3, generator=generator).argsort(1)
    shuffled = triplets.gather(1, turns)
    (point,) = cross_validate(features, shuffled, targets, settings=SETTINGS).grid
    assert abs(point["accuracy"] - 1 / 3) < 0.03


def test_folds_are_over_objects_and_counted():
    features, triplets, targets = planted(m=31, n=3000)
    features = torch.cat([features, torch.zeros(4, 12)])  # four objects nobody judged
    settings = dataclasses.replace(SETTINGS, steps=2, penalties=(0.1, 1.0), lrs=(0.01, 0.02))
    found = cross_validate(features, triplets, targets, settings=settings)
    assert len(found.rows) == 3 * 4
    assert len(found.grid) == 4
    folds = {row["fold"]: row for row in found.rows}
    assert sorted(row["objects"] for row in folds.values()) == [10, 10, 11]
    # wholly inside a fold: about 3 * (1/3)^3 of all; wholly outside: about (2/3)^3 for each fold
    inside = sum(row["triplets"] for row in folds.values()) / 3000
    assert inside == pytest.approx(3 * 10 * 9 * 8 / (31 * 30 * 29), abs=0.03)
    for row in folds.values():
        outside = math.comb(31 - int(row["objects"]), 3) / math.comb(31, 3)
        assert row["train_triplets"] / 3000 == pytest.approx(outside, abs=0.04)
    best = min(found.grid, key=lambda row: row["kl"])
    assert (found.penalty, found.lr) == (best["penalty"], best["lr"])


def test_pictures_of_one_concept_share_a_fold():
    """Nine pictures of three concepts in three folds: a fold holds out exactly one concept's pictures."""
    features, triplets, targets = planted(m=9, n=3000)
    concepts = torch.tensor([7, 2, 2, 5, 7, 5, 2, 7, 5])
    settings = dataclasses.replace(SETTINGS, steps=2)
    found = cross_validate(features, triplets, targets, settings=settings, groups=concepts)
    named = concepts[triplets]
    for row in found.rows:
        held = [
            concept
            for concept in (2, 5, 7)
            if row["triplets"] == int((named == concept).all(1).sum())
            and row["train_triplets"] == int((named != concept).all(1).sum())
        ]
        assert len(held) == 1
    assert sum(row["triplets"] for row in found.rows) == int((named == named[:, :1]).all(1).sum())
    alone = cross_validate(features, triplets, targets, settings=settings)
    assert [row["triplets"] for row in alone.rows] != [row["triplets"] for row in found.rows]


def test_heldout_objects_do_not_touch_the_fold(monkeypatch):
    """Features of a held-out object may be anything without changing the map of that fold."""
    import alignet.teacher.cross_validation as module

    features, triplets, targets = planted(m=20, n=2000)
    settings = dataclasses.replace(SETTINGS, steps=3)
    seen = []
    fit = module.fit_map

    def spy(features, triplets, targets, **rest):
        result = fit(features, triplets, targets, **rest)
        touched = features.clone()
        unseen = np.setdiff1d(np.arange(20), triplets.unique().numpy())
        touched[unseen] = 1e3
        again = fit(touched, triplets, targets, **rest)
        seen.append((len(unseen), torch.equal(result.map.weights, again.map.weights)))
        return result

    monkeypatch.setattr(module, "fit_map", spy)
    cross_validate(features, triplets, targets, settings=settings)
    assert [same for _, same in seen] == [True] * 3
    assert sum(count for count, _ in seen) == 20


def test_a_divergent_grid_point_is_said_and_not_chosen(capsys):
    features, triplets, targets = planted(m=30, n=2000)
    settings = dataclasses.replace(SETTINGS, optimizer="sgd", steps=40, lrs=(1e6, 0.01))
    found = cross_validate(features, triplets, targets, settings=settings)
    assert found.lr == 0.01
    assert math.isinf(found.grid[0]["kl"])
    assert "lower the learning rate" in capsys.readouterr().err
    with pytest.raises(ValueError, match="every fit diverged"):
        cross_validate(features, triplets, targets, settings=dataclasses.replace(settings, lrs=(1e6,)))
    with pytest.raises(ValueError, match="finite objective"):
        fit_map(features, triplets, targets, penalty=0.1, lr=1e6, settings=settings)


class Killed(Exception):
    pass


def killed_at(monkeypatch, moment):
    save = Checkpoints.save

    def die(self, step, *arguments):
        save(self, step, *arguments)
        if step == moment:
            monkeypatch.setattr(Checkpoints, "save", save)
            raise Killed

    monkeypatch.setattr(Checkpoints, "save", die)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_fit_resumes_to_the_same_bytes(tmp_path, monkeypatch, optimizer):
    features, triplets, targets = planted(n=6000)
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, steps=12, batch=1000)
    arguments = {"penalty": 0.1, "lr": 0.01, "settings": settings}
    whole = fit_map(features, triplets, targets, **arguments)
    killed_at(monkeypatch, 7)
    with pytest.raises(Killed):
        fit_map(features, triplets, targets, **arguments, checkpoints=Checkpoints(tmp_path, seconds=0))
    resumed = fit_map(features, triplets, targets, **arguments, checkpoints=Checkpoints(tmp_path))
    assert resumed.curve == whole.curve
    assert resumed.map.weights.numpy().tobytes() == whole.map.weights.numpy().tobytes()
    assert resumed.map.bias.numpy().tobytes() == whole.map.bias.numpy().tobytes()


def test_cross_validation_resumes_without_repeating(tmp_path, monkeypatch):
    features, triplets, targets = planted(m=30, n=3000)
    settings = dataclasses.replace(SETTINGS, steps=5, penalties=(0.1, 1.0))
    whole = cross_validate(features, triplets, targets, settings=settings)
    killed_at(monkeypatch, 4)
    with pytest.raises(Killed):
        cross_validate(features, triplets, targets, settings=settings, checkpoints=Checkpoints(tmp_path))
    kept = Checkpoints(tmp_path).latest()
    assert kept is not None
    assert len(kept[2]["rows"]) == 4
    resumed = cross_validate(
        features, triplets, targets, settings=settings, checkpoints=Checkpoints(tmp_path)
    )
    assert resumed == whole


def test_seed_decides():
    features, triplets, targets = planted(n=3000)
    settings = dataclasses.replace(SETTINGS, steps=5, batch=100)
    one, same, other = (
        fit_map(
            features,
            triplets,
            targets,
            penalty=0.1,
            lr=0.01,
            settings=dataclasses.replace(settings, seed=seed),
        ).map.weights
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("standardize", ["scalar", "feature", "none"])
def test_npz_round_trip_with_a_constant_feature(tmp_path, standardize):
    features, triplets, targets = planted(n=3000)
    features[:, 4] = 0.125
    features[:, 5] *= 50
    settings = dataclasses.replace(SETTINGS, standardize=standardize, steps=5)
    if standardize == "none":
        features = features / 30
    fit = fit_map(features, triplets, targets, penalty=0.1, lr=0.001, settings=settings)
    assert fit.map.weights.isfinite().all()
    path = tmp_path / "map.npz"
    fit.map.save_npz(path)
    assert [file.name for file in tmp_path.iterdir()] == ["map.npz"]
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    assert {name: array.shape for name, array in found.items()} == {
        "weights": (12, 12),
        "bias": (12,),
        "mean": (),
        "std": (),
    }
    x = features.double().numpy()
    by_hand = (x - found["mean"]) / found["std"] @ found["weights"] + found["bias"]
    mapped = fit.map.apply(features)
    np.testing.assert_allclose(mapped.numpy(), by_hand, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(AffineMap.load_npz(path).apply(features), mapped, rtol=1e-4, atol=1e-4)


def test_standardised_by_the_training_objects():
    features, triplets, targets = planted(m=20, n=2000)
    padded = torch.cat([features, torch.full((5, 12), 1e4)])
    for how, axis in (("scalar", None), ("feature", 0)):
        settings = dataclasses.replace(SETTINGS, standardize=how, steps=1)
        found = fit_map(padded, triplets, targets, penalty=0.1, lr=0.01, settings=settings).map
        np.testing.assert_allclose(found.mean.numpy(), features.numpy().mean(axis), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.std.numpy(), features.numpy().std(axis), rtol=1e-5)


def test_foreign_npz(tmp_path):
    """No bias, float64, scalars of shape (1,): as the public files may be."""
    path = tmp_path / "glocal.npz"
    for shape in ((), (1,)):
        np.savez(path, weights=np.eye(3), mean=np.full(shape, 0.5), std=np.full(shape, 2.0))
        found = AffineMap.load_npz(path)
        torch.testing.assert_close(found.apply(torch.full((1, 3), 4.5)), torch.full((1, 3), 2.0))
    np.savez_compressed(path, weights=2 * np.eye(3, dtype=np.float16), bias=np.ones(3))
    found = AffineMap.load_npz(path)
    torch.testing.assert_close(found.apply(torch.full((1, 3), 4.5)), torch.full((1, 3), 10.0))


EYE = np.eye(3)
UNFIT = {
    "no mean": ({"weights": EYE, "std": 2.0}, r"mean and std \(both or neither\), found std, weights"),
    "no weights": ({"w": EYE}, "expected arrays weights.*found w;"),
    "another array": ({"weights": EYE, "biases": np.ones(3)}, "found biases, weights"),
    "not square": ({"weights": np.ones((3, 2))}, r"expected weights \(p, p\).*found weights \(3, 2\)"),
    "a short bias": ({"weights": EYE, "bias": np.ones(2)}, r"bias \(2,\)"),
    "a mean for each feature": ({"weights": EYE, "mean": np.ones(3), "std": 1.0}, r"mean \(3,\)"),
    "scalar weights": ({"weights": 1.0}, r"weights \(\)"),
    "std 0": ({"weights": EYE, "mean": 0, "std": 0}, "std above 0, found 0"),
    "a negative std": ({"weights": EYE, "mean": 0, "std": -1.0}, "std above 0, found -1"),
    "NaN": ({"weights": EYE * np.nan}, "finite weights"),
    "beyond float32": ({"weights": EYE, "bias": np.full(3, 1e300)}, "finite bias"),
    "text": ({"weights": EYE, "bias": np.array(["a", "b", "c"])}, "dtype <U1"),
    "a pickle": ({"weights": np.array([{}], dtype=object)}, "Python objects"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_npz_that_is_no_map(tmp_path, case):
    arrays, message = UNFIT[case]
    path = tmp_path / "map.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        AffineMap.load_npz(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_npz(tmp_path):
    path = tmp_path / "map.npz"
    AffineMap.identity(5).save_npz(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected"):
            AffineMap.load_npz(path)
    path.write_bytes(whole.replace(b"\x80\x3f", b"\x00\x40"))  # every 1 becomes a 2: the checksum finds it
    with pytest.raises(ValueError, match="damaged"):
        AffineMap.load_npz(path)


def test_fewer_objects_than_features():
    """The student's own map: the penalty leaves directions that no object shows as they were."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(15, 90, generator=generator)
    triplets = draw_triplets(15, 2000, 1)
    targets = torch.softmax(torch.randn(2000, 3, generator=generator), 1)
    fit = fit_map(features, triplets, targets, penalty=0.1, lr=0.003, settings=SETTINGS)
    assert fit.map.weights.isfinite().all()
    assert fit.after["kl"] < fit.before["kl"]


def test_metrics_by_hand():
    features = torch.tensor([[1.0, 0], [1.0, 0], [0, 1.0]])
    triplets, targets = (
        torch.tensor([[0, 1, 2], [0, 2, 1]]),
        torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.6, 0.2]]),
    )
    found = map_metrics(AffineMap.identity(2), features, triplets, targets)
    q = np.exp([1.0, 0, 0]) / (math.e + 2)
    first = np.array([0.5, 0.25, 0.25]) @ np.log(np.array([0.5, 0.25, 0.25]) / q)
    second = np.array([0.2, 0.6, 0.2]) @ np.log(np.array([0.2, 0.6, 0.2]) / q[[1, 0, 2]])
    assert found["accuracy"] == 0.5
    assert found["kl"] == pytest.approx((first + second) / 2, rel=1e-5)


def test_bad_input():
    features, triplets, targets = planted(m=20, n=200)
    arguments = {"penalty": 0.1, "lr": 0.01, "settings": SETTINGS}
    with pytest.raises(ValueError, match="one row of soft labels per triplet"):
        fit_map(features, triplets, targets[:-1], **arguments)
    with pytest.raises(ValueError, match="sum to 1"):
        fit_map(features, triplets, targets * 2, **arguments)
    with pytest.raises(ValueError, match=r"0\.\.18"):
        fit_map(features[:-1], triplets, targets, **arguments)
    with pytest.raises(ValueError, match="identical rows"):
        fit_map(torch.ones(20, 4), triplets, targets, **arguments)
    with pytest.raises(ValueError, match="use fewer folds"):
        cross_validate(features, triplets, targets, settings=dataclasses.replace(SETTINGS, folds=10))
    broken = features.clone()
    broken[3, 2] = math.nan
    with pytest.raises(ValueError, match="infinity in 1 rows"):
        fit_map(broken, triplets, targets, **arguments)
    with pytest.raises(ValueError, match="shape"):
        AffineMap.identity(3).apply(torch.ones(2, 4))


@pytest.mark.parametrize(
    "change",
    [{"standardize": "zscore"}, {"optimizer": "lbfgs"}, {"folds": 1}, {"lrs": ()}, {"penalties": (-1.0,)}],
)
def test_settings_that_make_no_sense(change):
    with pytest.raises(ValueError, match="distill"):
        dataclasses.replace(SETTINGS, **change)
