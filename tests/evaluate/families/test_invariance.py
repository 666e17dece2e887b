"""The family `invariance`: planted IRIs come back, an optimised distance is left out, people's answers are compared."""

import numpy as np
import pytest

from alignet.evaluate.families.invariance import invariance
from alignet.evaluate.families.options import check_options
from tests.makers.inverted import (
    OPTIONS,
    ids_of,
    images_of,
    material,
    measured,
    mixed,
    planted,
    seeds_of,
    write_choices,
    write_inverted,
    write_perceptual,
)

N = 9


def scores_of(result):
    return {one.metric: one for one in result.scores}


def measured_by(nodes, options=OPTIONS, **more):
    return scores_of(invariance(material(nodes, **more), options))


def answers_of(distance, kind, *, participants=2, wrong=0.0, seed=0):
    """Answers of people who follow a distance (n, k, n) and (n, k), or click at random with the probability `wrong`."""
    ids, generator = ids_of(N), np.random.default_rng(seed)
    rows = []
    for person in range(participants):
        for image in range(N):
            for draw in range(2):
                row = {"participant": f"p{person}", "kind": kind, "image": ids[image], "draw": draw}
                guess = generator.random() < wrong
                if kind == "two":
                    near = distance["to_target"][image, draw] < distance["to_seed"][image, draw]
                    near = generator.random() < 0.5 if guess else near
                    row |= {"choice": "target" if near else "seed", "right": int(near)}
                else:
                    shown = [image, *generator.permutation([one for one in range(N) if one != image])[:2]]
                    place = int(np.argmin(distance["to_targets"][image, draw, shown]))
                    chosen = ids[shown[generator.integers(3) if guess else place]]
                    row |= {
                        "options": "|".join(ids[one] for one in shown), "choice": chosen,
                        "right": int(chosen == ids[image]),
                    }  # fmt: skip
                rows.append(row)
    return rows


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("all") / "a", N, 1.0)


def test_what_keeps_everything_scores_1(everything):
    found = measured_by(everything)
    for name in ("two", "two_pixels", "two_red", "match", "match_pixels", "match_red", "matched", "matched8"):
        assert found[name].value == 1, name
    assert found["error"].value == pytest.approx(0.01)
    assert found["error8"].value == pytest.approx(0.02)
    assert (found["two"].n, found["two"].chance, found["match"].chance) == (N, 0.5, pytest.approx(1 / 3))
    assert found["two"].note.endswith("mean of pixels, red")
    assert "two_matched" not in found


def test_what_keeps_nothing_scores_0_and_a_third(tmp_path):
    images, seeds = images_of(N), seeds_of(1, 2)
    seeds = np.repeat(seeds, N, 0)  # every target begins, and so ends, at the same two images
    inverted = mixed(images, seeds, 0.0)
    nodes = {
        "invert": write_inverted(tmp_path / "i", images, seeds, inverted),
        "perceptual": write_perceptual(tmp_path / "p", {"pixels": measured(images, seeds, inverted)}),
    }
    found = measured_by(nodes)
    assert found["two"].value == 0
    assert found["match"].value == pytest.approx(1 / 3)
    flat = {name: np.zeros_like(one) for name, one in measured(images, seeds, inverted).items()}
    nodes["perceptual"] = write_perceptual(tmp_path / "flat", {"pixels": flat})  # all ties
    found = measured_by(nodes)
    assert (found["two"].value, found["match"].value) == (0, pytest.approx(1 / 3))


def test_shuffled_targets_lose_what_was_planted(tmp_path):
    images, seeds = images_of(60), seeds_of(60, 2)
    inverted = mixed(np.roll(images, 1, 0), seeds, 1.0)
    nodes = {
        "invert": write_inverted(tmp_path / "i", images, seeds, inverted),
        "perceptual": write_perceptual(tmp_path / "p", {"pixels": measured(images, seeds, inverted)}),
    }
    found = measured_by(nodes)
    assert found["match"].value == pytest.approx(1 / 3, abs=0.06)
    assert 0.25 < found["two"].value < 0.75


def test_an_optimised_distance_is_shown_and_left_out_of_the_mean(everything, tmp_path):
    nodes = everything | planted(tmp_path, N, 0.0, name="adversarial", optimised="pixels")
    folder = nodes["perceptual_adversarial"]
    good = np.load(everything["perceptual"] / "red.npz")
    np.savez(folder / "red.npz", **good)
    found = measured_by(nodes)
    assert found["adversarial_two_pixels"].value == 0
    assert "optimised" in found["adversarial_two_pixels"].note
    assert found["adversarial_two"].value == found["adversarial_two_red"].value == 1
    assert "pixels, which was optimised, is left out" in found["adversarial_two"].note
    assert found["two"].value == 1
    (folder / "red.npz").unlink()
    found = measured_by(nodes)
    assert "adversarial_two_pixels" in found
    assert not {"adversarial_two", "adversarial_match"} & found.keys()


