"""Disentanglement scores of runs on data sets whose factors are known."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from avae_jax.data.factors import FACTORS, load_factors
from avae_jax.evaluation.material import Material
from avae_jax.metrics import disentanglement as scores

Factors = Literal["none", "scores", "dci"]

_SAID_EVERY = 100_000

NOT_COMPUTED = "not computed: the factors of this data set are not known"
SKIPPED = "not computed: skipped by --factors none"


def describe_disentanglement(
    material: Material,
    say: Callable[[str], None] = lambda line: None,
    *,
    factors: Factors = "scores",
) -> tuple[dict[str, Any] | str, dict[str, np.ndarray]]:
    """Score the codes of the full factor grid, along axes and along found directions.

    Metrics draw from the whole grid, images of the training split included, as the literature
    does: what is scored is the code, not its generalisation.

    Args:
      material: what is evaluated.
      say: receives a line of progress.
      factors: "none" to skip, "dci" to train the classifiers of DCI too, minutes for many factor
        values.

    Returns:
      (scores with null and ceiling, or why there are none; factor -> direction `[latent_dim]`).
    """
    name = material.dataset.name
    if name not in FACTORS:
        return NOT_COMPUTED, {}
    if factors == "none":
        return SKIPPED, {}
    grid = FACTORS[name]
    row_of = np.argsort(
        grid.indices(load_factors(name, data_dir=material.run.config.data.data_dir))
    )

    encoded = 0

    def encode(indices):
        nonlocal encoded
        before, encoded = encoded, encoded + len(indices)
        if encoded // _SAID_EVERY > before // _SAID_EVERY:
            say(f"disentanglement: encoded {encoded:,} of {grid.num_points:,} points")
        return material.run.encode(material.dataset.images[row_of[indices]])

    lookup = scores.CodeLookup(encode, grid)
    say("disentanglement: encoding points of the factor grid")
    num_bins = (10,) if material.protocol == "paper" else (10, 20)
    found = scores.disentanglement_scores(
        lookup,
        grid,
        num_bins=num_bins,
        with_dci=factors == "dci",
        with_sap=True,
        seed=material.seed,
    )
    directions = scores.find_directions(lookup, grid, seed=material.seed)
    named = dict(zip(grid.names, directions, strict=True))
    return {"n": 10_000, "split": "full grid", **found}, named
