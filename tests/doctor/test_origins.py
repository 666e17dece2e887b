"""Where the values of a configuration come from, as the comments of conf/ say."""

import dataclasses
import re

import pytest

from alignet.doctor import choices, origins
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import conf_folder, load
from alignet.pipeline.runner import Pipeline
from tests.makers.worlds import overrides


def test_marks_are_read_from_comments_with_their_keys():
    text = """
top:                   # a section
  first: 1             # what it is [ours; the paper 2]
  second: 2            # goes on
                       # below [paper A.1]
  inner: {a: 1}        # [VICE's default]
  plain: 3             # in [0, 1]
"""
    found = origins.comments(text, "")
    assert found["top.first"] == "ours; the paper 2"
    assert found["top.second"] == "paper A.1"
    assert found["top.inner"] == "VICE's default"
    assert found["top.plain"] == ""


def test_values_of_the_command_line_are_told_from_those_of_the_papers():
    given = ["experiment=photos", "paths.photos=x", "vice.settings.lr=0.5", "cluster.clusters=7"]
    found = {one.key: one for one in origins.values(dataclasses.asdict(load(given)), given)}
    assert found["vice.settings.lr"].overridden
    assert found["cluster.clusters"].overridden
    assert found["vice.settings.batch"].mark.startswith("ours")
    assert found["vice.settings.k"].mark == "VICE's default"
    assert not found["vice.settings.k"].ours
    lines = "\n".join(origins.assumption_lines(list(found.values())))
    assert "given on this command line" in lines


@pytest.mark.parametrize(
    ("given", "sources"),
    [
        ([], set()),
        (["experiment=paper"], {"THINGS", "ImageNet"}),
        (["experiment=photos", "paths.photos=x"], {"WordNet ids"}),
        (["experiment=paper", "+also=nights"], {"THINGS", "ImageNet", "NIGHTS"}),
        (["experiment=paper", "+also=similarity"], {"THINGS", "ImageNet", "Peterson"}),
        (["experiment=paper", "+also=levels"], {"THINGS", "ImageNet", "Levels"}),
        (["+also=few_shot_cub"], {"labelled test sets"}),
        (["experiment=paper", "+also=wordnet"], {"THINGS", "ImageNet", "WordNet 3.0"}),
        (["experiment=own_dataset", "paths.dataset=x", "paths.images=y", "paths.map=z"], {"AligNet data"}),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_licences_are_those_of_what_the_run_reads(given, sources):
    from alignet.pipeline.graph import build_graph

    config = load(given)
    used = [node.role for node in build_graph(config).values() if node.stage == "index"]
    lines = origins.licence_lines(dataclasses.asdict(config), used)
    found = {name for name in origins.SOURCES for line in lines if line.startswith(name)}
    assert found == sources | ({"WordNet ids"} if "WordNet ids" in found else set())
    assert ("WordNet ids" in found) == any(one.family == "top1" for one in config.evaluate.datasets.values())
    assert [line.split(":")[0] for line in lines[:2]] == ["teacher", "student"]
    assert any("made by this run" in line for line in lines) == (config.experiment_name == "world")
    readme = (
        (conf_folder().parent / "data" / "README.md").read_text(encoding="utf-8").partition("## Sources")[2]
    )
    rows = [line.strip("| ") for line in readme.splitlines() if line.startswith("|")][2:]
    assert all(any(row.startswith(name) for name in origins.SOURCES) for row in rows)


def test_a_table_is_told_once_for_its_images_and_all_its_columns(tiny):
    config = load(overrides(tiny))
    found = list(choices._check_labels(Sources(config, (), Pipeline(config))))
    about = [(one.about, one.found.rpartition(" of ")[2]) for one in found]
    assert about
    assert len(set(about)) == len(about)
    assert any(one.found.startswith("label, category of each of") for one in found)


def test_a_group_that_is_chosen_is_one_line():
    given = [
        "experiment=photos",
        "paths.photos=x",
        "teacher=siglip_base",
        "student=vit_small_16",
        "student.image_size=96",
    ]
    lines = origins.assumption_lines(origins.values(dataclasses.asdict(load(given)), given))
    said = [line.split()[0] for line in lines if "given on this command line" in line]
    assert said == ["teacher", "student", "student.image_size"]


@pytest.mark.parametrize("path", sorted(conf_folder().rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_value_of_ours_is_credited_to_a_paper(path):
    """A mark that names another number than the value says that the value is ours."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\s*([\w.]+): +([\d.e+-]+) +#", line):
            mark = origins.comments(line.strip()).get(found[1], "")
            numbers = re.findall(r"(?<![\w.-])\d[\d,.]*(?:e-?\d+)?", re.sub(r"[A-Z](\.\d+)+", "", mark))
            if any(float(number.replace(",", "").rstrip(".")) != float(found[2]) for number in numbers):
                assert "ours" in mark, line


def test_what_an_experiment_sets_without_a_mark_is_ours(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "config.yaml").write_text("vice:\n  k: 5  # kept [VICE]\n  pi: 0.6  # weight [VICE]\n")
    (tmp_path / "experiment/world.yaml").write_text(
        "vice:\n  k: 2\ncluster: {clusters: 500, seed: 1}  # c [paper]\n"
    )
    composed = {
        "experiment_name": "world",
        "vice": {"k": 2, "pi": 0.6},
        "cluster": {"clusters": 500, "seed": 1},
    }
    found = {one.key: one.ours for one in origins.values(composed, [], tmp_path)}
    assert found == {"vice.k": True, "vice.pi": False, "cluster.clusters": False, "cluster.seed": True}
