"""One family of metrics for one row of the table.

reads   the features that evaluate.datasets.<name> names, as the setting sees them; its files
writes  scores.json: a list of metric, value, 95% interval, n, chance, ceiling, note
roles   <setting>.<dataset>, e.g. alignet.report
cost    seconds
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Compute the scores of this role."""
    from dataclasses import asdict

    from alignet.artifacts import write_json
    from alignet.evaluate.families import Material, family
    from alignet.stages import _read

    section, transform = work.section, _read.transform(work)
    features, nodes, raw = {}, {}, {}
    for name, artifact in work.inputs.items():
        kind, _, part = name.partition(".")
        if kind == "features":
            rows, ids = _read.embedding(artifact)
            rows = rows.astype("float32")
            features[part] = (transform(rows) if transform else rows, ids)
        elif kind == "node":
            nodes[part] = artifact.folder
            if artifact.manifest["identity"]["stage"] in ("embed", "smooth"):
                raw[part] = _read.embedding(artifact)
    files = {
        name.removeprefix("data."): path for name, path in work.sources.items() if name.startswith("data.")
    }
    rows_of_objects = None
    if "object_ids" in section:
        rows_of_objects = _read.object_rows(work, features["test"][1], "data.objects")
    material = Material(
        dataset=section["dataset"], setting=section["setting"], features=features, files=files, nodes=nodes, raw=raw,
        transform=transform or (lambda rows: rows),
        triplets=lambda name, objects: _read.triplets(work, f"data.{name}", objects),
        object_rows=rows_of_objects, bootstrap=section["bootstrap"], seed=section["seed"],
    )  # fmt: skip
    scores = family(section["family"])(material, section["options"])
    write_json(work.folder / "scores.json", [asdict(score) for score in scores])
    return {score.metric: score.value for score in scores}


if __name__ == "__main__":
    from alignet.cli import stage_main

    stage_main("evaluate", __doc__ or "")
