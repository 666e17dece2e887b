"""What the doctor says of importance maps, classes and classifiers, and what it reckons training on maps to take."""

import numpy as np
import pytest
import torch

from alignet.doctor import harmonizer_checks, machine
from alignet.doctor.findings import Finding
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.rehearse.importance import names, write_maps, write_table
from alignet.rehearse.pictures import write_folder
from tests.makers.doctor import QUICK, estimates_of
from tests.makers.worlds import TINY

WORLD = [
    "experiment=harmonize", *TINY, "world.mapped=30", "world.mapped_plain=40", "world.mapped_test=20",
    "harmonize.settings.batch=8", "harmonize.settings.part=2", *QUICK,
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images with classes and maps, as somebody's own."""
    folder, ids = tmp_path_factory.mktemp("own"), names(labelled=True)
    for name in ("taught", "plain", "measured"):
        write_folder(folder / name, ids, 0)
    write_maps(folder / "maps.npz", ids, ["gaze"], 0)
    write_table(folder / "classes.csv", ids, "class")
    return folder


def given(folder, store, *more):
    """The drawn world's student, trained and measured on those files."""
    sets = {
        "mapped": ("images", "taught"), "mapped_plain": ("images", "plain"), "mapped_test": ("images", "measured"),
        "mapped_labels": ("table", "classes.csv"), "mapped_plain_labels": ("table", "classes.csv"),
        "mapped_test_labels": ("table", "classes.csv"), "mapped_maps": ("maps", "maps.npz"),
        "mapped_test_maps": ("maps", "maps.npz"),
    }  # fmt: skip
    lines = [f"data.sets.{name}.path={folder / file}" for name, (_, file) in sets.items()]
    return load([*WORLD, *lines, f"paths.artifacts={store}", *more])


def findings(config) -> list[Finding]:
    sources = Sources(config, (), Pipeline(config))
    models = Models(sources)
    checks = harmonizer_checks
    return [
        *checks.check_maps(sources), *checks.check_where(sources), *checks.check_classifiers(sources, models),
        *checks.check_harmonize(sources, models),
    ]  # fmt: skip


def faults(config) -> list[Finding]:
    return [one for one in findings(config) if one.level == "fault"]


def test_nothing_is_wrong_with_maps_that_fit(files, tmp_path):
    found = findings(given(files, tmp_path))
    assert {one.level for one in found} == {"ok"}
    said = {one.about: one.found for one in found}
    assert said["harmonize.maps"] == "20 of 20 images of mapped have a map of mapped_maps"
    assert said["harmonize.labels"] == "mapped: 5 classes of 20 images, 48 of the network"
    assert said["harmonize.settings.levels"] == "4 levels of maps of 64 pixels, the last of 8"


@pytest.mark.parametrize(
    ("more", "about", "what"),
    [
        (["student.model_args.num_classes=0"], "student", "and timm's xcit_nano_12_p16_224 has none"),
        (["student.model_args.num_classes=4"], "harmonize.labels", "expected classes in 0..3, found 4"),
        (["harmonize.settings.levels=7"], "harmonize.settings.levels", "at least 2 are needed"),
        (["harmonize.settings.mapped=0.01"], "harmonize.settings.mapped", "is none of 8 images"),
        (
            ["evaluate.datasets.where.options.keys=clicks"],
            "evaluate.datasets.where",
            "expected maps clicks, found gaze",
        ),
        (["harmonize.column=label"], "harmonize.labels", "label"),
        (
            ["harmonize.labels=null"],
            "harmonize.labels",
            "expected a class for each image, found none for 20 of 20",
        ),
        (["data.sets.mapped.path={root}/others"], "harmonize.maps", "expected maps of these images"),
        (
            ["data.sets.mapped_maps.path={root}/constant.npz"],
            "harmonize.maps",
            "expected maps that rank pixels",
        ),
        (
            ["data.sets.mapped_test_maps.path={root}/mean.npz"],
            "evaluate.datasets.where",
            "maps of single raters",
        ),
    ],
)
def test_each_mistake_has_one_message_and_what_to_do(files, tmp_path, more, about, what):
    ids = names(labelled=True)
    if "others" in more[0]:
        write_folder(tmp_path / "others", ["a/000.jpg", "a/001.jpg"], 0)
    np.savez(tmp_path / "constant.npz", ids=np.array(ids), gaze=np.ones((len(ids), 24, 24), np.float32))
    np.savez(
        tmp_path / "mean.npz", ids=np.array(ids), gaze=np.random.default_rng(0).random((len(ids), 24, 24))
    )
    found = faults(given(files, tmp_path / "store", *(one.replace("{root}", str(tmp_path)) for one in more)))
    mine = [one for one in found if one.about == about]
    assert len(mine) == 1, found
    assert what in mine[0].found


def test_negative_maps_are_refused_for_pictures_alone(files, tmp_path):
    ids = names(labelled=True)
    signed = np.random.default_rng(0).normal(size=(len(ids), 3, 24, 24))
    np.savez(tmp_path / "signed.npz", ids=np.array(ids), gaze=signed)
    more = [
        f"data.sets.mapped_test_maps.path={tmp_path / 'signed.npz'}", "++stimuli.maps={mapped_test_maps: mapped_test}",
        "++evaluate.datasets.masking={family: masking, images: {}, data: {}, settings: [original], nodes: "
        '{stimuli: "stimuli[mapped_test_maps]", decisions: "embed[{model}:logits.stimuli.mapped_test_maps]"}, '
        "options: {animals: [[0, 9]]}}",
    ]  # fmt: skip
    (found,) = faults(given(files, tmp_path / "store", *more))
    assert found.about == "stimuli.maps.mapped_test_maps"
    assert "expected values of at least 0" in found.found
    paths = [
        f"data.sets.mapped_test.path={files / 'taught'}",
        f"data.sets.mapped_test_maps.path={files / 'maps.npz'}",
    ]
    one = estimates_of(*WORLD, *paths, *more[1:], f"paths.artifacts={tmp_path}")
    levels = one.sources.config.stimuli.settings.levels
    assert one.rows("student", "stimuli.mapped_test_maps").number == 20 * (levels + 1)
    assert one.width("student", "logits") == 48
    pictures = one.of("stimuli[mapped_test_maps]")
    assert pictures.seconds > 20 * one.measured.stimulus()
    assert f"{20 * (levels + 1)} images" in one.of("embed[student:logits.stimuli.mapped_test_maps]").how


def test_every_node_of_the_world_with_maps_is_estimated(tmp_path):
    one = estimates_of(*WORLD, f"paths.artifacts={tmp_path}")
    rows = machine.table(one.sources, one)
    assert [row.key for row in rows] == list(one.sources.graph)
    for row in rows:
        assert not row.failed, row
        assert not row.estimate.unknown, row
        assert "no estimate for" not in row.estimate.how
    seconds = {row.key: row.estimate for row in rows}
    assert "second derivative" not in seconds["harmonize[unharmonized]"].how
    assert seconds["saliency[student.mapped_test]"].disk == pytest.approx(20 * 4 * 3 * 64**2, rel=0.02)
    assert seconds["index[mapped]"].how.startswith("30 images")


@pytest.mark.parametrize("more", [[], ["runtime.recompute=true"], ["harmonize.settings.mixup=1.0"]])
def test_measuring_leaves_the_network_as_it_was(tmp_path, more):
    one = estimates_of(*WORLD, *more, "doctor.seconds=5", f"paths.artifacts={tmp_path}")
    encoder = one.measured.models.encoder("student")
    before = {name: held.clone() for name, held in encoder.module.state_dict().items()}
    wants = {name: held.requires_grad for name, held in encoder.module.named_parameters()}
    with_maps, without = one.measured.harmonizing(True), one.measured.harmonizing(False)
    assert "steps of" in with_maps.how
    assert with_maps.seconds > without.seconds
    assert one.measured.gradient("student").seconds > 0
    assert all(torch.equal(held, before[name]) for name, held in encoder.module.state_dict().items())
    assert {name: held.requires_grad for name, held in encoder.module.named_parameters()} == wants
    assert not [part for part in encoder.module.modules() if "forward" in vars(part)]
    assert not encoder.module.training
