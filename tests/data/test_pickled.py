"""Pickles of trials: read apart, converted; malicious, damaged and enormous ones do nothing and are refused."""

import collections
import errno
import operator
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from alignet.data.levels import tidy
from alignet.data.pickled import convert_levels
from alignet.data.trials import read_trials
from alignet.pipeline.cli import load
from tests.makers.converting import converting
from tests.makers.trials import COLUMNS, save, study

RULES = {"catch_accuracy": 0.9, "max_misses": 10, "slow_ms": 10_000.0}


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def people(rows, wrap=lambda value: value, table=dict):
    found = table()
    for row in rows:
        fields = {name: wrap(value) for name, value in row.items() if name not in ("participant", "trial")}
        found.setdefault(row["participant"], []).append(fields)
    return found


def dumped(path, value, protocol=None):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_pickle_becomes_the_same_trials(tmp_path, protocol, suffix):
    rows = study(0, triplets=6).rows
    expected = tidy(read_trials(save(tmp_path / "t.csv", rows)), **RULES)
    source = dumped(tmp_path / "levels.pkl", people(rows), protocol)
    told = convert_levels(source, tmp_path / f"out{suffix}")
    assert told == {"participants": 10, "trials": len(rows), "columns": len(COLUMNS), "emptied": 0}
    result = tidy(read_trials(tmp_path / f"out{suffix}"), **RULES)
    assert result.summary == expected.summary
    for name, values in expected.triplets.items():
        np.testing.assert_array_equal(values, result.triplets[name], err_msg=name)
    assert not list(tmp_path.glob("*.tmp"))


def as_numpy(value):
    if isinstance(value, float):
        return np.float64(value)
    return np.int64(value) if isinstance(value, int) else np.str_(value)


@pytest.mark.parametrize("table", [collections.OrderedDict, lambda: collections.defaultdict(list)])
@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_scalars_and_other_dictionaries_are_understood(tmp_path, table, protocol):
    rows = study(0, triplets=4).rows
    plain = dumped(tmp_path / "plain.pkl", people(rows))
    other = dumped(tmp_path / "other.pkl", people(rows, as_numpy, table), protocol)
    convert_levels(plain, tmp_path / "a.parquet")
    convert_levels(other, tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))


def malicious(mark):
    """Pickles that would leave a file at `mark`, by the ways that are known."""
    program = f"open({str(mark)!r}, 'w').close()"
    code = Call(eval, f"open({str(mark)!r}, 'w')")
    return {
        "os.system": Call(os.system, f"touch {mark}"),
        "subprocess": Call(subprocess.Popen, ["touch", str(mark)]),
        "builtins.eval": code,
        "builtins.exec": Call(exec, program),
        "builtins.open": Call(open, str(mark), "w"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "operator.attrgetter": Call(operator.attrgetter, "system"),
        "builtins.compile": Call(compile, program, "x", "exec"),
        "numpy.load": Call(np.load, str(mark)),
        "inside a trial": {"p": [{"rt": Call(os.system, f"touch {mark}")}]},
        "as a key": {Call(os.system, f"touch {mark}"): []},
        "pathlib": {"p": [{"rt": Path(str(mark))}]},
    }


HAND_WRITTEN = {  # opcodes: GLOBAL, INST, OBJ, STACK_GLOBAL; BUILD on what is allowed; an extension; a persistent id
    "global": b"cposix\nsystem\n(S'touch {mark}'\ntR.",
    "inst": b"(S'touch {mark}'\niposix\nsystem\n.",
    "obj": b"(cposix\nsystem\nS'touch {mark}'\no.",
    "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x01x\x85R.",
    "dotted": b"\x80\x04\x8c\x06_codecs\x8c\x1eencode.__globals__.__builtins__\x93.",
    "build": b"\x80\x02cnumpy\ndtype\n}(U\x08__code__cposix\nsystem\nsb.",
    "class of a stand-in": b"\x80\x02cnumpy\ndtype\n(S'f8'\ntR}S'__class__'\ncposix\nsystem\nsb.",
    "call what is not callable": b"\x80\x02cbuiltins\nlist\n(tR.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pos.system\n.",
    "newobj of a function": b"\x80\x02cnumpy\ndtype\n)\x81.",
}  # fmt: skip


@pytest.mark.parametrize("name", list(malicious("x")))
def test_malicious_pickles_do_nothing(tmp_path, name):
    mark = tmp_path / "mark"
    refused(tmp_path, pickle.dumps(malicious(mark)[name]), mark, "it asks for ")


@pytest.mark.parametrize("name", list(HAND_WRITTEN))
def test_hand_written_opcodes_do_nothing(tmp_path, name):
    mark = tmp_path / "mark"
    refused(tmp_path, HAND_WRITTEN[name].replace(b"{mark}", str(mark).encode()), mark, "")


def refused(tmp_path, content, mark, why):
    source, target = tmp_path / "in.pkl", tmp_path / "out.csv"
    source.write_bytes(content)
    target.write_text("before")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match="expected a pickle of trials") as caught:
        convert_levels(source, target)
    assert why in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert not mark.exists()
    assert sorted(tmp_path.iterdir()) == before
    assert target.read_text() == "before"


