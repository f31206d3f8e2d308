"""Results, verdicts, tables and plots of made-up runs, whose answers are known."""

import csv
import math
import re

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from scipy.stats import ttest_1samp

from siamese.errors import UserError
from siamese.studies.estimate import Cost
from siamese.studies.expand import Place, expand
from siamese.studies.plots import draw, names
from siamese.studies.results import (
    LineResult,
    RunResult,
    collect,
    outcome,
    write_long_table,
)
from siamese.studies.running import make_all
from siamese.studies.study import read_study
from siamese.studies.tables import comparison, duration, write_html, write_latex, write_markdown
from siamese.studies.verdict import by_seed, judge
from tests.studies.fakes import FakeTrainer

PLAIN = "settings: {data.validation: 0, trainer.epochs: 3}\nseeds: [0, 1, 2, 3]\n"
COST = Cost(272_282, 40_813_184, 1e12)


def rows_of(values, figure="test_error", **more):
    """Rows of metrics.csv whose figure takes these values; 10 s an epoch."""
    return tuple(
        {"epoch": at, "images_seen": 32.0 * at, "seconds": 10.0 * at, figure: value}
        | {name: column[at - 1] for name, column in more.items()}
        for at, value in enumerate(values, 1)
    )


@pytest.fixture
def made(write_study, tmp_path):
    """Function: a study's text and label -> one entry per seed -> the study and its results.

    An entry is the last epoch's figure, a list of all epochs', rows, "diverged", or None (to do).
    """

    def make(text, entries, budget=None):
        study = read_study(write_study(text))
        place = Place(str(tmp_path / "runs"), str(tmp_path / "checkpoints"))
        lines = expand(study, place, study.budgets[budget] if budget else None)
        results = []
        for line in lines:
            given = entries[line.label]
            given = given if isinstance(given, list) else [given] * len(line.runs)
            runs = []
            for run, entry in zip(line.runs, given, strict=False):
                if entry is None or entry == "diverged":
                    state = "missing" if entry is None else "diverged"
                    found = () if entry is None else rows_of([90.0], study.figure)
                    runs.append(RunResult(run, state, found))
                    continue
                if isinstance(entry, (int, float)):
                    entry = rows_of([50.0, 20.0, entry], study.figure)
                elif not isinstance(entry, tuple):
                    entry = rows_of(entry, study.figure)
                runs.append(RunResult(run, "done", entry, "cpu"))
            results.append(LineResult(line, tuple(runs)))
        return study, results

    return make


def words(study, results, budget=None):
    return "\n".join(judge(study, results, budget).lines())


def legend_of(figure):
    """The one legend of a figure."""
    (legend,) = (axes.get_legend() for axes in figure.axes if axes.get_legend())
    return legend


TWO = PLAIN + "runs: [{label: a}, {label: b, settings: {optimizer.momentum: 0.5}}]\n"
NOISE = [0.3, -0.2, 0.1, -0.15]


# Results


def test_the_last_epoch_counts_and_the_best_is_an_extra(made):
    study, results = made(TWO, {"a": [[9.0, 5.0, 7.0]] * 4, "b": 8.0})
    found = outcome(study, results[0].runs[0])
    assert (found.value, found.epoch, found.best, found.seconds) == (7.0, 3, 5.0, 30.0)
    table = comparison(study, results, {"a": COST, "b": COST}, None)
    assert table.rows[0][1:4] == ("7.00 (4)", "7.00 ± 0.00", "5.00")
    assert "extra: best epoch on test" in [column.title for column in table.columns]


@pytest.mark.parametrize(
    ("select", "epoch", "value"), [("error", 2, 6.5), ("loss", 3, 7.0)], ids=str
)
def test_the_selected_epoch_is_the_validations(made, select, epoch, value):
    text = TWO.replace("data.validation: 0", f"data.validation: 0.1, trainer.select: {select}")
    rows = rows_of(
        [5.0, 6.5, 7.0, 8.0], validation_error=[9.0, 4.0, 4.0, 5.0],
        validation_loss=[0.9, 0.8, 0.3, 0.5],
    )  # fmt: skip
    study, results = made(text + "report: selected", {"a": rows, "b": rows})
    found = outcome(study, results[0].runs[0])
    assert (found.epoch, found.value) == (epoch, value)  # of equal ones the first, as in training
    assert "chosen epoch" in comparison(study, results, {}, None).columns[1].title


