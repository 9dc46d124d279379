import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import zoo
from zoo import cli

HEAVY = ("keras", "tensorflow", "numpy", "pandas")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two epochs on digits, made by the command."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    words = ["train", "digits", "--model", "convnet", "--image-size", "8", "--epochs", "2", "--out", str(folder)]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    return folder, result.output


@pytest.fixture(scope="module")
def exported(trained):
    result = CliRunner().invoke(cli.app, ["export", str(trained[0])])
    assert result.exit_code == 0, result.output
    return trained[0] / "export", result.output


def test_train_prints_data_recipe_figures_and_what_comes_next(trained):
    folder, output = trained
    assert "1797 pictures in 10 classes" in output
    assert "learning_rate" in output
    assert f"zoo evaluate {folder} --split test" in output
    assert (folder / "model.keras").exists()


def test_evaluate_prints_the_figures_and_where_the_rows_are(trained, command):
    code, out, _ = command("evaluate", trained[0])
    assert code == 0
    assert "accuracy" in out
    assert Path(out.split("A row a picture: ")[1].splitlines()[0]).exists()
    assert f"Next: zoo report {trained[0]}" in out


def test_calibrate_and_report_leave_a_model_and_a_page_that_agree(trained, command, tmp_path):
    folder = shutil.copytree(trained[0], tmp_path / "run")
    assert command("evaluate", folder, "--split", "dev", "--augment", "light", "--views", "2")[0] == 0
    assert (folder / "evaluation" / "dev-light-2.csv").exists()
    code, out, err = command("calibrate", folder)
    assert code == 0, err
    found = json.loads((folder / "evaluation" / "calibration.json").read_text())
    assert f"{found['temperature']:.3g}" in out
    run = zoo.load_run(folder)
    assert run.model.get_layer("head_temperature").scale == pytest.approx(1 / found["temperature"])
    assert run.evaluate("dev").loss == pytest.approx(found["after"]["loss"], abs=1e-5)
    predicted = run.predict(run.data.dev)
    assert predicted.probability.tolist() == pytest.approx(run.evaluate("dev").table.probability.tolist(), abs=1e-5)
    code, out, err = command("report", folder, "--compare", trained[0])
    assert code == 0, err
    assert Path(out.split(": a page")[0]).samefile(folder / "report.html")
    found = json.loads((folder / "evaluation" / "comparison.json").read_text())
    assert (found["verdict"], found["only_first"], found["only_second"]) == ("no difference shown", 0, 0)
    (folder / "history.csv").unlink()
    code, _, err = command("report", folder)
    assert code == 2 and one_line(err) and "history.csv" in err


def test_export_says_how_it_was_verified(exported):
    folder, output = exported
    assert json.loads((folder / "verification.json").read_text())["passed"]
    assert f"{folder}: verified in a fresh process" in output


def test_predict_gives_label_and_probability_a_picture(exported, command, tmp_path):
    digits = zoo.load_data("digits", image_size=8).test
    paths = []
    for i, image in enumerate(digits.pixels()[:5]):
        paths.append(tmp_path / f"digit {i}.png")
        Image.fromarray(image).save(paths[-1])
    code, out, _ = command("predict", exported[0], *paths)
    assert code == 0
    rows = out.splitlines()
    assert rows[0].split() == ["path", "label", "probability"]
    assert len(rows) == 6
    assert all(0.1 <= float(row.split()[-1]) <= 1 for row in rows[1:])
    run = zoo.load_run(exported[0].parent)
    assert [row.split()[-2] for row in rows[1:]] == list(run.predict(paths).label)
    code, out, _ = command("predict", exported[0], *paths, "--csv", tmp_path / "found.csv")
    assert code == 0
    assert len((tmp_path / "found.csv").read_text().splitlines()) == 6


