"""The figures of a report, in the order they are read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import special

from avae_jax import figures
from avae_jax.evaluation.html import Picture
from avae_jax.evaluation.latent import LatentArrays
from avae_jax.evaluation.material import Material, sampled_by
from avae_jax.evaluation.record import metrics_of
from avae_jax.metrics import hole_points, nearest_training_neighbor, radial_ks
from avae_jax.priors import PriorUnits
from avae_jax.training.terms import terms_of

_MOST_WALKS = 10
# A walk spans so many standard deviations of the codes either way, in so many images.
_REACH, _NUM_FRAMES = 2.5, 24
# Images whose root mean square difference is a smaller share of their range look alike.
_SEEN = 0.01
# Images along a side of the decoded plane.
_NUM_PER_SIDE = 16


def draw_quick(
    material: Material, arrays: LatentArrays, samples: Mapping[str, np.ndarray]
) -> dict[str, list[Picture]]:
    """Draw what every run keeps in its folder: heading -> pictures.

    Args:
      material: what was evaluated.
      arrays: of the latent space.
      samples: name -> decoded draws.
    """
    return {
        **draw_images(material, samples),
        "The latent space against the prior": _latent(material, arrays),
        "Training": _training(material),
    }


def draw_images(material: Material, samples: Mapping[str, np.ndarray]) -> dict[str, list[Picture]]:
    """Draw samples and reconstructions alone: heading -> pictures.

    Args:
      material: what was evaluated.
      samples: name -> decoded draws.
    """
    return {"Samples and reconstructions": _images(material, samples)}


def draw(
    material: Material,
    arrays: LatentArrays,
    samples: Mapping[str, np.ndarray],
    curves: Mapping[str, Any],
    directions: Mapping[str, np.ndarray],
) -> dict[str, list[Picture]]:
    """Draw everything: heading -> pictures.

    Args:
      material: what was evaluated.
      arrays: of the latent space.
      samples: name -> decoded draws.
      curves: name -> (precision, recall).
      directions: factor -> direction `[latent_dim]` found for it; empty without factors.
    """
    images, latent, training = draw_quick(material, arrays, samples).items()
    if curves:
        caption = (
            "Upper right is perfect. Precision: samples that look like data; recall: data the "
            "samples cover. The dashed floor is what training images reach."
        )
        figure = figures.make_prd(curves)
        images[1].append(_png("Precision and recall of the samples", caption, figure, width=460))
    latent[1].extend(_directions(arrays))
    drawn = dict([images, latent])
    if material.is_images:
        drawn["Holes: draws of the prior farthest from all codes"] = _holes(material, arrays)
        drawn["Walks through the latent space"] = _walks(material, arrays, directions)
    return {**drawn, training[0]: training[1]}


def _png(title: str, caption: str, figure, **options) -> Picture:
    return Picture(title, caption, figures.to_png(figure), **options)


def _images(material: Material, samples) -> list[Picture]:
    value_range, prior = material.value_range, material.run.prior()
    words, fitted = prior.describe().replace("^2", "²"), "the codes' mean and covariance"
    own = sampled_by(material.run)
    shown, other, beside = samples[own][:36], "", samples[own][:36]
    if own == "claimed":
        title, noun = f"claimed: {words}", f"the prior the run claims, {words}"
    else:
        title, noun = fitted, f"a Gaussian with {fitted}: the method aims them at none"
    groups = {title: shown}
    if "standard_normal" in samples:
        other, beside = "N(0, I)", samples["standard_normal"][:36]
    elif own == "claimed" and "gaussian" in samples and prior.is_gaussian:
        other, beside = fitted, samples["gaussian"][:36]
    caption = f"Decoded draws of {noun}"
    if other and _look_alike(shown, beside, value_range):
        caption += f"; those of {other} look the same and are left out"
    elif other:
        groups[other] = beside
        caption += f", beside {other}; the same noise in both"
    drawn = figures.make_samples(groups, value_range=value_range)
    pairs = figures.make_reconstructions(
        material.x, material.x_recon, value_range=value_range, labels=material.labels
    )
    of_split = f"Images of the {material.split} split over what the model makes of them."
    return [
        _png("Samples", f"{caption}.", drawn, file="samples"),
        _png("Reconstructions", of_split, pairs, file="reconstructions"),
    ]


def _look_alike(x: np.ndarray, y: np.ndarray, value_range) -> bool:
    """Return whether decoded draws of one noise differ by less than an eye sees."""
    low, high = value_range or (float(x.min()), float(x.max()))
    return float(np.sqrt(np.mean(np.square(x - y)))) < _SEEN * (high - low)


def _latent(material: Material, arrays: LatentArrays) -> list[Picture]:
    units, std = arrays.units, arrays.prior_std
    note = "" if units.is_isotropic else f" In units of {material.run.prior().describe()}."
    circle = std if units.is_gaussian else None
    over = " over the circles that hold 50, 90 and 99% of the prior" if circle else ""
    scatter = figures.make_latent_scatter(arrays.z, labels=material.labels, prior_std=circle)
    covariance = figures.make_covariance(arrays.z, prior_std=std)
    caption = f"Of the codes, and its eigenvalues over the range of chance.{note}"
    pictures = [
        _png("Plane of largest variance", f"Codes{over}.{note}", scatter, width=640,
             file="latent_scatter"),
        *_plane(material, units),
        _png("Covariance", caption, covariance, file="covariance"),
    ]  # fmt: skip
    if circle:
        ks = radial_ks(arrays.z, scale=std)
        distance = (ks["radial_ks"], ks["radial_ks_null"])
        figure = figures.make_radius_histogram(arrays.z, prior_std=std, distance=distance)
        caption = (
            "In many dimensions the prior lies in a thin shell; codes elsewhere are never sampled."
        )
        pictures.append(_png("Radius", caption + note, figure, width=600, file="radius"))
    return pictures


def _plane(material: Material, units: PriorUnits) -> list[Picture]:
    """Draw what two dimensions decode to, at equal steps of the prior's probability."""
    if not material.is_images or material.z.shape[1] != 2:
        return []
    # As Kingma and Welling (2014, appendix A) show theirs, and the axes of the scatter.
    z = special.ndtri((np.arange(_NUM_PER_SIDE) + 0.5) / _NUM_PER_SIDE)
    codes = units.back(np.stack(np.meshgrid(z, z), axis=-1).reshape(-1, 2))
    positions = units.prior.std() * z if units.is_isotropic else z
    decoded = material.run.decode(codes)
    images = decoded.reshape(_NUM_PER_SIDE, _NUM_PER_SIDE, *decoded.shape[1:])
    figure = figures.make_latent_grid(images, positions, value_range=material.value_range)
    caption = (
        "What every place of the plane decodes to, in steps of equal probability of the prior: "
        "each image stands for as many of its draws."
    )
    return [_png("Decoded plane", caption, figure, width=640, file="latent_grid")]


