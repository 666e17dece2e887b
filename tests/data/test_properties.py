"""Properties that hold of every input: what is written is read back.

Hypothesis draws the inputs, always the same ones (derandomize), and shrinks what fails.
"""

import csv
import io
import math
import tarfile

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from alignet.data import npy
from tests.makers.drawn import choices

FLOATS = st.floats(-1e3, 1e3, width=32)
DTYPES = st.one_of(
    hn.integer_dtypes(), hn.unsigned_integer_dtypes(), hn.floating_dtypes(sizes=(16, 32, 64)), hn.boolean_dtypes(),
    hn.unicode_string_dtypes(min_len=1, max_len=5),
)  # fmt: skip
ARRAYS = DTYPES.flatmap(
    lambda dtype: hn.arrays(dtype, hn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters="\ufeff/"),
    min_size=1, max_size=8,
)  # fmt: skip
NAMES = WORDS.filter(
    lambda name: not name.startswith(".") and name == name.strip() and name.splitlines() == [name]
)


def table(header, rows, separator=","):
    handle = io.StringIO()
    csv.writer(handle, delimiter=separator, lineterminator="\n").writerows([header, *rows])
    return handle.getvalue()


@given(ARRAYS, st.booleans())
def test_npy(tmp_path, array, view):
    path = tmp_path / "a.npy"
    for one in (array, np.asfortranarray(array)):
        np.save(path, one)
        found = npy.read_npy(path, memory_map=view)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


@given(
    st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), ARRAYS, min_size=1, max_size=4),
    st.booleans(),
)
def test_npz(tmp_path, arrays, packed):
    path = tmp_path / "a.npz"
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    found = npy.read_npz(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@given(
    choices(),
    st.sampled_from([".npy", ".txt"]),
    st.integers(0, 1),
    st.sampled_from(["last", "first", "middle"]),
)
def test_triplets(tmp_path, drawn, suffix, base, odd):
    from alignet.data.triplets import load_triplets, save_triplets

    triplets, m = drawn
    save_triplets(tmp_path / f"a{suffix}", triplets)
    plain = load_triplets(tmp_path / f"a{suffix}", objects=m, index_base=0, odd_one="last")
    np.testing.assert_array_equal(plain, triplets)
    there = {"last": [0, 1, 2], "first": [2, 0, 1], "middle": [0, 2, 1]}[odd]
    np.save(tmp_path / "b.npy", triplets[:, there] + base)
    found = load_triplets(tmp_path / "b.npy", objects=m, index_base=base, odd_one=odd)
    np.testing.assert_array_equal(found, triplets)


@given(choices(), st.sampled_from(["\t", ",", ";"]), st.integers(0, 1), st.data())
def test_tables_of_choices(tmp_path, drawn, separator, base, data):
    from alignet.data.triplets import load_triplets

    triplets, m = drawn
    rows = []
    for a, b, odd in (triplets + base).tolist():
        place = data.draw(st.integers(1, 3))
        three = [a, b]
        three.insert(place - 1, odd)
        rows.append([*three, place, data.draw(st.integers(0, 2))])
    path = tmp_path / "a.csv"
    path.write_text(table(["image1", "image2", "image3", "choice", "part"], rows, separator))
    found = load_triplets(path, objects=m, index_base=base, odd_one="choice")
    np.testing.assert_array_equal(found, triplets)
    part = np.array([row[-1] for row in rows])
    if (part == 1).any():
        some = load_triplets(path, objects=m, index_base=base, odd_one="choice", where={"part": [1]})
        np.testing.assert_array_equal(some, triplets[part == 1])


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=9)
ROWS = st.lists(st.tuples(NAMES, CELLS), min_size=1, max_size=6, unique_by=lambda row: row[0])


@given(ROWS, st.sampled_from([",", ";", "\t"]), st.booleans())
def test_tables(tmp_path, rows, separator, mark):
    from alignet.data.tables import column_for, read_column

    path = tmp_path / "a.csv"
    path.write_text(table(["id", "label"], rows, separator), encoding="utf-8-sig" if mark else "utf-8")
    ids = [name for name, _ in reversed(rows)]
    assert column_for(path, ids, "label") == [label for _, label in reversed(rows)]
    assert read_column(path, "id") == [name for name, _ in rows]


@given(
    hn.arrays(
        np.float32, hn.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(0, 9, width=32)
    )
)
def test_embeddings(tmp_path, loc):
    from alignet.data.embeddings import load_embedding

    np.save(tmp_path / "a.npy", loc)
    assert np.array_equal(load_embedding(tmp_path / "a.npy", len(loc)).loc, loc)
    for names in (("loc", "scale"), ("pruned_loc", "pruned_scale")):
        np.savez(tmp_path / "a.npz", **dict(zip(names, (-loc, loc / 2))))
        found = load_embedding(tmp_path / "a.npz", len(loc))
        assert np.array_equal(found.loc, -loc)
        assert np.array_equal(found.scale, loc / 2)


