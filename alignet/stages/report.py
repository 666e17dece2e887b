"""The page of a run: every table and figure, and the features before and after in a picture.

reads   every evaluate node, the features of one image set before and after and the table that names them (or the
        teacher's clusters); the figures of finetune, smooth, vice, reliability and the teacher's map
writes  report.html, one file that needs no other; tables/ as CSV and Markdown and figures/ as PNG and SVG; table.txt,
        table.md, table.json, features.png and its caption features.txt
cost    seconds
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline.stage_run import StageRun
    from alignet.report.blocks import Block


def run(work: StageRun) -> dict[str, Any]:
    """Put all scores into tables and draw the page."""
    from alignet.report.assemble import run_page
    from alignet.report.load_results import gather
    from alignet.report.page import write_page
    from alignet.report.provenance import provenance
    from alignet.report.table import settings_json, settings_markdown, settings_table

    evaluated = [one for one in work.inputs.values() if one.manifest["identity"]["stage"] == "evaluate"]
    scores = _scores(work)
    labels = [score for score in scores.get("teacher-ud", []) if _is_label_score(score)]
    rows = _rows(scores)
    notes = _notes(work, labels)
    title = f"{work.section['title']} (seed {work.section['seed']})"
    printed = _rows(_scores(work, work.section["table"]))
    _write(work.folder / "table.txt", settings_table(printed, title=title, notes=notes))
    _write(work.folder / "table.md", settings_markdown(printed, title=title, notes=notes))
    _write(work.folder / "table.json", settings_json(rows, title=title, notes=notes) + "\n")
    before = _draw(work) if "picture.original" in work.inputs else []
    page = run_page(
        work.section, rows, gather(evaluated, {}), notes=notes, before=before,
        source=provenance(work.inputs.values(), [work.section]),
    )  # fmt: skip
    write_page(work.folder, page)
    return {
        f"{setting}.{score.dataset}": score.value
        for setting, found in scores.items() for score in found if score.metric in ("odd_one_out", "agreement")
    }  # fmt: skip


def _scores(work: StageRun, datasets: Sequence[str] = ()) -> dict[str, list[Any]]:
    """The scores of each setting, of some evaluations or of all."""
    import json

    from alignet.evaluate.bootstrap import Score

    found: dict[str, list[Any]] = {}
    for name, artifact in work.inputs.items():
        setting, _, dataset = name.partition(".")
        if artifact.manifest["identity"]["stage"] == "evaluate" and (not datasets or dataset in datasets):
            entries = json.loads(artifact.file("scores.json").read_text(encoding="utf-8"))
            found.setdefault(setting, []).extend(Score.from_json(entry) for entry in entries)
    return found


def _is_label_score(score: Any) -> bool:
    return score.metric.startswith(("teachers_disagree", "label_entropy"))


def _rows(scores: dict[str, list[Any]]) -> list[Any]:
    from alignet.report.dataset_results import ROWS
    from alignet.report.table import Row

    return [
        Row(*ROWS[setting], [score for score in scores[setting] if not _is_label_score(score)])
        for setting in ROWS
        if setting != "data" and any(not _is_label_score(score) for score in scores.get(setting, []))
    ]


def _notes(work: StageRun, labels: list[Any]) -> list[str]:
    import math

    said = [work.section["banner"]]
    for score in labels:
        figure = f"{score.value:.1%}" if score.metric.startswith("teachers") else f"{score.value:.3f}"
        said.append(f"{score.metric.replace('_', ' ')}: {figure} ({score.note}, {score.n:,} pool triplets)")
    for role in ("alignet", "distillation"):
        if f"finetune.{role}" not in work.inputs:
            continue
        figures = work.inputs[f"finetune.{role}"].metrics
        said.append(
            f"{role}: {figures['steps']} steps, {figures['image_passes']:,} image passes, tau' = "
            f"{figures['tau_teacher']:g}, mean label entropy {figures['label_entropy_nats']:.3f} of at most "
            f"{math.log(3):.3f} nats, student tau = {figures['tau_student']:.4g}"
        )
    if "smooth" in work.inputs:
        figures = work.inputs["smooth"].metrics
        said.append(
            f"both teachers' features smoothed over the student's classifier: penalty {figures['penalty']:g} "
            f"(leave-one-out R2 of the raw features {figures['explained_left_out']:.3f})"
        )
    if "vice" in work.inputs:
        said.append(_vice(work.inputs["vice"].metrics))
    if "reliability" in work.inputs:
        said.append(_reliability(work.inputs["reliability"].metrics))
    if "map" in work.inputs:
        said.append(_map(work.inputs["map"].metrics))
    return said


def _vice(figures: dict[str, Any]) -> str:
    text = f"VICE: {figures['kept_dimensions']} dimensions kept"
    if "published" in figures:
        text += " of an embedding that was fitted elsewhere" + (
            "" if figures["has_scale"] else ", which has no scale: labels know no uncertainty"
        )
    if "validation_accuracy" in figures:
        text += (
            f", held-out accuracy {figures['validation_accuracy']:.3f}, cross-entropy "
            f"{figures['validation_cross_entropy']:.3f} nats"
        )
    return text + ("" if figures.get("converged", True) else "; NOT CONVERGED")


def _map(figures: dict[str, Any]) -> str:
    if "published" in figures:
        return "teacher's map: learned elsewhere"
    return (
        f"teacher's map on objects never trained on: accuracy {figures['held_out_accuracy_before']:.3f} -> "
        f"{figures['held_out_accuracy']:.3f} on {figures['held_out_triplets']:,} triplets (cross-validation)"
    )


def _reliability(halves: dict[str, Any]) -> str:
    kept = f"{halves['kept_first']} and {halves['kept_second']} dimensions kept"
    if not halves["converged"]:
        kept += "; NOT CONVERGED"
    if halves["spearman"] is None:
        return f"VICE on two disjoint halves of the choices: nothing to compare ({kept}); the choices are too few"
    return (
        f"VICE on two disjoint halves of the choices: the similarities of {halves['objects']:,} objects correlate, "
        f"Spearman's rho {halves['spearman']:.3f} ({kept})"
    )


def _draw(work: StageRun) -> list[Block]:
    """Draw features.png with its caption, and return the same as a figure of the page."""
    from alignet.report.figures import concepts_before_and_after
    from alignet.report.picture import before_and_after

    before, after, categories, what = _pictured(work)
    caption = concepts_before_and_after(
        before,
        after,
        categories,
        work.folder / "features.png",
        caption=f"{work.section['title']}:",
        what=what,
    )
    _write(work.folder / "features.txt", caption + "\n")
    return [before_and_after(before, after, categories, caption=caption, what=what)]


def _pictured(work: StageRun) -> tuple[Any, Any, list[str], str]:
    """What the picture shows: features before and after, a category for each row, and what rows are."""
    from alignet.data.tables import column_for
    from alignet.pipeline import payloads
    from alignet.report.figures import concept_means

    section = work.section
    before, ids = payloads.embedding(work.inputs["picture.original"])
    after, _ = payloads.embedding(work.inputs["picture.alignet"])
    if "clusters" in work.inputs:
        clusters = payloads.assignment(work)
        if len(clusters) != len(ids):
            raise ValueError(
                f"report.picture_images: expected the pool, whose clusters colour the points, found {len(ids)} images "
                f"for {len(clusters)} assignments; set report.picture_labels to a table that names their categories"
            )
        return before, after, [f"cluster {number + 1}" for number in clusters], "images"
    naming = {"id_column": section["id_column"], "id_prefix": section["id_prefix"]}
    concepts = column_for(work.sources["labels"], ids, section["concept_column"], **naming)
    categories = column_for(work.sources["labels"], ids, section["category_column"], **naming)
    category_of = dict(zip(concepts, categories, strict=True))
    left, names = concept_means(before, concepts)
    right, _ = concept_means(after, concepts)
    return left, right, [category_of[name] for name in names], "concepts"


def _write(path: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("report", __doc__ or "")
