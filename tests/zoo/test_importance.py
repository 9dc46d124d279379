"""Taking blocks out: which there are, what stands in for them, and what that does to the accuracy."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers

from zoo.data.load import load_data
from zoo.evaluation.ablation import Surgery
from zoo.evaluation.importance import LayerImportance, interval, layer_importance
from zoo.evaluation.links import learns, links_of, named_blocks
from zoo.evaluation.predictions import evaluate
from zoo.models.catalog import info
from zoo.models.registry import create

CLASSES = 4


def randomized(model, seed=0):
    """The model with values in every weight that tell calls apart, statistics of batch normalisation included."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            weight.assign(rng.normal(0, 1.5 / np.sqrt(np.prod(weight.shape[:-1])), weight.shape))
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif "seed" not in weight.name:
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def split_of(pictures, labels, classes):
    """All pictures as one split; labels are class indices."""
    names = [str(k) for k in range(classes)]
    given = {"image_size": pictures.shape[1], "channels": pictures.shape[3], "split": (1.0, 0.0, 0.0)}
    return load_data((pictures, np.array([names[label] for label in labels])), **given).train


def conv_bn_act(x, filters, name, **options):
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv", **options)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.Activation("relu", name=f"{name}_act")(x)


def net(without=None):
    """A block of each kind, or the same network built without one of them."""
    image = keras.Input((8, 8, 3))
    x = layers.RandomFlip(name="flip")(layers.Rescaling(1 / 128, offset=-1, name="scale")(image))
    x = conv_bn_act(x, 6, "first")
    if without != "same_add":
        y = conv_bn_act(x, 6, "same_a")
        x = layers.Add(name="same_add")([layers.Conv2D(6, 1, name="same_b")(y), x])
    y = layers.Conv2D(10, 1, strides=2, name="wide_b")(conv_bn_act(x, 8, "wide_a"))
    x = layers.Conv2D(10, 1, strides=2, name="wide_shortcut")(x)
    x = x if without == "wide_add" else x + layers.Dropout(0.9, name="wide_dropout")(y)
    if without != "plain_conv":
        x = conv_bn_act(x, 10, "plain")
    x = layers.GlobalAveragePooling2D(name="pool")(layers.MaxPooling2D(2, name="max")(x))
    if without != "hidden":
        x = layers.Dense(10, activation="tanh", name="hidden")(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax", name="last")(x), name="net")


def copied(weights_of, model):
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(weights_of.get_layer(layer.name).get_weights())
    return model


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).integers(0, 256, (70, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def whole(pictures):
    """A network that takes some pictures for each class."""
    model = randomized(net())
    scores = np.log(model.predict(pictures, verbose=0))
    model.get_layer("last").kernel.assign(model.get_layer("last").kernel / scores.std(axis=0))
    model.get_layer("last").bias.assign(np.zeros(CLASSES))
    model.get_layer("last").bias.assign(-np.log(model.predict(pictures, verbose=0)).mean(axis=0))
    return model


@pytest.fixture(scope="module")
def dev(whole, pictures):
    """Pictures that the network gets right in three cases of four."""
    labels = whole.predict(pictures, verbose=0).argmax(axis=1)
    labels[::4] = (labels[::4] + 1) % CLASSES
    return split_of(pictures, labels, CLASSES)


@pytest.fixture(scope="module")
def found(whole, dev):
    return layer_importance(whole, dev)


@pytest.fixture(scope="module")
def said(whole, dev):
    return evaluate(whole, dev)


def taken_out(surgery, row, images):
    """What the network gives without a block."""
    block = surgery.blocks[row]
    return np.asarray(surgery.without(block, dict(surgery.walk(images))[block.first]))


def test_each_kind_of_block_is_found_in_the_networks_order(found, said, whole):
    merged = next(one.name for one in whole.operations if one.name.startswith("add"))  # Keras numbers them
    assert found.table[["block", "how"]].to_numpy().tolist() == [
        ["first_conv", "re-initialised"],
        ["same", "identity"],
        [merged, "zeroed branch"],
        ["plain_conv", "identity"],
        ["hidden", "identity"],
    ]
    conv = {name: whole.get_layer(name).count_params() for name in ("wide_a_conv", "wide_a_bn", "wide_b")}
    assert found.table.parameters[2] == sum(conv.values())  # the shortcut stays
    assert found.parameters == whole.count_params()
    assert (found.pictures, found.accuracy) == (len(said.paths), said.accuracy)


def test_a_block_taken_out_is_the_network_built_without_it(found, said, whole, dev):
    surgery = Surgery(whole, None, dev.pixels(), 0)
    for row, name in enumerate(("same_add", "wide_add", "plain_conv", "hidden"), start=1):
        by_hand = evaluate(copied(whole, net(without=name)), dev)
        np.testing.assert_allclose(taken_out(surgery, row, dev.pixels()), by_hand.probabilities, atol=1e-6)
        assert np.abs(by_hand.probabilities - said.probabilities).max() > 0.1
        assert found.table.accuracy[row] == by_hand.accuracy
        assert found.table["drop"][row] == pytest.approx(said.accuracy - by_hand.accuracy)
        right, kept = (one.probabilities.argmax(axis=1) == dev.labels for one in (said, by_hand))
        low, high = interval((right & ~kept).sum(), (~right & kept).sum(), len(dev))
        assert (found.table.low[row], found.table.high[row]) == (low, high)


def test_the_model_stays_as_it_is_and_a_seed_gives_one_result(found, whole, dev):
    whole.get_layer("same_b").trainable = False
    before = [(weight.trainable, np.array(weight)) for weight in whole.variables]
    again = layer_importance(whole, dev, batch_size=32)
    pd.testing.assert_frame_equal(again.table, found.table)
    for (trainable, value), weight in zip(before, whole.variables, strict=True):
        assert weight.trainable == trainable
        np.testing.assert_array_equal(value, weight)
    whole.trainable = True
    given = {"first_conv": ["first_conv", "first_bn", "first_act"]}
    drawn = [taken_out(Surgery(whole, given, dev.pixels(), seed), 0, dev.pixels()) for seed in (0, 1)]
    assert np.abs(drawn[0] - drawn[1]).max() > 0.01


@pytest.fixture(scope="module")
def bright():
    """Dark and bright pictures, two of one kind to one of the other."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3 // 2
    return split_of(
        (rng.integers(0, 60, (60, 4, 4, 1)) + 150 * labels[:, None, None, None]).astype(np.uint8), labels, 2
    )


def planted():
    """Stage 1 has a dead block, stage 2 one that alone carries what the classifier reads."""
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, name="stem_conv")(layers.Rescaling(1 / 255, offset=-0.5, name="stem_scale")(image))
    y = layers.Conv2D(2, 3, padding="same", name="stage1_dead_conv")(x)
    x = layers.Add(name="stage1_dead_add")([x, layers.BatchNormalization(name="stage1_dead_bn")(y)])
    x = layers.Add(name="stage2_vital_add")([x, layers.Conv2D(2, 1, name="stage2_vital_conv")(x)])
    x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(image, layers.Dense(2, activation="softmax", name="head_dense")(x), name="planted")
    model.get_layer("stem_conv").set_weights([np.array([[[[1.0, 0.0]]]]), np.zeros(2)])
    model.get_layer("stage1_dead_bn").set_weights([np.zeros(2), np.zeros(2), np.ones(2), np.ones(2)])
    model.get_layer("stage2_vital_conv").set_weights([np.array([[[[0.0, 1.0], [0.0, 0.0]]]]), np.zeros(2)])
    model.get_layer("head_dense").set_weights([np.array([[0.0, 0.0], [-9.0, 9.0]]), np.array([0.1, 0.0])])
    return model


def test_a_dead_block_costs_nothing_and_a_vital_one_everything(bright):
    found = layer_importance(planted(), bright)
    rows = found.table.set_index("block").to_dict("index")
    assert found.accuracy == 1
    assert rows["stage1_dead"]["drop"] == 0 and rows["stage1_dead"]["low"] < 0 < rows["stage1_dead"]["high"]
    assert rows["stage2_vital"]["accuracy"] == pytest.approx(2 / 3)  # all are called dark
    assert rows["stage2_vital"]["low"] > 0.15
    assert found.table.stage.tolist() == ["stem", "stage1", "stage2"]
    advice = " ".join(found.advice)
    assert "stage1_dead can be left out at no shown cost" in advice and "stage2_vital (33.3 points)" in advice
    assert "No block of stage1 is shown to matter" in advice and "freeze" not in advice


def test_new_weights_are_normalised_by_what_they_give(bright):
    image = keras.Input((4, 4, 1))
    x = layers.Conv2D(5, 3, name="conv")(image)  # pixels as they are: without statistics, outputs of hundreds
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.Dense(5, kernel_initializer="identity", name="last")(layers.GlobalAveragePooling2D()(x))
    surgery = Surgery(keras.Model(image, x), None, bright.pixels(), 0)
    outputs = taken_out(surgery, 0, bright.pixels())
    np.testing.assert_allclose(outputs.mean(axis=0), 0, atol=1e-4)
    assert 0.3 < outputs.std() < 1.1


def test_blocks_of_ones_own_may_overlap_and_cut_through_branches(found, whole, dev):
    blocks = {
        "middle": ["same_a_conv", "same_b", "wide_a_conv", "wide_b", "wide_shortcut"],
        "branch": ["wide_a_conv", "wide_b"],
        "half a branch": ["wide_a_conv"],
        "an activation": ["plain_act"],
    }
    table = layer_importance(whole, dev, blocks=blocks).table
    assert table[["block", "how"]].to_numpy().tolist() == [
        ["middle", "re-initialised"],
        ["branch", "zeroed branch"],
        ["half a branch", "re-initialised"],
        ["an activation", "identity"],
    ]
    assert table.parameters[2] == whole.get_layer("wide_a_conv").count_params()
    assert table.accuracy[1] == found.table.accuracy[2]


def test_a_picture_that_gives_no_number_is_wrong(bright):
    image = keras.Input((4, 4, 1))
    x = layers.Rescaling(1 / 255, offset=-2)(image)
    x = layers.GlobalAveragePooling2D()(keras.ops.log(layers.Activation("softplus", name="positive")(x)))
    model = keras.Model(image, layers.Dense(2, activation="softmax")(x))
    assert layer_importance(model, bright, blocks={"positive": ["positive"]}).table.accuracy.tolist() == [0.0]


def test_the_paired_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    for first, second, count in ((0.05, 0.02, 100), (0.3, 0.1, 30), (0.01, 0.01, 150)):
        only_first, only_second, _ = rng.multinomial(count, [first, second, 1 - first - second], 20_000).T
        low, high = interval(only_first, only_second, count)
        assert np.mean((low <= first - second) & (first - second <= high)) > 0.94
    low, high = interval(np.array([0, 9]), np.array([9, 0]), 9)
    assert low[0] == -1 and high[1] == 1 and np.all(low < high)


def test_a_network_that_knows_nothing_gets_no_advice_on_its_blocks(dev, whole):
    labels = np.random.default_rng(0).permutation(dev.labels)
    (sentence,) = layer_importance(whole, split_of(dev.pixels(), labels, CLASSES)).advice
    assert "has not been shown to know anything" in sentence


def importance(rows, accuracy=0.9):
    columns = ["block", "stage", "how", "parameters", "accuracy", "drop", "low", "high"]
    frame = pd.DataFrame([(*row[:3], 10, accuracy - row[3], *row[3:]) for row in rows], columns=columns)
    return LayerImportance("net", "dev", 100, accuracy, 0.5, 200, frame)


def test_early_stages_that_matter_are_to_be_frozen():
    matters, not_shown = (0.3, 0.2, 0.4), (0.01, -0.02, 0.04)
    rows = [
        ("a", "stem", "re-initialised", *matters),
        ("b", "stage1", "identity", *matters),
        ("c", "stage2", "identity", *not_shown),
        ("d", "stage3", "re-initialised", *not_shown),
    ]
    advice = " ".join(importance(rows).advice)
    assert "Every block of stem and stage1 matters" in advice and 'freeze="small"' in advice
    assert "c can be left out at no shown cost; it holds 5% of the parameters." in advice and "4.0 points" in advice
    assert "d cannot be left out" in advice and "No block of stage2 and stage3 is shown to matter" in advice
    rows[2] = ("c", "stage2", "identity", *matters)
    advice = " ".join(importance(rows).advice)
    assert "Every block of stem, stage1 and stage2 matters" in advice and 'freeze="medium"' in advice
    assert "No block can be left out without a shown cost" in advice


def test_it_prints_on_one_screen_and_escapes_names(found, tmp_path):
    assert max(map(len, str(found).splitlines())) <= 100
    many = importance([(f"block{k}", "stage1", "identity", k / 100, 0.0, 0.9) for k in range(80)])
    assert len(str(many).split("\n\n")[0].splitlines()) < 36
    assert "block79" in str(many) and "and 50 with smaller drops" in str(many)
    shown = importance([("<b>", "stage1", "identity", 0.0, -0.1, 0.1)])._repr_html_()
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert found.save(tmp_path / "evaluation") == tmp_path / "evaluation"
    saved = pd.read_csv(tmp_path / "evaluation" / "importance.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(saved, found.table)


class Own(keras.Model):
    def call(self, images):
        return images


def only_a_classifier():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(CLASSES, activation="softmax")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": {"a": ["wide_c"]}}, "names 'wide_c' in 'a', which is no layer of the model. Did you mean 'wide_"),
        ({"blocks": {"a": ["last"]}}, "Block 'a' holds 'last', the classifier"),
        ({"blocks": {"a": ["max"]}}, "Nothing can stand in for block 'a': it has no weights"),
        ({"blocks": {"a": "hidden"}}, "a list of layer names. Received: 'hidden' for 'a'"),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1. Received: batch_size=0"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message, whole, dev):
    with pytest.raises(ValueError, match=message):
        layer_importance(whole, dev, **arguments)


def test_models_and_splits_that_cannot_be_looked_at_are_errors(whole, dev):
    with pytest.raises(ValueError, match="has nothing to take out"):
        layer_importance(only_a_classifier(), dev)
    with pytest.raises(ValueError, match="'own' must be a functional one.*Received: Own with 0 inputs and 0 outputs"):
        layer_importance(Own(name="own"), dev)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        layer_importance("resnet20", dev)
    given = {"image_size": 8, "split": (1.0, 0.0, 0.0)}
    empty = load_data((dev.pixels(), dev.labels), **given).dev
    with pytest.raises(ValueError, match="The dev split has no pictures"):
        layer_importance(whole, empty)
    unlabelled = load_data(dev.pixels(), labels=False, image_size=8).test
    with pytest.raises(ValueError, match="The test split has no labels, so it cannot be said what is right"):
        layer_importance(whole, unlabelled)


TINY = ["convnet", "inception_small", "resnet20", "mobilenet_v2", "mobilenet_v3_small"]
BIG = ["alexnet", "googlenet", "resnet18", "resnetv2_50", "efficientnetv2_b0", "densenet121", "xception"]
LONG = [pytest.mark.slow, pytest.mark.long]


def tiny(name):
    row = info(name)
    return create(name, classes=3, input_shape=(row.smallest_size, row.smallest_size, row.channels))


@pytest.mark.parametrize("name", [TINY[0], *(pytest.param(name, marks=pytest.mark.slow) for name in TINY[1:])])
def test_every_layer_that_learns_is_in_a_block(name):
    model = tiny(name)
    inside = [layer for names in named_blocks(links_of(model)).values() for layer in names]
    assert len(inside) == len(set(inside))
    assert {layer.name for layer in model.layers if learns(layer)} - {*inside} == {"head_dense"}


def test_the_blocks_of_mobilenet_v2_are_those_of_its_names():
    blocks = named_blocks(links_of(tiny("mobilenet_v2")))
    assert [*blocks] == ["Conv1", "expanded_conv", *(f"block_{k}" for k in range(1, 17)), "Conv_1"]
    assert all(layer.startswith(f"{name}_") for name in [*blocks][2:-1] for layer in blocks[name])


@pytest.mark.parametrize(
    "name",
    [
        TINY[0],
        *(pytest.param(name, marks=pytest.mark.slow) for name in TINY[1:]),
        *(pytest.param(name, marks=LONG) for name in BIG),
    ],
)
def test_nothing_taken_out_is_the_network_itself(name):
    model = randomized(tiny(name))
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:])).astype(np.uint8)
    surgery = Surgery(model, None, images, 0)
    *_, (_, outputs) = surgery.walk(images)
    np.testing.assert_allclose(outputs, model(images.astype("float32"), training=False), atol=2e-6)


def test_half_precision_and_pictures_of_any_size_pass(dev):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = create("convnet", classes=CLASSES, input_shape=(None, None, 3), filters=(8, 8), pooling=None)
    finally:
        keras.config.set_dtype_policy("float32")
    found = layer_importance(model, dev)
    assert found.table.how.tolist() == ["re-initialised", "identity"]