@given(
    st.sampled_from(["<f2", "<f4", "<f8", ">f4"]),
    st.lists(NAMES, min_size=1, max_size=6, unique=True),
    st.data(),
)
def test_features(tmp_path, dtype, ids, data):
    from alignet.data.features import load_features, rows_for

    values = data.draw(hn.arrays(np.float32, (len(ids), 3), elements=st.floats(-100, 100, width=16))).astype(
        dtype
    )
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")
    found = load_features(tmp_path / "a.npy", tmp_path / "ids.txt")
    assert found.ids == ids
    assert np.array_equal(found.values, values.astype(np.float32))
    order = data.draw(st.permutations(ids))
    assert [ids[row] for row in rows_for(order, found.ids)] == order


@given(choices(), st.data())
def test_data_sets_of_alignet(tmp_path, drawn, data):
    from alignet.data.alignet_npz import load_dataset, save_dataset

    triplets, m = drawn
    ids = data.draw(st.lists(st.from_regex(r"[a-z]{1,3}/[a-z0-9]{1,6}\.png", fullmatch=True), min_size=m, max_size=m,
                             unique_by=lambda name: name))  # fmt: skip
    sims = data.draw(hn.arrays(np.float32, triplets.shape, elements=FLOATS))
    save_dataset(tmp_path / "a.npz", ids, triplets, sims)
    found = load_dataset(tmp_path / "a.npz", ids, order="as_is")
    np.testing.assert_array_equal(found.triplets, triplets)
    np.testing.assert_array_equal(found.similarities, sims)
    assert (found.dropped, found.matched) == (0, "name")
    moved = data.draw(st.permutations(ids))
    again = load_dataset(tmp_path / "a.npz", moved, order="as_is")
    assert [[moved[row] for row in one] for one in again.triplets] == [
        [ids[row] for row in one] for one in triplets
    ]


@given(st.dictionaries(st.from_regex("[a-z]{1,4}(/[a-z]{1,4})?", fullmatch=True), st.tuples(st.binary(max_size=700),
                       st.integers(-5, 999)), min_size=1, max_size=5))  # fmt: skip
