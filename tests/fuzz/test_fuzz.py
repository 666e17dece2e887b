"""Damaged files of every kind, a fixed budget: `python -m tests.fuzz` reads many more and says what it looks for."""

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.archives import bomb, npy_of, zip_of
from tests.fuzz.kinds import KINDS, readers
from tests.fuzz.mutations import mutate
from tests.fuzz.pictures import png_of

INPUTS = 2400


@pytest.mark.parametrize(
    "kinds", [("jpeg", "png", "image", "tar", "npz"), KINDS[5:-1]], ids=["binary", "others"]
)
def test_no_damaged_file_ends_in_a_traceback_a_hang_or_a_silent_wrong_result(kinds):
    command = [
        sys.executable,
        "-m",
        "tests.fuzz",
        f"--inputs={INPUTS // 2}",
        f"--kind={','.join(kinds)}",
        "--processes=1",
    ]
    answer = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=300
    )
    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr[-2000:]
    assert answer.stdout.splitlines()[0].split()[:4] == ["kind", "inputs", "accepted", "refused"]


def test_damaged_configurations_are_one_message(tmp_path):
    for reader in readers("yaml")[1:]:
        path = tmp_path / reader.file
        for data in (
            reader.seed.replace(b":", b"\0"),
            reader.seed + b"\n? [",
            b"\xff\xfe" + reader.seed,
            b"x: *lost\n",
        ):
            path.write_bytes(data)
            with pytest.raises(ValueError, match="expected"):
                reader.read(path)


def test_inputs_are_known_by_their_seed():
    import random

    data = bytes(range(200))
    one, same, other = (mutate(data, random.Random(seed), False) for seed in ("1", "1", "2"))
    assert one == same != other


def test_the_harness_finds_what_it_is_to_find(tmp_path):
    from tests.fuzz import run as fuzz

    def reader(read, holds=lambda found, size: "", sealed=False):
        return fuzz.Reader("a.txt", b"seed", read, holds, sealed=sealed)

    def outside(path):
        (tmp_path / "elsewhere").write_text("x")

    def slow(path):
        while True:
            pass

    def large(path):
        held = mmap.mmap(-1, 1 << 29)  # new pages, whatever an earlier test has left to malloc
        held.write(b"x" * len(held))
        return 1

    own = tmp_path / "own"
    own.mkdir()
    fuzz._prepare(own)
    readers = [
        reader(lambda path: [][1]), reader(lambda path: int("x")), reader(slow), reader(outside),
        reader(large), reader(lambda path: 1, lambda found, size: "too small"),
        reader(lambda path: path.read_bytes(), sealed=True), reader(lambda path: path.read_bytes()),
    ]  # fmt: skip
    outcomes, seconds = [], fuzz.SECONDS
    try:
        for one in readers:
            fuzz.SECONDS = (
                1.5 if one.read is slow else seconds
            )  # filling the memory takes seconds on some machines
            outcomes.append(fuzz._one(one, b"other", "mutated", own)[0])
    finally:
        fuzz.SECONDS = seconds
        fuzz._watched.clear()  # the hook stays, and later tests fork
    assert outcomes == ["error", "error", "hang", "outside", "memory", "wrong", "wrong", "accepted"]


def test_archives_with_links_names_that_lead_out_or_a_name_twice_are_refused(tmp_path):
    import stat
    import warnings
    import zipfile

    from alignet.data.npy import read_npz

    path, array = tmp_path / "a.npz", npy_of("'<f4'", "(2,)", bytes(8))
    for name in ("../x.npy", "/x.npy", "a/../../x.npy", "..\\x.npy"):
        path.write_bytes(zip_of({"a.npy": array, name: array}))
        with pytest.raises(ValueError, match="a link or a name that leads out"):
            read_npz(path)
    link = zipfile.ZipInfo("x.npy")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="a link or a name that leads out"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("x.npy", array)
        archive.writestr("x.npy", array)
    with pytest.raises(ValueError, match=r"expected each array once, found 'x\.npy' twice"):
        read_npz(path)


