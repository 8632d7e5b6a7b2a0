"""The figures of a report, in the order they are read."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from avae_jax import figures
from avae_jax.evaluation.html import Picture
from avae_jax.evaluation.latent import LatentArrays
from avae_jax.evaluation.material import Material, evenly
from avae_jax.metrics import nearest_training_neighbor, radial_ks

_MOST_WALKS = 10
# A walk spans so many standard deviations of the codes either way, in so many images.
_REACH, _NUM_FRAMES = 2.5, 24


def draw(
    material: Material,
    arrays: LatentArrays,
    priors: Mapping[str, np.ndarray],
    curves: Mapping[str, Any],
    directions: Mapping[str, np.ndarray],
) -> dict[str, list[Picture]]:
    """Draw everything: heading -> pictures.

    Args:
      material: what was evaluated.
      arrays: of the latent space.
      priors: name -> decoded draws.
      curves: name -> (precision, recall).
      directions: factor -> direction `[latent_dim]` found for it; empty without factors.
    """
    drawn = {
        "Samples and reconstructions": _images(material, priors, curves),
        "The latent space against the prior": _latent(material, arrays),
    }
    if material.is_images:
        drawn["Holes: draws of the prior farthest from all codes"] = _holes(material, arrays)
        drawn["Walks through the latent space"] = _walks(material, arrays, directions)
    return drawn


def _images(material: Material, priors, curves) -> list[Picture]:
    value_range = material.value_range
    shown = evenly(len(material.x), 24)
    beside = [name for name in ("standard_normal", "gaussian") if name in priors][:1]
    groups = {name.replace("_", " "): priors[name][:36] for name in ("claimed", *beside)}
    other = {
        "standard_normal": ", beside N(0, I); the same noise in both",
        "gaussian": ", beside a Gaussian with the codes' mean and covariance; the same noise",
    }
    pictures = [
        Picture(
            "Samples",
            "Decoded draws of the prior at the scale the method claims"
            + "".join(other[name] for name in beside)
            + ".",
            figures.to_png(figures.make_samples(groups, value_range=value_range)),
        ),
        Picture(
            "Reconstructions",
            f"Images of the {material.split} split over what the model makes of them.",
            figures.to_png(
                figures.make_reconstructions(
                    material.x[shown], material.x_recon[shown], value_range=value_range
                )
            ),
        ),
    ]
    if curves:
        pictures.append(
            Picture(
                "Precision and recall of the samples",
                "Upper right is perfect. Precision: samples that look like data; recall: data the "
                "samples cover. The dashed floor is what training images reach.",
                figures.to_png(figures.make_prd(curves)),
                width=460,
            )
        )
    return pictures


def _latent(material: Material, arrays: LatentArrays) -> list[Picture]:
    z, scale = material.z, material.run.prior().std()
    d = z.shape[1]
    ks = radial_ks(z, scale=scale)
    pictures = [
        Picture(
            "Plane of largest variance",
            "Codes over the circles that hold 50, 90 and 99% of the prior.",
            figures.to_png(figures.make_latent_scatter(z, labels=material.labels, prior_std=scale)),
            width=640,
        ),
        Picture(
            "Radius",
            "In many dimensions the prior lies in a thin shell; codes elsewhere are never sampled.",
            figures.to_png(
                figures.make_radius_histogram(
                    z, prior_std=scale, distance=(ks["radial_ks"], ks["radial_ks_null"])
                )
            ),
            width=600,
        ),
        Picture(
            "Spectrum",
            "Variance of the codes by direction, and how many directions the decoder listens to.",
            figures.to_png(
                figures.make_spectrum(
                    arrays.eigenvalues, prior_std=scale, relevance=arrays.relevance
                )
            ),
        ),
    ]
    planes: dict[str, Any] = {}
    if d >= 2:
        planes["axes 1 and 2"] = np.eye(d)[:2]
        planes["least variance"] = arrays.vectors.T[:2]
    if arrays.worst_plane is not None:
        planes["least like the prior"] = arrays.worst_plane
    if planes:
        pictures.insert(
            1,
            Picture(
                "Other planes",
                "The last one is the plane in which the codes, rescaled, are least even: a hole "
                "would show there.",
                figures.to_png(figures.make_planes(z, planes, prior_std=scale)),
            ),
        )
    return pictures


def _holes(material: Material, arrays: LatentArrays) -> list[Picture]:
    most = min(12, len(arrays.far_points))
    decoded = material.run.decode(arrays.far_points[:most].astype(np.float32))
    _, nearest = nearest_training_neighbor(arrays.far_points[:most], material.z)
    rows = {"decoded": decoded, "nearest code": material.x_recon[nearest[:, 0]]}
    distances = ", ".join(f"{ratio:.2f}" for ratio in arrays.far_ratios[:most])
    return [
        Picture(
            "Where no code is near",
            "Draws of the prior with the fewest codes around them, and the reconstruction nearest "
            f"to each. Distance relative to that between draws of the prior: {distances}.",
            figures.to_png(figures.make_gallery(rows, value_range=material.value_range)),
        )
    ]


def _walks(material: Material, arrays: LatentArrays, directions) -> list[Picture]:
    z = material.z.astype(np.float64)
    # The code of middle radius is as typical as one can be.
    radius = np.linalg.norm(z, axis=1)
    middle = z[np.argsort(radius)[len(z) // 2]]
    d = z.shape[1]
    walks: dict[str, Mapping[str, np.ndarray]] = {
        "axes": {f"axis {j + 1}": np.eye(d)[j] for j in range(min(d, _MOST_WALKS))}
    }
    if len(arrays.directions):
        found = arrays.directions[: min(d, _MOST_WALKS)]
        walks["directions the decoder listens to most"] = {
            f"direction {j + 1}": u for j, u in enumerate(found)
        }
    if directions:
        walks["directions found for the factors"] = directions
    pictures = []
    for name, group in walks.items():
        codes = [
            traversal_codes(middle, u, float((z @ u).std()), _NUM_FRAMES) for u in group.values()
        ]
        decoded = material.run.decode(np.concatenate(codes).astype(np.float32))
        images = dict(zip(group, np.split(decoded, len(group)), strict=True))
        strips = figures.make_strips(images, value_range=material.value_range)
        moving = figures.to_gif(images, value_range=material.value_range)
        listed = ", ".join(group)
        pictures += [
            Picture(
                f"Along {name}, moving",
                f"All at once, 2.5 standard deviations either way: {listed}.",
                moving,
                kind="gif",
            ),
            Picture(f"Along {name}", "The same walks as strips.", figures.to_png(strips)),
        ]
    return pictures


def traversal_codes(z: np.ndarray, direction: np.ndarray, spread: float, num: int) -> np.ndarray:
    """Return codes `[num, latent_dim]` that walk along a direction through a code.

    Args:
      z: `[latent_dim]`, where to walk.
      direction: `[latent_dim]` unit vector.
      spread: standard deviation of the codes along it; the walk spans 2.5 of them either way.
      num: how many codes.
    """
    steps = np.linspace(-_REACH, _REACH, num) * spread
    return z + (steps[:, None] - z @ direction) * direction
