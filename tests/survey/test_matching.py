"""Surveys about identically represented inputs: what is asked, the page, and what the answers come to."""

import csv
import hashlib
import json
import shlex
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from alignet.survey import page
from alignet.survey.answers import ImportedChoices, Rules, import_answers
from alignet.survey.matching import drawn_triples, inverted_ids, plan_matching, read_inverted, read_similarity
from alignet.survey.page import Texts, _template, build_matching_page
from alignet.survey.survey import Shown, load_survey
from tests.makers.inverted import ids_of, images_of, mixed, seeds_of, write_inverted
from tests.makers.people import save
from tests.survey.test_page import content_of, jpegs_of

N, K = 9, 3
RULES = Rules(catch_accuracy=0.9, max_misses=3, fast_ms=200, slow_ms=10_000, incomplete="set_aside")


def folder_of(root, **options):
    """IRIs between target and seed, some nearer to the one and some to the other."""
    images, seeds = images_of(N), seeds_of(N, K)
    share = np.random.default_rng(5).uniform(0.3, 0.7, (N, K, 1, 1, 1)).astype(np.float32)
    return write_inverted(root / "iris", images, seeds, mixed(images, seeds, share), **options)


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    return read_inverted(folder_of(tmp_path_factory.mktemp("iris")))


def survey_of(iris, kind, **options):
    values = {
        "questions": 1000,
        "triples": None,
        "trials": 60,
        "catch": 8,
        "practice": 2,
        "seed": 0,
    } | options
    plan = plan_matching(iris, kind=kind, **values)
    return build_matching_page(
        iris, plan, texts=Texts("Title", "You agree.", "Send it."), pixels=48, quality=80, lossless=True,
        max_megabytes=5.0,
    )  # fmt: skip


def far(iris, one, other):
    """The root mean square difference of two pictures."""
    pixels = [np.asarray(iris.picture(picture), dtype=np.float64) for picture in (one, other)]
    return np.sqrt(((pixels[0] - pixels[1]) ** 2).mean())


def follows(iris):
    """Somebody who chooses the picture that differs least."""
    return lambda row, options: int(np.argmin([far(iris, row, one) for one in options]))


def answered(survey, seed, choose):
    """What the page of a participant saves; choose(Shown, options) -> place."""
    generator = np.random.default_rng(seed)
    questions = {question for question, check in survey.questions.items() if not check}
    checks = [question for question, check in survey.questions.items() if check][: survey.catch]
    count = survey.length - survey.catch
    asked = [*(sorted(questions)[row] for row in generator.permutation(len(questions))[:count]), *checks]
    trials = []
    for row in generator.permutation(len(asked)):
        number, *options = asked[row]
        options = [options[column] for column in generator.permutation(len(options))]
        place = choose(survey.pictures[number], [survey.pictures[one] for one in options])
        trials.append(
            {
                "pictures": [number, *options],
                "choice": place,
                "rt": round(float(generator.uniform(400, 4000)), 1),
            }
        )
    return {
        "format": "alignet-survey-answers", "version": 1, "survey": survey.id, "participant": generator.bytes(16).hex(),
        "complete": True, "trials": trials,
    }  # fmt: skip


def test_a_survey_of_odd_ones_out_keeps_its_page_and_its_file():
    """Files of answers that were collected belong to it: its id is a hash of the page."""
    known = "9887a284d43c981794628970c902e9d25f0cdd633774d6783a8a43b12609a65d"
    assert hashlib.sha256(_template("odd_one_out").encode()).hexdigest() == known
    assert len({_template(kind) for kind in ("odd_one_out", "two", "match")}) == 3


def test_a_survey_of_odd_ones_out_keeps_its_id(monkeypatch, tmp_path):
    """The page as a whole and its survey.json, but for how JPEG is written, which is a library's."""
    monkeypatch.setattr(page, "_jpeg", lambda picture, quality: picture.tobytes() + bytes([quality]))
    draw = np.random.default_rng(0)
    pictures = {
        f"{row}.png": Image.fromarray(draw.integers(0, 256, (8, 8, 3)).astype(np.uint8)) for row in range(6)
    }
    _, survey = page.build_page(
        list(pictures), pictures.__getitem__, np.array([[0, 1, 2], [1, 3, 5], [2, 4, 5], [0, 3, 4]]),
        texts=Texts("Title", "You agree.", "Send it."), trials=3, catch=2, practice=1, pixels=8, quality=80,
        max_megabytes=1.0, seed=0, dead_ms=400,
    )  # fmt: skip
    survey.save(tmp_path / "survey.json")
    assert survey.id == "sa90a7117741"
    known = "7c4fd8aaf03c23c456c778922b3b025058d32eeff5e63fa95a8000773c45b26d"
    assert hashlib.sha256((tmp_path / "survey.json").read_bytes()).hexdigest() == known


