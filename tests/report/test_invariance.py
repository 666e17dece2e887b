"""Identically represented inputs on the page: tables say what scores say, tests find what was planted, both looks."""

import re
from dataclasses import replace

import numpy as np
import pytest

from alignet.evaluate.families.invariance import invariance as family
from alignet.evaluate.result import Result, read_result, write_result
from alignet.report.blocks import DARK, LIGHT, Figure, Pictures, Section, Table, Text
from alignet.report.dataset_results import ROWS, Gathered, Row
from alignet.report.invariance import invariance
from alignet.report.invariance_networks import Given, counting
from alignet.report.invariance_published import CIFAR10, FURTHER, SEEDS, TARGETS, published
from alignet.report.metric_styles import STYLES, hidden
from alignet.report.page import Page, write_page
from alignet.report.summary import summarise
from tests.makers.inverted import OPTIONS, ids_of, material, planted, write_choices

N = 12
ORIGINAL, HARMONIZED, ROBUST = (Row(*ROWS[name]) for name in ("original", "harmonized", "robust-l2"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The robust student's IRIs look like their targets, the others' like where they began; an adversarial method."""
    folder = tmp_path_factory.mktemp("iris")
    rows = [
        {"kind": "two", "image": name, "choice": "target" if row % 3 else "seed", "right": int(row % 3 > 0)}
        for row, name in enumerate(ids_of(N))
    ]
    people = write_choices(folder / "choices.csv", rows)
    made = {}
    for row, share in ((ORIGINAL, 0.3), (HARMONIZED, 0.4), (ROBUST, 0.7)):
        error = np.full((N, 2), 0.01)
        error[:3] = 0.2 if row == HARMONIZED else 0.01
        nodes = planted(folder / row.setting, N, share, error=error)
        nodes |= planted(folder / f"{row.setting}-adv", N, share / 2, name="adversarial", optimised="pixels")
        options = OPTIONS | {"people_of": "original"}
        made[row] = family(material(nodes, {"people": people}, setting=row.setting), options)
    return made


def gathered(results):
    return Gathered("iris", "invariance", OPTIONS, results)


def named(results, part):
    """The block whose title has this part."""
    (found,) = [one for one in invariance([gathered(results)]) if part in getattr(one, "title", "")]
    return found


def text(cell):
    return cell if isinstance(cell, str) else cell.text


def lines(table):
    return {(text(line[0]), text(line[1])): [text(one) for one in line] for line in table.rows}


def test_the_blocks_stand_in_their_order(results):
    blocks = invariance([gathered(results)])
    assert [type(one) for one in blocks] == [
        Text, Table, Table, Table, Table, Figure, Figure, Table, Pictures, *[Table] * 4,
    ]  # fmt: skip
    assert len({one.name for one in blocks if not isinstance(one, Text)}) == len(blocks) - 1
    assert invariance([]) == invariance([Gathered("iris", "invariance", OPTIONS, {})]) == []


def test_what_does_not_match_is_said(results):
    said = invariance([gathered(results)])[0].text
    assert "Matched: student Harmonizer: 18 of 24." in said
    assert "student original" not in said
    first = invariance([gathered({ORIGINAL: results[ORIGINAL]})])[0]
    assert isinstance(first, Table)
    line = lines(named(results, "represented alike"))["student Harmonizer", "free"]
    assert line[2:6:2] == ["12 x 2", "75.0 [58.3, 91.7]"]


def test_the_table_of_2afc_says_what_scores_say(results):
    table = named(results, "Nearer to the target")
    assert list(table.header) == ["", "method", "mean", "pixels", "red", "mean, matched alone", "people"]
    found = lines(table)
    scores = {one.metric: one for one in results[ROBUST].scores}
    assert found["student robust (l2)", "free"][2].startswith(f"{100 * scores['two'].value:.1f} [")
    against = found["student robust (l2)", "adversarial, against pixels"]
    assert against[3].startswith(f"optimised: {100 * scores['adversarial_two_pixels'].value:.1f} [")
    assert against[2] == against[4]  # the mean is that of the other distance alone
    assert "pixels; this value is marked and left out of its mean" in table.caption
    assert [text(line[0]) for line in table.rows if line[2].best] == ["student robust (l2)"]
    assert found["student original", "free"][6].startswith("66.7 [")
    assert found["student Harmonizer", "free"][5].startswith("0.0 [")
    assert found["student original", "free"][5] == found["student robust (l2)", "free"][6] == ""


def test_clustering_and_people_have_tables(results):
    table = named(results, "Which target")
    scores = {one.metric: one for one in results[ORIGINAL].scores}
    assert lines(table)["student original", "free"][2].startswith(f"{100 * scores['match'].value:.1f} [")
    assert "33.3% by guessing" in table.caption
    people = named(results, "as people do")
    assert [text(line[4]) for line in people.rows] == ["pixels", "red"]
    assert people.rows[0][6].value == pytest.approx(1 / 3)  # the distance says seed, people do so in a third
    assert people.notes == ["2AFC: 1 participant; 12 images"]
    without = {
        row: Result([one for one in result.scores if "people" not in one.metric], result.tables)
        for row, result in results.items()
    }
    assert not any("people do" in getattr(one, "title", "") for one in invariance([gathered(without)]))


def test_tests_find_what_was_planted_and_nothing_else(results):
    table = named(results, "Tests against")
    found = {(line[1], line[2]): line for line in table.rows}
    assert found["robust (l2)", "2AFC, %"][6].value < 0.01
    assert found["Harmonizer", "2AFC, %"][6].value == 1
    assert found["robust (l2)", "clustering, %"][6].value > 0.05
    assert found["robust (l2)", "2AFC, %"][3].value == N
    assert "for all 4 tests of this table, of which 1 is below .05" in table.caption


def test_figures_are_drawn_in_both_looks(results):
    by_distance, tasks = (one for one in invariance([gathered(results)]) if isinstance(one, Figure))
    assert "Highest mean of the first panel: student robust (l2), 100.0%." in by_distance.caption
    assert "Hollow: the distance that was optimised." in by_distance.caption
    for look in (LIGHT, DARK):
        axes = [one for one in by_distance.draw(look).axes if one.axison]
        assert [one.get_title(loc="left") for one in axes] == ["free", "adversarial, against pixels"]
        assert [one.get_text() for one in axes[0].get_yticklabels()] == [row.title for row in results]
        assert next(one for one in tasks.draw(look).axes if one.axison).get_xlabel() == "2AFC, %"
    alone = gathered({ORIGINAL: results[ORIGINAL]})
    assert len([one for one in invariance([alone]) if isinstance(one, Figure)]) == 1


def test_every_row_and_method_has_its_pictures(results):
    shown = named(results, "Inverted images")
    assert len(shown.rows) == 3 * 3  # targets: itself, free, adversarial
    assert [line for _, line in shown.rows[0][1]] == ["target", "start"]
    assert [line.partition(",")[0] for _, line in shown.rows[1][1]] == [row.title for row in results]
    assert "adversarial method made the distance pixels to the target large" in shown.caption


def test_the_main_table_has_two_of_the_metrics(results):
    shown = {one.metric for one in results[ORIGINAL].scores if not hidden(one.metric)}
    assert shown == {"two", "match"}
    assert not any(hidden(metric) for metric in STYLES)


def test_what_was_left_out_of_each_task_is_said(tmp_path):
    """Notes of both tasks, each after its name; one image is no `1 images`."""
    ids = ids_of(N)
    rows = [{"kind": "two", "image": ids[0], "choice": "target", "right": 1}]
    rows += [
        {"kind": "two", "image": one, "choice": "seed", "right": 0, "used": "too fast"} for one in ids[:3]
    ]
    shown = "|".join(ids[:3])
    rows += [{"kind": "match", "image": one, "options": shown, "choice": one, "right": 1} for one in ids[:2]]
    rows += [
        {"kind": "match", "image": ids[2], "options": shown, "choice": ids[2], "right": 1, "used": "too slow"}
    ]
    people = {"people": write_choices(tmp_path / "choices.csv", rows)}
    options = OPTIONS | {"people_of": "original"}
    one = family(material(planted(tmp_path / "net", N, 0.6), people), options)
    assert named({ORIGINAL: one}, "as people do").notes == [
        "2AFC: 1 participant; 1 image; left out: 3 too fast",
        "clustering: 1 participant; 2 images; left out: 1 too slow",
    ]


def test_whether_the_first_method_has_a_regulariser_is_said():
    free = {"tv": 0.0, "distance": "", "transform": None}
    given = Given("photos", 8, 20, {}, {"free": free, "human": {"tv": 1.0}}, {"pixels": "of pixels"})
    said = counting(given)
    assert said.startswith(
        "8 of 20 images were drawn at random. Every network was inverted on the same 8 images"
    )
    assert "Networks compare by `free`, which has no regulariser." in said
    human = counting(replace(given, methods={"human": free | {"transform": {"jitter": 0.1}}, "free": free}))
    assert "Networks compare by `human`, which leans towards natural images (random transformations)" in human
    against = counting(replace(given, methods={"adversarial": free | {"distance": "pixels"}}))
    assert "by `adversarial`, which makes the distance `pixels` to the target large" in against
    assert "which has no regulariser" not in human + against


# tables 3 to 6, column by column as the paper's text has them
PRINTED = {
    3: """
        1.33±1.89 0.00±0.00 0.33±0.47 0.00±0.00 0.33±0.47 1.00±1.41 3.00±4.24 1.33±1.89 0.00±0.00 0.00±0.00 0.00±0.00
        0.00±0.00 0.00±0.00 0.00±0.00 0.00±0.00 0.33±0.47 14.00±3.74 11.00±3.74
        0.00±0.00 0.00±0.00 0.00±0.00 0.00±0.00 1.00±0.00 1.00±0.00 0.00±0.00 1.00±0.00 0.00±0.00 1.00±0.00 0.00±0.00
        0.00±0.00 3.00±0.00 3.50±0.50 3.00±2.00 2.50±1.50 3.50±0.50 4.50±1.50
    """,
    4: """
        96.00±2.55 38.83±7.59 82.00±8.44 98.67±0.24 93.17±5.95 99.50±0.00 95.50±2.12
        31.053±15.912 0.351±0.496 28.772±20.476 60.702±11.413 28.748±34.491 70.745±7.409 29.806±19.704
        64.386±7.310 0.351±0.496 2.105±1.549 68.947±16.119 65.079±5.616 93.617±9.027 46.914±13.827
    """,
    5: """
        76.50±15.91 30.00±12.02 0.00±0.00 0.00±0.00
        93.50±9.60 93.75±8.20 1.00±1.73 0.00±0.00
        0.25±0.43 1.00±1.73 0.00±0.00 0.00±0.00
        24.25±25.17 12.25±20.08 0.00±0.00 0.00±0.00
    """,
    6: """
        82.50±20.85 81.50±15.58 13.00±22.52 0.75±1.30
        88.00±14.51 89.75±15.01
        58.75±32.15 46.25±32.25
        69.25±26.39 84.75±13.70
        0.00±0.00 0.00±0.00
    """,
}


def test_published_values_are_those_of_the_paper():
    every = {3: SEEDS, 4: TARGETS, 5: CIFAR10, 6: FURTHER}
    for number, rows in every.items():
        columns = zip(*(row[1:] for row in rows), strict=True)
        assert [value for column in columns for value in column if value] == PRINTED[number].split(), number
    names = {number: [row[0] for row in rows] for number, rows in every.items()}
    parts = ["standard"] * 4 + ["AT (l2) eps = 1"] * 4
    networks = ["ResNet18", "VGG16", "InceptionV3", "DenseNet121"]
    assert names[3][:8] == [f"CIFAR10: {one}, {part}" for one, part in zip(networks * 2, parts, strict=True)]
    further = [
        f"ImageNet: {one}, {part}"
        for part in ("standard", "AT (l2) eps = 3") for one in ("ResNet18", "ResNet50", "VGG16")
    ]  # fmt: skip
    assert names[3][12:] == further
    assert names[4] == [
        *(f"CIFAR10: {one}" for one in networks), *(f"ImageNet: {one}" for one in ("ResNet18", "ResNet50", "VGG16")),
    ]  # fmt: skip
    assert names[5] == [
        "adversarial training, usual", "adversarial training, none", "standard, strong", "standard, usual",
    ]  # fmt: skip
    assert names[6] == [f"{one}, {how}" for one in ("CIFAR100", "ImageNet") for how in ("usual", "none")]
    assert FURTHER[2] == ("ImageNet, usual", "13.00±22.52", "", "", "", "0.00±0.00")
    tables = {table.name: table for table in published()}
    for number, rows in every.items():
        shown = tables[f"invariance_published_{number}"]
        assert [tuple(map(text, row)) for row in shown.rows] == [
            (row[0], *(one or "–" for one in row[1:])) for row in rows
        ]
    assert [tables["invariance_published_5"].header, tables["invariance_published_6"].header] == [
        ("", "ResNet18", "DenseNet121", "VGG16", "InceptionV3"),
        ("", "ResNet18", "DenseNet121", "VGG16", "InceptionV3", "ResNet50"),
    ]


def test_a_page_is_written_from_stored_results(results, tmp_path):
    read = {}
    for number, (row, one) in enumerate(results.items()):
        (tmp_path / str(number)).mkdir()
        write_result(tmp_path / str(number), Result(one.scores, one.tables))
        read[row] = read_result(tmp_path / str(number))
    blocks = invariance([gathered(read)])
    page = Page("t", "s", "b", "", summarise([], None), [Section("invariance", "Inverted", blocks)])
    html = write_page(tmp_path, page).read_text()
    assert html.count("Published values: table") >= 4
    assert len(re.findall("data:image/jpeg", html)) == 3 * (2 + 2 * 3)
