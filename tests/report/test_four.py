"""The four systems on one page: planted correlations, changes and compromises come back, and vanish when shuffled."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr

from alignet.evaluate.result import Result
from alignet.pipeline.cli import load
from alignet.pipeline.graph import build_graph
from alignet.report.blocks import DARK, LIGHT, Cell, Figure, Section, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.four import TITLE, blocks, four, told
from alignet.report.four_changes import Change, changes, changes_table, pairs_of
from alignet.report.four_correlations import DRAWS, SEED, Pair, correlations, correlations_table, heat_map
from alignet.report.four_figures import parallel, scaled
from alignet.report.four_measures import Board, board, reasons
from alignet.report.four_networks import compared, page
from alignet.report.four_sentences import (
    best_compromise,
    compromise,
    cost,
    sentences,
    together,
    trade_offs,
    training,
)
from alignet.report.network_points import Network
from alignet.report.page import Page, write_page
from alignet.report.summary import Summary
from tests.makers.four_scores import alike, gathered, iri_table, score

ROWS = ("original", "distillation", "alignet", "harmonized", "alignet-harmonized", "alignet-and-harmonized",
        "robust-l2", "robust-linf")  # fmt: skip
INGREDIENTS = (  # roles of experiment=ingredients, all of which begin with new weights
    "standard", "standard-strong", "adversarial-none", "adversarial", "trades-1", "trades-6", "mart-6", "simclr",
    "simclr-no-colour", "simclr-adversarial",
)  # fmt: skip
METRICS = ("odd_one_out", "where", "tolerance", "two", "linear_probe")


def given(*orders: list[float], rows: tuple[str, ...] = ROWS, half: float | None = 0.01, **more) -> Board:
    found = board(gathered(alike(METRICS[: len(orders)], rows, orders), half, **more))
    assert found is not None
    return found


def pair(found: Board, first: str, second: str) -> Pair:
    return next(
        one
        for one in correlations(found)[0]
        if (one.first.measure.key, one.second.measure.key) == (first, second)
    )


def changed(found: Board, setting: str, key: str) -> Change:
    every = changes(found, pairs_of(found.rows))
    return next(one for one in every if (one.end.setting, one.column.measure.key) == (setting, key))


def texts(table: Table | None) -> dict[str, list[str]]:
    assert table is not None
    return {
        str(line[0]): [one.text if isinstance(one, Cell) else one for one in line[1:]] for line in table.rows
    }


UP = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def test_a_planted_correlation_returns() -> None:
    found = given(UP, [2 * one**3 for one in UP], [1 - one for one in UP])
    assert pair(found, "odd_one_out", "where").rho == pytest.approx(1)
    assert pair(found, "odd_one_out", "tolerance").rho == pytest.approx(-1)
    every, notes = correlations(found)
    assert [one.n for one in every] == [8, 8, 8]
    assert all(one.p < 0.001 and one.adjusted < 0.01 for one in every)
    assert not notes
    said = together(found, every)
    assert "1 with rho above 0 and p below .05" in said
    assert "odd-one-out accuracy and saliency as people's maps (rho 1.00" in said
    assert "2 with rho below 0 and p below .05" in trade_offs(every)


def test_rho_is_scipys_with_ties_and_missing_values() -> None:
    x = [0.1, 0.1, 0.3, 0.4, 0.4, 0.4, 0.7, math.nan]
    y = [0.5, 0.2, 0.2, math.nan, 0.9, 0.1, 0.3, 0.6]
    found = given(x, y, UP)
    both = [place for place in range(8) if not math.isnan(x[place]) and not math.isnan(y[place])]
    one = pair(found, "odd_one_out", "where")
    assert one.n == len(both) == 6
    assert one.rho == pytest.approx(spearmanr([x[at] for at in both], [y[at] for at in both]).statistic)
    assert one.exact


def test_intervals_and_drawn_p_are_those_of_another_implementation() -> None:
    """Scipy's rho of the same resamples, and its permutations, which are drawn otherwise."""
    generator = np.random.default_rng(5)
    x = generator.random(8)
    y = x + generator.normal(0, 0.3, 8)
    found = given(list(x), list(y))
    one = pair(found, "odd_one_out", "where")
    values = found.matrix()
    resamples = np.random.default_rng(SEED).integers(8, size=(DRAWS, 8))
    rhos = [spearmanr(*values[rows].T).statistic for rows in resamples if len(set(rows)) > 1]
    low, high = np.quantile(rhos, [0.025, 0.975])
    theirs = permutation_test(
        (values[:, 1],), lambda own: spearmanr(values[:, 0], own).statistic, permutation_type="pairings",
        n_resamples=2000, random_state=1,
    )  # fmt: skip
    assert one.rho == pytest.approx(theirs.statistic)
    assert (one.low, one.high) == (pytest.approx(low), pytest.approx(high))
    assert one.p == pytest.approx(theirs.pvalue, abs=0.02)
    assert not one.exact


