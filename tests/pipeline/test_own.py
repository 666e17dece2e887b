"""Own images without people: what the map brings along gives the same student as the run that learned the map."""

import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from alignet.pipeline import payloads
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph, upstream
from alignet.pipeline.runner import Pipeline
from tests.makers.worlds import overrides

SAME = ("finetune", "cluster", "embed", "evaluate.bootstrap", "runtime")


@pytest.fixture(scope="module")
def handed_on(tiny, tmp_path_factory):
    """What the tiny world hands to somebody else: images, teacher's features, the map, the student's weights."""
    folder = tmp_path_factory.mktemp("handed_on")
    pipeline = Pipeline(load(overrides(tiny)))
    made = {key: pipeline.state(key).artifact for key in pipeline.graph}
    shutil.copytree(made["world"].folder / "images" / "pool", folder / "images")
    features, ids = payloads.embedding(made["embed[teacher.pool]"])
    np.save(folder / "features.npy", features)
    (folder / "features.txt").write_text("\n".join(ids) + "\n")
    shutil.copy(made["export[teacher]"].file("map.npz"), folder / "map.npz")
    shutil.copy(made["pretrain[student]"].file("weights.safetensors"), folder / "student.safetensors")
    return folder


def own(tiny, folder, root, *more, experiment="own"):
    """The command line that uses them, with the tiny world's own settings."""
    world = load(overrides(tiny))
    settings = [item for item in overrides(tiny) if item.startswith(SAME)]
    finetune = world.finetune.settings
    same = ("tau_teacher", "tau_student", "lr", "pull", "flip", "crop", "colour", "grey", "retain")
    return [
        f"experiment={experiment}", f"paths.images={folder / 'images'}", f"paths.map={folder / 'map.npz'}",
        f"data.sets.image_features.path={folder / 'features.npy'}", "teacher=precomputed", "student=world",
        f"data.sets.image_features.ids={folder / 'features.txt'}", "student.weights=file",
        "student.weights_set=student_weights", f"data.sets.student_weights.path={folder / 'student.safetensors'}",
        *settings, *(f"finetune.settings.{name}={getattr(finetune, name)}" for name in same),
        f"paths.artifacts={root}", "evaluate.datasets.teacher.options.count=500", *more,
    ]  # fmt: skip


def test_the_map_from_elsewhere_gives_the_same_student_as_the_run_that_learned_it(
    tiny, handed_on, tmp_path, capsys
):
    from alignet.pipeline.commands import run_pipeline

    opened = []
    record = lambda event, details: opened.append(str(details[0])) if event == "open" else None  # noqa: E731
    sys.addaudithook(record)
    run_pipeline(load(own(tiny, handed_on, tmp_path)))
    touched = list(opened)
    assert any(str(handed_on / "map.npz") in name for name in touched)
    human = ("/triplets/", "/vice/", "/soft_labels/", "objects.csv", "/distill/")
    assert not [name for name in touched if str(tiny) in name and any(part in name for part in human)]
    there = Pipeline(load(overrides(tiny))).state("finetune[alignet]").artifact
    here = Pipeline(load(own(tiny, handed_on, tmp_path))).state("finetune[alignet]").artifact
    first, second = (load_file(artifact.file("weights.safetensors")) for artifact in (there, here))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    text = capsys.readouterr().out
    assert "nobody was asked here" in text
    assert "agreement with the teacher" in text
    assert "teacher's map: learned elsewhere" in text


def test_no_node_of_it_depends_on_people(tiny, handed_on, tmp_path):
    graph = build_graph(load(own(tiny, handed_on, tmp_path)))
    stages = {graph[key].stage for target in graph for key in [*upstream(graph, target), target]}
    assert not stages & {"vice", "reliability", "soft_labels"}
    assert "index[map]" in graph


