"""`convert maps`: shards that hold what the files held, the same bytes on every run, whole after any kill."""

import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alignet.data.clickme import open_clickme
from alignet.data.importance_maps import load_maps, maps_for
from alignet.data.map_shards import convert_maps
from alignet.data.shards import list_shards, shard_labels, shard_source
from tests.makers.converting import converting
from tests.makers.photos import PHOTOS, needs_photos
from tests.makers.tfrecords import clickme, drawn, jpeg

MAPS = np.random.default_rng(0).random((3, 6, 8))


def bytes_of(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.tar"))}


def pictures(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(number, 16)[0]).save(path)
    return folder


@pytest.mark.parametrize(("layout", "high"), [("jpeg", 255), ("raw 224", 1), ("raw 256", 255)])
def test_records_become_shards(tmp_path, layout, high):
    inputs = tmp_path / "in"
    inputs.mkdir()
    clickme(inputs / "val-1.tfrecords", 3, layout, high, seed=10)
    clickme(inputs / "val-0.tfrecords", 4, layout, high)
    made = convert_maps([inputs], tmp_path / "out", samples=5)
    assert (made.samples, made.shards, made.kept, made.without_image) == (7, 2, 0, 0)
    assert made.bytes == sum(file.stat().st_size for file in (tmp_path / "out").glob("*.tar"))
    assert f"4 records, layout {layout}" in made.said[0]
    assert (f"pixels of 0..{high}" in made.said[0]) == (layout != "jpeg")
    records = [
        *open_clickme(inputs / "val-0.tfrecords").records(),
        *open_clickme(inputs / "val-1.tfrecords").records(),
    ]
    listing = list_shards(tmp_path / "out")
    suffix = ".jpg" if layout == "jpeg" else ".png"
    assert list(listing.images) == [one.id + suffix for one in records]
    source, found = shard_source(tmp_path / "out", listing.images), load_maps(tmp_path / "out")
    assert found.ids == [one.id for one in records]
    assert maps_for(found, list(listing.images))[0].tolist() == list(range(7))
    assert found.half == (layout == "jpeg")
    for row, one in enumerate(records):
        np.testing.assert_array_equal(found.maps[row], one.map)
        if isinstance(one.image, bytes):
            expected = np.asarray(Image.open(io.BytesIO(one.image)).convert("RGB"))
        else:
            expected = one.image
        np.testing.assert_array_equal(np.asarray(source.open(one.id + suffix)), expected)
    assert list(shard_labels(tmp_path / "out").values()) == [0, 1, 2, 3, 0, 1, 2]


def test_the_same_bytes_on_every_run_and_nothing_of_who_wrote_them(tmp_path):
    path = clickme(tmp_path / "a.tfrecords", 5)
    convert_maps([path], tmp_path / "one", samples=2)
    os.utime(path, (1, 1))
    convert_maps([path], tmp_path / "two", samples=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert len(bytes_of(tmp_path / "one")) == 3
    with tarfile.open(tmp_path / "one" / "maps-00000.tar") as archive:
        for member in archive:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
    with tarfile.open(tmp_path / "one" / "maps-00000.tar") as archive:
        names = archive.getnames()
    assert names[:3] == ["a_00000.jpg", "a_00000.map.npy", "a_00000.cls"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_an_npz_with_its_images(tmp_path, dtype):
    images = pictures(tmp_path / "images", ["a/one.jpg", "two.v2.png", "three.JPEG", "more.jpg"])
    values = (MAPS * 200).astype(dtype)
    ids = np.array(["a/one.jpg", "two.v2.png", "none.jpg"])
    np.savez(tmp_path / "m.npz", ids=ids, gaze=values, clicks=values + 1)
    made = convert_maps([tmp_path / "m.npz"], tmp_path / "out", images=images, key="gaze")
    assert (made.samples, made.shards, made.without_image) == (2, 1, 1)
    found, listing = load_maps(tmp_path / "out"), list_shards(tmp_path / "out")
    assert list(listing.images) == ["a/one.jpg", "two_v2.png"]
    assert found.ids == ["a/one", "two_v2"]
    np.testing.assert_array_equal(found.maps, values[:2].astype(np.float32))
    assert found.half == (dtype in (np.float16, np.uint8))
    source = shard_source(tmp_path / "out", listing.images)
    shard, offset, size = listing.images["a/one.jpg"]
    whole = listing.shards[shard].read_bytes()[offset : offset + size]
    assert whole == (images / "a/one.jpg").read_bytes()
    assert source.open("two_v2.png").size == (16, 16)


def test_maps_by_rater_keep_their_raters(tmp_path):
    images = pictures(tmp_path / "images", ["a.jpg"])
    raters = np.random.default_rng(0).random((1, 3, 6, 8)).astype(np.float32)
    np.savez(tmp_path / "m.npz", ids=np.array(["a"]), gaze=raters)
    convert_maps([tmp_path / "m.npz"], tmp_path / "out", images=images)
    np.testing.assert_array_equal(load_maps(tmp_path / "out").raters[0], raters[0])


def test_maps_are_averaged_down_to_a_side(tmp_path):
    images = pictures(tmp_path / "images", ["a.png", "b.png"])
    maps = np.random.default_rng(1).random((2, 12, 16)).astype(np.float32)
    np.savez(tmp_path / "maps.npz", ids=np.array(["a.png", "b.png"]), maps=maps)
    convert_maps([tmp_path / "maps.npz"], tmp_path / "out", images=images, side=4)
    found = load_maps(tmp_path / "out")
    np.testing.assert_allclose(np.stack(found.maps), maps.reshape(2, 4, 3, 4, 4).mean((2, 4)), rtol=1e-5)
    with pytest.raises(ValueError, match="other inputs or"):
        convert_maps([tmp_path / "maps.npz"], tmp_path / "out", images=images)


def test_pairs_need_no_images_and_maps_alone_do(tmp_path):
    folder = pictures(tmp_path / "pairs", ["a/x.jpg", "y.png"])
    for name, values in (("a/x.map.npy", MAPS[0]), ("y_map.npy", MAPS[1])):
        np.save(folder / name, values)
    made = convert_maps([folder], tmp_path / "out")
    assert (made.samples, list(list_shards(tmp_path / "out").images)) == (2, ["a/x.jpg", "y.png"])
    alone = tmp_path / "alone"
    (alone / "a").mkdir(parents=True)
    np.save(alone / "a" / "x.npy", MAPS[0])
    with pytest.raises(
        ValueError, match=r"found maps alone, such as 'a/x'; say where the images are: images=FOLDER"
    ):
        convert_maps([alone], tmp_path / "more")
    assert convert_maps([alone], tmp_path / "more", images=folder).samples == 1
    assert convert_maps([alone], tmp_path / "again", images=tmp_path / "out").samples == 1
    assert list(list_shards(tmp_path / "again").images) == ["a/x.jpg"]


def test_a_second_run_writes_nothing_and_a_lacking_shard_alone_is_written(tmp_path):
    path = clickme(tmp_path / "a.tfrecords", 5)
    convert_maps([path], tmp_path / "out", samples=2)
    before, shard = bytes_of(tmp_path / "out"), tmp_path / "out" / "maps-00001.tar"
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir() if file.suffix == ".tar"}
    made = convert_maps([path], tmp_path / "out", samples=2)
    assert made.kept == 3
    shard.unlink()
    (tmp_path / "out" / "maps-00001.tar.tmp").write_bytes(b"half")
    made = convert_maps([path], tmp_path / "out", samples=2)
    assert made.kept == 2
    assert bytes_of(tmp_path / "out") == before
    assert not list((tmp_path / "out").glob("*.tmp"))
    assert all(file.stat().st_mtime_ns == then for file, then in times.items() if file != shard)


def test_shards_of_other_inputs_are_not_mixed(tmp_path):
    first, out = clickme(tmp_path / "a.tfrecords", 3), tmp_path / "out"
    convert_maps([first], out)
    clickme(first, 3, seed=5)  # the same name
    for inputs, options in (
        ([first], {}),
        ([clickme(tmp_path / "b.tfrecords", 3)], {}),
        ([first], {"samples": 2}),
    ):
        with pytest.raises(ValueError, match="found shards of other inputs or options; name another folder"):
            convert_maps(inputs, out, **options)
    (out / "maps.json").unlink()
    with pytest.raises(ValueError, match="found shards of other inputs or options"):
        convert_maps([first], out)


def test_samples_of_one_name_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [clickme(tmp_path / "a.tfrecords", 2), clickme(tmp_path / "x" / "a.tfrecords", 2)]
    with pytest.raises(ValueError, match=r"found 2 that stand twice, such as 'a_00000'"):
        convert_maps(paths, tmp_path / "out")
    images = pictures(tmp_path / "images", ["a.b.jpg", "a_b.png"])
    np.savez(tmp_path / "m.npz", ids=np.array(["a.b.jpg", "a_b.png"]), map=MAPS[:2])
    with pytest.raises(ValueError, match=r"found 1 that stand twice, such as 'a_b'"):
        convert_maps([tmp_path / "m.npz"], tmp_path / "out", images=images)
    assert not (tmp_path / "out").exists()


def test_damaged_records_leave_what_was_whole(tmp_path):
    path = clickme(tmp_path / "a.tfrecords", 5)
    whole = bytearray(path.read_bytes())
    whole[-100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(
        ValueError, match=r"a\.tfrecords: record 4 \(from 0\), byte [\d,]+: expected .* that fit their"
    ):
        convert_maps([path], tmp_path / "out", samples=2)
    assert sorted(bytes_of(tmp_path / "out")) == ["maps-00000.tar", "maps-00001.tar"]
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_the_command(tmp_path, monkeypatch, capsys):
    path = clickme(tmp_path / "val.tfrecords", 3)
    out = tmp_path / "new" / "deep"
    status, said, _ = converting(monkeypatch, capsys, "maps", path, out)
    assert status == 0
    assert "3 records, layout jpeg" in said
    assert f"{out}: 3 images with importance maps in 1 shards, " in said
    assert f"data.sets.MAPS with kind=maps path={out}" in said
    status, said, _ = converting(monkeypatch, capsys, "maps", path, out)
    assert "in 1 shards, 1 of them finished before" in said
    images = pictures(tmp_path / "images", ["one.jpg"])
    np.savez(tmp_path / "m.npz", ids=np.array(["one.jpg", "two.jpg"]), gaze=MAPS[:2], clicks=MAPS[:2])
    words = ("maps", f"images={images}", tmp_path / "m.npz", tmp_path / "out", "key=clicks")
    status, said, err = converting(monkeypatch, capsys, *words)
    assert status == 0, err
    assert "1 maps have no image there: left out" in said
    for words, found in (
        (("maps", path), r"expected `maps IN\.\.\. OUT_FOLDER`"),
        (("maps", path, tmp_path / "m.npz"), "expected a folder for the shards, found a file"),
        (
            ("maps", tmp_path / "m.npz", tmp_path / "x", f"images={images}"),
            "found gaze, clicks; name one as key",
        ),
        (("maps", out, tmp_path / "x"), "expected maps that are no shards yet, found shards"),
        (("maps", tmp_path / "none.npz", tmp_path / "x"), "none.npz: expected an .npz file, found none"),
        (("maps", path, path / "x"), "expected to write shards there, which failed"),
    ):
        status, _, err = converting(monkeypatch, capsys, *words)
        assert status == 1
        assert re.search(found, err), err
        assert "Traceback" not in err


SLOW = """
import sys, time
from pathlib import Path
from alignet.data import map_shards
first = map_shards._of_record
def slow(*given, **named):
    time.sleep(0.05)
    return first(*given, **named)
map_shards._of_record = slow
map_shards.convert_maps([Path(sys.argv[1])], Path(sys.argv[2]), samples=4)
"""


def test_killed_at_any_moment_and_run_again(tmp_path):
    path = clickme(tmp_path / "a.tfrecords", 14)
    convert_maps([path], tmp_path / "whole", samples=4)
    out = tmp_path / "out"
    generator = np.random.default_rng(0)
    for kept in range(3):  # killed within the first, the second and the third shard
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(path), str(out)], cwd=Path(__file__).parents[2]
        )
        temporary, deadline = out / f"maps-{kept:05d}.tar.tmp", time.monotonic() + 60
        while not temporary.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(float(generator.uniform(0, 0.1)))
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        whole = bytes_of(tmp_path / "whole")
        assert bytes_of(out) == {name: whole[name] for name in sorted(whole)[:kept]}
        if kept:
            assert list(load_maps(out).ids) == [f"a_{number:05d}" for number in range(4 * kept)]
    times = {file.name: file.stat().st_mtime_ns for file in out.glob("*.tar")}
    made = convert_maps([path], out, samples=4)
    assert (made.kept, made.shards) == (2, 4)
    assert bytes_of(out) == bytes_of(tmp_path / "whole")
    assert not list(out.glob("*.tmp"))
    assert all((out / name).stat().st_mtime_ns == then for name, then in times.items())


def test_a_second_process_is_told(tmp_path):
    path, out = clickme(tmp_path / "a.tfrecords", 14), tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(path), str(out)], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("*.tmp")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    with pytest.raises(ValueError, match="found another process that converts into this folder"):
        convert_maps([path], out, samples=4)
    process.kill()
    process.wait()


@needs_photos
def test_real_maps(tmp_path):
    real = Path(PHOTOS) / "maps"
    made = convert_maps(
        [real / "maps.npz"], tmp_path, images=real / "images", key="patch_ratings", samples=10
    )
    assert (made.samples, made.shards, made.without_image) == (17, 2, 0)
    found, given = load_maps(tmp_path), load_maps(real / "maps.npz", key="patch_ratings")
    images = list(list_shards(tmp_path).images)
    rows, original = maps_for(found, images)[0], maps_for(given, images)[0]
    np.testing.assert_array_equal(found.maps[rows], given.maps[original])


def test_what_is_no_map_of_clickme(tmp_path):
    picture = jpeg(drawn(0, 256)[0])
    (tmp_path / "a.tfrecords").write_bytes(picture)
    with pytest.raises(
        ValueError, match=r"record 0 \(from 0\), byte 0: expected a length that fits its checksum"
    ):
        convert_maps([tmp_path / "a.tfrecords"], tmp_path / "out")
