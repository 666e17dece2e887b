"""The stage `perceptual` on a tiny world: figures by brute force, planted answers, blocks, two processes, bad input."""

import json
import shutil

import numpy as np
import pytest
import torch

from alignet.backbones import Backbone, load_encoder
from alignet.config import PerceptualDistance, PerceptualSection
from alignet.invariances.measure import measure
from alignet.invariances.perceptual import Pixels
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.stages import perceptual
from tests.makers.inverted import images_of, measured, mixed, seeds_of
from tests.makers.worlds import ATTACK, overrides
from tests.pipeline.test_many_processes import finish, stage

ROLE = "student.mapped_test.adversarial"
KEY = f"perceptual[{ROLE}]"
OPTIONS = [
    *ATTACK, "invert.images=5", "invert.draws=2", "invert.shard=3", "invert.batch=4", "perceptual.batch=3",
    "+perceptual.distances.teacher={kind: layers, model: teacher}", "perceptual.use=[teacher]",
    "invert.methods.adversarial.steps=4", "invert.methods.adversarial.finish=1",
    "invert.methods.adversarial.distance=teacher",
    "+evaluate.datasets.attack.nodes.perceptual='perceptual[{model}.mapped_test.adversarial]'",
]  # fmt: skip


def pipeline(root, *more):
    return Pipeline(load([*overrides(root), *OPTIONS, *more]))


@pytest.fixture(scope="module")
def store(mapped, tmp_path_factory):
    """A store with a few inverted images and their distances."""
    root = tmp_path_factory.mktemp("compared") / "store"
    shutil.copytree(mapped, root)
    pipeline(root).make_all([KEY])
    return root


def distances(artifact, name):
    with np.load(artifact.file(f"{name}.npz"), allow_pickle=False) as found:
        return dict(found)


def inverted(artifact):
    """image, seed and inverted of all shards as floats in [0, 1], and ids."""
    columns, ids = {"image": [], "seed": [], "inverted": []}, []
    for name in sorted(one for one in artifact.manifest["files"] if one.endswith(".npz")):
        with np.load(artifact.file(name), allow_pickle=False) as shard:
            for one, kept in columns.items():
                kept.append(shard[one] / np.float32(255) if shard[one].dtype == np.uint8 else shard[one])
        ids += artifact.file(name.replace("invert-", "ids-").replace(".npz", ".txt")).read_text().splitlines()
    return *(np.concatenate(kept).astype(np.float32) for kept in columns.values()), ids


def test_what_is_stored_by_brute_force(store):
    """By the teacher loaded anew and hooks of its own, one pair at a time."""
    chain = pipeline(store)
    images, seeds, iris, ids = inverted(chain.state(f"invert[{ROLE}]").artifact)
    artifact = chain.state(KEY).artifact
    assert artifact.file("ids.txt").read_text().splitlines() == ids
    assert len(ids) == 5
    assert {one for one in artifact.manifest["files"] if one.endswith(".npz")} == {
        "pixels.npz",
        "teacher.npz",
    }
    model = chain.config.teacher
    weights = str(chain.state("pretrain[teacher]").artifact.file("weights.safetensors"))
    encoder = load_encoder(
        Backbone(
            model.library,
            model.architecture,
            weights,
            dict(model.model_args),
            model.image_size,
            model.feature,
        )
    )
    mean, std = (torch.tensor(encoder.data_config[key]).view(3, 1, 1) for key in ("mean", "std"))
    names = [one["module"] for one in encoder.module.feature_info]
    assert len(names) <= 5
    held = {}
    for name in names:
        encoder.module.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: held.update({name: out})
        )

    def directions(pixels):
        with torch.no_grad():
            encoder.module.forward_features(((torch.from_numpy(pixels) - mean) / std)[None])
        found = [held[name][0].double().numpy().copy() for name in names]
        return [one / (np.sqrt((one**2).sum(0)) + 1e-10) for one in found]

    def far(a, b):
        pairs = zip(directions(a), directions(b), strict=True)
        return sum(((one - other) ** 2).sum(0).mean() for one, other in pairs)

    for name, each in (
        ("teacher", far),
        ("pixels", lambda a, b: np.sqrt(((a - b).astype(np.float64) ** 2).mean())),
    ):
        found = distances(artifact, name)
        assert found["to_target"].dtype == np.float32
        assert bool(found["optimised"]) == (name == "teacher")
        for i in range(5):
            for k in range(2):
                assert found["to_seed"][i, k] == pytest.approx(
                    each(iris[i, k], seeds[i, k]), rel=1e-4, abs=1e-6
                )
                for j in range(5):
                    assert found["to_targets"][i, k, j] == pytest.approx(
                        each(iris[i, k], images[j]), rel=1e-4
                    )
                assert found["to_target"][i, k] == found["to_targets"][i, k, i]
            for j in range(5):
                assert found["between_targets"][i, j] == pytest.approx(
                    each(images[i], images[j]), rel=1e-4, abs=1e-6
                )
        nearer = (found["to_target"] < found["to_seed"]).mean()
        assert artifact.metrics[f"nearer_{name}"] == pytest.approx(nearer)


def test_what_is_there_after_a_crash_is_kept(store, tmp_path, monkeypatch):
    shutil.copytree(store, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "perceptual")
    write, made = perceptual.write_distance, []

    def crash(distance, *others):
        made.append(distance.name)
        if made == ["pixels", "teacher"]:
            raise RuntimeError("the machine went away")
        write(distance, *others)

    monkeypatch.setattr(perceptual, "write_distance", crash)
    with pytest.raises(RuntimeError, match="went away"):
        pipeline(tmp_path / "again").make_all([KEY])
    chain = pipeline(tmp_path / "again")
    chain.make_all([KEY])
    assert made == ["pixels", "teacher", "teacher"]
    digests = [one.state(KEY).artifact.manifest["digest"] for one in (chain, pipeline(store))]
    assert digests[0] == digests[1]


