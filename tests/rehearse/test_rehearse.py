"""Rehearsals: what is replaced, data drawn in the formats that readers expect, nodes that are no real ones."""

import json
import shutil

import numpy as np
import pytest

from alignet.data.breeds import TASKS, load_hierarchy, split_task
from alignet.data.concepts import load_concepts
from alignet.data.hierarchy import read_hypernyms
from alignet.data.triplets import load_triplets
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph
from alignet.pipeline.runner import Pipeline
from alignet.rehearse import wordnet
from alignet.rehearse.cut_down import MARK, cut_down
from alignet.rehearse.miniatures import miniatures
from alignet.stages import rehearse

# networks of the smallest size; a rehearsal leaves them as they are but for weights and image size
SMALL = [
    "experiment=paper", "student.architecture=test_vit", "teacher.library=timm", "teacher.architecture=test_vit",
    "teacher.feature=pooled", "teacher.tag=''", "runtime.threads=1",
]  # fmt: skip
ALSO = (
    "+also=[similarity,nights,levels,few_shot_cub,few_shot_colon,breeds,imagenet_transfer,wordnet,"
    "projection_wordnet]"
)
ONE = [
    "~evaluate.datasets.entity13",
    "~evaluate.datasets.entity30",
    "~evaluate.datasets.nonliving26",
]  # leaves one of four tasks


def run(tmp_path, *more):
    """Exit status of one command line."""
    try:
        rehearse.main([*more, f"rehearse.folder={tmp_path / 'rehearsal'}"])
    except SystemExit as end:
        return end.code
    return 0


def test_what_is_replaced_is_said_and_nothing_else_changes(tmp_path):
    config = load(["experiment=paper", "evaluate.bootstrap=7", "embed.batch=4"])
    small = cut_down(config, tmp_path)
    said = dict(line.split(": ", 1) for line in small.replaced)
    assert said["finetune.settings.steps"] == "100000 -> 3"
    assert said["teacher.architecture"] == "ViT-SO400M-14-SigLIP -> ViT-B-16-SigLIP"
    assert said["student.image_size"] == "0 -> 32"
    assert "evaluate.bootstrap" not in said  # smaller already
    assert small.config.evaluate.bootstrap == 7
    assert small.config.embed.batch == 4
    assert small.config.finetune.settings.steps == 3
    assert small.config.finetune.settings.loss == config.finetune.settings.loss
    assert small.config.banner.startswith(MARK)
    assert small.config.report.title.startswith(MARK)
    assert small.config.paths.artifacts == str(tmp_path / "artifacts")
    real = cut_down(load(["experiment=paper", "rehearse.models=true"]), tmp_path)
    assert not [line for line in real.replaced if line.startswith(("teacher.", "student."))]
    assert real.config.student == config.student


EXPERIMENTS = [
    "world", "harmonize", "attack", "invariance", "four", "ingredients", "photos", "own", "own_dataset", "own_triplets",
    "paper",
]  # fmt: skip


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_rule_is_a_key_of_some_configuration_and_the_result_is_valid(experiment, tmp_path):
    paths = [f"paths.{name}=/nowhere" for name in ("photos", "images", "map", "dataset", "people")]
    small = cut_down(load([f"experiment={experiment}", *paths]), tmp_path)
    assert small.replaced
    assert small.config.rehearse.active


def test_weights_that_a_training_keeps_on_its_way_are_those_of_its_first_steps(tmp_path):
    rows = "[standard, standard@100, standard@400]"
    given = ["experiment=ingredients", "+robust.roles.standard.snapshots=[100, 400]"]
    config = load([*given, f"evaluate.datasets.fine.settings={rows}"])
    small = cut_down(config, tmp_path)
    assert small.config.robust.roles["standard"].snapshots == (1, 2)
    assert small.config.evaluate.datasets["fine"].settings == ("standard", "standard@1", "standard@2")
    assert "robust.roles.standard.snapshots: [100, 400] -> [1, 2]" in small.replaced
    assert {"robust[standard@1]", "robust[standard@2]"} <= set(build_graph(small.config))


