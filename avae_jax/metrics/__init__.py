"""Metrics: arrays in, a dict of Python floats out, each beside its null or floor value.

A key `name_null` (or `null`) holds what the same estimator gives, at the same number of codes, on
draws from the prior, `name_null_std` its standard deviation there and `name_stderr` the standard
error of the estimate: the value to compare with, never zero by assumption. What is not defined is
NaN.
"""

from avae_jax.metrics import disentanglement
from avae_jax.metrics.c2st import c2st
from avae_jax.metrics.clipped import clipped_density_coverage
from avae_jax.metrics.code_moments import code_moments
from avae_jax.metrics.collapse import (
    RelevanceSpectrum,
    active_units,
    count_relevant,
    relevance,
    relevance_spectrum,
)
from avae_jax.metrics.departures import Departures, departures
from avae_jax.metrics.elbo_surgery import elbo_surgery
from avae_jax.metrics.energy import energy_distance
from avae_jax.metrics.entropy import whitened_entropy
from avae_jax.metrics.feature_likelihood import feature_likelihood
from avae_jax.metrics.frechet import (
    frechet_distance,
    frechet_distance_from_moments,
    frechet_infinity,
)
from avae_jax.metrics.henze_zirkler import henze_zirkler
from avae_jax.metrics.holes import (
    HolePoints,
    far_prior_share,
    hole_points,
    prior_coverage,
)
from avae_jax.metrics.image_quality import structural_similarity
from avae_jax.metrics.iwae import iwae_bound
from avae_jax.metrics.kde_kl import kde_kl, kde_kl_null
from avae_jax.metrics.kid import kid, polynomial_mmd
from avae_jax.metrics.knn_kl import knn_kl
from avae_jax.metrics.mardia import mardia
from avae_jax.metrics.memorisation import memorisation, nearest_training_neighbor
from avae_jax.metrics.mmd import cmmd, mmd
from avae_jax.metrics.mmd_fuse import mmd_fuse
from avae_jax.metrics.pca_features import PCAFeatures, fit_pca
from avae_jax.metrics.prd import PRDCurve, prd, prd_curve, prd_from_histograms, prd_scores
from avae_jax.metrics.precision_recall import precision_recall
from avae_jax.metrics.radius import radial_ks
from avae_jax.metrics.reconstruction import reconstruction_error
from avae_jax.metrics.sliced_wasserstein import max_sliced_w2, sliced_w2, sliced_w2_along
from avae_jax.metrics.total_correlation import (
    dimension_kl,
    dimension_kl_values,
    total_correlation,
)
from avae_jax.metrics.vendi import vendi_score

__all__ = [
    "Departures",
    "HolePoints",
    "PCAFeatures",
    "PRDCurve",
    "RelevanceSpectrum",
    "active_units",
    "c2st",
    "clipped_density_coverage",
    "cmmd",
    "code_moments",
    "count_relevant",
    "departures",
    "dimension_kl",
    "dimension_kl_values",
    "disentanglement",
    "elbo_surgery",
    "energy_distance",
    "far_prior_share",
    "feature_likelihood",
    "fit_pca",
    "frechet_distance",
    "frechet_distance_from_moments",
    "frechet_infinity",
    "henze_zirkler",
    "hole_points",
    "iwae_bound",
    "kde_kl",
    "kde_kl_null",
    "kid",
    "knn_kl",
    "mardia",
    "max_sliced_w2",
    "memorisation",
    "mmd",
    "mmd_fuse",
    "nearest_training_neighbor",
    "polynomial_mmd",
    "prd",
    "prd_curve",
    "prd_from_histograms",
    "prd_scores",
    "precision_recall",
    "prior_coverage",
    "radial_ks",
    "reconstruction_error",
    "relevance",
    "relevance_spectrum",
    "sliced_w2",
    "sliced_w2_along",
    "structural_similarity",
    "total_correlation",
    "vendi_score",
    "whitened_entropy",
]
