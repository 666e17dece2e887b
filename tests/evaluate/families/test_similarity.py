"""Families over material as the stage gives it: orders, sets, embeddings of people, ceilings of repeated triplets."""

import numpy as np
import pytest
from scipy.io import savemat

from alignet.data.things import repeated_ceiling
from alignet.evaluate.families import Material, family
from alignet.evaluate.rsa import pearson_kernel, spearman


def material(features, **given):
    shared = {
        "dataset": "set", "setting": "original", "files": {}, "nodes": {}, "raw": {}, "transform": lambda rows: rows,
        "triplets": None, "picture": None, "object_rows": None, "bootstrap": 50, "seed": 0,
    }  # fmt: skip
    return Material(**(shared | {"features": features} | given))


def rows(m, seed=0, width=8):
    return np.random.default_rng(seed).normal(size=(m, width)).astype(np.float32)


def rho(matrix, features):
    upper = np.triu_indices(len(features), k=1)
    return spearman(pearson_kernel(features)[upper], matrix[upper])


def test_rows_of_a_matrix_are_the_images_sorted_by_name_or_as_a_table_says(tmp_path):
    x, ids = rows(7), [f"{letter}.png" for letter in "gcabfed"]
    judged = pearson_kernel(rows(7, 1))
    savemat(tmp_path / "m.mat", {"ratings": judged})
    one = material({"test": (x, ids)}, files={"matrix": tmp_path / "m.mat"})
    score = family("rsa")(one, {"format": "peterson"})[0]
    assert score.value == pytest.approx(rho(judged, x[np.argsort(ids)]))
    assert "rows are the images sorted by name" in score.note
    (tmp_path / "order.csv").write_text("position,file\n" + "".join(f"1,{name}\n" for name in ids))
    files = {"matrix": tmp_path / "m.mat", "order": tmp_path / "order.csv"}
    ordered = family("rsa")(
        material({"test": (x, ids)}, files=files), {"format": "peterson", "order_column": "file"}
    )
    assert ordered[0].value == pytest.approx(rho(judged, x))
    (tmp_path / "order.csv").write_text("file\n" + "".join(f"{name}\n" for name in [*ids[:-1], "z.png"]))
    with pytest.raises(ValueError, match=r"found no image 'z\.png' among 7"):
        family("rsa")(
            material({"test": (x, ids)}, files=files), {"format": "peterson", "order_column": "file"}
        )


def test_where_two_orders_of_the_names_differ_one_must_be_told(tmp_path):
    x, ids = rows(12), [f"img{number}.png" for number in range(1, 13)]
    judged = pearson_kernel(rows(12, 1))
    savemat(tmp_path / "m.mat", {"ratings": judged})
    one = material({"test": (x, ids)}, files={"matrix": tmp_path / "m.mat"})
    with pytest.raises(
        ValueError, match=r"image 2 is 'img10\.png' and by numbers 'img2\.png'; set options\.sorted"
    ):
        family("rsa")(one, {"format": "peterson"})
    natural = family("rsa")(one, {"format": "peterson", "sorted": "natural"})[0]
    assert natural.value == pytest.approx(rho(judged, x))
    assert "sorted by name, as numbers" in natural.note
    plain = family("rsa")(one, {"format": "peterson", "sorted": "plain", "note": "a sentence of its own"})[0]
    assert plain.value == pytest.approx(rho(judged, x[np.argsort(ids)]))
    assert plain.note.endswith("; a sentence of its own")
    with pytest.raises(ValueError, match=r"options\.sorted plain or natural, found 'by size'"):
        family("rsa")(one, {"format": "peterson", "sorted": "by size"})
    padded = [f"img{number:02}.png" for number in range(1, 13)]
    family("rsa")(
        material({"test": (x, padded)}, files={"matrix": tmp_path / "m.mat"}), {"format": "peterson"}
    )


def test_a_misspelled_folder_is_told_with_an_id(tmp_path):
    savemat(tmp_path / "m.mat", {"ratings": pearson_kernel(rows(4))})
    ids = [f"various/images/{letter}.png" for letter in "abcd"]
    one = material({"test": (rows(4), ids)}, files={"matrix": tmp_path / "m.mat"})
    message = r"options\.under: no image id begins with 'variuos/'; ids look like 'various/images/a\.png'"
    with pytest.raises(ValueError, match=message):
        family("rsa")(one, {"format": "peterson", "under": "variuos/"})