def test_two_processes_store_the_same_bytes(ready, store, tmp_path):
    shutil.copytree(store, tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "perceptual")
    options = [*OPTIONS, f"role={KEY}", "runtime.launcher=torchrun", "runtime.processes=2"]
    status, _, err = finish(ready.start(*stage(tmp_path / "two", "pipeline", *options)))
    assert status == 0, err
    found = [
        json.loads(path.read_text()) for path in (tmp_path / "two" / "perceptual").glob("*/MANIFEST.json")
    ]
    assert [one["provenance"]["world_size"] for one in found] == [2]
    assert found[0]["digest"] == pipeline(store).state(KEY).artifact.manifest["digest"]


def planted(share, order=None):
    """Shards of inverted images that are their target to a share; order: another image in the place of the target."""
    images, seeds = images_of(7), seeds_of(7, 2)
    iris = mixed(images if order is None else images[order], seeds, share)
    for start in range(0, 7, 3):
        rows = slice(start, start + 3)
        yield {"image": images[rows], "seed": seeds[rows], "inverted": iris[rows]}


@pytest.mark.parametrize("held", [1, 9000, 2**30])
def test_blocks_change_nothing(held):
    """One batch, some batches and all targets at once; against distances that the tests' makers compute otherwise."""
    told = []
    found = measure(Pixels(), lambda: planted(0.6), batch=2, device="cpu", advance=told.append, held=held)
    wanted = measured(images_of(7), seeds_of(7, 2), mixed(images_of(7), seeds_of(7, 2), 0.6))
    for name, values in found.items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-5, atol=1e-7)
        assert values.dtype == np.float32
    assert sum(told) == 7 * 2 * 7
    whole = measure(Pixels(), lambda: planted(0.6), batch=2, device="cpu", advance=told.append)
    assert all(np.array_equal(values, whole[name]) for name, values in found.items())


def test_planted_answers_come_back_and_vanish():
    def found(share, order=None):
        return measure(Pixels(), lambda: planted(share, order), batch=4, device="cpu", advance=lambda _: None)

    def nearest(one):
        return (one["to_targets"].argmin(2) == np.arange(7)[:, None]).mean()

    keeps, loses, shuffled = found(0.9), found(0.1), found(0.9, np.roll(np.arange(7), 1))
    assert (keeps["to_target"] < keeps["to_seed"]).all()
    assert nearest(keeps) == 1
    assert not (loses["to_target"] < loses["to_seed"]).any()
    assert nearest(shuffled) == 0
    nothing = found(0.0)
    assert (nothing["to_seed"] == 0).all()
    exact = found(1.0)
    assert (exact["to_target"] == 0).all()


def test_an_infinite_distance_is_refused():
    def broken():
        for part in planted(0.5):
            yield part | {"inverted": np.full_like(part["inverted"], np.nan)}

    with pytest.raises(ValueError, match="perceptual distance pixels: expected finite numbers, found NaN"):
        measure(Pixels(), broken, batch=4, device="cpu", advance=lambda _: None)


def test_equal_options_leave_equal_nodes(store):
    """What is not used is no part of the node; a distance that is used is, by its network."""

    def identity(*more):
        node = pipeline(store, *more).graph[KEY]
        return node.section, node.inputs

    first = identity()
    assert identity("perceptual.distances.stlpips_vgg.net=alex") == first
    assert identity("+perceptual.distances.teacher.layers=[layer1]") != first
    assert first[1] == {"invert": f"invert[{ROLE}]", "distance_teacher": "pretrain[teacher]"}
    assert "stlpips_alex" in identity("perceptual.use=[]")[0]["distances"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["perceptual.use=[techer]"], r"perceptual.use: expected some of .* \(.*teacher\), found 'techer'"),
        (["~perceptual.distances.pixels"], "perceptual.distances.pixels: expected kind=pixels"),
        (["+perceptual.distances.teacher.net=vgg"], "net: expected none with kind=layers, found 'vgg'"),
        (["perceptual.distances.teacher.model=''"], "perceptual.distances.model: expected a model with kind=layers"),
        (["perceptual.distances.teacher.model=pixels"], "teacher.model: expected a network, found pixels"),
        (["perceptual.distances.stlpips_vgg.net=squeeze"], "net: expected one of alex, vgg with kind=stlpips"),
        (["+perceptual.distances.l={kind: lpips, net: alex}"], "trunk: expected a set of kind weights"),
        (
            ["+perceptual.distances.l={kind: lpips, net: alex, trunk: nets}", "perceptual.use=[l]"],
            "perceptual.distances.l.trunk: expected a set of data.sets of kind weights, found 'nets'",
        ),
        (["perceptual.batch=0"], "perceptual.batch: expected at least 1, found 0"),
        (["+perceptual.distances.teacher.layers=[layer_1]"], "expected modules of .* found 'layer_1'; .*layer1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message(store, change, message):
    with pytest.raises(ValueError, match=message):
        pipeline(store, *change).make_all([KEY])


def test_a_name_that_names_no_file_is_refused():
    named = {"pixels": PerceptualDistance("pixels"), "a/b": PerceptualDistance("pixels")}
    with pytest.raises(ValueError, match=r"expected names of at most 64 letters, .* found 'a/b'"):
        PerceptualSection(named, (), 1)