def test_shuffled_rows_have_no_correlation(monkeypatch) -> None:
    """Over shufflings rho is around 0, and pairs below .05 after adjustment are as rare as they should be."""
    monkeypatch.setattr("alignet.report.four_correlations.DRAWS", 5)  # no interval is looked at
    generator, rhos, hits = np.random.default_rng(0), [], 0
    rows = ROWS[:6]  # whose orders are all counted
    for _ in range(40):
        found = given(*(list(generator.permutation(UP[:6])) for _ in range(3)), rows=rows)
        every, _ = correlations(found)
        rhos += [one.rho for one in every]
        hits += any(one.adjusted < 0.05 for one in every)
    assert abs(np.mean(rhos)) < 0.1
    assert hits <= 6  # at most .05 of 40 in the mean; binomial(40, .05) is above 6 in 0.1%


def test_the_exact_p_of_a_few_rows() -> None:
    found = given(UP[:5], UP[:5], rows=ROWS[:5])
    one = pair(found, "odd_one_out", "where")
    assert one.p == pytest.approx(2 / math.factorial(5))
    assert one.exact


def test_too_few_rows_have_no_correlation() -> None:
    found = given(UP[:2], UP[:2], UP[:2], rows=ROWS[:2])
    every, notes = correlations(found)
    assert every == []
    assert "fewer than 4 rows have both" in notes[0]
    assert "odd-one-out accuracy and saliency as people's maps (2)" in notes[0]
    assert "cannot be said" in together(found, every)
    assert "2 rows" in together(found, every)
    assert "cannot be said" in trade_offs(every)
    assert correlations_table(every, notes) is None
    assert heat_map(every, found) is None


def test_where_no_p_below_05_is_possible_it_is_said() -> None:
    found = given(UP[:4], UP[:4], UP[:4], rows=ROWS[:4])
    table = correlations_table(*correlations(found))
    assert table is not None
    assert "no adjusted p below .05 is possible" in table.caption
    more = correlations_table(*correlations(given(UP, UP, UP)))
    assert more is not None
    assert "is possible" not in more.caption


def test_a_measure_that_all_rows_share_is_named() -> None:
    found = given([0.5] * 8, UP, UP[::-1])
    every, notes = correlations(found)
    assert len(every) == 1
    assert any("the same value in all rows" in note and "odd-one-out accuracy" in note for note in notes)


def test_changes_by_intervals() -> None:
    found = given([0.5, 0.5, 0.9, 0.505, 0.5, 0.5, 0.5, 0.1], UP)
    assert changed(found, "alignet", "odd_one_out").verdict == "better"
    assert changed(found, "robust-linf", "odd_one_out").verdict == "worse"
    assert changed(found, "harmonized", "odd_one_out").verdict == ""
    assert changed(found, "alignet", "odd_one_out").number == "+40.0"
    without = changed(given([0.5] * 7 + [0.1], UP, half=None), "robust-linf", "odd_one_out")
    assert without.shown is None
    assert texts(changes_table(found, changes(found, pairs_of(found.rows))))["AligNet"][0] == "+40.0 better"
    bare = given(UP, UP, half=None)
    table = changes_table(bare, changes(bare, pairs_of(bare.rows)))
    assert texts(table)["AligNet"][0] == "+20.0 ?"


def iris(shift: float, seed: int, n: int = 40) -> dict[str, list[float]]:
    """2AFC of two IRIs of each image: a difficulty that images share, and a shift of all of them."""
    hard = np.random.default_rng(1).random(n)
    draws = np.random.default_rng(seed).normal(0, 0.02, (n, 2))
    return {f"{row}.png": list(hard[row] + shift + draws[row]) for row in range(n)}


