"""Human triplets: which column holds the odd one out, where the indices start, what was seen in training; and
whether the objects they are about have images or features.

Shape suffixes: n triplets, m objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alignet.config import TripletsSet
from alignet.doctor.findings import Finding, fault, ok, warning
from alignet.doctor.sources import Sources

_SAMPLE = 100_000  # triplets that are answered from features
_ERRORS = 5.0  # standard errors that make a difference


def human_sets(sources: Sources) -> dict[str, str]:
    """Triplet sets about the object table -> what they are for: fitted or measured."""
    config = sources.config
    found: dict[str, str] = {}
    if config.vice is not None:
        found |= {name: "measured" for name in (config.vice.val,) if name}
        found |= {name: "fitted" for name in (config.vice.train,) if name}
    for dataset in config.evaluate.datasets.values():
        name = dataset.data.get("triplets")
        if name and "objects" in dataset.data:
            found.setdefault(name, "measured")
    for role, source in config.distill.sources.items():
        if f"distill[{role}]" in sources.graph and role not in config.distill.published:
            found[source.triplets] = "fitted"
    return {name: use for name, use in found.items() if f"index[{name}]" in sources.graph}


def check_indices(sources: Sources) -> Iterator[Finding]:
    """Do the triplets count all objects of the table, or do they look shifted by one?"""
    m = sources.objects().number
    for name in human_sets(sources):
        triplets = sources.read(name)
        if triplets is None or not m:
            continue
        used = np.unique(triplets)
        about = f"data.sets.{name}"
        if used[0] == 1 and len(used) == m - 1:
            yield warning(
                about, f"every object but the first, number 0 of {m:,}, is in some triplet",
                "If the file counts from 1 and the table has a row too many, set index_base=1",
            )  # fmt: skip
        else:
            yield ok(about, f"triplets are about {len(used):,} of {m:,} objects")


def check_overlap(sources: Sources) -> Iterator[Finding]:
    """Were the same three objects asked about in training and in a measurement, more often than by chance?"""
    uses = human_sets(sources)
    m = sources.objects().number
    for measured in (name for name, use in uses.items() if use == "measured"):
        for fitted in (name for name, use in uses.items() if use == "fitted"):
            train, test = sources.read(fitted), sources.read(measured)
            if train is None or test is None:
                continue
            share, chance = overlap(train, test, max(m, int(train.max()) + 1, int(test.max()) + 1))
            said = f"{share:.1%} of its triplets show three objects that {fitted} asks about too"
            error = math.sqrt(chance * (1 - chance) / len(test))
            if share > 0.9 and chance < 0.5:
                yield fault(
                    f"data.sets.{measured}",
                    said,
                    "It measures what was fitted: give choices that were held out",
                )
            elif share > chance + _ERRORS * error + 0.01:
                yield warning(f"data.sets.{measured}", f"{said}; by chance it would be {chance:.1%}")
            else:
                yield ok(f"data.sets.{measured}", f"{said} (by chance {chance:.1%})")


def overlap(train: np.ndarray, test: np.ndarray, m: int) -> tuple[float, float]:
    """Share of the test triplets whose three objects form a training triplet, and what chance would give.

    Chance: both drawn at random among the objects that occur in both.
    """
    known = np.unique(_keys(train, m))
    asked = _keys(test, m)
    share = float(np.isin(asked, known).mean())
    both = np.intersect1d(train, test)
    inside = np.isin(train, both).all(1), np.isin(test, both).all(1)
    possible = math.comb(len(both), 3)
    chance = inside[1].mean() * (1 - math.exp(-int(inside[0].sum()) / possible)) if possible else 0.0
    return share, float(chance)


def _keys(triplets: np.ndarray, m: int) -> np.ndarray:
    low, middle, high = np.sort(triplets, axis=1).astype(np.int64).T
    return (low * m + middle) * m + high


@dataclass(frozen=True)
class Fit:
    """How often features find the object of each column the odd one out, over n triplets."""

    shares: tuple[float, float, float]  # of last, middle, first
    expected: tuple[float, float, float]  # the same if choices knew nothing of the features
    n: int
    by: str  # whose features

    @property
    def lifts(self) -> tuple[float, float, float]:
        """By how much each share is above what is expected."""
        return tuple(share - guess for share, guess in zip(self.shares, self.expected))  # type: ignore[return-value]


def check_convention(sources: Sources) -> Iterator[Finding]:
    """Which column do features of the objects find the odd one, and is it the declared one?"""
    for name in human_sets(sources):
        one, triplets = sources.config.data.sets[name], sources.read(name)
        if not isinstance(one, TripletsSet) or triplets is None:
            continue
        fit = best_fit(sources, triplets)
        if fit is not None:
            yield judge(name, one, fit)


def best_fit(sources: Sources, triplets: np.ndarray) -> Fit | None:
    """The fit of the features that say most about some column; None without any features."""
    fits = [fit for fit in (_fit(triplets, *known) for known in known_features(sources)) if fit is not None]
    return max(fits, key=lambda fit: max(fit.lifts), default=None)


def known_features(sources: Sources) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Features (rows, p), the row of each object (m,) or -1, and what they are."""
    from alignet.data.triplets import rows_of_objects

    for role, source in sources.config.distill.sources.items():
        key = f"embed[{role}.{source.images}]"
        names, found = sources.object_names(source.images), None
        if key in sources.graph:
            found = sources.cached_features(key)
        if names is None or found is None:
            continue
        values, ids = found
        yield (
            values - values.mean(0),
            rows_of_objects(names, ids),
            f"the {role}'s features of {source.images}",
        )
    vice = sources.config.vice
    if (
        vice is not None
        and vice.published is not None
        and (known := sources.read(vice.published)) is not None
    ):
        numbered = sources.numbering(vice.published_order)
        rows = np.arange(len(known[0])) if numbered is None else np.argsort(numbered)
        yield np.maximum(known[0], 0), rows, f"the embedding {vice.published}"


