"""The page of a finished run and of several: provenance, comparing, and in a real browser."""

import csv
import json
import os
import shutil
from urllib.parse import unquote

import pytest

from alignet.pipeline.cli import load
from alignet.pipeline.graph import upstream
from alignet.pipeline.runner import Pipeline
from alignet.report.compare import labels
from alignet.report.provenance import lineage, node_key
from alignet.runtime.artifacts import ArtifactError
from alignet.stages.compare import compare, jobs_of
from tests.makers.chromium import CHROMIUM, Chromium
from tests.makers.once import made_once
from tests.makers.worlds import TINY, everything, overrides

EVALUATED = (
    "evaluate.datasets.fine.options.C=0.02"  # a second run that shares all but an evaluation with the first
)


def report(root, *more):
    return Pipeline(load(everything(root, *more))).state("report").artifact


@pytest.fixture(scope="session")
def two(measured, tmp_path_factory):
    """The measured world's store with a second run in it, and the page that compares them."""

    def make(root):
        shutil.copytree(measured, root)
        Pipeline(load(everything(root, EVALUATED))).make_all(["report"])
        compare([*everything(root), "vs", *everything(root, EVALUATED)])

    root = made_once(tmp_path_factory, "two_runs", make)
    (page,) = root.glob("compare/*/report.html")
    return root, page


def test_the_report_holds_the_page_its_files_and_the_tables_of_before(measured):
    files = report(measured).manifest["files"]
    assert {"report.html", "table.txt", "table.md", "table.json", "features.png", "features.txt"} <= set(
        files
    )
    for name in (
        "settings_all",
        "published_table_1",
        "published_table_2",
        "published_table_3",
        "provenance_nodes",
    ):
        assert {f"tables/{name}.csv", f"tables/{name}.md"} <= set(files)
    assert {"figures/features_before_and_after.png", "figures/features_before_and_after.svg"} <= set(files)
    text = report(measured).file("report.html").read_text(encoding="utf-8")
    assert "A synthetic world: the pictures are drawn" in text
    assert "student, this run (synthetic)" in text
    assert len(text) < 8_000_000


