"""The page of attacked networks: planted sizes and places order them, units fit resolutions, tests."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.families.attack import attack
from alignet.evaluate.result import Result
from alignet.report.attack_networks import counting, page, printed
from alignet.report.attack_networks_figures import figures
from alignet.report.attack_networks_given import Given
from alignet.report.attack_networks_tests import between_groups, between_networks, over_networks
from alignet.report.attack_values import measure, tolerances
from alignet.report.blocks import DARK, LIGHT, Cell, Table, Text
from alignet.report.network_points import Network, front, named
from alignet.report.network_tables import score_of
from alignet.report.page import write_page
from tests.makers.attacked import OPTIONS, maps_of, material, write_attack, write_maps

N = 12
SIZES = {"a": 0.3, "b": 0.6, "c": 0.9, "d": 1.2}  # tolerance rises,
SHIFTS = {"a": 0, "b": 1, "c": 2, "d": 6}  # and places leave those of people


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, Result]:
    folder = tmp_path_factory.mktemp("networks")
    maps = write_maps(folder / "maps.npz", maps_of(N))
    found = {}
    for place, (name, size) in enumerate(SIZES.items()):
        lengths = size * np.linspace(0.9, 1.1, N)
        where = np.roll(maps_of(N), SHIFTS[name], axis=2)
        right = np.arange(N) >= place  # accuracy falls
        main = write_attack(folder / name, where, lengths, right=right, blind=2 if name == "d" else 0)
        other = write_attack(
            folder / f"{name}-linf", where, 0.1 * lengths, norm="linf", high=0.5, right=right
        )
        found[name] = attack(material({"attack": main, "linf": other}, maps), OPTIONS)
    return found


def given(**more) -> Given:
    return replace(
        Given(
            "photos", "maps.npz", N, 9, {name: N - place for place, name in enumerate(SIZES)},
            {name: {"loaded from": f"timm:{name}"} for name in SIZES}, groups={"cnn": ["a", "b"], "vit": ["c", "d"]},
            methods={"fast": {"norm": "l2", "search": None}, "linf": {"norm": "linf"}}, options=OPTIONS,
        ),
        **more,
    )  # fmt: skip


def cells(table: Table) -> dict[str, list[str]]:
    return {row[0]: [one.text if isinstance(one, Cell) else one for one in row[1:]] for row in table.rows}


def scaled(result: Result, side: int) -> Result:
    """The same at another resolution."""
    table = dict(result.tables["attacks"])
    table["height"] = table["width"] = np.full(len(table["node"]), side)
    factor = math.sqrt(
        result.tables["attacks"]["height"][0] / side * result.tables["attacks"]["width"][0] / side
    )
    scores = [
        replace(one, value=factor * one.value, low=None, high=None) if one.metric == "tolerance_rms" else one
        for one in result.scores
    ]
    return Result(scores, result.tables | {"attacks": table})


def test_the_page_and_its_table(results, tmp_path) -> None:
    found = page(given(), results, "photos")
    write_page(tmp_path, found)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Signs of gradient masking in photos: d: 2 of 9 images" in html
    assert "Signs of gradient masking in 1 of 4 networks" in html
    assert "Published values: attacks" in html
    assert not re.search(r"""(src|href)=["'](https?:)?//""", html)
    table = next(one for one in found.sections[0].blocks if isinstance(one, Table))
    assert sum(count for _, count in table.groups) == len(table.header)
    rows = cells(table)
    at = {title: place for place, title in enumerate(table.header[1:])}
    assert rows["a"][at["accuracy, %"]] == "100.0"
    assert rows["a"][at["l2"]].startswith("0.300 [")
    assert rows["a"][at["RMS, 1/255"]] == f"{255 * 0.3 / np.sqrt(3 * 16 * 16):.3f}"
    assert [rows[name][at["0.5"]] for name in "abcd"] == ["100.0", "0.0", "0.0", "0.0"]
    assert [rows[name][at["1"]] for name in "abd"] == ["100.0", "100.0", "0.0"]
    assert rows["a"][at["against centre bias"]] == "above"
    best = [row[0] for row in table.rows if any(isinstance(one, Cell) and one.best for one in row)]
    assert best == ["d"]


