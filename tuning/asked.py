"""What a search is asked for: checked, compared with what its folder was begun for, and turned into recipes."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import keras

from tuning import spaces
from tuning.loop import now
from tuning.oracles import ALGORITHMS
from tuning.result import COLUMNS, VERSION
from tuning.space import Space, differences, plain
from zoo.data.collection import Data
from zoo.models.catalog import info
from zoo.training import preparing
from zoo.training.hardware import software
from zoo.training.recipe import Recipe
from zoo.training.resuming import model_fingerprint

METRICS = {"accuracy": "max", "loss": "min"}  # of fine_tune; `val_` before them is the dev set
PICTURE = ("image_size", "channels", "crop", "interpolation", "background")  # what decides how one is read
UNSPEAKABLE = {
    "data": "the pictures, their labels or splits are others",
    "model_fingerprint": "the model that was handed over is another",
}
FIRST = {"head": spaces.BACKBONES[0], "transfer": spaces.BACKBONES[0], "scratch": spaces.BUILDERS[0]}  # of "auto"


class Asked:
    """What was asked for, checked: what decides the trials, whoever runs them and wherever."""

    def __init__(self, model, data: Data, space: Space, algorithm, objective, direction, pruning, seed, fields):
        self.model = model
        self.own = isinstance(model, keras.Model)
        self.space = space
        self.algorithm = algorithm
        self.objective = objective
        self.direction = direction
        self.pruning = pruning
        self.seed = seed
        self.fields = fields
        recipe = self.recipe(space.defaults)
        self.epochs = int(preparing.resolved(recipe[0] if recipe[0] else model, data, recipe[1]).epochs)
        self._identity = {
            "space_name": space.name,
            "model": "a Keras model" if self.own else model,  # whose name Keras numbers anew in each process
            "model_fingerprint": model_fingerprint(model) if self.own else None,
            "fields": plain(fields),
            "algorithm": algorithm,
            "objective": objective,
            "direction": direction,
            "pruning": pruning,
            "seed": seed,
            "data": data.fingerprint,
            "picture": {name: plain(getattr(data, name)) for name in PICTURE},
            "epochs": self.epochs if algorithm == "hyperband" else None,
        }

    def recipe(self, values: Mapping[str, Any]) -> tuple[str | None, Recipe]:
        """The model (None for one handed over) and the recipe of a trial.

        Raises:
            ValueError: If the space sets what is also fixed for all trials.
        """
        chosen = self.space.fields(dict(values))
        if twice := sorted(set(chosen) & set(self.fields)):
            raise ValueError(
                f"{', '.join(f'`{name}`' for name in twice)} is set for all trials, and space {self.space.name!r} "
                "sets it, too. Leave one out; `tuning.spaces` holds pieces for a space without it."
            )
        model = chosen.pop("model", None if self.own else self.model)
        try:
            return model, Recipe().with_fields({"seed": self.seed, **self.fields, **chosen})
        except ValueError as error:
            sets = ", ".join(f"`{name}`" for name in chosen)
            raise ValueError(
                f"{error} Space {self.space.name!r} sets {sets}; `tuning.spaces` holds pieces for one that sets less."
            ) from None

    def made(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What a trial trains, as plain values: its model, None for one handed over, and fields of the recipe."""
        model, recipe = self.recipe(values)
        given = {name: value for name, value in recipe.to_dict().items() if name != "reasons" and value != "auto"}
        return {"model": model, "fields": plain(given)}

    def header(self) -> dict[str, Any]:
        """What is written down when a search begins."""
        return {
            "version": VERSION,
            "time": now(),
            **self._identity,
            "own_model": self.own,
            "ready": self.space.ready,
            "space": self.space.describe(),
            **machine(),
        }

    def differing(self, events: Sequence[Mapping[str, Any]]) -> list[str]:
        """What an earlier search was for, in sentences; none where it was for the same.

        Args:
            events: Of its journal.
        """
        earlier = events[0]
        found = []
        here: Any
        for name, here in self._identity.items():
            there: Any = earlier.get(name)
            if name in ("fields", "picture"):
                found += [f"{field} is {old!r} there and {new!r} here" for field, old, new in changed(there, here)]
            elif there != here:
                found.append(UNSPEAKABLE.get(name, f"{name} is {there!r} there and {here!r} here"))
        found += differences(earlier["space"], self.space.describe())
        found = list(dict.fromkeys(found))  # the epochs of Hyperband are a field, too
        return found or next((said for event in events if (said := self._made_otherwise(event))), [])

    def _made_otherwise(self, event: Mapping[str, Any]) -> list[str]:
        """What the space makes of a trial that was proposed, where that is something else by now."""
        if event["event"] != "proposed" or event["made"] is None:
            return []
        trial, there, here = event["trial"], event["made"], self.made(event["values"])
        if there["model"] != here["model"]:
            return [f"the space makes {here['model']!r} of trial {trial}, which was {there['model']!r}"]
        return [
            f"the space makes `{field}` {new!r} of trial {trial}, where it was {old!r}"
            for field, old, new in changed(there["fields"], here["fields"])
        ]


