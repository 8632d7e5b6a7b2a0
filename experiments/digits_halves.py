"""A multimodal VAE on the two halves of the embedded digits: a product of experts.

Paper: Wu and Goodman 2018, arXiv 1802.05335; a small stand-in for its image and label pairs.
Command: `avae train digits_halves`.
Time: half a minute on two CPU cores.
Measured: validation bounds -24.8 nats (both halves), -12.3 (left half alone) and -13.6 (right half
alone); test error .0296 per pixel from both halves, one seed.
"""

from avae_jax.training.config import configure

config = configure(
    dataset="digits",
    architecture="digits",
    method="mvae",
    likelihood="bernoulli",
    latent_dim=8,
    width=2.0,
    num_epochs=60,
    learning_rate=1e-3,
    plateau_patience=15,
)
