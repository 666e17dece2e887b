"""The family of masked recognition: planted decisions, the distance from people, its page, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from alignet.evaluate.families.masking import masking as family
from alignet.evaluate.families.material import Material
from alignet.evaluate.masking import area, levels
from alignet.evaluate.result import read_result, write_result
from alignet.report.blocks import DARK, LIGHT
from alignet.report.dataset_results import Gathered, Row
from alignet.report.masking import masking as blocks

CLASSES = 6
ANIMALS = [0, [1, 2]]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def measured(tmp_path):
    """Stimuli of 40 images, and logits of an observer that is right from a level on that is the image's own."""
    names = [f"n0{number:07d}/{number}.jpg" for number in range(40)]
    shares = levels(5, 0.01)
    images = {name: {"file": name.replace(".jpg", ".png"), "pixels": [1, 2, 3, 4, 5]} for name in names}
    (tmp_path / "stimuli").mkdir()
    (tmp_path / "stimuli" / "stimuli.json").write_text(
        json.dumps({"settings": {}, "shares": shares.tolist(), "images": images})
    )
    animal = np.arange(40) % 2 == 0
    (tmp_path / "labels.csv").write_text(
        "id,kind\n"
        + "".join(f"{name},{'Animal' if is_one else 'vehicle'}\n" for name, is_one in zip(names, animal))
    )
    ids, logits, right = [], [], np.zeros((40, 6), dtype=bool)
    for number, name in enumerate(names):
        for level, folder in enumerate(["00", "01", "02", "03", "04", "intact"]):
            right[number, level] = level >= number % 6 and number != 39
            answer = animal[number] == right[number, level]
            ids.append(f"{folder}/{images[name]['file']}")
            logits.append(np.eye(CLASSES)[2 if answer else 4] + 0.1 * rng(number).uniform(size=CLASSES))
    order = rng().permutation(len(ids))
    material = Material(
        dataset="masked", setting="original", features={}, files={"labels": tmp_path / "labels.csv"},
        nodes={"stimuli": tmp_path / "stimuli"},
        raw={"decisions": (np.array(logits, dtype=np.float32)[order], [ids[row] for row in order])},
        transform=lambda rows: rows, triplets=lambda name, objects: None, picture=lambda name: None, object_rows=None,
        bootstrap=200, seed=0,
    )  # fmt: skip
    return material, {"animals": ANIMALS, "label": "kind"}, right


def people_of(material, text):
    path = material.files["labels"].parent / "human.csv"
    path.write_text(text)
    return Material(**{**vars(material), "files": {**material.files, "human": path}})


def test_the_family_measures_what_was_planted(measured):
    material, options, right = measured
    found = family(material, options)
    scores = {score.metric: score for score in found.scores}
    assert scores["intact_accuracy"].value == pytest.approx(right[:, 5].mean())
    assert scores["intact_accuracy"].chance == 0.5
    assert found.tables["curve"]["accuracy"] == pytest.approx(right[:, :5].mean(0))
    expected = right[:, :5].mean(0) / right[:, 5].mean()
    assert found.tables["curve"]["normalised"] == pytest.approx(expected)
    assert scores["masked_area"].value == pytest.approx(area(expected, levels(5, 0.01)))
    assert scores["masked_area"].low < scores["masked_area"].value < scores["masked_area"].high
    assert "20 animals, 20 others" in scores["masked_area"].note
    assert "human_distance" not in scores


def test_the_distance_from_people(measured):
    material, options, right = measured
    expected = right[:, :5].mean(0) / right[:, 5].mean()
    lines = "".join(f"{share},{height}\n" for share, height in zip(levels(5, 0.01), expected))
    same = family(people_of(material, "share,accuracy\n" + lines), options)
    score = {one.metric: one for one in same.scores}["human_distance"]
    assert score.value == pytest.approx(0)
    assert score.low == score.value < score.high
    assert same.tables["human"]["share"] == pytest.approx(levels(5, 0.01))
    some = family(people_of(material, "share,accuracy\n1,1\n0.1,0.5\n"), options)
    score = {one.metric: one for one in some.scores}["human_distance"]
    theirs = np.array([0.5, 0.75, 1])
    assert score.value == pytest.approx(np.abs(expected[2:] - theirs).mean())
    assert "3 of 5 levels" in score.note


