"""What a method costs beside the plain autoencoder of the same networks."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from avae_jax.methods import ae
from avae_jax.methods.method import Method
from avae_jax.training.config import Config, ConfigError, replace_fields
from avae_jax.training.preflight import num_parameters, time_between
from avae_jax.training.setup import Setup
from avae_jax.training.trainer import Trainer

ROUNDS, SECONDS = 7, 1.0
"""The least turns of a timing, and the seconds of each of the two after which it ends."""

# Primitives that XLA counts as transcendental functions and not as floating-point operations.
_TRANSCENDENTAL = {
    "exp", "exp2", "expm1", "log", "log1p", "tanh", "logistic", "sin", "cos", "tan", "erf",
    "erf_inv", "pow", "sqrt", "rsqrt", "cbrt", "lgamma", "digamma",
}  # fmt: skip
_REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin",
               "cumsum", "cumlogsumexp", "cummax", "reduce_and", "reduce_or"}  # fmt: skip
_ARITHMETIC = {
    "add", "sub", "mul", "div", "neg", "max", "min", "abs", "sign", "integer_pow", "square",
    "select_n", "clamp", "add_any", "gt", "lt", "ge", "le", "eq", "ne", "floor", "round",
}  # fmt: skip


def plain(config: Config) -> Config:
    """Return the plain autoencoder of a configuration's networks."""
    return replace_fields(config, method=ae.Options.name, likelihood=ae.Options().likelihood)


class Meter:
    """Measures what methods cost on one data set, all in one process.

    Args:
      make: makes the set-up of a configuration.
    """

    def __init__(self, make: Callable[[Config], Setup]):
        self._make, self._kept = make, {}

    def measure(self, config: Config) -> dict[str, Any]:
        """Return what a training step costs.

        Args:
          config: what is trained.

        Returns:
          "parameters" that are trained, "sampling_parameters" that a sample passes through,
          "flops" of a step and whether they are "flops_at_least" so many, "seconds" of a step,
          "seconds_between" of it that what is done between steps takes (codes encoded again, for
          instance), "relative_seconds" to the plain autoencoder, and whether encoder and decoder
          have the "same_start".
        """
        setup = self._make(config)
        own = _Stepper(Trainer(setup))
        base = self._plain(config)
        flops, is_whole = own.flops()
        found = {
            "parameters": num_parameters(setup),
            "sampling_parameters": sampling_parameters(setup.method),
            "flops": flops,
            "flops_at_least": not is_whole,
            "relative_flops": None if base is None else flops / base.flops()[0],
        }
        seconds = take_turns([one.seconds for one in (own, base) if one is not None])
        between = own.seconds_between()
        relative = None if base is None else (seconds[0] + between) / seconds[1]
        if config == plain(config):
            relative = 1.0
        return found | {
            "seconds": seconds[0] + between,
            "seconds_between": between,
            "relative_seconds": relative,
            "same_start": None if base is None else same_start(own.method, base.method, config),
            "device": jax.devices()[0].device_kind,
        }

    def _plain(self, config: Config) -> "_Stepper | None":
        """Return the plain autoencoder's stepper, of the last networks asked for."""
        config = plain(config)
        if config not in self._kept:
            try:
                stepper = _Stepper(Trainer(self._make(config)))
            except ConfigError:
                # A decoder of logits, for instance, given as a module.
                stepper = None
            self._kept = {config: stepper}
        return self._kept[config]


class _Stepper:
    """Takes training steps of a setup, to time them.

    Args:
      trainer: of the setup.
    """

    def __init__(self, trainer: Trainer):
        self.trainer, self.method = trainer, trainer.method
        self._state, self._metrics = trainer.init(), trainer.program.empty_metrics
        self._batches = next(trainer.feed.dispatches(0, 0))
        self._flops: tuple[float, bool] | None = None
        self.seconds()  # Compiles.

    def flops(self) -> tuple[float, bool]:
        """Return the operations of one step, and whether no loop hides any."""
        if self._flops is None:
            fetched = self.trainer.feed.fetch_steps(self._batches[:1])
            self._flops = count_flops(
                self.trainer.program.train, self._state, self._metrics, fetched
            )
        return self._flops

    def seconds(self) -> float:
        """Return the seconds of a step, of one dispatch of them."""
        start = time.perf_counter()
        fetched = self.trainer.feed.fetch_steps(self._batches)
        self._state, self._metrics = self.trainer.advance(self._state, self._metrics, fetched)
        jax.block_until_ready((self._state.step, self._metrics))
        return (time.perf_counter() - start) / len(self._batches)

    def seconds_between(self) -> float:
        """Return the seconds per step that go into what the method does between steps."""
        return time_between(self.trainer, self._state)


def take_turns(timed: list[Callable[[], float]]) -> list[float]:
    """Return the median of each of several timings that take turns.

    What else the machine does then falls on all alike.

    Args:
      timed: each returns the seconds that it took.
    """
    times: list[list[float]] = [[] for _ in timed]
    while len(times[0]) < ROUNDS or (
        max(map(sum, times)) < SECONDS and len(times[0]) < 50 * ROUNDS
    ):
        for one, own in zip(timed, times, strict=True):
            own.append(one())
    return [float(np.median(own)) for own in times]