def _directions(arrays: LatentArrays) -> list[Picture]:
    spectrum = figures.make_spectrum(
        arrays.eigenvalues, prior_std=arrays.prior_std, relevance=arrays.relevance
    )
    caption = "Variance of the codes by direction, and how many directions the decoder listens to."
    pictures = [_png("Spectrum", caption, spectrum)]
    d = arrays.z.shape[1]
    if d <= 2:
        # There is no other plane than the one of the scatter.
        return pictures
    planes: dict[str, Any] = {"axes 1 and 2": np.eye(d)[:2], "least variance": arrays.vectors.T[:2]}
    caption = "Two axes, and the directions of least variance."
    if arrays.worst_plane is not None:
        planes["emptiest disc"] = arrays.worst_plane
        caption = "The last one is the plane with the emptiest disc: a hole would show there."
    circle = arrays.prior_std if arrays.units.is_gaussian else None
    figure = figures.make_planes(arrays.z, planes, prior_std=circle)
    return [_png("Other planes", caption, figure), *pictures]


def _training(material: Material) -> list[Picture]:
    rows = metrics_of(material.run)
    if len(rows) < 2:
        return []
    # How fast it ran is no property of the model.
    terms = {**terms_of(material.run.method), "images_per_second": None}
    curves = figures.make_training_curves(rows, terms=terms)
    caption = "What was reported after each epoch; null values dashed."
    return [_png("Training curves", caption, curves, file="training_curves")]


def _holes(material: Material, arrays: LatentArrays) -> list[Picture]:
    units = arrays.units
    z = units.to(material.z)
    k, sample = min(5, len(z)), units.stand_in(22)
    far = hole_points(z, sample=sample, seed=material.seed, k=k, num_points=12)
    decoded = material.run.decode(units.back(far.points))
    _, nearest = nearest_training_neighbor(far.points, z)
    rows = {"decoded": decoded, "nearest code": material.x_recon[nearest[:, 0]]}
    distances = ", ".join(f"{ratio:.2f}" for ratio in far.ratios)
    caption = (
        "Draws of the prior with the fewest codes around them, and the reconstruction nearest to "
        f"each. Distance relative to that between draws of the prior: {distances}."
    )
    gallery = figures.make_gallery(rows, value_range=material.value_range)
    return [_png("Where no code is near", caption, gallery)]


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
        caption = f"All at once, {_REACH} standard deviations of the codes either way."
        pictures += [
            Picture(f"Along {name}, moving", caption, moving, kind="gif"),
            _png(f"Along {name}", "The same walks as strips.", strips),
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
