"""Seeds of arrays, tables and text for tests.fuzz.kinds: .npy, .csv, .txt, MATLAB files."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.archives import TRIPLETS, made_npy, npy_bytes, read_embedding
from tests.fuzz.reader import Reader, all_finite, are_arrays, are_triplets, nothing_wrong, wrong_array


def _read_npy(path: Path) -> np.ndarray:
    from alignet.data.npy import read_npy

    first, second = read_npy(path), read_npy(path, memory_map=True)
    if first.tobytes() != np.asarray(second).tobytes():
        raise AssertionError("the view of the file and its copy differ")
    return first


def _fills_file(found: np.ndarray, size: int) -> str:
    wrong = wrong_array(found, finite=False)
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
    wrong = wrong_array(found)
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


_CONCEPTS = (
    b"index,unique_id,category,photo,split\n"
    b"0,dog,animal,dog.jpg,train\n1,cat,animal,cat.jpg,tune\n2,car,,,report\n"
)


_THINGS = (
    b"subject_id\timage1\timage2\timage3\tchoice\tnoise_ceiling\n"
    b"s1\t1\t2\t3\t1\t0\ns2\t4\t5\t6\t2\t0\ns3\t1\t3\t7\t3\t1\n"
)


def _ids(path: Path) -> Any:
    from alignet.data.features import read_ids

    return read_ids(path)


def readers(kind: str) -> tuple[Reader, ...]:
    """Every seed of a kind that is here, with its reader."""
    triplets = lambda found, size: are_triplets(found, 7)  # noqa: E731
    if kind == "npy":
        floats = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
        six = np.abs(np.tile(floats, (2, 1)))[:6]
        last: Any = {"index_base": 0, "odd_one": "last"}
        return (
            Reader("a.npy", npy_bytes(floats), _read_npy, _fills_file, made=made_npy),
            Reader("a.npy", npy_bytes(TRIPLETS), _triplets_reader(**last), triplets, made=made_npy),
            Reader("a.npy", npy_bytes(floats.astype(np.float16)), _load_features, all_finite, made=made_npy),
            Reader(
                "a.npy",
                npy_bytes(six),
                read_embedding,
                all_finite,
                made=made_npy,
            ),
            Reader("a.npy", npy_bytes(_square()), _judged(), _is_similarity, made=made_npy),
        )
    if kind == "csv":
        choice: Any = {"index_base": 1, "odd_one": "choice", "where": {"noise_ceiling": [0, 1]}}
        return (
            Reader("a.csv", _THINGS, _triplets_reader(**choice), triplets, text=True),
            Reader("a.csv", _CONCEPTS, _concepts, _are_concepts, text=True),
            Reader("a.tsv", b"Word\tuniqueID\nDog\tdog\nCat\tcat\n", _concepts, _are_concepts, text=True),
            Reader("a.csv", _CONCEPTS, _hierarchy, nothing_wrong, text=True),
            Reader("a.csv", b'id,label\na,"x, y"\nb,2\nc,z\n', _column, nothing_wrong, text=True),
            Reader("a.csv", _csv_square(), _judged(), _is_similarity, text=True),
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
            Reader("data.noun", _noun(), _hypernyms, nothing_wrong, text=True),
            Reader("ids.txt", b"a\nb\nc\n", _ids, nothing_wrong, text=True),
        )
    if kind == "mat":
        structs = _mat(BEHAVIOR={"set1": {"pairwisedistances": _square()}}, other=np.arange(3))
        one = _mat(m=_square())
        return (
            Reader("a.mat", one(), _judged(), _is_similarity), Reader("a.mat", one(False), _judged(), _is_similarity),
            Reader("a.mat", structs(), _read_mat, are_arrays), Reader("a.mat", _mat73(), _read_mat73, are_arrays),
        )  # fmt: skip
    return ()
