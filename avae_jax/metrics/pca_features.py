"""Principal components of training images, as a feature space without a network."""

from typing import NamedTuple

import numpy as np

from avae_jax.checks import check_count
from avae_jax.metrics.checks import check_flat


class PCAFeatures(NamedTuple):
    """A fitted projection.

    Attributes:
      mean: `[num_pixels]` mean training image.
      components: `[num_components, num_pixels]` orthonormal directions, by falling variance.
      explained_variance: `[num_components]` of the training images (divided by n - 1).
      explained_share: the part of the total variance the components hold, NaN if that is 0.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    explained_share: float

    def transform(self, images) -> np.ndarray:
        """Project images onto the components.

        Args:
          images: `[n, ...]` with the training images' pixels, in their units.

        Returns:
          `[n, num_components]` float64, not whitened: distances are pixel distances within the
          components.

        Raises:
          ValueError: the number of pixels is not the training images', or values are not finite.
        """
        flat = check_flat(images, name="images")
        if flat.shape[1] != self.mean.size:
            raise ValueError(
                f"images have {flat.shape[1]} pixels but the components were fitted to "
                f"{self.mean.size}: pass images of the training shape"
            )
        return (flat - self.mean) @ self.components.T


def fit_pca(train_images, *, num_components: int = 50, seed: int = 0) -> PCAFeatures:
    """Fit principal components to training images.

    A check that needs no trained feature extractor: Fréchet distance, KID, precision and recall and
    memorisation run on `fit_pca(train).transform(images)`. Fit it on training images only, and
    judge the floor by transforming real test images.

    Args:
      train_images: `[n, ...]` images or features, n >= 2.
      num_components: directions kept, in [1, min(n - 1, num_pixels)].
      seed: of the randomised solver, used for more than 1,000 pixels.

    Returns:
      `PCAFeatures`.

    Raises:
      ValueError: wrong shape, fewer than two images, values that are not finite, or num_components
        out of range.
      TypeError: num_components is no integer.

    Numerics:
      float64, scikit-learn's `PCA`. Constant images give zero variances.

    Example:
      >>> images = np.random.default_rng(0).uniform(size=(100, 8, 8, 1))
      >>> fit_pca(images, num_components=5).transform(images).shape
      (100, 5)
    """
    # scikit-learn is slow to import.
    from sklearn.decomposition import PCA

    flat = check_flat(train_images, name="train_images", min_codes=2)
    most = min(flat.shape[0] - 1, flat.shape[1])
    num_components = check_count("num_components", num_components, minimum=1, maximum=most)
    mean = flat.mean(axis=0)
    total = float(np.square(flat - mean).sum() / (flat.shape[0] - 1))
    if total == 0.0:
        components = np.eye(num_components, flat.shape[1])
        return PCAFeatures(mean, components, np.zeros(num_components), float("nan"))
    pca = PCA(num_components, random_state=seed).fit(flat)
    components = np.asarray(pca.components_)
    variance = np.asarray(pca.explained_variance_)
    return PCAFeatures(mean, components, variance, float(variance.sum() / total))