def test_images_that_do_not_match_count_and_are_told_apart(tmp_path):
    error = np.full((N, 2), 0.01)
    error[:3] = 0.5
    images, seeds = images_of(N), seeds_of(N, 2)
    inverted = mixed(images, seeds, 1.0)
    inverted[:3] = mixed(images, seeds, 0.0)[:3]
    nodes = {
        "invert": write_inverted(tmp_path / "i", images, seeds, inverted, error=error),
        "perceptual": write_perceptual(tmp_path / "p", {"pixels": measured(images, seeds, inverted)}),
    }
    result = invariance(material(nodes), OPTIONS)
    found = scores_of(result)
    assert found["two"].value == pytest.approx(6 / 9)
    assert found["matched"].value == pytest.approx(6 / 9)
    assert (found["two_matched"].value, found["two_matched"].n) == (1, 6)
    assert found["match_matched"].value == 1
    assert "over the 12 of 18 IRIs that match alone" in found["two_matched"].note
    assert "100.0% of the 12 of 18 IRIs that match" in found["two_pixels"].note
    table = result.tables["images"]
    assert table["matched"].sum() == 12
    assert np.array_equal(table["two_pixels"].astype(bool), table["matched"])
    assert len(table["id"]) == 2 * N
    none = measured_by(
        {**nodes, "invert": write_inverted(tmp_path / "none", images, seeds, inverted, error=error + 1)}
    )
    assert none["matched"].value == 0
    assert "none of the 18 IRIs matches" in none["two"].note
    assert "two_matched" not in none


def test_hard_triples_by_images_and_by_labels(everything, tmp_path):
    similarity = np.random.default_rng(0).random((N, N))
    similarity = similarity + similarity.T
    np.save(tmp_path / "s.npy", similarity)
    options = OPTIONS | {"kind": "similarity"}
    found = measured_by(everything, options, files={"similarity": tmp_path / "s.npy"})
    assert found["match_hard"].value == 1
    assert found["match_hard"].n == N
    assert "9 triples" in found["match_hard"].note
    lines = [f"{one},{'ab' if row % 2 else 'c'}" for row, one in enumerate(ids_of(N))]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *lines]))
    (tmp_path / "order.csv").write_text("name\nab\nc\nd\n")
    np.save(tmp_path / "labels.npy", np.eye(3))
    files = {
        "similarity": tmp_path / "labels.npy", "labels": tmp_path / "labels.csv", "order": tmp_path / "order.csv",
    }  # fmt: skip
    options |= {"mean_over": "label", "order_column": "name"}
    assert measured_by(everything, options, files=files)["match_hard"].value == 1


def test_similar_images_are_harder(tmp_path):
    """Targets in groups of three that differ little: IRIs of another of the group are matched wrongly there alone."""
    generator = np.random.default_rng(0)
    groups = np.repeat(generator.integers(40, 215, (4, 3, 16, 16)), 3, 0)
    images = (groups + generator.integers(-9, 10, groups.shape)).astype(np.uint8)
    seeds = seeds_of(12, 2)
    own = np.arange(12) // 3 * 3 + (np.arange(12) + 1) % 3  # each looks like the next one of its group
    inverted = mixed(images[own], seeds, 1.0)
    np.save(tmp_path / "s.npy", np.kron(np.eye(4), np.ones((3, 3))))
    nodes = {
        "invert": write_inverted(tmp_path / "i", images, seeds, inverted),
        "perceptual": write_perceptual(tmp_path / "p", {"pixels": measured(images, seeds, inverted)}),
    }
    options = OPTIONS | {"kind": "similarity"}
    found = measured_by(nodes, options, files={"similarity": tmp_path / "s.npy"})
    assert found["match_hard"].value == 0
    assert (
        36 / 55 <= found["match"].value <= 45 / 55
    )  # wrong with the next one; the group's third may be nearer too


@pytest.mark.parametrize("kind", ["two", "match"])
def test_people_who_follow_a_distance_agree_with_it(tmp_path, kind):
    nodes = planted(tmp_path / "a", N, 0.5)
    pixels = dict(np.load(nodes["perceptual"] / "pixels.npz"))
    rows = answers_of(pixels, kind)
    extra = [
        rows[0] | {"used": "catch trial"},
        rows[1] | {"participant": "p9", "used": "participant set aside"},
    ]
    path = write_choices(tmp_path / "choices.csv", [*rows, *extra])
    options = OPTIONS | {"people_of": "original"}
    found = measured_by(nodes, options, files={"people": path})
    assert found[f"{kind}_agree_pixels"].value == 1
    own = found[f"{kind}_people"]
    assert own.value == pytest.approx(np.mean([row["right"] for row in rows]))
    assert (own.n, own.unit, own.over) == (4 * N, "answers", "images")
    assert own.note.startswith("2 participants")
    assert "left out: 1 catch trial, 1 participant set aside" in own.note
    random = write_choices(tmp_path / "random.csv", answers_of(pixels, kind, wrong=1.0, participants=20))
    found = measured_by(nodes, options, files={"people": random})
    assert found[f"{kind}_agree_pixels"].value == pytest.approx(1 / 2 if kind == "two" else 1 / 3, abs=0.07)
    assert found[f"{kind}_people"].value == pytest.approx(found[f"{kind}_people"].chance, abs=0.07)


