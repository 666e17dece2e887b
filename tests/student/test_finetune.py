"""Fine-tuning: the loop, exact resume, a planted structure, and keeping the classifier's answers."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alignet.backbones import Backbone, Encoder, embed_images, load_encoder
from alignet.runtime.checkpoints import Checkpoints
from alignet.student.batches import AnsweredTriplets, ImageBatches, PoolTeacher, TripletAnswers
from alignet.student.finetune import FinetuneSettings, best_temperature, finetune
from alignet.student.learning_without_forgetting import Retention
from alignet.student.optimizer import Optimizer
from alignet.triplets import accuracy, all_triplets, odd_one_last, similarities

SETTINGS = FinetuneSettings(
    sampling="in_batch", batch=8, accumulate=1, clusters_per_batch=0, loss="kl", tau_teacher=1.0, tau_student="spread",
    steps=6, warmup=2, lr=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, pull=10.0, retain=0.0, head=0,
    flip=0.0, crop=1.0, colour=0.0, grey=0.0,
    precision="float32", seed=0, frozen=(), center_teacher=False, shuffle_teacher=False,
)  # fmt: skip
TOY = Backbone("timm", "test_efficientnet", "random", {"num_classes": 4}, 32, "pooled")


def changed(**values) -> FinetuneSettings:
    return dataclasses.replace(SETTINGS, **values)


def images(count: int = 20, size: int = 32) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def pool_teacher(count: int = 20) -> PoolTeacher:
    features = np.random.default_rng(2).normal(size=(count, 5)).astype(np.float32)
    return PoolTeacher(features, np.arange(count) % 4)


def triplet_teacher(count: int = 20, n: int = 30) -> TripletAnswers:
    generator = np.random.default_rng(3)
    triplets = torch.from_numpy(np.stack([generator.permutation(count)[:3] for _ in range(n)]))
    triplets, sims = odd_one_last(
        triplets, similarities(torch.from_numpy(pool_teacher(count).features), triplets)
    )
    return TripletAnswers(triplets.numpy(), sims.numpy())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# ---- losses ----------------------------------------------------------------------------------------


def test_best_temperature_recovers_the_scale_of_the_student() -> None:
    sims = torch.randn((500, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scale in (0.03, 1.0, 250.0):
        found = best_temperature(scale * sims, sims, changed(tau_teacher=0.5))
        assert found == pytest.approx(0.5 * scale, rel=1e-3)


# ---- the loop --------------------------------------------------------------------------------------


def test_batch_statistics_and_the_classifier_stay_and_affine_parameters_train() -> None:
    encoder = load_encoder(TOY, seed=0)
    start = {name: value.clone() for name, value in encoder.module.state_dict().items()}
    state = finetune(encoder, images(), pool_teacher(), SETTINGS).state
    moved = {name for name in start if not torch.equal(start[name], state[name])}
    fixed = {
        name for name in start if "running" in name or "num_batches" in name or name.startswith("classifier")
    }
    assert fixed
    assert moved == start.keys() - fixed
    assert any("bn1.weight" in name for name in moved)
    assert same(state, {name: value.contiguous() for name, value in encoder.module.state_dict().items()})


def test_frozen_parameters_stay_and_the_rest_trains() -> None:
    frozen = ("conv_stem", "bn1", "blocks.0", "blocks.1")
    encoder = load_encoder(TOY, seed=0)
    start = {name: value.detach().clone() for name, value in encoder.trainable().items()}
    state = finetune(encoder, images(), pool_teacher(), changed(frozen=frozen)).state
    moved = {name for name, value in start.items() if not torch.equal(state[name], value)}
    assert moved == {name for name in start if not name.startswith(frozen)}
    with pytest.raises(
        ValueError, match=r"finetune.frozen: expected the beginning .* found 'stem'; they are conv_stem"
    ):
        finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), changed(frozen=("stem",)))
    with pytest.raises(ValueError, match="found everything frozen"):
        finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), changed(frozen=("",)))


def test_parts_of_a_step_add_up_to_the_whole() -> None:
    results = [
        finetune(
            load_encoder(TOY, seed=0), images(), triplet_teacher(),
            changed(sampling="triplets", batch=9, accumulate=parts, steps=3, tau_student=2.0, epsilon=1e-4),
        )
        for parts in (1, 2, 9)
    ]  # fmt: skip
    for result in results[1:]:
        np.testing.assert_allclose(result.curves["loss"], results[0].curves["loss"], rtol=1e-4)
        for name, value in results[0].state.items():
            torch.testing.assert_close(result.state[name], value, rtol=1e-3, atol=2e-5)


def test_accumulated_batches_are_averaged() -> None:
    one = changed(tau_student=5.0, steps=2, warmup=0, lr=0.0, pull=0.0)
    single = finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), one).curves["loss"]
    double = finetune(
        load_encoder(TOY, seed=0), images(), pool_teacher(), dataclasses.replace(one, steps=1, accumulate=2)
    )
    assert double.curves["loss"][0] == pytest.approx(single.mean(), rel=1e-5)


def test_every_triplet_comes_once_in_an_epoch() -> None:
    teacher = triplet_teacher(n=30)
    batches = AnsweredTriplets(teacher, 20, batch=12, parts=3, seed=5)
    seen = np.concatenate([batches._chosen(step, part) for step in range(5) for part in range(3)])
    assert np.array_equal(np.sort(seen), np.repeat(np.arange(30), 2))
    assert np.array_equal(
        batches._chosen(1, 2), AnsweredTriplets(teacher, 20, batch=12, parts=3, seed=5)._chosen(1, 2)
    )
    other = AnsweredTriplets(teacher, 20, batch=12, parts=3, seed=6)
    assert not np.array_equal(batches._chosen(0, 0), other._chosen(0, 0))


class _Stop(Exception):
    pass


class _Interrupted(Checkpoints):
    """Saves after every `every` steps and stops after `last`."""

    def __init__(self, folder: Path, every: int, last: int):
        super().__init__(folder)
        self.every, self.last, self.steps = every, last, 0

    def due(self) -> bool:
        self.steps += 1
        return self.steps % self.every == 0

    def save(self, step, tensors, state) -> None:
        super().save(step, tensors, state)
        if step >= self.last:
            raise _Stop


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        changed(
            accumulate=2,
            clusters_per_batch=4,
            flip=0.5,
            crop=0.4,
            colour=0.3,
            grey=0.3,
            head=5,
            tau_student="fit",
        ),
        changed(sampling="triplets", batch=7, accumulate=2, loss="jsd"),
        changed(precision="bf16", steps=4),
    ],
    ids=["in_batch", "augmented", "triplets", "bf16"],
)
def test_resumed_work_ends_in_the_same_bytes(settings: FinetuneSettings, tmp_path: Path) -> None:
    teacher = pool_teacher() if settings.sampling == "in_batch" else triplet_teacher()
    whole = finetune(load_encoder(TOY, seed=0), images(), teacher, settings)
    interrupted = _Interrupted(tmp_path, every=1, last=3)
    with pytest.raises(_Stop):
        finetune(load_encoder(TOY, seed=0), images(), teacher, settings, checkpoints=interrupted)
    resumed = finetune(
        load_encoder(TOY, seed=0),
        images(),
        teacher,
        settings,
        checkpoints=_Interrupted(tmp_path, every=99, last=99),
    )
    assert same(whole.state, resumed.state)
    assert same(whole.head, resumed.head)
    assert whole.tau_student == resumed.tau_student
    for name in whole.curves:
        assert np.array_equal(whole.curves[name], resumed.curves[name])
    other = finetune(load_encoder(TOY, seed=0), images(), teacher, dataclasses.replace(settings, seed=1))
    assert not same(whole.state, other.state)


def test_draws_leave_the_global_generator_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), changed(steps=1, warmup=0, flip=0.5))
    assert torch.equal(torch.rand(1), expected)


def test_reading_with_workers_gives_the_same() -> None:
    settings = changed(steps=3)
    alone, helped = (
        finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), settings, workers=workers)
        for workers in (0, 1)
    )
    assert same(alone.state, helped.state)


def test_a_run_that_diverges_stops_before_its_weights_are_saved(tmp_path: Path) -> None:
    settings = changed(steps=50, warmup=0, lr=1e30, pull=0.0, tau_student=1e-6, loss="hard")
    with pytest.raises(
        ValueError, match=r"finite distance from the .*, found inf at step 0 of 50 \(there is no ch"
    ):
        finetune(
            load_encoder(TOY, seed=0), images(), pool_teacher(), settings,
            checkpoints=_Interrupted(tmp_path, every=1, last=99),
        )  # fmt: skip
    assert Checkpoints(tmp_path).latest() is None


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("loss", math.nan),
        ("loss", math.inf),
        ("gradient", math.nan),
        ("gradient", 1e30),
        ("weight", math.nan),
    ],
)
def test_what_is_not_finite_stops_the_run_and_the_last_good_checkpoint_stays(
    where: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted in step 3; afterwards the same run goes on from the checkpoint to the same bytes."""
    step = iter(range(100))
    plain = Optimizer.sum_gradients, Optimizer.step, ImageBatches.backward

    def backward(self, *given):
        return plain[2](self, *given) + (value if where == "loss" and next(step) == 3 else 0)

    def sum_gradients(self):
        if where == "gradient" and next(step) == 3:
            self.held[1].grad.view(-1)[0] = value
        return plain[0](self)

    def take(self, number):
        if where == "weight" and next(step) == 3:
            self.held[1].data.view(-1)[0] = value
        return plain[1](self, number)

    monkeypatch.setattr(Optimizer, "sum_gradients", sum_gradients)
    monkeypatch.setattr(Optimizer, "step", take)
    monkeypatch.setattr(ImageBatches, "backward", backward)
    with pytest.raises(ValueError, match=rf"expected a finite .*{where[:3]}.* at step 3 of 6 .* of step 3\)"):
        finetune(
            load_encoder(TOY, seed=0), images(), pool_teacher(), SETTINGS,
            checkpoints=_Interrupted(tmp_path, every=1, last=99),
        )  # fmt: skip
    number, tensors, _ = Checkpoints(tmp_path).latest()
    assert number == 3
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    resumed = finetune(
        load_encoder(TOY, seed=0), images(), pool_teacher(), SETTINGS, checkpoints=Checkpoints(tmp_path)
    )
    assert same(resumed.state, finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), SETTINGS).state)


