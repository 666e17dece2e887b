"""What simulated participants do beside their choices: planted structure is in it, and nothing else."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import loadmat
from scipy.stats import spearmanr

from alignet.world.concepts import make_concepts, pair_probabilities
from alignet.world.drawing import CATEGORIES, Look
from alignet.world.people import (
    ANSWERS,
    CATCH,
    LEVELS,
    RATED,
    judged_sets,
    look_similarity,
    pair_similarity,
)
from alignet.world.world import write_world
from tests.world.test_world import SETTINGS

PEOPLE = replace(
    SETTINGS, participants=30, participant_trials=60, teacher_images=8, student_images=8, pool=20, fresh=4
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("people")
    write_world(folder, PEOPLE)
    with open(folder / "people" / "trials.csv", newline="", encoding="utf-8") as handle:
        return folder, list(csv.DictReader(handle)), make_concepts(PEOPLE)


def concept(world, name):
    return world.names.index(name.rsplit("_", 1)[0])


def seen(rows, name):
    own = (row for row in rows if row["participant"] == name)
    return {tuple(sorted((row["image1"], row["image2"], row["image3"]))) for row in own}


def test_every_triplet_has_five_answers_and_every_participant_the_same_number_of_trials(made):
    _, rows, _ = made
    asked = [row for row in rows if row["exp_trial_type"] == "exp_trial"]
    usual = [row for row in asked if row["participant"].startswith("p")]
    triplets = [tuple(sorted((row["image1"], row["image2"], row["image3"]))) for row in usual]
    assert set(np.unique(triplets, axis=0, return_counts=True)[1]) == {ANSWERS}
    people = {row["participant"] for row in usual}
    assert len(people) == PEOPLE.participants
    for name in people:
        own = [row for row in rows if row["participant"] == name]
        assert len(own) == PEOPLE.participant_trials + CATCH
        assert (
            len({tuple(sorted((row["image1"], row["image2"], row["image3"]))) for row in own})
            >= len(own) - CATCH
        )
    levels = np.unique([row["triplet_type"] for row in usual], return_counts=True)
    assert set(levels[0]) == set(LEVELS)
    assert np.ptp(levels[1]) <= 2 * ANSWERS


def test_one_clicks_at_random_one_misses_and_one_has_the_trials_of_another(made):
    _, rows, _ = made
    caught = {}
    for row in rows:
        if row["exp_trial_type"] == "catch_trial":
            caught.setdefault(row["participant"], []).append(row["selected_image"] == row["correct_image"])
    assert (
        np.mean(caught["clicker"])
        < 0.9
        < np.mean([np.mean(caught[name]) for name in caught if name[0] == "p"])
    )
    missed = {name: sum(row["rt"] == "" for row in rows if row["participant"] == name) for name in caught}
    assert missed["absent"] > 10 > max(missed[name] for name in caught if name[0] == "p")
    sets = {
        name: {
            tuple(sorted((row["image1"], row["image2"], row["image3"])))
            for row in rows
            if row["participant"] == name
        }
        for name in caught
    }
    assert sets["twin"] == sets["p003"]


def test_answers_follow_the_level_and_times_follow_how_even_the_answers_are(made):
    _, rows, world = made
    nats, seconds, likely, best = [], [], {level: [] for level in LEVELS}, {level: [] for level in LEVELS}
    for row in rows:
        if row["exp_trial_type"] == "catch_trial" or row["participant"][0] != "p" or not row["rt"]:
            continue
        ids = [row["image1"], row["image2"], row["image3"]]
        level = row["triplet_type"]
        concepts = np.array([[concept(world, name) for name in ids]])
        probs = pair_probabilities(pair_similarity(world, level), concepts)[0][::-1]
        likely[level].append(ids[int(probs.argmax())] == row["selected_image"])
        best[level].append(probs.max())
        nats.append(-(probs * np.log(probs)).sum())
        seconds.append(float(row["rt"]) / 1000)
    for level in LEVELS:
        assert abs(np.mean(likely[level]) - np.mean(best[level])) < 4 * np.sqrt(0.25 / len(likely[level]))
    rho = spearmanr(nats, seconds).statistic
    assert rho > 0.2
    shuffled = np.random.default_rng(0).permutation(seconds)
    assert abs(spearmanr(nats, shuffled).statistic) < 4 / np.sqrt(len(nats))
    assert min(seconds) >= 1


def test_ratings_are_in_the_original_formats_and_follow_the_similarity(made):
    folder, _, world = made
    root = folder / "images" / "judged"
    sets = judged_sets(world, PEOPLE)
    cichy = loadmat(root / "judgments_general.mat")["judgments"]
    king = loadmat(root / "BEHAVIOR.mat")["BEHAVIOR"]
    for name, concepts in sets.items():
        pictures = sorted((root / name / "images").iterdir())
        assert [concept(world, path.stem.split("_", 1)[1] + "_0") for path in pictures] == concepts.tolist()
        planted = pair_similarity(world, "within_class" if name in RATED else "between_class")
        upper = np.triu_indices(len(concepts), 1)
        if name in ("set1", "set2"):
            rated = 10 - king[0, 0][name][0, 0]["pairwisedistances"]
        elif name == "cichy":
            rated = 10 - cichy.mean(0)
        else:
            rated = loadmat(root / name / "sim_judgments" / "sim.mat")["simmatrix"]
        assert rated.shape == (len(concepts),) * 2
        assert 0 <= rated.min() <= rated.max() <= 10
        assert spearmanr(rated[upper], planted[np.ix_(concepts, concepts)][upper]).statistic > 0.85
    assert cichy.ndim == 3
    # raters and pictures are others than those of `various`, whose concepts are the same
    various = loadmat(root / "various" / "sim_judgments" / "sim.mat")["simmatrix"]
    assert not np.allclose(10 - cichy.mean(0), various, atol=0.2)
    pictures = {
        name: [path.read_bytes() for path in sorted((root / name / "images").iterdir())]
        for name in ("various", "cichy")
    }
    assert len(pictures["cichy"]) == len(world.names)
    assert not set(pictures["various"]) & set(pictures["cichy"])


def test_looks_are_most_like_themselves_and_their_hues_lie_on_a_circle():
    looks = [Look(0, hue, 0, 0, 1.0, 2.0) for hue in range(6)]
    assert look_similarity(looks[0], looks[0]) == 1
    assert look_similarity(looks[0], looks[3]) == 0
    assert look_similarity(looks[0], looks[1]) == pytest.approx(look_similarity(looks[0], looks[5]))
    assert look_similarity(looks[0], Look(1, 3, 1, 1, 1.0, 2.0)) == -0.5


def test_the_hierarchy_holds_every_class_of_the_pool(made):
    folder, _, world = made
    with open(folder / "hierarchy.csv", newline="", encoding="utf-8") as handle:
        classes = {row["class"]: (row["basic"], row["superordinate"]) for row in csv.DictReader(handle)}
    assert {classes[name][0] for name in world.names} == set(CATEGORIES)
    with open(folder / "pool_labels.csv", newline="", encoding="utf-8") as handle:
        labels = list(csv.DictReader(handle))
    assert len(labels) == PEOPLE.pool
    assert {row["class"] for row in labels} <= set(classes)
    assert sum(row["class"].endswith("_other") for row in labels) == PEOPLE.strangers
