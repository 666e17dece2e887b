"""What is written may be read by whom the umask lets, whichever library writes it."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignet.runtime.checkpoints import Checkpoints
from alignet.runtime.tensors import save_tensors


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_tensors_and_checkpoints_have_the_mode_of_any_new_file(tmp_path, umask):
    path = tmp_path / "a.safetensors"
    save_tensors({"a": torch.arange(3)}, path, {"of": "a test"})
    save_tensors({"a": torch.arange(4)}, path)
    assert mode(path) == 0o666 & ~umask
    assert load_file(path)["a"].tolist() == [0, 1, 2, 3]
    checkpoints = Checkpoints(tmp_path / "checkpoints", seconds=0)
    checkpoints.save(1, {"a": torch.arange(3)}, {})
    assert {mode(one) for one in checkpoints.folder.iterdir()} == {0o666 & ~umask}


def test_every_file_of_a_finished_store_has_it(tiny):
    other = tiny.parent / "other"
    other.touch()
    assert {oct(mode(one)) for one in tiny.rglob("*") if one.is_file()} == {oct(mode(other))}
