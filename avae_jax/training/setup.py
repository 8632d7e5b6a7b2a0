"""What a run is made of: its data, its method and the devices, checked to fit together."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from avae_jax import data as datasets
from avae_jax import mesh as meshes
from avae_jax import models
from avae_jax.methods import Method, Setting
from avae_jax.training.config import Config, ConfigError, ModelConfig, check_config


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run's immutable parts, built once and shared by training, checks and benchmarks.

    Attributes:
      config: the run's configuration.
      dataset: images and splits, on the host.
      method: what is trained, with its networks.
      mesh: all local devices along one axis.
      steps_per_epoch: full batches in an epoch.
    """

    config: Config
    dataset: datasets.ImageData
    method: Method
    mesh: Mesh
    steps_per_epoch: int

    @property
    def batch_size(self) -> int:
        """Images in a step over all devices."""
        return self.config.optimization.batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.config.optimization.num_epochs


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
      ConfigError: names the field, its value and how to fix it.
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
    return datasets.steps_per_epoch(num_train, batch_size)


def make_setup(
    config: Config,
    *,
    dataset: datasets.ImageData | None = None,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
    facts: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
) -> Setup:
    """Load the data and build the method; check that they fit together.

    Args:
      config: what to train.
      dataset: images to train on instead of those the configuration names.
      encoder: a module to use instead of the one the configuration names.
      decoder: likewise.
      facts: the method's own, of an earlier set-up of the same run.
      mesh: the devices; all local ones when not given.
    """
    check_config(config)
    if jax.process_count() > 1:
        raise ConfigError(
            f"{jax.process_count()} processes: training runs in one, on all devices of its machine"
        )
    mesh = meshes.make_mesh() if mesh is None else mesh
    dataset = load_data(config) if dataset is None else dataset
    steps_per_epoch = check_data(config, dataset, mesh.size)
    setting = make_setting(
        config,
        image_shape=dataset.images.shape[1:],
        num_images=len(dataset.images),
        num_train=len(dataset.splits.train),
        num_classes=num_classes(dataset),
        mesh=mesh,
        encoder=encoder,
        decoder=decoder,
    )
    config.method.check_setting(setting)
    method = config.method.make(setting, facts)
    datasets.check_scaled(dataset.images)
    datasets.check_value_range(dataset.images, method.value_range, method.activation)
    return Setup(config, dataset, method, mesh, steps_per_epoch)


def num_classes(dataset: datasets.ImageData) -> int:
    """Return the number of classes of a data set's labels; 0 without labels."""
    if dataset.labels is None:
        return 0
    return dataset.num_classes or int(dataset.labels.max()) + 1


def make_setting(
    config: Config,
    *,
    image_shape: Sequence[int],
    num_images: int,
    num_train: int,
    num_classes: int,
    mesh: Mesh,
    encoder: nn.Module | None = None,
    decoder: nn.Module | None = None,
) -> Setting:
    """Return what a method is built for: the facts of a run, and how its networks are made."""

    def make_encoder(num_outputs, activation, image_shape):
        if encoder is not None:
            return encoder
        return build_encoder(config.model, num_outputs, activation)

    def make_decoder(image_shape, logits):
        return build_decoder(config.model, image_shape, logits=logits, decoder=decoder)

    return Setting(
        latent_dim=config.model.latent_dim,
        image_shape=tuple(image_shape),
        num_images=num_images,
        num_train=num_train,
        batch_size=config.optimization.batch_size,
        num_classes=num_classes,
        seed=config.optimization.seed,
        mesh=mesh,
        encoder=make_encoder,
        decoder=make_decoder,
    )


def build_encoder(model: ModelConfig, num_outputs: int, activation: str) -> nn.Module:
    """Build the encoder a configuration names, for images of a decoder with this activation."""
    return models.make_encoder(
        model.encoder or model.architecture,
        latent_dim=model.latent_dim,
        num_outputs=num_outputs,
        activation=activation,
        width=model.width,
        norm=model.norm,
    )


def build_decoder(
    model: ModelConfig,
    image_shape: Sequence[int],
    *,
    logits: bool,
    decoder: nn.Module | None = None,
) -> tuple[nn.Module, str]:
    """Build the decoder a configuration names, or take one, and say what it ends in.

    Raises:
      ConfigError: it gives logits where the likelihood takes none, or the other way round.
    """
    if decoder is None:
        decoder = models.make_decoder(
            model.decoder or model.architecture,
            image_shape=image_shape,
            activation="logits" if logits else model.activation,
            width=model.width,
            norm=model.norm,
        )
    own = "logits" if logits else model.activation or "linear"
    activation = getattr(decoder, "activation", None) or own
    if (activation == "logits") != logits:
        raise ConfigError(
            f"activation={activation!r} does not go with this likelihood, which "
            f"{'takes' if logits else 'does not take'} logits: choose another activation or "
            "likelihood"
        )
    return decoder, activation
