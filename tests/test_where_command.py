"""`python -m alignet.stages.where`: planted maps are found, nothing is made twice, bad input gets one message."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

from alignet.evaluate.where import reduce_channels
from alignet.report.blocks import DARK, LIGHT
from alignet.report.network_points import front
from alignet.report.where_networks import Given, Network, _accuracy, _alignment, _points, page
from alignet.stages import _image_shards as stage
from alignet.stages._networks_given import arrows_of, networks_of
from alignet.stages._where_given import options_of, peel
from alignet.stages.where import main
from tests.makers import commands
from tests.makers.small_networks import SIZE, drawn_photos, network, payload
from tests.report.test_where import result

COUNT = 9
GIVEN = ["images=photos", "maps=maps.npz", "model=net,other", "saliency.shard=4", "threads=1", "splits=5"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with nine drawn images, two networks, and maps of two kinds, one of them by rater."""
    generator = np.random.default_rng(0)
    drawn_photos(tmp_path / "photos", COUNT, generator)
    network(tmp_path / "net", 0)
    network(tmp_path / "other", 1)
    maps = generator.random((COUNT, 12, 12))
    noise = generator.random((COUNT, 3, 12, 12))
    np.savez(
        tmp_path / "maps.npz", ids=[f"{row}.png" for row in range(COUNT)], clicks=maps.astype(np.float32),
        raters=(maps[:, None] + 0.3 * noise).astype(np.float32),
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*more: str) -> None:
    main(commands.once(*GIVEN, "output=out", *more))


def refused(capsys, *more: str) -> str:
    """The one message of a run that ends with status 1."""
    return commands.refused(capsys, main, commands.once(*GIVEN, "output=out", *more))


def scores(output: str = "out") -> dict[tuple[str, str, str], dict[str, str]]:
    with open(Path(output, "where.csv"), encoding="utf-8") as handle:
        return {(row["model"], row["key"], row["metric"]): row for row in csv.DictReader(handle)}


def own_maps(folder: Path, name: str = "net") -> np.ndarray:
    """The network's own saliency (n, SIZE, SIZE) as the family reduces it."""
    shards = sorted(Path(folder, name, "saliency").glob("saliency-*.npz"))
    return np.concatenate([reduce_channels(np.load(one)["gradients"], "max") for one in shards])


def test_what_is_written_and_said(place, capsys) -> None:
    run("keys=clicks,raters")
    said = capsys.readouterr().out
    assert re.search(r"people's maps: clicks\n +rho +rho at 1/4 +rho at 1/16 +Dice +IoU +centre bias", said)
    assert "Gradients of the predicted class: no class of the images is known" in said
    assert "2 networks x 9 images x 2 kinds of maps -> out (where.html, where.csv, where.json)" in said
    assert said.strip().splitlines()[-1].startswith("next: open out/where.html in a browser")
    html = Path("out/where.html").read_text(encoding="utf-8")
    assert "Gradients of the predicted class" in html
    assert "Only 9 images" in html
    assert "Published values: ClickMe" in html
    commands.check_links(Path("out"), html)
    found = scores()
    assert {name for name, _, _ in found} == {"", "net", "other"}
    row = found["net", "clicks", "where"]
    assert float(row["low"]) < float(row["value"]) < float(row["high"])
    written = json.loads(Path("out/where.json").read_text())
    assert [one["name"] for one in written["models"]] == ["net", "other"]
    (pair,) = written["people"]["between"]
    assert (pair["a"], pair["b"], pair["n"]) == ("clicks", "raters", 9)
    told = {(one["key"], one["metric"]) for one in written["models"][0]["scores"]}
    assert {("clicks", "where_16x"), ("raters", "dice"), ("clicks", "where_over_centre")} <= told


