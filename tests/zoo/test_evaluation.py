"""Evaluation: the figures against scikit-learn, SciPy and numbers worked out by hand; the pass against `predict`."""

import json
import math

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics

import augment
from zoo.data.load import load_data
from zoo.evaluation.figures import difference, wilson
from zoo.evaluation.predictions import Evaluation, evaluate
from zoo.models.outputs import gives_logits, prediction_table, probabilities
from zoo.models.registry import create


def evaluation(labels, values, names=None, split="test"):
    values = np.asarray(values, np.float32)
    names = names or [f"class {k}" for k in range(values.shape[1])]
    return Evaluation(split, names, [f"{k}.jpg" for k in range(len(values))], np.asarray(labels), values)


def drawn(count=400, classes=7, seed=0):
    """Random probabilities that lean towards the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    values = rng.dirichlet(np.full(classes, 0.5), count)
    values[np.arange(count), labels] += rng.uniform(0, 0.6, count)
    return evaluation(labels, values / values.sum(axis=1, keepdims=True))


def test_a_row_a_picture_says_what_the_model_said():
    table = evaluation([0, 1, 1], [[0.9, 0.1], [0.75, 0.25], [0.5, 0.5]], ["ant", "bee"]).table
    assert table.columns.tolist() == ["path", "label", "predicted", "probability", "loss"]
    assert table.label.tolist() == ["ant", "bee", "bee"]
    assert table.predicted.tolist() == ["ant", "ant", "ant"]
    np.testing.assert_allclose(table.probability, [0.9, 0.75, 0.5], rtol=1e-6)
    np.testing.assert_allclose(table.loss, [-math.log(0.9), -math.log(0.25), -math.log(0.5)], rtol=1e-6)


def missing_class(labels, values):
    return np.where(labels == 3, 2, labels), values


def all_right(labels, values):
    return values.argmax(axis=1), values


def all_wrong(labels, values):
    return (values.argmax(axis=1) + 1) % 7, values


def ties(labels, values):
    values = np.ceil(4 * values)
    return labels, values / values.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("case", [lambda *drawn: drawn, missing_class, all_right, all_wrong, ties])
def test_figures_are_those_of_scikit_learn(case):
    found = evaluation(*case(drawn().labels, drawn().probabilities))
    labels, values, every = found.labels, found.probabilities.astype(np.float64), range(7)
    predicted, present = values.argmax(axis=1), np.unique(labels)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    balanced = metrics.recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert found.balanced_accuracy == pytest.approx(balanced)
    normed = values / values.sum(axis=1, keepdims=True)  # scikit-learn asks for more digits than float32 has
    assert found.loss == pytest.approx(metrics.log_loss(labels, normed, labels=every), rel=1e-6)
    # of equally probable classes, scikit-learn takes the last one first
    top5 = metrics.top_k_accuracy_score(6 - labels, values[:, ::-1], k=5, labels=every)
    assert found.top5 == pytest.approx(top5)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(labels, predicted, labels=every))
    columns = metrics.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    assert found.per_class.columns.tolist() == ["precision", "recall", "f1", "support"]
    np.testing.assert_allclose(found.per_class, np.transpose(columns), atol=1e-12)


@pytest.mark.parametrize(("right", "count"), [(0, 7), (7, 7), (1, 1), (94, 100), (9_800, 10_000)])
def test_interval_is_that_of_wilson(right, count):
    found = evaluation([0] * count, [[0.9, 0.1]] * right + [[0.1, 0.9]] * (count - right))
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert found.accuracy_interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert all(isinstance(end, float) for end in (*found.accuracy_interval, found.accuracy))


@pytest.mark.parametrize(
    ("counts", "low", "high"),  # Newcombe 1998, table II, method 10
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((0, 10, 0, 10), -0.2775, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)
def test_interval_of_a_difference_is_that_of_newcombe(counts, low, high):
    assert difference(*counts) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "count"), [(0, 0), (-1, 4), (5, 4), (math.nan, 4)])
def test_share_of_nothing_has_no_interval(right, count):
    with pytest.raises(ValueError, match=f"Received: right={right}, count={count}"):
        wilson(right, count)


def test_confusion_has_the_truth_in_its_rows():
    found = evaluation([0, 0, 1], [[0.4, 0.6], [0.3, 0.7], [0.2, 0.8]], ["ant", "bee"])
    assert found.confusion.loc["ant", "bee"] == 2
    assert found.confusion.loc["bee", "ant"] == 0
    assert (found.confusion.index.name, found.confusion.columns.name) == ("label", "predicted")


def test_class_that_is_never_predicted_or_never_there_has_zeros():
    found = evaluation([0, 0, 1], [[0.8, 0.1, 0.1]] * 3, ["ant", "bee", "cat"])
    per_class = found.per_class
    assert found.balanced_accuracy == 0.5  # of the two that are there
    assert per_class.loc["bee"].tolist() == [0, 0, 0, 1]
    assert per_class.loc["cat"].tolist() == [0, 0, 0, 0]
    assert per_class.loc["ant"].tolist() == pytest.approx([2 / 3, 1, 0.8, 2])


def test_calibration_error_by_hand():
    # Two bins: four pictures at 0.8 of which three are right, one at 0.6 that is wrong.
    found = evaluation([0, 0, 0, 1, 1], [[0.8, 0.2]] * 4 + [[0.6, 0.4]])
    assert found.calibration_error == pytest.approx((4 * abs(0.75 - 0.8) + 1 * abs(0 - 0.6)) / 5, abs=1e-6)


def test_calibration_error_of_certainty_that_is_right_is_zero():
    assert evaluation([0, 1], [[1, 0], [0, 1]]).calibration_error == 0


def test_reliability_has_a_row_a_range_and_says_where_nothing_is():
    found = evaluation([0, 0, 0, 1, 1], [[0.78, 0.22]] * 4 + [[0.59, 0.41]]).reliability
    assert len(found) == 15 and found.low[0] == 0 and found.high[14] == 1
    np.testing.assert_array_equal(found.high[:-1], found.low[1:])
    some = found[found.pictures > 0]
    assert some.pictures.tolist() == [1, 4]
    np.testing.assert_allclose(some.high, [9 / 15, 12 / 15])
    np.testing.assert_allclose(some.confidence, [0.59, 0.78], rtol=1e-6)
    np.testing.assert_allclose(some.accuracy, [0, 0.75])
    assert found[found.pictures == 0][["confidence", "accuracy"]].isna().all(axis=None)


def test_top5_counts_ties_in_the_order_of_classes():
    level = [[0.1] * 10] * 10
    assert evaluation(range(10), level).top5 == 0.5
    assert evaluation([0, 1, 1], [[0.9, 0.1]] * 3).top5 == 1


def test_loss_of_an_impossible_class_is_finite():
    found = evaluation([1], [[1, 0]])
    assert found.loss == pytest.approx(-math.log(1e-7))


def test_worst_and_most_confused():
    found = evaluation(
        [0, 0, 0, 1, 2],
        [[0.1, 0.9, 0], [0.2, 0.8, 0], [0.9, 0.1, 0], [0, 0.1, 0.9], [0, 0, 1]],
        ["ant", "bee", "cat"],
    )
    assert found.worst(2).path.tolist() == ["0.jpg", "3.jpg"]
    assert found.worst(2).loss.is_monotonic_decreasing
    assert len(found.worst(99)) == 5 and found.worst(0).empty
    confused = found.most_confused()
    assert confused.to_dict("records") == [
        {"label": "ant", "predicted": "bee", "count": 2, "share": pytest.approx(2 / 3)},
        {"label": "bee", "predicted": "cat", "count": 1, "share": 1},
    ]
    assert evaluation([0], [[1, 0]]).most_confused().empty
    with pytest.raises(ValueError, match="`k` must be 0 or more. Received: k=-1"):
        found.worst(-1)


def test_doubtful_pictures_have_the_smallest_margin():
    found = evaluation([0, 2, 1], [[0.6, 0.3, 0.1], [0.45, 0.15, 0.4], [0.1, 0.45, 0.45]], ["ant", "bee", "cat"])
    doubtful = found.doubtful(2)
    assert doubtful.columns.tolist() == ["path", "label", "predicted", "probability", "second", "margin"]
    assert doubtful.path.tolist() == ["2.jpg", "1.jpg"]
    assert doubtful.predicted.tolist() == ["bee", "ant"] and doubtful.second.tolist() == ["cat", "cat"]
    np.testing.assert_allclose(doubtful.margin, [0, 0.05], atol=1e-7)
    assert len(found.doubtful(99)) == 3
    with pytest.raises(ValueError, match="`k` must be 0 or more"):
        found.doubtful(-1)


def test_class_that_is_ignored_is_named():
    found = evaluation([0, 0, 1], [[0.8, 0.1, 0.1]] * 3, ["ant", "bee", "cat"])
    assert found.never_predicted == ["bee"]  # there is no cat
    assert found.figures()["never_predicted"] == ["bee"]
    assert "never predicted: bee" in str(found) and "never predicted: bee" in found._repr_html_()
    assert "never predicted" not in str(drawn())
    many = evaluation(range(60), np.eye(60)[[0] * 60], [f"a rather long name {k}" for k in range(60)])
    assert len(many.never_predicted) == 59 and max(map(len, str(many).splitlines())) <= 100


def test_one_class_is_no_error():
    found = evaluation([0, 0], [[1.0], [1.0]], ["ant"])
    assert (found.accuracy, found.loss, found.top5, found.calibration_error) == (1, 0, 1, 0)
    assert str(found).startswith("test: 2 pictures, 1 class\n")
    assert found.doubtful().empty and found.label_errors().empty and found.most_confused().empty


WITHOUT_LABELS = ["accuracy", "accuracy_interval", "balanced_accuracy", "top5", "loss", "confusion", "per_class"]
WITHOUT_LABELS += ["never_predicted", "reliability", "calibration_error", "worst", "most_confused", "label_errors"]


def test_without_labels_there_are_predictions_and_no_figures(tmp_path):
    found = evaluation([-1, -1, -1], [[0.9, 0.1, 0], [0.75, 0.25, 0], [0, 1, 0]], ["ant", "<b>", "cat"])
    assert not found.labelled and drawn().labelled
    assert found.table.label.tolist() == ["", "", ""] and found.table.loss.isna().all()
    assert found.table.predicted.tolist() == ["ant", "ant", "<b>"]
    assert found.doubtful(1).path.tolist() == ["1.jpg"] and found.doubtful(1).label.tolist() == [""]
    for name in WITHOUT_LABELS:
        with pytest.raises(ValueError, match="The test split has no labels, so"):
            value = getattr(found, name)
            value()
    found.save(tmp_path, "new")
    figures = json.loads((tmp_path / "new.json").read_text())
    assert figures == {
        "split": "test",
        "pictures": 3,
        "classes": ["ant", "<b>", "cat"],
        "labelled": False,
        "predicted": [
            {"predicted": "ant", "pictures": 2, "probability": pytest.approx(0.825)},
            {"predicted": "<b>", "pictures": 1, "probability": 1},
            {"predicted": "cat", "pictures": 0, "probability": None},
        ],
    }
    assert pd.read_csv(tmp_path / "new.csv").probability.tolist() == pytest.approx([0.9, 0.75, 1])
    lines = str(found).splitlines()
    assert lines[0] == "test: 3 pictures, 3 classes, no labels: predictions only"
    assert lines[3].split() == ["ant", "2", "0.825"] and lines[5].split() == ["cat", "0"]
    assert "&lt;b&gt;" in found._repr_html_() and "<b>" not in found._repr_html_()


def test_predictions_of_many_classes_are_one_screen():
    found = evaluation(np.full(900, -1), drawn(classes=60, count=900).probabilities)
    assert len(str(found).splitlines()) <= 24 and "and 45 more classes" in str(found)


@pytest.mark.parametrize("labels", [[-1, 0, 1], [0, 1, 2], [-2, -2, -2]])
def test_labels_are_classes_or_missing_altogether(labels):
    with pytest.raises(ValueError, match=f"`labels` must be indices .* from {min(labels)} to {max(labels)}"):
        evaluation(labels, [[0.5, 0.5]] * 3)


def test_summary_is_one_screen_and_names_the_figures():
    found = drawn(classes=60, count=900)
    text = str(found)
    assert text.startswith("test: 900 pictures, 60 classes")
    assert f"{found.accuracy:.2%}" in text and "top-5" in text and f"{found.balanced_accuracy:.2%}" in text
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 100
    assert "top-5" not in str(evaluation([0], [[1, 0]]))


def test_html_escapes_names_of_classes():
    shown = evaluation([0, 1], [[0.2, 0.8], [0.9, 0.1]], ["<b>", "a&b"])._repr_html_()
    assert "&lt;b&gt;" in shown and "<td><b></td>" not in shown and "accuracy" in shown


def test_save_writes_rows_and_figures(tmp_path):
    found = drawn(count=20)
    assert found.save(tmp_path / "evaluation") == tmp_path / "evaluation"
    table = pd.read_csv(tmp_path / "evaluation" / "test.csv")
    assert table.columns[:6].tolist() == ["path", "label", "predicted", "probability", "loss", "probability_class 0"]
    np.testing.assert_allclose(table.iloc[:, 5:], found.probabilities, rtol=1e-6)
    figures = json.loads((tmp_path / "evaluation" / "test.json").read_text())
    assert figures["accuracy"] == found.accuracy
    assert figures["accuracy_interval"] == list(found.accuracy_interval)
    assert figures["confusion"] == found.confusion.to_numpy().tolist()
    assert figures["labelled"] is True
    assert figures["reliability"][0] == {"low": 0, "high": 1 / 15, "pictures": 0, "confidence": None, "accuracy": None}
    assert figures["per_class"]["class 3"]["recall"] == found.per_class.recall["class 3"]
    assert sorted(path.name for path in (tmp_path / "evaluation").iterdir()) == ["test.csv", "test.json"]


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(ValueError, match="The test split has no pictures"):
        Evaluation("test", ["ant", "bee"], [], np.array([], int), np.zeros((0, 2), np.float32))


def test_nan_is_an_error_that_counts_and_names_the_first():
    with pytest.raises(ValueError, match="NaN\\) for 2 of 3 pictures, first for 1.jpg"):
        evaluation([0, 0, 1], [[0.5, 0.5], [np.nan, np.nan], [np.nan, 0.1]])


@pytest.fixture(scope="module")
def pictures():
    """Forty pictures of 16x16 pixels in four uneven classes, dark to bright."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [16, 10, 8, 6])
    images = np.clip(rng.normal(60 * labels[:, None, None, None] + 30, 20, (40, 16, 16, 3)), 0, 255).astype(np.uint8)
    return load_data((images, labels), image_size=16, split=(0.5, 0.25, 0.25))


