r"""Log-sum-exp of the densities of many diagonal Gaussians, in memory linear in their number.

`pairwise_lse` has one bandwidth for all centers; here every center has a variance per dimension::

    vjp     arguments of one type; the derivatives
    stream  tile after tile: the sums of the queries, the gradients of the centers
"""

from avae_jax.kernels.mixture_lse.vjp import marginal_lse as marginal_lse
from avae_jax.kernels.mixture_lse.vjp import mixture_lse as mixture_lse
