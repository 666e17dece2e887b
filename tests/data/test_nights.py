"""NIGHTS: items from data.csv by position and name, damaged files, and two-alternative choices by brute force."""

import numpy as np
import pytest

from alignet.data.nights import load_nights
from alignet.evaluate.nights import two_alternatives

HEADER = "id,prompt,choice,unused,reference,first,second,votes,split,is_imagenet"


def item(number, label=1, votes=6, split="test", imagenet="True"):
    paths = [f"ref/{number}.png", f"distort/{number}_0.png", f"distort/{number}_1.png"]
    return [str(number), '"a dog, running"', str(label), "0", *paths, str(votes), split, imagenet]


ITEMS = [
    item(0), item(1, 0, 8), item(2, 1, 5), item(3, 1, 7, "train"), item(4, 0, 6, imagenet="False"), item(5, 0),
]  # fmt: skip


def save(path, items=ITEMS, header=HEADER):
    path.write_text("\n".join([header, *(",".join(one) for one in items)]) + "\n")
    return path


def load(path, **options):
    return load_nights(path, **({"split": "test", "min_votes": 6, "is_imagenet": None} | options))


def test_items_are_kept_by_split_votes_and_source(tmp_path):
    found = load(save(tmp_path / "data.csv"))
    assert [one[0] for one in found.pictures] == ["ref/0.png", "ref/1.png", "ref/4.png", "ref/5.png"]
    assert found.pictures[1] == ("ref/1.png", "distort/1_0.png", "distort/1_1.png")
    assert found.right_chosen.tolist() == [True, False, False, False]
    assert found.note == "split test, 1 items with fewer than 6 votes left out"
    only = load(tmp_path / "data.csv", is_imagenet=False)
    assert (len(only.pictures), only.note[:26]) == (1, "split test of other source")
    assert len(load(tmp_path / "data.csv", is_imagenet=True, min_votes=0).pictures) == 4
    ids = sorted({path for one in found.pictures for path in one})
    assert [ids[row] for row in found.rows(ids)[2]] == list(found.pictures[2])
    with pytest.raises(ValueError, match=r"found 1 missing, the first ref/5\.png"):
        found.rows([name for name in ids if name != "ref/5.png"])


@pytest.mark.parametrize(
    ("items", "header", "message"),
    [
        (ITEMS, HEADER.replace("votes", "count"), "votes, split, is_imagenet among them, found id, prompt"),
        (ITEMS, "votes,split,is_imagenet", "a header with 7 or more columns"),
        ([*ITEMS, item(9)[:5]], HEADER, "10 columns on line 8, found 5; the file is truncated"),
        ([item(0, 2)], HEADER, r"expected 0 \(left\) or 1 \(right\) in column 2 on line 2, found '2'"),
        ([item(0, "left")], HEADER, "a number as the label in column 2 on line 2, found 'left'"),
        ([item(0, votes="nan")], HEADER, "a number as votes on line 2, found 'nan'"),
        ([item(0, imagenet="maybe")], HEADER, "True or False as is_imagenet on line 2, found 'maybe'"),
        ([item(0, split="train")], HEADER, "items of the split 'test' with 6 or more votes, found none; the splits "),
        ([], "", "a header with 7 or more columns"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_clear_message(tmp_path, items, header, message):
    with pytest.raises(ValueError, match=message):
        load(save(tmp_path / "data.csv", items, header), is_imagenet=True)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"expected NIGHTS' data\.csv, found no file"):
        load(tmp_path / "data.csv")
    (tmp_path / "data.csv").write_bytes(b"\xff\xfe\x00data")
    with pytest.raises(ValueError, match=r"as text in UTF-8, found other bytes .*UTF-16"):
        load(tmp_path / "data.csv")


def test_agreement_equals_brute_force_and_falls_to_chance_when_choices_are_shuffled():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(900, 8))
    rows = generator.permutation(900).reshape(300, 3)
    nearer = np.array([features[a] @ features[c] > features[a] @ features[b] for a, b, c in rows])
    right = np.where(generator.random(300) < 0.8, nearer, ~nearer)
    dot, cosine = two_alternatives(features, rows, right, dataset="nights", seed=0, bootstrap=300)
    assert dot.value == pytest.approx((right == nearer).mean())
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    by_angle = [unit[a] @ unit[c] > unit[a] @ unit[b] for a, b, c in rows]
    assert cosine.value == pytest.approx((right == by_angle).mean())
    assert dot.low < dot.value < dot.high
    assert (dot.metric, dot.n, dot.unit, dot.chance, dot.ceiling) == (
        "two_alternatives", 300, "items", 0.5, None,
    )  # fmt: skip
    wrong = two_alternatives(features, rows, generator.permutation(right), dataset="n", seed=0)[0]
    assert wrong.low < 0.5 < wrong.high


def test_ties_are_wrong_and_told_and_bad_input_is_refused():
    rows = np.arange(9).reshape(3, 3)
    for right in (np.ones(3, bool), np.zeros(3, bool)):
        for score in two_alternatives(np.full((9, 7), 0.3), rows, right, dataset="n", seed=0, bootstrap=5):
            assert (score.value, score.note) == (0, "3 ties, counted as wrong")
    with pytest.raises(ValueError, match=r"rows in 0\.\.8, found 0\.\.9"):
        two_alternatives(np.ones((9, 2)), rows + np.array([0, 0, 1]), np.ones(3, bool), dataset="n", seed=0)
    with pytest.raises(ValueError, match="finite features"):
        two_alternatives(np.full((9, 2), np.nan), rows, np.ones(3, bool), dataset="n", seed=0)
    with pytest.raises(ValueError, match="found \\(3, 3\\) and \\(4,\\)"):
        two_alternatives(np.ones((9, 2)), rows, np.ones(4, bool), dataset="n", seed=0)
