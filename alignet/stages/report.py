"""The page of a run: every table and figure, and the features before and after in a picture.

reads   every evaluate node, the features of one image set before and after and the table that names them (or the
        teacher's clusters); the figures of finetune, smooth, vice, reliability and the teacher's map
writes  report.html, one file that needs no other; tables/ as CSV and Markdown and figures/ as PNG and SVG; table.txt,
        table.md, table.json, features.png and its caption features.txt
cost    seconds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from alignet.evaluate.bootstrap import Score
    from alignet.pipeline.stage_run import StageRun
    from alignet.report.blocks import Block
    from alignet.report.settings_table import Row
    from alignet.runtime.artifacts import Artifact


def run(work: StageRun) -> dict[str, Any]:
    """Put all scores into tables and draw the page."""
    from alignet.pipeline import payloads
    from alignet.report.load_results import gather
    from alignet.report.page import write_page
    from alignet.report.provenance import provenance
    from alignet.report.run_page import run_page
    from alignet.report.settings_table import settings_json, settings_markdown, settings_table

    section, inputs, folder = work.section, work.inputs, work.folder
    evaluated = {name: one for name, one in inputs.items() if one.manifest["identity"]["stage"] == "evaluate"}
    scores = _scores(evaluated)
    labels = [score for score in scores.get("teacher-ud", []) if _is_label_score(score)]
    rows = _rows(scores)
    notes = _notes(section["banner"], labels, {name: artifact.metrics for name, artifact in inputs.items()})
    title = f"{section['title']} (seed {section['seed']})"
    printed = _rows(_scores(evaluated, section["table"]))
    _write(folder / "table.txt", settings_table(printed, title=title, notes=notes))
    _write(folder / "table.md", settings_markdown(printed, title=title, notes=notes))
    _write(folder / "table.json", settings_json(rows, title=title, notes=notes) + "\n")
    picture: list[Block] = []
    if "picture.original" in inputs:
        before, ids = payloads.embedding(inputs["picture.original"])
        after, _ = payloads.embedding(inputs["picture.alignet"])
        if "clusters" in inputs:
            named = _by_cluster(payloads.assignment(inputs["clusters"]), len(ids))
            picture = _draw(before, after, named, "images", section["title"], folder)
        else:
            shown = _by_concept(before, after, ids, work.sources["labels"], section)
            picture = _draw(*shown, "concepts", section["title"], folder)
    page = run_page(
        section, rows, gather(list(evaluated.values()), {}), notes=notes, before=picture,
        source=provenance(inputs.values(), [section]),
    )  # fmt: skip
    write_page(folder, page)
    return {
        f"{setting}.{score.dataset}": score.value
        for setting, found in scores.items() for score in found if score.metric in ("odd_one_out", "agreement")
    }  # fmt: skip


def _scores(evaluated: Mapping[str, Artifact], datasets: Sequence[str] = ()) -> dict[str, list[Score]]:
    """The scores of each setting, of some data sets or of all. evaluated: by <setting>.<data set>."""
    import json

    from alignet.evaluate.bootstrap import Score

    found: dict[str, list[Score]] = {}
    for name, artifact in evaluated.items():
        setting, _, dataset = name.partition(".")
        if not datasets or dataset in datasets:
            entries = json.loads(artifact.file("scores.json").read_text(encoding="utf-8"))
            found.setdefault(setting, []).extend(Score.from_json(entry) for entry in entries)
    return found


def _robust(figures: Mapping[str, Any]) -> str:
    """How the losses of a training of the stage `robust` went."""
    loss = figures.get("loss", "adversarial")
    about, right = {
        "cross_entropy": ("", "answered right"), "adversarial": ("of attacked images, ", "answered right"),
        "trades": ("", "answered right, not attacked"), "mart": ("", "answered right under attack"),
        "simclr": ("", "views nearest to their partner"),
    }[loss]  # fmt: skip
    names = {"cross_entropy": "cross-entropy", "boosted_cross_entropy": "boosted cross-entropy of attacked images",
             "divergence": "divergence", "nt_xent": "NT-Xent"}  # fmt: skip
    went = [
        f"{title} {figures[f'{name}_first']:.3f} to {figures[f'{name}_last']:.3f}"
        for name, title in names.items()
        if f"{name}_first" in figures
    ]
    return f"{about}{', '.join(went)}, {right} {figures['right_first']:.1%} to {figures['right_last']:.1%}"


def _attacked(figures: Mapping[str, Any]) -> bool:
    """Whether a training of the stage `robust` attacked its images; older artifacts do not say so for other losses."""
    return bool(figures.get("attacked", figures.get("loss", "adversarial") == "adversarial"))


def _is_label_score(score: Score) -> bool:
    return score.metric.startswith(("teachers_disagree", "label_entropy"))


def _rows(scores: dict[str, list[Score]]) -> list[Row]:
    from alignet.report.dataset_results import in_rows, row_of
    from alignet.report.settings_table import Row

    found = {
        setting: [one for one in scores[setting] if not _is_label_score(one)] for setting in in_rows(scores)
    }
    return [
        Row(*(row_of(setting) or ("student", setting)), kept)
        for setting, kept in found.items()
        if setting != "data" and kept
    ]


def _notes(banner: str, labels: list[Score], metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What stands below the table. metrics: of the report's inputs by name."""
    import math

    from alignet.report.formatting import setting_title

    said = [banner]
    for score in labels:
        figure = f"{score.value:.1%}" if score.metric.startswith("teachers") else f"{score.value:.3f}"
        said.append(f"{score.metric.replace('_', ' ')}: {figure} ({score.note}, {score.n:,} pool triplets)")
    for role in ("alignet", "distillation"):
        if f"finetune.{role}" not in metrics:
            continue
        figures = metrics[f"finetune.{role}"]
        said.append(
            f"{role}: {figures['steps']} steps, {figures['image_passes']:,} image passes, tau' = "
            f"{figures['tau_teacher']:g}, mean label entropy {figures['label_entropy_nats']:.3f} of at most "
            f"{math.log(3):.3f} nats, student tau = {figures['tau_student']:.4g}"
        )
    for name, figures in metrics.items():
        if name.startswith("harmonize."):
            said.append(
                f"{setting_title(name.removeprefix('harmonize.'))}: {figures['steps']:,} steps, "
                f"{figures['image_passes']:,} image passes, {figures['mapped_images']:,} images with maps; "
                f"cross-entropy {figures['cross_entropy_first']:.3f} to {figures['cross_entropy_last']:.3f}, "
                f"distance of maps {figures['maps_first']:.3f} to {figures['maps_last']:.3f}"
            )
        if name.startswith("robust."):
            said.append(
                f"{setting_title(name.removeprefix('robust.'))}: {figures['steps']:,} steps, "
                f"{figures['image_passes']:,} image passes, "
                f"{'attacks included, ' if _attacked(figures) else ''}"
                f"{figures['images']:,} images; {_robust(figures)}"
            )
    if "smooth" in metrics:
        figures = metrics["smooth"]
        said.append(
            f"both teachers' features smoothed over the student's classifier: penalty {figures['penalty']:g} "
            f"(leave-one-out R2 of the raw features {figures['explained_left_out']:.3f})"
        )
    if "vice" in metrics:
        said.append(_vice(metrics["vice"]))
    if "reliability" in metrics:
        said.append(_reliability(metrics["reliability"]))
    if "map" in metrics:
        said.append(_map(metrics["map"]))
    return said


