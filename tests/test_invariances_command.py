"""`python -m alignet.stages.invariances`: what is stored is scored, more words keep what is made, one message."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from alignet.data.judgements import hard_triples
from alignet.pipeline.cli import load
from alignet.stages import _image_shards as shards
from alignet.stages import perceptual
from alignet.stages._invariances_given import TAKEN, distances_of, methods_of, options_of, peel, people_of
from alignet.stages._networks_given import networks_of
from alignet.stages.invariances import main
from tests.makers import commands
from tests.makers.inverted import write_choices
from tests.makers.small_networks import drawn_photos, network, payload

COUNT = 4
GIVEN = [
    "images=photos", "model=net", "invert.shard=2", "threads=1", "invert.methods.free.steps=3",
    "invert.methods.adversarial.steps=3", "invert.methods.adversarial.finish=1", "evaluate.bootstrap=50",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with four drawn images and two networks."""
    drawn_photos(tmp_path / "photos", COUNT, np.random.default_rng(0))
    network(tmp_path / "net", 2)
    network(tmp_path / "other", 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*more: str) -> None:
    main(commands.once(*GIVEN, "output=out", *more))


def refused(capsys, *more: str) -> str:
    """The one message of a run that ends with status 1."""
    return commands.refused(capsys, main, commands.once(*GIVEN, "output=out", *more))


def scores(output: str = "out") -> dict[tuple[str, str], dict[str, str]]:
    with open(Path(output, "invariances.csv"), encoding="utf-8") as handle:
        return {(row["model"], row["metric"]): row for row in csv.DictReader(handle)}


def stored(name: str, column: str, method: str = "free") -> np.ndarray:
    files = sorted(Path("out", name, f"invert-{method}").glob("invert-*.npz"))
    return np.concatenate([np.load(file)[column] for file in files])


def test_scores_are_those_of_what_is_stored(place, capsys) -> None:
    ids = [f"{row}.png" for row in range(COUNT)]
    similarity = np.random.default_rng(1).random((COUNT, COUNT))
    np.save("similar.npy", similarity + similarity.T)
    Path("order.csv").write_text("\n".join(["id", *ids]))
    people = write_choices(
        Path("choices.csv"), [{"kind": "two", "image": one, "choice": "seed", "right": 0} for one in ids]
    )
    run(
        "model=net,other", "methods=free,adversarial", "distances=pixels,other", "arrows=net>other",
        "similarity=similar.npy", "order=order.csv", f"people=net={people}",
    )  # fmt: skip
    said = capsys.readouterr().out
    assert re.search(r"^ +method +error +matched, % +2AFC, % +pixels +other +clustering, %\nnet +free ", said)
    assert "other  adversarial, against pixels" in said
    assert said.strip().splitlines()[-1].startswith("next: open out/invariances.html in a browser")
    found = scores()
    for name in ("net", "other"):
        target = (image := stored(name, "image"))[:, None] / (255 if image.dtype == np.uint8 else 1)
        inverted = stored(name, "inverted").astype(np.float64)
        own, seed = (
            np.sqrt(((inverted - one) ** 2).mean((2, 3, 4))) for one in (target, stored(name, "seed") / 255)
        )
        assert float(found[name, "two_pixels"]["value"]) == pytest.approx((own < seed).mean())
        every = np.sqrt(((inverted[:, :, None] - target[None, None, :, 0]) ** 2).mean((3, 4, 5)))
        triples = hard_triples(similarity + similarity.T, 0)
        hand = [
            np.argmin(every[row][:, triple], 1) == place for triple in triples for place, row in enumerate(triple)
        ]  # fmt: skip
        assert float(found[name, "match_hard_pixels"]["value"]) == pytest.approx(np.mean(hand))
        assert float(found[name, "error"]["value"]) == pytest.approx(np.median(stored(name, "error")))
    adversarial = [
        metric for model, metric in found if model == "net" and metric.startswith("adversarial_two")
    ]
    assert adversarial == ["adversarial_two_pixels", "adversarial_two_other", "adversarial_two"]
    assert found["net", "adversarial_two"]["value"] == found["net", "adversarial_two_other"]["value"]
    assert "was optimised, is left out" in found["net", "adversarial_two"]["note"]
    assert float(found["net", "two_people"]["value"]) == 0
    assert ("other", "two_people") not in found
    html = Path("out/invariances.html").read_text(encoding="utf-8")
    for text in ("Only 4 images counted", "All networks", "Tests between networks", "Inverted images"):
        assert text in html
    commands.check_links(Path("out"), html)
    written = json.loads(Path("out/invariances.json").read_text())
    assert [one["name"] for one in written["models"]] == ["net", "other"]
    assert written["distances"] == {
        "pixels": "root mean square difference of pixels",
        "other": "layers of folder other",
    }
    assert set(written["methods"]) == {"free", "adversarial"}


