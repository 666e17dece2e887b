"""The conceptual hierarchy from tables and from WordNet: what is found, what is unknown, what is refused."""

from pathlib import Path

import numpy as np
import pytest

from alignet.config import Config
from alignet.data.hierarchy import (
    RELATIONS,
    UNKNOWN,
    Levels,
    read_hypernyms,
    table_hierarchy,
    wordnet_hierarchy,
)

# offset, words, hypernyms: a small data.noun. Mermaid is an animal by its first hypernym; "tool" is an instance.
SYNSETS = [
    (1740, ["entity"], []),
    (15388, ["animal", "beast"], [1740]),
    (21939, ["artifact"], [1740]),
    (2084071, ["dog", "domestic_dog"], [15388]),
    (2085620, ["Chihuahua"], [2084071]),
    (2123045, ["tabby"], [15388]),
    (4524313, ["vehicle"], [21939]),
    (4576211, ["wheeled_vehicle"], [4524313, 3094503]),
    (3094503, ["container"], [21939]),
    (2958343, ["car"], [4576211]),
    (9999999, ["mermaid"], [15388, 21939]),
]
LISTS = {
    "basic": {"dog": "n02084071", "car": ["n02958343"]},
    "superordinate": {"animal": "n00015388", "vehicle": "n04524313", "container": "n03094503"},
}


def data_noun(path: Path, synsets=SYNSETS, symbol="@") -> Path:
    lines = ["  1 This software and database is being provided to you | the licensee\n"]
    for offset, words, above in synsets:
        entries = " ".join(f"{word} 0" for word in words)
        # a pointer of another kind and one to a verb stand before the hypernyms
        pointers = ["~ 00001740 n 0000", "+ 00001740 v 0101"] + [
            f"{symbol} {one:08d} n 0000" for one in above
        ]
        lines.append(
            f"{offset:08d} 03 n {len(words):02x} {entries} {len(pointers):03d} {' '.join(pointers)} | a gloss; "
            '"an @ example"  \n'
        )
    path.write_text("".join(lines), encoding="utf-8")
    return path


def table(path: Path, *rows: str, header: str = "class,basic,superordinate,note") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


COLUMNS = {"class_": "class", "basic": "basic", "superordinate": "superordinate", "merge": {}}


def test_a_table_gives_levels_and_what_it_lacks_is_counted(tmp_path):
    path = table(
        tmp_path / "t.csv", "chihuahua,dog,animal,x", "tabby,cat,animal,", "thing,,,", "car,car,vehicle,"
    )
    levels = table_hierarchy(path, **COLUMNS).levels(["tabby", "car", "nobody", "", "thing", "chihuahua"])
    assert levels.basic.tolist() == ["cat", "car", "", "", "", "dog"]
    assert levels.superordinate.tolist() == ["animal", "vehicle", "", "", "", "animal"]
    said = "of 6 images 1 have no class, 3 have no basic category, 3 have no superordinate category"
    assert levels.unknown() == said
    assert levels.pick(np.array([0, 1])).unknown() == ""


def test_columns_are_named_by_the_caller_and_categories_merge(tmp_path):
    header = "index,unique_id,category"
    path = table(tmp_path / "t.csv", '0,avocado,"food, fruit"', "1,apple,fruit", "2,acorn,", header=header)
    columns = {
        "class_": "unique_id",
        "basic": "unique_id",
        "superordinate": "category",
        "merge": {"fruit": "food"},
    }
    found = table_hierarchy(path, **columns)
    assert found.superordinate == {"avocado": "food", "apple": "food", "acorn": ""}


def test_relations_equal_brute_force_also_where_levels_are_unknown():
    generator = np.random.default_rng(0)
    names = np.array(["", "a", "b", "c"])
    levels = Levels(*(names[generator.integers(len(names), size=60)] for _ in range(3)))
    first, second = np.triu_indices(60, k=1)
    found = levels.relation(first, second)
    for i, j, kind in zip(first, second, found):
        (c, d), (e, f), (g, h) = (
            (x[i], x[j]) for x in (levels.subordinate, levels.basic, levels.superordinate)
        )
        if c and c == d:
            expected = 0
        elif e and e == f:
            expected = 1
        elif g and h and g != h:
            expected = 3
        elif g and g == h and e and f:
            expected = 2
        else:
            expected = UNKNOWN
        assert kind == expected
    assert set(found.tolist()) == {UNKNOWN, *range(len(RELATIONS))}
    np.testing.assert_array_equal(found, levels.relation(second, first))


@pytest.mark.parametrize("symbol", ["@", "@i"])
def test_wordnet_gives_the_nearest_listed_category(tmp_path, symbol):
    path = data_noun(tmp_path / "data.noun", symbol=symbol)
    classes = ["n02085620", "n02084071", "n02123045", "n02958343", "n09999999", ""]
    levels = wordnet_hierarchy(path, classes, **LISTS).levels(classes)
    assert levels.basic.tolist() == ["dog", "dog", "", "car", "", ""]
    # a car's way up reaches vehicle and container at once: the first in WordNet's order counts
    assert levels.superordinate.tolist() == ["animal", "animal", "animal", "vehicle", "animal", ""]
    assert read_hypernyms(path)["n04576211"] == ["n04524313", "n03094503"]


