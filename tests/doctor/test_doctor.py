"""doctor: broken configurations, each named by its line and exit status 1; a sound one; estimates for every node."""

import dataclasses
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from alignet.doctor import choices, machine, models, origins
from alignet.doctor.estimate_base import Estimate
from alignet.doctor.estimates import Estimates
from alignet.doctor.findings import collect, duration, ok, plain
from alignet.doctor.measure import Measurements, random_rows
from alignet.doctor.memory import Memory, saved_bytes, scaled, watched
from alignet.doctor.models import Models
from alignet.doctor.sources import Sources
from alignet.doctor.timing import rate
from alignet.pipeline.cli import conf_folder, load
from alignet.pipeline.runner import Pipeline
from alignet.stages import doctor
from tests.makers.toys import TOYS
from tests.makers.worlds import TINY, overrides

QUICK = ["doctor.seconds=0.01", "doctor.images=8"]
SMALL = [
    "experiment=photos", "student=world", "student.weights=file", "student.weights_set=student_weights",
    "runtime.threads=1", "vice.settings.dim=8", "vice.settings.batch=512", "cluster.clusters=6",
    "finetune.settings.batch=16", "finetune.settings.frozen=[]", "triplets.count=500", "evaluate.bootstrap=50",
    "distill.settings.teacher.batch=512", "distill.settings.student.batch=512", *QUICK,
]  # fmt: skip


@pytest.fixture(scope="module")
def photos(tiny, tmp_path_factory) -> Path:
    """The tiny world as a folder of photographs, with features of its objects that know the participants' answers."""
    chain = Pipeline(load(overrides(tiny)))
    world = chain.state("world").artifact.folder
    folder = tmp_path_factory.mktemp("photos")
    for name in ("things", "pool"):
        shutil.copytree(world / "images" / name, folder / "images" / name)
    shutil.copyfile(world / "objects.csv", folder / "concepts.csv")
    (folder / "things_triplets").mkdir()
    train, val = np.load(world / "triplets/train.npy"), np.load(world / "triplets/val.npy")
    for name, rows in (("train_90", train), ("test_10", val), ("photo_tune_train", train[:600]),
                       ("photo_tune_test", val[:200]), ("photo_report", val[200:400])):  # fmt: skip
        np.save(folder / f"things_triplets/{name}.npy", rows)
    shutil.copyfile(
        chain.state("pretrain[student]").artifact.file("weights.safetensors"),
        folder / "tf_efficientnet_lite0.safetensors",
    )
    features = folder / "teacher_features"
    features.mkdir()
    objects = len(list((folder / "images/things").iterdir()))
    known = np.linalg.svd(_counts(train, objects))[0][:, :12].astype(np.float32)
    np.save(features / "things_concepts.npy", known)
    (features / "things_concepts_index.txt").write_text("".join(f"{row}\n" for row in range(objects)))
    images = [
        f"{kind}/{path.name}"
        for kind in ("things", "pool")
        for path in sorted((folder / "images" / kind).iterdir())
    ]
    np.save(
        features / "images.npy",
        np.random.default_rng(0).standard_normal((len(images), 12)).astype(np.float32),
    )
    (features / "images.txt").write_text("".join(f"{name}\n" for name in images))
    return folder


def _counts(triplets, objects):
    """How often two objects were left together, centred: what any embedding of the choices reflects."""
    together = np.zeros((objects, objects))
    np.add.at(together, (triplets[:, 0], triplets[:, 1]), 1.0)
    return (together + together.T) - together.mean()


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """A copy of the photographs that a test may damage."""
    shutil.copytree(photos, tmp_path / "photos")
    return tmp_path / "photos"


def examine(capsys, tmp_path, *arguments) -> tuple[int, list[str]]:
    """Exit status and lines of one run."""
    status = 0
    try:
        doctor.main([*arguments, f"paths.artifacts={tmp_path / 'store'}"])
    except SystemExit as end:
        status = int(end.code or 0)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err
    return status, (shown.out + shown.err).splitlines()


