"""The methods: one file each, and one line in `METHODS`.

::

    method.py      Options -> Method: what training, evaluation and the command line know
      |               Batch in, Output out; Player, Setting, Host
      +-- networks.py   named Linen modules as pure functions of their variables
      +-- terms.py      how numbers that several methods report are shown
      |
      +-- matching.py   what those share that match a batch of codes with the prior
      |
      +-- critic.py     what those share whose second player is a critic of the codes
      |
      +-- ae.py         points
      |     +-- rae.py     with a smooth decoder
      +-- aae.py        points that a critic holds to the prior; two players
      +-- avae.py       points, whose density is pulled to the prior; remembers a bank and beta
      |     +-- bank.py    codes of other images
      |     +-- gens.py    under another divergence
      +-- vae.py        a posterior per image, pulled to a prior that may be learned
            +-- beta_vae.py
            +-- ard_vae.py      a prior as wide as the codes, axis by axis
            +-- two_stage_vae.py   a second VAE of the codes; two players
            +-- factor_vae.py   two players
            +-- mvae.py         two views
"""

from avae_jax.methods import (
    aae,
    ae,
    ard_vae,
    avae,
    beta_vae,
    factor_vae,
    gens,
    mvae,
    rae,
    two_stage_vae,
    vae,
)
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
    for module in (
        avae, vae, beta_vae, factor_vae, mvae, ae, aae, rae, gens, ard_vae, two_stage_vae,
    )
}  # fmt: skip
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
