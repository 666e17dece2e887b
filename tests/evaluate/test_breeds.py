"""BREEDS: superclasses from hierarchy files by hand, a readout that carries to other subclasses, damaged files."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignet.data.breeds import (
    ROOT,
    TASKS,
    Hierarchy,
    Superclass,
    Task,
    load_hierarchy,
    load_split,
    split_task,
)
from alignet.evaluate.breeds import breeds
from alignet.evaluate.families.generalisation import breeds as family
from alignet.evaluate.families.material import Material
from tests.makers.photos import PHOTOS, needs_photos

# entity -> living, things -> three groups; `dummy1` is a chain of one; insects have too few classes
EDGES = f"""{ROOT} n00004258
{ROOT} n00021939
n00004258 n10000000
n00004258 n10000001
n00021939 n10000002
n10000000 dummy1
dummy1 n20000000
dummy1 n20000001
dummy1 n20000002
n20000002 n20000003
n20000002 n20000004
n10000001 n20000005
n10000002 n20000006
n10000002 n20000007
n10000002 n20000008
n10000002 n20000009
n00021939 n90000000
"""
CLASSES = [f"n2000000{number}" for number in (0, 1, 3, 4, 5, 6, 7, 8, 9)]
TASK = Task(2, 4, ROOT, 2)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "class_hierarchy.txt").write_text(EDGES)
    (tmp_path / "node_names.txt").write_text("n10000000\tdog, domestic dog\nn10000002\ttool\n")
    (tmp_path / "dataset_class_info.json").write_text(
        json.dumps([[row, name, f"class {row}"] for row, name in enumerate(CLASSES)])
    )
    return {
        name: tmp_path / file
        for name, file in (
            ("hierarchy", "class_hierarchy.txt"),
            ("names", "node_names.txt"),
            ("classes", "dataset_class_info.json"),
        )
    }


def load(files):
    return load_hierarchy(files["hierarchy"], files["names"], files["classes"])


def test_levels_leaves_and_superclasses_by_hand(files):
    tree = load(files)
    assert tree.levels()["n20000003"] == 5
    assert "n90000000" not in tree.levels()  # leads to no class
    assert tree.leaves("n10000000") == ["n20000000", "n20000001", "n20000003", "n20000004"]
    assert tree.below("n10000001") == {"n10000001", "n20000005"}
    dog, tool = split_task(tree, TASK)
    assert (dog.name, tool.name) == ("dog, domestic dog", "tool")
    generator = np.random.RandomState(
        2
    )  # the published draw: one generator, superclasses in the order of their ids
    drawn = generator.choice(tree.leaves("n10000000"), 4, replace=False).tolist()
    assert (list(dog.source), list(dog.target)) == (drawn[:2], drawn[2:])
    drawn = generator.choice(tree.leaves("n10000002"), 4, replace=False).tolist()
    assert (list(tool.source), list(tool.target)) == (drawn[:2], drawn[2:])
    assert split_task(tree, TASK) == split_task(tree, TASK)
    assert any(split_task(tree, TASK, seed=seed) != split_task(tree, TASK) for seed in range(5))


def test_a_level_is_the_longest_path(files):
    with files["hierarchy"].open("a") as handle:
        handle.write(f"{ROOT} n20000003\n")
    assert load(files).levels()["n20000003"] == 5
    with files["hierarchy"].open("a") as handle:
        handle.write("n20000002 dummy1\n")
    with pytest.raises(ValueError, match="found a node below itself"):
        load(files).levels()


def test_the_four_tasks_are_the_benchmarks():
    assert {name: (task.level, task.subclasses, task.superclasses) for name, task in TASKS.items()} == {
        "entity13": (3, 20, 13), "entity30": (4, 8, 30), "living17": (5, 4, 17), "nonliving26": (5, 4, 26),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hierarchy", EDGES[:100], r"expected edges from n00001740|expected `parent child`"),
        ("hierarchy", "n00001740\n", r"expected `parent child` in line 1, found 'n00001740'"),
        ("names", "n10000000 dog\n", r"expected `wnid<tab>name` in line 1"),
        ("classes", "[[0, \"n2000", r"expected JSON, a list of \[class number, wnid, name\]"),
        ("classes", "[[0, \"n20000000\"]]", r"expected JSON, a list of"),
        ("classes", "[[0, \"n77777777\", \"x\"]]", r"expected edges from n00001740 \(entity\)"),
    ],
)  # fmt: skip
def test_damaged_hierarchies(files, name, text, message):
    files[name].write_text(text)
    with pytest.raises(ValueError, match=message):
        load(files)


def test_a_missing_file_and_a_task_that_does_not_fit(files):
    with pytest.raises(
        ValueError, match="level 2 below n00001740 with 40 classes, as the benchmark has, found 0"
    ):
        split_task(load(files), Task(2, 40, ROOT, 2))
    files["names"].unlink()
    with pytest.raises(ValueError, match=r"node_names.txt: expected .*, found no file"):
        load(files)


def test_other_encodings_and_nested_brackets_are_messages(files):
    files["names"].write_bytes("n1\tdog\n".encode("utf-16"))
    with pytest.raises(
        ValueError, match=r"node_names.txt: expected .* as text in UTF-8, found other bytes .*UTF-16"
    ):
        load(files)
    files["classes"].write_text("[" * 100_000)
    with pytest.raises(ValueError, match="expected JSON, a list of"):
        load(files)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(files):
    expected = split_task(load(files), TASK)
    for path in files.values():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert split_task(load(files), TASK) == expected


def test_every_file_that_is_cut_short_is_refused(files):
    """Wherever the edges end, a class hangs from nothing, a superclass is missing, or the last line is no edge."""
    last = "n00021939 n90000000\n"  # leads to no class: without it nothing is lost
    whole = EDGES.removesuffix(last)
    for end in range(len(whole) - 1):
        files["hierarchy"].write_text(whole[:end])
        with pytest.raises(ValueError, match=r"class_hierarchy\.txt: expected") as error:
            split_task(load(files), TASK)
        assert "\n" not in str(error.value)
    files["hierarchy"].write_text(whole)
    assert len(split_task(load(files), TASK)) == 2
    files["names"].write_text("n10000000\tdog, domestic dog\n")
    with pytest.raises(ValueError, match="expected a name of the superclass n10000002 in the file of names"):
        split_task(load(files), TASK)


def test_leaves_are_found_once_by_many_ways_and_in_a_circle():
    """40 diamonds in a row: 2^40 ways down to one class."""
    ways = {f"a{i}": (f"b{i}", f"c{i}") for i in range(40)}
    ways |= {f"{side}{i}": (f"a{i + 1}",) for side in "bc" for i in range(40)}
    assert Hierarchy(ways, {}, frozenset({"a40"})).leaves("a0") == ["a40"]
    circle = Hierarchy({ROOT: ("x",), "x": ("y", "dog"), "y": ("x",)}, {}, frozenset({"dog"}))
    assert circle.leaves("x") == ["dog"]
    with pytest.raises(ValueError, match="expected no circles, found a node below itself"):
        split_task(circle, Task(1, 1, ROOT, 2))


def test_a_split_from_a_table_and_damaged_ones(tmp_path):
    path = tmp_path / "split.csv"
    rows = ["dog,n1,source", "dog,n2,target", "tool,n3,source", "tool,n4,target"]
    path.write_text("superclass,subclass,domain\n" + "\n".join(rows) + "\n")
    assert load_split(path) == [Superclass("dog", ("n1",), ("n2",)), Superclass("tool", ("n3",), ("n4",))]
    for changed, message in (
        (rows[:2], "at least two superclasses, found 1"),
        ([*rows, "dog,n3,target"], "each subclass once, found 1 more often, the first n3"),
        (rows[:3], "source and target subclasses of tool, found 1 and 0"),
        ([*rows, "dog,n5,test"], "source or target, found 'test' of n5"),
    ):
        path.write_text("superclass,subclass,domain\n" + "\n".join(changed) + "\n")
        with pytest.raises(ValueError, match=message):
            load_split(path)


SPLIT = [
    Superclass(
        name, tuple(f"n0{row}00000{k}" for k in range(4)), tuple(f"n0{row}00000{k}" for k in range(4, 8))
    )
    for row, name in enumerate(("dog", "tool", "fish"))
]


def pictures(seed, each=30, shared=3.0, own=1.0, width=20):
    """Features whose subclasses share their superclass's centre, and lie around it in directions of their own."""
    centres = np.random.default_rng(0)
    generator = np.random.default_rng(seed)
    features, wnids = [], []
    for one in SPLIT:
        middle = shared * centres.normal(size=width)
        for name in (*one.source, *one.target):
            centre = middle + own * centres.normal(size=width)
            features.append(centre + generator.normal(size=(each, width)))
            wnids += [name] * each
    return np.concatenate(features).astype(np.float32), np.array(wnids)


