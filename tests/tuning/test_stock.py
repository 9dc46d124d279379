import keras
import keras_tuner
import numpy as np
import pytest
from keras_tuner.src.engine.tuner_utils import SaveBestEpoch

import zoo
from tuning.stock import as_keras_tuner

# KerasTuner asks threading for names in ways that Python is about to drop
pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName).*deprecated:DeprecationWarning")
SMALL = {"epochs": 2, "batch_size": 16, "variant": {"filters": (4, 8)}}
ACCURACY = keras_tuner.Objective("val_accuracy", "max")


def rates(hp):
    return {"learning_rate": hp.Float("learning_rate", 1e-3, 1e-1, sampling="log", default=1e-2)}


def branching(hp):
    fields = {"optimizer": hp.Choice("optimizer", ["adam", "momentum"])}
    if fields["optimizer"] == "momentum":
        with hp.conditional_scope("optimizer", ["momentum"]):
            fields["momentum"] = hp.Choice("momentum", [0.5, 0.9])
    return fields


@pytest.fixture
def data(digit_pictures):
    images, labels = digit_pictures
    return zoo.load_data((images[:120], labels[:120]), image_size=8)


def at(values):
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    return hp


def tried(kind, model, tmp_path, **settings):
    """A tuner of KerasTuner's that has searched."""
    tuner = kind(model, objective=ACCURACY, seed=1, directory=tmp_path, project_name="tuned", **settings)
    tuner.search(verbose=0)
    return tuner


def score_again(tuner, data):
    return zoo.evaluate(tuner.get_best_models()[0], data.dev).accuracy


def test_build_gives_the_network_of_the_hyperparameters_compiled(data):
    network = as_keras_tuner(rates, data, "convnet", **SMALL).build(at({"learning_rate": 0.02}))
    dev = data.dev.pixels(), keras.utils.to_categorical(data.dev.labels)

    assert network.name == "convnet"
    assert network.output_shape == (None, 3) and network.get_layer("head_dense").kernel.shape == (8, 3)
    assert float(network.optimizer.learning_rate) == pytest.approx(0.02)
    assert len(network.evaluate(*dev, verbose=0)) == 2


def test_build_tells_the_tuner_of_every_hyperparameter_and_of_its_condition(data):
    hp = at({"optimizer": "momentum", "momentum": 0.5})
    network = as_keras_tuner(branching, data, "convnet", **SMALL).build(hp)

    assert [item.name for item in hp.space] == ["optimizer", "momentum"]
    assert [parent.name for parent in hp.space[1].conditions] == ["optimizer"]
    assert network.optimizer.momentum == 0.5


def test_every_build_begins_with_the_same_weights(data):
    model = as_keras_tuner(rates, data, "convnet", **SMALL)
    first, second = (model.build(at({"learning_rate": rate})).get_weights() for rate in (0.1, 0.01))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("arguments, named", [({"x": 1}, "x"), ({"validation_split": 0.1}, "validation_split")])
def test_what_search_of_a_tuner_may_not_be_given_ends_the_search(data, arguments, named):
    model = as_keras_tuner(rates, data, "convnet", **SMALL)
    hp = at({"learning_rate": 0.02})
    with pytest.raises(keras_tuner.errors.FatalTypeError, match=f"Received: {named}"):
        model.fit(hp, model.build(hp), **arguments)


def test_an_optimizer_of_the_tuner_is_refused_where_the_space_decides(data, tmp_path):
    model = as_keras_tuner(rates, data, "convnet", **SMALL)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="would be ignored"):
        tried(keras_tuner.RandomSearch, model, tmp_path, max_trials=1, optimizer="sgd")


