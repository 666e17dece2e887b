"""`python -m alignet.stages.embed images=... model=...`: what it writes, resumes, keeps and refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

import alignet
from alignet.backbones import embedding as module
from alignet.data.features import load_features
from alignet.data.pixels import PixelPolicy
from alignet.runtime import interrupt
from alignet.stages._embed_images import main, peel


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A working folder with ten images and a folder that timm loads."""
    generator = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for row in range(10):
        pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{row}.png")
    network = timm.create_model("test_efficientnet", num_classes=0)
    (tmp_path / "net").mkdir()
    config = {
        "architecture": "test_efficientnet",
        "num_classes": 0,
        "pretrained_cfg": {"num_classes": 0, "input_size": [3, 64, 64]},
    }
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), tmp_path / "net/model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*argv: str) -> None:
    main("doc", ["images=photos", "model=net", "embed.shard=4", "threads=1", *argv])


def test_the_output_is_what_the_chain_reads(place: Path, capsys) -> None:
    run("batch=3")
    said = capsys.readouterr().out
    assert "10 images x 256 features -> embeddings/photos-net (features.npy, ids.txt)" in said
    assert "next: numpy.load" in said
    found = load_features("embeddings/photos-net/features.npy", "embeddings/photos-net/ids.txt")
    expected = alignet.embed("net", "photos")
    assert found.ids == expected.ids
    assert np.allclose(found.values, expected.features, atol=1e-6)
    manifest = json.loads(Path("embeddings/photos-net/MANIFEST.json").read_text())
    assert manifest["metrics"] == {"images": 10, "width": 256, "unreadable": 0, "embedded": 10}
    assert sorted(path.name for path in Path("embeddings").iterdir()) == ["photos-net", "photos-net.lock"]


def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(place: Path, monkeypatch, capsys) -> None:
    run("output=whole")
    kept, calls = module.rows_of, []

    def killed(model, source, rows, **given):
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kept(model, source, rows, **given)

    monkeypatch.setattr(module, "rows_of", killed)
    with pytest.raises(SystemExit) as ended:
        run("output=resumed")
    assert ended.value.code == 130
    assert not Path("resumed").exists()
    run("output=resumed")
    assert [list(rows) for rows in calls] == [[0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7], [8, 9]]
    for name in ("features.npy", "ids.txt"):
        assert Path("resumed", name).read_bytes() == Path("whole", name).read_bytes()
    assert json.loads(Path("resumed/MANIFEST.json").read_text())["metrics"]["embedded"] == 6


def test_a_signal_ends_between_batches_and_the_line_to_go_on_is_whole(
    place: Path, monkeypatch, capsys
) -> None:
    run("output=whole", "batch=2")
    kept = alignet.api.Model.encode
    calls = []

    def signalled(self, images, *given):
        calls.append(len(images))
        if len(calls) == 3:  # the first batch of the second block
            os.kill(os.getpid(), signal.SIGUSR1)
        return kept(self, images, *given)

    monkeypatch.setattr(alignet.api.Model, "encode", signalled)
    with pytest.raises(SystemExit) as ended:
        run("output=stopped", "batch=2")
    assert ended.value.code == interrupt.STATUS
    said = capsys.readouterr().err
    again = "python -m alignet.stages.embed images=photos model=net embed.shard=4 threads=1 output=stopped batch=2"
    assert said.strip().endswith(again)
    begun = len(calls)
    assert begun in (3, 4)  # the pass behind it may have begun
    run("output=stopped", "batch=2")
    assert calls[begun:] == [2, 2, 2]
    assert Path("stopped/features.npy").read_bytes() == Path("whole/features.npy").read_bytes()


