"""Orders of augmentation, normalisation, caching and labels that cannot be meant."""

import functools
from typing import Any

import keras
import numpy as np

from augment.contents import (
    AUGMENTING,
    MIXING,
    NORMALISING,
    OURS,
    first_batch,
    images_and_labels,
    is_pipeline,
    is_preprocessing,
    layers_of,
    line,
    paths,
)
from augment.mixing import Mixing
from augment.policies import Policy, settings

PLACES = {
    "RandomAffine",
    "RandomCrop",
    *(f"Random{change}" for change in ("Flip", "Rotation", "Zoom", "Translation", "Shear", "Perspective")),
}
COLOURS = {
    "ColorJitter",
    "RandomColorJitter",
    "RandomColorDegeneration",
    *(f"Random{change}" for change in ("Brightness", "Contrast", "Hue", "Saturation", "Grayscale")),
}


def lint(model=None, dataset=None) -> list[str]:
    """Says which orders of steps in a model and its training data cannot be meant.

    Use it before a long fit: none of what it finds raises an error, and all of it costs accuracy. It looks for
    augmentation before a `.cache()`, pictures that are normalised twice, augmentation behind a normalisation, labels
    that fit neither mixed pictures nor the loss, two layers that draw alike, and augmentation in model and dataset.

    Layers are found where the functions of a pipeline's mappings name them, also through functions that those call.
    What cannot be seen is taken to be right. At most one batch is drawn, where pictures are floats and the model has
    a say about their range.

    Args:
        model: A Keras model, compiled or not.
        dataset: What it is fitted on: a `tf.data.Dataset` or a `keras.utils.PyDataset` of (images, labels).

    Returns:
        One sentence for each finding, with the way out; nothing found, an empty list.

    Raises:
        TypeError: If either is something else.

    Example:

    >>> import keras
    >>> twice = [keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Rescaling(1 / 127.5, -1)]
    >>> lint(keras.Sequential(twice))[0]
    'The model normalises twice, by Rescaling and Rescaling: black and white end 0.0078 apart; take one of them out.'
    """
    if model is not None and not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
    if dataset is not None and not (is_pipeline(dataset) or isinstance(dataset, keras.utils.PyDataset)):
        raise TypeError(
            "`dataset` must be a tf.data.Dataset or a keras.utils.PyDataset; arrays hold no order to look at. "
            f"Received: {type(dataset).__name__}"
        )
    ways = paths(dataset) if is_pipeline(dataset) else []
    batch = functools.cache(lambda: first_batch(dataset))  # drawn once at most
    findings = []
    for way in ways:
        steps = _steps(way)
        findings += _cached(way) + _unmixed(way)
        channels = _channels(images_and_labels(way[-1].spec)[0])
        findings += _out_of_range([stage.chains for stage in way], channels, "dataset")
        findings += _alike(steps, "dataset")
    if model is not None:
        steps, inner = line(model), list(layers_of(model))
        channels = model.inputs[0].shape[-1] if getattr(model, "inputs", None) else None
        findings += _out_of_range([[[step]] for step in steps], channels, "model") + _alike(inner, "model")
        if dataset is not None:
            spec = getattr(dataset, "element_spec", None) or batch()
            mapped = [step for way in ways for step in _steps(way)]
            findings += _meeting(steps, mapped, channels, spec, batch) + _labels_and_loss(model, spec)
            findings += twice(mapped, inner)
    return list(dict.fromkeys(findings))


def _steps(stages):
    """What the mappings of some stages apply."""
    return [step for stage in stages for chain in stage.chains for step in chain]


def _cached(way):
    """Augmentation before a `.cache()`."""
    caches = [i for i, stage in enumerate(way) if stage.name == "CacheDataset"]
    early = [(step, stage.training) for stage in way[: max(caches, default=0)] for step in _steps([stage])]
    return [
        f"{_name(step)} augments before .cache(), so that every epoch replays the pictures of the first: "
        "put the .cache() before that mapping."
        for step, training in early
        if isinstance(step, AUGMENTING) and (training or not isinstance(step, (*OURS, Mixing)))
    ]


