"""How numbers that several methods report are shown."""

from avae_jax.terms import Term

RECONSTRUCTION = Term(caption="Reconstruction", short="recon", log=True)
NLL = Term(caption="Negative log-likelihood", short="nll", unit="nats")
KL = Term(caption="KL", unit="nats", null="null_kl")
