"""The latent space of a run: does the aggregate posterior match the prior, and where not."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax import metrics
from avae_jax.density import Bandwidth, find_bandwidth
from avae_jax.evaluation.material import Material
from avae_jax.evaluation.verdict import COLLAPSED_SHARE


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
    scale = run.scale("claimed")
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
    decode = _decoder(run)
    collapse |= metrics.relevance(decode, material.z, seed=seed)
    spectrum = metrics.relevance_spectrum(decode, material.z, seed=seed)
    relevant = collapse["relevant_directions"]
    if math.isfinite(relevant):
        collapse["num_ignored"] = max(d - num_unused - int(relevant), 0)
    numbers["collapse"] = collapse

    say("holes")
    live = eigenvalues >= dead
    white, back = _whiten(z, mean, eigenvalues, vectors, live)
    numbers["holes"], plane = _holes(z, white, back, scale, seed)
    far = metrics.hole_points(z, scale=scale, seed=seed, k=min(5, n))

    ratio = math.sqrt(eigenvalues[live].mean()) / scale if live.any() else math.nan
    numbers["scale"] = {
        "n": n,
        "claimed": scale,
        "live_dims": int(live.sum()),
        "live_std_ratio": ratio,
        "live_std_ratio_null": 1.0,
        "shift": float(np.linalg.norm(mean)) / scale,
        "shift_null": math.sqrt(d / n),
    }
    shape: dict[str, Any] = {}
    if white.shape[1] and n > 2 * white.shape[1]:
        shape |= metrics.max_sliced_w2(white, seed=seed) | metrics.radial_ks(white)
    numbers["shape"] = shape
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
    bandwidth = _bandwidth(material)
    kl = metrics.kde_kl(z, centers, bandwidth=bandwidth.h_corr)
    unit = math.log(10.0) if material.protocol == "paper" else 1.0
    name = "kde_kl_log10" if material.protocol == "paper" else "kde_kl"
    entropy = metrics.whitened_entropy(z, h_opt=bandwidth.h_opt, seed=material.seed)
    return {
        name: kl["kl"] / unit,
        f"{name}_stderr": kl["stderr"] / unit,
        f"{name}_null": bandwidth.null_kl / unit,
        # In nats whatever the protocol: what the verdict reads.
        "kl_excess": kl["kl"] - bandwidth.null_kl,
        "kl_excess_stderr": kl["stderr"],
        "num_centers": len(centers),
        "bandwidth": bandwidth.h_corr,
        "bandwidth_trained_with": None if run.bandwidth is None else run.bandwidth.h_corr,
        "whitened_entropy": entropy["entropy"],
        "whitened_entropy_null": entropy["null"],
        "whitened_entropy_cap": entropy["cap"],
        "tail_share": entropy["tail_share"],
    }


def _mmd(z, kernel: str, scale: float, seed: int) -> dict[str, float]:
    found = metrics.mmd(z, kernel=kernel, scale=scale, seed=seed)
    return {key.replace("mmd", f"mmd_{kernel}", 1): value for key, value in found.items()}


def _bandwidth(material: Material) -> Bandwidth:
    """Return the bandwidth for the centers evaluated with, whatever the run trained with."""
    latent_dim, num_centers = material.run.model.latent_dim, len(material.z_train)
    return find_bandwidth(latent_dim, num_centers, seed=material.seed)


def _decoder(run) -> Callable[[jax.Array], jax.Array]:
    def decode(z):
        x = run.model.decode(run.variables, z, train=False)[0]
        return jax.nn.sigmoid(x) if run.config.objective.likelihood == "bernoulli" else x

    return jax.jit(lambda z: decode(jnp.asarray(z, jnp.float32)))


def _whiten(z, mean, eigenvalues, vectors, live) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes with unit covariance in the directions in use, and how they lie.

    Where all are in use the axes are kept as they are (the symmetric root), so that a hole along
    two axes stays there.
    """
    root = (z - mean) @ (vectors[:, live] / np.sqrt(eigenvalues[live]))
    if live.all():
        return root @ vectors.T, np.eye(len(live))
    return root, vectors[:, live]


def _holes(z, white, back, scale, seed) -> tuple[dict[str, Any], np.ndarray | None]:
    """Search for holes in the rescaled codes: a wrong scale is told by itself."""
    n, d = white.shape
    holes: dict[str, Any] = {"n": n, **metrics.prior_coverage(z, scale=scale, seed=seed)}
    plane = None
    if d >= 1:
        holes |= metrics.far_prior_share(white, seed=seed)
    if d >= 2:
        rings, sectors = _cells(n)
        cells = {"num_rings": rings, "num_sectors": sectors, "seed": seed}
        holes |= metrics.plane_holes(white, **cells)
        holes["plane_num_cells"] = rings * sectors
        if math.isfinite(holes["plane_min_fill"]):
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
