"""Damage to the material of an evaluation is told before anything is trained: by doctor and by the pipeline, alike."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from alignet.doctor import dry_run
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.rehearse.cut_down import cut_down
from alignet.runtime.artifacts import ArtifactError
from alignet.stages import pipeline, rehearse
from tests.rehearse.test_rehearse import SMALL

ALSO = "+also=[similarity,nights,levels,few_shot_imagenet,few_shot_cub,few_shot_colon,breeds,imagenet_transfer,wordnet]"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A miniature of everything: its folder, and the real configuration over it."""
    folder = tmp_path_factory.mktemp("drawn")
    config = load([*SMALL, ALSO])
    small = cut_down(config, folder).config
    ready, left = rehearse._with_data(small, folder / "data")
    assert not left
    return folder / "data", ready


def linked(source, target):
    """Pictures are linked, since none is written to; all other files are copies."""
    if source.endswith((".jpg", ".jpeg", ".JPEG", ".png")):
        os.link(source, target)
    else:
        shutil.copyfile(source, target)


def over(drawn, tmp_path):
    """A copy of the data, the configuration over it as a run of its own, and the place of a set."""
    data, ready = drawn
    shutil.copytree(data, tmp_path / "data", copy_function=linked)
    sets = {
        name: dataclasses.replace(one, path=one.path.replace(str(data), str(tmp_path / "data")))
        for name, one in ready.data.sets.items()
    }
    config = dataclasses.replace(
        ready,
        data=dataclasses.replace(ready.data, sets=sets),
        paths=dataclasses.replace(ready.paths, artifacts=str(tmp_path / "store")),
        rehearse=dataclasses.replace(ready.rehearse, active=False),
    )
    return config, lambda name: Path(sets[name].path)


