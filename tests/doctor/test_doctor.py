"""doctor: broken configurations, each named by its line and exit status 1; a sound one."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pytest

from alignet.doctor import models
from alignet.doctor.findings import collect, ok
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.stages import doctor
from tests.makers.doctor import QUICK, SMALL, estimates_of, examine, faults
from tests.makers.toys import TOYS
from tests.makers.worlds import TINY, overrides


def test_a_sound_folder_passes_and_nothing_is_written(photos, tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={photos}")
    assert status == 0, faults(lines)
    assert not faults(lines)
    assert not (tmp_path / "store").exists()
    text = "\n".join(lines)
    assert "features equal timm's own" in text
    assert not re.search(r"\de[+-]\d", text), "a number with an exponent"
    assert "the declared odd one (last) is right" in text
    assert "Apache-2.0" in text
    assert "finetune.settings.retain" in text


def test_the_world_passes_before_and_after_it_was_made(tiny, tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, *TINY, *QUICK)
    assert status == 0, faults(lines)
    doctor.main([*overrides(tiny), *QUICK])
    out = capsys.readouterr().out
    assert "nothing is missing" in out
    assert "0 faults" in out


def _absent(folder):
    (folder / "things_triplets/train_90.npy").unlink()


def _truncated(folder):
    path = folder / "things_triplets/train_90.npy"
    path.write_bytes(path.read_bytes()[:-100])


def _one_based(folder):
    for path in (folder / "things_triplets").glob("*.npy"):
        np.save(path, np.load(path) + 1)


def _odd_one_first(folder):
    path = folder / "things_triplets/train_90.npy"
    np.save(path, np.load(path)[:, [2, 0, 1]])


def _unreadable(folder):
    for path in (folder / "images/pool").glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])


def _rows_of_others(folder):
    path = folder / "teacher_features/images.txt"
    path.write_text(path.read_text().replace("pool/", "other/"))


def _nan(folder):
    path = folder / "teacher_features/things_concepts.npy"
    values = np.load(path)
    values[3, 1] = np.nan
    np.save(path, values)


def _same(folder):
    shutil.copyfile(folder / "things_triplets/train_90.npy", folder / "things_triplets/test_10.npy")


def _short_table(folder):
    path = folder / "concepts.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-3]) + "\n")


def _damaged_weights(folder):
    path = folder / "tf_efficientnet_lite0.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _keep(folder):
    """Nothing is damaged: the options are what is wrong."""


BROKEN = [
    (_absent, [], "data.sets.human_train", "nothing at"),
    (_truncated, [], "data.sets.human_train", "truncated or damaged"),
    (_one_based, [], "data.sets.human_train", "set index_base to 1"),
    (_odd_one_first, [], "data.sets.human_train", "set data.sets.human_train.odd_one=first"),
    (_unreadable, [], "data.sets.pool", "cannot be read"),
    (_rows_of_others, [], "data.sets.image_features", "expected a row for each of"),
    (_nan, [], "data.sets.concept_features", "found NaN in row 3"),
    (_same, [], "data.sets.human_val", "100.0% of its triplets"),
    (_short_table, [], "data.sets.human_train", "give the object list"),
    (_damaged_weights, [], "data.sets.student_weights", "expected readable .safetensors"),
    (_keep, ["student.model_args.depth=2"], "student", "expected the keys of this architecture"),
    (_keep, ["data.object_ids.photographs.prefix=wrong/"], "data.object_ids.photographs", "0 of 32 objects"),
    (_keep, ["data.object_ids.photographs.column=file"], "data.object_ids.photographs", "expected a column out of"),
    (_keep, ["cluster.clusters=1000"], "cluster.clusters", "1,000 clusters of 60 images"),
    (_keep, ["finetune.settings.batch=61"], "finetune.batch", "a batch of 61 images, and the pool has 60"),
    (_keep, ["student.weights=random", "student.model_args.num_classes=0"], "finetune.retain", "a linear classifier"),
    (_keep, ["finetune.settings.frozen=[blokcs]"], "finetune.frozen", "no parameter's name begins with 'blokcs'"),
    (_keep, ["report.category_column=kind"], "data.sets.concepts", "expected a column kind"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "options", "about", "found"), BROKEN)
def test_each_fault_is_named(folder, tmp_path, capsys, damage, options, about, found):
    damage(folder)
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={folder}", *options)
    assert status == 1
    named = [line for line in faults(lines) if line.split()[1] == about]
    assert any(found in line for line in named), faults(lines)


def test_shards_are_read_and_a_broken_one_is_a_fault(folder, tmp_path, capsys):
    import tarfile

    shard = tmp_path / "shards" / "pool-000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for path in sorted((folder / "images/pool").iterdir()):
            tar.add(path, f"pool/{path.name}")
    given = [*SMALL, f"paths.photos={folder}", "data.sets.pool.kind=shards", f"data.sets.pool.path={shard.parent}",
             "data.sets.pool.under=''"]  # fmt: skip
    status, lines = examine(capsys, tmp_path, *given)
    assert status == 0, faults(lines)
    assert any("60 images, 8 of them decoded" in line for line in lines)
    shard.write_bytes(shard.read_bytes()[:-20_000])
    status, lines = examine(capsys, tmp_path, *given)
    assert status == 1
    assert any("pool-000.tar" in line for line in faults(lines))


@pytest.mark.skipif(os.environ.get("CUDA_VISIBLE_DEVICES", "") != "", reason="a GPU may be there")
def test_a_device_that_is_not_there_is_a_fault(photos, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={photos}", "runtime.device=cuda")
    assert status == 1
    assert any("Set runtime.device=cpu" in line for line in faults(lines))


def test_many_faults_are_all_listed_in_one_run(folder, tmp_path, capsys):
    for damage in (_truncated, _unreadable, _nan, _damaged_weights):
        damage(folder)
    (folder / "things_triplets/photo_report.npy").unlink()
    (folder / "things_triplets/test_10.npy").write_bytes(b"")
    options = ["cluster.clusters=1000", "data.object_ids.photographs.prefix=wrong/", "finetune.settings.batch=200",
               "report.category_column=kind"]  # fmt: skip
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={folder}", *options)
    assert status == 1
    named = {line.split()[1] for line in faults(lines)}
    assert {
        "data.sets.human_train", "data.sets.pool", "data.sets.concept_features", "data.sets.student_weights",
        "data.sets.photo_report", "data.sets.human_val", "cluster.clusters", "data.object_ids.photographs",
        "finetune.batch", "data.sets.concepts",
    } <= named  # fmt: skip


def test_a_folder_that_is_not_given_is_a_fault_with_all_that_belongs_in_it(tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, *SMALL)
    assert status == 1
    text = "\n".join(faults(lines))
    assert "Add paths.photos=" in text
    assert "things_triplets/train_90.npy in paths.photos, which is not given" in text
    assert any(line.lstrip().startswith("finetune[alignet]") for line in lines)


def test_a_key_that_does_not_exist_ends_as_everywhere(tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, "finetune.settings.stepps=3")
    assert status == 1
    assert lines == [line for line in lines if line.startswith("error: no configuration key")]


def test_unreadable_images_are_skipped_where_they_may_be(folder, tmp_path, capsys):
    files = sorted((folder / "images/pool").glob("*.png"))
    for path in files[::2]:
        path.write_bytes(path.read_bytes()[:60])
    status, lines = examine(
        capsys, tmp_path, *SMALL, f"paths.photos={folder}", "embed.unreadable=skip", "doctor.images=all"
    )
    assert status == 0, faults(lines)
    assert any("sets such images aside" in line for line in lines)
    assert any(line.lstrip().startswith("finetune[alignet]") for line in lines)


@pytest.mark.parametrize("case", TOYS)
def test_features_are_compared_with_each_librarys_own(case, tmp_path, monkeypatch):
    from alignet.backbones import load_encoder

    encoder = load_encoder(TOYS[case], seed=3)
    held = Models(estimates_of(f"paths.artifacts={tmp_path}").sources)
    monkeypatch.setattr(Models, "networks", lambda self: {"student": None})
    monkeypatch.setattr(Models, "encoder", lambda self, name: encoder)
    (fine,) = models.check_preprocessing(held.sources, held)
    assert fine.level == "ok", fine
    assert f"features equal {encoder.backbone.library}'s own" in fine.found
    sound = encoder.transform
    encoder = dataclasses.replace(
        encoder, transform=lambda image: sound(image) + 1, pixels=lambda image: sound(image) + 1
    )
    (wrong,) = models.check_preprocessing(held.sources, held)
    assert wrong.level == "fault"


def test_random_weights_were_trained_at_no_size(tmp_path):
    from alignet.doctor import config_checks

    for weights, level in (("hub", "warning"), ("random", None)):
        given = [
            "student=vit_small_16",
            "student.image_size=96",
            f"student.weights={weights}",
            f"paths.artifacts={tmp_path}",
        ]
        found = [one.level for one in config_checks.check_sizes(estimates_of(*given).sources)]
        assert found == ([level] if level else [])


def test_weights_of_hubs_are_named_without_fetching_them(tmp_path, monkeypatch):
    from alignet.backbones import hub

    student = load([]).student
    vit = dataclasses.replace(student, architecture="vit_base_patch16_224.augreg_in1k", weights="hub")
    clip = dataclasses.replace(
        student, library="open_clip", architecture="ViT-B-16-SigLIP", tag="webli", weights="hub"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "present", lambda one: None)
    for model, repository in ((vit, "timm/vit_base_patch16_224.augreg_in1k"), (clip, "timm/ViT-B-16-SigLIP")):
        finding = models._hub("student", model)
        assert finding.level == "fault"
        assert repository in finding.found
        assert "prefetch" in finding.fix
    monkeypatch.setattr(hub, "present", lambda one: [tmp_path])
    assert models._hub("student", vit).level == "ok"
    unknown = models._hub("student", dataclasses.replace(clip, tag="none"))
    assert unknown.level == "fault"
    assert "its tags" in unknown.found


def test_a_network_is_weighed_before_it_is_loaded(monkeypatch, tmp_path):
    student = load([]).student
    assert models.parameter_bytes(
        dataclasses.replace(student, architecture="vit_base_patch16_224", model_args={})
    ) == (4 * 86_567_656)
    clip = dataclasses.replace(student, library="open_clip", architecture="ViT-B-32", model_args={})
    assert models.parameter_bytes(clip) == 4 * 151_277_313
    monkeypatch.setattr(models, "memory_left", lambda: 1000)
    config = load([f"paths.artifacts={tmp_path}"])
    held = Models(Sources(config, (), Pipeline(config)))
    assert held.encoder("student") is None
    assert "on a larger machine" in held.failed["student"]


def test_a_check_that_fails_is_a_fault_of_its_own():
    def broken():
        yield ok("a", "first")
        raise KeyError("what")

    found = list(collect([("one", broken), ("two", lambda: iter([ok("b", "second")]))]))
    assert [finding.level for finding in found] == ["ok", "fault", "ok"]
    assert "KeyError" in found[1].found


def test_help_says_what_it_reads_and_its_section(capsys):
    doctor.main(["--help"])
    out = capsys.readouterr().out
    assert "status  1 if anything is a fault" in out
    assert "assume: {}" in out
