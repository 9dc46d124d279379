"""Searches over recipes and network shapes; the only room that knows Keras Tuner."""
