"""The survey's page in a real browser: Debian's chromium, headless; skipped where there is none."""

import html
import json
import random
import time

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tests.makers.chromium import CHROMIUM
from tests.makers.people import picture, planted

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")

M = 14
READY = "shown !== null"
ENDED = "!document.querySelector('#end').hidden"
EVIL = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with a survey that the stage built, of images with unkind names, and what it is."""
    from alignet.stages.survey import act_on
    from alignet.survey.survey import load_survey

    root = tmp_path_factory.mktemp("site")
    (root / "pictures").mkdir()
    for number in range(M):
        picture(number, (60, 45)).save(root / f"pictures/it's \"<b>{number:02}&.png")
    (root / "consent.txt").write_text(f"You agree.\n\n{EVIL}\n")
    options = [
        f"survey.images={root}/pictures", f"survey.folder={root}/survey", "survey.triplets=300", "survey.trials=75",
        f"survey.consent_file={root}/consent.txt", "survey.pixels=48", "survey.dead_ms=0",
    ]  # fmt: skip
    act_on(options)
    (path,) = (root / "survey").glob("*/survey.json")
    return root, load_survey(path), path.with_name("page.html").as_uri()


def begin(page):
    page.wait("!document.querySelector('#welcome').hidden")
    page.click("#begin")
    for _ in range(3):
        page.wait(READY)
        page.press("2")
    page.wait("!document.querySelector('#ready').hidden")
    page.click("#start")
    page.wait(READY)


def shown_pictures(page):
    return page.js("[...document.querySelectorAll('.choice img')].map(item => Number(item.dataset.picture))")


def saved(browser, count):
    """The files that were downloaded, once there are `count`."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        files = sorted(browser.downloads.glob("*.json"))
        if len(files) == count and all(file.stat().st_size for file in files):
            return files
        time.sleep(0.05)
    raise AssertionError(f"expected {count} files, found {list(browser.downloads.iterdir())}")


def test_clicks_keys_and_a_reload_end_in_a_file_of_what_was_shown_and_chosen(site, browser):
    _, survey, url = site
    page = browser.open(url)
    begin(page)
    expected, questions, dice = [], [], random.Random(0)
    for turn in range(survey.length):
        page.wait(READY)
        where = page.js("document.querySelector('#where').textContent")
        assert where == f"Question {turn + 1} of {survey.length}"
        if turn in (0, 9, 40):  # a reload asks the same question again, in the same places
            before = shown_pictures(page)
            page.go(url)
            page.wait(READY)
            assert shown_pictures(page) == before
        place = dice.randrange(3)
        pictures = shown_pictures(page)
        expected.append((pictures, place))
        questions.append(tuple(sorted(pictures)))
        if turn % 3 == 0:
            page.click(f".choice:nth-child({place + 1})")
        elif turn % 3 == 1:
            page.press(str(place + 1))
        else:
            page.js(f"document.querySelectorAll('.choice')[{place}].focus()")
            page.press("Enter")
    page.wait(ENDED)
    content = json.loads(saved(browser, 1)[0].read_text())
    assert content["complete"] is True
    assert [(trial["pictures"], trial["choice"]) for trial in content["trials"]] == expected
    assert len(set(questions)) == survey.length
    assert set(content) == {
        "format", "version", "survey", "participant", "complete", "dead_ms", "trials",
    }  # fmt: skip
    assert all(trial["rt"] > 0 for trial in content["trials"])
    catch = {tuple(sorted(row)) for row in survey.catch}
    assert catch <= set(questions)
    assert page.js("document.title") == "Which is the odd one out?"


def test_response_times_are_measured_from_when_the_pictures_are_there(site, browser):
    page = browser.open(site[2])
    begin(page)
    for _ in range(4):
        page.wait(READY)
        since, now = page.js("[shown.since, performance.now()]")
        time.sleep(0.3)
        page.press("1")
        after, rt = page.js("[performance.now(), state.answers.at(-1).rt]")
        assert now + 300 - since <= rt <= after - since


