"""ELBO surgery and the importance-weighted bound, for encoders with a posterior."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from avae_jax import metrics
from avae_jax.evaluation.material import Material, evenly
from avae_jax.priors import StandardNormal

NOT_COMPUTED = (
    "not computed: a deterministic encoder has no posterior, and I(x; z) is the logarithm of the "
    "number of images whatever the codes are"
)

# The bound costs as many decodings an image as it has draws.
_BOUND_IMAGES = 200


def describe_likelihood(
    material: Material, say: Callable[[str], None] = lambda line: None, *, num_samples: int = 500
) -> dict[str, Any] | str:
    """Take the ELBO of a stochastic encoder apart and bound the likelihood from below.

    Args:
      material: what is evaluated.
      say: receives a line of progress.
      num_samples: draws an image of the importance-weighted bound, 200 images.

    Returns:
      "surgery" over all images of the split and "bound"; or why there are none.
    """
    run, method = material.run, material.run.method
    if not method.is_stochastic:
        return NOT_COMPUTED
    if not isinstance(run.prior(), StandardNormal):
        return (
            f"not computed: its parts are those of the prior N(0, I), not {run.prior().describe()}"
        )
    say("ELBO surgery")

    def posterior(x):
        found, _ = method.encode(run.variables, x, train=False)
        return found.loc, found.log_var

    def log_likelihood(x, z):
        outputs, _ = method.decode(run.variables, z, train=False)
        return -method.likelihood(run.variables).nll(x, outputs)

    rows = range(0, len(material.x), 256)
    heads = [jax.jit(posterior)(material.x[start : start + 256]) for start in rows]
    loc, log_var = (np.concatenate([np.asarray(head[k]) for head in heads]) for k in (0, 1))
    scored = jax.jit(log_likelihood)
    recon = np.concatenate(
        [
            np.asarray(scored(material.x[start : start + 256], material.z[start : start + 256]))
            for start in rows
        ]
    )
    surgery = metrics.elbo_surgery(loc, log_var, recon_log_prob=recon, seed=material.seed)
    say(f"importance-weighted bound, {num_samples} draws an image")
    images = material.x[evenly(len(material.x), _BOUND_IMAGES)]
    bound = metrics.iwae_bound(
        images,
        encode=posterior,
        log_likelihood=log_likelihood,
        num_samples=num_samples,
        seed=material.seed,
    )
    return {
        "surgery": {"n": len(material.x), **surgery},
        "bound": {"n": len(images), "num_samples": num_samples, **bound},
        "note": "q(z) is the mixture over all images evaluated: over a minibatch of B the mutual "
        "information is bounded by log B",
    }
