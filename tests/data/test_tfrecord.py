"""TFRecord files of another library's writer are read; damaged, truncated and compressed ones are refused."""

import builtins
import gzip
import struct
import zlib

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from tfrecord import example_pb2

from alignet.data.clickme import open_clickme
from alignet.data.pixels import open_image
from alignet.data.tfrecord import is_tfrecord, parse_example, read_records, record_places
from tests.makers.tfrecords import clickme, drawn, jpeg, write


def masked(data):
    plain = crc32c(data)
    return struct.pack("<I", ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def framed(*records):
    """The bytes of a file, written here from the format's description."""
    parts = []
    for data in records:
        length = struct.pack("<Q", len(data))
        parts += [length, masked(length), data, masked(data)]
    return b"".join(parts)


def saved(path, content):
    path.write_bytes(content)
    return path


RECORDS = [
    {"image": (b"first", "byte"), "label": (-3, "int"), "weights": ([0.5, -1.25, 3.0], "float")},
    {"image": ([b"a", b"", b"\xff\x00"], "byte"), "label": ([1, 2**62, -(2**63)], "int"), "weights": ([], "float")},
    {"": (b"no name", "byte"), "\u00e4": (7, "int")},
]  # fmt: skip


def test_records_of_another_writer(tmp_path):
    path = write(tmp_path / "a.tfrecords", RECORDS)
    found = [parse_example(data) for data in read_records(path)]
    assert found[0]["image"] == [b"first"]
    assert found[0]["label"].tolist() == [-3]
    assert found[0]["weights"].tolist() == [0.5, -1.25, 3.0]
    assert found[0]["weights"].dtype == np.float32
    assert found[1]["image"] == [b"a", b"", b"\xff\x00"]
    assert found[1]["label"].tolist() == [1, 2**62, -(2**63)]
    assert len(found[1]["weights"]) == 0
    assert found[2][""] == [b"no name"]
    assert found[2]["\u00e4"].tolist() == [7]
    assert parse_example(*read_records(path, 1, 2))["image"] == found[1]["image"]


def test_a_file_written_from_the_formats_description(tmp_path):
    path = saved(tmp_path / "a.tfrecord", framed(b"", b"x" * 1000, b"\0"))
    assert list(read_records(path)) == [b"", b"x" * 1000, b"\0"]
    found = record_places(path)
    assert [place.size for place in found.places] == [0, 1000, 1]
    assert found.digest == record_places(saved(tmp_path / "b", path.read_bytes())).digest
    assert found.digest != record_places(saved(tmp_path / "c", framed(b"", b"y" * 1000, b"\0"))).digest


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a.tfrecord", True),
        ("A.TFRecords", True),
        ("t.tfrecord-00000-of-00010", True),
        ("tfrecord.npz", False),
    ],
)
def test_what_is_called_a_tfrecord_file(name, is_one):
    assert is_tfrecord(name) == is_one


def test_every_flipped_bit_of_the_frame_and_random_ones_of_the_data_are_refused(tmp_path):
    whole = framed(b"some data " * 20, b"more data " * 30)
    start = 12 + 200 + 4  # of the second record
    frame = [*range(12), *range(212, 216), *range(start, start + 12), *range(len(whole) - 4, len(whole))]
    inside = np.random.default_rng(0).integers(12, 212, 40).tolist()
    generator = np.random.default_rng(1)
    for byte in frame + inside:
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << int(generator.integers(8))
        path = saved(tmp_path / "a.tfrecords", bytes(damaged))
        with pytest.raises(ValueError, match=r"a\.tfrecords: record [01] \(from 0\), byte [\d,]+: expected"):
            list(read_records(path))


def test_every_truncation_is_refused(tmp_path):
    whole = framed(b"some data", b"more")
    ends = {0, 9 + 16}  # an empty file; a whole record
    for size in range(len(whole)):
        path = saved(tmp_path / "a.tfrecords", whole[:size])
        if size not in ends:
            with pytest.raises(
                ValueError, match=r"a\.tfrecords: record [01] \(from 0\), byte [\d,]+: expected"
            ):
                list(read_records(path))
    with pytest.raises(ValueError, match="found an empty file"):
        list(read_records(saved(tmp_path / "a.tfrecords", b"")))
    with pytest.raises(ValueError, match="expected a TFRecord file, found none"):
        list(read_records(tmp_path / "none"))


def test_a_length_beyond_the_file_is_refused_before_anything_is_read(tmp_path):
    for length in (100, 2**40, 2**64 - 1):
        head = struct.pack("<Q", length)
        path = saved(tmp_path / "a.tfrecords", framed(b"first") + head + masked(head) + b"x" * 99)
        with pytest.raises(
            ValueError, match=rf"record 1 .*byte 21: expected {length:,} bytes .*found 99 bytes left"
        ):
            list(read_records(path))


