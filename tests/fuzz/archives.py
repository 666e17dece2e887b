"""Seeds of archives for tests.fuzz.kinds: shards (.tar), and .npz of data sets, maps and posteriors."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutations import NUMBERS, mutate, seal_tar
from tests.fuzz.pictures import picture_of
from tests.fuzz.reader import MAX_PIXELS, Reader, all_finite, are_arrays, are_triplets, wrong_array


def tar_of(members: Sequence[tuple[str, bytes]], kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar of members; the last has another kind where one is given."""
    handle = io.BytesIO()
    with tarfile.open(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for number, (name, data) in enumerate(members):
            info = tarfile.TarInfo(name)
            if number == len(members) - 1 and kind != tarfile.REGTYPE:
                info.type, info.linkname = kind, link
                archive.addfile(info)
                continue
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return handle.getvalue()


@cache
def _samples() -> list[tuple[str, bytes]]:
    small = picture_of("RGB", "PNG"), picture_of("RGB", "JPEG")
    return [
        ("000.png", small[0]), ("000.cls", b"3"), ("000.json", b'{"label": 3}'), ("a/001.jpg", small[1]),
        ("a/001.cls", b"12"), ("a/001.json", b'{"label": 4}'),
    ]  # fmt: skip


def _made_tar(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return seal_tar(mutate(tar_of(_samples()), chance, False))
    name = chance.choice(
        ("../x.png", "/x.png", "a/../../x.png", "x.png", "000.png", "./../x.png", "x\n.png", ".x.png")
    )
    kind = chance.choice(
        (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
         tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
    )  # fmt: skip
    return tar_of(
        [*_samples(), (name, _samples()[0][1])], kind, chance.choice(("/etc/passwd", "000.png", "../../x"))
    )


def _shards(path: Path) -> tuple[list[str], list[bytes], dict[str, int]]:
    from alignet.data.shards import checksums, list_shards, shard_labels, shard_source

    listing = list_shards(path)
    checksums(listing)
    source, opened = shard_source(path, listing.images), []
    for name in source.ids:
        try:
            opened.append(source.open(name, max_pixels=MAX_PIXELS).tobytes())
        except ValueError as error:  # one damaged image is set aside by its name
            opened.append(str(error).encode())
    try:
        labels = {**shard_labels(path), **shard_labels(path, field="label")}
    except ValueError as error:
        labels = {str(error): -1}
    return list(source.ids), opened, labels


def _lie_within(found: tuple[list[str], list[bytes], dict[str, int]], size: int) -> str:
    for name in found[0]:
        if name.startswith("/") or ".." in name.split("/") or "\n" in name:
            return f"a name that leads out: {name!r}"
    return ""


def zip_of(members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of members."""
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return handle.getvalue()


def npy_bytes(array: np.ndarray) -> bytes:
    """What numpy.save writes."""
    handle = io.BytesIO()
    np.save(handle, array)
    return handle.getvalue()


def npy_of(descr: str, shape: str, data: bytes, order: str = "False") -> bytes:
    """An .npy whose header says what it likes about its data."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode("latin1", "replace")
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(header), 65535)) + header + data


_DESCRS = (
    "'<f4'", "'<f8'", "'<i8'", "'|O'", "'<U7'", "'<U1000000000'", "'|V0'", "'|V8'", "'<M8[ns]'", "'|b1'", "'<c8'",
    "'|S3'",
    "[('a', '<f4')]", "'<i4'", "'>i8'", "'<f2'", "'|u1'", "'bogus'", "None", "('<f4', (2,))", "[('a', '|O')]", "'<U0'",
)  # fmt: skip


_SHAPES = (
    "(4, 3)", "(12,)", "()", "(0, 3)", "(-4, -3)", "(4, True)", "(1000000000000, 3)", "(4, 3, 1)", "(2.0, 3)", "4",
    "(4294967296, 4294967296)",
    "(9223372036854775807, 3)", "(18446744073709551616, 3)", "(None, 3)", "('4', 3)", "(0, 9223372036854775807)",
    "(4,) * 3", "(4, 3,",
)  # fmt: skip


def made_npy(chance: random.Random) -> bytes:
    data = npy_bytes(np.arange(12, dtype=np.int64).reshape(4, 3))[-96:]
    order = chance.choice(("False", "True", "1", "None"))
    made = npy_of(
        chance.choice(_DESCRS), chance.choice(_SHAPES), data[: chance.choice((0, 48, 96, 96))], order
    )
    return mutate(made, chance, False) if chance.random() < 0.2 else made


def _zip_maker(members: Callable[[], dict[str, bytes]]) -> Callable[[random.Random], bytes]:
    """Zips with checksums that fit and something else wrong: a member, its name, its kind, its size."""

    def made(chance: random.Random) -> bytes:
        files = dict(members())
        one = chance.choice(list(files))
        how = chance.randrange(6)
        if how == 0:
            files[one] = mutate(files[one], chance, False)
        elif how == 1:
            files[one] = made_npy(chance)
        elif how == 2:
            files[chance.choice(("../x.npy", "/x.npy", "x.txt", "a/../../x.npy", "x.npy", ".npy"))] = files[
                one
            ]
        elif how == 3:
            files.pop(one)
        packed = zip_of(
            files,
            chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)),
        )
        if how == 4:  # sizes in the directory that lie
            place = packed.find(b"PK\x01\x02") + chance.choice((20, 24))
            packed = packed[:place] + struct.pack("<I", chance.choice(NUMBERS) % 2**32) + packed[place + 4 :]
        return packed

    return made