def test_a_few_ids_may_be_missing_and_another_version_is_named(tmp_path):
    path = data_noun(tmp_path / "data.noun")
    known = ["n02085620", "n02123045", "n02958343", "n09999999"]
    assert (
        wordnet_hierarchy(path, [*known, "n12345678"], **LISTS).levels([*known, "n12345678"]).basic[-1] == ""
    )
    moved = data_noun(tmp_path / "3.1", [(o + 17, w, [one + 17 for one in a]) for o, w, a in SYNSETS])
    with pytest.raises(
        ValueError, match=r"expected WordNet 3\.0.*8 of 8 ids missing.*3\.1 has other offsets"
    ):
        wordnet_hierarchy(moved, known, **LISTS)


def spoil(path: Path, how: str) -> Path:
    text = path.read_text(encoding="utf-8")
    if how == "cut within a line":
        path.write_text(
            text[: text.index("n02") if "n02" in text else text.rindex("@ 000219") + 3], encoding="utf-8"
        )
    elif how == "cut between lines":
        keep = [line for line in text.splitlines(True) if not line.startswith("00021939")]
        path.write_text("".join(keep), encoding="utf-8")
    elif how == "index.noun":
        path.write_text("dog n 7 5 @ ~ #m + %p 7 1 02084071 10114209\n", encoding="utf-8")
    elif how == "binary":
        path.write_bytes(b"\x93NUMPY\x01\x00\xff\xfe")
    elif how == "empty":
        path.write_text("  1 licence\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut within a line", r"expected a synset of WordNet's data\.noun on line \d+"),
        ("cut between lines", r"expected every hypernym to be there, found no n00021939"),
        ("index.noun", r"expected a synset of WordNet's data\.noun on line 1, found 'dog n 7"),
        ("binary", r"expected WordNet's data\.noun as text in UTF-8, found other bytes"),
        ("empty", r"found no synset"),
    ],
)
def test_a_damaged_wordnet_is_one_clear_message(tmp_path, how, message):
    with pytest.raises(ValueError, match=message):
        read_hypernyms(spoil(data_noun(tmp_path / "data.noun"), how))


def test_classes_and_lists_that_are_no_wordnet_ids_are_refused(tmp_path):
    path = data_noun(tmp_path / "data.noun")
    with pytest.raises(ValueError, match=r"expected WordNet ids such as n02084071 as classes, found 'dog'"):
        wordnet_hierarchy(path, ["dog"], **LISTS)
    with pytest.raises(ValueError, match=r"basic categories: expected each WordNet id .* found 'dog'"):
        wordnet_hierarchy(path, ["n02085620"], basic={"dog": "dog"}, superordinate={})
    twice = {"dog": "n02084071", "hound": "n02084071"}
    with pytest.raises(ValueError, match=r"once, found 'n02084071' for 'hound' and 'dog'"):
        wordnet_hierarchy(path, ["n02085620"], basic=twice, superordinate={})


def test_damaged_tables_are_one_clear_message(tmp_path):
    with pytest.raises(ValueError, match="expected a column superordinate"):
        table_hierarchy(table(tmp_path / "a.csv", "a,b", header="class,basic"), **COLUMNS)
    path = table(tmp_path / "b.csv", "lab,dog,animal,", "lab,dog,toy,")
    with pytest.raises(
        ValueError, match=r"expected one category for each class, found animal and toy for 'lab'"
    ):
        table_hierarchy(path, **COLUMNS)
    path = table(tmp_path / "c.csv", "lab,dog,animal,")
    with pytest.raises(ValueError, match="expected classes such as lab, found Lab; name the columns"):
        table_hierarchy(path, **COLUMNS).levels(["Lab", ""])


def composed(*overrides: str) -> Config:
    from alignet.pipeline.cli import load

    return load(["experiment=photos", "paths.photos=/nowhere", *overrides])


def test_the_lists_of_wordnet_are_read_and_name_each_id_once():
    config = composed("+also=wordnet")
    lists = config.evaluate.datasets["wordnet"].options["wordnet"]
    assert {"animal", "food", "furniture", "vehicle"} <= lists["superordinate"].keys()
    assert len(lists["basic"]) > 200
    for name in ("wordnet_angle", "wordnet_triplets"):
        assert config.evaluate.datasets[name].options["wordnet"] == lists
    for level in lists.values():
        listed = [one for ids in level.values() for one in ([ids] if isinstance(ids, str) else ids)]
        assert all(len(one) == 9 and one[0] == "n" and one[1:].isdigit() for one in listed)
        assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("also", ["wordnet", "projection"])
def test_more_measurements_leave_every_other_node_as_it_was(also):
    from alignet.pipeline.graph import build_graph

    plain, more = build_graph(composed()), build_graph(composed(f"+also={also}"))
    new = more.keys() - plain.keys()
    assert f"evaluate[alignet.{also}]" in new
    assert ("evaluate[data.wordnet_triplets]" in new) == (also == "wordnet")
    assert all(more[key] == node for key, node in plain.items() if key != "report" and "export" not in key)


def test_a_short_row_is_a_message(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("class,basic,superordinate\ndog,dog,animal\ncat\n")
    with pytest.raises(ValueError, match="3 cells in every row, as in the header, found 1 in line 3"):
        table_hierarchy(path, class_="class", basic="basic", superordinate="superordinate", merge={})


def test_a_line_that_promises_billions_of_pointers_is_refused_at_once(tmp_path):
    from alignet.data.hierarchy import read_hypernyms

    path = tmp_path / "data.noun"
    path.write_text("00000100 03 n 01 word 0 99999999999 | a thing  \n")
    with pytest.raises(ValueError, match=r"expected a synset of WordNet's data\.noun on line 1"):
        read_hypernyms(path)
