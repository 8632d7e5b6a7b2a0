"""The multimodal VAE on two halves: the product of experts, and what each half knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.methods.mvae import product_of_experts
from avae_jax.posteriors import DiagonalGaussian


def test_the_product_of_experts_is_the_normalized_product_of_densities():
    """On a grid, with the prior as one of the experts."""
    means, variances = np.array([0.7, -1.2]), np.array([0.3, 2.0])
    grid = np.linspace(-12, 12, 20_001)
    density = np.exp(-0.5 * grid**2)
    for mean, variance in zip(means, variances, strict=True):
        density *= np.exp(-0.5 * (grid - mean) ** 2 / variance)
    density /= density.sum()
    want_mean = (grid * density).sum()
    want_variance = ((grid - want_mean) ** 2 * density).sum()
    got = product_of_experts(
        [
            DiagonalGaussian(jnp.full((1, 1), mean), jnp.full((1, 1), np.log(variance)))
            for mean, variance in zip(means, variances, strict=True)
        ]
    )
    assert float(got.loc[0, 0]) == pytest.approx(want_mean, rel=1e-5)
    assert float(jnp.exp(got.log_var[0, 0])) == pytest.approx(want_variance, rel=1e-5)


@pytest.mark.parametrize("log_var", [-20.0, 10.0])
def test_the_product_of_extreme_experts_is_finite(log_var):
    expert = DiagonalGaussian(jnp.full((1, 2), 3.0), jnp.full((1, 2), log_var))
    got, slope = jax.value_and_grad(
        lambda loc: product_of_experts([DiagonalGaussian(loc, expert.log_var)]).loc.sum()
    )(expert.loc)
    share = 1 / (1 + np.exp(log_var))  # Its precision beside that of the prior.
    assert float(got) == pytest.approx(2 * 3.0 * share, rel=1e-5)
    np.testing.assert_allclose(slope, share, rtol=1e-5)


@pytest.mark.parametrize("image_shape", [(4, 6, 1), (8,)])
def test_halves_come_together_as_they_were(image_shape, build):
    method = build(method="mvae", image_shape=image_shape)
    images = jnp.arange(np.prod(image_shape) * 2, dtype=jnp.float32).reshape(2, *image_shape)
    x = method.prepare(images)
    axis = 2 if len(image_shape) == 3 else 1
    np.testing.assert_array_equal(jnp.concatenate([x["left"], x["right"]], axis), images)
    assert x["left"].shape[axis] == image_shape[axis - 1] // 2


def test_the_loss_is_the_sum_of_three_bounds(build, make_batch):
    """That of both halves, and of each alone; the joint one sees both."""
    method = build(method="mvae")
    batch, key = make_batch(method), jax.random.key(3)
    variables = method.init(jax.random.key(0))
    output = method.losses(variables, (), batch, key, step=0, train=False)
    terms = output.terms
    total = sum(
        terms[f"{n}{end}"] for n in ("nll", "kl") for end in ("", "_from_left", "_from_right")
    )
    np.testing.assert_allclose(output.losses["model"], total, rtol=1e-6)

    # Each alone, by hand.
    keys = jax.random.split(key, 3)
    for own_key, views, end in (
        (keys[0], ("left", "right"), ""),
        (keys[1], ("left",), "_from_left"),
        (keys[2], ("right",), "_from_right"),
    ):
        posterior, _ = method.encode(variables, {v: batch.x[v] for v in views}, train=False)
        whole, _ = method.decode(variables, posterior.sample(own_key), train=False)
        halves = dict(zip(("left", "right"), jnp.split(whole, 2, axis=2), strict=True))
        error = sum(
            np.square(np.asarray(halves[v] - batch.x[v], np.float64)).sum(axis=(1, 2, 3))
            for v in views
        )
        pixels = sum(batch.x[v][0].size for v in views)
        want = error / 2 + pixels / 2 * np.log(2 * np.pi)
        np.testing.assert_allclose(terms[f"nll{end}"], want, rtol=1e-5)
        variance = np.exp(np.asarray(posterior.log_var, np.float64))
        kl = 0.5 * (np.square(posterior.loc) + variance - 1 - np.log(variance)).sum(axis=1)
        np.testing.assert_allclose(terms[f"kl{end}"], kl, rtol=1e-3, atol=1e-5)
