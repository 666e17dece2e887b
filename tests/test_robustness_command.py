"""`python -m alignet.stages.robustness`: planted places come back, networks compare on common images, one message."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import alignet
from alignet.attacks.stored import as_float64
from alignet.backbones.gradients import Classifier
from alignet.data.images import open_image
from alignet.evaluate.attack import magnitude
from alignet.stages import _image_shards as shards
from alignet.stages._networks_given import networks_of
from alignet.stages._robustness_given import TAKEN, groups_of, kind_of, options_of, peel
from alignet.stages.robustness import main
from tests.makers import commands
from tests.makers.small_networks import drawn_photos, network, payload

COUNT = 9
GIVEN = [
    "images=photos", "model=net,other", "attack.shard=4", "threads=1", "attack.methods.fast.steps=8",
    "attack.methods.linf.steps=8", "evaluate.bootstrap=50",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with nine drawn images and two networks."""
    drawn_photos(tmp_path / "photos", COUNT, np.random.default_rng(0))
    network(tmp_path / "net", 2)  # seeds whose answers differ between images
    network(tmp_path / "other", 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_maps(**kinds: np.ndarray) -> None:
    np.savez("maps.npz", ids=[f"{row}.png" for row in range(COUNT)], **kinds)  # type: ignore[arg-type]


def write_labels(wrong: dict[str, list[int]]) -> None:
    """A table of classes by which each network names all images right but these; no image is wrong for all."""
    answers = {name: first_answers(name) for name in wrong}
    lines = ["id,class"]
    for row in range(COUNT):
        right = {int(answers[name][row]) for name, rows in wrong.items() if row not in rows}
        assert len(right) < 2, "networks that are both right must answer alike"
        lines.append(f"{row}.png,{right.pop() if right else 9}")
    Path("labels.csv").write_text("\n".join(lines) + "\n")


def first_answers(name: str) -> np.ndarray:
    encoder = alignet.load(name).encoder
    classify = Classifier(encoder)
    images = torch.stack([encoder.pixels(open_image(Path(f"photos/{row}.png"))) for row in range(COUNT)])
    with torch.no_grad():
        return classify(classify.pixels(images)).argmax(1).numpy()


def run(*more: str) -> None:
    main(commands.once(*GIVEN, "output=out", *more))


def refused(capsys, *more: str) -> str:
    """The one message of a run that ends with status 1."""
    return commands.refused(capsys, main, commands.once(*GIVEN, "output=out", *more))


def scores(output: str = "out") -> dict[tuple[str, str], dict[str, str]]:
    with open(Path(output, "robustness.csv"), encoding="utf-8") as handle:
        return {(row["model"], row["metric"]): row for row in csv.DictReader(handle)}


def stored(name: str, column: str, output: str = "out", attack: str = "attack") -> np.ndarray:
    files = sorted(Path(output, name, attack).glob("attack-*.npz"))
    return np.concatenate([np.load(file)[column] for file in files])


def test_what_is_written_and_said(place, capsys) -> None:
    write_maps(clicks=np.random.default_rng(1).random((COUNT, 12, 12)).astype(np.float32))
    run("maps=maps.npz", "logit=top1", "also=linf", "arrows=net>other")
    said = capsys.readouterr().out
    assert re.search(r"^ +l2 +RMS, 1/255 +8 bit, l2 +unbroken, % +rho +centre bias +masked, %\nnet ", said)
    assert "All 9 images were attacked, whatever a network answered at first." in said
    assert "2 networks x 9 images by fast, linf -> out (robustness.html, robustness.csv, robustness" in said
    assert said.strip().splitlines()[-1].startswith("next: open out/robustness.html in a browser")
    found = scores()
    for name in ("net", "other"):
        image, attacked = (as_float64(stored(name, one)) for one in ("image", "attacked"))
        norms = np.sqrt(((attacked - image) ** 2).sum((1, 2, 3)))
        norms[~stored(name, "broken")] = 10
        assert float(found[name, "tolerance"]["value"]) == pytest.approx(norms.mean())
        assert found[name, "tolerance"]["n"] == str(COUNT)
        assert {(name, one) for one in ("linf_tolerance", "linf_against", "attack_alignment")} <= found.keys()
    html = Path("out/robustness.html").read_text(encoding="utf-8")
    for text in (
        "Only 9 images counted",
        "All networks",
        "Tests between networks",
        "Do other attacks agree?",
    ):
        assert text in html
    commands.check_links(Path("out"), html)
    written = json.loads(Path("out/robustness.json").read_text())
    assert [one["name"] for one in written["models"]] == ["net", "other"]
    assert list(written["methods"]) == ["fast", "linf"]
    assert written["models"][0]["about"]["kind"] == "cnn"


def test_a_networks_own_perturbation_as_peoples_map_is_found_and_lost_when_shuffled(place) -> None:
    run("logit=top1", "model=net")
    maps = magnitude(stored("net", "image"), stored("net", "attacked"), "mean")
    generator = np.random.default_rng(1)
    write_maps(
        own=maps, shuffled=np.stack([generator.permutation(one.ravel()).reshape(one.shape) for one in maps])
    )
    before = Path("out/net/attack/attack-00000.npz").stat().st_mtime_ns
    for key in ("own", "shuffled"):
        run("logit=top1", "maps=maps.npz", f"key={key}")
        found = {name: float(scores()[name, "attack_alignment"]["value"]) for name in ("net", "other")}
        assert found["net"] == pytest.approx(1 if key == "own" else 0, abs=1e-3 if key == "own" else 0.05)
        assert found["other"] < 0.8
    assert Path("out/net/attack/attack-00000.npz").stat().st_mtime_ns == before


def test_networks_compare_on_images_that_all_name_right(place, capsys) -> None:
    same = np.flatnonzero(first_answers("net") == first_answers("other")).tolist()
    apart = [row for row in range(COUNT) if row not in same]
    assert len(same) > 1, "the seeds of the networks"
    assert len(apart) > 1, "the seeds of the networks"
    write_labels({"net": apart[1:], "other": apart[:1]})
    run("labels=labels.csv")
    common = [f"{row}.png" for row in same]
    assert Path("out/common.txt").read_text().split() == common
    assert f"Numbers are of the {len(same)} images that all 2 networks name right" in capsys.readouterr().out
    both = scores()
    for name, rows in (("net", [*same, apart[0]]), ("other", [*same, *apart[1:]])):
        assert np.flatnonzero(stored(name, "tried")).tolist() == sorted(rows)  # attacked on all of its own
        assert both[name, "tolerance"]["n"] == str(len(same))
        assert float(both[name, "accuracy"]["value"]) == pytest.approx(len(rows) / COUNT)
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("attack-*.npz")}
    run("labels=labels.csv", "common=false")
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("attack-*.npz")} == before
    assert scores()["net", "tolerance"]["n"] == str(len(same) + 1)
    assert scores()["net", "robust_0.5"] == both["net", "robust_0.5"]  # of all images either way
    assert not Path("out/common.txt").exists()


