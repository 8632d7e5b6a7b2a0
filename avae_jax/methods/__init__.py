"""The methods: one file each, and one line in `METHODS`."""

from avae_jax.methods import ae, avae, beta_vae, factor_vae, mvae, vae
from avae_jax.methods.method import (
    Batch,
    Host,
    Method,
    Options,
    OptionsError,
    Output,
    Player,
    Setting,
)

METHODS: dict[str, type[Options]] = {
    module.Options.name: module.Options for module in (avae, vae, beta_vae, factor_vae, mvae, ae)
}
"""Name -> its options, which build it."""

DEFAULT: type[Options] = avae.Options

__all__ = [
    "DEFAULT",
    "METHODS",
    "Batch",
    "Host",
    "Method",
    "Options",
    "OptionsError",
    "Output",
    "Player",
    "Setting",
]
