"""Ablations: jobs from values, nodes that are shared, a figure and a table, and what is refused."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest

from alignet.evaluate.bootstrap import Score
from alignet.pipeline.ablation import run_ablation, show_ablation
from alignet.pipeline.cli import jobs_of, load
from alignet.pipeline.commands import print_status
from alignet.pipeline.graph import build_graph
from alignet.pipeline.runner import Pipeline
from alignet.report.ablation import Point, blocks, matrix
from alignet.report.ablation_against import against
from alignet.report.blocks import DARK, LIGHT
from tests.makers.worlds import everything

NAMES = ("images", "triplets", "sampling", "teacher", "direct", "loss", "transform", "size")
SMALL = ["ablation.values.triplet_batch=4", "triplets.count=40"]


def jobs(name, *more):
    line = [f"experiment=ablation/{name}", *more]
    return jobs_of(load(line), line)


def point(values, row, *seeds, measure="accuracy"):
    scores = [
        [Score("m", f"set {number}", value, value - 0.02, value + 0.02, 100, "triplets", "objects")
         for number, value in enumerate(one)]
        for one in seeds
    ]  # fmt: skip
    return Point(values, row, {measure: scores})


@pytest.mark.parametrize("base", ["world", "photos", "paper"])
@pytest.mark.parametrize("name", NAMES)
def test_every_ablation_is_there_for_every_data_set(base, name):
    config = load([f"experiment=ablation/{name}", f"base={base}", "paths.photos=/nowhere"])
    assert config.experiment_name == base
    assert config.ablation.name == name
    stages = {node.stage for node in build_graph(config).values()}
    assert "evaluate" in stages
    assert not stages & {"report", "export"}


def test_jobs_are_all_combinations_and_seeds():
    found = jobs("direct", "ablation.seeds=[3,4]", "ablation.values.direct.lrs=[1e-4,2e-4]")
    assert len(found) == 2 * 3 * 2
    assert {(job.finetune.direct.lr, job.finetune.direct.pull, job.seed) for job in found} == {
        (lr, pull, seed) for lr in (1e-4, 2e-4) for pull in (0.0, 10.0, 100.0) for seed in (3, 4)
    }
    assert all(job.finetune.direct.lr == job.ablation.point["finetune.direct.lr"] for job in found)
    assert jobs_of(load([]), []) == [load([])]


def test_values_on_the_command_line_hold_for_every_job():
    assert {job.triplets.sampling for job in jobs("sampling", "ablation.values.samplings=[random]")} == {
        "random"
    }
    assert all(job.finetune.settings.steps == 70 for job in jobs("loss", "finetune.settings.steps=70"))


def test_only_what_depends_on_the_value_differs_between_jobs():
    graphs = [build_graph(job) for job in jobs("sampling")]
    before, after = graphs[0], graphs[1]
    changed = {key for key in before if key in after and before[key].section != after[key].section}
    assert changed == {"triplets[alignet]"}
    images = [build_graph(job) for job in jobs("images")]
    changed = {key for key in images[0] if images[0][key].section != images[1][key].section}
    assert changed == {"finetune[alignet]"}


@pytest.fixture(scope="module")
def ran(measured, tmp_path_factory):
    """A sampling ablation in a copy of the measured world's store: its jobs, and the nodes that each made."""
    root = tmp_path_factory.mktemp("ablation") / "store"
    shutil.copytree(measured, root)
    line = everything(root, "experiment=ablation/sampling", *SMALL)
    found = jobs_of(load(line), line)
    made = []
    for job in found:
        chain = Pipeline(job)
        made.append(chain.make_all(list(chain.graph)))
    return found, made


def test_a_sampling_ablation_makes_only_what_depends_on_sampling(ran):
    found, made = ran
    own = ["triplets[alignet]", "finetune[alignet]", "embed[alignet.fresh]", "evaluate[alignet.all]"]
    own += ["embed[alignet.probe]", "evaluate[alignet.few]"]
    assert [sorted(set(one) - {"index[pool_classes]"}) for one in made] == [sorted(own)] * 3
    for job in found:
        chain = Pipeline(job)
        assert chain.make_all(list(chain.graph)) == []