def test_breeds_four_tasks_and_wordnets_offsets(tmp_path):
    classes = wordnet.class_ids(wordnet.breeds_classes() + 2, ["n00001740", "n02084071"])
    assert len(set(classes)) == len(classes)
    files = [tmp_path / name for name in ("edges", "names", "classes")]
    wordnet.write_breeds(*files, classes)
    tree = load_hierarchy(*files)
    assert len(tree.left_out) == 2
    for task in TASKS.values():
        split = split_task(tree, task)
        assert len(split) == task.superclasses
        assert {len(one.source) for one in split} == {task.subclasses // 2}
    parents = wordnet.hypernyms(classes, ["n02084071", "n02121620"], ["n00015388"])
    wordnet.write_noun(tmp_path / "data.noun", parents)
    above = read_hypernyms(tmp_path / "data.noun")
    assert {name: [one] if one else [] for name, one in parents.items()} == above
    content = (tmp_path / "data.noun").read_bytes()
    assert all(
        content[int(name[1:]) :][:8].decode() == name[1:] for name in above
    )  # as WordNet's own file has them


def test_choices_in_every_form_agree_with_the_embedding_that_they_were_drawn_from(tmp_path):
    forms = {
        "a.npy": (0, "last", "{}"),
        "b.txt": (1, "first", "{}"),
        "c.csv": (1, "choice", "{noise_ceiling: [0]}"),
    }
    from alignet.rehearse.people import embedding

    similarity = embedding(0) @ embedding(0).T
    for name, form in forms.items():
        base, odd, where = form
        more = [f"path=/data/{name}", f"index_base={base}", f"odd_one={odd}", f"++where={where}"]
        config = load(
            [
                "experiment=paper",
                *(
                    f"data.sets.human_train.{one}".replace(
                        "data.sets.human_train.++", "++data.sets.human_train."
                    )
                    for one in more
                ),
            ]
        )
        drawn = miniatures(config, tmp_path / name)
        one = config.data.sets["human_train"]
        found = load_triplets(
            drawn.paths["human_train"],
            objects=48,
            index_base=one.index_base,
            odd_one=one.odd_one,
            where=one.where,
        )
        assert len(found) == 4000
        kept, other = similarity[found[:, 0], found[:, 1]], similarity[found[:, 0], found[:, 2]]
        assert (kept > other).mean() > 0.6
        assert len(load_concepts(drawn.paths["objects"])) == 48
        val = np.load(drawn.paths["human_val"])
        assert not np.array_equal(found, val)  # choices of two files are different ones


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rehearsed")
    assert run(folder, *SMALL, ALSO, *ONE) == 0
    return folder


def test_all_nodes_pass_and_everything_says_what_it_is(rehearsed, capsys):
    assert run(rehearsed, *SMALL, ALSO, *ONE) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(MARK)
    (line,) = [line for line in told if "nodes passed" in line]
    passed, every = line.split()[0], line.split()[2]
    assert passed == every
    assert "(0 made now), 0 failed, 0 not tried" in line
    store = rehearsed / "rehearsal/artifacts"
    (report,) = store.glob("report/*/")
    assert report.joinpath("table.txt").read_text().startswith(MARK)
    page = report.joinpath("report.html").read_text(encoding="utf-8")
    assert page.count(MARK) >= 2
    assert "random weights" in page
    for card in store.glob("export/*/README.md"):
        assert MARK in card.read_text(encoding="utf-8"), card
        assert "random weights" in card.read_text(encoding="utf-8"), card


def test_a_node_of_a_rehearsal_is_no_node_of_a_run(rehearsed):
    small = cut_down(load([*SMALL, ALSO, *ONE]), rehearsed / "rehearsal").config
    ready, _ = rehearse._with_data(small, rehearsed / "rehearsal/data")
    assert {Pipeline(ready).state(key).state for key in Pipeline(ready).graph} == {"cached"}
    import dataclasses

    real = Pipeline(dataclasses.replace(ready, rehearse=dataclasses.replace(ready.rehearse, active=False)))
    assert {real.state(key).state for key in real.graph} == {"missing"}


def test_what_is_damaged_is_told_and_the_rest_is_made(rehearsed, tmp_path, capsys):
    shutil.copytree(rehearsed / "rehearsal", tmp_path / "rehearsal")
    store = tmp_path / "rehearsal/artifacts"
    for stage in ("report", "evaluate"):
        shutil.rmtree(store / stage)
    (choices,) = (tmp_path / "rehearsal/data").rglob("BEHAVIOR.mat")
    choices.write_bytes(b"no MATLAB file")
    assert run(tmp_path, *SMALL, ALSO, *ONE) == 1
    told = capsys.readouterr()
    assert "failed     evaluate[original.king1]" in told.out
    assert "BEHAVIOR.mat" in told.err
    assert "not tried  report: it needs what failed" in told.out
    assert "failed     evaluate[original.cichy]" not in told.out
    made = {
        json.loads(path.read_text())["identity"]["role"] for path in store.glob("evaluate/*/MANIFEST.json")
    }
    assert "original.cichy" in made
    assert "original.king1" not in made


def test_slices_of_own_files_meet_their_readers(rehearsed, tmp_path, capsys):
    data = rehearsed / "rehearsal/data"
    (things,) = data.rglob("things_concepts.tsv")
    (pool,) = [path for path in data.rglob("train") if path.parent.name == "imagenet"]
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    options = [
        *SMALL, "rehearse.data=slice", "rehearse.rows=3000", "rehearse.classes=6", "rehearse.images=4",
        f"paths.things={things.parent}", f"paths.imagenet={pool}", "~evaluate.datasets.labels",
        "cluster.clusters=3", "triplets.count=12",
    ]  # fmt: skip
    assert run(tmp_path, *options) == 0, capsys.readouterr()
    taken = tmp_path / "rehearsal/data"
    (rows,) = taken.rglob("train_90.npy")
    assert np.load(rows).shape == (3000, 3)
    images = list(taken.rglob("*.JPEG"))
    assert len({path.parent.name for path in images}) == 6
    assert {
        path: path.stat().st_mtime_ns for path in data.rglob("*")
    } == before  # the user's own are as they were
    capsys.readouterr()
    assert run(tmp_path, *options) == 0
    assert "(0 made now)" in capsys.readouterr().out


def test_a_student_that_is_exported_at_one_size_alone_keeps_it(tmp_path):
    """open_clip rebuilds an image tower of timm at the size in its name: at 32 px the rehearsal's export would fail."""
    for student, size in (("siglip_base", 0), ("clip_base", 32), ("vit_small_16", 32)):
        given = [
            "experiment=own",
            "paths.images=x",
            "paths.map=y",
            "teacher=siglip_base",
            f"student={student}",
        ]
        small = cut_down(load(given), tmp_path).config
        assert (small.student.image_size, small.teacher.image_size) == (size, 32), student


@pytest.mark.parametrize("experiment", ["own", "own_dataset", "own_triplets"])
def test_own_images_are_rehearsed_without_any(experiment, tmp_path, capsys):
    teacher = [one for one in SMALL if one.startswith("teacher.")] if experiment != "own_dataset" else []
    options = [
        f"experiment={experiment}",
        "student.architecture=test_vit",
        "student.library=timm",
        "runtime.threads=1",
    ]
    assert run(tmp_path, *options, *teacher) == 0, capsys.readouterr()
    assert ", 0 failed, 0 not tried" in capsys.readouterr().out


CLICKED = [  # importance maps from outside: of images whose names carry WordNet ids, and of labelled ones to train on
    '++data.sets.clicked={kind: images, path: /data/clicked, under: ""}',
    '++data.sets.clicks={kind: maps, path: /data/clicks, key: ""}',
    '++data.sets.taught={kind: images, path: /data/taught, under: ""}',
    "++data.sets.taught_classes={kind: table, path: /data/taught.csv}",
    "++data.sets.taught_maps={kind: maps, path: /data/taught.npz, key: gaze}",
    "++data.sets.people_curve={kind: table, path: /data/curve.csv}",
    "++stimuli.maps={clicks: clicked}",
    "++evaluate.datasets.where={family: where, images: {}, data: {maps: clicks}, settings: [original, harmonized], "
    'nodes: {saliency: "saliency[{model}.clicked]"}, options: {keys: "", ceiling: split_half, splits: 100, '
    "reductions: [max, mean], scales: [1, 4], blur: published}}",
    "++evaluate.datasets.masking={family: masking, images: {}, data: {human: people_curve}, "
    "settings: [original], nodes: {stimuli: 'stimuli[clicks]', "
    "decisions: 'embed[{model}:logits.stimuli.clicks]'}, options: {animals: [[0, 397]]}}",
    "++harmonize={images: taught, maps: taught_maps, labels: taught_classes, plain: null, plain_labels: null, "
    "column: class, roles: {harmonized: {start: original, maps: true, shuffled: false, alignet: 0.0}}, settings: "
    "{steps: 1000, batch: 256, mapped: 1.0, part: 32, map_weight: 1.0, scalar: label, order: once, norm: sum_squares, "
    "levels: 5, reduction: max, blur: published, decay: 1e-5, decay_form: squares, decay_of: all, optimizer: sgd, "
    "lr: 0.1, momentum: 0.9, nesterov: true, warmup: 100, schedule: drops, drops: [0.5, 0.8], smoothing: 0.1, "
    "flip: 0.5, crop: 0.5, mixup: 0.5, mixup_alpha: 0.2, batch_norm: frozen, precision: float32, seed: 0}}",
]


def _few(experiment):
    """Overrides that leave out what an experiment evaluates by itself, but for one."""
    return [f"~evaluate.datasets.{name}" for name in load(experiment).evaluate.datasets if name != "things"]


def test_maps_of_outside_are_drawn_for_training_saliency_and_masking(tmp_path, capsys):
    from alignet.data.importance_maps import load_maps, maps_for

    options = [*SMALL, *_few(SMALL), "export.scores=[]", "report.headline=null", *CLICKED]
    assert run(tmp_path, *options) == 0, capsys.readouterr()
    told = capsys.readouterr().out
    assert "0 failed, 0 not tried" in told
    assert "harmonize.settings.steps: 1000 -> 3" in told
    (images,) = [path for path in (tmp_path / "rehearsal/data").rglob("clicked") if path.is_dir()]
    (maps,) = (tmp_path / "rehearsal/data").rglob("clicks.npz")
    found = load_maps(maps)
    ids = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.JPEG"))
    assert (maps_for(found, ids)[0] >= 0).all()
    assert found.raters is not None
    assert not found.constant
    assert load_maps(next((tmp_path / "rehearsal/data").rglob("taught.npz")), key="gaze").ids


ATTACKED = [  # maps of outside, and labelled images to train against attacks, whose names carry WordNet ids
    "+also=attack", "paths.maps=/data/looked", "attack.shard=64", "evaluate.datasets.attack.options.key=gaze",
    "evaluate.datasets.attack.settings=[original, robust-free]",
    '++data.sets.taught={kind: images, path: /data/taught, under: ""}',
    "++robust={images: taught, labels: null, column: class, roles: {robust-free: {norm: linf, eps: 0.016, steps: 1, "
    "step: 1.0, replays: 4}}, settings: {steps: 1000, batch: 256, decay: 1e-4, decay_form: squares, decay_of: all, "
    "optimizer: sgd, lr: 0.1, momentum: 0.9, nesterov: true, warmup: 100, schedule: drops, drops: [0.5, 0.8], "
    "smoothing: 0.1, flip: 0.5, crop: 0.5, mixup: 0.0, mixup_alpha: 0.2, batch_norm: frozen, seed: 0}}",
]  # fmt: skip


def test_attacks_of_images_from_outside_are_rehearsed(tmp_path, capsys):
    from timm.data import ImageNetInfo

    from alignet.data.importance_maps import load_maps, maps_for

    options = [*SMALL, *_few(SMALL), "export.scores=[]", "report.headline=null", *ATTACKED]
    assert run(tmp_path, *options) == 0, capsys.readouterr()
    told = capsys.readouterr().out
    assert "0 failed, 0 not tried" in told
    assert "robust.settings.steps: 1000 -> 3" in told
    data = tmp_path / "rehearsal/data"
    (images,) = [path for path in data.rglob("looked/images") if path.is_dir()]
    found = load_maps(images.with_name("maps.npz"), key="gaze")
    ids = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.JPEG"))
    assert ids
    assert (maps_for(found, ids)[0] >= 0).all()
    known = set(ImageNetInfo("imagenet-1k").label_names())
    assert {path.parent.name for path in data.rglob("taught/*/*.JPEG")} <= known
    assert list(data.rglob("taught/*/*.JPEG"))


def test_a_slice_has_images_with_maps(tmp_path, capsys):
    from alignet.rehearse.importance import names, write_maps, write_table
    from alignet.rehearse.pictures import write_folder
    from alignet.rehearse.slices import slices

    every = [f"other_{kind}/{number:03}.jpg" for kind in range(40) for number in range(3)]
    taught = names(labelled=True)
    write_folder(tmp_path / "own/taught", [*every, *taught], 0)
    write_maps(tmp_path / "own/taught.npz", taught, ["gaze"], 0)
    write_table(tmp_path / "own/taught.csv", [*every, *taught], "class")
    options = [
        *SMALL,
        *_few(SMALL),
        *CLICKED,
        "rehearse.data=slice",
        "rehearse.classes=3",
        "rehearse.images=2",
    ]
    options += [
        f"data.sets.taught.path={tmp_path / 'own/taught'}",
        f"data.sets.taught_maps.path={tmp_path / 'own/taught.npz'}",
    ]
    found = slices(load(["export.scores=[]", "report.headline=null", *options]), tmp_path / "slice")
    taken = sorted(path.parent.name for path in (tmp_path / "slice").rglob("*.jpg"))
    assert found.paths["taught"] != str(tmp_path / "own/taught")
    assert len(taken) == 6
    assert all(name.startswith("class_") for name in taken)
    assert "taught_maps" not in found.paths  # read whole, where it lies


def test_the_drawn_world_with_maps_is_cut_down(tmp_path):
    small = cut_down(load(["experiment=harmonize"]), tmp_path).config
    assert small.world.mapped == 40
    assert small.harmonize.settings.steps == 3
    side = small.student.image_size
    assert side >> (small.harmonize.settings.levels - 1) >= 2
    assert (
        cut_down(load(["experiment=world"]), tmp_path).config.world.mapped == 0
    )  # where there are none, none are made


def test_shards_with_maps_in_their_samples_are_drawn_with_classes_of_the_network(tmp_path):
    from timm.data import ImageNetInfo

    from alignet.data.importance_maps import load_maps, maps_for
    from alignet.data.shards import list_shards

    config = load([*SMALL, "+also=clickme", "+harmonizer=paper"])
    drawn = miniatures(config, tmp_path)
    assert drawn.paths["clickme"] == drawn.paths["clickme_maps"]
    ids = list(list_shards(drawn.paths["clickme"]).images)
    assert (maps_for(load_maps(drawn.paths["clickme_maps"]), ids)[0] >= 0).all()
    known = set(ImageNetInfo("imagenet-1k").label_names())
    pool = {path.parent.name for path in (tmp_path / "data/imagenet/train").rglob("*.JPEG")}
    assert pool
    assert pool | {name.partition("/")[0] for name in ids} <= known