@pytest.fixture(scope="module")
def model():
    return create("convnet", classes=4, input_shape=(16, 16, 3))


def test_evaluate_follows_the_rows_of_the_split(model, pictures):
    found = evaluate(model, pictures.train)
    images = pictures.train.pixels()
    np.testing.assert_allclose(found.probabilities, model.predict(images, verbose=0), atol=1e-6)
    assert found.table.path.tolist() == pictures.train.relative_paths
    assert found.table.label.tolist() == [pictures.class_names[k] for k in pictures.train.labels]
    assert found.split == "train"
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    loss, accuracy = model.evaluate(images, pictures.train.labels, verbose=0)
    assert (found.loss, found.accuracy) == (pytest.approx(loss, rel=1e-5), pytest.approx(accuracy))


@pytest.fixture(scope="module")
def unlabelled(pictures):
    return load_data(pictures.dev.pixels(), labels=False, image_size=16)


def test_evaluate_without_labels_numbers_the_classes(model, pictures, unlabelled):
    found = evaluate(model, unlabelled.test)
    assert not found.labelled and found.class_names == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(found.probabilities, evaluate(model, pictures.dev).probabilities)
    assert evaluate(model, unlabelled.test, class_names=list("abcd")).class_names == list("abcd")
    with pytest.raises(ValueError, match="tells 4 classes apart, but there are 3 class names"):
        evaluate(model, unlabelled.test, class_names=list("abc"))


