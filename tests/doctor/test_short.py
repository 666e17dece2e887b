"""Networks of few blocks in the place of whole ones, and times that are not to be trusted."""

import contextlib
import subprocess
import sys
import time

import pytest
import torch

from alignet.doctor.memory import saved_bytes
from alignet.doctor.models import Models, parameter_bytes
from alignet.doctor.short import BLOCKS, shortened
from alignet.doctor.sources import Sources
from alignet.doctor.timing import Doubt, doubted, settled
from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from tests.doctor.test_estimates import estimates_of


def test_a_large_stack_of_blocks_is_built_with_few_and_counted_whole(tmp_path):
    """ViT-B/16 has 12: its parameters and what backward keeps, from the network of two, are the whole one's."""
    given = [
        "student=vit_base_16",
        "student.weights=random",
        "experiment=paper",
        f"paths.artifacts={tmp_path}",
    ]
    one = estimates_of(
        *given, "doctor.seconds=0.05", "student.image_size=32", "finetune.settings.precision=float32"
    )
    short = one.measured.models.short("student")
    assert (short.depth, short.blocks, len(one.measured.models.encoder("student").module.blocks)) == (
        12,
        "blocks",
        BLOCKS,
    )
    forward, step = one.measured.forward("student"), one.measured.step()
    assert short.weights == parameter_bytes(one.sources.config.student)
    assert forward.weights == short.weights
    assert forward.batch >= 4

    from alignet.doctor.models import load as load_network

    whole = load_network(one.sources.config.student, "random", "cpu")
    trained = {name: value for name, value in whole.module.named_parameters() if name in whole.trainable()}
    assert step.trained == sum(4 * value.numel() for value in trained.values())
    for name, value in whole.module.named_parameters():
        value.requires_grad_(name in trained)
    counted = [saved_bytes(whole, torch.zeros(many, 3, 32, 32), False) for many in (1, 2)]
    assert one.measured._training()[2] == counted[1] - counted[0]


@pytest.mark.parametrize("teacher", ["siglip_base", "clip_base"])
def test_towers_of_open_clip_are_built_with_few_blocks(teacher, tmp_path):
    config = load(
        ["experiment=paper", f"teacher={teacher}", "teacher.weights=random", f"paths.artifacts={tmp_path}"]
    )
    models = Models(Sources(config, (), Pipeline(config)))
    short = models.short("teacher")
    module = models.encoder("teacher").module
    assert models.failed == {}
    assert len(module.get_submodule(short.blocks)) == BLOCKS
    assert short.depth == 12
    with short.one_block(module):
        assert len(module.get_submodule(short.blocks)) == 1
    assert len(module.get_submodule(short.blocks)) == BLOCKS
    import timm

    assert len(timm.create_model("vit_tiny_patch16_224").blocks) == 12  # nothing is left of how it was built


def test_small_networks_and_those_that_are_no_stack_are_taken_whole():
    config = load(["experiment=paper", "student=vit_small_16", "teacher=siglip_base"])
    assert shortened(config.student) is None
    assert shortened(load(["experiment=paper", "student=efficientnet_lite0"]).student) is None
    assert shortened(config.teacher).whole(first=3.0, few=5.0) == 5 + 10 * 2 / (BLOCKS - 1)


def test_a_student_with_frozen_parts_and_one_that_cannot_be_built_are_taken_whole(tmp_path):
    given = ["experiment=paper", "student.weights=random", f"paths.artifacts={tmp_path}"]
    for more, short in (([], True), (["finetune.settings.frozen=[blocks.0.]"], False)):
        config = load([*given, *more])
        assert bool(Models(Sources(config, (), Pipeline(config))).short("student")) is short
    config = load([*given, "+student.model_args.no_such_argument=1"])
    models = Models(Sources(config, (), Pipeline(config)))
    assert models.short("student") is None
    assert models.encoder("student") is None
    assert "no_such_argument" in models.failed["student"]


def test_a_time_is_taken_until_two_agree():
    times = iter([3.0, 1.5, 1.0, 1.02, 0.5])
    assert settled(lambda: next(times), 100) == 1.0
    with doubted() as doubt:
        times = iter([1.0, 2.0, 4.0, 8.0])
        assert settled(lambda: next(times), 14.9) == 1.0
    assert doubt.reasons == ["equal runs took different times"]


def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_a_busy_processor_is_noticed():
    """Two programs that share one core: each waits for half of the time. Alone, none of it."""
    import os

    allowed = os.sched_getaffinity(0)
    program = (
        "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"
    )
    core = min(allowed)
    os.sched_setaffinity(0, {core})
    other = subprocess.Popen([sys.executable, "-c", program, str(core)], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with doubted() as doubt:
            busy(0.5)
    finally:
        other.kill()
        other.communicate()
        os.sched_setaffinity(0, allowed)
    assert doubt.reasons == ["other work had the processor"]


def test_what_is_in_doubt_is_said_in_the_place_of_a_time(tmp_path, monkeypatch):
    from alignet.doctor import machine, measure_networks

    quiet = contextlib.nullcontext(Doubt())  # whatever else this machine does
    monkeypatch.setattr(measure_networks, "doubted", lambda: quiet)
    one = estimates_of(f"paths.artifacts={tmp_path}", "doctor.seconds=0.05")
    one.measured.doubts["picture"] = "other work had the processor"
    rows = machine.table(one.sources, one)
    row = next(row for row in rows if row.key == "world")
    assert row.estimate.doubt == "other work had the processor"
    lines = machine.lines(rows, 1.0)
    assert "not trusted" in next(line for line in lines if line.startswith("world "))
    (warned,) = (found for found in machine.check_measured(rows) if found.about == "estimates")
    assert "other work had the processor" in warned.found
    (other,) = (one for one in lines if one.startswith("index[things] "))
    assert "not trusted" not in other


def test_a_store_without_anything_needs_no_checksums(photos, tmp_path):
    config = load(["experiment=photos", f"paths.photos={photos}", f"paths.artifacts={tmp_path / 'store'}"])
    sources = Sources(config, (), Pipeline(config))
    assert {sources.state(key).state for key in sources.graph} == {"missing"}
    assert not (tmp_path / "store").exists()
    (photos / "concepts.csv").rename(tmp_path / "concepts.csv")
    try:
        again = Sources(config, (), Pipeline(config))
        states = {key: again.state(key) for key in again.graph}
    finally:
        (tmp_path / "concepts.csv").rename(photos / "concepts.csv")
    assert states["vice"].state == "blocked"
    assert "data/README.md says what it is" in states["vice"].why
