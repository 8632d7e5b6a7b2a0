"""The aggregate VAE (Saha, Joshi and Whitaker 2023, arXiv 2311.07693)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from avae_jax import losses
from avae_jax.density import (
    Bandwidth,
    CodeScale,
    PriorBandwidth,
    expected_code_scale,
    find_bandwidth,
    find_prior_bandwidth,
    null_kl,
    prior_null_kl,
)
from avae_jax.losses.avae import kl_weight
from avae_jax.mesh import BATCH_AXIS
from avae_jax.methods import method
from avae_jax.methods.bank import Bank, empty_bank, fill_bank, is_spread
from avae_jax.methods.method import (
    Measured,
    OptionsError,
    Output,
    Player,
    make_coder,
    require,
    require_fixed,
    require_positive,
)
from avae_jax.methods.terms import KL, RECONSTRUCTION
from avae_jax.priors import PRIORS, DiagonalGaussianPrior, Prior, StandardNormal, make_prior
from avae_jax.terms import Term

MAX_QUEUE_AGE = 40
"""Steps: queues of 20 matched re-encoding on MNIST, queues of 100 cost over a nat of KL."""

RUNAWAY_NATS = 5.0
"""How far below its null value a validation KL must fall before the run warns of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BankOptions(method.Options):
    """What all have that compare a kernel density of the codes of other images with the prior."""

    tail: Literal["none", "official"] = "official"
    """What the density is where it runs out of centers; official is the authors' floor."""
    max_cdf: float | None = None
    """tail official: the probability that places the floor; the authors' choice for the number of
    dimensions when not given."""
    num_centers: int = 1000
    """Number of codes in the density estimate."""
    bandwidth: float | None = None
    """Standard deviation of the kernels, between 0 and 1; found automatically when not given."""
    refresh: Literal["queue", "reencode"] = "queue"
    """queue: the codes of the last batches, at no cost. reencode: encode a subset of the training
    images again every refresh_every steps, redrawn each epoch."""
    refresh_every: int = 10
    """reencode: steps between two refreshes."""
    centers_mode: Literal["train", "eval"] = "train"
    """Batch normalization used for the centers: batch statistics, as for the codes of the batch,
    or running averages, as in the authors' code."""

    def check(self):
        """Refuse values that no data could make runnable."""
        require_fixed(self.likelihood)
        require(
            self.max_cdf is None or 0 < self.max_cdf < 1,
            "max_cdf", self.max_cdf, "give a probability between 0 and 1, such as 0.9999",
        )  # fmt: skip
        require(
            self.bandwidth is None or 0 < self.bandwidth < 1,
            "bandwidth", self.bandwidth, "give a number between 0 and 1, or leave it out",
        )  # fmt: skip
        require(self.num_centers >= 2, "num_centers", self.num_centers, "give at least 2")
        require(self.refresh_every >= 1, "refresh_every", self.refresh_every, "give at least 1")

    def check_setting(self, setting):
        """Refuse a bank that does not fit the data."""
        num_centers, queue = self.num_centers, self.refresh == "queue"
        require(
            num_centers <= setting.num_train, "num_centers", num_centers,
            f"it is larger than the training split of {setting.num_train}; lower it",
        )  # fmt: skip
        # In a longer queue an image could meet two of its own codes, and only one is left out.
        in_epoch = setting.num_train // setting.batch_size * setting.batch_size
        require(
            not queue or num_centers <= in_epoch, "num_centers", num_centers,
            f"it is more than the {in_epoch} images of an epoch's full batches; lower it, or use "
            "refresh reencode",
        )  # fmt: skip
        require(
            not queue or num_centers >= setting.batch_size, "num_centers", num_centers,
            f"it is smaller than batch_size={setting.batch_size}; raise it, or use refresh "
            "reencode",
        )  # fmt: skip

    def fitted(self, *, num_train, batch_size):
        """Return as many centers as there is room for, where there are fewer than asked for."""
        most = num_train
        if self.refresh == "queue":
            most = num_train // batch_size * batch_size
        return {"num_centers": most} if 2 <= most < self.num_centers else {}

    def choose_bandwidth(self, latent_dim: int) -> Bandwidth:
        """Find the bandwidth, or take the one given."""
        h = self.bandwidth
        if h is None:
            return find_bandwidth(latent_dim, self.num_centers)
        scale = math.sqrt(1 - h**2)
        null = null_kl(latent_dim, self.num_centers, bandwidth=h, scale=scale)
        return Bandwidth(
            h_opt=h / scale, h_corr=h, prior_scale=scale, stderr=0.0, null_kl=null, num_iterations=0
        )

    def floor_at(self, latent_dim: int) -> float | None:
        """Return the probability that places the density's floor; None where it has none.

        The authors set it by hand per data set; where it is not given, theirs for the nearest
        number of dimensions is taken: 1 - 1e-6 up to 8, 1 - 1e-4 up to 32, 1 - 1e-2 up to 80,
        1 - 1e-1 beyond.
        """
        if self.tail == "none":
            return None
        if self.max_cdf is not None:
            return self.max_cdf
        return next(
            (1 - gap for most, gap in ((8, 1e-6), (32, 1e-4), (80, 1e-2)) if latent_dim <= most),
            0.9,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(BankOptions):
    """An aggregate VAE: encodes to points, whose density is pulled to the prior as a whole."""

    beta: float | None = None
    """Divides the reconstruction; when not given it is measured on the validation split before the
    first step and after each epoch."""
    weight: Literal["nats", "log10"] | float = "nats"
    """Multiplies the KL; nats is 1, log10 is 1/ln 10 (the authors' code)."""
    prior: "Literal[tuple(PRIORS)]" = "standard_normal"  # pyright: ignore[reportInvalidTypeForm]
    """standard_normal: N(0, I); mixture: a mixture of Gaussians that is drawn from the seed. It
    stays as it is."""
    num_components: int = 10
    """prior mixture: its components."""

    name = "avae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("beta", self.beta)
        require(self.num_components >= 1, "num_components", self.num_components, "give at least 1")
        if not isinstance(self.weight, str):
            require_positive("weight", self.weight)

    def make(self, setting, facts=None):
        """Find the bandwidth, unless `facts` hold it, and build the method."""
        coder = make_coder(setting, posterior="deterministic", likelihood=self.likelihood)
        found = (facts or {}).get("bandwidth")
        prior: Prior = StandardNormal(setting.latent_dim)
        matched = prior
        if self.prior == "standard_normal":
            kind: type = AVAE
            bandwidth: Any = Bandwidth(**found) if found else None
            bandwidth = bandwidth or self.choose_bandwidth(setting.latent_dim)
        else:
            kind = AVAEToPrior
            key = jax.random.key(setting.seed)
            prior = make_prior(
                self.prior, setting.latent_dim, key, num_components=self.num_components,
                image_shape=setting.image_shape,
            )  # fmt: skip
            self.check_smooth(prior)
            bandwidth = PriorBandwidth(**found) if found else None
            bandwidth = bandwidth or self.choose_prior_bandwidth(prior)
            matched = prior.smoothed(bandwidth.bandwidth)
        return kind(
            options=self,
            setting=setting,
            coder=coder,
            facts={"bandwidth": dataclasses.asdict(bandwidth)},
            bandwidth=bandwidth,
            fixed_prior=prior,
            matched=matched,
        )

    def check_smooth(self, prior: Prior) -> None:
        """Refuse a prior whose density under the kernels is not known."""
        try:
            prior.smoothed(0.5)
        except NotImplementedError:
            known = "its density must have a closed form after noise is added"
            raise OptionsError(f"prior={self.prior}: {known}; use another") from None

    def choose_prior_bandwidth(self, prior: Prior) -> PriorBandwidth:
        """Find the bandwidth for a prior that is not N(0, I), or take the one given."""
        if self.bandwidth is None:
            return find_prior_bandwidth(prior, self.num_centers)
        null = prior_null_kl(prior, self.num_centers, bandwidth=self.bandwidth)
        return PriorBandwidth(self.bandwidth, stderr=0.0, null_kl=null, num_iterations=0)


class Memory(NamedTuple):
    """What the method remembers.

    Attributes:
      bank: codes of other images, the centers of the density.
      beta: `[]`, what the reconstruction term is divided by.
    """

    bank: Bank
    beta: jax.Array


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class AVAE(method.Method):
    """Descends `reconstruction / beta + weight KL(q(z) || p(z))`, q a density of the bank's codes.

    Attributes:
      bandwidth: the kernel's bandwidth and what comes with it.
      fixed_prior: what the codes are to be distributed as.
      matched: what their density is compared with.
    """

    bandwidth: Any
    fixed_prior: Prior
    matched: Prior

    terms = {
        "reconstruction": RECONSTRUCTION,
        "kl": KL,
        "tail_share": Term(caption="Codes in the tail", short="tail", unit="%"),
        "beta": Term(caption="Beta", short="beta", log=True),
        # Centers ten steps old are still as good as new.
        "staleness": Term(
            caption="Staleness of the centers", short="staleness", unit="steps", least=10.0
        ),
        # Their difference is what matters.
        "log_p": None,
        "log_q": None,
    }

    @property
    def players(self):
        """One, who moves the networks; the prior stays as it is."""
        return {"model": Player(parts=tuple(self.networks.parts))}

    def init_prior(self, key):
        """Return the prior."""
        del key
        return self.fixed_prior

    @property
    def kernel_std(self) -> float:
        """Standard deviation of the kernels."""
        return self.bandwidth.h_corr

    @functools.cached_property
    def _max_cdf(self) -> float | None:
        return self.options.floor_at(self.latent_dim)

    @functools.cached_property
    def _loss(self):
        """Return the loss of a batch, of `(x, x_recon, z, centers, beta, exclude, log_p)`."""
        return self.spread(functools.partial(losses.avae, weight=kl_weight(self.options.weight)))

    def spread(self, loss_fn: Callable):
        """Return a loss of a batch that is split over the devices, as the bank may be.

        Args:
          loss_fn: takes what `losses.avae` takes, but for its weight.
        """
        rows, whole = PartitionSpec(BATCH_AXIS), PartitionSpec()
        spread = is_spread(self.setting.mesh, self.options.num_centers)

        # Under shard_map each device streams its centers past the queries: the partitioner does not
        # see inside a loop what needs no collective.
        @functools.partial(
            jax.shard_map,
            mesh=self.setting.mesh,
            in_specs=(rows, rows, rows, rows if spread else whole, whole, rows, rows),
            out_specs=rows,
            check_vma=False,
        )
        def loss(x, x_recon, z, centers, beta, exclude, log_p):
            return loss_fn(
                x,
                x_recon,
                z,
                centers,
                beta=beta,
                bandwidth=self.kernel_std,
                tail=self.options.tail,
                max_cdf=self._max_cdf,
                likelihood=self.options.likelihood,
                exclude=exclude,
                log_p=log_p,
                axis_name=BATCH_AXIS if spread else None,
                queries_sharded=spread,
            )

        return loss

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the loss of each example against the bank, its own code left out."""
        posterior, variables = self.encode(variables, batch.x, train=train)
        z = posterior.mean()
        x_recon, variables = self.decode(variables, z, train=train)
        bank = memory.bank
        loss, terms = self._loss(
            batch.x, x_recon, z, bank.codes, memory.beta, bank.row_of[batch.ids],
            self.matched.log_prob(z),
        )  # fmt: skip
        terms["tail_share"] = terms.pop("tail")
        if train:
            terms["staleness"] = bank.staleness(step)
        return Output({"model": loss}, terms, variables, z)

    def criterion(self, terms: Mapping[str, Any]) -> float:
        """Return what the loss descends.

        With `beta = sqrt(R)` the gradient of `R / beta` is that of `2 sqrt(R)`: this is the
        quantity that a moving beta descends, and it is comparable between epochs while `R / beta`
        is not.
        """
        reconstruction, beta = terms["reconstruction"], self.options.beta
        scaled = 2 * math.sqrt(max(reconstruction, 0.0)) if beta is None else reconstruction / beta
        return scaled + kl_weight(self.options.weight) * terms["kl"]

    def null(self) -> dict[str, float]:
        """Return what the loss's KL shows for perfect codes, floor included."""
        return {"kl": self._null_kl}

    @functools.cached_property
    def _null_kl(self) -> float:
        return null_kl(
            self.latent_dim,
            self.options.num_centers,
            bandwidth=self.bandwidth.h_corr,
            scale=self.bandwidth.prior_scale,
            max_cdf=self._max_cdf,
        )

    def sampling_priors(self, variables):
        """Return what makes the distributions that codes may be drawn from.

        "claimed" is `N(0, (1 - h^2) I)`, whose density estimate is N(0, I); "fixed_point" has the
        scale where the latent forces balance.
        """
        del variables
        return {
            "claimed": lambda: DiagonalGaussianPrior.isotropic(
                self.latent_dim, self.bandwidth.prior_scale
            ),
            "fixed_point": self._at_fixed_point,
        }

    def _at_fixed_point(self) -> Prior:
        scale = self.code_scale.fixed_point
        if scale is None:
            raise ValueError("scale='fixed_point': the forces balance at no scale; use another")
        return DiagonalGaussianPrior.isotropic(self.latent_dim, scale)

    @functools.cached_property
    def code_scale(self) -> CodeScale:
        """The scale that the codes are expected to settle at."""
        return expected_code_scale(
            self.latent_dim,
            self.options.num_centers,
            bandwidth=self.bandwidth.h_corr,
            tail=self.options.tail,
            max_cdf=self._max_cdf,
        )

    def init_memory(self) -> Memory:
        """Return an empty bank, and beta as it is given."""
        bank = empty_bank(self.options.num_centers, self.latent_dim, self.setting.num_images)
        beta = self.options.beta
        return Memory(bank, jnp.asarray(1.0 if beta is None else beta, jnp.float32))

    def memory_sharding(self, memory: Memory, whole) -> Memory:
        """Return where the memory lies: whole on every device, but for a bank that divides."""
        at = jax.tree.map(lambda _: whole, memory)
        if not is_spread(self.setting.mesh, self.options.num_centers):
            return at
        split = NamedSharding(self.setting.mesh, PartitionSpec(BATCH_AXIS))
        return at._replace(bank=dataclasses.replace(at.bank, codes=split))

    def remember(self, memory: Memory, output, batch, variables, *, step, good) -> Memory:
        """Push the batch's codes where the bank is a queue."""
        if self.options.refresh != "queue":
            return memory
        z = output.z
        if self.options.centers_mode == "eval":
            z = self.encode(variables, batch.x, train=False)[0].mean()
        bank = memory.bank.push(z, batch.ids, step=step, mesh=self.setting.mesh, good=good)
        return memory._replace(bank=bank)

    def reported(self, memory: Memory, variables) -> dict[str, jax.Array]:
        """Return beta."""
        return {"beta": memory.beta}

    @property
    def host_every(self) -> int | None:
        """Steps between two refreshes of the bank."""
        return self.options.refresh_every if self.options.refresh == "reencode" else None

    def start(self, memory: Memory, variables, host) -> Measured:
        """Fill the bank and measure beta."""
        memory = self.refresh(memory, variables, host, self.draw_ids(host, 0), step=0)
        if self.options.beta is not None:
            return Measured(memory)
        return self.after_epoch(memory, variables, host.validate(variables, memory))

    def before_step(self, memory, variables, host, *, epoch, position, step):
        """Encode the bank's images again; another subset in each epoch."""
        ids = np.asarray(memory.bank.ids) if position else self.draw_ids(host, epoch)
        return self.refresh(memory, variables, host, ids, step=step)

    def draw_ids(self, host, epoch: int) -> np.ndarray:
        """Draw the training images whose codes make the density in an epoch."""
        generator = np.random.default_rng([self.setting.seed, epoch, 1])
        chosen = generator.choice(len(host.train_ids), self.options.num_centers, False)
        # In random order: sorted neighbors of a folder share a class, and batch statistics of one
        # class are not those of a training batch.
        return host.train_ids[chosen].astype(np.int32)

    def refresh(self, memory: Memory, variables, host, ids: np.ndarray, *, step: int) -> Memory:
        """Fill the bank by encoding the images `ids`."""
        codes = host.encode(variables, ids, batch_statistics=self.options.centers_mode == "train")
        bank = fill_bank(codes, ids, num_images=self.setting.num_images, step=step)
        return memory._replace(bank=bank)

    def for_validation(self, memory: Memory, variables, host) -> Memory:
        """Encode the bank with the variables under evaluation and their running averages.

        The KL is then that of the model a user would be given.
        """
        codes = host.encode(variables, np.asarray(memory.bank.ids))
        return memory._replace(bank=dataclasses.replace(memory.bank, codes=codes))

    def after_epoch(self, memory: Memory, variables, terms) -> Measured:
        """Set beta to the root of the mean validation error, unless it is given."""
        beta = math.sqrt(max(terms["reconstruction"], 0.0))
        if self.options.beta is None and math.isfinite(beta) and beta > 0:
            memory = memory._replace(beta=jnp.float32(beta))
        return Measured(memory, terms=terms)

    def introduce(self, images) -> list[str]:
        """Return what is to be expected of the density."""
        num_centers, mesh = self.options.num_centers, self.setting.mesh
        lines = [f"{num_centers:,} centers in {self.latent_dim} dimensions{self._expected()}"]
        if is_spread(mesh, num_centers):
            share = num_centers // mesh.size
            lines.append(f"each of the {mesh.size} devices holds {share:,} of the centers")
        elif mesh.size > 1:
            lines.append(
                f"each of the {mesh.size} devices holds all centers: a multiple of {mesh.size} "
                "would be spread over them"
            )
        age = num_centers // self.setting.batch_size
        if self.options.refresh == "queue" and age > MAX_QUEUE_AGE:
            lines.append(
                f"warning: the centers get {age} steps old, and codes run ahead of a density that "
                "old: take fewer centers or refresh reencode (see experiments/README.md)"
            )
        return lines

    def _expected(self) -> str:
        return (
            f": bandwidth {self.bandwidth.h_corr:.3f}, prior scale "
            f"{self.bandwidth.prior_scale:.3f}; forecast for free codes: {self.code_scale.verdict}"
        )

    def describe(self, images) -> dict[str, dict[str, Any]]:
        """Return the density and the scale of the codes to expect."""
        bandwidth, scale = self.bandwidth, self.code_scale
        return {
            "density": {
                "num_centers": self.options.num_centers,
                "h_opt": f"{bandwidth.h_opt:.4f} +- {bandwidth.stderr:.4f}",
                "h (used)": bandwidth.h_corr,
                "prior scale sqrt(1 - h^2)": bandwidth.prior_scale,
                "null KL": self._null_kl,
            },
            "scale of the codes (standard deviation in their own units)": {
                "claimed": scale.claimed,
                "force balance of free codes": scale.fixed_point,
                "forecast": scale.verdict,
            },
        }

    def warnings(self, terms: Mapping[str, float]) -> list[str]:
        """Return whether the codes have run away from the density that should hold them."""
        kl = terms.get("kl", 0.0)
        if not kl < self._null_kl - RUNAWAY_NATS:
            return []
        return [
            f"warning: the validation KL, {kl:.2f}, is far below its null value, "
            f"{self._null_kl:.2f}: the codes have run away from the density that should hold them. "
            "Use tail official, a smaller weight or refresh reencode"
        ]


class AVAEToPrior(AVAE):
    """The aggregate VAE with a prior that is not N(0, I).

    The density of the codes is compared with the prior smoothed by the kernel: codes that match it
    are distributed as the prior itself, and neither the bandwidth nor the prior's scale needs a
    correction. Divided by `sqrt(1 + h^2)`, the same for N(0, I) is the paper's objective.
    """

    @property
    def kernel_std(self) -> float:
        """Standard deviation of the kernels."""
        return self.bandwidth.bandwidth

    @functools.cached_property
    def _null_kl(self) -> float:
        if self._max_cdf is None:
            return self.bandwidth.null_kl
        return prior_null_kl(
            self.fixed_prior,
            self.options.num_centers,
            bandwidth=self.kernel_std,
            max_cdf=self._max_cdf,
        )

    def sampling_priors(self, variables):
        """Return what makes the prior."""
        return {"claimed": lambda: self.prior(variables)}

    def _expected(self) -> str:
        return (
            f" against {self.fixed_prior.describe()}: bandwidth {self.kernel_std:.3f}, null KL "
            f"{self._null_kl:.2f}"
        )

    def describe(self, images) -> dict[str, dict[str, Any]]:
        """Return the density."""
        return {
            "density": {
                "prior": self.fixed_prior.describe(),
                "num_centers": self.options.num_centers,
                "h": f"{self.kernel_std:.4f} +- {self.bandwidth.stderr:.4f}",
                "null KL": self._null_kl,
            }
        }
