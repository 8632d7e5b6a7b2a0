"""The compiled pieces of training: the step, the encoding of images and the evaluation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from avae_jax.mesh import replicated, split_rows
from avae_jax.methods import Batch, Method, Player
from avae_jax.numerics import masked_mean
from avae_jax.training.feed import Feed
from avae_jax.training.means import Means, masked_means
from avae_jax.training.state import TrainState, state_sharding

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]

BROKEN = "broken_"
"""Prefix of the metrics that say which part of a skipped step was not finite."""


def make_train_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    ema_decays: Mapping[str, float],
) -> Step:
    """Return the pure function that takes one optimization step.

    Args:
      method: what is trained.
      optimizer: updates the parameters, those of each player by its own loss.
      ema_decays: decay of the running average by part; empty where none is kept.

    Returns:
      `step(state, batch) -> (state, metrics)`; `metrics` are `[batch]` or `[]`: the players'
      losses, the method's terms, `gradient_norm`, `good`, 0 where the step was skipped because
      something in it was not finite, and as `broken_*` a 1 for each part that was not. A skipped
      step leaves everything but the step number and the counts as it was.
    """
    players = method.players

    def step(state: TrainState, batch: Batch):
        # One forward pass, and one pull-back per player.
        key = jax.random.fold_in(state.key, state.step)
        params = state.variables["params"]

        def losses(params):
            output = method.losses(
                {**state.variables, "params": params},
                state.memory, batch, key, step=state.step, train=True,
            )  # fmt: skip
            means = {name: masked_mean(output.losses[name], batch.mask) for name in players}
            return means, output

        means, pull_back, output = jax.vjp(losses, params, has_aux=True)
        gradient = jax.tree.map(jnp.zeros_like, params) | own_gradients(players, means, pull_back)

        # What is not finite anywhere spoils the whole step.
        gradient_norm = optax.tree.norm(gradient)
        good = jnp.isfinite(gradient_norm)
        for mean in means.values():
            good &= jnp.isfinite(mean)

        # The update, times the plateau rule's factor.
        updates, opt_state = optimizer.update(gradient, state.opt_state, params)
        updates = jax.tree.map(lambda u: u * state.plateau.scale.astype(u.dtype), updates)
        variables = {**output.variables, "params": optax.apply_updates(params, updates)}
        average = state.average
        if average is not None:
            average = moving_average(variables, average, ema_decays, state.step)

        # A skipped step keeps the old state. The memory sees to it itself: it may be large.
        moved = dataclasses.replace(
            state, variables=variables, opt_state=opt_state, average=average, memory=None
        )
        kept = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            moved,
            dataclasses.replace(state, memory=None),
        )
        bad = 1 - good.astype(jnp.int32)
        state = dataclasses.replace(
            kept,
            memory=method.remember(
                state.memory, output, batch, variables, step=state.step, good=good
            ),
            step=state.step + 1,
            num_skipped=state.num_skipped + bad,
            num_skipped_in_a_row=(state.num_skipped_in_a_row + bad) * bad,
        )

        # What is reported, and which parts a skipped step was broken in.
        metrics = {
            **output.terms,
            **loss_terms(players, output.losses),
            "gradient_norm": gradient_norm,
        }
        broken = {
            BROKEN + name: 1.0 - jnp.all(jnp.isfinite(values)).astype(jnp.float32)
            for name, values in {**output.terms, "gradient": gradient_norm}.items()
        }
        return state, {**metrics, **broken, "good": good.astype(jnp.float32)}

    return step


def own_gradients(players: Mapping[str, Player], means, pull_back) -> dict[str, Any]:
    """Return the gradient of each part in the loss of the player that moves it."""
    gradient = {}
    for name, player in players.items():
        ones = {other: jnp.asarray(other == name, mean.dtype) for other, mean in means.items()}
        (pulled,) = pull_back(ones)
        gradient |= {part: pulled[part] for part in player.parts}
    return gradient


def moving_average(variables, average, decays: Mapping[str, float], step: jax.Array):
    """Return the moving average after a step, each part by its own decay.

    The decay is at most (1 + step) / (10 + step): initial weights must not stay in the average,
    whose validation sets what follows it, for the thousands of steps that 0.999 remembers.
    """
    most = (1.0 + step) / (10.0 + step)
    decays = {part: jnp.minimum(decay, most) for part, decay in decays.items()}  # pyright: ignore
    return {
        collection: {
            part: optax.incremental_update(
                own, average[collection][part], 1 - decays.get(part, 0.0)
            )
            for part, own in parts.items()
        }
        for collection, parts in variables.items()
    }


def loss_terms(
    players: Mapping[str, Player], losses: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """Return the losses under the names they are reported by: "loss" is the first player's."""
    first = next(iter(players))
    return {"loss" if name == first else f"{name}_loss": value for name, value in losses.items()}


