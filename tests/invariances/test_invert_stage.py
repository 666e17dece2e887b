"""The stage `invert` on a tiny world: what it stores is what it says, in one process and in two, resumed; bad input."""

import json
import shutil

import numpy as np
import pytest
import torch

from alignet.invariances.perceptual import Pixels
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.stages.invert import write_inverted
from tests.makers.stored import shards, student
from tests.makers.worlds import ATTACK, overrides
from tests.pipeline.test_many_processes import finish, stage

FREE, FAR = "invert[student.mapped_test.free]", "invert[student.mapped_test.adversarial]"
INVERT = [
    *ATTACK, "invert.images=6", "invert.draws=2", "invert.batch=4", "invert.shard=2",
    "invert.methods.free.steps=12", "invert.methods.free.stop=0.001",
    "invert.methods.adversarial.steps=12", "invert.methods.adversarial.finish=4",
    "+evaluate.datasets.attack.nodes.invert='invert[{model}.mapped_test.free]'",
    "+evaluate.datasets.attack.nodes.far='invert[{model}.mapped_test.adversarial]'",
]  # fmt: skip


def pipeline(root, *more):
    return Pipeline(load([*overrides(root), *INVERT, *more]))


@pytest.fixture(scope="module")
def store(mapped, tmp_path_factory):
    """A store with the tiny world's student inverted, freely and adversarially."""
    root = tmp_path_factory.mktemp("inverted") / "store"
    shutil.copytree(mapped, root)
    pipeline(root).make_all([FREE, FAR])
    return root


@pytest.mark.parametrize(("key", "distance"), [(FREE, ""), (FAR, "pixels")])
def test_what_is_stored_by_the_network_loaded_anew(store, key, distance):
    chain = pipeline(store)
    artifact, encoder = chain.state(key).artifact, student(chain)
    mean, std = (torch.tensor(encoder.data_config[name]).view(-1, 1, 1) for name in ("mean", "std"))
    names, begun = [], set()

    def g(pixels):
        plain = torch.from_numpy(pixels).float() / (255 if pixels.dtype == np.uint8 else 1)
        with torch.no_grad():
            return encoder.features((plain[None] - mean) / std)[0].double().numpy()

    for arrays, ids in shards(artifact, "invert"):
        assert len(ids) == len(arrays["image"]) == 2
        assert (arrays["layer"], arrays["distance"]) == ("", distance)
        assert arrays["regulariser"] == key.rpartition(".")[2][:-1]
        assert (arrays["weight"] > 0) == bool(distance)
        assert arrays["inverted"].dtype == np.float32
        assert 0 <= arrays["inverted"].min() <= arrays["inverted"].max() <= 1
        assert np.array_equal(arrays["inverted8"], np.round(arrays["inverted"] * 255))
        assert (arrays["label"] == -1).all()
        for row, k in np.ndindex(2, 2):
            wanted = g(arrays["image"][row])
            for name, stored in (("error", "inverted"), ("error8", "inverted8"), ("begin", "seed")):
                error = np.linalg.norm(g(arrays[stored][row, k]) - wanted) / np.linalg.norm(wanted)
                assert arrays[name][row, k] == pytest.approx(error, rel=1e-3)
            assert arrays["error"][row, k] < arrays["begin"][row, k]
            assert 0 < arrays["steps"][row, k] <= 12
            begun.add(arrays["seed"][row, k].tobytes())
        names += ids
    assert len(set(names)) == 6
    assert len(begun) == 12
    assert artifact.metrics["images"] == 6
    assert artifact.metrics["draws"] == 2


def test_another_division_into_files_finds_the_same(store, tmp_path):
    shutil.copytree(store, tmp_path / "other")
    chain = pipeline(tmp_path / "other", "invert.shard=6", "invert.batch=2")
    chain.make_all([FREE])
    ((whole, ids),) = shards(chain.state(FREE).artifact, "invert")
    parts = list(shards(pipeline(store).state(FREE).artifact, "invert"))
    assert [name for _, names in parts for name in names] == ids
    for name in ("seed", "image", "box"):
        assert np.array_equal(np.concatenate([arrays[name] for arrays, _ in parts]), whole[name])
    inverted = np.concatenate([arrays["inverted"] for arrays, _ in parts])
    assert np.abs(inverted - whole["inverted"]).mean() < 1e-3  # passes of other batches round otherwise


