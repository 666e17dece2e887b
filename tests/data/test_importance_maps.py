"""People's importance maps from the files they come in, matched to images; how far their raters agree."""

import io
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from alignet.config import MapsSet, build
from alignet.config.data import SetSettings
from alignet.data.checksums import scan
from alignet.data.importance_maps import ImportanceMaps, keys_of, load_maps, maps_for
from alignet.data.sets import exists, files_of
from alignet.data.split_half import split_half
from alignet.doctor.files import describe
from tests.makers.photos import PHOTOS, needs_photos

IDS = ["a/one.jpg", "a/two.jpg", "b/one.jpg"]
MAPS = np.random.default_rng(0).random((3, 6, 8))
RATERS = np.random.default_rng(1).random((3, 4, 6, 8)).astype(np.float32)


def npz(path, **arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def packed(value):
    """The bytes of an .npy or of a .png file."""
    handle = io.BytesIO()
    if isinstance(value, Image.Image):
        value.save(handle, "PNG")
    else:
        np.save(handle, value)
    return handle.getvalue()


def files(folder, contents):
    """Write name -> bytes, an array (.npy) or a picture (.png)."""
    for name, value in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else packed(value))
    return folder


def shard(path, contents):
    with tarfile.open(path, "w") as archive:
        for name, value in contents.items():
            data = value if isinstance(value, bytes) else packed(value)
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, ">f4"])
def test_one_npz(tmp_path, dtype):
    values = (MAPS * 200).astype(dtype)
    found = load_maps(npz(tmp_path / "m.npz", ids=np.array(IDS), heat=values, labels=np.arange(3)))
    assert found.ids == IDS
    assert found.raters is None
    assert (found.maps.dtype, found.maps.shape) == (np.float32, (3, 6, 8))
    np.testing.assert_array_equal(found.maps, values.astype(np.float32))
    assert found.half == (dtype in (np.float16, np.uint8))
    assert (found.sizes, found.constant) == ({(6, 8): 3}, 0)


def test_raters_of_one_npz_and_those_who_did_not_see_an_image(tmp_path):
    values = RATERS.copy()
    values[1, 2] = np.nan
    found = load_maps(npz(tmp_path / "m.npz", ids=np.array(IDS), heat=values))
    assert [len(one) for one in found.raters] == [4, 3, 4]
    np.testing.assert_array_equal(found.raters[1], RATERS[1, [0, 1, 3]])
    np.testing.assert_allclose(found.maps[0], RATERS[0].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.maps[1], RATERS[1, [0, 1, 3]].mean(axis=0), rtol=1e-6)


def test_several_kinds_need_a_key(tmp_path):
    path = npz(tmp_path / "m.npz", ids=np.array(IDS), clicks=MAPS, gaze=RATERS, labels=np.arange(3))
    assert keys_of(path) == ["clicks", "gaze"]
    np.testing.assert_array_equal(load_maps(path, key="clicks").maps, MAPS.astype(np.float32))
    assert load_maps(path, key="gaze").raters is not None
    with pytest.raises(
        ValueError, match=r"m\.npz: expected one array of maps, .*found clicks, gaze; name one as key"
    ):
        load_maps(path)
    for key in ("glances", "ids"):
        with pytest.raises(ValueError, match=rf"expected maps '{key}', found clicks, gaze"):
            load_maps(path, key=key)
    with pytest.raises(ValueError, match=r"for the 3 ids, found \(3,\)"):
        load_maps(path, key="labels")


