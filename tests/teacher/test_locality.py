"""The hard loss and gLocal's local term: closed forms, scipy, planted neighbourhoods, and what depends on what."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from alignet.config import DistillSettings
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph, upstream
from alignet.runtime.checkpoints import Checkpoints
from alignet.teacher.cross_validation import cross_validate
from alignet.teacher.fit_affine_map import choices, fit_map, objective
from alignet.teacher.locality import Locality, local_loss, local_objective
from alignet.triplets import odd_one_last, similarities
from tests.makers.worlds import overrides

SETTINGS = DistillSettings("scalar", "adam", 60, 4096, (0.01,), (0.01,), 3, 0)


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def brute_local(before, after, temperature):
    """Row by row, self left out, by scipy."""
    p, q = cosines(before) / temperature, cosines(after) / temperature
    total = 0.0
    for i in range(len(before)):
        others = np.arange(len(before)) != i
        total -= (softmax(p[i, others]) * log_softmax(q[i, others])).sum()
    return total / len(before)


def planted(m=60, p=8, n=6000, seed=0):
    """Features of which people's choices know three dimensions."""
    generator = torch.Generator().manual_seed(seed)
    latent = torch.randn(m, p, generator=generator)
    triplets = torch.rand(n, m, generator=generator).argsort(1)[:, :3]
    seen = latent * torch.tensor([1.5] * 3 + [0.0] * (p - 3))
    triplets, _ = odd_one_last(triplets, similarities(seen, triplets))
    return latent, triplets


def test_hard_loss_is_the_cross_entropy_of_the_choices():
    features, triplets = planted(n=200)
    weights, bias = torch.randn(8, 8) * 0.3, torch.randn(8) * 0.1
    found = objective(weights, bias, features, triplets, choices(200), penalty=0.0)
    sims = similarities(features @ weights + bias, triplets).double().numpy()
    assert found.kl.item() == pytest.approx(-log_softmax(sims, 1)[:, 0].mean(), rel=1e-5)


def test_local_loss_against_scipy():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(7, 4)), rng.normal(size=(7, 5))
    found = local_loss(torch.from_numpy(before), torch.from_numpy(after), 0.3)
    assert found.item() == pytest.approx(brute_local(before, after, 0.3), rel=1e-6)


def test_local_loss_is_least_and_flat_for_multiples_of_the_identity():
    rows = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    p = cosines(rows.numpy()) / 0.2
    entropy = np.mean(
        [-(softmax(row) * log_softmax(row)).sum() for row in p[~np.eye(12, dtype=bool)].reshape(12, 11)]
    )
    for scale in (0.3, 2.5):
        value, by_weights, by_bias = local_objective(
            scale * torch.eye(5).double(), torch.zeros(5).double(), rows, 0.2
        )
        assert value.item() == pytest.approx(entropy, rel=1e-6)
        assert max(by_weights.abs().max(), by_bias.abs().max()) < 1e-9
    bent, *_ = local_objective(
        torch.diag(torch.tensor([3.0, 1, 1, 1, 0.1]).double()), torch.zeros(5), rows, 0.2
    )
    assert bent > entropy + 1e-3


def test_gradients_of_the_local_term_against_differences():
    generator = torch.Generator().manual_seed(2)
    rows, weights, bias = (
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((6, 3), (3, 3), 3)
    )
    _, by_weights, by_bias = local_objective(weights, bias, rows, 0.5)
    step = torch.zeros(3, 3, dtype=torch.float64)
    step[0, 2] = 1e-6
    up, down = (local_objective(weights + sign * step, bias, rows, 0.5)[0] for sign in (1, -1))
    assert by_weights[0, 2].item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-4)
    up, down = (local_objective(weights, bias + sign * step[0], rows, 0.5)[0] for sign in (1, -1))
    assert by_bias[2].item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-4)


def test_a_local_term_keeps_neighbourhoods_that_the_choices_alone_would_give_up():
    features, triplets = planted()
    images = torch.randn(200, 8, generator=torch.Generator().manual_seed(3))
    shared = {"penalty": 0.0, "lr": 0.02, "settings": SETTINGS}
    held = {}
    for weight in (None, 0.9):
        local = None if weight is None else Locality(images, weight, 0.1, 64)
        fit = fit_map(features, triplets, choices(len(triplets)), locality=local, **shared)
        mapped = fit.map.apply(images)
        standard = (images - fit.map.mean) / fit.map.std
        held[weight] = local_loss(standard, mapped, 0.1).item(), fit.after["kl"], fit.after["accuracy"]
    assert held[0.9][0] < held[None][0] - 0.05
    assert held[0.9][1] > held[None][1]  # and pays for it with people's choices
    assert held[0.9][2] > 0.45  # which it has not forgotten