def test_a_networks_own_saliency_as_peoples_map_is_found_and_lost_when_shuffled(place) -> None:
    run("keys=clicks", "model=net")
    maps, generator = own_maps(Path("out")), np.random.default_rng(1)
    shuffled = np.stack([generator.permutation(one.ravel()).reshape(one.shape) for one in maps])
    np.savez(
        "planted.npz",
        ids=[f"{row}.png" for row in range(COUNT)],
        own=maps,
        shuffled=shuffled,
        others=np.roll(maps, 1, 0),
    )
    run("maps=planted.npz")
    found = {key: float(row["value"]) for key, row in scores().items() if row["metric"] in ("where", "dice")}
    assert found["net", "own", "where"] == pytest.approx(1, abs=1e-5)
    assert found["net", "own", "dice"] == pytest.approx(1, abs=1e-5)
    assert abs(found["net", "shuffled", "where"]) < 0.03
    assert found["net", "others", "where"] < 0.8  # what maps of a random network have in common
    assert found["other", "own", "where"] < 0.9
    beside = {key: row for key, row in scores().items() if row["metric"] == "where_over_centre"}
    assert float(beside["net", "own", "where_over_centre"]["low"]) > 0


def test_the_split_half_ceiling_is_taken_where_all_maps_have_raters(place) -> None:
    run("keys=raters", "model=net")
    found = scores()
    ceiling = float(found["", "raters", "split_half"]["value"])
    where = found["net", "raters", "where"]
    assert float(where["ceiling"]) == pytest.approx(ceiling)
    of = float(found["net", "raters", "where_of_ceiling"]["value"])
    assert of == pytest.approx(float(where["value"]) / ceiling)
    run("model=net")  # of both kinds, and one has no raters
    assert ("net", "raters", "where_of_ceiling") not in scores()
    run("model=net", "ceiling=clickme")
    assert float(scores()["net", "clicks", "where"]["ceiling"]) == 0.65753


def test_classes_give_accuracy_and_their_own_gradients(place, capsys) -> None:
    run("model=net", "keys=clicks", "output=predicted")
    top1 = np.concatenate(
        [np.load(one)["top1"] for one in sorted(Path("predicted/net/saliency").glob("*.npz"))]
    )
    labels = (top1 + (np.arange(COUNT) % 3 == 0)) % 10  # three of nine are wrong
    lines = ["id,kind", *(f"{row}.png,{label}" for row, label in enumerate(labels))]
    Path("labels.csv").write_text("\n".join(lines) + "\n")
    run("keys=clicks", "labels=labels.csv", "column=kind", "arrows=net>other")
    found = scores()
    assert float(found["net", "", "accuracy"]["value"]) == pytest.approx(6 / 9)
    html = Path("out/where.html").read_text(encoding="utf-8")
    assert "Gradients of the image&#39;s class: the class of every image is known" in html
    assert "Accuracy against alignment" in html
    assert re.search(r"From net to other: [+-][\d.]+ points of accuracy", html)
    other = own_maps(Path("out")) != own_maps(Path("predicted"))
    assert other.any((1, 2)).tolist() == (np.arange(COUNT) % 3 == 0).tolist()
    run("model=net", "keys=clicks", "labels=labels.csv", "column=kind", "logit=top1", "output=top1")
    assert np.array_equal(own_maps(Path("top1")), own_maps(Path("predicted")))
    assert "the predicted class" in capsys.readouterr().out


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(place, monkeypatch) -> None:
    run("output=whole")
    argv = [*GIVEN, "output=resumed"]
    commands.killed("where", argv, 5)
    assert Path("resumed/net/saliency/MANIFEST.json").is_file()
    assert Path("resumed/other/saliency.partial/saliency-00000.npz").is_file()
    assert not Path("resumed/where.html").exists()
    kept, written = stage._write, []

    def write(path, *given):
        written.append((path.parent.parent.name, int(path.stem[-5:])))
        kept(path, *given)

    monkeypatch.setattr(stage, "_write", write)
    run("output=resumed")
    assert written == [("other", 1), ("other", 2)]
    assert payload("resumed") == payload("whole")
    run("output=resumed", "model=other,net")  # nothing is made again, rows change places
    assert len(written) == 2