def test_what_is_on_screen_gives_no_catch_answer_away_and_texts_are_only_text(site, browser):
    _, survey, url = site
    page = browser.open(url)
    assert EVIL in page.js("document.querySelector('#consent').textContent")
    begin(page)
    visible = page.js("document.documentElement.outerHTML")
    assert "everyone" not in visible.partition("<script>")[0]
    assert 'id="survey"' not in visible
    text = page.js("document.documentElement.textContent")
    assert "Question" in text
    assert not any(name in text or html.escape(name) in visible for name in survey.objects)
    alternatives = page.js("[...document.querySelectorAll('img')].map(item => item.alt)")
    assert alternatives == ["picture 1", "picture 2", "picture 3"]


def test_a_second_open_page_goes_on_where_the_other_one_is(site, browser):
    _, _, url = site
    page = browser.open(url)
    begin(page)
    page.press("1")
    page.wait("state.answers.length === 1 && shown !== null")
    # the other page has answered two more questions
    page.js("""(() => {
        const other = JSON.parse(localStorage.getItem(STORE));
        for (let i = 0; i < 2; i++)
            other.answers.push({ pictures: plan.trials[other.answers.length], choice: 2, rt: 900 });
        localStorage.setItem(STORE, JSON.stringify(other));
    })()""")
    page.press("1")
    page.wait("shown !== null && state.answers.length === 3")
    assert page.js("JSON.parse(localStorage.getItem(STORE)).answers.map(one => one.choice)")[1:] == [2, 2]
    assert "Question 4" in page.js("document.querySelector('#where').textContent")


@pytest.mark.parametrize(
    ("forgets", "elsewhere"),
    [("localStorage", False), ("localStorage", True), ("sessionStorage", True), ("indexedDB", False)],
)
def test_answers_outlive_a_copy_that_the_browser_forgets(tmp_path, browser, forgets, elsewhere):
    url = small_survey(tmp_path, "survey.dead_ms=0")
    page = browser.open(url)
    begin(page)
    for _ in range(4):
        page.wait(READY)
        page.press("2")
    page.wait("shown !== null && state.answers.length === 4")
    if forgets == "indexedDB":
        page.js("database.close(); new Promise(done => indexedDB.deleteDatabase(STORE).onsuccess = done)")
    else:
        page.js(f"{forgets}.clear()")
    if elsewhere:  # a tab of its own has no copy of this one's session
        page = browser.open(url)
    else:
        page.go(url)
    page.wait("shown !== null && state.answers.length === 4")
    page.wait(
        f"JSON.parse({'localStorage' if forgets == 'indexedDB' else forgets}.getItem(STORE)).answers.length === 4"
    )
    assert page.js("document.querySelector('#no-storage').hidden")
    assert page.js("inDatabase().then(one => one.answers.length)") == 4


def test_stopping_going_on_and_the_next_participant(site, browser):
    _, survey, url = site
    page = browser.open(url)
    begin(page)
    for _ in range(5):
        page.wait(READY)
        page.press("1")
    page.wait(READY)
    page.click("#stop")
    page.wait(ENDED)
    content = json.loads(saved(browser, 1)[0].read_text())
    assert (content["complete"], len(content["trials"])) == (False, 5)
    page.click("#go-on")
    page.wait(READY)
    assert page.js("document.querySelector('#where').textContent") == f"Question 6 of {survey.length}"
    first = page.js("plan.trials.map(String)")
    page.click("#stop")
    page.wait(ENDED)
    page.click("#next")
    page.wait("document.readyState === 'complete' && !document.querySelector('#welcome').hidden")
    assert page.js("state.participant") != content["participant"]
    second = page.js("plan.trials.map(String)")
    assert first != second
    assert len(first) == len(second) == survey.length