def test_changes_on_the_same_images_are_found_where_intervals_overlap() -> None:
    """A small change of every image: intervals over images, as wide as images differ, do not tell; pairs do."""
    values = alike(
        ("where", "two"), ("original", "harmonized", "alignet"), [[0.4, 0.6, 0.5], [0.5, 0.53, 0.5]]
    )
    tables = {"invariance": {
        name: {"images": iri_table(iris(shift, seed))}
        for name, shift, seed in (("original", 0, 2), ("harmonized", 0.03, 3), ("alignet", 0, 4))
    }}  # fmt: skip
    found = board(gathered(values, 0.1, tables))
    assert found is not None
    one = changed(found, "harmonized", "two")
    assert one.verdict == "better"
    assert one.n == 40
    assert one.difference == pytest.approx(0.03, abs=0.01)
    assert changed(found, "alignet", "two").verdict == ""
    table = changes_table(found, changes(found, pairs_of(found.rows)))
    assert table is not None
    assert "is possible" not in table.caption
    few = {name: {"images": iri_table(iris(0, 2, 5))} for name in ("original", "harmonized", "alignet")}
    small = board(gathered(values, 0.1, {"invariance": few}))
    assert small is not None
    table = changes_table(small, changes(small, pairs_of(small.rows)))
    assert table is not None
    assert "With 5 images and 2 tests no adjusted p below" in table.caption
    other = board(gathered(values, 0.1))  # without values of images
    assert other is not None
    assert changed(other, "harmonized", "two").verdict == ""


def test_the_sentence_on_training_names_what_moved() -> None:
    start, up = 0.5, 0.8
    found = given(
        [start, start, up, start, up, up, 0.2, start], [start, start, up, up, up, up, start, start],
        [start, start, start, start, start, start, up, up],
    )  # fmt: skip
    said = training(changes(found, pairs_of(found.rows)))
    assert "AligNet: better saliency as people's maps (+0.30), no difference shown in 1" in said
    assert "robust (l2): worse odd-one-out accuracy (-30.0), no difference shown in 1" in said
    assert "robust (l-inf): no difference shown in 2" in said
    assert changed(found, "alignet", "odd_one_out").verdict == "better"
    assert "better odd-one-out accuracy" not in said  # which AligNet trains for
    assert "worse odd-one-out accuracy" in said.split("robust (l2): ")[1].split(";")[0]
    assert said.endswith("Controls: no difference is shown in 3 comparisons.")
    same = given([0.5] * 8, [0.5] * 8)
    assert "no difference is shown in any" in training(changes(same, pairs_of(same.rows)))
    assert "cannot be said" in training([])


def test_roles_with_new_weights_are_less_no_row() -> None:
    """A training that began with new weights did not begin as the original, so nothing is said of a change."""
    rows = ("original", "alignet", "trades-6", "trades-6@50")
    values = gathered(alike(METRICS[:2], rows, [[0.5, 0.9, 0.9, 0.9]] * 2))
    found = board(values)
    assert found is not None
    assert [end.setting for _, end in pairs_of(found.rows)] == list(rows[1:])
    fresh = ("trades-6",)
    assert [end.setting for _, end in pairs_of(found.rows, fresh)] == ["alignet"]
    made = four(values, None, fresh)
    table = next(one for one in made if isinstance(one, Table) and one.name == "four_changes")
    assert list(texts(table)) == ["AligNet"]
    said = "began with new weights, so that no row is where it began: TRADES, beta 6; TRADES, beta 6, step 50"
    assert list(table.notes) == [said]
    assert "TRADES" not in made[0].text
    before = next(one for one in four(values) if isinstance(one, Table) and one.name == "four_changes")
    assert not before.notes
    assert build_graph(load(["experiment=ingredients"]))["report"].section["fresh"] == sorted(INGREDIENTS)
    assert "fresh" not in build_graph(load(["experiment=attack"]))["report"].section


