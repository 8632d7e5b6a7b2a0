"""The methods: what each asks of the networks and how it scores a validation split.

A method is one function here and one line in `METHODS`; the training loop knows no other
difference between them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from avae_jax import losses, models
from avae_jax.losses.avae import kl_weight
from avae_jax.training.autoencoder import Autoencoder, Variables
from avae_jax.training.config import Config, max_cdf
from avae_jax.training.sharding import BATCH_AXIS, spreads_bank

Forward = Callable[..., tuple[jax.Array, dict[str, jax.Array], jax.Array, Variables]]


@dataclasses.dataclass(frozen=True)
class Context:
    """What a method may use beside the batch.

    Attributes:
      key: the step's random key.
      beta: divides the reconstruction term (avae), scalar.
      centers: codes of the density estimate, `[num_centers, latent_dim]`, or None.
      exclude: `[batch]` rows of `centers` that hold the batch's own codes, -1 for none, or None.
    """

    key: jax.Array
    beta: jax.Array
    centers: jax.Array | None = None
    exclude: jax.Array | None = None


@dataclasses.dataclass(frozen=True)
class Objective:
    """A method bound to its networks and hyper-parameters.

    Attributes:
      forward: `(variables, x, context, *, train) -> (per_example [batch], terms, z, batch_stats)`.
      score: `(mean terms of a split, beta) -> float`, the yardstick that picks checkpoints and
        drives the step size; lower is better.
      uses_centers: whether the method needs the codes of other images.
      measures_beta: whether beta follows the validation error.
    """

    forward: Forward
    score: Callable[[dict[str, float]], float]
    uses_centers: bool
    measures_beta: bool


def make_objective(
    config: Config, model: Autoencoder, *, mesh: Mesh, bandwidth: float | None
) -> Objective:
    """Bind a configuration's method to its networks."""
    return METHODS[config.objective.method](config, model, mesh=mesh, bandwidth=bandwidth)


def _make_avae(
    config: Config, model: Autoencoder, *, mesh: Mesh, bandwidth: float | None
) -> Objective:
    if bandwidth is None:
        raise ValueError("bandwidth is missing: method avae needs the one of find_bandwidth")
    objective = config.objective
    rows, whole = PartitionSpec(BATCH_AXIS), PartitionSpec()
    weight = kl_weight(objective.weight)
    spread = spreads_bank(mesh, config.centers.num_centers)

    # Under shard_map each device streams its centers past the queries: the partitioner does not
    # see inside a loop what needs no collective.
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(rows, rows, rows, rows if spread else whole, whole, rows),
        out_specs=rows,
        check_vma=False,
    )
    def loss(x, x_recon, z, centers, beta, exclude):
        return losses.avae(
            x,
            x_recon,
            z,
            centers,
            bandwidth=bandwidth,
            beta=beta,
            weight=weight,
            tail=objective.tail,
            max_cdf=max_cdf(config) if objective.tail == "official" else None,
            likelihood=objective.likelihood,
            exclude=exclude,
            axis_name=BATCH_AXIS if spread else None,
            queries_sharded=spread,
        )

    def forward(variables, x, context, *, train):
        z, encoder_stats = model.encode(variables, x, train=train)
        x_recon, decoder_stats = model.decode(variables, z, train=train)
        exclude = context.exclude
        if exclude is None:
            exclude = jnp.full(x.shape[0], -1, jnp.int32)
        per_example, terms = loss(x, x_recon, z, context.centers, context.beta, exclude)
        return per_example, terms, z, {"encoder": encoder_stats, "decoder": decoder_stats}

    def score(terms):
        # With beta = sqrt(R) the gradient of R / beta is that of 2 sqrt(R): this is the quantity
        # a moving beta descends, and it is comparable between epochs while R / beta is not.
        reconstruction = terms["reconstruction"]
        if objective.beta is None:
            scaled = 2 * math.sqrt(max(reconstruction, 0.0))
        else:
            scaled = reconstruction / objective.beta
        return scaled + weight * terms["kl"]

    return Objective(forward, score, uses_centers=True, measures_beta=objective.beta is None)


def _make_vae(
    config: Config, model: Autoencoder, *, mesh: Mesh, bandwidth: float | None
) -> Objective:
    objective = config.objective
    # check_config refuses a beta-VAE without a number.
    beta = 1.0 if objective.method == "vae" else cast(float, objective.beta)

    def forward(variables, x, context, *, train):
        head, encoder_stats = model.encode(variables, x, train=train)
        loc, log_var = models.split_gaussian(head)
        z = models.sample_gaussian(context.key, loc, log_var)
        x_recon, decoder_stats = model.decode(variables, z, train=train)
        per_example, terms = losses.beta_elbo(
            x,
            x_recon,
            loc,
            log_var,
            beta=beta,
            likelihood=objective.likelihood,
            noise_scale=objective.noise_scale,
        )
        return per_example, terms, loc, {"encoder": encoder_stats, "decoder": decoder_stats}

    def score(terms):
        return terms["nll"] + beta * terms["kl"]

    return Objective(forward, score, uses_centers=False, measures_beta=False)


def _make_ae(
    config: Config, model: Autoencoder, *, mesh: Mesh, bandwidth: float | None
) -> Objective:
    likelihood = config.objective.likelihood

    def forward(variables, x, context, *, train):
        z, encoder_stats = model.encode(variables, x, train=train)
        x_recon, decoder_stats = model.decode(variables, z, train=train)
        reconstruction = losses.reconstruction_loss(x, x_recon, likelihood=likelihood)
        terms = {"reconstruction": reconstruction}
        return reconstruction, terms, z, {"encoder": encoder_stats, "decoder": decoder_stats}

    return Objective(
        forward, lambda terms: terms["reconstruction"], uses_centers=False, measures_beta=False
    )


METHODS: dict[str, Callable[..., Any]] = {
    "avae": _make_avae,
    "vae": _make_vae,
    "beta_vae": _make_vae,
    "ae": _make_ae,
}