def test_the_mean_of_categories_has_a_score_for_each(tmp_path):
    features, files = {}, {}
    for number, name in enumerate(("animals", "fruits")):
        x = rows(8, number)
        features[name] = (x, [f"{index}.jpg" for index in range(8)])
        files[name] = tmp_path / f"{name}.mat"
        savemat(files[name], {"sim": pearson_kernel(x)})
    scores = family("rsa_mean")(material(features, files=files), {"format": "peterson"})
    found = {score.dataset: score.value for score in scores if score.metric == "rsa_spearman"}
    assert found == pytest.approx({"set animals": 1, "set fruits": 1, "set": 1})
    with pytest.raises(ValueError, match="the same names in images and data, found fruits"):
        family("rsa_mean")(material(features, files={"animals": files["animals"]}), {"format": "peterson"})


def vice(tmp_path, loc):
    np.savez(tmp_path / "pruned.npz", pruned_loc=loc, pruned_scale=np.ones_like(loc))
    return {"vice": tmp_path}


def test_similarities_that_vice_recovers_are_those_of_judged_objects_with_features(tmp_path):
    loc, x = rows(12, 2, 5), rows(6, 3)
    at = np.full(12, -1)
    at[[0, 2, 3, 7, 8, 11]] = [4, 0, 1, 5, 3, 2]
    triplets = np.array([[0, 2, 3], [7, 8, 0], [4, 5, 6]])  # 11 has features and was never judged
    given = {
        "nodes": vice(tmp_path, loc), "object_rows": at, "files": {"objects": "", "judged": ""},
        "triplets": lambda name, objects: triplets,
    }  # fmt: skip
    score = family("rsa")(material({"test": (x, list("abcdef"))}, **given), {})[0]
    kept = [0, 2, 3, 7, 8]
    positive = np.maximum(loc[kept].astype(float), 0)
    assert score.value == pytest.approx(rho(positive @ positive.T, x[at[kept]]))
    assert score.n == 10
    assert "5 of 12 objects have features; 1 with features were never judged" in score.note
    with pytest.raises(ValueError, match=r"data\.objects beside nodes\.vice"):
        family("rsa")(material({"test": (x, list("abcdef"))}, nodes=given["nodes"]), {})
    with pytest.raises(ValueError, match=r"one of data\.matrix, data\.choices and nodes\.vice, found none"):
        family("rsa")(material({"test": (x, list("abcdef"))}), {})
    with pytest.raises(ValueError, match="expected 11 objects in the embedding"):
        family("rsa")(material({"test": (x, list("abcdef"))}, **(given | {"object_rows": at[:11]})), {})


def test_the_ceiling_of_repeated_triplets_is_the_share_of_the_most_frequent_answer():
    generator = np.random.default_rng(0)
    members = np.repeat(generator.random((20, 9)).argsort(1)[:, :3], 6, axis=0)
    answers = np.array([generator.permutation(row) for row in members])
    single = np.array([[0, 1, 2]])
    sets = {"triplets": answers, "ceiling_triplets": answers[:60], "once": single}
    given = {"triplets": lambda name, objects: sets[name], "files": {"triplets": ""}}
    features = {"test": (rows(9), [str(index) for index in range(9)])}
    expected = repeated_ceiling(answers)
    accuracy = family("odd_one_out")(material(features, **given), {"ceiling": "repeated"})[0]
    assert accuracy.ceiling == pytest.approx(expected.share)
    assert (
        f"{expected.ties} of them with a tie for it, without ties {expected.share_untied:.3f}"
        in accuracy.note
    )
    assert f"others' most frequent {expected.leave_one_out:.3f}" in accuracy.note
    other = given | {"files": {"triplets": "", "ceiling_triplets": ""}}
    accuracy = family("odd_one_out")(material(features, **other), {"ceiling": "repeated"})[0]
    assert accuracy.ceiling == pytest.approx(repeated_ceiling(answers[:60]).share)
    with pytest.raises(ValueError, match=r"ceiling=repeated beside data\.ceiling_triplets"):
        family("odd_one_out")(material(features, **other), {})
    with pytest.raises(ValueError, match=r"a share as options\.ceiling, or repeated, found 'things'"):
        family("odd_one_out")(material(features, **given), {"ceiling": "things"})
    with pytest.raises(ValueError, match="answered at least twice"):
        once = given | {"triplets": lambda name, objects: single}
        family("odd_one_out")(material(features, **once), {"ceiling": "repeated"})