def test_a_killed_run_goes_on_and_more_words_begin_from_what_is_there(place, monkeypatch) -> None:
    monkeypatch.setattr("alignet.stages._networks_page.publish", lambda *_: None)  # drawn in the test above
    run("output=whole")
    commands.killed("invariances", [*GIVEN, "output=out"], 2)
    assert Path("out/net/invert-free.partial/invert-00000.npz").is_file()
    kept, measured, written = shards._write, perceptual.write_distance, []

    def write(path, *given):
        written.append(f"{path.parent.parent.name} {path.name}")
        kept(path, *given)

    def measure(distance, paths, folder, *given):
        written.append(f"{folder.parent.parent.name} {distance.name}")
        measured(distance, paths, folder, *given)

    monkeypatch.setattr(shards, "_write", write)
    monkeypatch.setattr(perceptual, "write_distance", measure)
    run()
    assert written == ["net invert-00001.npz", "net pixels"]
    assert payload("out") == payload("whole")
    written.clear()
    run("model=net,other", "distances=other")  # pixels stay, and count
    assert written == [
        "net other",
        "other invert-00000.npz",
        "other invert-00001.npz",
        "other pixels",
        "other other",
    ]
    assert {"two_pixels", "two_other"} <= {metric for model, metric in scores() if model == "net"}
    written.clear()
    run("distances=pixels")
    assert written == []
    assert "two_other" not in {metric for _, metric in scores()}


def test_what_changed_is_made_again_only_where_it_is_said(place, capsys) -> None:
    run("count=3")
    assert "3 of 4 images were drawn at random." in capsys.readouterr().out
    assert scores()["net", "two"]["n"] == "3"
    said = refused(capsys, "count=3", "invert.methods.free.steps=4")
    assert (
        "output: expected inverted images of the same settings in out/net/invert-free, found others" in said
    )
    before = stored("net", "inverted")
    run("count=3", "invert.methods.free.steps=2", "force=true")
    assert not np.array_equal(stored("net", "inverted"), before)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["images="], "images: expected a folder of images, found none; add images=..."),
        (["model="], "model: expected networks"),
        (["methods=best"], "methods: expected some of invert.methods (free, tv, "),
        (["methods=free,free"], "methods: expected each once, found free twice"),
        (["distances=best"], "distances: expected some of pixels, stlpips_alex"),
        (["distances=stlpips_alex,stlpips_alex"], "distances: expected each once, found stlpips_alex twice"),
        (["against=pixels"], "against: expected a method that makes a distance large"),
        (["methods=adversarial", "against=stlpips_alex"], "against: expected one of pixels for the method"),
        (["matched=2"], "matched: expected a relative error above 0 and below 1, found 2"),
        (["arrows=net>gone"], "arrows: expected FROM>TO"),
        (["people=gone=choices.csv"], "people: expected NAME=FILE for networks out of net"),
        (["people=net=gone.csv"], "people: expected choices.csv of `survey import`, found no file gone.csv"),
        (["similarity=gone.npy"], "order: expected a table with a column id"),
        (["similarity=gone.npy", "order=gone.csv"], "similarity: expected a file, found none at gone.npy"),
        (["distances=pixels,pixels"], "distances: expected each once, found pixels twice"),
        (["distances=net,net"], "distances: expected each once, found net twice"),
        (
            ["distances=rho_net"],
            "distances: expected names that do not begin with people, matched, hard, agree, rho",
        ),
        (["distances=people_x"], "as other scores do, found people_x; call"),
        (["order=order.csv"], "order: expected people's similarities beside order=order.csv, found none"),
        (
            ["kind=dissimilarity"],
            "kind: expected people's similarities beside kind=dissimilarity, found none",
        ),
        (["people=choices.csv"], "expected images that were inverted, found 'elsewhere.png'"),
        (["similarity=three.npy", "order=order.csv"], "three.npy"),
        (["similarity=four.npy", "order=others.csv"], "of at least 3 images, found (2, 2)"),
        (["kind=distance"], "kind: expected one of similarity, dissimilarity, found 'distance'"),
        (["photographs=some"], "photographs: expected one of true, false"),
        (["draws=0"], "invert.draws: expected at least 1"),
        (["output=net"], "output: expected a free name or an earlier result, found net"),
        (["runtime.launcher=torchrun"], "invariances: expected one process"),
    ],
)
def test_bad_words_are_told_before_a_network_is_loaded(place, capsys, monkeypatch, more, expected) -> None:
    monkeypatch.setattr("alignet.api.load", lambda *_, **__: pytest.fail("a network was loaded"))
    for name in ("rho_net", "people_x"):
        Path(name).mkdir()
    write_choices(
        Path("choices.csv"), [{"kind": "two", "image": "elsewhere.png", "choice": "seed", "right": 0}]
    )
    for name, first in (("order", 0), ("others", 2)):
        Path(f"{name}.csv").write_text("\n".join(["id", *(f"{row + first}.png" for row in range(COUNT))]))
    for name, count in (("three", 3), ("four", 4)):
        np.save(f"{name}.npy", np.ones((count, count)))
    assert expected in refused(capsys, *more)