def collect(metrics: dict[str, jax.Array]) -> Means:
    """Start an epoch's means over the good steps from one step's metrics, or several steps'.

    Args:
      metrics: `[]` or `[batch]` each, or with the steps ahead.
    """
    good = metrics["good"]
    # A skipped step must not turn an epoch's means into NaN: its values count as absent. What
    # reports skipped steps is averaged over all.
    of_all = {name for name in metrics if name == "good" or name.startswith(BROKEN)}
    masks = {
        name: None
        if name in of_all
        else jnp.broadcast_to(jnp.expand_dims(good, range(good.ndim, values.ndim)), values.shape)
        for name, values in metrics.items()
    }
    return masked_means(metrics, masks)


def _empty(abstract: dict[str, jax.ShapeDtypeStruct]) -> Means:
    """Return what an epoch's metrics start from, in the dtypes they will have."""
    merged = jax.eval_shape(lambda metrics: collect(metrics).merge(collect(metrics)), abstract)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), merged)


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled functions of a run.

    Attributes:
      train: `(state, metrics, fetched [batch]) -> (state, metrics)`; the state is donated.
      train_many: the same for `fetched [steps, batch]`, in one dispatch.
      encode: `(variables, fetched) -> codes [batch, latent_dim]`, running averages.
      encode_batch: the same with batch statistics.
      evaluate: `(variables, memory, key, step, fetched, mask) -> sums of the terms`, those of a
        statistic times the number of rows.
      empty_metrics: what an epoch's metrics start from.
    """

    train: Callable
    train_many: Callable
    encode: Callable
    encode_batch: Callable
    evaluate: Callable
    empty_metrics: Means


def compile_program(
    step: Step, method: Method, feed: Feed, state: TrainState, *, mesh: Mesh
) -> Program:
    """Compile a run's functions for a mesh, with explicit shardings (on their first call)."""
    # Where things lie: the state as the method says, a batch split along its rows.
    whole, rows = replicated(mesh), split_rows(mesh)
    state_at = state_sharding(state, method, mesh)

    def train(state, metrics, fetched):
        state, new = step(state, feed.batch(method, fetched))
        return state, metrics.merge(collect(new))

    def train_many(state, metrics, fetched):
        inputs, own = feed.steps(fetched)
        state, new = jax.lax.scan(
            lambda state, one: step(state, feed.batch(method, own(one))), state, inputs
        )
        return state, metrics.merge(collect(new))

    def encode(train, variables, fetched):
        x = feed.batch(method, fetched).x
        return method.encode(variables, x, train=train)[0].mean()

    def evaluate(variables, memory, key, step, fetched, mask):
        batch = feed.batch(method, fetched, mask)
        output = method.losses(variables, memory, batch, key, step=step, train=False)
        terms = {**output.terms, **loss_terms(method.players, output.losses)}
        num_rows = jnp.sum(mask)
        return {name: masked_mean(term, mask) * num_rows for name, term in terms.items()}

    # An epoch's means start from zeros of the shapes and dtypes that a step reports.
    abstract = jax.eval_shape(
        lambda state, batch: step(state, batch)[1], state, feed.abstract(method)
    )
    once, many = feed.sharding(0), feed.sharding(1)
    return Program(
        train=jax.jit(
            train,
            in_shardings=(state_at, whole, once),
            out_shardings=(state_at, whole),
            donate_argnums=0,
        ),
        train_many=jax.jit(
            train_many,
            in_shardings=(state_at, whole, many),
            out_shardings=(state_at, whole),
            donate_argnums=0,
        ),
        encode=jax.jit(
            functools.partial(encode, False), in_shardings=(whole, once), out_shardings=whole
        ),
        encode_batch=jax.jit(
            functools.partial(encode, True), in_shardings=(whole, once), out_shardings=whole
        ),
        evaluate=jax.jit(
            evaluate,
            in_shardings=(whole, state_at.memory, whole, whole, once, rows),
            out_shardings=whole,
        ),
        empty_metrics=jax.device_put(_empty(abstract), whole),
    )
