"""Input checks and the source of prior draws, shared by the metrics."""

import numpy as np

from avae_jax.checks import check_count, check_same_shape

# "prior" in ASCII.
_PRIOR = 0x7072696F72


def check_codes(z, *, name: str = "z", min_codes: int = 1) -> np.ndarray:
    """Convert codes to a float64 host array and check their shape and values.

    Args:
      z: `[n, latent_dim]`, any real array type.
      name: what to call the argument in an error.
      min_codes: the fewest rows the caller can work with.

    Returns:
      `[n, latent_dim]` NumPy float64.

    Raises:
      ValueError: `z` is not of rank 2, has too few rows or no columns, or holds a
        value that is not finite.
    """
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(
            f"{name} must have shape [n, latent_dim] with latent_dim >= 1, got {z.shape}: "
            "reshape it to one row per code"
        )
    if z.shape[0] < min_codes:
        raise ValueError(f"{name} has {z.shape[0]} rows, at least {min_codes} are needed")
    check_finite_rows(z, name=name)
    return z


def check_finite_rows(z: np.ndarray, *, name: str) -> None:
    """Raise `ValueError` with the number of rows of a `[n, d]` array that are not finite."""
    bad = int(np.count_nonzero(~np.isfinite(z).all(axis=1)))
    if bad:
        raise ValueError(
            f"{name} has {bad} of {z.shape[0]} rows that are not finite: "
            "drop them or find their cause"
        )


def check_matching(
    z: np.ndarray, other, *, name: str, z_name: str = "z", min_codes: int = 1
) -> np.ndarray:
    """Convert further codes as `check_codes` does and check that their rows are as long as z's.

    Args:
      z: `[n, latent_dim]` checked codes.
      other: `[m, latent_dim]`, any real array type.
      name: what to call `other` in an error.
      z_name: what to call z in an error.
      min_codes: the fewest rows the caller can work with.

    Returns:
      `[m, latent_dim]` NumPy float64.

    Raises:
      ValueError: as `check_codes`, or a different latent_dim.
    """
    other = check_codes(other, name=name, min_codes=min_codes)
    if other.shape[1] != z.shape[1]:
        raise ValueError(
            f"{z_name} has latent_dim {z.shape[1]} but {name} has {other.shape[1]}: they must agree"
        )
    return other


def check_reference(z: np.ndarray, reference) -> np.ndarray | None:
    """Check a reference sample as `check_matching` does; None, for the prior, passes."""
    return None if reference is None else check_matching(z, reference, name="reference")


def check_features(features, reference, *, min_rows: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Convert two feature sets as `check_codes` does and check that they share their columns.

    Args:
      features: `[n, num_features]` of the samples to judge.
      reference: `[m, num_features]` of real data.
      min_rows: the fewest rows of either.

    Returns:
      Both as NumPy float64.

    Raises:
      ValueError: as `check_codes`, or different numbers of columns.
    """
    features = check_codes(features, name="features", min_codes=min_rows)
    reference = check_codes(reference, name="reference", min_codes=min_rows)
    if features.shape[1] != reference.shape[1]:
        raise ValueError(
            f"features has {features.shape[1]} columns but reference has {reference.shape[1]}: "
            "they must come from one feature extractor"
        )
    return features, reference


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Return rows divided by their lengths; NaN for a row of zeros, which has no direction."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths > 0.0, lengths, np.nan)


def check_flat(images, *, name: str, min_codes: int = 1) -> np.ndarray:
    """Convert images to one row each, `[n, num_pixels]`, and check them as `check_codes` does."""
    images = np.asarray(images)
    if images.ndim > 2 and images.size:
        images = images.reshape(images.shape[0], -1)
    return check_codes(images, name=name, min_codes=min_codes)


def check_reconstructions(x, x_recon) -> tuple[np.ndarray, np.ndarray]:
    """Bring images and their reconstructions to the host and check that their shapes agree.

    Args:
      x: images.
      x_recon: their reconstructions.

    Returns:
      Both as NumPy arrays, values and dtypes unchanged.

    Raises:
      ValueError: the shapes differ.
    """
    x, x_recon = np.asarray(x), np.asarray(x_recon)
    check_same_shape(x=x, x_recon=x_recon)
    return x, x_recon


def check_value_range(x: np.ndarray, value_range: tuple[float, float]) -> tuple[float, float]:
    """Check that images lie in the range that their decoder can reach.

    Args:
      x: images, not empty.
      value_range: `(low, high)`.

    Returns:
      `(low, high)` as floats.

    Raises:
      ValueError: `value_range` is empty or not finite, or `x` lies outside it by more than 1e-3 of
        its width, or holds NaN.
    """
    low, high = map(float, value_range)
    width = high - low
    if not (np.isfinite(width) and width > 0.0):
        raise ValueError(
            f"value_range must be (low, high) with low < high, got {value_range}: give the range "
            "of the images"
        )
    slack = 1e-3 * width
    # Written so that NaN fails too.
    if not (x.min() >= low - slack and x.max() <= high + slack):
        raise ValueError(
            f"x must lie in value_range ({low:g}, {high:g}), got [{x.min():.4g}, {x.max():.4g}]: "
            "scale x to the decoder's range or pass its range"
        )
    return low, high


def prior_generator(seed: int, *, stream: int = 0) -> np.random.Generator:
    """Make the generator of prior draws.

    It is not `default_rng(seed)`: codes that a caller drew from that would come back as their own
    reference.

    Args:
      seed: >= 0.
      stream: which of the independent streams of a seed, >= 0.

    Returns:
      A generator on a stream of its own.

    Raises:
      ValueError: `seed` is negative.
      TypeError: `seed` is no integer.
    """
    return np.random.default_rng([check_count("seed", seed, minimum=0), _PRIOR, stream])
