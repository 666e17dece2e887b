"""What an installed alignet can do from another folder, and what --help may cost."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.makers.worlds import overrides

CHECKOUT = Path(__file__).parents[1]
STAGES = sorted(path.stem for path in (CHECKOUT / "alignet/stages").glob("[!_]*.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    program = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]), file=sys.stderr)"
    subprocess.run(
        [sys.executable, "-c", program, str(folder)], check=True, cwd=CHECKOUT, capture_output=True
    )
    (found,) = folder.glob("alignet-*.whl")
    return found


def test_the_wheel_holds_the_configuration_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "alignet/conf/config.yaml" in names
    shipped = {path.relative_to(CHECKOUT / "conf").as_posix() for path in (CHECKOUT / "conf").rglob("*.yaml")}
    assert {f"alignet/conf/{name}" for name in shipped} <= set(names)
    assert "experiment/world.yaml" in shipped
    assert "alignet/survey/page.html" in names
    assert "alignet/report/page.html.j2" in names
    assert {name.partition("/")[0] for name in names} == {"alignet", "alignet-0.2.0.dist-info"}


def test_a_stage_runs_from_the_wheel_in_another_folder(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    program = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
import alignet
print("alignet from", alignet.__file__)
runpy.run_module("alignet.stages.world", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", program, str(site), *overrides(tmp_path / "store")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"alignet from {site}" in done.stdout
    assert list((tmp_path / "store/world").glob("*/MANIFEST.json"))


def test_the_editable_installation_runs_from_another_folder(tmp_path):
    command = [sys.executable, "-m", "alignet.stages.status", *overrides(tmp_path / "store")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "missing" in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_help_imports_neither_torch_nor_numpy(stage, tmp_path):
    program = f"""
import runpy, sys
sys.argv[1:] = ["--help"]
runpy.run_module("alignet.stages.{stage}", run_name="__main__")
print([name for name in ("torch", "numpy", "hydra", "timm") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"usage: python -m alignet.stages.{stage}" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
