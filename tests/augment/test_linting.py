import functools

import keras
import numpy as np
import pytest

from augment.affine import RandomAffine
from augment.colour import ColorJitter
from augment.contents import layers_of, line, referred
from augment.crop import RandomCrop
from augment.linting import lint
from augment.mixing import CutMix, MixUp
from augment.policies import Policy
from augment.soft_labels import SoftLabels

LAYERS = keras.layers
GLOBAL_LAYER = RandomAffine()


@pytest.fixture
def tf():
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.data maps keras.ops on the TensorFlow backend")
    return tensorflow


@pytest.fixture
def pictures(tf, digit_pictures):
    """Batches of eight uint8 pictures in three channels, with class indices."""
    images, labels = digit_pictures[0][:32], digit_pictures[1][:32]
    return tf.data.Dataset.from_tensor_slices((np.stack([images] * 3, -1), labels)).batch(8)


class Arrays(keras.utils.PyDataset):
    """Batches of eight from arrays; counts how often it was asked."""

    def __init__(self, images, labels):
        super().__init__()
        self.arrays = images, labels
        self.asked = 0

    def __len__(self):
        return len(self.arrays[0]) // 8

    def __getitem__(self, index):
        self.asked += 1
        return tuple(array[8 * index : 8 * index + 8] for array in self.arrays)


@pytest.fixture
def arrays(digit_pictures):
    def made(scale=1.0, offset=0.0, soft=False):
        images = np.stack([digit_pictures[0][:32]] * 3, -1)
        labels = np.eye(3, dtype="float32")[digit_pictures[1][:32]] if soft else digit_pictures[1][:32]
        plain = scale == 1 and offset == 0
        return Arrays(images if plain else images.astype("float32") * scale + offset, labels)

    return made


def network(*first, loss=None, metrics=None, size=(8, 8, 3)):
    """A small classifier that begins with the layers given."""
    model = keras.Sequential(
        [keras.Input(size), *first, LAYERS.Conv2D(4, 3, name="conv"), LAYERS.GlobalMaxPooling2D(), LAYERS.Dense(3)]
    )
    if loss:
        model.compile("sgd", loss, metrics=metrics)
    return model


def only(findings, *words):
    """One finding, which says all of this."""
    assert len(findings) == 1, findings
    for word in words:
        assert word in findings[0]


def soft_pictures(pictures):
    return pictures.map(lambda images, labels: (images, SoftLabels(3)(labels)))


# augmentation before a cache


def test_augmentation_before_a_cache_is_found(pictures):
    policy = Policy([RandomAffine(shift=0.1)], name="light")
    wrong = pictures.map(lambda x, y: (policy(x, training=True), y)).cache().shuffle(4).prefetch(1)
    only(lint(dataset=wrong), "Policy augments before .cache()", "every epoch replays", "put the .cache() before")
    right = pictures.cache().shuffle(4).map(lambda x, y: (policy(x, training=True), y), num_parallel_calls=2)
    assert lint(dataset=right.prefetch(1)) == []


def test_kerases_own_layers_and_mixing_are_found_before_a_cache_too(pictures):
    flip, mix = LAYERS.RandomFlip(), MixUp()
    only(lint(dataset=pictures.map(lambda x, y: (flip(x, training=True), y)).cache()), "RandomFlip augments before")
    mixed = soft_pictures(pictures).map(lambda *pair: mix(pair, training=True))
    only(lint(dataset=mixed.cache()), "MixUp augments before .cache()")
    assert lint(dataset=mixed) == []


def through_another(images):
    return GLOBAL_LAYER(images, training=True)


class Preparation:
    def __init__(self):
        self.layers = [RandomAffine()]
        self.augment = self.layers[0]

    def by_attribute(self, x, y):
        return self.augment(x, training=True), y

    def by_helper(self, x, y):
        return self.changed(x), y

    def changed(self, x):
        for layer in self.layers:
            x = layer(x, training=True)
        return x

    def __call__(self, x, y):
        return self.by_helper(x, y)