def test_more_is_better_for_faces(made):
    text = "task: face\nsettings: {split.test: 0.2, trainer.epochs: 4}\nseeds: [0, 1, 2, 3]\n"
    text += "runs: [{label: a}, {label: b, settings: {optimizer.name: adamw}}]\nbaseline: a"
    rows = {
        label: [
            rows_of([0.6, level + noise / 100, 0.5], "test_auc", auc=[0.5, 0.9, 0.7], ap=[1, 1, 1])
            for noise in NOISE
        ]
        for label, level in (("a", 0.8), ("b", 0.9))
    }
    rows["b"] = [tuple({**r, "test_auc": r["test_auc"] + at / 1e4} for r in run)
                 for at, run in enumerate(rows["b"])]  # fmt: skip
    study, results = made(text, rows)
    assert (study.figure, study.report) == ("test_auc", "selected")
    found = outcome(study, results[0].runs[0])
    assert (found.epoch, found.value) == (2, pytest.approx(0.803))
    told = words(study, results)
    assert "Best median test AUC, epoch chosen by validation: 'b'" in told
    assert "'b' against 'a': better (+0.10" in told
    drawings = by_name(draw(study, results, None))
    assert {"test_auc_over_epochs", "test_auc_over_images", "test_auc_over_time"} <= set(drawings)
    axes = drawings["test_auc_over_images"].figure.axes[0]
    assert [32, 64, 96] in [line.get_xdata().tolist() for line in axes.lines]
    assert axes.get_ylabel() == "test AUC"
    assert axes.get_yscale() == "linear"


def test_runs_that_are_not_done_have_no_figure(made):
    study, results = made(TWO, {"a": [8.0, "diverged", None, 9.0], "b": 8.0})
    assert by_seed(study, results[0]) == {0: 8.0, 3: 9.0}
    assert (results[0].diverged, results[0].unfinished) == (1, 1)
    row = comparison(study, results, {}, None).rows[0]
    assert row[1] == "8.50 (2)"
    assert row[4] == "1 of 4 (1 to do)"
    told = words(study, results)
    assert "'a': 1 of 4 runs diverged; its figures are those of the others" in told
    assert "1 of 8 runs are not over" in told


def test_the_long_table_holds_every_epoch_of_every_run(write_study, tmp_path):
    place = Place(str(tmp_path / "runs"), str(tmp_path / "checkpoints"))
    lines = expand(read_study(write_study()), place)
    runs = [run for line in lines for run in line.runs]
    trainer = FakeTrainer(tmp_path / "journal", diverges_from=0.05)
    make_all(runs, trainer, logs=tmp_path, say=lambda line: None)
    write_long_table(tmp_path / "all.csv", collect(lines))
    with open(tmp_path / "all.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:10] == [
        "label", "run", "hash", "seed", "status", "epoch", "step", "images_seen", "seconds", "lr",
    ]  # fmt: skip
    assert [(row["label"], row["seed"], row["epoch"]) for row in table] == [
        *(("low", seed, epoch) for seed in "01" for epoch in "123"),
        *(("high", seed, epoch) for seed in "01" for epoch in "12"),
    ]
    assert {row["status"] for row in table} == {"done", "diverged"}
    assert {row["hash"] for row in table} == {run.hash for run in runs}
    for row in table:
        assert float(row["test_accuracy"]) == pytest.approx(100 - float(row["test_error"]))
    metrics = runs[0].folder / "metrics.csv"
    metrics.write_text("epoch,lr\n1,x\n")
    with pytest.raises(UserError, match=r"metrics\.csv line 2: is damaged; remove its folder"):
        collect(lines)


# The verdict


def test_a_difference_above_the_noise_is_called_one(made):
    a = [8 + noise for noise in NOISE]
    b = [value - 1 + shift for value, shift in zip(a, (0.05, -0.03, 0.02, 0), strict=True)]
    told = words(*made(TWO, {"a": a, "b": b}))
    assert "'a' against 'b': worse (+0.99 [" in told
    assert "4 seeds, p < 0.001" in told
    assert "1 comparison with 'b', chosen as the best of them, paired by seed" in told
    told = words(*made(TWO + "baseline: a", {"a": a, "b": b}))
    assert "'b' against 'a': better (-0.99 [" in told
    assert "chosen as the best" not in told


def test_a_difference_below_the_noise_is_none(made):
    a = [8 + noise for noise in NOISE]
    told = words(*made(TWO, {"a": a, "b": [value + 0.1 for value in reversed(a)]}))
    assert "'b' against 'a': no difference seen (" in told
    assert "No difference seen between any of them and it." in told


