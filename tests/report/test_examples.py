"""Examples of changed answers: counts by brute force, an honest draw, pictures and their marks."""

import io

import numpy as np
import pytest
from PIL import Image

from alignet.evaluate.examples import NO_ANSWER, changes, odd_ones
from alignet.evaluate.families import Material, family
from alignet.report.blocks import Pictures, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.examples import examples_blocks

M = 12


def answer(features, triplet):
    a, b, c = (features[row] for row in triplet)
    sims = [a @ b, a @ c, b @ c]
    return [2, 1, 0][int(np.argmax(sims))]


@pytest.fixture
def features():
    generator = np.random.default_rng(3)
    triplets = np.array([generator.choice(M, 3, replace=False) for _ in range(400)])
    return generator.normal(size=(M, 4)), generator.normal(size=(M, 6)), triplets


def test_counts_and_draws_are_those_of_a_loop(features):
    before, after, triplets = features
    found = changes(before, after, triplets, count=5, seed=0)
    pairs = [(answer(before, triplet), answer(after, triplet)) for triplet in triplets]
    assert found.towards == sum(first != 2 and second == 2 for first, second in pairs)
    assert found.against == sum(first == 2 and second != 2 for first, second in pairs)
    assert found.before.tolist() == [first for first, _ in pairs]
    assert all(pairs[row][0] != 2 and pairs[row][1] == 2 for row in found.drawn["towards"])
    assert all(pairs[row][0] == 2 and pairs[row][1] != 2 for row in found.drawn["against"])
    assert {len(found.drawn[name]) for name in found.drawn} == {5}
    assert all(sorted(order) == [0, 1, 2] for order in found.places["towards"].tolist())


def test_the_draw_is_by_chance_repeats_with_its_seed_and_favours_nobody(features):
    before, after, triplets = features

    def one(seed):
        return changes(before, after, triplets, count=5, seed=seed).drawn["towards"].tolist()

    assert one(1) == one(1)
    assert one(1) != one(2)
    total = changes(before, after, triplets, count=5, seed=0).towards
    drawn = np.concatenate([one(seed) for seed in range(300)])
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == total  # everybody's turn comes
    assert counts.max() < 3.5 * 300 * 5 / total


def test_fewer_than_asked_for_are_all_shown_and_equal_features_change_nothing(features):
    before, after, triplets = features
    everything = changes(before, after, triplets, count=10_000, seed=0)
    assert len(everything.drawn["towards"]) == everything.towards
    same = changes(before, before, triplets, count=5, seed=0)
    assert (same.towards, same.against) == (0, 0)
    assert len(same.drawn["towards"]) == 0


def test_a_tie_is_no_answer():
    rows = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    assert odd_ones(rows, np.array([[0, 1, 2], [0, 1, 3]])).tolist() == [NO_ANSWER, 2]


def test_unfit_input_is_refused(features):
    before, after, triplets = features
    with pytest.raises(ValueError, match="same images before and after"):
        changes(before[1:], after, triplets, count=5, seed=0)
    with pytest.raises(ValueError, match=r"options\.count of at least 1"):
        changes(before, after, triplets, count=0, seed=0)
    with pytest.raises(ValueError, match="finite features"):
        changes(before * np.nan, after, triplets, count=5, seed=0)


def material(features, ids=None, object_rows=None):
    before, after, triplets = features
    names = [f"animals/img{row:02}.jpg" for row in range(M)]
    return Material(
        dataset="changed", setting="alignet", features={"test": (after, names)}, files={}, nodes={},
        raw={"before": (before, ids or names)}, transform=lambda rows: rows,
        triplets=lambda name, objects: triplets, object_rows=object_rows, bootstrap=10, seed=0,
        picture=lambda name: Image.new("RGB", (200, 100), (int(name[11:13]) * 20, 0, 0)),
    )  # fmt: skip


OPTIONS = {"count": 3, "pixels": 40, "name": ""}


def test_the_family_stores_pictures_and_who_chose_what(features):
    found = family("examples")(material(features), OPTIONS)
    table = found.tables["examples"]
    assert list(table["direction"]) == ["towards"] * 3 + ["against"] * 3
    for row in range(6):
        picture = Image.open(io.BytesIO(table["picture1"][row]))
        assert picture.size == (40, 20)
        assert (table["human"][row] == table["after"][row]) == (table["direction"][row] == "towards")
        assert (table["human"][row] == table["before"][row]) == (table["direction"][row] == "against")
        shown = [table[f"id{place}"][row] for place in (1, 2, 3)]
        triplet = [f"animals/img{image:02}.jpg" for image in features[2][table["triplet"][row]]]
        assert sorted(shown) == sorted(triplet)
        assert shown[table["human"][row] - 1] == triplet[2]
        red = picture.getpixel((5, 5))[0]
        assert abs(red - int(shown[0][11:13]) * 20) < 8  # the picture is that of the id
    assert table["name1"][0] == table["id1"][0][8:13]


def test_triplets_of_objects_count_by_object_and_keep_their_numbers(features):
    rows = np.concatenate([[-1, -1], np.arange(M)])  # objects 0 and 1 have no features
    before, after, triplets = features
    shifted = np.concatenate([[[0, 5, 6]], triplets + 2])
    found = family("examples")(material((before, after, shifted), object_rows=rows), OPTIONS)
    plain = family("examples")(material(features), OPTIONS)
    assert found.scores[0].n == len(triplets)
    assert [row - 1 for row in found.tables["examples"]["triplet"]] == plain.tables["examples"]["triplet"]


def test_features_of_other_images_are_refused(features):
    with pytest.raises(ValueError, match="expected the node `before` to be an embedding of the same images"):
        family("examples")(material(features, ids=[str(row) for row in range(M)]), OPTIONS)


def test_the_page_tells_the_numbers_and_marks_the_choices(features):
    result = family("examples")(material(features), OPTIONS)
    one = Gathered("changed", "examples", {}, {Row("ViT-S", "alignet"): result})
    text, towards, against = examples_blocks(one)
    assert isinstance(text, Text)
    assert "Of 400 triplets" in text.text
    counts = changes(*features, count=3, seed=0)
    assert f"{counts.towards:,} and away from it in {counts.against:,}" in text.text
    assert isinstance(towards, Pictures)
    assert towards.name == "towards_ViT_S"
    for marks in towards.marks:
        told = sorted(word for words in marks for word in words)
        assert told == ["AligNet", "original", "people"]
        assert ["people", "AligNet"] in [list(words) for words in marks]
    assert all(["people", "original"] in [list(words) for words in marks] for marks in against.marks)
    same = family("examples")(material((features[1], features[1], features[2])), OPTIONS)
    (only,) = examples_blocks(Gathered("changed", "examples", {}, {Row("student", "alignet"): same}))
    assert "as many each way" in only.text
