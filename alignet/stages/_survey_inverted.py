"""The survey's stage for identically represented inputs (IRIs): the kinds `two` and `match`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, cast

from alignet.stages._survey_files import (
    check_some,
    csv_bytes,
    drawn,
    replaced,
    say_import,
    texts,
    write,
    write_survey,
)

if TYPE_CHECKING:
    from typing import Literal

    from alignet.config import SurveySettings
    from alignet.survey.answers import ImportedChoices

COLUMNS = (
    "survey",
    "participant",
    "trial",
    "kind",
    "image",
    "draw",
    "options",
    "choice",
    "right",
    "rt_ms",
    "used",
)


def build_inverted(settings: SurveySettings) -> None:
    """Make the page of one survey about the images in survey.inverted."""
    import numpy as np

    from alignet.survey.matching import (
        drawn_triples,
        inverted_ids,
        plan_matching,
        read_inverted,
        read_similarity,
    )
    from alignet.survey.page import build_matching_page

    ids = inverted_ids(str(settings.inverted))
    chosen, hard = (
        drawn(ids, settings.objects, settings.seed),
        list[list[str]](),
    )  # hard: ids of each hard triple
    if settings.similarity is not None:
        place = {name: row for row, name in enumerate(ids)}
        similarity = read_similarity(settings.similarity, len(ids))
        rows = drawn_triples(similarity, [place[name] for name in chosen], settings.triplets, settings.seed)
        hard = [[ids[row] for row in three] for three in rows.tolist()]
        chosen = [name for three in hard for name in three]
    inverted = read_inverted(str(settings.inverted), chosen)
    place = {name: row for row, name in enumerate(inverted.ids)}
    plan = plan_matching(
        inverted, kind=cast("Literal['two', 'match']", settings.kind), questions=settings.triplets,
        triples=np.array([[place[name] for name in three] for three in hard]) if hard else None,
        trials=settings.trials, catch=settings.catch, practice=settings.practice, seed=settings.seed,
    )  # fmt: skip
    html, survey = build_matching_page(
        inverted, plan, texts=texts(settings), pixels=settings.pixels, quality=settings.quality,
        lossless=settings.lossless, max_megabytes=settings.max_megabytes, dead_ms=settings.dead_ms,
    )  # fmt: skip
    count = len(survey.blocks)
    unit = "inverted images" if survey.kind == "two" else "triples of targets, six inverted images each,"
    about = (
        f"{count:,} {unit} of {len(inverted.ids):,} images, {survey.trials} of them and {survey.catch} catch trials "
        f"for each participant, {survey.length} questions"
    )
    write_survey(settings, survey, html, about, count)


def save_choices(result: ImportedChoices, folder: Path) -> None:
    """Write choices.csv and summary.json, and say what came in; ValueError where no answer counts."""
    from alignet.runtime.artifacts import write_json

    summary = result.summary
    check_some(summary["choices"], summary)

    def write_all() -> None:
        lines: list[list[object]] = [[row[name] for name in COLUMNS] for row in result.choices]
        write(folder / "choices.csv", csv_bytes([list(COLUMNS), *lines]))
        write_json(folder / "summary.json", summary)

    replaced(folder, ["choices.csv"], write_all)
    say_import(summary)
    asked = {"two": "nearer to the target than to the seed", "match": "matched to their own target"}
    for kind, share in summary["right"].items():
        print(f"{kind}: {100 * share:.1f}% {asked[kind]} ({'50' if kind == 'two' else '33.3'}% at random)")
    path = shlex.quote(str((folder / "choices.csv").absolute()))
    print(
        f"{summary['choices']:,} choices about {summary['images']} images in {folder}: choices.csv, summary.json\n"
        "next (SETTING: the network whose inverted images were shown): "
        "python -m alignet.stages.pipeline experiment=invariance ++data.sets.people.kind=file "
        f"++data.sets.people.path={path} ++evaluate.datasets.invariance.data.people=people "
        "++evaluate.datasets.invariance.options.people_of=SETTING"
    )
