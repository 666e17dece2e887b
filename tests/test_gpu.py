"""What a GPU computes is what a CPU computes: VICE, triplet losses, features, fine-tuning, and the whole chain.

    python -m pytest -n 0 tests/test_gpu.py

Without a GPU every test here is skipped.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import alignet
from alignet.attacks.attack import attack, verified
from alignet.attacks.train import adversarial_training
from alignet.backbones import Backbone, Encoder, embed_images, load_encoder
from alignet.backbones.gradients import Classifier
from alignet.config import RobustRole
from alignet.invariances.invert import invert, noise
from alignet.invariances.invert import verified as verified_match
from alignet.invariances.layers import EncoderLayers
from alignet.invariances.perceptual import LayerDistance, Pixels
from alignet.invariances.representation import Representation
from alignet.invariances.trunks import stlpips_distance
from alignet.pipeline.cli import load
from alignet.pipeline.commands import print_status, run_pipeline
from alignet.pipeline.torch_setup import set_up
from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.interrupt import Stopped
from alignet.student.batches import PoolTeacher
from alignet.student.finetune import finetune
from alignet.student.in_batch_loss import Comparison, in_batch_loss
from alignet.triplets import accuracy, all_triplets, odd_one_last, probabilities, similarities
from alignet.vice.engine import Engine, evaluate
from alignet.vice.fit import fit_vice
from alignet.vice.graphed import GraphedEngine
from alignet.vice.prior import SpikeSlab
from alignet.vice.soft_labels import mean_probabilities
from tests.attacks.test_ingredients import ROLES as INGREDIENTS
from tests.attacks.test_train import SETTINGS as ROBUST
from tests.attacks.test_train import labelled
from tests.makers.toys import TOYS, pictures
from tests.makers.worlds import overrides
from tests.student.test_finetune import TOY, changed, images, planted, pool_teacher, triplet_teacher
from tests.student.test_in_batch_loss import KINDS, by_list, features
from tests.vice.test_vice import SETTINGS, draw_triplets, planted_choices, planted_embedding

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@pytest.fixture(scope="module", autouse=True)
def _as_stages_do() -> None:
    """No reduced float32 products, deterministic algorithms."""
    set_up(dataclasses.replace(load([]).runtime, device="cuda", threads=4))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    found, expected = found.cpu().double(), expected.cpu().double()
    return ((found - expected).norm() / expected.norm()).item()


# ---- VICE


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize(("m", "b"), [(20, 400), (1854, 128), (1854, 8192)])
def test_a_step_of_vice_is_that_in_float64(kind: str, m: int, b: int) -> None:
    generator = torch.Generator().manual_seed(0)
    loc, log_scale, noise = (torch.randn((m, 30), generator=generator) for _ in range(3))
    batch = torch.randint(0, m // 3, (b, 3), generator=generator) * 3 + torch.arange(3)
    prior = SpikeSlab(kind, 0.25, 1.0, 0.6)
    exact = evaluate(loc.double(), log_scale.double() - 2, noise.double(), batch, n=5000, prior=prior)
    found = evaluate(loc.cuda(), log_scale.cuda() - 2, noise.cuda(), batch.cuda(), n=5000, prior=prior)
    for own, other in zip(found, exact):
        assert relative(own, other) < 1e-5


def test_steps_of_vice_are_those_of_a_cpu() -> None:
    prior = SpikeSlab("gaussian", 0.25, 1.0, 0.6)
    start = torch.randn((60, 8), generator=torch.Generator().manual_seed(1))
    ended = []
    for device, make in (("cpu", Engine), ("cuda", Engine), ("cuda", GraphedEngine)):
        loc, log_scale = start.to(device, copy=True), torch.full((60, 8), -2.0, device=device)
        engine = make(loc, log_scale, n=3000, prior=prior, lr=0.01, seed=0)
        for index in range(20):
            noise = torch.randn((60, 8), generator=torch.Generator().manual_seed(index)).to(device)
            size = 128 if index % 3 else 50  # as at the end of an epoch: a graph of its own
            engine.step_with_noise(draw_triplets(60, size, index).to(device), noise, index)
        ended.append((loc, log_scale, torch.tensor(engine.sums())))
    for others in ended[1:]:
        for own, other in zip(ended[0], others):
            assert relative(other, own) < 1e-4


def test_vice_recovers_a_planted_embedding_and_resumes(tmp_path: Path, monkeypatch) -> None:
    embedding = planted_embedding()
    train, val = planted_choices(embedding, 20000, 7), planted_choices(embedding, 4000, 70)
    fit = fit_vice(train, val, objects=24, settings=SETTINGS, device="cuda")
    assert fit.converged
    assert 4 <= len(fit.kept) <= 8  # of ten; 4 to 7 with other seeds
    found, upper = fit.pruned_loc.relu(), np.triu_indices(24, 1)
    r = np.corrcoef((found @ found.T)[upper], (embedding @ embedding.T)[upper])[0, 1]
    best = -probabilities(similarities(embedding, val))[:, 0].log().mean().item()
    assert r > 0.95
    assert fit.validation["cross_entropy"] < best + 0.02

    few, save = dataclasses.replace(SETTINGS, max_epochs=3), Checkpoints.save
    whole = fit_vice(train, val, objects=24, settings=few, device="cuda")

    def die(self: Checkpoints, step: int, *arguments: object) -> None:
        save(self, step, *arguments)  # type: ignore[arg-type]
        if step == 13:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", die)
    with pytest.raises(KeyboardInterrupt):
        fit_vice(
            train, val, objects=24, settings=few, device="cuda", checkpoints=Checkpoints(tmp_path, seconds=0)
        )
    monkeypatch.setattr(Checkpoints, "save", save)
    resumed = fit_vice(train, val, objects=24, settings=few, device="cuda", checkpoints=Checkpoints(tmp_path))
    assert resumed.loc.numpy().tobytes() == whole.loc.numpy().tobytes()


def test_soft_labels_of_a_posterior_without_spread() -> None:
    loc, triplets = torch.rand((50, 9)), draw_triplets(50, 5000, 3)
    own, other = (
        mean_probabilities(
            loc.to(device), torch.zeros_like(loc, device=device), triplets.to(device), samples=3, seed=0
        )
        for device in ("cuda", "cpu")
    )
    torch.testing.assert_close(own.cpu(), other, rtol=1e-5, atol=1e-6)


# ---- losses and features


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "scale"), [(5, 1.0), (67, 1.0), (67, 20.0)])
def test_all_triplets_of_a_batch(kind: str, size: int, scale: float) -> None:
    student, teacher = features(size, 0, scale), features(size, 1)
    gram, answers, compare = student @ student.T, teacher @ teacher.T, Comparison(kind, 0.7, 2.0)
    expected, slope = by_list(gram, answers, compare)
    found, gradient = in_batch_loss(gram.cuda().float(), answers.cuda().float(), compare)
    assert relative(found, expected) < 1e-5 * scale
    assert relative(gradient, slope) < 1e-4 * scale


@pytest.mark.parametrize("name", list(TOYS))
def test_features_of_every_library(name: str) -> None:
    encoders = {device: load_encoder(TOYS[name], device=device, seed=0) for device in ("cpu", "cuda")}
    pixels = torch.stack([encoders["cpu"].transform(image) for image in pictures(0)])
    own, other = (torch.from_numpy(embed_images(encoders[device], pixels, 2)) for device in ("cuda", "cpu"))
    assert relative(own, other) < 1e-4


def test_embedding_in_bfloat16_through_threads() -> None:
    drawn = [np.asarray(image.resize((64, 64))) for image in pictures(0)] * 30
    on = {
        device: alignet.load("timm:test_vit", weights="random", seed=0, device=device)
        for device in ("cpu", "cuda")
    }
    expected = alignet.embed(on["cpu"], drawn).features
    exact = alignet.embed(on["cuda"], drawn, batch=7, threads=3).features
    np.testing.assert_allclose(exact, expected, rtol=1e-3, atol=1e-4)
    reduced = alignet.embed(on["cuda"], drawn, batch=7, threads=3, compute="bf16").features
    cosines = (reduced * expected).sum(1) / np.linalg.norm(reduced, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.99
    assert not np.array_equal(reduced, exact)


# ---- fine-tuning


@pytest.mark.parametrize(
    ("sampling", "option"),
    [("in_batch", ""), ("triplets", ""), ("in_batch", "recompute"), ("in_batch", "compiled")],
)
def test_fine_tuning_takes_the_steps_of_a_cpu(sampling: str, option: str) -> None:
    settings = changed(
        sampling=sampling, accumulate=2, flip=0.5, crop=0.5, colour=0.3, grey=0.3, tau_student=5.0, steps=4
    )
    teacher = pool_teacher() if sampling == "in_batch" else triplet_teacher()
    ended = {
        device: finetune(
            load_encoder(TOY, device=device, seed=0), images(), teacher, settings,
            **({option: True} if option and device == "cuda" else {}),
        )
        for device in ("cpu", "cuda")
    }  # fmt: skip
    np.testing.assert_allclose(ended["cuda"].curves["loss"], ended["cpu"].curves["loss"], rtol=1e-3)
    np.testing.assert_allclose(ended["cuda"].curves["distance"], ended["cpu"].curves["distance"], rtol=2e-2)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_planted_structure_is_learned_and_a_shuffled_one_is_not(precision: str) -> None:
    scores = {}
    for shuffle in (False, True):
        cpu, colours, structure = planted(0)
        encoder = Encoder(
            cpu.backbone, cpu.module.cuda(), cpu.transform, cpu.pixels, {}, cpu.width, torch.device("cuda")
        )
        fresh, _ = odd_one_last(
            all_triplets(100)[::40], similarities(torch.from_numpy(structure[200:]), all_triplets(100)[::40])
        )
        settings = changed(
            steps=150, warmup=5, lr=1e-2, pull=0.0, batch=24, shuffle_teacher=shuffle, precision=precision
        )
        finetune(encoder, colours[:200], PoolTeacher(structure[:200], None), settings)
        held = torch.from_numpy(embed_images(encoder, colours[200:], 50))
        scores[shuffle] = accuracy(similarities(held, fresh))
    assert scores[False] > 0.85
    assert scores[True] < 0.6


def test_interrupted_fine_tuning_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = finetune(load_encoder(TOY, device="cuda", seed=0), images(), pool_teacher(), changed())

    class Ended(Checkpoints):
        def due(self) -> bool:
            return True

        def save(self, step: int, *arguments: object) -> None:
            super().save(step, *arguments)  # type: ignore[arg-type]
            if step == 3:
                raise Stopped

    with pytest.raises(Stopped):
        finetune(
            load_encoder(TOY, device="cuda", seed=0), images(), pool_teacher(), changed(),
            checkpoints=Ended(tmp_path),
        )  # fmt: skip
    resumed = finetune(
        load_encoder(TOY, device="cuda", seed=0), images(), pool_teacher(), changed(),
        checkpoints=Checkpoints(tmp_path),
    )  # fmt: skip
    for name, tensor in whole.state.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(resumed.state[name], tensor, rtol=1e-4, atol=1e-6)


# ---- the whole chain


def test_the_chain_ends_on_a_gpu_and_is_cached_for_a_cpu(tmp_path: Path, capsys) -> None:
    run_pipeline(load(overrides(tmp_path, "runtime.device=cuda", "finetune.settings.precision=bf16")))
    assert "alignet" in capsys.readouterr().out
    print_status(load(overrides(tmp_path, "finetune.settings.precision=bf16")))
    assert "80 cached; in" in capsys.readouterr().out
    assert len(list(tmp_path.glob("report/*/report.html"))) == 1
    assert len(list(tmp_path.glob("export/*/MANIFEST.json"))) > 1


# ---- attacks


def classifying(device: str) -> Classifier:
    """A small network with random weights, the same on every device."""
    backbone = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
    return Classifier(load_encoder(backbone, device, seed=0))


@pytest.mark.parametrize("method", ["fast", "linf", "algorithm1", "pgd_linf"])
def test_attacks_find_what_they_find_on_a_cpu(method: str) -> None:
    settings = load([]).attack.methods[method]
    images = torch.randint(
        0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    found = {}
    for device in ("cpu", "cuda"):
        classify = classifying(device)
        arrays = attack(classify, images, torch.full((8,), -1), settings, any_answer=True)
        found[device] = arrays | verified(classify, arrays, settings, 3)
    for name in ("tried", "broken", "broken8", "no_gradient"):
        np.testing.assert_array_equal(found["cpu"][name], found["cuda"][name], err_msg=name)
    np.testing.assert_allclose(found["cpu"]["length"], found["cuda"]["length"], rtol=0.03)


@pytest.mark.parametrize("replays", [0, 2])
def test_adversarial_training_takes_the_steps_of_a_cpu(replays: int) -> None:
    """Losses of a GPU are those of a CPU, as far as random starts let them, which each device draws by itself."""
    role = RobustRole("l2", eps=0.2, steps=1 if replays else 2, step=0.75, replays=replays)
    backbone = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
    losses = {
        device: adversarial_training(load_encoder(backbone, device, seed=0), labelled(), ROBUST, role).curves
        for device in ("cpu", "cuda")
    }
    np.testing.assert_allclose(losses["cpu"]["cross_entropy"], losses["cuda"]["cross_entropy"], rtol=0.05)


@pytest.mark.parametrize("name", ["standard", "trades", "mart", "simclr", "simclr-adversarial"])
def test_every_loss_takes_the_steps_of_a_cpu(name: str) -> None:
    """As far as random starts, which each device draws by itself, and float32 let them."""
    backbone = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
    role, settings = INGREDIENTS[name], dataclasses.replace(ROBUST, mixup=0.0, smoothing=0.0)
    losses = {
        device: adversarial_training(
            load_encoder(backbone, device, seed=0), labelled(), settings, role
        ).curves
        for device in ("cpu", "cuda")
    }
    for curve in set(losses["cpu"]) - {"right", "lr"}:
        np.testing.assert_allclose(losses["cpu"][curve], losses["cuda"][curve], rtol=0.05, atol=1e-3)


# ---- inputs that a network takes for the same


@pytest.mark.parametrize("method", ["free", "human", "adversarial"])
def test_what_is_found_on_a_gpu_matches_there_and_on_a_cpu(method: str) -> None:
    """Searches go different ways, and end in a match by the same check."""
    settings, side = load([]).invert.methods[method], (3, 32, 32)
    images = np.random.default_rng(0).integers(0, 256, (4, *side)).astype(np.uint8)
    starts = np.stack([[noise(settings.start, side, row)] for row in range(4)])
    backbone = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
    represent = {device: Representation(load_encoder(backbone, device, seed=0)) for device in ("cpu", "cuda")}
    for device, one in represent.items():
        pixels, begin = (torch.from_numpy(part).to(device, torch.float32) / 255 for part in (images, starts))
        found = invert(
            one.searching(), pixels, begin[:, 0], settings, keys=[(row,) for row in range(4)],
            distance=Pixels() if settings.distance else None,
        )  # fmt: skip
        inverted = found.images.contiguous().cpu().numpy()[:, None]
        arrays = {
            "image": images,
            "seed": starts,
            "inverted": inverted,
            "inverted8": np.round(inverted * 255),
        }
        arrays["inverted8"] = arrays["inverted8"].astype(np.uint8)
        errors = {other: verified_match(one, arrays, 3) for other, one in represent.items()}
        assert (errors[device]["error"] <= settings.stop).all(), (device, errors)
        for name in ("error", "error8", "begin"):
            np.testing.assert_allclose(errors["cpu"][name], errors["cuda"][name], rtol=1e-2)


def test_distances_are_those_of_a_cpu() -> None:
    backbone = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")
    first, second = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for make in (
        lambda device: LayerDistance("layers", EncoderLayers(load_encoder(backbone, device, seed=0))),
        lambda device: stlpips_distance("alex", "alex", device),
        lambda device: Pixels(),
    ):
        found = {}
        for device in ("cpu", "cuda"):
            distance, a, b = make(device), first.to(device).requires_grad_(), second.to(device)
            with torch.no_grad():
                pairs = distance.between(distance.embed(a), distance.embed(b))
            (gradient,) = torch.autograd.grad(distance(a, b).sum(), a)
            found[device] = pairs, gradient
        for own, other in zip(found["cuda"], found["cpu"]):
            assert relative(own, other) < 1e-3
