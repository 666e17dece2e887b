"""What is fuzzed: valid files of every kind, how each is read, and what must hold of whatever a reader accepts.

kind -> Reader (seed file, read, holds, sealed) -> tests.fuzz

`sealed`: the format has checksums, so bytes that changed are refused or do not matter: what is accepted is equal to
what the seed held. Otherwise what is accepted has the stated shape and range.
"""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_mutations import NUMBERS, mutate, seal_png, seal_tar
from PIL import Image

MAX_PIXELS = 1_000_000


@dataclass(frozen=True)
class Reader:
    """A seed and its reader. read: path -> what it holds. holds: of what was read, '' or what is wrong with it."""

    file: str  # its name, whose suffix counts
    seed: bytes
    read: Callable[[Path], Any]
    holds: Callable[[Any, int], str]  # given the size of the file in bytes
    text: bool = False
    sealed: bool = False
    made: Callable[[random.Random], bytes] | None = (
        None  # an input made from nothing, in a third of the cases
    )


def input_of(reader: Reader, chance: random.Random) -> tuple[bytes, str]:
    """The bytes of one input, and what became of the seed: `as it is`, `mutated`, `made`."""
    share = chance.random()
    if share < 0.01:
        return reader.seed, "as it is"
    if reader.made is not None and share < 0.34:
        return reader.made(chance), "made"
    return mutate(reader.seed, chance, reader.text), "mutated"


def _array(values: Any, finite: bool = True) -> str:
    if not isinstance(values, np.ndarray) or values.dtype.hasobject:
        return f"no plain array but {type(values).__name__}"
    return "" if not finite or values.dtype.kind != "f" or np.isfinite(values).all() else "NaN or infinity"


# ---- images


def _pixels(path: Path) -> np.ndarray:
    from alignet.data.pixels import open_image

    return np.asarray(open_image(path, max_pixels=MAX_PIXELS))


def _is_picture(found: np.ndarray, size: int) -> str:
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
        return f"no RGB picture but {found.dtype} {found.shape}"
    return "" if 0 < found.shape[0] * found.shape[1] <= MAX_PIXELS else f"{found.shape} pixels"


def _picture(mode: str, format: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((40, 30))
    if mode == "I;16":
        image = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (30, 40)).astype(np.uint16))
    elif mode == "F":
        image = Image.fromarray(np.random.default_rng(1).random((30, 40), np.float32))
    elif mode != "RGB":
        image = image.convert(mode)
    handle = io.BytesIO()
    image.save(handle, format, **options)
    return handle.getvalue()


def _tiff(**options: Any) -> bytes:
    import tifffile

    handle = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 65536, (20, 16, 5)).astype(np.uint16)
    tifffile.imwrite(handle, values, planarconfig="contig", photometric="minisblack", **options)
    return handle.getvalue()


def _bands(path: Path) -> np.ndarray:
    from alignet.data.pixels import PixelPolicy, open_image

    policy = PixelPolicy(range=(0, 65535), bands=(0, 2, 4))
    return np.asarray(open_image(path, max_pixels=MAX_PIXELS, policy=policy))


