"""The survey's page: what is in it and what must not be, its size, and the file that remembers it."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from alignet.survey.choose import random_triplets
from alignet.survey.page import Texts, build_page
from alignet.survey.survey import load_survey
from tests.makers.people import make_survey, picture

EVIL = "</script><script>alert('x')</script><!-- & \" \u2028"


def content_of(html):
    return json.loads(
        re.search(r'<script type="application/json" id="survey">(.*?)</script>', html, re.DOTALL)[1]
    )


def jpegs_of(content):
    return [Image.open(io.BytesIO(base64.b64decode(item.partition(",")[2]))) for item in content["pictures"]]


def test_the_page_holds_its_pictures_and_reaches_for_nothing():
    html, survey = make_survey(8, random_triplets(8, 30, seed=0), catch=3)
    content = content_of(html)
    assert len(content["pictures"]) == 8 + 3
    assert all(item.startswith("data:image/jpeg;base64,") for item in content["pictures"])
    assert "default-src 'none'" in html
    outside = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", html)
    assert "http:" not in outside
    assert "https:" not in outside
    assert content["survey"] == survey.id


def test_pictures_are_scaled_down_and_never_up():
    sizes = {"wide.png": (400, 100), "tall.png": (90, 300), "small.png": (20, 10), "line.png": (500, 1)}
    html, survey = build_page(
        list(sizes), lambda name: picture(0, sizes[name]), np.array([[0, 1, 2], [0, 1, 3]]),
        texts=Texts("", "", ""), trials=2, catch=0, practice=0, pixels=50, quality=90, max_megabytes=1, seed=0,
    )  # fmt: skip
    found = {
        survey.objects[shown]: image.size for shown, image in zip(survey.pictures, jpegs_of(content_of(html)))
    }
    assert found == {"wide.png": (50, 12), "tall.png": (15, 50), "small.png": (20, 10), "line.png": (50, 1)}


def test_the_page_knows_no_file_name_and_no_right_answer():
    html, survey = make_survey(9, random_triplets(9, 40, seed=1), catch=4)
    content = content_of(html)
    assert not any(name in html for name in survey.objects)
    assert set(content) == {
        "survey", "pixels", "title", "consent", "hand_in", "trials", "shared", "everyone", "practice", "pictures",
        "dead_ms",
    }  # fmt: skip
    for shown, (one, copy, odd) in zip(content["everyone"], survey.catch):
        assert shown == sorted((one, copy, odd))
        assert content["pictures"][one] != content["pictures"][copy]
        assert survey.pictures[one] == survey.pictures[copy] != survey.pictures[odd]
    # neither the place in the row nor the size of a number says which is the odd one
    places = [sorted(row).index(row[2]) for seed in range(40) for row in make_survey(
        9, random_triplets(9, 40, seed=1), catch=4, seed=seed)[1].catch]  # fmt: skip
    assert min(np.bincount(places, minlength=3)) > 30


def test_a_copy_shows_what_its_original_shows_and_the_odd_one_does_not():
    html, survey = make_survey(9, random_triplets(9, 40, seed=1), catch=9)
    looks = [
        np.asarray(image.resize((8, 8)).convert("RGB")).astype(float) for image in jpegs_of(content_of(html))
    ]
    for one, copy, odd in survey.catch:
        assert np.abs(looks[one] - looks[copy]).mean() < 0.5 * np.abs(looks[one] - looks[odd]).mean()


def test_texts_cannot_break_out_of_the_page():
    html, survey = make_survey(5, random_triplets(5, 6, seed=0), texts=Texts(EVIL, EVIL, EVIL))
    assert content_of(html)["consent"] == EVIL
    scripts = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, attributes):
            scripts.append((tag, dict(attributes))) if tag == "script" else None

    Parser().feed(html)
    assert len(scripts) == 2
    assert "alert('x')</script>" not in html
    assert len(survey.id) == 12


def test_the_id_is_of_the_whole_content_and_nothing_else():
    rows = random_triplets(8, 30, seed=0)
    first = make_survey(8, rows)
    assert make_survey(8, rows) == first
    for change in (
        {"seed": 1},
        {"pixels": 40},
        {"texts": Texts("a", "b", "c")},
        {"trials": 20},
        {"catch": 3},
    ):
        assert make_survey(8, rows, **change)[1].id != first[1].id


def test_a_page_too_large_is_refused_with_the_fix():
    with pytest.raises(
        ValueError, match=r"at most 0\.01 MB, found .* for 12 pictures of 48 pixels; .*survey\.objects"
    ):
        make_survey(8, random_triplets(8, 30, seed=0), max_megabytes=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 31}, r"survey.trials: expected 1\.\.30"),
        ({"catch": 9}, r"survey.catch: expected 0\.\.8"),
        ({"triplets": np.array([[0, 1, 2], [2, 1, 0]])}, "expected each once, found 1 repeated"),
        ({"triplets": np.array([[0, 1, 8]])}, r"expected object indices in 0\.\.7"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, message):
    values = {"triplets": random_triplets(8, 30, seed=0)} | change
    with pytest.raises(ValueError, match=message):
        make_survey(8, values.pop("triplets"), **({"trials": 1} | values))


def test_survey_json_comes_back_and_a_damaged_one_is_named(tmp_path):
    _, survey = make_survey(8, random_triplets(8, 30, seed=0))
    path = tmp_path / "survey.json"
    survey.save(path)
    assert load_survey(path) == survey
    text = path.read_text()
    for damaged in (text[:200], "[]", "{}", text.replace('"version": 1', '"version": 2')):
        path.write_text(damaged)
        with pytest.raises(
            ValueError, match=r"survey.json: expected a survey's survey.json, found something else"
        ):
            load_survey(path)
    with pytest.raises(ValueError, match=r"found no file; check survey\.folder"):
        load_survey(tmp_path / "none.json")
