"""Reusing what a network has learned: which stages train, and which stand still."""