def test_pruning_keeps_what_another_run_left_in_the_same_store_for_this_one(
    tiny, handed_on, tmp_path, capsys
):
    from alignet.pipeline.housekeeping import print_leftovers

    shutil.copytree(tiny, tmp_path / "store")
    teacher = Pipeline(load(overrides(tmp_path / "store"))).state("export[teacher]").artifact
    lines = [item for item in own(tiny, handed_on, tmp_path / "store") if not item.startswith("paths.map")]
    print_leftovers([load([*lines, f"paths.map={teacher.file('map.npz')}"])], delete=True)
    text = capsys.readouterr().out
    assert "finetune[alignet]" in text
    assert "export[teacher]" not in text
    assert teacher.file("map.npz").is_file()


def test_a_map_of_another_width_is_refused(tiny, handed_on, tmp_path):
    np.savez(tmp_path / "narrow.npz", weights=np.eye(3, dtype=np.float32), mean=0.0, std=1.0)
    pipeline = Pipeline(
        load(own(tiny, handed_on, tmp_path / "store", f"paths.map={tmp_path / 'narrow.npz'}"))
    )
    with pytest.raises(ValueError, match="expected a map of 64 features, as the teacher has, found one of 3"):
        pipeline.make_all(["distill[teacher]"])


def test_people_without_a_map_or_choices_are_asked_for_with_the_option_to_set(tiny, handed_on, tmp_path):
    lines = [item for item in own(tiny, handed_on, tmp_path) if not item.startswith("paths.map")]
    with pytest.raises(ValueError, match=r"add paths.map="):
        load(lines)


def test_the_official_npz_written_and_read_back_trains_the_same_curve(tiny, handed_on, tmp_path):
    drawn = ["finetune.settings.sampling=triplets", "triplets.count=300", "finetune.settings.batch=16"]
    first = Pipeline(load(overrides(tmp_path / "world", *drawn, "export.roles=[dataset]")))
    shutil.copytree(tiny, tmp_path / "world")
    first.make_all(["finetune[alignet]", "export[dataset]"])
    data = first.state("export[dataset]").artifact.file("alignet.npz")
    lines = own(
        tiny, handed_on, tmp_path / "own", *drawn, f"paths.dataset={data}",
        "teacher=published", "finetune.settings.accumulate=1", experiment="own_dataset",
    )  # fmt: skip
    second = Pipeline(load([item for item in lines if item != "teacher=precomputed"]))
    second.make_all(["finetune[alignet]", "evaluate[alignet.teacher]"])
    curves = [
        np.load(pipeline.state("finetune[alignet]").artifact.file("curves.npz"), allow_pickle=False)
        for pipeline in (first, second)
    ]
    assert len(curves[0]["loss"]) == 6
    assert np.array_equal(curves[0]["loss"], curves[1]["loss"])
    assert "distill[teacher]" not in second.graph


@pytest.fixture(scope="module")
def people(tiny, tmp_path_factory):
    """Judged images, the choices about them and the teacher's features, as somebody with a survey has them."""
    folder = tmp_path_factory.mktemp("people")
    pipeline = Pipeline(load(overrides(tiny)))
    world = pipeline.state("world").artifact.folder
    shutil.copytree(world / "images" / "things", folder / "images")
    for source, name in (
        ("triplets/train.npy", "train.npy"),
        ("triplets/val.npy", "validation.npy"),
        ("objects.csv",) * 2,
    ):
        shutil.copy(world / source, folder / name)
    features, ids = payloads.embedding(pipeline.state("embed[teacher.things]").artifact)
    np.save(folder / "features.npy", features)
    (folder / "features.txt").write_text("\n".join(ids) + "\n")
    return folder


def with_people(tiny, handed_on, people, root, *more):
    lines = own(tiny, handed_on, root, experiment="own_triplets")
    changed = ("paths.map", "paths.images", "data.sets.image_features")
    fit = [
        item
        for item in overrides(tiny)
        if item.startswith(("vice", "soft_labels", "distill.settings.teacher"))
    ]
    return [
        *[item for item in lines if not item.startswith(changed)], *fit,
        f"paths.images={people / 'images'}", f"paths.people={people}",
        f"data.sets.image_features.path={people / 'features.npy'}",
        f"data.sets.image_features.ids={people / 'features.txt'}", *more,
    ]  # fmt: skip