def test_predict_names_an_unreadable_picture_and_answers_for_the_others(exported, command, tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    code, out, _ = command("predict", exported[0], tmp_path / "bad.png", tmp_path / "black.png")
    assert code == 0
    assert "no picture format begins like this" in out
    assert len(out.splitlines()) == 3


def test_models_lists_the_zoo_and_filters_it(command):
    code, out, _ = command("models")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert all(name in lines for name in zoo.list_models())
    assert "25.6 M" in lines["resnet50"] and "4.1 G" in lines["resnet50"] and "He et al. 2015" in lines["resnet50"]
    assert lines["resnet50"].endswith("timm/resnet50.a1_in1k (81.2 % at 288) and 15 more")
    assert lines["mobilenet_v2"].endswith("keras/mobilenet_v2 (71.3 %)")
    code, out, _ = command("models", "resnet?0")
    assert [line.split()[0] for line in out.splitlines() if line[0] != " "] == ["model", "resnet20", "resnet50"]
    assert "timm/resnet50.tv_in1k (76.1 %)" in out


def test_models_says_all_about_one(command):
    code, out, _ = command("models", "resnet50")
    assert code == 0
    assert out.strip() == str(zoo.info("resnet50"))


def one_line(err):
    return len(err.strip().splitlines()) == 1 and err.startswith("zoo: ") and "Traceback" not in err


@pytest.fixture
def empty(tmp_path):
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "{tmp}/nowhere"], "There is no folder"),
        (["train", "{tmp}/empty"], "No pictures were found"),
        (["train", "{tmp}/photos", "--model", "resnet2"], "No model is called 'resnet2'. Did you mean"),
        (["train", "{tmp}/photos", "--model", "resnet18", "--image-size", "16"], "at least 32x32 pixels"),
        (["train", "{tmp}/photos", "--freeze", "most"], "`freeze` must be one of"),
        (["train", "{tmp}/photos", "--epochs", "0"], "`epochs` must be"),
        (["train", "{tmp}/photos", "--model", "convnet", "--out", "{tmp}/file/run"], "cannot be made"),
        (["train", "{tmp}/photos", "--model", "convnet", "--out", "{tmp}/photos"], "is no run"),
        (["train", "{tmp}/photos", "--model", "convnet", "--weights", "{tmp}/none.weights.h5"], "none.weights.h5"),
        (["train", "{tmp}/photos", "--model", "convnet", "--weights", "imagenet"], "no weights called 'imagenet'"),
        (["train", "{tmp}/list.csv"], "no column 'label'"),
        (["models", "vit*"], "No model is called like"),
        (["models", "resnet51"], "No model is called 'resnet51'. Did you mean"),
        (["evaluate", "{tmp}/empty"], "holds no run"),
        (["export", "{tmp}/nowhere"], "holds no run"),
        (["predict", "{tmp}/empty", "{tmp}/file"], "is no export"),
        (["train", "{tmp}/photos", "--time-limit", "-5"], "`time_limit` must be"),
        (["train", "{tmp}/photos", "--model", "mobilenet_v2", "--weights", "imagnet"], "Did you mean 'imagenet'?"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_2(command, tmp_path, photos, empty, words, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "list.csv").write_text("path,kind\na.jpg,ant\n")
    before = sorted(tmp_path.rglob("*"))
    code, _, err = command(*[word.format(tmp=tmp_path) for word in words])
    assert code == 2
    assert message in err
    assert one_line(err), err
    assert sorted(tmp_path.rglob("*")) == before  # nothing half written, nothing overwritten


def test_an_export_into_a_folder_of_somebody_else_is_refused(command, trained, photos):
    before = sorted(photos.rglob("*"))
    code, _, err = command("export", trained[0], "--out", photos)
    assert code == 2
    assert "is no earlier export" in err
    assert one_line(err), err
    assert sorted(photos.rglob("*")) == before


def test_weights_of_another_network_name_the_layer_and_the_shapes(command, photos, trained):
    weights = trained[0] / "model.keras"
    code, _, err = command("train", photos, "--model", "resnet20", "--weights", weights, "--out", photos.parent / "run")
    assert code == 2
    assert one_line(err), err
    assert "layer 'stem_conv' needs [(3, 3, 3, 16)], the file holds [(3, 3, 3, " in err
    assert "has no place" in err
    assert not (photos.parent / "run").exists()


def test_without_network_the_missing_weight_file_is_named(photos, tmp_path):
    environment = {**os.environ, "KERAS_HOME": str(tmp_path / "empty_home"), "https_proxy": "http://127.0.0.1:9"}
    words = [
        Path(sys.executable).with_name("zoo"),
        "train",
        str(photos),
        "--model",
        "mobilenet_v2",
        "--out",
        str(tmp_path / "run"),
    ]
    found = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert found.returncode == 2
    assert one_line(found.stderr), found.stderr
    assert "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5" in found.stderr
    assert str(tmp_path / "empty_home") in found.stderr
    assert not (tmp_path / "run").exists()


def test_a_fault_of_the_program_leaves_a_log_and_no_traceback(command, monkeypatch):
    def broken(pattern=None):
        raise RuntimeError("planted")

    monkeypatch.setattr("zoo.models.catalog.list_models", broken)
    code, _, err = command("models")
    assert code == 1
    assert one_line(err)
    assert "planted" in Path(err.split()[-1].rstrip(".")).read_text()


def test_the_public_face_imports_nothing_heavy():
    code = f"import sys, zoo; zoo.list_models(); zoo.info('resnet20'); print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("word", ["models", "--help"])
def test_listing_models_and_help_load_nothing_heavy(word):
    code = (
        f"import atexit, sys; sys.argv = ['zoo', {word!r}]\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\n"
        "from zoo import cli; cli.main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_every_public_name_can_be_fetched_again_and_again():
    for _ in range(2):
        for name in zoo.__all__:
            assert callable(getattr(zoo, name)) or name == "plots", name
    assert callable(zoo.plots.confusion)
    assert set(zoo.__all__) <= set(dir(zoo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zoo.nothing  # noqa: B018


def test_cache_lists_sizes_and_clears(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MENAGERIE_CACHE_GB", "2.5")
    code, out, _ = command("cache")
    assert (code, out.strip()) == (0, f"0.0 KB of 2.5 GB in {tmp_path / 'menagerie' / 'features'}")
    model = zoo.create("convnet", classes=2, input_shape=(8, 8, 3))
    zoo.freeze(model, "large")
    trunk, _ = zoo.split_frozen(model)
    images = np.zeros((6, 8, 8, 3), np.uint8)
    features = zoo.cache_features(trunk, (images, np.zeros(6, int)))
    code, out, _ = command("cache")
    lines = out.splitlines()
    assert lines[0].split() == ["model", "split", "policy", "up", "to", "picture", "pictures", "views", "size", "used"]
    assert lines[1].split()[:7] == ["convnet", "arrays", "-", "head_pool", "8x8x3", "6", "1"]
    code, out, _ = command("cache", "--clear")
    assert code == 0
    assert "freed in" in out
    assert not list((tmp_path / "menagerie" / "features").glob("*/view*"))
    assert features.read([0])[0].shape == (1, 128)  # who has opened them goes on


def test_a_limit_that_is_no_number_is_one_sentence(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MENAGERIE_CACHE_GB", "much")
    code, _, err = command("cache")
    assert code == 2
    assert err.strip() == (
        "zoo: The environment variable MENAGERIE_CACHE_GB must be a number of gigabytes, 0 or more. Received: 'much'"
    )


def test_train_takes_phases_views_and_a_head(command, trained, tmp_path):
    words = ["train", "digits", "--model", "convnet", "--image-size", "8", "--epochs", "2", "--batch-size", "128"]
    more = ["--freeze", "large,small", "--head", "hidden", "--augment", "light", "--views", "2"]
    out = tmp_path / "run"
    code, text, err = command(*words, *more, "--weights", trained[0] / "model.keras", "--no-cache", "--out", out)
    assert code == 0, err
    recipe = json.loads((out / "recipe.json").read_text())
    assert (recipe["freeze"], recipe["head"], recipe["augment"], recipe["views"]) == (
        ["large", "small"],
        "hidden",
        "light",
        2,
    )
    assert "cache_features=False" in text
    code, _, err = command(*words, "--freeze", "small,large")
    assert code == 2
    assert "`freeze` must be one of" in err
