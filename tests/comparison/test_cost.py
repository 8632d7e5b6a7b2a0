"""What a step costs, and that methods of one seed start and go on alike."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.comparison.cells import make_cells
from avae_jax.comparison.cost import (
    count_flops,
    plain,
    same_start,
    sampling_parameters,
    take_turns,
)
from avae_jax.comparison.plan import make_plan
from avae_jax.data import epoch_indices, load_dataset
from avae_jax.methods import METHODS
from avae_jax.training.feed import Feed
from avae_jax.training.setup import make_setup

from ..methods.test_methods import FIELDS

pytestmark = pytest.mark.usefixtures("quick_compiler")

N = 32
SMALL = {"width": 0.1, "batch_size": 16, "num_epochs": 1}


def times(k):
    return lambda x: jax.lax.scan(lambda y, _: (y @ x, None), x, None, length=k)[0]


@pytest.mark.parametrize("k", [1, 2, 7])
def test_a_loop_counts_in_full(k):
    """XLA counts its body once."""
    flops, is_whole = count_flops(jax.jit(times(k)), jnp.ones((N, N)))
    assert is_whole
    # The counter of the loop adds a few.
    np.testing.assert_allclose(flops, k * 2 * N**3, rtol=1e-3)


def test_loops_in_loops_and_in_gradients_count_in_full():
    nested = jax.jit(lambda x: jax.lax.scan(lambda y, _: (times(3)(y), None), x, None, length=5)[0])
    np.testing.assert_allclose(count_flops(nested, jnp.ones((N, N)))[0], 15 * 2 * N**3, rtol=1e-3)
    pulled = jax.jit(jax.grad(lambda x: jnp.sum(times(4)(x))))
    forward_and_back = count_flops(pulled, jnp.ones((N, N)))[0]
    np.testing.assert_allclose(forward_and_back, 4 * 3 * 2 * N**3, rtol=0.05)


def test_a_loop_of_unknown_length_is_told_apart():
    def until(x):
        return jax.lax.while_loop(lambda y: jnp.sum(y) < 9.0, lambda y: y @ x, x)

    assert not count_flops(jax.jit(until), jnp.ones((N, N)))[1]
    # Random bits are drawn in loops of whole numbers.
    noise = jax.jit(lambda key: jax.random.normal(key, (N,)))
    assert count_flops(noise, jax.random.key(0))[1]


def test_turns_are_taken_and_the_median_counts():
    order = []

    def timed(name, seconds):
        def one():
            order.append(name)
            return seconds * (100 if len(order) < 3 else 1)

        return one

    assert take_turns([timed("a", 0.2), timed("b", 0.1)]) == [0.2, 0.1]
    assert order[:4] == ["a", "b", "a", "b"]


@pytest.fixture(scope="module")
def setups():
    """Method -> its set-up on the digits, all of one seed."""
    dataset = load_dataset("digits", seed=3)
    methods = {name: FIELDS.get(name, {}) for name in METHODS}
    cells = make_cells(make_plan(["digits"], methods, [3], SMALL))
    return {cell.label: make_setup(cell.config, dataset=dataset) for cell in cells}


@pytest.fixture(params=METHODS)
def setup(request, setups):
    return setups[request.param]


def test_methods_of_a_seed_start_from_the_same_weights(setup, setups):
    if {"encoder", "decoder"} <= {*setup.method.networks.parts}:
        assert same_start(setup.method, setups["ae"].method, setup.config)


def test_other_seeds_and_other_networks_are_no_same_start(setups):
    plain_method, config = setups["ae"].method, setups["ae"].config
    others = make_cells(make_plan(["digits"], ["ae"], [3], {**SMALL, "width": 0.2}))
    other = make_setup(others[0].config, dataset=setups["ae"].dataset).method
    assert not same_start(plain_method, other, config)


def test_own_networks_start_alike_up_to_their_head(tmp_path):
    """A user's head is drawn as the user's layer draws it; all else is equal."""
    (tmp_path / "nets.py").write_text(
        "import flax.linen as nn\n"
        "class Encoder(nn.Module):\n"
        "    num_outputs: int\n"
        "    @nn.compact\n"
        "    def __call__(self, x, *, train):\n"
        "        x = nn.relu(nn.Dense(12)(x.reshape(len(x), -1)))\n"
        "        return nn.Dense(self.num_outputs)(x)\n"
    )
    fields = {**SMALL, "encoder": f"{tmp_path / 'nets.py'}:Encoder"}
    cells = make_cells(make_plan(["digits"], ["ae", "vae"], [0], fields))
    dataset = load_dataset("digits", seed=0)
    one, other = (
        make_setup(cell.config, dataset=dataset).method.init(jax.random.key(0))["params"]
        for cell in cells
    )
    for x, y in zip(*(jax.tree.leaves(own["decoder"]) for own in (one, other)), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(*(own["encoder"]["Dense_0"]["kernel"] for own in (one, other)))


def test_methods_of_a_seed_see_the_same_batches(setup, setups):
    feeds = [
        Feed(one.dataset, mesh=one.mesh, resident=True, batch_size=one.batch_size,
             steps_per_dispatch=1, seed=one.config.optimization.seed)
        for one in (setup, setups["ae"])
    ]  # fmt: skip
    one, other = ([*feed.dispatches(2, 0)] for feed in feeds)
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(other))
    wanted = epoch_indices(setup.dataset.splits.train, seed=3, epoch=2, batch_size=16)
    np.testing.assert_array_equal(np.concatenate(one), wanted)


def test_parameters_of_a_sample_are_the_decoders_and_a_learned_priors(setup):
    params = jax.eval_shape(setup.method.init, jax.random.key(0))["params"]
    sizes = {
        name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
        for name, part in params.items()
    }
    decoders = sum(size for name, size in sizes.items() if name.startswith("decoder"))
    encoders = sum(size for name, size in sizes.items() if name.startswith("encoder"))
    found = sampling_parameters(setup.method)
    assert decoders <= found < sum(sizes.values()) - encoders + 1


def test_what_a_learned_prior_has_counts():
    fields = {**SMALL, "prior": "mixture", "num_components": 5}
    cell = make_cells(make_plan(["digits"], ["vae"], [0], fields))[0]
    setup = make_setup(cell.config)
    fixed = make_setup(plain(cell.config), dataset=setup.dataset)
    more = sampling_parameters(setup.method) - sampling_parameters(fixed.method)
    # Weights, means and variances.
    assert more == 5 * (1 + 2 * setup.method.latent_dim)
