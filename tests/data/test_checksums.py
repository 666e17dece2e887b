"""The listing of outside data: its digest, its cache, and what `full` finds that `stat` cannot."""

import hashlib
import json
import os

import pytest

from alignet.data.checksums import scan


def make(folder, contents, age=100):
    """Files with the given contents, last changed `age` seconds before a fixed recent time."""
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        settle(path, age)


def settle(path, age=100):
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - age * 10**9))


CONTENTS = {"b.jpg": b"two", "a/c.png": b"three", "a.png": b"one"}


def test_listing_against_hashlib(tmp_path):
    make(tmp_path, {**CONTENTS, "readme.txt": b"no image"})
    listing = scan(tmp_path)
    assert listing.ids == ("a.png", "a/c.png", "b.jpg")
    assert listing.sizes == (3, 5, 3)
    sums = [hashlib.sha256(CONTENTS[name]).hexdigest() for name in listing.ids]
    assert list(listing.sha256) == sums
    lines = "".join(
        json.dumps([name, len(CONTENTS[name]), checksum]) + "\n" for name, checksum in zip(listing.ids, sums)
    )
    assert listing.digest == hashlib.sha256(lines.encode()).hexdigest()


def test_digest_depends_on_names_and_contents_only(tmp_path):
    make(tmp_path / "x", CONTENTS)
    make(tmp_path / "y", dict(reversed(CONTENTS.items())), age=5000)
    assert scan(tmp_path / "x").digest == scan(tmp_path / "y", threads=1).digest
    named = {name: tmp_path / "x" / name for name in CONTENTS}
    assert scan(named).digest == scan(tmp_path / "x").digest
    (tmp_path / "y/b.jpg").write_bytes(b"TWO")
    assert scan(tmp_path / "y").digest != scan(tmp_path / "x").digest
    (tmp_path / "y/b.jpg").write_bytes(b"two")
    (tmp_path / "y/b.jpg").rename(tmp_path / "y/B.jpg")
    assert scan(tmp_path / "y").digest != scan(tmp_path / "x").digest


def test_a_warm_cache_reads_nothing(tmp_path):
    make(tmp_path / "x", CONTENTS)
    cache = tmp_path / "seen" / "cache.json"
    first = scan(tmp_path / "x", cache=cache)
    again = scan(tmp_path / "x", cache=cache)
    assert (first.hashed, again.hashed) == (3, 0)
    assert again.digest == first.digest
    make(tmp_path / "x", {"b.jpg": b"2!!", "d.bmp": b"new"}, age=50)
    (tmp_path / "x/a.png").unlink()
    third = scan(tmp_path / "x", cache=cache)
    assert third.hashed == 2
    assert third.digest == scan(tmp_path / "x").digest != first.digest
    assert scan(tmp_path / "x", cache=cache).hashed == 0
    assert list(cache.parent.iterdir()) == [cache]


def test_full_finds_what_size_and_time_hide(tmp_path):
    make(tmp_path / "x", CONTENTS)
    cache, victim = tmp_path / "cache.json", tmp_path / "x" / "b.jpg"
    before = scan(tmp_path / "x", cache=cache)
    time = victim.stat().st_mtime_ns
    victim.write_bytes(b"TWO")
    os.utime(victim, ns=(time, time))
    assert scan(tmp_path / "x", cache=cache).digest == before.digest  # what stat cannot see
    full = scan(tmp_path / "x", cache=cache, verify="full")
    assert full.changed == ("b.jpg",)
    assert full.hashed == 3
    assert full.digest == scan(tmp_path / "x").digest != before.digest
    assert scan(tmp_path / "x", cache=cache).digest == full.digest
    assert scan(tmp_path / "x", cache=cache, verify="full").changed == ()


def test_a_file_written_just_now_is_not_trusted_later(tmp_path):
    make(tmp_path / "x", {"a.png": b"one"}, age=0)
    cache = tmp_path / "cache.json"
    scan(tmp_path / "x", cache=cache)
    assert scan(tmp_path / "x", cache=cache).hashed == 1  # it could have changed within the clock's tick
    settle(tmp_path / "x/a.png")
    scan(tmp_path / "x", cache=cache)
    assert scan(tmp_path / "x", cache=cache).hashed == 0


def test_cache_of_another_folder_or_path_is_not_used(tmp_path):
    make(tmp_path / "x", {"a.png": b"one"})
    make(tmp_path / "y", {"a.png": b"two"})
    time = (tmp_path / "x/a.png").stat().st_mtime_ns
    os.utime(tmp_path / "y/a.png", ns=(time, time))
    cache = tmp_path / "cache.json"
    scan(tmp_path / "x", cache=cache)
    assert scan(tmp_path / "y", cache=cache).digest == scan(tmp_path / "y").digest
    scan({"file": tmp_path / "x/a.png"}, cache=cache)
    other = scan({"file": tmp_path / "y/a.png"}, cache=cache)
    assert other.sha256 == (hashlib.sha256(b"two").hexdigest(),)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1}', '{"format":1,"root":"ROOT","files":{"a.png":[1]}}']
)
def test_a_damaged_cache_says_so(tmp_path, text):
    make(tmp_path / "x", {"a.png": b"one"})
    cache = tmp_path / "cache.json"
    cache.write_text(text.replace("ROOT", str(tmp_path / "x")))
    with pytest.raises(ValueError, match="delete the file"):
        scan(tmp_path / "x", cache=cache)


def test_missing_and_unfit_files(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        scan({"file": tmp_path / "none.npy"})
    with pytest.raises(ValueError, match="found a folder"):
        scan({"file": tmp_path})
    with pytest.raises(ValueError, match="at least one file"):
        scan({})
    with pytest.raises(ValueError, match="stat or full"):
        scan({"file": tmp_path}, verify="fast")


def test_a_file_that_grows_while_read_is_refused(tmp_path, monkeypatch):
    make(tmp_path, {"a.png": b"one"})
    real = hashlib.file_digest

    def grow(handle, name):
        (tmp_path / "a.png").write_bytes(b"one more")
        return real(handle, name)

    monkeypatch.setattr("alignet.data.checksums.hashlib.file_digest", grow)
    with pytest.raises(ValueError, match="being written"):
        scan(tmp_path)


def test_the_order_of_more_files_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("alignet.data.checksums._BLOCK", 7)
    contents = {f"{number:03d}.jpg": str(number).encode() for number in range(50)}
    make(tmp_path, contents)
    listing = scan(tmp_path)
    assert list(listing.sha256) == [hashlib.sha256(contents[name]).hexdigest() for name in listing.ids]