def faults(lines):
    """The faults, where they are found; the summary counts them and names what they are about, once."""
    found = [line for line in lines if line.startswith("fault ")]
    summary = next((line for line in lines if line.endswith(" ok") and " fault" in line), "")
    assert int(summary.split()[0]) == len(found)
    assert all(line.split()[1] in summary for line in found)
    return found


def test_a_sound_folder_passes_and_nothing_but_checksums_is_written(photos, tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={photos}")
    assert status == 0, faults(lines)
    assert not faults(lines)
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"seen"}
    text = "\n".join(lines)
    assert "features equal timm's own" in text
    assert not re.search(r"\de[+-]\d", text), "a number with an exponent"
    assert "the declared odd one (last) is right" in text
    assert "Apache-2.0" in text
    assert "finetune.settings.retain" in text


def test_the_world_passes_before_and_after_it_was_made(tiny, tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, *TINY, *QUICK)
    assert status == 0, faults(lines)
    doctor.main([*overrides(tiny), *QUICK])
    out = capsys.readouterr().out
    assert "nothing is missing" in out
    assert "0 faults" in out


def _absent(folder):
    (folder / "things_triplets/train_90.npy").unlink()


def _truncated(folder):
    path = folder / "things_triplets/train_90.npy"
    path.write_bytes(path.read_bytes()[:-100])


def _one_based(folder):
    for path in (folder / "things_triplets").glob("*.npy"):
        np.save(path, np.load(path) + 1)


def _odd_one_first(folder):
    path = folder / "things_triplets/train_90.npy"
    np.save(path, np.load(path)[:, [2, 0, 1]])


def _unreadable(folder):
    for path in (folder / "images/pool").glob("*.png"):
        path.write_bytes(path.read_bytes()[:60])


def _rows_of_others(folder):
    path = folder / "teacher_features/images.txt"
    path.write_text(path.read_text().replace("pool/", "other/"))


def _nan(folder):
    path = folder / "teacher_features/things_concepts.npy"
    values = np.load(path)
    values[3, 1] = np.nan
    np.save(path, values)


def _same(folder):
    shutil.copyfile(folder / "things_triplets/train_90.npy", folder / "things_triplets/test_10.npy")


def _short_table(folder):
    path = folder / "concepts.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-3]) + "\n")


def _damaged_weights(folder):
    path = folder / "tf_efficientnet_lite0.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _keep(folder):
    """Nothing is damaged: the options are what is wrong."""


BROKEN = [
    (_absent, [], "data.sets.human_train", "nothing at"),
    (_truncated, [], "data.sets.human_train", "truncated or damaged"),
    (_one_based, [], "data.sets.human_train", "set index_base to 1"),
    (_odd_one_first, [], "data.sets.human_train", "set data.sets.human_train.odd_one=first"),
    (_unreadable, [], "data.sets.pool", "cannot be read"),
    (_rows_of_others, [], "data.sets.image_features", "expected a row for each of"),
    (_nan, [], "data.sets.concept_features", "found NaN in row 3"),
    (_same, [], "data.sets.human_val", "100.0% of its triplets"),
    (_short_table, [], "data.sets.human_train", "give the object list"),
    (_damaged_weights, [], "data.sets.student_weights", "expected readable .safetensors"),
    (_keep, ["student.model_args.depth=2"], "student", "expected the keys of this architecture"),
    (_keep, ["data.object_ids.photographs.prefix=wrong/"], "data.object_ids.photographs", "0 of 32 objects"),
    (_keep, ["data.object_ids.photographs.column=file"], "data.object_ids.photographs", "expected a column out of"),
    (_keep, ["cluster.clusters=1000"], "cluster.clusters", "1,000 clusters of 60 images"),
    (_keep, ["finetune.settings.batch=61"], "finetune.batch", "a batch of 61 images, and the pool has 60"),
    (_keep, ["student.weights=random", "student.model_args.num_classes=0"], "finetune.retain", "a linear classifier"),
    (_keep, ["finetune.settings.frozen=[blokcs]"], "finetune.frozen", "no parameter's name begins with 'blokcs'"),
    (_keep, ["report.category_column=kind"], "data.sets.concepts", "expected a column kind"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "options", "about", "found"), BROKEN)