def test_truth_by_the_wordnet_ids_of_names(measured, tmp_path):
    material, _, _ = measured
    said = json.loads((material.nodes["stimuli"] / "stimuli.json").read_text())
    wordnet = [
        "n01440764",
        "n02123045",
        "n04285008",
        "n99999999",
    ]  # tench, tabby; sports car; none of the classes
    said["images"] = {
        f"{wordnet[number]}/{number}.jpg": {"file": f"{wordnet[number]}/{number}.png", "pixels": [1] * 5}
        for number in range(4)
    }
    (material.nodes["stimuli"] / "stimuli.json").write_text(json.dumps(said))
    ids = [
        f"{folder}/{one['file']}"
        for folder in ("00", "01", "02", "03", "04", "intact")
        for one in said["images"].values()
    ]
    logits = np.zeros((len(ids), 1000))
    logits[:, 397] = 1  # a puffer: always an animal
    wide = Material(**{**vars(material), "raw": {"decisions": (logits, ids)}})
    scores = {score.metric: score for score in family(wide, {"animals": [[0, 397]]}).scores}
    assert scores["intact_accuracy"].value == pytest.approx(2 / 3)
    assert scores["intact_accuracy"].n == 3
    assert scores["intact_accuracy"].chance == pytest.approx(2 / 3)
    assert "1 images of no class left out" in scores["intact_accuracy"].note


def test_the_page_shows_curves_of_rows_and_of_people(measured, tmp_path):
    material, options, _ = measured
    result = family(people_of(material, "share,accuracy\n0.01,0.6\n0.1,0.9\n1,1\n"), options)
    write_result(tmp_path, result)
    again = read_result(tmp_path)
    rows = {Row("student", "original"): again, Row("student", "alignet"): again}
    gathered = Gathered("masked", "masking", options, rows)
    table, figure, numbers = blocks(gathered)
    assert len(table.rows) == 2
    assert [len(row) for row in numbers.rows] == [len(numbers.header)] * 3
    assert "nearest to people" in figure.caption
    for look in (LIGHT, DARK):
        drawn = figure.draw(look)
        drawn.canvas.draw()
        assert len(drawn.axes[0].lines) == 4  # two rows, people, the line at 1
    alone = blocks(Gathered("masked", "masking", options, {Row("student", "ud"): family(material, options)}))
    assert "largest area" in alone[1].caption
    assert blocks(Gathered("masked", "masking", options, {})) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("share,correct\n1,1\n", "expected a column accuracy"),
        ("share,accuracy\n1%,1\n", "expected numbers"),
        ("share,accuracy\n1,0.9\n100,1\n", r"shares in \(0, 1\]"),
        ("share,accuracy\n0.1,50\n1,100\n", "give no percent"),
        ("share,accuracy\n0.5,0.5\n0.6,1\n", "enclose at least two of the levels"),
    ],
)
def test_a_bad_curve_of_people_is_refused(measured, text, message):
    material, options, _ = measured
    with pytest.raises(ValueError, match=message):
        family(people_of(material, text), options)


def test_bad_decisions_and_labels_are_refused(measured):
    material, options, _ = measured
    logits, ids = material.raw["decisions"]

    def told(**changes):
        return Material(**{**vars(material), **changes})

    with pytest.raises(ValueError, match="of all 240 stimuli, found none for 1"):
        family(told(raw={"decisions": (logits[1:], ids[1:])}), options)
    with pytest.raises(ValueError, match="expected finite logits"):
        family(told(raw={"decisions": (logits * np.nan, ids)}), options)
    with pytest.raises(ValueError, match=r"expected a table data\.labels"):
        family(told(files={}), options)
    with pytest.raises(ValueError, match="within 0 to 5"):
        family(material, {**options, "animals": [[0, 397]]})
    table = Path(material.files["labels"])
    table.write_text(table.read_text().replace("vehicle", "car"))
    with pytest.raises(ValueError, match="in the column kind, found 'car'"):
        family(material, options)
    table.write_text(table.read_text().replace(",car", ",animal"))
    with pytest.raises(ValueError, match="found animals alone"):
        family(material, options)
