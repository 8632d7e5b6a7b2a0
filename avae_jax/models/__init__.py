"""Flax Linen encoders and decoders, and the arithmetic of a Gaussian posterior head."""

from avae_jax.models.check import ParameterCounts, check_shapes
from avae_jax.models.custom import load_module
from avae_jax.models.layers import VALUE_RANGE
from avae_jax.models.mlp import MLPCritic
from avae_jax.models.registry import ARCHITECTURES, Architecture, make_decoder, make_encoder
from avae_jax.posteriors import sample_gaussian, split_gaussian

__all__ = [
    "ARCHITECTURES",
    "VALUE_RANGE",
    "Architecture",
    "MLPCritic",
    "ParameterCounts",
    "check_shapes",
    "load_module",
    "make_decoder",
    "make_encoder",
    "sample_gaussian",
    "split_gaussian",
]
