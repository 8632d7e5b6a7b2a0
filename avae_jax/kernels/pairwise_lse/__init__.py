"""Log-sum-exp of Gaussian logits between two sets of points, in memory linear in their sizes."""

from avae_jax.kernels.pairwise_lse.api import pairwise_lse as pairwise_lse
from avae_jax.kernels.pairwise_lse.api import pairwise_lse_stats as pairwise_lse_stats
from avae_jax.kernels.pairwise_lse.sharded import pmap_pairwise_lse as pmap_pairwise_lse
from avae_jax.kernels.pairwise_lse.sharded import sharded_pairwise_lse as sharded_pairwise_lse
from avae_jax.kernels.pairwise_lse.sharded import (
    sharded_pairwise_lse_stats as sharded_pairwise_lse_stats,
)
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats as PairwiseStats
from avae_jax.kernels.pairwise_lse.stats import merge_stats as merge_stats