def _refused_in_little_memory(read, match):
    import tracemalloc

    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match):
            read()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_decompression_bombs_are_refused_before_they_fill_the_memory(tmp_path):
    from alignet.data.matlab import read_mat
    from alignet.data.npy import read_npz
    from alignet.data.pixels import PixelPolicy, open_image
    from alignet.data.trials import read_trials
    from alignet.teacher.affine_map import AffineMap

    path = tmp_path / "a.npz"
    path.write_bytes(bomb(300))  # from 300 kB
    _refused_in_little_memory(lambda: read_npz(path), "as of a decompression bomb")
    _refused_in_little_memory(lambda: AffineMap.load_npz(path), "as of a decompression bomb")
    path.write_bytes(zip_of({"weights.npy": npy_of("'<f4'", "(100000000000,)", bytes(100))}))
    _refused_in_little_memory(lambda: read_npz(path), "expected a whole array 'weights'")
    npy = tmp_path / "a.npy"
    npy.write_bytes(npy_of("'<f4'", "(100000000000, 3)", bytes(100)))
    _refused_in_little_memory(lambda: readers("npy")[0].read(npy), "truncated or damaged")

    import zlib

    image = tmp_path / "a.png"
    image.write_bytes(png_of(30_000, 30_000, zlib.compress(bytes(90_000_000), 1)))
    _refused_in_little_memory(lambda: open_image(image), "expected at most 89,478,485 pixels, found far more")
    image.write_bytes(png_of(9_000, 9_999, b"x"))
    _refused_in_little_memory(
        lambda: open_image(image), "expected at most 89,478,485 pixels, found 89,991,000"
    )
    _tiff_bomb(tmp_path / "a.tif")
    wide = PixelPolicy(range=(0, 1), bands=(0, 0, 0))
    _refused_in_little_memory(lambda: open_image(tmp_path / "a.tif", policy=wide), "unpacks to more than")
    _mat_bombs(tmp_path)
    _refused_in_little_memory(lambda: read_mat(tmp_path / "packed.mat"), "as of a decompression bomb")
    _refused_in_little_memory(lambda: read_mat(tmp_path / "sparse.mat"), "as of a decompression bomb")
    _parquet_bomb(tmp_path / "a.parquet")
    _refused_in_little_memory(lambda: read_trials(tmp_path / "a.parquet"), "as of a decompression bomb")


def _tiff_bomb(path):
    """16 x 16 pixels in a strip that unpacks to 100 MB."""
    import zlib

    import tifffile

    tifffile.imwrite(path, np.zeros((16, 16, 5), np.float32), photometric="minisblack", planarconfig="contig",
                     compression="zlib")  # fmt: skip
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages[0]
        packed = zlib.compress(bytes(100_000_000), 9)
        place = path.stat().st_size
        page.tags["StripOffsets"].overwrite(place)
        page.tags["StripByteCounts"].overwrite(len(packed))
    with open(path, "ab") as handle:
        handle.write(packed)


def _mat_bombs(folder):
    """A MATLAB 5 file of 300 MB of zeros, packed; a MATLAB 7.3 file of 800 GB, of which nothing was stored."""
    import struct
    import zlib

    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    packed = zlib.compressobj(9)
    body = b"".join(
        [
            packed.compress(struct.pack("<II", 14, 300 << 20)),
            *(packed.compress(bytes(1 << 20)) for _ in range(300)),
        ]
    )
    body += packed.flush()
    (folder / "packed.mat").write_bytes(head + struct.pack("<II", 15, len(body)) + body)
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "sparse.mat", "w", userblock_size=512) as file:
        data = file.create_dataset("m", shape=(10**7, 10**4), dtype="f8", chunks=(1000, 1000))
        data.attrs["MATLAB_class"] = np.bytes_("double")
    with open(folder / "sparse.mat", "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file".ljust(124) + struct.pack("<HH", 0x0200, 0x4D49))


def _parquet_bomb(path):
    """Two million equal rows in some kB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = (
        "participant",
        "image1",
        "image2",
        "image3",
        "selected_image",
        "triplet_type",
        "exp_trial_type",
        "rt",
    )
    one = pa.array(["x"] * 2_000_000).dictionary_encode()
    pq.write_table(pa.table(dict.fromkeys(columns, one)), path)