def test_layers_are_found_wherever_a_mapping_refers_to_them(tf, pictures):
    layer, preparation = RandomAffine(), Preparation()

    def as_default(x, y, augment=layer):
        return augment(x, training=True), y

    def as_keyword(x, y, *, augment):
        return augment(x, training=True), y

    def in_an_inner_function(x, y):
        return [GLOBAL_LAYER(x, training=True) for _ in range(1)][0], y

    mappings = [
        lambda x, y: (layer(x, training=True), y),
        lambda x, y: (GLOBAL_LAYER(x, training=True), y),
        lambda x, y: (through_another(x), y),
        lambda x, y: (layer.call(x, training=True), y),
        as_default,
        functools.partial(as_keyword, augment=layer),
        in_an_inner_function,
        tf.function(lambda x, y: (layer(x, training=True), y)),
        preparation.by_attribute,
        preparation.by_helper,
        preparation,
        lambda x, y: preparation(x, y),
    ]
    for mapping in mappings:
        only(lint(dataset=pictures.map(mapping).cache()), "RandomAffine augments before .cache()")
    assert lint(dataset=pictures.cache().map(mappings[0])) == []


def test_names_that_lead_elsewhere_are_not_taken_for_layers(pictures):
    class Numbers:
        GLOBAL_LAYER = 2  # bears a global's name

    numbers = Numbers()
    assert lint(dataset=pictures.map(lambda x, y: (x * numbers.GLOBAL_LAYER, y)).cache()) == []
    assert referred(lambda x: keras.layers.Rescaling) == []  # the class is no layer


def test_a_branch_is_judged_by_its_own_cache(tf, pictures):
    layer = RandomAffine()
    images = pictures.map(lambda x, y: x)
    labels = pictures.map(lambda x, y: y)
    changed = images.cache().map(lambda x: layer(x, training=True))
    assert lint(dataset=tf.data.Dataset.zip(changed, labels.cache())) == []
    only(lint(dataset=tf.data.Dataset.zip(changed.cache(), labels)), "RandomAffine augments before .cache()")


# normalising twice


def test_a_dataset_and_a_model_that_both_normalise_are_found(pictures):
    scale = LAYERS.Rescaling(1 / 255)
    scaled = pictures.map(lambda x, y: (scale(x), y))
    own = network(LAYERS.Rescaling(1 / 127.5, offset=-1))
    only(lint(own, scaled), "normalised pictures by Rescaling (from 0 to 1 in the first batch)", "its own Rescaling")
    assert lint(network(), scaled) == []
    assert lint(own, pictures) == []
    assert lint(own, pictures.map(lambda x, y: (keras.ops.cast(x, "float32"), y))) == []


def test_preprocess_input_is_known_and_judged_by_what_it_does(pictures):
    own = network(LAYERS.Rescaling(1 / 127.5, offset=-1))
    as_pixels = pictures.map(lambda x, y: (keras.ops.cast(x, "float32"), y))
    wrong = as_pixels.map(lambda x, y: (keras.applications.mobilenet_v2.preprocess_input(x), y))
    only(lint(own, wrong), "by preprocess_input (from -1 to 1 in the first batch)")
    assert lint(own, as_pixels.map(lambda x, y: (keras.applications.efficientnet.preprocess_input(x), y))) == []


@pytest.mark.parametrize(("scale", "offset"), [(1 / 255, 0), (1 / 127.5, -1), (1, -120)])
def test_arithmetic_is_seen_in_the_first_batch(arrays, scale, offset):
    data = arrays(scale, offset)
    only(lint(network(LAYERS.Rescaling(1 / 127.5, offset=-1)), data), "normalised pictures (from", "give it pixels")
    assert data.asked == 1
    assert lint(network(), arrays(scale, offset)) == []


def test_a_model_adapted_to_scaled_pictures_wants_them(arrays):
    statistics = {"mean": [0.485, 0.456, 0.406], "variance": [0.05, 0.05, 0.05]}
    assert lint(network(LAYERS.Normalization(**statistics)), arrays(1 / 255)) == []
    of_pixels = {"mean": [123.0, 116.0, 103.0], "variance": [3400.0, 3200.0, 3200.0]}
    only(lint(network(LAYERS.Normalization(**of_pixels)), arrays(1 / 255)), "its own Normalization")
    assert lint(network(LAYERS.Normalization(**of_pixels)), arrays()) == []


