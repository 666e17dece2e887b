"""What choices say of their own file: the order of its objects, and whether the question had a reference."""

import numpy as np
import pytest

from alignet.data.object_order import by_sorted_files, numbering
from alignet.doctor.choices import dot_products
from alignet.doctor.conventions import asymmetry, check_order, check_reference
from alignet.doctor.sources import Sources
from alignet.pipeline.cli import load
from alignet.pipeline.payloads import triplets as read
from alignet.pipeline.runner import Pipeline
from tests.vice.test_object_order import NAMES, planted

ORDER = by_sorted_files(NAMES)


def numbered(triplets):
    """The same choices as a file has them that counts the sorted names of photographs."""
    return np.argsort(ORDER)[triplets]


@pytest.fixture
def people(tmp_path):
    """Objects in the table's order, planted choices about them, and the embedding that they follow."""
    folder = tmp_path / "people"
    folder.mkdir()
    rows = [f"{row},{name},,{name}.jpg,train" for row, name in enumerate(NAMES)]
    (folder / "objects.csv").write_text("\n".join(["index,unique_id,category,photo,split", *rows]) + "\n")
    (folder / "old.csv").write_text("unique_id\n" + "".join(f"{NAMES[row]}\n" for row in ORDER))
    loc, triplets = planted()
    np.save(folder / "embedding.npy", loc)
    np.save(folder / "train.npy", triplets)
    np.save(folder / "validation.npy", triplets)
    return folder


def config(people, *more):
    return load([
        "experiment=own_triplets", f"paths.people={people}", f"paths.images={people}",
        f"paths.artifacts={people / 'store'}",
        "vice.published=embedding", f"+data.sets.embedding={{kind: embedding, path: {people / 'embedding.npy'}}}",
        "+data.sets.old={kind: table, path: " + str(people / "old.csv") + "}", "runtime.threads=1", *more,
    ])  # fmt: skip


def found(check, people, *more):
    chosen = config(people, *more)
    return {one.about: one for one in check(Sources(chosen, (), Pipeline(chosen)))}


def test_the_order_of_the_table_is_confirmed(people):
    one = found(check_order, people)["data.sets.human_val"]
    assert one.level == "ok"
    assert "foretells 100.0%" in one.found


@pytest.mark.parametrize("seed", range(3))
def test_choices_that_count_sorted_files_are_found_and_the_option_mends_them(people, seed):
    loc, triplets = planted(seed)
    np.save(people / "embedding.npy", loc)
    np.save(people / "validation.npy", numbered(triplets))
    one = found(check_order, people)["data.sets.human_val"]
    assert one.level == "fault"
    assert f"of 2,000 choices about the {int((np.arange(len(ORDER)) != ORDER).sum())} objects" in one.found
    assert f"({', '.join(NAMES[:4])}, ...)" in one.found
    assert "data.sets.human_val.order=sorted_files" in one.fix
    mended = found(check_order, people, "data.sets.human_val.order=sorted_files")["data.sets.human_val"]
    assert mended.level == "ok"
    assert "sorted_files 100.0%" in mended.found


def test_shuffled_choices_speak_for_no_order(people):
    triplets = planted()[1]
    np.save(people / "validation.npy", np.random.default_rng(0).permuted(triplets, axis=1))
    assert found(check_order, people)["data.sets.human_val"].level == "ok"


@pytest.mark.parametrize("order", ["sorted_files", "old"])
def test_the_chain_reads_them_as_they_are_meant(people, order):
    triplets = planted()[1]
    np.save(people / "validation.npy", numbered(triplets))
    pipeline = Pipeline(config(people, f"data.sets.human_val.order={order}"))
    pipeline.make_all(["vice"])
    assert pipeline.state("vice").artifact.metrics["validation_accuracy"] == pytest.approx(1.0)
    index = pipeline.state("index[human_val]").artifact
    assert np.array_equal(np.load(index.file("objects.npy")), ORDER)
    run = type("Run", (), {"inputs": {"val": index}, "sources": {"val": people / "validation.npy"}})
    assert np.array_equal(read(run, "val", len(NAMES)), triplets)
    with pytest.raises(ValueError, match=f"triplets of the {len(NAMES)} objects of the table"):
        read(run, "val", len(NAMES) + 1)


