"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow and without protobuf.

    file    records one after the other, each: uint64 length, crc of the length, data, crc of the data (little-endian)
    record  a tf.train.Example: a map from names to lists of bytes, of float32 or of int64

A crc is CRC-32C, rotated by 15 bits and raised by a constant; every one is compared. The package crc32c computes it.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np

SUFFIXES = (".tfrecord", ".tfrecords")
_HEAD, _FOOT = 12, 4  # bytes before and behind the data of a record
_MASK = 0xA282EAD8
_GZIP = b"\x1f\x8b"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")

Feature = list[bytes] | np.ndarray  # bytes_list | float_list: float32 (n,) | int64_list: int64 (n,)


class Place(NamedTuple):
    """Where the data of a record lies in its file."""

    offset: int  # bytes
    size: int  # bytes


class Places(NamedTuple):
    """The records of a file."""

    places: list[Place]
    digest: str  # sha256 in hex over the lengths and checksums that the file states: equal for equal records


def is_tfrecord(path: Path | str) -> bool:
    """Whether a file's name says that it holds TFRecords: `.tfrecord`, `.tfrecords`, or TensorFlow's
    `<name>.tfrecord-00000-of-00010`."""
    name = Path(path).name.lower()
    return name.endswith(SUFFIXES) or any(f"{suffix}-" in name for suffix in SUFFIXES)


def record_places(path: Path | str) -> Places:
    """Where each record of a file lies: lengths and their checksums are read, the data are passed over.

    Raises ValueError, naming the file, the record and the byte, for a missing, empty or compressed file, a length whose
    checksum differs, and a record that is longer than the rest of the file.
    """
    path, crc = Path(path), _crc_function()
    if not path.is_file():
        raise ValueError(f"{path}: expected a TFRecord file, found none; check the path.")
    size, offset, places, seen = path.stat().st_size, 0, list[Place](), hashlib.sha256()
    if not size:
        raise ValueError(f"{path}: expected records, found an empty file; fetch it again.")
    with open(path, "rb") as handle:
        while offset < size:
            head = _head(path, handle, len(places), offset, size, crc)
            length = int.from_bytes(head[:8], "little")
            handle.seek(offset + _HEAD + length)
            seen.update(head + handle.read(_FOOT))
            places.append(Place(offset + _HEAD, length))
            offset += _HEAD + length + _FOOT
    return Places(places, seen.hexdigest())