# ---- planted structure -----------------------------------------------------------------------------


class _Colours(nn.Module):
    """A tiny network: colours of the four quarters, a hidden layer, features."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(12, 32), nn.Linear(32, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        quarters = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return self.last(torch.tanh(self.hidden(quarters)))

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


def planted(seed: int) -> tuple[Encoder, torch.Tensor, np.ndarray]:
    """An encoder, images (m, 3, 4, 4), and a teacher that hears only three of the twelve colours."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = _Colours()
        colours = torch.randn((300, 3, 2, 2))
    pictures = colours.repeat_interleave(2, -1).repeat_interleave(2, -2)
    encoder = Encoder(
        Backbone("timm", "colours", "random", {}, 0, "output"), module, lambda x: x, lambda x: x, {}, 16
    )  # type: ignore[arg-type]
    return encoder, pictures, 2 * colours.flatten(1)[:, [0, 5, 10]].numpy()


@pytest.mark.parametrize("sampling", ["in_batch", "triplets"])
def test_a_planted_structure_is_learned_and_a_shuffled_one_is_not(sampling: str) -> None:
    scores = {}
    for shuffle in (False, True):
        encoder, pictures, structure = planted(0)
        generator = np.random.default_rng(0)
        drawn = torch.from_numpy(np.stack([generator.permutation(200)[:3] for _ in range(4000)]))
        triplets, sims = odd_one_last(drawn, similarities(torch.from_numpy(structure), drawn))
        fresh, _ = odd_one_last(
            all_triplets(100)[::40], similarities(torch.from_numpy(structure[200:]), all_triplets(100)[::40])
        )
        teacher = PoolTeacher(structure[:200], None)
        settings = changed(steps=150, warmup=5, lr=1e-2, pull=0.0, batch=24, shuffle_teacher=shuffle)
        if sampling == "triplets":
            teacher = TripletAnswers(triplets.numpy(), sims.numpy())
            settings = dataclasses.replace(settings, sampling="triplets", batch=128)
        before = accuracy(similarities(torch.from_numpy(embed_images(encoder, pictures[200:], 50)), fresh))
        finetune(encoder, pictures[:200], teacher, settings)
        after = accuracy(similarities(torch.from_numpy(embed_images(encoder, pictures[200:], 50)), fresh))
        scores[shuffle] = (before, after)
    assert scores[False][1] > 0.85
    assert scores[False][1] > scores[False][0] + 0.3
    assert scores[True][1] < scores[True][0] + 0.05


