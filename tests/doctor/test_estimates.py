"""Estimates for every node, held against what is on disk and what a run of known cost takes."""

import dataclasses

import numpy as np
import pytest

from alignet.doctor import machine, timing
from alignet.doctor.estimate_base import Estimate
from alignet.doctor.estimates import Estimates
from alignet.doctor.findings import duration, plain
from alignet.doctor.measure import Measurements, random_rows
from alignet.doctor.memory import Memory, saved_bytes, scaled, watched
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.doctor.timing import rate
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from tests.makers.doctor import QUICK, SMALL, estimates_of, examine
from tests.makers.worlds import TINY, overrides


def test_estimates_cover_every_node_of_every_stage(tiny, photos, tmp_path):
    for given in (
        [*TINY, *QUICK, f"paths.artifacts={tmp_path}", "finetune.settings.sampling=triplets"],
        [*SMALL, f"paths.photos={photos}", f"paths.artifacts={tmp_path}"],
    ):
        config = load(given)
        sources = Sources(config, tuple(given), Pipeline(config))
        rows = machine.table(sources, Estimates(sources, Measurements(sources, Models(sources))))
        assert [row.key for row in rows] == list(sources.graph)
        for row in rows:
            assert row.estimate is not None
            assert np.isfinite(row.estimate.seconds)
            assert row.estimate.seconds > 0
            assert row.estimate.memory > 0
            assert row.estimate.how
            assert not row.estimate.unknown, row
            assert "no estimate for" not in row.estimate.how
        shown = machine.lines(rows, 1.0)
        assert len(shown) == len(rows) + 2


def test_one_estimate_that_fails_leaves_the_others(photos, tmp_path, capsys, monkeypatch):
    def broken(self, *_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Measurements, "kmeans", broken)
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={photos}")
    assert status == 0
    assert any(
        "cluster" in line and "could not be measured: RuntimeError: out of memory" in line for line in lines
    )
    table = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert "not measured" in next(line for key, line in table.items() if key.startswith("cluster"))
    assert "finetune[alignet]" in table


def test_memory_does_not_hang_on_the_time_for_measuring(tmp_path):
    given = [
        *TINY,
        "student=efficientnet_lite0",
        "student.weights=random",
        "finetune.settings.batch=24",
        "embed.batch=48",
        f"paths.artifacts={tmp_path}",
    ]
    found = []
    for seconds in (0.01, 2.0):
        one = estimates_of(*given, f"doctor.seconds={seconds}")
        forward, step = one.measured.forward("student"), one.measured.step()
        found.append((forward.memory_of(48).host, step.memory.host, one.of("finetune[alignet]").extra_disk))
        assert one.of("embed[student.fresh]").memory >= forward.memory_of(48).host
    assert found[0][1] == pytest.approx(found[1][1], rel=0.35)
    assert min(row[0] for row in found) > 48 * 3 * 224**2 * 4  # no less than the images themselves
    assert found[0][2] == found[1][2] == 9 * step.trained


def test_what_backward_keeps_is_counted():
    """A linear layer keeps its input, a square its own; parameters are not counted, nor what is frozen."""
    import torch

    class Toy:
        device = torch.device("cpu")
        module = torch.nn.Linear(10, 7)

        def features(self, images):
            return self.module(images * 1.0) ** 2

    toy = Toy()
    assert saved_bytes(toy, torch.zeros(5, 10), False) == 4 * (5 * 10 + 5 * 7)
    toy.module.requires_grad_(False)
    assert saved_bytes(toy, torch.zeros(5, 10), False) == 0
    assert scaled(Memory(100, 50), Memory(40, 80), 3) == Memory(40 + 3 * 60, 50)


def test_what_a_checkpoint_takes_is_what_is_written(tmp_path):
    import torch
    from safetensors.torch import load_file

    from alignet.runtime.checkpoints import Checkpoints
    from alignet.student.batches import PoolTeacher
    from alignet.student.finetune import finetune

    given = [
        "finetune.settings.batch=8",
        "finetune.settings.head=5",
        "student.weights=random",
        f"paths.artifacts={tmp_path}",
    ]
    one = estimates_of(*given, "doctor.seconds=0.01")
    settings = dataclasses.replace(one.sources.config.finetune.settings, steps=2, warmup=0)
    encoder = one.measured.models.encoder("student")
    images = torch.randint(0, 256, (12, *encoder.data_config["input_size"]), dtype=torch.uint8)
    teacher = PoolTeacher(np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32), None)
    finetune(encoder, images, teacher, settings, checkpoints=Checkpoints(tmp_path / "kept", 0.0))
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 2  # and a third while it is written
    size = sum(value.nbytes for value in load_file(files[-1]).values())
    assert one.of("finetune[alignet]").extra_disk == pytest.approx(3 * size, rel=0.01)


def test_a_gpu_counts_where_it_is_asked_for_and_is_compared_with_its_own_memory(
    photos, tmp_path, monkeypatch
):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7 * 10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    with watched("cpu") as peak:  # no GPU is touched
        held = np.ones(50_000_000, np.uint8)
    assert peak.memory.gpu == 0
    assert peak.memory.host >= 0.9 * held.nbytes
    config = load([*SMALL, f"paths.photos={photos}", f"paths.artifacts={tmp_path}", "runtime.device=cuda"])
    sources = Sources(config, (), Pipeline(config))
    for gpu, level in ((6e9, "ok"), (7.5e9, "warning"), (9e9, "fault")):
        rows = [machine.Row("a", "missing", Estimate(1.0, 10**6, 0, "", gpu=int(gpu))),
                machine.Row("b", "missing", Estimate(1.0, 10**7, 0, "", gpu=1))]  # fmt: skip
        disk, memory, of_gpu = machine.check_room(sources, rows)
        assert (disk.level, memory.level, of_gpu.level) == ("ok", "ok", level)
        assert "needed by b" in memory.found
        assert "needed by a" in of_gpu.found
        assert "8.0 GB" in of_gpu.found
        assert "of the GPU" in machine.lines(rows, 1.0)[0]
    assert "of the GPU" not in machine.lines([machine.Row("c", "missing", Estimate(1.0, 1, 0, ""))], 1.0)[0]


