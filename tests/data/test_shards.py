"""Shards give what the folder gives, bit for bit, and what webdataset reads; broken ones are refused."""

import hashlib
import io
import json
import os
import pickle
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from alignet.data.checksums import scan
from alignet.data.images import list_images
from alignet.data.pixels import PixelPolicy
from alignet.data.sets import exists, files_of
from alignet.data.shards import ShardListing, checksums, list_shards, shard_files, shard_labels, shard_source
from alignet.pipeline import payloads
from alignet.stages import embed, index


def encoded(kind, seed=0):
    buffer = io.BytesIO()
    array = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def samples(count=11):
    """Samples as webdataset writes them: key, an image, a class and a record."""
    for row in range(count):
        suffix, kind = [("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")][row % 3]
        yield {
            "__key__": f"n{row % 2:02d}/{row:06d}",
            suffix: encoded(kind, row),
            "cls": row % 4,
            "json": {"label": row % 4 + 10, "text": "a thing"},
        }


@pytest.fixture
def both(tmp_path):
    """The same images as a folder and as shards of webdataset's own writer."""
    folder, shards = tmp_path / "folder", tmp_path / "shards"
    shards.mkdir()
    with webdataset.ShardWriter(str(shards / "train-%06d.tar"), maxcount=4, verbose=0) as writer:
        for sample in samples():
            writer.write(sample)
            name, data = next((key, value) for key, value in sample.items() if isinstance(value, bytes))
            path = folder / f"{sample['__key__']}.{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return folder, shards


def same_images(one, other):
    assert one.ids == other.ids
    for name in one.ids:
        np.testing.assert_array_equal(np.asarray(one.open(name)), np.asarray(other.open(name)))


def opened(path):
    return shard_source(path, list_shards(path).images)


def test_folder_and_shards_agree(both):
    folder, shards = both
    source, listing = list_images(folder), list_shards(shards)
    assert list(listing.shards) == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    same_images(opened(shards), source)
    same_images(opened(shards / "train-{000000..000002}.tar"), source)
    assert len(opened(shards / "train-000001.tar")) == 4
    files = scan(folder)
    assert tuple(checksums(listing).values()) == files.sha256
    assert tuple(size for _, _, size in listing.images.values()) == files.sizes


def test_webdataset_reads_the_same(both):
    _, shards = both
    source = opened(shards)
    reader = webdataset.WebDataset(str(shards / "train-{000000..000002}.tar"), shardshuffle=False).decode(
        "rgb8"
    )
    seen = set()
    for sample in reader:
        suffix = next(key for key in sample if key in ("jpg", "png", "webp"))
        name = f"{sample['__key__']}.{suffix}"
        np.testing.assert_array_equal(np.asarray(source.open(name)), sample[suffix])
        seen.add(name)
    assert seen == set(source.ids)


def test_labels_beside_the_images(both):
    _, shards = both
    expected = {f"n{row % 2:02d}/{row:06d}": row % 4 for row in range(11)}
    found = shard_labels(shards)
    assert {name.rpartition(".")[0]: label for name, label in found.items()} == expected
    assert list(found) == list(list_shards(shards).images)
    records = shard_labels(shards, field="label")
    assert {name: label - 10 for name, label in records.items()} == found
    with pytest.raises(ValueError, match=r"expected a whole number as 'text' in n00/000000\.json, found"):
        shard_labels(shards, field="text")


def test_workers_read_the_same(both):
    _, shards = both
    source = pickle.loads(pickle.dumps(opened(shards)))
    loader = torch.utils.data.DataLoader(Pixels(source), batch_size=None, num_workers=2)
    for name, found in zip(source.ids, loader, strict=True):
        np.testing.assert_array_equal(found, np.asarray(source.open(name)))


class Pixels(torch.utils.data.Dataset):
    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, row):
        return np.asarray(self.source.open(self.source.ids[row]))


def written(path, members, **options):
    """A tar file of name -> bytes, or a TarInfo in place of them."""
    with tarfile.open(path, "w", **options) as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_names_as_tar_writes_them(tmp_path):
    long = "x" * 120 + "/" + "y" * 90 + ".png"
    folders = {name: tarfile.TarInfo(name) for name in ("./", "./a")}
    for info in folders.values():
        info.type = tarfile.DIRTYPE
    members = {
        **folders,
        "./a/b.png": encoded("PNG"),
        "./a/._b.png": b"junk",
        ".git/c.png": b"junk",
        long: encoded("PNG", 1),
    }
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = written(tmp_path / "a.tar", members, format=kind)
        assert opened(path).ids == ("a/b.png", long)
        assert opened(path).open(long).size == (7, 9)