def test_many_comparisons_need_more_evidence(made):
    a = [8 + noise for noise in NOISE]
    b = [value + 0.2 + noise for value, noise in zip(a, (0.1, -0.05, 0.08, 0.0), strict=True)]
    assert "'b' against 'a': worse" in words(*made(TWO + "baseline: a", {"a": a, "b": b}))
    text = PLAIN + "baseline: a\nruns:\n- {label: a}\n- {label: b, settings: {seed_: 0}}\n"
    others = {f"c{at}": [v + n for v, n in zip(a, np.roll(NOISE, at), strict=True)]
              for at in range(1, 12)}  # fmt: skip
    text = PLAIN + "baseline: a\nruns:\n- {label: a}\n" + "".join(
        f"- {{label: {label}, settings: {{optimizer.momentum: {0.5 + at / 100}}}}}\n"
        for at, label in enumerate(["b", *others])
    )  # fmt: skip
    told = words(*made(text, {"a": a, "b": b, **others}))
    assert "12 comparisons with 'a', paired by seed" in told
    assert "'b' against 'a': no difference seen" in told


def test_one_run_each_shows_nothing(made):
    text = TWO.replace("[0, 1, 2, 3]", "[0]")
    told = words(*made(text, {"a": 8.0, "b": 5.0}))
    assert "'a' against 'b': +3.00, too few seeds (1): a verdict needs at least 3." in told
    assert "too few seeds (1): a verdict needs at least 3: no interval for 'a', 'b'" in told
    study, results = made(text, {"a": 8.0, "b": 5.0})
    assert comparison(study, results, {}, None).rows[0][2] == "8.00 (too few seeds: 1)"


def test_two_seeds_give_no_wide_numbers(made):
    study, results = made(TWO.replace("[0, 1, 2, 3]", "[0, 1]"), {"a": [0.5, 15.5], "b": [5, 6]})
    told = words(study, results)
    assert "too few seeds (2): a verdict needs at least 3." in told
    assert "[" not in told.replace("[0, 1]", "")  # no interval anywhere
    assert "p =" not in told
    assert [row[2] for row in comparison(study, results, {}, None).rows] == [
        "8.00 (too few seeds: 2)",
        "5.50 (too few seeds: 2)",
    ]


RECIPES = PLAIN + (
    "runs: [{label: a}, {label: b, settings: {optimizer.momentum: 0.5}}]\n"
    "grid: {model.name: [resnet20, preact20, wrn16_2]}\n"
)


def recipes(gains, noise=0.02):
    """Figures of recipe b that is better than a by some gain on each of three networks."""
    rng = np.random.default_rng(0)
    entries = {}
    for level, (network, gain) in enumerate(
        zip(("resnet20", "preact20", "wrn16_2"), gains, strict=True)
    ):
        a = 8 + level + rng.normal(0, 0.3, 4)
        entries[f"a, model.name={network}"] = a.tolist()
        entries[f"b, model.name={network}"] = (a - gain + rng.normal(0, noise, 4)).tolist()
    return entries


def test_a_recipe_wins_across_networks_paired_by_network_and_seed(made):
    study, results = made(RECIPES, recipes([0.3, 0.2, 0.25]))
    found = judge(study, results)
    (one,) = found.across
    assert (one.label, one.reference, one.difference.n) == ("a", "b", 12)
    values = [by_seed(study, result) for result in results]
    differences = [
        values[at][seed] - values[at + 3][seed] for at in range(3) for seed in range(4)
    ]  # lines are arm by arm
    assert one.difference.mean == pytest.approx(np.mean(differences))
    assert one.difference.p == pytest.approx(ttest_1samp(differences, 0).pvalue)
    told = "\n".join(found.lines())
    assert "Across all 3 networks, best mean of the medians: 'b' with" in told
    assert "ahead on 3 of them" in told
    assert "Across all 3 networks, 'a' against 'b': worse (+0.2" in told
    assert "12 pairs of network and seed" in told
    # With a baseline it is the reference.
    (one,) = judge(*made(RECIPES + "baseline: a", recipes([0.3, 0.2, 0.25]))).across
    assert (one.label, one.reference, one.difference.seen) == ("b", "a", True)


def test_a_recipe_that_wins_on_one_network_only_does_not_win_across(made):
    told = words(*made(RECIPES, recipes([0.9, -0.4, -0.3])))
    assert "Across all 3 networks, 'a' against 'b': no difference seen" in told or (
        "Across all 3 networks, 'b' against 'a': no difference seen" in told
    )