def count_flops(function, *arguments) -> tuple[float, bool]:
    """Return the floating-point operations of a compiled function, loops in full.

    XLA's own count (`cost_analysis`) has the body of a loop once, however often it runs. What the
    other turns of loops with a known length add is counted in the function's equations.

    Args:
      function: of `jax.jit`.
      *arguments: of a call; nothing is run.

    Returns:
      (operations, whether no loop of unknown length is left out). Exponentials and their like are
      no operations, as XLA has it, and what a kernel of our own does on a GPU is not seen.
    """
    traced = function.trace(*arguments)
    analysis = traced.lower().compile().cost_analysis() or {}
    more, is_whole = _loops(traced.jaxpr.jaxpr)
    return float(analysis.get("flops", math.nan)) + more, is_whole


def _loops(jaxpr) -> tuple[float, bool]:
    """Return what turns of loops after their first add, and whether all lengths are known."""
    total, is_whole = 0.0, True
    for equation in jaxpr.eqns:
        inner = [_loops(one) for one in _inner(equation)]
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        if equation.primitive.name == "while":
            # One without numbers of its own, such as a generator of random bits, hides nothing.
            is_whole &= not sum(_operations(one) for one in _inner(equation))
        total += turns * sum(found[0] for found in inner)
        is_whole &= all(found[1] for found in inner)
        if turns > 1:
            total += (turns - 1) * sum(_operations(one) for one in _inner(equation))
    return total, is_whole


def _operations(jaxpr) -> float:
    """Return the operations of equations, the body of each loop once."""
    total = 0.0
    for equation in jaxpr.eqns:
        inner = _inner(equation)
        if inner:
            branches = [_operations(one) for one in inner]
            total += max(branches) if equation.primitive.name == "cond" else sum(branches)
            continue
        total += _own_operations(equation)
    return total


def _own_operations(equation) -> float:
    name, out = equation.primitive.name, equation.outvars[0].aval
    sizes = [math.prod(it.aval.shape) for it in equation.invars if hasattr(it.aval, "shape")]
    if not sizes or not np.issubdtype(_dtype(equation.invars[0].aval), np.floating):
        return 0.0
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * math.prod(out.shape) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        return 2.0 * math.prod(out.shape) * math.prod(kernel) / kernel[numbers.rhs_spec[0]]
    if name in _REDUCTIONS:
        return float(sizes[0])
    return float(math.prod(out.shape)) if name in _ARITHMETIC else 0.0


def _dtype(aval: Any) -> Any:
    dtype = getattr(aval, "dtype", np.dtype(np.int32))
    # Keys and bfloat16 are no NumPy kinds of their own.
    return np.dtype(np.float32) if str(dtype) == "bfloat16" else (
        dtype if isinstance(dtype, np.dtype) else np.dtype(np.int32)
    )  # fmt: skip


def _inner(equation) -> list[Any]:
    """Return the equations that an equation is made of, if it is."""
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                found.append(one)
    return found


def sampling_parameters(method: Method) -> int:
    """Return how many parameters a sample passes through: the decoder's and a learned prior's."""

    def draw(variables):
        priors = method.sampling_priors(variables)
        # A method that aims its codes at nothing draws them from a Gaussian that is no parameter.
        prior = priors[method.sampled_by]() if method.sampled_by in priors else None
        key = jax.random.key(0)
        z = jax.numpy.zeros((2, method.latent_dim)) if prior is None else prior.sample(key, 2)
        outputs, _ = method.decode(variables, z, train=False)
        return method.likelihood(variables).mean(outputs)

    shapes = jax.eval_shape(method.init, jax.random.key(0))
    closed = jax.make_jaxpr(draw)(shapes)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
    needed = _needed(closed.jaxpr)
    return sum(
        size
        for variable, path, size in zip(closed.jaxpr.invars, paths, sizes, strict=True)
        if variable in needed and path[0].key == "params"
    )


def _needed(jaxpr) -> set[Any]:
    """Return the variables that the results of equations depend on."""
    needed = {it for it in jaxpr.outvars if not hasattr(it, "val")}
    for equation in reversed(jaxpr.eqns):
        if any(it in needed for it in equation.outvars):
            needed |= {it for it in equation.invars if not hasattr(it, "val")}
    return needed


def same_start(method: Method, other: Method, config: Config) -> bool:
    """Return whether two methods draw the same initial encoder and decoder.

    Leaves of an encoder's head that hold more than codes are compared in the columns of both.
    """
    key = jax.random.key(config.optimization.seed)
    draw = [jax.jit(one.init)(key)["params"] for one in (method, other)]
    return all(_alike(*(one.get(part) for one in draw)) for part in ("encoder", "decoder"))


def _alike(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None:
        return False
    if jax.tree.structure(one) != jax.tree.structure(other):
        return False
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if x.shape[:-1] != y.shape[:-1]:
            return False
        columns = min(x.shape[-1:] or (0,), y.shape[-1:] or (0,))[0]
        if not np.array_equal(x[..., :columns], y[..., :columns]):
            return False
    return True
