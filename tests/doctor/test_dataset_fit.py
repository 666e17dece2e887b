"""Does a data set of triplets belong to images? Planted shifts, column orders and strangers against sound sets."""

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image

from alignet.data.alignet_npz import save_dataset
from alignet.doctor import dataset_check, dataset_fit
from alignet.doctor.dataset_check import judged, read
from alignet.doctor.dataset_fit import by_classes, by_features, classes_of, fit, ties
from alignet.stages import doctor
from alignet.triplets import similarities

M, P, N = 60, 6, 6000


@pytest.fixture(scope="module")
def made():
    """A teacher's features, a student's that see half of what they see, names, and triplets with the odd one last."""
    draw = np.random.default_rng(0)
    teacher = draw.standard_normal((M, P)).astype(np.float32)
    student = np.concatenate([teacher[:, :3], draw.standard_normal((M, 8))], 1)
    rows = np.stack([draw.permutation(M)[:3] for _ in range(N)])
    pair = labelled(teacher, rows).argmax(1)
    rows = np.take_along_axis(rows, np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[pair], 1)
    return teacher, student, [f"c{row // 6}/{row:03}.png" for row in range(M)], rows


def labelled(features, rows):
    return similarities(torch.from_numpy(features), torch.from_numpy(rows)).numpy()


def reading(folder, made, *, names=None, columns=(0, 1, 2), shuffle=False, answer=None):
    """The verdict on a file that was written so, and the fit behind it."""
    teacher, student, ids, rows = made
    labels = labelled(teacher, rows)[:, list(columns)]
    if shuffle:
        labels = labels[np.random.default_rng(1).permutation(N)]
    path = folder / "set.npz"
    save_dataset(path, names or ids, rows, labels)
    dataset, found, triplets = read(path, ids)
    one = fit(found, triplets, M, answer or by_features(student), "a student")
    *_, verdict = judged("set", [one], ties(found), dataset.dropped, len(triplets))
    return verdict, one


def test_a_sound_set_passes(made, tmp_path):
    verdict, one = reading(tmp_path, made)
    assert verdict.level == "ok"
    assert "belong together, in the order [s01, s02, s12]" in verdict.found
    assert one.low < one.share < one.high
    assert one.share > 0.45 > 0.36 > one.shuffled > 0.30
    assert not one.better_order
    assert not one.better_shift


@pytest.mark.parametrize(("by", "undone"), [(1, "before"), (-1, "after")])
def test_a_planted_shift_is_found(by, undone, made, tmp_path):
    ids = made[2]
    names = [ids[(row + by) % M] for row in range(M)]
    verdict, one = reading(tmp_path, made, names=names)
    assert verdict.level == "fault"
    assert f"that of the image {undone} it" in verdict.found
    assert one.shift == -by
    assert one.share < 0.37 < one.shifted


@pytest.mark.parametrize("columns", dataset_fit.ORDERS[1:])
def test_a_planted_order_of_columns_is_found(columns, made, tmp_path):
    verdict, one = reading(tmp_path, made, columns=columns)
    named = ", ".join(("s01", "s02", "s12")[pair] for pair in columns)
    assert one.order == columns
    assert verdict.level == "fault"
    assert f"the columns of similarities are [{named}], not [s01, s02, s12]" in verdict.found


def test_labels_of_other_images_belong_to_none(made, tmp_path):
    ids = made[2]
    for seed in range(5):
        names = [ids[row] for row in np.random.default_rng(seed).permutation(M)]
        verdict, one = reading(tmp_path, made, names=names)
        assert verdict.level == "fault"
        assert "do not belong together" in verdict.found, (seed, one)


def test_an_order_that_follows_the_names_is_no_agreement(made, tmp_path):
    """The pair always ascends by name, and so does the student's first feature: position agrees, nothing else does."""
    draw = np.random.default_rng(3)
    rows = np.sort(np.stack([draw.permutation(M)[:3] for _ in range(N)]), 1)
    drift = np.linspace(-1, 1, M)[:, None] ** 3
    labels = np.sort(draw.random((N, 3)), 1)[:, ::-1]
    one = fit(labels, rows, M, by_features(np.concatenate([drift, np.ones((M, 1))], 1)), "a drift")
    assert abs(one.beyond) < dataset_fit.CLEAR
    assert one.share != pytest.approx(1 / 3, abs=0.02)  # as a third, taken for guessing, would not have told
    assert one.shuffled == pytest.approx(one.share, abs=0.03)


def test_similarities_of_other_rows_are_noticed(made, tmp_path):
    verdict, one = reading(tmp_path, made, shuffle=True)
    assert verdict.level == "warning"
    assert "how near they are does not" in verdict.found
    assert one.values < one.values_shuffled


def test_class_folders_answer_triplets_with_one_pair_of_a_class(made, tmp_path):
    ids = made[2]
    classes, by_id = classes_of(ids)
    assert len(set(classes)) == 10
    assert not by_id
    found = by_classes(classes)(np.array([[0, 1, 59], [0, 30, 1], [0, 30, 59], [0, 1, 2]]))
    assert found[0].tolist() == [1, 0, 0]
    assert found[1].tolist() == [0, 1, 0]
    assert np.isnan(found[2:]).all()
    assert classes_of(["a.png", "b.png"]) is None
    named, by_id = classes_of(["n01440764_1.JPEG", "n01440764_2.JPEG", "n02084071_1.JPEG"])
    assert (named.tolist(), by_id) == ([0, 0, 1], True)
    centres = np.random.default_rng(5).standard_normal((10, P))[classes]
    teacher = (centres + 0.3 * made[0]).astype(np.float32)
    verdict, one = reading(tmp_path, (teacher, *made[1:]), answer=by_classes(classes))
    assert verdict.level == "ok"
    assert one.values is None
    verdict, one = reading(tmp_path, made, answer=by_classes(classes))  # whose features know no classes
    assert (verdict.level, one.belongs) == ("fault", False)


