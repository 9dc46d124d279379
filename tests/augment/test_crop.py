import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image
from scipy import stats

from augment.crop import RandomCrop


@pytest.fixture
def pictures(digit_pictures):
    """Handwritten digits in three colours, as float32 (6, 48, 48, 3)."""
    return enlarged(digit_pictures[0][:6], 48, 48)


def enlarged(digits, height, width):
    turned = [np.stack([image, np.rot90(image), 255 - image], -1) for image in digits]
    return np.stack([pillow(image.astype("float32"), (height, width), smooth=True) for image in turned])


def pillow(image, size, box=None, *, smooth=False):
    """Pillow's antialiased resize of each channel in floating point; `box` as top, left, height, width."""
    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.BILINEAR
    if box is not None:
        top, left, tall, wide = box
        box = (left, top, min(left + wide, image.shape[1]), min(top + tall, image.shape[0]))
    channels = [Image.fromarray(image[..., i]).resize(size[::-1], kind, box=box) for i in range(image.shape[-1])]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], -1), 0, 255)


def keys_for(count, epoch=0):
    return np.stack([np.full(count, epoch), np.arange(count)], 1)


def cropped(layer, images, keys=None):
    def call(images, keys):
        return layer(images, training=True, keys=keys)

    if keras.backend.backend() == "jax":
        import jax

        call = jax.jit(call)  # several times faster than to compile each operation of each shape alone
    return ops.convert_to_numpy(call(images, keys_for(len(images)) if keys is None else np.asarray(keys)))


def boxes_of(count, side, **given):
    """The boxes (count, 4) that a layer cuts, as top, left, height, width.

    They are read from pictures whose pixels hold their place: where a box is enlarged, the filter keeps straight lines
    straight, save for the outermost pixels.
    """
    ramp = np.zeros((count, *side, 2), "float32")
    ramp[..., 0], ramp[..., 1] = np.mgrid[: side[0], : side[1]] + 0.5
    out = cropped(RandomCrop(side, **given), ramp, keys=keys_for(count)).astype("float64")
    measured = []
    for axis, pixels in enumerate(side):
        line = out[:, :, side[1] // 2, 0] if axis == 0 else out[:, side[0] // 2, :, 1]
        near, far = pixels // 4, 3 * pixels // 4
        step = (line[:, far] - line[:, near]) / (far - near)
        measured.append((line[:, near] - (near + 0.5) * step, step * pixels))
    (top, tall), (left, wide) = measured
    return np.stack([top, left, tall, wide], 1)


def test_boxes_have_the_drawn_areas_proportions_and_places():
    top, left, tall, wide = boxes_of(800, (64, 64), scale=(0.2, 0.6), ratio=(0.6, 1.5)).T
    area, ratio = tall * wide / 64**2, wide / tall
    down, right = top / (64 - tall), left / (64 - wide)
    drawn = {
        "area": stats.uniform(0.2, 0.4).cdf(area),
        "ratio": stats.uniform(np.log(0.6), np.log(1.5 / 0.6)).cdf(np.log(ratio)),
        "down": down,
        "right": right,
    }
    for name, share in drawn.items():
        assert stats.kstest(share, "uniform").pvalue > 0.001, name
    assert np.abs(np.corrcoef(list(drawn.values())) - np.eye(4)).max() < 0.15
    assert (np.abs(top - np.round(top)) > 0.1).any()  # fractions of a pixel, too


def test_boxes_that_would_stick_out_keep_their_area_and_end_at_the_edges():
    top, left, tall, wide = boxes_of(600, (64, 64)).T
    slack = 2e-3  # what a float32 leaves of the place
    assert stats.kstest(tall * wide / 64**2, stats.uniform(0.08, 0.92).cdf).pvalue > 0.001
    assert (3 / 4 - slack <= wide / tall).all() and (wide / tall <= 4 / 3 + slack).all()
    assert min(top.min(), left.min()) > -slack
    assert max((top + tall).max(), (left + wide).max()) < 64 + slack
    assert (np.abs(tall - 64) < slack).any() and (np.abs(wide - 64) < slack).any()


@pytest.mark.parametrize(("side", "ratio"), [((32, 80), 0.5), ((80, 32), 2.0)])
def test_an_oblong_picture_bounds_the_proportion_by_its_sides(side, ratio):
    sides = boxes_of(300, side, scale=(0.5, 0.9), ratio=(ratio, ratio)).T[2:]
    long, short = np.argmax(side), np.argmin(side)
    assert np.allclose(sides[short], 32, atol=2e-3)  # a box of this area and proportion would stick out there
    assert stats.kstest(sides[long] / 80, stats.uniform(0.5, 0.4).cdf).pvalue > 0.001


@pytest.mark.parametrize("size", [(48, 48), (20, 33), (96, 40)])
def test_each_picture_is_the_resize_of_its_box_by_pillow(digit_pictures, size):
    boxes = boxes_of(6, (96, 96), scale=(0.1, 0.9), seed=4)
    images = enlarged(digit_pictures[0][:6], 96, 96)
    out = cropped(RandomCrop(size, scale=(0.1, 0.9), seed=4), images, keys=keys_for(6))
    wanted = np.stack([pillow(image, size, box) for image, box in zip(images, boxes, strict=True)])
    assert out.shape == (6, *size, 3)
    assert np.abs(out - wanted).max() < 0.02  # the boxes are read to about a thousandth of a pixel


def test_the_whole_picture_at_half_its_size_is_an_antialiased_resize(pictures):
    images = np.round(pictures).astype("uint8")
    out = cropped(RandomCrop(24, scale=(1, 1), ratio=(1, 1)), images)
    wanted = np.stack(
        [np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BILINEAR)) for image in images]
    )
    difference = np.abs(out.astype(int) - wanted)
    assert out.dtype == np.uint8
    assert difference.max() <= 1
    assert difference.mean() < 0.25  # Pillow rounds after each of the two directions


