"""The latent space of a run: does the aggregate posterior match the prior, and where not."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from avae_jax import metrics
from avae_jax.density import find_bandwidth, null_kl
from avae_jax.evaluation.material import Material
from avae_jax.evaluation.verdict import COLLAPSED_SHARE, IGNORED_SHARE, LOCATION_NOTICE
from avae_jax.metrics.checks import prior_generator


@dataclasses.dataclass(frozen=True, eq=False)
class LatentArrays:
    """What the figures of the latent space are drawn from.

    Attributes:
      eigenvalues: `[latent_dim]` of the covariance of the codes, ascending.
      vectors: `[latent_dim, latent_dim]`, their eigenvectors in columns.
      relevance: `[latent_dim]` the decoder's response by direction, descending, or None.
      directions: `[<= latent_dim, latent_dim]`, those directions in rows, unit length.
      worst_plane: `[2, latent_dim]`, the plane with the least even codes.
      far_points: `[k, latent_dim]` draws of the prior farthest from all codes.
      far_ratios: `[k]`, their distance to the codes over that to as many draws of the prior.
    """

    eigenvalues: np.ndarray
    vectors: np.ndarray
    relevance: np.ndarray | None
    directions: np.ndarray
    worst_plane: np.ndarray | None
    far_points: np.ndarray
    far_ratios: np.ndarray


def describe_codes(
    material: Material, say: Callable[[str], None] = lambda line: None, *, slow: bool = True
) -> tuple[dict[str, Any], LatentArrays]:
    """Measure how far the codes are from the prior, each number beside its null.

    Args:
      material: what is evaluated.
      say: receives a line of progress.
      slow: whether to train the classifier of the two-sample test.

    Returns:
      (numbers by section, arrays for the figures). Sections "scale", "collapse", "holes" and
      "shape" are what the verdict is made of.
    """
    run, seed = material.run, material.seed
    z = material.z.astype(np.float64)
    n, d = z.shape
    scale = run.prior().std()
    mean = z.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.atleast_2d(np.cov(material.z, rowvar=False)))
    eigenvalues = np.maximum(eigenvalues.astype(np.float64), 0.0)
    numbers: dict[str, Any] = {"n": n, "prior_scale": scale}

    say("moments, radius, density")
    numbers["density"] = _density(material)
    numbers["moments"] = metrics.code_moments(z / scale) | metrics.radial_ks(z, scale=scale)
    if scale != 1.0:
        numbers["moments_against_standard_normal"] = metrics.code_moments(z) | metrics.radial_ks(z)

    say("distances from the prior")
    numbers["distances"] = {
        **metrics.sliced_w2(z, scale=scale, seed=seed),
        **metrics.max_sliced_w2(z, scale=scale, seed=seed),
        **_mmd(z, "rbf", scale, seed),
        **_mmd(z, "imq", scale, seed),
        **metrics.energy_distance(z, scale=scale, seed=seed),
        **metrics.knn_kl(z, scale=scale, seed=seed),
    }
    if slow:
        say("two-sample classifier")
        numbers["distances"] |= metrics.c2st(z, scale=scale, seed=seed)

    say("normality and dependence")
    numbers["normality"] = metrics.mardia(z) | metrics.henze_zirkler(z)
    numbers["dependence"] = metrics.total_correlation(z)
    numbers["dependence"] |= metrics.dimension_kl(z / scale)

    say("collapse")
    loc = material.loc.astype(np.float64)
    loc_eigenvalues = np.linalg.eigvalsh(np.atleast_2d(np.cov(loc, rowvar=False)))
    dead = COLLAPSED_SHARE * scale**2
    num_unused = int(np.count_nonzero(loc_eigenvalues < dead))
    collapse: dict[str, Any] = {
        "dims": d,
        "num_collapsed": int(np.count_nonzero(eigenvalues < dead)),
        # Beyond those: draws of a posterior fill directions in which its mean does not move.
        "num_collapsed_means": num_unused,
        **metrics.active_units(loc),
    }
    collapse |= metrics.relevance(run.decode_batch, material.z, seed=seed)
    spectrum = metrics.relevance_spectrum(run.decode_batch, material.z, seed=seed)
    if np.all(np.isfinite(spectrum.directions)):
        ignored = spectrum.directions < IGNORED_SHARE * spectrum.directions.mean()
        collapse["num_ignored"] = max(int(np.count_nonzero(ignored)) - num_unused, 0)
    numbers["collapse"] = collapse

    say("holes")
    live = eigenvalues >= dead
    numbers["scale"] = _scale(mean, eigenvalues, live, n, scale, seed)
    white, back = _whiten(z, mean, eigenvalues, vectors, live)
    ratio = numbers["scale"]["live_std_ratio"]
    # A hole moves the mean a little; taking that out would smear its edges over other cells.
    moved = numbers["scale"]["shift"] ** 2 - d / n > LOCATION_NOTICE**2
    rescaled = (z - mean if moved else z) / (scale * (ratio if ratio > 0.0 else 1.0))
    numbers["holes"], plane = _holes(rescaled, white, back, seed)
    numbers["shape"] = _shape(white, seed)
    far = metrics.hole_points(z, scale=scale, seed=seed, k=min(5, n))
    lengths = np.linalg.norm(spectrum.displacements, axis=1, keepdims=True)
    walked = lengths[:, 0] > 0.0
    return numbers, LatentArrays(
        eigenvalues=eigenvalues,
        vectors=vectors,
        relevance=spectrum.directions if np.all(np.isfinite(spectrum.directions)) else None,
        directions=spectrum.displacements[walked] / lengths[walked],
        worst_plane=plane,
        far_points=far.points,
        far_ratios=far.ratios,
    )


def _density(material: Material) -> dict[str, Any]:
    """Return the KDE's numbers: KL to the prior beside its null, and the paper's entropy."""
    run, z, centers = material.run, material.z, material.z_train
    d = run.method.latent_dim
    # The bandwidth is that for the centers evaluated with, whatever the run was trained with; the
    # null is that of codes at the scale the run claims.
    bandwidth = find_bandwidth(d, len(centers), seed=material.seed)
    null = null_kl(d, len(centers), bandwidth=bandwidth.h_corr, scale=run.prior().std())
    kl = metrics.kde_kl(z, centers, bandwidth=bandwidth.h_corr)
    unit = math.log(10.0) if material.protocol == "paper" else 1.0
    name = "kde_kl_log10" if material.protocol == "paper" else "kde_kl"
    entropy = metrics.whitened_entropy(z, h_opt=bandwidth.h_opt, seed=material.seed)
    return {
        name: kl["kl"] / unit,
        f"{name}_stderr": kl["stderr"] / unit,
        f"{name}_null": null / unit,
        # In nats whatever the protocol: what the verdict reads.
        "kl_excess_nats": kl["kl"] - null,
        "kl_excess_nats_stderr": kl["stderr"],
        "num_centers": len(centers),
        "bandwidth": bandwidth.h_corr,
        "whitened_entropy": entropy["entropy"],
        "whitened_entropy_null": entropy["null"],
        "whitened_entropy_cap": entropy["cap"],
        "tail_share": entropy["tail_share"],
    }


def _mmd(z, kernel: str, scale: float, seed: int) -> dict[str, float]:
    found = metrics.mmd(z, kernel=kernel, scale=scale, seed=seed)
    return {key.replace("mmd", f"mmd_{kernel}", 1): value for key, value in found.items()}


def _whiten(z, mean, eigenvalues, vectors, live) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes with unit covariance in the directions in use, and how they lie.

    Where all are in use the axes are kept as they are (the symmetric root), so that a hole along
    two axes stays there.
    """
    root = (z - mean) @ (vectors[:, live] / np.sqrt(eigenvalues[live]))
    if live.all():
        return root @ vectors.T, np.eye(len(live))
    return root, vectors[:, live]


