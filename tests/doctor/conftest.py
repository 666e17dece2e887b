"""Shared by the tests of doctor: the tiny world as a folder of photographs."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from tests.makers.worlds import overrides


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory) -> Path:
    """The tiny world as a folder of photographs, with features of its objects that know the participants' answers."""
    chain = Pipeline(load(overrides(tiny)))
    world = chain.state("world").artifact.folder
    folder = tmp_path_factory.mktemp("photos")
    for name in ("things", "pool"):
        shutil.copytree(world / "images" / name, folder / "images" / name)
    shutil.copyfile(world / "objects.csv", folder / "concepts.csv")
    (folder / "things_triplets").mkdir()
    train, val = np.load(world / "triplets/train.npy"), np.load(world / "triplets/val.npy")
    for name, rows in (("train_90", train), ("test_10", val), ("photo_tune_train", train[:600]),
                       ("photo_tune_test", val[:200]), ("photo_report", val[200:400])):  # fmt: skip
        np.save(folder / f"things_triplets/{name}.npy", rows)
    shutil.copyfile(
        chain.state("pretrain[student]").artifact.file("weights.safetensors"),
        folder / "tf_efficientnet_lite0.safetensors",
    )
    features = folder / "teacher_features"
    features.mkdir()
    objects = len(list((folder / "images/things").iterdir()))
    known = np.linalg.svd(_counts(train, objects))[0][:, :12].astype(np.float32)
    np.save(features / "things_concepts.npy", known)
    (features / "things_concepts_index.txt").write_text("".join(f"{row}\n" for row in range(objects)))
    images = [
        f"{kind}/{path.name}"
        for kind in ("things", "pool")
        for path in sorted((folder / "images" / kind).iterdir())
    ]
    np.save(
        features / "images.npy",
        np.random.default_rng(0).standard_normal((len(images), 12)).astype(np.float32),
    )
    (features / "images.txt").write_text("".join(f"{name}\n" for name in images))
    return folder


def _counts(triplets, objects):
    """How often two objects were left together, centred: what any embedding of the choices reflects."""
    together = np.zeros((objects, objects))
    np.add.at(together, (triplets[:, 0], triplets[:, 1]), 1.0)
    return (together + together.T) - together.mean()


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """A copy of the photographs that a test may damage."""
    shutil.copytree(photos, tmp_path / "photos")
    return tmp_path / "photos"