def test_making_the_report_again_gives_the_same_bytes(measured, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(measured, root)
    before = report(root)
    Pipeline(load(everything(root))).make("report", force=True)
    assert report(root).manifest["files"] == before.manifest["files"]


def test_the_provenance_names_every_artifact_behind_the_page(measured):
    chain = Pipeline(load(everything(measured)))
    inputs = [chain.state(key).artifact for key in chain.graph["report"].inputs.values()]
    made = lineage(inputs)
    assert sorted(node_key(one) for one in made) == sorted(upstream(chain.graph, "report"))
    seen = set()
    for one in made:  # each after its inputs
        assert set(one.manifest["identity"]["inputs"].values()) <= seen
        seen.add(one.manifest["fingerprint"])
    with open(report(measured).file("tables/provenance_nodes.csv"), newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["fingerprint"] for row in rows} == {one.manifest["fingerprint"][:12] for one in made}
    assert {row["device"] for row in rows} == {"cpu"}
    with open(report(measured).file("tables/provenance_values.csv"), newline="") as handle:
        values = {(row["node"].partition("[")[0], row["value"]): row["is"] for row in csv.DictReader(handle)}
    assert values["finetune", "settings.steps"] == "6"


def test_pictures_that_may_not_be_handed_on_are_said_to_be(tiny, tmp_path):
    root = tmp_path / "store"
    shutil.copytree(tiny, root)

    def page(*more):
        chain = Pipeline(load(overrides(root, *more)))
        chain.make_all(["report"])
        return chain.state("report").artifact.file("report.html").read_text(encoding="utf-8")

    for given, said in (("false", "may not be handed on"), ("'for our group alone'", "for our group alone")):
        assert said in page(f"report.redistribute={given}")
    assert "may not be handed on" not in page()


def test_command_lines_are_parted_by_commas_and_by_vs():
    assert jobs_of(["seed=0,1", "student=world"]) == [
        ["seed=0", "student=world"],
        ["seed=1", "student=world"],
    ]
    assert jobs_of(["seed=0", "vs", "seed=0", "vice.settings.lr=1", "vs", "seed=1,2"]) == [
        ["seed=0"], ["seed=0", "vice.settings.lr=1"], ["seed=1"], ["seed=2"],
    ]  # fmt: skip
    assert jobs_of(["seed=0", "vs", "seed=1", "all", "student=world", "paths.artifacts=/a b"]) == [
        ["student=world", "paths.artifacts=/a b", "seed=0"],
        ["student=world", "paths.artifacts=/a b", "seed=1"],
    ]
    assert jobs_of(["paths.artifacts=/a b", "seed=0,1"])[0][0] == "paths.artifacts=/a b"
    with pytest.raises(ValueError, match=r"compare: expected two runs or more, found 1; .* the word vs"):
        jobs_of(["seed=0"])


def test_runs_are_called_by_their_student_and_by_what_differs():
    assert labels([["seed=0"], ["seed=1"]], ["S", "S"]) == ["seed=0", "seed=1"]
    assert labels([["a=1", "student=s"], ["a=1", "student=b"]], ["S", "B"]) == ["S", "B"]
    jobs = [["student=s", "seed=0"], ["student=s", "seed=1"], ["student=b", "seed=0"]]
    assert labels(jobs, ["S", "S", "B"]) == ["S, seed=0", "S, seed=1", "B, seed=0"]
    assert labels([[], ["x=1"]], ["S", "S"]) == ["as given", "x=1"]
    assert labels([["x=1"], ["x=1"]], ["S", "S"]) == ["as given", "as given (2)"]
    long = [["paths.map=" + "/folder" * 40 + f"/{name}.npz"] for name in "ab"]
    assert labels(long, ["S", "S"]) == [f"paths.map=.../folder/folder/folder/{name}.npz" for name in "ab"]


def test_two_runs_on_one_page(two, capsys):
    _, page = two
    text = page.read_text(encoding="utf-8")
    assert "2 runs compared" in text
    with open(page.parent / "tables/differences_scores.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["measure"] for row in rows} <= {"linear probe, %"}  # all else is the same and left out
    assert f"{len(rows)} scores differ between as given and {EVALUATED}" in text
    for row in rows:
        first, second = (float(row[name]) for name in ("as given", EVALUATED))
        assert float(row["difference"]) == pytest.approx(second - first)
    tables = {file.name for file in page.parent.glob("tables/*.csv")}
    assert {"overview_fine_linear_probe.csv", "overview_all_odd_one_out.csv"} <= tables
    assert {
        "overview_few_1_shot_few_shot.csv",
        "overview_few_10_shot_few_shot.csv",
    } & tables  # a table for each part
    assert sum(name.startswith("settings_") for name in tables) == 2
    with open(page.parent / "tables/overview_all_odd_one_out.csv", newline="") as handle:
        assert [row["student"] for row in csv.DictReader(handle)] == ["as given", EVALUATED]


def test_comparing_twice_gives_the_same_bytes_in_the_same_place(two, capsys):
    root, page = two
    before = {file: file.read_bytes() for file in page.parent.rglob("*.*")}
    compare([*everything(root), "vs", *everything(root, EVALUATED)])
    assert {file: file.read_bytes() for file in page.parent.rglob("*.*")} == before
    out = capsys.readouterr().out
    assert f"page: {page}" in out
    assert "odd-one-out accuracy" in out
    assert EVALUATED in out


def test_a_run_without_a_report_is_named_with_the_command_that_makes_it(measured):
    with pytest.raises(
        ArtifactError,
        match=r"the report of seed=9 in \S+ is missing; its command line is `.* seed=9`; make it with: "
        r"python -m .* seed=9$",
    ):
        compare([*TINY, f"paths.artifacts={measured}", "seed=0,9"])


def test_what_stands_on_one_side_of_vs_does_not_hold_for_the_other(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ArtifactError,
        match=r"the report of seed=3 in \./artifacts is missing; its command line is `seed=3` "
        r"\(options on one side of `vs` do not hold for the other; put what both need once after the word `all`\); "
        r"make it with: python -m alignet\.stages\.pipeline "
        r"seed=3$",
    ):
        compare([*everything(measured), "vs", "seed=3"])


def test_runs_of_two_stores_are_refused(two, measured):
    root, _ = two
    with pytest.raises(
        ValueError, match=r"paths\.artifacts: expected one store of all runs, .*; options on one side"
    ):
        compare([*everything(measured), "vs", *everything(root)])


# ---- in a browser

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Where screenshots go: ALIGNET_SHOTS, or a folder that pytest forgets."""
    from pathlib import Path

    folder = Path(os.environ.get("ALIGNET_SHOTS") or tmp_path_factory.mktemp("shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@needs_chromium
@pytest.mark.parametrize("which", ["run", "comparison"])
def test_the_page_opens_without_errors_requests_or_overflow(measured, two, tmp_path, shots, which):
    path = report(measured).file("report.html") if which == "run" else two[1]
    with Chromium(tmp_path / "browser") as browser:
        for width, height in ((1280, 900), (390, 844)):
            page = browser.open(path.absolute().as_uri(), width, height)
            for look in ("light", "dark"):
                if page.js("document.querySelector('#look').textContent") == look:
                    page.click("#look")
                page.js("document.querySelectorAll('details').forEach(one => one.open = true)")
                assert page.js("document.documentElement.scrollWidth <= innerWidth"), (width, look)
                assert page.js("document.body.scrollWidth <= innerWidth"), (width, look)
                page.js("window.scrollTo({top: 0, behavior: 'instant'})")
                page.screenshot(shots / f"{which}_{width}_{look}.png")
            assert page.js("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)"
            anchors = page.js("[...document.querySelectorAll('nav a')].map(one => one.hash.slice(1))")
            assert len(anchors) > 4
            assert page.js(f"{json.dumps(anchors)}.every(name => document.getElementById(name) !== null)")
            assert page.js("[...document.querySelectorAll('img')].every(one => one.alt)")
            assert page.js(
                "[...document.querySelectorAll('img')].every(one => one.naturalWidth > 0 || !one.offsetParent)"
            )
            page.js("document.querySelector('nav a:last-child').click()")
            page.wait("document.querySelector('nav a.here') === document.querySelector('nav a:last-child')")
        links = page.js("[...document.querySelectorAll('.files a')].map(one => one.href)")
        assert links
        assert all(os.path.isfile(unquote(link.removeprefix("file://"))) for link in links)
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}


@needs_chromium
def test_the_look_is_kept_and_follows_the_system(measured, tmp_path):
    with Chromium(tmp_path / "browser") as browser:
        page = browser.open(report(measured).file("report.html").absolute().as_uri())
        colour = "getComputedStyle(document.body).backgroundColor"
        shown = (
            "[...document.querySelectorAll('figure .drawn > div')].filter(one => one.offsetParent)"
            ".map(one => one.className)"
        )
        back = "getComputedStyle(document.querySelector('.on-both svg path')).fill"
        assert page.js(colour) == page.js(back) == "rgb(255, 255, 255)"
        assert "on-dark" not in page.js(shown)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert page.js(colour) == page.js(back) == "rgb(22, 24, 28)"
        assert "on-light" not in page.js(shown)
        page.click("#look")  # back to light, against the system
        assert page.js(colour) == page.js(back) == "rgb(255, 255, 255)"
        assert "on-dark" not in page.js(shown)
        page.go(page.js("location.href"))
        assert page.js(colour) == "rgb(255, 255, 255)"
