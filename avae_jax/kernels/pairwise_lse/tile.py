"""What is summed over one tile of logits, queries against centers."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from avae_jax.kernels.pairwise_lse.exponential import cpu_exp
from avae_jax.kernels.pairwise_lse.forms import Form
from avae_jax.kernels.pairwise_lse.precision import matmul
from avae_jax.kernels.pairwise_lse.stats import Sums, masked_level, merge_sums


class Side(NamedTuple):
    """A tile of points with the parts of the logit they own."""

    centered: jax.Array  # [rows, d], divided by the bandwidth
    operand: Any  # what form.product takes
    terms: jax.Array  # [rows]


def make_side(form: Form, points, shift, bandwidth) -> Side:
    """Return points `[rows, d]` as a side of a tile."""
    centered = (points - shift[None, :]) / bandwidth
    return Side(centered, form.operand(points, centered), form.point_terms(centered))


def make_centers(form: Form, y, log_weights, is_new, shift, bandwidth) -> tuple[Side, jax.Array]:
    """Return a tile of centers and its bias `[rows]`: log weights, masked columns at the floor.

    A center that is not finite has the bias NaN, whatever its logits would be.
    """
    floor = masked_level(y.dtype)
    bias = jnp.zeros(y.shape[:1], y.dtype)
    if log_weights is not None:
        # A masked center may hold anything: it must not reach a product.
        masked = log_weights == -jnp.inf
        y = jnp.where(masked[:, None], shift[None, :], y)
        bias = jnp.where(masked, floor, log_weights)
    centered = (y - shift[None, :]) / bandwidth
    terms = form.point_terms(centered)
    # Nor must one that is not finite: some row may leave it out.
    finite = form.is_finite(y, terms)
    centered = jnp.where(finite[:, None], centered, 0.0)
    y = jnp.where(finite[:, None], y, shift[None, :])
    bias = jnp.where(finite, bias, jnp.nan)
    if is_new is not None:
        bias = jnp.where(is_new, bias, floor)
    return Side(centered, form.operand(y, centered), jnp.where(finite, terms, 0.0)), bias


class Tile(NamedTuple):
    """A tile of queries beside a tile of centers."""

    query: Side
    center: Side
    bias: jax.Array  # [centers], added to the logits
    rows: jax.Array  # [centers] int32, where they stand among all centers
    left_out: jax.Array | None  # [queries] int32


@dataclasses.dataclass(frozen=True)
class TileSums:
    """What is summed over a tile, and how its logits are computed.

    Attributes:
      form: how a logit is computed.
      precision: the accuracy class of the products.
      mean: whether `weighted` is summed.
      moments: whether `first` and `second` are.
      pure: whether logits hold the terms of queries and centers, and no log weights.
      fuses: whether XLA fuses a matrix product, exponentials and sums.
    """

    form: Form
    precision: str
    mean: bool
    moments: bool
    pure: bool
    fuses: bool

    @property
    def center_axis(self) -> int:
        """Return the axis of a tile along which the centers lie.

        Down, so that the queries' columns are contiguous for the whole loop, which on a CPU is what
        vectorizes the difference form; the mean's product is faster the other way round.
        """
        return 1 if self.mean else 0

    def of_centers(self, a):
        """Bring an array [centers] beside a tile of logits."""
        return jnp.expand_dims(a, 1 - self.center_axis)

    def of_queries(self, a):
        """Bring an array [queries] beside a tile of logits."""
        return jnp.expand_dims(a, self.center_axis)

    def logits(self, tile: Tile, bandwidth) -> jax.Array:
        """Return the logits of a tile, but for the queries' terms and the bias unless pure."""
        down, across = (tile.query, tile.center) if self.mean else (tile.center, tile.query)
        logits = self.form.product(down.operand, across.operand, bandwidth, self.precision)
        if self.pure:
            logits += self.of_centers(tile.center.terms) + self.of_queries(tile.query.terms)
        return logits

    def add(self, total: Sums, tile: Tile, logits) -> Sums:
        """Add a tile to the sums, at the level of the largest logit so far."""
        biased = logits + self.of_centers(tile.bias)
        if tile.left_out is not None:
            is_left_out = self.of_centers(tile.rows) == self.of_queries(tile.left_out)
            biased = jnp.where(is_left_out, masked_level(biased.dtype), biased)
        top = jnp.maximum(total.top, jnp.max(biased, axis=self.center_axis))
        return merge_sums(total, self._sum(top, tile, logits, biased))

    def at(self, level, tile: Tile, logits) -> Sums:
        """Return the sums over a tile that leaves out nothing, relative to a level [queries]."""
        return self._sum(level, tile, logits, logits + self.of_centers(tile.bias))

    def _sum(self, level, tile: Tile, logits, biased) -> Sums:
        axis = self.center_axis
        shifted = biased - self.of_queries(level)
        # Base e: XLA itself writes exp2 as an exp.
        # What fuses has a faster exponential than ours, if it is for a sum alone.
        summed_only = not (self.mean or self.moments)
        fused = self.fuses and summed_only and (self.pure or self.form.fused_dims > 0)
        weights = jnp.exp(shifted) if fused else cpu_exp(shifted)
        sums = Sums(top=level, total=jnp.sum(weights, axis=axis))
        if self.mean:
            weighted = matmul(weights, tile.center.centered, self.precision)
            sums = sums._replace(weighted=weighted)
        if self.moments:
            weighted_logits = weights * logits
            sums = sums._replace(
                first=jnp.sum(weighted_logits, axis=axis),
                second=jnp.sum(weighted_logits * logits, axis=axis),
            )
        return sums
