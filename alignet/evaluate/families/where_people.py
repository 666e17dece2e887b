"""People's importance maps without a network: their ceiling, their centre bias, and how alike maps of two kinds are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignet.evaluate.bootstrap import Score, interval, mean_draws
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.result import Result


def where_people(material: Material, options: Options) -> Result:
    """How alike people's maps are among themselves, which no network is needed for; see evaluate.where.

    Names: the file `maps`. options: as of `where`, of which keys, ceiling, splits and blur count.

    Scores, of each key: `centre_bias`, each map with the mean of all others (whole maps, not what a network sees of
    them); `split_half` of its raters where the file has them. Table `between`: a, b, value, low, high, n: the mean
    Spearman of the maps of two keys, of the same images. Maps of different sizes are all brought to 64 x 64.
    """
    from alignet.evaluate.where import centre_bias, mean_score

    maps = load_kinds(material, options["keys"])
    grids = _grids(maps, options["blur"])
    scores: list[Score | None] = []
    for key, people in maps.items():
        name = dataset_name(material, maps, key)
        if people.raters is not None and any(len(several) > 1 for several in people.raters):
            scores.append(_split_half(material, name, people.raters, options))
        ceiling, said = ceiling_of(material, options, people.raters)
        values = centre_bias(grids[key])
        lost = int(np.isnan(values).sum())
        notes = (
            "each map with the mean of all others, itself left out", blur_note(options["blur"]),
            f"{lost} constant maps left out" if lost else "", said,
        )  # fmt: skip
        scores.append(
            mean_score(
                values, "centre_bias", name, draws=material.bootstrap, seed=material.seed, ceiling=ceiling,
                note="; ".join(text for text in notes if text),
            )
        )  # fmt: skip
    return Result(
        [score for score in scores if score is not None],
        {"between": _between(material, maps, grids)} if len(maps) > 1 else {},
    )


def _between(material: Material, maps: dict[str, Any], grids: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """The table `between`: each pair of keys, over the images that have both; NaN where there is no value."""
    from alignet.evaluate.where import spearman

    table: dict[str, list[Any]] = {column: [] for column in ("a", "b", "value", "low", "high", "n")}
    for a, b in combinations(maps, 2):
        places = {name: row for row, name in enumerate(maps[b].ids)}
        pairs = [(row, places[name]) for row, name in enumerate(maps[a].ids) if name in places]
        first, second = (
            grids[key][[pair[side] for pair in pairs]].reshape(len(pairs), -1)
            for side, key in enumerate((a, b))
        )
        values = spearman(first, second) if pairs else np.zeros(0)
        values = values[np.isfinite(values)]
        low = high = np.nan
        if len(values) > 1:
            low, high = interval(mean_draws(values, draws=material.bootstrap, seed=material.seed))
        mean = float(values.mean()) if len(values) else np.nan
        for column, value in zip(table, (a, b, mean, low, high, len(values)), strict=True):
            table[column].append(value)
    return table


def load_kinds(material: Material, keys: str | Sequence[str]) -> dict[str, Any]:
    """People's maps by key, in the order of `keys`; key -> data.importance_maps.ImportanceMaps."""
    from alignet.data.importance_maps import keys_of, load_maps

    path = material.files["maps"]
    names = (
        (list(keys_of(path)) or [""]) if keys == "all" else [keys] if isinstance(keys, str) else list(keys)
    )
    return {key: load_maps(path, key=key) for key in names}


def dataset_name(material: Material, maps: dict[str, Any], key: str) -> str:
    return f"{material.dataset} {key}" if len(maps) > 1 else material.dataset


def _grids(maps: dict[str, Any], blur: str) -> dict[str, np.ndarray]:
    """People's maps of each key as one array (n, h, w), all of one size."""
    from alignet.evaluate.where import GRID, WHOLE, seen

    smooth = smoothing(blur)
    smoothed = {key: [smooth(np.asarray(one)) for one in people.maps] for key, people in maps.items()}
    if len({one.shape for several in smoothed.values() for one in several}) > 1:
        smoothed = {key: [seen(one, WHOLE, GRID) for one in several] for key, several in smoothed.items()}
    return {key: np.stack(several) for key, several in smoothed.items()}


def smoothing(blur: str) -> Any:
    from alignet.evaluate.where import BLURS, blurred

    if blur not in BLURS:
        raise ValueError(
            f"options.blur: expected one of {', '.join(BLURS)}, found {blur!r}; name one of them."
        )
    return blurred if blur == "published" else np.asarray


def blur_note(blur: str) -> str:
    return "people's maps smoothed as published (10 x 10, sigma 10, at 64 px)" if blur == "published" else ""


def ceiling_of(
    material: Material, options: Options, raters: Sequence[np.ndarray] | None
) -> tuple[float | None, str]:
    """The ceiling, and what it is; None and "" without one. raters: of each image (r, h, w), or None."""
    from alignet.evaluate.where import CLICKME_CEILING

    option = options["ceiling"]
    if option is None:
        return None, ""
    if option == "clickme":
        return (
            CLICKME_CEILING,
            f"ceiling {CLICKME_CEILING}: ClickMe's in the published evaluation (.66 in the paper)",
        )
    if option == "split_half":
        value, _ = _halves(material, raters, options)
        said = f"ceiling {value:.3f}: mean split-half Spearman of the raters, {options['splits']:,} splits"
    else:
        value, said = float(option), f"ceiling {float(option):g}: as given"
    if not value > 0:
        raise ValueError(
            f"{material.dataset}: expected a ceiling above 0, found {value:g} ({said}); set ceiling to null."
        )
    return value, said


def _halves(
    material: Material, raters: Sequence[np.ndarray] | None, options: Options
) -> tuple[float, np.ndarray]:
    """Mean split-half Spearman, and of each image; raters smoothed as the maps are."""
    from alignet.data.split_half import split_half

    if raters is None:
        raise ValueError(
            f"{material.dataset}: expected the maps of single raters for ceiling=split_half, found mean maps only; "
            "give a file with raters, or set ceiling to clickme, a number or null."
        )
    smooth = smoothing(options["blur"])
    maps = [np.stack([smooth(one) for one in several]) for several in raters]
    return split_half(maps, splits=options["splits"], seed=material.seed)


def _split_half(
    material: Material, name: str, raters: Sequence[np.ndarray], options: Options
) -> Score | None:
    from alignet.evaluate.where import mean_score

    _, values = _halves(material, raters, options)
    note = f"mean of {options['splits']:,} random halves of the raters, not stepped up to all of them"
    return mean_score(values, "split_half", name, draws=material.bootstrap, seed=material.seed, note=note)
