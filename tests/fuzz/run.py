"""Feed damaged files of every kind to every reader: a result that holds, or ValueError with one message.

    python -m tests.fuzz --inputs 100000 [--seed 0] [--kind png,npz] [--processes 2] [--only KIND:NUMBER]

Every input is drawn from (seed, kind, number) alone, so that a finding is repeated by --only. Each is read in a worker
process with a time limit, a ceiling of memory, and a watch over what is opened for writing. What counts as a finding:

  error     any exception but ValueError (of the store: ArtifactError), or a message of more than a screen
  hang      more than SECONDS of processor time, or a worker that says nothing for long
  crash     the worker died
  memory    more than MEGABYTES beyond what the worker had
  wrong     a result whose shape or range is not what the reader promises, or, of a format with checksums, one that
            differs from the undamaged file's
  outside   something written outside the input's own folder

Prints a table of inputs, accepted, refused and seconds for each kind; exit status 1 with any finding.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.kinds import KINDS, SHARES, readers
from tests.fuzz.reader import Reader, input_of

SECONDS = 10.0  # of processor time for one input; a reader takes milliseconds
MEGABYTES = 400  # that one input may add
OUTSIDE = 77  # exit status of a child that wrote outside its folder or started a program
BATCH = 200  # inputs that a worker takes at a time
MESSAGE = 1500  # characters: what a user can take in


class Hang(BaseException):
    """Raised by the timer; no reader catches it."""


def main() -> None:
    """Run the inputs and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", default=",".join(KINDS), help="of these, separated by commas")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="KIND:NUMBER, one input, with the traceback of a finding")
    arguments = parser.parse_args()
    if arguments.only:
        kind, _, number = arguments.only.partition(":")
        answer = _batch((kind, int(number), int(number) + 1, arguments.seed, _scratch()))
        print(json.dumps(answer["findings"], indent=1).replace("\\n", "\n"))
        sys.exit(bool(answer["findings"]))
    kinds = arguments.kind.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        sys.exit(f"--kind: expected some of {', '.join(KINDS)}, found {unknown[0]}")
    sys.exit(fuzz(kinds, arguments.inputs, arguments.seed, arguments.processes))