def _unmixed(way):
    """Mixed pictures whose labels are not."""
    findings = []
    for stage in way:
        mixing = [step for step in _steps([stage]) if isinstance(step, MIXING)]
        labels = images_and_labels(stage.spec)[1]
        if mixing and labels is not None and not (_is_float(labels) and _is_soft(labels)):
            findings.append(
                f"{_name(mixing[0])} mixes pictures, and the labels behind it are {_described(labels)}: mix both, with "
                "labels as floats (n, classes) from augment.SoftLabels(classes)."
            )
    return findings


def _out_of_range(stages, channels, where):
    """Black and white are followed through the stages: our layers behind a normalisation, and normalising twice.

    `stages` hold chains of steps; the chains of one stage come in unknown order, so none is judged by another.
    """
    findings, normalisers = [], []
    pixels: Any = _black_and_white(channels)
    for chains in stages:
        met = [pixels]
        for chain in chains:
            now = pixels
            for step in chain:
                if _normalises(step):
                    now = _applied(step, now)
                    normalisers.append(step)
                elif isinstance(step, OURS) and now is not None and not _reach_white(now):
                    findings.append(
                        f"{_name(step)} comes behind {_names(normalisers)} in the {where} and expects pixels 0..255: "
                        "put it before."
                    )
            if any(_normalises(step) for step in chain):
                met.append(now)
        if len(met) > 2:
            return findings  # which of the two comes first is unknown
        pixels = met[-1]
    apart = _apart(pixels)
    if len(normalisers) > 1 and apart is not None and apart < 0.1:
        findings.append(
            f"The {where} normalises twice, by {_names(normalisers)}: black and white end {apart:.2g} apart; "
            "take one of them out."
        )
    return findings


def _meeting(steps, mapped, channels, spec, batch):
    """Pictures that are no longer pixels, for a model that begins with a normalisation or augmentation of its own."""
    own = [step for step in steps if isinstance(step, NORMALISING)]
    ours = [step for step in steps if isinstance(step, OURS)]
    pixels = _black_and_white(channels)
    for step in own:
        pixels = _applied(step, pixels)
    apart = _apart(pixels)
    expects = bool(own) and apart is not None and 0.1 <= apart <= 100  # statistics of 0..1 would set them 500 apart
    images, _ = images_and_labels(spec)
    if not (expects or ours) or images is None or not _is_float(images) or len(images.shape) != 4:
        return []
    images, _ = images_and_labels(batch())
    if images is None or not np.size(images) or _look_like_pixels(images):
        return []
    cause = [step for step in mapped if _normalises(step)]
    seen = (
        f"{f'by {_names(cause)} ' if cause else ''}(from {images.min():.3g} to {images.max():.3g} in the first batch)"
    )
    if expects:
        return [
            f"The dataset gives normalised pictures {seen} to a model that begins with its own {_names(own)}: "
            "give it pixels 0..255."
        ]
    return [
        f"The dataset gives normalised pictures {seen} to {_names(ours)} in the model, which expects pixels 0..255: "
        "normalise behind it."
    ]


def _labels_and_loss(model, spec):
    """A loss or metric for class indices that meets rows of shares, or the other way round."""
    _, labels = images_and_labels(spec)
    if labels is None or not getattr(model, "compiled", False):
        return []
    findings = []
    metrics = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    for kind, given in (("loss", getattr(model, "loss", None)), ("metric", metrics)):
        for name in map(_plain_name, keras.tree.flatten(given)):
            if name.startswith("sparse") and _is_float(labels) and _is_soft(labels):
                findings.append(
                    f"The {kind} {name} wants class indices, and the dataset gives {_described(labels)}: use its "
                    "counterpart without 'sparse', as augment.SoftLabels(classes).compile() does."
                )
            if name.startswith("categorical") and not _is_float(labels) and not _is_soft(labels):
                findings.append(
                    f"The {kind} {name} wants floats (n, classes), and the dataset gives {_described(labels)}: "
                    "map labels through augment.SoftLabels(classes), or use its 'sparse' counterpart."
                )
    return findings