def bomb(megabytes: int) -> bytes:
    """A zip whose one member unpacks to so many megabytes of zeros, which its header announces."""
    size = megabytes << 20
    head = npy_of("'<f4'", f"({size // 4},)", b"")
    handle = io.BytesIO()
    with (
        zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("weights.npy", "w", force_zip64=True) as member,
    ):
        member.write(head)
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
    return handle.getvalue()


def _read_npz(path: Path) -> Any:
    from alignet.data.npy import read_npz

    return read_npz(path)


_IDS = [f"img{number}.png" for number in range(6)]


TRIPLETS = np.array([[0, 1, 2], [3, 4, 5], [1, 3, 0], [2, 5, 4]], dtype=np.int64)


@cache
def _dataset() -> dict[str, bytes]:
    sims = np.array([[2, 1, 0], [3, 1, 2], [5, 4, 3], [1, 0.5, -1]], dtype=np.float32)
    names = np.array(_IDS)[TRIPLETS]
    return {
        "filenames.npy": npy_bytes(names),
        "similarities.npy": npy_bytes(sims),
        "indices.npy": npy_bytes(TRIPLETS),
    }


def _load_dataset(path: Path) -> Any:
    from alignet.data.alignet_npz import load_dataset

    found = load_dataset(path, _IDS, missing="drop", order="as_is")
    return {"triplets": found.triplets, "similarities": found.similarities}


@cache
def _map() -> dict[str, bytes]:
    one = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    arrays = {"weights": one, "bias": one[0], "mean": np.float32(0.5), "std": np.float32(2)}
    return {f"{name}.npy": npy_bytes(np.asarray(array)) for name, array in arrays.items()}


def _load_map(path: Path) -> Any:
    from alignet.teacher.affine_map import AffineMap

    found = AffineMap.load_npz(path)
    return {name: getattr(found, name).numpy() for name in ("weights", "bias", "mean", "std")}


@cache
def _posterior() -> dict[str, bytes]:
    loc = np.abs(np.random.default_rng(0).normal(size=(6, 2))).astype(np.float32)
    return {"loc.npy": npy_bytes(loc), "scale.npy": npy_bytes(loc / 10)}


def read_embedding(path: Path) -> Any:
    from alignet.data.embeddings import load_embedding

    found = load_embedding(path, 6)
    return {"loc": found.loc} | ({} if found.scale is None else {"scale": found.scale})


