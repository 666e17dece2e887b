"""Several nodes at a time: the same bytes as one after another, one message of what failed, nothing left behind."""

import errno
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from alignet.pipeline import parallel
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph
from alignet.runtime import interrupt
from alignet.runtime.artifacts import ArtifactError
from tests.makers.worlds import overrides
from tests.pipeline.test_runner import digests

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes are forked on Linux alone")

TOGETHER = ("runtime.threads=2", "runtime.parallel_nodes=2")
STAGE = "alignet.stages.pipeline"


def waited_for(what, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def two_children(process):
    def look():
        children = psutil.Process(process.pid).children()
        return children if len(children) == 2 else None

    return waited_for(look)


def test_a_share_of_the_threads_follows_from_the_configuration_alone():
    config = load(["runtime.threads=4", "runtime.parallel_nodes=2"])
    graph = build_graph(config)
    shares = {key: parallel.threads_of(key, graph, config.runtime) for key in graph}
    assert shares["world"] == 4  # everything else waits for it
    assert {count for key, count in shares.items() if key != "world"} == {2}
    one = replace(config.runtime, parallel_nodes=1)
    assert {parallel.threads_of(key, graph, one) for key in graph} == {4}
    assert parallel.at_a_time(replace(config.runtime, device="cuda")) == 1
    assert parallel.at_a_time(replace(config.runtime, threads=1)) == 1


@pytest.fixture(scope="module")
def together(ready, tmp_path_factory):
    """What a run of two nodes at a time says, and its store."""
    store = tmp_path_factory.mktemp("together") / "store"
    result = ready.run(STAGE, *overrides(store, *TOGETHER))
    assert result.returncode == 0, result.stderr
    return result.stdout, store


def test_together_the_bytes_are_those_of_one_after_another(tiny, together):
    found, expected = digests(together[1]), digests(tiny)
    differ = {name for name in expected if found.pop(name, None) != expected[name]}
    assert not found
    assert {name.split("/")[0] for name in differ} == {"report"}  # it says that `world` had two threads


def test_killed_it_leaves_no_process_and_resumes_to_the_same_bytes(ready, together, tmp_path):
    line = [STAGE, *overrides(tmp_path / "store", *TOGETHER, "role=finetune[alignet]")]
    process = ready.start(*line)
    children = two_children(process)
    process.kill()
    process.wait()
    waited_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in children), 10)
    assert ready.run(*line).returncode == 0
    found = digests(tmp_path / "store")
    assert {name.split("/")[0] for name in found} >= {
        "world",
        "pretrain",
        "vice",
        "distill",
        "finetune",
    }
    assert found.items() <= digests(together[1]).items()


def test_asked_to_end_every_child_saves_and_ends(ready, tmp_path):
    line = [STAGE, *overrides(tmp_path / "store", *TOGETHER, "pretrain.student.steps=5000")]
    process = ready.start(*line)
    waited_for(lambda: list((tmp_path / "store").glob("pretrain/*.partial")) or process.poll())
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75
    assert said.count("run the same command again") == 1
    assert not any(child.is_running() for child in children)


def trial(first, second):
    """What came of two works side by side."""
    workers = parallel.Workers(2, lambda text: {"first": first, "second": second}[text.strip()]())
    with interrupt.listening():
        try:
            workers.begin("one", "first")
            assert workers.free
            workers.begin("other", "second")
            assert not workers.free
            return dict(workers.finish() for _ in range(2))
        finally:
            workers.end()


def test_metrics_come_back_as_they_are():
    found = trial(lambda: {"a": 0.1 + 0.2}, lambda: {"b": [1, None]})
    assert found == {"one": {"a": 0.1 + 0.2}, "other": {"b": [1, None]}}


def failing(error):
    def work():
        raise error

    return work


def until_asked(path: Path):
    """Work that ends when it is asked to, and leaves a file then."""

    def work():
        waited_for(interrupt.asked)
        path.write_text("saved")
        raise interrupt.stop()

    return work


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("expected a pear, found an apple"), ArtifactError, r"^expected a pear, found an apple$"),
        (KeyError("a defect"), RuntimeError, r"(?s)one.*Traceback.*a defect"),
    ],
)
def test_what_one_child_says_is_of_its_node_and_the_others_save_when_all_end(tmp_path, error, kind, message):
    with pytest.raises(parallel.Failed) as caught:
        trial(failing(error), until_asked(tmp_path / "other"))
    assert (caught.value.key, caught.value.all) == ("one", False)
    with pytest.raises(kind, match=message):
        raise caught.value.error
    assert (tmp_path / "other").read_text() == "saved"


def test_an_interrupted_child_ends_all_after_the_others_have_saved(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        trial(failing(KeyboardInterrupt()), until_asked(tmp_path / "other"))
    assert (tmp_path / "other").read_text() == "saved"


def test_a_full_disk_concerns_every_node(tmp_path):
    with pytest.raises(parallel.Failed) as caught:
        trial(failing(OSError(errno.ENOSPC, "full")), until_asked(tmp_path / "other"))
    assert caught.value.all


def test_a_child_that_dies_is_told_of(tmp_path):
    with pytest.raises(parallel.Failed) as caught:
        trial(lambda: os.kill(os.getpid(), signal.SIGKILL), until_asked(tmp_path / "other"))
    assert caught.value.key == "one"
    with pytest.raises(ArtifactError, match=r"one.*SIGKILL.*parallel_nodes=1"):
        raise caught.value.error


def test_modules_that_several_nodes_import_are_imported_once():
    graph = build_graph(load([]))
    assert set(parallel.shared_modules(graph.values())) == {"timm", "torch._dynamo"}
    assert parallel.shared_modules([graph["embed[teacher.pool]"], graph["cluster[alignet]"]]) == []


def test_all_but_the_first_process_begin_with_the_shared_modules(tmp_path, monkeypatch):
    (tmp_path / "planted_module.py").write_text("import os\nmaker = os.getpid()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "planted_module", raising=False)

    def look(text):
        found = sys.modules.get("planted_module")
        return {"process": os.getpid(), "maker": found and found.maker}

    workers = parallel.Workers(2, look, ["planted_module"])
    with interrupt.listening():
        workers.begin("first", "")
        workers.begin("second", "")
        found = dict(workers.finish() for _ in range(2))
        workers.begin("third", "")
        found |= [workers.finish()]
        workers.end()
    assert found["first"]["maker"] is None
    assert found["second"]["maker"] == found["third"]["maker"] == os.getpid()
    assert found["third"]["process"] == found["second"]["process"]
    monkeypatch.delitem(sys.modules, "planted_module")
