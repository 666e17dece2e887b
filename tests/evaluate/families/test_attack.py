"""The family of attacks on planted perturbations: norms and places come back; shuffled maps lose the places."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from alignet.evaluate.families.attack import attack
from alignet.evaluate.families.attack_pictures import PICTURES, signed
from alignet.evaluate.families.options import check_options
from alignet.evaluate.result import read_result, write_result
from tests.makers.attacked import OPTIONS, ids_of, maps_of, material, write_attack, write_maps

N = 20
LENGTHS = np.linspace(0.2, 2.1, N)  # the last is above 2


def scores_of(result):
    return {one.metric: one for one in result.scores}


@pytest.fixture
def maps(tmp_path):
    return write_maps(tmp_path / "maps.npz", maps_of(N))


def test_only_images_of_a_list_count_but_accuracy_under_attack_is_of_all(tmp_path, maps):
    right = np.arange(N) != 3
    node = write_attack(tmp_path / "a", maps_of(N), LENGTHS, right=right)
    listed = tmp_path / "common.txt"
    listed.write_text("".join(f"{one}\n" for one in ids_of(N)[2:9]))  # number 3 is answered wrongly
    given = material({"attack": node, "same": node}, maps)
    result = attack(replace(given, files={**given.files, "common": listed}), OPTIONS)
    found, every = scores_of(result), scores_of(attack(given, OPTIONS))
    counted = np.array([2, 4, 5, 6, 7, 8])
    assert found["tolerance"].value == pytest.approx(LENGTHS[counted].mean(), rel=1e-5)
    assert "6 of 20 images attacked and in the list; all broken" in found["tolerance"].note
    assert [found[one].n for one in ("attack_alignment", "attack_centre_bias", "same_against")] == [6, 6, 6]
    for name in ("robust_1", "accuracy"):
        assert (found[name].value, found[name].n) == (every[name].value, N)
    assert set(result.tables["pictures"]["id"]) <= {ids_of(N)[row] for row in counted}
    assert np.flatnonzero(result.tables["images"]["tried"]).tolist() == counted.tolist()
    listed.write_text(f"{ids_of(N)[3]}\n")
    with pytest.raises(
        ValueError, match=r"names right among the 1 listed in .*common.txt, found none of the 20"
    ):
        attack(replace(given, files={"common": listed}), OPTIONS)


def test_without_known_classes_accuracy_under_attack_is_of_all_answers(tmp_path):
    node = write_attack(tmp_path / "a", maps_of(N), LENGTHS, label=np.full(N, -1))
    listed = tmp_path / "common.txt"
    listed.write_text("".join(f"{one}\n" for one in ids_of(N)[2:9]))
    given = material({"attack": node})
    found = scores_of(attack(replace(given, files={"common": listed}), OPTIONS))
    assert (found["tolerance"].n, found["robust_1"].n) == (7, N)
    assert found["robust_1"].value == (LENGTHS > 1).mean() != (LENGTHS[2:9] > 1).mean()
    assert found["robust_1"].note.startswith("share of all answers, since no class is known")


def test_planted_norms_and_places_come_back(tmp_path, maps):
    right = np.arange(N) != 3
    node = write_attack(tmp_path / "a", maps_of(N), LENGTHS, right=right)
    result = attack(material({"attack": node}, maps), OPTIONS)
    found = scores_of(result)
    broken = right & (LENGTHS <= 2)
    expected = np.minimum(LENGTHS, 2)[right]
    assert found["tolerance"].value == pytest.approx(expected.mean(), rel=1e-5)
    assert found["tolerance"].n == N - 1
    assert found["tolerance_rms"].value == pytest.approx(expected.mean() / np.sqrt(3 * 16 * 16), rel=1e-5)
    assert found["tolerance_median"].value == pytest.approx(np.median(LENGTHS[right]), rel=1e-5)
    assert found["tolerance_8bit"].value > found["tolerance"].value
    assert found["unbroken"].value == pytest.approx(1 / 19)
    assert found["robust_1"].value == pytest.approx((right & (LENGTHS > 1)).mean())
    assert found["robust_0.5"].n == N
    assert found["accuracy"].value == 19 / 20
    assert found["attack_alignment"].value == pytest.approx(1, abs=1e-3)
    assert found["attack_alignment"].n == broken.sum()
    assert found["attack_alignment_max"].value == pytest.approx(1, abs=1e-3)
    assert found["attack_over_centre"].value == pytest.approx(1 - found["attack_centre_bias"].value, abs=1e-3)
    assert found["masked"].value == 0
    alone = LENGTHS[broken].mean()
    assert found["tolerance"].note == (
        "l2 norm of 3 x 16 x 16 values in [0, 1]; 19 of 20 images attacked; 1 unbroken, which count as 2; the broken "
        f"ones alone {alone:.4g}"
    )
    table = result.tables["images"]
    assert table["id"] == ids_of(N)
    np.testing.assert_allclose(table["norm"], np.where(right, np.minimum(LENGTHS, 2), np.nan), rtol=1e-5)
    assert np.isnan(table["mean"][~broken]).all()
    assert result.tables["attacks"]["broken"].tolist() == [broken.sum()]
    assert result.tables["survival"]["share"][-1] == pytest.approx(1 / 19)


def test_shuffled_maps_lose_the_alignment_and_not_the_norms(tmp_path, maps):
    right = scores_of(
        attack(material({"attack": write_attack(tmp_path / "a", maps_of(N), LENGTHS)}, maps), OPTIONS)
    )
    shuffled = write_maps(tmp_path / "shuffled.npz", np.roll(maps_of(N), 1, axis=0))
    wrong = scores_of(attack(material({"attack": tmp_path / "a"}, shuffled), OPTIONS))
    assert wrong["tolerance"] == right["tolerance"]
    assert wrong["attack_alignment"].value < 0.5 < right["attack_alignment"].value
    assert wrong["attack_over_centre"].value < 0.1 < right["attack_over_centre"].value


def test_a_map_follows_the_box_that_the_network_saw(tmp_path):
    whole = np.zeros((N, 16, 32))
    whole[:, :, 16:] = maps_of(N)  # the network saw the right half
    node = write_attack(tmp_path / "a", maps_of(N), LENGTHS)
    for path in sorted(node.glob("*.npz")):
        arrays = dict(np.load(path))
        arrays["box"][:] = [0.5, 0, 1, 1]
        np.savez(path, **arrays)
    found = scores_of(attack(material({"attack": node}, write_maps(tmp_path / "m.npz", whole)), OPTIONS))
    assert found["attack_alignment"].value == pytest.approx(1, abs=1e-3)


def test_another_attack_of_some_of_the_images_is_ranked_beside_the_first(tmp_path, maps):
    other = LENGTHS.copy() / 20
    other[[2, 5, 9]] = other[[9, 2, 5]]
    rows = np.arange(N)[::-1][:15]
    nodes = {
        "linf": write_attack(tmp_path / "b", 1.1 - maps_of(N), other, norm="linf", high=0.1, rows=rows),
        "attack": write_attack(tmp_path / "a", maps_of(N), LENGTHS),
    }
    result = attack(material(nodes, maps), OPTIONS)
    found = scores_of(result)
    both = np.isin(np.arange(N), rows) & (LENGTHS <= 2) & (other <= 0.1)
    assert found["linf_against"].value == pytest.approx(spearmanr(LENGTHS[both], other[both]).statistic)
    assert found["linf_against"].n == both.sum()
    assert found["linf_tolerance"].value == pytest.approx(np.minimum(other, 0.1)[rows].mean(), rel=1e-4)
    assert found["linf_alignment"].value == pytest.approx(-1, abs=1e-3)
    assert np.isnan(result.tables["images"]["linf_norm"][:5]).all()
    assert result.tables["attacks"]["node"] == ["attack", "linf"]
    assert result.tables["attacks"]["norm"] == ["l2", "linf"]


def test_linf_as_the_first_attack_has_root_mean_squares_of_the_broken(tmp_path):
    node = write_attack(tmp_path / "a", np.sign(maps_of(N) - 0.5), LENGTHS / 20, norm="linf", high=0.1)
    found = scores_of(attack(material({"attack": node}), {"reduction": "max", "eps": [0.05]}))
    broken = LENGTHS / 20 <= 0.1
    assert found["tolerance_rms"].value == pytest.approx((LENGTHS / 20)[broken].mean(), rel=1e-4)
    assert found["tolerance"].note.startswith("l-inf norm")
    assert found["tolerance"].note.endswith("without people's maps: tolerance alone")
    assert "attack_alignment" not in found


def test_signs_of_gradient_masking_are_counted_and_said(tmp_path):
    node = write_attack(tmp_path / "a", maps_of(N), LENGTHS, blind=3, no_gradient=2)
    found = scores_of(attack(material({"attack": node}), OPTIONS))
    assert found["masked"].value == 3 / 20
    assert (
        "signs of gradient masking: 3 images also turned by a step without gradients, 2 without"
        in found["tolerance"].note
    )
    assert found["masked"].note.endswith("2 without a gradient in some step")


def test_images_of_no_known_class_give_survival_and_no_accuracy(tmp_path):
    node = write_attack(tmp_path / "a", maps_of(N), LENGTHS, label=np.full(N, -1))
    found = scores_of(attack(material({"attack": node}), OPTIONS))
    assert found["robust_1"].value == pytest.approx((LENGTHS > 1).mean())
    assert "no class is known" in found["robust_1"].note
    assert "accuracy" not in found


def test_nothing_broken_gives_no_alignment_and_no_median(tmp_path, maps):
    node = write_attack(tmp_path / "a", maps_of(N), np.full(N, 9.0))
    result = attack(material({"attack": node}, maps), OPTIONS)
    found = scores_of(result)
    assert (found["tolerance"].value, found["unbroken"].value) == (2, 1)
    assert not {"tolerance_median", "attack_alignment", "attack_over_centre"} & set(found)
    assert "pictures" not in result.tables


def test_constant_maps_and_images_without_one_are_counted(tmp_path):
    some = maps_of(N)[:15]
    some[4] = 0.5
    node = write_attack(tmp_path / "a", maps_of(N), np.full(N, 1.0))
    found = scores_of(attack(material({"attack": node}, write_maps(tmp_path / "m.npz", some)), OPTIONS))
    assert found["attack_alignment"].n == 14
    assert found["attack_alignment"].note.endswith(
        "20 broken images; 5 of them without a map; 1 with a constant map left out"
    )


def test_what_is_wrong_is_said(tmp_path):
    none = write_attack(tmp_path / "a", maps_of(N), LENGTHS, right=np.zeros(N, bool))
    with pytest.raises(ValueError, match=r"found 0 of 20 with a known class.*attack\.logit=top1"):
        attack(material({"attack": none}), OPTIONS)
    with pytest.raises(ValueError, match="expected a node `attack`, found linf"):
        attack(material({"linf": none}), OPTIONS)
    some = write_attack(tmp_path / "b", maps_of(N), LENGTHS)
    with pytest.raises(ValueError, match="from 0 to 2, the largest that was searched, found 3"):
        attack(material({"attack": some}), OPTIONS | {"eps": [3]})
    fewer = write_attack(tmp_path / "c", maps_of(N), LENGTHS, rows=np.arange(5))
    with pytest.raises(ValueError, match="found 15 others, the first n0/img05"):
        attack(material({"attack": fewer, "cw": some}), OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected attack-NNNNN\.npz"):
        attack(material({"attack": tmp_path / "empty"}), OPTIONS)
    (some / "ids-00000.txt").write_text("one\n")
    with pytest.raises(ValueError, match="as many ids as images, found 1 and 7"):
        attack(material({"attack": some}), OPTIONS)


def test_pictures_show_the_same_images_for_every_network_and_are_read_back(tmp_path, maps):
    for name, where in (("a", maps_of(N)), ("b", 1.1 - maps_of(N))):
        result = attack(
            material({"attack": write_attack(tmp_path / name, where, LENGTHS / 2)}, maps), OPTIONS
        )
        (tmp_path / f"{name}-result").mkdir()
        write_result(tmp_path / f"{name}-result", result)
    first, second = (read_result(tmp_path / f"{name}-result").tables["pictures"] for name in "ab")
    assert list(first["id"]) == list(second["id"])
    assert len(first["id"]) == PICTURES
    place = ids_of(N).index(first["id"][0])
    assert first["norm"][0] == pytest.approx(LENGTHS[place] / 2, rel=1e-5)
    assert first["spearman"][0] == pytest.approx(1, abs=1e-3)
    assert second["spearman"][0] == pytest.approx(-1, abs=1e-3)
    shown = np.asarray(Image.open(io.BytesIO(first["attacked"][0])))
    assert shown.shape == (16, 16, 3)
    hidden = attack(material({"attack": tmp_path / "a"}, maps), OPTIONS | {"photographs": False}).tables[
        "pictures"
    ]
    assert set(hidden["image"]) == set(hidden["attacked"]) == {b""}


def test_a_signed_perturbation_is_grey_where_nothing_changes():
    change = np.zeros((3, 16, 16))
    change[:, :8], change[:, 12:] = 0.01, -0.01
    content, scale = signed(change)
    shown = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert scale == 50
    assert abs(shown[2, 2] - 255).max() < 4
    assert abs(shown[10, 2] - 128).max() < 9
    assert shown[14, 2].max() < 4
    assert signed(np.zeros((3, 4, 4)))[1] == 1


def test_options_are_checked():
    check_options("attacks", "attack", OPTIONS)
    with pytest.raises(ValueError, match=r"options\.reduction: expected mean or max"):
        check_options("attacks", "attack", OPTIONS | {"reduction": "abs_mean"})
    with pytest.raises(ValueError, match=r"options\.eps"):
        check_options("attacks", "attack", OPTIONS | {"eps": [0]})