# ---- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "mse"}, r"finetune.loss: expected one of kl, jsd, hard, found 'mse'"),
        (
            {"tau_student": "auto"},
            r"finetune.tau_student: expected a number, spread or fit, found 'auto'",
        ),
        ({"tau_student": 0.0}, r"finetune.tau_student: expected a value within"),
        ({"batch": 2}, r"finetune.batch: expected a value within \[3, inf\], found 2"),
        ({"pull": 2000.0}, r"finetune.pull: expected a value within \[0, 1000\], found 2000"),
        ({"warmup": 7}, r"finetune.warmup: expected a value within \[0, 6\], found 7"),
        ({"lr": math.nan}, r"finetune.lr: expected a value within"),
    ],
)
def test_settings_are_checked(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**values)


def test_a_teacher_that_does_not_fit_is_refused() -> None:
    encoder = load_encoder(TOY, seed=0)
    broken = pool_teacher()
    broken.features[3, 1] = np.nan
    triplets = triplet_teacher()
    cases = [
        (pool_teacher(19), SETTINGS, r"a row of teacher features for each of 20 images, found \(19, 5\)"),
        (broken, SETTINGS, "finite teacher features"),
        (triplets, SETTINGS, "'in_batch' expected teacher features, found TripletAnswers"),
        (
            pool_teacher(),
            changed(sampling="triplets"),
            "'triplets' expected answered triplets, found PoolTeacher",
        ),
        (
            TripletAnswers(triplets.triplets, triplets.sims[:4]),
            changed(sampling="triplets"),
            r"three for each triplet",
        ),
        (
            TripletAnswers(triplets.triplets + 5, triplets.sims),
            changed(sampling="triplets"),
            r"indices in 0..19",
        ),
        (pool_teacher(), changed(batch=21), "a batch of 3..20"),
    ]
    for teacher, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            finetune(encoder, images(), teacher, settings)


