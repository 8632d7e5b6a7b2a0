"""The compiled pieces of training: what a step does, on one device and on eight."""

import contextlib
import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avae_jax as av
from avae_jax.data import ImageData, Splits
from avae_jax.kernels.pairwise_lse.reference import reference_stats
from avae_jax.mesh import make_mesh
from avae_jax.methods import Player, avae
from avae_jax.methods.bank import fill_bank
from avae_jax.numerics import masked_mean
from avae_jax.training import config as cfg
from avae_jax.training import setup as setups
from avae_jax.training import trainer
from avae_jax.training.checkpoint import Checkpoints
from avae_jax.training.state import ema_decays, make_optimizer
from avae_jax.training.step import moving_average, own_gradients

TRAINERS = {}


def open_on(num_devices, config, dataset, **options):
    """Build a trainer on the first devices only, once for all tests: it holds no state."""
    key = (num_devices, config, tuple(sorted(options.items())))
    if key not in TRAINERS:
        TRAINERS[key] = _open_on(num_devices, config, dataset, **options)
    return TRAINERS[key]


def _open_on(num_devices, config, dataset, **options):
    setup = setups.make_setup(config, dataset=dataset, mesh=make_mesh(num_devices))
    return trainer.Trainer(setup, **options)


def dispatches(built, state):
    """Return the batches left in the state's epoch."""
    return built.feed.dispatches(*divmod(int(state.step), built.setup.steps_per_epoch))


def validate(built, state):
    return built.validate(state.evaluated, state.memory)


def run_epoch(built, state):
    metrics = built.program.empty_metrics
    for batches in dispatches(built, state):
        state, metrics = built.advance(state, metrics, built.feed.fetch_steps(batches))
    return state, {name: float(value) for name, value in metrics.compute().items()}


def bare(state):
    """Return a state as NumPy arrays, random key included."""
    state = dataclasses.replace(state, key=jax.random.key_data(state.key))
    return jax.tree.map(np.asarray, state)


def codes_of(method, variables, x, *, train):
    return method.encode(variables, x, train=train)[0].mean()


def assert_close(a, b, rtol, atol):
    chex.assert_trees_all_close(bare(a), bare(b), rtol=rtol, atol=atol)


NEEDED = {
    "factor_vae": {"critic_width": 16, "critic_layers": 2},
    "gens": {"num_centers": 200},
}
"""What a method does not run without, and what keeps it small."""


# One of every way to learn: a bank, a posterior, a critic or a second stage, what is remembered.
@pytest.mark.parametrize(
    "method",
    ["avae", "factor_vae", "beta_tcvae", "ard_vae", "two_stage_vae", "mvae"],
)
def test_training_lowers_the_criterion(method, blobs, small_config):
    config = cfg.replace_fields(small_config, method=method, **NEEDED.get(method, {}))
    built = open_on(1, config, blobs)
    state = built.init()
    before = validate(built, state)
    for _ in range(4):
        state, metrics = run_epoch(built, state)
        state, after = built.finish_epoch(state)
    assert after["criterion"] < before["criterion"]
    assert after["reconstruction"] < before["reconstruction"]
    assert metrics["good"] == 1
    # What is reported is known by its caption, and its null belongs to a term.
    known = {"loss", "criterion", *(f"{name}_loss" for name in built.method.players)}
    assert set(after) - known <= set(built.method.terms)
    assert set(built.method.null()) <= set(after)


def test_initial_beta_is_measured(blobs, small_config):
    built = open_on(1, small_config, blobs)
    state = built.init()
    index = blobs.splits.validation
    x = blobs.images[index].astype(np.float64) / 255
    method = built.method
    z = codes_of(method, state.variables, jnp.asarray(x, jnp.float32), train=False)
    x_recon = np.asarray(method.decode(state.variables, z, train=False)[0], np.float64)
    want = math.sqrt(((x - x_recon) ** 2).sum(axis=(1, 2, 3)).mean())
    assert float(state.memory.beta) == pytest.approx(want, rel=1e-5)
    fixed = open_on(1, cfg.replace_fields(small_config, beta=7.5), blobs)
    assert float(fixed.init().memory.beta) == 7.5