def test_policy_and_limit_reach_the_decoder(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(buffer, "PNG")
    source = opened(written(tmp_path / "a.tar", {"a.png": buffer.getvalue()}))
    assert np.asarray(source.open("a.png", policy=PixelPolicy(range=(0, 2000)))).max() == 128
    assert np.asarray(source.open("a.png")).max() == 4
    with pytest.raises(ValueError, match=r"a\.tar: a\.png: expected at most 15 pixels"):
        source.open("a.png", max_pixels=15)
    with pytest.raises(ValueError, match=r"expected an image 'b\.png', found none"):
        source.open("b.png")


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "a/../../b.png", "./../c.png"])
def test_names_that_lead_out(tmp_path, name):
    path = written(tmp_path / "a.tar", {"ok.png": encoded("PNG"), name: encoded("PNG")})
    with pytest.raises(ValueError, match="names below the archive"):
        list_shards(path)
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices(tmp_path, kind):
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = kind, "/etc/passwd"
    path = written(tmp_path / "a.tar", {"a.png": encoded("PNG"), "b.png": link})
    with pytest.raises(ValueError, match=r"expected plain files, found 'b\.png', a link"):
        list_shards(path)


def test_a_length_that_no_file_can_have(tmp_path):
    """Base 256, as tar writes lengths beyond eight octal digits: 2^70 bytes."""
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = 10
        archive.addfile(info, io.BytesIO(bytes(10)))
    raw = bytearray((tmp_path / "s.tar").read_bytes())
    raw[124:136] = b"\x80" + (2**70).to_bytes(11, "big")
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (tmp_path / "s.tar").write_bytes(raw)
    with pytest.raises(ValueError, match="expected a whole tar file, found a broken or truncated one"):
        list_shards(tmp_path / "s.tar")


def test_truncated_anywhere(tmp_path):
    path = written(tmp_path / "a.tar", {"a.png": encoded("PNG"), "b.png": encoded("PNG", 1)})
    whole = path.read_bytes()
    content = whole.rstrip(b"\0")
    for length in [*range(0, len(content), 37), *range(512, len(content), 512)]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="expected a whole tar file") as caught:
            list_shards(tmp_path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_other_damage(tmp_path):
    path = written(tmp_path / "a.tar", {"a.png": encoded("PNG"), "b.png": encoded("PNG", 1)})
    whole = path.read_bytes()
    second = whole.index(b"b.png")
    path.write_bytes(whole[:second] + b"!" + whole[second + 1 :])  # the header's sum no longer fits
    with pytest.raises(ValueError, match="no end of the archive"):
        list_shards(path)
    path.write_bytes(whole + whole)
    with pytest.raises(ValueError, match="tar files that were joined"):
        list_shards(path)
    path.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(ValueError, match="expected a whole tar file"):
        list_shards(path)
    path.write_bytes(whole)
    source = opened(path)
    path.write_bytes(whole[: second + 550])
    with pytest.raises(ValueError, match=r"bytes of b\.png, found 38; the shard is truncated"):
        source.open("b.png")
    places = {name: ("a.tar", place.offset, place.size) for name, place in source.places.items()}
    with pytest.raises(ValueError, match="expected a whole tar file"):
        checksums(ShardListing({"a.tar": path}, places))
    path.unlink()
    with pytest.raises(ValueError, match="expected a shard, found none"):
        source.open("a.png")


def test_flipped_bytes_never_raise_anything_else(tmp_path):
    path = written(tmp_path / "a.tar", {"a.png": encoded("PNG"), "b.png": encoded("PNG", 1)})
    whole, generator, messages = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(300):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole.rstrip(b"\0")), 4):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        try:
            list_shards(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all(str(path) in message for message in messages)


def test_ids_that_stand_twice_and_shards_without_images(tmp_path):
    written(tmp_path / "a.tar", {"x.png": encoded("PNG")})
    written(tmp_path / "b.tar", {"x.png": encoded("PNG")})
    with pytest.raises(ValueError, match=r"b\.tar: expected each id once, found 'x\.png' here and in a\.tar"):
        list_shards(tmp_path)
    written(tmp_path / "b.tar", {"x.txt": b"1"})
    with pytest.raises(ValueError, match=r"b\.tar: expected images .* found none in this shard"):
        list_shards(tmp_path)
    written(tmp_path / "b.tar", {})
    with pytest.raises(ValueError, match="found none in this shard"):
        list_shards(tmp_path)
    written(tmp_path / "b.tar", {" y.png": encoded("PNG")})
    with pytest.raises(ValueError, match="outer spaces"):
        list_shards(tmp_path)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_compressed_shards(tmp_path, name):
    written(tmp_path / "b.tar", {"x.png": encoded("PNG")})
    (tmp_path / name).touch()
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match="expected a plain tar file, found a compressed one"):
            list_shards(path)


