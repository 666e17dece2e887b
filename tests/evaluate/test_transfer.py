"""A probe carried to V2, ReaL, A, R and C: known answers on small fakes, scikit-learn's own predictions, bad ids."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alignet.data import imagenet
from alignet.evaluate.families.generalisation import transfer as family
from alignet.evaluate.families.material import Material
from alignet.evaluate.linear_classifier import fit_readout
from alignet.evaluate.transfer import transfer

WNIDS = [f"n0000000{number}" for number in range(1, 6)]
PLACES = 10.0 * np.eye(5)


def at(places):
    """Features that lie on the middle of the classes `places`."""
    return PLACES[np.asarray(places)].astype(np.float32)


TRAIN = (
    np.repeat(at(range(5)), 6, axis=0) + np.tile(0.1 * np.eye(6, 5, dtype=np.float32), (5, 1)),
    [f"{wnid}/{wnid}_{row}.JPEG" for wnid in WNIDS for row in range(6)],
)


def measure(tests, **options):
    settings = {"dataset": "ImageNet", "C": 1.0, "per_class": None, "seed": 0, "bootstrap": 200} | options
    result = transfer(*TRAIN, tests, **settings)
    return {score.dataset.partition(" ")[2]: score for score in result.scores}, result.tables


def test_accuracies_of_planted_predictions():
    """An image at the middle of class c is taken for c, so the accuracy is what the folders say of it."""
    val = (
        at([0, 1, 2, 3]),
        [f"{WNIDS[n]}/ILSVRC2012_val_0000000{row}.JPEG" for row, n in enumerate((0, 1, 2, 0), 1)],
    )
    v2 = (at([0, 4]), ["0/a.jpeg", "3/b.jpeg"])
    a = (at([0, 2, 0]), [f"{WNIDS[0]}/x.jpg", f"{WNIDS[2]}/y.jpg", f"{WNIDS[2]}/z.jpg"])
    scores, _ = measure({"val": val, "v2": v2, "a": a}, real=[[0], [3, 1], [], [0, 3]])
    assert {name: score.value for name, score in scores.items()} == pytest.approx(
        {"ImageNet": 3 / 4, "ReaL": 1.0, "V2": 1 / 2, "A": 2 / 3}
    )
    assert scores["ReaL"].n == 3
    assert "1 images without a label left out" in scores["ReaL"].note
    assert scores["ReaL"].chance == pytest.approx(5 / 3 / 5)
    assert (scores["A"].chance, scores["V2"].chance) == (1 / 2, 1 / 5)
    assert "2 of 5 classes compete" in scores["A"].note
    assert "5 classes in training, not ImageNet's 1,000" in scores["ImageNet"].note


def test_of_a_and_r_only_the_classes_of_the_set_compete():
    """Between classes 0 and 1, nearer to 1: of all five it is taken for 1, of 0 and 2 for 0."""
    between = 0.4 * at([0]) + 0.6 * at([1])
    ids = [f"{WNIDS[0]}/x.jpg", f"{WNIDS[2]}/y.jpg"]
    features = np.concatenate([between, at([2])])
    for name, value in (("a", 1.0), ("r", 1.0), ("val", 0.5)):
        scores, _ = measure({name: (features, ids)})
        assert next(iter(scores.values())).value == value


def test_corruptions_are_averaged_over_severities_then_over_corruptions():
    cells = {("fog", 1): [0, 1], ("fog", 2): [0, 0], ("snow", 1): [3, 4]}  # truth is 0, 1
    features, ids = [], []
    for (name, severity), places in cells.items():
        features.append(at(places))
        ids += [f"weather/{name}/{severity}/{WNIDS[n]}/val_{n}.JPEG" for n in (0, 1)]
    scores, tables = measure({"c": (np.concatenate(features), ids)})
    assert scores["C"].value == pytest.approx(((1 + 0.5) / 2 + 0) / 2)
    table = tables["corruptions"]
    assert (table["corruption"], table["severity"].tolist()) == (["fog", "fog", "snow"], [1, 2, 1])
    assert table["accuracy"] == pytest.approx([1, 0.5, 0])
    assert table["images"].tolist() == [2, 2, 2]
    # originals come and go together: with both of class 0 the value is 1/2, with both of class 1 it is 1/4
    assert (scores["C"].low, scores["C"].high) == pytest.approx((0.25, 0.5))


def test_the_readout_is_scikit_learns_own():
    generator = np.random.default_rng(0)
    for classes in (2, 4):
        labels = np.arange(60) % classes
        x = (generator.normal(size=(60, 5)) + labels[:, None]).astype(np.float32)
        x_test = generator.normal(1, 2, size=(200, 5)).astype(np.float32)
        readout = fit_readout(x, labels, C=0.5, per_label=None, seed=0, dataset="toys")
        other = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000))
        other.fit(x.astype(float), labels)
        assert (readout.predict(x_test) == other.predict(x_test.astype(float))).all()
    few = fit_readout(x, labels, C=0.5, per_label=3, seed=0, dataset="toys")
    assert few.note == "C = 0.5, 12 training images"
    assert (
        "NOT CONVERGED"
        in fit_readout(x, labels, C=100, per_label=None, seed=0, dataset="toys", max_iter=2).note
    )
    with pytest.raises(ValueError, match="width 5, as in training, found"):
        readout.predict(np.zeros((3, 4)))
    for changed, message in (
        ({"C": 0.0}, "C above 0"),
        ({"per_label": 0}, "at least one image a class"),
        ({"labels": np.zeros(60)}, "at least two classes"),
        ({"labels": np.zeros(59)}, "one label per row"),
    ):
        given = {"labels": labels, "C": 1.0, "per_label": None} | changed
        with pytest.raises(ValueError, match=message):
            fit_readout(x, given.pop("labels"), seed=0, dataset="toys", **given)


@pytest.mark.parametrize(
    ("tests", "real", "message"),
    [
        ({"sketch": (at([0]), ["n00000001/a.jpg"])}, None, "expected test sets among val, v2, a, r, c, found sketch"),
        ({}, None, "found none"),
        ({"v2": (at([0]), ["0/a.jpg"])}, [[0]], "expected the validation images as val for ReaL"),
        ({"v2": (at([0]), ["5/a.jpg"])}, None, r"folders named 0..4, as there are classes in training, found 5"),
        ({"r": (at([0]), ["n77777777/a.jpg"])}, None, "found 1 others, the first n77777777"),
        ({"a": (at([0]), ["cat/a.jpg"])}, None, "folders named by WordNet ids such as n01440764, found cat/a.jpg"),
        ({"c": (at([0]), ["n00000001/a.jpg"])}, None, "expected images as <corruption>/<severity>/<wnid>/<name>"),
        ({"val": (at([0]), ["n00000001/a.jpg"])}, [[0]], "names such as ILSVRC2012_val_00000001.JPEG"),
        ({"val": (at([0]), ["n00000001/ILSVRC2012_val_00000002.JPEG"])}, [[0]], "a number up to 1, as ReaL has"),
        ({"val": (at([0]), ["n00000001/ILSVRC2012_val_00000001.JPEG"])}, [[]], "with labels in ReaL, found none"),
        ({"val": (at([0]) * np.nan, ["n00000001/a.jpg"])}, None, "finite features of val"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(tests, real, message):
    with pytest.raises(ValueError, match=message):
        measure(tests, real=real)


def test_real_is_read_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "real.json"
    path.write_text(json.dumps([[1, 2], [], [999]]))
    assert imagenet.load_real(path, 1000) == [[1, 2], [], [999]]
    for text, message in (
        ("[[1, 2], [", "expected JSON, found a damaged file"),
        ("[" * 100_000, "expected JSON, found a damaged file"),
        ("[[1], [1000]]", r"in 0..999, found \[1000\] for image 2"),
        ("[[1.5]]", r"found \[1.5\] for image 1"),
        ("[1]", "found 1 for image 1"),
        ("{}", r"list of lists of class numbers, found \{\}"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            imagenet.load_real(path, 1000)
    with pytest.raises(ValueError, match=r"expected ReaL's real.json, found no file"):
        imagenet.load_real(tmp_path / "none.json", 1000)


def test_the_family_takes_any_subset_of_the_sets(tmp_path):
    path = tmp_path / "real.json"
    path.write_text("[[0], [2]]")
    val = (at([0, 1]), [f"{WNIDS[n]}/ILSVRC2012_val_0000000{n + 1}.JPEG" for n in (0, 1)])
    material = Material(
        dataset="ImageNet", setting="original", features={"train": TRAIN, "val": val}, files={"real": path}, nodes={},
        raw={}, transform=lambda rows: rows, triplets=lambda name, objects: None, picture=lambda name: None,
        object_rows=None, bootstrap=20, seed=0,
    )  # fmt: skip
    scores = family(material, {"C": 1.0, "per_class": 4}).scores
    assert [(score.dataset, score.value) for score in scores] == [
        ("ImageNet ImageNet", 1.0),
        ("ImageNet ReaL", 0.5),
    ]
    assert "C = 1, 20 training images" in scores[0].note


def test_every_draw_counts_where_cells_hold_other_originals():
    """Originals of their own in each of 20 cells: few draws hold all; a cell that a draw misses is drawn by itself."""
    cells = [(name, severity) for name in ("fog", "blur", "snow", "jpeg") for severity in range(1, 6)]
    ids = [
        f"{name}/{severity}/{WNIDS[n]}/{name}{severity}{n}.JPEG" for name, severity in cells for n in (0, 1)
    ]
    scores, tables = measure({"c": (at([0, 2] * 20), ids)})
    assert scores["C"].value == pytest.approx(0.5)
    assert scores["C"].low < 0.45 < 0.55 < scores["C"].high
    refilled = int(scores["C"].note.split("in ")[-1].split(" of 200 draws")[0])
    assert refilled > 150
    assert tables["corruptions"]["images"].tolist() == [2] * 20
