"""ELBO surgery and the importance-weighted bound, for encoders with a posterior."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import Partial

from avae_jax import metrics
from avae_jax.evaluation.material import Material, thinned
from avae_jax.posteriors import DiagonalGaussian
from avae_jax.priors import is_standard

NOT_COMPUTED = (
    "not computed: a deterministic encoder has no posterior, and I(x; z) is the logarithm of the "
    "number of images whatever the codes are"
)
NOT_GAUSSIAN = "not computed: it is taken apart for posteriors of one Gaussian only"

# The bound costs as many decodings per image as it has draws.
_BOUND_IMAGES = 200


def describe_likelihood(
    material: Material, say: Callable[[str], None] = lambda line: None, *, num_samples: int = 500
) -> dict[str, Any] | str:
    """Take the ELBO of a stochastic encoder apart and bound the likelihood from below.

    Args:
      material: what is evaluated.
      say: receives a line of progress.
      num_samples: draws per image for the importance-weighted bound, 200 images.

    Returns:
      "surgery" over all images of the split and "bound"; or why there are none.
    """
    run, method, posterior = material.run, material.run.method, material.posterior
    if not method.is_stochastic:
        return NOT_COMPUTED
    if not isinstance(posterior, DiagonalGaussian):
        return NOT_GAUSSIAN

    # Of the weights too, with which other runs of the configuration need no other program.
    def encode(variables, x):
        found: Any
        found, _ = method.encode(variables, method.prepare(x), train=False)
        return found.loc, found.log_var

    @jax.jit
    def log_likelihood(variables, x, z):
        outputs, _ = method.decode(variables, z, train=False)
        return -method.likelihood(variables).nll(x, outputs)

    def log_prob(variables, z):
        return method.prior(variables).log_prob(z)

    recon_log_prob = Partial(log_likelihood, run.variables)
    is_normal = is_standard(method.prior(run.variables))
    log_prior = None if is_normal else Partial(log_prob, run.variables)

    say("ELBO surgery")
    surgery = metrics.elbo_surgery(
        posterior.loc,
        posterior.log_var,
        recon_log_prob=run.map_rows(recon_log_prob, material.x, material.z),
        log_prior=log_prior,
        seed=material.seed,
    )
    say(f"importance-weighted bound, {num_samples} draws per image")
    images = thinned(material.x, _BOUND_IMAGES)
    bound = metrics.iwae_bound(
        images,
        encode=Partial(encode, run.variables),
        log_likelihood=recon_log_prob,
        log_prior=log_prior,
        num_samples=num_samples,
        seed=material.seed,
    )
    return {
        "surgery": {"n": len(material.x), **surgery},
        "bound": {"n": len(images), "num_samples": num_samples, **bound},
    }
