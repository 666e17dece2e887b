"""Pretraining: loads into timm, learns what is planted and nothing else, resumes to the same bytes."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from alignet.runtime.checkpoints import Checkpoints
from alignet.world import pretrain
from alignet.world.pretrain import TrainingSettings, pretrain_student, pretrain_teacher

OVERLAY = {"input_size": (3, 32, 32), "crop_pct": 1.0, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
STUDENT = TrainingSettings(
    architecture="levit_128s",
    model_args={
        "img_size": 32, "embed_dim": (32,), "depth": (1,), "num_heads": (2,), "key_dim": 8, "num_classes": 4,
        "pretrained_cfg_overlay": OVERLAY,
    },
    steps=40,
    batch=16,
    lr=3e-3,
    warmup=5,
    weight_decay=0.05,
    shift=2,
    smoothing=0.0,
    text_width=16,
    seed=3,
)  # fmt: skip
TEACHER = replace(STUDENT, model_args={**STUDENT.model_args, "num_classes": 12})
RESNET = replace(
    STUDENT,
    architecture="resnet10t",
    model_args={
        "channels": (8, 8, 16, 16),
        "stem_width": 8,
        "num_classes": 4,
        "pretrained_cfg_overlay": OVERLAY,
    },
)


def squares(n, seed=0):
    """Pictures with a bright square in one of four corners, and the corner."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 120, size=(n, 32, 32, 3), dtype=np.uint8)
    corner = rng.integers(4, size=n)
    for image, where in zip(images, corner, strict=True):
        y, x = 16 * (where // 2) + 4, 16 * (where % 2) + 4
        image[y : y + 8, x : x + 8] = 250
    return images, corner


def normalised(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def loaded(settings, state):
    model = timm.create_model(settings.architecture, **settings.model_args)
    model.load_state_dict(state, strict=True)
    return model.eval()


@torch.no_grad()
def test_student_learns_planted_labels_and_not_shuffled_ones():
    images, corner = squares(200)
    fresh, answer = squares(100, seed=1)
    right = {}
    for name, labels in (("planted", corner), ("shuffled", np.random.default_rng(2).permutation(corner))):
        with torch.enable_grad():
            result = pretrain_student(images, labels, settings=STUDENT)
        assert len(result.curve) == 40
        model = loaded(STUDENT, result.state)
        right[name] = (model(normalised(fresh)).argmax(1).numpy() == answer).mean()
    assert right["planted"] > 0.9
    assert right["shuffled"] < 0.5


@torch.no_grad()
def test_teacher_puts_pictures_of_one_caption_together():
    images, corner = squares(200)
    captions = np.stack([1 + corner, np.zeros_like(corner)], 1).astype(np.uint8)
    with torch.enable_grad():
        result = pretrain_teacher(images, captions, words=5, settings=TEACHER)
    fresh, answer = squares(80, seed=1)
    features = torch.nn.functional.normalize(loaded(TEACHER, result.state)(normalised(fresh)), dim=1)
    assert features.shape == (80, 12)
    gram = (features @ features.T).fill_diagonal_(-2)
    assert (answer[gram.argmax(1).numpy()] == answer).mean() > 0.9
    assert result.accuracy > 0.8


class Stop(Exception):
    pass


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_resumed_equals_uninterrupted(role, tmp_path, monkeypatch):
    images, corner = squares(50)
    captions = np.stack([1 + corner, np.zeros_like(corner)], 1)

    def run(checkpoints):
        if role == "teacher":
            return pretrain_teacher(
                images, captions, words=5, settings=replace(TEACHER, steps=9), checkpoints=checkpoints
            )
        return pretrain_student(images, corner, settings=replace(STUDENT, steps=9), checkpoints=checkpoints)

    whole, rate = run(None), pretrain._rate

    def interrupted(step, settings):
        if step == 6:
            raise Stop
        return rate(step, settings)

    monkeypatch.setattr(pretrain, "_rate", interrupted)
    with pytest.raises(Stop):
        run(Checkpoints(tmp_path, seconds=0))
    monkeypatch.setattr(pretrain, "_rate", rate)
    resumed = run(Checkpoints(tmp_path, seconds=0))
    assert whole.curve == resumed.curve
    assert whole.accuracy == resumed.accuracy
    assert whole.state.keys() == resumed.state.keys()
    assert all(torch.equal(whole.state[name], resumed.state[name]) for name in whole.state)


def test_the_seed_decides():
    images, corner = squares(50)
    first, same, other = (
        pretrain_student(images, corner, settings=replace(STUDENT, steps=3, seed=seed)).curve
        for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize("settings", [STUDENT, RESNET])
def test_pictures_are_fed_as_timm_would_feed_them(settings):
    images, _ = squares(20)
    model = timm.create_model(settings.architecture, **settings.model_args)
    transform = timm.data.create_transform(
        **timm.data.resolve_data_config({}, model=model), is_training=False
    )
    pictures, rows = pretrain._batch(images, replace(settings, shift=0), step=0)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
    own = pictures.float().div_(255).sub_(mean).div_(std)
    expected = torch.stack([transform(Image.fromarray(images[row])) for row in rows.tolist()])
    assert torch.equal(own, expected)


def test_shifts_move_whole_pictures():
    images, _ = squares(20)
    plain, rows = pretrain._batch(images, replace(STUDENT, shift=0), step=1)
    moved, same_rows = pretrain._batch(images, replace(STUDENT, shift=2), step=1)
    assert torch.equal(rows, same_rows)
    for before, after in zip(plain, moved, strict=True):
        inner = after[:, 4:-4, 4:-4]
        offsets = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
        assert any(torch.equal(inner, before[:, 4 + y : 28 + y, 4 + x : 28 + x]) for y, x in offsets)


def test_an_epoch_shows_every_picture_once():
    images, _ = squares(48)
    rows = torch.cat([pretrain._batch(images, STUDENT, step)[1] for step in range(3)])
    assert sorted(rows.tolist()) == list(range(48))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.full(20, 4)}, "labels: expected .* within 0..3, found .* 4..4"),
        ({"labels": np.zeros(19, int)}, "expected a label or caption for each of 20 pictures, found 19"),
        ({"images": np.zeros((20, 32, 32, 3))}, "expected uint8 .* found float64"),
        (
            {"images": np.zeros((20, 64, 64, 3), np.uint8)},
            "takes 64 px pictures whole, found input_size .3, 32, 32",
        ),
        ({"settings": replace(STUDENT, batch=21)}, "batch: expected at most 20"),
        (
            {"settings": replace(STUDENT, lr=1e30, weight_decay=0.0)},
            "expected a finite loss, found nan at step",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    images, corner = squares(20)
    given = {"images": images, "labels": corner, "settings": STUDENT} | change
    with pytest.raises(ValueError, match=message):
        pretrain_student(given["images"], given["labels"], settings=given["settings"])


def test_words_beyond_the_vocabulary_are_named():
    images, corner = squares(20)
    with pytest.raises(ValueError, match=r"captions: expected .* within 0..2, found .* with 1..4"):
        pretrain_teacher(images, np.stack([corner * 0 + 1, corner * 0 + 4], 1), words=3, settings=TEACHER)
