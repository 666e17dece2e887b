"""docs/scaling.md: what it prints is what `plan` prints today, and what was measured; what measurements write."""

import re

import pytest

from alignet.pipeline.cli import conf_folder, load
from alignet.plan.constants import REFERENCE, UNITS
from benchmarks import scaling
from benchmarks.growth import slope


def test_the_page_is_what_the_commands_print() -> None:
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.filled(page) == page, "run: python -m benchmarks.scaling"
    kinds = re.findall(r"^<!-- (growth|plan|end)", page, re.MULTILINE)
    assert kinds == ["plan", "end"] * 4 + ["growth", "end"]


def test_measured_constants_are_written_where_they_stand() -> None:
    source = scaling.CONSTANTS.read_text(encoding="utf-8")
    known = {name: unit.seconds for name, unit in UNITS.items()}
    new = scaling.with_units(source, {name: 3 * seconds for name, seconds in known.items()}, False)
    held: dict = {}
    exec(compile(new.replace("from __future__ import annotations", ""), "constants.py", "exec"), held)
    assert held["BUSY"] is False
    assert held["UNITS"].keys() == UNITS.keys()
    for name, unit in held["UNITS"].items():
        assert unit.seconds == pytest.approx(3 * known[name], rel=0.06)
        assert unit[1:] == UNITS[name][1:]
    assert len(new.splitlines()) == len(source.splitlines())


def test_measured_rates_are_written_where_they_stand(tmp_path, monkeypatch) -> None:
    import shutil

    shutil.copytree(conf_folder(), tmp_path, dirs_exist_ok=True)
    before = load([]).plan.machines
    path = tmp_path / "config.yaml"
    rates = {"float32": 1.26e11, "bfloat16": 2.5e11, "copy": 3e10}
    path.write_text(scaling.with_rates(path.read_text(encoding="utf-8"), rates), encoding="utf-8")
    monkeypatch.setattr("alignet.pipeline.conf.conf_folder", lambda: tmp_path)
    after = load([]).plan.machines
    assert {name: getattr(after[REFERENCE], name) for name in rates} == pytest.approx(rates, rel=0.05)
    assert {name: one for name, one in after.items() if name != REFERENCE} == {
        name: one for name, one in before.items() if name != REFERENCE
    }


def test_slopes() -> None:
    assert slope([10, 100, 1000], [0.1, 1.0, 10.0]) == pytest.approx(1)
    assert slope([10, 100, 1000], [0.001, 0.1, 0.1]) == pytest.approx(0)
    assert slope([10, 100], [0.001, 1.0]) is None
