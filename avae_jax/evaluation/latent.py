"""The latent space of a run: does the aggregate posterior match the prior, and where not.

All but the density is measured in units of the prior, where its mean is 0 and its covariance I. A
Gaussian prior is N(0, I) there, and estimators know their null; another stands for itself by draws.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from avae_jax import metrics
from avae_jax.density import find_bandwidth
from avae_jax.evaluation.material import Material, thinned
from avae_jax.evaluation.verdict import COLLAPSED_SHARE, IGNORED_SHARE, LOCATION_NOTICE
from avae_jax.metrics.checks import prior_generator
from avae_jax.metrics.code_moments import prior_eigenvalues
from avae_jax.metrics.nulls import NUM_NULL, with_null
from avae_jax.priors import PriorUnits, is_standard

# Codes that the test of many bandwidths compares with as many draws.
_MOST_FUSED = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class LatentArrays:
    """What the figures of the latent space are drawn from.

    Attributes:
      z: `[n, latent_dim]`, the codes as they are shown: in their own units where the prior is
        N(0, s^2 I), else in those of the prior.
      prior_std: s in these units.
      units: of the prior.
      eigenvalues: `[latent_dim]` of the covariance of `z`, ascending.
      vectors: `[latent_dim, latent_dim]`, their eigenvectors in columns.
      relevance: `[latent_dim]` the decoder's response by direction, descending, or None.
      directions: `[<= latent_dim, latent_dim]`, those directions in rows, unit length, of the codes
        in their own units.
      worst_plane: `[2, latent_dim]`, the plane with the least even `z`.
    """

    z: np.ndarray
    prior_std: float
    units: PriorUnits
    eigenvalues: np.ndarray
    vectors: np.ndarray
    relevance: np.ndarray | None
    directions: np.ndarray
    worst_plane: np.ndarray | None

    def kept(self) -> dict[str, np.ndarray]:
        """Return all but the units as arrays by name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["units"]
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    @classmethod
    def of(cls, kept: Mapping[str, Any], units: PriorUnits) -> "LatentArrays":
        """Return what `kept` gave, with its units."""
        optional = {"relevance": None, "worst_plane": None}
        prior_std = float(kept["prior_std"])
        return cls(**{**optional, **kept, "units": units, "prior_std": prior_std})