def with_one(value):
    bad = MAPS.copy()
    bad[1, 2, 3] = value
    return bad


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"heat": MAPS}, "expected an array 'ids' with the image of each map, found heat"),
        ({"ids": np.arange(3), "heat": MAPS}, r"expected ids of shape \(n,\) of text, found \(3,\) of int64"),
        ({"ids": np.array([IDS]), "heat": MAPS}, r"found \(1, 3\) of <U"),
        ({"ids": np.array(["a", "a", "b"]), "heat": MAPS}, "expected one map of each image, found .* both of a; keep"),
        ({"ids": np.array(IDS[:2]), "heat": MAPS}, r"for the 2 ids, found \(3, 6, 8\)"),
        ({"ids": np.array(IDS)}, r"found none of shape \(n, h, w\) or \(n, raters, h, w\)"),
        ({"ids": np.array(IDS), "heat": MAPS[0]}, "found none of shape"),
        ({"ids": np.array(IDS), "heat": MAPS[..., None]}, r"found \(6, 8, 1\); leave out axes"),
        ({"ids": np.array(IDS), "heat": with_one(np.nan)}, r"of a/two\.jpg: expected finite values, found 1 of 48 NaN"),
        ({"ids": np.array(IDS), "heat": with_one(np.inf)}, "expected finite values"),
        ({"ids": np.array(IDS), "heat": with_one(1e300)}, "expected finite values"),
        ({"ids": np.array(IDS), "heat": MAPS.astype(np.int64)}, "expected a map of float16, .*found int64"),
        ({"ids": np.array(IDS), "heat": MAPS.astype(complex)}, "found complex128"),
        ({"ids": np.array(IDS), "heat": RATERS * np.nan}, "expected at least one rater of a/one.jpg, found none"),
        ({"ids": np.array([" a", "b", "c"]), "heat": MAPS}, "without line breaks or outer spaces, found ' a'"),
        ({"ids": np.array([b"\xff", b"b", b"c"]), "heat": MAPS}, "expected ids in UTF-8"),
        ({"ids": np.array([], dtype="U1"), "heat": MAPS[:0]}, r"for the 0 ids, found \(0, 6, 8\)"),
        ({"ids": np.array(IDS), "heat": MAPS[:, :0]}, r"with at least one pixel, found \(0, 8\)"),
        ({"ids": np.array(IDS), "heat": np.array([[[None]]] * 3)}, "an array of Python objects"),
    ],
)  # fmt: skip
def test_bad_npz_files_are_refused(tmp_path, arrays, found):
    path = tmp_path / "m.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=found) as caught:
        load_maps(path)
    assert str(path) in str(caught.value)


def test_a_folder_of_npz(tmp_path):
    npz(tmp_path / "a" / "one.npz", map=MAPS[0])
    npz(tmp_path / "b" / "two.npz", map=MAPS[1, :4], other=np.arange(4))
    found = load_maps(tmp_path)
    assert found.ids == ["a/one", "b/two"]
    assert keys_of(tmp_path) == []
    assert [one.shape for one in found.maps] == [(6, 8), (4, 8)]
    assert isinstance(found.maps, list)
    assert found.sizes == {(4, 8): 1, (6, 8): 1}
    by_rater = load_maps(npz(tmp_path / "r" / "x.npz", map=MAPS[0], maps=RATERS[0]).parent)
    np.testing.assert_array_equal(by_rater.raters[0], RATERS[0])
    named = npz(tmp_path / "k" / "x.npz", clicks=MAPS[0], gaze=MAPS[1]).parent
    assert keys_of(named) == ["clicks", "gaze"]
    np.testing.assert_array_equal(load_maps(named, key="gaze").maps[0], MAPS[1].astype(np.float32))
    with pytest.raises(ValueError, match=r"x\.npz: expected one array of maps, .*found clicks, gaze"):
        load_maps(named)
    npz(tmp_path / "r" / "y.npz", map=MAPS[0])
    with pytest.raises(ValueError, match=r"for 1 of them, found \(h, w\) for y; save a single rater's map"):
        load_maps(tmp_path / "r")


GREY = (MAPS * 255).astype(np.uint8)
DEEP = (MAPS * 65535).astype(np.uint16)


def test_pairs_of_images_and_maps(tmp_path):
    photograph = packed(Image.fromarray(np.zeros((6, 8, 3), np.uint8)))
    folder = files(
        tmp_path,
        {
            "a/one.JPG": photograph, "a/one_map.png": Image.fromarray(GREY[0]),
            "two.png": photograph, "two.map.png": Image.fromarray(DEEP[1]),
            "b/three.jpg": photograph, "b/three.map.npy": MAPS[2],
            "alone.map.npy": MAPS[0], "without.jpg": photograph, ".hidden.map.npy": b"x", "notes.txt": b"x",
        },
    )  # fmt: skip
    found = load_maps(folder)
    assert found.ids == ["a/one.JPG", "alone", "b/three.jpg", "two.png"]
    np.testing.assert_array_equal(found.maps[0], GREY[0])
    np.testing.assert_array_equal(found.maps[2], MAPS[2].astype(np.float32))
    np.testing.assert_array_equal(found.maps[3], DEEP[1])
    assert keys_of(folder) == []
    with pytest.raises(
        ValueError, match="expected no key, since these files hold one kind of map, found 'gaze'"
    ):
        load_maps(folder, key="gaze")
    files(tmp_path, {"two_map.npy": MAPS[1]})
    with pytest.raises(
        ValueError, match=r"expected one map of each image, found .*both of two\.png; keep one"
    ):
        load_maps(folder)
    files(tmp_path, {"a/one.png": photograph})
    with pytest.raises(ValueError, match=r"expected one image of this map, found a/one\.JPG and a/one\.png"):
        load_maps(folder)


