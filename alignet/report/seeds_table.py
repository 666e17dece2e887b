"""The table over seeds: mean, least and largest value of every setting and metric, as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignet.report.metric_styles import STYLES
from alignet.report.settings_table import ORIGINAL, STUDENT, distance_closed


def seeds_table(reports: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> str:
    """Mean [least, largest] over seeds of every setting and metric, as plain text.

    reports: one `settings_json` per seed, parsed; they must have the same rows and columns. Below each
    student setting, `closed` is the share of the mean distance from original to ceiling.
    """
    tables = [
        {
            (row["model"], row["setting"], score["metric"], score["dataset"]): score
            for row in report["rows"]
            for score in row["scores"]
        }
        for report in reports
    ]
    if not tables or any(table.keys() != tables[0].keys() for table in tables):
        raise ValueError(
            "the table over seeds: expected reports with the same rows and columns; make them again."
        )
    lines = [
        f"{reports[0]['title'].partition(' (')[0]}: mean [least, largest] over seeds {', '.join(map(str, seeds))}",
        "",
    ]
    columns = dict.fromkeys(key[2:] for key in tables[0] if key[2] in STYLES and key[2] != "triplet_entropy")
    for metric, dataset in sorted(columns, key=lambda column: list(STYLES).index(column[0])):
        style = STYLES[metric]
        lines.append(f"{style.title}: {dataset}")
        means = {}
        for model, setting, *_ in (key for key in tables[0] if key[2:] == (metric, dataset)):
            scores = [table[model, setting, metric, dataset] for table in tables]
            values = [style.scale * score["value"] for score in scores]
            means[model, setting] = sum(values) / len(values)
            text = f"  {model:8}  {setting:16}  {means[model, setting]:7.{style.decimals}f}"
            text += f"  [{min(values):.{style.decimals}f}, {max(values):.{style.decimals}f}]"
            original = means.get((STUDENT, ORIGINAL))
            if (
                scores[0]["ceiling"] is not None
                and model == STUDENT
                and setting != ORIGINAL
                and original is not None
            ):
                ceiling = style.scale * sum(score["ceiling"] for score in scores) / len(scores)
                if (
                    ceiling > original
                ):  # one of a person alone can lie below a model that has met the majority
                    text += f"  closed {distance_closed(original, means[model, setting], ceiling):.0%}"
            lines.append(text)
        lines.append("")
    return "\n".join(lines)