def test_figures_have_fronts_groups_and_arrows(results) -> None:
    for arrows in ((), (("a", "d"),)):
        told = given(arrows=arrows)
        survival, accuracy, trade_off = figures(told, results, measure(results))
        assert "Highest mean: d, 1.233 (l2, pixels in [0, 1])." in survival.caption
        assert "On the front of tolerance: d, c, b, a. On the front of alignment: a." in accuracy.caption
        assert "On the front: a, b, c, d." in trade_off.caption
        for look in (LIGHT, DARK):
            assert len(survival.draw(look).axes[0].lines) == 5  # and that of the median
            panels = [axis for axis in accuracy.draw(look).axes if axis.axison]
            assert [axis.get_title(loc="left") for axis in panels] == ["tolerance", "alignment"]
            (axis,) = trade_off.draw(look).axes
            drawn = [one for one in axis.texts if getattr(one, "arrow_patch", None) is not None]
            assert len(drawn) == len(arrows)
    assert "From a to d: -25.0 points of accuracy" in accuracy.caption
    points = {
        Network(name): (score_of(one, "tolerance"), score_of(one, "accuracy"))
        for name, one in results.items()
    }
    assert [row.title for row in front(points)] == ["a", "b", "c", "d"]


def test_networks_of_different_resolutions_compare_by_the_change_of_a_value(results) -> None:
    networks = results | {"d": scaled(results["d"], 32)}
    how = measure(networks)
    assert (how.metric, how.scale) == ("tolerance_rms", 255)
    values = tolerances(networks, how.metric, how.scale)
    assert list(values["a"].values())[3] == pytest.approx(
        255 * 0.3 * np.linspace(0.9, 1.1, N)[3] / np.sqrt(3 * 16**2)
    )
    assert next(iter(values["d"].values())) == pytest.approx(
        255 * 1.2 * np.linspace(0.9, 1.1, N)[3] / np.sqrt(3 * 32**2)
    )
    assert measure(results).metric == "tolerance"
    found = page(given(), networks, "photos").sections[0].blocks
    assert "Networks see images at different resolutions" in str(found)
    assert "Curves of different resolutions do not compare." in str(found)
    overview = next(one for one in found if isinstance(one, Table))
    marked = [
        overview.header[place]
        for row in overview.rows for place, one in enumerate(row) if isinstance(one, Cell) and one.best
    ]  # fmt: skip
    assert marked == ["RMS, 1/255"]


def test_further_l2_attacks_compare_by_the_change_of_a_value_too(results, tmp_path) -> None:
    networks = {}
    for name, size in SIZES.items():
        nodes = {
            node: write_attack(tmp_path / f"{name}-{node}", maps_of(N), size * np.ones(N))
            for node in ("attack", "cw")
        }
        result = attack(material(nodes), OPTIONS)
        networks[name] = (
            scaled(result, 64) if name == "d" else result
        )  # the most in l2, the least of a pixel's change
    methods = {"fast": {"norm": "l2"}, "cw": {"norm": "l2"}}
    told = given(methods=methods)
    how = measure(networks)
    rows = {(row[0], row[1]): row[3].value for row in over_networks(told, networks, how).rows}
    assert rows["RMS pixel change by fast", "RMS pixel change by cw"] == pytest.approx(1)


def test_unbroken_images_count_the_same_in_every_network(results) -> None:
    table = dict(results["b"].tables["attacks"])
    table["high"] = np.array([0.4, 0.5])
    networks = results | {"b": Result(results["b"].scores, results["b"].tables | {"attacks": table})}
    found = tolerances(networks, measure(results).metric)
    assert max(found["d"].values()) == 0.4


def test_pairs_are_tested_on_common_images(results) -> None:
    table = between_networks(given(), results, measure(results))
    assert isinstance(table, Table)
    assert len(table.rows) == 6 * 2  # all pairs, tolerance and alignment
    first = [one.text if isinstance(one, Cell) else one for one in table.rows[0]]
    lengths = np.linspace(0.9, 1.1, N)[1:]
    assert first[:5] == ["a", "b", "tolerance (l2, pixels in [0, 1])", "11", f"{0.3 * lengths.mean():+.3f}"]
    assert table.rows[0][5].value == pytest.approx(2 / 2**11)  # all eleven go one way
    ps = [row[5].value for row in table.rows]
    assert len(set(ps)) > 2  # so that the order counts
    by_hand = [
        max((12 - sum(other < q for other in ps)) * q for q in ps if q <= p) for p in ps
    ]  # Holm (1979)
    assert [row[6].value for row in table.rows] == pytest.approx([min(1, one) for one in by_hand])
    arrows = between_networks(given(arrows=[("a", "d")]), results, measure(results))
    assert [row[:2] for row in arrows.rows] == [["a", "d"]] * 2
    many = {f"net{number}": results["a"] for number in range(11)}
    assert isinstance(between_networks(given(), many, measure(many)), Text)
    assert between_networks(given(), {"a": results["a"]}, measure(results)) is None


