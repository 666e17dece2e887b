"""doctor: files that only their evaluation can read are opened as it does; damaged ones are faults of one line."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from alignet.data.breeds import TASKS, Task
from alignet.doctor.evaluations import check_evaluations, opened
from alignet.doctor.files import check_files
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline

CLASSES = [f"n2000000{number}" for number in range(4)]
EDGES = "n00001740 n10000000\nn00001740 n10000001\n" + "".join(
    f"n1000000{number // 2} {name}\n" for number, name in enumerate(CLASSES)
)
HEADER = "id,votes,right_vote,split,ref,left,right,prompt,is_imagenet\n"


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (len(path.name), 9, 9)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Images and files of similarity judgments, NIGHTS, BREEDS and ReaL, with 4 or 5 images each."""
    judged, other = tmp_path / "judged", tmp_path / "generalise"
    matrix = np.random.default_rng(0).uniform(1, 9, size=(4, 4))
    matrix = matrix + matrix.T
    for name in ("various", "animals", "automobiles", "fruits", "furniture", "vegetables"):
        for letter in "abcd":
            picture(judged / f"peterson/{name}/images/{letter}.png")
        (judged / f"peterson/{name}/sim_judgments").mkdir()
        savemat(judged / f"peterson/{name}/sim_judgments/sim.mat", {"sim": matrix})
    for letter in "abcd":
        for place in ("cichy/images", "king/set1", "king/set2"):
            picture(judged / f"{place}/{letter}.png")
    savemat(judged / "cichy/judgments_general.mat", {"judgments": np.stack([matrix] * 3)})
    savemat(
        judged / "king/BEHAVIOR.mat",
        {"BEHAVIOR": {one: {"pairwisedistances": matrix} for one in ("set1", "set2")}},
    )
    for letter in "abc":
        picture(judged / f"nights/{letter}.png")
    (judged / "nights/data.csv").write_text(HEADER + "0,6,1,test,a.png,b.png,c.png,x,True\n")
    for row, name in enumerate(CLASSES):
        picture(tmp_path / f"train/{name}/{name}_1.png")
        picture(tmp_path / f"val/{name}/ILSVRC2012_val_0000000{row + 1}.png")
    (other / "breeds").mkdir(parents=True)
    (other / "imagenet").mkdir()
    (other / "breeds/class_hierarchy.txt").write_text(EDGES)
    (other / "breeds/node_names.txt").write_text("n10000000\tdog\nn10000001\ttool\n")
    (other / "breeds/dataset_class_info.json").write_text(
        json.dumps([[row, name, name] for row, name in enumerate(CLASSES)])
    )
    (other / "imagenet/real.json").write_text("[[0], [1], [], [3]]")
    return tmp_path


@pytest.fixture
def findings(folder, monkeypatch):
    """What is found, by the set: a function."""
    for name in TASKS:
        monkeypatch.setitem(TASKS, name, Task(1, 2, "n00001740", 2))

    def find(*options):
        line = [
            "experiment=own", f"paths.images={folder / 'train'}", f"paths.map={folder / 'map.npz'}",
            "+also=[similarity,nights,breeds,imagenet_transfer]", f"paths.judged={folder / 'judged'}",
            f"paths.generalise={folder / 'generalise'}", f"paths.imagenet={folder / 'train'}", *options,
        ]  # fmt: skip
        config = load([*line, f"paths.artifacts={folder / 'store'}"])
        sources = Sources(config, (), Pipeline(config))
        found = list(check_evaluations(sources))
        assert all("\n" not in one.line(30) for one in found)
        return sources, {one.about.removeprefix("data.sets."): one for one in found}

    return find


def test_what_is_sound_is_described(findings):
    sources, found = findings()
    assert all(one.level == "ok" for one in found.values()), found
    said = {name: one.found for name, one in found.items()}
    assert "judgments of 4 images (similarity sim)" in said["peterson_various"]
    assert (
        "judgments of 4 images (dissimilarity judgments, mean of 3 participants)" in said["cichy_judgments"]
    )
    assert "1 items whose pictures are all there" in said["nights_items"]
    assert "2 superclasses of 2 subclasses" in said["breeds_hierarchy"]
    assert "labels of 4 images, 4 of them there" in said["imagenet_real"]
    assert {"breeds_names", "breeds_classes", "king_judgments", "peterson_fruits"} <= opened(sources)
    files = {one.about: one.found for one in check_files(sources)}
    assert files["data.sets.cichy_judgments"].endswith("read for its evaluations below")
    assert "which is read when it is used" not in str(files)


@pytest.mark.parametrize(
    ("name", "path", "damage", "message"),
    [
        ("cichy_judgments", "judged/cichy/judgments_general.mat", lambda data: data[:90], "MATLAB"),
        ("peterson_fruits", "judged/peterson/fruits/images/d.png", None, r"one square matrix of 3 images"),
        ("nights_items", "judged/nights/c.png", None, "1 missing, the first c.png"),
        ("nights_items", "judged/nights/data.csv", lambda data: data[:-20], "columns on line 2"),
        ("breeds_hierarchy", "generalise/breeds/class_hierarchy.txt", lambda data: data[:60], "class_hierarchy.txt"),
        ("breeds_hierarchy", "generalise/breeds/node_names.txt", lambda data: data.encode("utf-16")
         if isinstance(data, str) else data.decode().encode("utf-16"), "found other bytes"),
        ("imagenet_real", "generalise/imagenet/real.json", lambda data: data[:-3], "found a damaged file"),
        ("imagenet_real", "generalise/imagenet/real.json", lambda data: b"[[9]]", "class numbers in 0..3"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_a_fault(folder, findings, name, path, damage, message):
    file = folder / path
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    one = findings()[1][name]
    assert one.level == "fault"
    assert message in one.found
    assert "evaluate.datasets." in one.fix


def test_what_cannot_be_compared_is_not_called_sound(folder, findings):
    for path in (folder / "judged/cichy/images").iterdir():
        path.unlink()
    found = findings()[1]["cichy_judgments"]
    assert (found.level, "not read, since data.sets.cichy_images" in found.found) == ("warning", True)
    one = findings("evaluate.datasets.peterson_coarse.options.under=variuos/")[1]["peterson_various"]
    assert one.level == "fault"
    assert "no image id begins with 'variuos/'" in one.found


def test_columns_of_tables_are_those_that_are_asked_for(folder, findings):
    labels = folder / "labels.csv"
    ids = [
        path.relative_to(folder / "train").as_posix() for path in sorted((folder / "train").rglob("*.png"))
    ]
    labels.write_text("id;kind;group\n" + "".join(f"{name};k{row % 2};g\n" for row, name in enumerate(ids)))
    shots = (
        "+evaluate.datasets.mine={family: few_shot, images: {all: pool}, data: {all_labels: mine}, nodes: {}, "
        "settings: [original], options: {shots: [1], draws: 1, C: 1.0, labels: table, label: kind, few: stop, "
        "split: 0.5}}"
    )
    more = [f"+data.sets.mine={{kind: table, path: {labels}}}", shots]
    assert "kind of each of 4 images, 2 different" in findings(*more)[1]["mine"].found
    one = findings(*more, "evaluate.datasets.mine.options.label=sort")[1]["mine"]
    assert one.level == "fault"
    assert "expected a column sort, found id, kind, group" in one.found