def test_maps_alone(tmp_path):
    found = load_maps(
        files(tmp_path, {"a/one.png": Image.fromarray(GREY[0]), "two.npy": RATERS[0].mean(axis=0)})
    )
    assert found.ids == ["a/one", "two"]
    rows, by_stem = maps_for(found, ["two.jpeg", "x.jpg", "a/one.JPEG"])
    assert (rows.tolist(), by_stem) == ([1, -1, 0], 2)


def transparent():
    picture = Image.fromarray(GREY[0]).convert("LA")
    picture.putpixel((0, 0), (3, 7))
    return picture


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("x.png", Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)), "in colour"),
        ("x.png", transparent(), "transparency"),
        ("x.png", packed(Image.fromarray(GREY[0]))[:-20], "damaged or truncated data"),
        ("x.npy", packed(MAPS[0])[:-1], "expected 512 bytes for shape .*found 511"),
        ("x.npy", MAPS[:, :, :3], r"found \(3, 6, 3\); leave out axes of colour"),
        ("x.npy", MAPS[0, 0], r"found \(8,\)"),
        ("x.npy", with_one(np.nan)[1], "found 1 of 48 NaN or infinite"),
        ("x.jpg", b"x", "expected importance maps .*found none in it or below"),
    ],
)  # fmt: skip
def test_bad_files_are_refused(tmp_path, name, value, found):
    files(tmp_path, {name: value})
    with pytest.raises(ValueError, match=found) as caught:
        load_maps(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_grey_map_stored_in_colour_is_one(tmp_path):
    colour = Image.fromarray(np.repeat(GREY[0][:, :, None], 3, axis=2))
    found = load_maps(files(tmp_path, {"x.png": colour, "y.png": Image.fromarray(GREY[0] > 99)}))
    np.testing.assert_array_equal(found.maps[0], GREY[0])
    np.testing.assert_array_equal(found.maps[1], (GREY[0] > 99) * 255)


def test_shards(tmp_path):
    first = {"a/one.jpg": b"x", "a/one.map.npy": MAPS[0].astype(np.float16), "a/one.cls": b"3"}
    shard(tmp_path / "m-0.tar", first)
    shard(tmp_path / "m-1.tar", {"two.png": b"x", "two.map.png": Image.fromarray(GREY[1]), "three.jpg": b"x"})
    for path in (tmp_path, tmp_path / "m-{0..1}.tar"):
        found = load_maps(path)
        assert found.ids == ["a/one", "two"]
        np.testing.assert_array_equal(found.maps[0], MAPS[0].astype(np.float16))
        assert found.half
    assert load_maps(tmp_path / "m-0.tar").ids == ["a/one"]
    assert maps_for(found, ["a/one.jpg", "three.jpg", "two.png"])[0].tolist() == [0, -1, 1]
    shard(tmp_path / "m-1.tar", {"a/one.map.npy": RATERS[0]})
    with pytest.raises(
        ValueError, match=r"expected one map of each image, found .*m-0\.tar: a/one\.map\.npy and "
    ):
        load_maps(tmp_path)
    assert len(load_maps(tmp_path / "m-1.tar").raters[0]) == 4


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"no array", "expected a whole .npy array of numbers"),
        (packed(MAPS[0])[:-1], "expected a whole .npy array of numbers"),
        (packed(MAPS[0]) + b"x", "expected a whole .npy array of numbers"),
        (packed(MAPS[0]).replace(b"(6, 8), ", b"(6, 9999999999999), "), "expected a whole .npy array"),
        (packed(np.array([None])), "expected a whole .npy array of numbers"),
        (packed(MAPS[0, 0]), r"found \(8,\)"),
    ],
)
def test_bad_members_of_shards_are_refused(tmp_path, data, found):
    shard(tmp_path / "m.tar", {"x.map.npy": data})
    with pytest.raises(ValueError, match=rf"m\.tar: x\.map\.npy.*{found}"):
        load_maps(tmp_path)