def test_images_that_a_measure_is_over_decide_on_the_warning() -> None:
    """Of 100 images 8 were inverted: the page says so, and that 8 are few."""
    values = gathered(alike(METRICS[1:4], ROWS[:3], [UP[:3]] * 3))
    few = next(one for one in values if one.family == "invariance")
    results = {
        row: Result([replace(one, n=8) for one in result.scores]) for row, result in few.results.items()
    }
    named = [
        replace(one, results={Network(row.setting): result for row, result in one.results.items()})
        for one in (*(other for other in values if other is not few), replace(few, results=results))
    ]
    shared = {"images": "photos", "maps": "", "networks": {}, "pages": {}}
    one = page(compared(named, [], {}, count=100, inverted=8, **shared))
    assert "100 images of `photos`, 8 inverted" in one.subtitle
    assert one.warning.startswith("Only 8 images counted in 2AFC by distances: with so few")
    rest = [replace(other, results={row: Result([replace(score, n=100) for score in result.scores])
                                    for row, result in other.results.items()}) for other in named]  # fmt: skip
    whole = page(compared(rest, [], {}, count=100, inverted=100, **shared))
    assert whole.warning == ""
    assert "inverted" not in whole.subtitle


def test_the_cost_is_of_accuracy_alone() -> None:
    found = given(UP, UP, UP, UP, [0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9])
    said = cost(found, changes(found, pairs_of(found.rows)))
    assert "linear probe falls: AligNet 90.0 to 10.0; no difference shown in 5" in said
    same = given(UP, UP, UP, UP, [0.9, 0.9, 0.897, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert "no difference is shown; the lowest is AligNet, -0.3 points" in cost(
        same, changes(same, pairs_of(same.rows))
    )
    assert "no accuracy was measured" in cost(given(UP, UP), [])


def test_the_best_compromise() -> None:
    found = given(
        [0.1, 0.2, 0.9, 0.2, 0.8, 0.8, 0.2, 0.1], [0.1, 0.1, 0.2, 0.9, 0.8, 0.8, 0.2, 0.1],
        [0.2, 0.2, 0.1, 0.1, 0.7, 0.7, 0.9, 0.9],
    )  # fmt: skip
    best = best_compromise(found)
    assert best is not None
    assert best.places[0][0].setting == "alignet-harmonized"  # the first of two that are equal
    expected = np.mean([(0.8 - 0.1) / 0.8, (0.8 - 0.1) / 0.8, (0.7 - 0.1) / 0.8])
    assert best.places[0][1] == pytest.approx(expected)
    assert best.measures == best.stable == 3
    assert {row.setting for row in best.unbeaten} == {
        "alignet", "harmonized", "alignet-harmonized", "alignet-and-harmonized", "robust-l2"
    }  # fmt: skip
    assert "AligNet, then Harmonizer, 0.83" in compromise(found)


def test_a_compromise_is_among_rows_that_have_all_measures() -> None:
    found = given([math.nan, *UP[1:]], UP, [*UP[:6], math.nan, 0.8], [0.9, 0.1, *[math.nan] * 6])
    best = best_compromise(found)
    assert best is not None
    assert best.measures == 3  # not the one that two of eight rows have
    assert {row.setting for row, _ in best.places} == set(ROWS) - {"original", "robust-l2"}
    first, *_ = best.places
    assert first[0].setting == "robust-linf"
    assert best_compromise(given([0.1, math.nan, 0.2], [math.nan, 0.2, 0.3], rows=ROWS[:3])) is None
    assert "fewer than two rows" in compromise(
        given([0.1, math.nan, 0.2], [math.nan, 0.2, 0.3], rows=ROWS[:3])
    )


def test_two_systems_are_needed() -> None:
    one = alike(("odd_one_out", "linear_probe"), ROWS, [UP, UP])
    assert four(gathered(one)) == []
    assert (
        four(gathered({**one, "where": {"original": 0.4}})) == []
    )  # a measure of a single row compares nothing
    assert four(gathered({**one, "where": {"original": 0.4, "alignet": 0.5}})) != []
    assert four([]) == []


def test_teachers_and_baselines_are_no_rows_and_nan_is_no_value() -> None:
    values = alike(METRICS[:2], ROWS, [UP, UP])
    values["odd_one_out"] |= {"teacher original": 0.9, "baseline pixels": 0.3, "data data": 0.2}
    values["where"]["original"] = math.nan
    found = board(gathered(values))
    assert found is not None
    assert {row.setting for row in found.rows} == set(ROWS)
    assert len(found.rows) == len(ROWS)
    assert math.isnan(found.matrix()[[row.setting for row in found.rows].index("original"), 1])


def test_the_headline_is_the_data_set_of_choices() -> None:
    values = gathered(alike(METRICS[:2], ROWS, [UP, UP]))
    other = Gathered("report", "odd_one_out", {}, {
        row: Result([replace(score("odd_one_out", 0.3), dataset="report")]) for row in list(values[0].results)[:2]
    })  # fmt: skip
    first, second = (board([*values, other], headline) for headline in (None, "report"))
    assert first is not None
    assert second is not None
    assert (first.columns[0].dataset, second.columns[0].dataset) == ("all", "report")
    assert second.unused == {"odd-one-out accuracy, %": ["all"]}


def test_empty_cells_have_a_reason() -> None:
    values = alike(("odd_one_out", "where", "two"), ("original", "alignet"), [[0.1, 0.2]] * 3)
    values["odd_one_out"] |= {"ud": 0.3}
    values["two"]["alignet"] = math.nan
    found = board(gathered(values))
    assert found is not None
    said = "; ".join(reasons(found, {}))
    assert "UD: no saliency as people's maps, rho; 2AFC by distances, % (a map of features" in said
    assert "AligNet: no 2AFC by distances, % (measured on `invariance`, but without a value)" in said
    assert reasons(found, {"UD": "no classifier"})[0] == "UD: no classifier"


def test_iris_that_do_not_match_are_named() -> None:
    values = gathered(alike(("odd_one_out", "two"), ROWS, [UP, UP]))
    one = next(one for one in values if one.family == "invariance")
    row = Row("student", "alignet")
    part = replace(score("two", 0.8), metric="matched")
    results = dict(one.results) | {row: Result([*one.results[row].scores, part])}
    found = board([*(other for other in values if other is not one), replace(one, results=results)])
    assert found is not None
    assert "represented like its target: AligNet 80%" in found.notes[0]


def test_rows_over_few_images_are_named() -> None:
    values = gathered(alike(("odd_one_out", "tolerance"), ROWS, [UP, UP]))
    one = next(one for one in values if one.family == "attack")
    row = Row("student", "alignet")
    results = dict(one.results) | {row: Result([replace(score("tolerance", 0.8), n=12)])}
    table = four([*(other for other in values if other is not one), replace(one, results=results)])[5]
    assert isinstance(table, Table)
    assert "perturbation tolerance: over fewer images than others' 100: AligNet 12" in table.notes
    same = four(values)[5]
    assert isinstance(same, Table)
    assert not any("over fewer" in note for note in same.notes)


def test_places_between_worst_and_best() -> None:
    values = np.array([[1.0, 5.0, np.nan], [3.0, 5.0, 2.0], [2.0, np.nan, 4.0]])
    expected = np.array([[0, 0.5, np.nan], [1, 0.5, 0], [0.5, np.nan, 1]])
    np.testing.assert_allclose(scaled(values), expected)


def test_networks_with_arrows_and_figures_in_both_looks(tmp_path) -> None:
    """Networks under their own names: every block is drawn, and arrows are what training is."""
    values = gathered(alike(METRICS[1:], ROWS, [UP, UP[::-1], UP, UP]))
    rows = {Row("student", name): Network(name) for name in ROWS}
    named = [
        replace(one, results={rows[row]: result for row, result in one.results.items()}) for one in values
    ]
    found = board(named)
    assert found is not None
    said = told(found, [(Network("original"), Network("robust-l2"))])
    made = blocks(found, said, {"odd-one-out": "no choices here"})
    assert [type(one) for one in made].count(Figure) == 2
    assert sum(isinstance(one, Text) for one in made) == 5
    for one in made:
        if isinstance(one, Figure):
            one.draw(LIGHT)
            one.draw(DARK)
    assert "original to robust-l2" in texts(
        next(one for one in made if isinstance(one, Table) and one.name == "four_changes")
    )
    whole = Page("a", "", "", "", Summary((), (), ()), [Section("four", TITLE, made)])
    html = write_page(tmp_path, whole).read_text(encoding="utf-8")
    assert "no choices here" in html
    assert "The four systems together" in html
    assert len(sentences(found, [], correlations(found)[0])) == 5
    assert parallel(found).name == "four_parallel"