def _vice(figures: Mapping[str, Any]) -> str:
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
    if "validation_released_accuracy" in figures:
        text += (
            f" (before pruning, by ten samples, as the authors' code measures: "
            f"{figures['validation_released_accuracy']:.3f}, {figures['validation_released_cross_entropy']:.3f} nats)"
        )
    return text + ("" if figures.get("converged", True) else "; NOT CONVERGED")


def _map(figures: Mapping[str, Any]) -> str:
    if "published" in figures:
        return "teacher's map: learned elsewhere"
    return (
        f"teacher's map on objects never trained on: accuracy {figures['held_out_accuracy_before']:.3f} -> "
        f"{figures['held_out_accuracy']:.3f} on {figures['held_out_triplets']:,} triplets (cross-validation)"
    )


def _reliability(halves: Mapping[str, Any]) -> str:
    kept = f"{halves['kept_first']} and {halves['kept_second']} dimensions kept"
    if not halves["converged"]:
        kept += "; NOT CONVERGED"
    if halves["spearman"] is None:
        return f"VICE on two disjoint halves of the choices: nothing to compare ({kept}); the choices are too few"
    return (
        f"VICE on two disjoint halves of the choices: the similarities of {halves['objects']:,} objects correlate, "
        f"Spearman's rho {halves['spearman']:.3f} ({kept})"
    )


def _draw(
    before: np.ndarray, after: np.ndarray, categories: list[str], what: str, title: str, folder: Path
) -> list[Block]:
    """Draw features.png with its caption, and return the same as a figure of the page. what: what rows are."""
    from alignet.report.alignment_figures import concepts_before_and_after
    from alignet.report.before_and_after import before_and_after

    caption = concepts_before_and_after(
        before, after, categories, folder / "features.png", caption=f"{title}:", what=what
    )
    _write(folder / "features.txt", caption + "\n")
    return [before_and_after(before, after, categories, caption=caption, what=what)]


def _by_cluster(clusters: np.ndarray, images: int) -> list[str]:
    """The category of each image where no table names them: its cluster."""
    if len(clusters) != images:
        raise ValueError(
            f"report.picture_images: expected the pool, whose clusters colour the points, found {images} images "
            f"for {len(clusters)} assignments; set report.picture_labels to a table that names their categories"
        )
    return [f"cluster {number + 1}" for number in clusters]


def _by_concept(
    before: np.ndarray, after: np.ndarray, ids: list[str], table: Path, section: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features of concepts, which are means of their images', before and after, and the category of each."""
    from alignet.data.tables import column_for
    from alignet.report.alignment_figures import concept_means

    naming = {"id_column": section["id_column"], "id_prefix": section["id_prefix"]}
    concepts = column_for(table, ids, section["concept_column"], **naming)
    categories = column_for(table, ids, section["category_column"], **naming)
    category_of = dict(zip(concepts, categories, strict=True))
    left, names = concept_means(before, concepts)
    right, _ = concept_means(after, concepts)
    return left, right, [category_of[name] for name in names]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    from alignet.pipeline.cli import stage_main

    stage_main("report", __doc__ or "")