def test_exact_probabilities_of_another_set_are_refused(tmp_path):
    np.save(tmp_path / "p.npy", np.full((2, 3), 1 / 3, np.float32))
    given = {
        "triplets": lambda name, objects: np.array([[0, 1, 2]]),
        "files": {"probabilities": tmp_path / "p.npy"},
    }
    with pytest.raises(ValueError, match=r"a row of data\.probabilities for each of 1 triplets, found 2"):
        family("odd_one_out")(material({"test": (rows(4), list("abcd"))}, **given), {})


def test_calibration_fits_to_none_of_the_triplets_it_reports(tmp_path):
    generator = np.random.default_rng(0)
    report, other = (generator.random((200, 9)).argsort(1)[:, :3] for _ in range(2))
    np.save(tmp_path / "probabilities.npy", np.full((200, 3), 1 / 3, np.float32))
    sets = {"triplets": report, "fit_triplets": np.concatenate([other, report[:5, [2, 0, 1]]])}
    given = {"triplets": lambda name, objects: sets[name], "nodes": {"soft_labels": tmp_path}}
    files = {"triplets": "", "fit_triplets": ""}
    x = (rows(9), [str(index) for index in range(9)])
    options = {"tau": "fit", "bins": 15, "grid": [1.0], "note": "met before"}
    result = family("calibration")(material({"test": x}, files=files, **given), options)
    scores = {score.metric: score for score in result.scores}
    shared = np.isin(np.sort(sets["fit_triplets"], 1) @ [1, 100, 10000], np.sort(report, 1) @ [1, 100, 10000])
    assert result.tables["fits"]["triplets"].tolist() == [205 - shared.sum()]
    assert f"{shared.sum()} triplets that are reported on were not fitted to" in scores["choice_nll"].note
    assert "kl_to_people" in scores
    assert all(
        "met before" in score.note for name, score in scores.items() if name != "calibration_error_spread"
    )
    separate = family("calibration")(material({"test": x, "fit": x}, files=files, **given), options)
    assert separate.tables["fits"]["triplets"].tolist() == [205]
    sets["fit_triplets"] = report
    with pytest.raises(ValueError, match="that are not reported on, found none"):
        family("calibration")(material({"test": x}, files=files, **given), options)
    with pytest.raises(ValueError, match=r"data\.fit_triplets beside images\.fit"):
        family("calibration")(material({"test": x, "fit": x}, files={"triplets": ""}, **given), options)


def test_sets_whose_files_differ_have_keys_and_orders_of_their_own(tmp_path):
    """As Peterson's vegetables do: two batches and their mean, under names of their own."""
    from scipy.stats import spearmanr

    from alignet.evaluate.families.options import check_options

    names = {"animals": [f"{row}.png" for row in range(12)], "plants": [f"p{row:02}.png" for row in range(9)]}
    features = {name: (rows(len(ids), seed), ids) for seed, (name, ids) in enumerate(names.items())}
    generator = np.random.default_rng(1)

    def judged(m):
        half = np.triu(generator.random((m, m)), 1)
        return half + half.T

    first, second, plants = judged(12), judged(12), judged(9)
    savemat(tmp_path / "animals.mat", {"one": first, "two": second, "mean": (first + second) / 2})
    savemat(tmp_path / "plants.mat", {"simMatrix": plants})
    files = {name: tmp_path / f"{name}.mat" for name in names}
    sets = {"animals": (features["animals"][0], sorted(names["animals"])), "plants": features["plants"]}
    given = material(sets, files=files)

    def scores(**options):
        check_options("fine", "rsa_mean", {"format": "peterson", **options})
        return {one.dataset: one for one in family("rsa_mean")(given, {"format": "peterson", **options})}

    with pytest.raises(ValueError, match=r"found several in one \(12, 12\), two \(12, 12\).*options.key"):
        scores(sorted={"animals": "natural"})
    found = scores(sorted={"animals": "natural"}, key={"animals": "mean"})
    by_batch = scores(sorted={"animals": "natural"}, key={"animals": ["one", "two"]})
    (animals,) = (name for name in found if name.endswith("animals"))
    assert found[animals].value == pytest.approx(by_batch[animals].value)
    upper = np.triu_indices(12, 1)
    said = spearmanr(first[upper], second[upper]).statistic
    assert f"Spearman's rho {said:.3f}" in by_batch[animals].note
    assert scores(sorted={"animals": "plain"}, key={"animals": "mean"})[animals].value != found[animals].value
    with pytest.raises(
        ValueError, match="expected options for the sets animals, plants, found some for fruits"
    ):
        scores(sorted={"fruits": "plain"}, key="mean")
    with pytest.raises(
        ValueError, match=r"options\.key: expected text or a list of such or a mapping of such by set"
    ):
        scores(key={"animals": 3})
