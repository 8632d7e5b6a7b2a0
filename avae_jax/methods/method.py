"""What a method is: the one protocol between a way to train an autoencoder and all else.

A method lives in one file: its options, its networks, its losses, what it remembers from step to
step and what it does between epochs. The step, the loop, the checkpoints, the figures, the
evaluation and the command line know this protocol and no method.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from avae_jax.likelihoods import LIKELIHOODS, Likelihood, make_likelihood
from avae_jax.methods.networks import Network, Networks, Variables
from avae_jax.posteriors import Distribution, Posterior, make_posterior
from avae_jax.priors import Prior, StandardNormal
from avae_jax.terms import Terms

# Options are read wherever a configuration is: without the networks' library.
if TYPE_CHECKING:
    import flax.linen as nn


class OptionsError(ValueError):
    """Options that cannot be run; the message names the field, its value and what to give."""


class Batch(NamedTuple):
    """What one step sees; every array is split over the devices along its rows.

    Attributes:
      x: `[batch, ...]` float32 examples in the decoder's range, or a dict of such arrays.
      ids: `[batch]` int32, the number of each example in the data set.
      mask: `[batch]` float32, 0 for rows that only fill the batch up.
      labels: `[batch]` int32 classes, -1 where the data have none.
    """

    x: Any
    ids: jax.Array
    mask: jax.Array
    labels: jax.Array


class Output(NamedTuple):
    """What a forward pass gives.

    Attributes:
      losses: player -> `[batch]` or `[]`; a step descends their mean over the rows that count.
      terms: name -> `[batch]`, or `[]` for a statistic of the batch; reported.
      variables: those given, with the batch statistics of this pass.
      z: `[batch, latent_dim]`, the codes.
      noted: what else `Method.remember` is to know of this pass, any tree of arrays.
    """

    losses: dict[str, jax.Array]
    terms: dict[str, jax.Array]
    variables: Variables
    z: jax.Array
    noted: Any = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    """One of those who descend a loss of their own; None takes the run's own setting.

    Attributes:
      parts: names of the networks that it moves, "prior" and "likelihood" among them; no other
        player moves them.
      learning_rate: Adam's step size; where the run's is lowered, so is this one, by the same
        factor.
      adam_betas: Adam's decay rates.
      clip_norm: largest norm of its gradient.
      every: it moves once in so many steps.
      ema_decay: of the running average of its parts.
    """

    parts: tuple[str, ...]
    learning_rate: float | None = None
    adam_betas: tuple[float, float] | None = None
    clip_norm: float | None = None
    every: int = 1
    ema_decay: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
    """What a method is built for.

    Attributes:
      latent_dim: dimensions of a code.
      image_shape: shape of one example.
      num_images: examples in the data set, over all splits.
      num_train: examples in the training split.
      batch_size: examples in a step, over all devices.
      num_classes: classes of the labels; 0 without labels.
      seed: of the run.
      mesh: the devices.
      encoder: `(num_outputs, activation, image_shape) -> module`, as the run's configuration says.
      decoder: `(image_shape, logits) -> module`.
    """

    latent_dim: int
    image_shape: tuple[int, ...]
    num_images: int
    num_train: int
    batch_size: int
    num_classes: int
    seed: int
    mesh: Mesh
    encoder: "Callable[[int, str, tuple[int, ...]], nn.Module]"
    decoder: "Callable[[tuple[int, ...], bool], tuple[nn.Module, str]]"


class Measured(NamedTuple):
    """What a validation changes.

    Attributes:
      memory: what is remembered from now on.
      params: part -> parameters that are measured and that no player moves.
      terms: mean terms of the validation, as the model with these parameters has them.
    """

    memory: Any
    params: Mapping[str, Any] = {}
    terms: Mapping[str, float] = {}


class Host(Protocol):
    """What a method may ask for between two steps."""

    @property
    def train_ids(self) -> np.ndarray:
        """Numbers of the training images, `[num_train]` int32."""
        ...

    def encode(
        self, variables: Variables, ids: np.ndarray, *, batch_statistics: bool = False
    ) -> np.ndarray:
        """Return the codes `[len(ids), latent_dim]` of images, by number."""
        ...

    def validate(self, variables: Variables, memory: Any) -> dict[str, float]:
        """Return the mean terms over the validation split."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of a method; each method adds its own fields.

    Fields of this class keep their value when a configuration changes its method.
    """

    likelihood: "Literal[tuple(LIKELIHOODS)]" = "gaussian"  # pyright: ignore[reportInvalidTypeForm]
    """What the decoder's output means. gaussian: squared error; learned_gaussian: with a standard
    deviation that is learned; bernoulli: cross-entropy on logits."""

    name: ClassVar[str]

    def check(self) -> None:
        """Refuse values that no data could make runnable, with an `OptionsError`."""

    def check_setting(self, setting: Setting) -> None:
        """Refuse values that do not fit the data, with an `OptionsError`."""

    def fitted(self, *, num_train: int, batch_size: int) -> Mapping[str, Any]:
        """Return other values for fields that do not fit the data, for a user who gave none.

        Args:
          num_train: examples in the training split.
          batch_size: examples in a step.
        """
        del num_train, batch_size
        return {}

    def make(self, setting: Setting, facts: Mapping[str, Any] | None = None) -> "Method":
        """Build the method.

        Args:
          setting: what for.
          facts: those of an earlier build, read back from a run folder; None finds them.
        """
        raise NotImplementedError


def require(condition: bool, name: str, value: Any, fix: str) -> None:
    """Refuse the value of a field unless a condition holds."""
    if not condition:
        raise OptionsError(f"{name}={value}: {fix}")


def require_positive(name: str, value: float | None) -> None:
    """Refuse a number that is not finite and above 0; None passes."""
    finite = value is None or (math.isfinite(value) and value > 0)
    require(finite, name, value, "give a number > 0")


def require_fixed(likelihood: str) -> None:
    """Refuse a likelihood with parameters, where the loss is its reconstruction term alone."""
    require(
        not jax.tree.leaves(make_likelihood(likelihood)), "likelihood", likelihood,
        "this method's loss has no use for its parameters; use another, or method vae",
    )  # fmt: skip


class Coder(NamedTuple):
    """A method's networks, and what their outputs mean.

    Attributes:
      networks: by the role they play.
      posterior: what an encoder's output means.
      likelihood: what a decoder's means, before training.
      activation: what a decoder ends in.
    """

    networks: Networks
    posterior: Posterior
    likelihood: Likelihood
    activation: str


def make_coder(
    setting: Setting,
    *,
    posterior: str,
    likelihood: str,
    noise_scale: float = 1.0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    **others: Network,
) -> Coder:
    """Build an encoder and a decoder, or a pair per view, and check that they fit the data.

    Args:
      setting: what for.
      posterior: a name in `POSTERIORS`.
      likelihood: a name in `LIKELIHOODS`.
      noise_scale: standard deviation, for likelihoods that have one.
      shapes: view -> shape of one example of it, for pairs "encoder_VIEW" and "decoder_VIEW"; None
        is one pair for the whole example.
      **others: the method's other networks, by name.

    Raises:
      ValueError: a network's output does not have the shape it must have.
    """
    from avae_jax import models

    of_codes = make_posterior(posterior)
    of_data = make_likelihood(likelihood, noise_scale=noise_scale)
    num_outputs = of_codes.num_outputs(setting.latent_dim)
    pairs = {"": setting.image_shape} if shapes is None else shapes
    parts: dict[str, Network] = {}
    activation = ""
    for view, shape in pairs.items():
        decoder, activation = setting.decoder(shape, of_data.takes_logits)
        encoder = setting.encoder(num_outputs, activation, shape)
        models.check_shapes(
            encoder,
            decoder,
            image_shape=shape,
            latent_dim=setting.latent_dim,
            num_outputs=num_outputs,
        )
        end = f"_{view}" if view else ""
        parts[f"encoder{end}"] = Network(encoder, shape)
        parts[f"decoder{end}"] = Network(decoder, (setting.latent_dim,))
    return Coder(Networks({**parts, **others}), of_codes, of_data, activation)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Method:
    """A method bound to its networks, with the defaults of one that remembers nothing.

    Everything is a pure function, but for the hooks that take a `Host`.

    Attributes:
      options: what was asked of it.
      setting: what it was built for.
      coder: its networks and their meaning.
      facts: what was found while building, JSON values; a run folder keeps them.
    """

    options: Any
    setting: Setting
    coder: Coder
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    # What it is.

    terms: ClassVar[Terms] = {}
    """How its reported numbers are shown, by name."""

    sampled_by: ClassVar[str] = "claimed"
    """Which distribution of codes its samples come from, where nothing else is asked for: its
    prior, "claimed"; for a method that aims its codes at none "covariance", a Gaussian with the
    mean and covariance of the training codes."""

    @property
    def networks(self) -> Networks:
        """The networks by name."""
        return self.coder.networks

    @property
    def latent_dim(self) -> int:
        """Dimensions of a code."""
        return self.setting.latent_dim

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return self.setting.image_shape

    @property
    def activation(self) -> str:
        """What the decoder ends in: "sigmoid", "tanh", "linear" or "logits"."""
        return self.coder.activation

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Interval the data lie in; None when unbounded."""
        from avae_jax import models

        return models.VALUE_RANGE[self.activation]

    @property
    def is_stochastic(self) -> bool:
        """Whether an image has more than one code."""
        return self.coder.posterior.stochastic

    @property
    def players(self) -> Mapping[str, Player]:
        """Who descends which loss, by the names of `Output.losses`."""
        return {"model": Player(parts=(*self.networks.parts, "prior", "likelihood"))}

    # Pure functions of the variables.

    def init(self, key: jax.Array) -> Variables:
        """Draw initial variables; those of a name depend on the name and the key alone."""
        variables = self.networks.init(key)
        others = {"prior": self.init_prior(key), "likelihood": self.coder.likelihood}
        return {**variables, "params": {**variables["params"], **others}}

    def init_prior(self, key: jax.Array) -> Prior:
        """Return the prior with its initial parameters."""
        del key
        return StandardNormal(self.latent_dim)

    def prepare(self, images) -> Any:
        """Return `Batch.x` for images as the data set holds them."""
        return self.to_float(images)

    def to_float(self, images):
        """Return uint8 images in the decoder's range, and float images as they are."""
        if images.dtype != jnp.uint8:
            return images.astype(jnp.float32)
        low, high = self.value_range or (0.0, 1.0)
        return images.astype(jnp.float32) * ((high - low) / 255) + low

    def encode(self, variables: Variables, x, *, train: bool) -> tuple[Distribution, Variables]:
        """Return the posterior of each example, and the variables after the pass."""
        head, variables = self.networks(variables, "encoder", x, train=train)
        return self.coder.posterior(head), variables

    def decode(self, variables: Variables, z, *, train: bool) -> tuple[jax.Array, Variables]:
        """Return what the likelihood takes, and the variables after the pass."""
        return self.networks(variables, "decoder", z, train=train)

    def prior(self, variables: Variables) -> Prior:
        """Return the prior as it is trained, completed by the encoder where it needs one."""
        prior = variables["params"]["prior"]
        return prior.given(lambda x: self.encode(variables, x, train=False)[0])

    def likelihood(self, variables: Variables) -> Likelihood:
        """Return the likelihood as it is trained."""
        return variables["params"]["likelihood"]

    def sampling_priors(self, variables: Variables) -> dict[str, Callable[[], Prior]]:
        """Return what makes the distributions that codes may be drawn from, by name.

        "claimed" is what the method aims its codes at.
        """
        return {"claimed": lambda: self.prior(variables)}

    def losses(
        self, variables: Variables, memory: Any, batch: Batch, key: jax.Array, *, step, train: bool
    ) -> Output:
        """Return the losses of one forward pass.

        Args:
          variables: of all networks, and the prior.
          memory: what is remembered.
          batch: the examples.
          key: the step's random key.
          step: int32, steps taken.
          train: whether batch statistics are used and updated.
        """
        raise NotImplementedError

    def criterion(self, terms: Mapping[str, float]) -> float:
        """Return what picks checkpoints and drives the step size, from mean terms; low is good."""
        raise NotImplementedError

    def null(self) -> dict[str, float]:
        """Return what terms show for codes that match the prior perfectly, by name."""
        return {}

    # What it remembers from step to step.

    def init_memory(self) -> Any:
        """Return the memory before anything is known, any tree of arrays; pure."""
        return ()

    def memory_sharding(self, memory: Any, whole) -> Any:
        """Return where each leaf of the memory lies; `whole` is on every device."""
        return jax.tree.map(lambda _: whole, memory)

    def remember(
        self, memory: Any, output: Output, batch: Batch, variables: Variables, *, step, good
    ) -> Any:
        """Return the memory after a step, inside the step.

        Where `good` is False it must be what it was: nothing else selects it, as it can be large.

        Args:
          memory: before the step.
          output: of the forward pass.
          batch: the step's.
          variables: after the step.
          step: int32, the step's number.
          good: whether all that the step computed is finite.
        """
        del output, batch, variables, step, good
        return memory

    def reported(self, memory: Any, variables: Variables) -> dict[str, jax.Array]:
        """Return what is remembered or learned and worth a line in the log, `[]` each."""
        del memory, variables
        return {}

    # Between steps, on the host.

    @property
    def host_every(self) -> int | None:
        """Steps from one call of `before_step` that does something to the next, or None."""
        return None

    def start(self, memory: Any, variables: Variables, host: Host) -> Measured:
        """Return what the first step begins with."""
        del variables, host
        return Measured(memory)

    def before_step(
        self, memory: Any, variables: Variables, host: Host, *, epoch: int, position: int, step: int
    ) -> Any:
        """Return the memory for the next step; called where `position` is due.

        Args:
          memory: after the step before.
          variables: as they are trained.
          host: encodes images.
          epoch: number of the epoch.
          position: of the step in its epoch, a multiple of `host_every`.
          step: of the step in the run.
        """
        del variables, host, epoch, position, step
        return memory

    def for_validation(self, memory: Any, variables: Variables, host: Host) -> Any:
        """Return the memory that goes with the variables under evaluation."""
        del variables, host
        return memory

    def after_epoch(
        self, memory: Any, variables: Variables, terms: Mapping[str, float]
    ) -> Measured:
        """Return what the mean terms of the validation split change.

        Args:
          memory: of the training.
          variables: that were evaluated.
          terms: the mean terms.
        """
        del variables
        return Measured(memory, terms=terms)

    # What is said of it.

    def introduce(self, images: np.ndarray) -> list[str]:
        """Return lines that a run begins with.

        Args:
          images: some of the training images, as the data set holds them.
        """
        del images
        return []

    def describe(self, images: np.ndarray) -> dict[str, dict[str, Any]]:
        """Return what is known before training, by subject.

        Args:
          images: some of the training images, as the data set holds them.
        """
        del images
        return {}

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        """Return what the mean terms of a validation give reason to warn of."""
        del terms
        return []