def test_the_attacks_work_where_a_pickle_is_simply_loaded(tmp_path):
    """Otherwise their failing above would show nothing."""
    for name in ("os.system", "builtins.exec", "inside a trial"):
        mark = tmp_path / name.replace(" ", "_")
        content = pickle.dumps(malicious(mark)[name])
        program = f"import pickle; pickle.loads({content!r})"
        subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
        assert mark.exists(), name
    mark = tmp_path / "global"
    content = HAND_WRITTEN["global"].replace(b"{mark}", str(mark).encode())
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({content!r})"], check=False)
    assert mark.exists()


def test_bombs_are_bounded(tmp_path):
    layer = ["x" * 1000]
    for _ in range(40):
        layer = [layer, layer]  # 2^40 references in a few hundred bytes: harmless until somebody walks it
    source = dumped(tmp_path / "deep.pkl", {"p": [{"rt": layer, "selected_image": "a"}]})
    with pytest.raises(ValueError, match="participant 'p': rt is a list, neither text nor a finite number"):
        convert_levels(source, tmp_path / "out.csv")
    source = dumped(tmp_path / "shared.pkl", {n: [{"rt": 1}] * 3000 for n in range(40)})  # many from one
    with pytest.raises(ValueError, match="more than 100,000 trials"):
        convert_levels(source, tmp_path / "out.csv", most=100_000)
    source.write_bytes(
        b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8d" + (1 << 40).to_bytes(8, "little") + b"x."
    )
    with pytest.raises(ValueError, match="expected a pickle of trials"):
        convert_levels(source, tmp_path / "out.csv")
    source.write_bytes(b"\x80\x02]" + b"r\xff\xff\xff\x0f" + b".")  # a memo place that needs gigabytes
    with pytest.raises(ValueError, match="it needs more than 300 MB of memory"):
        convert_levels(source, tmp_path / "out.csv", megabytes=300)
    assert not (tmp_path / "out.csv").exists()


def test_a_reader_that_takes_too_long_is_ended(tmp_path):
    source = dumped(tmp_path / "long.pkl", {n: [{"rt": 1}] * 2000 for n in range(2000)})
    with pytest.raises(ValueError, match="such files found: it takes more than 1 s"):
        convert_levels(source, tmp_path / "out.csv", seconds=1)