def test_student_features_that_are_all_equal_have_no_spread() -> None:
    encoder = load_encoder(TOY, seed=0)
    with pytest.raises(ValueError, match=r"finetune.tau_student: expected initial features that differ"):
        finetune(encoder, torch.zeros((20, 3, 32, 32), dtype=torch.uint8), pool_teacher(), SETTINGS)


# ---- keeping the classifier's answers ---------------------------------------------------------------


def originals(encoder: Encoder, count: int = 20) -> np.ndarray:
    return embed_images(encoder, images(count), 8)


def test_retention_is_the_mean_divergence_of_the_class_probabilities() -> None:
    encoder = load_encoder(TOY, seed=0)
    original = originals(encoder)
    rows, shares = np.array([3, 7, 7]), torch.tensor([0.5, 0.25, 0.25])
    vectors = torch.randn((3, encoder.width), generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = Retention(encoder, original, 20).backward(vectors, rows, shares, 2.0)

    own = vectors.detach().clone().requires_grad_()
    total = torch.zeros(())
    for row, share, vector in zip(rows, shares, own, strict=True):
        p = torch.softmax(encoder.module.get_classifier()(torch.from_numpy(original[row])), 0).detach()
        q = torch.softmax(encoder.module.get_classifier()(vector), 0)
        total = total + share * (p * (p / q).log()).sum()
    (gradient,) = torch.autograd.grad(2 * total, own)
    assert found == pytest.approx(total.item(), rel=1e-5)
    torch.testing.assert_close(vectors.grad, gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sampling", ["triplets", "in_batch"])
def test_shares_of_the_images_of_a_step_sum_to_one(sampling: str) -> None:
    if sampling == "triplets":
        batches = AnsweredTriplets(triplet_teacher(), 20, batch=12, parts=5, seed=1)
    else:
        batches = ImageBatches(pool_teacher(), 20, batch=6, parts=5, clusters=0, seed=1)
    parts = [batches.shares(2, part) for part in range(5)]
    assert [len(shares) for shares in parts] == [len(batches.rows(2, part)) for part in range(5)]
    assert torch.cat(parts).sum().item() == pytest.approx(1, abs=1e-6)


def test_retention_keeps_the_classifier_and_resumes_in_the_same_bytes(tmp_path: Path) -> None:
    original = originals(load_encoder(TOY, seed=0))
    free = changed(steps=20, lr=3e-3, pull=0.0, tau_teacher=0.1)
    held = dataclasses.replace(free, retain=1e4)  # the toy classifier has small weights
    lost = {}
    for name, settings in (("free", free), ("held", held)):
        encoder = load_encoder(TOY, seed=0)
        finetune(encoder, images(), pool_teacher(), settings, original=original)
        shares = torch.full((20,), 1 / 20)
        after = torch.from_numpy(originals(encoder)).requires_grad_()
        lost[name] = Retention(encoder, original, 20).backward(after, np.arange(20), shares, 1.0)
    assert lost["held"] < 0.3 * lost["free"]

    whole = finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), held, original=original)
    with pytest.raises(_Stop):
        finetune(
            load_encoder(TOY, seed=0), images(), pool_teacher(), held, original=original,
            checkpoints=_Interrupted(tmp_path, every=1, last=7),
        )  # fmt: skip
    resumed = finetune(
        load_encoder(TOY, seed=0), images(), pool_teacher(), held, original=original,
        checkpoints=Checkpoints(tmp_path),
    )  # fmt: skip
    assert same(whole.state, resumed.state)
    np.testing.assert_array_equal(whole.curves["retained"], resumed.curves["retained"])


def test_retention_without_a_classifier_or_without_features_is_refused() -> None:
    bare = load_encoder(dataclasses.replace(TOY, model_args={"num_classes": 0}), seed=0)
    with pytest.raises(ValueError, match=r"retain: expected a network with a linear classifier"):
        finetune(bare, images(), pool_teacher(), changed(retain=0.1), original=np.zeros((20, bare.width)))
    with pytest.raises(ValueError, match=r"retain: expected the initial features .* found none"):
        finetune(load_encoder(TOY, seed=0), images(), pool_teacher(), changed(retain=0.1))
