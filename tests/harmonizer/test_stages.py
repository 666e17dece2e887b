"""The stages that need maps, on a tiny world: what they leave; bad input in one message before anything is trained."""

import csv
import json
import shutil
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alignet.pipeline.cli import load
from alignet.pipeline.payloads import class_numbers, saliency_maps
from alignet.pipeline.runner import Pipeline
from tests.makers.worlds import MAPS, overrides


@pytest.fixture(scope="module")
def store(mapped, tmp_path_factory):
    """A store with the tiny world's maps and its student."""
    root = tmp_path_factory.mktemp("maps") / "store"
    shutil.copytree(mapped, root)
    chain = Pipeline(load([*overrides(root), *MAPS]))
    chain.make_all(["pretrain[student]", "saliency[student.mapped_test]", "stimuli[mapped_test_maps]"])
    return root


BY_MODEL = ["evaluate.datasets.masking.nodes.stimuli='stimuli[student.mapped_test]'"]


def world_of(store):
    chain = Pipeline(load([*overrides(store), *MAPS]))
    return chain.store.folder(chain.identity("world"))


def made(store, key, *more):
    return Pipeline(load([*overrides(store), *MAPS, *more])).make_all([key])


def test_saliency_is_complete_and_its_maps_cover_their_images(store):
    artifact = Pipeline(load([*overrides(store), *MAPS])).state("saliency[student.mapped_test]").artifact
    names = sorted(name for name in artifact.manifest["files"] if name.endswith(".npz"))
    assert len(names) == 3  # 20 images in files of 8
    with np.load(artifact.folder / names[0], allow_pickle=False) as shard:
        assert shard["gradients"].shape == (8, 3, 64, 64)
        assert shard["box"].tolist() == [[0, 0, 1, 1]] * 8
        assert (shard["label"] >= 0).all()
        largest = np.abs(shard["gradients"]).max(1)
    maps, ids = saliency_maps(artifact)
    assert maps.shape == (20, 64, 64)
    assert ids == sorted(ids)
    np.testing.assert_allclose(maps[:8], largest, rtol=1e-5)


def test_the_maps_of_a_network_that_sees_a_part_are_put_back_into_the_whole_image(tmp_path):
    """A bright point stands where the image has it, and what the network did not see is 0."""
    gradients = np.zeros((2, 3, 28, 28), np.float32)
    gradients[:, 1, 7, 20] = -5
    box = np.array([[0.125, 0.125, 0.875, 0.875], [0.25, 0, 0.75, 1]])
    np.savez(tmp_path / "saliency-00000.npz", gradients=gradients, box=box)
    (tmp_path / "ids-00000.txt").write_text("a.jpg\nb.jpg\n")
    files = {"saliency-00000.npz": {}, "ids-00000.txt": {}}
    maps, ids = saliency_maps(SimpleNamespace(folder=tmp_path, manifest={"files": files}))
    assert ids == ["a.jpg", "b.jpg"]
    for one, (left, top, right, bottom) in zip(maps, box, strict=True):
        y, x = np.unravel_index(one.argmax(), one.shape)
        assert (x + 0.5) / 28 == pytest.approx(left + 20.5 / 28 * (right - left), abs=0.02)
        assert (y + 0.5) / 28 == pytest.approx(top + 7.5 / 28 * (bottom - top), abs=0.02)
        assert (one[:, : int(left * 28)] == 0).all()
        assert (one[: int(top * 28)] == 0).all()


def test_masking_by_a_models_own_maps(store):
    key = "stimuli[student.mapped_test]"
    made(store, key, *BY_MODEL)
    artifact = Pipeline(load([*overrides(store), *MAPS, *BY_MODEL])).state(key).artifact
    listing = json.loads((artifact.folder / "listing.json").read_text())["files"]
    assert len(listing) == 3 * 20


def test_stimuli_are_an_image_set_of_their_own(store):
    artifact = Pipeline(load([*overrides(store), *MAPS])).state("stimuli[mapped_test_maps]").artifact
    listing = json.loads((artifact.folder / "listing.json").read_text())["files"]
    used = {name.partition("/")[2] for name in listing}
    assert len(listing) == 3 * len(used)  # two levels and the whole picture
    with Image.open(artifact.folder / next(iter(listing))) as picture:
        assert picture.size == (32, 32)


def test_a_world_with_raters_writes_maps(store):
    assert sorted(path.name for path in (world_of(store) / "maps").iterdir()) == [
        "mapped.npz",
        "mapped_test.npz",
    ]


def test_drawn_parts_are_marked_where_they_are(store):
    """Maps are of the picture's own parts: another picture's are elsewhere; raters agree with each other."""
    with np.load(world_of(store) / "maps" / "mapped_test.npz", allow_pickle=False) as held:
        maps, ids = held["maps"].astype(float), held["ids"]
    assert maps.shape == (20, 2, 32, 32)
    assert len(set(ids)) == 20
    shown = maps[np.ptp(maps, axis=(1, 2, 3)) > 0]
    assert len(shown) > 10
    own = [np.corrcoef(two[0].ravel(), two[1].ravel())[0, 1] for two in shown]
    other = [np.corrcoef(a[0].ravel(), b[1].ravel())[0, 1] for a, b in pairwise(shown)]
    assert np.mean(own) > np.mean(other) + 0.3


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("constant", "maps that are not constant"),
        ("others", "expected"),
        ("damaged", "maps.npz"),
        ("negative class", "expected the number of a class"),
        ("too large a class", r"labels in 0\.\.47"),
        ("no class", "expected a class for each image"),
    ],
)
def test_bad_input_of_training_is_one_message(store, tmp_path, what, message):
    world, more = world_of(store), []
    with np.load(world / "maps" / "mapped.npz", allow_pickle=False) as held:
        ids, maps = held["ids"], held["maps"]
    target = tmp_path / "maps.npz"
    if what == "constant":
        np.savez(target, ids=ids, maps=np.full_like(maps, 7))
    elif what == "others":
        np.savez(target, ids=np.array([f"other_{one}" for one in ids]), maps=maps)
    elif what == "damaged":
        np.savez(target, ids=ids, maps=maps)
        target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    else:
        table = tmp_path / "labels.csv"
        with open(table, "w", newline="") as handle:
            wrong = {"negative class": "-3", "too large a class": "99"}.get(what, "0")
            csv.writer(handle).writerows([("id", "class"), *((one, wrong) for one in ids)])
        more = [f"data.sets.mapped_labels.path={table}"] if what != "no class" else ["harmonize.labels=null"]
    if target.exists():
        more = [f"data.sets.mapped_maps.path={target}"]
    with pytest.raises(ValueError, match=message):
        made(store, "harmonize[harmonized]", *more)


def test_a_student_without_a_classifier_is_named(store):
    more = ["student.weights=random", "student.model_args.num_classes=0"]
    with pytest.raises(ValueError, match="expected a network with a classifier"):
        made(store, "saliency[student.mapped_test]", *more)


def test_classes_by_table_by_wordnet_id_or_not_at_all(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("id,class\na.png,3\nb.png,0\n")
    assert class_numbers(["b.png", "a.png"], table, "class").tolist() == [0, 3]
    assert class_numbers(["n01440764_x.jpg"], None, "class").tolist() == [0]
    assert class_numbers(["one.jpg", "two.jpg"], None, "class").tolist() == [-1, -1]
