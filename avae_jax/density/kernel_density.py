"""A Gaussian kernel density estimate as one object: fitted, evaluated, drawn from, saved."""

import dataclasses
import math
import zipfile
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from avae_jax.checks import (
    check_axes,
    check_choice,
    check_count,
    check_positive,
)
from avae_jax.density.bandwidth import maximize_log_density
from avae_jax.density.kde import as_floating, checked_covariance, kde_log_density
from avae_jax.density.normal_draws import check_not_traced
from avae_jax.files import written_whole
from avae_jax.kernels.pairwise_lse import pairwise_lse_stats
from avae_jax.kernels.pairwise_lse.explicit import with_auto_axes
from avae_jax.text import number

Rule = Literal["scott", "silverman", "cv"]
"""Ways to find a bandwidth from the data."""

_HIGHEST = jax.lax.Precision.HIGHEST


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, init=False, repr=False)
class KDE:
    r"""A density that is a Gaussian kernel around each of some points.

    ``q(z) = sum_j w_j N(z; c_j, h^2 S)``, with weights `w` that are made to sum to one. It is a
    pytree of its four arrays: it passes through `jax.jit`, `jax.vmap` and `jax.grad` as it is.

    From SciPy: `gaussian_kde(x.T)` is `KDE(x)`, `bw_method=.5` is `bandwidth=.5,
    covariance="data"`, `logpdf(z.T)` is `log_density(z)`, `resample` is `sample`. From
    scikit-learn: `KernelDensity(bandwidth=.5).fit(x)` is `KDE(x, bandwidth=.5)`, `score_samples` is
    `log_density`; its "scott" and "silverman" leave the data's covariance out.

    Args:
      centers: points, `[num_centers, latent_dim]`, the rows.
      bandwidth: h. A number or scalar array > 0: what the root of the covariance is multiplied by;
        without a covariance the kernel's standard deviation, in units of the centers. Or a rule:
        "scott", `n^(-1/(d + 4))` (Scott 1992, chapter 6), or "silverman", `(n (d + 2)/4)^(-1/(d +
        4))` (Silverman 1986, chapter 4), multiples of the data's covariance with
        `n = 1/sum w^2` effective points; or "cv", which maximizes the leave-one-out likelihood
        `sum_i w_i log q_{-i}(c_i)` (Duin 1976).
      covariance: S. `[latent_dim]`, variances (for a bandwidth per dimension: `bandwidth=1,
        covariance=h**2`), `[latent_dim, latent_dim]`, or "data", the centers' own, weighted. None:
        "data" for "scott" and "silverman", which have no unit of their own, else I.
      log_weights: `[num_centers]`, logs of the weights, which need not sum to one; -inf leaves a
        center out. None: equal weights.

    Attributes:
      centers: `[num_centers, latent_dim]`, float32, or float64 where they were.
      bandwidth: `[]`, h.
      covariance: `[latent_dim]`, `[latent_dim, latent_dim]`, or None for I.
      log_weights: `[num_centers]` or None.

    Raises:
      TypeError: arrays that are not of a floating type; "cv" inside `jax.jit`.
      ValueError: shapes that do not match, a rule that is unknown, a bandwidth or covariance that
        is not positive, centers without spread in some direction where their covariance is needed,
        or copies of one another where "cv" is.
      RuntimeError: the search of "cv" did not settle.

    Numerics:
      "cv" is Newton's method in log h, on the host: three to eight passes of `O(num_centers^2
      latent_dim)`, without the matrix of distances. It begins at a kernel as wide as the data. One
      far outlier widens it: the leave-one-out likelihood has to explain that point too.

    Example:
      >>> x = jax.random.normal(jax.random.key(0), (500, 2))
      >>> kde = KDE(x)
      >>> kde
      KDE(500 centers, 2 dimensions, bandwidth 0.355)
      >>> kde.log_density(jnp.zeros((3, 2))).shape, kde.sample(jax.random.key(1), 10).shape
      ((3,), (10, 2))
      >>> force = jax.grad(lambda z: kde.log_density(z[None])[0])(jnp.ones(2))

    References:
      Scott, 1992, Multivariate Density Estimation.
      Silverman, 1986, Density Estimation for Statistics and Data Analysis.
      Duin, 1976, On the choice of smoothing parameters for Parzen estimators.
    """

    centers: jax.Array
    bandwidth: jax.Array
    covariance: jax.Array | None
    log_weights: jax.Array | None

    def __init__(
        self,
        centers: jax.Array | np.ndarray,
        *,
        bandwidth: Rule | ArrayLike = "scott",
        covariance: Literal["data"] | jax.Array | np.ndarray | None = None,
        log_weights: jax.Array | np.ndarray | None = None,
    ):
        shape = np.shape(centers)
        if len(shape) != 2 or 0 in shape:
            fix = "centers[:, None]" if len(shape) == 1 else "one row per point"
            raise ValueError(
                f"centers must have shape [num_centers, latent_dim], got {shape}: give {fix}"
            )
        check_axes(
            centers=("num_centers latent_dim", centers), log_weights=("num_centers", log_weights)
        )
        points, log_weights = as_floating(centers=centers, log_weights=log_weights)
        rule = bandwidth if isinstance(bandwidth, str) else None
        if rule is not None:
            check_choice("bandwidth", rule, get_args(Rule))
        if covariance is None and rule in ("scott", "silverman"):
            covariance = "data"
        if isinstance(covariance, str):
            check_choice("covariance", covariance, ("data",))
            covariance = _data_covariance(points, log_weights)
        elif covariance is not None:
            covariance = checked_covariance(covariance, shape[1])
        if rule == "cv":
            bandwidth = _cross_validated(points, covariance, log_weights)
        elif rule is not None:
            bandwidth = _factor(rule, log_weights, shape)
        else:
            check_axes(bandwidth=("", bandwidth))
            if not isinstance(bandwidth, Tracer):
                check_positive("bandwidth", bandwidth)
        self._set(
            points,
            jnp.asarray(bandwidth).astype(points.dtype),
            None if covariance is None else jnp.asarray(covariance).astype(points.dtype),
            log_weights,
        )

    def _set(self, *values) -> None:
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def tree_flatten_with_keys(self):
        """Return the arrays with their names."""
        names = [field.name for field in dataclasses.fields(self)]
        return [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names], None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        """Return the density; leaves may be anything, as JAX passes through what it maps."""
        kde = object.__new__(cls)
        kde._set(*leaves)
        return kde

    def __repr__(self) -> str:
        """Return the sizes, and the bandwidth where it is known."""
        sizes = zip(np.shape(self.centers)[-2:], ("centers", "dimensions"), strict=False)
        parts = [f"{size} {kind}" for size, kind in sizes]
        if isinstance(self.bandwidth, jax.Array) and not isinstance(self.bandwidth, Tracer):
            parts.append(f"bandwidth {number(np.asarray(self.bandwidth))}")
        if self.log_weights is not None:
            parts.append("weighted")
        return f"KDE({', '.join(parts)})"

    def log_density(self, z: jax.Array | np.ndarray) -> jax.Array:
        """Return the log density at queries.

        Args:
          z: queries, `[n, latent_dim]`.

        Returns:
          `[n]`, nats, as `avae_jax.kde_log_density`, which has more options.

        Raises:
          TypeError: as `avae_jax.kde_log_density`.
          ValueError: as `avae_jax.kde_log_density`.
        """
        return kde_log_density(
            z,
            self.centers,
            bandwidth=self.bandwidth,
            covariance=self.covariance,
            log_weights=self.log_weights,
        )

    def sample(self, key: jax.Array, num_samples: int) -> jax.Array:
        """Draw points: a center by its weight, then one of its kernel.

        Args:
          key: JAX random key.
          num_samples: how many, >= 0.

        Returns:
          `[num_samples, latent_dim]`, differentiable in `centers`, `bandwidth` and `covariance`,
          not in `log_weights`.

        Raises:
          TypeError: `num_samples` is no integer.
          ValueError: `num_samples` is negative.
        """
        num_samples = check_count("num_samples", num_samples, minimum=0)
        num_centers, latent_dim = self.centers.shape
        of_center, of_noise = jax.random.split(key)
        if self.log_weights is None:
            own = jax.random.randint(of_center, (num_samples,), 0, num_centers)
        else:
            own = jax.random.categorical(of_center, self.log_weights, shape=(num_samples,))
        noise = jax.random.normal(of_noise, (num_samples, latent_dim), self.centers.dtype)
        if self.covariance is not None and self.covariance.ndim == 1:
            noise *= jnp.sqrt(self.covariance)[None]
        elif self.covariance is not None:
            root = jnp.linalg.cholesky(self.covariance)
            noise = jnp.matmul(noise, root.T, precision=_HIGHEST)
        # On an explicit mesh the rows that are split must be gathered.
        centers = with_auto_axes(
            lambda centers, own: centers[own], (self.centers, own), PartitionSpec(None, None)
        )
        return centers + self.bandwidth * noise

    def save(self, path) -> None:
        """Write the arrays to a file of NumPy's `.npz` format, whole or not at all.

        Args:
          path: the file, named as given; its folder must exist. ~ is the home folder.

        Raises:
          OSError: the file cannot be written.
        """
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        arrays: Any = {name: np.asarray(a) for name, a in arrays.items() if a is not None}
        with written_whole(Path(path).expanduser()) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path) -> "KDE":
        """Read what `save` wrote; nothing of the file is executed.

        Args:
          path: the file. ~ is the home folder.

        Returns:
          The density, bit for bit (float64 becomes float32 where JAX's x64 mode is off).

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file holds something else.
        """
        path = Path(path).expanduser()
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            with np.load(path, allow_pickle=False) as file:
                if not {"centers", "bandwidth"} <= set(file.files) <= names:
                    raise ValueError(f"it holds {sorted(file.files)}")
                return cls(**{name: file[name] for name in file.files})
        except FileNotFoundError:
            raise
        # What np.load raises for an array without names, and for files that are none or are cut.
        except (
            AttributeError, EOFError, KeyError, MemoryError, OSError, TypeError, ValueError,
            zipfile.BadZipFile,
        ) as error:  # fmt: skip
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"path must be a file that KDE.save wrote, got {str(path)!r} ({reason}): save it "
                "again"
            ) from None