@cache
def _inverted() -> dict[str, bytes]:
    images = np.arange(2 * 2 * 12, dtype=np.uint8).reshape(2, 2, 3, 2, 2)
    errors = np.array([[0.01, 0.02], [0.03, 0.2]])
    arrays = {
        "image": images[:, 0], "seed": images, "inverted": (images / 255).astype(np.float32), "inverted8": images,
        "error": errors, "error8": 2 * errors, "begin": 10 * errors, "steps": np.array([[3, 4], [5, 9]]),
        "label": np.array([-1, -1]), "box": np.tile([0.0, 0, 1, 1], (2, 1)), "layer": np.array(""),
        "regulariser": np.array("free"), "distance": np.array(""), "weight": np.array(0.0),
    }  # fmt: skip
    return {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}


def _load_inverted(path: Path) -> Any:
    from alignet.evaluate.families.invariance_read import ids_of, read_inverted
    from tests.makers.inverted import material

    path.with_name("ids-00000.txt").write_text("a\nb\n")
    given = material({"invert": path.parent})
    found = read_inverted(given, "invert", None)
    if ids_of(given, "invert") != found.ids:
        raise AssertionError("ids and rows differ")
    return {"error": found.error, "error8": found.error8, "begin": found.begin, "steps": found.steps}


def _are_errors(found: dict[str, np.ndarray], size: int) -> str:
    shapes = {one.shape for one in found.values()}
    least = min(found[name].min(initial=0) for name in ("error", "error8", "begin"))
    good = len(shapes) == 1 and next(iter(shapes))[0] == 2 and least >= 0
    return all_finite(found, size) or ("" if good else f"no errors of two images but {shapes}")


@cache
def _distances() -> dict[str, bytes]:
    every = np.array([[[0.1, 0.5], [0.2, 0.4]], [[0.6, 0.3], [0.7, 0.2]]], np.float32)
    arrays = {
        "to_target": np.stack([every[row, :, row] for row in range(2)]), "to_targets": every,
        "to_seed": np.array([[0.3, 0.2], [0.1, 0.9]], np.float32), "optimised": np.array(False),
        "between_targets": np.array([[0, 1], [1, 0]], np.float32),
    }  # fmt: skip
    return {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}


def _load_distances(path: Path) -> Any:
    from alignet.evaluate.families.invariance_read import read_distances

    found = read_distances(path)
    return {name: getattr(found, name) for name in ("to_target", "to_seed", "to_targets")}


def _are_distances(found: dict[str, np.ndarray], size: int) -> str:
    (n, k), every = found["to_target"].shape, found["to_targets"].shape
    good = found["to_seed"].shape == (n, k) and every == (n, k, n)
    good &= all((one >= 0).all() for one in found.values())
    return all_finite(found, size) or ("" if good else f"no distances but {n, k} and {every}")


def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind that is here, with its reader."""
    dataset = lambda found, size: are_triplets(found["triplets"], 6) or wrong_array(found["similarities"])  # noqa: E731
    if kind == "tar":
        return (Reader("a.tar", tar_of(_samples()), _shards, _lie_within, made=_made_tar),)
    if kind == "npz":
        return (
            Reader("a.npz", zip_of(_dataset()), _read_npz, are_arrays, sealed=True, made=_zip_maker(_dataset)),
            Reader("a.npz", zip_of(_dataset()), _load_dataset, dataset, sealed=True, made=_zip_maker(_dataset)),
            Reader("a.npz", zip_of(_map()), _load_map, all_finite, sealed=True, made=_zip_maker(_map)),
            Reader("a.npz", zip_of(_posterior(), zipfile.ZIP_STORED), read_embedding, all_finite, sealed=True,
                   made=_zip_maker(_posterior)),
            Reader("invert-00000.npz", zip_of(_inverted(), zipfile.ZIP_STORED), _load_inverted, _are_errors,
                   made=_zip_maker(_inverted)),
            Reader("pixels.npz", zip_of(_distances(), zipfile.ZIP_STORED), _load_distances, _are_distances,
                   made=_zip_maker(_distances)),
        )  # fmt: skip
    return ()