def test_paths_that_name_no_shards(tmp_path):
    (tmp_path / "empty").mkdir()
    cases = {
        "empty": "found none in it or below",
        "nowhere": "found no suffix",
        "nowhere.tar": "found no file",
        "a-{0..1}.tar": r"a-0\.tar: expected a shard among the 2 of",
        "a-{0..1.tar": "braces that close|found no file",
        "a.zip": r"\(\.tar\), found \.zip",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=message):
            list_shards(tmp_path / name)


def test_labels_that_are_none(tmp_path):
    path = written(tmp_path / "a.tar", {"x.png": encoded("PNG")})
    with pytest.raises(ValueError, match=r"expected x\.cls with the label of x\.png, found none"):
        shard_labels(path)
    with pytest.raises(ValueError, match=r"expected x\.json"):
        shard_labels(path, field="label")
    for text in (b"cat", b"1.5", b"", b"\xff"):
        written(path, {"x.png": encoded("PNG"), "x.cls": text})
        with pytest.raises(ValueError, match=r"expected a whole number in x\.cls"):
            shard_labels(path)
    for value in ({"label": "1"}, {"label": True}, {"other": 1}, [1], 7):
        written(path, {"x.png": encoded("PNG"), "x.json": json.dumps(value).encode()})
        with pytest.raises(ValueError, match=r"expected a whole number as 'label' in x\.json"):
            shard_labels(path, field="label")
    written(path, {"x.png": encoded("PNG"), "x.cls": b"1", "./x.cls": b"2"})
    with pytest.raises(
        ValueError, match=r"expected each member once, found 'x\.cls' twice; write the shard again"
    ):
        shard_labels(path)
    written(path, {"f.o/x.seg.png": encoded("PNG"), "f.o/x.cls": b" 3\n"})
    assert shard_labels(path) == {"f.o/x.seg.png": 3}


def test_sets_of_shards(both, tmp_path):
    _, shards = both
    pattern = shards / "train-{000000..000002}.tar"
    assert exists("shards", pattern)
    assert exists("shards", shards)
    assert exists("images", shards)
    assert not exists("shards", shards / "test-{0..3}.tar")
    assert not exists("images", pattern)
    listing = scan(files_of("shards", pattern, ""))
    assert listing.ids == tuple(shard_files(shards))
    assert listing.digest == scan(files_of("shards", shards, "")).digest
    first = shards / "train-000000.tar"
    assert listing.sha256[0] == hashlib.sha256(first.read_bytes()).hexdigest()
    moved = shards.rename(tmp_path / "moved")
    assert scan(files_of("shards", moved, "")).digest == listing.digest
    written(moved / "train-000000.tar", {"a.png": encoded("PNG")})
    assert scan(files_of("shards", moved, "")).digest != listing.digest


def stage(folder, kind, path, **more):
    """What a stage is given, as the pipeline gives it."""
    folder.mkdir(exist_ok=True)
    section = {"kind": kind, "under": "", **more}
    return SimpleNamespace(section=section, sources={"data": path, "images": path}, folder=folder, inputs={})


