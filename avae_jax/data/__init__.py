"""Datasets as host arrays: images, labels, disjoint stored splits, seeded batches."""

from avae_jax.data.batches import batch_indices, epoch_indices, steps_per_epoch
from avae_jax.data.checks import check_images, check_scaled, check_value_range, holds_only
from avae_jax.data.errors import DataError
from avae_jax.data.factors import FACTORS, load_factors
from avae_jax.data.image_data import ImageData, black_and_white
from avae_jax.data.in_memory import make_image_data
from avae_jax.data.registry import DATASETS, PREPARED, load_dataset, prepare_dataset, read_images
from avae_jax.data.splits import Splits, draw_splits

__all__ = [
    "DATASETS",
    "FACTORS",
    "PREPARED",
    "DataError",
    "ImageData",
    "Splits",
    "batch_indices",
    "black_and_white",
    "check_images",
    "check_scaled",
    "check_value_range",
    "draw_splits",
    "epoch_indices",
    "holds_only",
    "load_dataset",
    "load_factors",
    "make_image_data",
    "prepare_dataset",
    "read_images",
    "steps_per_epoch",
]
