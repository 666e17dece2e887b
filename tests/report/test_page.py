"""The page's files: escaping, no requests, equal bytes, tables and figures beside it; the summary's words."""

import csv
import html
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from PIL import Image

from alignet.evaluate.bootstrap import Score
from alignet.evaluate.result import Result
from alignet.report.blocks import DARK, LIGHT, Cell, Figure, Pictures, Section, Table, Text
from alignet.report.dataset_results import Gathered, Row
from alignet.report.files import drawn, figure_svg, slug, split_spread, table_csv, table_markdown
from alignet.report.inline_svg import _compact, inches, inline
from alignet.report.page import Page, write_page
from alignet.report.settings_block import settings_block
from alignet.report.settings_table import Row as TableRow
from alignet.report.summary import Summary, summarise

EVIL = '<b>&"\'</b><script>document.title="broken"</script>|`'


def figure(name="dots", points=5):
    def draw(look):
        from matplotlib.figure import Figure as Drawing

        drawing = Drawing(figsize=(4, 3))
        axis = drawing.subplots()
        axis.plot(range(points), [(value * 7919) % 13 for value in range(points)], "o", color=look.hues[0])
        axis.set_title("five dots", color=look.ink)
        return drawing

    return Figure(name, EVIL, draw, f"n = {points}. {EVIL}", EVIL)


def table(name="numbers"):
    rows = [
        [EVIL, Cell("72.8 [72.5, 73.4]", 0.728, 0.725, 0.734, best=True)],
        [Cell("printed", published=True), Cell("–", published=True)],
    ]
    return Table(
        name, "A table", ["name", EVIL], rows, "A caption with `code`.", [("", 1), ("group", 1)], ["a note"]
    )


def jpeg():
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(content, "JPEG")
    return content.getvalue()


def page(*blocks, **changed):
    pictures = Pictures(
        "seen",
        "Seen",
        [("a row", [(jpeg(), EVIL), (jpeg(), "b"), (jpeg(), "c")])],
        "three",
        [[["people"], [], []]],
    )
    blocks = blocks or (Text(EVIL), table(), figure(), pictures)
    given = {
        "title": EVIL, "subtitle": EVIL, "banner": EVIL, "warning": "", "summary": Summary([EVIL], [], []),
        "sections": [Section("first", EVIL, blocks), Section("empty", "Empty")],
    }  # fmt: skip
    return Page(**(given | changed))