def test_status_shows_shared_nodes_once(ran, capsys):
    found, _ = ran
    print_status(*found)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("vice ") for line in lines) == 1
    assert sum(line.startswith("finetune[alignet] {triplets.sampling=") for line in lines) == 3
    nodes = {Pipeline(job).identity(key).fingerprint for job in found for key in build_graph(job)}
    assert f"{len(nodes)} cached" in lines[-1]


def test_it_ends_in_one_figure_and_one_table(ran, capsys):
    found, _ = ran
    folder = show_ablation(found)
    said = capsys.readouterr().out
    assert said.splitlines()[1].startswith("a synthetic world")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()}
    own = {f"ablations_ablation_sampling{kind}" for kind in ("_numbers.csv", "_numbers.md", ".png", ".svg")}
    own |= {f"ablations_against_sampling.{kind}" for kind in ("png", "svg")}
    assert {name.rpartition("/")[2] for name in names if "/ablations_" in name} == own
    assert said.splitlines()[-1] == f"page: {folder / 'report.html'}"
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "How triplets are drawn" in text
    assert text.count("<svg ") == 2
    assert "evaluate[alignet." in text  # where it comes from
    with open(next(folder.rglob("ablations*.csv")), newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["triplets.sampling"] for row in rows] == [
        "cluster boundary",
        "class boundary",
        "random",
        "any",
    ]
    bytes_before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    assert show_ablation(found) == folder
    assert {path: path.read_bytes() for path in bytes_before} == bytes_before


def test_the_command_line_runs_the_jobs_and_shows_them(ran, monkeypatch, capsys):
    from alignet.pipeline.cli import main
    from alignet.stages import pipeline

    found, _ = ran
    line = everything(found[0].paths.artifacts, "experiment=ablation/sampling", *SMALL)
    monkeypatch.setattr(pipeline, "JOBS", [])
    main("pipeline", "", pipeline.act, line, pipeline.finish)
    said = capsys.readouterr().out
    assert said.count("0 nodes made") == 3
    assert said.count("\npage: ") == 1


def test_a_part_of_the_pool_is_drawn_from_and_fine_tuned_on(ran):
    found, _ = ran
    line = everything(found[0].paths.artifacts, "experiment=ablation/sampling", *SMALL, "data.pool_images=30")
    chain = Pipeline(load(line))
    made = chain.make_all(["finetune[alignet]"])
    assert made == ["triplets[alignet]", "finetune[alignet]"]
    ids = (chain.state("triplets[alignet]").artifact.folder / "ids.txt").read_text().splitlines()
    assert len(ids) == len(set(ids)) == 30
    line[-1] = "data.pool_images=10"
    fewer = Pipeline(load([*line, "triplets.count=20"]))
    fewer.make_all(["triplets[alignet]"])
    inner = (fewer.state("triplets[alignet]").artifact.folder / "ids.txt").read_text().splitlines()
    assert set(inner) < set(ids)
    line[-1] = "data.pool_images=61"
    with pytest.raises(
        ValueError, match=r"data\.pool_images: expected at most 60, all images of the pool, found 61"
    ):
        Pipeline(load(line)).make_all(["triplets[alignet]"])


def test_class_boundaries_follow_a_table(ran):
    found, _ = ran
    job = next(one for one in found if one.triplets.sampling == "class_boundary")
    chain = Pipeline(job)
    folder = chain.state("triplets[alignet]").artifact.folder
    ids = (folder / "ids.txt").read_text().splitlines()
    with open(chain.locate("index[pool_classes]"), newline="", encoding="utf-8") as handle:
        classes = {row["id"]: row["class"] for row in csv.DictReader(handle)}
    # the teacher has put its own odd one last: each triplet still holds exactly two of one class
    for triplet in np.load(folder / "triplets.npy"):
        assert len({classes[ids[row]] for row in triplet}) == 2