def _shares(log_weights, num_centers: int, dtype) -> jax.Array:
    """Return the weights, `[num_centers]`, with the sum 1."""
    if log_weights is None:
        return jnp.full(num_centers, 1.0 / num_centers, dtype)
    return jax.nn.softmax(log_weights)


def _factor(rule: str, log_weights, shape: tuple[int, int]) -> jax.Array | float:
    """Return the bandwidth of a rule, as a multiple of the data's spread."""
    num_centers, latent_dim = shape
    effective = num_centers
    if log_weights is not None:
        effective = 1.0 / jnp.sum(jnp.square(_shares(log_weights, num_centers, None)))
    if rule == "silverman":
        effective = effective * (latent_dim + 2) / 4.0
    return effective ** (-1.0 / (latent_dim + 4))


def _data_covariance(centers, log_weights) -> jax.Array:
    """Return the weighted covariance of the centers, unbiased as `np.cov(aweights=)` has it."""
    num_centers, latent_dim = centers.shape
    shares = _shares(log_weights, num_centers, centers.dtype)
    # What is left out may hold anything.
    kept = jnp.where(shares[:, None] > 0, centers, 0.0)
    deviations = kept - jnp.sum(shares[:, None] * kept, axis=0)[None]
    deviations = jnp.where(shares[:, None] > 0, deviations, 0.0)
    # On an explicit mesh a product over rows that are split must say how its result is.
    moments = with_auto_axes(
        lambda a, b: jnp.matmul(a.T, b, precision=_HIGHEST),
        (shares[:, None] * deviations, deviations),
        PartitionSpec(None, None),
    )
    covariance = moments / (1.0 - jnp.sum(jnp.square(shares)))
    try:
        return jnp.asarray(checked_covariance(covariance, latent_dim))
    except ValueError:
        raise ValueError(
            f"centers must spread in all of their {latent_dim} dimensions where their covariance "
            f"is needed, got {num_centers} that do not: leave out columns that are constant or "
            "follow from others, or give bandwidth= a number or 'cv'"
        ) from None