class Reader(HTMLParser):
    """Tags with their attributes, and all text outside of style and script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.skipped = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.skipped = tag if tag in ("style", "script") else self.skipped

    def handle_endtag(self, tag):
        self.skipped = "" if tag == self.skipped else self.skipped

    def handle_data(self, data):
        self.text += "" if self.skipped else data


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


def test_texts_are_only_text_and_every_picture_is_described(tmp_path):
    found = read(write_page(tmp_path, page()))
    assert [tag for tag, _ in found.tags].count("script") == 1
    assert ("b", {}) not in found.tags
    assert found.text.count(EVIL.rstrip("`")) >= 6
    images = [attrs for tag, attrs in found.tags if tag == "img"]
    assert len(images) == 3
    assert all(attrs["alt"] for attrs in images)
    assert all(attrs["src"].startswith("data:image/") for attrs in images)
    assert images[0]["alt"].endswith("; people")
    (drawn_one,) = [attrs for tag, attrs in found.tags if tag == "svg"]  # one for both looks
    assert drawn_one["role"] == "img"
    assert drawn_one["aria-label"]


def test_the_page_needs_no_other_file_and_its_links_lead_somewhere(tmp_path):
    path = write_page(tmp_path, page())
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(https?:)?//", text)
    assert "@import" not in text
    assert all(found.startswith("#") for found in re.findall(r"url\((.)", text))
    found = read(path)
    ids = {attrs["id"] for _, attrs in found.tags if "id" in attrs}
    assert len(ids) == sum("id" in attrs for _, attrs in found.tags)
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} == {"top", "first"}
    assert {"top", "first"} <= ids
    files = {link for link in links if not link.startswith("#")}
    written = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.*")} - {"report.html"}
    assert files == written == {
        "tables/first_numbers.csv", "tables/first_numbers.md", "figures/first_dots.png", "figures/first_dots.svg"
    }  # fmt: skip


def test_equal_input_gives_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_page(tmp_path / name, page())
    for file in (tmp_path / "a").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes(), file


def test_both_looks_are_drawn_in_their_colours_and_the_users_style_is_ignored():
    import matplotlib

    plain = figure_svg(drawn(figure(), LIGHT), LIGHT)
    with matplotlib.rc_context({"axes.facecolor": "#123456", "font.size": 31}):
        assert figure_svg(drawn(figure(), LIGHT), LIGHT) == plain
    assert LIGHT.paper.encode() in plain
    assert LIGHT.hues[0].encode() in plain
    dark = figure_svg(drawn(figure(), DARK), DARK)
    assert DARK.paper.encode() in dark
    assert DARK.hues[0].encode() in dark


def svgs(one):
    return [figure_svg(drawn(one, look), look) for look in (LIGHT, DARK)]


def test_one_svg_serves_both_looks_where_only_hues_differ():
    light, dark = svgs(figure())
    ((name, text),) = inline(light, lambda: dark, "f", 'a "name" \\1')
    assert name == "on-both"
    assert text == _compact(dark.decode(), DARK, "fl", 'a "name" \\1')
    assert len(text) < len(light)
    for look in (LIGHT, DARK):
        assert look.hues[0] not in text
        assert look.ink not in text
    assert "var(--hue0)" in text
    assert "var(--ink)" in text
    assert 'aria-label="a &#34;name&#34; \\1"' in text
    ids = re.findall(r' id="([^"]*)"', text)
    asked = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text)
    assert {one or other for one, other in asked} == set(ids)  # all are there, and none is there for nothing
    assert len(set(ids)) == len(ids)
    assert all(one.startswith("f") for one in ids)
    assert text.count("<path") == light.decode().count("<path")
    assert text.count("<use") == light.decode().count("<use")
    assert inches(light) == pytest.approx(4)


def test_the_dark_look_is_drawn_only_where_a_colour_is_no_variable():
    def draw(look, colour):
        from matplotlib.figure import Figure as Drawing

        drawing = Drawing(figsize=(2, 2))
        drawing.subplots().plot([0, 1], color=colour or look.hues[1])
        return drawing

    light, _ = svgs(Figure("hue", "t", lambda look: draw(look, ""), "c", "a"))
    assert len(inline(light, lambda: pytest.fail("drawn for nothing"), "f", "a")) == 1
    light, dark = svgs(Figure("own", "t", lambda look: draw(look, "#123456"), "c", "a"))
    calls = []
    assert [name for name, _ in inline(light, lambda: calls.append(1) or dark, "f", "a")] == ["on-both"]
    assert calls == [1]


def test_a_figure_that_differs_in_more_than_hues_stands_in_the_page_twice():
    def draw(look):
        from matplotlib.figure import Figure as Drawing

        drawing = Drawing(figsize=(2, 2))
        drawing.subplots().imshow([[0.0, 1.0]], cmap="gray" if look is DARK else "viridis")
        return drawing

    light, dark = svgs(Figure("image", "t", draw, "c", "a"))
    found = inline(light, lambda: dark, "f", "a")
    assert [name for name, _ in found] == ["on-light", "on-dark"]
    ids = [set(re.findall(r' id="([^"]*)"', text)) for _, text in found]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_two_figures_of_one_drawing_have_ids_of_their_own(tmp_path):
    one = figure()
    path = write_page(tmp_path, page(one, replace(one, name="again")))
    ids = [attrs["id"] for _, attrs in read(path).tags if "id" in attrs]
    assert len(set(ids)) == len(ids)


def test_a_figure_of_very_many_points_stands_in_the_page_as_png(tmp_path):
    path = write_page(tmp_path, page(figure(points=6000)))
    assert path.stat().st_size < (tmp_path / "figures/first_dots.svg").stat().st_size
    assert {attrs["src"][:15] for tag, attrs in read(path).tags if tag == "img"} == {"data:image/png;"}


def test_blocks_of_one_name_get_files_of_their_own(tmp_path):
    write_page(tmp_path, page(table(), table(), table()))
    assert sorted(file.name for file in tmp_path.glob("tables/*.csv")) == [
        "first_numbers.csv", "first_numbers_2.csv", "first_numbers_3.csv",
    ]  # fmt: skip


def test_a_warning_stands_above_the_banner(tmp_path):
    text = read(write_page(tmp_path, page(warning="do not hand on", banner="synthetic"))).text
    assert text.index("do not hand on") < text.index("synthetic")


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([Table("a b", "t", ["x"], [], "c")], "expected a name of letters, digits and _, found 'a b'"),
        ([Table("t", "t", ["x", "y"], [["1"]], "c")], "table t: expected 2 columns in every row"),
        ([Table("t", "t", ["x", "y"], [], "c", [("g", 3)])], "table t: expected 2 columns"),
        ([Pictures("p", "t", [("s", [(b"", "a")])], "c", [])], ""),
        ([Pictures("p", "t", [("s", [(b"", "a")])], "c", [[[], []]])], "pictures p: expected marks for each"),
    ],
)
def test_blocks_that_do_not_fit_are_named(tmp_path, blocks, message):
    if not message:
        write_page(tmp_path, page(*blocks))
        return
    with pytest.raises(ValueError, match=message):
        write_page(tmp_path, page(*blocks))


def test_sections_with_one_key_are_refused(tmp_path):
    twice = [Section("a", "A", [Text("x")]), Section("a", "B", [Text("y")])]
    with pytest.raises(ValueError, match="sections with different keys, found a, a"):
        write_page(tmp_path, page(sections=twice))


def test_csv_holds_exact_values_and_markdown_is_one_table():
    rows = list(csv.reader(io.StringIO(table_csv(table()))))
    assert rows[0] == ["name", f"group {EVIL}", f"group {EVIL} low", f"group {EVIL} high"]
    assert rows[1] == [EVIL, "0.728", "0.725", "0.734"]
    assert rows[2] == ["printed", "–", "", ""]
    text = table_markdown(table())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert "**72.8** [72.5, 73.4]" in text
    assert "- a note" in text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("72.8 [72.5, 73.4]", ("72.8", "[72.5, 73.4]")),
        ("72.8", ("72.8", "")),
        ("[a]", ("[a]", "")),
        ("", ("", "")),
    ],
)
def test_an_interval_is_split_off(text, parts):
    assert split_spread(text) == parts


def test_names_of_files_hold_letters_digits_and_underscores():
    assert [slug(text) for text in ("a b/c", "ViT-S, seed=1", "…", "")] == ["a_b_c", "ViT_S_seed_1", "_", "_"]
    long = [slug("x" * 300 + end) for end in "ab"]  # a file's name has an end, and these still differ
    assert {len(name) for name in long} == {80}
    assert len(set(long)) == 2


# ---- the summary


def score(value, metric="odd_one_out", dataset="all", ceiling=0.8, half=0.02):
    bounds = (None, None) if half is None else (value - half, value + half)
    return Score(metric, dataset, value, *bounds, 1000, "triplets", "objects", 1 / 3, ceiling)


def rows(original, alignet, distillation=0.5, **more):
    probe = [score(more.get("probe_before", 0.9), "linear_probe", "fine", None)]
    after = [score(more.get("probe_after", 0.8), "linear_probe", "fine", None)]
    ceiling = more.get("ceiling", 0.8)
    return [
        TableRow("student", "original", [score(original, ceiling=ceiling), *probe]),
        TableRow("student", "distillation", [score(distillation, ceiling=ceiling)]),
        TableRow("student", "alignet", [score(alignet, ceiling=ceiling), *after]),
    ]


def test_the_summary_says_what_came_of_it():
    found = summarise(rows(0.4, 0.7), None)
    assert found.sentences == [
        "After AligNet the student picks the odd one out that people picked in 70.0% of 1,000 triplets (`all`); "
        "before, 40.0%. That is 75% of the way to the noise ceiling of 80.0%; chance is 33.3%.",
        "The control, distillation without human data, comes to 50.0%, below AligNet.",
        "What it cost: linear probe on `fine` fell from 90.0% to 80.0%.",
    ]
    assert [number.value for number in found.numbers] == ["40.0 → 70.0%", "75%", "50.0%", "80.0%"]
    at = {mark.kind: mark.at for mark in found.marks}
    assert at["chance"] == 0
    assert at["ceiling"] == 1
    assert at["original"] == pytest.approx((0.4 - 1 / 3) / (0.8 - 1 / 3))


def test_the_summary_is_honest_where_it_failed():
    found = summarise(rows(0.6, 0.5, distillation=0.55, probe_after=0.91), None)
    assert "before, 60.0%: it fell" in found.sentences[0]
    assert "what people said added nothing here" in found.sentences[1]
    assert "rose from 90.0% to 91.0%, within the intervals" in found.sentences[2]
    assert found.numbers[1].value == "-50%"
    same = summarise(rows(0.5, 0.51), None)
    assert "The two intervals overlap" in same.sentences[0]
    none = summarise(rows(0.5, 0.6, ceiling=None), None)
    assert none.numbers[1].value == "+10.0"
    assert not none.marks


def test_the_summary_is_about_the_data_set_that_is_asked_for():
    found = rows(0.4, 0.7)
    for row, value in zip(found, (0.3, 0.4, 0.6)):
        row.scores.append(score(value, dataset="report"))
    assert "(`report`)" in summarise(found, "report").sentences[0]
    with pytest.raises(ValueError, match=r"report\.headline: .* one of all, report, found 'reprot'"):
        summarise(found, "reprot")
    assert "no student before and after" in summarise(found[:1], None).sentences[0]


def test_the_table_of_settings_has_a_line_for_each_measure():
    found = settings_block(rows(0.4, 0.7), "All")
    assert found.header == [
        "measure",
        "data set",
        "original",
        "distillation",
        "AligNet",
        "closed, %",
        "ceiling",
        "chance",
        "n",
    ]
    assert [entry if isinstance(entry, str) else entry.text for entry in found.rows[0]] == [
        "odd-one-out accuracy, %", "all", "40.0 [38.0, 42.0]", "50.0 [48.0, 52.0]", "70.0 [68.0, 72.0]", "75", "80.0",
        "33.3", "1,000 triplets",
    ]  # fmt: skip
    assert [entry.best for entry in found.rows[0][2:5]] == [False, False, True]
    assert table_csv(found).splitlines()[1].startswith('"odd-one-out accuracy, %",all,0.4,0.38')


def test_gathered_gives_scores_and_tables_by_row():
    result = Result([score(0.5)], {"t": {"x": [1]}})
    one = Gathered("all", "f", {}, {Row("student", "ud"): result})
    assert one.scores("odd_one_out")[Row("student", "ud")].value == 0.5
    assert one.tables("t")[Row("student", "ud")] == {"x": [1]}
    assert one.scores("rsa") == {}
    assert Row("ViT-S", "alignet").title == "ViT-S AligNet"
    assert html.escape("<") == "&lt;"
