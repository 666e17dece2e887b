"""The drawn world: same settings same bytes, exact probabilities, nothing of the unjudged concepts leaks."""

import csv
import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from alignet.config import WorldSettings
from alignet.evaluate.baselines import centred, colour_histogram, raw_pixels
from alignet.triplets import accuracy, check_triplets, similarities
from alignet.world import drawing, world
from alignet.world.concepts import choose, make_concepts, pair_probabilities, stranger
from alignet.world.world import write_world

SETTINGS = WorldSettings(
    size=32,
    concepts=4,
    unjudged=2,
    exemplars=2,
    pool=40,
    strangers=6,
    fresh=3,
    probe=2,
    train_triplets=4000,
    val_triplets=200,
    test_triplets=1500,
    ceiling=0.77,
    teacher_images=50,
    student_images=40,
    say_category=0.9,
    say_concept=0.6,
    say_colour=0.5,
    say_background=0.3,
    participants=15,
    participant_trials=20,
    rated=2,
    seed=5,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    return folder, write_world(folder, SETTINGS), make_concepts(SETTINGS)


def table(path):
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_settings_give_the_same_bytes_and_another_seed_others(made, tmp_path):
    folder, metrics, _ = made
    assert write_world(tmp_path / "again", SETTINGS, workers=2) == metrics
    assert digests(tmp_path / "again") == digests(folder)
    write_world(tmp_path / "other", replace(SETTINGS, seed=6))
    other = digests(tmp_path / "other")
    same = {name for name, digest in digests(folder).items() if other.get(name) == digest}
    assert same == {"pretrain/vocabulary.txt", "hierarchy.csv"}


def test_pictures_are_as_many_and_as_large_as_asked_for(made):
    folder, metrics, concepts = made
    n = len(concepts.names)
    expected = {"things": 2 * n // 2, "pool": 40, "fresh": 3 * n, "probe": 2 * n}
    for name, count in expected.items():
        paths = sorted((folder / "images" / name).glob("*.png"))
        assert len(paths) == count == metrics[f"pictures_{name}"]
        with Image.open(paths[0]) as image:
            assert (image.mode, image.size) == ("RGB", (32, 32))
        assert len({path.read_bytes() for path in paths}) == count  # no picture twice
    assert np.load(folder / "pretrain/teacher_images.npy").shape == (50, 32, 32, 3)


def test_embedding_is_non_negative_and_the_ceiling_is_the_one_asked_for():
    concepts = make_concepts(SETTINGS)
    assert (concepts.embedding >= 0).all()
    every = np.array(list(itertools.combinations(range(len(concepts.names)), 3)))
    assert pair_probabilities(concepts.similarity, every).max(1).mean() == pytest.approx(0.77, abs=1e-6)


def test_looks_tell_concepts_of_a_category_apart_and_categories_not():
    concepts = make_concepts(replace(SETTINGS, concepts=6))
    for category in range(len(drawing.CATEGORIES)):
        looks = [look for look in concepts.looks if look.category == category]
        for trait in ("hue", "texture", "outline"):
            assert len({getattr(look, trait) for look in looks}) == 6
    # with six concepts a category every one has the same six hues and textures
    assert len({look.hue for look in concepts.looks}) == len({look.texture for look in concepts.looks}) == 6


def test_choices_follow_the_softmax_and_the_odd_one_stands_last():
    similarity = np.array([[9.0, 1.0, 0.5], [1.0, 9.0, -0.2], [0.5, -0.2, 9.0]])
    asked = np.tile([0, 1, 2], (60000, 1))
    order, probs = choose(similarity, asked, np.random.default_rng(0))
    exact = np.exp([1.0, 0.5, -0.2]) / np.exp([1.0, 0.5, -0.2]).sum()
    odd = np.bincount(order[:, 2], minlength=3) / len(order)
    np.testing.assert_allclose(odd, exact[::-1], atol=0.01)  # the pair 01 leaves out 2, 02 leaves out 1
    for row in range(3):
        first, second, third = order[row]
        sims = [similarity[first, second], similarity[first, third], similarity[second, third]]
        np.testing.assert_allclose(probs[row], np.exp(sims) / np.exp(sims).sum())
    assert (order[:, 0] < order[:, 1]).mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["all", "coarse", "unjudged"])
def test_evaluation_rows_are_the_sorted_ids_and_probabilities_are_exact(made, name):
    folder, metrics, _ = made
    labels = {row["id"]: row for row in table(folder / "images/fresh/labels.csv")}
    ids = sorted(path.name for path in (folder / "images/fresh").glob("*.png"))
    concepts = {row["unique_id"]: row for row in table(folder / "concepts.csv")}
    triplets = np.load(folder / f"evaluation/{name}.npy")
    check_triplets(triplets, len(ids), name)
    of_picture = np.array([int(concepts[labels[image]["label"]]["index"]) for image in ids])
    similarity = np.load(folder / "similarity.npy")
    probs = np.load(folder / f"evaluation/{name}_probabilities.npy")
    np.testing.assert_allclose(probs, pair_probabilities(similarity, of_picture[triplets]), atol=1e-6)
    assert metrics[f"ceiling_{name}"] == pytest.approx(probs.max(1).mean(), abs=1e-6)
    category = np.array([labels[image]["category"] for image in ids])[triplets]
    judged = np.array([int(labels[image]["judged"]) for image in ids])[triplets]
    assert all(len(set(row)) == 3 for row in of_picture[triplets].tolist())
    if name == "coarse":
        assert all(len(set(row)) == 2 for row in category.tolist())
    assert (judged == 0).all() == (name == "unjudged")
    # who knows the embedding reaches the ceiling; whose pictures are shuffled stays at chance
    x = torch.from_numpy(make_concepts(SETTINGS).embedding[of_picture])
    best = accuracy(similarities(x, torch.from_numpy(triplets).long()))
    assert best == pytest.approx(metrics[f"ceiling_{name}"], abs=0.04)
    mixed = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    assert accuracy(similarities(mixed, torch.from_numpy(triplets).long())) < 0.45


def test_objects_are_the_judged_pictures_in_the_order_of_triplets(made):
    folder, _, concepts = made
    ids = (folder / "objects.txt").read_text().splitlines()
    rows = table(folder / "objects.csv")
    assert [row["photo"] for row in rows] == ids
    assert sorted(ids) == sorted(path.name for path in (folder / "images/things").glob("*.png"))
    judged = {name for name, is_judged in zip(concepts.names, concepts.judged, strict=True) if is_judged}
    assert {row["concept"] for row in rows} == judged
    triplets = np.load(folder / "triplets/train.npy")
    check_triplets(triplets, len(ids), "train")
    assert len(np.unique(triplets)) == len(ids)
    index = {name: number for number, name in enumerate(concepts.names)}
    of_object = np.array([index[row["concept"]] for row in rows])
    probs = pair_probabilities(concepts.similarity, of_object[triplets])
    assert probs[:, 0].mean() == pytest.approx((probs**2).sum(1).mean(), abs=0.03)  # choices match their P


def test_unjudged_concepts_are_neither_judged_nor_in_the_pool(monkeypatch, tmp_path):
    drawn, inside = [], world._write_pictures

    def note(folder, name, concepts, *rest):
        drawn.append((name, set(concepts.tolist())))
        return inside(folder, name, concepts, *rest)

    monkeypatch.setattr(world, "_write_pictures", note)
    write_world(tmp_path, SETTINGS)
    concepts = make_concepts(SETTINGS)
    unjudged = set(np.flatnonzero(~concepts.judged).tolist())
    assert len(unjudged) == 16
    for name, members in drawn:
        assert bool(members & unjudged) == (name not in ("things", "pool")), name


def test_captions_name_what_is_drawn_as_often_as_asked(monkeypatch, tmp_path):
    write_world(tmp_path, replace(SETTINGS, teacher_images=600, pool=1, strangers=0, size=16))
    captions = np.load(tmp_path / "pretrain/teacher_captions.npy")
    words = (tmp_path / "pretrain/vocabulary.txt").read_text().split("\n")
    concepts = make_concepts(SETTINGS)
    said = (captions > 0).mean(0)
    np.testing.assert_allclose(said, [0.9, 0.6, 0.5, 0.3], atol=0.07)
    assert (captions > 0).any(1).all()
    for category, concept, colour, background in captions[:200].tolist():
        name = words[concept]
        if concept:
            look = concepts.looks[concepts.names.index(name)]
            assert not category or name.startswith(words[category])
            assert not colour or words[colour] == drawing.COLOURS[look.hue]
        assert not background or words[background].endswith(" background")


def test_looks_alone_answer_little(tmp_path):
    few = ("exemplars", "pool", "probe", "train_triplets", "val_triplets", "teacher_images", "student_images")
    small = dict.fromkeys(few, 1)
    write_world(
        tmp_path, replace(SETTINGS, size=64, concepts=6, fresh=8, strangers=0, test_triplets=6000, **small)
    )
    triplets = torch.from_numpy(np.load(tmp_path / "evaluation/all.npy")).long()
    paths = sorted((tmp_path / "images/fresh").glob("*.png"))
    images = [Image.open(path) for path in paths]
    for features in (raw_pixels(images), colour_histogram(images)):
        for x in (features, centred(features)):
            dots = torch.from_numpy(x).double()
            for rows in (dots, torch.nn.functional.normalize(dots, dim=1)):
                assert accuracy(similarities(rows, triplets)) < 0.40


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", 15), ("size", 33), ("concepts", 7), ("unjudged", 0), ("unjudged", 4), ("pool", 0),
        ("ceiling", 0.99), ("say_colour", 1.5), ("seed", -1),
    ],
)  # fmt: skip
def test_settings_that_make_no_world_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"world\.{name}: expected .*, found {value}"):
        replace(SETTINGS, **{name: value})


def test_a_stranger_is_no_concept_that_is_never_judged():
    world = make_concepts(SETTINGS)
    rng = np.random.default_rng(0)
    for _ in range(300):
        look = stranger(world, rng)
        for index in np.flatnonzero(~world.judged):
            other = world.looks[index]
            if other.category == look.category:
                same = (
                    (look.hue == other.hue)
                    + (look.texture == other.texture)
                    + (look.outline == other.outline)
                )
                assert same <= 1