def test_estimates_over_seeds_data_sets_and_draws():
    one = point({}, "alignet", [0.5]).estimate("accuracy")
    assert (one.low, one.high, one.n) == (0.48, 0.52, 100)
    assert "95% interval over objects" in one.over
    seeds = point({}, "alignet", [0.4], [0.5], [0.9]).estimate("accuracy")
    assert (seeds.value, seeds.low, seeds.high) == (pytest.approx(0.6), 0.4, 0.9)
    sets = point({}, "alignet", [0.4, 0.6, 0.8]).estimate("accuracy")
    assert sets.value == pytest.approx(0.6)
    assert sets.high - sets.value == pytest.approx(np.std([0.4, 0.6, 0.8], ddof=1) / np.sqrt(3))
    assert sets.n == 300


def test_the_matrix_for_tests_between_methods():
    points = [
        point({"triplets.sampling": "random"}, "alignet", [0.1, 0.2], [0.3, 0.4]),
        point({}, "ud", [0.5, 0.6]),
    ]
    names, datasets, values = matrix(points, "accuracy")
    assert names == ["random", "UD"]
    assert datasets == ["set 0", "set 1"]
    np.testing.assert_allclose(values, [[0.2, 0.3], [0.5, 0.6]])


@pytest.mark.parametrize("look", [LIGHT, DARK])
@pytest.mark.parametrize("values", [[10, 100, 1000], ["kl", "jsd", "hard"], [10, 100, None]])
def test_points_are_drawn_on_numbers_and_on_names(look, values):
    points = [point({"x.y": value}, "alignet", [0.3 + 0.2 * number]) for number, value in enumerate(values)]
    figure, table = blocks("x", "Title", "points", ["accuracy"], points, [point({}, "original", [0.2])])
    (axis,) = figure.draw(look).axes
    assert (axis.get_xscale() == "log") == (values == [10, 100, 1000])
    assert "largest for" in figure.caption
    assert "do not overlap" in figure.caption
    assert "n = 100 for accuracy" in figure.caption
    assert len(table.rows) == 4


def few_shot(values, row, *sets):
    """A point with few-shot scores of several data sets, beside another accuracy."""
    scores = [
        Score("few_shot", f"set {number}", value, value - 0.02, value + 0.02, 100, "images", "draws")
        for number, value in enumerate(sets)
    ]
    return Point(
        values, row, {"1-shot": [scores], "odd": point(values, row, [0.9], measure="odd").scores["odd"]}
    )


SAMPLINGS = [
    few_shot({"triplets.sampling": "cluster_boundary"}, "alignet", 0.5, 0.6, 0.7),
    few_shot({"triplets.sampling": "random"}, "alignet", 0.4, 0.59, 0.72),
    few_shot({"triplets.sampling": "class_boundary"}, "alignet", 0.3, 0.3, 0.3),
]


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_a_sampling_is_drawn_against_each_other_over_data_sets(look):
    figure = against("x", "Title", ["odd", "1-shot"], SAMPLINGS, [few_shot({}, "original", 0.2, 0.2, 0.2)])
    assert (
        "cluster boundary (y) against each of the others (x) in 1-shot, in %; 3 points in each"
        in figure.caption
    )
    assert "random: 2 of 3 above, +3.0 points on average, 1 with intervals apart." in figure.caption
    assert "original: 3 of 3 above, +40.0 points on average, 3 with intervals apart." in figure.caption
    axes = [axis for axis in figure.draw(look).axes if axis.axison]
    assert [axis.get_xlabel() for axis in axes] == ["random, %", "class boundary, %", "original, %"]
    assert {axis.get_ylabel() for axis in axes} == {"cluster boundary, %"}
    dots = [line for line in axes[0].lines if len(line.get_xdata()) == 1]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in dots] == [
        pytest.approx(pair) for pair in ((40, 50), (59, 60), (72, 70))
    ]
    assert axes[0].get_xlim() == axes[0].get_ylim()


def test_alignet_is_drawn_against_the_unaligned_teachers_student_of_every_student():
    points = [
        point({"student": student}, row, [value], [value + 0.1])
        for student, step in (("small", 0.0), ("base", 0.1))
        for row, value in (("original", 0.3 + step), ("distillation", 0.4), ("alignet", 0.5))
    ]
    figure = against("x", "Title", ["accuracy"], points, [])
    assert "AligNet (y) against each of the others (x) in accuracy, in %; 2 points in each" in figure.caption
    assert "distillation: 2 of 2 above, +10.0 points on average." in figure.caption
    assert "least and largest of 2 seeds" in figure.caption
    drawing = figure.draw(LIGHT)
    assert {"small", "base"} < {text.get_text() for text in drawing.legends[0].get_texts()}


