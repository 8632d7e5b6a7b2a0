r"""Log-sum-exp of Gaussian logits between two sets of points, in memory linear in their sizes.

One call goes down through these files, each of which knows the ones below it only::

    sharded          global arrays: maps the call over a mesh, or by pmap
    api              arguments checked; one floating type for all
    vjp | dense      what has to be summed for what is asked, and the derivatives | plain JAX
    layout           where queries and centers lie, and what travels between devices
    implementations  the table of names, and the choice for a dimension
      |        \
    stream     pallas_tpu, pallas_gpu   the sums of one device: tile after tile, or in one kernel
    tile       (what is below is        what is summed over a tile
    forms       written out in them)    the logits of a tile: MATRIX or DIFFERENCE
    precision                           matrix products, in an accuracy class

The gradient in the centers goes the same way through `stream`, whichever made the forward sums.
Beside them: `stats` (the sums and how they are merged), `tiles` (their sizes), `exponential`,
`platforms` (what the code is traced for), `varying` and `explicit` (mapped axes, and those in the
types of arrays), and `reference`, the NumPy float64 that the tests compare with.
"""

from avae_jax.kernels.pairwise_lse.api import pairwise_lse as pairwise_lse
from avae_jax.kernels.pairwise_lse.api import pairwise_lse_stats as pairwise_lse_stats
from avae_jax.kernels.pairwise_lse.sharded import pmap_pairwise_lse as pmap_pairwise_lse
from avae_jax.kernels.pairwise_lse.sharded import sharded_pairwise_lse as sharded_pairwise_lse
from avae_jax.kernels.pairwise_lse.sharded import (
    sharded_pairwise_lse_stats as sharded_pairwise_lse_stats,
)
from avae_jax.kernels.pairwise_lse.stats import PairwiseStats as PairwiseStats
from avae_jax.kernels.pairwise_lse.stats import merge_stats as merge_stats
