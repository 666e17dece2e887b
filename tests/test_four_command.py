"""`python -m alignet.stages.four`: three commands' numbers on one page, what cannot be measured with its reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from alignet.pipeline.cli import load
from alignet.stages._four_given import options_of, peel, plan, several, words
from alignet.stages._networks_given import networks_of
from alignet.stages.four import main
from tests.makers import commands
from tests.makers.small_networks import drawn_photos, network

COUNT = 6
GIVEN = [
    "images=photos", "model=net,other", "logit=top1", "threads=1", "evaluate.bootstrap=20", "invert.images=0",
    "attack.methods.fast.steps=4", "invert.methods.free.steps=6", "invert.draws=1",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with drawn images, their maps and two networks."""
    generator = np.random.default_rng(0)
    drawn_photos(tmp_path / "photos", COUNT, generator)
    network(tmp_path / "net", 2)
    network(tmp_path / "other", 3)
    monkeypatch.chdir(tmp_path)
    maps = generator.random((COUNT, 12, 12)).astype(np.float32)
    np.savez("maps.npz", ids=[f"{row}.png" for row in range(COUNT)], clicks=maps)
    return tmp_path


def run(*more: str) -> None:
    main([*GIVEN, "output=out", *more])


def refused(capsys, *more: str) -> str:
    """The one message of a run that ends with status 1."""
    return commands.refused(capsys, main, [*GIVEN, "output=out", *more])


def rows(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def value(path: str, model: str, metric: str) -> float:
    return next(float(one["value"]) for one in rows(path) if (one["model"], one["metric"]) == (model, metric))


def test_the_numbers_are_those_of_the_three_commands(place, capsys) -> None:
    run("maps=maps.npz", "arrows=net>other")
    said = capsys.readouterr().out
    assert "1 of 3: where of net, other" in said
    assert "3 of 3: invariances of net, other" in said
    assert "not measured: AligNet (measured on a network's features by people's choices" in said
    assert said.strip().splitlines()[-1].startswith("next: open out/four.html in a browser")
    found = {(one["model"], one["measure"]): float(one["value"]) for one in rows("out/four.csv")}
    for name in ("net", "other"):
        assert found[name, "where"] == value("out/where/where.csv", name, "where")
        assert found[name, "tolerance"] == value("out/robustness/robustness.csv", name, "tolerance")
        assert found[name, "alignment"] == value("out/robustness/robustness.csv", name, "attack_alignment")
        assert found[name, "two"] == value("out/invariances/invariances.csv", name, "two")
    stored = json.loads(Path("out/four.json").read_text(encoding="utf-8"))
    assert stored["arrows"] == [["net", "other"]]
    assert stored["correlations"] == []
    assert len(stored["sentences"]) == 5
    assert "correlations need 4 rows" in stored["sentences"][1]
    html = Path("out/four.html").read_text(encoding="utf-8")
    for text in ("The four systems together", "Every row in every measure", "Only 6 images", "net to other"):
        assert text in html
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("attack-*.npz")}
    assert before
    run("skip=where")  # without maps and without one command: what is made stays
    assert {path: path.stat().st_mtime_ns for path in before} == before
    said = capsys.readouterr().out
    assert "not measured: Neural Harmonizer (left out by skip=where)" in said
    assert "not measured: perturbations as people's maps (no importance maps of people were given" in said
    assert not any(one["measure"] == "where" for one in rows("out/four.csv"))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["model=net"], "model: expected two networks or more, found net alone"),
        (["skip=there"], "skip: expected some of where, robustness, invariances, found 'there'"),
        (["key=clicks"], "key: expected maps=... beside key=clicks"),
        (["maps=photos"], "maps: expected a file or a folder of their own"),
        (
            ["logit=label"],
            "expected two or more of where, robustness and invariances that can be measured, found inv",
        ),
        (["common=perhaps"], "common: expected one of true, false"),
        (["arrows=net>none"], "arrows: expected FROM>TO, two of net, other"),
        (["images=nowhere"], "nowhere"),
    ],
)
def test_one_message_before_anything_is_made(place, capsys, more, expected) -> None:
    assert expected in refused(capsys, *more)
    assert not list(Path("out").glob("where/*")) if Path("out").exists() else True


def test_networks_without_a_classifier_are_inverted_alone(place) -> None:
    options = options_of(
        {"images": "photos", "maps": "maps.npz", "model": "net,other,third", "arrows": "net>other"}
    )
    networks = networks_of("net,other,third")
    found = plan(options, networks, np.zeros(COUNT), ["net", "other"], load([]))
    assert [one.name for one in found.networks["where"]] == ["net", "other"]
    assert [one.name for one in found.networks["invariances"]] == ["net", "other", "third"]
    assert found.missing["third"].startswith("no classifier")
    given = words("robustness", options, found.networks["robustness"], networks)
    assert (given["model"], given["arrows"], given["output"]) == (
        "net,other",
        "net>other",
        "four/photos/robustness",
    )
    assert "maps" not in words("invariances", options, networks, networks)
    with pytest.raises(ValueError, match=r"fewer than two networks have a classifier \(net\)"):
        plan(options, networks, np.zeros(COUNT), ["net"], load([]))
    assert len(several(options)) == 3


def test_one_word_for_the_configuration_of_several_commands() -> None:
    own, rest = peel(["images=a", "logit=top1", "batch=4", "count=3", "seed=1"])
    assert own == {"images": "a"}
    assert rest == [
        "attack.logit=top1", "saliency.logit=top1", "attack.batch=4", "saliency.batch=4", "invert.batch=4",
        "invert.images=3", "seed=1",
    ]  # fmt: skip