def test_what_changed_is_made_again_only_where_it_is_said(place, capsys) -> None:
    run("model=net")
    network_before = Path("net/model.safetensors").read_bytes()
    said = refused(capsys, "model=net", "logit=top1")
    assert "output: expected gradients of the same settings in out/net/saliency, found others" in said
    Path("net/model.safetensors").write_bytes(Path("other/model.safetensors").read_bytes())
    assert "gradients of the same weights" in refused(capsys, "model=net")
    before = own_maps(Path("out"))
    run("model=net", "force=true")
    assert not np.array_equal(own_maps(Path("out")), before)
    Path("net/model.safetensors").write_bytes(network_before)
    Image.new("RGB", (SIZE, SIZE), "red").save("photos/10.png")
    assert "gradients of the same images and weights and labels" in refused(capsys, "model=net")


def test_damaged_gradients_are_told_and_made_again_by_force(place, capsys) -> None:
    run("model=net", "keys=clicks")
    before = payload("out")
    for name in ("saliency-00001.npz", "MANIFEST.json"):
        with open(Path("out/net/saliency", name), "ab") as handle:
            handle.write(b"x")
        said = refused(capsys, "model=net", "keys=clicks")
        assert name in said
        assert said.endswith("; delete out/net/saliency, or give force=true to make it again.")
        run("model=net", "keys=clicks", "force=true")
        assert payload("out") == before
    with open("out/net/scores/scores.json", "ab") as handle:  # what follows from them is made again by itself
        handle.write(b"x")
    run("model=net", "keys=clicks")
    assert payload("out") == before


def test_weights_from_a_file_and_names(place) -> None:
    module = timm.create_model("test_efficientnet")
    save_file(module.state_dict(), "a.safetensors")
    first = networks_of("timm:test_efficientnet=a.safetensors,net")
    assert [(one.name, one.model, one.weights) for one in first] == [
        ("test_efficientnet", "timm:test_efficientnet", "a.safetensors"), ("net", "net", ""),
    ]  # fmt: skip
    save_file(module.state_dict(), "b.safetensors")
    both = networks_of("timm:test_efficientnet=a.safetensors,timm:test_efficientnet=b.safetensors")
    assert [one.name for one in both] == ["test_efficientnet a", "test_efficientnet b"]
    assert [one.folder for one in networks_of("net,other", "before alignment,after")] == [
        "before-alignment",
        "after",
    ]
    assert arrows_of("net>b", networks_of("net,other", "a,b")) == [("a", "b")]
    run("model=timm:test_efficientnet=a.safetensors", "keys=clicks")
    assert (
        json.loads(Path("out/where.json").read_text())["models"][0]["about"]["input, pixels"] == "160 x 160"
    )


def test_maps_beside_their_images(place) -> None:
    for row in range(COUNT):
        np.save(f"photos/{row}_map.npy", np.random.default_rng(row).random((6, 6)))
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).save("photos/0_map.png")
    Path("photos/0_map.npy").unlink()
    run("maps=photos", "model=net")
    assert float(scores()["net", "photos", "where"]["n"]) == COUNT


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["images="], "images: expected a folder of images, found none; add images=..."),
        (["model="], "model: expected networks"),
        (["model=net,,other"], "model: expected values separated by single commas"),
        (["model=net,net"], "model: expected each network once, found net twice"),
        (["model=timm:test_efficientnet=gone.safetensors"], "found nothing there at gone.safetensors"),
        (["model=timm:test_efficientnot"], "expected an architecture that timm"),
        (["names=a"], "names: expected one for each of the 2 networks, found 1"),
        (["names=people,a"], "names: expected names that differ"),
        (["keys=clicks,gone"], "expected maps 'gone', found clicks, raters; name one of these as key"),
        (["keys=clicks,clicks"], "keys: expected each kind of maps once"),
        (["maps=gone.npz"], "gone.npz"),
        (["ceiling=2"], "ceiling: expected split_half, clickme, none or a number"),
        (["ceiling=split_half"], "expected the maps of single raters for ceiling=split_half"),
        (["arrows=net"], "arrows: expected FROM>TO, two of net, other, found 'net'"),
        (["arrows=net>gone"], "arrows: expected FROM>TO"),
        (["logit=best"], "saliency.logit"),
        (["reduction=sum"], "reduction: expected one of max, mean, abs_mean"),
        (["splits=0"], "splits: expected a number of split halves"),
        (["labels=gone.csv"], "gone.csv"),
        (["output=net"], "output: expected a free name or an earlier result, found net"),
        (["runtime.launcher=torchrun"], "where: expected one process"),
    ],
)  # fmt: skip
def test_bad_words(place, capsys, more, expected) -> None:
    assert expected in refused(capsys, *more)


