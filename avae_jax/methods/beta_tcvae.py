"""The beta-TCVAE (Chen, Li, Grosse and Duvenaud 2018, arXiv 1802.04942): a VAE less dependent."""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from avae_jax import losses
from avae_jax.losses.beta_tcvae import WEIGHTS
from avae_jax.methods import vae
from avae_jax.methods.method import Measured, Output, require, require_positive
from avae_jax.priors import make_prior
from avae_jax.terms import Term


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(vae.Options):
    """A beta-TCVAE: a VAE whose total correlation, measured by densities, is penalized."""

    beta: float = 2.0  # pyright: ignore[reportIncompatibleVariableOverride]
    """Multiplies the total correlation of the codes; 1 is a VAE. Saha et al. (2023, Table XI) take
    2 for photographs and digits, 5 for dSprites and Shapes3D."""
    alpha: float = 1.0
    """Multiplies the mutual information of codes and images."""
    gamma: float = 1.0
    """Multiplies the divergences of the single dimensions from the prior."""
    density: Literal[(*WEIGHTS, "exact")] = "uniform"  # pyright: ignore[reportInvalidTypeForm]
    """How the density of all codes is estimated. Of a batch: uniform weighs its images as a sample,
    without bias; mss: the paper's stratified sampling; mws: its weighted sampling, biased. exact:
    of the batch and the remembered posteriors of other training images."""
    num_posteriors: int | None = None
    """density exact: how many are remembered, those of the last images; all training images where
    it is not given, at a cost that grows with their number."""

    name = "beta_tcvae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        for name in ("beta", "alpha", "gamma"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, name, value, "give a number of at least 0")
        require(
            self.posterior == "gaussian", "posterior", self.posterior,
            "the density of all codes is made of Gaussians; use posterior gaussian",
        )  # fmt: skip
        exact = self.density == "exact"
        require(
            exact or self.num_posteriors is None, "num_posteriors", self.num_posteriors,
            f"density {self.density} remembers none; leave it out, or use density exact",
        )  # fmt: skip
        require_positive("num_posteriors", self.num_posteriors)

    def check_setting(self, setting):
        """Refuse values that do not fit the data."""
        super().check_setting(setting)
        require(
            setting.latent_dim >= 2, "latent_dim", setting.latent_dim,
            "the total correlation is between dimensions; give at least 2",
        )  # fmt: skip
        most = setting.num_train
        require(
            self.num_posteriors is None or self.num_posteriors <= most, "num_posteriors",
            self.num_posteriors, f"the training split has {most} images; lower it or leave it out",
        )  # fmt: skip
        least = setting.batch_size
        require(
            self.num_posteriors is None or self.num_posteriors >= least, "num_posteriors",
            self.num_posteriors, f"it is smaller than batch_size={least}; raise it",
        )  # fmt: skip
        prior = make_prior(
            self.prior, setting.latent_dim, jax.random.key(0),
            num_components=self.num_components, image_shape=setting.image_shape,
        )  # fmt: skip
        require(
            prior.is_gaussian, "prior", self.prior,
            "the dimensions must be independent; use prior standard_normal or gaussian",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        coder = self.make_coder(setting, posterior=self.posterior)
        return BetaTCVAE(options=self, setting=setting, coder=coder)


class Memory(NamedTuple):
    """Posteriors of training images, each as it was when its image last passed.

    Attributes:
      loc: `[num_posteriors, latent_dim]`.
      log_var: `[num_posteriors, latent_dim]`.
      ids: `[num_posteriors]` int32, the image of each row, -1 where there is none yet.
      row_of: `[num_images]` int32, the row of each image where all have their own; else, and for
        images of no row, the number of rows.
      next_row: int32, which row the next image takes where none has its own.
    """

    loc: jax.Array
    log_var: jax.Array
    ids: jax.Array
    row_of: jax.Array
    next_row: jax.Array


class BetaTCVAE(vae.VAE):
    """Descends `-log p(x | z) + alpha I + beta TC + gamma sum_k KL(q(z_k) || p(z_k))`.

    `avae_jax.losses.beta_tcvae` has the terms and where we differ: the KL in closed form, and
    weights that are unbiased. The batch's own posteriors always count as they are now, with their
    gradient; with density exact those of all other images are added as they were when these last
    passed, which makes the weights 1/N. A warm-up is one of all parts of the KL.
    """

    terms = {
        **vae.TERMS,
        "mi": Term(caption="Mutual information", short="mi", unit="nats"),
        "tc": Term(caption="Total correlation", short="tc", unit="nats"),
        "dimension_kl": Term(caption="Dimension-wise KL", short="dim kl", unit="nats"),
    }

    @property
    def beta(self) -> float:
        """What the KL as a whole is multiplied by."""
        return 1.0

    @property
    def _has_all(self) -> bool:
        """Whether every training image has a row of the memory."""
        return self.options.num_posteriors in (None, self.setting.num_train)

    @property
    def _factors(self) -> dict[str, float]:
        """What multiplies the parts of the KL, by their names."""
        options = self.options
        return {"mi": options.alpha, "tc": options.beta, "dimension_kl": options.gamma}

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the loss of each example, against the posteriors of batch and memory."""
        nll, kl, terms, found, z, variables = self.forward(variables, batch, key, train=train)
        # Both are Gaussian, as the options are checked for.
        posterior: Any = found
        prior: Any = self.prior(variables)
        parts = losses.kl_decomposition(
            z, posterior.loc, posterior.log_var, num_train=self.setting.num_train,
            prior_loc=prior.loc, prior_log_var=prior.log_var, mask=batch.mask,
            **self._density(memory, batch),
        )  # fmt: skip
        excess = ((self._factors[name] - 1) * part for name, part in parts.items())
        loss = nll + self.kl_weight(step) * (kl + sum(excess))
        noted = (posterior.loc, posterior.log_var) if self.options.density == "exact" else ()
        return Output({"model": loss}, {**terms, **parts}, variables, posterior.mean(), noted)

    def _density(self, memory, batch) -> dict[str, Any]:
        """Return how the density of all codes is made."""
        if self.options.density != "exact":
            return {"weights": self.options.density}
        own = jnp.where(batch.mask > 0, batch.ids, -1)
        others = ~jnp.any(memory.ids[:, None] == own[None, :], axis=1)
        return {"bank": (memory.loc, memory.log_var), "bank_mask": others & (memory.ids >= 0)}

    def criterion(self, terms):
        """Return the loss."""
        excess = ((factor - 1) * terms[name] for name, factor in self._factors.items())
        return terms["nll"] + terms["kl"] + sum(excess)

    def init_memory(self) -> Any:
        """Return a memory without posteriors, or nothing where none are remembered."""
        if self.options.density != "exact":
            return ()
        num_rows = self.options.num_posteriors or self.setting.num_train
        return Memory(
            loc=jnp.zeros((num_rows, self.latent_dim)),
            log_var=jnp.zeros((num_rows, self.latent_dim)),
            ids=jnp.full(num_rows, -1, jnp.int32),
            row_of=jnp.full(self.setting.num_images, num_rows, jnp.int32),
            next_row=jnp.zeros((), jnp.int32),
        )

    def start(self, memory, variables, host) -> Measured:
        """Give every training image its row, where there are as many, and measure the noise."""
        if isinstance(memory, Memory) and self._has_all:
            row_of = np.array(memory.row_of)
            row_of[host.train_ids] = np.arange(len(memory.ids))
            memory = memory._replace(row_of=jnp.asarray(row_of))
        return super().start(memory, variables, host)

    def remember(self, memory, output, batch, variables, *, step, good):
        """Write the batch's posteriors over their images' own, or over the oldest."""
        if not isinstance(memory, Memory):
            return memory
        num_rows, num_new = len(memory.ids), len(batch.ids)
        rows = memory.row_of[batch.ids]
        if not self._has_all:
            rows = (memory.next_row + jnp.arange(num_new, dtype=jnp.int32)) % num_rows
        # Rows outside of an array are dropped: so nothing is written after a step that failed.
        rows = jnp.where(good & (batch.mask > 0), rows, num_rows)
        loc, log_var = output.noted
        return memory._replace(
            loc=memory.loc.at[rows].set(loc, mode="drop"),
            log_var=memory.log_var.at[rows].set(log_var, mode="drop"),
            ids=memory.ids.at[rows].set(batch.ids, mode="drop"),
            next_row=jnp.where(good, (memory.next_row + num_new) % num_rows, memory.next_row),
        )