def test_two_seeds_on_each_network_are_too_few_across(made):
    entries = {label: values[:2] for label, values in recipes([0.3, 0.2, 0.25]).items()}
    study, results = made(RECIPES.replace("[0, 1, 2, 3]", "[0, 1]"), entries)
    found = judge(study, results)
    assert found.across == ()
    assert "Across all 3 networks: too few seeds (2): a verdict needs at least 3." in found.summary


def test_there_is_no_verdict_across_lengths_of_training(made):
    text = RECIPES.replace(", trainer.epochs: 3", "").replace(
        "model.name: [resnet20, preact20, wrn16_2]", "trainer.epochs: [1, 2, 3]"
    )
    entries = {
        label.replace("resnet20", "1").replace("preact20", "2").replace("wrn16_2", "3")
        .replace("model.name", "trainer.epochs"): values
        for label, values in recipes([0.3, 0.2, 0.25]).items()
    }  # fmt: skip
    assert "Across" not in words(*made(text, entries))


def test_nothing_over_says_nothing(made):
    study, results = made(TWO, {"a": None, "b": None})
    assert judge(study, results).summary == ("No run is over yet: nothing can be said.",)
    assert draw(study, results, None) == []
    assert comparison(study, results, {}, None).rows[0][1] == ""


RATES = PLAIN + "runs: [{label: x}]\ngrid: {optimizer.lr: [0.1, 0.2, 0.4]}\n"


@pytest.mark.parametrize(
    ("errors", "side"),
    [
        ([7, 8, 9], "lowest"),
        ([9, 8, 7], "highest"),
        ([8, 7, 9], None),
        ([9, 7, "diverged"], None),  # the range is known: beyond it diverges
        ([9, 7, [6, 6, "diverged", 6]], None),
        ([9, 7, None], None),  # not yet known
        (["diverged"] * 3, None),
    ],
    ids=str,
)
def test_the_best_rate_on_the_grids_edge_is_warned_of(made, errors, side):
    labels = [f"x, optimizer.lr={rate}" for rate in (0.1, 0.2, 0.4)]
    told = words(*made(RATES, dict(zip(labels, errors, strict=True))))
    assert ("the best learning rate" in told) == (side is not None)
    if side:
        assert f"is the {side} tried" in told


def test_the_best_decay_on_the_grids_edge_is_warned_of_but_not_at_zero(made):
    text = RATES.replace("optimizer.lr: [0.1", "optimizer.weight_decay: [0")
    labels = [f"x, optimizer.weight_decay={decay:g}" for decay in (0, 0.2, 0.4)]
    assert "weight decay" not in words(*made(text, dict(zip(labels, [7, 8, 9], strict=True))))
    told = words(*made(text, dict(zip(labels, [9, 8, 7], strict=True))))
    assert "the best weight decay, 0.4" in told


TUNED = PLAIN.replace("validation: 0,", "validation: 0.1,") + (
    "report: selected\nruns: [{label: a}, {label: b, settings: {optimizer.momentum: 0.5}}]\n"
    "grid: {optimizer.lr: [0.1, 0.2, 0.4]}\n"
)


def test_arms_with_a_grid_are_compared_tuned_by_validation(made):
    def runs(test, validation):
        return [rows_of([test + n], validation_error=[validation + n]) for n in NOISE]

    entries = {
        "a, optimizer.lr=0.1": runs(5, 9),  # best on the test images, which choose nothing
        "a, optimizer.lr=0.2": runs(8, 7),
        "a, optimizer.lr=0.4": runs(9, 8),
        "b, optimizer.lr=0.1": runs(7.5, 8),
        "b, optimizer.lr=0.2": runs(7, 7),
        "b, optimizer.lr=0.4": ["diverged", *runs(1, 1)[1:]],
    }
    study, results = made(TUNED, entries)
    found = judge(study, results)
    assert found.reference == "b, optimizer.lr=0.2"
    assert [one.label for one in found.compared] == ["a, optimizer.lr=0.2"]
    assert "chosen by validation_error: 'a, optimizer.lr=0.2'" in found.summary[1]
    study, results = made(TUNED + "baseline: a", entries)
    found = judge(study, results)
    assert found.reference == "a, optimizer.lr=0.2"
    bare = TUNED.replace("0.1, trainer", "0, trainer").replace("report: selected\n", "")
    for runs_of in entries.values():
        runs_of[:] = [run if run == "diverged" else run[0]["test_error"] for run in runs_of]
    found = judge(*made(bare, entries))
    assert found.compared[0].label == "b, optimizer.lr=0.2"
    assert "by test_error itself, which is a little optimistic" in found.summary[1]


