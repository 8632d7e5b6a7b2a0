"""The methods: one file each, and one line in `METHODS`.

::

    method.py      Options -> Method: what training, evaluation and the command line know
      |               Batch in, Output out; Player, Setting, Host
      +-- networks.py   named Linen modules as pure functions of their variables
      +-- terms.py      how numbers that several methods report are shown
      +-- critic.py     what methods with a critic share
      |
      +-- ae.py         points, pulled nowhere
      |     +-- rae.py       and a smooth decoder
      |
      +-- avae.py       points, whose density is pulled to the prior; remembers a bank and beta
      |     +-- bank.py      codes of other images
      |     +-- gens.py      by a bounded pull
      |
      +-- matching.py   points of a batch, which a statistic pulls to the prior
      |     +-- wae.py           maximum mean discrepancy
      |     +-- aae.py           a critic: two players
      |     +-- swae.py          projections in order
      |     +-- sinkhorn_ae.py   transport
      |     +-- cwae.py          smoothed projections, all of them
      |     +-- sigreg.py        characteristic functions of projections
      |     +-- energy_ae.py     distances
      |
      +-- vae.py        a posterior per image, pulled to a prior that may be learned
            +-- beta_vae.py       a weight of the KL
            +-- sigma_vae.py      the batch says the noise scale
            +-- annealed_vae.py   the batch's KL is held at a capacity
            +-- beta_tcvae.py     the KL taken apart; may remember posteriors
            +-- factor_vae.py     a critic of dependence: two players
            +-- dip_vae.py        the batch's covariance is pulled to the prior's
            +-- info_vae.py       the batch's discrepancy beside the KL
            +-- iwae.py           several weighted draws per image
            +-- ard_vae.py        a prior whose variances follow the codes
            +-- two_stage_vae.py  a second VAE of the codes
            +-- mvae.py           two views
"""

from avae_jax.methods import (
    aae,
    ae,
    annealed_vae,
    ard_vae,
    avae,
    beta_tcvae,
    beta_vae,
    cwae,
    dip_vae,
    energy_ae,
    factor_vae,
    gens,
    info_vae,
    iwae,
    mvae,
    rae,
    sigma_vae,
    sigreg,
    sinkhorn_ae,
    swae,
    two_stage_vae,
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
        avae, gens, wae, aae, swae, sinkhorn_ae, cwae, sigreg, energy_ae, vae, beta_vae,
        sigma_vae, annealed_vae, beta_tcvae, factor_vae, dip_vae, info_vae, iwae, ard_vae,
        two_stage_vae, mvae, rae, ae,
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
