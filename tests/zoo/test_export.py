"""Export: the folder, its signatures, the proof in a fresh process, and what is refused."""

import ast
import io
import json
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

import zoo
from zoo.data.pictures import Geometry, encode_png
from zoo.export import saved_model, verify, verify_child
from zoo.export.saved_model import export, fingerprint, load_export
from zoo.export.verify import BATCH_SIZES, TOLERANCES, ExportMismatch, synthetic_samples
from zoo.models.registry import create

NAMES = ["ant", "bee", "çà et là"]


def picture(width=40, height=30, seed=0):
    """A colourful picture without symmetry."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def lively(model, seed=0):
    """The same weights each time, of a size that makes outputs differ from picture to picture without saturating."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        drawn = rng.normal(size=weight.shape)
        if weight.path.endswith("kernel"):
            weight.assign(drawn * np.sqrt(2 / np.prod(weight.shape[:-1])))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(1 + 0.2 * np.tanh(drawn))
        else:
            weight.assign(0.2 * drawn)
    return model


@pytest.fixture(scope="module")
def trap():
    """A model whose layers all behave differently in training."""
    return lively(
        keras.Sequential(
            [
                keras.Input((16, 16, 3), name="image"),
                keras.layers.RandomFlip(seed=1),
                keras.layers.RandomRotation(0.4, seed=2),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(8, 3),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
                keras.layers.Dropout(0.5, seed=3),
                keras.layers.Dense(3, activation="softmax"),
            ],
            name="trap",
        )
    )


@pytest.fixture(scope="module")
def exported(trap, tmp_path_factory):
    """The one export that most tests look at."""
    folder = tmp_path_factory.mktemp("export") / "deep" / "trap"
    samples = [encoded(picture(seed=k), kind) for k, kind in enumerate(["JPEG", "PNG", "TIFF"])]
    return export(trap, folder, class_names=NAMES, image_size=16, samples=samples)


@pytest.fixture
def unverified(monkeypatch):
    """Exports without graph and fresh process, for tests of everything around them."""
    monkeypatch.setattr(saved_model, "write_saved_model", lambda model, folder, **kwargs: folder.mkdir())
    monkeypatch.setattr(saved_model, "verify", lambda *args, **kwargs: {"passed": True})


@pytest.fixture(scope="module")
def small():
    return create("convnet", classes=3, input_shape=(16, 16, 3))


