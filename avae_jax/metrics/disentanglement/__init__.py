"""Disentanglement of codes over a factor grid, axis-aligned and along found directions.

The grid's points are encoded once (`CodeLookup`); every score reads those codes. MIG, SAP, DCI and
modularity take codes and factors of sampled points; the FactorVAE score and the directions draw
points that share a factor's value and so take the lookup and the grid.
"""

from avae_jax.metrics.disentanglement.dci import dci, dci_from_importance
from avae_jax.metrics.disentanglement.directions import (
    factor_vae_score_along,
    find_directions,
    mig_along,
)
from avae_jax.metrics.disentanglement.factor_vae import factor_vae_score
from avae_jax.metrics.disentanglement.grid import CodeLookup, FactorGrid
from avae_jax.metrics.disentanglement.mig import mig, mig_per_factor
from avae_jax.metrics.disentanglement.modularity import modularity
from avae_jax.metrics.disentanglement.sap import sap
from avae_jax.metrics.disentanglement.scores import disentanglement_scores

__all__ = [
    "CodeLookup",
    "FactorGrid",
    "dci",
    "dci_from_importance",
    "disentanglement_scores",
    "factor_vae_score",
    "factor_vae_score_along",
    "find_directions",
    "mig",
    "mig_along",
    "mig_per_factor",
    "modularity",
    "sap",
]