@pytest.mark.parametrize(("pack", "kind"), [(gzip.compress, "gzip"), (zlib.compress, "zlib")])
def test_compressed_files_are_told(tmp_path, pack, kind):
    path = saved(tmp_path / "a.tfrecords", pack(framed(b"data" * 100)))
    with pytest.raises(
        ValueError, match=rf"a\.tfrecords: expected a plain TFRecord file, found one that {kind}"
    ):
        list(read_records(path))


def test_the_package_that_is_missing_is_named(tmp_path, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name == "crc32c":
            raise ImportError(name)
        return original(name, *rest)

    path = saved(tmp_path / "a.tfrecords", framed(b"data"))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'alignet\[maps\]'"):
        list(read_records(path))


# ---- tf.train.Example

_LISTS = st.one_of(
    st.builds(
        lambda values: example_pb2.Feature(bytes_list=example_pb2.BytesList(value=values)),
        st.lists(st.binary(max_size=20), max_size=4),
    ),
    st.builds(
        lambda values: example_pb2.Feature(float_list=example_pb2.FloatList(value=values)),
        st.lists(st.floats(width=32, allow_nan=False), max_size=4),
    ),
    st.builds(
        lambda values: example_pb2.Feature(int64_list=example_pb2.Int64List(value=values)),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    ),
)


def example(features):
    return example_pb2.Example(features=example_pb2.Features(feature=features)).SerializeToString()


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), _LISTS, max_size=4))
@settings(max_examples=100, deadline=None)
def test_any_example_that_protobuf_writes(features):
    found = parse_example(example(features))
    assert found.keys() == features.keys()
    for name, feature in features.items():
        expected = list(getattr(feature, feature.WhichOneof("kind")).value)
        assert list(found[name]) == expected


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(data):
    told = "r: expected a tf.train.Example, found"
    try:
        parse_example(data, "r")
    except ValueError as error:
        told = str(error)
    assert told.startswith("r: expected a tf.train.Example, found")


def test_every_truncation_of_an_example_is_read_or_refused_with_a_message():
    whole = example({"image": example_pb2.Feature(bytes_list=example_pb2.BytesList(value=[b"0123456789"]))})
    for size in range(1, len(whole)):
        with pytest.raises(
            ValueError, match=r"^r: expected a tf\.train\.Example, found .* at byte \d+ of \d+"
        ):
            parse_example(whole[:size], "r")


def field(number, data, wire=2):
    body = bytes([len(data)]) + data if wire == 2 else data
    return bytes([number << 3 | wire]) + body


def one_feature(values, name=b"x"):
    return field(1, field(1, field(1, name) + field(2, values)))


def test_unpacked_lists_unknown_fields_and_names_twice():
    floats = field(2, field(1, struct.pack("<f", 1.5), 5) + field(1, struct.pack("<2f", 2, 3)))
    assert parse_example(one_feature(floats))["x"].tolist() == [1.5, 2, 3]
    integers = field(3, field(1, b"\x05", 0) + field(1, b"\x06\x07") + field(1, b"\xff" * 9 + b"\x01", 0))
    assert parse_example(one_feature(integers))["x"].tolist() == [5, 6, 7, -1]
    strange = field(9, b"more") + field(8, b"\x01", 0) + field(7, b"\0" * 8, 1) + field(6, b"\0" * 4, 5)
    assert parse_example(strange + one_feature(strange + integers))["x"].tolist() == [5, 6, 7, -1]
    again = one_feature(floats) + one_feature(integers)
    assert parse_example(again)["x"].tolist() == [5, 6, 7, -1]
    assert parse_example(one_feature(b""))["x"] == []
    assert parse_example(b"") == {}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a field of 18,446,744,073,709,551,615 bytes where 0"),
        (b"\xff" * 11, "a number of more than 10 bytes"),
        (b"\x0a", "a number that is cut short"),
        (b"\x0b", "a field of the unknown type 3"),
        (b"\x02\x00", "a field numbered 0"),
        (b"\x08\x01", "a field 1 of type 0 in the place of a message"),
        (one_feature(b"", b"\xff"), "a name of a feature that is no UTF-8"),
        (one_feature(field(2, field(1, b"\0" * 6))), "6 bytes of type 2 in a list of floats"),
        (one_feature(field(2, field(1, b"\0", 0))), "1 bytes of type 0 in a list of floats"),
        (one_feature(field(3, field(1, b"\0" * 4, 5))), "a value of type 5 in a list of integers"),
        (one_feature(field(3, field(1, b"\x80"))), "a number that is cut short"),
        (one_feature(field(1, field(1, b"\0", 0))), "a value of type 0 in a list of bytes"),
        (one_feature(field(1, b"\0", 0)), "a field 1 of type 0 in the place of a list"),
    ],
)  # fmt: skip
def test_messages_that_are_none(data, found):
    with pytest.raises(ValueError, match=found):
        parse_example(data, "r")


