"""A mixture of Gaussians as prior."""

import dataclasses
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax.checks import check_between, check_count
from avae_jax.gaussians import mixture_log_prob, mixture_sample, mixture_variance
from avae_jax.priors.prior import BasePrior, check_codes_to_fit, check_width

VARIANCE_FLOOR = 1e-4
"""What a fit adds to every variance, as a share of the codes' mean variance: a component that has
one code, or copies of one, keeps a finite density."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Mixture(BasePrior):
    """A mixture of k diagonal Gaussians, learned or fitted.

    Attributes:
      log_weights: `[k]`, need not be normalized: the weights are their softmax.
      loc: means, `[k, latent_dim]`.
      log_var: log-variances, `[k, latent_dim]`.

    Example:
      >>> import jax
      >>> prior = Mixture.make(2, jax.random.key(0), num_components=10)
      >>> prior.describe(), prior.sample(jax.random.key(1), 5).shape
      ('a mixture of 10 Gaussians', (5, 2))
    """

    log_weights: jax.Array
    loc: jax.Array
    log_var: jax.Array

    @classmethod
    def make(
        cls,
        latent_dim: int,
        key: jax.Array,
        *,
        num_components: int = 10,
        spread: float | None = None,
    ) -> "Mixture":
        """Draw a first mixture, of mean 0 and variance 1 in every dimension.

        The means are drawn, then shifted and scaled so that each dimension has mean 0 and standard
        deviation `spread` over them; every component has the variance that is left, `1 - spread^2`.
        The weights are equal.

        Args:
          latent_dim: columns of a code, >= 1.
          key: JAX random key.
          num_components: k, >= 1. One component is N(0, I).
          spread: standard deviation of the means, in (0, 1). None: what gives the components the
            variance `k^(-2 / latent_dim)`, at least 0.1, so that together they fill the volume of
            N(0, I).

        Returns:
          The mixture, float32.

        Raises:
          TypeError: `latent_dim` or `num_components` is no integer, `spread` no number.
          ValueError: one of them is out of its range.
        """
        latent_dim = check_count("latent_dim", latent_dim, minimum=1)
        k = check_count("num_components", num_components, minimum=1)
        if spread is None:
            spread = math.sqrt(1 - max(k ** (-2 / latent_dim), 0.1))
        else:
            spread = check_between("spread", spread, 0, 1)
        if k == 1:
            loc, variance = jnp.zeros((1, latent_dim)), 1.0
        else:
            loc = jax.random.normal(key, (k, latent_dim))
            loc -= loc.mean(axis=0)
            loc *= spread / jnp.sqrt(jnp.square(loc).mean(axis=0))
            variance = 1 - spread**2
        return cls(jnp.zeros(k), loc, jnp.full((k, latent_dim), math.log(variance)))

    @property
    def latent_dim(self) -> int:
        """Return the number of columns of a code."""
        return self.loc.shape[-1]

    @property
    def num_components(self) -> int:
        """Return k."""
        return self.loc.shape[-2]

    def log_prob(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Return the log density of codes.

        Args:
          z: codes, `[batch, latent_dim]`.
          labels: `[batch]` int, the component each code belongs to, -1 where it is unknown. A known
            one gives `log p(z | component)`; for the joint density add
            `jax.nn.log_softmax(prior.log_weights)[labels]`. None: all are unknown.

        Returns:
          `[batch]`, nats, normalized in z.

        Raises:
          ValueError: `z` has another width than `latent_dim`, or `labels` not its rows.

        Numerics:
          Time and memory `O(batch k latent_dim)`. A label of k or more gives NaN.
        """
        check_width(z, self.latent_dim)
        _check_labels(labels, z.shape[0])
        return mixture_log_prob(z, self.log_weights, self.loc, self.log_var, labels=labels)

    def sample(
        self, key: jax.Array, num_samples: int, labels: jax.Array | None = None
    ) -> jax.Array:
        """Draw codes.

        Args:
          key: JAX random key.
          num_samples: how many.
          labels: `[num_samples]` int, the component of each, -1 for one drawn by the weights. None:
            all are drawn. A label of k or more gives NaN.

        Returns:
          `[num_samples, latent_dim]`, differentiable in `loc` and `log_var` of the component drawn,
          not in `log_weights`.

        Raises:
          ValueError: `labels` is not `[num_samples]`.
        """
        _check_labels(labels, num_samples)
        return mixture_sample(
            key,
            self.log_weights,
            self.loc,
            self.log_var,
            num_samples=num_samples,
            labels=labels,
        )

    def fit(self, z: Any, *, key: jax.Array) -> "Mixture":
        """Return a mixture of as many components fitted to codes by expectation maximization.

        It starts from k-means, not from this mixture: components come back in another order.

        Args:
          z: codes, `[n, latent_dim]`, n >= k.
          key: JAX random key, for where k-means starts.

        Returns:
          A mixture in this one's dtype. Every variance is at least `VARIANCE_FLOOR` of the codes'
          mean variance, every weight above 0.

        Raises:
          ValueError: `z` is not of that shape, not finite, or all rows are equal.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        k = self.num_components
        z = check_codes_to_fit(z, self.latent_dim, minimum=max(k, 2))
        # The floor of scikit-learn is in units of the codes, so they are given unit variance.
        center, scale = z.mean(axis=0), math.sqrt(z.var(axis=0).mean())
        model = GaussianMixture(
            k,
            covariance_type="diag",
            reg_covar=VARIANCE_FLOOR,
            max_iter=500,
            random_state=int(jax.random.randint(key, (), 0, 2**31 - 1)),
        )
        with warnings.catch_warnings():
            # Fewer distinct codes than components, or a likelihood that still creeps up.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit((z - center) / scale)
        dtype = self.loc.dtype
        return Mixture(
            jnp.asarray(np.log(np.asarray(model.weights_)), dtype),
            jnp.asarray(center + scale * np.asarray(model.means_), dtype),
            jnp.asarray(np.log(scale**2 * np.asarray(model.covariances_)), dtype),
        )

    def smoothed(self, std: float) -> "Mixture":
        """Return the distribution of a draw plus noise `N(0, std^2 I)`."""
        log_var = jnp.logaddexp(self.log_var, 2 * math.log(std))
        return dataclasses.replace(self, log_var=log_var)

    def describe(self) -> str:
        """Return what it is called in a caption."""
        return f"a mixture of {self.num_components} Gaussians"

    def std(self) -> float:
        """Return the standard deviation of all components together, root mean square over dims."""
        variance = mixture_variance(self.log_weights, self.loc, self.log_var)
        return float(jnp.sqrt(variance.mean()))


def _check_labels(labels: jax.Array | None, num_codes: int) -> None:
    if labels is not None and labels.shape != (num_codes,):
        raise ValueError(
            f"labels must have shape [{num_codes}], one per code, got {labels.shape}: "
            "give -1 where the component is unknown"
        )