@pytest.mark.parametrize(("width", "height"), [(1100, 800), (360, 640), (740, 360), (320, 568)])
def test_a_question_fits_the_screen_without_scrolling(site, browser, width, height):
    page = browser.open(site[2], width, height)
    begin(page)
    assert page.js("document.documentElement.scrollHeight <= innerHeight")
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    assert page.js("Math.min(...pictures.map(item => item.getBoundingClientRect().height))") >= 40


# answers every question from the page itself: `weights` by object and object, or null for chance
DRIVER = """
(async (shows, similarities) => {
  get("begin").click();
  for (;;) {
    while (shown === null) {
      if (!get("ready").hidden) get("start").click();
      if (!get("end").hidden) return state.answers.length;
      await new Promise((done) => setTimeout(done, 1));
    }
    const [a, b, c] = pictures.map((picture) => shows[picture.dataset.picture]);
    let place = Math.floor(Math.random() * 3);
    if (similarities) {
      const alike = (x, y) => x === y ? 50 : similarities[x][y];
      const weights = [alike(b, c), alike(a, c), alike(a, b)].map(Math.exp);
      let left = Math.random() * (weights[0] + weights[1] + weights[2]);
      place = weights.findIndex((weight) => (left -= weight) < 0);
    }
    buttons[place].click();
  }
})"""


def test_a_browser_that_follows_a_planted_embedding_gives_it_back_and_random_clicks_are_set_aside(
    site, browser, capsys
):
    root, survey, url = site
    embedding = planted(M, 3, seed=2)
    gram = (embedding @ embedding.T).tolist()
    page = browser.open(url)
    for person in range(5):
        page.wait("document.readyState === 'complete' && !document.querySelector('#welcome').hidden")
        similarities = json.dumps(gram) if person < 4 else "null"
        done = page.js(f"{DRIVER}({json.dumps(survey.pictures)}, {similarities})")
        assert done == survey.length
        saved(browser, person + 1)
        page.click("#next")
        page.wait("state.answers.length === 0")
    files = [str(path) for path in saved(browser, 5)]
    triplets = imported(root, files, "survey.fast_ms=0")  # the driver is faster than anybody
    said = capsys.readouterr().out
    assert "5 participants, 4 used; set aside: 1 catch trials" in said
    assert len(triplets) == 4 * survey.trials
    assert recovered(triplets, gram) > 0.8
    forced = imported(root, files, "survey.fast_ms=0", "survey.catch_accuracy=0")
    assert len(forced) == 5 * survey.trials
    with pytest.raises(SystemExit):
        imported(root, files)
    assert "set aside: 1 catch trials, 4 misses" in capsys.readouterr().err


def imported(root, files, *options):
    from alignet.stages.survey import act_on

    act_on(["import", *files, f"survey.folder={root}/survey", *options])
    return np.load(root / "survey/imported/triplets.npy")


def recovered(triplets, gram):
    """Spearman's rho of VICE's similarities and the planted ones."""
    from alignet.config import ViceSettings
    from alignet.vice.fit import fit_vice

    settings = ViceSettings(
        dim=6, prior="gaussian", spike=0.25, slab=1.0, pi=0.6, lr=0.05, batch=100_000, max_epochs=400, burn_in=399,
        window=1, k=2, alpha=0.05, init_loc=0.1, init_scale=0.1, samples=5, seed=0,
    )  # fmt: skip
    rows = torch.from_numpy(triplets.astype(np.int64))
    loc = fit_vice(rows, None, objects=M, settings=settings).loc.relu().numpy()
    upper = np.triu_indices(M, 1)
    return spearmanr((loc @ loc.T)[upper], np.array(gram)[upper]).statistic


def small_survey(root, *options):
    """The page of a survey of ten pictures."""
    from alignet.stages.survey import act_on

    (root / "pictures").mkdir()
    for number in range(10):
        picture(number, (80, 80)).save(root / f"pictures/{number}.png")
    act_on([
        f"survey.images={root}/pictures", f"survey.folder={root}/survey", "survey.triplets=20", "survey.trials=8",
        "survey.catch=2", *options,
    ])  # fmt: skip
    (page,) = (root / "survey").glob("*/page.html")
    return page.as_uri()