# ---- ClickMe


@pytest.mark.parametrize(
    ("layout", "high", "side"),
    [
        ("jpeg", 255, 256),
        ("raw 224", 255, 224),
        ("raw 224", 1, 224),
        ("raw 256", 255, 256),
        ("raw 256", 1, 256),
    ],
)
def test_the_layouts(tmp_path, layout, high, side):
    file = open_clickme(clickme(tmp_path / "train-7.tfrecords", 3, layout, high))
    assert (file.layout, file.high, len(file)) == (layout, high, 3)
    records = list(file.records())
    assert [one.id for one in records] == ["train-7_00000", "train-7_00001", "train-7_00002"]
    assert [one.label for one in records] == [0, 1, 2]
    for number, one in enumerate(records):
        picture, spot = drawn(number, side)
        assert (one.map.dtype, one.map.shape) == (np.float32, (side, side))
        if layout == "jpeg":
            assert one.image == jpeg(picture)
            assert np.abs(one.map - spot).mean() < 2
            np.testing.assert_array_equal(one.map, np.asarray(open_image(jpeg(spot)))[:, :, 0])
        else:
            np.testing.assert_array_equal(one.image, picture)
            np.testing.assert_array_equal(one.map, spot.astype(np.float32) / 100)
    assert [one.id for one in file.records(1, 2)] == ["train-7_00001"]


def raw(side, image, heatmap=None, **more):
    heatmap = np.ones(side * side) if heatmap is None else heatmap
    return {
        "image": (np.asarray(image, "<f4").tobytes(), "byte"),
        "heatmap": (np.asarray(heatmap, "<f4").tobytes(), "byte"),
        "label": (1, "int"),
    } | more


def test_the_range_is_the_files_and_not_a_single_images(tmp_path):
    dark, bright = np.full(224 * 224 * 3, 1.0), np.full(224 * 224 * 3, 200.0)
    file = open_clickme(write(tmp_path / "a.tfrecords", [raw(224, dark), raw(224, bright)]))
    assert file.high == 255
    assert [one.image.max() for one in file.records()] == [1, 200]


PIXELS = 224 * 224 * 3


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([{"label": (1, "int")}], "features image and heatmap, one bytes value each, found label"),
        ([raw(224, np.ones(PIXELS)) | {"image": (3, "int")}], "found heatmap, image, label"),
        ([raw(224, np.ones(PIXELS - 1))], r"found an image of 602,108 bytes \(00 00 80 3f"),
        ([raw(224, np.ones(PIXELS), np.ones(256 * 256))], "and a heatmap of 262,144"),
        ([raw(224, np.full(PIXELS, np.nan))], "raw pixels in 0..255 or 0..1, found nan"),
        ([raw(224, np.full(PIXELS, -2.0))], "raw pixels in 0..255 or 0..1, found -2 to -2"),
        ([raw(224, np.full(PIXELS, 300.0))], "found 300 to 300"),
        ([raw(224, np.ones(PIXELS), np.full(224 * 224, np.inf))], "expected a finite heatmap"),
        ([raw(224, np.ones(PIXELS)), raw(256, np.ones(256 * 256 * 3))], "record 1: expected the layout raw 224"),
        ([raw(224, np.ones(PIXELS), label=([1, 2], "int"))], "expected one whole number as label"),
        ([raw(224, np.ones(PIXELS), label=(0.5, "float"))], "expected one whole number as label"),
    ],
)  # fmt: skip
def test_other_records_are_refused(tmp_path, records, found):
    path = write(tmp_path / "a.tfrecords", records)
    with pytest.raises(ValueError, match=found) as caught:
        list(open_clickme(path).records())
    assert str(path) in str(caught.value)


def test_a_heatmap_in_colour_and_a_damaged_one_are_refused(tmp_path):
    picture, spot = drawn(0, 256)
    for heatmap, found in ((jpeg(picture), "one in colour"), (jpeg(spot)[:900], "damaged or truncated")):
        record = {"image": (jpeg(picture), "byte"), "heatmap": (heatmap, "byte")}
        file = open_clickme(write(tmp_path / "a.tfrecords", [record]))
        with pytest.raises(ValueError, match=found):
            list(file.records())


def test_a_record_without_a_label(tmp_path):
    picture, spot = drawn(0, 256)
    record = {"image": (jpeg(picture), "byte"), "heatmap": (jpeg(spot), "byte")}
    file = open_clickme(write(tmp_path / "a.tfrecords", [record]))
    assert [one.label for one in file.records()] == [None]