def test_shards(tmp_path, samples):
    from alignet.data.shards import checksums, list_shards, shard_labels, shard_source

    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, (image, label) in samples.items():
            for member, content in ((f"{name}.png", image), (f"{name}.cls", str(label).encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    listing = list_shards(path)
    places = shard_source(path, listing.images).places
    content = {}
    for name, place in places.items():
        content[name] = path.read_bytes()[place.offset : place.offset + place.size]
    assert content == {f"{name}.png": image for name, (image, _) in samples.items()}
    assert shard_labels(path) == {f"{name}.png": label for name, (_, label) in samples.items()}
    import hashlib

    assert checksums(listing) == {name: hashlib.sha256(image).hexdigest() for name, image in content.items()}


@st.composite
def symmetric(draw):
    m = draw(st.integers(3, 6))
    values = draw(hn.arrays(np.float64, (m, m), elements=st.floats(-9, 9)))
    square = (values + values.T) / 2
    np.fill_diagonal(square, 0)
    return square


@given(
    symmetric(),
    st.sampled_from(["npy", "csv", "mat", "vector"]),
    st.sampled_from(["similarity", "dissimilarity"]),
)
def test_judgements(tmp_path, square, how, kind):
    from scipy.io import savemat
    from scipy.spatial.distance import squareform

    from alignet.data.judgements import load_judgements

    path = tmp_path / f"a.{'npy' if how == 'vector' else how}"
    if how == "csv":
        path.write_text("\n".join(",".join(map(repr, row)) for row in square.tolist()))
    elif how == "mat":
        savemat(path, {"judged": square})
    else:
        np.save(path, square if how == "npy" else squareform(square, checks=False))
    found = load_judgements(path, format="matrix", images=len(square), kind=kind).similarity
    np.testing.assert_array_equal(found if kind == "similarity" else -found, square)


MATRICES = hn.arrays(
    np.float64, hn.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=4), elements=st.floats(-9, 9)
)


@given(
    st.dictionaries(st.from_regex("[a-z]{1,6}", fullmatch=True), MATRICES, min_size=1, max_size=3),
    st.booleans(),
)
def test_matlab(tmp_path, arrays, packed):
    from scipy.io import savemat

    from alignet.data.matlab import read_mat

    savemat(tmp_path / "a.mat", {**arrays, "inside": {"one": arrays}}, do_compression=packed)
    found = read_mat(tmp_path / "a.mat")
    expected = {**arrays, **{f"inside.one.{name}": array for name, array in arrays.items()}}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


CLASS = st.from_regex("[a-z]{1,5}", fullmatch=True)


@given(st.lists(st.tuples(CLASS, st.sampled_from(["", "animal", "tool"]), st.booleans(), CLASS), min_size=1, max_size=6,
                unique_by=lambda row: row[0]), st.randoms())  # fmt: skip
def test_concepts_and_hierarchies(tmp_path, rows, chance):
    from alignet.data.concepts import load_concepts
    from alignet.data.hierarchy import table_hierarchy

    lines = [
        [index, name, kind, f"{name}.jpg" if photo else "", split]
        for index, (name, kind, photo, split) in enumerate(rows)
    ]
    shuffled = list(lines)
    chance.shuffle(shuffled)
    (tmp_path / "a.csv").write_text(table(["index", "unique_id", "category", "photo", "split"], shuffled))
    found = load_concepts(tmp_path / "a.csv")
    assert [[one.index, one.unique_id, one.category, one.photo, one.split] for one in found] == lines
    tree = table_hierarchy(
        tmp_path / "a.csv",
        class_="unique_id",
        basic="unique_id",
        superordinate="category",
        merge={"tool": "thing"},
    )
    assert tree.superordinate == {name: kind.replace("tool", "thing") for name, kind, _, _ in rows}


@given(st.lists(st.lists(st.integers(0, 30), max_size=2, unique=True), min_size=2, max_size=12))
def test_wordnet(tmp_path, parents):
    """Each synset's hypernyms are of those before it."""
    from alignet.data.hierarchy import read_hypernyms

    above = {
        number: sorted({parent % number for parent in found} if number else set())
        for number, found in enumerate(parents)
    }
    lines = ["  1 a licence"]
    for number, found in above.items():
        pointers = "".join(f" @ {10 * parent:08} n 0000" for parent in found)
        lines.append(f"{10 * number:08} 03 n 01 word 0 {len(found):03}{pointers} | a gloss | of it")
    (tmp_path / "data.noun").write_text("\n".join(lines) + "\n")
    expected = {f"n{10 * one:08}": [f"n{10 * other:08}" for other in found] for one, found in above.items()}
    assert read_hypernyms(tmp_path / "data.noun") == expected


TRIALS = st.tuples(
    st.integers(0, 3), st.permutations(range(5)), st.integers(-1, 2), st.integers(0, 2), st.floats(100, 9000)
)


@settings(max_examples=25)
@given(st.lists(TRIALS, min_size=1, max_size=12), st.sampled_from(["csv", "parquet"]))
def test_trials_and_levels(tmp_path, rows, suffix):
    import pandas as pd

    from alignet.data.levels import read_tidy, tidy, write_tidy
    from alignet.data.trials import LEVELS, read_trials

    names = [f"{letter}.jpg" for letter in "abcde"]
    level_of = {}  # a triplet has one level
    content = []
    for person, order, selected, level, rt in rows:
        three = [names[place] for place in order[:3]]
        level = level_of.setdefault(tuple(sorted(three)), level)
        content.append({
            "participant": f"p{person}", "image1": three[0], "image2": three[1], "image3": three[2],
            "selected_image": three[selected] if selected >= 0 else None, "triplet_type": LEVELS[level],
            "exp_trial_type": "exp_trial", "rt": rt if selected >= 0 else None,
        })  # fmt: skip
    frame = pd.DataFrame(content)
    path = tmp_path / f"a.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    found = read_trials(path)
    assert [found.participants[one] for one in found.participant] == [row["participant"] for row in content]
    assert [[found.images[one] for one in three] for three in found.shown] == [
        [row["image1"], row["image2"], row["image3"]] for row in content
    ]
    assert found.selected.tolist() == [row[2] for row in rows]
    answered = found.selected >= 0
    np.testing.assert_allclose(found.rt[answered], [row[4] for row in rows if row[2] >= 0], rtol=1e-15)
    if not answered.any():
        return
    tidied = tidy(found, catch_accuracy=0, max_misses=99, slow_ms=1e5, shared_sets="all")
    write_tidy(tmp_path, tidied)
    for name in ("trials", "triplets"):
        back = read_tidy(tmp_path, name)
        for column, values in getattr(tidied, name).items():
            np.testing.assert_array_equal(back[column], values)
    counts = np.stack([tidied.triplets[f"answers{place}"] for place in (1, 2, 3)], 1)
    assert counts.sum() == len(tidied.trials["trial"])
    entropy = tidied.triplets["entropy"]
    assert (
        (entropy[np.isfinite(entropy)] >= 0) & (entropy[np.isfinite(entropy)] <= math.log(3) + 1e-12)
    ).all()