def test_own_triplets_go_through_vice_to_an_exported_student(tiny, handed_on, people, tmp_path, capsys):
    from alignet.pipeline.commands import run_pipeline

    config = load(with_people(tiny, handed_on, people, tmp_path))
    run_pipeline(config)
    pipeline = Pipeline(config)
    assert pipeline.state("vice").artifact.metrics["triplets"] == 3000
    assert pipeline.state("export[alignet]").artifact.file("model.safetensors").is_file()
    assert pipeline.state("export[teacher]").artifact.file("map.npz").is_file()
    assert "own people" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["parameters", "pruned_params", "final_embedding"])
def test_a_published_embedding_takes_the_place_of_a_fit(tiny, handed_on, people, tmp_path, kind):
    rng = np.random.default_rng(0)
    objects = len((people / "objects.csv").read_text().splitlines()) - 1
    loc = rng.gamma(1.0, 1.0, (objects, 4)).astype(np.float32)
    loc[:, 3] = 0.0  # a dimension that carries nothing
    scale = np.full_like(loc, 0.1)
    given = tmp_path / (kind + (".npy" if kind == "final_embedding" else ".npz"))
    if kind == "parameters":
        np.savez(given, loc=loc, scale=scale)
    elif kind == "pruned_params":
        np.savez(given, pruned_loc=loc[:, :3], pruned_scale=scale[:, :3])
    else:
        np.save(given, loc)
    more = ["vice.published=embedding", f"+data.sets.embedding={{kind: embedding, path: {given}}}"]
    pipeline = Pipeline(load(with_people(tiny, handed_on, people, tmp_path / "store", *more)))
    pipeline.make_all(["distill[teacher]"])
    artifact = pipeline.state("vice").artifact
    with np.load(artifact.file("pruned.npz"), allow_pickle=False) as pruned:
        assert np.array_equal(np.sort(pruned["pruned_loc"].sum(0))[-3:], np.sort(loc.sum(0))[-3:])
        assert pruned["pruned_loc"].shape[1] == (4 if kind == "final_embedding" else 3)
        assert (pruned["pruned_scale"].max() == 0) == (kind == "final_embedding")
    assert artifact.metrics["has_scale"] == (kind != "final_embedding")
    assert 0 < artifact.metrics["validation_accuracy"] < 1
    assert "reliability" not in pipeline.graph


def test_shards_are_the_folder_and_bring_their_classes_along(tiny, handed_on, tmp_path):
    import webdataset

    names = sorted(path.name for path in (handed_on / "images").iterdir())
    (tmp_path / "shards").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "shards/pool-%06d.tar"), maxcount=25, verbose=0) as writer:
        for row, name in enumerate(names):
            stem, _, suffix = name.rpartition(".")
            writer.write(
                {"__key__": stem, suffix: (handed_on / "images" / name).read_bytes(), "cls": row % 5}
            )
    drawn = ["triplets.sampling=class_boundary", "triplets.count=200"]
    lines = [
        item
        for item in own(tiny, handed_on, tmp_path / "store", *drawn)
        if not item.startswith("paths.images")
    ]
    shards = [
        *lines,
        f"paths.images={tmp_path / 'shards'}",
        "data.sets.pool.kind=shards",
        "data.sets.check.kind=shards",
    ]
    sampled = "finetune.settings.sampling=triplets"
    pipeline = Pipeline(
        load([*shards, sampled, "triplets.labels_from=cls", "export.roles=[alignet,dataset]"])
    )
    pipeline.make_all(["triplets[alignet]", "embed[student.pool]", "finetune[alignet]"])
    folder = pipeline.state("triplets[alignet]").artifact.folder
    classes = np.array(
        [int(name.split(".")[0]) % 5 for name in (folder / "ids.txt").read_text().splitlines()]
    )
    kinds = classes[np.load(folder / "triplets.npy")]
    assert all(len(set(row)) == 2 for row in kinds)  # two of one class, one of another
    plain = Pipeline(load([*lines, f"paths.images={handed_on / 'images'}"]))
    plain.make_all(["embed[student.pool]"])
    first, second = (
        payloads.embedding(one.state("embed[student.pool]").artifact) for one in (plain, pipeline)
    )
    assert first[1] == second[1]
    assert np.array_equal(first[0], second[0])
    wrong = [*lines, f"paths.images={handed_on / 'images'}", sampled, "triplets.labels_from=cls"]
    with pytest.raises(ValueError, match=r"triplets\.labels_from=cls: expected a pool of WebDataset shards"):
        Pipeline(load(wrong)).make_all(["triplets[alignet]"])


