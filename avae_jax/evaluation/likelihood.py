"""ELBO surgery and the importance-weighted bound, for encoders with a posterior."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax import losses, metrics, models
from avae_jax.evaluation.material import Material, evenly

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
    run = material.run
    if not run.model.stochastic:
        return NOT_COMPUTED
    say("ELBO surgery")
    objective = run.config.objective

    def posterior(x):
        head, _ = run.model.encode(run.variables, x, train=False)
        return models.split_gaussian(head)

    def log_likelihood(x, z):
        x_recon, _ = run.model.decode(run.variables, z, train=False)
        zeros = jnp.zeros_like(z)
        _, terms = losses.elbo(
            x, x_recon, zeros, zeros,
            likelihood=objective.likelihood, noise_scale=objective.noise_scale,
        )  # fmt: skip
        return -terms["nll"]

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
