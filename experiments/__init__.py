"""Experiments: one configuration a file, found by name by `avae train`."""