def test_a_model_that_normalises_twice_is_found(arrays):
    twice = network(LAYERS.Rescaling(1 / 255), LAYERS.Rescaling(1 / 127.5, offset=-1))
    only(lint(twice), "The model normalises twice, by Rescaling and Rescaling", "0.0078 apart")
    nested = network(keras.Sequential([keras.Input((8, 8, 3)), LAYERS.Rescaling(1 / 255)]), LAYERS.Rescaling(1 / 255))
    only(lint(nested), "normalises twice")
    once = network(LAYERS.Rescaling(1 / 255), LAYERS.Normalization(mean=[0.5] * 3, variance=[0.06] * 3))
    assert lint(once) == []
    assert lint(network(LAYERS.Rescaling(1 / 65535))) == []  # 16 bits


def test_a_dataset_that_normalises_twice_is_found(pictures):
    one, two = LAYERS.Rescaling(1 / 255), LAYERS.Rescaling(1 / 127.5, offset=-1)
    wrong = pictures.map(lambda x, y: (one(x), y)).map(lambda x, y: (two(x), y))
    only(lint(dataset=wrong), "The dataset normalises twice, by Rescaling and Rescaling")
    either = pictures.map(lambda x, y: ((one(x) + two(x)) / 2, y))  # in one mapping, whose order is unknown
    assert lint(dataset=either) == []


@pytest.mark.parametrize("name", ["EfficientNetB0", "ConvNeXtTiny", "MobileNetV3Small"])
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere each takes many seconds to build")
def test_the_normalisation_inside_models_of_keras_is_known(name, arrays):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), include_top=False)
    assert lint(model) == []
    assert lint(model, arrays()) == []
    only(lint(model, arrays(1 / 255)), "a model that begins with its own")


def test_branches_that_each_normalise_are_not_twice():
    image = keras.Input((8, 8, 3))
    merged = LAYERS.Concatenate()([LAYERS.Rescaling(1 / 255)(image), LAYERS.Rescaling(1 / 127.5, offset=-1)(image)])
    assert lint(keras.Model(image, merged)) == []


def test_a_teacher_in_a_mapping_does_not_normalise_the_pictures(pictures):
    teacher = network(LAYERS.Rescaling(1 / 255))
    data = pictures.map(lambda x, y: (keras.ops.cast(x, "float32"), teacher(x)))
    twice = data.map(lambda x, y: (x, teacher(x)))
    assert lint(network(LAYERS.Rescaling(1 / 255)), twice) == []
    assert referred(lambda x: teacher(x)) == []


# augmentation behind a normalisation


def test_our_layers_behind_a_normalisation_in_the_model_are_found():
    wrong = network(LAYERS.Rescaling(1 / 255), RandomAffine())
    only(lint(wrong), "RandomAffine comes behind Rescaling in the model and expects pixels 0..255: put it before")
    assert lint(network(RandomAffine(), LAYERS.Rescaling(1 / 255))) == []
    assert lint(network(LAYERS.Rescaling(1 / 255), LAYERS.RandomFlip())) == []  # Keras' own takes any range
    assert lint(network(LAYERS.Rescaling(255), RandomAffine())) == []  # undoes a division


def test_our_layers_behind_a_normalisation_in_the_dataset_are_found(pictures):
    scale, layer = LAYERS.Rescaling(1 / 255), Policy([RandomAffine()])
    scaled = pictures.map(lambda x, y: (scale(x), y))
    only(lint(dataset=scaled.map(lambda x, y: (layer(x, training=True), y))), "Policy comes behind Rescaling in the da")
    changed = pictures.map(lambda x, y: (layer(x, training=True), y))
    assert lint(dataset=changed.map(lambda x, y: (scale(x), y))) == []
    assert lint(dataset=pictures.map(lambda x, y: (scale(layer(x, training=True)), y))) == []
    both = keras.Sequential([scale, RandomAffine()])
    only(lint(dataset=pictures.map(lambda x, y: (both(x, training=True), y))), "RandomAffine comes behind Rescaling")


