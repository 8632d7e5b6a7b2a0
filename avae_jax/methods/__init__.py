"""The methods: one file each, and one line in `METHODS`.

::

    method.py      Options -> Method: what training, evaluation and the command line know
      |               Batch in, Output out; Player, Setting, Host
      +-- networks.py   named Linen modules as pure functions of their variables
      +-- terms.py      how numbers that several methods report are shown
      |
      +-- matching.py   what those share that match a batch of codes with the prior
      |     +-- wae.py          by a maximum mean discrepancy
      |     +-- swae.py         along random directions, sorted
      |     +-- sinkhorn_ae.py  by entropic optimal transport
      |     +-- cwae.py         along all directions, smoothed
      |     +-- sigreg.py       along random directions, by characteristic functions
      |     +-- energy_ae.py    by the energy distance
      |
      +-- ae.py         points
      +-- avae.py       points, whose density is pulled to the prior; remembers a bank and beta
      |     +-- bank.py    codes of other images
      +-- vae.py        a posterior per image, pulled to a prior that may be learned
            +-- beta_vae.py
            +-- info_vae.py     its KL traded for a maximum mean discrepancy
            +-- factor_vae.py   two players
            +-- mvae.py         two views
"""

from avae_jax.methods import (
    ae,
    avae,
    beta_vae,
    cwae,
    energy_ae,
    factor_vae,
    info_vae,
    mvae,
    sigreg,
    sinkhorn_ae,
    swae,
    vae,
    wae,
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
        avae, vae, beta_vae, info_vae, factor_vae, mvae, ae,
        wae, swae, sinkhorn_ae, cwae, sigreg, energy_ae,
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
