"""Measurements: one script per thing that is measured, results in `results/`."""