@pytest.mark.parametrize("kind", ["two", "match"])
def test_questions_are_what_the_paper_asks(iris, kind, tmp_path):
    _, survey = survey_of(iris, kind)
    survey.save(tmp_path / "survey.json")
    assert load_survey(tmp_path / "survey.json") == survey
    for block in survey.blocks:
        rows, options = ([survey.pictures[one] for one in part] for part in (block.rows, block.options))
        assert all(one.what == "inverted" for one in rows)
        if kind == "two":
            (row,) = rows
            assert {*options} == {Shown(row.object, -1, "target"), Shown(row.object, row.draw, "seed")}
        else:
            assert all(one.what == "target" for one in options)
            assert Counter(one.object for one in rows) == {one.object: 2 for one in options}
            assert len(set(rows)) == 6
            assert len(set(options)) == 3
        assert survey.pictures[block.check] in options
        assert block.check not in block.options
    everything = {one for block in survey.blocks for one in block.rows}
    assert kind == "match" or len(everything) == N * K == len(survey.blocks)
    assert survey.trials == (27 if kind == "two" else 10)
    assert survey.length == (27 if kind == "two" else 60) + 8
    numbers = [*{one for block in survey.blocks for one in (*block.rows, *block.options)}]
    checks = [block.check for block in survey.blocks]
    assert sorted([*numbers, *checks]) == [*range(len(survey.pictures))]
    assert survey_of(iris, kind)[1] == survey
    assert survey_of(iris, kind, seed=1)[1].id != survey.id
    assert all(block.check == -1 for block in survey_of(iris, kind, catch=0)[1].blocks)


@pytest.mark.parametrize("kind", ["two", "match"])
def test_the_page_shows_every_pixel_and_tells_no_name_and_no_kind_of_picture(iris, kind):
    html, survey = survey_of(iris, kind)
    content = content_of(html)
    assert set(content) == {
        "survey", "pixels", "title", "consent", "hand_in", "trials", "catch", "blocks", "practice", "shows", "pictures",
        "dead_ms",
    }  # fmt: skip
    assert not any(name in html for name in survey.objects)
    looks = jpegs_of(content)
    for number, shown in enumerate(survey.pictures):
        np.testing.assert_array_equal(
            np.asarray(looks[content["shows"][number]]), np.asarray(iris.picture(shown))
        )
    places = [
        [drawn.pictures[one].what for one in block.options].index("target")
        for drawn in (survey_of(iris, "two", seed=seed)[1] for seed in range(6))
        for block in drawn.blocks
    ]
    assert 0.35 < np.mean(places) < 0.65  # a smaller number says nothing about which is the target


@pytest.mark.parametrize("kind", ["two", "match"])
def test_who_follows_a_distance_gives_it_back_and_who_clicks_at_random_is_set_aside(iris, kind, tmp_path):
    _, survey = survey_of(iris, kind)
    files = [answered(survey, seed, follows(iris)) for seed in range(3)]
    dice = np.random.default_rng(3)
    files += [
        answered(survey, 50 + seed, lambda _, options: int(dice.integers(len(options)))) for seed in range(3)
    ]
    result = import_answers(save(tmp_path, files), {survey.id: survey}, rules=RULES, damaged="stop")
    assert isinstance(result, ImportedChoices)
    assert result.summary["set_aside"] == {"catch trials": 3}
    used = [row for row in result.choices if row["used"] == "yes"]
    asked = survey.length - survey.catch
    assert len(used) == result.summary["choices"] == 3 * asked
    assert Counter(row["used"] for row in result.choices) == {
        "yes": 3 * asked, "catch trial": 6 * survey.catch, "participant set aside": 3 * asked,
    }  # fmt: skip
    place = {name: row for row, name in enumerate(iris.ids)}
    right = []
    for row in used:
        one = Shown(place[row["image"]], row["draw"], "inverted")
        if kind == "two":
            target, seed = (far(iris, one, Shown(one.object, draw, what))
                            for draw, what in ((-1, "target"), (one.draw, "seed")))  # fmt: skip
            assert row["choice"] == ("target" if target < seed else "seed")
            assert row["options"] == ""
            right.append(target < seed)
        else:
            shown = [place[name] for name in row["options"].split("|")]
            nearest = min(shown, key=lambda other: far(iris, one, Shown(other, -1, "target")))
            assert row["choice"] == iris.ids[nearest]
            person = next(one for one in files if one["participant"] == row["participant"])
            on_screen = person["trials"][row["trial"]]["pictures"][1:]
            assert shown == [survey.pictures[number].object for number in on_screen]
            right.append(nearest == one.object)
        assert row["right"] == right[-1]
    assert result.summary["right"] == {kind: pytest.approx(np.mean(right))}
    assert kind == "match" or 0.2 < np.mean(right) < 0.8
    caught = [
        row
        for row in result.choices
        if row["used"] == "catch trial" and row["participant"] == files[0]["participant"]
    ]
    assert all(row["right"] for row in caught)
    assert len(caught) == survey.catch
    if kind == "two":  # half of the checks show the seed
        assert {row["choice"] for row in caught} == {"target", "seed"}