def test_other_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected importance maps .*found nothing there"):
        load_maps(tmp_path / "none")
    with pytest.raises(ValueError, match="found none in it or below"):
        load_maps(tmp_path)
    (tmp_path / "a.tfrecords").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "a.tfrecords"):
        with pytest.raises(
            ValueError, match=r"found TFRecords; convert them once: python -m alignet\.stages\.convert maps"
        ):
            load_maps(path)


# ---- which map belongs to which image


def held(ids):
    return ImportanceMaps(ids, np.zeros((len(ids), 2, 2), np.float32))


@pytest.mark.parametrize(
    ("ids", "images", "rows", "by_stem"),
    [
        (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg", "c.jpg"], [1, 0, -1], 0),
        (["x/a", "b.png"], ["x/a.JPEG", "b.jpg"], [0, 1], 2),
        (["a.v2", "a"], ["a.v2.png", "a.jpg"], [0, 1], 2),
        (["a.png", "a.jpg"], ["a.jpg"], [1], 0),  # exactly, though both have its stem
        (["a"], [], [], 0),
    ],
)
def test_maps_belong_to_images_by_path(ids, images, rows, by_stem):
    found = maps_for(held(ids), images)
    assert (found[0].tolist(), found[1]) == (rows, by_stem)
    assert found[0].dtype == np.int64


def test_maps_of_no_image_and_of_two():
    with pytest.raises(
        ValueError, match=r"such as 'y/a\.jpg', found none among 2, such as 'a'; name maps by the path"
    ):
        maps_for(held(["a", "b"]), ["y/a.jpg", "c.jpg"])
    with pytest.raises(ValueError, match=r"one map for the image a\.webp, found a\.png and a\.jpg"):
        maps_for(held(["a.png", "a.jpg"]), ["a.webp"])


# ---- agreement of raters


def test_split_halves_by_brute_force():
    raters = [RATERS[0], RATERS[1][:2], RATERS[2][:3], RATERS[0][:1]]
    ceiling, found = split_half(raters, splits=50, seed=3)
    for row, maps in enumerate(raters[:3]):
        scores = []
        for half in itertools.combinations(range(len(maps)), len(maps) // 2):
            rest = [one for one in range(len(maps)) if one not in half]
            halves = maps[list(half)].mean(axis=0), maps[rest].mean(axis=0)
            scores.append(spearmanr(*(one.ravel() for one in halves)).statistic)
        assert found[row] == pytest.approx(np.mean(scores), abs=1e-6)
    assert np.isnan(found[3])
    assert ceiling == pytest.approx(found[:3].mean())
    _, stepped = split_half(raters, splits=50, seed=3, corrected=True)
    np.testing.assert_allclose(stepped[:3], 2 * found[:3] / (1 + found[:3]))


def test_random_halves_approach_all_of_them_and_repeat_by_seed():
    maps = np.random.default_rng(5).random((8, 10, 10)) + np.linspace(0, 1, 10)
    _, every = split_half([maps], splits=35, seed=0)
    ceiling, drawn = split_half([maps], splits=34, seed=0)
    assert drawn[0] == pytest.approx(every[0], abs=0.02)
    assert drawn[0] != every[0]
    assert split_half([maps], splits=34, seed=0)[0] == ceiling
    assert split_half([maps], splits=34, seed=1)[0] != ceiling
    assert split_half([maps[:1], maps], splits=34, seed=0)[1][1] != ceiling


def test_planted_agreement_is_found_and_lost_when_pixels_are_shuffled():
    generator = np.random.default_rng(0)
    truth = generator.random((20, 1, 30, 30))
    noisy = truth + generator.normal(0, 0.3, (20, 6, 30, 30))
    ceiling, _ = split_half(list(noisy), splits=10, seed=0)
    var = truth.var()
    expected = var / (var + 0.3**2 / 3)  # the correlation of two means of three raters
    assert ceiling == pytest.approx(expected, abs=0.04)
    shuffled = generator.permuted(noisy.reshape(20, 6, -1), axis=2).reshape(noisy.shape)
    assert abs(split_half(list(shuffled), splits=10, seed=0)[0]) < 0.02


def test_constant_halves_are_left_out_and_nothing_to_go_by_is_refused():
    flat = np.zeros((1, 6, 8))
    mixed = np.concatenate([flat, RATERS[0][:2]])
    _, found = split_half([mixed, np.repeat(flat, 3, axis=0)], splits=9, seed=0)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
    for raters in ([], [RATERS[0][:1]], [np.repeat(flat, 2, axis=0)]):
        with pytest.raises(ValueError, match="expected images with at least two raters whose maps vary"):
            split_half(raters, splits=5, seed=0)
    with pytest.raises(ValueError, match="splits: expected at least 1, found 0"):
        split_half([mixed], splits=0, seed=0)


# ---- as a set of data


def test_a_set_of_maps(tmp_path):
    one = build(SetSettings, {"kind": "maps", "path": "m.npz", "key": "gaze"}, "data.sets.m")
    assert one == MapsSet("maps", "m.npz", "gaze")
    path = npz(tmp_path / "m.npz", ids=np.array(IDS), heat=MAPS)
    assert files_of("maps", path, "") == {"file": path}
    folder = files(tmp_path / "pairs", {"a/x.map.npy": MAPS[0], "y.jpg": b"x", ".z": b"x"})
    assert files_of("maps", folder, "") == {"a/x.map.npy": folder / "a/x.map.npy", "y.jpg": folder / "y.jpg"}
    (tmp_path / "shards").mkdir()
    made = shard(tmp_path / "shards" / "m-0.tar", {"x.map.npy": MAPS[0]})
    (tmp_path / "shards" / "maps.json").write_text("{}")
    pattern = tmp_path / "shards" / "m-{0..0}.tar"
    for where in (made.parent, pattern, made):
        assert list(files_of("maps", where, "").values()) == [made]
        assert exists("maps", where)
    assert not exists("maps", tmp_path / "m-{0..1}.tar")
    assert len(scan(files_of("maps", folder, "")).ids) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected importance maps .*found none"):
        files_of("maps", tmp_path / "empty", "")


def test_what_doctor_says(tmp_path):
    flat = MAPS.copy()
    flat[1] = 0.5
    found = load_maps(npz(tmp_path / "m.npz", ids=np.array(IDS), heat=flat))
    flat_said, raters_said = (
        "3 importance maps of 6x8, 1 of them constant",
        "3 importance maps of 6x8, by 4 raters",
    )
    assert describe("maps", {"": found}) == flat_said
    several = load_maps(npz(tmp_path / "r.npz", ids=np.array(IDS), heat=RATERS))
    assert describe("maps", {"heat": several}) == raters_said
    assert describe("maps", {"a": found, "b": found}) == f"{flat_said}, each of a, b"
    assert describe("maps", {"a": found, "b": several}) == f"a: {flat_said}; b: {raters_said}"


def test_doctor_reads_every_kind_or_the_one_that_is_named(tmp_path):
    from alignet.doctor.files import Sources
    from alignet.pipeline.cli import load

    path = npz(tmp_path / "m.npz", ids=np.array(IDS), gaze=MAPS, clicks=MAPS)
    given = [f"paths.artifacts={tmp_path}", "+data.sets.m.kind=maps", f"+data.sets.m.path={path}"]
    for more, keys in (([], ["gaze", "clicks"]), (["+data.sets.m.key=clicks"], ["clicks"])):
        sources = Sources(load([*given, *more]), (), None)
        assert list(sources.read("m")) == keys
        assert not sources.broken
    sources = Sources(load([*given, "+data.sets.m.key=none"]), (), None)
    assert sources.read("m") is None
    assert "expected maps 'none', found gaze, clicks" in sources.broken["m"]


@needs_photos
def test_real_maps():
    path = Path(PHOTOS) / "maps" / "maps.npz"
    keys = keys_of(path)
    assert len(keys) == 7
    for key in keys:
        found = load_maps(path, key=key)
        assert (found.maps.shape, found.maps.dtype, found.half) == ((17, 64, 64), np.float32, True)
        assert found.sizes == {(64, 64): 17}
    images = sorted(file.name for file in (path.parent / "images").iterdir())
    rows, by_stem = maps_for(found, images)
    assert (rows >= 0).all()
    assert by_stem == 0
    with pytest.raises(ValueError, match="or a key that says which, found patch_ratings, discrimination"):
        load_maps(path)
