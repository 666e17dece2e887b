"""Attacks on the page: tables say what scores say, tests find what was planted, figures in both looks, a page."""

import re

import numpy as np
import pytest

from alignet.evaluate.attack import holm, paired_test
from alignet.evaluate.families.attack import attack as family
from alignet.evaluate.result import Result, read_result, write_result
from alignet.report.attack import attack
from alignet.report.attack_published import PUBLISHED
from alignet.report.blocks import DARK, LIGHT, Figure, Pictures, Section, Table, Text
from alignet.report.dataset_results import ROWS, Gathered, Row
from alignet.report.metric_styles import STYLES, hidden
from alignet.report.network_tables import least_p
from alignet.report.page import Page, write_page
from alignet.report.summary import summarise
from tests.makers.attacked import OPTIONS, maps_of, material, write_attack, write_maps

N, TOLERANCE = 30, "tolerance (l2, pixels in [0, 1])"
ORIGINAL, HARMONIZED, ROBUST = (Row(*ROWS[name]) for name in ("original", "harmonized", "robust-linf"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A student whose harmonized self is changed where people look, and whose robust self needs twice the norm."""
    folder = tmp_path_factory.mktemp("attacks")
    maps, generator = maps_of(N), np.random.default_rng(0)
    people = write_maps(folder / "maps.npz", maps)
    noise = generator.uniform(0, 1, maps.shape)
    base = generator.uniform(0.3, 0.9, N)
    made = {}
    for row, where, factor, blind in (
        (ORIGINAL, noise, 1.0, 0), (HARMONIZED, maps + 0.2 * noise, 1.0, 0), (ROBUST, noise[::-1], 2.4, 2),
    ):  # fmt: skip
        right = np.arange(N) != (1 if row == ROBUST else 0)
        nodes = {
            "attack": write_attack(
                folder / row.setting / "l2", where, factor * base, right=right, blind=blind
            ),
            "linf": write_attack(
                folder / row.setting / "linf", where, base / 20, norm="linf", high=0.1, right=right
            ),
        }
        made[row] = family(material(nodes, people), OPTIONS)
    return made


def gathered(results):
    return Gathered("attacks", "attack", OPTIONS, results)


def texts(table):
    return {
        str(line[0]): dict(zip(table.header, [one if isinstance(one, str) else one.text for one in line]))
        for line in table.rows
    }


def test_the_blocks_stand_in_their_order(results):
    blocks = attack([gathered(results)])
    assert [type(one) for one in blocks] == [
        Text, Table, Table, Table, Figure, Figure, Figure, Table, Table, Pictures, Table,
    ]  # fmt: skip
    assert len({one.name for one in blocks if not isinstance(one, Text)}) == len(blocks) - 1
    assert attack([]) == attack([Gathered("attacks", "attack", OPTIONS, {})]) == []


def test_masking_is_said_with_its_count_and_only_where_there_is_a_sign(results):
    said = attack([gathered(results)])[0].text
    assert (
        "student robust (l-inf): 2 of 29 images (2 also turned by a step without gradients, 0 without a"
        in said
    )
    assert "student original" not in said
    assert not any(isinstance(one, Text) for one in attack([gathered({ORIGINAL: results[ORIGINAL]})]))


def test_tolerance_stands_in_every_unit(results):
    table = attack([gathered(results)])[1]
    assert table.header == [
        "", "attacked", "unbroken, %", "tolerance, l2", "median", "RMS pixel change, 1/255", "tolerance in 8 bit",
        "linf: tolerance, l-inf",
    ]  # fmt: skip
    found = texts(table)
    scores = {one.metric: one for one in results[ROBUST].scores}
    line = found["student robust (l-inf)"]
    assert line["attacked"] == "29 of 30"
    assert line["tolerance, l2"].startswith(f"{scores['tolerance'].value:.3f} [")
    changed = 255 * scores["tolerance"].value / np.sqrt(3 * 16 * 16)
    assert line["RMS pixel change, 1/255"].startswith(f"{changed:.2f} [")
    assert line["linf: tolerance, l-inf"].startswith(f"{scores['linf_tolerance'].value:.4f} [")
    best = [line[0] for line in table.rows if line[3].best]
    assert best == ["student robust (l-inf)"]
    assert "An image unbroken at 2 counts as 2 (right-censored)" in table.caption
    assert "Attacked are the images answered right at first." in table.caption
    assert "An image is broken if a perturbation was found" in table.caption
    assert table.caption.endswith("Bold: highest mean of the column tolerance.")


def test_where_resolutions_differ_the_change_of_a_pixel_value_is_compared(results):
    attacks = dict(results[ROBUST].tables["attacks"])
    attacks["height"] = attacks["width"] = np.full(len(attacks["node"]), 32)
    mixed = results | {ROBUST: Result(results[ROBUST].scores, results[ROBUST].tables | {"attacks": attacks})}
    _, table, *_ = blocks = attack([gathered(mixed)])
    assert [[one.best for one in line[3:6]] for line in table.rows if line[0] == ROBUST.title] == [[0, 0, 1]]
    survival, _, trade = (one for one in blocks if isinstance(one, Figure))
    assert "(RMS pixel change, 1/255)" in survival.caption
    assert "Curves of different resolutions do not compare." in survival.caption
    assert trade.draw(LIGHT).axes[0].get_xlabel() == "RMS pixel change (1/255)"
    (plain, *_) = (one for one in attack([gathered(results)]) if isinstance(one, Figure))
    assert "do not compare" not in plain.caption


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([9, 9], ""),  # 2 * 2 / 2^9
        ([6] * 2, "With 6 images and 2 tests no adjusted p below 0.062 is possible"),
        ([3], "With 3 images and 1 test no adjusted p below 0.25 is possible"),
        ([30, 4], "In 1 of 2 tests, with 4 images, no adjusted p below .05 is possible"),
    ],
)
def test_p_values_that_are_not_possible_are_said(counts, said):
    assert said in least_p(counts, "fewer rows leave fewer tests")
    assert bool(said) == bool(least_p(counts, "x"))
    best = [paired_test(np.zeros(n), np.ones(n), seed=0)[1] for n in counts]  # all images go one way
    assert (min(holm(best)) >= 0.05) == said.startswith("With")


def test_a_median_beyond_what_was_searched_is_said_so(tmp_path):
    node = write_attack(tmp_path / "a", maps_of(N), np.full(N, 5.0))
    result = family(material({"attack": node}), OPTIONS)
    found = texts(attack([gathered({ORIGINAL: result})])[0])["student original"]
    assert (found["median"], found["unbroken, %"][:5]) == ("above 2", "100.0")


def test_accuracy_under_attack_and_alignment_are_the_scores(results):
    _, _, accuracy, alignment, *_ = attack([gathered(results)])
    scores = {one.metric: one for one in results[HARMONIZED].scores}
    line = texts(accuracy)["student Harmonizer"]
    assert line["accuracy, %"].startswith("96.7 [")
    assert line["at l2 norm 0.5, %"].startswith(f"{100 * scores['robust_0.5'].value:.1f} [")
    line = texts(alignment)["student Harmonizer"]
    assert line["Spearman's rho"].startswith(f"{scores['attack_alignment'].value:.3f} [")
    assert line["centre bias (control)"].startswith(f"{scores['attack_centre_bias'].value:.3f} [")
    assert line["linf: Spearman's rho"].startswith(f"{scores['linf_alignment'].value:.3f} [")
    assert "with an interval above 0: 1 of 3 rows" in alignment.caption
    assert alignment.notes == ["reduction: magnitude of the channel mean"]


def test_tests_find_what_was_planted_and_nothing_else(results):
    table = attack([gathered(results)])[8]
    found = {(line[1], line[2]): line for line in table.rows}
    adjusted = {key: line[6].value for key, line in found.items()}
    assert adjusted["Harmonizer", "alignment"] < 0.01
    assert adjusted["robust (l-inf)", TOLERANCE] < 0.01
    assert adjusted["Harmonizer", TOLERANCE] > 0.05  # the norms are the same up to float32
    assert adjusted["robust (l-inf)", "alignment"] > 0.05
    assert found["robust (l-inf)", TOLERANCE][3].value == N - 2  # each is wrong on another image
    assert "for all 4 tests of this table, of which 2 are below .05" in table.caption


def test_figures_are_drawn_in_both_looks_and_say_the_front(results):
    survival, against, trade = (one for one in attack([gathered(results)]) if isinstance(one, Figure))
    assert "bands are 95% intervals" in survival.caption
    assert "Highest mean: student robust (l-inf), 1.3" in survival.caption
    assert "(l2, pixels in [0, 1])" in survival.caption
    assert "Rows are means over different images" in survival.caption
    assert "On the front: student Harmonizer, student robust (l-inf)." in trade.caption
    assert "Differences on the same images are in the table of tests." in trade.caption
    assert "Dotted band: centre bias" in trade.caption
    for look in (LIGHT, DARK):
        (axis,) = [one for one in survival.draw(look).axes if one.axison]
        assert len([line for line in axis.lines if line.get_drawstyle() == "steps-post"]) == 3
        assert len([one for one in against.draw(look).axes if one.axison]) == 2
        (axis,) = [one for one in trade.draw(look).axes if one.axison]
        arrows = [one for one in axis.texts if getattr(one, "arrow_patch", None) is not None]
        assert len(arrows) == 2


def test_rank_correlations_of_attacks_stand_in_a_table(results):
    table = attack([gathered(results)])[7]
    assert table.header == ["", "images", "linf: norms", "linf: alignment"]
    line = texts(table)["student original"]
    assert (line["images"], line["linf: norms"][:4]) == ("29", "1.00")


def test_without_maps_and_classes_tolerance_alone_is_shown(tmp_path):
    node = write_attack(tmp_path / "a", maps_of(N), np.full(N, 1.0), label=np.full(N, -1))
    result = family(material({"attack": node}), OPTIONS)
    table, accuracy, survival, shown, printed = attack([gathered({ORIGINAL: result})])
    assert accuracy.header == ["", "at l2 norm 0.5, %", "at l2 norm 1, %"]
    assert accuracy.caption.startswith("No class is known")
    assert "Attacked are all images, whatever the network answered at first." in table.caption
    assert "different images" not in survival.caption
    assert (survival.title, printed.folded) == ("How much must change? attacks", True)
    assert "people" not in {line for _, row in shown.rows for _, line in row}
    assert isinstance(table, Table)


def test_published_values_are_those_of_the_paper():
    assert len(PUBLISHED) == 16
    values = {(one.network, one.weight): (one.top1, one.human, one.attack) for one in PUBLISHED}
    assert values["ConvNext-T, harmonized", "3"] == ("75.8", "74.5", "")
    assert values["MixNet-L", ""] == ("78.98", "", ".38")
    from alignet.report.attack_published import published

    table = published()
    told = " ".join([table.caption, *table.notes])
    for fact in (
        "another scale",
        "14.69",
        "23.95",
        ".70",
        "-.53",
        ".72",
        ".71",
        ".87",
        "T(122)",
        "T(999) = 15.63",
    ):
        assert fact in told


def test_the_main_table_has_three_of_the_metrics(results):
    shown = {one.metric for one in results[ORIGINAL].scores if not hidden(one.metric)}
    assert shown == {"tolerance", "attack_alignment", "accuracy"}
    assert shown <= set(STYLES)


def test_a_page_is_written_from_stored_results(results, tmp_path):
    read = {}
    for number, (row, one) in enumerate(results.items()):
        (tmp_path / str(number)).mkdir()
        write_result(tmp_path / str(number), Result(one.scores, one.tables))
        read[row] = read_result(tmp_path / str(number))
    blocks = attack([gathered(read)])
    text = write_page(
        tmp_path,
        Page("t", "s", "b", "", summarise([], None), [Section("attack", "Adversarial attacks", blocks)]),
    ).read_text()
    assert "Published values: attacks" in text
    assert len(re.findall("data:image/jpeg", text)) == 3 * (2 + 3 * 3)