DAMAGE = {
    "three pictures": ({"pictures": [0, 1, 2, 3, 4]}, "trial 4: expected .* picture numbers"),
    "another question": (
        {"pictures": None},
        "trial 4: expected pictures that the survey asks about together",
    ),
    "no option": ({"choice": 3}, "trial 4: expected choice 0"),
    "too late": ({"rt": 10**400}, "trial 4: expected a response time"),
    "early": ({"early": -1}, "trial 4: expected a number of early clicks"),
    "no number": ({"pictures": "a"}, "trial 4: expected .* picture numbers"),
}


@pytest.mark.parametrize("kind", ["two", "match"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(iris, tmp_path, kind, damage):
    _, survey = survey_of(iris, kind)
    content = answered(survey, 0, follows(iris))
    change, message = DAMAGE[damage]
    change = dict(change)
    if change.get("pictures", 0) is None:  # an option is asked about among the others
        first, *options = content["trials"][4]["pictures"]
        change["pictures"] = [options[0], first, *options[1:]]
    content["trials"][4] |= change
    paths = save(tmp_path, [content])
    with pytest.raises(ValueError, match=message) as caught:
        import_answers(paths, {survey.id: survey}, rules=RULES, damaged="stop")
    assert str(caught.value).startswith(str(paths[0]))


def test_two_fits_only_two_places(iris, tmp_path):
    _, survey = survey_of(iris, "two")
    content = answered(survey, 0, follows(iris))
    content["trials"][0]["choice"] = 2
    with pytest.raises(ValueError, match="trial 0: expected choice 0 or 1, found 2"):
        import_answers(save(tmp_path, [content]), {survey.id: survey}, rules=RULES, damaged="stop")


def test_both_kinds_about_the_same_iris_come_together_and_others_do_not(iris, tmp_path):
    from alignet.survey.choose import random_triplets
    from tests.makers.people import make_survey, planted, sheet

    pair = [survey_of(iris, kind)[1] for kind in ("two", "match")]
    surveys = {one.id: one for one in pair}
    files = save(tmp_path, [answered(one, seed, follows(iris)) for seed, one in enumerate(pair)])
    result = import_answers(files, surveys, rules=RULES, damaged="stop")
    assert isinstance(result, ImportedChoices)
    assert set(result.summary["right"]) == {"two", "match"}
    images, seeds = images_of(N), seeds_of(N, K)
    other = read_inverted(write_inverted(tmp_path / "other", images, seeds, mixed(images, seeds, 0.9)))
    second = survey_of(other, "two")[1]
    _, odd = make_survey(8, random_triplets(8, 30, seed=0))
    contents = {second.id: answered(second, 3, follows(other)), odd.id: sheet(odd, 4, planted(8, 3, seed=0))}
    for stranger in (second, odd):
        (tmp_path / stranger.id).mkdir()
        (path,) = save(tmp_path / stranger.id, [contents[stranger.id]])
        with pytest.raises(
            ValueError,
            match=r"expected surveys about the same inverted images.*a folder of its own.* survey.folder=<that folder>",
        ):
            import_answers([files[0], path], surveys | {stranger.id: stranger}, rules=RULES, damaged="stop")


def test_hard_triples_are_an_image_and_the_two_most_similar():
    features = np.random.default_rng(0).normal(size=(20, 3))
    similarity = features @ features.T
    found = drawn_triples(similarity, range(20), 1000, seed=0)

    def triple(one):
        others = sorted(
            (other for other in range(20) if other != one), key=lambda other: -similarity[one, other]
        )
        return tuple(sorted((one, *others[:2])))

    expected = {triple(one) for one in range(20)}
    assert {tuple(row) for row in found.tolist()} == expected
    assert len(found) == len(expected)
    assert {tuple(row) for row in drawn_triples(similarity, range(20), 5, seed=0).tolist()} < expected
    assert {tuple(row) for row in drawn_triples(similarity, [3, 8], 9, seed=0).tolist()} == {
        triple(3),
        triple(8),
    }
    ties = [drawn_triples(np.zeros((20, 20)), range(20), 1, seed=seed).tolist() for seed in range(20)]
    assert len({tuple(row) for (row,) in ties}) > 10  # equal similarities do not favour the first images


def test_match_takes_the_triples_of_a_similarity_among_all_images(tmp_path, monkeypatch):
    folder_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    similarity = np.zeros((N, N))
    groups = ((0, 4, 8), (1, 3, 5), (2, 6, 7))
    for group in groups:
        similarity[np.ix_(group, group)] = 1
    np.save("s.npy", similarity)
    np.savez("s.npz", hsj=similarity)
    names = [ids_of(N)[row] for row in range(N)]
    for name in ("s.npy", "s.npz"):
        for objects in (0, 1):
            run("survey.kind=match", "survey.inverted=iris", f"survey.similarity={name}", f"survey.objects={objects}",
                "survey.catch=1", f"survey.folder={name}-{objects}")  # fmt: skip
            (path,) = (tmp_path / f"{name}-{objects}").glob("*/survey.json")
            survey = load_survey(path)
            asked = {
                tuple(
                    sorted(names.index(survey.objects[survey.pictures[one].object]) for one in block.options)
                )
                for block in survey.blocks
            }
            assert asked <= set(groups)
            assert len(asked) == (1 if objects else 3)
    np.savez("two.npz", a=similarity, b=similarity)
    with pytest.raises(ValueError, match=r"expected one array of similarities \(9, 9\)"):
        read_similarity("two.npz", N)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("two", {"catch": 28}, r"survey.catch: expected 0\.\.27, at most one for each pair"),
        ("match", {"catch": 11}, r"survey.catch: expected 0\.\.10, at most one for each triple"),
        ("match", {"trials": 5}, "survey.trials: expected at least 6, the pictures of one triple, found 5"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(iris, kind, change, message):
    with pytest.raises(ValueError, match=message):
        survey_of(iris, kind, **change)


def test_matching_needs_two_iris_of_three_images_and_plain_names(tmp_path):
    images, seeds = images_of(4), seeds_of(4, 1)
    one = read_inverted(write_inverted(tmp_path / "a", images, seeds, mixed(images, seeds, 0.5)))
    with pytest.raises(ValueError, match="at least 3 images with 2 IRIs each, found 4 with 1"):
        survey_of(one, "match", catch=0)
    seeds = seeds_of(4, 2)
    names = ["a|b", "c", "d", "e"]
    folder = write_inverted(tmp_path / "b", images, seeds, mixed(images, seeds, 0.5), names=names)
    with pytest.raises(ValueError, match="expected ids without"):
        survey_of(read_inverted(folder), "match", catch=0)


def test_a_folder_is_read_in_order_and_a_damaged_one_is_named(tmp_path):
    folder = folder_of(tmp_path)
    images, seeds = images_of(N), seeds_of(N, K)
    assert inverted_ids(folder) == ids_of(N)
    kept = read_inverted(folder, [ids_of(N)[7], ids_of(N)[1]])
    assert kept.ids == (ids_of(N)[1], ids_of(N)[7])
    np.testing.assert_array_equal(kept.image, images[[1, 7]])
    np.testing.assert_array_equal(kept.seed, seeds[[1, 7]])
    with np.load(folder / "invert-00001.npz") as shard:
        arrays = dict(shard)
    np.testing.assert_array_equal(kept.inverted[1], arrays["inverted8"][2])

    def message(change, ids=None):
        np.savez(folder / "invert-00001.npz", **change)
        if ids is not None:
            (folder / "ids-00001.txt").write_text(ids)
        with pytest.raises(ValueError) as caught:
            read_inverted(folder)
        return str(caught.value)

    with_float = arrays | {"image": (arrays["image"] / 255).astype(np.float32)}
    np.savez(folder / "invert-00001.npz", **with_float)
    np.testing.assert_array_equal(read_inverted(folder).image, images)
    assert "in 8 bit" in message(arrays | {"image": with_float["image"] * 2})
    assert "in 8 bit" in message(arrays | {"image": np.full_like(with_float["image"], np.nan)})
    assert "in 8 bit" in message(arrays | {"seed": arrays["seed"][:, :1]})
    assert "expected an array 'inverted8'" in message(
        {name: one for name, one in arrays.items() if name != "inverted8"}
    )
    small = {
        name: one[..., :8, :8] if name in ("image", "seed", "inverted8") else one
        for name, one in arrays.items()
    }
    assert "images of one size" in message(small)
    assert "each image once" in message(arrays, "\n".join(ids_of(4)))
    assert "expected an id for each of 4 images, found 2" in message(arrays, "x\ny\n")
    (folder / "invert-00000.npz").unlink()
    assert "invert-00000.npz to invert-00000.npz, found 00001" in message(arrays)
    with pytest.raises(ValueError, match=r"survey.inverted: expected a folder with invert-00000\.npz"):
        read_inverted(tmp_path / "none")


def test_a_damaged_survey_json_is_named(iris, tmp_path):
    _, survey = survey_of(iris, "match")
    path = tmp_path / "survey.json"
    survey.save(path)
    text = json.loads(path.read_text())
    for change in (
        {"kind": "three"}, {"trials": 0}, {"trials": True}, {"catch": 99}, {"blocks": []}, {"objects": [1]},
        {"blocks": [[[0], [1, 2], 3]]}, {"blocks": [[[0] * 6, [1, 2, 9999], 3]]}, {"pictures": [[0, 0, "photo"]]},
    ):  # fmt: skip
        path.write_text(json.dumps(text | change))
        with pytest.raises(ValueError, match=r"expected a survey's survey.json, found something else"):
            load_survey(path)


def run(*arguments):
    from alignet.stages.survey import act_on

    act_on([*arguments])


def test_the_stage_builds_and_imports_and_the_family_reads_it(tmp_path, capsys, monkeypatch):
    from alignet.evaluate.families.invariance_people import read_answers
    from alignet.pipeline.cli import load

    folder = folder_of(tmp_path / "it's <b>, 1")
    monkeypatch.chdir(tmp_path)
    iris = read_inverted(folder)
    options = ["survey.inverted=it's <b>, 1/iris", "survey.catch=3", "survey.trials=20", "survey.pixels=32"]
    for kind in ("two", "match"):
        run(f"survey.kind={kind}", *options)
    said = capsys.readouterr().out
    assert (
        "27 inverted images of 9 images, 20 of them and 3 catch trials for each participant, 23 questions"
        in said
    )
    surveys = [load_survey(path) for path in sorted((tmp_path / "survey").glob("*/survey.json"))]
    files = save(tmp_path, [answered(one, seed, follows(iris)) for seed, one in enumerate(surveys)])
    (tmp_path / "survey/imported").mkdir()
    np.save(
        tmp_path / "survey/imported/triplets.npy", np.zeros((1, 3))
    )  # of an earlier import of odd ones out
    run("import", *map(str, files))
    said = capsys.readouterr().out
    assert "2 participants, 2 used; set aside: none" in said
    assert "two: " in said
    (line,) = (line for line in said.splitlines() if line.startswith("next"))
    _, *arguments = shlex.split(line.partition(": python -m ")[2])
    config = load([one.replace("SETTING", "original") for one in arguments])
    assert config.data.sets["people"].path == str(tmp_path / "survey/imported/choices.csv")
    assert config.evaluate.datasets["invariance"].data["people"] == "people"
    imported = tmp_path / "survey/imported"
    assert sorted(path.name for path in imported.iterdir()) == ["choices.csv", "summary.json"]
    with open(imported / "choices.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [*rows[0]] == [
        "survey", "participant", "trial", "kind", "image", "draw", "options", "choice", "right", "rt_ms", "used",
    ]  # fmt: skip
    assert len(rows) == sum(one.length for one in surveys)
    found = read_answers(imported / "choices.csv", iris.ids, K)
    assert (len(found["two"]), len(found["match"])) == (20, 18)
    assert found["two"].aside == {"catch trial": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["survey.kind=two"], "survey.inverted: expected a folder of invert-"),
        (["survey.inverted=iris"], "survey.inverted: expected null with survey.kind=odd_one_out"),
        (["survey.kind=two", "survey.inverted=iris", "survey.choose=active"], "expected survey.choose=random"),
        (["survey.kind=two", "survey.inverted=iris", "survey.similarity=a.npy"], "survey.similarity: expected null"),
        (["survey.kind=two", "survey.inverted=iris", "survey.max_megabytes=0.01"], "survey.lossless=false"),
        (["survey.kind=three", "survey.inverted=iris"], "survey.kind: expected one of"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    folder_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(*options)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_pictures_can_be_jpeg(iris):
    plan = plan_matching(iris, kind="two", questions=4, triples=None, trials=4, catch=0, practice=0, seed=0)
    html, _ = build_matching_page(
        iris, plan, texts=Texts("", "", ""), pixels=48, quality=80, lossless=False, max_megabytes=5.0
    )
    assert all(item.startswith("data:image/jpeg;base64,") for item in content_of(html)["pictures"])