def test_a_given_bandwidth_is_used(blobs, small_config):
    method = open_on(1, cfg.replace_fields(small_config, bandwidth=0.6), blobs).method
    assert method.bandwidth.h_corr == 0.6
    assert method.bandwidth.prior_scale == pytest.approx(0.8)
    assert method.bandwidth.h_opt == pytest.approx(0.75)
    found = av.find_bandwidth(3, 200)
    close = cfg.replace_fields(small_config, bandwidth=found.h_corr)
    null = close.method.choose_bandwidth(3).null_kl
    assert null == pytest.approx(found.null_kl, abs=0.1)


def test_the_null_value_has_the_loss_s_floor(blobs, small_config):
    """Perfect codes give the null value through the very loss that is logged."""
    config = cfg.replace_fields(small_config, max_cdf=0.3)
    method = open_on(1, config, blobs).method
    h, scale = method.bandwidth.h_corr, method.bandwidth.prior_scale
    rng = np.random.default_rng(0)
    z = (scale * rng.standard_normal((20_000, 3))).astype(np.float32)
    kls = []
    for _ in range(20):
        centers = (scale * rng.standard_normal((200, 3))).astype(np.float32)
        x = np.zeros((len(z), 1), np.float32)
        _, terms = av.losses.avae(
            x, x, z, centers, bandwidth=h, beta=1.0, tail="official", max_cdf=0.3
        )
        kls.append(float(terms["kl"].mean()))
    error = np.std(kls, ddof=1)  # The null value is that of one draw of the centers.
    assert abs(method.null()["kl"] - np.mean(kls)) < 5 * error
    assert method.null()["kl"] > method.bandwidth.null_kl + 0.05
    bare = cfg.replace_fields(small_config, tail="none", max_cdf=None)
    bare = open_on(1, bare, blobs).method
    assert bare.null()["kl"] == pytest.approx(bare.bandwidth.null_kl, abs=0.05)


def test_a_batch_s_statistic_is_validated_in_batches(blobs, small_config):
    """Of as many images as a step has: its null depends on their number."""
    config = cfg.replace_fields(small_config, method="cwae", batch_size=24)
    built = open_on(1, config, blobs)
    state, ids = built.init(), blobs.splits.validation
    x = jnp.asarray(blobs.images[ids], jnp.float32) / 255
    z = codes_of(built.method, state.variables, x, train=False)
    parts = [z[start : start + 24] for start in range(0, len(ids), 24)]
    want = sum(len(part) * math.log(av.losses.cramer_wold(part)) for part in parts) / len(ids)
    assert validate(built, state)["log_cramer_wold"] == pytest.approx(want, rel=1e-4)
    assert want != pytest.approx(math.log(av.losses.cramer_wold(z)), rel=1e-2)


def test_validation_equals_the_loss_on_the_whole_split(blobs, small_config):
    built = open_on(1, small_config, blobs)
    state, _ = run_epoch(built, built.init())
    got = validate(built, state)
    method, bandwidth = built.method, built.method.bandwidth

    def encode(index):
        x = jnp.asarray(blobs.images[np.asarray(index)], jnp.float32) / 255
        return x, codes_of(method, state.variables, x, train=False)

    x, z = encode(blobs.splits.validation)
    _, centers = encode(state.memory.bank.ids)
    x_recon = method.decode(state.variables, z, train=False)[0]
    loss, terms = av.losses.avae(
        x, x_recon, z, centers, bandwidth=bandwidth.h_corr, beta=state.memory.beta,
        tail="official", max_cdf=1 - 1e-4,
    )  # fmt: skip
    assert got["loss"] == pytest.approx(float(loss.mean()), rel=1e-4)
    assert got["kl"] == pytest.approx(float(terms["kl"].mean()), rel=1e-3, abs=1e-4)
    criterion = 2 * math.sqrt(got["reconstruction"]) + got["kl"]
    assert got["criterion"] == pytest.approx(criterion)