def test_layers_that_behave_differently_in_training_do_not_in_the_export(exported, trap):
    images = np.stack([np.asarray(picture(16, 16, seed)) for seed in range(5)]).astype(np.float32)
    loaded = tf.saved_model.load(str(exported / "1"))
    found = loaded.signatures["serve_images"](images=tf.constant(images))["probabilities"].numpy()
    np.testing.assert_allclose(found, trap.predict(images, verbose=0), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.01  # the pictures do differ
    copy = keras.models.clone_model(trap)  # training moves statistics
    copy.set_weights(trap.get_weights())
    assert np.abs(copy(images, training=True) - found).max() > 0.01  # training does change the answers


def test_folder_holds_what_the_contract_says(exported, trap):
    assert sorted(path.name for path in exported.iterdir()) == ["1", "labels.txt", "model.json", "verification.json"]
    assert (exported / "labels.txt").read_text(encoding="utf-8").splitlines() == NAMES
    said = json.loads((exported / "model.json").read_text(encoding="utf-8"))
    assert said["format"] == "menagerie-export"
    assert (said["class_names"], said["classes"], said["image_size"], said["channels"]) == (NAMES, 3, [16, 16], 3)
    assert (said["crop"], said["interpolation"], said["background"]) == (1.0, "bilinear", [255, 255, 255])
    assert said["parameters"] == trap.count_params()
    assert said["weights_sha256"] == fingerprint(trap)
    assert said["versions"]["keras"] == keras.__version__
    assert [path.name for path in exported.parent.iterdir()] == ["trap"]  # nothing temporary is left beside it


def test_verification_reports_every_batch_size_and_signature(exported):
    report = json.loads((exported / "verification.json").read_text())
    assert report["passed"] is True
    assert (report["tolerance"], report["precision"], report["samples"]) == (1e-5, "float32", 3)
    assert report["repeatable"] in ("to the bit", "within tolerance")
    assert report["beside_unreadable"] in ("to the bit", "within tolerance")
    assert set(report["max_difference"]) == {"serving_default", "serve_images"}
    for differences in report["max_difference"].values():
        assert [int(size) for size in differences] == list(BATCH_SIZES)
        assert all(difference <= 1e-5 for difference in differences.values())
    assert report["versions"]["tensorflow"] == tf.__version__
    assert report["seconds"] > 0


def test_plain_tensorflow_user_gets_the_signatures_of_the_contract(exported):
    loaded = tf.saved_model.load(str(exported / "1"))
    assert set(loaded.signatures) == {"serving_default", "serve_images"}
    serve = loaded.signatures["serving_default"]
    assert serve.structured_input_signature[1] == {"image_bytes": tf.TensorSpec([None], tf.string, name="image_bytes")}
    outputs = {name: (spec.dtype, spec.shape.as_list()) for name, spec in serve.structured_outputs.items()}
    assert outputs == {
        "label": (tf.string, [None]),
        "probability": (tf.float32, [None]),
        "probabilities": (tf.float32, [None, 3]),
    }
    images = loaded.signatures["serve_images"]
    assert images.structured_input_signature[1] == {
        "images": tf.TensorSpec([None, 16, 16, 3], tf.float32, name="images")
    }
    assert set(images.structured_outputs) == {"probabilities"}

    answer = serve(image_bytes=tf.constant([encoded(picture()), encoded(picture(seed=1), "JPEG")]))
    values = answer["probabilities"].numpy()
    assert [label.decode() for label in answer["label"].numpy()] == [NAMES[k] for k in values.argmax(axis=1)]
    np.testing.assert_array_equal(answer["probability"], values.max(axis=1))
    np.testing.assert_allclose(values.sum(axis=1), 1, rtol=1e-6)


def test_empty_batch_gives_empty_answers(exported):
    loaded = tf.saved_model.load(str(exported / "1"))
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant([], tf.string))
    assert {name: tuple(values.shape) for name, values in answer.items()} == {
        "label": (0,),
        "probability": (0,),
        "probabilities": (0, 3),
    }
    images = loaded.signatures["serve_images"](images=tf.zeros([0, 16, 16, 3]))
    assert images["probabilities"].shape == (0, 3)


def test_rotated_picture_is_predicted_like_the_upright_one(exported):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing
    lying = encoded(picture(48, 32), "JPEG", exif=exif)
    with Image.open(io.BytesIO(lying)) as image:
        upright = encoded(ImageOps.exif_transpose(image))
        as_stored = encoded(Image.fromarray(np.asarray(image)))
    turned, plain, not_turned = load_export(exported).predict([lying, upright, as_stored]).probability
    assert turned == pytest.approx(plain, abs=1e-6)
    assert abs(not_turned - plain) > 1e-3


def test_predict_reads_paths_folders_and_bytes_alike(exported, tmp_path):
    (tmp_path / "more").mkdir()
    picture(seed=4).save(tmp_path / "a.png")
    picture(seed=5).save(tmp_path / "more" / "b.tiff")
    model = load_export(exported)
    table = model.predict(tmp_path)
    assert table.columns.tolist() == ["path", "label", "probability"]
    assert sorted(table.path) == [str(tmp_path / "a.png"), str(tmp_path / "more" / "b.tiff")]
    one = model.predict(tmp_path / "a.png")
    assert one.path.tolist() == [str(tmp_path / "a.png")]
    as_bytes = model.predict([(tmp_path / "a.png").read_bytes(), tmp_path / "more" / "b.tiff"])
    assert as_bytes.path.tolist() == ["bytes 0", str(tmp_path / "more" / "b.tiff")]
    by_path = table.set_index("path")
    for row, path in zip(as_bytes.itertuples(), [tmp_path / "a.png", tmp_path / "more" / "b.tiff"], strict=True):
        assert (row.label, row.probability) == (by_path.label[str(path)], pytest.approx(by_path.probability[str(path)]))