def edited(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def without(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def mat(path, **arrays):
    savemat(path / "simMatrix.mat" if path.is_dir() else path, arrays)


def column(path, name, value, rows=None):
    """A column of a Parquet file of trials with another value, in all rows or those that a mask names."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path).to_pydict()
    for row in range(len(table[name])):
        if rows is None or rows(table, row):
            table[name][row] = value(table, row) if callable(value) else value
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def first_folder(path):
    return sorted(one for one in path.iterdir() if one.is_dir())[0]


def renumbered(path):
    """NIGHTS' items with a picture that is not there."""
    edited(path, "ref/000.png", "ref/999.png")


KING = 1.0 - np.eye(12)[None]
# what is damaged -> what is said
DAMAGE = {
    "few-shot class with one image": (
        lambda at: without(sorted(first_folder(at("cub_train")).iterdir())[0]), r"CUB: .*class_0"),
    "few-shot image beside the folders": (
        lambda at: shutil.copyfile(next(at("cub_train").rglob("*.jpg")), at("cub_train") / "x.jpg"),
        r"CUB: expected images in folders of classes, found 1 beside them"),
    "few-shot test class that was not learned": (
        lambda at: first_folder(at("cub_test")).rename(at("cub_test") / "unheard"), r"CUB: .*unheard"),
    "split set of one class": (
        lambda at: [without(one) for one in sorted(at("colon").iterdir())[1:]], r"Colon: .*classes"),
    "ImageNet class without validation image": (
        lambda at: without(first_folder(at("imagenet_val"))), r"(entity13|ImageNet|probe|living17)"),
    "ImageNet class without training image": (
        lambda at: without(first_folder(at("imagenet_train"))), r"(entity13|ImageNet|probe)"),
    "ImageNet folder that is no WordNet id": (
        lambda at: first_folder(at("imagenet_val")).rename(at("imagenet_val") / "tench"), r"tench"),
    "V2's folders beyond the classes": (
        lambda at: (at("imagenet_v2") / "0").rename(at("imagenet_v2") / "5000"), r"5000"),
    "ImageNet-A of other classes": (
        lambda at: first_folder(at("imagenet_a")).rename(at("imagenet_a") / "n99999999"), r"n99999999"),
    "ImageNet-C without severities": (
        lambda at: [one.rename(one.parent / "hard") for one in sorted(at("imagenet_c").rglob("1")) if one.is_dir()],
        r"<corruption>/<severity>"),
    "ReaL of fewer images": (
        lambda at: at("imagenet_real").write_text(json.dumps([[0]])), r"(?i)real"),
    "ReaL of a class beyond": (
        lambda at: at("imagenet_real").write_text(json.dumps([[7000]] * 276)), r"7000"),
    "BREEDS with a missing root": (
        lambda at: edited(at("breeds_hierarchy"), "n00001740 n00004258\nn00001740 n00021939\n", ""), r"n00001740"),
    "BREEDS with a branch less": (
        lambda at: edited(at("breeds_hierarchy"), "n00001740 n00021939\n", ""), r"(?i)breeds|class_hierarchy"),
    "BREEDS cut short": (
        lambda at: at("breeds_hierarchy").write_text(at("breeds_hierarchy").read_text()[:-4]), r"class_hierarchy"),
    "BREEDS' names without tabs": (
        lambda at: at("breeds_names").write_text(at("breeds_names").read_text().replace("\t", " ")), r"node_names"),
    "BREEDS' classes that are no JSON": (
        lambda at: at("breeds_classes").write_text("{"), r"dataset_class_info"),
    "WordNet with a parent less": (
        lambda at: edited(at("wordnet"), "00015388 03 n 01", "00015389 03 n 01"), r"n00015388"),
    "WordNet that is another file": (
        lambda at: at("wordnet").write_text("a text\n"), r"data\.noun"),
    "Peterson with two matrices": (
        lambda at: mat(at("peterson_various"), one=np.eye(12), two=np.eye(12)), r"(?i)one.*two"),
    "Peterson of other images": (
        lambda at: mat(at("peterson_fruits"), simMatrix=np.eye(11)), r"11"),
    "Peterson with NaN": (
        lambda at: mat(at("peterson_animals"), simMatrix=np.full((12, 12), np.nan)), r"(?i)nan"),
    "Cichy under another name": (
        lambda at: mat(at("cichy_judgments"), other=np.eye(12)), r"judgments"),
    "Cichy that is not symmetric": (
        lambda at: mat(at("cichy_judgments"), judgments=np.arange(144.0).reshape(1, 12, 12)), r"(?i)symmetr"),
    "King without its second set": (
        lambda at: mat(at("king_judgments"), BEHAVIOR={"set1": {"pairwisedistances": KING}}), r"set2"),
    "a judged image less": (
        lambda at: without(at("king1_images") / "003.jpg"), r"11"),
    "no MATLAB file": (
        lambda at: at("king_judgments").write_bytes(b"text"), r"BEHAVIOR"),
    "NIGHTS without a picture": (lambda at: renumbered(at("nights_items")), r"ref/999\.png"),
    "NIGHTS without votes": (
        lambda at: edited(at("nights_items"), "votes", "ballots"), r"votes"),
    "NIGHTS without the asked split": (
        lambda at: at("nights_items").write_text(at("nights_items").read_text().replace(",test,", ",train,")), r"test"),
    "a label that is neither side": (
        lambda at: edited(at("nights_items"), ",1,0,", ",7,0,"), r"7"),
    "participants with one set of triplets": (
        lambda at: _same_sets(at("levels_trials")), r"(?i)shared_sets"),
    "nobody passes the catch trials": (
        lambda at: column(at("levels_trials"), "selected_image", lambda table, row: table["image1Path"][row],
                          lambda table, row: table["exp_trial_type"][row] == "catch_trial"), r"(?i)participant|catch"),
    "times in seconds": (
        lambda at: column(at("levels_trials"), "rt", lambda table, row: table["rt"][row] / 1000), r"(?i)seconds|milli"),
    "a level of another name": (
        lambda at: column(at("levels_trials"), "triplet_type", "finest"), r"finest"),
    "Levels' images of another folder": (
        lambda at: [one.rename(one.with_name(f"z{one.name}")) for one in sorted(at("levels_images").rglob("*.jpg"))],
        r"levels: .*image"),
    "choices of more objects": (lambda at: np.save(at("human_val"), np.array([[0, 1, 77]] * 50)), r"77"),
    "choices that repeat an object": (
        lambda at: np.save(at("human_val"), np.array([[1, 1, 2]] * 50)), r"(?i)repeat|distinct"),
    "objects in other words": (
        lambda at: at("objects").write_text(at("objects").read_text().replace("object", "thing")), r"(?i)object"),
}  # fmt: skip


def _same_sets(path):
    """Everybody answers the triplets of the first participant."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    own = [row for row in rows if row["participant"] == "p00"]
    people = sorted({row["participant"] for row in rows})
    every = [row | {"participant": person} for person in people for row in own]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(every, schema=table.schema), path)


def test_sound_material_has_no_fault_and_every_evaluation_in_reach_is_tried(drawn, tmp_path):
    config, _ = over(drawn, tmp_path)
    sources = Sources(config, (), Pipeline(config))
    assert [one.found for one in dry_run.faults(sources)] == []
    tried = {one.about.rpartition(".")[2] for one in dry_run.check_material(sources)}
    families = {name: dataset.family for name, dataset in config.evaluate.datasets.items()}
    assert tried == {name for name, family in families.items() if family in dry_run.FAMILIES}
    assert len(tried) >= 20


def groups():
    """The damages in so few groups that no two of a group are about one data set."""
    kinds = {"few-shot": "cub", "split": "colon", "V2's": "ImageNet", "ReaL": "ImageNet", "ImageNet-A": "ImageNet",
             "ImageNet-C": "ImageNet", "BREEDS'": "BREEDS", "King": "king", "a judged": "king", "no MATLAB": "king",
             "a label": "NIGHTS", "participants": "levels", "nobody": "levels", "times": "levels", "a level": "levels",
             "Levels'": "levels", "choices": "people", "objects": "people"}  # fmt: skip
    found: list[dict[str, str]] = []
    for name in DAMAGE:
        kind = next((kind for start, kind in kinds.items() if name.startswith(start)), name.split()[0])
        group = next((one for one in found if kind not in one), None)
        if group is None:
            found.append(group := {})
        group[kind] = name
    return [list(group.values()) for group in found]


@pytest.mark.parametrize("names", groups(), ids=len)
def test_damage_is_told_before_anything_is_made(drawn, tmp_path, names):
    config, at = over(drawn, tmp_path)
    for name in names:
        DAMAGE[name][0](at)
    with pytest.raises(ArtifactError, match="Nothing was made") as caught:
        pipeline.act(config)
    for name in names:
        assert re.search(DAMAGE[name][1], str(caught.value)), name
    assert not list((tmp_path / "store").glob("*/*/MANIFEST.json"))


def test_doctor_says_the_same(drawn, tmp_path, capsys):
    from alignet.doctor.findings import one_line
    from alignet.stages import doctor

    config, at = over(drawn, tmp_path)
    edited(at("nights_items"), "ref/000.png", "ref/999.png")
    with pytest.raises(ArtifactError) as caught:
        pipeline.act(config)
    checks = dict(doctor._checks(Sources(config, (), Pipeline(config)), None))
    lines = [one for name in ("evaluations", "material") for one in checks[name]() if one.level == "fault"]
    assert {one_line(one.found) for one in lines} == {
        line.partition(": ")[2].partition(" It is read for")[0]
        for line in str(caught.value).splitlines()[:-1]
    }