def checked(
    model, data, space, algorithm, trials, objective, direction, pruning, workers, seed, limit, fields
) -> Asked:
    """What was asked for, if it can be done.

    Raises:
        TypeError, ValueError: As `search`.
    """
    if not isinstance(data, Data):
        raise TypeError(f"`data` must come from zoo.load_data. Received: {type(data).__name__}")
    if not isinstance(model, (str, keras.Model)):
        raise TypeError(
            f'`model` must be a name of zoo.list_models(), "auto" or a Keras model. Received: {type(model).__name__}'
        )
    if isinstance(model, str) and model != "auto":
        info(model)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"`algorithm` must be one of {', '.join(ALGORITHMS)}. Received: algorithm={algorithm!r}")
    if direction not in ("max", "min"):
        raise ValueError(f'`direction` must be "max" or "min". Received: direction={direction!r}')
    if pruning not in (None, "median"):
        raise ValueError(f'`pruning` must be "median" or None. Received: pruning={pruning!r}')
    if pruning and algorithm == "hyperband":
        raise ValueError('`pruning` is what Hyperband does itself; leave it out, or take algorithm="random".')
    number = 1 if workers == "auto" else workers
    for name, value, least in (("trials", trials, 1), ("seed", seed, 0), ("workers", number, 1)):
        if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < least:
            raise ValueError(f"`{name}` must be a whole number of at least {least}. Received: {name}={value!r}")
    if limit is not None and not (isinstance(limit, (int, float)) and limit > 0):
        raise ValueError(f"`time_limit` must be a number of seconds above 0. Received: time_limit={limit!r}")
    Recipe().with_fields(fields)
    if "seed" in fields or "model" in fields:
        raise ValueError("`model` and `seed` are arguments of the search itself.")
    taken = Space(space, model, usual(space, model, data, fields))
    if clashing := [item["name"] for item in taken.describe() if item["name"] in COLUMNS]:
        raise ValueError(
            f"A hyperparameter cannot be called {clashing[0]!r}, which is a column of the table of trials. Call it "
            f"'{clashing[0]}_tried', say; the field of the recipe keeps its name."
        )
    asked = Asked(model, data, taken, algorithm, objective, direction, pruning, int(seed), fields)
    _check_objective(objective, data, asked)
    if isinstance(model, keras.Model):  # what would fail in every trial
        recipe = preparing.resolved(model, data, asked.recipe(taken.defaults)[1])
        preparing.checked(model, preparing.configured(data, recipe))
    return asked


def _check_objective(objective: str, data: Data, asked: Asked) -> None:
    """Refuses a metric that no trial will have, and a direction that leads to the worst network."""
    if not isinstance(objective, str):
        raise TypeError(
            "`objective` must be the name of a metric, such as 'val_accuracy', with `direction` beside it. Received: "
            f"{type(objective).__name__}"
        )
    has_dev = bool(len(data.dev))
    there = {**METRICS, **({f"val_{name}": way for name, way in METRICS.items()} if has_dev else {})}
    if objective not in there:
        why = " There are no dev pictures to judge by." if not has_dev and str(objective).startswith("val_") else ""
        raise ValueError(f"`objective` must be one of {', '.join(there)}.{why} Received: objective={objective!r}")
    if asked.direction != there[objective]:
        raise ValueError(
            f"The best {objective} is the {'highest' if there[objective] == 'max' else 'lowest'}: say "
            f"direction={there[objective]!r} (--direction {there[objective]}). Received: direction={asked.direction!r}"
        )


def usual(space: Any, model: str | keras.Model, data: Data, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What `fine_tune` would choose for this data, of the fields that the ready spaces tune and that depend on it."""
    name = space if isinstance(space, str) else ""
    base = {"freeze": "large"} if name == "head" else {}
    if name == "scratch" and isinstance(model, str):
        base["weights"] = "none"
    chosen = FIRST.get(name, "auto") if model == "auto" else model
    recipe = preparing.resolved(chosen, data, Recipe().with_fields({**base, **fields}))
    return {field: getattr(recipe, field) for field in spaces.USUAL}


def changed(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields of a recipe that are not the same in two places: name, value there and here; "auto" where not given."""
    pairs = ((name, there.get(name, "auto"), here.get(name, "auto")) for name in {**there, **here})
    return [(name, old, new) for name, old, new in pairs if old != new]


def machine() -> dict[str, Any]:
    """Versions and machine, as stored with a search."""
    return software("keras-tuner", "scikit-learn")