def test_shift_tolerant_lpips_without_its_package(place, capsys, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert "expected the package stlpips-pytorch" in refused(capsys, "distances=stlpips_alex")


def test_a_networks_distance_is_called_by_its_name_or_as_it_was_typed() -> None:
    config = load([])
    found = distances_of("timm:tf_efficientnet_lite2.in1k", config.perceptual)
    assert list(found) == ["pixels", "tf_efficientnet_lite2-in1k"]
    for text in (
        "timm:tf_efficientnet_lite2.in1k",
        "tf_efficientnet_lite2.in1k",
        "tf_efficientnet_lite2-in1k",
    ):
        methods = methods_of("free,adversarial", text, config.invert, found)
        assert methods["adversarial"].distance == "tf_efficientnet_lite2-in1k"
    with pytest.raises(
        ValueError, match="against: expected one of pixels, tf_efficientnet_lite2-in1k for the"
    ):
        methods_of("adversarial", "lite2", config.invert, found)


def test_a_distance_hangs_on_what_its_network_is_fed(place, monkeypatch) -> None:
    """Its weights alone are not all: with another mean and size of its input the distances are others."""
    monkeypatch.setattr("alignet.stages._networks_page.publish", lambda *_: None)
    measured, kept = [], perceptual.write_distance

    def measure(distance, *given):
        measured.append(distance.name)
        kept(distance, *given)

    monkeypatch.setattr(perceptual, "write_distance", measure)
    run("distances=other")
    run("distances=other")
    assert measured == ["pixels", "other"]
    config = json.loads(Path("other/config.json").read_text())
    for changed in ({"mean": [0.1, 0.2, 0.3]}, {"input_size": [3, 40, 40]}):
        before = scores()["net", "two_other"], Path("out/net/perceptual-free/other/other.npz").read_bytes()
        config["pretrained_cfg"] |= changed
        Path("other/config.json").write_text(json.dumps(config))
        run("distances=other")
        assert Path("out/net/perceptual-free/other/other.npz").read_bytes() != before[1]
    assert measured == ["pixels", "other", "other", "other"]


def test_words_are_taken_apart() -> None:
    own, rest = peel(["images=a", "count=8", "device=cuda", "people=x.csv", "seed=3"])
    assert own == {"images": "a", "people": "x.csv"}
    assert rest == ["invert.images=8", "runtime.device=cuda", "seed=3"]
    assert options_of({"images": "a/b", "model": "timm:x"})["output"] == "invariances/b"


def test_people_of_one_network_need_no_name(place) -> None:
    Path("choices.csv").touch()
    one, two = networks_of("net", "", TAKEN), networks_of("net,other", "", TAKEN)
    assert people_of("choices.csv", one) == people_of("net=choices.csv", two) == {"net": Path("choices.csv")}
    with pytest.raises(ValueError, match="say on whose inverted images"):
        people_of("choices.csv", two)