# Tables


PUBLISHED = PLAIN + (
    "runs:\n- {label: 'a | *b*', published: 7.6, published_runs: 3, published_time: 24m,"
    " paper: 7.5 (best)}\n- {label: c, settings: {optimizer.lr: 1}}\n"
)


def test_markdown_has_the_columns_that_papers_print(made, tmp_path):
    study, results = made(PUBLISHED, {"a | *b*": [8.0, 8.2, 8.1, 8.3], "c": 9.0})
    table = comparison(study, results, {"a | *b*": COST}, None)
    write_markdown(tmp_path / "t.md", study, table, judge(study, results), [])
    text = (tmp_path / "t.md").read_text()
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    assert {len(row) for row in rows} == {13}
    assert [cell.strip() for cell in rows[2][1:-1]] == [
        r"a \| \*b\*", "8.15 (4)", "8.15 ± 0.21", "8.15", "0", "272,282", "40.8 M", "30 s",
        "7.60 (3)", "24m", "7.5 (best)",
    ]  # fmt: skip
    assert [cell.strip() for cell in rows[3][9:-1]] == ["", "", ""]
    assert "## Verdict" in text
    assert "REDUCED" not in text


def test_a_reduced_table_says_so(made, tmp_path):
    study, results = made(PUBLISHED, {"a | *b*": 8.0, "c": 9.0}, "small")
    budget = study.budgets["small"]
    table = comparison(study, results, {}, budget)
    assert table.title.endswith("REDUCED (budget small)")
    assert "not comparable with published figures" in table.caption
    assert "reduced budget 'small'" in words(study, results, budget)
    for drawing in draw(study, results, budget):
        assert "REDUCED" in drawing.figure.get_suptitle()


def test_the_page_holds_everything_and_no_markup_of_the_study(made, tmp_path):
    study, results = made(
        PUBLISHED.replace("'a | *b*'", "'<script>1</script>'"),
        {"<script>1</script>": [8.0, 8.2, 8.1, "diverged"], "c": 9.0},
    )
    drawings = draw(study, results, None)
    verdict = judge(study, results)
    table = comparison(study, results, {}, None)
    write_html(tmp_path / "t.html", study, table, verdict, drawings, results, "made")
    html = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "<script>1</script>" not in html
    assert html.count("data:image/svg+xml;base64,") == len(drawings)
    for part in ("7.60 (3)", "1 of 4", "diverged", results[1].runs[0].run.name, "data.validation"):
        assert part in html


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (45, "45 s"), (59.7, "1 min 00 s"), (200, "3 min 20 s"),
     (3599.8, "1 h 00 min"), (7500, "2 h 05 min"), (95 * 3600, "95 h 00 min"),
     (1e8, "1,157 days"), (math.nan, "")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


# Plots


def by_name(drawings):
    return {drawing.name: drawing for drawing in drawings}


def test_bands_run_from_the_least_to_the_greatest_seed(made):
    curves = [[50.0, 20.0, 8.0], [60.0, 25.0, 7.0], [55.0, 15.0, 9.0], [52.0, 30.0, 7.5]]
    study, results = made(TWO, {"a": curves, "b": 10.0})
    axes = by_name(draw(study, results, None))["test_error_over_epochs"].figure.axes[0]
    band = next(c for c in axes.collections if isinstance(c, PolyCollection)
                and 60.0 in c.get_paths()[0].vertices[:, 1])  # fmt: skip
    corners = {tuple(point) for point in band.get_paths()[0].vertices.tolist()}
    assert corners >= {(1, 50), (1, 60), (2, 15), (2, 30), (3, 7), (3, 9)}
    medians = [line.get_ydata().tolist() for line in axes.lines]
    assert [53.5, 22.5, 7.75] in medians


def test_time_is_the_median_of_the_seeds(made):
    slow = tuple({**row, "seconds": 3 * row["seconds"]} for row in rows_of([50, 20, 8]))
    study, results = made(TWO, {"a": [8.0, 8.0, slow, slow], "b": 10.0})
    axes = by_name(draw(study, results, None))["test_error_over_time"].figure.axes[0]
    assert [20, 40, 60] in [line.get_xdata().tolist() for line in axes.lines]
    assert axes.get_xlabel() == "training time in seconds, judging left out"


