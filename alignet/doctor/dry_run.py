"""Every evaluation's own function on random features of its real images, before anything is trained.

Readers and their checks are then those that will be used: a class without images, a participant who shares triplets, a
hierarchy with a missing root give the message here that they would give after days. Options that only cost time are cut
down; what else a family is given (fitted nodes, pictures, text towers) is out of reach, and such evaluations are left.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignet.config import Config, DatasetSettings
from alignet.doctor import choices, evaluations
from alignet.doctor.findings import Finding, collect, fault, ok, one_line
from alignet.doctor.sources import Sources

# families whose material is all outside: images by their ids, files, trials
FAMILIES = (
    "odd_one_out", "rsa", "rsa_mean", "nights", "few_shot", "breeds", "transfer", "hierarchy", "space", "levels",
    "levels_people", "linear_probe",
)  # fmt: skip
_WIDTH = 4  # of the random features
_DRAWS = 10  # behind an interval
_MOST: dict[str, float] = {
    "draws": 1,
    "count": 500,
    "pairs": 2000,
    "points": 50,
    "rsm_images": 10,
    "per_class": 2,
    "per_subclass": 2,
}
_MOST |= {"C": 1e-6}  # so strong a regularisation is fitted in a step or two
_NODES = ("before", "levels")  # that can be stood in for: raw features, and trials that are tidied here


def check_material(sources: Sources) -> Iterator[Finding]:
    """One line for each evaluation that is not made yet and whose material is here."""
    for name, dataset in sources.config.evaluate.datasets.items():
        keys = [f"evaluate[{setting}.{name}]" for setting in dataset.settings]
        missing = [key for key in keys if key in sources.graph and sources.state(key).state != "cached"]
        if not missing or dataset.family not in FAMILIES or not set(dataset.nodes) <= set(_NODES):
            continue
        about = f"evaluate.datasets.{name}"
        try:
            found = _measured(sources, name, dataset, sources.graph[missing[-1]].section)
        except (ValueError, OSError) as error:
            yield fault(about, str(error))
            continue
        if found is not None:
            yield ok(about, found)


def faults(sources: Sources) -> list[Finding]:
    """What of the outside data would stop an evaluation, or a fit to people, later."""
    checks = [
        ("evaluations", lambda: evaluations.check_evaluations(sources)),
        ("material", lambda: check_material(sources)),
        ("indices", lambda: choices.check_indices(sources)),
        ("objects", lambda: choices.check_objects(sources)),
        ("rows", lambda: choices.check_rows(sources)),
    ]
    found: dict[str, Finding] = {}
    for one in collect(checks):
        if one.level == "fault":
            found.setdefault(one.found, one)
    return list(found.values())


def stop_on_faults(config: Config) -> None:
    """ArtifactError with every fault, if an evaluation is to be made; nothing is written."""
    from alignet.pipeline.runner import Pipeline
    from alignet.runtime.artifacts import ArtifactError

    sources = Sources(config, (), Pipeline(config))
    states = {
        key: sources.state(key).state for key, node in sources.graph.items() if node.stage == "evaluate"
    }
    if config.role is not None or "blocked" in states.values() or set(states.values()) <= {"cached"}:
        return
    found = faults(sources)
    if found:
        lines = [f"{one.about}: {one_line(one.found)}" + (f" {one.fix}" if one.fix else "") for one in found]
        raise ArtifactError("\n".join([*lines, "Nothing was made: all of that would stop this run later."]))


def _measured(
    sources: Sources, name: str, dataset: DatasetSettings, section: Mapping[str, Any]
) -> str | None:
    """How many images an evaluation was given; None where some of its data is not here."""
    from alignet.evaluate.families import Material, family

    ids = {part: sources.set_ids(images) for part, images in dataset.images.items()}
    files = {part: sources.path(one) for part, one in dataset.data.items()}
    here = all(sources.is_there(one) for one in dataset.data.values())
    if not here or any(one is None for one in [*ids.values(), *files.values()]):
        return None
    rng = np.random.default_rng(0)
    features = {
        part: (rng.standard_normal((len(one), _WIDTH), dtype=np.float32), list(one))
        for part, one in ids.items()
        if one is not None
    }
    if any(not len(rows) for rows, _ in features.values()):
        return None  # the check of files says so
    with tempfile.TemporaryDirectory() as folder:
        nodes = _nodes(sources, dataset, Path(folder))
        if nodes is None:
            return None
        material = Material(
            dataset=name, setting=section["setting"], features=features,
            files={part: path for part, path in files.items() if path is not None}, nodes=nodes,
            raw={"before": features["test"]} if "before" in dataset.nodes else {}, transform=lambda rows: rows,
            triplets=lambda part, objects: _triplets(sources, dataset.data[part]), picture=_no_picture,
            object_rows=_object_rows(section, files, features), bootstrap=_DRAWS, seed=0,
        )  # fmt: skip
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            family(dataset.family, name)(material, _quick(dataset.options))
    count = sum(len(rows) for rows, _ in features.values())
    return (
        f"its own function took {count:,} images with random features"
        if count
        else "its own function took its data"
    )


def _quick(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: min(value, _MOST[key]) if key in _MOST and isinstance(value, int | float) else value
        for key, value in options.items()
    }


def _nodes(sources: Sources, dataset: DatasetSettings, folder: Path) -> dict[str, Path] | None:
    """Folders of the nodes that an evaluation names: trials are tidied into one. None where they are not here."""
    if "levels" not in dataset.nodes:
        return {}
    from alignet.data.levels import tidy, write_tidy
    from alignet.data.trials import read_trials

    node = sources.graph[dataset.nodes["levels"]]
    trials = sources.graph[node.inputs["trials"]].role
    path = sources.path(trials)
    if path is None or not sources.is_there(trials):
        return None
    write_tidy(folder, tidy(read_trials(path), **node.section, name=str(path)))
    return {"levels": folder}


def _triplets(sources: Sources, name: str) -> np.ndarray:
    found = sources.read(name)
    if found is None:
        raise ValueError(
            sources.broken.get(name, f"data.sets.{name}: expected choices, found nothing to read")
        )
    return found


def _object_rows(
    section: Mapping[str, Any],
    files: Mapping[str, Path | None],
    features: Mapping[str, tuple[np.ndarray, list[str]]],
) -> np.ndarray | None:
    from alignet.pipeline import payloads

    table = files.get("objects")
    if "object_ids" not in section or table is None:
        return None
    return payloads.object_rows(section["object_ids"], table, features["test"][1])


def _no_picture(name: str) -> Any:
    raise ValueError(f"expected no picture to be opened, found {name}")
