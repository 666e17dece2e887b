"""The chain on real photographs: runs where ALIGNET_PHOTOS names a folder as data/README.md describes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.makers.photos import PHOTOS, needs_photos

pytestmark = needs_photos

SHORT = [
    "experiment=photos", f"paths.photos={PHOTOS}", "runtime.threads=1", "vice.settings.max_epochs=2",
    "vice.settings.burn_in=0", "vice.settings.window=1", "vice.settings.dim=20", "soft_labels.samples=3",
    "distill.settings.teacher.steps=4", "distill.settings.teacher.penalties=[0.1]",
    "distill.settings.teacher.lrs=[0.001]", "distill.settings.teacher.batch=8192",
    "distill.settings.student.steps=4", "distill.settings.student.penalties=[1.0]",
    "distill.settings.student.lrs=[0.0003]", "cluster.clusters=20", "finetune.settings.steps=3",
    "finetune.settings.warmup=1", "finetune.settings.batch=8", "student.image_size=64",
    "evaluate.bootstrap=20", "evaluate.datasets.labels.options.count=2000",
    "evaluate.datasets.categories.options.draws=2", "evaluate.datasets.categories_scalar.options.draws=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_pipeline
    from alignet.pipeline.runner import Pipeline

    root = tmp_path_factory.mktemp("photos")
    config = load([*SHORT, f"paths.artifacts={root}"])
    run_pipeline(config)
    return Pipeline(config)


def artifact(chain, key):
    found = chain.state(key).artifact
    assert found is not None
    return found


def test_the_whole_chain_ends_and_its_table_has_every_row(chain):
    table = artifact(chain, "report").file("table.txt").read_text()
    for word in ("alignet", "distillation", "ud", "raw pixels", "report", "top-1, refitted head"):
        assert word in table


def test_the_text_features_score_on_the_report_half_what_their_page_says(chain):
    scores = json.loads(
        artifact(chain, "evaluate[teacher-original.report names]").file("scores.json").read_text()
    )
    accuracy = next(score["value"] for score in scores if score["metric"] == "odd_one_out")
    assert accuracy == pytest.approx(0.461, abs=0.0006)


def test_the_original_network_knows_the_photographs(chain):
    from alignet.backbones import Backbone, classifier_head, embed_images, load_encoder
    from alignet.data.pixels import open_image
    from alignet.evaluate.top1 import imagenet_labels

    folder = Path(PHOTOS)
    weights = str(folder / "tf_efficientnet_lite0.safetensors")
    encoder = load_encoder(Backbone("timm", "tf_efficientnet_lite0", weights, {}, 0, "pooled"))
    names = sorted(path.name for path in (folder / "images/things").glob("*.jpg"))[:60]
    images = [encoder.transform(open_image(folder / "images/things" / name)) for name in names]
    head, bias = classifier_head(encoder)
    logits = embed_images(encoder, images, 30) @ head.numpy() + bias.numpy()
    assert (logits.argmax(1) == imagenet_labels(names)).mean() > 0.8


def test_timm_alone_loads_the_export_and_gives_the_evaluated_features(chain, tmp_path):
    embedded = artifact(chain, "embed[alignet.photographs]")
    expected = np.load(embedded.file("features-00000.npy"))
    ids = embedded.file("ids-00000.txt").read_text().splitlines()
    rows = [0, 57, 199]
    program = f"""
import sys
sys.modules["alignet"] = None  # an import of it fails
import numpy as np, timm, torch
from PIL import Image
torch.set_num_threads(1)
folder = "local-dir:{artifact(chain, "export[alignet]").folder}"
model = timm.create_model(folder, pretrained=True, num_classes=0).eval()
config = timm.data.resolve_data_config({{}}, model=model)
assert list(config["input_size"]) == [3, 64, 64], config
transform = timm.data.create_transform(**config, is_training=False)
images = [transform(Image.open(path).convert("RGB")) for path in sys.argv[2:]]
with torch.no_grad():
    np.save(sys.argv[1], model(torch.stack(images)).numpy())