def _scale(mean, eigenvalues, live, n, scale, seed) -> dict[str, Any]:
    """Return the codes' standard deviations relative to the prior's, directions in use only."""
    d, num_live = len(eigenvalues), int(live.sum())
    values: dict[str, Any] = {
        "n": n,
        "claimed": scale,
        "dims": d,
        "live_dims": num_live,
        "live_std_ratio": math.nan,
        "live_std_ratio_null": 1.0,
        # The mean of n draws lies sqrt(d / n) from the centre.
        "shift": math.sqrt(float(mean @ mean)) / scale,
        "shift_null": math.sqrt(d / n),
        "unevenness": math.nan,
        "unevenness_null": math.nan,
    }
    if not num_live:
        return values
    stds = np.sqrt(eigenvalues[live]) / scale
    rng = prior_generator(seed, stream=17)
    null = np.linalg.eigvalsh(np.atleast_2d(np.cov(rng.standard_normal((n, num_live)).T)))
    return values | {
        "live_std_ratio": float(np.sqrt(np.mean(np.square(stds)))),
        "live_std_min": float(stds.min()),
        "live_std_max": float(stds.max()),
        "unevenness": _spread(stds),
        "unevenness_null": _spread(np.sqrt(np.maximum(null, 1e-12))),
    }


