"""Grad-CAM (Selvaraju et al. 2017) written down once more: one tape over the whole network, picture by picture."""

import keras
import numpy as np
import tensorflow as tf
from PIL import Image


def grad_cam(model, layer: str, picture, index=None):
    """The heat map of one picture (height, width, channels) for a model that gives logits; `layer` makes the map."""
    both = keras.Model(model.input, [model.get_layer(layer).output, model.output])
    with tf.GradientTape() as tape:
        features, logits = both(tf.constant(picture[None], tf.float32), training=False)
        index = int(tf.argmax(logits[0])) if index is None else index
        score = logits[0, index]
    slopes = tape.gradient(score, features).numpy()[0].astype(np.float64)
    features = features.numpy()[0].astype(np.float64)
    heat = np.maximum(np.einsum("ijk,k->ij", features, slopes.mean(axis=(0, 1))), 0)
    height, width = picture.shape[:2]
    heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    return heat / heat.max() if heat.max() > 0 else heat
