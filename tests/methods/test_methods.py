"""What every method must hold, whichever it is: parameterized over the registry."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.methods import METHODS, OptionsError
from avae_jax.numerics import masked_mean
from avae_jax.training.step import loss_terms, own_gradients

# What a method does not run without, and what keeps it small.
FIELDS = {
    "avae": {"num_centers": 32},
    "beta_vae": {"beta": 4.0},
    "factor_vae": {"critic_width": 8, "critic_layers": 2},
    "aae": {"critic_width": 8, "critic_layers": 2},
    "gens": {"num_centers": 32},
    "two_stage_vae": {"second_width": 8, "second_layers": 1},
    "sigreg": {"num_directions": 8},
    "sinkhorn_ae": {"num_iterations": 3},
    "swae": {"num_directions": 8},
}


KEY = jax.random.key(0)


@pytest.fixture(scope="module", params=METHODS)
def method(request, build):
    """Each method with its variables, once for all that is asked of it."""
    return build(method=request.param, **FIELDS.get(request.param, {}))


@pytest.fixture(scope="module")
def variables(method):
    return method.init(KEY)


@pytest.fixture(scope="module")
def descend(method):
    """Return what a step computes, `(variables, batch) -> means, gradients, output`, compiled."""
    memory = method.init_memory()

    @jax.jit
    def run(variables, batch):
        def losses(params):
            given = {**variables, "params": params}
            output = method.losses(given, memory, batch, KEY, step=jnp.int32(0), train=True)
            means = {name: masked_mean(loss, batch.mask) for name, loss in output.losses.items()}
            return means, output

        means, pull_back, output = jax.vjp(losses, variables["params"], has_aux=True)
        return means, own_gradients(method.players, means, pull_back), output

    return run


@pytest.fixture(scope="module")
def losses_of(descend, variables):
    """Return the forward pass of a step as a function of the batch."""
    return lambda batch: descend(variables, batch)[2]


def test_every_part_has_at_most_one_player(method, variables):
    params = variables["params"]
    moved = [part for player in method.players.values() for part in player.parts]
    assert len(moved) == len(set(moved))
    assert set(moved) <= set(params)
    # What has no player stays as it is.
    assert set(params) - set(moved) <= {"prior", "likelihood"}


def test_what_is_reported_is_a_row_or_a_statistic(method, losses_of, make_batch):
    batch = make_batch(method)
    output = losses_of(batch)
    assert set(output.losses) == set(method.players)
    for name, values in {**output.losses, **output.terms}.items():
        assert values.shape in ((), (16,)), name
        assert np.all(np.isfinite(values)), name
    assert output.z.shape == (16, method.latent_dim)
    # The criterion and the nulls are of what is reported.
    shown = {**output.terms, **loss_terms(method.players, output.losses)}
    means = {name: float(masked_mean(term, batch.mask)) for name, term in shown.items()}
    assert np.isfinite(method.criterion(means))
    assert set(method.null()) <= set(shown)
    known = {"loss", *(f"{name}_loss" for name in method.players)}
    assert set(shown) - known <= set(method.terms)


def test_a_short_way_down_the_gradient_lowers_each_players_loss(
    method, variables, descend, make_batch
):
    batch = make_batch(method)
    before, gradients, _ = descend(variables, batch)
    for name, player in method.players.items():
        own = {part: gradients[part] for part in player.parts if part in gradients}
        squares = sum(float(jnp.sum(jnp.square(leaf))) for leaf in jax.tree.leaves(own))
        assert 0 < squares < np.inf, name
        # So far that a straight line falls by a thousandth.
        rate = 1e-3 * abs(float(before[name])) / squares
        params = dict(variables["params"])
        for part, gradient in own.items():
            params[part] = jax.tree.map(lambda p, g, r=rate: p - r * g, params[part], gradient)
        after, _, _ = descend({**variables, "params": params}, batch)
        assert after[name] < before[name], name


def test_rows_that_fill_a_batch_up_enter_nothing(method, losses_of, make_batch):
    """Whatever they hold: each term's mean over the rows that count stays as it is."""
    mask = np.array([1] * 12 + [0] * 4)
    batch = make_batch(method, mask)
    wild = jax.tree.map(lambda x: x.at[12:].set(0.5), batch.x)
    one, other = (losses_of(batch._replace(x=x)) for x in (batch.x, wild))
    for name, term in {**one.terms, **one.losses}.items():
        got = {**other.terms, **other.losses}[name]
        np.testing.assert_allclose(
            masked_mean(got, batch.mask), masked_mean(term, batch.mask), rtol=1e-5, err_msg=name
        )


@pytest.fixture(scope="module")
def plain_params(build):
    """Weights of a method with nothing beside its encoder and decoder, by whether it draws."""
    return {
        draws: build(method=name).init(KEY)["params"] for draws, name in enumerate(("ae", "vae"))
    }