def test_unreadable_images_are_set_aside_and_training_goes_on_without_them(tiny, handed_on, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(handed_on / "images", images)
    broken = sorted(images.iterdir())[4]
    broken.write_bytes(broken.read_bytes()[:60])
    lines = [item for item in own(tiny, handed_on, tmp_path / "store") if not item.startswith("paths.images")]
    with pytest.raises(ValueError, match=r"Or set embed\.unreadable=skip"):
        Pipeline(load([*lines, f"paths.images={images}"])).make_all(["embed[student.pool]"])
    pipeline = Pipeline(
        load([*lines, f"paths.images={images}", "embed.unreadable=skip", "finetune.settings.retain=0.1"])
    )
    pipeline.make_all(["finetune[alignet]"])
    assert "1 images of the pool were set aside" in capsys.readouterr().out
    assert pipeline.state("finetune[alignet]").state == "cached"


def test_a_student_that_began_at_random_is_evaluated_with_what_it_learned(tiny, handed_on, tmp_path):
    lines = own(tiny, handed_on, tmp_path, "finetune.settings.lr=0.01", "finetune.settings.pull=0")
    lines = [item for item in lines if not item.startswith("student.weights")]
    pipeline = Pipeline(load([*lines, "student.weights=random"]))
    pipeline.make_all(["embed[alignet.pool]", "embed[student.pool]"])
    before, after = (
        payloads.embedding(pipeline.state(f"embed[{model}.pool]").artifact)[0]
        for model in ("student", "alignet")
    )
    assert np.abs(before - after).max() > 1e-3


def test_a_published_data_set_in_any_order_is_read_with_the_odd_one_last(tiny, handed_on, tmp_path):
    names = np.array(sorted(path.name for path in (handed_on / "images").iterdir()))
    rng = np.random.default_rng(0)
    triplets = np.stack([rng.permutation(len(names))[:3] for _ in range(200)])
    sims = rng.normal(size=(200, 3)).astype(np.float32)
    given = tmp_path / "data.npz"
    np.savez(given, filenames=names[triplets], similarities=sims, indices=triplets)
    lines = own(tiny, handed_on, tmp_path / "store", f"paths.dataset={given}", experiment="own_dataset")
    lines = [item for item in lines if item != "teacher=precomputed"]
    with pytest.raises(ValueError, match="as_is"):
        Pipeline(load(lines)).make_all(["triplets[alignet]"])
    pipeline = Pipeline(load([*lines, "data.sets.answers.order=as_is"]))
    pipeline.make_all(["triplets[alignet]"])
    folder = pipeline.state("triplets[alignet]").artifact.folder
    read, told = np.load(folder / "triplets.npy"), np.load(folder / "similarities.npy")
    assert (told.argmax(1) == 0).all()
    pairs = {(tuple(sorted((row[a], row[b]))), row[3 - a - b]): value for row, many in zip(triplets, sims)
             for (a, b), value in zip(((0, 1), (0, 2), (1, 2)), many)}  # fmt: skip
    for row, many in zip(read, told):
        for (a, b), value in zip(((0, 1), (0, 2), (1, 2)), many):
            assert pairs[tuple(sorted((row[a], row[b]))), row[3 - a - b]] == value