@pytest.mark.parametrize("refresh", ["queue", "reencode"])
def test_eight_devices_equal_one(refresh, blobs, small_config):
    config = cfg.replace_fields(small_config, refresh=refresh, refresh_every=2)
    one, eight = open_on(1, config, blobs), open_on(8, config, blobs)
    state_one, metrics_one = run_epoch(one, one.init())
    state_eight, metrics_eight = run_epoch(eight, eight.init())
    assert_close(state_one, state_eight, rtol=1e-4, atol=1e-5)
    for name, value in metrics_one.items():
        assert metrics_eight[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize("method", ["factor_vae", "mvae", "gens", "swae"])
def test_a_step_of_eight_devices_equals_one_s(method, blobs, small_config):
    """What it reports: later steps differ by Adam's amplified rounding."""
    config = cfg.replace_fields(small_config, method=method, **NEEDED.get(method, {}))
    found = []
    for num_devices in (1, 8):
        built = open_on(num_devices, config, blobs)
        state = built.init()
        fetched = built.feed.fetch_steps(next(dispatches(built, state)))
        _, metrics = built.advance(state, built.program.empty_metrics, fetched)
        found.append({name: float(value) for name, value in metrics.compute().items()})
    one, eight = found
    # A rectifier at its kink is rounded to either side.
    assert eight.pop("gradient_norm") == pytest.approx(one.pop("gradient_norm"), rel=5e-3)
    assert eight == pytest.approx(one, rel=1e-4, abs=1e-5)


def rows_per_device(state):
    return [shard.data.shape[0] for shard in state.memory.bank.codes.addressable_shards]


def test_an_even_bank_is_spread_and_an_uneven_one_is_whole(blobs, small_config):
    assert rows_per_device(open_on(8, small_config, blobs).init()) == [25] * 8
    uneven = open_on(8, cfg.replace_fields(small_config, num_centers=203), blobs)
    one = open_on(1, cfg.replace_fields(small_config, num_centers=203), blobs)
    assert rows_per_device(uneven.init()) == [203] * 8
    assert_close(run_epoch(uneven, uneven.init())[0], run_epoch(one, one.init())[0], 1e-4, 1e-5)


def test_a_spread_bank_is_restored_onto_another_number_of_devices(blobs, small_config, tmp_path):
    eight, two = (open_on(number, small_config, blobs) for number in (8, 2))
    state, _ = run_epoch(eight, eight.init())
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(state, criterion=None, info={})
        restored, _ = checkpoints.restore(two.target())
    assert rows_per_device(restored) == [100, 100]
    assert_close(state, restored, 0, 0)
    on_eight, _ = run_epoch(eight, state)
    on_two, _ = run_epoch(two, restored)
    assert_close(on_eight, on_two, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("full_compiler")
def test_many_centers_are_spread_over_devices(small_config, monkeypatch):
    """More than 32,768 on a device: at that many rows jaxlib 0.10.2 begins to miscompile."""
    monkeypatch.setattr(trainer, "ENCODE_ROWS", 50_000)
    num_centers = 8 * 33_000
    num_images = num_centers + 100
    images = np.random.default_rng(0).integers(0, 256, (num_images, 2, 2, 1), np.uint8)
    order = np.arange(num_images, dtype=np.int32)
    many = ImageData("many", images, None, Splits(order[:-100], order[-100:-50], order[-50:]))
    config = cfg.replace_fields(
        small_config, num_centers=num_centers, bandwidth=0.1, batch_size=64, latent_dim=2
    )
    monkeypatch.setattr(avae, "null_kl", lambda *args, **kwargs: 0.0)  # Its own tests are fast.
    built = open_on(8, config, many)
    state = built.init()
    z, index = np.asarray(state.memory.bank.codes), np.asarray(state.memory.bank.ids)
    assert rows_per_device(state) == [33_000] * 8
    batch = next(dispatches(built, state))[0]
    x = built.method.prepare(images[batch])
    codes = np.asarray(codes_of(built.method, state.variables, x, train=True))
    state, metrics = built.advance(
        state, built.program.empty_metrics, built.feed.fetch_steps(batch[None])
    )
    own = np.asarray([np.flatnonzero(index == i)[0] if i in index else -1 for i in batch])
    lse = reference_stats(codes, z, bandwidth=0.1, exclude=own).lse
    log_q = lse - np.log(num_centers - (own >= 0)) - math.log(2 * math.pi * 0.1**2)
    assert float(metrics.compute()["log_q"]) == pytest.approx(log_q.mean(), rel=1e-4)
    assert rows_per_device(state) == [33_000] * 8
    np.testing.assert_array_equal(state.memory.bank.ids[:64], batch)
    np.testing.assert_allclose(state.memory.bank.codes[:64], codes, rtol=1e-4, atol=1e-5)


def test_batch_normalisation_is_global(blobs, small_config):
    """One step: later ones differ by Adam's amplified rounding of gradients that are zero."""
    config = cfg.replace_fields(small_config, norm="batch")
    found = []
    for num_devices in (1, 8):
        built = open_on(num_devices, config, blobs)
        state = built.init()
        fetched = built.feed.fetch_steps(next(dispatches(built, state)))
        state, metrics = built.program.train(state, built.program.empty_metrics, fetched)
        found.append((state.variables["batch_stats"], float(metrics.compute()["loss"])))
    (stats_one, loss_one), (stats_eight, loss_eight) = found
    assert jax.tree.leaves(stats_one)
    chex.assert_trees_all_close(
        jax.tree.map(np.asarray, stats_one), jax.tree.map(np.asarray, stats_eight),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    assert loss_one == pytest.approx(loss_eight, rel=1e-5)


def test_several_steps_per_dispatch_equal_single_ones(blobs, small_config):
    single = open_on(1, small_config, blobs, steps_per_dispatch=1)
    several = open_on(1, small_config, blobs, steps_per_dispatch=3)
    sizes = [len(batches) for batches in dispatches(several, several.init())]
    assert sizes == [3, 1]
    state_single, metrics_single = run_epoch(single, single.init())
    state_several, metrics_several = run_epoch(several, several.init())
    assert_close(state_single, state_several, rtol=1e-5, atol=1e-6)
    assert metrics_several == pytest.approx(metrics_single, rel=1e-4)


def test_streamed_images_equal_resident_ones(blobs, small_config):
    resident = open_on(8, small_config, blobs, resident=True)
    streamed = open_on(8, small_config, blobs, resident=False, steps_per_dispatch=2)
    state_resident, _ = run_epoch(resident, resident.init())
    state_streamed, _ = run_epoch(streamed, streamed.init())
    assert_close(state_resident, state_streamed, rtol=1e-4, atol=1e-5)


def test_a_second_step_compiles_nothing(blobs, small_config):
    built = open_on(8, small_config, blobs)
    state, _ = run_epoch(built, built.init())
    compiled = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 1)(jnp.zeros(3))
        assert compiled, "the listener hears no compilation: this test checks nothing"
        compiled.clear()
        run_epoch(built, state)
        assert not compiled
    finally:
        jax.monitoring.clear_event_listeners()


def test_the_queue_holds_the_last_codes_and_knows_their_images(blobs, small_config):
    built = open_on(1, small_config, blobs)
    state = built.init()
    seen = []
    for _ in range(2):
        for batches in dispatches(built, state):
            state, _ = built.advance(
                state, built.program.empty_metrics, built.feed.fetch_steps(batches)
            )
            seen.extend(batches.reshape(-1))
    bank = state.memory.bank
    num_centers = small_config.method.num_centers
    newest = seen[-num_centers:]
    assert sorted(newest) == sorted(np.asarray(bank.ids).tolist())
    row_of = np.asarray(bank.row_of)
    for image in range(len(blobs.images)):
        rows = np.flatnonzero(np.asarray(bank.ids) == image)
        if row_of[image] < 0:
            assert len(rows) == 0
        else:
            assert row_of[image] in rows
            # Of two codes of one image the newer one is the one left out.
            assert bank.encoded_at[row_of[image]] == bank.encoded_at[rows].max()
    ages = int(state.step) - np.asarray(bank.encoded_at)
    assert ages.max() == math.ceil(num_centers / 64)


def test_own_codes_are_excluded(blobs, small_config):
    """A batch whose images all sit in the bank sees the density without itself."""
    config = cfg.replace_fields(small_config, refresh="reencode", num_centers=280)
    built = open_on(1, config, blobs)
    state = built.init()
    assert np.all(np.asarray(state.memory.bank.row_of)[blobs.splits.train] >= 0)
    batches = next(dispatches(built, state))
    fetched = built.feed.fetch_steps(batches)
    x = built.method.prepare(blobs.images[batches[0]])
    z = codes_of(built.method, state.variables, x, train=True)
    exclude = state.memory.bank.row_of[batches[0]]
    h = built.method.bandwidth.h_corr
    want = av.kde_log_density(z, state.memory.bank.codes, bandwidth=h, exclude=exclude).mean()
    itself = av.kde_log_density(z, state.memory.bank.codes, bandwidth=h).mean()
    _, metrics = built.advance(state, built.program.empty_metrics, fetched)
    got = float(metrics.compute()["log_q"])
    assert got == pytest.approx(float(want), rel=1e-4)
    assert abs(got - float(itself)) > 1e-3


@pytest.mark.parametrize("num_devices", [1, 4])
def test_push_keeps_the_newer_row_of_a_repeated_image(num_devices):
    mesh = make_mesh(num_devices)
    bank = fill_bank(jnp.zeros((4, 1)), np.array([0, 1, 2, 3]), num_images=6, step=0)
    bank = bank.push(jnp.ones((2, 1)), jnp.array([2, 4]), step=1, mesh=mesh)  # rows 0, 1
    assert bank.row_of.tolist() == [-1, -1, 0, 3, 1, -1]
    bank = bank.push(jnp.ones((2, 1)), jnp.array([5, 0]), step=2, mesh=mesh)  # rows 2, 3
    assert bank.row_of.tolist() == [3, -1, 0, -1, 1, 2]
    assert bank.ids.tolist() == [2, 4, 5, 0]


@pytest.mark.parametrize("num_devices", [1, 4])
def test_push_forgets_an_image_whose_two_rows_go_at_once(num_devices):
    mesh = make_mesh(num_devices)
    bank = fill_bank(jnp.zeros((4, 1)), np.array([0, 1, 2, 3]), num_images=8, step=0)
    bank = bank.push(jnp.ones((2, 1)), jnp.array([4, 5]), step=1, mesh=mesh)
    bank = bank.push(jnp.ones((2, 1)), jnp.array([5, 6]), step=2, mesh=mesh)
    assert bank.ids.tolist() == [4, 5, 5, 6]
    assert bank.row_of.tolist() == [-1, -1, -1, -1, 0, 2, 3, -1]
    bank = bank.push(jnp.ones((4, 1)), jnp.array([0, 1, 2, 3]), step=3, mesh=mesh)
    assert bank.row_of.tolist() == [0, 1, 2, 3, -1, -1, -1, -1]


def test_reencode_refreshes_on_time(blobs, small_config):
    config = cfg.replace_fields(small_config, refresh="reencode", refresh_every=3)
    built = open_on(1, config, blobs, steps_per_dispatch=4)
    assert built.feed.steps_per_dispatch == 1  # A dispatch may not run over a refresh.
    state = built.init()
    first, second = (built.method.draw_ids(built, epoch) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert set(first) <= set(blobs.splits.train)
    # In random order: neighbours of a sorted subset are no fair batch.
    assert np.any(np.diff(first) < 0)
    assert built.before_step(state, epoch=1, position=1) is state
    refreshed = built.before_step(state, epoch=1, position=0)
    assert refreshed.memory.bank.encoded_at.tolist() == [4] * 200
    assert refreshed.memory.bank.ids.tolist() == second.tolist()


def with_beta(state, beta):
    memory = state.memory._replace(beta=jnp.float32(beta))
    return dataclasses.replace(state, memory=memory)


def test_a_step_that_is_not_finite_changes_nothing(blobs, small_config):
    built = open_on(1, small_config, blobs)
    state = built.init()
    broken = with_beta(state, 0.0)
    batches = next(dispatches(built, state))
    before = bare(broken)
    fetched = built.feed.fetch_steps(batches)
    after, metrics = built.program.train(broken, built.program.empty_metrics, fetched)
    assert (int(after.step), int(after.num_skipped), int(after.num_skipped_in_a_row)) == (1, 1, 1)
    unchanged = dataclasses.replace(
        after, step=after.step - 1, num_skipped=after.num_skipped - 1,
        num_skipped_in_a_row=after.num_skipped_in_a_row - 1,
    )  # fmt: skip
    chex.assert_trees_all_equal(before, bare(unchanged))
    assert float(metrics.compute()["good"]) == 0
    good = with_beta(after, 2.0)
    after, metrics = built.program.train(good, metrics, built.feed.fetch_steps(batches))
    assert (int(after.num_skipped), int(after.num_skipped_in_a_row)) == (1, 0)
    assert math.isfinite(float(metrics.compute()["loss"]))  # The mean is over good steps alone.


def small_batch(built, state):
    fetched = built.feed.fetch_steps(next(dispatches(built, state)))
    return built.feed.batch(built.method, fetched)


def test_one_player_has_the_gradient_of_value_and_grad(blobs, small_config):
    """Bit for bit."""
    built = open_on(1, small_config, blobs)
    state = built.init()
    method, batch = built.method, small_batch(built, state)

    def losses(params):
        variables = {**state.variables, "params": params}
        output = method.losses(variables, state.memory, batch, state.key, step=0, train=True)
        return {"model": masked_mean(output.losses["model"], batch.mask)}

    def by_players(params):
        means, pull_back = jax.vjp(losses, params)
        return means["model"], own_gradients(method.players, means, pull_back)

    by_hand = jax.jit(jax.value_and_grad(lambda params: losses(params)["model"]))
    params = state.variables["params"]
    got, (value, gradient) = jax.jit(by_players)(params), by_hand(params)
    # What nobody moves has no gradient by players.
    want = value, {part: gradient[part] for part in method.players["model"].parts}
    chex.assert_trees_all_equal(jax.device_get(got), jax.device_get(want))
    assert np.any(jax.tree.leaves(got[1])[0] != 0)


def test_each_player_descends_its_own_loss():
    """Both gradients of one pull-back equal those of each loss alone; no part is in two."""
    params = {"a": jnp.arange(3.0), "b": jnp.ones(3), "c": jnp.ones(2)}
    players = {"one": Player(parts=("a", "c")), "two": Player(parts=("b",))}

    def losses(params):
        both = jnp.sum(params["a"] ** 2 * params["b"])
        return {"one": both + params["c"].sum(), "two": -(both**2)}

    means, pull_back = jax.vjp(losses, params)
    got = own_gradients(players, means, pull_back)
    for name, player in players.items():
        alone = jax.grad(lambda params, name=name: losses(params)[name])(params)
        for part in player.parts:
            np.testing.assert_array_equal(got[part], alone[part])
    assert set(got) == set(params)


def test_the_moving_average_is_that_of_the_weights(blobs, small_config):
    config = cfg.replace_fields(small_config, ema_decay=0.75, schedule="cosine")
    built = open_on(1, config, blobs, steps_per_dispatch=1)
    state = built.init()
    want = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.variables)]
    first = want
    for batches in dispatches(built, state):
        fetched = built.feed.fetch_steps(batches)
        state, _ = built.advance(state, built.program.empty_metrics, fetched)
        now = jax.tree.leaves(state.variables)
        step = int(state.step) - 1
        decay = min(0.75, (1 + step) / (10 + step))
        want = [decay * a + (1 - decay) * np.asarray(b) for a, b in zip(want, now, strict=True)]
    for mean, value, start in zip(jax.tree.leaves(state.average), want, first, strict=True):
        np.testing.assert_allclose(mean, value, rtol=1e-5, atol=1e-6)
        assert start.size < 10 or np.any(np.abs(value - start) > 1e-5)
    assert state.evaluated is state.average


def test_a_player_has_a_running_average_of_its_own():
    """Another without one is its own average."""
    players = {"one": Player(parts=("a",), ema_decay=0.5), "two": Player(parts=("b",))}
    assert ema_decays({"two": players["two"]}, cfg.OptimizationConfig()) == {}
    decays = ema_decays(players, cfg.OptimizationConfig())
    old, new = ({"params": {"a": jnp.full(2, x), "b": jnp.full(2, x)}} for x in (1.0, 3.0))
    average = moving_average(new, old, decays, jnp.int32(10**6))["params"]
    np.testing.assert_allclose(average["a"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(average["b"], 3.0, rtol=1e-6)
    both = ema_decays(players, cfg.OptimizationConfig(ema_decay=0.75))
    assert both == {"a": 0.5, "b": 0.75}


def test_clipping_bounds_the_update():
    params = {"a": {"w": jnp.zeros(4)}, "b": {"w": jnp.zeros(4)}}
    players = {"one": Player(parts=("a",), clip_norm=0.25), "two": Player(parts=("b",))}
    clipped = make_optimizer(players, cfg.OptimizationConfig(clip_norm=0.5), steps_per_epoch=1)
    state = clipped.init(params)
    _, state = clipped.update(jax.tree.map(lambda a: a + 100.0, params), state, params)
    # (1 - b1) * clipped gradient: a player's own limit, or the run's.
    for name, want in (("one", 0.1 * 0.125), ("two", 0.1 * 0.25)):
        leaves = jax.tree.leaves(state.inner_states[name])
        mu = next(leaf for leaf in leaves if leaf.shape == (4,))
        np.testing.assert_allclose(mu, want, rtol=1e-5)


def test_players_move_at_their_own_rates_and_turns():
    params = {"a": {"w": jnp.zeros(4)}, "b": {"w": jnp.zeros(4)}}
    players = {
        "one": Player(parts=("a",)),
        "two": Player(parts=("b",), learning_rate=1e-2, every=2),
    }
    optimizer = make_optimizer(
        players, cfg.OptimizationConfig(learning_rate=1e-3), steps_per_epoch=1
    )
    state, moved = optimizer.init(params), []
    for _ in range(4):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        moved.append((float(updates["a"]["w"][0]), float(updates["b"]["w"][0])))
    # A constant gradient moves Adam by its rate.
    np.testing.assert_allclose([a for a, _ in moved], -1e-3, rtol=1e-4)
    np.testing.assert_allclose([b for _, b in moved], [-1e-2, 0, -1e-2, 0], rtol=1e-4)


def test_the_plateau_lowers_the_step_size(blobs, small_config):
    built = open_on(1, cfg.replace_fields(small_config, plateau_patience=2), blobs)
    state = built.init()
    plateau = state.plateau
    for score in (1.0, 1.0, 1.0, 1.0):
        plateau = built._plateau(plateau, jnp.float32(score))
    assert float(plateau.scale) == 0.5
    # Negative scores too: a slightly worse one is no improvement.
    plateau = state.plateau
    for score in (-100.0, -99.999, -99.998, -99.997):
        plateau = built._plateau(plateau, jnp.float32(score))
    assert float(plateau.scale) == 0.5
    assert float(plateau.best_value) == -100.0
    frozen = plateau._replace(scale=jnp.zeros_like(plateau.scale))
    still = dataclasses.replace(state, plateau=frozen)
    before = jax.tree.map(np.asarray, still.variables["params"])
    fetched = built.feed.fetch_steps(next(dispatches(built, still)))
    after, _ = built.program.train(still, built.program.empty_metrics, fetched)
    chex.assert_trees_all_equal(before, jax.tree.map(np.asarray, after.variables["params"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_centers": 281}, "num_centers=281: it is larger than the training split of 280"),
        (
            {"num_centers": 270},
            "num_centers=270: it is more than the 256 images of an epoch's full",
        ),
        ({"num_centers": 60}, "num_centers=60: it is smaller than batch_size=64"),
        ({"batch_size": 288}, "batch_size=288 is larger than the training split of 280"),
        ({"batch_size": 60}, "batch_size=60 cannot be split over 8 devices: use 64"),
    ],
)
def test_sizes_that_do_not_fit(fields, message, blobs, small_config):
    with pytest.raises(cfg.ConfigError, match=message):
        setups.make_setup(cfg.replace_fields(small_config, **fields), dataset=blobs)


def test_images_outside_the_decoders_range(blobs, small_config):
    wild = dataclasses.replace(blobs, images=blobs.images.astype(np.float32))
    with pytest.raises(ValueError, match="sigmoid"):
        setups.make_setup(small_config, dataset=wild)
    setups.make_setup(cfg.replace_fields(small_config, activation="linear"), dataset=wild)
    with pytest.raises(cfg.ConfigError, match="activation='logits' does not go with this"):
        setups.make_setup(small_config, dataset=blobs, decoder=_LogitsDecoder())


class _LogitsDecoder:
    activation = "logits"