def test_predict_agrees_with_the_model_over_several_batches(exported, trap):
    images = [np.asarray(picture(16, 16, seed)) for seed in range(40)]
    table = load_export(exported).predict([encode_png(image) for image in images])
    expected = trap.predict(np.stack(images).astype(np.float32), verbose=0)
    assert table.label.tolist() == [NAMES[k] for k in expected.argmax(axis=1)]
    np.testing.assert_allclose(table.probability, expected.max(axis=1), atol=1e-5)


def test_unreadable_pictures_do_not_stop_the_others(exported, tmp_path):
    good = encoded(picture())
    (tmp_path / "cut.jpg").write_bytes(encoded(picture(200, 200), "JPEG")[:500])
    table = load_export(exported).predict([good, b"", b"no picture", tmp_path / "cut.jpg", good])
    assert table.label[0] == table.label[4] != ""
    assert table.label[1:4].tolist() == ["", "", ""]
    assert table.probability.isna().tolist() == [False, True, True, True, False]
    assert table.problem[0] == table.problem[4] == ""
    assert table.problem[1] == "the file is empty"
    assert all(table.problem[1:4])


def test_picture_that_is_found_damaged_only_when_it_is_converted_has_a_problem(exported, monkeypatch):
    monkeypatch.setattr(saved_model, "check", lambda data: {"status": "usable", "format": "PNG"})
    broken = encoded(picture())[:-200]
    table = load_export(exported).predict([encoded(picture()), broken, encoded(picture(seed=1), "JPEG")])
    assert [bool(label) for label in table.label] == [True, False, True]
    assert "truncated" in table.problem[1]


def test_predict_of_nothing_is_an_empty_table(exported):
    assert load_export(exported).predict([]).columns.tolist() == ["path", "label", "probability"]


def test_predict_names_a_missing_file(exported):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        load_export(exported).predict(["nowhere.jpg"])


