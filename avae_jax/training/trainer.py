"""The parts of a run: its data, networks and compiled functions, without files or clocks."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avae_jax import data as datasets
from avae_jax.density import Bandwidth, find_bandwidth, null_kl
from avae_jax.training import sharding
from avae_jax.training.autoencoder import Autoencoder, make_autoencoder
from avae_jax.training.config import Config, ConfigError, check_config, max_cdf
from avae_jax.training.objective import make_objective
from avae_jax.training.state import (
    TrainState,
    centers_sharding,
    make_centers,
    make_optimizer,
    make_plateau,
    make_state,
    restore_target,
    state_sharding,
)
from avae_jax.training.step import Images, compile_program, make_train_step

MAX_STEPS_PER_DISPATCH = 32

ENCODE_ROWS = 500
"""Images encoded or evaluated at a time, before rounding to the number of devices."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run's immutable parts, built once and shared by training, checks and benchmarks.

    Attributes:
      config: the run's configuration.
      dataset: images and splits, on the host.
      model: the networks.
      mesh: all local devices along one axis.
      bandwidth: the kernel's bandwidth and what comes with it; None for methods without one.
      steps_per_epoch: full batches in an epoch.
    """

    config: Config
    dataset: datasets.ImageData
    model: Autoencoder
    mesh: jax.sharding.Mesh
    bandwidth: Bandwidth | None
    steps_per_epoch: int

    @functools.cached_property
    def null_kl(self) -> float | None:
        """What the loss's KL shows for perfect codes: its null value, floor included."""
        if self.bandwidth is None:
            return None
        if self.config.objective.tail == "none":
            return self.bandwidth.null_kl
        return null_kl(
            self.config.model.latent_dim,
            self.config.centers.num_centers,
            bandwidth=self.bandwidth.h_corr,
            scale=self.bandwidth.prior_scale,
            max_cdf=max_cdf(self.config),
        )

    @property
    def batch_size(self) -> int:
        """Images in a step over all devices."""
        return self.config.optimization.batch_size


def choose_bandwidth(config: Config) -> Bandwidth:
    """Find the bandwidth of a configuration, or take the one it gives."""
    latent_dim, num_centers = config.model.latent_dim, config.centers.num_centers
    h = config.centers.bandwidth
    if h is None:
        return find_bandwidth(latent_dim, num_centers)
    scale = math.sqrt(1 - h**2)
    null = null_kl(latent_dim, num_centers, bandwidth=h, scale=scale)
    return Bandwidth(
        h_opt=h / scale, h_corr=h, prior_scale=scale, stderr=0.0, null_kl=null, num_iterations=0
    )


def load_data(config: Config) -> datasets.ImageData:
    """Load the data a configuration names."""
    return datasets.load_dataset(
        config.data.dataset,
        path=config.data.data_path,
        data_dir=config.data.data_dir,
        seed=config.optimization.seed,
        validation_size=config.data.validation_size,
        test_size=config.data.test_size,
    )


def check_data(config: Config, dataset: datasets.ImageData, num_devices: int) -> int:
    """Refuse sizes that do not fit the data or the devices; return the steps of an epoch.

    Raises:
      ConfigError: names the field, its value and the mend.
    """
    if len(dataset.splits.test) < 2:
        raise ConfigError(
            f"the test split has {len(dataset.splits.test)} images: at least 2 are needed; give "
            "more images or a larger test_size"
        )
    batch_size, num_train = config.optimization.batch_size, len(dataset.splits.train)
    if batch_size > num_train:
        raise ConfigError(
            f"batch_size={batch_size} is larger than the training split of {num_train}: lower it"
        )
    if batch_size % num_devices:
        nearest = max(1, round(batch_size / num_devices)) * num_devices
        raise ConfigError(
            f"batch_size={batch_size} cannot be split over {num_devices} devices: use {nearest}"
        )
    steps = datasets.steps_per_epoch(num_train, batch_size)
    if config.objective.method == "avae":
        num_centers = config.centers.num_centers
        if num_centers > num_train:
            raise ConfigError(
                f"num_centers={num_centers} is larger than the training split of {num_train}: "
                "lower it"
            )
        # In a longer queue an image could meet two of its own codes, and only one is left out.
        if config.centers.refresh == "queue" and num_centers > steps * batch_size:
            raise ConfigError(
                f"num_centers={num_centers} is more than the {steps * batch_size} images of an "
                "epoch's full batches: lower it, or use refresh reencode"
            )
        if config.centers.refresh == "queue" and num_centers < batch_size:
            raise ConfigError(
                f"num_centers={num_centers} is smaller than batch_size={batch_size}: raise it, or "
                "use refresh reencode"
            )
    return steps