def _spread(stds: np.ndarray) -> float:
    """Return the root mean square of the logarithms of standard deviations about their mean."""
    return float(np.std(np.log(stds)))


def _shape(white: np.ndarray, seed: int) -> dict[str, Any]:
    """Compare codes without location and scale with draws that were whitened like them."""
    n, d = white.shape
    if not d or n <= 2 * d:
        return {}
    draws = prior_generator(seed, stream=18).standard_normal((n, d))
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(draws, rowvar=False)))
    draws, _ = _whiten(draws, draws.mean(axis=0), values, vectors, np.ones(d, bool))
    shape: dict[str, Any] = {"n": n, "dims": d}
    for name, measure in (
        ("max_sliced_w2", lambda x: metrics.max_sliced_w2(x, num_null=1, seed=seed)),
        ("radial_ks", metrics.radial_ks),
    ):
        shape[name] = measure(white)[name]
        shape[f"{name}_null"] = measure(draws)[name]
    return shape


def _holes(rescaled, white, back, seed) -> tuple[dict[str, Any], np.ndarray | None]:
    """Search codes for holes: rescaled by one number, and with unit covariance.

    A wrong scale is told by itself. A hole changes the covariance too, so that it can vanish in
    whitened codes; without whitening a narrow direction looks like one.
    """
    n, d = white.shape
    holes: dict[str, Any] = {"n": n}
    plane = None
    if d >= 1:
        holes |= metrics.prior_coverage(white, seed=seed)
        holes |= metrics.far_prior_share(white, seed=seed)
    if d >= 2:
        rings, sectors = _cells(n)
        cells: dict[str, Any] = {"num_rings": rings, "num_sectors": sectors, "seed": seed}
        holes |= metrics.plane_holes(white, **cells)
        holes["plane_num_cells"] = rings * sectors
        raw = metrics.plane_holes(rescaled, **cells)
        holes["plane_min_fill_rescaled"] = raw["plane_min_fill"]
        holes["plane_min_fill_rescaled_null"] = raw["plane_min_fill_null"]
        holes["plane_min_fill_rescaled_null_std"] = raw["plane_min_fill_null_std"]
        if math.isfinite(holes["plane_min_fill"]):
            if raw["plane_min_fill"] < holes["plane_min_fill"]:
                plane = _orthonormal(metrics.worst_plane(rescaled, **cells).directions)
            else:
                plane = _orthonormal(metrics.worst_plane(white, **cells).directions @ back.T)
    return holes, plane


def _cells(n: int) -> tuple[int, int]:
    """Return rings and sectors, for about 30 codes a cell: of fewer, one is empty by chance."""
    for rings, sectors in ((6, 8), (4, 6), (3, 4)):
        if n >= 28 * rings * sectors:
            return rings, sectors
    return 2, 4


def _orthonormal(plane: np.ndarray) -> np.ndarray:
    return np.linalg.qr(plane.T)[0].T