def test_what_cannot_be_searched_is_refused_at_once(data, digit_pictures):
    with pytest.raises(TypeError, match="must come from zoo.load_data"):
        as_keras_tuner("head", digit_pictures)
    with pytest.raises(ValueError, match="judged on a dev set"):
        as_keras_tuner("head", zoo.load_data(digit_pictures, split=(1.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match="have no labels, so nothing can be learned"):
        as_keras_tuner("head", zoo.load_data(digit_pictures[0], labels=False))
    with pytest.raises(ValueError, match="`learning_rate` is set for all trials, and space 'rates' sets it"):
        as_keras_tuner(rates, data, "convnet", learning_rate=0.1)
    with pytest.raises(TypeError, match="Did you mean `epochs`"):
        as_keras_tuner(rates, data, "convnet", epoch=3)
    with pytest.raises(ValueError, match="No space is called 'heads'"):
        as_keras_tuner("heads", data)


@pytest.mark.slow
@pytest.mark.long
def test_a_trial_trains_as_fine_tune_does_and_its_model_gives_its_score(data, tmp_path):
    def space(hp):
        return {**rates(hp), "l2": hp.Choice("l2", [1e-3, 1e-2]), "dropout": hp.Choice("dropout", [0.2, 0.5])}

    tuner = tried(keras_tuner.RandomSearch, as_keras_tuner(space, data, "convnet", **SMALL), tmp_path, max_trials=2)
    first, second = tuner.oracle.get_best_trials(2)
    fields = space(first.hyperparameters)
    run = zoo.fine_tune("convnet", data, directory=tmp_path / "run", **SMALL, **fields)
    best = int(np.argmax(run.history["val_accuracy"]))

    assert first.hyperparameters.values != second.hyperparameters.values
    assert first.score == run.history["val_accuracy"][best]
    for name in ("loss", "val_loss", "val_cross_entropy"):
        assert first.metrics.get_best_value(name) == run.history[name][best]
    assert score_again(tuner, data) == pytest.approx(first.score, abs=1e-6)


@pytest.mark.slow
def test_the_tuner_keeps_the_whole_of_a_network_whose_frozen_part_is_computed_once(data, tmp_path, capsys):
    own = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), filters=(4, 8))
    before = own.get_weights()
    model = as_keras_tuner(rates, data, own, epochs=3, batch_size=8, freeze="large")
    hp = at({"learning_rate": 0.05})
    network = model.build(hp)
    kept = tmp_path / "kept.weights.h5"
    saver = SaveBestEpoch(ACCURACY, str(kept))
    history = model.fit(hp, network, callbacks=[saver]).history

    assert "is computed once" in capsys.readouterr().out
    again = model.build(hp)
    again.load_weights(kept)
    dev = data.dev.pixels(), keras.utils.to_categorical(data.dev.labels)
    assert again.evaluate(*dev, verbose=0)[1] == pytest.approx(max(history["val_accuracy"]), abs=1e-6)
    for one, other in zip(before, own.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_callbacks_of_the_user_see_the_network_and_may_stop_it(data):
    class Watcher(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(self.model)
            self.model.stop_training = True

    seen = []
    own = zoo.create("convnet", classes=3, input_shape=(8, 8, 3), filters=(4, 8))
    model = as_keras_tuner(rates, data, own, epochs=3, freeze="large")
    hp = at({"learning_rate": 0.05})
    network = model.build(hp)
    history = model.fit(hp, network, callbacks=[Watcher()], verbose=0).history

    assert seen == [network]
    assert len(history["loss"]) == 1


@pytest.mark.slow
@pytest.mark.long
def test_hyperband_goes_on_with_the_weights_of_an_earlier_trial(data, tmp_path):
    model = as_keras_tuner(rates, data, "convnet", **{**SMALL, "epochs": 50})
    tuner = tried(keras_tuner.Hyperband, model, tmp_path, max_epochs=2, factor=2)
    trials = tuner.oracle.trials
    (rung,) = (trial for trial in trials.values() if "tuner/trial_id" in trial.hyperparameters.values)
    earlier = trials[rung.hyperparameters.values["tuner/trial_id"]]

    assert rung.hyperparameters.values["tuner/epochs"] == 2
    assert rung.metrics.get_best_value("loss") < earlier.metrics.get_best_value("loss")
    assert score_again(tuner, data) == pytest.approx(tuner.oracle.get_best_trials(1)[0].score, abs=1e-6)
    # the same epoch again, from the weights of the earlier trial
    again = model.build(rung.hyperparameters)
    again.load_weights(tuner._get_checkpoint_fname(earlier.trial_id))
    history = model.fit(rung.hyperparameters, again, epochs=2, initial_epoch=1, verbose=0).history
    assert len(history["loss"]) == 1
    assert history["loss"][0] == rung.metrics.get_best_value("loss")