def test_a_home_folder_is_found(place: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    main("doc", ["images=~/photos", "model=~/net", "output=~/out", "threads=1"])
    assert (place / "out/features.npy").is_file()


def test_one_image_and_stacks_of_arrays(place: Path) -> None:
    one = np.asarray(Image.open("photos/0.png"))
    alone = alignet.embed("net", [one])
    assert alone.ids == ["0"]
    assert np.array_equal(alignet.embed("net", Image.open("photos/0.png")).features, alone.features)
    assert np.array_equal(alignet.embed("net", one[None]).features, alone.features)
    grey = np.asarray(Image.open("photos/0.png").convert("L"))
    stack = alignet.embed("net", np.stack([grey, grey.T[:40, :40].repeat(2, 1)[:, :50]]))
    assert stack.features.shape == (2, 256)
    assert np.allclose(stack.features[:1], alignet.embed("net", [grey]).features, atol=1e-6)
    for wrong in (one, np.dstack([one, one[..., :1]]), grey, grey[0]):
        with pytest.raises(ValueError, match=r"put one image into a list: \[image\]"):
            alignet.embed("net", wrong)
    with pytest.raises(ValueError, match=r"expected a folder, a list of paths, .* found int"):
        alignet.embed("net", 5)


def test_work_begun_on_other_images_is_not_gone_on_with(place: Path, monkeypatch) -> None:
    kept = module.rows_of

    def killed(model, source, rows, **given):
        if 0 not in rows:
            raise KeyboardInterrupt
        return kept(model, source, rows, **given)

    monkeypatch.setattr(module, "rows_of", killed)
    with pytest.raises(SystemExit):
        run("output=out")
    monkeypatch.setattr(module, "rows_of", kept)
    Image.new("RGB", (40, 50), "red").save("photos/0.png")
    run("output=out")
    # passes of 4 images there and of 10 here: the last bits may differ
    assert np.allclose(np.load("out/features.npy"), alignet.embed("net", "photos").features, atol=1e-6)


def test_a_finished_output_is_never_overwritten_unasked(place: Path, capsys) -> None:
    run("output=out")
    before = Path("out/features.npy").stat().st_mtime_ns
    run("output=out")
    assert "cached: out" in capsys.readouterr().out
    assert Path("out/features.npy").stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        run("output=out", "batch=2")
    assert "was made with other settings; choose another output" in capsys.readouterr().err
    Image.new("RGB", (40, 50), "red").save("photos/0.png")
    with pytest.raises(SystemExit):
        run("output=out")
    assert "was made with other images" in capsys.readouterr().err
    run("output=out", "force=true")
    assert np.allclose(np.load("out/features.npy"), alignet.embed("net", "photos").features, atol=1e-6)


def test_a_folder_of_somebody_else_is_never_replaced(place: Path, capsys) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit):
        run("output=mine", "force=true")
    assert "expected a free name or an earlier result, found mine" in capsys.readouterr().err
    assert Path("mine/thesis.txt").read_text() == "years of work"


def test_a_map_is_applied_and_half_precision_is_stored(place: Path) -> None:
    np.savez("map.npz", weights=np.eye(256)[::-1] * 2, bias=np.ones(256), mean=0.0, std=1.0)
    run("map=map.npz", "precision=float16")
    stored = np.load("embeddings/photos-net-mapped/features.npy")
    raw = alignet.embed("net", "photos").features
    assert stored.dtype == np.float16
    assert np.allclose(stored, 2 * raw[:, ::-1] + 1, rtol=2e-3, atol=2e-3)


def test_features_too_large_for_half_precision_are_refused(place: Path, capsys) -> None:
    np.savez("map.npz", weights=np.eye(256) * 1e9, bias=np.zeros(256), mean=0.0, std=1.0)
    with pytest.raises(SystemExit):
        run("map=map.npz", "precision=float16")
    assert "expected features that fit into float16" in capsys.readouterr().err
    assert not Path("embeddings/photos-net-mapped").exists()