def test_a_killed_run_goes_on_and_more_networks_begin_from_what_is_there(place, monkeypatch) -> None:
    run("logit=top1", "output=whole")
    argv = [*GIVEN, "logit=top1", "output=resumed"]
    commands.killed("robustness", argv, 11)
    assert Path("resumed/net/attack/MANIFEST.json").is_file()
    assert Path("resumed/other/attack.partial/attack-00000.npz").is_file()
    kept, written = shards._write, []

    def write(path, *given):
        written.append(f"{path.parent.parent.name} {path.name}")
        kept(path, *given)

    monkeypatch.setattr(shards, "_write", write)
    run("logit=top1", "output=resumed")
    assert written == ["other attack-00001.npz", "other attack-00002.npz"]
    assert payload("resumed") == payload("whole")
    written.clear()
    network(place / "third", 4)
    run("logit=top1", "output=resumed", "model=third,other,net")
    assert {one.partition(" ")[0] for one in written} == {"third"}


def test_what_changed_is_made_again_only_where_it_is_said(place, capsys) -> None:
    run("logit=top1", "model=net")
    said = refused(capsys, "logit=top1", "model=net", "attack.methods.fast.steps=9")
    assert "output: expected attacks of the same settings in out/net/attack, found others" in said
    Path("net/model.safetensors").write_bytes(Path("other/model.safetensors").read_bytes())
    assert "attacks of the same weights" in refused(capsys, "logit=top1", "model=net")
    before = stored("net", "attacked")
    run("logit=top1", "model=net", "force=true")
    assert not np.array_equal(stored("net", "attacked"), before)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["images="], "images: expected a folder of images, found none; add images=..."),
        (["model="], "model: expected networks"),
        (["names=tables,a"], "names: expected names that differ"),
        (["method=best"], "attack.method: expected one of attack.methods (fast, linf, "),
        (["also=fast"], "also: expected other methods than fast, each once, found fast twice"),
        (["also=best"], "also: expected methods out of attack.methods (fast, linf, "),
        (["eps=0.5,20"], "eps: expected norms above 0 and of at most 10, the largest that is searched, found 20"),
        (["eps=small"], "eps: expected norms above 0"),
        (["groups=cnn:net"], "groups: expected two groups with different networks"),
        (["groups=cnn:net;vit:gone"], "groups: expected NAME:A,B;NAME:C,D of net, other, found 'vit:gone'"),
        (["arrows=net>gone"], "arrows: expected FROM>TO"),
        (["common=maybe"], "common: expected one of true, false, found 'maybe'"),
        (["key=clicks"], "key: expected maps=... beside key=clicks"),
        (["maps=maps.npz"], "maps: expected one kind of maps, found clicks, gaze in maps.npz; name one of these"),
        (["maps=maps.npz", "key=gone"], "expected maps 'gone', found clicks, gaze"),
        (["maps=apart.npz"], "expected maps of these images, such as '0.png', found none among 2"),
        (["logit=label"], "labels: expected the class of at least one image, found none of 9; give labels=TABLE"),
        (["output=net"], "output: expected a free name or an earlier result, found net"),
        (["runtime.launcher=torchrun"], "robustness: expected one process"),
    ],
)  # fmt: skip
def test_bad_words_are_told_before_a_network_is_loaded(place, capsys, monkeypatch, more, expected) -> None:
    maps = np.random.default_rng(0).random((COUNT, 6, 6))
    write_maps(clicks=maps, gaze=maps)
    np.savez("apart.npz", ids=["a.png", "b.png"], maps=maps[:2])
    monkeypatch.setattr("alignet.api.load", lambda *_, **__: pytest.fail("a network was loaded"))
    assert expected in refused(capsys, "logit=top1", *more)