@pytest.mark.parametrize("ratio", [(0.5, 0.5), (0.75, 1.33)])
def test_the_whole_area_is_the_whole_picture_whatever_the_proportion(digit_pictures, ratio):
    images = enlarged(digit_pictures[0][:4], 30, 50)
    out = cropped(RandomCrop((21, 17), scale=(1, 1), ratio=ratio), images)
    assert np.allclose(out, [pillow(image, (21, 17)) for image in images], atol=1e-3)


def test_a_picture_of_the_size_itself_is_zoomed_into(pictures):
    layer = RandomCrop(48, scale=(0.2, 0.5))
    assert np.array_equal(ops.convert_to_numpy(layer(pictures)), pictures)
    assert np.abs(cropped(layer, pictures) - pictures).mean() > 5


def test_black_and_white_stay_exactly_within_the_range():
    for value in (0.0, 255.0):
        out = cropped(RandomCrop((31, 40)), np.full((20, 50, 50, 3), value, "float32"))
        assert 0 <= out.min() and out.max() <= 255
        assert np.allclose(out, value, atol=1e-4)


def test_whole_numbers_are_rounded(pictures):
    images = np.round(pictures).astype("uint8")
    layer, keys = RandomCrop(40), keys_for(6)
    exact = cropped(layer, images.astype("float32"), keys=keys)
    out = cropped(layer, images, keys=keys)
    assert out.dtype == np.uint8
    assert np.array_equal(out, np.round(exact))


