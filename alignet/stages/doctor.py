"""Check a configuration before hours are spent on it, and estimate what it will take on this machine.

reads   the files of every set of data, weights, the manifests below paths.artifacts
writes  nothing; where the store holds artifacts, remembered checksums of outside files (seen/), as `status` does
prints  a line for each check: ok, warning or fault; a table of time, memory and disk for each node that is not made
        yet, from short measurements; licences; the values that are no paper's
status  1 if anything is a fault

Is a published data set of triplets about these images? Labels against the model's own choices and class folders:
    dataset=FILE.npz images=FOLDER|SHARDS [model=FOLDER|LIBRARY:NAME [weights=FILE]] [device=cpu]

cost    seconds to minutes: each measurement takes about doctor.seconds
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.pipeline import cli

if TYPE_CHECKING:
    from alignet.config import Config
    from alignet.doctor.findings import Finding


# keys of the check of a data set; all else is configuration
OWN = ("dataset", "images", "model", "weights", "member", "device")


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Options of `paths` that an experiment needs may be left out: that is a fault like others."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own = dict(item.split("=", 1) for item in arguments if item.partition("=")[0] in OWN and "=" in item)
    if own:
        rest = [item for item in arguments if item.partition("=")[0] not in OWN]
        cli.main("doctor", __doc__ or "", lambda config: about_images(own, config), rest, typed=arguments)
        return
    faults = 0

    def act(config: Config) -> None:
        nonlocal faults
        faults += examine(config, [item for item in arguments if not item.startswith("-")])

    cli.main("doctor", __doc__ or "", act, [*arguments, *stand_ins(arguments)])
    if faults:
        raise SystemExit(1)


def about_images(own: Mapping[str, str], config: Config) -> None:
    """Print whether a data set belongs to images; SystemExit with status 1 where it does not."""
    lacking = [key for key in ("dataset", "images") if not own.get(key)]
    if lacking:
        raise ValueError(
            f"doctor: expected dataset=FILE.npz and images=FOLDER together, found no {' and no '.join(lacking)}; "
            "give both"
        )
    from dataclasses import asdict

    from alignet import api
    from alignet.backbones.embedding import given_images
    from alignet.data.pixels import reading
    from alignet.doctor.dataset_check import check_files
    from alignet.doctor.findings import summary
    from alignet.pipeline.torch_setup import set_up

    set_up(config.runtime)
    source = given_images(own["images"], member=own.get("member", ""), **reading(asdict(config.pixels)))
    model = None
    if own.get("model"):
        model = api.load(own["model"], weights=own.get("weights", ""), device=own.get("device", "cpu"))
    found: list[Finding] = []
    _show(check_files(Path(own["dataset"]), source, model), found)
    print(f"\n{summary(found)}")
    if any(one.level == "fault" for one in found):
        raise SystemExit(1)


def stand_ins(arguments: Sequence[str]) -> list[str]:
    """Overrides that stand where options of `paths` are left out, so that what misses them can be listed."""
    from alignet.doctor.findings import NOT_GIVEN

    paths = (cli.first_job(arguments) or {"paths": {}})["paths"]
    return [f"paths.{name}={NOT_GIVEN.format(name=name)}" for name, value in paths.items() if value is None]


def examine(config: Config, overrides: Sequence[str]) -> int:
    """Print everything; the number of faults."""
    from alignet.doctor import machine
    from alignet.doctor.estimates import Estimates
    from alignet.doctor.findings import collect, ok, summary
    from alignet.doctor.measure import Measurements
    from alignet.doctor.models import Models
    from alignet.doctor.sources import Sources
    from alignet.pipeline.runner import Pipeline

    print(f"doctor: {config.experiment_name}; {config.said}", flush=True)
    sources = Sources(config, tuple(overrides), Pipeline(config))
    start_up = machine.load_libraries()
    _set_up(config)
    models = Models(sources)
    measurements = Measurements(sources, models)
    found: list[Finding] = []
    _show(
        collect((name, functools.partial(_checked, check)) for name, check in _checks(sources, models)), found
    )
    rows: list[Any] = []

    def measured() -> Any:
        rows.extend(machine.table(sources, Estimates(sources, measurements)))
        yield from machine.check_measured(rows)
        yield from machine.check_room(sources, rows)

    _show(collect([("estimates", measured)]), found)
    states = [sources.state(key).state for key in sources.graph]
    counts = ", ".join(f"{states.count(name)} {name}" for name in dict.fromkeys(states))
    _show(iter([ok("graph", f"{len(states)} nodes: {counts}")]), found)
    if any(row.estimate is not None for row in rows):
        _print("what is missing, and what it will take here", machine.lines(rows, start_up))
    _origins(config, overrides, [node.role for node in sources.graph.values() if node.stage == "index"])
    print(f"\n{summary(found)}")
    return sum(finding.level == "fault" for finding in found)


def _checks(sources: Any, models: Any) -> list[Any]:
    from alignet.doctor import (
        attack_checks,
        choices,
        config_checks,
        conventions,
        dataset_check,
        dry_run,
        evaluations,
        files,
        harmonizer_checks,
        invariance_checks,
        machine,
    )
    from alignet.doctor import models as networks

    return [
        ("files", lambda: files.check_files(sources)),
        ("evaluations", lambda: evaluations.check_evaluations(sources)),
        ("material", lambda: dry_run.check_material(sources)),
        ("indices", lambda: choices.check_indices(sources)),
        ("convention", lambda: choices.check_convention(sources)),
        ("order", lambda: conventions.check_order(sources)),
        ("reference", lambda: conventions.check_reference(sources)),
        ("overlap", lambda: choices.check_overlap(sources)),
        ("objects", lambda: choices.check_objects(sources)),
        ("data set", lambda: dataset_check.check_dataset(sources, models)),
        ("rows", lambda: choices.check_rows(sources)),
        ("device", lambda: networks.check_device(sources)),
        ("load", machine.check_load),
        ("weights", lambda: networks.check_weights(sources, models)),
        ("preprocessing", lambda: networks.check_preprocessing(sources, models)),
        ("export", lambda: networks.check_export(sources, models)),
        ("image sizes", lambda: config_checks.check_sizes(sources)),
        ("maps", lambda: config_checks.check_widths(sources, models)),
        ("people", lambda: config_checks.check_people(sources)),
        ("clusters", lambda: config_checks.check_clusters(sources)),
        ("triplets", lambda: config_checks.check_triplets(sources)),
        ("finetune", lambda: config_checks.check_finetune(sources, models)),
        ("importance maps", lambda: harmonizer_checks.check_maps(sources)),
        ("where", lambda: harmonizer_checks.check_where(sources)),
        ("classes", lambda: harmonizer_checks.check_classifiers(sources, models)),
        ("harmonize", lambda: harmonizer_checks.check_harmonize(sources, models)),
        ("attacks", lambda: attack_checks.check_attacks(sources)),
        ("robust", lambda: attack_checks.check_robust(sources, models)),
        ("inversions", lambda: invariance_checks.check_inversions(sources, models)),
        ("distances", lambda: invariance_checks.check_distances(sources, models)),
        ("invariance", lambda: invariance_checks.check_invariance(sources)),
    ]


def _set_up(config: Config) -> None:
    """As every stage is set up, on the CPU where the device that was asked for is not there."""
    import dataclasses

    import torch

    from alignet.pipeline.torch_setup import set_up

    there = config.runtime.device == "cpu" or torch.cuda.is_available()
    set_up(config.runtime if there else dataclasses.replace(config.runtime, device="cpu"))


def _checked(check: Any) -> Any:
    from alignet.runtime.memory import give_back

    yield from check()
    give_back()


def _show(findings: Any, kept: list[Finding]) -> None:
    for finding in findings:
        kept.append(finding)
        print(finding.line(30), flush=True)


def _print(title: str, lines: Sequence[str]) -> None:
    print(f"\n{title}")
    for line in lines:
        print(f"  {line}")


def _origins(config: Config, overrides: Sequence[str], used: Sequence[str]) -> None:
    from dataclasses import asdict

    from alignet.doctor import origins

    composed = asdict(config)
    found = origins.values(composed, overrides)
    _print("licences", origins.licence_lines(composed, used))
    _print(
        "values that are an assumption and no paper's",
        origins.assumption_lines(found),
    )


if __name__ == "__main__":
    main()