def test_stages_list_and_embed_both_alike(both, tmp_path):
    folder, shards = both
    listings, features = [], []
    for kind, path in (("images", folder), ("shards", shards)):
        listed = stage(tmp_path / f"index-{kind}", kind, path)
        metrics = index.run(listed)
        listing = json.loads((listed.folder / "listing.json").read_text())
        assert listing["kind"] == kind
        listings.append({name: (entry["size"], entry["sha256"]) for name, entry in listing["files"].items()})
        assert metrics == {"files": 11, "bytes": sum(size for size, _ in listings[-1].values())}
        settings = {"shard": 5, "batch": 3, "precision": "float32", "unreadable": "stop"}
        policy = {"range": None, "bands": None, "transparency": "white", "max_pixels": 100}
        work = stage(
            tmp_path / f"embed-{kind}", kind, path, embed=settings, model={"library": "pixels"}, pixels=policy
        )
        work.inputs["images"] = SimpleNamespace(file=lambda name, where=listed.folder: where / name)
        work.node = SimpleNamespace(role="pixels.pool", key="embed[pixels.pool]")
        work.runtime, work.checkpoints = (
            SimpleNamespace(device="cpu", workers=0, threads=1),
            tmp_path / "none",
        )
        assert payloads.images(work, "images").ids == tuple(listings[-1])
        embed.run(work)
        files = sorted(file for file in work.folder.iterdir() if file.suffix in (".npy", ".txt"))
        features.append([(file.name, file.read_bytes()) for file in files])
    assert listings[0] == listings[1]
    assert features[0] == features[1]
    assert len(features[0]) == 6


def test_shards_in_folders(tmp_path):
    for where in ("a", "b/c", ".hidden"):
        (tmp_path / where).mkdir(parents=True)
        written(tmp_path / where / "0.tar", {f"{where}.png": encoded("PNG")})
    assert list(shard_files(tmp_path)) == ["a/0.tar", "b/c/0.tar"]
    assert list(shard_files(tmp_path / "{b/c,a}" / "0.tar")) == ["a/0.tar", "b/c/0.tar"]
    assert opened(tmp_path).ids == ("a.png", "b/c.png")
    images = list_shards(tmp_path).images
    with pytest.raises(ValueError, match=r"expected a shard a/0\.tar, as when it was listed, found 0\.tar"):
        shard_source(tmp_path / "b/c/0.tar", images)


def tar_of(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def test_which_member_of_a_sample_is_its_image_is_said_or_asked(tmp_path):
    path = tar_of(tmp_path / "0.tar", {
        "x/a.jpg": encoded("JPEG"), "x/a.seg.png": encoded("PNG"), "x/a.cls": b"3",
        "x/b.png": encoded("PNG", 1), "x/b.cls": b"4",
    })  # fmt: skip
    with pytest.raises(ValueError, match=r"x/a\.jpg and x/a\.seg\.png.*member=jpg or member=seg\.png"):
        list_shards(path)
    assert list(list_shards(path, member="jpg,png").images) == ["x/a.jpg", "x/b.png"]
    assert list(list_shards(path, member=".SEG.png").images) == ["x/a.seg.png"]
    found = shard_labels(path, ids=list_shards(path, member="jpg,png").images)
    assert found == {"x/a.jpg": 3, "x/b.png": 4}
    with pytest.raises(ValueError, match=r"one image in each sample of member=jpg,seg\.png"):
        list_shards(path, member="jpg,seg.png")
    with pytest.raises(ValueError, match=r"expected images \(webp\), found none"):
        list_shards(path, member="webp")


def test_the_member_is_an_option_of_a_set_and_of_embed(tmp_path):
    from alignet.backbones.embedding import given_images
    from alignet.pipeline.cli import load
    from alignet.pipeline.runner import Pipeline

    shards = tmp_path / "shards"
    shards.mkdir()
    tar_of(shards / "0.tar", {f"{row}.{part}": encoded(kind, row) for row in range(6)
                              for part, kind in (("jpg", "JPEG"), ("depth.png", "PNG"))})  # fmt: skip
    line = [
        "experiment=own", f"paths.images={shards}", f"paths.map={tmp_path / 'map.npz'}", "data.sets.pool.kind=shards",
        f"paths.artifacts={tmp_path / 'store'}",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="say which is the image"):
        Pipeline(load(line)).make("index[pool]")
    made = Pipeline(load([*line, "data.sets.pool.member=jpg"])).make("index[pool]")
    listing = json.loads(made.file("listing.json").read_text())["files"]
    assert sorted(listing) == [f"{row}.jpg" for row in range(6)]
    assert given_images(str(shards), member="depth.png").ids == tuple(f"{row}.depth.png" for row in range(6))
