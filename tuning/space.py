"""Space: a space taken apart, so that all its hyperparameters are known before the first trial."""

import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from functools import partial
from typing import Any

import keras
from keras_tuner import HyperParameters
from keras_tuner.engine import hyperparameters as kinds

from tuning import spaces
from zoo.models.catalog import CATALOG, info, near_miss
from zoo.training.recipe import Recipe

READY = {"head": spaces.head, "transfer": spaces.transfer, "scratch": spaces.scratch}
FIELDS = tuple(item.name for item in fields_of(Recipe) if item.name != "reasons")
RESERVED = "tuner/"  # Hyperband keeps notes of its own under such names
TRIED = 10  # values of a range, both ends among them
DRAWN = 100  # points of the whole space

Entry = dict[str, Any]


class Space:
    """All hyperparameters of a space, and the fields of a recipe that their values mean.

    To find them, the function is called once for each value of a choice and ten of a range, and at a hundred points
    drawn from all of it: conditional hyperparameters come to light whether they stand under `hp.conditional_scope` or
    under a plain `if`. Only the former are known beforehand to be inactive elsewhere; the latter are proposed for every
    trial, and found to be `idle` where the function does not ask for them. What shows up still later is refused by
    `fields`, for it would never be searched.

    Args:
        space: "head", "transfer", "scratch", or a function from KerasTuner's `hp` to a dict of fields of `zoo.Recipe`,
            and "model" where `model` is "auto".
        model: Name of a network, "auto", or a Keras model.
        usual: Defaults of the ready spaces that depend on the data.

    Attributes:
        name: That of the space, or of the function.
        ready: Whether it is one of the ready ones, whose defaults are the known-good recipe.
        hyperparameters: KerasTuner's container of all of them, at their defaults.
        defaults: Name to value of those that are active where all have their defaults: the first trial's.

    Raises:
        TypeError: If the space is of another kind, or the function returns no dict.
        ValueError: If no ready space has that name, there is nothing to tune, or the function returns a field that does
            not exist, is out of range or is settled already; what it raises itself passes through.

    Example:
        >>> space = Space(lambda hp: {"epochs": hp.Int("length", 1, 5)}, "resnet20")
        >>> space.defaults, space.fields({"length": 3})
        ({'length': 1}, {'epochs': 3})
    """

    def __init__(
        self,
        space: str | Callable[[Any], Mapping[str, Any]],
        model: str | keras.Model,
        usual: Mapping[str, Any] = spaces.USUAL,
    ):
        self._free = model == "auto"  # whether the space may name the network
        self.name, self._function = _function(space, model, usual)
        self.ready = not callable(space)
        self.hyperparameters = self._explored()
        self.defaults: dict[str, Any] = dict(self.hyperparameters.values)
        if all(len(set(_samples(item))) == 1 for item in self.hyperparameters.space):
            raise ValueError(
                f"Space {self.name!r} has nothing to tune: it needs a hyperparameter with at least two values. "
                f"Received: {', '.join(map(_text, self.describe())) or 'none'}"
            )

    def fields(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a recipe that some values mean, as plain values; "model" may be among them.

        Args:
            values: Name to value of the active hyperparameters.

        Raises:
            TypeError, ValueError: If a value is missing or belongs to no hyperparameter, or as the constructor.
        """
        known = {item.name: item for item in self.hyperparameters.space}
        for name in values:
            if name not in known:
                raise ValueError(
                    f"Space {self.name!r} has no hyperparameter {name!r}. {near_miss(name, known)} "
                    f"It has {', '.join(known)}.".replace("  ", " ")
                )
        declared, fields = self._called({name: _fitting(known[name], value) for name, value in values.items()})
        for name in declared.values:
            if name not in known:
                raise ValueError(
                    f"Space {self.name!r} has a hyperparameter {name!r} at {_shown(values)} that did not show up when "
                    "the space was taken apart, so it would never be searched. Declare it at all values, under "
                    "`hp.conditional_scope` where it applies to some only."
                )
            if name not in values:
                raise ValueError(f"`values` lacks the hyperparameter {name!r}. Received: {_shown(values)}")
        return fields

    def idle(self, values: Mapping[str, Any]) -> list[str]:
        """Names of those among some values that the function does not ask for: they stand under an `if` in vain."""
        declared, _ = self._called(values)
        asked = {item.name for item in declared.space}
        return [name for name in values if name not in asked]

    def of(self, hp: HyperParameters) -> dict[str, Any]:
        """The fields that the function gives for a container of hyperparameters, which another tuner may own.

        Raises:
            TypeError, ValueError: As the constructor.
        """
        try:
            return self._checked(self._function(hp))
        except Exception as error:
            error.add_note(f"Raised by space {self.name!r} at {_shown(hp.values)}.")
            raise

    def describe(self) -> list[Entry]:
        """A plain dict for each hyperparameter: name, kind, low, high, step, sampling, values, default, conditions."""
        return [
            {
                "name": item.name,
                "kind": type(item).__name__.lower(),
                "low": getattr(item, "min_value", None),
                "high": getattr(item, "max_value", None),
                "step": getattr(item, "step", None),
                "sampling": getattr(item, "sampling", None),
                "values": None if _is_range(item) else list(item.values),
                "default": item.default,
                "conditions": [{"name": parent.name, "values": list(parent.values)} for parent in item.conditions],
            }
            for item in self.hyperparameters.space
        ]

    def _explored(self) -> HyperParameters:
        """Every hyperparameter, found by calling the function again and again."""
        found = HyperParameters()
        waiting: list[dict[str, Any]] = [{}]
        points = random.Random(0)
        drawn = 0
        while waiting or found.space and drawn < DRAWN:
            if waiting:
                wanted = waiting.pop(0)
            else:
                wanted = {item.name: _at(item, points.random()) for item in found.space}
                drawn += 1
            declared, _ = self._called(_active(found, wanted))
            for item in declared.space:
                if self._is_new(item, found):
                    found.merge([item])
                    parents = {parent.name: parent.values[0] for parent in item.conditions}
                    waiting += [{**declared.values, **parents, item.name: value} for value in _samples(item)]
        return found

    def _is_new(self, item, found: HyperParameters) -> bool:
        """Whether a hyperparameter was not known before.

        Raises:
            ValueError: If its name is taken.
        """
        if item.name.startswith(RESERVED):
            raise ValueError(
                f"Names that begin with {RESERVED!r} are Hyperband's own. Received: {item.name!r} in space "
                f"{self.name!r}"
            )
        there = next((other for other in found.space if other.name == item.name), None)
        if there is not None and there.get_config() != item.get_config():
            raise ValueError(
                f"Space {self.name!r} has two hyperparameters called {item.name!r}, with other ranges, defaults or "
                "conditions; give each a name of its own."
            )
        return there is None

    def _called(self, values: Mapping[str, Any]) -> tuple[HyperParameters, dict[str, Any]]:
        """What the function declares and returns where hyperparameters have these values."""
        hp = HyperParameters()
        hp.values = dict(values)
        return hp, self.of(hp)

    def _checked(self, fields: Any) -> dict[str, Any]:
        """What the function returned, plain, if it is fields of a recipe."""
        if not isinstance(fields, Mapping):
            raise TypeError(
                f"Space {self.name!r} must return a dict of fields of zoo.Recipe. Received: {type(fields).__name__}"
            )
        for name in fields:
            if name not in FIELDS:
                raise ValueError(
                    f"Space {self.name!r} returns {name!r}, which is no field of a recipe. {near_miss(name, FIELDS)} "
                    "What a network itself takes belongs into `variant`.".replace("  ", " ")
                )
        if "model" in fields:
            if not self._free:
                raise ValueError(
                    f"Space {self.name!r} names a model, and the call does, too. Leave it out of the space, or pass "
                    f'model="auto". Received: {fields["model"]!r} in the space'
                )
            if fields["model"] != "auto":
                info(fields["model"])  # refuses an unknown name
        found = {name: self._plain(name, value) for name, value in fields.items()}
        Recipe().with_fields(found)  # refuses what is out of range
        return found

    def _plain(self, name: str, value: Any) -> Any:
        """A value as JSON gives it back."""
        try:
            return plain(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"Space {self.name!r} must return numbers, text, None, lists and dicts, for each trial may run "
                f"elsewhere. Received: {name}={value!r}"
            ) from None


def plain(value: Any) -> Any:
    """A value as JSON gives it back: tuples as lists, numbers of numpy as numbers, paths as text.

    Raises:
        TypeError, ValueError: If JSON has no such value.
    """
    return json.loads(json.dumps(value, default=_unpacked, allow_nan=False))


def differences(earlier: Sequence[Entry], now: Sequence[Entry]) -> list[str]:
    """Where two spaces differ, in sentences.

    Args:
        earlier: What `Space.describe` said of the one "there", perhaps read from a file.
        now: Likewise of the one "here".
    """
    there, here = ({entry["name"]: entry for entry in entries} for entries in (earlier, now))
    found = []
    for name in {**there, **here}:
        if name not in here or name not in there:
            found.append(f"{name} is only {'there' if name in there else 'here'}")
            continue
        for about in (_range, _condition, _default):
            before, after = about(there[name]), about(here[name])
            if before != after:
                found.append(f"{name} {before} there and {after.removeprefix('is ')} here")
    if not found and list(there) != list(here):
        found.append(f"the hyperparameters come as {', '.join(there)} there and as {', '.join(here)} here")
    return found


def _function(space, model, usual) -> tuple[str, Callable[[Any], Any]]:
    """The space's name and the function."""
    if not isinstance(model, (str, keras.Model)):
        raise TypeError(f"`model` must be a name, auto or a Keras model. Received: {type(model).__name__}")
    if isinstance(model, str) and model != "auto":
        info(model)  # refuses an unknown name
    if callable(space):
        return getattr(space, "__name__", type(space).__name__), space
    if not isinstance(space, str):
        raise TypeError(
            f"`space` must be one of {', '.join(READY)}, or a function of hp. Received: {type(space).__name__}"
        )
    if space not in READY:
        raise ValueError(
            f"No space is called {space!r}. {near_miss(space, READY)} There are {', '.join(READY)}.".replace("  ", " ")
        )
    if space != "scratch" and isinstance(model, str) and model != "auto" and not CATALOG[model].weights:
        raise ValueError(
            f"Space {space!r} builds on learned weights, and {model!r} has no public ones. Take space='scratch', or "
            "hand over a Keras model that has learned."
        )
    return space, partial(READY[space], model=model, usual=usual)


def _active(found: HyperParameters, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all that is active: those wanted, else the defaults."""
    hp = HyperParameters()
    for item in found.space:  # parents come before what depends on them
        if hp.is_active(item):
            hp.values[item.name] = wanted.get(item.name, item.default)
    return hp.values


def _is_range(item) -> bool:
    return isinstance(item, (kinds.Float, kinds.Int))


def _samples(item) -> list:
    """Values to try: all of a choice, some of a range."""
    if _is_range(item):
        return [_at(item, number / (TRIED - 1)) for number in range(TRIED)]
    return list(item.values)


def _at(item, share: float):
    """The value at a share of the range, 0 to 1, both included."""
    value = item.prob_to_value(share)
    return _fitting(item, min(max(value, item.min_value), item.max_value) if _is_range(item) else value)


def _fitting(item, value):
    """A value as it was declared: KerasTuner's grid has whole numbers as 16.0, its log ranges pass their end by 1."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(item, kinds.Int):
        value = round(value)
        return item.max_value if value == item.max_value + 1 else value
    return value


def _unpacked(value):
    """What JSON does not know: numbers and arrays of numpy, paths."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items()) or "no values"


def _text(entry: Entry) -> str:
    return f"{entry['name']} {_range(entry)}"


def _range(entry: Entry) -> str:
    """What values there are, as a phrase."""
    if entry["kind"] == "fixed":
        return f"is always {entry['default']!r}"
    if entry["kind"] in ("choice", "boolean"):
        return f"is one of {', '.join(map(repr, entry['values']))}"
    by = "factors" if entry["sampling"] == "log" else "steps"
    step = "" if entry["step"] in (None, 1) else f" in {by} of {entry['step']!r}"
    whole = "whole numbers from " if entry["kind"] == "int" else ""
    scale = "" if entry["sampling"] == "linear" else f" ({entry['sampling'].replace('_', ' ')})"
    return f"is {whole}{entry['low']!r} to {entry['high']!r}{step}{scale}"


def _condition(entry: Entry) -> str:
    where = [f"{parent['name']} is {' or '.join(map(str, parent['values']))}" for parent in entry["conditions"]]
    return f"applies where {' and '.join(where)}" if where else "applies everywhere"


def _default(entry: Entry) -> str:
    return f"is {entry['default']!r} by default"
