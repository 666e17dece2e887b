"""Alignment against what it costs, over every fine-tuning in a store, on the tune half.

    uv run python -m benchmarks.curve experiment=photos paths.photos=FOLDER [paths.artifacts=FOLDER]

Reads the scores `alignet.tune` and `alignet.pool` of every fine-tuning there that differs from the configured one in
pull and learning rate alone (make them with `pipeline -m role=evaluate[alignet.pool] finetune.settings.pull=...`),
prints them and draws curve.png into the store. It never opens the report half.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from alignet.pipeline.cli import load
from alignet.pipeline.runner import Pipeline
from alignet.report.alignment_figures import CurvePoint, alignment_curve


def value(pipeline: Pipeline, key: str, metric: str) -> float | None:
    """One score of an evaluate node, None where it has not been made."""
    artifact = pipeline.state(key).artifact
    if artifact is None:
        return None
    scores = json.loads(artifact.file("scores.json").read_text(encoding="utf-8"))
    return next(score["value"] for score in scores if score["metric"] == metric)


def main() -> None:
    """Collect, print, draw."""
    given = sys.argv[1:]
    config = load(given)
    shipped = config.finetune.settings
    store = Path(config.paths.artifacts)
    settings = set()
    for manifest in (store / "finetune").glob("*/MANIFEST.json"):
        identity = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
        if identity["role"] == "alignet":
            settings.add((identity["section"]["settings"]["pull"], identity["section"]["settings"]["lr"]))
    points = []
    for pull, lr in sorted(settings):
        run = Pipeline(load([*given, f"finetune.settings.pull={pull}", f"finetune.settings.lr={lr}"]))
        tune, top1 = (
            value(run, "evaluate[alignet.tune]", "odd_one_out"),
            value(run, "evaluate[alignet.pool]", "top1"),
        )
        refit = value(run, "evaluate[alignet.pool]", "top1_refit")
        if tune is not None and top1 is not None:
            points.append(CurvePoint(pull, lr, tune, top1))
            print(
                f"pull {pull:6g}  lr {lr:.0e}  tune {tune:.4f}  top-1 {top1:.3f}  refitted head {refit:.3f}"
            )
    base = Pipeline(config)
    start = (
        value(base, "evaluate[original.tune]", "odd_one_out"),
        value(base, "evaluate[original.pool]", "top1"),
    )
    if None in start:
        sys.exit("error: the original's scores are missing; run the pipeline once with these options")
    print(f"original                tune {start[0]:.4f}  top-1 {start[1]:.3f}")
    chosen = next(
        (point for point in points if (point.pull, point.learning_rate) == (shipped.pull, shipped.lr)), None
    )
    path = store / "curve.png"
    alignment_curve(
        points, path, original=start, shipped=chosen, targets=(0.5, 0.5), ceiling=0.65,
        caption=f"tune half, {shipped.steps} steps, seed {shipped.seed}",
    )  # fmt: skip
    print(f"picture: {path}")


if __name__ == "__main__":
    main()
