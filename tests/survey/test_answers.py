"""From participants' files to triplets: a planted similarity, who is set aside, what is dropped, damaged files."""

import copy
import hashlib
import json
import random

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from alignet.config import ViceSettings
from alignet.data.concepts import load_concepts
from alignet.data.triplets import load_triplets
from alignet.survey.answers import Rules, import_answers, split_triplets
from alignet.survey.choose import random_triplets
from alignet.vice.fit import fit_vice
from tests.makers.people import make_survey, planted, save, sheet

RULES = Rules(catch_accuracy=0.9, max_misses=3, fast_ms=200, slow_ms=10_000, incomplete="set_aside")
M, D = 24, 4


@pytest.fixture(scope="module")
def study():
    """A survey about 24 objects of which 12 attentive people, answering by a planted embedding, see 100 questions."""
    _, survey = make_survey(M, random_triplets(M, 1200, seed=0), trials=100, catch=10)
    embedding = planted(M, D, seed=0)
    return survey, embedding, [sheet(survey, seed, embedding) for seed in range(12)]


def bring_in(folder, survey, sheets, rules=RULES, damaged="stop"):
    return import_answers(save(folder, sheets), {survey.id: survey}, rules=rules, damaged=damaged)


def recovered(triplets, embedding):
    """Spearman's rho of VICE's similarities and the planted ones."""
    settings = ViceSettings(
        dim=8, prior="gaussian", spike=0.25, slab=1.0, pi=0.6, lr=0.05, batch=100_000, max_epochs=400, burn_in=399,
        window=1, k=2, alpha=0.05, init_loc=0.1, init_scale=0.1, samples=5, seed=0,
    )  # fmt: skip
    loc = (
        fit_vice(torch.from_numpy(triplets), None, objects=len(embedding), settings=settings)
        .loc.relu()
        .numpy()
    )
    upper = np.triu_indices(len(embedding), 1)
    return spearmanr((loc @ loc.T)[upper], (embedding @ embedding.T)[upper]).statistic


def test_vice_finds_the_planted_similarity_in_the_answers_and_none_in_random_clicks(study, tmp_path, capsys):
    survey, embedding, sheets = study
    result = bring_in(tmp_path, survey, sheets)
    assert result.triplets.shape == (1200, 3)
    assert recovered(result.triplets, embedding) > 0.85
    clicks = [sheet(survey, 50 + seed, None, attentive=False) for seed in range(12)]
    judged = bring_in(tmp_path, survey, [*sheets, *clicks])
    assert judged.summary["set_aside"] == {"catch trials": 12}
    np.testing.assert_array_equal(np.sort(judged.triplets, 0), np.sort(result.triplets, 0))
    forced = bring_in(tmp_path / ".", survey, clicks, rules=Rules(0.0, 3, 200, 10_000, "set_aside"))
    assert len(forced.triplets) == 1200
    assert abs(recovered(forced.triplets, embedding)) < 0.25


def test_odd_one_is_last_and_the_pair_ascends(study, tmp_path):
    survey, _, sheets = study
    result = bring_in(tmp_path, survey, sheets[:1])
    expected = []
    for trial in sheets[0]["trials"]:
        shown = [survey.pictures[item] for item in trial["pictures"]]
        if len(set(shown)) == 3:
            odd = shown.pop(trial["choice"])
            expected.append([*sorted(shown), odd])
    np.testing.assert_array_equal(result.triplets, expected)
    assert result.triplets.dtype == np.int64


def test_nothing_depends_on_order_names_or_copies_of_files(study, tmp_path):
    survey, _, sheets = study
    first = bring_in(tmp_path, survey, sheets)
    mixed = [*sheets, sheets[3], sheets[7]]
    random.Random(1).shuffle(mixed)
    other = tmp_path / "other"
    other.mkdir()
    second = bring_in(other, survey, mixed)
    np.testing.assert_array_equal(first.triplets, second.triplets)
    assert first.trials == second.trials
    assert (first.summary["repeated_files"], second.summary["repeated_files"]) == (0, 2)


def test_an_earlier_save_gives_way_to_the_later_one_and_a_contradiction_is_named(study, tmp_path):
    survey, _, sheets = study
    early = sheets[0] | {"complete": False, "trials": sheets[0]["trials"][:30]}
    result = bring_in(tmp_path, survey, [early, sheets[0]])
    assert (result.summary["participants"], len(result.triplets)) == (1, 100)
    other = copy.deepcopy(sheets[0])
    other["trials"][5]["choice"] = (other["trials"][5]["choice"] + 1) % 3
    with pytest.raises(
        ValueError, match=sheets[0]["participant"] + ".*contradict each other.*survey.damaged=skip"
    ):
        bring_in(tmp_path, survey, [other, sheets[0]])
    skipped = bring_in(tmp_path, survey, [other, *sheets[:3]], damaged="skip")
    assert skipped.summary["contradictory_participants"] == [sheets[0]["participant"]]
    assert (skipped.summary["participants"], len(skipped.triplets)) == (2, 200)