def test_the_fit_is_the_same_again_and_after_an_interruption(tmp_path):
    features, triplets = planted(n=5000)
    local = Locality(features, 0.5, 0.1, 16)
    settings = dataclasses.replace(SETTINGS, steps=12, batch=100)
    given = (features, triplets, choices(5000))
    whole = fit_map(*given, penalty=0.1, lr=0.01, settings=settings, locality=local)
    again = fit_map(*given, penalty=0.1, lr=0.01, settings=settings, locality=local)
    assert torch.equal(whole.map.weights, again.map.weights)

    class Enough(Exception):
        pass

    class Stops(Checkpoints):
        def save(self, step, tensors, state):
            super().save(step, tensors, state)
            if step == 5:
                raise Enough

    with pytest.raises(Enough):
        fit_map(
            *given, penalty=0.1, lr=0.01, settings=settings, locality=local, checkpoints=Stops(tmp_path, 0)
        )
    resumed = fit_map(
        *given, penalty=0.1, lr=0.01, settings=settings, locality=local, checkpoints=Checkpoints(tmp_path, 60)
    )
    assert torch.equal(whole.map.weights, resumed.map.weights)
    assert whole.curve == resumed.curve


def test_cross_validation_chooses_by_people_s_answers():
    features, triplets = planted()
    settings = dataclasses.replace(SETTINGS, penalties=(0.01, 100.0), steps=40)
    found = cross_validate(
        features,
        triplets,
        choices(len(triplets)),
        settings=settings,
        locality=Locality(features, 0.2, 0.1, 32),
    )
    assert found.penalty == min(found.grid, key=lambda row: row["kl"])["penalty"] == 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 1.0}, "weight inside"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"batch": 2}, "batch of 3"),
        ({"features": torch.zeros(2, 4)}, "3 or more images"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    given = {"features": torch.zeros(5, 4), "weight": 0.5, "temperature": 0.1, "batch": 4} | change
    with pytest.raises(ValueError, match=message):
        Locality(**given)


def test_features_that_are_damaged_or_of_another_model_are_refused():
    features, triplets = planted(n=100)
    rows = torch.ones(5, 8)
    rows[2, 3] = np.nan
    for images, message in ((rows, "finite"), (torch.ones(5, 7), "8 of each image, found 7")):
        with pytest.raises(ValueError, match=message):
            fit_map(
                features, triplets, choices(100), penalty=0, lr=0.1, settings=SETTINGS,
                locality=Locality(images, 0.5, 0.1, 5),
            )  # fmt: skip


def graph_with(*settings):
    names = ",".join(settings)
    return build_graph(load([f"evaluate.datasets.all.settings=[original,{names}]"]))


def test_transforms_of_the_choices_depend_on_no_embedding_of_people():
    graph = graph_with("ud", "global", "glocal")
    for role in ("global", "glocal"):
        above = {graph[key].stage for key in upstream(graph, f"distill[{role}]")}
        assert not above & {"vice", "soft_labels", "distill"}
    assert "soft_labels[human_train]" in graph["distill[student]"].inputs.values()
    assert graph["distill[global]"].section == graph["distill[student]"].section
    assert graph["distill[glocal]"].inputs["local"] == "embed[student.pool]"
    assert graph["evaluate[glocal.all]"].inputs["map"] == "distill[glocal]"
    assert "distill[global]" not in graph_with("ud")


def test_direct_fine_tuning_has_no_teacher():
    graph = graph_with("direct")
    above = upstream(graph, "finetune[direct]")
    stages = {graph[key].stage for key in above}
    assert stages == {"world", "index", "pretrain"}
    assert "pretrain[teacher]" not in above
    assert graph["embed[direct.fresh]"].inputs["weights"] == "finetune[direct]"
    with pytest.raises(ValueError, match=r"finetune\.direct: expected"):
        build_graph(load(["evaluate.datasets.all.settings=[direct]", "finetune.direct=null"]))


def test_the_rows_are_made_on_the_tiny_world(tiny, tmp_path):
    from alignet.pipeline.runner import Pipeline

    shutil.copytree(tiny, tmp_path / "store")  # others count on what the shared one holds
    rows = "evaluate.datasets.all.settings=[original,global,glocal,direct]"
    chain = Pipeline(load(overrides(tmp_path / "store", rows, "finetune.direct.batch=32")))
    targets = [f"evaluate[{name}.all]" for name in ("global", "glocal", "direct")]
    ran = chain.make_all(targets)
    assert {"distill[global]", "distill[glocal]", "finetune[direct]", *targets} <= set(ran)
    assert not {"vice", "embed[teacher.pool]", "embed[student.things]"} & set(
        ran
    )  # shared with the other rows
    metrics = chain.state("finetune[direct]").artifact.metrics
    assert metrics["label_entropy_nats"] == 0
    assert chain.make_all(targets) == []


def test_an_image_is_no_neighbour_of_itself_at_any_temperature():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [-1.0, -0.2]], dtype=torch.float64)
    for temperature in (1e-2, 1e-5):
        expected = brute_local(rows.numpy(), rows.numpy() + 0.3, temperature)
        assert local_loss(rows, rows + 0.3, temperature).item() == pytest.approx(expected, rel=1e-9)
        assert all(
            one.isfinite().all()
            for one in local_objective(torch.eye(2).double(), torch.zeros(2), rows, temperature)
        )
