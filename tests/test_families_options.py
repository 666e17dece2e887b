"""Options of evaluations: every family says which it knows, and a misspelled or missing one stops before any work."""

import re
from pathlib import Path

import pytest

from alignet.cli import load
from alignet.families import FAMILIES, OPTIONS, check_options
from alignet.graph import build_graph

PHOTOS = ["experiment=photos", "paths.photos=/nowhere"]


def test_every_family_has_its_options():
    assert OPTIONS.keys() == FAMILIES.keys()
    for needed, known in OPTIONS.values():
        assert not set(needed.split()) & set(known.split())


def test_every_option_that_a_family_reads_is_one_that_it_knows():
    """Names in options["..."] and options.get("...") of the families' files, whichever family they belong to."""
    files = (Path(__file__).parents[1] / "alignet/families").glob("*.py")
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
    with pytest.raises(ValueError, match="unknown family of metrics 'odd'"):
        check_options("d", "odd", {})
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
