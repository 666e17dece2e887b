"""Students of open_clip and transformers through the chain: fine-tuned, embedded, evaluated, exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file

from alignet.backbones import configuration, folder_backbone, load_encoder
from alignet.data.checksums import scan
from alignet.data.sets import files_of
from alignet.pipeline.cli import compose, load
from alignet.pipeline.commands import run_pipeline
from alignet.pipeline.runner import Pipeline
from tests.makers.toys import TOYS
from tests.makers.worlds import overrides

STUDENTS = {"open_clip": TOYS["open_clip output"], "transformers": TOYS["siglip output"]}


@pytest.mark.parametrize("library", STUDENTS)
def test_a_student_goes_through_to_its_export(library: str, tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(tiny, root)
    student = STUDENTS[library]
    options = overrides(
        root, f"student.library={library}", f"student.architecture={student.architecture}", "student.weights=random",
        "student.feature=output", "student.image_size=48", "role=export[alignet]",
        *[f"~student.model_args.{name}" for name in compose([])["student"]["model_args"]],
        *[f"+student.model_args.{name}={_hydra(value)}" for name, value in student.model_args.items()],
    )  # fmt: skip
    config = load(options)
    run_pipeline(config)
    pipeline = Pipeline(config)
    folders = {}
    for key in ("export[alignet]", "finetune[alignet]"):
        state = pipeline.state(key)
        assert state.state == "cached"
        assert state.artifact is not None
        folders[key] = state.artifact.folder
    found = load_encoder(folder_backbone(folders["export[alignet]"]))
    assert found.backbone.library == library
    assert found.width == (24 if library == "open_clip" else 32)
    text = (folders["export[alignet]"] / "README.md").read_text()
    assert f"library_name: {library}" in text
    assert "odd_one_out" in text
    described = (folders["finetune[alignet]"] / "config.json").is_file()
    assert described == (library == "transformers")  # open_clip rebuilds the network from name and arguments


def _hydra(value: object) -> str:
    """A mapping of numbers as Hydra's command line takes it."""
    return json.dumps(value).replace('"', "")


def test_one_more_option_measures_zero_shot_before_and_after(tiny: Path, tmp_path: Path) -> None:
    student = TOYS["open_clip output"]
    encoder = load_encoder(student, seed=0)
    save_file(
        {name: one.contiguous() for name, one in encoder.module.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    images = next((tiny / "world").glob("*/images/pool"))
    names = sorted(path.name for path in images.iterdir())
    table = "".join(f"{name},{'round thing' if row % 2 else 'box'}\n" for row, name in enumerate(names))
    (tmp_path / "classes.csv").write_text("id,label\n" + table)
    options = [
        "experiment=own", f"paths.images={images}", f"paths.map={tmp_path}/none.npz",
        f"paths.artifacts={tmp_path}/store",
        "teacher=precomputed", "student=clip_base", f"student.architecture={student.architecture}", 'student.tag=""',
        "student.weights=file", "student.weights_set=student_weights", "student.image_size=48",
        f"data.sets.student_weights.path={tmp_path}/w.safetensors", "+also=zero_shot",
        f"paths.classes={tmp_path}/classes.csv", "+evaluate.datasets.zero-shot.data.weights=student_weights",
        *[f"+student.model_args.{name}={_hydra(value)}" for name, value in student.model_args.items()],
    ]  # fmt: skip
    pipeline = Pipeline(load(options))
    assert {"evaluate[original.zero-shot]", "evaluate[alignet.zero-shot]"} <= set(pipeline.graph)
    pipeline.make_all(["evaluate[original.zero-shot]"])
    made = pipeline.state("evaluate[original.zero-shot]").artifact
    assert made is not None
    (score,) = json.loads(made.file("scores.json").read_text())
    assert score["metric"] == "zero_shot"
    assert score["n"] == len(names)
    assert 0.2 < score["value"] < 0.8  # a network at random, two classes


def test_a_models_folder_is_a_set_of_weights(tmp_path: Path) -> None:
    """Its card does not count, its configuration does."""
    encoder = load_encoder(TOYS["siglip output"], seed=0)
    for name, text in configuration(encoder).items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"expected a model's folder with a .safetensors file"):
        files_of("weights", tmp_path, "")
    state = {name: value.contiguous() for name, value in encoder.module.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    first = scan(files_of("weights", tmp_path, ""))
    assert set(first.ids) == {"config.json", "preprocessor_config.json", "weights.safetensors"}
    (tmp_path / "README.md").write_text("a card")
    assert scan(files_of("weights", tmp_path, "")).digest == first.digest
    path = tmp_path / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.5", "0.4"))
    assert scan(files_of("weights", tmp_path, "")).digest != first.digest
    assert files_of("weights", tmp_path / "weights.safetensors", "") == {
        "file": tmp_path / "weights.safetensors"
    }
