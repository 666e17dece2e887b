"""The family of attacks: how much must change for a network to answer otherwise, and whether people look there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alignet.evaluate.bootstrap import Score, mean_draws, share_interval
from alignet.evaluate.families.attack_pictures import Pictures
from alignet.evaluate.families.attack_read import Attack, attacked_images, read_attack
from alignet.evaluate.families.material import Material, Options
from alignet.evaluate.families.where import accuracy
from alignet.evaluate.result import Result

if TYPE_CHECKING:
    from alignet.data.importance_maps import ImportanceMaps

MAIN = "attack"  # the node whose scores have no name before them
NORMS = {"l2": "l2", "linf": "l-inf"}  # as notes print them


def attack(material: Material, options: Options) -> Result:
    """The smallest perturbations that turn a network's answers: their size and, with maps, where they are.

    Names: the node `attack`, an artifact of that stage; further nodes under any names, other attacks of the same images
    or of some of them; the file `maps` with people's maps and the file `common`, both of which may be missing. `common`
    lists ids, one a line: then only these images count, except in accuracy and `robust_<eps>`. options: reduction of
    the channels (mean | max) whose alignment is scored, the other stands beside it; key of the maps; eps, norms at
    which accuracy is given; photographs (default false), whether the table `pictures` has the images, which the
    artifact holds.

    Scores, of the images that were answered right at first and so attacked: `tolerance` (mean of min(norm, largest norm
    searched), see evaluate.attack), `tolerance_median` (none where half survive), `tolerance_rms` (root mean square
    change of a pixel value), `tolerance_8bit`, `unbroken`, `masked` (share with a sign of gradient masking);
    `robust_<eps>` over images of known class, or of those attacked where none is known; `accuracy`. With maps, of the
    images that were broken: `attack_alignment` (Spearman of the perturbation's magnitude and people's map),
    `attack_alignment_max` or `_mean`, `attack_centre_bias` and `attack_over_centre`. Of another node:
    `<node>_tolerance` and `<node>_alignment`, and over images broken by both `<node>_against` and
    `<node>_alignment_against`, Spearman's rank correlation with the first attack.
    ValueError where no image was right at first.

    Tables: `attacks`, a row for each node; `images`; `survival` (eps, share, low, high); `pictures`.
    """
    if MAIN not in material.nodes:
        raise ValueError(
            f"{material.dataset}: expected a node `{MAIN}`, found {', '.join(material.nodes) or 'none'}; name an "
            "artifact of the stage attack so."
        )
    people = _people(material, options)
    common = _common(material)
    ids, shown = attacked_images(material, MAIN, people, common)
    pictures = Pictures(ids, shown, material.seed, photographs=bool(options.get("photographs")))
    whole = read_attack(material, MAIN, people, str(options["reduction"]), pictures)
    main = whole.only(common)
    others = {
        name: read_attack(material, name, people, "", None).only(common)
        for name in material.nodes
        if name != MAIN
    }
    scores = [*_tolerance(material, options, main, whole, with_maps=people is not None)]
    if people is not None:
        scores += _alignment(material, str(options["reduction"]), main)
    for name, other in others.items():
        scores += _against(
            material, str(options["reduction"]), main, name, other, with_maps=people is not None
        )
    scores += accuracy(material, (main["top1"] == main["label"])[main["label"] >= 0])
    tables = {
        "attacks": _attacks({MAIN: main, **others}), "images": _images(main, others),
        "survival": _survival(material, main),
        **({"pictures": pictures.table()} if pictures.drawn else {}),
    }  # fmt: skip
    return Result([score for score in scores if score is not None], tables)


def _people(material: Material, options: Options) -> ImportanceMaps | None:
    from alignet.data.importance_maps import load_maps

    if "maps" not in material.files:
        return None
    return load_maps(material.files["maps"], key=str(options.get("key") or ""))


def _common(material: Material) -> set[str] | None:
    if "common" not in material.files:
        return None
    return set(material.files["common"].read_text(encoding="utf-8").splitlines())


# ---- scores


def _tolerance(
    material: Material, options: Options, main: Attack, whole: Attack, *, with_maps: bool
) -> Iterator[Score | None]:
    """The sizes of perturbations and what follows from them. whole: the attack with the images that do not count."""
    from alignet.evaluate.attack import median, root_mean_square, survives
    from alignet.evaluate.where import mean_score

    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed, "chance": None}
    norms, eight = main.norms(), main.norms("8")
    masked = (main["blind"] | main["no_gradient"])[main["tried"]]
    yield mean_score(
        norms.norm, "tolerance", material.dataset, note=_note(main, with_maps=with_maps), **shared
    )
    middle, low, high = median(norms, draws=material.bootstrap, seed=material.seed)
    if np.isfinite(middle):
        beyond = (
            ""
            if np.isfinite(high)
            else f"the interval's upper end is above {main.high:g}, the largest norm searched"
        )
        yield Score(
            "tolerance_median", material.dataset, middle, min(low, main.high), min(high, main.high), len(norms),
            "images", "images", note=beyond,
        )  # fmt: skip
    if main.norm == "l2":
        changes, said = root_mean_square(norms.norm, main.shape), "norm / sqrt(3 H W)"
    else:
        changes, said = main["rms"][main["broken"]], "of the broken images alone"
    yield mean_score(
        changes, "tolerance_rms", material.dataset, note=f"root mean square change of a pixel value in [0, 1], {said}",
        **shared,
    )  # fmt: skip
    left = int((~eight.broken).sum())
    yield mean_score(
        eight.norm, "tolerance_8bit", material.dataset, **shared,
        note=f"images of 8 bit{f'; {left:,} of {len(eight):,} unbroken, which count as {main.high:g}' if left else ''}",
    )  # fmt: skip
    yield _share(
        material, "unbroken", ~norms.broken, f"no perturbation of norm {main.high:g} or less was found"
    )
    yield _share(material, "masked", masked, _masking(main))
    known = main["label"] >= 0
    right, every = whole["tried"] & (whole["top1"] == whole["label"]), whole.norms()
    for eps in options.get("eps") or ():
        held = np.zeros(len(main.ids), dtype=bool)
        held[whole["tried"]] = survives(every, float(eps))
        if known.any():
            values, said = (right & held)[known], "accuracy over images of known class"
        else:
            values, said = held[whole["tried"]], "share of all answers, since no class is known"
        yield _share(
            material,
            f"robust_{eps:g}",
            values,
            f"{said}, under perturbations of {NORMS[main.norm]} norm {eps:g}",
        )


def _note(main: Attack, *, with_maps: bool) -> str:
    """What the tolerance is, and of what images."""
    norms, (channels, height, width) = main.norms(), main.shape
    left = int((~norms.broken).sum())
    alone = f"; the broken ones alone {norms.norm[norms.broken].mean():.4g}" if 0 < left < len(norms) else ""
    return "; ".join(
        text for text in (
            f"{NORMS[main.norm]} norm of {channels} x {height} x {width} values in [0, 1]",
            f"{len(norms):,} of {len(main.ids):,} images attacked{' and in the list' if main.listed else ''}",
            f"{left:,} unbroken, which count as {main.high:g}{alone}" if left else "all broken",
            _masking(main), "" if with_maps else "without people's maps: tolerance alone",
        ) if text
    )  # fmt: skip


def _masking(main: Attack) -> str:
    """How many images show what kind of sign that gradients mislead; "" where none does."""
    tried = main["tried"]
    blind, none = int((main["blind"] & tried).sum()), int((main["no_gradient"] & tried).sum())
    if not blind and not none:
        return ""
    return (
        f"signs of gradient masking: {blind:,} images also turned by a step without gradients, {none:,} without a "
        "gradient in some step"
    )


def _alignment(material: Material, reduction: str, main: Attack) -> list[Score | None]:
    """Whether broken images were changed where people look, and what the centre alone would give."""
    from alignet.evaluate.attack import REDUCTIONS
    from alignet.evaluate.where import centre_bias, mean_score

    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed}
    values, other = main[reduction], next(how for how in REDUCTIONS if how != reduction)
    having = np.zeros(len(main.ids), dtype=bool)
    having[main.mapped] = True
    both = having & main["broken"]
    lost, without = int(np.isnan(values[both]).sum()), int((main["broken"] & ~having).sum())
    note = "; ".join(text for text in (
        f"reduction: {REDUCTIONS[reduction]}", f"{int(main['broken'].sum()):,} broken images",
        f"{without:,} of them without a map" if without else "",
        f"{lost:,} with a constant map left out" if lost else "",
    ) if text)  # fmt: skip
    scores = [
        mean_score(values, "attack_alignment", material.dataset, note=note, **shared),
        mean_score(
            main[other], f"attack_alignment_{other}", material.dataset, note=f"reduction: {REDUCTIONS[other]}", **shared
        ),
    ]  # fmt: skip
    if len(main.mapped) < 2:
        return scores
    centre = np.full(len(main.ids), np.nan)
    centre[main.mapped] = centre_bias(np.stack(main.seen))
    centre[~np.isfinite(values)] = np.nan
    text = "Spearman of an image's map with the mean map of all other images, over the same broken images"
    over = "Spearman less that of the centre bias, of the same image"
    return [
        *scores,
        mean_score(centre, "attack_centre_bias", material.dataset, note=text, **shared),
        mean_score(values - centre, "attack_over_centre", material.dataset, note=over, **shared),
    ]


def _against(
    material: Material, reduction: str, main: Attack, name: str, other: Attack, *, with_maps: bool
) -> Iterator[Score | None]:
    """Another attack of the same images: its own values, and how it ranks images beside the first one."""
    from alignet.evaluate.item_correlation import correlation
    from alignet.evaluate.where import mean_score

    shared: dict[str, Any] = {"draws": material.bootstrap, "seed": material.seed}
    norms = other.norms()
    if not len(norms):
        raise ValueError(
            f"{material.dataset}: expected images that the network names right in the node {name}, found 0 of "
            f"{len(other.ids):,}; compute it of the same images."
        )
    yield mean_score(
        norms.norm,
        f"{name}_tolerance",
        material.dataset,
        chance=None,
        note=_note(other, with_maps=True),
        **shared,
    )
    if with_maps:
        yield mean_score(other[reduction], f"{name}_alignment", material.dataset, **shared)
    place = {one: row for row, one in enumerate(main.ids)}
    strange = [one for one in other.ids if one not in place]
    if strange:
        raise ValueError(
            f"{material.dataset}: expected the images of the node {MAIN} in {name}, found {len(strange):,} others, the "
            f"first {strange[0]}; attack the same images."
        )
    rows = np.array([place[one] for one in other.ids], dtype=np.int64)
    both = main["broken"][rows] & other["broken"]
    measures = {"against": (main["norm"][rows], other["norm"])}
    measures |= {"alignment_against": (main[reduction][rows], other[reduction])} if with_maps else {}
    for metric, (ours, theirs) in measures.items():
        found = correlation(
            np.where(both, ours, np.nan), np.where(both, theirs, np.nan), bootstrap=material.bootstrap,
            seed=material.seed,
        )  # fmt: skip
        if np.isfinite(found.rho):
            low, high = found.ends
            yield Score(
                f"{name}_{metric}", material.dataset, found.rho, low, high, found.n, "images",
                "" if low is None else "images", 0.0, note=found.note,
            )  # fmt: skip


def _share(material: Material, metric: str, values: np.ndarray, note: str) -> Score:
    """The share of true ones."""
    numbers = values.astype(np.float64)
    low, high = share_interval(numbers, mean_draws(numbers, draws=material.bootstrap, seed=material.seed))
    return Score(
        metric, material.dataset, float(numbers.mean()), low, high, len(values), "images", "images", note=note
    )


# ---- tables


def _attacks(every: Mapping[str, Attack]) -> dict[str, Any]:
    """The table `attacks`: what each node is, and how many images were tried, broken and show a sign of masking."""
    columns: dict[str, Any] = {
        "node": list(every), "norm": [one.norm for one in every.values()],
        "high": np.array([one.high for one in every.values()]),
        "height": np.array([one.shape[1] for one in every.values()]),
        "width": np.array([one.shape[2] for one in every.values()]),
        "images": np.array([len(one.ids) for one in every.values()]),
    }  # fmt: skip
    for name in ("tried", "broken", "broken8", "blind", "no_gradient"):
        columns[name] = np.array([int((one[name] & one["tried"]).sum()) for one in every.values()])
    masked = [int(((one["blind"] | one["no_gradient"]) & one["tried"]).sum()) for one in every.values()]
    return columns | {"masked": np.array(masked)}


def _images(main: Attack, others: Mapping[str, Attack]) -> dict[str, Any]:
    """The table `images`: norms are at most the largest one searched, and that where unbroken; NaN where not tried."""
    from alignet.evaluate.attack import REDUCTIONS

    columns: dict[str, Any] = {"id": main.ids} | {
        name: main[name] for name in ("label", "top1", "to", "tried", "broken", "broken8")
    }
    columns |= {
        "norm": main.everywhere(main.norms().norm), "rms": np.where(main["broken"], main["rms"], np.nan),
        "norm8": main.everywhere(main.norms("8").norm),
    }  # fmt: skip
    columns |= {how: main[how] for how in REDUCTIONS}
    for name, other in others.items():
        place = {one: row for row, one in enumerate(other.ids)}
        rows = np.array([place.get(one, -1) for one in main.ids], dtype=np.int64)
        of_other = {"norm": other.everywhere(other.norms().norm), **{how: other[how] for how in REDUCTIONS}}
        for column, values in of_other.items():
            columns[f"{name}_{column}"] = np.where(rows >= 0, values[rows], np.nan)
    return columns


def _survival(material: Material, main: Attack) -> dict[str, Any]:
    from alignet.evaluate.attack import survival

    found = survival(main.norms(), draws=material.bootstrap, seed=material.seed)
    return {"eps": found.eps, "share": found.share, "low": found.low, "high": found.high}