def _alike(steps, where):
    """Two layers of one class and one seed."""
    drawn, findings = {}, []
    for step in {id(step): step for step in steps if isinstance(step, OURS)}.values():
        for layer in _unfolded(step):
            before = drawn.setdefault((type(layer), layer.seed), [])
            if any(_drawn(layer) & other or not _drawn(layer) for other in before):
                findings.append(
                    f"Two {_name(layer)} layers in the {where} share the seed {layer.seed} and draw alike: "
                    "give each a seed of its own."
                )
            before.append(_drawn(layer))
    return findings


def twice(mapped, inner) -> list[str]:
    """Augmentation of one kind in the dataset and in the model; what mixes pictures is another thing.

    Args:
        mapped: The layers of the dataset's mappings, or the policy that will be there.
        inner: The layers of the model.
    """
    first, second = (
        [step for step in steps if isinstance(step, AUGMENTING) and not isinstance(step, MIXING)]
        for steps in (mapped, inner)
    )
    if not {kind for step in first for kind in _kinds(step)} & {kind for step in second for kind in _kinds(step)}:
        return []
    return [
        f"Pictures are augmented twice, by {_names(first)} in the dataset and by {_names(second)} in the model: "
        "keep one of the two."
    ]


def _kinds(step):
    """What an augmentation changes: a division of work, places in the dataset and colours in the model, is no fault."""
    names = {type(layer).__name__ for layer in _unfolded(step)}
    return {"places" if name in PLACES else "colours" if name in COLOURS else name for name in names}


def _drawn(layer):
    """The changes that a layer draws for; empty where there is only one."""
    given = {name for name, _ in settings(layer)}
    return given - {"seed", "fill", "interpolation", "probability"}


def _unfolded(step):
    """The layers of a policy, those of policies within it included."""
    return [layer for inner in step.layers for layer in _unfolded(inner)] if isinstance(step, Policy) else [step]


def _normalises(step):
    return isinstance(step, NORMALISING) or is_preprocessing(step)


def _black_and_white(channels):
    pixels = np.zeros((2, 1, 1, channels or 3), np.float32)
    pixels[1] = 255
    return pixels


def _applied(step, pixels):
    """Pixels behind a normalisation, or None where that cannot be known, as before it was adapted."""
    if pixels is None or not getattr(step, "built", True):
        return None
    try:
        return keras.ops.convert_to_numpy(keras.ops.cast(step(pixels.copy()), "float32"))
    except Exception:  # statistics a pixel, or of other shapes: whatever it is, nothing can be said
        return None


def _apart(pixels):
    return None if pixels is None else float(np.abs(pixels[1] - pixels[0]).max())


def _reach_white(pixels: Any):
    return pixels.min() >= -0.5 and pixels.max() > 1.5


def _look_like_pixels(images):
    """Whether values may be grey levels: none far below 0, nor all within 0..1, but for whole ones, as at night."""
    return _reach_white(images) or (images.min() >= 0 and not (images % 1).any())


def _channels(images):
    return images.shape[-1] if images is not None and len(images.shape) else None


def _is_float(part):
    return "float" in keras.backend.standardize_dtype(part.dtype)


def _is_soft(labels):
    return len(labels.shape) == 2 and labels.shape[1] != 1


def _described(labels):
    return f"{keras.backend.standardize_dtype(labels.dtype)} {tuple(labels.shape)}"


def _plain_name(given):
    """`sparse_categorical_crossentropy` for that word, the function and the class alike."""
    name = given if isinstance(given, str) else getattr(given, "__name__", None) or type(given).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _name(step):
    return step.__name__ if is_preprocessing(step) else type(step).__name__


def _names(steps):
    return " and ".join(map(_name, {id(step): step for step in steps}.values()))