def press_mouse(page, times):
    """A press and a release on the second picture; `times` is 2 for the second of a double click."""
    x, y = page.js(
        "(() => { const at = buttons[1].getBoundingClientRect();"
        " return [at.x + at.width / 2, at.y + at.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=times)


def test_a_double_click_answers_one_question_and_is_counted(tmp_path, browser):
    page = browser.open(small_survey(tmp_path))
    begin(page)
    for turn in range(4):
        page.wait(READY)
        press_mouse(page, 1)
        time.sleep(0.15)
        press_mouse(page, 2)
        page.wait(f"shown !== null && state.answers.length === {turn + 1}")
    answers = page.js("state.answers")
    assert all(answer["rt"] >= 400 for answer in answers)
    assert [answer["early"] for answer in answers] == [0, 1, 1, 1]


def test_where_nothing_is_saved_the_page_says_what_it_knows_and_keeps_the_answers(tmp_path, browser):
    url = small_survey(tmp_path, "survey.dead_ms=0")
    page = browser.open(url)
    browser.call("Browser.setDownloadBehavior", behavior="deny")
    begin(page)
    while page.js("document.querySelector('#end').hidden"):
        page.wait(f"({READY}) || ({ENDED})")
        page.press("1")
    told = " ".join(page.js("document.querySelector('#end').innerText").split())
    assert "has just saved" not in told
    assert "cannot see whether that has happened" in told
    assert "your choices stay in this browser" in told
    page.click("#copy")
    page.wait("document.querySelector('#copied').textContent !== ''")
    text = page.js("document.querySelector('#text').value")
    assert len(json.loads(text)["trials"]) == 10
    page.go(url)  # closed and opened again, nothing is lost
    page.wait(ENDED)
    assert page.js("state.answers.length") == 10
    assert not list(browser.downloads.iterdir())
    where = {"behavior": "allow", "downloadPath": str(browser.downloads)}
    browser.call("Browser.setDownloadBehavior", **where)
    page.click("#save")
    assert json.loads(saved(browser, 1)[0].read_text()) == json.loads(text)
    assert not page.js("document.querySelector('#have-it').hidden")
    page.click("#have-it")
    assert page.js("document.querySelector('#still-here').hidden")
    page.go(url)
    page.wait(ENDED)
    assert page.js("document.querySelector('#confirmed').hidden") is False
    time.sleep(0.3)
    assert len(list(browser.downloads.iterdir())) == 1  # what is confirmed is not saved once more
    (tmp_path / "copied.json").write_bytes(b"\xef\xbb\xbf" + text.encode())  # as some editors save it
    assert len(
        imported(tmp_path, [str(tmp_path / "copied.json")], "survey.fast_ms=0", "survey.catch_accuracy=0")
    )


def test_photographs_stand_upright(tmp_path, browser):
    from PIL import Image, ImageDraw

    from alignet.stages.survey import act_on

    (tmp_path / "pictures").mkdir()
    for number in range(8):
        upright = Image.new("RGB", (60, 80), (90 + 20 * number, 200, 150))
        ImageDraw.Draw(upright).rectangle((0, 0, 59, 20), fill=(255, 0, 0))
        exif = Image.Exif()
        exif[0x112] = 6
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"pictures/{number}.jpg", exif=exif)
    act_on([
        f"survey.images={tmp_path}/pictures", f"survey.folder={tmp_path}/survey", "survey.triplets=10",
        "survey.trials=5", "survey.catch=1", "survey.dead_ms=0",
    ])  # fmt: skip
    (path,) = (tmp_path / "survey").glob("*/page.html")
    page = browser.open(path.as_uri())
    begin(page)
    sizes = page.js("pictures.map(item => [item.naturalWidth, item.naturalHeight])")
    assert all(width < height for width, height in sizes)