def test_numbers_are_no_ways_and_one_way_is_none():
    assert (
        against("x", "T", ["accuracy"], [point({"n": value}, "alignet", [0.5]) for value in (1, 2)], [])
        is None
    )
    assert against("x", "T", ["accuracy"], [point({}, "alignet", [0.5])], []) is None
    one = [few_shot({}, row, value) for row, value in (("alignet", 0.5), ("original", 0.4))]
    assert "in odd, 1-shot, in %; 2 points" in against("x", "T", ["odd", "1-shot"], one, []).caption


def test_a_caption_claims_no_difference_that_the_intervals_do_not_carry():
    points = [point({"x": value}, "alignet", [0.5 + 0.01 * number]) for number, value in enumerate("ab")]
    figure, _ = blocks("x", "Title", "points", ["accuracy"], points, [])
    assert "their intervals overlap" in figure.caption
    same, _ = blocks(
        "x", "Title", "points", ["accuracy"], [point({"x": one}, "ud", [0.5]) for one in "ab"], []
    )
    assert "No difference" in same.caption


def test_a_cloud_counts_what_lies_below_the_references():
    def both(values, row, first, second):
        one, other = (
            point(values, row, [value], measure=name) for name, value in (("a", first), ("b", second))
        )
        return Point(values, row, {**one.scores, **other.scores})

    points = [
        both({"f.lr": lr, "f.pull": pull}, "direct", 0.5, 0.1 * pull + lr)
        for lr in (0.1, 0.2)
        for pull in (1, 5)
    ]
    figure, table = blocks("direct", "Title", "cloud", ["a", "b"], points, [both({}, "original", 0.4, 0.5)])
    assert "0 of 4 lie below original in a, 2 in b" in figure.caption
    assert len(figure.draw(LIGHT).axes) == 1
    assert table.rows[-1][0] == "any"


def test_what_makes_no_sense_is_refused(tmp_path, capsys):
    from alignet.pipeline.cli import main

    for more, message in (
        (["ablation.rows=[]"], "expected rows"),
        (["ablation.figure=cloud", "ablation.measures=[]"], "2 or more measures"),
        (["triplets.labels_from=classes"], "set.column"),
        (["data.pool_images=2"], "at least 3"),
    ):
        with pytest.raises(ValueError, match=message):
            load(["experiment=ablation/loss", *more])
    with pytest.raises(ValueError, match="values for each key"):
        dataclasses.replace(jobs("loss")[0].ablation, over={"finetune.settings.loss": ()})
    measure = "ablation.measures=[{title: a, metric: b, part: '', datasets: [nothing]}]"
    with pytest.raises(
        ValueError, match=r"ablation\.measures: expected data sets out of all, .* found 'nothing'"
    ):
        build_graph(load(["experiment=ablation/loss", measure]))
    with pytest.raises(SystemExit):
        main(
            "pipeline",
            "",
            run_ablation,
            ["experiment=ablation/loss", "role=vice", f"paths.artifacts={tmp_path}"],
        )
    assert "expected neither" in capsys.readouterr().err


def test_jobs_that_cannot_be_made_are_told_before_the_first(ran, capsys):
    found, _ = ran
    line = everything(
        found[0].paths.artifacts, "experiment=ablation/images", "ablation.values.images=[20,100000]"
    )
    with pytest.raises(ValueError, match=r"at most 60, .* found 100,000 .*nothing was made"):
        run_ablation(jobs_of(load(line), line)[0])
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match=r"options\.shots: expected a list"):
        jobs("images", "evaluate.datasets.few.options.shots=3")


def test_a_row_beside_the_jobs_must_be_the_same_for_all(ran):
    found, _ = ran
    line = everything(
        found[0].paths.artifacts, "experiment=ablation/sampling", *SMALL, "ablation.beside=[alignet]",
        "ablation.rows=[original]",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"ablation\.beside: .* 'alignet' changed"):
        show_ablation(jobs_of(load(line), line))
    with pytest.raises(ValueError, match="expected one job of each seed, found 2"):
        show_ablation([*found, found[0]])
