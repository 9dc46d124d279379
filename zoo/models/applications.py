"""Networks of keras.applications under the zoo's contract: flat graphs on our own input, without their preprocessing.

Layers keep the names that Keras gave them and its weight files use; the catalog's boundaries say where a stage begins.
"""

import keras


def application(x, *, constructor, options):
    """Normalised pictures to the last feature map of `keras.applications.<constructor>(**options)`.

    (n, 224, 224, 3) -> (n, 7, 7, 1280) in MobileNetV2 and EfficientNetV2B0
    """
    build = getattr(keras.applications, constructor)
    return build(input_tensor=x, include_top=False, weights=None, **options).output
