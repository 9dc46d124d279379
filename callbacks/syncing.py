"""The weights of a model in the middle of a fit."""


def synchronize(model):
    """On JAX the loop keeps the weights to itself until it is asked for them."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