def test_what_a_picture_becomes_depends_on_its_keys_alone(pictures):
    layer = RandomCrop(40, seed=2)
    same = np.repeat(pictures[:1], 6, axis=0)
    whole = cropped(layer, same, keys=keys_for(6))
    assert np.abs(whole[:1] - whole[1:]).mean((1, 2, 3)).min() > 1  # a box each
    assert np.allclose(whole[4:5], cropped(RandomCrop(40, seed=2), same[:1], keys=[[0, 4]]), atol=1e-4)
    assert np.abs(whole - cropped(layer, same, keys=keys_for(6, epoch=1))).mean() > 1


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("size", [(20, 20), (31, 20), (20, 31), (48, 1)])
def test_outside_training_the_centre_is_cut_out_exactly(pictures, dtype, size):
    images = pictures.astype(dtype)
    layer = RandomCrop(size)
    wanted = ops.convert_to_numpy(keras.layers.CenterCrop(*size)(images.astype("float32")))
    for given in ({}, {"training": False}, {"keys": keys_for(6)}):
        out = ops.convert_to_numpy(layer(images, **given))
        assert out.dtype == dtype
        assert np.array_equal(out, wanted.astype(dtype))


def test_pictures_smaller_than_the_size_are_refused(pictures):
    layer = RandomCrop((50, 30))
    message = r"cannot cut \(50, 30\) out of images of \(48, 48\).*smaller `size`, or resize the images first"
    for given in ({"training": True}, {}):
        with pytest.raises(ValueError, match=message):
            layer(pictures, **given)
    with pytest.raises(ValueError, match=r"images of \(48, 48\)"):
        layer(keras.Input((48, 48, 3)))
    with pytest.raises(ValueError, match=r"images of \(49, None\)"):
        layer(keras.Input((49, None, 3)))
    assert layer(keras.Input((50, None, 3))).shape == (None, 50, 30, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 0}, "`size` must be a side or .height, width., in whole pixels above 0. Received: size=0"),
        ({"size": True}, "Received: size=True"),
        ({"size": (20, 2.5)}, r"Received: size=\(20, 2.5\)"),
        ({"size": (20, 20, 3)}, r"Received: size=\(20, 20, 3\)"),
        ({"size": "20"}, "Received: size='20'"),
        (
            {"size": 20, "scale": (0.0, 1.0)},
            r"`scale` must be a pair .*0.01 <= low <= high <= 1. Received: scale=\(0.0",
        ),
        ({"size": 20, "scale": 0.5}, "`scale` must be a pair"),
        ({"size": 20, "ratio": (2, 1)}, r"`ratio` must be a pair .*0.1 <= low <= high <= 10. Received: ratio=\(2, 1\)"),
    ],
)
def test_arguments_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        RandomCrop(**given)


def test_a_model_of_larger_pictures_fits_saves_and_predicts_on_their_centre(pictures, tmp_path):
    image = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 255)(RandomCrop([40, 36], ratio=[0.8, 1.2], seed=3, name="crop")(image))
    assert x.shape == (None, 40, 36, 3)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(pictures, np.arange(6) % 2, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    layer = again.get_layer("crop")
    assert (layer.size, layer.scale, layer.ratio, layer.seed) == ((40, 36), (0.08, 1.0), (0.8, 1.2), 3)
    predicted = again.predict(pictures, verbose=0)
    assert np.allclose(predicted, model.predict(pictures[:, 4:44, 6:42], verbose=0), atol=1e-5)


def test_graphs_of_unknown_sides_and_xla_cut_the_same(pictures):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function compiles Keras layers on the TensorFlow backend")
    layer, keys = RandomCrop((30, 40)), keys_for(6)
    eager = cropped(layer, pictures, keys=keys)
    assert layer.supports_jit
    unknown = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, 2), tf.int64)]
    train = tf.function(lambda images, keys: layer(images, training=True, keys=keys), input_signature=unknown)
    plain = tf.function(layer, input_signature=unknown[:1])
    for graph in (train, plain):
        assert graph.get_concrete_function().output_shapes.as_list() == [None, 30, 40, 3]
    compiled = tf.function(lambda images, keys: layer(images, training=True, keys=keys), jit_compile=True)
    for graph in (train, compiled):
        assert np.allclose(graph(pictures, keys), eager, atol=0.01)
    assert np.array_equal(plain(pictures), pictures[:, 9:39, 4:44])
    with pytest.raises(tf.errors.InvalidArgumentError):
        plain(pictures[:, :29])