def describe_codes(
    material: Material, say: Callable[[str], None] = lambda line: None, *, quick: bool = False
) -> tuple[dict[str, Any], LatentArrays]:
    """Measure how far the codes are from the prior, each number beside its null.

    Args:
      material: what is evaluated.
      say: receives a line of progress.
      quick: whether to leave out what the verdict does not need.

    Returns:
      (numbers by section, arrays for the figures). Sections "scale", "collapse", "holes" and
      "shape" are what the verdict is made of. A section that the prior does not have says so.
    """
    prior, seed = material.run.prior(), material.seed
    units = PriorUnits.of(prior, seed=seed)
    u = units.to(material.z)
    n, d = u.shape
    mean, (eigenvalues, vectors) = u.mean(axis=0), _spectrum(u)
    numbers: dict[str, Any] = {"n": n, "prior": prior.describe(), "prior_std": prior.std()}
    none = f"not computed: it is defined for one Gaussian as prior, not for {prior.describe()}"

    say("moments, radius, density")
    numbers["density"] = _density(material, units)
    if not units.is_gaussian:
        numbers["density"]["entropy"] = none
    numbers["moments"] = metrics.code_moments(u) | metrics.radial_ks(u)
    if not units.is_gaussian:
        numbers["moments"] = none
    elif not units.is_standard:
        z = material.z.astype(np.float64)
        numbers["moments_against_standard_normal"] = metrics.code_moments(z) | metrics.radial_ks(z)
    if not quick:
        say("distances from the prior, normality and dependence")
        numbers["distances"] = _distances(u, units)
        numbers["normality"] = metrics.mardia(u) | metrics.henze_zirkler(u)
        numbers["dependence"] = metrics.total_correlation(u)
        if units.is_gaussian:
            numbers["dependence"] |= metrics.dimension_kl(u)
        else:
            numbers["normality"] = none
            numbers["dependence"] |= {"dimension_kl": none}

    say("collapse")
    loc_eigenvalues, _ = _spectrum(units.to(material.loc))
    spectrum = metrics.relevance_spectrum(material.run.decode_batch, material.z, seed=seed)
    num_unused = int(np.count_nonzero(loc_eigenvalues < COLLAPSED_SHARE))
    numbers["collapse"] = collapse = {
        "dims": d,
        "num_collapsed": int(np.count_nonzero(eigenvalues < COLLAPSED_SHARE)),
        # Beyond those: draws of a posterior fill directions in which its mean does not move.
        "num_collapsed_means": num_unused,
        **metrics.active_units(material.loc),
        **metrics.count_relevant(spectrum),
    }
    relevance = spectrum.directions if np.all(np.isfinite(spectrum.directions)) else None
    if relevance is not None:
        ignored = np.count_nonzero(relevance < IGNORED_SHARE * relevance.mean())
        collapse["num_ignored"] = max(int(ignored) - num_unused, 0)

    say("holes")
    live = eigenvalues >= COLLAPSED_SHARE
    numbers["scale"] = _scale(mean, eigenvalues, live, n, units)
    white, back = _whiten(u, mean, eigenvalues, vectors, live)
    if units.is_gaussian:
        ratio = numbers["scale"]["live_std_ratio"]
        # A hole moves the mean a little; taking that out would smear its edges over other cells.
        moved = numbers["scale"]["shift"] ** 2 - d / n > LOCATION_NOTICE**2
        rescaled = (u - mean if moved else u) / (ratio if ratio > 0.0 else 1.0)
        numbers["holes"], plane = _holes(rescaled, white, back, units)
    else:
        # Codes with fewer directions than the prior cannot be compared with its draws.
        plane, holes = None, _uncovered(white, units) if live.all() else {}
        numbers["holes"] = {"n": n, **holes, "planes": none}
    numbers["shape"] = _shape(white, units)

    factor = prior.std() if units.is_isotropic else 1.0
    lengths = np.linalg.norm(spectrum.displacements, axis=1, keepdims=True)
    walked = lengths[:, 0] > 0.0
    return numbers, LatentArrays(
        z=material.z if units.is_isotropic else u,
        prior_std=factor,
        units=units,
        eigenvalues=factor**2 * eigenvalues,
        vectors=vectors,
        relevance=relevance,
        directions=spectrum.displacements[walked] / lengths[walked],
        worst_plane=plane,
    )


