"""Structural similarity of reconstructions."""

import math

import numpy as np

from avae_jax.metrics.checks import check_reconstructions, check_value_range

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
# Pixels filtered at once: five maps of 8 MB.
_PIXELS = 1_000_000


def structural_similarity(
    x, x_recon, *, value_range: tuple[float, float] = (0.0, 1.0)
) -> dict[str, float]:
    """Measure the structural similarity (SSIM) of reconstructions and their images.

    `SSIM = (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2))` with local
    means and (co)variances under a Gaussian window of 11 x 11 pixels and sigma 1.5, C1 = (.01 L)^2,
    C2 = (.03 L)^2, L = high - low (Wang et al. 2004, eq. 13). It is averaged over all positions
    where the window fits, over channels and over images. Colour channels are compared one by one,
    as scikit-image does; Wang et al. define it for grey images. There is no downsampling. Images
    smaller than 11 pixels get the largest odd window that fits, of the same sigma: do not compare
    their values with those of larger images.

    Args:
      x: `[n, height, width, channels]` images in `value_range`.
      x_recon: same shape, in the same units.
      value_range: `(low, high)` of the images. SSIM depends on the offset: pass images in [-1, 1]
        with their range, they are shifted to start at 0.

    Returns:
      `ssim` in [-1, 1], 1 for equal images; `ssim_null` the same for the mean image as everybody's
      reconstruction; `ssim_stderr` over the images, NaN for a single one.

    Raises:
      ValueError: shapes differ or are not of rank 4, there are no pixels, `value_range` is empty,
        or `x` lies outside it.

    Numerics:
      float64. A NaN in `x_recon` gives NaN. Time O(pixels), memory O(inputs).

    Example:
      >>> x = np.random.default_rng(0).uniform(size=(2, 16, 16, 1))
      >>> structural_similarity(x, x)["ssim"]
      1.0

    References:
      Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility to
      structural similarity, IEEE TIP 13 (2004).
    """
    x, x_recon = check_reconstructions(x, x_recon)
    if x.ndim != 4 or x.size == 0:
        raise ValueError(
            f"x must have shape [n, height, width, channels] with no empty axis, got {x.shape}: "
            "give gray images a last axis of 1"
        )
    low, high = check_value_range(x, value_range)
    width = high - low
    n = x.shape[0]
    mean_image = x.mean(axis=0, dtype=np.float64, keepdims=True)
    block = max(1, _PIXELS // math.prod(x.shape[1:]))
    values, null = np.empty(n), np.empty(n)
    for start in range(0, n, block):
        rows = slice(start, start + block)
        images = (x[rows].astype(np.float64) - low) / width
        recon = (x_recon[rows].astype(np.float64) - low) / width
        values[rows] = _ssim(images, recon)
        null[rows] = _ssim(images, (mean_image - low) / width)
    return {
        "ssim": float(values.mean()),
        "ssim_null": float(null.mean()),
        "ssim_stderr": float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else float("nan"),
    }


def _ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the SSIM of each image in [0, 1] units; y may be one image for all."""
    window = min(_WINDOW, *x.shape[1:3])
    window -= 1 - window % 2
    rows, columns = (_filter_matrix(size, window) for size in x.shape[1:3])

    def smooth(images):
        return np.einsum("ph,nhwc,qw->npqc", rows, images, columns, optimize=True)

    mean_x, mean_y = smooth(x), smooth(y)
    variance_x = smooth(x * x) - mean_x * mean_x
    variance_y = smooth(y * y) - mean_y * mean_y
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    luminance = (2.0 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    structure = (2.0 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def _filter_matrix(size: int, window: int) -> np.ndarray:
    """Return the Gaussian window at every position where it fits, `[size - window + 1, size]`."""
    offsets = np.arange(window) - window // 2
    weights = np.exp(-0.5 * np.square(offsets / _SIGMA))
    weights /= weights.sum()
    positions = size - window + 1
    matrix = np.zeros((positions, size))
    for position in range(positions):
        matrix[position, position : position + window] = weights
    return matrix
