"""Tests between attacked networks: on the same images, over networks, and between two groups of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignet.evaluate.result import Result
from alignet.report import network_tables
from alignet.report.attack_networks_given import Given
from alignet.report.attack_values import Measure, alignments, nodes_of, tolerances
from alignet.report.blocks import Block, Cell, Table, Text
from alignet.report.formatting import p_text, spread
from alignet.report.network_tables import score_of

CORRELATED = 4  # networks from which on measures are correlated over them
SEED, DRAWS = (
    0,
    1000,
)  # of random sign-flips, splits and permutations; resamples behind intervals over networks


def between_networks(given: Given, networks: Mapping[str, Result], how: Measure) -> Block | None:
    """Pairs of networks on the images that both have: all pairs, or those of arrows; None for one network."""
    aligned = "; of alignment over those that both were broken on" if given.maps else ""
    return network_tables.between_networks(
        given.arrows, list(networks),
        {how.title: tolerances(networks, how.metric, how.scale),
         "alignment": alignments(networks, str(given.options["reduction"]))},
        "The change from one network to another on the same images: of tolerance over the images that both were "
        f"attacked on; tolerances are cut at the smallest of all networks' largest norms{aligned}",
    )  # fmt: skip


def over_networks(given: Given, networks: Mapping[str, Result], how: Measure) -> Table | None:
    """Rank correlations of measures over networks; None for fewer than CORRELATED."""
    from alignet.evaluate.item_correlation import correlation, permuted

    if len(networks) < CORRELATED:
        return None
    pairs = [
        ("accuracy", how.metric, "accuracy", how.short), ("accuracy", "attack_alignment", "accuracy", "alignment"),
        (how.metric, "attack_alignment", how.short, "alignment"),
    ]  # fmt: skip
    first, *others = given.methods
    by_rms: set[str] = set()  # l2 tolerances by further methods, which resolutions do not share
    for name in others:
        rms = how.differ and any(_norm(result, name) == "l2" for result in networks.values())
        by_rms |= {f"{name}_tolerance"} if rms else set()
        pairs += [
            (
                how.metric,
                f"{name}_tolerance",
                f"{how.short} by {first}",
                f"{'RMS pixel change' if rms else 'tolerance'} by {name}",
            ),
            ("attack_alignment", f"{name}_alignment", f"alignment by {first}", f"alignment by {name}"),
        ]
    lines: list[list[Cell | str]] = []
    for one, other, first_title, second_title in pairs:
        values = [
            (
                a.value,
                b.value / _sides(result, other.removesuffix("_tolerance")) if other in by_rms else b.value,
            )
            for result in networks.values()
            if (a := score_of(result, one)) is not None and (b := score_of(result, other)) is not None
        ]
        if len(values) < CORRELATED:
            continue
        x, y = np.array(values).T
        found = correlation(x, y, bootstrap=DRAWS, seed=SEED)
        if np.isfinite(found.rho):
            p, exact = permuted(x, y, seed=SEED)
            lines.append([
                first_title, second_title, Cell(f"{found.n:,}", found.n),
                spread(found.rho, *found.ends, digits=2), Cell(f"{p_text(p)}{'' if exact else ' (drawn)'}", p),
            ])  # fmt: skip
    if not lines:
        return None
    least = f" Of {CORRELATED} networks no p below {2 / 24:.2g} is possible." if len(networks) == 4 else ""
    return Table(
        "over_networks", "Over networks", ["", "against", "networks", "Spearman's rho", "p"], lines,
        "Rank correlations of networks' scores, with 95% intervals over networks and a two-sided permutation test. "
        "Networks are not a random sample and related ones are not independent, so p may be too small. p is not "
        f"corrected for the number of tests.{least}",
    )  # fmt: skip


def _norm(result: Result, node: str) -> str:
    """The norm of a node's attack; "" where the network has no such node."""
    found = nodes_of(result.tables["attacks"]).get(node)
    return str(found["norm"]) if found is not None else ""


def _sides(result: Result, node: str) -> float:
    """sqrt(3 H W), by which an l2 norm is a root mean square."""
    found = nodes_of(result.tables["attacks"])[node]
    return float(np.sqrt(3 * found["height"] * found["width"]))


def between_groups(given: Given, networks: Mapping[str, Result], how: Measure) -> Block | None:
    """Two groups of networks in tolerance and alignment; None without two, a sentence where one is below 2."""
    from alignet.evaluate.attack import group_test

    groups = {
        name: [one for one in members if one in networks] for name, members in given.groups.items() if members
    }
    if len(groups) != 2:
        return None
    (first, a), (second, b) = groups.items()
    if min(len(a), len(b)) < 2:
        return Text(
            f"{first} ({len(a)}) and {second} ({len(b)}) are not tested against each other: a group needs two networks."
        )
    lines: list[list[Cell | str]] = []
    notes: list[str] = []
    for title, metric, scale in ((how.title, how.metric, how.scale), ("alignment", "attack_alignment", 1)):
        found = [
            [
                scale * score.value
                for name in members
                if (score := score_of(networks[name], metric)) is not None
            ]
            for members in (a, b)
        ]
        if min(map(len, found)) < 2:
            continue
        test = group_test(*found, seed=SEED)
        means = [float(np.mean(values)) for values in found]
        lines.append([
            title, *(Cell(f"{mean:.3f} ({len(values)})", mean) for mean, values in zip(means, found, strict=True)),
            Cell(f"{test.difference:+.3f}", test.difference),
            Cell(f"{p_text(test.p)}{'' if test.exact else ' (drawn)'}", test.p),
        ])  # fmt: skip
        notes += [f"{title}: {test.note}"] if test.note else []
    if not lines:
        return None
    seem = " Kinds are guessed from attention blocks; groups= sets others." if given.guessed else ""
    return Table(
        "groups_of_networks", f"{first} against {second}", ["", first, second, "difference", "p"], lines,
        "Mean over the networks of each group (their number), and a two-sided permutation test of the difference over "
        f"all ways to split the networks so, or random ones where they are many; a network is one value.{seem}",
        notes=notes,
    )  # fmt: skip