GRID = PLAIN + (
    "runs: [{label: S}, {label: A, settings: {optimizer.name: adam, optimizer.nesterov: false}}]\n"
    "grid: {optimizer.lr: [0.001, 0.01, 0.1]}\ntarget: 9\n"
)
GRID_ENTRIES = {
    "S, optimizer.lr=0.001": 12.0,
    "S, optimizer.lr=0.01": 9.0,
    "S, optimizer.lr=0.1": 8.0,
    "A, optimizer.lr=0.001": 8.5,
    "A, optimizer.lr=0.01": [11.0, 12.0, "diverged", 13.0],
    "A, optimizer.lr=0.1": "diverged",
}


def test_the_heat_map_hatches_what_diverged(made):
    study, results = made(GRID, GRID_ENTRIES)
    figure = by_name(draw(study, results, None))["heat_map"].figure
    figure.canvas.draw()  # the axis writes its labels then
    axes = figure.axes[0]
    cells = {(round(p.get_x() + 0.5), round(p.get_y() + 0.5)): p for p in axes.patches}
    assert len(cells) == 6
    assert {at for at, cell in cells.items() if cell.get_hatch()} == {(1, 1), (2, 1)}
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts[(0, 0)] == "12.00"
    assert texts[(1, 1)] == "12.00"
    assert texts[(2, 1)] == "diverged"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["S", "A"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.001", "0.01", "0.1"]


def test_sweeps_are_drawn_on_a_logarithmic_axis_with_what_diverged(made):
    study, results = made(GRID, GRID_ENTRIES)
    figure = by_name(draw(study, results, None))["learning_rate"].figure
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    drawn = [(line.get_xdata(), line.get_ydata(), line.get_marker()) for line in axes.lines]
    assert any(np.allclose(x, [0.001, 0.01, 0.1]) and np.allclose(y, [12, 9, 8])
               for x, y, _ in drawn if len(x) == 3)  # fmt: skip
    assert {(float(x[0]), mark) for x, _, mark in drawn if mark in "x+"} == {
        (0.01, "+"), (0.1, "x"),
    }  # fmt: skip
    assert [text.get_text() for text in legend_of(figure).get_texts()] == ["S", "A"]


def test_sweeps_that_are_listed_are_told_apart_by_the_fewest_settings(made):
    text = PLAIN + "runs:\n"
    entries = {}
    for optimizer, momentum, error in (("sgd", 0.5, 8.0), ("lars", 0.7, 9.0)):
        for rate in (0.1, 0.2):
            label = f"{optimizer} {rate}"
            text += (
                f"- {{label: {label}, settings: {{optimizer.name: {optimizer}, "
                f"optimizer.lr: {rate}, optimizer.momentum: {momentum}}}}}\n"
            )
            entries[label] = error
    figure = by_name(draw(*made(text, entries), None))["learning_rate"].figure
    assert [text.get_text() for text in legend_of(figure).get_texts()] == ["sgd", "lars"]


def test_a_decay_of_zero_has_a_place_on_the_logarithmic_axis(made):
    text = RATES.replace("optimizer.lr: [0.1", "optimizer.weight_decay: [0")
    labels = [f"x, optimizer.weight_decay={decay:g}" for decay in (0, 0.2, 0.4)]
    study, results = made(text, dict(zip(labels, [7.0, 8.0, 9.0], strict=True)))
    axes = by_name(draw(study, results, None))["weight_decay"].figure.axes[0]
    places = axes.lines[0].get_xdata()
    assert np.allclose(places, [0.1, 0.2, 0.4])
    shown = axes.xaxis.get_major_formatter()
    assert [shown(place) for place in places] == ["0", "0.2", "0.4"]


def test_bars_show_the_time_to_the_target(made):
    study, results = made(
        GRID, {**GRID_ENTRIES, "S, optimizer.lr=0.1": [[9, 8], [10, 9], [20, 9.1], 5]}
    )
    figure = by_name(draw(study, results, None))["time_to_target"].figure
    axes = figure.axes[0]
    figure.canvas.draw()
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    bars = dict(zip(labels, [bar.get_width() for bar in axes.patches], strict=False))
    assert bars == {
        "S, lr 0.1": 20.0, "S, lr 0.01": 30.0, "A, lr 0.001": 30.0,
    }  # fmt: skip
    texts = [text.get_text() for text in axes.texts]
    assert texts[0] == "20 s (3 of 4 runs)"
    assert texts[-1] == "not reached (0 of 4 runs)"
    study, results = made(GRID.replace("target: 9", "target: 1"), GRID_ENTRIES)
    assert "time_to_target" not in by_name(draw(study, results, None))
    assert "no run has reached the target of 1" in words(study, results)


def test_many_lines_stay_readable(made):
    rates = [round(0.01 * at, 2) for at in range(1, 31)]
    text = PLAIN + f"runs: [{{label: x}}]\ngrid: {{optimizer.lr: {rates}}}\n"
    entries = {f"x, optimizer.lr={rate:g}": 5 + 10 * rate for rate in rates}
    study, results = made(text, entries)
    figure = by_name(draw(study, results, None))["test_error_over_epochs"].figure
    names = [text.get_text() for text in legend_of(figure).get_texts()]
    assert names[:2] == ["x, lr 0.01", "x, lr 0.02"]
    assert names[-1] == "the other 16"
    assert len(names) == 15


def test_labels_in_any_script_are_drawn_as_they_are(made, tmp_path):
    text = (
        PLAIN + "runs: [{label: '_夏 $x_1$'}, {label: b, settings: {optimizer.lr: 1}}]\ntarget: 9"
    )
    study, results = made(text, {"_夏 $x_1$": 8.0, "b": 8.5})
    for drawing in draw(study, results, None):
        drawing.figure.savefig(tmp_path / f"{drawing.name}.png")
    legend = legend_of(by_name(draw(study, results, None))["test_error_over_epochs"].figure)
    first = legend.get_texts()[0]
    assert first.get_text().startswith("_")
    assert first.get_text().endswith("$x_1$")
    assert not first.get_parse_math()


LENGTHS = (
    "settings: {data.validation: 0}\nseeds: [0, 1, 2, 3]\n"
    "runs: [{label: a}, {label: b, settings: {optimizer.momentum: 0.5}}]\n"
    "grid: {trainer.epochs: [1, 2]}\n"
)


def test_arms_are_compared_at_each_length_and_not_at_their_best_one(made):
    entries = {
        "a, trainer.epochs=1": [30 + n for n in NOISE],
        "b, trainer.epochs=1": [20 - n for n in NOISE],
        "a, trainer.epochs=2": [10 + n for n in NOISE],
        "b, trainer.epochs=2": [10 - n for n in NOISE],
    }
    study, results = made(LENGTHS + "baseline: a\n", entries)
    found = judge(study, results)
    pairs = [(one.label, one.reference) for one in found.compared]
    assert pairs == [
        ("b, trainer.epochs=1", "a, trainer.epochs=1"),
        ("b, trainer.epochs=2", "a, trainer.epochs=2"),
    ]
    assert ": better (-10.03" in found.compared[0].sentence
    assert "no difference seen" in found.compared[1].sentence
    assert found.summary[0].startswith("At trainer.epochs=1, best median")
    assert found.reference is None
    assert found.compared[0].difference.adjusted == 2 * found.compared[0].difference.p
    assert "number_of_epochs" in [drawing.name for drawing in draw(study, results, None)]
    study, results = made(LENGTHS, entries)
    assert "of each part, chosen as the best of them" in words(study, results)


def test_every_drawing_has_a_known_name(made):
    study, results = made(LENGTHS + "target: 30\n", dict.fromkeys(RATES_OF_LENGTHS, 20.0))
    assert {drawing.name for drawing in draw(study, results, None)} < names()


RATES_OF_LENGTHS = [f"{arm}, trainer.epochs={epochs}" for arm in "ab" for epochs in (1, 2)]


def test_a_part_of_the_images_is_never_beside_a_published_figure_unmarked(made):
    text = PUBLISHED.replace("data.validation: 0", "data.validation: 0, data.subset: 500")
    study, results = made(text, {"a | *b*": 8.0, "c": 9.0})
    assert "only a part of the images (data.subset 500): not comparable" in words(study, results)
    assert comparison(study, results, {}, None).rows[0][8] == "7.60 (3), of all images"
    curves = next(d for d in draw(study, results, None) if d.name == "learning_rate")
    assert "published" not in curves.caption


def test_runs_that_diverged_are_named_with_the_best(made):
    study, results = made(TWO, {"a": ["diverged", 5.0, 5.1, 5.2], "b": 9.0})
    assert "'a' with 5.10 (3 runs, 1 diverged)." in words(study, results)


def test_a_study_under_way_has_its_parts_already(made):
    entries = {label: 20.0 if label.startswith("a") else None for label in RATES_OF_LENGTHS}
    text = words(*made(LENGTHS + "baseline: a\n", entries))
    assert "At trainer.epochs=2, best" in text
    assert "the baseline" not in text
    assert "against" not in text


NETS = PLAIN + (
    "runs: [{label: S}, {label: A, settings: {optimizer.name: adam, optimizer.nesterov: false}}]\n"
    "grid: {model.name: [resnet20, preact20], optimizer.lr: [0.1]}\nbaseline: S\n"
)
NETS_ENTRIES = {
    f"{arm}, model.name={net}, optimizer.lr=0.1": [base + n for n in NOISE]
    for arm, net, base in (("S", "resnet20", 9), ("S", "preact20", 8), ("A", "resnet20", 5))
} | {"A, model.name=preact20, optimizer.lr=0.1": [8.0, 8.1, None, None]}


def test_labels_of_tables_and_plots_leave_out_the_names_of_settings(made):
    study, results = made(NETS, NETS_ENTRIES)
    wanted = [f"{arm}, {net}, lr 0.1" for arm in "SA" for net in ("resnet20", "preact20")]
    assert [row[0] for row in comparison(study, results, {}, None).rows] == wanted
    figure = by_name(draw(study, results, None))["test_error_over_epochs"].figure
    assert {text.get_text() for text in legend_of(figure).get_texts()} == set(wanted)
    assert figure.get_suptitle().split("\n") == [study.title, "2 networks on cifar10"]


def test_differences_are_drawn_for_each_network_and_two_seeds_have_no_interval(made):
    study, results = made(NETS, NETS_ENTRIES)
    figure = by_name(draw(study, results, None))["differences"].figure
    figure.canvas.draw()
    (axes,) = figure.axes
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == [f"A, {net}, lr 0.1 - S, {net}, lr 0.1" for net in ("resnet20", "preact20")]
    found = judge(study, results).compared[0].difference
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    assert np.allclose(spans, [[found.mean - found.half, found.mean + found.half]])
    (few,) = axes.texts
    assert (few.get_text().strip(), few.get_position()[1]) == ("too few seeds (2)", 1)


@pytest.mark.parametrize("epochs", [1, 3, 12])
def test_axes_begin_at_the_first_epoch(made, epochs):
    curves = [float(90 - at) for at in range(epochs)]
    drawn = by_name(draw(*made(TWO, {"a": [curves] * 4, "b": [curves] * 4}), None))
    for what, first in (("epochs", 1), ("time", 10)):
        figure = drawn[f"test_error_over_{what}"].figure
        figure.canvas.draw()
        left, right = figure.axes[0].get_xlim()
        assert first - 0.05 * (epochs * first) <= left < first or epochs == 1
        assert 0 < left < first < right
        if what == "epochs":
            assert figure.axes[0].get_xticks()[0] == 1


def test_latex_is_escaped_and_has_the_tables_cells(made, tmp_path):
    label = r"50% & #1_x $a$ {b} ~ ^ \d -- [c] 夏"
    text = PLAIN + f"runs:\n- {{label: '{label}'}}\n- {{label: b, settings: {{optimizer.lr: 1}}}}\n"
    study, results = made(text, {label: [8.0, 8.2, 8.1, 8.3], "b": [9.0, None, None, None]})
    write_latex(tmp_path / "table.tex", comparison(study, results, {}, None))
    lines = (tmp_path / "table.tex").read_text("utf-8").splitlines()
    start = lines.index(r"\midrule") + 1
    first, second = lines[start : lines.index(r"\bottomrule")]
    assert first.startswith(
        r"{50\% \& \#1\_x \$a\$ \{b\} \textasciitilde{} \textasciicircum{} \textbackslash{}d -{}- "
        r"[c] 夏} & {8.15 (4)} & {8.15 \ensuremath{\pm} 0.21} & "
    )
    assert first.endswith(r" \\")
    assert "{9.00 (too few seeds: 1)}" in second
    head = lines[lines.index(r"\toprule") + 1]
    columns = next(line for line in lines if "begin{tabular}" in line)
    for line in (head, first, second):
        # What is left without the escapes: separators, braces that match, commands known here.
        bare = re.sub(r"\\[%&#_${}]", "", line.removesuffix(r" \\"))
        assert bare.count(" & ") == bare.count("&") == len(columns.split("{")[-1]) - 2
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"[%#_$~^]", bare)
        known = {"textbackslash", "textasciitilde", "textasciicircum", "ensuremath", "pm"}
        assert set(re.findall(r"\\(\w+)", bare)) <= known
    for name in ("table", "tabular"):
        assert sum(rf"\begin{{{name}}}" in line for line in lines) == 1
        assert sum(rf"\end{{{name}}}" in line for line in lines) == 1
