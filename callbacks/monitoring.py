"""What every callback that watches a metric asks: which way is better, what is the value, is it a new best."""

import math

import keras
import numpy as np

RISING = ("accuracy", "acc", "auc", "precision", "recall", "f1", "iou", "r2", "similarity")
FALLING = ("loss", "error", "entropy", "crossentropy", "divergence", "mse", "mae", "mape", "msle", "rmse")
_WAYS = {"up": "max", "down": "min"}  # Keras' words


def direction_of(monitor, given=None, model=None) -> str:
    """Whether a metric is meant to rise or to fall: as given, as the metric itself says, or by its name.

    Args:
        monitor: Name of the metric in the logs of `fit`.
        given: "max", "min", or None to find it out.
        model: A compiled model; its metrics, which may bear any name, are asked first where they know.

    Returns:
        "max" or "min".

    Raises:
        TypeError: If `monitor` is no text.
        ValueError: If `given` is another word, or nothing tells the direction.

    Example:
        >>> direction_of("val_accuracy"), direction_of("mean_squared_error"), direction_of("val_wobble", "max")
        ('max', 'min', 'max')
    """
    if not isinstance(monitor, str):
        raise TypeError(f"`monitor` must be the name of a metric, such as 'val_loss'. Received: monitor={monitor!r}")
    if given is not None:
        return checked_direction(given)
    found = _own_direction(monitor, model) if model is not None else None
    if found is not None:
        return found
    words = monitor.lower().split("_")
    if any(word in FALLING for word in words):
        return "min"
    if any(word in RISING for word in words):
        return "max"
    raise ValueError(
        f'The name \'{monitor}\' does not tell whether more is better. Say direction="max" or direction="min".'
    )


def checked_direction(given) -> str:
    """The word itself, where it is one that we know."""
    if given not in ("max", "min"):
        raise ValueError(f'`direction` must be "max", "min" or None. Received: direction={given!r}')
    return given


def value_of(monitor, logs) -> float:
    """The value of a metric in the logs of an epoch.

    Raises:
        ValueError: If the logs hold no such metric, or it is not a single number.
    """
    logs = logs or {}
    if monitor not in logs:
        hint = " A name with val_ needs validation data, and validation_freq=1." if monitor.startswith("val_") else ""
        raise ValueError(f"The logs hold no metric '{monitor}'. They hold: {', '.join(sorted(logs))}.{hint}")
    value = np.asarray(keras.ops.convert_to_numpy(logs[monitor]), "float64")
    if value.size != 1:
        raise ValueError(
            f"Metric '{monitor}' must be a single number to be watched. Received: an array of shape {value.shape}"
        )
    return float(value.reshape(()))


def improves(value, best, direction, min_delta=0.0) -> bool:
    """Whether a value is better than the best one by more than `min_delta`; one that is not finite never is.

    Args:
        value: A number.
        best: A finite number, or None where there is none yet.
        direction: "max" or "min".
        min_delta: Smallest change that counts, at least 0.
    """
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    gain = value - best if direction == "max" else best - value
    return gain > min_delta


def _own_direction(monitor, model) -> str | None:
    """What the metric of that name in a compiled model says of itself, if it is there and says anything."""
    name = monitor.removeprefix("val_")
    for prefix, metric in _metrics(model):
        if name in (metric.name, f"{prefix}_{metric.name}"):
            return _WAYS.get(getattr(metric, "_direction", ""))  # Keras has no public name for it
    return None


def _metrics(model):
    """(output's name, metric) for all metrics of a compiled model; the name is None where there is one output."""
    outputs = [None, *(getattr(model, "output_names", None) or ())]
    for metric in model.metrics:
        given = getattr(metric, "_user_metrics", None)  # Keras holds those of `compile` so until its first step
        inside = [*keras.tree.flatten(given), *metric.metrics] if given is not None else [metric]
        yield from ((output, m) for m in inside if isinstance(m, keras.Metric) for output in outputs)