def test_catch_trials_misses_and_stopping_early_set_participants_aside(study, tmp_path):
    survey, embedding, sheets = study
    odd = {tuple(sorted(row)): row[2] for row in survey.catch}

    def wrong(content, count):
        changed = copy.deepcopy(content)
        caught = [trial for trial in changed["trials"] if tuple(sorted(trial["pictures"])) in odd]
        for trial in caught[:count]:
            right = trial["pictures"].index(odd[tuple(sorted(trial["pictures"]))])
            trial["choice"] = (right + 1) % 3
        return changed

    def timed(content, times):
        changed = copy.deepcopy(content)
        for trial, rt in zip(changed["trials"], times):
            trial["rt"] = rt
        return changed

    people = [
        wrong(sheets[0], 1), wrong(sheets[1], 2), timed(sheets[2], [150, 12_000, 199.9]),
        timed(sheets[3], [150, 12_000, 199.9, 10_001]), timed(sheets[4], [200, 10_000, 200, 10_000, 200]),
        sheet(survey, 90, embedding, trials=60),
    ]  # fmt: skip
    result = bring_in(tmp_path, survey, people)
    by = {row["participant"]: row for row in result.summary["by_participant"]}
    reasons = [by[person["participant"]]["set_aside"] for person in people]
    assert reasons == ["", "catch trials", "", "misses", "", "incomplete"]
    assert by[people[0]["participant"]]["catch_right"] == 9
    assert by[people[3]["participant"]]["misses"] == 4
    used = result.summary["trials"]
    assert used["participant set aside"] == 100 + 100 + sum(
        tuple(sorted(trial["pictures"])) not in odd for trial in people[5]["trials"]
    )
    dropped = used.get("too fast", 0) + used.get("too slow", 0)
    assert used["yes"] == len(result.triplets) == 300 - dropped
    assert 1 <= dropped <= 3
    also = bring_in(tmp_path, survey, people, rules=Rules(0.9, 3, 200, 10_000, "use"))
    assert also.summary["used_participants"] == 4


def test_who_stopped_before_any_catch_trial_cannot_be_judged(study, tmp_path):
    survey, _, sheets = study
    catch = {tuple(sorted(row)) for row in survey.catch}
    plain = [trial for trial in sheets[0]["trials"] if tuple(sorted(trial["pictures"])) not in catch]
    early = sheets[0] | {"complete": False, "trials": plain[:50]}
    result = bring_in(tmp_path, survey, [early, sheets[1]], rules=Rules(0.9, 3, 200, 10_000, "use"))
    assert result.summary["set_aside"] == {"no catch trial met": 1}
    assert len(result.triplets) == 100


def without(content, key):
    return {name: value for name, value in content.items() if name != key}


def with_trial(content, **change):
    changed = copy.deepcopy(content)
    changed["trials"][4] |= change
    return changed


