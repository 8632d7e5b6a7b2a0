"""The compiled pieces of training: the step, the encoding of images and the evaluation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from avae_jax.training.autoencoder import Autoencoder
from avae_jax.training.config import Config
from avae_jax.training.means import Means, masked_means
from avae_jax.training.objective import Context, Objective
from avae_jax.training.sharding import replicated, split_rows
from avae_jax.training.state import TrainState, state_sharding

Step = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


BROKEN = "broken_"
"""Prefix of the metrics that say which part of a skipped step was not finite."""


def make_train_step(
    config: Config,
    model: Autoencoder,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
) -> Step:
    """Return the pure function that takes one optimisation step.

    Args:
      config: the run's configuration.
      model: the networks.
      objective: the method.
      optimizer: updates the parameters.
      mesh: the devices.

    Returns:
      `step(state, images, index) -> (state, metrics)`: `images` `[batch, ...]` uint8 or float32,
      `index` `[batch]` int32 their numbers in the data set; `metrics` per example `[batch]`:
      loss, the loss's terms, gradient norm, staleness of the centers in steps, `good`, 0 where the
      step was skipped because something in it was not finite, and as `broken_*` a 1 for each
      part that was not. A skipped step leaves everything but the step number and the counts as it
      was.
    """
    own_queue = config.centers.refresh == "queue"
    eval_centers = config.centers.centers_mode == "eval"
    ema_decay = config.optimization.ema_decay

    def step(state: TrainState, images: jax.Array, index: jax.Array):
        x = model.to_float(images)
        centers = state.centers
        context = Context(
            key=jax.random.fold_in(state.key, state.step),
            beta=state.beta,
            centers=None if centers is None else centers.codes,
            exclude=None if centers is None else centers.row_of[index],
        )

        def mean_loss(params):
            variables = {**state.variables, "params": params}
            per_example, terms, z, batch_stats = objective.forward(
                variables, x, context, train=True
            )
            return per_example.mean(), (per_example, terms, z, batch_stats)

        (loss, (per_example, terms, z, batch_stats)), gradient = jax.value_and_grad(
            mean_loss, has_aux=True
        )(state.variables["params"])
        gradient_norm = optax.tree.norm(gradient)
        good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

        updates, opt_state = optimizer.update(gradient, state.opt_state, state.variables["params"])
        updates = jax.tree.map(lambda u: u * state.plateau.scale.astype(u.dtype), updates)
        variables = {
            "params": optax.apply_updates(state.variables["params"], updates),
            "batch_stats": batch_stats,
        }
        staleness = jnp.zeros(())
        if centers is not None:
            staleness = (state.step - centers.encoded_at).astype(jnp.float32).mean()
            if own_queue:
                if eval_centers:
                    z = model.codes(variables, x, train=False)
                centers = centers.push(z, index, step=state.step, mesh=mesh, good=good)
        average = state.average
        if average is not None and ema_decay is not None:
            average = optax.incremental_update(variables, average, 1 - ema_decay)

        # The bank has seen to it itself.
        moved = dataclasses.replace(
            state, variables=variables, opt_state=opt_state, average=average, centers=None
        )
        state = jax.tree.map(
            lambda new, old: jnp.where(good, new, old),
            moved,
            dataclasses.replace(state, centers=None),
        )
        bad = 1 - good.astype(jnp.int32)
        state = dataclasses.replace(
            state,
            centers=centers,
            step=state.step + 1,
            num_skipped=state.num_skipped + bad,
            num_skipped_in_a_row=(state.num_skipped_in_a_row + bad) * bad,
        )
        metrics = {
            "loss": per_example,
            **terms,
            "gradient_norm": jnp.broadcast_to(gradient_norm, per_example.shape),
            "staleness": jnp.broadcast_to(staleness, per_example.shape),
            "good": jnp.broadcast_to(good.astype(jnp.float32), per_example.shape),
        }
        causes = {**terms, "gradient": gradient_norm}
        for name, values in causes.items():
            broken = 1.0 - jnp.all(jnp.isfinite(values)).astype(jnp.float32)
            metrics[BROKEN + name] = jnp.broadcast_to(broken, per_example.shape)
        return state, metrics

    return step


def collect(metrics: dict[str, jax.Array]) -> Means:
    """Start an epoch's means over the good steps from one step's per-example metrics."""
    good = metrics["good"]
    # A skipped step must not turn an epoch's means into NaN: its values count as absent. What
    # tells of skipped steps is averaged over all.
    of_all = {name for name in metrics if name == "good" or name.startswith(BROKEN)}
    return masked_means(metrics, {name: None if name in of_all else good for name in metrics})


def _empty(abstract: dict[str, jax.ShapeDtypeStruct]) -> Means:
    """Return what an epoch's metrics start from, in the dtypes they will have."""
    merged = jax.eval_shape(lambda metrics: collect(metrics).merge(collect(metrics)), abstract)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), merged)


