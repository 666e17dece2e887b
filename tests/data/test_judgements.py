"""Judged similarities from files as their authors share them, and from damaged ones."""

import contextlib
import sys

import numpy as np
import pytest
from scipy.io import savemat
from scipy.io.matlab import MatlabObject
from scipy.spatial.distance import squareform

from alignet.data.judgements import load_judgements
from alignet.data.matlab import read_mat
from alignet.data.sets import files_of

M = 6


def symmetric(seed, m=M):
    values = np.random.default_rng(seed).uniform(0, 10, size=(m, m))
    return np.triu(values, 1) + np.triu(values, 1).T


def people(count=4):
    return np.stack([symmetric(seed) for seed in range(count)])


def save_73(path, arrays):
    """A .mat file of version 7.3 as MATLAB writes it: HDF5 behind a header, axes reversed, structs as groups."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name.replace(".", "/"), data=np.asarray(array).T)
            dataset.attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: now".ljust(116) + bytes(8))
        handle.write(bytes([0, 2]) + b"IM")


def test_peterson_is_the_only_square_matrix_of_that_many_images(tmp_path):
    path, judged = tmp_path / "animals.mat", symmetric(0)
    savemat(
        path, {"simMatrix": judged, "raters": np.ones((1, 40)), "other": symmetric(1, 5), "note": "0..10"}
    )
    found = load_judgements(path, format="peterson", images=M)
    np.testing.assert_allclose(found.similarity, judged)
    assert found.note == "similarity simMatrix"
    with pytest.raises(ValueError, match=r"one square matrix of 7 images, found simMatrix \(6, 6\), raters"):
        load_judgements(path, format="peterson", images=7)
    savemat(path, {"a": judged, "b": 2 * judged})
    with pytest.raises(ValueError, match=r"found several in a \(6, 6\), b .*options.key"):
        load_judgements(path, format="peterson", images=M)
    assert np.array_equal(load_judgements(path, format="peterson", images=M, key="b").similarity, 2 * judged)


@pytest.mark.parametrize(
    "array",
    [people(), people().transpose(1, 2, 0), np.stack([squareform(one) for one in people()]),
     np.stack([squareform(one) for one in people()], 1)],
    ids=["participants x m x m", "m x m x participants", "participants x pairs", "pairs x participants"],
)  # fmt: skip
def test_cichy_is_the_mean_over_participants_of_dissimilarities(tmp_path, array):
    savemat(tmp_path / "judgments_general.mat", {"judgments": array})
    found = load_judgements(tmp_path / "judgments_general.mat", format="cichy", images=M)
    np.testing.assert_allclose(found.similarity, -people().mean(0), atol=1e-12)
    assert found.note == "dissimilarity judgments, mean of 4 participants"
    kept = load_judgements(tmp_path / "judgments_general.mat", format="cichy", images=M, kind="similarity")
    np.testing.assert_allclose(kept.similarity, people().mean(0), atol=1e-12)


def test_a_vector_is_the_upper_triangle_row_by_row(tmp_path):
    np.save(tmp_path / "v.npy", np.arange(6.0))
    found = load_judgements(tmp_path / "v.npy", format="matrix", kind="similarity", images=4).similarity
    assert found.tolist() == [[0, 0, 1, 2], [0, 0, 3, 4], [1, 3, 0, 5], [2, 4, 5, 0]]


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("newer", [False, True])
def test_king_has_two_sets_in_a_struct_or_beside_each_other(tmp_path, nested, newer):
    path, first, second = tmp_path / "BEHAVIOR.mat", people(), symmetric(9)
    sets = {
        "set1": {"pairwisedistances": first, "labels": "x"},
        "set2": {"pairwisedistances": squareform(second)},
    }
    if newer:
        flat = {f"{name}.pairwisedistances": part["pairwisedistances"] for name, part in sets.items()}
        save_73(path, {f"BEHAVIOR.{name}" if nested else name: array for name, array in flat.items()})
    else:
        savemat(path, {"BEHAVIOR": sets} if nested else sets)
    found = load_judgements(path, format="king", part="set1", images=M)
    np.testing.assert_allclose(found.similarity, -first.mean(0), atol=1e-12)
    np.testing.assert_allclose(
        load_judgements(path, format="king", part="set2", images=M).similarity, -second, atol=1e-12
    )
    with pytest.raises(ValueError, match=r"expected options\.set to be set1 or set2 for the format king"):
        load_judgements(path, format="king", images=M)


def test_missing_judgments_are_averaged_over_the_others_and_told(tmp_path):
    judged = people()
    judged[1, 0, 2] = judged[1, 2, 0] = np.nan
    savemat(tmp_path / "c.mat", {"judgments": judged})
    found = load_judgements(tmp_path / "c.mat", format="cichy", images=M)
    assert found.similarity[0, 2] == pytest.approx(-judged[[0, 2, 3], 0, 2].mean())
    assert "1 judgments of single participants missing" in found.note
    judged[:, 0, 2] = judged[:, 2, 0] = np.nan
    savemat(tmp_path / "c.mat", {"judgments": judged})
    with pytest.raises(
        ValueError, match="judged by somebody, found 1 that are not, the first of rows 0 and 2"
    ):
        load_judgements(tmp_path / "c.mat", format="cichy", images=M)


def test_plain_matrices_are_read_from_npy_csv_and_mat(tmp_path):
    judged = symmetric(0)
    np.save(tmp_path / "m.npy", judged.astype(np.float32))
    np.savetxt(tmp_path / "m.csv", judged, delimiter=",")
    savemat(tmp_path / "m.mat", {"rdm": judged})
    for name in ("m.npy", "m.csv", "m.mat"):
        for kind, sign in (("similarity", 1), ("dissimilarity", -1)):
            found = load_judgements(tmp_path / name, format="matrix", kind=kind, images=M)
            np.testing.assert_allclose(found.similarity, sign * judged, rtol=1e-6)
    with pytest.raises(ValueError, match=r"options\.kind to be similarity or dissimilarity, found None"):
        load_judgements(tmp_path / "m.npy", format="matrix", images=M)
    for separator, mark in (("\t", ""), (";", ""), (",", "\ufeff")):
        rows = [separator.join(map(repr, row)) for row in judged.tolist()]
        (tmp_path / "s.csv").write_text(mark + "\r\n".join(rows) + "\r\n\r\n", encoding="utf-8")
        found = load_judgements(tmp_path / "s.csv", format="matrix", kind="similarity", images=M)
        np.testing.assert_array_equal(found.similarity, judged)
    (tmp_path / "head.csv").write_text("dog,cat,car\n1,2,3\n2,1,4\n3,4,1\n")
    with pytest.raises(ValueError, match=r"found 'dog' in line 1, column 1; remove headers"):
        load_judgements(tmp_path / "head.csv", format="matrix", kind="similarity", images=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a .csv matrix, found an empty file"),
        (" \n\n", "expected a .csv matrix, found an empty file"),
        ("1,2,3\n2,1\n3,4,1\n", "expected 3 numbers in every row, as in the first, found 2 in line 2"),
        ("1,2,3\n2,1,4\n3,x,1\n", "found 'x' in line 3, column 2; remove headers and labels"),
        ("0,5;2;3\n2;1;4\n3;4;1\n", "found '0,5' in line 1, column 1; .* decimals with a point"),
        ("1,2,3\n2,,4\n3,4,1\n", "found '' in line 2, column 2; .* write NaN where nothing was judged"),
        ("1,2,3\n2,1,4\n3,4,1\n".encode("utf-16"), "found other bytes .*, as UTF-16 begins.*save it as UTF-8"),
    ],
)  # fmt: skip
def test_a_damaged_csv_is_one_message_of_our_own(tmp_path, content, message, recwarn):
    path = tmp_path / "m.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        load_judgements(path, format="matrix", kind="similarity", images=3)
    assert "\n" not in str(error.value)
    assert not recwarn.list


def bad(tmp_path, name):
    path = tmp_path / "x.mat"
    good = {"judgments": people()}
    if name == "truncated":
        savemat(path, good)
        path.write_bytes(path.read_bytes()[:700])
    elif name == "text":
        path.write_text("image1,image2\n" * 50)
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "truncated 7.3":
        save_73(path, good)
        path.write_bytes(path.read_bytes()[:900])
    elif name == "object":
        savemat(path, {"judgments": MatlabObject(np.array([(1.0,)], dtype=[("a", object)]), "thing")})
    elif name == "cell":
        savemat(path, {"judgments": np.array([symmetric(0), "x"], dtype=object)})
    elif name == "another key":
        savemat(path, {"ratings": people()})
    elif name == "number":
        savemat(path, {"judgments": people()[:, :5, :5]})
    elif name == "cube":
        savemat(path, {"judgments": people(M)})
    elif name == "asymmetric":
        savemat(path, {"judgments": np.arange(36.0).reshape(6, 6)})
    elif name == "complex":
        savemat(path, {"judgments": symmetric(0) * 1j})
    elif name == "NaN":
        savemat(path, {"judgments": np.where(np.eye(M)[::-1] > 0, np.nan, symmetric(0))})
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "expected a .mat file, found none"),
        ("truncated", "expected a whole MATLAB file, found something else or damaged data"),
        ("text", "expected a whole MATLAB file"),
        ("empty", "expected a whole MATLAB file"),
        ("truncated 7.3", "expected a whole MATLAB file"),
        ("object", "judgments that is a MATLAB object or function"),
        ("cell", "expected judgments, found no numbers"),
        ("another key", r"expected judgments, found ratings \(4, 6, 6\)"),
        ("number", r"judgments of 6 images, the number in the image set: \(6, 6\), or 15 pairs.*shape \(4, 5, 5\)"),
        ("cube", "does not say which axis the participants are"),
        ("asymmetric", "symmetric matrix, found 5 at row 0, column 5 but 30 mirrored"),
        ("complex", "found no numbers|real numbers"),
        ("NaN", "found 6 NaN or infinite entries"),
    ],
)  # fmt: skip
def test_damaged_and_foreign_files_are_one_clear_message(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as error:
        load_judgements(bad(tmp_path, name), format="cichy", images=M)
    assert "\n" not in str(error.value)


def test_any_damage_of_a_byte_is_a_message_or_other_numbers(tmp_path):
    path = tmp_path / "x.mat"
    savemat(path, {"judgments": people(), "set1": {"pairwisedistances": symmetric(0)}}, do_compression=True)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        broken[int(generator.integers(128, len(whole)))] = int(generator.integers(256))
        path.write_bytes(bytes(broken))
        with contextlib.suppress(ValueError):
            read_mat(path)


def test_version_73_without_h5py_says_what_to_install(tmp_path, monkeypatch):
    save_73(tmp_path / "x.mat", {"judgments": people()})
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"found 7\.3, which needs the package h5py; install it"):
        load_judgements(tmp_path / "x.mat", format="cichy", images=M)


def test_unknown_formats_and_files(tmp_path):
    with pytest.raises(
        ValueError, match="unknown format of judgments 'gray': expected one of peterson, cichy"
    ):
        load_judgements(tmp_path / "x.mat", format="gray", images=M)
    with pytest.raises(ValueError, match=r"expected a \.mat file for the format cichy, found '\.npy'"):
        load_judgements(tmp_path / "x.npy", format="cichy", images=M)
    with pytest.raises(ValueError, match=r"expected a \.npy, \.csv or \.mat matrix, found '\.txt'"):
        load_judgements(tmp_path / "x.txt", format="matrix", kind="similarity", images=M)


def test_a_folder_with_one_mat_file_stands_for_it(tmp_path):
    matrix = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0.0]])
    savemat(tmp_path / "animals.mat", {"simMatrix": matrix})
    found = load_judgements(tmp_path, format="peterson", images=3)
    assert np.array_equal(found.similarity, matrix)
    assert files_of("judgements", tmp_path, "") == {"file": tmp_path / "animals.mat"}
    savemat(tmp_path / "fruits.mat", {"simMatrix": matrix})
    with pytest.raises(
        ValueError, match=r"expected one \.mat file of judged similarities in this folder, found 2"
    ):
        load_judgements(tmp_path, format="peterson", images=3)


def test_as_many_participants_as_pairs_could_be_either_axis(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(36.0).reshape(6, 6))  # of 4 images: 6 pairs
    with pytest.raises(
        ValueError, match=r"found shape \(6, 6\), which does not say which axis the participants are"
    ):
        load_judgements(tmp_path / "x.npy", format="matrix", images=4, kind="similarity")


def test_bombs_are_judged_by_the_sum_of_what_a_file_holds(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr("alignet.data.matlab.MOST_UNPACKED", 1 << 20)
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for name in "abcd":  # each within the limit
            file.create_dataset(name, shape=(100, 1000), dtype="f8", compression="gzip", fillvalue=0)
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + bytes([0, 2]) + b"IM")
    monkeypatch.setattr("alignet.data.matlab.MOST_EXPANSION", 1)
    with pytest.raises(ValueError, match="found 1,600,000 or more bytes, as of a decompression bomb"):
        load_judgements(path, format="cichy", images=M)


@pytest.mark.parametrize("how", ["external", "virtual"])
def test_numbers_that_stand_in_other_files_are_not_opened(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    secret, path = tmp_path / "secret", tmp_path / "x.mat"
    secret.write_bytes(b"x" * 36)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = symmetric(0)
    with h5py.File(path, "w", userblock_size=512) as file:
        if how == "external":
            file.create_dataset("judgments", shape=(6, 6), dtype="u1", external=[(str(secret), 0, 36)])
        else:
            layout = h5py.VirtualLayout(shape=(6, 6), dtype="f8")
            layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "numbers", shape=(6, 6))
            file.create_virtual_dataset("judgments", layout)
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + bytes([0, 2]) + b"IM")
    with pytest.raises(ValueError, match="found judgments stored in other files, which are not opened"):
        load_judgements(path, format="cichy", images=M)


def _ends(path):
    import os

    os.kill(os.getpid(), 9)  # as scipy's compiled reader does on some damaged bytes


def _hangs(path):
    import time

    time.sleep(60)


def _takes_too_much(path):
    raise MemoryError


def _is_foreign(path):
    raise ValueError("buffer is smaller than requested size")


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        (_ends, r"expected a whole MATLAB file, found .* \(its reader ended with status -9\)"),
        (_hangs, r"expected a whole MATLAB file, found .* \(its reader did not end within 0 s\)"),
        (_takes_too_much, "expected numbers that fit into memory twice"),
        (_is_foreign, r"expected a whole MATLAB file, found .* \(buffer is smaller than requested size\)"),
    ],
)
def test_whatever_a_reader_does_in_its_child_is_one_message(tmp_path, monkeypatch, capfd, reads, words):
    path = tmp_path / "a.mat"
    savemat(path, {"matrix": symmetric(0)})
    monkeypatch.setattr("alignet.data.matlab._read", reads)
    if reads is _hangs:
        monkeypatch.setattr("alignet.data.matlab._PATIENCE", 0.3)
    with pytest.raises(ValueError, match=f"a.mat: {words}"):
        read_mat(path)
    assert capfd.readouterr().err == ""


def test_a_class_that_is_no_text_is_passed_over(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["matrix"] = symmetric(0)
        file["matrix"].attrs["MATLAB_class"] = np.bytes_(b"d\xffuble")
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + bytes([0, 2]) + b"IM")
    np.testing.assert_array_equal(read_mat(path)["matrix"], symmetric(0).T)
