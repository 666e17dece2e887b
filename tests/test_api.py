"""The Python API: doctests, folders and names, images of every kind, and the answers to triplets."""

from __future__ import annotations

import doctest
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alignet
import alignet.api
from alignet.backbones import timm_features
from alignet.evaluate.odd_one_out import odd_one_out as scored
from tests.makers.worlds import overrides


def pictures(count: int = 5) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    fields = generator.integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(field).resize((90, 80), Image.Resampling.BICUBIC)) for field in fields]


@pytest.fixture(scope="module")
def model() -> alignet.Model:
    return alignet.load("timm:test_efficientnet", weights="random", seed=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images/below").mkdir(parents=True)
    for row, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(tmp_path / "images" / ("below" if row % 2 else "") / f"{row}.png")
    return tmp_path / "images"


def test_doctests() -> None:
    found = doctest.testmod(alignet.api, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 20
    assert found.failed == 0


def test_importing_alignet_imports_no_torch() -> None:
    program = """
import alignet, sys
print("torch" in sys.modules, "load" in dir(alignet))
alignet.embed
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True"]
    with pytest.raises(AttributeError, match=r"no attribute 'embedd'; it offers Embedding, .* embed"):
        getattr(alignet, "embedd")  # noqa: B009


def test_features_are_those_of_timm(model: alignet.Model) -> None:
    images = [Image.fromarray(pixels) for pixels in pictures()]
    expected = timm_features(model.encoder, images).numpy()
    found = model.features(images)
    assert found.dtype == np.float32
    assert found.shape == (5, model.width)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_folders_paths_pictures_and_arrays_give_the_same(model: alignet.Model, folder: Path) -> None:
    embedding = alignet.embed(model, folder, batch=2, threads=3)
    assert embedding.ids == ["0.png", "2.png", "4.png", "below/1.png", "below/3.png"]
    order = [0, 3, 1, 4, 2]
    paths = [str(folder / embedding.ids[row]) for row in order]
    for images in (paths, pictures(), [Image.fromarray(one) for one in pictures()], np.stack(pictures())):
        other = alignet.embed(model, images)
        assert np.allclose(other.features, embedding.features[order], atol=1e-6)
    assert alignet.embed(model, paths).ids == paths
    assert alignet.embed(model, folder / "0.png").ids == ["0.png"]
    with pytest.raises(AssertionError):
        assert np.allclose(embedding.features, embedding.features[order], atol=1e-6)


def test_unreadable_images_stop_or_are_set_aside(model: alignet.Model, folder: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"2\.png.*Or set unreadable=skip"):
        alignet.embed(model, folder)
    embedding = alignet.embed(model, folder, unreadable="skip")
    assert embedding.ids == ["0.png", "4.png", "below/1.png", "below/3.png"]
    assert len(embedding.features) == 4
    assert [name for name, _ in embedding.unreadable] == ["2.png"]
    with pytest.raises(ValueError, match="expected one of stop, skip, found 'ignore'"):
        alignet.embed(model, folder, unreadable="ignore")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere", "nowhere: expected a folder of images"),
        ([], "expected at least one image, found none"),
        (["a.png", "a.png"], "expected each path once, found a.png 2 times"),
        ([np.zeros((4, 4, 3))], r"image 0: expected an array .* uint8, found float64"),
        ([np.zeros((3, 4, 4), np.uint8)], r"image 0: expected an array \(H, W, 3\)"),
        ([Image.new("RGBA", (4, 4))], "image 0: expected an RGB or grey picture, found mode RGBA"),
        ([3], "image 0: expected a path, a PIL image or a uint8 array, found int"),
    ],
)
def test_images_that_are_none(model: alignet.Model, images: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alignet.embed(model, images)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("timm:resnet10q", {"weights": "random"}, "similar names"),
        ("artifacts/export/0123", {}, "expected a folder, or LIBRARY:NAME .* which is no folder here"),
        ("keras:vgg", {}, "a library out of timm"),
        ("timm:", {}, "LIBRARY:NAME"),
        ("timm:test_vit", {}, "test_vit: expected to download"),
        ("timm:test_vit", {"weights": "random", "feature": "last"}, "feature out of pooled, output"),
        ("timm:test_vit", {"weights": "random", "device": "cuda"}, "device: expected"),
        ("timm:test_vit", {"weights": "random", "map": "gone.npz"}, "map: expected an npz .* gone.npz"),
    ],
)
def test_models_that_are_none(name: str, given: dict, message: str, tmp_path: Path, monkeypatch) -> None:
    if "cuda" in given.values() and torch.cuda.is_available():
        given = given | {"device": "cuda:99"}
        message = "CUDA|device"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises((ValueError, RuntimeError), match=message):
        alignet.load(name, **given)


def test_an_exported_folder_gives_what_the_chain_evaluated(tiny: Path) -> None:
    from alignet.pipeline import payloads
    from alignet.pipeline.cli import load
    from alignet.pipeline.runner import Pipeline

    pipeline = Pipeline(load(overrides(tiny)))

    def made(key: str):
        artifact = pipeline.state(key).artifact
        assert artifact is not None
        return artifact

    export, teacher_map = made("export[alignet]").folder, made("export[ud]").folder
    node = next(key for key in pipeline.graph if key.startswith("embed[alignet."))
    images = pipeline.locate(f"index[{node.removeprefix('embed[alignet.').rstrip(']')}]")
    expected, ids = payloads.embedding(made(node))
    embedding = alignet.embed(export, [images / name for name in ids[:20]])
    assert np.abs(embedding.features - expected[:20]).max() <= 1e-5 * np.abs(expected).max()
    mapped = alignet.load(export, map=teacher_map)
    again = alignet.load_map(teacher_map / "map.npz")(embedding.features)
    assert np.allclose(mapped.features([images / name for name in ids[:20]]), again, atol=1e-5)
    with pytest.raises(ValueError, match="expected a model, found an affine map alone"):
        alignet.load(teacher_map)
    with pytest.raises(ValueError, match=r"map: expected one of the 512 features .* found one of"):
        alignet.load("timm:resnet10t", weights="random", map=teacher_map)


def by_hand(features: np.ndarray, triplet: tuple[int, ...]) -> int:
    pairs = {(0, 1): 2, (0, 2): 1, (1, 2): 0}
    sims = {pair: features[triplet[pair[0]]] @ features[triplet[pair[1]]] for pair in pairs}
    best = max(sims.values())
    winners = [pair for pair, value in sims.items() if value == best]
    return pairs[winners[0]] if len(winners) == 1 else -1


def test_the_odd_one_out_is_outside_of_the_most_similar_pair() -> None:
    features = (
        np.random.default_rng(1).integers(-2, 3, (7, 3)).astype(np.float64)
    )  # small whole numbers: ties
    triplets = list(itertools.permutations(range(7), 3))
    answer = alignet.odd_one_out(features, triplets)
    assert answer.position.tolist() == [by_hand(features, triplet) for triplet in triplets]
    assert set(answer.position.tolist()) == {-1, 0, 1, 2}
    assert np.allclose(answer.probabilities.sum(1), 1)
    clear = answer.position >= 0
    assert (2 - answer.probabilities[clear].argmax(1) == answer.position[clear]).all()
    cooler = alignet.odd_one_out(features, triplets, tau=0.1)
    assert (cooler.position == answer.position).all()
    assert (cooler.probabilities.max(1) >= answer.probabilities.max(1) - 1e-6).all()


def test_accuracy_is_the_evaluations() -> None:
    generator = np.random.default_rng(2)
    features = generator.standard_normal((30, 8)).astype(np.float32)
    triplets = np.array([generator.permutation(30)[:3] for _ in range(500)])
    (score, *_) = scored(features, triplets, dataset="x", tau=1.0, seed=0, bootstrap=2)
    answer = alignet.odd_one_out(features, triplets)
    assert (answer.position == 2).mean() == score.value


def test_triplets_by_id_and_the_only_triplet() -> None:
    embedding = alignet.Embedding(np.array([[1.0, 0], [1, 1], [0, 3]], np.float32), ["a", "b", "c"], [])
    assert alignet.odd_one_out(embedding).position.tolist() == [0]
    assert alignet.odd_one_out(embedding, [["c", "a", "b"]]).position.tolist() == [1]
    for features, triplets, message in (
        (embedding, [["a", "b", "d"]], "found none for 1 \\('d'\\)"),
        (embedding.features, [["a", "b", "c"]], "give an Embedding"),
        (embedding, [[0, 1, 3]], r"expected object indices in 0\.\.2"),
        (np.eye(4), None, "found 4 rows"),
        (np.full((3, 2), np.nan), None, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            alignet.odd_one_out(features, triplets)
    with pytest.raises(ValueError, match="tau"):
        alignet.odd_one_out(embedding, tau=0)
