"""The table of all settings, and the features before and after in a picture.

reads   every evaluate node, the features of one image set before and after and the table that names them; the
        figures of finetune, smooth, vice, reliability and the teacher's map
writes  table.txt, table.md, table.json, features.png and its caption features.txt
cost    seconds
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignet.pipeline import StageRun


ROWS = {  # setting -> (model, setting) as the table prints them
    "pixels": ("baseline", "raw pixels"),
    "histogram": ("baseline", "colour histogram"),
    "teacher-original": ("teacher", "original"),
    "teacher-ud": ("teacher", "ud"),
    "original": ("student", "original"),
    "distillation": ("student", "distillation"),
    "ud": ("student", "ud"),
    "alignet": ("student", "alignet"),
}


def run(work: StageRun) -> dict[str, Any]:
    """Put all scores into one table and draw the picture."""
    from alignet.table import settings_json, settings_markdown, settings_table

    scores = _scores(work)
    labels = [score for score in scores.get("teacher-ud", []) if _is_label_score(score)]
    rows = _rows(scores)
    notes = _notes(work, labels)
    title = f"{work.section['title']} (seed {work.section['seed']})"
    _write(work.folder / "table.txt", settings_table(rows, title=title, notes=notes))
    _write(work.folder / "table.md", settings_markdown(rows, title=title, notes=notes))
    _write(work.folder / "table.json", settings_json(rows, title=title, notes=notes) + "\n")
    _draw(work)
    return {
        f"{setting}.{score.dataset}": score.value
        for setting, found in scores.items() for score in found if score.metric == "odd_one_out"
    }  # fmt: skip


def _scores(work: StageRun) -> dict[str, list[Any]]:
    import json

    from alignet.evaluate.bootstrap import Score

    found: dict[str, list[Any]] = {}
    for name, artifact in work.inputs.items():
        if artifact.manifest["identity"]["stage"] == "evaluate":
            entries = json.loads(artifact.file("scores.json").read_text(encoding="utf-8"))
            found.setdefault(name.partition(".")[0], []).extend(Score.from_json(entry) for entry in entries)
    return found


def _is_label_score(score: Any) -> bool:
    return score.metric.startswith(("teachers_disagree", "label_entropy"))


def _rows(scores: dict[str, list[Any]]) -> list[Any]:
    from alignet.table import Row

    return [
        Row(*ROWS[setting], [score for score in scores[setting] if not _is_label_score(score)])
        for setting in ROWS
        if setting in scores
    ]


def _notes(work: StageRun, labels: list[Any]) -> list[str]:
    import math

    said = [work.section["banner"]]
    for score in labels:
        figure = f"{score.value:.1%}" if score.metric.startswith("teachers") else f"{score.value:.3f}"
        said.append(f"{score.metric.replace('_', ' ')}: {figure} ({score.note}, {score.n:,} pool triplets)")
    for role in ("alignet", "distillation"):
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
    vice, mapped = work.inputs["vice"].metrics, work.inputs["map"].metrics
    said.append(
        f"VICE: {vice['kept_dimensions']} dimensions kept, held-out accuracy {vice['validation_accuracy']:.3f}, "
        f"cross-entropy {vice['validation_cross_entropy']:.3f} nats"
        + ("" if vice["converged"] else "; NOT CONVERGED")
    )
    said.append(_reliability(work.inputs["reliability"].metrics))
    said.append(
        f"teacher's map on objects never trained on: accuracy {mapped['held_out_accuracy_before']:.3f} -> "
        f"{mapped['held_out_accuracy']:.3f} on {mapped['held_out_triplets']:,} triplets (cross-validation)"
    )
    return said


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


def _draw(work: StageRun) -> None:
    from alignet.data.tables import column_for
    from alignet.figures import concept_means, concepts_before_and_after
    from alignet.stages import _read

    section = work.section
    before, ids = _read.embedding(work.inputs["picture.original"])
    after, _ = _read.embedding(work.inputs["picture.alignet"])
    naming = {"id_column": section["id_column"], "id_prefix": section["id_prefix"]}
    concepts = column_for(work.sources["labels"], ids, section["concept_column"], **naming)
    categories = column_for(work.sources["labels"], ids, section["category_column"], **naming)
    category_of = dict(zip(concepts, categories, strict=True))
    left, names = concept_means(before, concepts)
    right, _ = concept_means(after, concepts)
    caption = concepts_before_and_after(
        left,
        right,
        [category_of[name] for name in names],
        work.folder / "features.png",
        caption=f"{section['title']}:",
    )
    _write(work.folder / "features.txt", caption + "\n")


def _write(path: Any, text: str) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    from alignet.cli import stage_main

    stage_main("report", __doc__ or "")