def fuzz(kinds: list[str], inputs: int, seed: int, processes: int) -> int:
    """Read so many inputs; prints the table and up to 20 findings; the exit status."""
    total, folder = sum(SHARES[kind] for kind in kinds), _scratch()
    tasks = []
    for kind in kinds:
        count = max(1, round(inputs * SHARES[kind] / total))
        tasks += [(kind, start, min(start + BATCH, count), seed, folder) for start in range(0, count, BATCH)]
    random.Random(seed).shuffle(tasks)  # so that the slow kinds do not come last
    began = time.monotonic()
    try:
        answers = _run(tasks, processes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    findings = _table(kinds, answers, time.monotonic() - began, seed)
    for finding in findings[:20]:
        print(
            f"\n{finding['kind']}:{finding['number']} ({finding['input']}): {finding['what']}: {finding['told']}"
        )
    return 1 if findings else 0


def _table(
    kinds: list[str], answers: list[dict[str, Any]], seconds: float, seed: int
) -> list[dict[str, Any]]:
    print(
        f"{'kind':10}{'inputs':>9}{'accepted':>10}{'refused':>9}{'findings':>10}{'seconds':>9}{'slowest':>9}"
    )
    findings = [finding for answer in answers for finding in answer["findings"]]
    sums: Counter[str] = Counter()
    for kind in kinds:
        own = [answer for answer in answers if answer["kind"] == kind]
        row = {
            name: sum(answer[name] for answer in own) for name in ("inputs", "accepted", "refused", "seconds")
        }
        found = sum(finding["kind"] == kind for finding in findings)
        slowest = max((answer["slowest"] for answer in own), default=0.0)
        sums.update({**row, "findings": found})
        print(f"{kind:10}{row['inputs']:9,}{row['accepted']:10,}{row['refused']:9,}{found:10,}{row['seconds']:9.1f}"
              f"{slowest:9.2f}")  # fmt: skip
    print(f"{'all':10}{sums['inputs']:9,}{sums['accepted']:10,}{sums['refused']:9,}{sums['findings']:10,}"
          f"{sums['seconds']:9.1f}   in {seconds:.0f} s, seed {seed}")  # fmt: skip
    return findings


def _scratch() -> str:
    """A folder in memory where there is such."""
    shared = Path("/dev/shm")
    return tempfile.mkdtemp(prefix="alignet-fuzz-", dir=shared if os.access(shared, os.W_OK) else None)


def _run(tasks: list[tuple], processes: int) -> list[dict[str, Any]]:
    """Each batch in one of some workers; one that dies or stands still is a finding, and the rest goes on after it."""
    context = multiprocessing.get_context("spawn")
    waiting, answers = list(tasks), []
    active: list[list[Any]] = []
    while waiting or active:
        while waiting and len(active) < processes:
            ours, theirs = context.Pipe()
            share = waiting[:: max(1, processes)] if len(waiting) > processes else waiting[:1]
            waiting = [task for task in waiting if task not in share]
            worker = context.Process(target=_work, args=(theirs, share))
            worker.start()
            theirs.close()
            active.append([worker, ours, share, time.monotonic(), 0.0])
        for entry in list(active):
            worker, ours, share = entry[:3]
            ended = False
            try:
                if ours.poll(0.1):
                    answers.append(ours.recv())
                    share.pop(0)
                    entry[3:] = [time.monotonic(), _busy(worker.pid)]
            except EOFError:
                ended = True
            silent = time.monotonic() - entry[3]
            stuck = silent > 900 or (silent > 60 and _busy(worker.pid) - entry[4] > 200.0)
            if stuck:
                worker.kill()
            if ended or stuck:
                worker.join()
                active.remove(entry)
                if share:
                    rest, answer = _after_death(share[0], "hang" if stuck else "crash", worker.exitcode)
                    answers.append(answer)
                    waiting += [*rest, *share[1:]]
    return answers


def _busy(pid: int | None) -> float:
    """Seconds of processor time that a worker has had; 0 where that is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _after_death(task: tuple, what: str, status: int | None) -> tuple[list[tuple], dict[str, Any]]:
    """The rest of a batch behind the input that its worker died of, and the finding."""
    kind, start, end, seed, folder = task
    try:
        number = int(Path(folder, f"{kind}-{start}", "number").read_text())
    except (OSError, ValueError):
        number = start
    finding = {"kind": kind, "number": number, "input": "", "what": what, "told": f"exit status {status}"}
    answer = {"kind": kind, "inputs": number - start + 1, "accepted": 0, "refused": number - start, "seconds": 0.0,
              "slowest": 0.0, "findings": [finding]}  # fmt: skip
    return ([(kind, number + 1, end, seed, folder)] if number + 1 < end else []), answer


def _work(connection: Any, tasks: list[tuple]) -> None:
    for task in tasks:
        connection.send(_batch(task))
    connection.close()


def _batch(task: tuple) -> dict[str, Any]:
    """Read some inputs of one kind, one after the other."""
    kind, start, end, seed, folder = task
    answer: dict[str, Any] = {
        "kind": kind,
        "inputs": end - start,
        "accepted": 0,
        "refused": 0,
        "findings": [],
    }
    own = Path(folder, f"{kind}-{start}")
    own.mkdir(parents=True, exist_ok=True)
    _prepare(own)
    slowest, began = 0.0, time.monotonic()
    for number in range(start, end):
        (own / "number").write_text(str(number))
        moment = time.monotonic()
        reader, data, told = _drawn(kind, number, seed)
        outcome, what = _one(reader, data, told, own)
        slowest = max(slowest, time.monotonic() - moment)
        if outcome in ("accepted", "refused"):
            answer[outcome] += 1
        else:
            answer["findings"].append(
                {"kind": kind, "number": number, "input": told, "what": outcome, "told": what}
            )
    shutil.rmtree(own, ignore_errors=True)
    return answer | {"seconds": time.monotonic() - began, "slowest": slowest}


def _drawn(kind: str, number: int, seed: int) -> tuple[Reader, bytes, str]:
    chance = random.Random(f"{seed}-{kind}-{number}")
    reader = chance.choice(readers(kind))
    return reader, *input_of(reader, chance)


_written: list[str] = []
_watched: list[str] = []
_expected: dict[
    int, tuple[Reader, Any]
] = {}  # of a reader's undamaged seed; the reader is kept, so its id stays its own
_prepared: list[bool] = []
# the process that is watched; a reader's own children end where they do what it must not
_worker: list[int] = []


def _prepare(own: Path) -> None:
    """Once for each worker: limits, warnings that are no finding, and the watch over files."""
    _watched[:] = [str(own)]
    if _prepared:
        return
    _prepared.append(True)
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    from alignet.data import matlab

    matlab._PATIENCE = 2 * SECONDS  # of a child that hangs: what it took is seen below
    torch.set_num_threads(1)
    sys.addaudithook(_watch)
    _worker[:] = [os.getpid()]
    signal.signal(signal.SIGPROF, _alarm)


def _alarm(*_: object) -> None:
    raise Hang


def _watch(event: str, details: tuple) -> None:
    """Note what is written outside the folder of the input, and what is run."""
    if not _watched:
        return
    if event == "open":
        path, mode, flags = details
        writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if not writes or isinstance(path, int):
            return
        touched = [path]
    elif event in ("os.rename", "os.link", "os.symlink"):
        touched = list(details[:2])
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate"):
        touched = list(details[:1])
    elif event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class"):
        _note(f"{event} {details[:2]}")
        return
    else:
        return
    for path in touched:
        if isinstance(path, (str, bytes, os.PathLike)):
            name = os.path.realpath(os.fsdecode(path))
            if _is_bytecode(name) or name == "/dev/null":
                continue
            if not name.startswith(_watched[0] + "/") and name != _watched[0]:
                _note(f"{event} {name}")


def _is_bytecode(name: str) -> bool:
    """Whether a file or folder is Python's own cache, which an import may write anywhere."""
    return name.endswith(".pyc") or "__pycache__" in name or name.startswith(sys.pycache_prefix or "\0")


def _note(what: str) -> None:
    if _worker and os.getpid() != _worker[0]:
        os.write(2, f"{what}\n".encode())
        os._exit(OUTSIDE)
    _written.append(what)


def _one(reader: Reader, data: bytes, told: str, own: Path) -> tuple[str, str]:
    """accepted | refused | what is wrong; and the words for it."""
    path = own / reader.file
    path.write_bytes(data)
    before, children = forget_peak(), resource.getrusage(resource.RUSAGE_CHILDREN)
    _written.clear()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    told_of = ""
    try:
        found = reader.read(path)
        outcome, what = "accepted", reader.holds(found, len(data))
    except Hang:
        return "hang", f"more than {SECONDS:.0f} s"
    except Exception as error:
        outcome, what, told_of = "refused", _message(error, path), str(error)
        found = None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if f"status {OUTSIDE}" in told_of:
        return "outside", "a child of the reader's"
    if after.ru_utime - children.ru_utime > SECONDS:
        return "hang", f"a child took more than {SECONDS:.0f} s"
    if after.ru_maxrss << 10 > max(children.ru_maxrss << 10, before + (MEGABYTES << 20)):
        return "memory", f"{after.ru_maxrss >> 10} MB in a child"
    if what:
        return ("error" if outcome == "refused" else "wrong"), what
    if _written:
        return "outside", "; ".join(_written[:3])
    grown = peak() - before
    if grown > MEGABYTES << 20:
        return "memory", f"{grown >> 20} MB"
    if outcome == "accepted" and (told == "as it is" or (reader.sealed and told == "mutated")):
        if id(reader) not in _expected:
            path.write_bytes(reader.seed)
            _expected[id(reader)] = reader, reader.read(path)
        if not same(found, _expected[id(reader)][1]):
            return "wrong", "another result than the undamaged file's"
    elif told == "as it is":
        return "wrong", "the undamaged file is refused"
    return outcome, ""


def _message(error: Exception, path: Path) -> str:
    """'' for one clear message, else the traceback."""
    from alignet.pipeline.cli import shortened
    from alignet.runtime.artifacts import ArtifactError

    text = shortened(str(error))
    clear = (
        type(error) in (ValueError, ArtifactError)
        and text.strip()
        and len(text) <= MESSAGE + text.count(str(path)) * 200
    )
    if clear and "expected" in text and len(text.splitlines()) <= 12:
        return ""
    where = traceback.extract_tb(error.__traceback__)[-1]
    if (clear and "expected" in text) or len(text) > MESSAGE:
        size = f"{len(text)} characters, {len(text.splitlines())} lines"
        return f"{size}, by {where.filename}:{where.lineno}: {text[-200:]}"
    return "".join(traceback.format_exception(error))[-1500:]


def peak() -> int:
    """The most bytes that this process has held since `forget_peak`."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak() -> int:
    """Begin the record of the peak anew (proc(5), clear_refs); the bytes that are held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak()


def same(first: Any, second: Any) -> bool:
    """Whether two results are equal, arrays by every element and its type."""
    import numpy as np

    if isinstance(first, np.ndarray):
        fits = isinstance(second, np.ndarray) and first.dtype == second.dtype and first.shape == second.shape
        return fits and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
