"""Reconstruction error per pixel, per image and in decibels."""

import math

import numpy as np

from avae_jax.metrics.checks import check_reconstructions, check_value_range


def reconstruction_error(
    x, x_recon, *, value_range: tuple[float, float] | None = (0.0, 1.0)
) -> dict[str, float]:
    """Measure how far reconstructions are from their images.

    `mse = mean (x - x_recon)^2 / (high - low)^2`, `psnr = -10 log10(mse)`. The PSNR is that of the
    pooled error, not the mean of the images' own PSNRs, so one perfect image does not make it
    infinite. The sum per image (`sse`) stays in the units of `x`: it is the loss's own term.

    Args:
      x: `[n, ...]` images or features, in `value_range`.
      x_recon: same shape, in the same units.
      value_range: `(low, high)` of the images, `models.VALUE_RANGE` of the decoder's activation;
        None for data without bounds: `mse` is then in native units and there is no `psnr`.

    Returns:
      `mse` per pixel in [0, 1] units, `sse` per image in native units, `psnr` in dB; each with
      `_null`, the same for the mean image as everybody's reconstruction (the best a constant
      decoder can do: a number of these images, without a spread), and `_stderr` over the images,
      NaN for a single one.

    Raises:
      ValueError: shapes differ, there are no images, `value_range` is empty, or `x` lies outside
        it.

    Numerics:
      Sums run in float64. A NaN in `x_recon` gives NaN. Equal images give a PSNR of infinity.

    Example:
      >>> x = np.zeros((2, 4)); errors = reconstruction_error(x, x + 0.1)
      >>> round(errors["mse"], 6), round(errors["sse"], 6), round(errors["psnr"], 3)
      (0.01, 0.04, 20.0)
    """
    x, x_recon = check_reconstructions(x, x_recon)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"x must have shape [n, ...] with n >= 1, got {x.shape}: give some images")
    n = x.shape[0]
    x = x.reshape(n, -1).astype(np.float64)
    width = 1.0
    if value_range is not None:
        low, high = check_value_range(x, value_range)
        width = high - low
    sums = np.square(x - x_recon.reshape(n, -1).astype(np.float64)).sum(axis=1)
    null = np.square(x - x.mean(axis=0)).sum(axis=1).mean()
    stderr = sums.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    sse = np.array([sums.mean(), null, stderr])
    mse = sse / (x.shape[1] * width**2)
    errors: dict[str, float] = {}
    for name, values in (("mse", mse), ("sse", sse)):
        for end, value in zip(("", "_null", "_stderr"), values, strict=True):
            errors[name + end] = float(value)
    if value_range is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            psnr, psnr_null = -10.0 * np.log10(mse[:2])
            # By the delta method.
            psnr_stderr = 10.0 / math.log(10.0) * mse[2] / mse[0]
        errors |= {
            "psnr": float(psnr), "psnr_null": float(psnr_null), "psnr_stderr": float(psnr_stderr),
        }  # fmt: skip
    return errors