class Images:
    """The images of a run, on the device once if they fit, else read as they are needed.

    Args:
      images: `[num_images, ...]`, anything with a shape, a dtype and indexing by an integer array.
      mesh: the devices.
      resident: whether to hold all images on every device.
    """

    def __init__(self, images: Any, *, mesh: Mesh, resident: bool):
        self.shape, self.dtype = tuple(images.shape), np.dtype(images.dtype)
        self.resident = resident
        self._mesh = mesh
        self._images = jax.device_put(np.asarray(images), replicated(mesh)) if resident else images

    def fetch(self, index: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Return what `take` needs for the images `index`: `[batch]`, or `[steps, batch]`."""
        rows = split_rows(self._mesh, axis=index.ndim - 1)
        device_index = jax.device_put(index, rows)
        if self.resident:
            return self._images, device_index
        return jax.device_put(
            self._images[index.reshape(-1)].reshape(*index.shape, *self.shape[1:]), rows
        ), device_index

    def take(self, images: jax.Array, index: jax.Array) -> jax.Array:
        """Pick the batch inside a compiled function."""
        return images[index] if self.resident else images


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled functions of a run.

    Attributes:
      train: `(state, metrics, images, index [batch]) -> (state, metrics)`; the state is donated.
      train_many: the same for `index [steps, batch]`, in one dispatch.
      encode: `(variables, images, index) -> codes [batch, latent_dim]`, running averages.
      encode_batch: the same with batch statistics.
      evaluate: `(variables, beta, key, centers, images, index, mask) -> sums of the terms`.
      empty_metrics: what an epoch's metrics start from.
    """

    train: Callable
    train_many: Callable
    encode: Callable
    encode_batch: Callable
    evaluate: Callable
    empty_metrics: Means


def compile_program(
    step: Step,
    model: Autoencoder,
    objective: Objective,
    images: Images,
    state: TrainState,
    *,
    mesh: Mesh,
    batch_size: int,
) -> Program:
    """Compile a run's functions for a mesh, with explicit shardings (on their first call)."""
    whole, rows = replicated(mesh), split_rows(mesh)
    state_at = state_sharding(state, mesh)
    bank_at = whole if state_at.centers is None else state_at.centers.codes
    pixels = whole if images.resident else rows

    def train(state, metrics, pixels, index):
        state, new = step(state, images.take(pixels, index), index)
        return state, metrics.merge(collect(new))

    def train_many(state, metrics, pixels, index):
        def body(state, inputs):
            index, pixels_of_step = inputs
            batch = pixels[index] if images.resident else pixels_of_step
            return step(state, batch, index)

        state, new = jax.lax.scan(body, state, (index, None if images.resident else pixels))
        return state, metrics.merge(collect({k: v.reshape(-1) for k, v in new.items()}))

    def encode(train, variables, pixels, index):
        x = model.to_float(images.take(pixels, index))
        return model.codes(variables, x, train=train)

    def evaluate(variables, beta, key, centers, pixels, index, mask):
        x = model.to_float(images.take(pixels, index))
        context = Context(key=key, beta=beta, centers=centers)
        per_example, terms, _, _ = objective.forward(variables, x, context, train=False)
        terms = {"loss": per_example, **terms}
        return {name: jnp.sum(jnp.where(mask > 0, term, 0)) for name, term in terms.items()}

    abstract = jax.eval_shape(
        lambda state: step(
            state,
            jnp.zeros((batch_size, *images.shape[1:]), jnp.float32),
            jnp.zeros(batch_size, jnp.int32),
        )[1],
        state,
    )
    many_rows = split_rows(mesh, axis=1)
    return Program(
        train=jax.jit(
            train,
            in_shardings=(state_at, whole, pixels, rows),
            out_shardings=(state_at, whole),
            donate_argnums=0,
        ),
        train_many=jax.jit(
            train_many,
            in_shardings=(state_at, whole, whole if images.resident else many_rows, many_rows),
            out_shardings=(state_at, whole),
            donate_argnums=0,
        ),
        encode=jax.jit(
            functools.partial(encode, False),
            in_shardings=(whole, pixels, rows),
            out_shardings=whole,
        ),
        encode_batch=jax.jit(
            functools.partial(encode, True),
            in_shardings=(whole, pixels, rows),
            out_shardings=whole,
        ),
        evaluate=jax.jit(
            evaluate,
            in_shardings=(whole, whole, whole, bank_at, pixels, rows, rows),
            out_shardings=whole,
        ),
        empty_metrics=jax.device_put(_empty(abstract), whole),
    )
