"""Commands that are printed are commands: pasted into a shell they are read again, also of multiruns and odd paths."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from alignet.pipeline import messages
from alignet.pipeline.cli import load
from alignet.stages import status

COMMAND = re.compile(r"python -m alignet\.stages\.(\w+)([^\n]*)")


@pytest.fixture(params=["pics", "my pics", "it's $HOME [x]=1", "2024"])
def folder(request, tmp_path):
    found = tmp_path / request.param
    found.mkdir()
    for number in range(6):
        Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(found / f"{number}.png")
    return found


def printed(text):
    """(stage, arguments) of every command in a text, as a shell takes it apart after the line `set --` above it."""
    found, options = [], []
    for line in text.splitlines():
        if "set --" in line:
            options = shlex.split(line.partition("set --")[2])
        for stage, rest in COMMAND.findall(line):
            words = shlex.split(rest)
            found.append((stage, [one for word in words for one in (options if word == "$@" else [word])]))
    return found


@pytest.mark.parametrize("multirun", [True, False])
def test_the_commands_of_status_are_read_again(folder, tmp_path, capsys, monkeypatch, multirun):
    seeds = ["-m", "seed=0,1"] if multirun else ["seed=1"]
    line = [*seeds, "experiment=own", f"paths.images={folder}", f"paths.map={folder}/map.npz",
            f"paths.artifacts={tmp_path / 'my store'}"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["status", *line])
    monkeypatch.setattr(messages, "_job", None)
    status.show(line)
    commands = printed(capsys.readouterr().out)
    assert len(commands) >= 6
    for _, arguments in commands:
        config = load(arguments)
        assert config.paths.images == str(folder)
        assert config.paths.artifacts == str(tmp_path / "my store")
    assert {load(arguments).seed for _, arguments in commands} == ({0, 1} if multirun else {1})


def test_status_says_the_options_once_and_a_shell_expands_them(folder, tmp_path, capsys, monkeypatch):
    line = [
        "experiment=own",
        f"paths.images={folder}",
        f"paths.map={folder}/map.npz",
        f"paths.artifacts={tmp_path}/a b",
    ]
    monkeypatch.setattr(sys, "argv", ["status", *line])
    monkeypatch.setattr(messages, "_job", None)
    status.show(line)
    said = capsys.readouterr().out.splitlines()
    (given,) = [one.partition(": ")[2] for one in said if "set --" in one]
    assert (
        sum(shlex.quote(f"paths.images={folder}") in one for one in said) == 2
    )  # there, and in what is next
    row = next(one for one in said if one.startswith("embed[student.pool]"))
    asked = row[row.index("python -m ") :].replace("python -m ", "printf '%s\\n' ", 1)
    shell = subprocess.run(["sh", "-c", f"{given}\n{asked}"], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == ["alignet.stages.embed", "role=student.pool", *line]


def test_the_commands_of_a_survey_are_read_again(folder, tmp_path, capsys):
    from alignet.stages.survey import act_on

    root = tmp_path / "my survey"
    act_on([f"survey.images={folder}", f"survey.folder={root}", "survey.triplets=4", "survey.trials=2",
            "survey.catch=0", "survey.practice=0"])  # fmt: skip
    ((stage, arguments),) = printed(capsys.readouterr().out)
    assert stage == "survey"
    assert arguments[:2] == ["import", "FOLDER/*.json"]
    assert load(arguments[2:]).survey.folder == str(root)


def test_the_commands_of_embed_are_read_again(folder, tmp_path, capsys):
    import json

    import timm
    from safetensors.torch import save_file

    from alignet.stages._embed_images import main

    (tmp_path / "net").mkdir()
    network = timm.create_model("test_efficientnet", num_classes=0)
    config = {"architecture": "test_efficientnet", "num_classes": 0,
              "pretrained_cfg": {"num_classes": 0, "input_size": [3, 64, 64]}}  # fmt: skip
    (tmp_path / "net/config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), tmp_path / "net/model.safetensors")
    output = tmp_path / "my features"
    main("", [f"images={folder}", f"model={tmp_path / 'net'}", f"output={output}", "threads=1"])
    out = capsys.readouterr().out
    ((_, arguments),) = printed(out)
    config = load(arguments)
    assert config.data.sets["image_features"].path == str(output / "features.npy")
    assert config.paths.images == str(folder)
    code = (
        next(line for line in out.splitlines() if line.startswith("next: "))
        .removeprefix("next: ")
        .partition(", whose")[0]
    )
    assert eval(code, {"numpy": np}).shape[0] == 6


def test_whoever_stops_reading_ends_it_without_a_word(tmp_path):
    folder = tmp_path / "pics"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "0.png")
    command = shlex.join([sys.executable, "-m", "alignet.stages.status", "experiment=own", f"paths.images={folder}",
                          f"paths.map={folder}/map.npz", f"paths.artifacts={tmp_path / 'store'}"])  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout in ("141\n", "0\n")  # 0 where all was written before the reader had gone