def _spectrum(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of the codes' covariance, ascending, and its eigenvectors."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(z, rowvar=False)))
    return np.maximum(values, 0.0), vectors


def _density(material: Material, units: PriorUnits) -> dict[str, Any]:
    """Return the KDE's numbers: KL to the trained prior beside its null, the paper's entropy."""
    run, z, centers = material.run, material.z, material.z_train
    d = run.method.latent_dim
    # The bandwidth is that for the centers evaluated with, whatever the run was trained with. What
    # was trained is the density of the smoothed codes; codes that match are draws of `units.prior`.
    target = run.method.prior(run.variables)
    found = find_bandwidth(d, len(centers), seed=material.seed)
    bandwidth = found.h_corr * target.std()
    log_prob = None if is_standard(target) else target.log_prob
    kl = metrics.kde_kl(z, centers, bandwidth=bandwidth, log_prob=log_prob)
    sample = _sampler(units, 1)
    null = metrics.kde_kl_null(
        lambda count: units.back(sample(count)),
        num_codes=len(z),
        num_centers=len(centers),
        bandwidth=bandwidth,
        log_prob=log_prob,
    )
    unit = math.log(10.0) if material.protocol == "paper" else 1.0
    name = "kde_kl_log10" if material.protocol == "paper" else "kde_kl"
    numbers = {
        name: kl["kl"] / unit,
        f"{name}_stderr": kl["stderr"] / unit,
        f"{name}_null": null["null"] / unit,
        f"{name}_null_std": null["null_std"] / unit,
        # In nats whatever the protocol: what the verdict reads. The codes' own centers, and those
        # of the null, err too.
        "kl_excess_nats": kl["kl"] - null["null"],
        "kl_excess_nats_stderr": math.hypot(kl["stderr"], null["centers_std"], null["null_stderr"]),
        "num_centers": len(centers),
        "bandwidth": bandwidth,
    }
    if units.is_gaussian:
        numbers |= metrics.whitened_entropy(z, h_opt=found.h_opt, seed=material.seed)
    return numbers


def _distances(u: np.ndarray, units: PriorUnits) -> dict[str, float]:
    """Return the two-sample metrics of the codes, against N(0, I) or draws of the prior."""
    sample = units.stand_in(2)
    options = {"reference": sample and sample(len(u)), "seed": units.seed}
    found = metrics.sliced_w2(u, **options) | metrics.max_sliced_w2(u, **options)
    for kernel in ("rbf", "imq"):
        values = metrics.mmd(u, kernel=kernel, **options)
        found |= {f"mmd_{kernel}{key.removeprefix('mmd')}": x for key, x in values.items()}
    found |= metrics.energy_distance(u, **options) | metrics.knn_kl(u, **options)
    # All pairs of both sets at once: of many codes some are enough.
    some = thinned(np.arange(len(u)), _MOST_FUSED)
    fused = {**options, "reference": sample and sample(len(some))}
    found |= metrics.mmd_fuse(u[some], **fused) | {"mmd_fuse_num_codes": len(some)}
    return found | metrics.c2st(u, **options)


def _whiten(u, mean, eigenvalues, vectors, live) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes with unit covariance in the directions in use, and how they lie.

    Where all are in use the axes are kept as they are (the symmetric root), so that a hole along
    two axes stays there.
    """
    root = (u - mean) @ (vectors[:, live] / np.sqrt(eigenvalues[live]))
    if live.all():
        return root @ vectors.T, np.eye(len(live))
    return root, vectors[:, live]


def _sampler(units: PriorUnits, stream: int) -> Callable[[int], np.ndarray]:
    """Return a function that draws so many codes, in units of the prior; others at each call."""
    if not units.is_gaussian:
        return units.sampler(stream)
    rng = prior_generator(units.seed, stream=stream)
    return lambda n: rng.standard_normal((n, len(units.loc)))


def _draws_like(n: int, d: int, units: PriorUnits, stream: int) -> np.ndarray:
    """Return n draws of the prior in `d` of its dimensions."""
    if units.is_gaussian:
        return prior_generator(units.seed, stream=stream).standard_normal((n, d))
    return units.sampler(stream)(n)[:, :d]


def _scale(mean, eigenvalues, live, n: int, units: PriorUnits) -> dict[str, Any]:
    """Return the codes' standard deviations relative to the prior's, directions in use only."""
    d, num_live = len(eigenvalues), int(live.sum())
    stds = np.sqrt(eigenvalues[live]) if num_live else np.array([math.nan])
    null = np.sqrt(np.maximum(_null_spectra(n, len(stds), units), 1e-12))
    return {
        "n": n,
        "claimed": units.prior.std(),
        "is_gaussian": units.is_gaussian,
        "dims": d,
        "live_dims": num_live,
        "live_std_ratio": float(np.sqrt(np.mean(np.square(stds)))),
        "live_std_ratio_null": 1.0,
        "live_std_min": float(stds.min()),
        "live_std_max": float(stds.max()),
        # The mean of n draws lies sqrt(d / n) from the center.
        "shift": float(np.linalg.norm(mean)),
        "shift_null": math.sqrt(d / n),
        **with_null("unevenness", _spread(stds), [_spread(draw) for draw in null]),
    }


def _null_spectra(n: int, d: int, units: PriorUnits) -> np.ndarray:
    """Return eigenvalues of the covariances of draws of the prior, `[NUM_NULL, d]`."""
    if units.is_gaussian:
        rng = prior_generator(units.seed, stream=17)
        return prior_eigenvalues(n, d, num_draws=NUM_NULL, rng=rng)
    sample = units.sampler(17)
    return np.array([_spectrum(sample(n)[:, :d])[0] for _ in range(NUM_NULL)])


def _spread(stds: np.ndarray) -> float:
    """Return the root mean square of the logarithms of standard deviations about their mean."""
    return float(np.std(np.log(stds)))


def _shape(white: np.ndarray, units: PriorUnits) -> dict[str, Any]:
    """Compare codes without location and scale with draws that were whitened like them."""
    n, d = white.shape
    if not d or n <= 2 * d or (not units.is_gaussian and d < len(units.loc)):
        return {}
    draws = _draws_like(n, d, units, 18)
    draws, _ = _whiten(draws, draws.mean(axis=0), *_spectrum(draws), np.ones(d, bool))
    sample = units.stand_in(19)
    options = {"reference": sample and sample(n), "num_null": 1, "seed": units.seed}
    measures: dict[str, Callable] = {
        "max_sliced_w2": lambda x: metrics.max_sliced_w2(x, **options),
        **({"radial_ks": metrics.radial_ks} if units.is_gaussian else {}),
    }
    shape: dict[str, Any] = {"n": n, "dims": d}
    for name, measure in measures.items():
        # Not the numbers of these names on the codes as they are.
        shape[f"whitened_{name}"] = measure(white)[name]
        shape[f"whitened_{name}_null"] = measure(draws)[name]
    return shape


def _uncovered(white: np.ndarray, units: PriorUnits) -> dict[str, float]:
    """Return which part of the prior has no code near it."""
    covered = metrics.prior_coverage(white, sample=units.stand_in(20), seed=units.seed)
    return covered | metrics.far_prior_share(white, sample=units.stand_in(21), seed=units.seed)


def _holes(rescaled, white, back, units: PriorUnits) -> tuple[dict[str, Any], np.ndarray | None]:
    """Search codes for holes: rescaled by one number, and with unit covariance.

    A wrong scale is named by itself. A hole changes the covariance too, so that it can vanish in
    whitened codes; without whitening a narrow direction looks like one.
    """
    n, d = white.shape
    holes: dict[str, Any] = {"n": n}
    if d >= 1:
        holes |= _uncovered(white, units)
    if d < 2:
        return holes, None
    rings, sectors = _cells(n)
    cells: dict[str, Any] = {"num_rings": rings, "num_sectors": sectors, "seed": units.seed}
    holes |= metrics.plane_holes(white, **cells)
    holes["plane_num_cells"] = rings * sectors
    raw = metrics.plane_holes(rescaled, **cells)
    for end in ("", "_null", "_null_std"):
        holes[f"plane_min_fill_rescaled{end}"] = raw[f"plane_min_fill{end}"]
    if not math.isfinite(holes["plane_min_fill"]):
        return holes, None
    if raw["plane_min_fill"] < holes["plane_min_fill"]:
        plane = metrics.worst_plane(rescaled, **cells).directions
    else:
        plane = metrics.worst_plane(white, **cells).directions @ back.T
    return holes, np.linalg.qr(plane.T)[0].T


def _cells(n: int) -> tuple[int, int]:
    """Return rings and sectors, for about 30 codes per cell: of fewer, one is empty by chance."""
    for rings, sectors in ((6, 8), (4, 6), (3, 4)):
        if n >= 28 * rings * sectors:
            return rings, sectors
    return 2, 4
