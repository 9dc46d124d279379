"""as_keras_tuner: a space of ours for a tuner of KerasTuner's own."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import keras
import keras_tuner
from keras_tuner import errors

import zoo
from tuning.space import Space
from zoo.data.collection import Data
from zoo.training import fitting, preparing
from zoo.training.fewer import copied
from zoo.training.phases import phases
from zoo.training.recipe import Recipe


def as_keras_tuner(
    space: str | Callable[[Any], Mapping[str, Any]],
    data: Data,
    model: str | keras.Model = "auto",
    **fields,
) -> keras_tuner.HyperModel:
    """A space with its trainings, for those who bring a tuner of their own; `tuning.search` needs none.

    The tuner proposes, and each trial trains as `zoo.fine_tune` does with what it proposed: phases, freezing, early
    stopping, and the outputs of a frozen part computed once for all trials. The tuner is told of every epoch and keeps
    the weights of the one with the best objective, so that is the score. `search` takes no data; of the arguments of
    `fit` it may be given `epochs`, `callbacks` and `verbose`. Callbacks that are not of our `callbacks` have the
    frozen part computed in every step, since they must see the whole network.

    KerasTuner's Hyperband goes on with the weights of an earlier trial, but not with its optimizer: what it adds is a
    training of its own of so many epochs, with a schedule of its own. All trainings have one seed, so
    `executions_per_trial` says nothing new.

    Args:
        space: As in `tuning.search`.
        data: From `zoo.load_data`, with a dev set.
        model: As in `tuning.search`. A Keras model stays as it is; each trial begins with a copy.
        **fields: Fields of `zoo.Recipe` for all trials, such as epochs=10.

    Raises:
        TypeError: If `data` is no Data, or a field is unknown.
        ValueError: If there are no labels, no dev set, or `tuning.search` would refuse space, model or field.

    Example:
        tuner = keras_tuner.RandomSearch(
            tuning.as_keras_tuner("head", data),
            objective=keras_tuner.Objective("val_accuracy", "max"),
            max_trials=5,
            directory="tuned",
        )
        tuner.search()
        best = tuner.get_best_models()[0]
    """
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    preparing.check_labelled(data)
    if not len(data.dev):
        raise ValueError(
            "Trials are judged on a dev set, and this data has none. Load it with split=(0.7, 0.15, 0.15)."
        )
    Recipe().with_fields(fields)
    taken = Space(space, model)
    if twice := sorted(set(taken.fields(taken.defaults)) & set(fields)):
        raise ValueError(
            f"`{twice[0]}` is set for all trials, and space {taken.name!r} sets it, too. Leave one out; "
            "`tuning.spaces` holds pieces for a space without it."
        )
    return _Trainings(taken, data, model, fields)


class _Trainings(keras_tuner.HyperModel):
    """Builds the network of a trial, and trains it."""

    def __init__(self, space: Space, data: Data, model: str | keras.Model, fields: Mapping[str, Any]):
        super().__init__(name=space.name)
        self._space = space
        self._data = data
        self._model = model
        self._fields = fields
        self._optimizers: WeakSet = WeakSet()  # those of our networks, to tell when a tuner puts in its own

    def build(self, hp) -> keras.Model:
        """The network of a trial before it is trained, compiled."""
        recipe = self._recipe(hp)
        keras.utils.set_random_seed(int(recipe.seed))
        if isinstance(self._model, keras.Model):
            network = copied(self._model)
        else:
            network = preparing.created(recipe, preparing.configured(self._data, recipe))
        self._optimizers.add(_compiled(network, recipe).optimizer)
        return network

    def fit(self, hp, model, *args, callbacks=(), epochs=None, initial_epoch=0, verbose=None, **others):
        """Trains a network that `build` gave.

        Args:
            hp: The hyperparameters.
            model: The network.
            *args: Must be empty.
            callbacks: Those of the tuner and of its user.
            epochs: In place of those of the recipe.
            initial_epoch: How many of them are behind already.
            verbose: 0 prints nothing.
            **others: Must be empty.

        Returns:
            A `keras.callbacks.History` over all phases.
        """
        if args or others:
            given = ", ".join(others) or "data"
            raise errors.FatalTypeError(
                "`search` of a tuner takes epochs, callbacks and verbose here: pictures were given to "
                f"`as_keras_tuner`, and all else is the space's. Received: {given}"
            )
        if model.optimizer not in self._optimizers:
            raise errors.FatalValueError(
                "`optimizer`, `loss` and `metrics` of a tuner would be ignored, since the space decides. Leave them "
                "out."
            )
        recipe = self._recipe(hp, {} if epochs is None else {"epochs": epochs - initial_epoch})
        whole = _compiled(keras.Model(model.inputs, model.outputs, name=model.name), recipe)
        theirs = [callback for callback in callbacks if _of_the_tuner(callback)]
        rest = [callback for callback in callbacks if not _of_the_tuner(callback)]
        quiet = contextlib.redirect_stdout(io.StringIO()) if verbose == 0 else contextlib.nullcontext()
        with tempfile.TemporaryDirectory() as folder, quiet:
            run = zoo.fine_tune(
                model,
                self._data,
                recipe=recipe,
                callbacks=[*rest, *(_Shown(callback, whole) for callback in theirs)],
                cache_features=not rest,
                directory=Path(folder) / "run",
            )
        history = keras.callbacks.History()
        history.history = run.history
        return history

    def _recipe(self, hp, more: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe of a trial without an "auto"; what belongs to the building of a network is given as built."""
        # called with the tuner's own `hp`, which so learns of every hyperparameter, and may have another range for it
        fields = {**self._fields, **self._space.of(hp), **(more or {})}
        own = isinstance(self._model, keras.Model)
        model = self._model if own else fields.pop("model", self._model)
        recipe = preparing.resolved(model, self._data, Recipe().with_fields(fields))
        return replace(recipe, reasons=dict.fromkeys(recipe.reasons, f"of space {self._space.name!r}"))


class _Shown(keras.callbacks.Callback):
    """A callback of a tuner, which is shown the whole network where the tail of it is fitted.

    Args:
        callback: The tuner's.
        network: What it sees: the whole with layers of its own model, so that there are the same weights.
    """

    def __init__(self, callback: keras.callbacks.Callback, network: keras.Model):
        super().__init__()
        self._callback = callback
        self._network = network

    def set_model(self, model):
        super().set_model(model)
        self._callback.set_model(self._network)

    def on_epoch_begin(self, epoch, logs=None):
        self._callback.on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self._callback.on_epoch_end(epoch, logs)
        self.model.stop_training |= self._network.stop_training

    def on_batch_begin(self, batch, logs=None):
        self._callback.on_batch_begin(batch, logs)

    def on_batch_end(self, batch, logs=None):
        self._callback.on_batch_end(batch, logs)
        self.model.stop_training |= self._network.stop_training


def _of_the_tuner(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback is one that KerasTuner adds itself."""
    return type(callback).__module__.split(".")[0] == "keras_tuner"


def _compiled(model: keras.Model, recipe: Recipe) -> keras.Model:
    """The same model as it is at the start of a training, for which `fine_tune` compiles it anew."""
    fitting.compile_phase(model, recipe, phases(recipe)[0])
    return model
