"""What methods share whose second player is a critic of the codes."""

from typing import Any

import jax

from avae_jax.methods.method import Player, require, require_positive
from avae_jax.methods.networks import Network, Networks, Variables
from avae_jax.terms import Term

TERMS = {
    "critic_loss": Term(caption="Critic", short="critic", unit="nats", null="null_critic_loss"),
    "critic_accuracy": Term(caption="Critic is right", short="critic right", unit="%"),
}


def check_critic(options: Any) -> None:
    """Refuse critics that cannot be; they are described by fields of the same names everywhere."""
    require_positive("critic_learning_rate", options.critic_learning_rate)
    for name in ("critic_width", "critic_layers"):
        require(getattr(options, name) >= 1, name, getattr(options, name), "give at least 1")


def make_critic(options: Any, latent_dim: int) -> Network:
    """Return the critic that a method's options describe."""
    from avae_jax.models import MLPCritic

    critic = MLPCritic(width=options.critic_width, num_layers=options.critic_layers)
    return Network(critic, (latent_dim,))


def critic_player(options: Any) -> Player:
    """Return who moves the critic, by Adam with the decay rates 0.5 and 0.9."""
    return Player(
        parts=("critic",), learning_rate=options.critic_learning_rate, adam_betas=(0.5, 0.9)
    )


def judge(
    networks: Networks, variables: Variables, z: jax.Array, *, train: bool, frozen: bool = False
) -> jax.Array:
    """Return the critic's logits `[batch]` of codes.

    Args:
      networks: the critic among them.
      variables: of all networks.
      z: `[batch, latent_dim]`.
      train: as for every network.
      frozen: whether no gradient is to reach the critic, only the codes.
    """
    if frozen:
        critic = jax.lax.stop_gradient(variables["params"]["critic"])
        variables = {**variables, "params": {**variables["params"], "critic": critic}}
    return networks(variables, "critic", z, train=train)[0]
