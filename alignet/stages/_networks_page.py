"""What a command that lists networks on images writes below its output: finished folders, a page, tables of scores.

Used by `stages.where`, `robustness`, `invariances` and `four`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignet.stages._networks_given import Listed

if TYPE_CHECKING:
    from alignet.config import Config
    from alignet.evaluate.families.material import Material
    from alignet.evaluate.result import Result
    from alignet.report.page import Page
    from alignet.runtime.artifacts import Artifact, Identity


def finished(
    target: Path, identity: Identity, built_from: dict[str, str], make: Callable[[Path], dict[str, Any]],
    config: Config, what: str, *, keep: bool,
) -> Artifact:  # fmt: skip
    """A finished folder: the one that is there if it was made from the same, or a new one.

    make: writes into a folder what is not there yet, and returns what a manifest says of it. what: the content, as
    messages call it. keep: whether one that was made from something else is replaced only where force=true says so.
    ValueError where it is not, or is damaged.
    """
    from alignet.pipeline.provenance import provenance
    from alignet.runtime.artifacts import Artifact, ArtifactError, read_manifest, work_at

    force = config.force or not keep
    if target.is_dir():
        try:
            there = Artifact(target, read_manifest(target))
            changed = [
                name for name, one in built_from.items() if there.manifest["built_from"].get(name) != one
            ]
            if not changed:
                there.verify()
                return there
        except ArtifactError as error:
            changed = []
            if not force:
                raise ValueError(
                    f"{str(error).partition(';')[0]}; delete {target}, or give force=true to make it again."
                ) from None
        if changed and not force:
            raise ValueError(
                f"output: expected {what} of the same {' and '.join(changed)} in {target}, found others; choose "
                "another output=..., or give force=true to replace them."
            )
    began, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with work_at(target, identity, built_from, fresh=False) as work:
        if work.finished():
            return work.publish()
        metrics = make(work.folder)
        how = provenance(began, time.monotonic() - started, config.runtime, processes=1)
        return work.commit(metrics, how)


def scored(
    target: Path, command: str, family: Callable[[Material, Any], Result], setting: str, options: dict[str, Any],
    inputs: dict[str, str], config: Config, *, dataset: str, files: Mapping[str, Path], nodes: Mapping[str, Path],
    read: Callable[..., Any],
) -> Result:  # fmt: skip
    """What a family of evaluations makes of a network's folders, as it stands in the files of `target`.

    inputs: digest of each thing that it is made from. files, nodes, read: as a Material has them; the family must read
    neither features nor triplets.
    """
    from alignet.evaluate.families.material import Material
    from alignet.evaluate.result import read_result, write_result
    from alignet.runtime.artifacts import Identity, fingerprint

    draws, seed = config.evaluate.bootstrap, config.seed
    section = {"dataset": dataset, "options": options, "bootstrap": draws, "seed": seed}

    def none(*_: Any) -> Any:
        raise NotImplementedError(f"the evaluation of `{command}` reads neither features nor triplets")

    def make(folder: Path) -> dict[str, Any]:
        material = Material(dataset, setting, {}, files, nodes, {}, none, none, read, None, draws, seed)
        result = family(material, options)
        write_result(folder, result)
        return {"scores": len(result.scores)}

    identity = Identity(command, "scores", 1, section, inputs)
    built_from = inputs | {"settings": fingerprint(section)}
    return read_result(finished(target, identity, built_from, make, config, "scores", keep=False).folder)


def check_output(output: Path, lock: str) -> None:
    """Make the folder; ValueError where something else stands in its place. lock: file that an earlier result has."""
    if output.exists() and not (output.is_dir() and ((output / lock).is_file() or not any(output.iterdir()))):
        raise ValueError(
            f"output: expected a free name or an earlier result, found {output}; choose another."
        )
    output.mkdir(parents=True, exist_ok=True)


def without_folders(one: Listed) -> str:
    """What a network was loaded from, for a page that may be passed on."""
    model = f"folder {Path(one.model).name}" if Path(one.model).is_dir() else one.model
    return f"{model}, weights of {Path(one.weights).name}" if one.weights else model


def publish(output: Path, name: str, page: Page) -> None:
    """The page as output/name with its tables/ and figures/; the page comes last."""
    import shutil

    from alignet.report.page import write_page

    partial = output / "page.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    html = write_page(partial, page)
    for folder in ("tables", "figures"):
        shutil.rmtree(output / folder, ignore_errors=True)
        if (partial / folder).is_dir():
            os.replace(partial / folder, output / folder)
    os.replace(html, output / name)
    shutil.rmtree(partial)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a header."""
    import csv
    import io

    from alignet.report.files import write_bytes

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_scores(
    table: Path, scores: Path, columns: Sequence[str], networks: Sequence[Listed], results: Mapping[str, Result],
    details: Mapping[str, Mapping[str, str]], about: Mapping[str, Any],
) -> None:  # fmt: skip
    """The scores of all networks: a .csv with a row for each, and a .json with what was given beside them.

    columns: of the .csv. details: what each network is. about: what else stands in the .json.
    """
    from alignet.runtime.artifacts import write_json

    every = {
        name: [
            {key: value for key, value in asdict(one).items() if key != "dataset"} for one in result.scores
        ]
        for name, result in results.items()
    }
    write_csv(table, columns, [{"model": name} | one for name, listed in every.items() for one in listed])
    models = [
        {"name": one.name, "given": one.typed, "about": details[one.name], "scores": every[one.name]}
        for one in networks
    ]
    write_json(scores, {**about, "models": models})


def plain(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table's columns as rows for JSON: plain numbers, null for NaN."""
    values = {
        name: [one.item() if hasattr(one, "item") else one for one in column]
        for name, column in columns.items()
    }
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return [
        {name: json.loads(json.dumps(value).replace("NaN", "null")) for name, value in row.items()}
        for row in rows
    ]