def measure(train, test, **options):
    settings = {"dataset": "toys", "C": 1.0, "per_subclass": None, "seed": 0, "bootstrap": 200} | options
    return breeds(*train, *test, SPLIT, **settings)


def test_what_superclasses_share_carries_over_and_what_they_do_not_is_at_chance():
    target, source = measure(pictures(1), pictures(2)).scores
    assert (target.metric, source.metric) == ("breeds", "breeds_source")
    assert target.value > 0.95
    assert (target.n, target.over, source.over, target.chance) == (
        360,
        "subclasses",
        "images",
        pytest.approx(1 / 3),
    )
    alone = measure(pictures(1, shared=0, own=3), pictures(2, shared=0, own=3))
    target, source = alone.scores
    assert source.value > 0.95  # subclasses are learned,
    assert target.low < 1 / 3 < target.high  # and nothing of them holds for others
    inner = [float(text) for text in target.note.partition("over images [")[2].rstrip("]").split(", ")]
    assert inner[1] - inner[0] < target.high - target.low  # subclasses are fewer than images
    table = alone.tables["breeds"]
    assert len(table["subclass"]) == 24
    means = [table["accuracy"][np.array(table["domain"]) == domain].mean() for domain in ("target", "source")]
    assert means == pytest.approx([target.value, source.value])