def test_unreadable_images(place: Path, capsys) -> None:
    for row in (4, 5, 6, 7):  # the whole second block
        Path(f"photos/{row}.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit):
        run()
    assert "Or set unreadable=skip" in capsys.readouterr().err
    run("unreadable=skip")
    assert "4 images could not be read and were set aside" in capsys.readouterr().out
    folder = Path("embeddings/photos-net")
    assert np.load(folder / "features.npy").shape == (6, 256)
    assert [line.split("\t")[0] for line in (folder / "unreadable.txt").read_text().splitlines()] == [
        "4.png",
        "5.png",
        "6.png",
        "7.png",
    ]


def test_parquet_holds_the_same_or_says_what_to_install(place: Path, capsys) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        with pytest.raises(SystemExit):
            run("format=parquet")
        assert "install it with" in capsys.readouterr().err
        return
    import pyarrow.parquet

    run("format=parquet")
    table = pyarrow.parquet.read_table("embeddings/photos-net.parquet/features.parquet")
    expected = alignet.embed("net", "photos")
    assert table["id"].to_pylist() == expected.ids
    assert np.allclose(np.array(table["features"].to_pylist(), np.float32), expected.features, atol=1e-6)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["images=photos"], "model: expected a folder, or LIBRARY:NAME, found none; add model="),
        (["model=net"], "images: expected a folder of images, found none; add images="),
        (["images=gone", "model=net"], "gone: expected a folder of images"),
        (["images=photos", "model=gone/net"], "which is no folder here"),
        (
            ["images=photos", "model=nothere"],
            "there is no folder of that name and no timm model; similar names",
        ),
        (
            ["images=photos", "model=net", "runtime.launcher=torchrun"],
            "expected one process, found runtime.launcher=torchrun",
        ),
        (["images=photos", "model=net", "format=csv"], "format: expected npy or parquet, found 'csv'"),
        (["images=photos", "model=net", "image_size=big"], "image_size: expected pixels"),
        (["images=photos", "model=net", "bach=3"], "bach"),
    ],
)
def test_command_lines_that_cannot_be(place: Path, capsys, argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main("doc", argv)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1


def test_a_node_keeps_its_arguments() -> None:
    assert peel(["role=student.pool", "embed.batch=3"]) == ({}, ["role=student.pool", "embed.batch=3"])
    assert peel(["images=a=b", "device=cuda"]) == ({"images": "a=b"}, ["runtime.device=cuda"])


def test_what_pixels_mean_is_said(place: Path, capsys) -> None:
    """16-bit files of a narrow range are stretched as the configuration says, and the result knows it."""
    eight = np.asarray(Image.open("photos/0.png").convert("L"))
    Path("deep").mkdir()
    Path("shallow").mkdir()
    Image.fromarray(1000 + eight.astype(np.uint16)).save("deep/0.png")
    Image.fromarray(eight).save("shallow/0.png")
    main("doc", ["images=deep", "model=net", "pixels.range=[1000,1255]"])
    expected = alignet.embed("net", "shallow").features
    assert np.allclose(np.load("embeddings/deep-net/features.npy"), expected, atol=1e-5)
    policy = PixelPolicy(range=(1000, 1255))
    assert np.allclose(alignet.embed("net", "deep", pixels=policy).features, expected, atol=1e-5)
    assert not np.allclose(alignet.embed("net", "deep").features, expected, atol=1e-3)
    with pytest.raises(SystemExit):
        main("doc", ["images=deep", "model=net", "pixels.range=[0,2000]"])
    assert "was made with other settings" in capsys.readouterr().err


def test_shards_give_what_the_folder_gives(place: Path, capsys) -> None:
    Path("shards").mkdir()
    for number in range(2):
        with tarfile.open(f"shards/{number}.tar", "w") as archive:
            for row in range(number * 5, number * 5 + 5):
                archive.add(f"photos/{row}.png", f"{row}.png")
    expected = alignet.embed("net", "photos")
    for images in ("shards", "shards/{0..1}.tar"):
        found = alignet.embed("net", images)
        assert found.ids == expected.ids
        assert np.array_equal(found.features, expected.features)
    assert alignet.embed("net", "shards/1.tar").ids == [f"{row}.png" for row in range(5, 10)]
    main("doc", ["images=shards", "model=net", "threads=1"])
    assert np.allclose(np.load("embeddings/shards-net/features.npy"), expected.features, atol=1e-6)
    Image.new("RGB", (8, 8)).save("shards/stray.png")
    with pytest.raises(ValueError, match="expected images or shards"):
        alignet.embed("net", "shards")
