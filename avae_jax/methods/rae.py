"""The regularized autoencoder (Ghosh et al. 2020, arXiv 1903.12436)."""

import dataclasses
import zlib
from typing import Any, Literal

import jax
import jax.numpy as jnp

from avae_jax import losses
from avae_jax.losses.rae import pulled_norm
from avae_jax.methods import ae
from avae_jax.methods.method import Output, make_coder, require, require_positive
from avae_jax.methods.terms import RECONSTRUCTION
from avae_jax.terms import Term

WEIGHTS = {"l2": 1e-4, "gradient": 1e-3, "spectral": None}
"""The weight of each regularizer where none is given."""

SPECTRAL = "spectral"
"""What the batch statistics hold the largest singular directions of the decoder's kernels under."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ae.Options):
    """A regularized autoencoder: a plain one with a smooth decoder and codes near the origin."""

    regularizer: Literal["l2", "gradient", "spectral"] = "l2"
    """What holds the decoder smooth. l2: the squares of its parameters; gradient: the square of its
    derivative in the code; spectral: every kernel is divided by its largest singular value."""
    weight: float | None = None
    """Multiplies the regularizer, beside the reconstruction error summed over the pixels; 1e-4 for
    l2 and 1e-3 for gradient when not given. Regularizer spectral has none."""
    code_weight: float = 0.01
    """Multiplies half the squared length of the codes."""

    name = "rae"

    def check(self):
        """Refuse values that no data could make runnable."""
        super().check()
        require_positive("weight", self.weight)
        require_positive("code_weight", self.code_weight)
        require(
            self.weight is None or self.regularizer != "spectral", "weight", self.weight,
            "regularizer spectral has none; give None, or use regularizer l2 or gradient",
        )  # fmt: skip

    def make(self, setting, facts=None):
        """Build the method."""
        coder = make_coder(setting, posterior="deterministic", likelihood=self.likelihood)
        return RAE(options=self, setting=setting, coder=coder)


class RAE(ae.Autoencoder):
    """Descends `reconstruction + code_weight 1/2 |z|^2 + weight penalty(decoder)`.

    The paper's three penalties; `losses.rae` says how the authors' weights read in our units. The
    gradient's is estimated with random signs, one more pass back through the decoder, whose own
    derivative is what training takes: 1.5 times the arithmetic of the plain autoencoder's step and
    1.7 times its time (MNIST's net at width 0.125: `benchmarks/method_steps.py`).

    `spectral` divides every kernel of the decoder, as the matrix whose columns are its outputs, by
    an estimate of its largest singular value that one step of the power iteration per training step
    keeps up (Miyato et al. 2018, arXiv 1802.05957, algorithm 1); the authors do the same to the
    encoder by default. A batch normalization's own scale is not bounded by it, in their nets as in
    ours. A net without one must spread its codes to be heard: on the digits to a standard deviation
    of 3.3, with a squared error of 1.9 per image where the other two have 0.9 (60 epochs).

    The codes are aimed at no distribution: samples come from a Gaussian fitted to them.
    """

    terms = {
        "reconstruction": RECONSTRUCTION,
        "code_norm": Term(caption="Half the codes' squared length", short="codes", log=True),
        "penalty": Term(caption="Penalty of the decoder", short="penalty", log=True),
    }

    @property
    def is_spectral(self) -> bool:
        """Whether the decoder's kernels are divided by their largest singular values."""
        return self.options.regularizer == "spectral"

    @property
    def weight(self) -> float:
        """What the penalty is multiplied by."""
        given = self.options.weight
        return (WEIGHTS[self.options.regularizer] or 0.0) if given is None else given

    def init(self, key):
        """Draw initial variables, and where spectral the first singular directions."""
        variables = super().init(key)
        if not self.is_spectral:
            return variables
        directions = {
            name: jax.random.normal(
                jax.random.fold_in(key, zlib.crc32(name.encode())), kernel.shape[-1:]
            )
            for name, kernel in kernels(variables["params"]["decoder"]).items()
        }
        statistics = {**variables["batch_stats"], SPECTRAL: directions}
        return {**variables, "batch_stats": statistics}

    def decode(self, variables, z, *, train):
        """Return what the likelihood takes, and the variables after the pass."""
        if not self.is_spectral:
            return super().decode(variables, z, train=train)
        params, directions = variables["params"], variables["batch_stats"][SPECTRAL]
        bounded, after = spectrally_normalized(params["decoder"], directions)
        inner = {**variables, "params": {**params, "decoder": bounded}}
        outputs, inner = super().decode(inner, z, train=train)
        if not train:
            return outputs, variables
        statistics = {**inner["batch_stats"], SPECTRAL: after}
        return outputs, {**inner, "params": params, "batch_stats": statistics}

    def losses(self, variables, memory, batch, key, *, step, train):
        """Return the regularized reconstruction error."""
        posterior, variables = self.encode(variables, batch.x, train=train)
        z, penalty = posterior.mean(), jnp.zeros(())
        if self.options.regularizer == "gradient":
            # The reconstruction's own pass serves the penalty too.
            x_recon, pull_back, variables = jax.vjp(
                lambda z: self.decode(variables, z, train=train), z, has_aux=True
            )
            penalty = pulled_norm(pull_back, x_recon, key)
        else:
            x_recon, variables = self.decode(variables, z, train=train)
        if self.options.regularizer == "l2":
            penalty = losses.l2_penalty(variables["params"]["decoder"])
        loss, terms = losses.rae(
            batch.x, x_recon, z, code_weight=self.options.code_weight, penalty=penalty,
            weight=self.weight, likelihood=self.options.likelihood,
        )  # fmt: skip
        if self.is_spectral:
            del terms["penalty"]
        return Output({"model": loss}, terms, variables, z)

    def criterion(self, terms):
        """Return the loss."""
        penalty = self.weight * terms.get("penalty", 0.0)
        return terms["reconstruction"] + self.options.code_weight * terms["code_norm"] + penalty


def kernels(params: Any) -> dict[str, jax.Array]:
    """Return the arrays of at least two axes in a tree of parameters, by their path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves if leaf.ndim >= 2}


def spectrally_normalized(
    params: Any, directions: dict[str, jax.Array]
) -> tuple[Any, dict[str, jax.Array]]:
    """Divide every kernel by an estimate of its largest singular value.

    Args:
      params: of a network; what has fewer than two axes stays as it is.
      directions: path -> an estimate of the right singular vector `[last axis]` of the kernel as a
        matrix `[all other axes, last axis]`, of any length > 0.

    Returns:
      The parameters, differentiable, and the directions after one step of the power iteration,
      which carry no gradient.

    Numerics:
      The estimate `u^T W v` is at most the singular value, and equal to it where the iteration has
      converged. A kernel of zeros stays as it is.
    """
    after: dict[str, jax.Array] = {}

    def divide(path, kernel):
        name = jax.tree_util.keystr(path)
        if name not in directions:
            return kernel
        matrix = kernel.reshape(-1, kernel.shape[-1])
        fixed = jax.lax.stop_gradient(matrix)
        before = jax.lax.stop_gradient(directions[name])
        left = _unit(fixed @ before)
        # From nowhere there is no way back: a kernel of zeros leaves the direction as it was.
        right = after[name] = _unit(jnp.where(jnp.any(left @ fixed != 0), left @ fixed, before))
        sigma = left @ matrix @ right
        return kernel / jnp.where(sigma > 0, sigma, 1.0)

    return jax.tree_util.tree_map_with_path(divide, params), after


def _unit(v: jax.Array) -> jax.Array:
    return v / jnp.maximum(jnp.linalg.norm(v), 1e-12)
