import html.parser
import math
import warnings
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import zoo
from zoo.evaluation import plots
from zoo.evaluation.diagnosis import Diagnosis
from zoo.evaluation.figures import wilson
from zoo.evaluation.gaps import Gap
from zoo.evaluation.importance import LayerImportance
from zoo.evaluation.plots.of_gradients import gradient_records
from zoo.evaluation.predictions import Evaluation
from zoo.training.learning_curve import LearningCurve
from zoo.training.recipe import Recipe


def evaluation(classes=3, count=60, names=None):
    """Answers that are right about two times in three."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    raw = rng.random((count, classes)) + 0.7 * np.eye(classes)[labels]
    names = names or [f"class {i}" for i in range(classes)]
    return Evaluation("dev", names, [f"{i}.png" for i in range(count)], labels, raw / raw.sum(axis=1, keepdims=True))


def records(groups, count=7):
    """The table of a GradientMonitor in which the first group vanishes and the second dies."""
    return [
        {
            "epoch": 1 + i // 3,
            "step": i % 3,
            "loss": 1.0,
            "group": group,
            "gradient_norm": 1e-7 if place == 0 else 1.0 + place,
            "weight_norm": 2.0,
            "update_ratio": 0.001 * (i + 1),
            "dead": 0.9 if place == 1 else 0.1,
            "mean": 0.0,
            "spread": 1.0,
        }
        for i in range(count)
        for place, group in enumerate(groups)
    ]


def heights(axes):
    return [patch.get_height() for patch in axes.patches]


def lengths(axes):
    return [patch.get_width() for patch in axes.patches]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def drawn(axes, color):
    """The values of the first line of a colour, gaps as NaN."""
    found = next(line for line in axes.lines if line.get_color() == color)
    return np.ma.filled(np.ma.asarray(found.get_ydata(), float), np.nan)


def ready(figure):
    """That it can be laid out and drawn, at a size of text that can be read."""
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    assert all(text.get_fontsize() >= 8 for text in figure.findobj(matplotlib.text.Text) if text.get_text())
    return figure


def test_confusion_writes_the_counts_into_its_cells():
    given = evaluation()
    (axes,) = ready(plots.confusion(given)).axes

    assert [int(text.split("\n")[0]) for text in texts(axes)] == given.confusion.to_numpy().ravel().tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == given.class_names


def test_confusion_of_many_classes_shows_those_with_the_most_errors():
    given = evaluation(40, 400)
    counts = given.confusion.to_numpy()
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    (axes,) = ready(plots.confusion(given)).axes
    shown = [int(label.get_text().split()[-1]) for label in axes.get_yticklabels()]

    assert len(shown) == 20
    assert sorted(errors[shown]) == sorted(errors)[-20:]
    assert "20 of 40 classes" in axes.get_title(loc="left")


def test_reliability_has_the_accuracies_as_bars_and_the_pictures_below():
    given = evaluation()
    bins = given.reliability[given.reliability.pictures > 0]
    above, below = ready(plots.reliability(given)).axes

    assert heights(above)[: len(bins)] == pytest.approx(bins.accuracy)
    assert heights(above)[len(bins) :] == pytest.approx(bins.confidence - bins.accuracy)
    assert heights(below) == pytest.approx(bins.pictures)
    assert f"{given.calibration_error:.1%}" in above.get_title(loc="left")


def test_per_class_puts_recall_with_its_interval_in_order_of_f1():
    given = evaluation()
    (axes,) = ready(plots.per_class(given)).axes
    worst = given.per_class.sort_values("f1").iloc[0]

    assert axes.lines[0].get_xdata() == pytest.approx(wilson(worst.recall * worst.support, worst.support))
    assert axes.lines[1].get_xdata()[0] == pytest.approx(worst.recall)


@pytest.mark.parametrize("draw", [plots.confusion, plots.reliability, plots.per_class])
def test_one_class_can_be_drawn_and_pictures_without_labels_are_refused(draw):
    alone = Evaluation("dev", ["only"], ["a"], np.zeros(1, int), np.ones((1, 1)))
    ready(draw(alone))

    with pytest.raises(ValueError, match="no labels"):
        draw(Evaluation("dev", ["only"], ["a"], np.full(1, -1), np.ones((1, 1))))


def test_history_draws_what_it_is_given_and_marks_the_best_epoch():
    given = {
        "loss": [1.0, 0.5, math.inf, 0.2],
        "val_loss": [1.1, 0.4, 0.3, math.nan],
        "accuracy": [0.5, 0.6, 0.7, 0.8],
        "learning_rate": [1e-2, 1e-2, 1e-4, 1e-5],
    }
    loss, accuracy, rate = ready(plots.history(pd.DataFrame({"epoch": [1, 2, 3, 4], **given}))).axes

    assert drawn(loss, "#2079bd") == pytest.approx([1.1, 0.4, 0.3, math.nan], nan_ok=True)
    assert drawn(loss, "#d55e00") == pytest.approx([1.0, 0.5, math.nan, 0.2], nan_ok=True)
    assert loss.get_title(loc="left") == "best epoch: 3 of 4; x: no number"
    assert texts(accuracy) == ["train 80.0%"]
    assert rate.get_yscale() == "log"
    assert rate.patches[0].get_data().values == pytest.approx(given["learning_rate"])


def test_history_leaves_out_what_is_missing_and_takes_one_epoch():
    (alone,) = ready(plots.history({"loss": [0.5]})).axes
    run = SimpleNamespace(history={"loss": [3.0, 2.0], "val_loss": [1.0, 2.0]}, best_epoch=2)
    falling = {"cross_entropy": [2.0, 1.0], "val_cross_entropy": [2.0, 1.0]}
    penalised = {"loss": [3.0, 2.0], "val_loss": [1.0, 2.0], **falling}

    assert texts(alone) == ["train 0.5"] and alone.get_title(loc="left") == ""
    assert "best epoch: 2 of 2" in ready(plots.history(run)).axes[0].get_title(loc="left")
    assert "best epoch: 2 of 2" in ready(plots.history(penalised)).axes[0].get_title(loc="left")
    with pytest.raises(ValueError, match="It has: lossy"):
        plots.history({"lossy": [1.0]})
    with pytest.raises(ValueError, match="validation_freq=1"):
        plots.history({"loss": [1.0, 2.0], "val_loss": [1.0]})
    with pytest.raises(TypeError, match="Received: int"):
        plots.history(3)


def test_curves_draw_mean_and_band_of_runs_of_different_length():
    short, long = {"val_loss": [1.0, math.nan]}, {"val_loss": [3.0, math.nan, 5.0]}
    (axes,) = ready(plots.curves({"adam": [short, long], "sgd": [long]})).axes
    (band,) = axes.collections

    assert drawn(axes, "#2079bd") == pytest.approx([2.0, math.nan, 5.0], nan_ok=True)
    assert set(band.get_paths()[0].vertices[:, 1]) == {1.0, 3.0}
    assert texts(axes) == ["adam (2 runs)", "sgd"]
    with pytest.raises(ValueError, match="'sgd' has: val_loss"):
        plots.curves({"sgd": [long]}, metric="val_accuracy")


def test_gradients_are_drawn_with_the_limits_of_the_verdicts(tmp_path):
    table = pd.DataFrame(records(["stem", "stage1", "head"]))
    table.to_csv(tmp_path / "gradients.csv", index=False)
    run = SimpleNamespace(directory=tmp_path)
    norm, ratio, dead = ready(plots.gradients(run)).axes

    assert gradient_records(run) == gradient_records(table) == gradient_records(table.to_dict("records"))
    assert drawn(norm, "#d55e00") == pytest.approx([2.0] * 7)
    assert drawn(ratio, "#2079bd") == pytest.approx(0.001 * np.arange(1, 8))
    assert {1000, 0.3, 0.4} <= {line.get_ydata()[0] for axes in (norm, ratio, dead) for line in axes.lines}
    assert [3e-4] * 7 in [pytest.approx(line.get_ydata()) for line in norm.lines]  # a ten-thousandth of the largest


def test_gradients_show_the_worst_of_many_groups_and_one_record():
    names = [f"dense_{i}" for i in range(60)]
    norm, _, _ = ready(plots.gradients(records(names, 1))).axes

    assert "8 of 60 groups" in norm.get_title(loc="left")
    assert {"dense_0", "dense_1"} <= set(texts(norm))  # the one that vanishes, the one that is dead


def test_gradients_that_are_missing_or_damaged_are_named(tmp_path):
    run = SimpleNamespace(directory=tmp_path)
    with pytest.raises(FileNotFoundError, match="gradients.csv does not exist"):
        plots.gradients(run)
    (tmp_path / "gradients.csv").write_text("epoch,step\n1,x\n")
    with pytest.raises(ValueError, match="with the columns epoch, step, group"):
        plots.gradients(run)
    (tmp_path / "gradients.csv").write_text("epoch,step,group\n1,")  # torn
    with pytest.raises(ValueError, match="one or more records"):
        plots.gradients(run)


@pytest.mark.parametrize("blocks", [1, 30])
def test_importance_has_a_bar_a_block(blocks):
    drop = np.linspace(0.2, 0, blocks)
    table = pd.DataFrame({"block": [f"block{i}" for i in range(blocks)], "stage": "stage1", "how": "identity"})
    table = table.assign(parameters=9, accuracy=0.9 - drop, drop=drop, low=drop - 0.01, high=drop + 0.01)
    figure = ready(plots.importance(LayerImportance("net", "dev", 100, 0.9, 0.5, 900, table)))
    (axes,) = figure.axes

    assert lengths(axes) == pytest.approx(drop)
    assert [patch.get_alpha() < 1 for patch in axes.patches] == (table.low <= 0).tolist()
    assert figure.get_figheight() > 0.15 * blocks


def test_learning_curve_goes_on_to_twice_the_pictures():
    sizes = np.repeat([100, 200, 400, 800], 2)
    error = 0.1 + 15 / sizes
    table = pd.DataFrame({"pictures": sizes, "per_class": sizes / 2, "error": error})
    table = table.assign(low=0.0, high=1.0, seed=0)
    curve = LearningCurve(table, Recipe(), 800, 2, 10_000)
    (axes,) = ready(plots.learning_curve(curve)).axes
    two = LearningCurve(table[:4], Recipe(), 800, 2, 10_000)

    dashed = axes.lines[-1]
    assert dashed.get_xdata()[[0, -1]] == pytest.approx([800, 1600])
    assert dashed.get_ydata()[-1] == pytest.approx(curve.predict(1600))
    assert texts(axes) == [f"{curve.predict(1600):.1%}"]
    assert axes.lines[1].get_ydata() == pytest.approx(0.1 + 15 / np.unique(sizes))
    assert len(ready(plots.learning_curve(two)).axes[0].lines) == 2  # two sizes make no law


def test_diagnosis_has_bars_of_the_errors_and_names_the_gaps():
    gaps = Gap(0.02, 0.01, 0.05), Gap(0.1, 0.04, 0.16), None
    counts = {"train": 1000, "dev": 100}
    given = Diagnosis(0.0, 0.02, 0.12, None, *gaps, "high variance", "It overfits.", [], counts)
    (axes,) = ready(plots.diagnosis(given)).axes

    assert lengths(axes) == pytest.approx([0, 0.02, 0.12])
    assert " avoidable bias 2.0 points (1.0 to 5.0)" in texts(axes)
    assert " variance 10.0 points (4.0 to 16.0)" in texts(axes)
    perfect = Diagnosis(0.0, 0.0, 0.0, 0.0, *[Gap(0.0, None, None)] * 3, "good", "", [], {})
    assert lengths(ready(plots.diagnosis(perfect)).axes[0]) == [0, 0, 0, 0]


def test_worst_reads_its_pictures_by_path_with_truth_and_answer():
    split = zoo.load_data("digits", image_size=16).dev
    chosen = np.arange(30)[::-1]
    probabilities = np.full((30, 10), 0.05)
    probabilities[:, 3] = 0.55
    paths = [split.relative_paths[row] for row in chosen]
    given = Evaluation("dev", split.class_names, paths, split.labels[chosen], probabilities)
    first = given.worst(5)
    shown = [axes for axes in ready(plots.worst(given, split, 5)).axes if axes.images]

    for axes, place in zip(shown, first.index, strict=True):
        assert (axes.images[0].get_array() == split.read(chosen[[place]])[0]).all()
        assert axes.get_title(loc="left") == f"{given.table.label[place]} 0.05\n→ 3 0.55"
    with pytest.raises(ValueError, match="image_size=224"):
        plots.worst(given, zoo.load_data("digits").dev)
    with pytest.raises(ValueError, match="without"):
        plots.worst(given, zoo.load_data("digits", image_size=16).test)


def test_heat_maps_lie_over_their_pictures():
    images = np.zeros((5, 8, 12, 1), np.uint8)
    maps = np.linspace(0, 1, 5 * 8 * 12).reshape(5, 8, 12)
    shown = [axes for axes in ready(plots.heat_maps(images, maps)).axes if axes.images]

    assert [axes.images[1].get_array().tolist() for axes in shown] == maps.tolist()
    assert shown[0].images[1].get_alpha()[0, 0] == 0  # nothing lies where there is no heat
    with pytest.raises(ValueError, match=r"maps of shape \(5, 8, 11\)"):
        plots.heat_maps(images, maps[..., 1:])
    with pytest.raises(ValueError, match="Received: 1 for 5 pictures"):
        plots.heat_maps(images, maps, ["a"])


def test_svg_is_whole_without_reference_to_anything_outside():
    names = ['<b>&"', "$5$ to $6$", "\x07 tab\there " + "long " * 30]
    text = plots.svg(plots.confusion(evaluation(names=names)), 'cells <of> & "all"')
    root = ElementTree.fromstring(text)
    inside = "".join(root.itertext())

    assert root.attrib["role"] == "img" and "width" not in root.attrib and "100%" in root.attrib["style"]
    assert root[0].tag.endswith("title") and root[0].text == 'cells <of> & "all"'
    assert '<b>&"' in inside and "$5$ to $6$" in inside and "…" in inside
    assert not any(word in text for word in ("<!DOCTYPE", "<metadata", "<style", "#000", "font-family", "date"))
    assert not any("//" in value for element in root.iter() for value in element.attrib.values())


def test_svg_of_one_figure_is_always_the_same_and_of_two_share_no_id():
    class Ids(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(value for name, value in attrs if name == "id")

    found = []
    figure = plots.history({"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.6, 0.5], "lr": [1e-3, 1e-3, 1e-4]})
    figure.draw_without_rendering()
    text = plots.svg(figure, "Loss")
    fresh = plots.history({"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.6, 0.5], "lr": [1e-3, 1e-3, 1e-4]})
    other = plots.svg(plots.reliability(evaluation()), "Reliability")
    picture = plots.svg(plots.heat_maps(np.zeros((1, 8, 8, 3), np.uint8), np.ones((1, 8, 8))), "Map")
    Ids().feed(text + other + picture)

    assert plots.svg(figure, "Loss") == text == plots.svg(fresh, "Loss")
    assert found and len(found) == len(set(found))
    assert "stroke: currentColor" in text and "#000" not in text
    assert 'href="data:image/png;base64,' in picture


def test_drawing_leaves_the_settings_of_matplotlib_alone_and_is_not_touched_by_them():
    before = dict(matplotlib.rcParams)
    plain = plots.svg(plots.reliability(evaluation()), "Reliability")
    assert dict(matplotlib.rcParams) == before

    with matplotlib.rc_context({"text.color": "white", "xtick.labelsize": 30, "grid.color": "red", "axes.grid": False}):
        assert plots.svg(plots.reliability(evaluation()), "Reliability") == plain


def test_glyphs_that_a_font_lacks_are_left_to_the_browser():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "🐜" in plots.svg(plots.confusion(evaluation(names=["🐜", "蜂", "c"])), "Ants")
