"""The families of representations from files, and what the page makes of their tables."""

from pathlib import Path

import numpy as np
import pytest

from alignet.evaluate.families import FAMILIES, Material
from alignet.evaluate.result import read_result, write_result
from alignet.report.blocks import DARK, LIGHT, Figure, Table
from alignet.report.dataset_results import Gathered, Row
from alignet.report.sections import BUILDERS, SECTIONS
from tests.data.test_hierarchy import LISTS, data_noun
from tests.evaluate.test_hierarchy import knows, levels_of

LEVELS = levels_of(3, 3, 2, 3)
IDS = [f"set/{n:03d}_{name}.jpg" for n, name in enumerate(LEVELS.subordinate)]
HOW = {
    "labels": {"column": "label", "id_column": "file", "id_prefix": "set/"},
    "hierarchy": {"class": "label", "basic": "basic", "superordinate": "category", "merge": {}},
}
OPTIONS = {
    "hierarchy": HOW | {"distance": "euclidean", "pairs": 10**6, "categories": 20},
    "relations": HOW | {"count": 300},
    "space": HOW | {"points": 40, "rsm_images": 20},
    "projection": HOW | {"points": 40},
}


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    path = tmp_path / "labels.csv"
    rows = [
        ",".join((one.removeprefix("set/"), *names))
        for one, names in zip(IDS, zip(LEVELS.subordinate, LEVELS.basic, LEVELS.superordinate))
    ]
    path.write_text("\n".join(["file,label,basic,category", *rows]) + "\n")
    return {"labels": path, "hierarchy": path}


def before() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(IDS), 30)).astype(np.float32)


def features(setting: str) -> np.ndarray:
    strength = {"original": 0, "distillation": 0.1, "ud": 0.1, "alignet": 0.4}[setting]
    return (before() + strength * knows(LEVELS, p=30)).astype(np.float32)


def material(setting, files, *, nodes=None, raw=None, ids=IDS) -> Material:
    x = {} if setting == "data" else {"test": (features(setting)[: len(ids)], ids)}
    order = np.random.default_rng(1).permutation(len(IDS))
    known = {"before": (before()[order], [IDS[row] for row in order])}  # found by id, whatever its order
    return Material(
        dataset="d e", setting=setting, features=x, files=files, nodes=nodes or {}, raw=known if raw is None else raw,
        transform=lambda rows: rows, triplets=lambda name, objects: np.empty((0, 3)), picture=lambda name: None,
        object_rows=None, bootstrap=50, seed=0,
    )  # fmt: skip


def gathered(family, tmp_path, results) -> Gathered:
    """As the page reads it: from Parquet."""
    for number, (row, result) in enumerate(results.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_result(folder, result)
        results[row] = read_result(folder)
    return Gathered("d e", family, OPTIONS[family], results)


def drawn(found: Gathered) -> list:
    """All blocks, every figure drawn in both looks; names are their own and fit for files."""
    key, builder = BUILDERS[found.family]
    assert key in SECTIONS
    blocks = list(builder(found))
    for block in blocks:
        if isinstance(block, Figure):
            for look in (LIGHT, DARK):
                block.draw(look).savefig("/dev/null", format="png")
    names = [block.name for block in blocks]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalnum() for name in names)
    return blocks


@pytest.mark.parametrize("models", [["student"], ["ViT-B/16", "dino", "siglip"]])
def test_the_hierarchy_of_several_models_and_its_page(tmp_path, files, models):
    settings = ["original", "distillation", "alignet"]
    results = {
        Row(model, setting): FAMILIES["hierarchy"](material(setting, files), OPTIONS["hierarchy"])
        for model in models for setting in settings
    }  # fmt: skip
    first = results[Row(models[0], "alignet")]
    found = {score.metric: score for score in first.scores}
    assert found["hierarchy_subordinate"].value < found["hierarchy_across"].value
    assert len(results[Row(models[0], "original")].scores) == 1
    blocks = drawn(gathered("hierarchy", tmp_path, results))
    assert len(blocks) == 3 + len(models)
    order, change, spread, matrix = blocks[:4]
    assert isinstance(order, Table)
    assert len(order.rows) == 3 * len(models)
    assert f"The largest is that of {models[0]} AligNet" in order.caption
    assert f"same class by {found['hierarchy_subordinate'].value:+.2f}" in change.caption
    assert "n = 1,431 pairs" in order.caption
    assert "Pairs that came relatively closer" in spread.caption
    assert "between 9 basic categories" in matrix.caption


def test_a_space_and_its_page(tmp_path, files):
    settings = ["original", "distillation", "ud", "alignet"]
    results = {
        Row(model, setting): FAMILIES["space"](material(setting, files), OPTIONS["space"])
        for model in ("a", "b") for setting in settings
    }  # fmt: skip
    assert set(results[Row("a", "ud")].tables["points"]["category"]) == {"0", "1", "2"}
    blocks = drawn(gathered("space", tmp_path, results))
    assert [block.name for block in blocks] == [
        "d_e_pc1_pc2",
        "d_e_pc3_pc4",
        "d_e_explained",
        "d_e_rsa_models",
    ]
    assert "of 40 images before and after" in blocks[0].caption
    assert "Colour: 3 superordinate categories" in blocks[0].caption
    assert "of 54 images" in blocks[2].caption
    assert "over the 190 pairs of 20 images" in blocks[3].caption
    assert "correlate at 1.00 before and at 1.00 after" in blocks[3].caption  # both models are one