def test_each_fault_is_named(folder, tmp_path, capsys, damage, options, about, found):
    damage(folder)
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={folder}", *options)
    assert status == 1
    named = [line for line in faults(lines) if line.split()[1] == about]
    assert any(found in line for line in named), faults(lines)


def test_shards_are_read_and_a_broken_one_is_a_fault(folder, tmp_path, capsys):
    import tarfile

    shard = tmp_path / "shards" / "pool-000.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        for path in sorted((folder / "images/pool").iterdir()):
            tar.add(path, f"pool/{path.name}")
    given = [*SMALL, f"paths.photos={folder}", "data.sets.pool.kind=shards", f"data.sets.pool.path={shard.parent}",
             "data.sets.pool.under=''"]  # fmt: skip
    status, lines = examine(capsys, tmp_path, *given)
    assert status == 0, faults(lines)
    assert any("60 images, 8 of them decoded" in line for line in lines)
    shard.write_bytes(shard.read_bytes()[:-20_000])
    status, lines = examine(capsys, tmp_path, *given)
    assert status == 1
    assert any("pool-000.tar" in line for line in faults(lines))


@pytest.mark.skipif(os.environ.get("CUDA_VISIBLE_DEVICES", "") != "", reason="a GPU may be there")
def test_a_device_that_is_not_there_is_a_fault(photos, tmp_path, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={photos}", "runtime.device=cuda")
    assert status == 1
    assert any("Set runtime.device=cpu" in line for line in faults(lines))


def test_many_faults_are_all_listed_in_one_run(folder, tmp_path, capsys):
    for damage in (_truncated, _unreadable, _nan, _damaged_weights):
        damage(folder)
    (folder / "things_triplets/photo_report.npy").unlink()
    (folder / "things_triplets/test_10.npy").write_bytes(b"")
    options = ["cluster.clusters=1000", "data.object_ids.photographs.prefix=wrong/", "finetune.settings.batch=200",
               "report.category_column=kind"]  # fmt: skip
    status, lines = examine(capsys, tmp_path, *SMALL, f"paths.photos={folder}", *options)
    assert status == 1
    named = {line.split()[1] for line in faults(lines)}
    assert {
        "data.sets.human_train", "data.sets.pool", "data.sets.concept_features", "data.sets.student_weights",
        "data.sets.photo_report", "data.sets.human_val", "cluster.clusters", "data.object_ids.photographs",
        "finetune.batch", "data.sets.concepts",
    } <= named  # fmt: skip


def test_a_folder_that_is_not_given_is_a_fault_with_all_that_belongs_in_it(tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, *SMALL)
    assert status == 1
    text = "\n".join(faults(lines))
    assert "Add paths.photos=" in text
    assert "things_triplets/train_90.npy in paths.photos, which is not given" in text
    assert any(line.lstrip().startswith("finetune[alignet]") for line in lines)


def test_a_key_that_does_not_exist_ends_as_everywhere(tmp_path, capsys):
    status, lines = examine(capsys, tmp_path, "finetune.settings.stepps=3")
    assert status == 1
    assert lines == [line for line in lines if line.startswith("error: no configuration key")]


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


def estimates_of(*given):
    config = load([*given])
    sources = Sources(config, tuple(given), Pipeline(config))
    return Estimates(sources, Measurements(sources, Models(sources)))


def test_unreadable_images_are_skipped_where_they_may_be(folder, tmp_path, capsys):
    files = sorted((folder / "images/pool").glob("*.png"))
    for path in files[::2]:
        path.write_bytes(path.read_bytes()[:60])
    status, lines = examine(
        capsys, tmp_path, *SMALL, f"paths.photos={folder}", "embed.unreadable=skip", "doctor.images=all"
    )
    assert status == 0, faults(lines)
    assert any("sets such images aside" in line for line in lines)
    assert any(line.lstrip().startswith("finetune[alignet]") for line in lines)


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
    from alignet.doctor import estimates

    monkeypatch.setattr(estimates, "cores", lambda: 16)
    for workers, expected in ((0, 5.0), (2, 2.0), (8, 1.0)):
        one = estimates_of(f"runtime.workers={workers}", "runtime.threads=1", f"paths.artifacts={tmp_path}")
        assert one._while_reading(10, 0.4, 0.1) == pytest.approx(expected)
    monkeypatch.setattr(estimates, "cores", lambda: 1)
    assert one._while_reading(10, 0.4, 0.1) == pytest.approx(5.0)  # one core does one thing at once


def test_hashing_is_counted_once_for_bytes_that_nobody_has_read(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Measurements, "hashing", lambda self: 1e6)
    given = [*SMALL, "+doctor.assume.pool=1000", f"paths.artifacts={tmp_path}"]
    absent = estimates_of(*given, "paths.photos=nowhere").of("index[pool]")
    assert absent.seconds == pytest.approx(115, rel=0.01)
    assert "115.0 MB (assumed: 115 kB each, as ImageNet's)" in absent.how
    one = estimates_of(*given, f"paths.photos={photos}")
    assert one.sources.state("index[pool]").state == "missing"
    here = one.of("index[pool]")
    assert here.seconds < 1
    assert "remembered" in here.how


def test_pixels_are_held_as_the_stage_holds_them(photos, tmp_path, monkeypatch):
    from alignet.doctor import estimates

    given = [*SMALL, f"paths.photos={photos}", f"paths.artifacts={tmp_path}"]
    size = 60 * 3 * 64 * 64
    for limit, processes, held in ((4 * size, 1, True), (4 * size, 2, False), (8 * size, 2, True)):
        monkeypatch.setattr(estimates, "memory_limit", lambda limit=limit: limit)
        launcher = ["runtime.launcher=torchrun", f"runtime.processes={processes}"] if processes > 1 else []
        assert ("read anew" not in estimates_of(*given, *launcher).of("finetune[alignet]").how) is held


@pytest.mark.parametrize("case", TOYS)
def test_features_are_compared_with_each_librarys_own(case, tmp_path, monkeypatch):
    from alignet.backbones import load_encoder

    encoder = load_encoder(TOYS[case], seed=3)
    held = Models(estimates_of(f"paths.artifacts={tmp_path}").sources)
    monkeypatch.setattr(Models, "networks", lambda self: {"student": None})
    monkeypatch.setattr(Models, "encoder", lambda self, name: encoder)
    (fine,) = models.check_preprocessing(held.sources, held)
    assert fine.level == "ok", fine
    assert f"features equal {encoder.backbone.library}'s own" in fine.found
    sound = encoder.transform
    encoder = dataclasses.replace(
        encoder, transform=lambda image: sound(image) + 1, pixels=lambda image: sound(image) + 1
    )
    (wrong,) = models.check_preprocessing(held.sources, held)
    assert wrong.level == "fault"


def test_numbers_read_without_exponents():
    said = [plain(number) for number in (1420.0, 99.94, 1.5, 0.000012345, 0, 12)]
    assert said == ["1,420", "99.9", "1.5", "0.0000123", "0", "12"]
    assert [duration(seconds) for seconds in (0.00002, 0.0123, 3.0, 250.0)] == [
        "0.02 ms",
        "12.3 ms",
        "3.00 s",
        "4.2 min",
    ]


def test_random_weights_were_trained_at_no_size(tmp_path):
    from alignet.doctor import config_checks

    for weights, level in (("hub", "warning"), ("random", None)):
        given = [
            "student=vit_small_16",
            "student.image_size=96",
            f"student.weights={weights}",
            f"paths.artifacts={tmp_path}",
        ]
        found = [one.level for one in config_checks.check_sizes(estimates_of(*given).sources)]
        assert found == ([level] if level else [])


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
    assume = [f"+doctor.assume.{name}={number}" for name, number in numbers.items()]
    for options, unknown in (([], True), (assume, False)):
        config = load([*given, *options])
        sources = Sources(config, (), Pipeline(config))
        estimate = Estimates(sources, Measurements(sources, Models(sources))).of("vice")
        assert estimate.unknown is unknown
    assert "5,000 (assumed) triplets" in estimate.how


def test_the_column_of_the_odd_one_is_found_and_vanishes_on_shuffling():
    draw = np.random.default_rng(0)
    features = draw.standard_normal((30, 5)).astype(np.float32)
    rows = random_rows(30, 4000)
    pairs = [(features[rows[:, a]] * features[rows[:, b]]).sum(1) for a, b in ((0, 1), (0, 2), (1, 2))]
    alike = np.argmax(np.stack(pairs, 1), 1)
    order = np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[alike]
    last = np.take_along_axis(rows, order, 1)
    declared = dataclasses.replace(load([]).data.sets["human_train"])
    for place, columns in (("last", [0, 1, 2]), ("first", [2, 0, 1]), ("middle", [0, 2, 1])):
        fit = choices._fit(last[:, columns], features, np.arange(30), "planted features")
        finding = choices.judge("human_train", declared, fit)
        assert finding.level == ("ok" if place == "last" else "fault")
        assert place == "last" or finding.fix.endswith(f"odd_one={place}")
    shuffled = choices._fit(last[:, [2, 0, 1]], draw.permutation(features), np.arange(30), "shuffled")
    assert choices.judge("human_train", declared, shuffled).level == "ok"


def test_a_file_whose_pairs_ascend_is_no_fault_where_features_drift_with_the_index():
    """What `survey import` writes: features that know the order of the objects alone say nothing of a column."""
    draw, m = np.random.default_rng(1), 40
    away = np.exp(0.1 * np.arange(m)) * draw.choice([-1, 1], m)
    features = np.stack([away, draw.standard_normal(m)], 1).astype(np.float32)
    questions = np.sort(random_rows(m, 20_000), 1)
    declared = dataclasses.replace(load([]).data.sets["human_train"])

    def written(odd, order=(0, 1, 2)):
        kept = np.array([[1, 2, 0], [0, 2, 1], [0, 1, 2]])[odd]
        return np.take_along_axis(questions, kept, 1)[:, order]

    guessed = written(draw.integers(0, 3, len(questions)))
    fit = choices._fit(guessed, features, np.arange(m), "drifting features")
    assert max(fit.shares) > 0.36  # more than a third, by a dozen standard errors
    assert np.allclose(fit.shares, fit.expected, atol=0.015)
    assert choices.judge("human_train", declared, fit).level == "ok"
    at = features[questions]
    sims = np.stack([(at[:, a] * at[:, b]).sum(1) for a, b in ((1, 2), (0, 2), (0, 1))], 1)
    people = np.where(draw.random(len(questions)) < 0.3, sims.argmax(1), draw.integers(0, 3, len(questions)))
    for order, level in (((0, 1, 2), "ok"), ((2, 0, 1), "fault")):  # the odd one last, and first in truth
        fit = choices._fit(written(people, order), features, np.arange(m), "features that people agree with")
        finding = choices.judge("human_train", declared, fit)
        assert finding.level == level
    assert finding.fix.endswith("odd_one=first")


@pytest.mark.parametrize("declared", ["last", "first", "middle"])
def test_the_named_column_is_that_of_the_file(declared, tmp_path):
    from alignet.data.triplets import load_triplets

    path = tmp_path / "triplets.npy"
    np.save(path, np.array([[10, 20, 30]]))
    loaded = load_triplets(path, objects=31, index_base=0, odd_one=declared)[0]
    for pair, left_out in enumerate((2, 1, 0)):
        place = choices.original_place(declared, pair)
        assert {"first": 10, "middle": 20, "last": 30}[place] == loaded[left_out]


def test_overlap_is_counted_whatever_the_order_and_chance_is_known():
    train = np.array([[0, 1, 2], [3, 4, 5]])
    test = np.array([[2, 0, 1], [0, 1, 3], [5, 4, 3], [1, 2, 3]])
    assert choices.overlap(train, test, 6)[0] == pytest.approx(0.5)
    draw = random_rows(20, 6000)
    share, chance = choices.overlap(draw[:300], draw[300:], 20)
    assert share == pytest.approx(chance, abs=0.03)


def test_marks_are_read_from_comments_with_their_keys():
    text = """
top:                   # a section
  first: 1             # what it is [ours; the paper 2]
  second: 2            # goes on
                       # below [paper A.1]
  inner: {a: 1}        # [VICE's default]
  plain: 3             # in [0, 1]
"""
    found = origins.comments(text, "")
    assert found["top.first"] == "ours; the paper 2"
    assert found["top.second"] == "paper A.1"
    assert found["top.inner"] == "VICE's default"
    assert found["top.plain"] == ""


def test_values_of_the_command_line_are_told_from_those_of_the_papers():
    given = ["experiment=photos", "paths.photos=x", "vice.settings.lr=0.5", "cluster.clusters=7"]
    found = {one.key: one for one in origins.values(dataclasses.asdict(load(given)), given)}
    assert found["vice.settings.lr"].overridden
    assert found["cluster.clusters"].overridden
    assert found["vice.settings.batch"].mark.startswith("ours")
    assert found["vice.settings.k"].mark == "VICE's default"
    assert not found["vice.settings.k"].ours
    lines = "\n".join(origins.assumption_lines(list(found.values())))
    assert "given on this command line" in lines


@pytest.mark.parametrize(
    ("given", "sources"),
    [
        ([], set()),
        (["experiment=paper"], {"THINGS", "ImageNet"}),
        (["experiment=photos", "paths.photos=x"], {"WordNet ids"}),
        (["experiment=paper", "+also=nights"], {"THINGS", "ImageNet", "NIGHTS"}),
        (["experiment=paper", "+also=similarity"], {"THINGS", "ImageNet", "Peterson"}),
        (["experiment=paper", "+also=levels"], {"THINGS", "ImageNet", "Levels"}),
        (["+also=few_shot_cub"], {"labelled test sets"}),
        (["experiment=paper", "+also=wordnet"], {"THINGS", "ImageNet", "WordNet 3.0"}),
        (["experiment=own_dataset", "paths.dataset=x", "paths.images=y", "paths.map=z"], {"AligNet data"}),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, list) else "",
)
def test_licences_are_those_of_what_the_run_reads(given, sources):
    from alignet.pipeline.graph import build_graph

    config = load(given)
    used = [node.role for node in build_graph(config).values() if node.stage == "index"]
    lines = origins.licence_lines(dataclasses.asdict(config), used)
    found = {name for name in origins.SOURCES for line in lines if line.startswith(name)}
    assert found == sources | ({"WordNet ids"} if "WordNet ids" in found else set())
    assert ("WordNet ids" in found) == any(one.family == "top1" for one in config.evaluate.datasets.values())
    assert [line.split(":")[0] for line in lines[:2]] == ["teacher", "student"]
    assert any("made by this run" in line for line in lines) == (config.experiment_name == "world")
    readme = (
        (conf_folder().parent / "data" / "README.md").read_text(encoding="utf-8").partition("## Sources")[2]
    )
    rows = [line.strip("| ") for line in readme.splitlines() if line.startswith("|")][2:]
    assert all(any(row.startswith(name) for name in origins.SOURCES) for row in rows)


def test_a_table_is_told_once_for_its_images_and_all_its_columns(tiny):
    config = load(overrides(tiny))
    found = list(choices._check_labels(Sources(config, (), Pipeline(config))))
    about = [(one.about, one.found.rpartition(" of ")[2]) for one in found]
    assert about
    assert len(set(about)) == len(about)
    assert any(one.found.startswith("label, category of each of") for one in found)


def test_a_group_that_is_chosen_is_one_line():
    given = [
        "experiment=photos",
        "paths.photos=x",
        "teacher=siglip_base",
        "student=vit_small_16",
        "student.image_size=96",
    ]
    lines = origins.assumption_lines(origins.values(dataclasses.asdict(load(given)), given))
    said = [line.split()[0] for line in lines if "given on this command line" in line]
    assert said == ["teacher", "student", "student.image_size"]


@pytest.mark.parametrize("path", sorted(conf_folder().rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_value_of_ours_is_credited_to_a_paper(path):
    """A mark that names another number than the value says that the value is ours."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\s*([\w.]+): +([\d.e+-]+) +#", line):
            mark = origins.comments(line.strip()).get(found[1], "")
            numbers = re.findall(r"(?<![\w.-])\d[\d,.]*(?:e-?\d+)?", re.sub(r"[A-Z](\.\d+)+", "", mark))
            if any(float(number.replace(",", "").rstrip(".")) != float(found[2]) for number in numbers):
                assert "ours" in mark, line


def test_what_an_experiment_sets_without_a_mark_is_ours(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "config.yaml").write_text("vice:\n  k: 5  # kept [VICE]\n  pi: 0.6  # weight [VICE]\n")
    (tmp_path / "experiment/world.yaml").write_text(
        "vice:\n  k: 2\ncluster: {clusters: 500, seed: 1}  # c [paper]\n"
    )
    composed = {
        "experiment_name": "world",
        "vice": {"k": 2, "pi": 0.6},
        "cluster": {"clusters": 500, "seed": 1},
    }
    found = {one.key: one.ours for one in origins.values(composed, [], tmp_path)}
    assert found == {"vice.k": True, "vice.pi": False, "cluster.clusters": False, "cluster.seed": True}


def test_weights_of_hubs_are_named_without_fetching_them(tmp_path, monkeypatch):
    from alignet.backbones import hub

    student = load([]).student
    vit = dataclasses.replace(student, architecture="vit_base_patch16_224.augreg_in1k", weights="hub")
    clip = dataclasses.replace(
        student, library="open_clip", architecture="ViT-B-16-SigLIP", tag="webli", weights="hub"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "present", lambda one: None)
    for model, repository in ((vit, "timm/vit_base_patch16_224.augreg_in1k"), (clip, "timm/ViT-B-16-SigLIP")):
        finding = models._hub("student", model)
        assert finding.level == "fault"
        assert repository in finding.found
        assert "prefetch" in finding.fix
    monkeypatch.setattr(hub, "present", lambda one: [tmp_path])
    assert models._hub("student", vit).level == "ok"
    unknown = models._hub("student", dataclasses.replace(clip, tag="none"))
    assert unknown.level == "fault"
    assert "its tags" in unknown.found


def test_a_network_is_weighed_before_it_is_loaded(monkeypatch, tmp_path):
    student = load([]).student
    assert models.parameter_bytes(
        dataclasses.replace(student, architecture="vit_base_patch16_224", model_args={})
    ) == (4 * 86_567_656)
    clip = dataclasses.replace(student, library="open_clip", architecture="ViT-B-32", model_args={})
    assert models.parameter_bytes(clip) == 4 * 151_277_313
    monkeypatch.setattr(models, "memory_left", lambda: 1000)
    config = load([f"paths.artifacts={tmp_path}"])
    held = Models(Sources(config, (), Pipeline(config)))
    assert held.encoder("student") is None
    assert "on a larger machine" in held.failed["student"]


def test_a_check_that_fails_is_a_fault_of_its_own():
    def broken():
        yield ok("a", "first")
        raise KeyError("what")

    found = list(collect([("one", broken), ("two", lambda: iter([ok("b", "second")]))]))
    assert [finding.level for finding in found] == ["ok", "fault", "ok"]
    assert "KeyError" in found[1].found


def test_a_rate_is_what_a_run_of_known_cost_has():
    step, rest = rate(lambda steps: 2.0 + 0.5 * steps, 1, 4.0, 100)
    assert step == pytest.approx(0.5)
    assert rest == pytest.approx(2.0)


def test_no_set_of_triplets_repeats_an_object():
    rows = random_rows(3, 200)
    assert (np.sort(rows, 1) == [0, 1, 2]).all()


def test_help_says_what_it_reads_and_its_section(capsys):
    doctor.main(["--help"])
    out = capsys.readouterr().out
    assert "status  1 if anything is a fault" in out
    assert "assume: {}" in out
