"""Planted truth in the world: features that know what people know reach the ceiling, random ones stay at chance."""

from dataclasses import replace

import numpy as np
import pytest

from alignet.data.hierarchy import table_hierarchy
from alignet.data.judgements import load_judgements
from alignet.data.levels import tidy
from alignet.data.trials import read_trials
from alignet.evaluate.calibration import calibration
from alignet.evaluate.hierarchy import hierarchy
from alignet.evaluate.levels import model
from alignet.evaluate.odd_one_out import odd_one_out
from alignet.evaluate.rsa import rsa, rsa_mean
from alignet.world.concepts import make_concepts
from alignet.world.people import RATED, judged_sets
from alignet.world.world import write_world
from tests.world.test_world import SETTINGS

WORLD = replace(
    SETTINGS, concepts=5, unjudged=1, fresh=4, participants=60, participant_trials=60, rated=2, test_triplets=3000,
    teacher_images=8, student_images=8, pool=20, probe=1, train_triplets=100,
)  # fmt: skip
DRAWS = 200


def looks(world):
    """Features whose dot products are the similarity of looks."""
    turn = np.array([2 * np.pi * look.hue / 6 for look in world.looks])
    parts = [np.sqrt(0.5) * np.stack([np.cos(turn), np.sin(turn)], 1)]
    for name in ("texture", "outline"):
        index = np.array([getattr(look, name) for look in world.looks])
        parts.append(0.5 * np.eye(8)[index])
    return np.concatenate(parts, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    write_world(folder, WORLD)
    world = make_concepts(WORLD)
    ids = sorted(path.name for path in (folder / "images" / "fresh").glob("*.png"))
    concepts = np.array([world.names.index(name.rsplit("_", 1)[0]) for name in ids])
    return folder, world, ids, concepts


def random(rows, width=40):
    return np.random.default_rng(7).normal(size=(rows, width))


def by_metric(scores, dataset=None):
    return {score.metric: score for score in scores if dataset is None or score.dataset == dataset}


@pytest.mark.parametrize("name", ["all", "coarse", "unjudged"])
def test_odd_ones_out(made, name):
    folder, world, ids, concepts = made
    triplets = np.load(folder / "evaluation" / f"{name}.npy")
    exact = np.load(folder / "evaluation" / f"{name}_probabilities.npy")
    settings = {"dataset": name, "tau": 1.0, "seed": 0, "bootstrap": DRAWS, "probabilities": exact}
    knows = by_metric(odd_one_out(world.embedding[concepts], triplets, **settings))["odd_one_out"]
    assert knows.low <= knows.ceiling <= knows.high
    assert abs(knows.value - knows.ceiling) < 4 * np.sqrt(0.25 / len(triplets))
    guesses = by_metric(odd_one_out(random(len(ids)), triplets, units=concepts, **settings))["odd_one_out"]
    assert guesses.low <= 1 / 3 <= guesses.high


def test_probabilities_are_people_s_at_their_own_temperature(made):
    folder, world, _, concepts = made
    triplets = np.load(folder / "evaluation" / "all.npy")
    exact = np.load(folder / "evaluation" / "all_probabilities.npy")
    shared = {
        "dataset": "all",
        "tau": "fit",
        "seed": 0,
        "bootstrap": DRAWS,
        "probabilities": exact,
        "bins": 10,
        "grid": [1],
    }
    knows = calibration(world.embedding[concepts], triplets, **shared)
    assert all(0.85 < tau < 1.15 for tau in knows.tables["fits"]["tau"])
    scores = by_metric(knows.scores)
    assert scores["kl_to_people"].value < 0.01
    assert scores["entropy_rho"].value > 0.99
    guesses = by_metric(calibration(random(len(concepts)), triplets, **shared).scores)
    assert guesses["choice_nll"].value == pytest.approx(np.log(3), abs=0.02)
    assert abs(guesses["entropy_rho"].value) < 0.15


def levels_of(made, features, trials=None):
    folder, _, ids, _ = made
    given = read_trials(folder / "people" / "trials.csv") if trials is None else trials
    found = tidy(given, catch_accuracy=0.9, max_misses=10, slow_ms=10000, name="trials")
    rows = np.stack([[ids.index(name) for name in found.triplets[f"image{place}"]] for place in (1, 2, 3)], 1)
    result = model(
        features, rows, found.triplets, dataset="levels", tau="fit", fit=None, seed=0, bootstrap=DRAWS
    )
    return found, result


@pytest.mark.parametrize(
    ("level", "kind"), [("coarse", "concept"), ("boundary", "concept"), ("fine", "look")]
)
def test_levels(made, level, kind):
    _, world, _, concepts = made
    features = world.embedding[concepts] if kind == "concept" else 2 * looks(world)[concepts]
    found, result = levels_of(made, features)
    scores = by_metric(result.scores, f"levels {level}")
    assert (
        scores["odd_one_out"].value >= scores["odd_one_out"].ceiling - 0.05
    )  # of single people; the majority is surer
    assert scores["rt_spearman"].low > 0
    assert scores["disagreement_spearman"].low > 0
    assert {"clicker", "absent"} & set(found.trials["participant"]) == set()
    _, guessed = levels_of(made, random(len(concepts)))
    scores = by_metric(guessed.scores, f"levels {level}")
    assert scores["odd_one_out"].low <= 1 / 3 <= scores["odd_one_out"].high
    for metric in ("rt_spearman", "disagreement_spearman"):
        assert scores[metric].low <= 0 <= scores[metric].high


def test_shuffled_response_times_give_no_correlation(made):
    folder, world, _, concepts = made
    trials = read_trials(folder / "people" / "trials.csv")
    answered = np.flatnonzero(np.isfinite(trials.rt))
    rt = trials.rt.copy()
    rt[answered] = np.random.default_rng(1).permutation(rt[answered])
    _, result = levels_of(made, world.embedding[concepts], replace(trials, rt=rt))
    for level in ("coarse", "boundary"):
        score = by_metric(result.scores, f"levels {level}")["rt_spearman"]
        assert score.low <= 0 <= score.high


def test_rated_pairs(made):
    folder, world, _, _ = made
    root = folder / "images" / "judged"
    found = {}
    for name, concepts in judged_sets(world, WORLD).items():
        path, options = root / name / "sim_judgments" / "sim.mat", {"format": "peterson", "part": None}
        if name in ("set1", "set2"):
            path, options = root / "BEHAVIOR.mat", {"format": "king", "part": name}
        if name == "cichy":
            path, options = root / "judgments_general.mat", {"format": "cichy", "part": None}
        judged = load_judgements(path, images=len(concepts), kind=None, key=None, **options)
        space = looks(world) if name in RATED else world.embedding
        scores = by_metric(
            rsa(space[concepts], judged.similarity, dataset=name, seed=0, bootstrap=DRAWS, permutations=200)
        )
        assert scores["rsa_spearman"].value > 0.75  # rho of the Pearson kernel; ratings are noisy
        assert scores["rsa_p"].value < 0.01
        found[name] = (random(len(concepts)), judged.similarity)
        scores = by_metric(rsa(*found[name], dataset=name, seed=0, bootstrap=DRAWS, permutations=200))
        assert scores["rsa_spearman"].low <= 0 <= scores["rsa_spearman"].high
        assert scores["rsa_p"].value > 0.02
    mean = by_metric(
        rsa_mean({name: found[name] for name in RATED}, dataset="within", seed=0, bootstrap=DRAWS), "within"
    )
    assert mean["rsa_spearman"].low <= 0 <= mean["rsa_spearman"].high


def test_the_hierarchy(made):
    folder, world, ids, concepts = made
    table = table_hierarchy(
        folder / "hierarchy.csv", class_="class", basic="basic", superordinate="superordinate", merge={}
    )
    levels = table.levels([world.names[concept] for concept in concepts])
    shared = {
        "dataset": "tree",
        "distance": "euclidean",
        "pairs": 10**6,
        "categories": 20,
        "seed": 0,
        "bootstrap": DRAWS,
    }
    steps = [
        np.unique(column, return_inverse=True)[1]
        for column in (levels.superordinate, levels.basic, levels.subordinate)
    ]
    tree = np.concatenate(
        [weight * np.eye(step.max() + 1)[step] for weight, step in zip((4, 2, 1), steps)], 1
    )
    before = random(len(ids))
    scores = by_metric(hierarchy(tree, levels, before=before, **shared).scores)
    assert scores["hierarchy_order"].value == pytest.approx(1)
    moved = [
        scores[f"hierarchy_{name}"].value for name in ("subordinate", "basic", "superordinate", "across")
    ]
    assert moved == sorted(moved)
    assert moved[0] < -1 < 0 < moved[-1]
    scores = by_metric(hierarchy(before, levels, before=None, **shared).scores)
    assert scores["hierarchy_order"].low <= 0.5 <= scores["hierarchy_order"].high
    other = np.random.default_rng(2).normal(size=before.shape)
    scores = by_metric(hierarchy(other, levels, before=before, **shared).scores)
    assert all(
        scores[f"hierarchy_{name}"].low <= 0 <= scores[f"hierarchy_{name}"].high
        for name in ("basic", "across")
    )