def test_evaluate_finds_labels_by_name(model, pictures):
    names = pictures.class_names[::-1]
    found, plain = evaluate(model, pictures.dev, class_names=names), evaluate(model, pictures.dev)
    assert found.class_names == names and found.table.label.equals(plain.table.label)
    np.testing.assert_array_equal(found.labels, 3 - plain.labels)
    with pytest.raises(ValueError, match="must hold every class of the split. Received: 3 names without '3'"):
        evaluate(model, pictures.dev, class_names=pictures.class_names[:3])


class Wordy(keras.Model):
    """A model without a graph that gives what it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def call(self, images):
        return self.answer(keras.ops.cast(images, "float32"))


def four_axes(images):
    return images


def two_outputs(images):
    scores = keras.ops.mean(images, axis=(1, 2))
    return [scores, scores]


@pytest.mark.parametrize("answer", [four_axes, two_outputs])
def test_evaluate_refuses_what_is_no_classifier(answer, pictures, unlabelled):
    image = keras.Input((16, 16, 3))
    for model in (keras.Model(image, answer(image)), Wordy(answer)):
        for split in (pictures.dev, unlabelled.test):
            with pytest.raises(ValueError, match=r"A classifier gives one output \(pictures, classes\). Received: "):
                evaluate(model, split)
    with pytest.raises(TypeError, match="`model` must be a Keras model, .* Received: str"):
        evaluate("resnet20", pictures.dev)


@pytest.fixture(scope="module")
def many(pictures):
    """More pictures than a batch holds."""
    return load_data(
        (pictures.train.pixels()[np.arange(70) % len(pictures.train)], np.arange(70) % 2),
        image_size=16,
        split=(1, 0, 0),
    )


def test_augmented_evaluation_is_the_mean_of_plain_and_changed_pictures(many):
    model, images = create("convnet", classes=2, input_shape=(16, 16, 3)), many.train.pixels()
    mirror = augment.RandomAffine(flip="horizontal", seed=3)
    found = evaluate(model, many.train, augment=mirror, views=2)
    views = [images]
    for view in range(2):  # all pictures in one batch
        keys = np.stack([np.full(len(images), view), np.arange(len(images))], 1)
        views.append(keras.ops.convert_to_numpy(mirror(images, training=True, keys=keys)))
    turned = [(view != images).any(axis=(1, 2, 3)) for view in views]
    assert all(0 < which.sum() < len(images) for which in (turned[1], turned[2], turned[1] ^ turned[2]))
    expected = np.mean([model.predict(view, verbose=0) for view in views], axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)


def test_policy_of_an_evaluation_is_named_and_seeded(model, pictures):
    plain = evaluate(model, pictures.dev).probabilities
    found = evaluate(model, pictures.dev, augment="light", views=1, seed=4).probabilities
    assert np.abs(found - plain).max() > 1e-4
    layer = augment.policy("light", 16, seed=4)
    again = evaluate(model, pictures.dev, outputs=plain, augment=layer, views=1).probabilities
    np.testing.assert_allclose(again, found, atol=1e-6)


def test_augmentation_that_cannot_be_used_is_refused(model, pictures):
    refused = [
        ({"augment": "strong"}, ValueError, "No augmentation policy is called 'strong'"),
        ({"augment": "light", "views": 0}, ValueError, "`views` must be a whole number of at least 1"),
        ({"augment": keras.layers.RandomFlip()}, TypeError, "`augment` must be the name of a policy, or a layer"),
        ({"augment": None}, TypeError, "`augment` must be the name of a policy, or a layer"),
        ({"augment": augment.RandomCrop(12)}, ValueError, r"at their size \(16, 16, 3\).*gives \[\(12, 12, 3\)\]"),
    ]
    for given, error, text in refused:
        with pytest.raises(error, match=text):
            evaluate(model, pictures.dev, **given)


def test_evaluate_turns_logits_into_probabilities(pictures):
    logits = create("convnet", classes=4, input_shape=(16, 16, 3), classifier_activation=None)
    found = evaluate(logits, pictures.dev)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-6)
    images = pictures.dev.pixels()
    raw = logits.predict(images, verbose=0)
    np.testing.assert_array_equal(found.probabilities.argmax(axis=1), raw.argmax(axis=1))


def test_evaluate_refuses_a_model_with_other_classes(pictures):
    with pytest.raises(ValueError, match="The model tells 5 classes apart, but there are 4 class names"):
        evaluate(create("convnet", classes=5, input_shape=(16, 16, 3)), pictures.dev)


def test_evaluate_refuses_a_model_of_another_size(model, pictures):
    with pytest.raises(ValueError, match="takes pictures of shape .16, 16, 3.*the split gives .20, 20, 3."):
        evaluate(model, pictures.configured(image_size=20).dev)


def test_evaluate_refuses_an_empty_split(model, pictures):
    images, labels = np.zeros((8, 16, 16, 3), np.uint8), np.repeat([0, 1], 4)
    images[:] = np.arange(8)[:, None, None, None]
    data = load_data((images, labels), image_size=16, split=(0.5, 0.5, 0.0))
    with pytest.raises(ValueError, match="The test split has no pictures"):
        evaluate(model, data.test)


def test_evaluate_refuses_outputs_that_are_no_probabilities(pictures):
    sigmoid = create("convnet", classes=4, input_shape=(16, 16, 3), classifier_activation="sigmoid")
    with pytest.raises(ValueError, match="must have a softmax .or no. activation"):
        evaluate(sigmoid, pictures.dev)


def test_evaluate_names_pictures_that_give_nan(pictures):
    broken = create("convnet", classes=4, input_shape=(16, 16, 3))
    broken.get_layer("head_dense").bias.assign([np.nan, 0, 0, 0])
    with pytest.raises(ValueError, match=rf"NaN\) for {len(pictures.dev)} of {len(pictures.dev)} pictures"):
        evaluate(broken, pictures.dev)


def head(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


@pytest.mark.parametrize(
    ("make", "logits"),
    [
        (lambda: head(keras.layers.Dense(3)), True),
        (lambda: head(keras.layers.Dense(3, activation="softmax")), False),
        (lambda: head(keras.layers.Dense(3), keras.layers.Softmax()), False),
        (lambda: head(keras.layers.Dense(3), keras.layers.Activation("softmax")), False),
        (lambda: head(keras.layers.Dense(3, activation="softmax"), keras.layers.Activation("linear")), False),
        (lambda: head(keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.Identity()), True),
        (lambda: head(head(keras.layers.Dense(3, activation="softmax"))), False),
        (lambda: head(head(keras.layers.Dense(3))), True),
    ],
)
def test_logits_are_told_from_probabilities(make, logits):
    assert gives_logits(make()) is logits


def test_half_precision_gives_rows_that_sum_to_one():
    model = head(keras.layers.Dense(50, activation="softmax", dtype="bfloat16"))
    outputs = model.predict(np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), verbose=0)
    values = keras.ops.convert_to_numpy(probabilities(model, outputs))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-6)


def test_prediction_table_without_problems_has_no_column_for_them():
    table = prediction_table(["a", "b"], np.array([[0.2, 0.8], [0.7, 0.3]]), ["ant", "bee"], problems=["", ""])
    assert table.to_dict("list") == {"path": ["a", "b"], "label": ["bee", "ant"], "probability": [0.8, 0.7]}
    assert prediction_table([], np.zeros((0, 2)), ["ant", "bee"]).columns.tolist() == ["path", "label", "probability"]


@pytest.mark.parametrize("problems", [{"b": "is empty"}, ["", "is empty"]])
def test_prediction_table_leaves_unreadable_pictures_without_a_label(problems):
    table = prediction_table(["a", "b"], np.array([[0.2, 0.8], [np.nan, np.nan]]), ["ant", "bee"], problems=problems)
    assert table.label.tolist() == ["bee", ""]
    assert np.isnan(table.probability[1])
    assert table.problem.tolist() == ["", "is empty"]


def test_pictures_without_a_size_get_the_models(digit_pictures):
    data = load_data(digit_pictures)
    model = create("convnet", classes=3, input_shape=(16, 16, 3))
    sized = evaluate(model, data.configured(image_size=16).dev)
    assert np.array_equal(evaluate(model, data.dev).probabilities, sized.probabilities)
    with pytest.raises(ValueError, match="No image size is set"):
        evaluate(create("convnet", classes=3, input_shape=(None, None, 3)), data.dev)
