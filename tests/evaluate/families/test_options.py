"""Options of evaluations: every family says which it knows, and a misspelled or missing one stops before any work."""

import re
from pathlib import Path

import pytest

from alignet.evaluate.families import FAMILIES, family
from alignet.evaluate.families.options import KINDS, OPTIONS, check_options, check_values
from alignet.pipeline.cli import load, names_in
from alignet.pipeline.graph import build_graph

PHOTOS = ["experiment=photos", "paths.photos=/nowhere"]


def test_every_family_has_its_options():
    assert OPTIONS.keys() == FAMILIES.keys()
    for needed, known in OPTIONS.values():
        assert not set(needed.split()) & set(known.split())


def test_every_option_that_a_family_reads_is_one_that_it_knows():
    """Names in options["..."] and options.get("...") of the families' files, whichever family they belong to."""
    files = (Path(__file__).parents[3] / "alignet/evaluate/families").glob("*.py")
    read = {
        name
        for path in files
        for name in re.findall(r"options(?:\.get\(|\[)\"(\w+)\"", path.read_text("utf-8"))
    }
    known = {name for pair in OPTIONS.values() for names in pair for name in names.split()}
    assert len(read) > 20
    assert read <= known


def test_a_misspelled_and_a_missing_option_are_named_with_the_valid_ones():
    with pytest.raises(
        ValueError,
        match=r"d\.options: .* ceiling \(or not\), unit_column \(or not\); found the unknown celing",
    ):
        check_options("d", "odd_one_out", {"celing": "repeated"})
    with pytest.raises(ValueError, match=r"found the unknown taus and no tau"):
        check_options("d", "levels", {"taus": 1.0, "missing": "stop"})
    with pytest.raises(ValueError, match=r"family levels_people none; found the unknown tau"):
        check_options("d", "levels_people", {"tau": 1.0})
    check_options("d", "rsa", {"format": "cichy", "under": "x"})


def test_it_stops_before_anything_is_computed():
    with pytest.raises(ValueError, match=r"evaluate\.datasets\.fine\.options: .*found the unknown c"):
        build_graph(load(["+evaluate.datasets.fine.options.c=1"]))


@pytest.mark.parametrize("setting", ["ud", "global"])
def test_no_row_whose_map_was_fitted_to_the_tune_half_is_measured_on_it(setting):
    datasets = load(PHOTOS).evaluate.datasets
    for name in ("tune", "vice_tune", "certainty_tune"):
        assert setting not in datasets[name].settings
    for name in ("vice_tune", "certainty_tune"):
        assert datasets[name].options["note"] == "VICE and the teacher's map met choices about these concepts"


def test_categories_are_merged_alike_wherever_they_are_read():
    datasets = load(PHOTOS).evaluate.datasets
    assert datasets["categories"].options["merge"] == datasets["tree"].options["hierarchy"]["merge"]


@pytest.mark.parametrize("experiment", ["world", "photos"])
def test_what_the_experiments_give_is_of_its_kind(experiment):
    paths = ["paths.photos=x"] if experiment == "photos" else []
    config = load([f"experiment={experiment}", *paths])
    assert build_graph(config)
    for name, dataset in config.evaluate.datasets.items():
        check_values(name, dataset.family, dataset.options)


def test_what_also_adds_is_of_its_kind():
    names = [
        name for name in names_in("also") if name != "zero_shot"
    ]  # which needs a student with a text tower
    overrides = [f"+also=[{','.join(names)}]", "paths.judged=x", "paths.generalise=x", "paths.imagenet=x"]
    datasets = load(overrides).evaluate.datasets
    assert {"entity13", "CUB", "nights", "levels", "wordnet"} <= set(datasets)
    for name, dataset in datasets.items():
        check_values(name, dataset.family, dataset.options)


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("few_shot", "shots", 5, "a list with each entry a whole number of at least 1, found 5"),
        ("few_shot", "shots", ["ten"], "a list with each entry a whole number of at least 1, found ['ten']"),
        ("few_shot", "shots", [], "a list with each entry a whole number of at least 1, found []"),
        ("few_shot", "shots", [1.5], "found [1.5]"),
        ("few_shot", "C", None, "a number above 0, found None"),
        ("few_shot", "C", True, "a number above 0, found True"),
        ("few_shot", "C", float("nan"), "a number above 0, found nan"),
        ("few_shot", "split", 1, "a number above 0 and below 1, found 1"),
        ("few_shot", "labels", "tables", "folder or table or cls, found 'tables'"),
        ("hierarchy", "labels", "folder", "a mapping, found 'folder'"),
        ("hierarchy", "pairs", "x", "a whole number of at least 1, found 'x'"),
        ("hierarchy", "distance", "euclid", "euclidean or angle, found 'euclid'"),
        ("nights", "split", 3, "text, found 3"),
        ("nights", "is_imagenet", "yes", "true or false or null, found 'yes'"),
        ("rsa", "format", "petersen", "peterson or cichy or king or matrix, found 'petersen'"),
        ("rsa", "kind", "sim", "similarity or dissimilarity or null, found 'sim'"),
        ("levels", "tau", "fitted", "a number above 0 or fit, found 'fitted'"),
        ("odd_one_out", "ceiling", 66.7, "a number of at least 0 and of at most 1 or repeated or null, found 66.7"),
        ("breeds", "per_subclass", 0, "a whole number of at least 1 or null, found 0"),
    ],
)  # fmt: skip
def test_another_kind_of_value_is_one_message(name, option, value, expected):
    message = re.escape(f"evaluate.datasets.some.options.{option}: expected ") + ".*" + re.escape(expected)
    with pytest.raises(ValueError, match=message) as error:
        check_values("some", name, {option: value})
    assert "\n" not in str(error.value)


def test_values_of_their_kind_pass():
    good = {
        "shots": [1, 10], "C": 1, "split": 0.5, "labels": "cls", "few": "skip", "draws": 1, "label": "name",
        "merge": {},
    }  # fmt: skip
    check_values("some", "few_shot", good)
    check_values("some", "few_shot", {"shots": (1,), "C": 1e-3})
    check_values("some", "levels", {"tau": "fit"})
    check_values("some", "levels", {"tau": 0.5})
    check_values("some", "a family of somebody's own", {"an option of its own": object()})
    assert all(str(kind) for kind in KINDS.values())


def test_the_command_line_is_told_before_anything_is_made():
    with pytest.raises(ValueError, match=r"evaluate\.datasets\.few\.options\.shots: expected a list"):
        build_graph(load(["evaluate.datasets.few.options.shots=5"]))


def test_an_unknown_family_is_named_with_its_key():
    with pytest.raises(
        ValueError, match=r"evaluate\.datasets\.levels\.family: expected one of odd_one_out, .*found 'levelz'"
    ):
        family("levelz", "levels")