def _fit(triplets: np.ndarray, features: np.ndarray, rows: np.ndarray, by: str) -> Fit | None:
    if triplets.max() >= len(rows):
        return None
    triplets = triplets[(rows[triplets] >= 0).all(1)]
    if len(triplets) < 100:
        return None
    triplets = triplets[:: math.ceil(len(triplets) / _SAMPLE)]
    placed = rows[triplets]
    alike = dot_products(features, placed).argmax(1)
    shares = tuple(float((alike == pair).mean()) for pair in range(3))
    return Fit(shares, by_index_alone(triplets, 2 - alike), len(placed), by)  # type: ignore[arg-type]


def dot_products(features: np.ndarray, triplets: np.ndarray) -> np.ndarray:
    """[s01, s02, s12] of triplets (n, 3) of rows of features (m, p): float32 (n, 3)."""
    import torch

    from alignet.triplets import similarities

    return similarities(torch.from_numpy(features.astype(np.float32)), torch.from_numpy(triplets)).numpy()


def by_index_alone(triplets: np.ndarray, odd: np.ndarray) -> tuple[float, float, float]:
    """How often `odd` (n,), a column of each triplet, would be the last, middle, first if the order of the columns of
    each question were that of another one.

    Files whose pairs ascend tie columns to indices, and features often drift with the index (objects are listed by
    category); with that alone a column can be right in more than a third of the triplets.
    """
    ranks = triplets.argsort(1).argsort(1)  # of each column's object among the three of its question
    said = np.bincount(np.take_along_axis(ranks, odd[:, None], 1)[:, 0], minlength=3) / len(odd)
    return tuple(float(said[ranks[:, column]].mean()) for column in (2, 1, 0))  # type: ignore[return-value]


def judge(name: str, one: TripletsSet, fit: Fit) -> Finding:
    """A fault where the declared column is no better than guessing and another is; a warning where one is better."""
    best = fit.lifts.index(max(fit.lifts))
    declared, lift = fit.shares[0], fit.lifts[0]  # as loaded, the declared odd one stands last
    error = math.sqrt(fit.shares[best] * (1 - fit.shares[best]) / fit.n)
    found = (
        f"by {fit.by}, the declared odd one ({one.odd_one}) is right in {declared:.1%} of {fit.n:,} triplets "
        f"(guessing: {fit.expected[0]:.1%})"
    )
    if fit.lifts[best] <= lift + _ERRORS * error:
        return ok(f"data.sets.{name}", f"{found}, and no other column says more")
    other = original_place(one.odd_one, best)
    found += f", but the {other} column in {fit.shares[best]:.1%} (guessing: {fit.expected[best]:.1%})"
    fix = f"If so, set data.sets.{name}.odd_one={other}"
    if lift <= _ERRORS * error:
        return fault(f"data.sets.{name}", found, fix)
    return warning(f"data.sets.{name}", found, fix)


def original_place(declared: str, pair: int) -> str:
    """Which column of the file it is whose object is left out of a pair [01, 02, 12] of the loaded triplets."""
    orders = {"last": (0, 1, 2), "first": (1, 2, 0), "middle": (0, 2, 1)}
    order = orders.get(declared, (0, 1, 2))  # a table names the choice; its columns keep their order
    return ("first", "middle", "last")[order[(2, 1, 0)[pair]]]


