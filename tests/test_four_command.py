"""`python -m alignet.stages.four`: three commands' numbers on one page, what cannot be measured with its reason."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import alignet
from alignet.backbones.gradients import Classifier
from alignet.data.images import open_image
from alignet.pipeline.cli import load
from alignet.stages._four_given import Plan, options_of, peel, plan, several, without, words
from alignet.stages._networks_given import networks_of
from alignet.stages._robustness_given import NotMeasured
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
    main(commands.once(*GIVEN, "output=out", *more))


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
    least = min(int(one["n"]) for one in rows("out/four.csv"))
    assert least <= COUNT
    few = f"Only {least} image{'s' * (least > 1)} counted in "
    for text in ("The four systems together", "Every row in every measure", few, "net to other"):
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
        (["maps=maps.npz", "methods=best"], "methods: expected some of invert.methods (free, tv, "),
        (["maps=maps.npz", "distances=nope"], "distances: expected some of pixels, stlpips_alex"),
        (["maps=maps.npz", "against=pixels"], "against: expected a method that makes a distance large"),
        (["maps=maps.npz", "methods=adversarial", "against=other"], "against: expected one of pixels for the method"),
        (["maps=kinds.npz"], "maps: expected one kind of maps, found clicks, gaze in kinds.npz; name one of these"),
    ],
)  # fmt: skip
def test_one_message_before_anything_is_made(place, capsys, more, expected) -> None:
    maps = np.load("maps.npz")
    np.savez("kinds.npz", ids=maps["ids"], clicks=maps["clicks"], gaze=maps["clicks"])
    assert expected in refused(capsys, *more)
    assert not list(Path("out").glob("where/*")) if Path("out").exists() else True


def test_a_package_that_lacks_is_told_before_anything_is_made(place, capsys, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = refused(capsys, "maps=maps.npz", "distances=stlpips_alex")
    assert "expected the package stlpips-pytorch" in said
    assert not list(Path("out").glob("where/*"))


def test_a_network_that_names_no_image_right_is_left_out_with_the_reason(place, capsys) -> None:
    network(place / "third", 5)
    answers = {}
    for name in ("net", "other", "third"):
        encoder = alignet.load(name).encoder
        classify = Classifier(encoder)
        images = torch.stack([encoder.pixels(open_image(Path(f"photos/{row}.png"))) for row in range(COUNT)])
        with torch.no_grad():
            answers[name] = classify(classify.pixels(images)).argmax(1).numpy()
    same = (answers["net"] == answers["other"]) & (answers["net"] != answers["third"])
    assert same.any(), "the seeds of the networks"
    classes = np.where(same, answers["net"], 9)  # which no network names
    assert not any((one == 9).any() for one in answers.values()), "the seeds of the networks"
    Path("labels.csv").write_text(
        "\n".join(["id,class", *(f"{row}.png,{one}" for row, one in enumerate(classes))])
    )
    run("model=net,other,third", "maps=maps.npz", "logit=label", "labels=labels.csv", "skip=invariances")
    said = capsys.readouterr().out
    assert "not measured: third (it names none of" in said
    measured = {(one["model"], one["measure"]) for one in rows("out/four.csv")}
    assert {("net", "tolerance"), ("other", "tolerance"), ("third", "where")} <= measured
    assert ("third", "tolerance") not in measured
    html = Path("out/four.html").read_text(encoding="utf-8")
    assert "third: it names none of 6 images with a known class right" in html


def test_what_images_do_not_allow_leaves_the_plan_with_its_reason() -> None:
    networks = networks_of("net,other,third")
    both = Plan({"where": networks, "robustness": networks, "invariances": networks}, {"a": "b"}, True)
    one = without(both, "robustness", NotMeasured("long", "none right", ["third"]))
    assert [each.name for each in one.networks["robustness"]] == ["net", "other"]
    assert len(one.networks["where"]) == 3
    assert one.missing == {"a": "b", "third": "none right"}
    two = without(one, "robustness", NotMeasured("long", "none right", ["other"]))
    assert "robustness" not in two.networks
    assert two.missing["Adversarial alignment"] == "fewer than two networks are left (net)"
    none = without(both, "robustness", NotMeasured("long", "no common image"))
    assert none.missing["Adversarial alignment"] == "no common image"
    assert list(none.networks) == ["where", "invariances"]
    tolerance = without(both, "robustness", NotMeasured("long", "no map", maps=True))
    assert not tolerance.maps
    assert tolerance.missing["perturbations as people's maps"] == "no map"
    with pytest.raises(NotMeasured, match="long"):
        without(
            Plan({"robustness": networks, "where": networks}, {}, True),
            "robustness",
            NotMeasured("long", "no"),
        )


def test_networks_without_a_classifier_are_inverted_alone(place) -> None:
    options = options_of(
        {"images": "photos", "maps": "maps.npz", "model": "net,other,third", "arrows": "net>other"}
    )
    networks = networks_of("net,other,third")
    found = plan(options, networks, np.zeros(COUNT), ["net", "other"], load([]))
    assert found.maps
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
