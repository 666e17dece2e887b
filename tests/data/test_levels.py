"""Trials with response times: what counts, by hand-made tables; files as they come, and damaged ones."""

import csv
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignet.data.levels import entropy_of_counts, majority, read_tidy, tidy, write_tidy
from alignet.data.trials import read_trials
from tests.makers.trials import catch, save, study, trial

RULES = {"catch_accuracy": 0.9, "max_misses": 10, "slow_ms": 10_000.0}
ABC = ["a.jpg", "b.jpg", "c.jpg"]
NAMES = [f"{letter}.jpg" for letter in "abcdefghijklmnopqrstuvwxyz"]


def found(tmp_path, rows, **rules):
    return tidy(read_trials(save(tmp_path / "trials.csv", rows)), **(RULES | rules))


def person(name, odd="a.jpg", *, wrong=0, misses=0, rt=1500.0, more=()):
    """20 catch trials, of which `wrong` are; one answer about a, b, c; `misses` others; and `more` triplets."""
    rows = [trial(name, 0, ABC, odd, "within_class", rt)]
    rows += [
        trial(name, 1 + n, [NAMES[3 + n], NAMES[4 + n], NAMES[5 + n]], "", "between_class", "")
        for n in range(misses)
    ]
    rows += [trial(name, 50 + n, shown, shown[0], "class_boundary") for n, shown in enumerate(more)]
    return rows + [catch(name, 100 + n, NAMES, right=n >= wrong) for n in range(20)]


def test_participants_who_fail_catch_trials_or_miss_too_many_disappear(tmp_path):
    more = [[NAMES[n], NAMES[n + 1], NAMES[n + 2]] for n in range(16, 22)]
    rows = [
        *person("fine", "a.jpg", wrong=2, misses=10), *person("careless", "b.jpg", wrong=3, more=more[:1]),
        *person("absent", "b.jpg", misses=11), *person("other", "c.jpg", more=more[1:2]),
    ]  # fmt: skip
    result = found(tmp_path, rows)
    assert set(result.trials["participant"]) == {"fine", "other"}
    assert result.summary["left_out"] == {"catch trials": 1, "no catch trial": 0, "misses": 1}
    assert (result.summary["participants"], result.summary["kept"], result.summary["misses"]) == (4, 2, 10)
    row = list(result.triplets["image1"]).index("a.jpg")
    assert [int(result.triplets[f"answers{n}"][row]) for n in (1, 2, 3)] == [1, 0, 1]
    assert result.triplets["odd"][row] == -1
    assert result.summary["by_level"]["fine"] == {"trials": 2, "triplets": 1, "modal_ties": 1}
    everyone = found(tmp_path, rows, catch_accuracy=0.0, max_misses=11)
    assert everyone.summary["kept"] == 4
    with pytest.raises(ValueError, match=r"found none of 4 \(4 for catch trials\)"):
        found(tmp_path, [{**row, "selected_image": ""} for row in rows])
    no_catch = [row for row in rows if row["participant"] != "other" or row["exp_trial_type"] == "exp_trial"]
    assert found(tmp_path, no_catch).summary["left_out"]["no catch trial"] == 1


def sharing():
    """Five of whom the last two have one set; the two further sets are not about a, b, c."""
    others = [row for n in (7, 9) for row in person(f"other{n}", more=[NAMES[n : n + 3]])[1:]]
    return [
        *person("alone", "a.jpg", more=[NAMES[3:6]], rt=1000.0), *others, *person("first", "b.jpg", rt=2000.0),
        *person("second", "b.jpg", rt=4000.0),
    ]  # fmt: skip


def test_of_equal_sets_one_counts_for_times_and_disagreement_and_all_for_the_majority(tmp_path):
    rows = sharing()
    result = found(tmp_path, rows)
    row = list(result.triplets["image1"]).index("a.jpg")
    at = {name: values[row] for name, values in result.triplets.items()}
    assert [at["answers1"], at["answers2"], at["answers3"]] == [1, 2, 0]
    assert at["odd"] == 1
    assert [at["unique1"], at["unique2"], at["unique3"]] == [1, 1, 0]
    assert at["entropy"] == pytest.approx(math.log(2))
    assert at["timed"] == 2
    assert at["mean_log_rt"] == pytest.approx((math.log(1) + math.log(2)) / 2)
    assert result.summary["sharing_a_set"] == 1
    assert not result.trials["unique"][result.trials["participant"] == "second"].any()