def check_objects(sources: Sources) -> Iterator[Finding]:
    """How many of the objects have an image (or a row of features), and how many triplets that leaves."""
    from alignet.data.triplets import restrict, rows_of_objects

    for images, triplet_sets in _used_together(sources).items():
        about = f"data.object_ids.{images}"
        naming = sources.config.data.object_ids.get(images)
        if naming is None:
            yield fault(
                about, "not set, though triplets of objects are asked of this set", "Say {column, prefix}"
            )
            continue
        from alignet.data.concepts import COLUMNS

        if naming.column not in COLUMNS:
            yield fault(about, f"expected a column out of {', '.join(COLUMNS)}, found {naming.column!r}")
            continue
        names, ids = sources.object_names(images), sources.set_ids(images)
        if names is None or ids is None:
            continue
        rows = rows_of_objects(names, ids)
        there = int((rows >= 0).sum())
        lost = [name for name, row in zip(names, rows, strict=True) if name and row < 0]
        said = f"{there:,} of {len(names):,} objects are in {images}"
        if lost:
            said += f"; named but not there: {', '.join(lost[:3])}{', ...' if len(lost) > 3 else ''} ({len(lost):,})"
        if not there:
            yield fault(about, f"{said}, which has ids such as {ids[0]!r}", "Check the column and the prefix")
            continue
        yield ok(about, said)
        for name in triplet_sets:
            triplets = sources.read(name)
            if triplets is None or triplets.max() >= len(rows):
                continue
            kept = restrict(triplets, rows)
            share = f"{len(kept.triplets):,} of {len(triplets):,} triplets lie wholly among them"
            about_set, said = f"data.sets.{name}", f"{share} ({images})"
            if not len(kept.triplets):
                yield fault(about_set, said, "Add the images, or take other triplets")
            else:
                yield (
                    warning(about_set, f"{said}; the others are left out")
                    if kept.dropped
                    else ok(about_set, said)
                )


def _used_together(sources: Sources) -> dict[str, list[str]]:
    """Image sets -> the triplets of objects that are asked of them."""
    found: dict[str, list[str]] = {}
    for role, source in sources.config.distill.sources.items():
        if f"distill[{role}]" in sources.graph and role not in sources.config.distill.published:
            found.setdefault(source.images, []).append(source.triplets)
    for dataset in sources.config.evaluate.datasets.values():
        if "objects" in dataset.data and "test" in dataset.images and dataset.data.get("triplets"):
            found.setdefault(dataset.images["test"], []).append(dataset.data["triplets"])
    return {images: list(dict.fromkeys(names)) for images, names in found.items()}


def check_rows(sources: Sources) -> Iterator[Finding]:
    """Has every image of a set its row in the precomputed features, and in the table that labels it?"""
    from alignet.data.features import rows_for

    for node in sources.graph.values():
        if node.stage != "embed" or "images" not in node.inputs or "features" not in node.inputs:
            continue
        images, features = (sources.graph[node.inputs[part]].role for part in ("images", "features"))
        ids, held = sources.read(images), sources.read(features)
        if ids is None or held is None:
            continue
        about = f"data.sets.{features}"
        try:
            rows_for(ids, held.ids, str(sources.path(features)))
        except ValueError as error:
            yield fault(about, f"{images}: {error}", "The ids are the images' paths below the set's folder")
        else:
            yield ok(about, f"a row for each of {len(ids):,} images of {images}")
    yield from _check_labels(sources)


def _check_labels(sources: Sources) -> Iterator[Finding]:
    from alignet.data.tables import column_for

    report, config = sources.config.report, sources.config
    asked = [(data.images.get(part), data.data.get(f"{part}_labels"), "id", "", data.options.get("label"))
             for data in config.evaluate.datasets.values() for part in ("train", "test")
             if "several" not in data.options]  # fmt: skip
    if report.picture_images and report.picture_labels:
        naming = (report.picture_images, report.picture_labels, report.id_column, report.id_prefix)
        asked += [(*naming, column) for column in (report.concept_column, report.category_column)]
    columns: dict[
        tuple[str, str, str, str], dict[str, None]
    ] = {}  # images, table, how ids are named -> columns
    for images, table, key, prefix, wanted in asked:
        if images in config.data.sets and table in config.data.sets and wanted:
            columns.setdefault((str(images), str(table), key, prefix), {})[wanted] = None
    for (images, table, key, prefix), every in columns.items():
        ids, path = sources.read(images), sources.path(table)
        if ids is None or path is None or sources.read(table) is None:
            continue
        found = []
        for wanted in every:
            try:
                column_for(path, ids, wanted, id_column=key, id_prefix=prefix)
            except ValueError as error:
                yield fault(f"data.sets.{table}", f"{images}: {error}")
            else:
                found.append(wanted)
        if found:
            yield ok(f"data.sets.{table}", f"{', '.join(found)} of each of {len(ids):,} images of {images}")