ONE = {
    "image1Path": "a", "image2Path": "b", "image3Path": "c", "selected_image": "a", "triplet_type": "coarse",
    "exp_trial_type": "exp_trial", "rt": 1000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"p": [{**ONE, "selected_image": b"a"}]}, "selected_image is a bytes, neither text nor a finite number"),
        ({"p": [{**ONE, "rt": [1000.0]}]}, "rt is a list, neither text nor a finite number"),
        ({"p": [{**ONE, "rt": float("inf")}]}, "rt is a float, neither text nor a finite number"),
        ({"p": [{**ONE, "rt": 1 << 70}]}, "rt is a int, neither text nor a finite number"),
        ({"p": [{**ONE, "correct_image": ("a",)}]}, "correct_image is a tuple, neither text"),
        ({"p": [{**ONE, "selected_image": "a" * 10_001}]}, "selected_image has 10,001 characters, more than 10,000"),
        ({"p": [{**ONE, "a" * 101: 1}]}, "the name of a field has 101 characters, more than 100"),
        ({"p": [{**ONE, 7: 1}]}, "a field whose name is no text"),
        ({"p" * 10_001: [ONE]}, "a participant's name has 10,001 characters"),
        ({"p": [{**ONE, "x": "\ud800"}]}, "participant 'p': x is no valid text \\(a lone surrogate\\)"),
        ({"\ud800": [ONE]}, "a participant's name is no valid text"),
        ({"p": [{**ONE, "\ud800": 1}]}, "the name of a field is no valid text"),
        ({1: [ONE], "1": [ONE]}, "participant '1' occurs twice, as text and as a number"),
        ({1.5: [ONE]}, "a participant is a float, neither text nor a number"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_values_that_a_table_cannot_hold_are_refused_and_leave_nothing(tmp_path, value, found, suffix):
    source = dumped(tmp_path / "in.pkl", value)
    with pytest.raises(ValueError, match=found):
        convert_levels(source, tmp_path / f"out{suffix}")
    assert list(tmp_path.iterdir()) == [source]


def test_other_values_of_further_fields_are_left_empty_and_counted(tmp_path):
    trials = [{**ONE, "view": [1, 2], "age": 30}, {**ONE, "view": "wide", "rt": float("nan")}]
    told = convert_levels(dumped(tmp_path / "in.pkl", {"p": trials}), tmp_path / "out.parquet")
    assert told["emptied"] == 1
    table = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["view"] == [None, "wide"]
    assert table["age"] == [30, None]
    assert table["rt"] == [1000.0, None]
    assert list(table)[2:6] == ["image1Path", "image2Path", "image3Path", "selected_image"]


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    source = dumped(tmp_path / "in.pkl", {"p": [ONE]})

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    for suffix in (".csv", ".parquet"):
        with pytest.raises(OSError, match="no space left"):
            convert_levels(source, tmp_path / f"out{suffix}")
    assert list(tmp_path.iterdir()) == [source]


MEASURED = """
import resource, sys
from pathlib import Path
from alignet.data.pickled import convert_levels
import alignet.data.trials, csv
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    convert_levels(Path(sys.argv[1]), Path(sys.argv[2]))
except ValueError as error:
    print(str(error)[-120:])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("bomb", ["a long text", "many fields"])
def test_what_a_pickle_says_cannot_fill_the_memory_of_who_reads_it(tmp_path, bomb):
    """A few hundred kilobytes that unfold into gigabytes: the reader's user is told, at a bounded cost."""
    few = dict.fromkeys(ONE, 1)
    long = {**ONE, **{f"a{n:03}": "x" * 9000 for n in range(100)}}
    value, found = {
        "a long text": ({"p": [long] * 1_000}, "bytes of one trial or 100,663,296 of all"),
        "many fields": ({"p": [few] * 150_000 + [{f"b{n:03}": 1 for n in range(150)}]}, "cells"),
    }[bomb]
    source = dumped(tmp_path / "in.pkl", value)
    command = [sys.executable, "-c", MEASURED, str(source), str(tmp_path / "out.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    told, megabytes = done.stdout.splitlines()
    assert found in told
    assert int(megabytes) < 400
    assert not (tmp_path / "out.csv").exists()


def test_a_machine_that_allows_less_than_wanted_keeps_its_limits(tmp_path):
    source = dumped(tmp_path / "in.pkl", {"p": [ONE]})
    program = (
        "import resource, sys; from pathlib import Path; from alignet.data.pickled import convert_levels\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (100, 100))\n"
        "print(convert_levels(Path(sys.argv[1]), Path(sys.argv[2]))['trials'])"
    )
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "out.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stdout.strip() == "1", done.stderr


def test_limits_that_cannot_be_set_are_told(monkeypatch):
    from alignet.data import unpickle_levels

    def fail(*_):
        raise ValueError("not allowed")

    monkeypatch.setattr(unpickle_levels.resource, "setrlimit", fail)
    with pytest.raises(RuntimeError, match=r"could not be bounded on this machine \(not allowed\)"):
        unpickle_levels._limit(100, 1)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "Ran out of input"),
        (b"participant,trial\n", "found: "),
        (b"\x93NUMPY\x01\x00", "found: "),
        (pickle.dumps({"p": [{"rt": 1.0}]})[:-5], "found: "),
        (pickle.dumps([1, 2]), "it holds a list, not a dictionary of participants"),
        (pickle.dumps({"p": 3}), "participant 'p' has no list of trials"),
        (pickle.dumps({"p": [3]}), "participant 'p' has a trial that is no dictionary of at most 200 fields"),
        (pickle.dumps({"p": [{"rt": 3}]}), "found no image1, image2, image3"),
        (pickle.dumps({}), "found no image1, image2, image3"),
        (pickle.dumps({"p": [{"rt": np.zeros(3)}]}), "it asks for numpy"),
    ],
)
def test_damaged_and_other_files_are_refused(tmp_path, content, found):
    source = tmp_path / "in.pkl"
    source.write_bytes(content)
    with pytest.raises(ValueError, match=r"in\.pkl: expected") as caught:
        convert_levels(source, tmp_path / "out.csv")
    assert found in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_the_command(tmp_path):
    rows = study(0, triplets=4).rows
    source = dumped(tmp_path / "levels.pkl", people(rows))
    command = [
        sys.executable,
        "-m",
        "alignet.stages.convert",
        "levels",
        str(source),
        str(tmp_path / "out.parquet"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(rows):,} trials of 10 participants" in done.stdout
    assert f"+also=levels data.sets.levels_trials.path={tmp_path}/out.parquet" in done.stdout
    wrong = subprocess.run(command[:-1], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "expected `levels IN.pkl OUT.parquet`" in wrong.stderr
    with pytest.raises(ValueError, match="expected a name that ends in"):
        convert_levels(source, tmp_path / "out.txt")
    with pytest.raises(ValueError, match="found no file"):
        convert_levels(tmp_path / "none.pkl", tmp_path / "out.csv")


def test_the_folder_is_made_and_one_in_the_files_place_is_refused(tmp_path, monkeypatch, capsys):
    source = dumped(tmp_path / "levels.pkl", people(study(0, triplets=4).rows))
    target = tmp_path / "new" / "deep" / "out.csv"
    status, out, _ = converting(monkeypatch, capsys, "levels", source, target)
    assert (status, target.is_file()) == (0, True)
    override = f"data.sets.levels_trials.path={target}"
    assert f"+also=levels {override} data.sets.levels_images.path=" in out
    config = load(["+also=levels", override])
    assert config.data.sets["levels_trials"].path == str(target)
    for name, found in (
        (tmp_path / "new", "expected the name of a file, found a folder"),
        (source / "out.csv", r"expected a folder .*levels\.pkl, which could not be made"),
    ):
        status, _, err = converting(monkeypatch, capsys, "levels", source, name)
        assert status == 1
        assert re.search(found, err)
        assert "Traceback" not in err
        assert "Errno" not in err


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch, capsys):
    source = dumped(tmp_path / "levels.pkl", people(study(0, triplets=4).rows))

    def full(columns, path):
        path.write_bytes(b"half")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("alignet.data.pickled._write_parquet", full)
    status, _, err = converting(monkeypatch, capsys, "levels", source, tmp_path / "out.parquet")
    assert status == 1
    assert "expected to write a table there, which failed (Input/output error)" in err
    assert list(tmp_path.iterdir()) == [source]