def test_two_processes_store_the_same_bytes(ready, store, tmp_path):
    shutil.copytree(store, tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "invert")
    options = [*INVERT, f"role={FREE}", "runtime.launcher=torchrun", "runtime.processes=2"]
    status, _, err = finish(ready.start(*stage(tmp_path / "two", "pipeline", *options)))
    assert status == 0, err
    found = [json.loads(path.read_text()) for path in (tmp_path / "two" / "invert").glob("*/MANIFEST.json")]
    assert [one["provenance"]["world_size"] for one in found] == [2]
    assert found[0]["digest"] == pipeline(store).state(FREE).artifact.manifest["digest"]


def test_what_is_there_is_not_made_again_and_what_is_missing_comes_out_alike(store, tmp_path):
    chain = pipeline(store)
    section, encoder = chain.config.invert, student(chain)
    artifact = chain.state(FREE).artifact
    names = [name for _, ids in shards(artifact, "invert") for name in ids]
    world = chain.state("world").artifact.folder

    def read(name):
        from PIL import Image

        assert name in allowed
        path = world / "images" / "mapped_test" / name
        return Image.open(path).convert("RGB")

    def write(folder):
        folder.mkdir(exist_ok=True)
        return write_inverted(
            encoder, names, read, folder, section.methods["free"], chain.config.runtime, distance=None,
            regulariser="free", layer="", draws=2, seed=section.seed, batch=4, shard=2, name="x", key="x",
        )  # fmt: skip

    allowed = set(names)
    first = write(tmp_path / "one")
    assert first["images"] == 6
    kept = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    (tmp_path / "one" / "invert-00001.npz").unlink()
    allowed = set(names[2:4])
    assert write(tmp_path / "one") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == kept


def test_targets_of_noise_are_drawn_by_image(store, tmp_path):
    shutil.copytree(store, tmp_path / "noise")
    more = [
        "+invert.methods.free.target={mean: 0.5, sd: 2.0}",
        "invert.images=2",
        "invert.methods.free.steps=2",
    ]
    chain = pipeline(tmp_path / "noise", *more)
    chain.make_all([FREE])
    ((arrays, _),) = shards(chain.state(FREE).artifact, "invert")
    assert arrays["image"].dtype == np.uint8
    assert ((arrays["image"] == 0) | (arrays["image"] == 255)).mean() > 0.7
    assert not np.array_equal(*arrays["image"])


def test_the_adversarial_ones_are_farther_by_the_distance_that_was_pushed(store):
    means = []
    for key in (FREE, FAR):
        found = [
            Pixels()(
                torch.from_numpy(arrays["image"] / np.float32(255)),
                torch.from_numpy(arrays["inverted"][:, 0]),
            )
            for arrays, _ in shards(pipeline(store).state(key).artifact, "invert")
        ]
        means.append(torch.cat(found).mean())
    assert means[1] > means[0]


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (["invert.layer=nothing"], FREE, "invert.layer: expected a module of .*found 'nothing'"),
        (
            [],
            "invert[student.mapped_test.best]",
            r"expected <model>.<images>.<method> .*\(free, .*found 'best'",
        ),
        ([], "invert[pixels.mapped_test.free]", "expected a network, found pixels"),
        (
            ["invert.methods.adversarial.distance=best"],
            FAR,
            "expected some of perceptual.distances .*found 'best'",
        ),
        (["invert.draws=0"], FREE, "invert.draws: expected at least 1, found 0"),
    ],
)
def test_bad_input_is_one_message(store, change, key, message):
    with pytest.raises(ValueError, match=message):
        pipeline(store, *change, f"+evaluate.datasets.attack.nodes.bad='{key}'").make_all([key])