def test_networks_and_maps_that_do_not_fit(place, capsys) -> None:
    config = json.loads(Path("net/config.json").read_text())
    state = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    Path("bare").mkdir()
    config["num_classes"] = config["pretrained_cfg"]["num_classes"] = 0
    Path("bare/config.json").write_text(json.dumps(config))
    save_file(state, "bare/model.safetensors")
    said = refused(capsys, "model=net,bare")
    assert "model bare: backbone: expected a network with a classifier" in said
    np.savez("apart.npz", ids=["a.png", "b.png"], maps=np.random.default_rng(0).random((2, 6, 6)))
    said = refused(capsys, "maps=apart.npz", "output=out2")
    assert "expected maps of these images, such as '0.png', found none among 2, such as 'a.png'" in said
    Path("labels.csv").write_text("id,class\n" + "".join(f"{row}.png,40\n" for row in range(COUNT)))
    said = refused(capsys, "labels=labels.csv", "output=out3", "model=net")
    assert "model net: labels: expected classes in 0..9, found 40" in said
    Path("photos/3.png").write_bytes(b"no image")
    assert "3.png" in refused(capsys, "output=out4")


def test_images_without_a_map_are_counted(place, capsys) -> None:
    Image.new("RGB", (SIZE, SIZE), "red").save("photos/extra.png")
    run("model=net", "keys=clicks")
    assert "1 of 10 images have no map clicks" in capsys.readouterr().out
    assert scores()["net", "clicks", "where"]["n"] == "9"


def test_words_are_parted_from_the_configuration() -> None:
    own, rest = peel(["images=a", "maps=b", "batch=3", "logit=top1", "saliency.shard=4", "-m"])
    assert own == {"images": "a", "maps": "b"}
    assert rest == ["saliency.batch=3", "saliency.logit=top1", "saliency.shard=4", "-m"]
    assert options_of({"images": "photos", "maps": "m", "model": "x"})["output"] == "where/photos"


# ---- the page


def given(names, arrows=(), keys=("clicks",)):
    return Given(
        "photos",
        "maps.npz",
        40,
        {key: key for key in keys},
        "Gradients of x: y.",
        {name: {} for name in names},
        arrows,
    )


def test_the_front_is_of_all_networks_and_arrows_lead_as_given() -> None:
    networks = {"a": result(0.2, 0.7), "b": result(0.45, 0.72), "c": result(0.25, 0.5)}
    found = given(networks, [("a", "b")])
    assert [row.title for row in front(_points(networks, "clicks"))] == ["b"]
    figure = _accuracy(found, networks)
    assert (
        "On the front: b. From a to b: +2.0 points of accuracy (intervals overlap), +50.0 points of"
        in figure.caption
    )
    for look in (LIGHT, DARK):
        (axis,) = [one for one in figure.draw(look).axes if one.axison]
        arrows = [one for one in axis.texts if getattr(one, "arrow_patch", None) is not None]
        assert [(one.xy, one.xyann) for one in arrows] == [((72.0, 90.0), (70.0, 40.0))]
        assert sorted(one.get_text() for one in axis.texts if one.get_text()) == ["a", "b", "c"]
        dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
        assert dotted[0].get_ydata()[0] == pytest.approx(60)
    assert Network("a") == Network("a", "")


def test_many_networks_and_kinds_still_fit_on_the_page(tmp_path) -> None:
    from alignet.report.page import write_page

    keys = [f"kind{number}" for number in range(10)]
    networks = {f"net{number}": result(number / 50, 1 - number / 50, keys) for number in range(30)}
    found = given(networks, keys=keys)
    assert len([axis for axis in _alignment(found, networks).draw(LIGHT).axes if axis.axison]) == 8
    people = result(0.5, 0.5, keys)
    write_page(tmp_path, page(found, networks, people, "clicks"))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "30 networks, 40 images of <code>photos</code>, 10 kinds of maps" in html
    assert "Only 40" not in html