def test_few_images_of_each_subclass_and_images_of_other_classes():
    x, wnids = pictures(1)
    wider = (np.concatenate([x, np.ones((3, 20))]), np.append(wnids, ["n99999999"] * 3))
    assert measure(wider, pictures(2)).scores[0].value == measure((x, wnids), pictures(2)).scores[0].value
    assert "C = 1, 60 training images" in measure((x, wnids), pictures(2), per_subclass=5).scores[0].note


def test_missing_subclasses_and_damaged_features():
    x, wnids = pictures(1)
    kept = wnids != "n00000000"
    with pytest.raises(
        ValueError, match=r"training: expected images of all 12 .* none of 1, the first n00000000"
    ):
        measure((x[kept], wnids[kept]), pictures(2))
    with pytest.raises(ValueError, match="test: expected images of all 24"):
        measure((x, wnids), (x[kept], wnids[kept]))
    with pytest.raises(ValueError, match="finite test features"):
        measure((x, wnids), (np.full_like(x, np.nan), wnids))
    with pytest.raises(ValueError, match="finite training features"):
        measure((np.full_like(x, np.nan), wnids), (x, wnids))


def test_the_family_reads_either_kind_of_file(files, monkeypatch):
    monkeypatch.setitem(TASKS, "living17", TASK)
    generator = np.random.default_rng(0)
    ids = [f"{name}/{row}.JPEG" for name in CLASSES for row in range(4)]
    features = {part: (generator.normal(size=(len(ids), 6)), ids) for part in ("train", "test")}

    def material(given):
        return Material(
            dataset="living", setting="original", features=features, files=given, nodes={}, raw={},
            transform=lambda rows: rows, triplets=lambda name, objects: None, picture=lambda name: None,
            object_rows=None, bootstrap=20, seed=0,
        )  # fmt: skip

    options = {"task": "living17", "C": 1.0, "per_subclass": None}
    score = family(material(files), options).scores[0]
    assert score.n == 16
    path = files["names"].with_name("split.csv")
    rows = [
        f'"{one.name}",{name},{domain}'
        for one in split_task(load(files), TASK)
        for domain in ("source", "target")
        for name in getattr(one, domain)
    ]
    path.write_text("superclass,subclass,domain\n" + "\n".join(rows) + "\n")
    assert family(material({"split": path}), options).scores[0].value == score.value
    with pytest.raises(ValueError, match=r"options.task among entity13, entity30, living17, nonliving26"):
        family(material(files), options | {"task": "living"})
    with pytest.raises(ValueError, match="expected hierarchy, names and classes, or split, found hierarchy"):
        family(material({"hierarchy": files["hierarchy"]}), options)


def test_classes_outside_of_the_hierarchy_are_left_out_and_counted(files):
    classes = json.loads(files["classes"].read_text())
    with files["names"].open("a") as handle:
        handle.writelines(f"{name}\ta class\n" for name in CLASSES)
    before = load_hierarchy(files["hierarchy"], files["names"], files["classes"])
    files["classes"].write_text(json.dumps([*classes, [len(classes), "n99999999", "of no hierarchy"]]))
    tree = load_hierarchy(files["hierarchy"], files["names"], files["classes"])
    assert tree.left_out == ("n99999999",)
    assert tree.note == f"1 of {len(classes) + 1} classes are not in the hierarchy"
    assert (tree.classes, tree.children) == (before.classes, before.children)
    assert before.note == ""
    with files["names"].open("a") as handle:
        handle.write("n99999999\tnamed, so it was there\n")
    with pytest.raises(
        ValueError, match="found 1 of 10 that are not, the first n99999999; the file is cut short"
    ):
        load(files)


@needs_photos
def test_the_benchmarks_own_files_give_its_published_splits():
    names = ("class_hierarchy.txt", "node_names.txt", "dataset_class_info.json")
    tree = load_hierarchy(*(Path(PHOTOS) / "breeds" / name for name in names))
    assert tree.note == "110 of 1,000 classes are not in the hierarchy"
    splits = {name: split_task(tree, task) for name, task in TASKS.items()}
    assert [len(split) for split in splits.values()] == [13, 30, 17, 26]
    first = splits["living17"][0]
    assert (first.name, first.source) == ("salamander", ("n01631663", "n01632777"))  # eft, axolotl
    assert splits["nonliving26"][0].source == ("n03958227", "n04026417")  # plastic bag, purse
