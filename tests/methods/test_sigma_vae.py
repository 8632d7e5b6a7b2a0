"""The sigma-VAE: the batch's noise in training, the measured one where images are judged."""

import jax
import numpy as np

from avae_jax import losses


def test_training_takes_the_noise_of_the_batch(build, make_batch):
    method = build(method="sigma_vae")
    batch = make_batch(method, np.array([1] * 12 + [0] * 4))
    variables, key = method.init(jax.random.key(0)), jax.random.key(7)
    output = method.losses(variables, (), batch, key, step=0, train=True)
    posterior, after = method.encode(variables, batch.x, train=True)
    x_recon, _ = method.decode(after, posterior.sample(key), train=True)
    want, terms = losses.sigma_vae(
        batch.x, x_recon, posterior.loc, posterior.log_var, mask=batch.mask
    )
    np.testing.assert_allclose(output.losses["model"], want, rtol=1e-5)
    for name, term in output.terms.items():
        np.testing.assert_allclose(term, terms[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_image_is_judged_by_a_noise_that_does_not_know_it(build, make_batch):
    method = build(method="sigma_vae")
    batch, variables = make_batch(method), method.init(jax.random.key(0))
    output = method.losses(variables, (), batch, jax.random.key(7), step=0, train=False)
    # The first one is 1, before anything is measured.
    want = 0.5 * np.asarray(output.terms["reconstruction"], np.float64) + 8 * np.log(2 * np.pi)
    np.testing.assert_allclose(output.terms["nll"], want, rtol=1e-5)
    assert "likelihood" not in method.players["model"].parts
