"""All disentanglement scores of one model, each with its noise and ceiling values."""

from collections.abc import Callable, Sequence

import numpy as np

from avae_jax.checks import check_count
from avae_jax.factors import FactorGrid
from avae_jax.metrics.disentanglement.dci import dci
from avae_jax.metrics.disentanglement.directions import (
    factor_vae_score_along,
    find_directions,
    mig_along,
)
from avae_jax.metrics.disentanglement.factor_vae import factor_vae_score
from avae_jax.metrics.disentanglement.grid import CodeLookup, as_lookup
from avae_jax.metrics.disentanglement.mig import mig
from avae_jax.metrics.disentanglement.modularity import modularity
from avae_jax.metrics.disentanglement.sap import sap

# Rows of the noise table; grid points are hashed to them.
_NOISE_ROWS = 2**16


def disentanglement_scores(
    lookup,
    grid: FactorGrid,
    *,
    factors: Sequence[int | str] | None = None,
    num_codes: int = 10_000,
    num_test: int = 5_000,
    num_bins: Sequence[int] = (10, 20),
    num_repeats: int = 100,
    num_votes: int = 1_000,
    num_samples: int = 512,
    with_sap: bool = False,
    with_dci: bool = False,
    make_classifier: Callable | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Compute axis-aligned and rotated disentanglement scores, with their range beside them.

    Each score is computed for three codes by the same steps: the model's, Gaussian noise of its
    latent_dim (`_null`) and the factor values themselves (`_ceiling`). The rotated scores
    (`_along`) fit directions with labels, on other draws than those they are scored on; their noise
    column fits directions to the noise.

    A random rotation of a perfect code keeps most of its FactorVAE score and loses most of its
    MIG: for a prior that is invariant to rotation read `mig_*` beside `mig_along_*`.

    Args:
      lookup: a `CodeLookup`, or the codes of the full grid or a function as it takes.
      grid: the grid.
      factors: names or positions of the factors to score; None means all. The others vary freely.
      num_codes: points behind MIG, modularity and the training of SAP and DCI.
      num_test: points behind the accuracies of SAP and DCI.
      num_bins: MIG and its rotated form are given for each of these numbers of bins.
      num_repeats: of `find_directions`.
      num_votes: of `factor_vae_score_along`.
      num_samples: of `find_directions` and `factor_vae_score_along`.
      with_sap: whether to compute SAP.
      with_dci: whether to compute DCI.
      make_classifier: of `dci`.
      seed: of all draws.

    Returns:
      `factor_vae`, `factor_vae_along`, `mig_10`, `mig_along_10` (the number is that of the bins),
      `modularity` (20 bins), with SAP `sap`, with DCI `dci_disentanglement`, `dci_completeness` and
      `dci_informativeness`; each also with `_null` and `_ceiling`. `factor_vae_stderr`,
      `factor_vae_along_stderr` and, for both, `_null_std`. `num_active` and `num_active_along`.
      NaN where a score is undefined: MIG and SAP of a single code (their ceiling with one
      factor), modularity and rotated MIG for one factor.

    Raises:
      ValueError: an unknown factor or one with a single value; codes of the wrong shape or not
        finite; an option out of range; too few points for `find_directions`.
      TypeError: a count that is no integer.

    Numerics:
      float64. Each point is encoded once. Without SAP and DCI about 7 s of one core at
      10,000 x 128, 1 s at 10,000 x 10. SAP and DCI cost up to three times what they say themselves.
    """
    lookup = as_lookup(lookup, grid)
    positions = grid.positions(factors)
    num_codes = check_count("num_codes", num_codes, minimum=2)
    num_test = check_count("num_test", num_test, minimum=1)
    bins = [check_count("num_bins", number, minimum=2) for number in num_bins]
    rng = np.random.default_rng([seed, 3])
    train, test = grid.sample(rng, num_codes), grid.sample(rng, num_test)
    values, values_test = grid.factors(train)[:, positions], grid.factors(test)[:, positions]

    def estimate(look):
        codes, codes_test = look(train), look(test)
        fit = dict(factors=positions.tolist(), num_samples=num_samples, seed=seed)
        directions = find_directions(look, grid, num_repeats=num_repeats, **fit)
        scores = factor_vae_score(look, grid, factors=positions.tolist(), seed=seed)
        scores |= factor_vae_score_along(look, grid, directions, num_votes=num_votes, **fit)
        for number in bins:
            scores[f"mig_{number}"] = mig(codes, values, num_bins=number, num_null=0)["mig"]
            along = mig_along(codes, values, directions, num_bins=number)["mig_along"]
            scores[f"mig_along_{number}"] = along
        scores |= modularity(codes, values, num_null=0)
        split = codes, values, codes_test, values_test
        if with_sap:
            scores["sap"] = sap(*split)["sap"]
        if with_dci:
            scores |= dci(*split, make_classifier=make_classifier, seed=seed)
        return scores

    scores = estimate(lookup)
    null = estimate(_noise_lookup(grid, lookup.latent_dim, seed))
    ceiling = estimate(_factor_lookup(grid, positions))
    names = ["factor_vae", "factor_vae_along", "modularity"]
    names += [f"{name}_{number}" for number in bins for name in ("mig", "mig_along")]
    names += ["sap"] * with_sap
    names += ["dci_disentanglement", "dci_completeness", "dci_informativeness"] * with_dci
    result = {}
    for name in names:
        result |= {
            name: scores[name],
            f"{name}_null": null[name],
            f"{name}_ceiling": ceiling[name],
        }
    for name in ("factor_vae", "factor_vae_along"):
        for suffix in ("stderr", "null_std"):
            result[f"{name}_{suffix}"] = scores[f"{name}_{suffix}"]
    return result | {name: scores[name] for name in ("num_active", "num_active_along")}


def _noise_lookup(grid: FactorGrid, latent_dim: int, seed: int) -> CodeLookup:
    # A table read at hashed rows: noise for each grid point would take its full memory.
    table = np.random.default_rng([seed, 4]).standard_normal((_NOISE_ROWS, latent_dim))
    table = table.astype(np.float32)
    return CodeLookup(lambda indices: table[_hash(indices) % _NOISE_ROWS], grid, cache=False)


def _factor_lookup(grid: FactorGrid, positions: np.ndarray) -> CodeLookup:
    return CodeLookup(
        lambda indices: grid.factors(indices)[:, positions].astype(np.float64), grid, cache=False
    )


def _hash(indices: np.ndarray) -> np.ndarray:
    """Mix integers with the finaliser of SplitMix64 (Steele et al. 2014), `[n]` to uint64 `[n]`."""
    mixed = indices.astype(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