def test_folders_that_are_no_classes_and_few_triplets_deny_nothing(made, tmp_path):
    """Sound sets that cannot be told from others are warnings."""
    teacher, student, ids, rows = made
    verdicts = []
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(N)[:300]
        noisy = student + 2.5 * np.random.default_rng(seed).standard_normal(student.shape)
        one = fit(labelled(teacher, rows[some]), rows[some], M, by_features(noisy), "a student")
        verdicts += [*judged("set", [one], 0.0, 0, 300)][-1:]
    assert {one.level for one in verdicts} <= {"ok", "warning"}
    assert any("too few to tell" in one.found for one in verdicts)
    folders = fit(labelled(teacher, rows), rows, M, by_classes(classes_of(ids)[0]), dataset_check.FOLDERS)
    *_, verdict = judged("set", [folders], 0.0, 0, N)
    assert verdict.level == "warning"
    assert "cannot tell" in verdict.found


def test_ties_are_counted():
    assert ties(np.array([[1, 1, 0], [1, 0.5, 0], [2, 2, 2], [0, 1, 0.5]])) == 0.5


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """The images of a folder: the teacher's features are their colours."""
    teacher, _, ids, rows = made
    where = tmp_path_factory.mktemp("coloured")
    draw = np.random.default_rng(0)
    for row, name in enumerate(ids):
        (where / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        colour = np.clip(128 + 50 * teacher[row, :3], 0, 255)
        pixels = np.clip(draw.normal(colour, 8, (24, 24, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(where / "images" / name)
    colours = teacher.copy()
    colours[:, 3:] = 0
    pair = labelled(colours, rows).argmax(1)
    rows = np.take_along_axis(rows, np.array([[0, 1, 2], [0, 2, 1], [1, 2, 0]])[pair], 1)
    save_dataset(where / "set.npz", ids, rows, labelled(colours, rows))
    save_dataset(where / "shifted.npz", [*ids[1:], ids[0]], rows, labelled(colours, rows))
    return where


def test_the_command_line_tells_a_shift_from_a_sound_set(folder, capsys):
    doctor.main([f"dataset={folder / 'set.npz'}", f"images={folder / 'images'}"])
    out = capsys.readouterr().out
    assert "labels and images belong together, in the order [s01, s02, s12]" in out
    assert "0.0% of the triplets have no nearest pair" in out
    assert "folders (two of one folder are nearer)" in out
    with pytest.raises(SystemExit) as ended:
        doctor.main([f"dataset={folder / 'shifted.npz'}", f"images={folder / 'images'}"])
    assert ended.value.code == 1
    assert "replaced by that of the image before it" in capsys.readouterr().out


def test_the_command_line_takes_a_model(folder, capsys):
    given = [f"dataset={folder / 'set.npz'}", f"images={folder / 'images'}"]
    with contextlib.suppress(SystemExit):  # a random network need not agree
        doctor.main([*given, "model=timm:resnet10t", "weights=random"])
    assert "timm:resnet10t: the same nearest pair in" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        doctor.main(given[:1])
    assert ended.value.code == 1
    assert "expected dataset=FILE.npz and images=FOLDER together, found no images" in capsys.readouterr().err


def test_own_dataset_is_checked_by_doctor(folder, tmp_path, capsys):
    given = [
        "experiment=own_dataset", f"paths.images={folder / 'images'}", "student.weights=random", "doctor.seconds=0.05",
        f"paths.artifacts={tmp_path}", f"paths.dataset={folder / 'set.npz'}",
    ]  # fmt: skip
    with contextlib.suppress(SystemExit):
        doctor.main(given)
    lines = [line for line in capsys.readouterr().out.splitlines() if "data.sets.answers" in line]
    assert any("folders (two of one folder are nearer): the same nearest pair" in line for line in lines)
    assert any(
        line.startswith("warning") and "cannot tell whether" in line for line in lines
    )  # they need be no classes


def test_errors_are_those_of_repeated_studies():
    """Images differ in how well they are answered: the mean over triplets varies as much as it is said to."""
    draw, found, said = np.random.default_rng(0), [], []
    for _ in range(300):
        rows = np.stack([draw.permutation(40)[:3] for _ in range(300)])
        gain = draw.normal(0, 1, 40)[rows].sum(1) + draw.normal(0, 1, 300)
        found.append(gain.mean())
        said.append(gain.mean() / dataset_fit._errors(gain, rows))
    assert np.sqrt(np.mean(np.square(said))) == pytest.approx(np.std(found), rel=0.15)
    alone = np.std(gain) / np.sqrt(300)
    twice = dataset_fit._errors(np.tile(gain, 20), np.tile(rows, (20, 1)))  # the same triplets say no more
    assert twice == pytest.approx(dataset_fit._errors(gain, rows), rel=1e-9)
    assert np.std(found) > 2.5 * alone  # what triplets that were independent would give