"""
    out = tmp_path / "features.npy"
    paths = [str(Path(PHOTOS) / "images" / ids[row]) for row in rows]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", program, str(out), *paths]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    found = np.load(out)
    assert np.abs(found - expected[rows]).max() <= 1e-5 * np.abs(expected[rows]).max()


def test_the_rule_of_the_splits_holds():
    from alignet.data.concepts import load_concepts

    folder = Path(PHOTOS)
    concepts = load_concepts(folder / "concepts.csv")
    report = {concept.index for concept in concepts if concept.split == "report"}
    for name in ("train_90", "test_10", "photo_tune_train", "photo_tune_test"):
        assert not report & set(np.unique(np.load(folder / f"things_triplets/{name}.npy")).tolist())
    pool = {path.name[:9] for path in (folder / "images/pool").glob("*.jpg")}
    assert not pool & {concept.photo[:9] for concept in concepts if concept.photo}


def test_no_way_to_a_student_passes_a_report_file(chain):
    from alignet.pipeline.graph import upstream

    measured_on = "soft_labels[photo_tune_test]"  # people's own distributions, which only evaluations read
    readers = [key for key, node in chain.graph.items() if measured_on in node.inputs.values()]
    assert readers
    assert all(key.startswith("evaluate[") for key in readers)
    for key in chain.graph:
        if key != measured_on and key.startswith(
            ("finetune", "distill", "vice", "soft_labels", "cluster", "export[ud]", "export[teacher]")
        ):
            assert not {"index[photo_report]", "index[photo_tune_test]"} & set(upstream(chain.graph, key)), (
                key
            )


def plain(value):
    """A setting as a command line has it."""
    if isinstance(value, tuple):
        return "[" + ",".join(value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_own_images_with_the_map_of_this_run_give_the_same_student_and_open_no_human_file(chain, tmp_path):
    from dataclasses import asdict

    from alignet.pipeline.cli import load
    from alignet.pipeline.runner import Pipeline

    settings = asdict(chain.config.finetune.settings)
    lines = [
        "experiment=own", f"paths.images={PHOTOS}/images", f"paths.check={PHOTOS}/images", "data.sets.pool.under=pool",
        "data.sets.check.under=things", f"paths.map={artifact(chain, 'export[teacher]').file('map.npz')}",
        "teacher=precomputed", f"data.sets.image_features.path={PHOTOS}/teacher_features/images.npy",
        f"data.sets.image_features.ids={PHOTOS}/teacher_features/images.txt", "student=efficientnet_lite0",
        f"data.sets.student_weights.path={PHOTOS}/tf_efficientnet_lite0.safetensors", "smooth={penalties:[0.3]}",
        "student.image_size=64", "runtime.threads=1", f"paths.artifacts={tmp_path}",
        *(f"finetune.settings.{name}={plain(value)}" for name, value in settings.items()),
    ]  # fmt: skip
    opened = []
    sys.addaudithook(lambda event, details: opened.append(str(details[0])) if event == "open" else None)
    pipeline = Pipeline(load(lines))
    pipeline.make_all(["export[alignet]"])
    touched = list(opened)
    assert any("teacher_features" in name for name in touched)
    assert not [name for name in touched if "things_triplets" in name or "concepts" in name]
    theirs = load_file(artifact(chain, "finetune[alignet]").file("weights.safetensors"))
    ours = load_file(artifact(pipeline, "finetune[alignet]").file("weights.safetensors"))
    assert all(np.array_equal(theirs[name], ours[name]) for name in theirs)


def test_how_far_faster_ways_move_features(tmp_path):
    """On 32 photographs, and on 16 mosaics of them that are large enough to be reduced while they are decoded."""
    import alignet

    folder, generator = Path(PHOTOS), np.random.default_rng(0)
    paths = sorted((folder / "images/things").glob("*.jpg"))
    paths = [paths[row] for row in generator.permutation(len(paths))[:32]]
    pictures = [Image.open(path).convert("RGB") for path in paths]
    for number in range(16):
        mosaic = Image.new("RGB", (1024, 1024))
        for place, row in enumerate(generator.permutation(32)[:16]):
            mosaic.paste(pictures[row].resize((256, 256)), (place % 4 * 256, place // 4 * 256))
        mosaic.save(tmp_path / f"{number}.jpg", quality=90)
    model = alignet.load("timm:tf_efficientnet_lite0", weights=folder / "tf_efficientnet_lite0.safetensors")

    def away(images, **options):
        exact, other = (alignet.embed(model, images, **given).features for given in ({}, options))
        lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(other, axis=1)
        return 1 - (exact * other).sum(1) / lengths

    assert 0 < away(paths, compute="bf16").max() < 0.005
    assert away(paths[:8], decode="fast").max() < 1e-6  # 256 pixels are not reduced
    moved = away(tmp_path, decode="fast")
    assert 0 < moved.max() < 0.02
    assert moved.mean() < 0.004