def png_of(
    width: int, height: int, packed: bytes, depth: int = 8, colour: int = 2, extra: bytes = b""
) -> bytes:
    """A PNG whose header says what it likes about its packed pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def _made_png(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return seal_png(mutate(_picture(chance.choice(("RGB", "RGBA", "P", "L")), "PNG"), chance, False))
    sides = [chance.choice((1, 7, 1000, 1001, 30_000, 2**31 - 1)) for _ in range(2)]
    packed = zlib.compress(bytes(chance.choice((0, 100, 4_000_000))), 1)
    return png_of(*sides, packed, chance.choice((1, 2, 8, 16)), chance.choice((0, 2, 3, 4, 6)))


# ---- archives


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
    small = _picture("RGB", "PNG"), _picture("RGB", "JPEG")
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


def _made_npy(chance: random.Random) -> bytes:
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
            files[one] = _made_npy(chance)
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


def _are_arrays(found: dict[str, np.ndarray], size: int) -> str:
    return next((wrong for array in found.values() if (wrong := _array(array, finite=False))), "")


_IDS = [f"img{number}.png" for number in range(6)]
_TRIPLETS = np.array([[0, 1, 2], [3, 4, 5], [1, 3, 0], [2, 5, 4]], dtype=np.int64)


@cache
def _dataset() -> dict[str, bytes]:
    sims = np.array([[2, 1, 0], [3, 1, 2], [5, 4, 3], [1, 0.5, -1]], dtype=np.float32)
    names = np.array(_IDS)[_TRIPLETS]
    return {
        "filenames.npy": npy_bytes(names),
        "similarities.npy": npy_bytes(sims),
        "indices.npy": npy_bytes(_TRIPLETS),
    }


def _load_dataset(path: Path) -> Any:
    from alignet.data.alignet_npz import load_dataset

    found = load_dataset(path, _IDS, missing="drop", order="as_is")
    return {"triplets": found.triplets, "similarities": found.similarities}


def _are_triplets(triplets: np.ndarray, objects: int) -> str:
    if triplets.ndim != 2 or triplets.shape[1] != 3 or not len(triplets) or triplets.dtype != np.int64:
        return f"no triplets but {triplets.dtype} {triplets.shape}"
    if triplets.min() < 0 or triplets.max() >= objects:
        return f"objects {triplets.min()}..{triplets.max()}"
    return "" if all(len(set(row)) == 3 for row in triplets.tolist()) else "an object twice"


@cache
def _map() -> dict[str, bytes]:
    one = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    arrays = {"weights": one, "bias": one[0], "mean": np.float32(0.5), "std": np.float32(2)}
    return {f"{name}.npy": npy_bytes(np.asarray(array)) for name, array in arrays.items()}


def _load_map(path: Path) -> Any:
    from alignet.distill import AffineMap

    found = AffineMap.load_npz(path)
    return {name: getattr(found, name).numpy() for name in ("weights", "bias", "mean", "std")}


@cache
def _posterior() -> dict[str, bytes]:
    loc = np.abs(np.random.default_rng(0).normal(size=(6, 2))).astype(np.float32)
    return {"loc.npy": npy_bytes(loc), "scale.npy": npy_bytes(loc / 10)}


def _load_embedding(path: Path) -> Any:
    from alignet.data.embeddings import load_embedding

    found = load_embedding(path, 6)
    return {"loc": found.loc} | ({} if found.scale is None else {"scale": found.scale})


def _all_finite(found: dict[str, np.ndarray], size: int) -> str:
    return next((wrong for array in found.values() if (wrong := _array(array))), "")


# ---- arrays and text


def _read_npy(path: Path) -> np.ndarray:
    from alignet.data.npy import read_npy

    first, second = read_npy(path), read_npy(path, memory_map=True)
    if first.tobytes() != np.asarray(second).tobytes():
        raise AssertionError("the view of the file and its copy differ")
    return first


def _fills_file(found: np.ndarray, size: int) -> str:
    wrong = _array(found, finite=False)
    return wrong or ("" if 0 <= size - found.nbytes <= 70_000 else f"{found.nbytes} bytes out of {size}")


def _triplets_reader(**options: Any) -> Callable[[Path], np.ndarray]:
    def read(path: Path) -> np.ndarray:
        from alignet.data.triplets import load_triplets

        return load_triplets(path, objects=7, **options)

    return read


def _load_features(path: Path) -> Any:
    from alignet.data.features import load_features

    ids = path.with_name("ids.txt")
    ids.write_text("a\nb\nc\nd\n")
    return {"values": load_features(path, ids).values}


def _concepts(path: Path) -> Any:
    from alignet.data.concepts import load_concepts

    return load_concepts(path)


def _are_concepts(found: Any, size: int) -> str:
    names = [one.unique_id for one in found]
    good = (
        [one.index for one in found] == list(range(len(found)))
        and len(set(names)) == len(names)
        and all(names)
    )
    return "" if good else "concepts out of order or twice"


def _column(path: Path) -> Any:
    from alignet.data.tables import column_for

    return column_for(path, ["a", "b", "c"], "label")


def _hierarchy(path: Path) -> Any:
    from alignet.data.hierarchy import table_hierarchy

    return table_hierarchy(
        path, class_="unique_id", basic="unique_id", superordinate="category", merge={}
    ).superordinate


def _hypernyms(path: Path) -> Any:
    from alignet.data.hierarchy import wordnet_hierarchy

    names = [f"n{100 + 10 * number:08}" for number in range(4)]
    return wordnet_hierarchy(path, names, basic={"dog": names[2]}, superordinate={"animal": names[1]}).basic


def _noun() -> bytes:
    lines = ["  1 This software and database is being provided to you."]
    for number in range(4):
        above = f"001 @ {90 + 10 * number:08} n 0000" if number else "000"
        lines.append(f'{100 + 10 * number:08} 03 n 02 word{number} 0 other 1 {above} | a thing; "it is"  ')
    return ("\n".join(lines) + "\n").encode()


def _judged(**options: Any) -> Callable[[Path], np.ndarray]:
    def read(path: Path) -> np.ndarray:
        from alignet.data.judgements import load_judgements

        return load_judgements(
            path, **({"format": "matrix", "kind": "similarity", "images": 4} | options)
        ).similarity

    return read


def _is_similarity(found: np.ndarray, size: int) -> str:
    wrong = _array(found)
    return wrong or (
        ""
        if found.shape == (4, 4) and np.abs(found - found.T).max() <= 2e-5 * np.abs(found).max()
        else f"{found.shape}, not symmetric"
    )


@cache
def _square() -> np.ndarray:
    raw = np.random.default_rng(0).random((4, 4))
    return np.round((raw + raw.T) / 2, 3)


def _csv_square() -> bytes:
    return "\n".join(",".join(map(str, row)) for row in _square().tolist()).encode() + b"\n"


def _mat(**arrays: Any) -> Callable[..., bytes]:
    def made(packed: bool = True) -> bytes:
        from scipy.io import savemat

        handle = io.BytesIO()
        savemat(handle, arrays, do_compression=packed)
        return handle.getvalue()

    return made


def _mat73() -> bytes:
    import h5py

    handle = io.BytesIO()
    with h5py.File(handle, "w") as file:
        for name, values in {"m": _square(), "packed": _square()}.items():
            data = file.create_dataset(name, data=values, compression="gzip" if name == "packed" else None)
            data.attrs["MATLAB_class"] = np.bytes_("double")
    raw = handle.getvalue()
    return raw


def _read_mat73(path: Path) -> Any:
    from alignet.data.matlab import _read_hdf5

    return _read_hdf5(path)


def _read_mat(path: Path) -> Any:
    from alignet.data.matlab import read_mat

    return read_mat(path)


# ---- people


def _rows_of_trials() -> list[dict[str, object]]:
    names = [f"c{number}.jpg" for number in range(6)]
    rows: list[dict[str, object]] = []
    for person in ("p1", "p2"):
        for number, level in enumerate(("between_class", "within_class", "class_border")):
            three = names[number : number + 3]
            rows.append({"participant": person, "trial": number, "image1Path": three[0], "image2Path": three[1],
                         "image3Path": three[2], "selected_image": three[number], "triplet_type": level,
                         "exp_trial_type": "exp_trial", "rt": 900.5 + number})  # fmt: skip
        rows.append({"participant": person, "trial": 3, "image1Path": names[0], "image2Path": names[0],
                     "image3Path": names[1], "selected_image": names[1], "triplet_type": "",
                     "exp_trial_type": "catch_trial", "rt": 700})  # fmt: skip
    return rows


def _trials_csv() -> bytes:
    rows = _rows_of_trials()
    return (
        "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]).encode() + b"\n"
    )


def _trials_parquet() -> bytes:
    import pandas as pd

    handle = io.BytesIO()
    pd.DataFrame(_rows_of_trials()).astype({"rt": float}).to_parquet(handle)
    return handle.getvalue()


def _trials(path: Path) -> Any:
    from alignet.data.levels import tidy
    from alignet.data.trials import read_trials

    found = read_trials(path)
    tidied = tidy(found, catch_accuracy=0.5, max_misses=10, slow_ms=10000, shared_sets="all")
    return found.shown, found.selected, found.rt, dict(tidied.triplets)


def _are_trials(found: Any, size: int) -> str:
    shown, selected, rt, triplets = found
    good = (
        shown.shape == (len(selected), 3)
        and ((selected >= -1) & (selected < 3)).all()
        and (rt[selected >= 0] > 0).all()
    )
    return (
        ""
        if good and np.isfinite(rt[selected >= 0]).all() and len(triplets["level"])
        else "trials out of range"
    )


def _nights(path: Path) -> Any:
    from alignet.data.nights import load_nights

    return load_nights(path, split="test", min_votes=6, is_imagenet=None).pictures


_NIGHTS = (
    b"id,prompt,choice,unused,reference,first,second,votes,split,is_imagenet\n"
    b'0,"a dog, running",1,0,ref/0.png,d/0_0.png,d/0_1.png,6,test,True\n'
    b'1,"a cat",0,0,ref/1.png,d/1_0.png,d/1_1.png,7,test,False\n2,x,1,0,ref/2.png,d/2_0.png,d/2_1.png,5,train,True\n'
)


def _split(path: Path) -> Any:
    from alignet.data.breeds import load_split

    return load_split(path)


_SPLIT = ("superclass,subclass,domain\n" + "".join(
    f"s{one},s{one}{domain}{number},{domain}\n" for one in "ab"
    for domain in ("source", "target") for number in range(2)
)).encode()  # fmt: skip


def _real(path: Path) -> Any:
    from alignet.data.imagenet import load_real

    return load_real(path, 10)


@cache
def _survey() -> Any:
    from alignet.survey.plan import plan_survey

    triplets = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 3, 4]])
    different = np.ones((5, 5))
    planned = plan_survey(
        [f"{name}.png" for name in "abcde"],
        triplets,
        different=different,
        trials=4,
        catch=1,
        practice=1,
        seed=0,
    )
    return planned


def _survey_bytes() -> bytes:
    from dataclasses import asdict

    from alignet.survey.plan import FORMAT

    return json.dumps({"format": FORMAT, "version": 1, **asdict(_survey()), "id": "s1"}).encode()


def _load_survey(path: Path) -> Any:
    from alignet.survey.plan import load_survey

    return load_survey(path)


def _sheet_bytes() -> bytes:
    from alignet.survey.answers import FORMAT

    places = {}
    for number, one in enumerate(_survey().pictures):
        places.setdefault(one, number)
    trials = [
        {"pictures": [places[one] for one in row], "choice": 1, "rt": 800.5} for row in _survey().triplets
    ]
    content = {"format": FORMAT, "version": 1, "survey": "s1", "participant": "0" * 32, "complete": False}
    return json.dumps({**content, "trials": trials}).encode()


def _sheet(path: Path) -> Any:
    from dataclasses import replace

    from alignet.survey.answers import read_sheet

    return read_sheet(path, {"s1": replace(_survey(), id="s1")})


def _are_answers(found: Any, size: int) -> str:
    good = all(trial.place in (0, 1, 2) and 0 <= trial.rt < float("inf") for trial in found.trials)
    return "" if good else "answers out of range"


# ---- the store, weights and configuration


def _safetensors() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)}, {"state": "{}"})


def _weights(path: Path) -> Any:
    from alignet.backbones.weights import read_weights

    return {name: tensor.float().numpy() for name, tensor in read_weights(path, "a model").items()}


def _checkpoint(path: Path) -> Any:
    from alignet.checkpoints import Checkpoints

    folder = path.parent / "checkpoints"
    folder.mkdir(exist_ok=True)
    path.replace(folder / path.name)
    found = Checkpoints(folder).latest()
    return {} if found is None else {name: tensor.float().numpy() for name, tensor in found[1].items()}


def _checkpoint_bytes() -> bytes:
    from safetensors.numpy import save

    return save({"a": np.ones((2, 3), np.float32)}, {"state": '{"lr": 0.1}', "step": "5"})


def _identity() -> Any:
    from alignet.artifacts import Identity

    return Identity("vice", "", 1, {"lr": 0.1}, {"a": "f" * 64})


def _manifest_bytes() -> bytes:
    from alignet.artifacts import fingerprint

    sums = {"data.txt": "239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5"}  # of `payload`
    manifest = {
        "identity": _identity().as_dict(), "fingerprint": _identity().fingerprint,
        "files": {name: {"size": 7, "sha256": one} for name, one in sums.items()}, "digest": fingerprint(sums),
        "built_from": {"a": "f" * 64}, "metrics": {"figure": 1.5}, "provenance": {"seconds": 1},
    }  # fmt: skip
    return json.dumps(manifest | {"checksum": fingerprint(manifest)}, indent=1).encode()


def _store(path: Path) -> Any:
    """The mutated manifest in its place; everything that is asked of a manifest elsewhere."""
    from alignet.artifacts import Store

    store = Store(path.parent / "store")
    folder = store.folder(_identity())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.txt").write_text("payload")
    (folder / "MANIFEST.json").write_bytes(path.read_bytes())
    store.all("vice")
    found = store.find(_identity())
    assert found is not None
    found.verify()
    return (
        found.digest,
        found.size,
        found.file("data.txt").name,
        dict(found.metrics),
        dict(found.manifest["built_from"]),
    )


def _is_artifact(found: Any, size: int) -> str:
    return "" if found[1] == 7 else f"{found[1]} bytes of payload"


def _index_cache(path: Path) -> Any:
    from alignet.data.index import scan

    folder = path.parent / "images"
    folder.mkdir(exist_ok=True)
    (folder / "a.png").write_bytes(b"x")
    text = path.read_bytes().replace(b"@ROOT@", str(folder.absolute()).encode())
    path.write_bytes(text)
    return scan(folder, cache=path).sizes


def _config(path: Path) -> Any:
    """The mutated text as overrides, one a line, of the shipped configuration."""
    from alignet.cli import explain, load

    try:
        overrides = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8") from error
    return _told(lambda: load([one for one in overrides if one]), explain)


def _conf_file(path: Path) -> Any:
    """The mutated text as conf/experiment/fuzzed.yaml of a configuration folder of its own."""
    import shutil

    from alignet import cli

    folder = path.parent / "conf"
    if not folder.exists():
        shutil.copytree(cli.conf_folder(), folder)
    (folder / "experiment" / "fuzzed.yaml").write_bytes(path.read_bytes())
    usual = cli.conf_folder
    cli.conf_folder = lambda: folder
    try:
        return _told(lambda: cli.load(["experiment=fuzzed", "paths.photos=photos"]), cli.explain)
    finally:
        cli.conf_folder = usual


def _told(act: Callable[[], Any], explain: Callable[..., str | None]) -> Any:
    """What `act` gives; ValueError with the one message that a command line would end with."""
    try:
        return act()
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        raise ValueError(f"expected a configuration: {message}") from None


def _any(found: Any, size: int) -> str:
    return ""


_OVERRIDES = (
    b"experiment=world\nseed=3\nvice.settings.lr=0.01\nruntime.threads=1\nfinetune.settings.flip=0.25\n"
    b"cluster.grid=[2,3,4]\nbaselines={}\npaths.artifacts=/tmp/x,y\nrole=finetune[alignet]\nembed.precision=float16\n"
)
_CONCEPTS = (
    b"index,unique_id,category,photo,split\n"
    b"0,dog,animal,dog.jpg,train\n1,cat,animal,cat.jpg,tune\n2,car,,,report\n"
)
_THINGS = (
    b"subject_id\timage1\timage2\timage3\tchoice\tnoise_ceiling\n"
    b"s1\t1\t2\t3\t1\t0\ns2\t4\t5\t6\t2\t0\ns3\t1\t3\t7\t3\t1\n"
)


@cache
def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind, with its reader."""
    triplets = lambda found, size: _are_triplets(found, 7)  # noqa: E731
    dataset = lambda found, size: _are_triplets(found["triplets"], 6) or _array(found["similarities"])  # noqa: E731
    if kind == "jpeg":
        return tuple(
            Reader("a.jpg", _picture(mode, "JPEG", **more), _pixels, _is_picture)
            for mode, more in (("RGB", {}), ("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}))
        )
    if kind == "png":
        return tuple(
            Reader("a.png", _picture(mode, "PNG"), _pixels, _is_picture, sealed=True, made=_made_png)
            for mode in ("RGB", "RGBA", "P", "L", "1", "LA", "I;16")
        )
    if kind == "image":
        plain = [
            ("a.webp", "WEBP", {}),
            ("a.webp", "WEBP", {"lossless": True}),
            ("a.bmp", "BMP", {}),
            ("a.png", "GIF", {}),
        ]
        return (
            *(Reader(name, _picture("RGB", what, **more), _pixels, _is_picture) for name, what, more in plain),
            *(Reader("a.tif", _picture(mode, "TIFF", **more), _pixels, _is_picture)
              for mode, more in (("RGB", {}), ("RGB", {"compression": "tiff_adobe_deflate"}), ("I;16", {}))),
            Reader("a.tif", _picture("RGB", "TIFF", compression="tiff_lzw"), _pixels, _is_picture),
            Reader("a.tif", _tiff(), _bands, _is_picture),
            Reader("a.tif", _tiff(compression="zlib"), _bands, _is_picture),
            Reader("a.tif", _picture("F", "TIFF"), _bands_of_one, _is_picture),
        )  # fmt: skip
    if kind == "tar":
        return (Reader("a.tar", tar_of(_samples()), _shards, _lie_within, made=_made_tar),)
    if kind == "npz":
        return (
            Reader("a.npz", zip_of(_dataset()), _read_npz, _are_arrays, sealed=True, made=_zip_maker(_dataset)),
            Reader("a.npz", zip_of(_dataset()), _load_dataset, dataset, sealed=True, made=_zip_maker(_dataset)),
            Reader("a.npz", zip_of(_map()), _load_map, _all_finite, sealed=True, made=_zip_maker(_map)),
            Reader("a.npz", zip_of(_posterior(), zipfile.ZIP_STORED), _load_embedding, _all_finite, sealed=True,
                   made=_zip_maker(_posterior)),
        )  # fmt: skip
    if kind == "npy":
        floats = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        six = np.abs(np.tile(floats, (2, 1)))[:6]
        last: Any = {"index_base": 0, "odd_one": "last"}
        return (
            Reader("a.npy", npy_bytes(floats), _read_npy, _fills_file, made=_made_npy),
            Reader("a.npy", npy_bytes(_TRIPLETS), _triplets_reader(**last), triplets, made=_made_npy),
            Reader(
                "a.npy", npy_bytes(floats.astype(np.float16)), _load_features, _all_finite, made=_made_npy
            ),
            Reader(
                "a.npy",
                npy_bytes(six),
                _load_embedding,
                _all_finite,
                made=_made_npy,
            ),
            Reader("a.npy", npy_bytes(_square()), _judged(), _is_similarity, made=_made_npy),
        )
    if kind == "csv":
        choice: Any = {"index_base": 1, "odd_one": "choice", "where": {"noise_ceiling": [0, 1]}}
        return (
            Reader("a.csv", _THINGS, _triplets_reader(**choice), triplets, text=True),
            Reader("a.csv", _CONCEPTS, _concepts, _are_concepts, text=True),
            Reader("a.tsv", b"Word\tuniqueID\nDog\tdog\nCat\tcat\n", _concepts, _are_concepts, text=True),
            Reader("a.csv", _CONCEPTS, _hierarchy, _any, text=True),
            Reader("a.csv", b'id,label\na,"x, y"\nb,2\nc,z\n', _column, _any, text=True),
            Reader("a.csv", _csv_square(), _judged(), _is_similarity, text=True),
            Reader("a.csv", _trials_csv(), _trials, _are_trials, text=True),
            Reader("a.csv", _NIGHTS, _nights, _any, text=True),
            Reader("a.csv", _SPLIT, _split, _any, text=True),
        )
    if kind == "text":
        rows = b"0 1 2\n3 4 5\n6 1 0\n"
        return (
            Reader("a.txt", rows, _triplets_reader(index_base=0, odd_one="last"), triplets, text=True),
            Reader(
                "a.txt",
                rows.replace(b" ", b","),
                _triplets_reader(index_base=0, odd_one="first"),
                triplets,
                text=True,
            ),
            Reader("data.noun", _noun(), _hypernyms, _any, text=True),
            Reader("ids.txt", b"a\nb\nc\n", _ids, _any, text=True),
        )
    if kind == "json":
        cached = b'{"format": 1, "root": "@ROOT@", "files": {"a.png": [1, 5, "abc", ""]}}'
        return (
            Reader("real.json", b"[[1, 2], [], [9]]", _real, _any, text=True),
            Reader("survey.json", _survey_bytes(), _load_survey, _any, text=True),
            Reader("sheet.json", _sheet_bytes(), _sheet, _are_answers, text=True),
            Reader(
                "seen.json",
                cached,
                _index_cache,
                lambda found, size: "" if found == (1,) else str(found),
                text=True,
            ),
            Reader("MANIFEST.json", _manifest_bytes(), _store, _is_artifact, text=True),
        )
    if kind == "mat":
        structs = _mat(BEHAVIOR={"set1": {"pairwisedistances": _square()}}, other=np.arange(3))
        one = _mat(m=_square())
        return (
            Reader("a.mat", one(), _judged(), _is_similarity), Reader("a.mat", one(False), _judged(), _is_similarity),
            Reader("a.mat", structs(), _read_mat, _are_arrays), Reader("a.mat", _mat73(), _read_mat73, _are_arrays),
        )  # fmt: skip
    if kind == "parquet":
        return (Reader("a.parquet", _trials_parquet(), _trials, _are_trials),)
    if kind == "weights":
        return (
            Reader("a.safetensors", _safetensors(), _weights, _are_arrays),
            Reader("5.safetensors", _checkpoint_bytes(), _checkpoint, _are_arrays),
        )
    if kind == "yaml":
        from alignet.cli import conf_folder

        files = [(conf_folder() / "experiment" / f"{name}.yaml").read_bytes() for name in ("world", "photos")]
        return (
            Reader("overrides.txt", _OVERRIDES, _config, _any, text=True),
            *(Reader("fuzzed.yaml", data, _conf_file, _any, text=True, made=_made_yaml) for data in files),
        )
    raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")


def _ids(path: Path) -> Any:
    from alignet.data.features import read_ids

    return read_ids(path)


def _bands_of_one(path: Path) -> np.ndarray:
    from alignet.data.pixels import PixelPolicy, open_image

    return np.asarray(open_image(path, max_pixels=MAX_PIXELS, policy=PixelPolicy(range=(0, 1))))


def _made_yaml(chance: random.Random) -> bytes:
    """YAML that loaders of more trust fall for: aliases upon aliases, tags that name code, depth, cycles."""
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    evil = (
        "a0: &a0 [lol, lol]\n" + levels, "x: !!python/object/apply:os.system ['touch /tmp/fuzzed']\n",
        "seed: !!python/name:os.system\n", "x: &x [*x]\n", "seed: ${oc.env:HOME}\n", "seed: ${seed}\n", "- 1\n- 2\n",
        "seed: ${oc.decode:'${seed}'}\n", "x: " + "[" * 2000 + "]" * 2000 + "\n", "seed: 0x1F\n", "seed: 1_0\n",
        "? [a]\n: b\n",
        "vice: null\nworld: null\n", "defaults: [../../../etc/passwd]\n",
        "defaults:\n - /experiment: fuzzed\n", "<<: *x\n",
        "hydra: {run: {dir: /tmp/fuzzed}}\n", "data: {sets: {x: {kind: exec, path: /}}}\n", "seed: .nan\n",
        "seed: 1e400\n",
    )  # fmt: skip
    return ("# @package _global_\n" + chance.choice(evil)).encode()


KINDS = (
    "jpeg",
    "png",
    "image",
    "tar",
    "npz",
    "npy",
    "csv",
    "text",
    "json",
    "mat",
    "parquet",
    "weights",
    "yaml",
)
# of 100 inputs; a configuration takes a hundred times as long to compose as an array to read
SHARES = {"jpeg": 10, "png": 12, "image": 8, "tar": 10, "npz": 14, "npy": 14, "csv": 13, "text": 6, "json": 6, "mat": 3,
          "parquet": 2, "weights": 1.5, "yaml": 0.5}  # fmt: skip