def test_without_categories_the_points_are_grey(tmp_path):
    results = {
        Row("student", setting): FAMILIES["space"](material(setting, {}), {"points": 40, "rsm_images": 20})
        for setting in ("original", "ud")
    }  # fmt: skip
    assert set(results[Row("student", "ud")].tables["points"]["category"]) == {""}
    blocks = drawn(gathered("space", tmp_path, results))
    assert "No categories are known." in blocks[0].caption
    assert "student UD correlates with student original" in blocks[3].caption


def test_a_projection_and_its_page(tmp_path, files):
    results = {
        Row("student", setting): FAMILIES["projection"](material(setting, files), OPTIONS["projection"])
        for setting in ("original", "alignet")
    }  # fmt: skip
    (block,) = drawn(gathered("projection", tmp_path, results))
    assert "PaCMAP) of 40 images" in block.caption


def clusters(folder: Path, labels: np.ndarray) -> Path:
    folder.mkdir()
    np.savez(folder / "clusters.npz", assignment=labels, centroids=np.zeros((2, 2)))
    return folder


def answered(folder: Path, triplets: np.ndarray, ids=IDS) -> Path:
    folder.mkdir()
    np.save(folder / "triplets.npy", triplets)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    return folder


def test_triplets_and_clusters_over_relations_and_their_page(tmp_path, files):
    basic = np.unique(LEVELS.basic, return_inverse=True)[1]
    nodes = {
        "clusters": clusters(tmp_path / "c", basic),
        "triplets": answered(tmp_path / "t", np.array([[0, 1, 9], [0, 2, 30], [0, 30, 1]])),
    }
    given = material("data", files, nodes=nodes, raw={"pool": (before(), IDS)})
    result = FAMILIES["relations"](given, OPTIONS["relations"])
    found = {score.metric: score.value for score in result.scores}
    assert found["relations_nearer_answered"] == pytest.approx(2 / 3)
    assert found["relations_nearer_cluster_boundary"] == 1
    assert found["relations_nearer_random"] < 0.5
    (block,) = drawn(gathered("relations", tmp_path, {Row("student", "data"): result}))
    assert "67% of 3 (answered), 100% of 300 (cluster boundary)" in block.caption
    other = material("data", files, nodes=nodes, raw={"pool": (before(), IDS[::-1])})
    with pytest.raises(ValueError, match="expected the triplets' 54 images in node pool"):
        FAMILIES["relations"](other, OPTIONS["relations"])
    with pytest.raises(ValueError, match="expected the node triplets or clusters, found neither"):
        FAMILIES["relations"](material("data", files), OPTIONS["relations"])


def test_names_of_images_may_hold_their_wordnet_ids(tmp_path):
    path = data_noun(tmp_path / "data.noun")
    names = ["n02085620", "n02084071", "n02123045", "n02958343", "n09999999"]
    ids = [f"pool/{names[n % 5]}_{n}.jpg" for n in range(30)]
    options = OPTIONS["hierarchy"] | {"wordnet": LISTS}
    result = FAMILIES["hierarchy"](material("original", {"wordnet": path}, ids=ids), options)
    assert result.tables["relations"]["relation"] == ["subordinate", "basic", "across"]
    with pytest.raises(
        ValueError,
        match=r"names begin with WordNet ids, such as .* found none of 54, for",
    ):
        FAMILIES["hierarchy"](material("original", {"wordnet": path}), options)


def test_what_a_configuration_leaves_out_is_one_clear_message(files):
    given = material("alignet", files)
    with pytest.raises(
        ValueError, match=r"expected options\.hierarchy with basic, class, merge, superordinate, found"
    ):
        FAMILIES["hierarchy"](given, OPTIONS["hierarchy"] | {"hierarchy": {"class": "label"}})
    with pytest.raises(ValueError, match=r"expected options\.labels with .* found None"):
        FAMILIES["hierarchy"](given, {"pairs": 9, "categories": 9, "distance": "angle"})
    with pytest.raises(
        ValueError, match=r"expected a table as data\.hierarchy, or data\.noun as data\.wordnet"
    ):
        FAMILIES["hierarchy"](material("alignet", {"labels": files["labels"]}), OPTIONS["hierarchy"])
    with pytest.raises(ValueError, match="the features before: expected a row for each of 54 ids"):
        FAMILIES["hierarchy"](
            material("alignet", files, raw={"before": (before()[:9], IDS[:9])}), OPTIONS["hierarchy"]
        )


def test_a_projection_of_few_images_keeps_as_many_neighbours_as_the_library_would():
    from alignet.evaluate.projection import neighbours

    assert [neighbours(images) for images in (20, 34, 35, 36, 1000)] == [5, 9, 10, 10, 10]