def read_records(path: Path | str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The data of records start..stop (without `stop`: to the end), in the order of the file, both checksums compared.

    Raises ValueError as `record_places`, and for data whose checksum differs.
    """
    path, crc = Path(path), _crc_function()
    places = record_places(path).places
    with open(path, "rb") as handle:
        for number, place in list(enumerate(places))[start:stop]:
            yield read_record(path, handle, number, place, crc)


def read_record(
    path: Path, handle: IO[bytes], number: int, place: Place, crc: Callable[[bytes], int] | None = None
) -> bytes:
    """The data of one record, of an open file; ValueError where they end early or their checksum differs."""
    handle.seek(place.offset)
    data, foot = handle.read(place.size), handle.read(_FOOT)
    if len(data) != place.size or len(foot) != _FOOT:
        found = f"{len(data) + len(foot):,} bytes up to the end of the file"
        raise _broken(path, number, place.offset, f"{place.size + _FOOT:,} bytes", found)
    if (crc or _crc_function())(data) != int.from_bytes(foot, "little"):
        raise _broken(
            path, number, place.offset, f"{place.size:,} bytes of data that fit their checksum", "others"
        )
    return data


def _head(
    path: Path, handle: IO[bytes], number: int, offset: int, size: int, crc: Callable[[bytes], int]
) -> bytes:
    """The length of a record with its checksum: 12 bytes, compared with each other and with the rest of the file."""
    handle.seek(offset)
    head = handle.read(_HEAD)
    if offset == 0 and (head.startswith(_GZIP) or head.startswith(_ZLIB)) and not _fits(head, crc):
        kind = "gzip" if head.startswith(_GZIP) else "zlib"
        raise ValueError(
            f"{path}: expected a plain TFRecord file, found one that {kind} has compressed (byte 0); unpack it once "
            f"({'gunzip' if kind == 'gzip' else 'python: zlib.decompress'})."
        )
    if len(head) < _HEAD:
        raise _broken(path, number, offset, f"the {_HEAD} bytes before its data", f"the last {len(head)}")
    if not _fits(head, crc):
        raise _broken(
            path, number, offset, "a length that fits its checksum", f"{head.hex(' ')}, which does not"
        )
    length = int.from_bytes(head[:8], "little")
    if length > size - offset - _HEAD - _FOOT:
        left = max(size - offset - _HEAD, 0)
        raise _broken(
            path,
            number,
            offset,
            f"{length:,} bytes and a checksum of {_FOOT}",
            f"{left:,} bytes left in the file",
        )
    return head


def _fits(head: bytes, crc: Callable[[bytes], int]) -> bool:
    return len(head) == _HEAD and crc(head[:8]) == int.from_bytes(head[8:], "little")


def _broken(path: Path, number: int, offset: int, expected: str, found: str) -> ValueError:
    return ValueError(
        f"{path}: record {number} (from 0), byte {offset:,}: expected {expected}, found {found}; the file is damaged, "
        "truncated or no TFRecord file: fetch it again."
    )


def _crc_function() -> Callable[[bytes], int]:
    """TFRecord's masked CRC-32C of some bytes."""
    try:
        from crc32c import crc32c
    except ImportError:
        raise ValueError(
            "TFRecord files: expected the package crc32c, which checks them, found none; install it with: "
            "pip install 'alignet[maps]'."
        ) from None

    def masked(data: bytes) -> int:
        plain = crc32c(data)
        return (((plain >> 15) | (plain << 17)) + _MASK) & 0xFFFFFFFF

    return masked


# ---- tf.train.Example


def parse_example(data: bytes, where: str = "record") -> dict[str, Feature]:
    """The features of a serialised tf.train.Example, by name.

    A bytes_list is a list of bytes, a float_list float32 (n,), an int64_list int64 (n,); a feature that holds nothing
    is an empty list. Lists may be packed or not. As protobuf has it, fields that the format does not name are passed
    over, and of a name that stands twice the last counts. where: names the record in errors. Raises ValueError for
    bytes that are no such message: a field beyond the end, a number of more than 10 bytes, a name that is no UTF-8.
    """
    found: dict[str, Feature] = {}
    for features in _parts(_Reader(data, where), 1):
        for entry in _parts(features, 1):
            name, feature = _entry(entry)
            found[name] = feature
    return found


class _Reader:
    """Bytes of a protobuf message, read from the front and never beyond their end."""

    def __init__(self, data: bytes, where: str, start: int = 0, stop: int | None = None):
        self.data, self.where, self.at = data, where, start
        self.stop = len(data) if stop is None else stop

    def fail(self, found: str) -> NoReturn:
        raise ValueError(
            f"{self.where}: expected a tf.train.Example, found {found} at byte {self.at:,} of {len(self.data):,}; "
            "write "
            "the records with tf.train.Example, or fetch the file again."
        )

    def varint(self) -> int:
        """A number of up to 64 bits."""
        value = 0
        for shift in range(0, 70, 7):
            if self.at >= self.stop:
                self.fail("a number that is cut short")
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value & 0xFFFFFFFFFFFFFFFF
        self.fail("a number of more than 10 bytes")

    def take(self, size: int) -> tuple[int, int]:
        """Start and stop of the next `size` bytes."""
        if size > self.stop - self.at:
            self.fail(f"a field of {size:,} bytes where {self.stop - self.at:,} are left")
        self.at += size
        return self.at - size, self.at

    def fields(self) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type, and start and stop of each field's bytes (of a varint: of its own)."""
        while self.at < self.stop:
            tag = self.varint()
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                self.fail(f"a field numbered {number}")
            if wire == 0:
                start = self.at
                self.varint()
                yield number, wire, start, self.at
            elif wire in (1, 5):
                yield number, wire, *self.take(8 if wire == 1 else 4)
            elif wire == 2:
                yield number, wire, *self.take(self.varint())
            else:
                self.fail(f"a field of the unknown type {wire}")


def _parts(reader: _Reader, wanted: int) -> Iterator[_Reader]:
    """The messages that stand as field `wanted`."""
    for number, wire, start, stop in reader.fields():
        if number == wanted:
            if wire != 2:
                reader.fail(f"a field {number} of type {wire} in the place of a message")
            yield _Reader(reader.data, reader.where, start, stop)


def _entry(reader: _Reader) -> tuple[str, Feature]:
    """Name and values of one entry of the map of features."""
    name, feature = "", list[bytes]()  # type: str, Feature
    for number, wire, start, stop in reader.fields():
        if number in (1, 2) and wire != 2:
            reader.fail(f"a field {number} of type {wire} in an entry of the map of features")
        if number == 1:
            try:
                name = reader.data[start:stop].decode("utf-8")
            except UnicodeDecodeError:
                reader.fail("a name of a feature that is no UTF-8")
        elif number == 2:
            feature = _feature(_Reader(reader.data, reader.where, start, stop))
    return name, feature


def _feature(reader: _Reader) -> Feature:
    """The list that a feature holds; of several kinds the last counts."""
    found: Feature = []
    for number, wire, start, stop in reader.fields():
        if number not in (1, 2, 3):
            continue
        if wire != 2:
            reader.fail(f"a field {number} of type {wire} in the place of a list")
        inner = _Reader(reader.data, reader.where, start, stop)
        found = (_bytes, _floats, _integers)[number - 1](inner)
    return found


def _bytes(reader: _Reader) -> Feature:
    values = []
    for number, wire, start, stop in reader.fields():
        if number == 1:
            if wire != 2:
                reader.fail(f"a value of type {wire} in a list of bytes")
            values.append(reader.data[start:stop])
    return values


def _floats(reader: _Reader) -> Feature:
    pieces = [np.empty(0, dtype="<f4")]
    for number, wire, start, stop in reader.fields():
        if number == 1:
            if wire not in (2, 5) or (stop - start) % 4:
                reader.fail(f"{stop - start:,} bytes of type {wire} in a list of floats")
            pieces.append(np.frombuffer(reader.data, dtype="<f4", count=(stop - start) // 4, offset=start))
    return np.concatenate(pieces).astype(np.float32)


def _integers(reader: _Reader) -> Feature:
    values = list[int]()
    for number, wire, start, stop in reader.fields():
        if number != 1:
            continue
        if wire not in (0, 2):
            reader.fail(f"a value of type {wire} in a list of integers")
        inner = _Reader(reader.data, reader.where, start, stop)
        while inner.at < stop:
            values.append(struct.unpack("<q", struct.pack("<Q", inner.varint()))[0])
    return np.array(values, dtype=np.int64)
