"""Callbacks whose state outlives the process that fits."""

import weakref
from typing import Any

import keras


class Announced(keras.callbacks.Callback):
    """A callback that the others of ours in the same `fit` know of."""

    def set_model(self, model):
        super().set_model(model)
        if model is not None:
            _announce(self, model)

    def set_params(self, params):
        super().set_params(params)
        if self._model is not None:
            _lists[self._model].complete = True


class Stateful(Announced):
    """A callback whose state a `Checkpoint` in the same `fit` keeps and gives back.

    A subclass forgets what it knows in `on_train_begin`, as every callback does; after the `on_train_begin` of all of
    them, and before the first epoch, `Checkpoint` calls `set_state` where there is something to go on from.
    """

    def get_state(self) -> dict[str, Any]:
        """What the next process needs to know: numbers, text, None, arrays, and lists and dicts of those.

        Called on the main thread between two steps or at the end of an epoch; arrays may be handed out as they are
        where nobody writes into them afterwards.
        """
        raise NotImplementedError

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes back what `get_state` gave; tuples have become lists."""
        raise NotImplementedError


def announced(model) -> list[Announced]:
    """Our callbacks in the `fit` that runs, in their order."""
    known = (reference() for reference in _lists[model].references) if model in _lists else ()
    return [callback for callback in known if callback is not None]


def peers(model) -> list[Stateful]:
    """Those of them that have a state."""
    return [callback for callback in announced(model) if isinstance(callback, Stateful)]


def pause(model) -> None:
    """Stops a fit that is to be gone on with, as `Checkpoint` does when it is called again."""
    model.stop_training = True
    _paused.add(model)


def unpause(model) -> None:
    """Forgets an earlier `pause`."""
    _paused.discard(model)


def paused(model) -> bool:
    """Whether the fit was stopped by `pause`."""
    return model in _paused


class _List:
    """The callbacks of one fit."""

    def __init__(self):
        self.references: list[weakref.ref[Announced]] = []
        self.complete = False


_paused: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()
_lists: "weakref.WeakKeyDictionary[keras.Model, _List]" = weakref.WeakKeyDictionary()


def _announce(callback, model):
    """Notes a callback of a fit that is about to begin.

    Keras tells a callback nothing of the others. But before a fit begins it hands the model to all of them, in order,
    and then the parameters to all of them: what comes behind that belongs to a new list.
    """
    known = _lists.get(model)
    if known is None or known.complete or any(reference() is callback for reference in known.references):
        known = _lists[model] = _List()
    known.references.append(weakref.ref(callback))