def test_load_export_says_what_is_wrong(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load_export(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is no export: a model.json written by zoo.export is missing"):
        load_export(tmp_path)
    damaged = shutil.copytree(exported, tmp_path / "damaged")
    (damaged / "1" / "saved_model.pb").unlink()
    with pytest.raises(ValueError, match="is damaged; export it again"):
        load_export(damaged)


def test_other_weights_are_caught(exported, trap):
    other = keras.models.clone_model(trap)
    other.set_weights(trap.get_weights())
    other.layers[-1].bias.assign(other.layers[-1].bias + np.array([0.001, 0, 0], np.float32))
    with pytest.raises(ExportMismatch, match="does not answer as the model does: .* differ by .* up to 1e-05"):
        verify.verify(
            exported / "1", other, class_names=NAMES, geometry=Geometry((16, 16)), samples=synthetic_samples()
        )


def test_swapped_labels_are_caught():
    expected = np.array([[0.9, 0.1]], np.float32)
    answers = {
        f"{signature}/{size}/{call}/{key}": value
        for size in BATCH_SIZES
        for call in (1, 2)
        for signature in ("serving_default", "serve_images")
        for key, value in {
            "probabilities": expected.repeat(size, axis=0),
            "label": np.array(["bee"] * size),
            "probability": expected.repeat(size, axis=0).max(axis=1),
        }.items()
    }
    own = {size: expected.repeat(size, axis=0) for size in BATCH_SIZES}
    with pytest.raises(ExportMismatch, match="label and probability are not those of its most probable class"):
        verify._compare(answers, own, ["ant", "bee"], 1e-5)
    answers |= {key: np.array(["ant"] * len(value)) for key, value in answers.items() if key.endswith("label")}
    assert verify._compare(answers, own, ["ant", "bee"], 1e-5)[1] is True


def test_answers_that_change_from_call_to_call_are_caught():
    first = np.array([[0.9, 0.1]], np.float32)
    answers = {
        f"{signature}/{size}/{call}/probabilities": (first if call == 1 else first[:, ::-1]).repeat(size, axis=0)
        for size in BATCH_SIZES
        for call in (1, 2)
        for signature in ("serving_default", "serve_images")
    }
    with pytest.raises(ExportMismatch, match="is not repeatable"):
        verify._compare(answers, {size: first.repeat(size, axis=0) for size in BATCH_SIZES}, ["ant", "bee"], 1e-5)


def test_answer_for_an_unreadable_file_or_a_changed_one_beside_it_is_caught():
    values = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    holed = values.copy()
    holed[1] = np.nan
    good = {
        "serving_default/3/1/probabilities": values,
        "mixed/probabilities": holed,
        "mixed/probability": holed.max(axis=1),
        "mixed/label": np.array(["ant", "", "ant"]),
    }
    assert verify._compare_mixed(good, ["ant", "bee"], 1e-5) is True
    for changes, message in [
        ({"mixed/label": np.array(["ant", "bee", "ant"])}, "something else than no label and NaN"),
        ({"mixed/probability": values.max(axis=1)}, "something else than no label and NaN"),
        ({"mixed/probabilities": values}, "something else than no label and NaN"),
        ({"mixed/probabilities": holed[::-1]}, "changes the exported model's answers for others in its batch, by 0.2"),
        ({"mixed/label": np.array(["ant", "", "bee"])}, "changes the exported model's answers"),
    ]:
        with pytest.raises(ExportMismatch, match=message):
            verify._compare_mixed(good | changes, ["ant", "bee"], 1e-5)


def test_failing_process_is_reported_in_one_sentence(tmp_path, trap):
    with pytest.raises(ExportMismatch) as caught:
        verify.verify(tmp_path, trap, class_names=NAMES, geometry=Geometry((16, 16)), samples=synthetic_samples())
    assert str(caught.value).startswith("The exported model fails in a fresh process: OSError: ")
    assert "\n" not in str(caught.value)


def test_process_that_takes_too_long_is_ended(exported, trap):
    with pytest.raises(ExportMismatch, match="did not answer within 0.05 seconds"):
        verify.verify(
            exported / "1",
            trap,
            class_names=NAMES,
            geometry=Geometry((16, 16)),
            samples=synthetic_samples(),
            timeout=0.05,
        )


def test_fresh_process_imports_nothing_of_ours():
    tree = ast.parse(Path(verify_child.__file__).read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"numpy", "tensorflow"}


def test_failed_export_leaves_the_earlier_one(small, tmp_path, unverified, monkeypatch):
    target = export(small, tmp_path / "export", class_names=NAMES, image_size=16)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}

    def fail(*args, **kwargs):
        raise ExportMismatch("differs")

    monkeypatch.setattr(saved_model, "verify", fail)
    with pytest.raises(ExportMismatch):
        export(small, target, class_names=["x", "y", "z"], image_size=16)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before
    with pytest.raises(ExportMismatch):
        export(small, tmp_path / "new", class_names=NAMES, image_size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_earlier_export_is_replaced(small, tmp_path, unverified):
    export(small, tmp_path / "export", class_names=NAMES, image_size=16)
    export(small, tmp_path / "export", class_names=["x", "y", "z"], image_size=16)
    assert (tmp_path / "export" / "labels.txt").read_text() == "x\ny\nz\n"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_foreign_folder_is_refused_untouched(small, tmp_path, unverified):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "model.json").write_text('{"format": "another"}')
    with pytest.raises(ValueError, match="exists and is no earlier export"):
        export(small, tmp_path, class_names=NAMES, image_size=16)
    with pytest.raises(ValueError, match="must be a folder. Received: the file"):
        export(small, tmp_path / "notes.txt", class_names=NAMES, image_size=16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "notes.txt"]


def test_export_with_files_of_others_in_it_is_not_replaced(small, tmp_path, unverified):
    target = export(small, tmp_path / "export", class_names=NAMES, image_size=16)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="also holds other files: notes.txt"):
        export(small, target, class_names=NAMES, image_size=16)
    assert (target / "notes.txt").read_text() == "mine"