def test_where_many_share_a_set_all_count_or_it_is_said(tmp_path):
    everyone = found(tmp_path, sharing(), shared_sets="all")
    assert everyone.triplets["timed"][0] == 3
    assert [int(everyone.triplets[f"unique{n}"][0]) for n in (1, 2, 3)] == [1, 2, 0]
    assert everyone.summary["sharing_a_set"] == 0
    one_list = [row for n in range(20) for row in person(f"p{n}", more=[NAMES[3:6]])]
    with pytest.raises(ValueError, match=r"found 19 of 20 who share .* levels\.shared_sets=all"):
        found(tmp_path, one_list)
    result = found(tmp_path, one_list, shared_sets="all")
    assert result.trials["unique"].all()
    assert result.triplets["timed"].tolist() == [20, 20]
    with pytest.raises(ValueError, match="expected shared_sets to be one of first, all, found 'none'"):
        found(tmp_path, one_list, shared_sets="none")


def test_slow_answers_count_for_the_majority_and_not_for_times(tmp_path):
    rows = [*person("quick", rt=10_000.0), *person("slow", rt=10_001.0, more=[["d.jpg", "e.jpg", "f.jpg"]])]
    result = found(tmp_path, rows)
    assert result.triplets["answers1"][0] == 2
    assert result.triplets["timed"][0] == 1
    assert result.triplets["mean_log_rt"][0] == pytest.approx(math.log(10))
    assert result.summary["slow"] == 1
    assert np.isnan(result.trials["log_rt"][result.trials["rt_ms"] == 10_001.0]).all()


def test_a_triplet_in_another_order_is_the_same_and_a_second_answer_to_it_is_not_counted(tmp_path):
    rows = [
        *person("one", "b.jpg"), trial("one", 7, ["c.jpg", "a.jpg", "b.jpg"], "c.jpg", "fine"),
        *person("two", "b.jpg", more=[["d.jpg", "e.jpg", "f.jpg"]]),
    ]  # fmt: skip
    rows[-22]["image1Path"], rows[-22]["image2Path"], rows[-22]["image3Path"] = ABC[::-1]
    result = found(tmp_path, rows)
    assert [int(result.triplets[f"answers{n}"][0]) for n in (1, 2, 3)] == [0, 2, 0]
    assert result.summary["repeated_by_one"] == 1
    assert result.summary["triplets"] == 2
    rows[-22]["triplet_type"] = "between_class"
    with pytest.raises(ValueError, match="expected one triplet_type for each triplet, found two for a"):
        found(tmp_path, rows)


@pytest.mark.parametrize(
    ("counts", "nats", "odd"),
    [
        ((5, 0, 0), 0.0, 0),
        ((0, 0, 2), 0.0, 2),
        ((2, 2, 1), -(0.8 * math.log(0.4) + 0.2 * math.log(0.2)), -1),
        ((1, 3, 1), -(0.6 * math.log(0.6) + 0.4 * math.log(0.2)), 1),
        ((2, 2, 2), math.log(3), -1),
    ],
)
def test_entropy_and_majority_of_known_counts(counts, nats, odd):
    assert entropy_of_counts(np.array([counts]))[0] == pytest.approx(nats, abs=1e-15)
    assert majority(np.array([counts]))[0] == odd


def test_fewer_than_two_answers_have_no_entropy():
    assert np.isnan(entropy_of_counts(np.array([[0, 0, 0], [0, 1, 0]]))).all()