def test_correlations_over_networks_need_four(results) -> None:
    how = measure(results)
    table = over_networks(given(), results, how)
    rhos = {(row[0], row[1]): row[3].value for row in table.rows}
    assert rhos["accuracy", "tolerance (l2)"] == pytest.approx(-1)
    assert rhos["tolerance (l2)", "alignment"] == pytest.approx(-1)
    assert rhos["tolerance (l2) by fast", "tolerance by linf"] == pytest.approx(1)
    assert table.rows[0][4].value == pytest.approx(2 / 24)
    assert "no p below 0.083 is possible" in table.caption
    assert over_networks(given(), {name: results[name] for name in "abc"}, how) is None


def test_two_groups(results) -> None:
    how = measure(results)
    table = between_groups(given(), results, how)
    assert [row[0] for row in table.rows] == ["tolerance (l2, pixels in [0, 1])", "alignment"]
    assert table.rows[0][4].value == pytest.approx(2 / 6)
    assert "of 2 and 2 networks no p below 0.333 is possible" in table.notes[0]
    assert "Kinds are guessed" in table.caption
    alone = between_groups(given(groups={"cnn": ["a", "b", "c"], "vit": ["d"]}), results, how)
    assert isinstance(alone, Text)
    assert "a group needs two networks" in alone.text
    assert between_groups(given(groups={"cnn": list("abcd"), "vit": []}), results, how) is None


def test_without_maps_or_classes_there_is_tolerance_alone(results, tmp_path) -> None:
    keep = ("tolerance", "tolerance_rms", "tolerance_8bit", "unbroken", "masked", "robust_0.5", "robust_1")
    networks = {
        name: Result([one for one in result.scores if one.metric in keep], result.tables)
        for name, result in results.items()
    }
    told = given(maps="", common=None, any_answer=True)
    found = page(told, networks, "photos")
    write_page(tmp_path, found)
    titles = [block.title for block in found.sections[0].blocks if not isinstance(block, Text)]
    assert "Alignment against tolerance" not in titles
    assert not any("people look" in title for title in titles)
    table = next(one for one in found.sections[0].blocks if isinstance(one, Table))
    assert "accuracy, %" not in table.header
    assert "rho" not in table.header
    assert "rho" not in printed(told, networks)


def test_which_images_count_is_said() -> None:
    assert "the 9 images that all 4 networks name right" in counting(given())
    assert "of its own images" in counting(given(common=None))
    assert counting(given(total=40)).startswith("12 of 40 images were drawn at random. ")
    said = counting(given(left_out={"a": ["linf"]}))
    assert said.endswith("none of the images that count was attacked by that method: a by linf.")
    assert "whatever a network answered" in counting(given(any_answer=True))


def test_many_networks_fit_on_the_page(results, tmp_path) -> None:
    def moved(one: Score, by: float) -> Score:
        return replace(one, value=one.value + by, low=None, high=None)

    networks = {
        f"network{number}": Result(
            [moved(one, 0.001 * number) for one in results["abcd"[number % 4]].scores], results["a"].tables
        )
        for number in range(24)
    }
    names = list(networks)
    told = given(
        attacked=dict.fromkeys(names, N), details={name: {} for name in names},
        groups={"cnn": names[:12], "vit": names[12:]},
    )  # fmt: skip
    found = page(told, networks, "photos")
    write_page(tmp_path, found)
    survival = figures(told, networks, measure(networks))[0].draw(LIGHT)
    assert [one.get_text() for one in survival.legends[0].get_texts()] == ["cnn", "vit"]
    assert "Of more than 10 networks no pairs are tested" in str(found.sections[0].blocks)


def test_names_leave_room_for_panels_and_do_not_overlap(results) -> None:
    long = {f"{name}_network_with_a_name_as_timm_has_them.in1k": one for name, one in results.items()}
    for networks in (results, long):
        told = given(groups={"cnn": list(networks)[:2], "vit": list(networks)[2:]})
        for figure in figures(told, networks, measure(networks))[1:]:
            drawing = figure.draw(LIGHT)
            drawing.draw_without_rendering()
            for axis in drawing.axes:
                assert axis.get_position().width > 0.35
                room = axis.get_window_extent()
                boxes = [one.get_window_extent() for one in axis.texts if one.get_text() in networks]
                assert boxes
                assert all(room.x0 <= box.x0 and box.x1 <= room.x1 for box in boxes)
                assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
            assert "where there is room; the table has all." in figure.caption
    many = {
        Network(f"n{place}"): (score(place), score(-abs(place - 3))) for place in range(6)
    }  # those from 3 on are on the front
    assert [row.title for row in named(many, [("n0", "n1")], few=True)] == ["n0", "n1", "n3", "n4", "n5"]
    assert named(many, []) == list(many)


def score(value: float) -> Score:
    return Score("m", "d", value, None, None, 5, "images", "")
