"""DIP-VAE: its two variants."""

import jax
import numpy as np
import pytest

from avae_jax import losses


@pytest.mark.parametrize(
    ("fields", "weights"),
    [
        ({"variant": "I"}, (10.0, 100.0)),
        ({"variant": "I", "lambda_od": 2.0}, (2.0, 20.0)),
        ({"variant": "II", "lambda_od": 2.0}, (2.0, 2.0)),
        ({"variant": "II", "lambda_od": 2.0, "lambda_d": 7.0}, (2.0, 7.0)),
    ],
)
def test_the_variant_says_what_weights_are_left_out(fields, weights, build):
    method = build(method="dip_vae", **fields)
    assert method.options.weights == weights


@pytest.mark.parametrize("variant", ["I", "II"])
def test_the_loss_is_of_the_variant_s_covariance(variant, build, make_batch):
    method = build(method="dip_vae", variant=variant, lambda_od=2.0)
    batch, variables = make_batch(method), method.init(jax.random.key(0))
    key = jax.random.key(7)

    @jax.jit
    def forward(variables):
        output = method.losses(variables, (), batch, key, step=0, train=False)
        posterior, _ = method.encode(variables, batch.x, train=False)
        log_var = posterior.log_var if variant == "II" else None
        return output, losses.covariance_departures(posterior.loc, log_var)

    output, want = forward(variables)
    got = output.terms["off_diagonal"], output.terms["diagonal"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    means = {name: float(np.mean(term)) for name, term in output.terms.items()}
    loss = float(np.mean(output.losses["model"]))
    assert method.criterion(means) == pytest.approx(loss, rel=1e-5)


def test_the_variant_that_can_collapse_is_warned(build):
    """Posteriors N(0, I) have the covariance of the prior; means that are all 0 have not."""
    x = np.random.default_rng(0).random((50, 4, 4, 1)).astype(np.float32)
    assert build(method="dip_vae", noise_scale=50.0).introduce(x)
    assert not build(method="dip_vae", variant="I", noise_scale=50.0).introduce(x)