def test_our_layers_in_a_model_that_gets_normalised_pictures_are_found(arrays):
    only(lint(network(RandomAffine()), arrays(1 / 255)), "RandomAffine in the model", "normalise behind it")
    assert lint(network(RandomAffine()), arrays()) == []
    assert lint(network(RandomAffine()), arrays(1.0001)) == []  # floats, as bright as pixels are


# labels


@pytest.mark.parametrize("layer", [MixUp, CutMix])
def test_mixed_pictures_with_unmixed_labels_are_found(pictures, layer):
    mix, soft = layer(), SoftLabels(3)
    wrong = pictures.map(lambda x, y: (mix(x, soft(y), training=True)[0], y))
    only(lint(dataset=wrong), f"{layer.__name__} mixes pictures", "labels behind it are int64 (None,)", "SoftLabels")
    assert lint(dataset=pictures.map(lambda x, y: mix(x, soft(y), training=True))) == []


def test_class_numbers_mixed_by_keras_are_found(tf, digit_pictures):
    mix = LAYERS.MixUp()
    images, labels = digit_pictures[0][:16, ..., np.newaxis], digit_pictures[1][:16]

    def mixed(labels):
        data = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels}).batch(8, drop_remainder=True)
        return data.map(lambda pair: mix(pair, training=True))

    only(lint(dataset=mixed(labels.astype("float32")[:, np.newaxis])), "MixUp mixes pictures", "float32 (8, 1)")
    assert lint(dataset=mixed(np.eye(3, dtype="float32")[labels])) == []


SPARSE, CATEGORICAL = keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy


@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", SPARSE(from_logits=True)])
def test_a_sparse_loss_with_rows_of_shares_is_found(arrays, loss):
    model = network(loss=loss, metrics=["accuracy"])
    only(
        lint(model, arrays(soft=True)), "The loss sparse_categorical_crossentropy wants class indices", "float32 (8, 3)"
    )
    assert lint(model, arrays()) == []


@pytest.mark.parametrize("loss", ["categorical_crossentropy", CATEGORICAL(), keras.losses.categorical_crossentropy])
def test_a_categorical_loss_with_class_indices_is_found(arrays, loss):
    model = network(loss=loss, metrics=["accuracy"])
    only(lint(model, arrays()), "The loss categorical_crossentropy wants floats (n, classes)", "int64 (8,)")
    assert lint(model, arrays(soft=True)) == []


def test_metrics_are_judged_as_losses_are(arrays):
    model = network(loss=CATEGORICAL(), metrics=[keras.metrics.SparseCategoricalAccuracy()])
    only(lint(model, arrays(soft=True)), "The metric sparse_categorical_accuracy wants class indices")
    assert lint(network(**SoftLabels(3).compile()), arrays(soft=True)) == []


def test_labels_of_a_pipeline_are_seen_without_drawing_a_batch(tf, pictures):
    def never():
        raise AssertionError("a batch was drawn")
        yield

    spec = tf.TensorSpec((None, 8, 8, 3), tf.uint8), tf.TensorSpec((None, 3), tf.float32)
    data = tf.data.Dataset.from_generator(never, output_signature=spec)
    model = network(LAYERS.Rescaling(1 / 255), loss="sparse_categorical_crossentropy")
    only(lint(model, data), "wants class indices")
    only(lint(model, soft_pictures(pictures)), "wants class indices")
    assert lint(model, pictures) == []


def test_a_generator_gives_one_batch_at_most(tf):
    given = []

    def generate():
        for number in range(100):
            given.append(number)
            yield np.full((8, 8, 8, 3), 0.5, "float32"), np.zeros(8, "int64")

    spec = tf.TensorSpec((None, 8, 8, 3), tf.float32), tf.TensorSpec((None,), tf.int64)
    data = tf.data.Dataset.from_generator(generate, output_signature=spec)
    only(lint(network(LAYERS.Rescaling(1 / 255)), data), "from 0.5 to 0.5 in the first batch")
    assert given == [0]