def test_weights_are_drawn_by_name(method, variables, plain_params):
    """Those of the encoder and the decoder are the same whatever stands beside them."""
    params = variables["params"]
    if "encoder" not in params:
        return
    plain = plain_params[method.is_stochastic]
    chex.assert_trees_all_equal(params["encoder"], plain["encoder"])
    chex.assert_trees_all_equal(params["decoder"], plain["decoder"])
    other = method.init(jax.random.key(4))["params"]
    assert not np.array_equal(
        jax.tree.leaves(params["decoder"])[-1], jax.tree.leaves(other["decoder"])[-1]
    )


def test_codes_and_images_have_their_shapes(method, variables, make_batch):
    posterior, _ = method.encode(variables, make_batch(method).x, train=False)
    z = posterior.sample(jax.random.key(1))
    assert posterior.mean().shape == z.shape == (16, method.latent_dim)
    assert method.is_stochastic == bool(np.any(z != posterior.mean()))
    outputs, _ = method.decode(variables, z, train=False)
    assert method.likelihood(variables).mean(outputs).shape == (16, *method.image_shape)
    for make_prior in method.sampling_priors(variables).values():
        prior = make_prior()
        draws = prior.sample(jax.random.key(2), 5)
        assert draws.shape == (5, method.latent_dim)
        assert np.all(np.isfinite(prior.log_prob(draws)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "factor_vae", "gamma": 0.0}, "gamma=0.0: give a number > 0"),
        ({"method": "factor_vae", "critic_layers": 0}, "critic_layers=0: give at least 1"),
        ({"method": "factor_vae", "latent_dim": 1}, "latent_dim=1: the total correlation"),
        ({"method": "factor_vae", "batch_size": 3}, "batch_size=3: each half of a batch"),
        ({"method": "vae", "warmup_steps": -1}, "warmup_steps=-1: give at least 0, no warm-up"),
        ({"method": "annealed_vae", "capacity": 0.0}, "capacity=0.0: give a number > 0"),
        ({"method": "annealed_vae", "gamma": -1.0}, "gamma=-1.0: give a number > 0"),
        ({"method": "annealed_vae", "capacity_steps": 0}, "capacity_steps=0: give a number > 0"),
        (
            {"method": "annealed_vae", "warmup_steps": 9},
            "warmup_steps has no effect with method annealed_vae: leave it out, or use",
        ),
        (
            {"method": "sigma_vae", "likelihood": "bernoulli"},
            "likelihood=bernoulli: the best noise of a batch is known for likelihood gaussian",
        ),
        (
            {"method": "sigma_vae", "noise_scale": 0.5},
            "noise_scale has no effect with method sigma_vae: leave it out, or use",
        ),
        ({"method": "dip_vae", "lambda_od": 0.0}, "lambda_od=0.0: give a number > 0"),
        ({"method": "dip_vae", "lambda_d": -1.0}, "lambda_d=-1.0: give a number > 0"),
        ({"method": "dip_vae", "variant": "III"}, "variant must be one of I, II, got 'III'"),
        ({"method": "dip_vae", "latent_dim": 1}, "latent_dim=1: covariances are between"),
        ({"method": "dip_vae", "batch_size": 3}, "batch_size=3: the square of a covariance"),
        (
            {"method": "dip_vae", "prior": "mixture"},
            "prior has no effect with method dip_vae: leave it out, or use",
        ),
        ({"method": "dip_vae", "posterior": "gaussian"}, "posterior has no effect with"),
        ({"method": "iwae", "num_samples": 0}, "num_samples=0: give at least 1"),
        ({"method": "iwae", "posterior": "deterministic"}, "posterior=deterministic: without"),
        ({"method": "beta_tcvae", "beta": -1.0}, "beta=-1.0: give a number of at least 0"),
        ({"method": "beta_tcvae", "alpha": float("nan")}, "alpha=nan: give a number of at least 0"),
        ({"method": "beta_tcvae", "latent_dim": 1}, "latent_dim=1: the total correlation"),
        ({"method": "beta_tcvae", "prior": "mixture"}, "prior=mixture: the dimensions must be"),
        ({"method": "beta_tcvae", "posterior": "deterministic"}, "posterior=deterministic: "),
        (
            {"method": "beta_tcvae", "num_posteriors": 32},
            "num_posteriors=32: density uniform remembers none; leave it out",
        ),
        (
            {"method": "beta_tcvae", "density": "exact", "num_posteriors": 65},
            "num_posteriors=65: the training split has 64 images",
        ),
        (
            {"method": "beta_tcvae", "density": "exact", "num_posteriors": 8},
            "num_posteriors=8: it is smaller than batch_size=16",
        ),
        ({"method": "mvae", "prior": "mixture"}, "prior has no effect with method mvae"),
        ({"method": "mvae", "image_shape": (4, 3, 1)}, "image width=3: the images are cut"),
        ({"method": "vae", "labeled": True}, "labeled=True: prior standard_normal has no"),
        ({"method": "vae", "posterior": "deterministic"}, "posterior=deterministic: without"),
        ({"method": "ae", "likelihood": "learned_gaussian"}, "likelihood=learned_gaussian: this"),
        ({"likelihood": "learned_gaussian"}, "likelihood=learned_gaussian: this method's loss"),
        (
            {"method": "mvae", "likelihood": "bernoulli", "noise_scale": 0.5},
            "noise_scale=0.5: likelihood bernoulli has none; leave it out",
        ),
        ({"method": "vae", "num_components": 0}, "num_components=0: give at least 1"),
        (
            {"method": "vae", "prior": "mixture", "labeled": True, "num_components": 2,
             "num_classes": 3},
            "labeled=True: the data have 3 classes",
        ),
        ({"method": "avae", "num_components": 0}, "num_components=0: give at least 1"),
        ({"method": "aae", "weight": 0.0}, "weight=0.0: give a number > 0"),
        ({"method": "aae", "critic_width": 0}, "critic_width=0: give at least 1"),
        ({"method": "aae", "critic_learning_rate": -1.0}, "critic_learning_rate=-1.0: give a"),
        ({"method": "aae", "prior": "mixture", "num_components": 0}, "num_components=0: give at"),
        ({"method": "rae", "code_weight": 0.0}, "code_weight=0.0: give a number > 0"),
        (
            {"method": "rae", "regularizer": "spectral", "weight": 1.0},
            "weight=1.0: regularizer spectral has none; give None",
        ),
        ({"method": "rae", "likelihood": "learned_gaussian"}, "likelihood=learned_gaussian: this"),
        ({"method": "ard_vae", "beta": 0.0}, "beta=0.0: give a number > 0"),
        ({"method": "ard_vae", "num_codes": 1}, "num_codes=1: give at least 2"),
        ({"method": "ard_vae", "num_codes": 15}, "num_codes=15: it is smaller than batch_size=16"),
        ({"method": "two_stage_vae", "second_layers": 0}, "second_layers=0: give at least 1"),
        (
            {"method": "two_stage_vae", "second_learning_rate": 0.0},
            "second_learning_rate=0.0: give a number > 0",
        ),
        ({"method": "gens", "weight": 0.0}, "weight=0.0: give a number > 0"),
        ({"method": "gens", "num_centers": 65}, "num_centers=65: it is larger than the training"),
        (
            {"method": "gens", "num_centers": 32, "latent_dim": 40},
            "num_centers=32: in 40 dimensions the best bandwidth is 1.*; give more centers",
        ),
        ({"method": "wae", "weight": 0.0}, "weight=0.0: give a number > 0"),
        ({"method": "wae", "prior": "gaussian"}, "prior=gaussian: nothing here learns its mean"),
        ({"method": "wae", "num_components": 0}, "num_components=0: give at least 1"),
        ({"method": "wae", "likelihood": "learned_gaussian"}, "likelihood=learned_gaussian: this"),
        (
            {"method": "wae", "kernel": "rbf_exact", "prior": "mixture"},
            "kernel=rbf_exact: the closed form is of .* not of prior mixture; use kernel rbf",
        ),
        ({"method": "info_vae", "alpha": 1.5}, "alpha=1.5: above 1 a larger KL"),
        (
            {"method": "info_vae", "alpha": 0.0, "lambda_mmd": 1e-3},
            "lambda_mmd=0.001: the weight of the .* would be -0.999, .* give at least 1$",
        ),
        ({"method": "info_vae", "posterior": "deterministic"}, "posterior=deterministic: without"),
        ({"method": "swae", "num_directions": 0}, "num_directions=0: give at least 1"),
        ({"method": "sigreg", "num_directions": 0}, "num_directions=0: give at least 1"),
        ({"method": "sinkhorn_ae", "epsilon": 0.0}, "epsilon=0.0: give a number > 0"),
        ({"method": "sinkhorn_ae", "num_iterations": 0}, "num_iterations=0: give at least 1"),
    ],
)  # fmt: skip
def test_refused(fields, message, build):
    with pytest.raises(OptionsError, match=message):
        build(**fields)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("num_train", "batch_size"), [(64, 16), (50, 16), (16, 16)])
def test_what_a_method_fits_to_few_examples_is_accepted(name, num_train, batch_size, build):
    """Defaults are replaced where they do not fit, by what fits, and stay where they do."""
    own = {"beta": 4.0} if name == "beta_vae" else {}
    options = METHODS[name](**own)
    fitted = options.fitted(num_train=num_train, batch_size=batch_size)
    setting = dataclasses.replace(build(method="ae").setting, num_train=num_train)
    dataclasses.replace(options, **fitted).check_setting(setting)
    assert not options.fitted(num_train=100_000, batch_size=100)
    if fitted:
        with pytest.raises(OptionsError):
            options.check_setting(setting)