def test_a_method_of_foolbox_without_it(place, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    assert "expected the package foolbox for cw, found none" in refused(capsys, "logit=top1", "also=cw")


def test_networks_and_classes_that_do_not_fit(place, capsys) -> None:
    config = json.loads(Path("net/config.json").read_text())
    Path("bare").mkdir()
    config["num_classes"] = config["pretrained_cfg"]["num_classes"] = 0
    Path("bare/config.json").write_text(json.dumps(config))
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), "bare/model.safetensors")
    said = refused(capsys, "logit=top1", "model=net,bare")
    assert "model bare: expected a network with a classifier, found timm's test_efficientnet without" in said
    answers = [first_answers(name) for name in ("net", "other")]
    unused = next(number for number in range(10) if number not in np.concatenate(answers))

    def labels(values) -> None:
        lines = [f"{row}.png,{value}" for row, value in enumerate(values)]
        Path("labels.csv").write_text("\n".join(["id,class", *lines]))

    labels([unused] * COUNT)
    said = refused(capsys, "labels=labels.csv")
    assert (
        "model net: expected images that it names right, found 0 of 9 with a known class (net 0, oth" in said
    )
    one, two = np.flatnonzero(answers[0] != answers[1])[:2]
    classes = [unused] * COUNT
    classes[one], classes[two] = answers[0][one], answers[1][two]
    labels(classes)
    said = refused(capsys, "labels=labels.csv", "output=out2")
    assert "common: expected images that all 2 networks name right, found none of 9" in said
    assert "(net 1, other 1)" in said
    assert not list(Path("out2").rglob("attack-*.npz"))
    labels([40] * COUNT)
    said = refused(capsys, "labels=labels.csv", "output=out3")
    assert "model net: labels: expected classes in 0..9, found 40" in said


def test_images_are_drawn_where_a_method_takes_so_many(place, capsys) -> None:
    run("logit=top1", "also=linf", "attack.methods.fast.images=6", "attack.methods.linf.images=4")
    assert "6 of 9 images were drawn at random. All 6 images were attacked" in capsys.readouterr().out
    found = scores()
    assert found["net", "tolerance"]["n"] == "6"
    assert found["net", "linf_tolerance"]["n"] == "4"
    classes = first_answers("net")
    rows = [row for row in range(COUNT) if f"{row}.png" in Path("out/common.txt").read_text().split()]
    drawn = [
        row for row in rows if f"{row}.png" in Path("out/net/attack-linf/ids-00000.txt").read_text().split()
    ]
    assert len(drawn) == 4
    for row in drawn:
        classes[row] = 9
    lines = [f"{row}.png,{label}" for row, label in enumerate(classes)]
    Path("labels.csv").write_text("\n".join(["id,class", *lines]))
    more = ["attack.methods.fast.images=6", "attack.methods.linf.images=4", "model=net", "output=out2"]
    said = refused(capsys, "labels=labels.csv", "also=linf", *more)
    assert "also: expected images that net names right among the 4 drawn for linf, found none" in said


def test_words_are_parted_from_the_configuration() -> None:
    own, rest = peel(["images=a", "maps=b", "batch=3", "logit=top1", "method=pgd", "attack.shard=4"])
    assert own == {"images": "a", "maps": "b"}
    assert rest == ["attack.batch=3", "attack.logit=top1", "attack.method=pgd", "attack.shard=4"]
    assert options_of({"images": "photos", "model": "x"})["output"] == "robustness/photos"
    networks = networks_of("timm:a,timm:b,timm:c", "", TAKEN)
    assert groups_of("old: a, b; new: c", networks) == {"old": ["a", "b"], "new": ["c"]}


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("test_vit", "vit"), ("resnet10t", "cnn"), ("test_efficientnet", "cnn"), ("resnet50_clip", "cnn"),
     ("swin_tiny_patch4_window7_224", "vit"), ("xcit_nano_12_p16_224", "vit"), ("convnext_atto", "cnn")],
)  # fmt: skip
def test_what_seems_a_transformer(architecture: str, kind: str) -> None:
    with torch.device("meta"):
        assert kind_of(timm.create_model(architecture).modules()) == kind