# draws and places


def test_two_layers_that_draw_alike_are_found(pictures):
    alike = Policy([RandomAffine(flip=None, shift=0.1, seed=4), Policy([RandomAffine(shift=0.2, seed=4)])])
    apart = Policy([RandomAffine(flip=None, shift=0.1, seed=4), RandomAffine(seed=5)])
    message = "Two RandomAffine layers in the {} share the seed 4 and draw alike: give each a seed of its own"
    only(lint(network(alike)), message.format("model"))
    only(lint(dataset=pictures.map(lambda x, y: (alike(x, training=True), y))), message.format("dataset"))
    assert lint(network(apart)) == []
    assert lint(network(Policy([RandomAffine(flip=None, shift=0.1, seed=4), RandomAffine(seed=4)]))) == []
    assert lint(dataset=pictures.map(lambda x, y: (apart(x, training=True), y))) == []


def test_augmentation_in_dataset_and_model_is_found(pictures):
    layer, mix = Policy([RandomAffine()]), MixUp()
    changed = pictures.map(lambda x, y: (layer(x, training=True), y))
    for own in (RandomAffine(seed=1), LAYERS.RandomFlip()):
        only(lint(network(own), changed), f"by Policy in the dataset and by {type(own).__name__} in the model")
        assert lint(network(own), pictures) == []
        assert lint(network(own), soft_pictures(pictures).map(lambda *pair: mix(pair, training=True))) == []
    assert lint(network(), changed) == []


def test_nothing_to_look_at_is_nothing_found():
    assert lint() == []
    assert lint(keras.Model()) == []
    assert lint(keras.Sequential([LAYERS.Rescaling(1 / 255), RandomAffine()])) == []  # not built: no order is known


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": LAYERS.Dense(3)}, "`model` must be a keras.Model. Received: Dense"),
        (
            {"dataset": (np.zeros(3), np.zeros(3))},
            "`dataset` must be a tf.data.Dataset or a keras.utils.PyDataset;.*tuple",
        ),
    ],
)
def test_other_things_are_refused(given, message):
    with pytest.raises(TypeError, match=message):
        lint(**given)


def test_layers_of_nested_models_come_in_order():
    inner = keras.Sequential([keras.Input((8, 8, 3)), RandomAffine(name="a"), LAYERS.Rescaling(1.0, name="b")])
    model = network(inner, LAYERS.Rescaling(2.0, name="c"))
    assert [layer.name for layer in line(model)] == ["a", "b", "c"]
    assert [layer.name for layer in layers_of(model) if not isinstance(layer, LAYERS.InputLayer)][:4] == [
        *"abc",
        "conv",
    ]


def test_what_is_off_may_stand_before_a_cache(pictures):
    crop, policy = RandomCrop(6), Policy([RandomAffine(shift=0.1)])
    for right in (
        pictures.map(lambda x, y: (crop(x), y)),
        pictures.map(lambda x, y: (policy(x, training=False), y)),
        pictures.map(functools.partial(lambda x, y, training: (policy(x, training=training), y), training=False)),
    ):
        assert lint(dataset=right.cache()) == []
    wrong = pictures.map(functools.partial(lambda x, y, training: (policy(x, training=training), y), training=True))
    only(lint(dataset=wrong.cache()), "Policy augments before .cache()")


def test_places_in_the_dataset_and_colours_in_the_model_are_no_fault(pictures):
    crop = RandomCrop(8)
    cropped = pictures.map(lambda x, y: (crop(x, training=True), y))
    assert lint(network(ColorJitter(0.2)), cropped) == []
    only(lint(network(RandomAffine()), cropped), "augmented twice, by RandomCrop in the dataset and by RandomAffine")


def test_dark_pictures_are_not_taken_for_normalised_ones(arrays):
    night = arrays(scale=0.0)
    assert not night[0][0].any()
    assert lint(network(LAYERS.Rescaling(1 / 255)), night) == []