def test_csv_and_parquet_give_the_same_and_the_tables_survive_the_disk(tmp_path):
    rows = study(0, triplets=12).rows
    first = tidy(read_trials(save(tmp_path / "a.csv", rows)), **RULES)
    columns = {name: [None if row[name] == "" else row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    second = tidy(read_trials(tmp_path / "a.parquet"), **RULES)
    write_tidy(tmp_path, first)
    assert not list(tmp_path.glob("*.tmp"))
    for table in ("trials", "triplets"):
        again = read_tidy(tmp_path, table)
        for name, values in getattr(second, table).items():
            np.testing.assert_array_equal(values, getattr(first, table)[name], err_msg=name)
            np.testing.assert_array_equal(values, again[name], err_msg=name)
    assert first.summary == second.summary
    assert first.summary["kept"] == 10
    assert first.summary["sharing_a_set"] == 0


def test_tab_and_semicolon_names_without_suffix_and_correct_image(tmp_path):
    rows = person("one")
    for row in rows:
        if row["exp_trial_type"] == "catch_trial":
            row["image3Path"], row["correct_image"] = "z.jpg", "b.jpg"
        else:
            row["selected_image"] = "a"
    expected = read_trials(save(tmp_path / "c.csv", rows))
    assert (expected.right[expected.catch] == 1).all()
    assert (expected.selected >= 0).all()
    for separator in "\t;":
        with open(tmp_path / "t.csv", "w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
        np.testing.assert_array_equal(read_trials(tmp_path / "t.csv").selected, expected.selected)
    numbered = read_trials(save(tmp_path / "n.csv", without(rows, "trial")))
    assert numbered.number.tolist() == list(range(21))


def test_blank_lines_are_passed_over_and_an_empty_file_is_said_to_be_one(tmp_path):
    path = save(tmp_path / "t.csv", person("one"))
    expected, text = read_trials(path), path.read_text()
    path.write_text("\n" + text.replace("\n", "\n\n  \n"))
    np.testing.assert_array_equal(read_trials(path).selected, expected.selected)
    path.write_text("\n\n" + text.replace("\n", "\n\n") + "one,2\n")
    with pytest.raises(ValueError, match=rf"on line {2 + 2 * 22 + 1}, found 2"):
        read_trials(path)
    for empty in ("", "\n\n", "\ufeff"):
        path.write_text(empty, encoding="utf-8")
        with pytest.raises(ValueError, match="expected a table of trials, found an empty file"):
            read_trials(path)


def test_names_fit_without_folders_where_that_is_not_ambiguous(tmp_path):
    rows = person("one")
    expected = read_trials(save(tmp_path / "a.csv", rows)).selected
    images = ("image1Path", "image2Path", "image3Path")
    for change in (
        lambda name: f"images/{name}",
        lambda name: f"C:\\images\\{name}",
        lambda name: f"images/{name}".replace(".jpg", ".JPEG"),
    ):
        moved = [{**row, **{column: change(row[column]) for column in images}} for row in rows]
        np.testing.assert_array_equal(read_trials(save(tmp_path / "b.csv", moved)).selected, expected)
    first = {**rows[0], "image1Path": "x/a.jpg", "image2Path": "y/a.jpg", "selected_image": "a.jpg"}
    with pytest.raises(ValueError, match=r"selected_image to name one of the three images, found 'a\.jpg'"):
        read_trials(save(tmp_path / "c.csv", [first, *rows[1:]]))
    # the name of another trial's image is no misspelling, and what follows a dot is a suffix only of an image
    shown = {"image1Path": "a.png", "image2Path": "b.jpg", "image3Path": "c.jpg"}
    with pytest.raises(ValueError, match=r"selected_image to name one of the three images, found 'a\.jpg'"):
        read_trials(save(tmp_path / "d.csv", [rows[0] | shown | {"selected_image": "a.jpg"}, *rows[1:]]))
    shown |= {"image1Path": "v1.0", "selected_image": "v1.5"}
    with pytest.raises(ValueError, match=r"found 'v1\.5'"):
        read_trials(save(tmp_path / "e.csv", [rows[0] | shown, *rows[1:]]))


def without(rows, column):
    return [{name: value for name, value in row.items() if name != column} for row in rows]


def changed(column, value, row=0):
    def change(rows):
        rows[row][column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("selected_image", "x.jpg"), "selected_image to name one of the three images, found 'x.jpg' in row 1"),
        (changed("triplet_type", "super"), "triplet_type to be one of between_class, .*found 'super' in row 1"),
        (changed("exp_trial_type", "odd"), "exp_trial_type to be one of exp_trial, catch_trial, found 'odd'"),
        (changed("rt", ""), "expected rt above 0 ms wherever an image was selected, found None in row 1, one of 1"),
        (changed("rt", "-5"), "expected rt above 0 ms"),
        (changed("rt", "soon"), "expected a number as rt, found 'soon' in row 1"),
        (changed("rt", "inf"), "expected rt above 0 ms"),
        (changed("trial", "1.5"), "expected a whole number as trial, found '1.5' in row 1"),
        (changed("participant", ""), "expected participant in every row, found none in row 1"),
        (changed("image2Path", "a.jpg"), "expected three different images in each ordinary trial, found one twice"),
        (changed("image3Path", "q.jpg", -1), "the right answer to every catch trial, found none for 1, .*row 21"),
        (lambda rows: [{**row, "rt": 1.5} for row in rows], "expected rt in milliseconds, found a median of 1.5"),
        (lambda rows: rows[:1], "expected catch trials .* levels.catch_accuracy=0 if nobody was asked any"),
        (lambda rows: rows[1:], "trials beside the catch trials of 1 of 1 participants who count, found none; check"),
        (lambda rows: [{**row, "participant": f"p{number}"} for number, row in enumerate(rows)],
         r"of 20 of 21 participants who count, found none; 1 were left out \(1 for no catch trial\)"),
        (lambda rows: without(rows, "rt"), "found no rt among participant, trial"),
        (lambda rows: [{**row, "image1": "a.jpg"} for row in rows], "found image1 beside image1Path"),
    ],
)  # fmt: skip
def test_what_a_table_may_not_hold(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        found(tmp_path, change(person("one")))


def test_damaged_files(tmp_path):
    rows = person("one")
    path = save(tmp_path / "t.csv", rows)
    text = path.read_text()
    path.write_text(text[: text.rindex(",catch_trial")])
    with pytest.raises(ValueError, match="expected 10 columns on line 22, found 7; the file is truncated"):
        read_trials(path)
    path.write_text(text.splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="expected at least one trial, found none"):
        read_trials(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="expected a table of trials as text in UTF-8, found other bytes"):
        read_trials(path)
    pq.write_table(
        pa.table({name: [str(row[name]) for row in rows] for name in rows[0]}), tmp_path / "t.parquet"
    )
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="expected a Parquet file, found a damaged or truncated one"):
        read_trials(tmp_path / "t.parquet")
    with pytest.raises(
        ValueError, match=r"pickles are not opened: convert one with `python -m alignet.stages.convert"
    ):
        read_trials(tmp_path / "t.pkl")
    with pytest.raises(ValueError, match="found no file"):
        read_trials(tmp_path / "none.csv")


def test_the_stage_makes_a_node(tmp_path):
    from alignet.pipeline.cli import load
    from alignet.pipeline.commands import run_stage

    made = study(1, triplets=10)
    path = save(tmp_path / "trials.csv", made.rows)
    options = [
        "experiment=own", f"paths.images={tmp_path}", f"paths.map={path}", f"paths.artifacts={tmp_path / 'store'}",
        f"+data.sets.asked={{kind: trials, path: '{path}'}}", "role=asked",
        "+evaluate.datasets.people={family: levels_people, images: {}, data: {}, nodes: {levels: 'levels[asked]'}, "
        "settings: [data], options: {}}",
    ]  # fmt: skip
    for stage in ("index", "levels"):
        run_stage(load(options), stage)
    (manifest,) = (tmp_path / "store/levels").glob("*/MANIFEST.json")
    metrics = json.loads(manifest.read_text())["metrics"]
    assert metrics["kept"] == 10
    assert metrics["triplets"] == 30
    assert set(metrics["by_level"]) == {"coarse", "fine", "boundary"}
    assert len(read_tidy(manifest.parent, "triplets")["odd"]) == 30


def test_the_doctor_says_what_is_in_the_table(tmp_path):
    from alignet.doctor.files import describe

    path = save(tmp_path / "trials.csv", study(0, triplets=5).rows)
    assert describe("trials", read_trials(path)) == "225 trials of 10 participants about 36 images"
    assert describe("file", path) == f"a file of {path.stat().st_size:,} bytes"