def test_peoples_answers_belong_to_one_row(everything, tmp_path):
    pixels = dict(np.load(everything["perceptual"] / "pixels.npz"))
    path = write_choices(tmp_path / "choices.csv", answers_of(pixels, "two"))
    with pytest.raises(ValueError, match=r"options\.people_of: expected the setting"):
        measured_by(everything, files={"people": path})
    options = OPTIONS | {"people_of": "robust-l2"}
    assert "two_people" not in measured_by(everything, options, files={"people": path})
    assert "two_people" in measured_by(everything, options, files={"people": path}, setting="robust-l2")
    assert "two_people" in measured_by(everything, files={"people original": path})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "gone.jpg"}, "expected images that were inverted, found 'gone.jpg'"),
        ({"draw": 2}, "expected a draw of 0 to 1, found '2'"),
        ({"right": 0}, "expected a choice among target, seed"),
        ({"choice": "both"}, "expected a choice among target, seed"),
        ({"kind": "odd_one_out"}, "expected kind two or match"),
        ({"used": "perhaps"}, "expected kind two or match and used one of"),
        ({"used": "too fast"}, "expected answers of the kind two that count, found 0 of 1"),
    ],
)
def test_answers_that_do_not_fit_are_refused(everything, tmp_path, change, said):
    row = {"kind": "two", "image": ids_of(N)[0], "choice": "target", "right": 1}
    path = write_choices(tmp_path / "choices.csv", [row | change])
    with pytest.raises(ValueError, match=said):
        measured_by(everything, files={"people original": path})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"kind,image\ntwo,a\n", "expected the columns? participant"),
        (b"\xff\xfe\x00", "found other bytes .* as UTF-16 begins"),
        (b"participant,kind,image,draw,options,choice,right,used\np,two\n", r"choices\.csv"),
        (
            b"participant,kind,image,draw,options,choice,right,used\n",
            "expected answers on inverted images, found none",
        ),
    ],
)
def test_files_that_hold_no_answers_are_refused(everything, tmp_path, content, said):
    (tmp_path / "choices.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        measured_by(everything, files={"people original": tmp_path / "choices.csv"})


def test_nodes_that_do_not_fit_are_refused(everything, tmp_path):
    with pytest.raises(ValueError, match="found no `perceptual`"):
        measured_by({"invert": everything["invert"]})
    with pytest.raises(ValueError, match="found no `invert`"):
        measured_by({"perceptual": everything["perceptual"]})
    with pytest.raises(ValueError, match="found no `perceptual_tv`"):
        measured_by(everything | {"invert_tv": everything["invert"]})
    with pytest.raises(ValueError, match="expected nodes `invert` and `perceptual`"):
        measured_by(everything | {"attack": everything["invert"]})
    other = planted(tmp_path / "other", N - 1, 1.0)
    with pytest.raises(ValueError, match="expected the images of `invert` in `perceptual`"):
        measured_by(everything | {"perceptual": other["perceptual"]})
    images, seeds = images_of(3), seeds_of(3, 2)
    inverted = mixed(images, seeds, 1.0)
    names = ["a", "b", "c"]
    strange = {
        "invert_tv": write_inverted(tmp_path / "i", images, seeds, inverted, names=names),
        "perceptual_tv": write_perceptual(
            tmp_path / "p", {"pixels": measured(images, seeds, inverted)}, names=names
        ),
    }
    with pytest.raises(
        ValueError, match="expected the images of the node invert in invert_tv, found 3 others"
    ):
        measured_by(everything | strange)
    bad = {"people": measured(images_of(N), seeds_of(N, 2), mixed(images_of(N), seeds_of(N, 2), 1.0))}
    with pytest.raises(ValueError, match="does not begin with people"):
        measured_by(everything | {"perceptual": write_perceptual(tmp_path / "bad", bad)})
    nan = {name: np.full_like(one, np.nan) for name, one in bad["people"].items()}
    with pytest.raises(ValueError, match="expected finite distances"):
        measured_by(everything | {"perceptual": write_perceptual(tmp_path / "nan", {"pixels": nan})})
    error = np.full((N, 2), np.inf)
    images, seeds = images_of(N), seeds_of(N, 2)
    node = write_inverted(tmp_path / "inf", images, seeds, mixed(images, seeds, 1.0), error=error)
    with pytest.raises(ValueError, match="expected finite relative errors"):
        measured_by(everything | {"invert": node})


def test_two_targets_have_no_clustering_and_it_is_said(tmp_path):
    found = measured_by(planted(tmp_path, 2, 1.0))
    assert "match" not in found
    assert "no clustering" in found["error"].note


def test_pictures_are_made_only_where_they_may_be(everything):
    assert "pictures" in invariance(material(everything), OPTIONS).tables
    plain = invariance(material(everything), {"matched": 0.05}).tables
    assert sorted(plain) == ["distances", "images", "methods"]


def test_options():
    check_options("iris", "invariance", OPTIONS)
    with pytest.raises(ValueError, match="no matched"):
        check_options("iris", "invariance", {})
    with pytest.raises(ValueError, match=r"options\.matched: expected a number above 0"):
        check_options("iris", "invariance", {"matched": 0})