def test_place_that_cannot_be_written_is_named(small, tmp_path, unverified):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be made.*Choose another place"):
        export(small, tmp_path / "file" / "export", class_names=NAMES, image_size=16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ["a", "b"]}, "tells 3 classes apart, but there are 2 class names"),
        ({"class_names": ["a", "b", "a"]}, "must differ from each other"),
        ({"class_names": ["a", "b", "c\nd"]}, "without line breaks"),
        ({"image_size": 20}, r"must be the size that the model takes, \(16, 16\). Received: image_size=20"),
        ({"preprocessing": {"size": 3}}, "takes crop, interpolation and background. Received: size"),
        ({"preprocessing": {"crop": 2.0}}, r"`crop` must lie in \(0, 1\]"),
        ({"preprocessing": {"background": "red"}}, "`background` must be red, green and blue"),
        ({"formats": ("saved_model", "onnx")}, "must be some of: saved_model. Received"),
        ({"formats": ()}, "must be some of: saved_model"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(small, tmp_path, changes, message):
    arguments = {"class_names": NAMES, "image_size": 16, **changes}
    with pytest.raises(ValueError, match=message):
        export(small, tmp_path / "export", **arguments)
    assert not list(tmp_path.iterdir())


def test_missing_sample_is_named(small, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.jpg"):
        export(small, tmp_path / "export", class_names=NAMES, image_size=16, samples=["nowhere.jpg"])
    assert not list(tmp_path.iterdir())


def test_other_backends_are_told_the_way(small, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="runs on jax.*KERAS_BACKEND=tensorflow"):
        export(small, tmp_path / "export", class_names=NAMES, image_size=16)


def test_without_tensorflow_the_way_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for name in ("zoo.export.saved_model", "zoo.export.graph", "zoo.export.verify"):
        monkeypatch.delitem(sys.modules, name)
    for ask in (lambda: zoo.load_export("export"), lambda: zoo.export("model", "export")):
        with pytest.raises(ImportError, match="needs TensorFlow: pip install tensorflow"):
            ask()


def test_model_without_one_picture_input_is_refused(tmp_path):
    vectors = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="one input .batch, height, width, channels. can be exported"):
        export(vectors, tmp_path / "export", class_names=NAMES, image_size=16)


@pytest.mark.slow
@pytest.mark.long
def test_half_precision_grey_logits_of_an_oblong_model(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential(
            [
                keras.Input((12, 20, 1)),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(8, 3, activation="relu"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3),
            ]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    target = export(
        model,
        tmp_path / "export",
        class_names=NAMES,
        image_size=(12, 20),
        preprocessing={"crop": None, "interpolation": "bicubic"},
    )
    report = json.loads((target / "verification.json").read_text())
    assert (report["precision"], report["tolerance"]) == ("bfloat16", TOLERANCES["bfloat16"])
    said = load_export(target).description
    assert (said["image_size"], said["channels"], said["crop"], said["interpolation"]) == ([12, 20], 1, None, "bicubic")
    table = load_export(target).predict([encoded(picture())])
    assert 1 / 3 <= table.probability[0] <= 1


@pytest.mark.slow
@pytest.mark.long
def test_layer_that_draws_in_inference_fails_the_verification(tmp_path):
    class Noise(keras.layers.Layer):
        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs), stddev=50.0)

    model = keras.Sequential(
        [keras.Input((16, 16, 3)), Noise(), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    )
    with pytest.raises(ExportMismatch):
        export(model, tmp_path / "export", class_names=NAMES, image_size=16)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.long
def test_residual_network_is_exported_for_photographs(tmp_path):
    model = lively(create("resnet20", classes=3, input_shape=(32, 32, 3)))
    target = export(model, tmp_path / "export", class_names=NAMES, image_size=32, preprocessing={"crop": 0.875})
    assert json.loads((target / "verification.json").read_text())["passed"]
    assert load_export(target).predict([encoded(picture(300, 200), "WEBP")]).label[0] in NAMES