def make_setup(
    config: Config,
    *,
    dataset: datasets.ImageData | None = None,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    bandwidth: Bandwidth | None = None,
) -> Setup:
    """Load the data, build the networks and find the bandwidth; check that they fit together."""
    check_config(config)
    if jax.process_count() > 1:
        raise ConfigError(
            f"{jax.process_count()} processes: training runs in one, on all devices of its machine"
        )
    mesh = sharding.make_mesh()
    dataset = load_data(config) if dataset is None else dataset
    steps_per_epoch = check_data(config, dataset, mesh.size)
    model = make_autoencoder(config, dataset.images.shape[1:], encoder=encoder, decoder=decoder)
    datasets.check_value_range(dataset.images, model.value_range, model.activation)
    if bandwidth is None and config.objective.method == "avae":
        bandwidth = choose_bandwidth(config)
    return Setup(config, dataset, model, mesh, bandwidth, steps_per_epoch)


class Trainer:
    """The compiled functions of a setup and the state they move.

    Args:
      setup: the immutable parts.
      resident: whether to hold all images on the devices; None decides by their size.
      steps_per_dispatch: steps of one compiled call; None takes several on GPU and TPU, where a
        dispatch costs more than a small step, and one on CPU, where XLA runs convolutions inside
        a loop several times slower.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        resident: bool | None = None,
        steps_per_dispatch: int | None = None,
    ):
        self.setup = setup
        config, mesh = setup.config, setup.mesh
        images = setup.dataset.images
        platform = mesh.devices.flat[0].platform
        if resident is None:
            num_bytes = math.prod(images.shape) * np.dtype(images.dtype).itemsize
            resident = num_bytes <= (1 if platform == "cpu" else 4) * 2**30
        if steps_per_dispatch is None:
            steps_per_dispatch = 1 if platform == "cpu" else MAX_STEPS_PER_DISPATCH
        if config.objective.method == "avae" and config.centers.refresh == "reencode":
            steps_per_dispatch = math.gcd(steps_per_dispatch, config.centers.refresh_every)
        self.steps_per_dispatch = min(steps_per_dispatch, setup.steps_per_epoch)
        self.images = Images(images, mesh=mesh, resident=resident)
        self.optimizer = make_optimizer(config.optimization, steps_per_epoch=setup.steps_per_epoch)
        self.objective = make_objective(
            config,
            setup.model,
            mesh=mesh,
            bandwidth=None if setup.bandwidth is None else setup.bandwidth.h_corr,
        )
        step = make_train_step(config, setup.model, self.objective, self.optimizer, mesh=mesh)
        self._initial = functools.partial(
            make_state, config, setup.model, self.optimizer, num_images=len(images)
        )
        self.program = compile_program(
            step,
            setup.model,
            self.objective,
            self.images,
            jax.eval_shape(self._initial),
            mesh=mesh,
            batch_size=setup.batch_size,
        )
        self._plateau = jax.jit(
            lambda state, score: make_plateau(config.optimization).update({}, state, value=score)[1]
        )
        self._place = functools.partial(jax.device_put, device=sharding.replicated(mesh))
        self._centers_at = centers_sharding(mesh, config.centers.num_centers)
        self.rows = -(-ENCODE_ROWS // mesh.size) * mesh.size

    def target(self) -> TrainState:
        """Return the state's shapes, dtypes and shardings, for restoring."""
        return restore_target(
            self.setup.config,
            self.setup.model,
            self.optimizer,
            num_images=len(self.setup.dataset.images),
            mesh=self.setup.mesh,
        )

    def init(self) -> TrainState:
        """Draw the state before the first step: the bank is filled and beta is measured."""
        at = state_sharding(jax.eval_shape(self._initial), self.setup.mesh)
        state = jax.jit(self._initial, out_shardings=at)()
        if self.objective.uses_centers:
            state = self.refresh(state, self.draw_subset(0), step=0)
        if self.objective.measures_beta:
            terms = self.validate(state)
            state = self.set_beta(state, terms["reconstruction"])
        return state

    def draw_subset(self, epoch: int) -> np.ndarray:
        """Draw the training images whose codes make the density in an epoch."""
        optimization, train = self.setup.config.optimization, self.setup.dataset.splits.train
        generator = np.random.default_rng([optimization.seed, epoch, 1])
        chosen = generator.choice(len(train), self.setup.config.centers.num_centers, False)
        # In random order: sorted neighbours of a folder share a class, and batch statistics of one
        # class are not those of a training batch.
        return train[chosen].astype(np.int32)

    def refresh(self, state: TrainState, subset: np.ndarray, *, step: int) -> TrainState:
        """Fill the bank of codes by encoding the images `subset` anew."""
        train_mode = self.setup.config.centers.centers_mode == "train"
        codes = self.encode(state.variables, subset, batch_statistics=train_mode)
        centers = make_centers(codes, subset, num_images=len(self.setup.dataset.images), step=step)
        return dataclasses.replace(state, centers=jax.device_put(centers, self._centers_at))

    def set_beta(self, state: TrainState, reconstruction: float) -> TrainState:
        """Set beta to the root of a mean reconstruction error."""
        beta = math.sqrt(max(reconstruction, 0.0))
        if not (math.isfinite(beta) and beta > 0):
            return state
        return dataclasses.replace(state, beta=self._place(jnp.float32(beta)))

    def encode(self, variables, index: np.ndarray, *, batch_statistics: bool = False) -> np.ndarray:
        """Return the codes `[len(index), latent_dim]` of images, by number, on the host.

        No device needs to hold all of them.
        """
        encode, rows = self.program.encode, self.rows
        if batch_statistics:
            # As many images as a training batch has, so that both see like statistics.
            encode, rows = self.program.encode_batch, self.setup.batch_size
        codes = []
        for start in range(0, len(index), rows):
            chunk = index[start : start + rows]
            # Running averages do not mix rows, so a short chunk can be filled up; batch statistics
            # do, so it is filled from the other images asked for.
            if len(chunk) < rows:
                chunk = np.concatenate([chunk, np.resize(index, rows - len(chunk))])
            codes.append(encode(variables, *self.images.fetch(chunk)))
            # At most two under way: thousands of them starve the threads with which a CPU's devices
            # wait for each other.
            codes[-2:-1] = [np.asarray(ahead) for ahead in codes[-2:-1]]
        return np.concatenate(codes)[: len(index)]

    def evaluate(
        self, variables, index: np.ndarray, *, beta, centers: jax.Array | None
    ) -> dict[str, float]:
        """Return the mean terms of the loss over images, by number, with running averages."""
        totals: dict[str, float] = {}
        for start in range(0, len(index), self.rows):
            chunk, mask = sharding.pad_rows(index[start : start + self.rows], self.rows)
            key = jax.random.fold_in(jax.random.key(0), start)
            sums = self.program.evaluate(
                variables, beta, key, centers, *self.images.fetch(chunk),
                jax.device_put(mask, sharding.split_rows(self.setup.mesh)),
            )  # fmt: skip
            for name, value in jax.device_get(sums).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        return {name: value / len(index) for name, value in totals.items()}

    def validate(self, state: TrainState) -> dict[str, float]:
        """Return the mean terms over the validation split, and the score.

        The codes of the bank are encoded anew with the weights and the running averages under
        evaluation: the KL is that of the model a user would be given.
        """
        centers = None
        if state.centers is not None:
            centers = jax.device_put(
                self.encode(state.evaluated, np.asarray(state.centers.index)),
                self._centers_at.codes,
            )
        terms = self.evaluate(
            state.evaluated, self.setup.dataset.splits.validation, beta=state.beta,
            centers=centers,
        )  # fmt: skip
        return {**terms, "score": self.objective.score(terms)}

    def dispatches(self, state: TrainState) -> Iterator[np.ndarray]:
        """Yield the batches left in the state's epoch, `[steps, batch]` at a time.

        The same dispatches are made whether or not the run was interrupted, so that both give the
        same bits.
        """
        epoch, done = divmod(int(state.step), self.setup.steps_per_epoch)
        batches = datasets.epoch_indices(
            self.setup.dataset.splits.train,
            seed=self.setup.config.optimization.seed,
            epoch=epoch,
            batch_size=self.setup.batch_size,
        )
        size = self.steps_per_dispatch
        whole = len(batches) // size * size
        while done < len(batches):
            count = size if done < whole and done % size == 0 else 1
            yield batches[done : done + count]
            done += count

    def advance(self, state: TrainState, metrics, fetched) -> tuple[TrainState, Any]:
        """Take the steps of one dispatch, whose images `fetch` brought."""
        pixels, index = fetched
        train = self.program.train if index.ndim == 1 else self.program.train_many
        return train(state, metrics, pixels, index)

    def fetch(self, batches: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Bring the images of one dispatch, `[steps, batch]`."""
        return self.images.fetch(batches[0] if len(batches) == 1 else batches)

    def finish_epoch(self, state: TrainState) -> tuple[TrainState, dict[str, float]]:
        """Validate, move beta and, where the score stands still, lower the step size."""
        terms = self.validate(state)
        if self.objective.measures_beta:
            state = self.set_beta(state, terms["reconstruction"])
        if self.setup.config.optimization.schedule == "plateau" and math.isfinite(terms["score"]):
            plateau = self._plateau(state.plateau, jnp.float32(terms["score"]))
            state = dataclasses.replace(state, plateau=self._place(plateau))
        return state, terms