DAMAGE = {
    "cut off": (lambda text, one: text[: len(text) // 2], "found other or cut-off text"),
    "empty": (lambda text, one: "", "found other or cut-off text"),
    "not utf-8": (lambda text, one: b"\xff\xfe\x00", "found other or cut-off text"),
    "a list": (lambda text, one: "[1, 2]", "found another JSON file"),
    "other format": (lambda text, one: one | {"format": "x"}, "found another JSON file"),
    "other survey": (lambda text, one: one | {"survey": "feed"}, "expected answers to one of the surveys"),
    "no participant": (lambda text, one: without(one, "participant"), "expected a participant id of 32 hex digits"),
    "a name": (lambda text, one: one | {"participant": "Ada"}, "expected a participant id of 32 hex digits"),
    "no trials": (lambda text, one: without(one, "trials"), "expected a list of trials"),
    "not complete": (lambda text, one: one | {"complete": False}, "expected 110 trials .*found 110, called"),
    "a trial lost": (lambda text, one: one | {"trials": one["trials"][1:]}, "found 109, called complete"),
    "asked twice": (lambda text, one: one | {"trials": [*one["trials"][1:], one["trials"][1]]}, "each question once"),
    "nan": (lambda text, one: with_trial(one, rt=float("nan")), "trial 4: expected a response time"),
    "negative": (lambda text, one: with_trial(one, rt=-1), "trial 4: expected a response time"),
    "1-based choice": (lambda text, one: with_trial(one, choice=3), "trial 4: expected choice 0, 1 or 2, found 3"),
    "true": (lambda text, one: with_trial(one, choice=True), "trial 4: expected choice 0, 1 or 2, found True"),
    "two pictures": (lambda text, one: with_trial(one, pictures=[0, 1]), "trial 4: expected three picture numbers"),
    "no picture": (lambda text, one: with_trial(one, pictures=[0, 1, 99]), "trial 4: expected picture numbers 0"),
    "same twice": (lambda text, one: with_trial(one, pictures=[1, 1, 2]), "that the survey asks about together"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_the_others_are_imported_when_told(study, tmp_path, damage):
    survey, _, sheets = study
    paths = save(tmp_path, sheets[:3])
    change, message = DAMAGE[damage]
    new = change(json.dumps(sheets[1]), copy.deepcopy(sheets[1]))
    if isinstance(new, bytes):
        paths[1].write_bytes(new)
    else:
        paths[1].write_text(new if isinstance(new, str) else json.dumps(new))
    with pytest.raises(ValueError, match=message) as caught:
        import_answers(paths, {survey.id: survey}, rules=RULES, damaged="stop")
    assert str(caught.value).startswith(str(paths[1]))
    assert "survey.damaged=skip" in str(caught.value)
    result = import_answers(paths, {survey.id: survey}, rules=RULES, damaged="skip")
    assert len(result.summary["damaged"]) == 1
    assert len(result.triplets) == 200


def test_several_surveys_about_the_same_images_come_together_and_others_do_not(study, tmp_path):
    survey, embedding, sheets = study
    asked = np.array(survey.triplets)
    _, second = make_survey(M, random_triplets(M, 200, seed=5, exclude=asked), trials=100, catch=10)
    both = {survey.id: survey, second.id: second}
    more = [sheet(second, seed, embedding) for seed in range(2)]
    result = import_answers(save(tmp_path, [*sheets, *more]), both, rules=RULES, damaged="stop")
    assert len(result.triplets) == 1400
    _, other = make_survey(M - 1, random_triplets(M - 1, 200, seed=5), trials=100, catch=10)
    files = save(tmp_path, [sheets[0], sheet(other, 1, embedding[:-1])])
    with pytest.raises(ValueError, match="surveys about the same images"):
        import_answers(files, {survey.id: survey, other.id: other}, rules=RULES, damaged="stop")


def test_all_answers_to_a_question_are_on_one_side_of_the_split():
    generator = np.random.default_rng(0)
    questions = random_triplets(12, 100, seed=0)
    rows = np.repeat(questions, 3, axis=0)
    rows = np.array([row[generator.permutation(3)] for row in rows])
    train, validation = split_triplets(rows, share=0.1, seed=0)
    assert (len(train), len(validation)) == (270, 30)
    sides = [{tuple(sorted(row)) for row in part.tolist()} for part in (train, validation)]
    assert not sides[0] & sides[1]
    mixed = rows[generator.permutation(len(rows))]
    again = split_triplets(mixed, share=0.1, seed=0)[1]
    assert {tuple(sorted(row)) for row in again.tolist()} == sides[1]
    other = split_triplets(rows, share=0.1, seed=1)[1]
    assert {tuple(sorted(row)) for row in other.tolist()} != sides[1]
    with pytest.raises(ValueError, match="at least 2 questions, found 1"):
        split_triplets(rows[:3], share=0.1, seed=0)


def run(tmp_path, monkeypatch, *arguments):
    from alignet.stages.survey import act_on

    monkeypatch.chdir(tmp_path)
    act_on([*arguments])


SMALL = [
    "survey.images=pictures",
    "survey.triplets=100",
    "survey.trials=30",
    "survey.catch=10",
    "survey.pixels=32",
]


def test_the_stage_builds_imports_and_goes_on_actively(tmp_path, monkeypatch, capsys):
    """Its files are what the loaders of objects and triplets take."""
    from alignet.survey.survey import load_survey
    from tests.makers.people import picture

    (tmp_path / "pictures/a dir").mkdir(parents=True)
    for number in range(12):
        picture(number).save(tmp_path / f"pictures/a dir/it's <b>{number:02}.png")
    run(tmp_path, monkeypatch, *SMALL)
    (path,) = (tmp_path / "survey").glob("*/survey.json")
    survey = load_survey(path)
    page = path.with_name("page.html").read_bytes()
    run(tmp_path, monkeypatch, *SMALL)
    assert path.with_name("page.html").read_bytes() == page
    embedding = planted(12, 3, seed=1)
    (tmp_path / "answers").mkdir()
    files = save(tmp_path / "answers", [sheet(survey, seed, embedding) for seed in range(8)])
    before = [file.read_bytes() for file in files]
    run(
        tmp_path, monkeypatch, "import", *[str(file.relative_to(tmp_path)) for file in files], "survey.seed=3"
    )
    assert [file.read_bytes() for file in files] == before
    assert "8 participants, 8 used; set aside: none" in capsys.readouterr().out
    folder = tmp_path / "survey/imported"
    concepts = load_concepts(folder / "objects.csv")
    assert [concept.photo for concept in concepts] == list(survey.objects)
    assert survey.objects[3] == "a dir/it's <b>03.png"
    rows = {
        name: load_triplets(folder / f"{name}.npy", objects=12, index_base=0, odd_one="last")
        for name in ("triplets", "train", "validation")
    }
    assert len(rows["triplets"]) == 240 == len(rows["train"]) + len(rows["validation"])
    assert len((folder / "trials.csv").read_text().splitlines()) == 8 * 40 + 1
    posterior = tmp_path / "posterior.npz"
    np.savez(posterior, loc=embedding.astype(np.float32), scale=np.full((12, 3), 0.05, dtype=np.float32))
    active = [
        *SMALL, "survey.choose=active", f"survey.after=[{survey.id}]", f"survey.posterior={posterior}",
        "vice.settings.k=1", "survey.samples=20",
    ]  # fmt: skip
    run(tmp_path, monkeypatch, *active)
    (later,) = (load_survey(other) for other in (tmp_path / "survey").glob("*/survey.json") if other != path)
    assert later.objects == survey.objects
    assert not set(later.triplets) & set(survey.triplets)


def refused(tmp_path, monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit):
        run(tmp_path, monkeypatch, *arguments)
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_the_stage_says_what_is_missing(tmp_path, monkeypatch, capsys):
    from tests.makers.people import picture

    (tmp_path / "pictures").mkdir()
    for number in range(12):
        picture(number).save(tmp_path / f"pictures/{number:02}.png")

    def message(*arguments):
        return refused(tmp_path, monkeypatch, capsys, *arguments)

    assert "a folder of images or one of the sets" in message("survey.images=nowhere")
    assert "draw it with: python -m alignet.stages.world" in message()
    assert "expected nothing, or `import` and files" in message("improt", "a.json")
    assert "survey.json below survey, found none" in message("import", "a.json")
    assert "survey.after=[id of the survey" in message(*SMALL, "survey.choose=active")
    assert "survey.slow_ms: expected more than fast_ms" in message("survey.slow_ms=100")
    run(tmp_path, monkeypatch, *SMALL)
    (path,) = (tmp_path / "survey").glob("*/survey.json")
    capsys.readouterr()
    assert "found files of answers" not in message("import")
    active = [*SMALL, "survey.choose=active", f"survey.after=[{path.parent.name}]", "survey.posterior=p.npz"]
    assert "survey.posterior: expected posterior.npz" in message(*active)
    np.savez(tmp_path / "p.npz", loc=np.ones((11, 2)), scale=np.ones((11, 2)))
    assert "a row for each of the survey's 12 images, found 11 rows" in message(*active)
    np.savez(tmp_path / "p.npz", loc=np.zeros((12, 2)), scale=np.ones((12, 2)))
    assert "collect more answers to random questions first" in message(*active)
    (tmp_path / "p.npz").write_bytes(b"PK\x03\x04 no archive")
    assert "survey.posterior: expected posterior.npz" in message(*active)


def test_a_posterior_of_this_store_must_be_about_these_images(tmp_path, capsys):
    from alignet.stages.survey import _check_objects, _objects_table

    names = ["a.png", "b.png", "c.png"]
    (tmp_path / "vice/0123").mkdir(parents=True)
    (tmp_path / "index/abcdefabcdef").mkdir(parents=True)
    posterior = tmp_path / "vice/0123/posterior.npz"
    _check_objects(posterior, names)
    assert "is not checked" in capsys.readouterr().out
    manifest = {"identity": {"inputs": {"objects": "abcdefabcdef0000"}}}
    (posterior.parent / "MANIFEST.json").write_text(json.dumps(manifest))
    listing = {"files": {"file": {"sha256": hashlib.sha256(_objects_table(names)).hexdigest()}}}
    (tmp_path / "index/abcdefabcdef/listing.json").write_text(json.dumps(listing))
    _check_objects(posterior, names)
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="about other objects"):
        _check_objects(posterior, ["a.png", "c.png", "b.png"])