def test_workers_read_while_the_network_computes(tmp_path, monkeypatch):
    from alignet.doctor import estimate_base

    monkeypatch.setattr(estimate_base, "cores", lambda: 16)
    for workers, expected in ((0, 5.0), (2, 2.0), (8, 1.0)):
        one = estimates_of(f"runtime.workers={workers}", "runtime.threads=1", f"paths.artifacts={tmp_path}")
        assert one.while_reading(10, 0.4, 0.1) == pytest.approx(expected)
    monkeypatch.setattr(estimate_base, "cores", lambda: 1)
    assert one.while_reading(10, 0.4, 0.1) == pytest.approx(5.0)  # one core does one thing at once


def test_hashing_is_counted_once_for_bytes_that_nobody_has_read(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Measurements, "hashing", lambda self: 1e6)
    given = [*SMALL, "++doctor.assume.pool=1000", f"paths.artifacts={tmp_path}"]
    absent = estimates_of(*given, "paths.photos=nowhere").of("index[pool]")
    assert absent.seconds == pytest.approx(115, rel=0.01)
    assert "115.0 MB (assumed: 115 kB each, as ImageNet's)" in absent.how
    one = estimates_of(*given, f"paths.photos={photos}")
    assert one.sources.state("index[pool]").state == "missing"
    here = one.of("index[pool]")
    assert here.seconds < 1
    assert "to hash" in here.how
    one.sources.pipeline.state("index[pool]")  # as `status` does
    assert "remembered" in one.of("index[pool]").how


def test_pixels_are_held_as_the_stage_holds_them(photos, tmp_path, monkeypatch):
    from alignet.doctor import estimates

    given = [*SMALL, f"paths.photos={photos}", f"paths.artifacts={tmp_path}"]
    size = 60 * 3 * 64 * 64
    for limit, processes, held in ((4 * size, 1, True), (4 * size, 2, False), (8 * size, 2, True)):
        monkeypatch.setattr(estimates, "memory_limit", lambda limit=limit: limit)
        launcher = ["runtime.launcher=torchrun", f"runtime.processes={processes}"] if processes > 1 else []
        assert ("read anew" not in estimates_of(*given, *launcher).of("finetune[alignet]").how) is held


def test_numbers_read_without_exponents():
    said = [plain(number) for number in (1420.0, 99.94, 1.5, 0.000012345, 0, 12)]
    assert said == ["1,420", "99.9", "1.5", "0.0000123", "0", "12"]
    assert [duration(seconds) for seconds in (0.00002, 0.0123, 3.0, 250.0)] == [
        "0.02 ms",
        "12.3 ms",
        "3.00 s",
        "4.2 min",
    ]


def test_estimated_sizes_are_those_on_disk(tiny, tmp_path):
    made = Pipeline(load(overrides(tiny)))
    config = load([*TINY, *QUICK, f"paths.artifacts={tmp_path}"])
    sources = Sources(config, (), Pipeline(config))
    estimates = Estimates(sources, Measurements(sources, Models(sources)))
    for key in (
        "embed[student.pool]",
        "embed[teacher.pool]",
        "finetune[alignet]",
        "soft_labels[human_train]",
        "export[alignet]",
    ):
        if key in made.graph:
            assert estimates.of(key).disk == pytest.approx(made.state(key).artifact.size, rel=0.3), key


def test_what_is_absent_is_assumed_or_said_to_be_unknown(tmp_path):
    given = [*SMALL, "paths.photos=nowhere", f"paths.artifacts={tmp_path}", "student.weights=random"]
    numbers = {"pool": 1000, "photographs": 50, "concepts": 40, "human_train": 5000, "human_val": 500}
    assume = [f"++doctor.assume.{name}={number}" for name, number in numbers.items()]
    for options, unknown in (([], True), (assume, False)):
        config = load([*given, *options])
        sources = Sources(config, (), Pipeline(config))
        estimate = Estimates(sources, Measurements(sources, Models(sources))).of("vice")
        assert estimate.unknown is unknown
    assert "5,000 (assumed) triplets" in estimate.how


def test_a_rate_is_what_a_run_of_known_cost_has():
    step, rest = rate(lambda steps: 2.0 + 0.5 * steps, 1, 4.0, 100)
    assert step == pytest.approx(0.5)
    assert rest == pytest.approx(2.0)


def test_doubts_of_a_measurement_within_another_are_its_own(monkeypatch):
    ran = {"one": (0.0, 0.0)}
    monkeypatch.setattr(timing, "_scheduled", lambda: dict(ran))
    with timing.doubted() as outer:
        with timing.doubted() as inner:
            ran["one"] = (1.0, 1.0)
        assert inner.reasons == ["other work had the processor"]
        assert [outer] == timing._CURRENT
        ran["one"] = (9.0, 1.0)
    assert not outer.reasons
    assert not timing._CURRENT


def test_no_set_of_triplets_repeats_an_object():
    rows = random_rows(3, 200)
    assert (np.sort(rows, 1) == [0, 1, 2]).all()
