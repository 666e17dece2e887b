"""The stage that draws stimuli: what it writes, a kill and a rerun, several processes, and bad input."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alignet.evaluate.masking import levels, pixel_counts
from alignet.runtime.distributed import Processes
from alignet.stages.stimuli import run
from tests.makers.importance import SIDE, blob, hill, rng

SETTINGS = {"levels": 3, "low": 0.02, "equal_pixels": False, "grey": True, "centred": True, "size": 32, "seed": 7,
            "background": "phase"}  # fmt: skip
PIXELS = {"max_pixels": 10**6, "range": None, "bands": None, "transparency": "white", "orientation": "stored"}
IDS = ["n02084071/a.JPEG", "n02084071/b.png", "n04285008/c.jpg", "n04285008/d.jpg", "n04285008/flat.jpg",
       "n04285008/unseen.jpg"]  # fmt: skip


@pytest.fixture
def work(tmp_path):
    photos, index = tmp_path / "photos", tmp_path / "index"
    index.mkdir()
    for number, name in enumerate(IDS):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng(number).integers(0, 256, (40, 50 + number, 3)).astype(np.uint8)).save(
            photos / name
        )
    files = {name: {"size": 1, "sha256": ""} for name in IDS}
    (index / "listing.json").write_text(json.dumps({"kind": "images", "files": files}))
    maps = np.stack(
        [hill(), np.roll(hill(), 9, 0), 255 * blob(20, 30, 2), hill().T, np.full((SIDE, SIDE), 0.4)]
    )
    np.savez(tmp_path / "maps.npz", ids=np.array(IDS[:5]), maps=maps.astype(np.float32))
    return SimpleNamespace(
        section={"settings": SETTINGS, "pixels": PIXELS, "key": ""},
        inputs={"images": SimpleNamespace(folder=index, file=lambda name: index / name)},
        sources={"images": photos, "maps": tmp_path / "maps.npz"},
        folder=tmp_path / "out", checkpoints=tmp_path / "checkpoints",
    )  # fmt: skip


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def made(work, **settings):
    work.section = {**work.section, "settings": {**SETTINGS, **settings}}
    shutil.rmtree(work.folder, ignore_errors=True)
    work.folder.mkdir()
    return run(work), contents(work.folder)


def test_the_stage_writes_pictures_that_read_as_a_set_of_images(work):
    from alignet.pipeline import payloads

    metrics, files = made(work)
    assert metrics == {"images": 4, "pictures": 16, "without_map": 1, "constant_maps": 1}
    assert len([name for name in files if name.endswith(".png")]) == 16
    assert {name.partition("/")[0] for name in files if name.endswith(".png")} == {"00", "01", "02", "intact"}
    said = json.loads(files["stimuli.json"])
    assert said["shares"] == pytest.approx(levels(3, 0.02).tolist())
    assert list(said["images"]) == IDS[:4]
    assert said["images"][IDS[0]]["file"] == "n02084071/a.png"
    work.inputs["images"] = SimpleNamespace(file=lambda name: work.folder / name)
    work.sources["images"] = work.folder
    source = payloads.images(work, "images")
    assert len(source) == 16
    image = payloads.opener(work, source)("01/n02084071/a.png")
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert np.ptp(np.asarray(image), axis=2).max() == 0
    listed = json.loads(files["listing.json"])
    assert listed["kind"] == "images"
    assert listed["files"]["00/n02084071/a.png"]["size"] == len(files["00/n02084071/a.png"])


def test_the_stage_draws_what_stimuli_does(work):
    _, files = made(work, background="grey", grey=False)
    said = json.loads(files["stimuli.json"])["images"]
    size = (32, 32)
    resized = np.asarray(Image.fromarray(hill().astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    assert said[IDS[0]]["pixels"] == pixel_counts(levels(3, 0.02), int((resized > 0).sum())).tolist()
    with Image.open(work.folder / "intact/n02084071/b.png") as whole:
        with Image.open(work.sources["images"] / IDS[1]) as photo:
            expected = photo.resize(size, Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(whole), np.asarray(expected))
    with Image.open(work.folder / "02/n02084071/a.png") as shown:
        revealed = (np.asarray(shown) != 128).any(2).sum()
    assert (
        said[IDS[0]]["pixels"][2] - 3 <= revealed <= said[IDS[0]]["pixels"][2]
    )  # some pixels may be 128 themselves


def test_equal_pixels_are_those_of_the_smallest_map(work, capsys):
    made(work)
    own = {
        name: one["pixels"]
        for name, one in json.loads((work.folder / "stimuli.json").read_text())["images"].items()
    }
    assert len({tuple(counts) for counts in own.values()}) > 1
    made(work, equal_pixels=True)
    said = json.loads((work.folder / "stimuli.json").read_text())["images"]
    assert {tuple(one["pixels"]) for one in said.values()} == {tuple(min(own.values()))}
    assert "equal_pixels: 100% is" in capsys.readouterr().out


def test_a_kill_and_a_rerun_come_to_the_same_bytes(work):
    _, files = made(work)
    names = [name for name in files if name.endswith(".png")]
    for name in [*names[::3], "listing.json", "stimuli.json"]:
        (work.folder / name).unlink()
    (work.folder / names[0]).with_suffix(".tmp").write_bytes(b"half")  # of the moment of the kill
    kept = {name: (work.folder / name).stat().st_mtime_ns for name in names if (work.folder / name).is_file()}
    run(work)
    assert contents(work.folder) == files
    whole = [
        name
        for name in kept
        if all(f"{level}/{name.partition('/')[2]}" in kept for level in ("00", "01", "02", "intact"))
    ]
    assert all((work.folder / name).stat().st_mtime_ns == kept[name] for name in whole)
    assert made(work)[1] == files
    assert made(work, seed=8)[1] != files


def test_two_processes_come_to_the_same_bytes(work, monkeypatch):
    _, files = made(work)
    shutil.rmtree(work.folder)
    work.folder.mkdir()
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    for rank in (1, 0):
        monkeypatch.setattr("alignet.runtime.distributed.current", lambda rank=rank: Processes(rank, 2))
        run(work)
        if rank:
            assert len(contents(work.folder)) == 8  # two of four images, and no lists
    assert contents(work.folder) == files


def test_an_images_pictures_do_not_hang_on_the_others(work, tmp_path):
    _, files = made(work)
    listing = tmp_path / "index" / "listing.json"
    listing.write_text(json.dumps({"kind": "images", "files": {IDS[2]: {}}}))
    _, alone = made(work)
    assert len(alone) == 6
    assert all(alone[name] == files[name] for name in alone if name.endswith(".png"))


def test_maps_of_a_model_are_taken_by_id(work, monkeypatch):
    from alignet.pipeline import payloads

    maps = np.stack([hill(), hill().T]).astype(np.float32)
    monkeypatch.setattr(payloads, "saliency_maps", lambda artifact: (maps, [IDS[3], IDS[0]]), raising=False)
    work.inputs["saliency"] = SimpleNamespace()
    del work.sources["maps"]
    metrics, _ = made(work)
    assert metrics["images"] == 2
    assert metrics["without_map"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 1}, "expected at least 2 levels"),
        ({"low": 0}, "a lowest share inside"),
        ({"background": "white"}, "expected background phase or grey"),
    ],
)
def test_the_stage_refuses_bad_settings(work, change, message):
    with pytest.raises(ValueError, match=message):
        made(work, **change)


def test_the_stage_refuses_maps_and_names_of_no_use(work, tmp_path):
    def saved(maps, ids=IDS[:1]):
        np.savez(tmp_path / "maps.npz", ids=np.array(ids), maps=np.array(maps, dtype=np.float32))

    saved([hill() - 0.5])
    with pytest.raises(ValueError, match=r"a\.JPEG an importance map .* at least 0, found .* -0\.5"):
        made(work)
    saved([np.ones((4, 4))])
    with pytest.raises(ValueError, match="found 1, 1 of them constant"):
        made(work)
    saved([hill(), hill()], ["n02084071/a.JPEG", "n02084071/a.jpg"])
    listing = tmp_path / "index" / "listing.json"
    listing.write_text(
        json.dumps({"kind": "images", "files": {"n02084071/a.JPEG": {}, "n02084071/a.jpg": {}}})
    )
    with pytest.raises(ValueError, match="differ in more than their suffix"):
        made(work)