def _cross_validated(centers, covariance, log_weights) -> float:
    """Return the bandwidth of highest leave-one-out likelihood."""
    check_not_traced("KDE with bandwidth='cv'", centers, covariance, log_weights)
    points = np.asarray(centers, np.float64)
    shares = np.asarray(_shares(log_weights, len(points), centers.dtype), np.float64)
    points, shares = points[shares > 0], shares[shares > 0]
    _, copies = np.unique(points, axis=0, return_counts=True)
    if not np.isfinite(points).all():
        raise ValueError(
            "centers must be finite for bandwidth='cv', got some that are not: leave them out"
        )
    if len(points) < 2 or np.all(copies > 1):
        raise ValueError(
            f"centers must be two at least, and not all copies of others, for bandwidth='cv', got "
            f"{len(points)} that are not: give bandwidth= a number"
        )
    # In units of the kernel's shape and of the width of the data, which is where the search begins.
    points = points - points.mean(axis=0)
    if covariance is not None:
        values = np.asarray(covariance, np.float64)
        full = np.diag(values) if values.ndim == 1 else values
        points = np.linalg.solve(np.linalg.cholesky(full), points.T).T
    width = math.sqrt(np.average(np.square(points).mean(axis=1), weights=shares))
    x = jnp.asarray(points / width, centers.dtype)
    log_shares = None if log_weights is None else jnp.log(jnp.asarray(shares, centers.dtype))
    own = np.arange(len(points))
    measure = jax.jit(
        lambda h: pairwise_lse_stats(x, x, bandwidth=h, log_weights=log_shares, exclude=own)
    )
    optimum = maximize_log_density(
        lambda h: measure(jnp.asarray(h, x.dtype)), x.shape[1], row_weights=shares
    )
    return width * optimum.bandwidth
