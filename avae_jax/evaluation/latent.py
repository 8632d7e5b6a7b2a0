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
from avae_jax.evaluation.verdict import IGNORED_SHARE, is_too_few
from avae_jax.metrics.checks import prior_generator
from avae_jax.metrics.code_moments import moment_kl
from avae_jax.metrics.departures import COLLAPSED_SHARE
from avae_jax.metrics.nulls import NUM_NULL
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
      worst_plane: `[2, latent_dim]`, the plane with the emptiest disc, or None.
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
    material: Material,
    say: Callable[[str], None] = lambda line: None,
    *,
    quick: bool = False,
    brief: bool = False,
) -> tuple[dict[str, Any], LatentArrays]:
    """Measure how far the codes are from the prior, each number beside its null.

    Args:
      material: what is evaluated.
      say: receives a line of progress.
      quick: whether to leave out what the verdict does not need.
      brief: whether to leave out distances from the prior, tests of normality and dependence.

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
    moments = metrics.code_moments(u)
    loc = units.to(material.loc)
    loc_eigenvalues, _ = _spectrum(loc)
    # What papers have for a VAE: means stand still where the decoder ignores a direction, and this
    # KL is large, though draws of the posterior fill it as the prior does.
    of_means = moment_kl(float(np.linalg.norm(loc.mean(axis=0))), loc_eigenvalues, n)
    moments["moment_kl_means"] = of_means
    for end in ("null", "null_std"):
        moments[f"moment_kl_means_{end}"] = moments[f"moment_kl_{end}"]
    numbers["moments"] = moments | metrics.radial_ks(u)
    if not units.is_gaussian:
        numbers["moments"] = none
    elif not units.is_standard:
        z = material.z.astype(np.float64)
        numbers["moments_against_standard_normal"] = metrics.code_moments(z) | metrics.radial_ks(z)
    if not (quick or brief):
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

    say("holes and shape")
    live = eigenvalues >= COLLAPSED_SHARE
    white = _whiten(u, mean, eigenvalues, vectors, live)
    plane = None
    numbers["scale"] = {"n": n, "dims": d}
    if not is_too_few(n, d):
        found = metrics.departures(u, sample=units.stand_in(17), seed=seed)
        numbers |= found.sections
        plane = found.plane
    numbers["scale"] |= {"claimed": prior.std(), "is_gaussian": units.is_gaussian}
    numbers["holes"] = {"n": n, **numbers.get("holes", {})}
    if units.is_gaussian:
        # The verdict does not read it.
        is_comparable = live.any() and not quick
    else:
        # Codes with fewer directions than the prior are unlike its draws by that.
        is_comparable = live.all()
    if is_comparable:
        numbers["holes"] |= _uncovered(white, units)
    numbers.setdefault("shape", {})
    if not units.is_gaussian:
        numbers["holes"]["planes"] = none
        numbers["shape"] = _sliced(white, units) if live.all() else {}

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


def _whiten(u, mean, eigenvalues, vectors, live) -> np.ndarray:
    """Return the codes with unit covariance in the directions in use.

    Where all are in use the axes are kept as they are (the symmetric root), so that a hole along
    two axes stays there.
    """
    root = (u - mean) @ (vectors[:, live] / np.sqrt(eigenvalues[live]))
    return root @ vectors.T if live.all() else root


def _sampler(units: PriorUnits, stream: int) -> Callable[[int], np.ndarray]:
    """Return a function that draws so many codes, in units of the prior; others at each call."""
    if not units.is_gaussian:
        return units.sampler(stream)
    rng = prior_generator(units.seed, stream=stream)
    return lambda n: rng.standard_normal((n, len(units.loc)))


def _sliced(white: np.ndarray, units: PriorUnits) -> dict[str, Any]:
    """Compare codes without location and scale with draws that were whitened like them."""
    n, d = white.shape
    if n <= 2 * d:
        return {}
    sample = units.sampler(18)
    options = {"reference": units.sampler(19)(n), "num_null": 1, "seed": units.seed}

    def measure(x: np.ndarray) -> float:
        return metrics.max_sliced_w2(x, **options)["max_sliced_w2"]

    def whiten(x: np.ndarray) -> np.ndarray:
        return _whiten(x, x.mean(axis=0), *_spectrum(x), np.ones(d, bool))

    null = [measure(whiten(sample(n))) for _ in range(NUM_NULL)]
    return {
        "n": n,
        "dims": d,
        "whitened_max_sliced_w2": measure(white),
        "whitened_max_sliced_w2_null": float(np.mean(null)),
        "whitened_max_sliced_w2_null_std": float(np.std(null, ddof=1)),
    }


def _uncovered(white: np.ndarray, units: PriorUnits) -> dict[str, float]:
    """Return which part of the prior has no code near it."""
    covered = metrics.prior_coverage(white, sample=units.stand_in(20), seed=units.seed)
    return covered | metrics.far_prior_share(white, sample=units.stand_in(21), seed=units.seed)
