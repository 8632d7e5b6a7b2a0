"""The methods: one file each, and one line in `METHODS`.

::

    method.py      Options -> Method: what training, evaluation and the command line know
      |               Batch in, Output out; Player, Setting, Host
      +-- networks.py   named Linen modules as pure functions of their variables
      +-- terms.py      how numbers that several methods report are shown
      |
      +-- matching.py   what those share that match a batch of codes with the prior
      |
      +-- ae.py         points
      +-- avae.py       points, whose density is pulled to the prior; remembers a bank and beta
      |     +-- bank.py    codes of other images
      +-- vae.py        a posterior per image, pulled to a prior that may be learned
            +-- beta_vae.py
            +-- beta_tcvae.py   densities of all codes; may remember posteriors
            +-- factor_vae.py   two players
            +-- mvae.py         two views
"""

from avae_jax.methods import ae, avae, beta_tcvae, beta_vae, factor_vae, mvae, vae
from avae_jax.methods.method import (
    Batch,
    Host,
    Measured,
    Method,
    Options,
    OptionsError,
    Output,
    Player,
    Setting,
)

METHODS: dict[str, type[Options]] = {
    module.Options.name: module.Options
    for module in (avae, vae, beta_vae, beta_tcvae, factor_vae, mvae, ae)
}
"""Name -> its options, which build it."""

DEFAULT: type[Options] = avae.Options

__all__ = [
    "DEFAULT",
    "METHODS",
    "Batch",
    "Host",
    "Measured",
    "Method",
    "Options",
    "OptionsError",
    "Output",
    "Player",
    "Setting",
]
