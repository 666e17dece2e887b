"""One family of metrics for one row of the table.

reads   the features that evaluate.datasets.<name> names, as the setting sees them; its files
writes  scores.json: a list of metric, value, 95% interval, n, chance, ceiling, note; and a Parquet table for each
        figure of its family
roles   <setting>.<dataset>, e.g. alignet.report
cost    seconds
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun


def run(work: StageRun) -> dict[str, Any]:
    """Compute the scores of this role."""
    from alignet.evaluate.families import Material, family
    from alignet.evaluate.result import Result, write_result
    from alignet.pipeline import payloads

    section, transform = work.section, payloads.transform(work.inputs.get("map"))
    features, nodes, raw = {}, {}, {}
    for name, artifact in work.inputs.items():
        kind, _, part = name.partition(".")
        if kind == "features":
            rows, ids = payloads.embedding(artifact)
            rows = rows.astype("float32")
            features[part] = (transform(rows) if transform else rows, ids)
        elif kind == "node":
            nodes[part] = artifact.folder
            if artifact.manifest["identity"]["stage"] in ("embed", "smooth"):
                raw[part] = payloads.embedding(artifact)
    files = {
        name.removeprefix("data."): path for name, path in work.sources.items() if name.startswith("data.")
    }
    rows_of_objects = None
    if "object_ids" in section:
        rows_of_objects = payloads.object_rows(
            section["object_ids"], work.sources["data.objects"], features["test"][1]
        )
    picture: Callable[[str], Any] = partial(_no_pictures, section["dataset"])
    if "data.pictures" in work.inputs:
        picture = payloads.opener(work, payloads.images(work, "data.pictures"))
    material = Material(
        dataset=section["dataset"], setting=section["setting"], features=features, files=files, nodes=nodes, raw=raw,
        transform=transform or (lambda rows: rows),
        triplets=lambda name, objects: payloads.triplets(work, f"data.{name}", objects),
        picture=picture, object_rows=rows_of_objects, bootstrap=section["bootstrap"], seed=section["seed"],
    )  # fmt: skip
    found = family(section["family"], section["dataset"])(material, section["options"])
    result = found if isinstance(found, Result) else Result(found)
    write_result(work.folder, result)
    metrics = [score.metric for score in result.scores]
    return {
        score.metric if metrics.count(score.metric) == 1 else f"{score.metric} {score.dataset}": score.value
        for score in result.scores
    }


def _no_pictures(dataset: str, name: str) -> NoReturn:
    """Stands where a data set without pictures is asked to open one."""
    raise ValueError(
        f"evaluate.datasets.{dataset}.data: expected an image set as `pictures`, found none; add it"
    )


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("evaluate", __doc__ or "")