def test_the_order_is_a_part_of_the_fingerprint_only_where_it_moves_objects(people):
    plain, table, moved = (
        Pipeline(config(people, *more)).graph["index[human_val]"]
        for more in ((), ("data.sets.human_val.order=table",), ("data.sets.human_val.order=sorted_files",))
    )
    assert "order" not in plain.section
    assert plain == table
    assert plain.inputs == table.inputs == {}
    assert moved.inputs == {"objects": "index[objects]"}


def test_a_published_embedding_follows_a_table_of_its_own(people):
    loc = np.load(people / "embedding.npy")
    np.save(people / "embedding.npy", loc[ORDER])
    with pytest.raises(ValueError, match=r"set vice\.published_order=sorted_files"):
        Pipeline(config(people)).make_all(["vice"])
    for order in ("old", "sorted_files"):
        pipeline = Pipeline(config(people, f"vice.published_order={order}"))
        pipeline.make_all(["vice"])
        with np.load(pipeline.state("vice").artifact.file("posterior.npz")) as posterior:
            np.testing.assert_array_equal(posterior["loc"], loc)
        one = found(check_order, people, f"vice.published_order={order}")["data.sets.human_val"]
        assert one.level == "ok"
        assert "table foretells 100.0%" in one.found
    with pytest.raises(
        ValueError, match=r"vice\.published_order: expected table, sorted_files or a set .* 'new'"
    ):
        Pipeline(config(people, "vice.published_order=new"))


def test_an_order_that_is_none_is_told(people):
    with pytest.raises(
        ValueError, match=r"data\.sets\.human_val\.order: expected table, sorted_files or a set"
    ):
        config(people, "data.sets.human_val.order=alphabet")


def test_tables_of_other_objects_are_told(people):
    (people / "old.csv").write_text("unique_id\n" + "".join(f"{name}\n" for name in [*NAMES[1:], "unicorn"]))
    with pytest.raises(
        ValueError, match=r"each of the .* objects of the table once, found .*'unicorn' among them"
    ):
        numbering("old", people / "objects.csv", people / "old.csv")
    (people / "old.csv").write_text("name\n" + "".join(f"{name}\n" for name in NAMES))
    with pytest.raises(ValueError, match="expected a column unique_id, found name"):
        numbering("old", people / "objects.csv", people / "old.csv")


def compared_with_a_reference(loc, n=2000):
    """(reference, chosen, other): which of two is more like the first."""
    generator = np.random.default_rng(1)
    triplets = np.stack([generator.permutation(len(loc))[:3] for _ in range(n)])
    sims = dot_products(loc, triplets)
    wrong = sims[:, 0] < sims[:, 1]
    triplets[wrong] = triplets[wrong][:, [0, 2, 1]]
    return triplets


def test_choices_with_a_reference_are_told_from_odd_one_out(people):
    loc = planted()[0]
    assert found(check_reference, people)["data.sets.human_val"].level == "ok"
    np.save(people / "validation.npy", compared_with_a_reference(loc))
    one = found(check_reference, people)["data.sets.human_val"]
    assert one.level == "warning"
    assert "nearer to the first object 100.0% (guessing 50.0%)" in one.found
    assert "(reference, chosen, other)" in one.found
    np.save(people / "validation.npy", compared_with_a_reference(loc)[:, [1, 0, 2]])
    assert "(chosen, reference, other)" in found(check_reference, people)["data.sets.human_val"].found


def test_pairs_that_ascend_and_features_that_drift_are_no_reference():
    """Objects listed by category, triplets whose pair ascends, answers at random: position alone makes a difference."""
    rng = np.random.default_rng(0)
    features = np.repeat(rng.standard_normal((6, 4)), 20, 0) + 0.1 * rng.standard_normal((120, 4))
    triplets = np.stack([rng.permutation(120)[:3] for _ in range(6000)])
    triplets[:, :2].sort(1)
    excess, error = asymmetry(dot_products(features, triplets), triplets)
    assert abs(excess) < 4 * error
    # and of odd-one-out answers by the features themselves
    odd = 2 - dot_products(features, triplets).argmax(1)
    answered = np.stack([[*np.delete(row, place), row[place]] for row, place in zip(triplets, odd)])
    answered[:, :2].sort(1)
    excess, error = asymmetry(dot_products(features, answered), answered)
    assert abs(excess) < max(5 * error, 0.03)
