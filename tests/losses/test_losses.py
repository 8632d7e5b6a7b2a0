"""What every loss must hold, whichever it is: parameterized over what is public."""

import inspect
import math
from typing import get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avae_jax as av

RNG = np.random.default_rng(0)
BATCH, FEATURES, LATENT, CENTERS = 7, (4, 3, 1), 5, 40
X = RNG.random((BATCH, *FEATURES)).astype(np.float32)
X_RECON = RNG.standard_normal((BATCH, *FEATURES)).astype(np.float32)
Z = RNG.standard_normal((BATCH, LATENT)).astype(np.float32)
LOG_VAR = RNG.standard_normal((BATCH, LATENT)).astype(np.float32)
BANK = RNG.standard_normal((CENTERS, LATENT)).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def _quick(quick_compiler):
    """Compile quickly."""


# What a loss may need beside the images, by the names that all losses give it.
ARGUMENTS = {
    "z": Z,
    "centers": BANK,
    "loc": Z,
    "log_var": LOG_VAR,
    "bandwidth": 0.5,
    "beta": 2.0,
    "gamma": 2.0,
    "critic_logits": Z[:, 0],
    "capacity": 3.0,
    "lambda_od": 3.0,
    "lambda_d": 2.0,
    "num_train": 50,
    "draws": BANK[:BATCH],
    "directions": BANK / np.linalg.norm(BANK, axis=1, keepdims=True),
    "weight": 3.0,
    "alpha": 0.5,
    "mmd_weight": 3.0,
    "code_weight": 0.5,
    "prior_log_var": LOG_VAR[0],
}


def is_loss(name):
    """Whether a public name is a loss of images: from `x` to `(per_example, terms)`."""
    function = getattr(av.losses, name)
    hints = get_type_hints(function) if callable(function) else {}
    return "x" in hints and get_origin(hints.get("return")) is tuple


LOSSES = [name for name in av.losses.__all__ if is_loss(name)]


def needed(name):
    """Return the names of a loss's arguments that have no default."""
    parameters = inspect.signature(getattr(av.losses, name)).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


def takes(name, argument):
    """Return whether a loss has an argument of that name."""
    return argument in inspect.signature(getattr(av.losses, name)).parameters


# Those with a statistic of the batch as a whole, which leave rows that only fill it up out of it.
OF_WHOLE = [name for name in LOSSES if takes(name, "mask")]

# Those whose statistic compares the codes with a prior.
OF_CODES = [name for name in OF_WHOLE if takes(name, "z") and not takes(name, "num_train")]


def call(name, x, x_recon, **changes):
    """Call a loss with every argument that has no default."""
    given = {**ARGUMENTS, "x": x, "x_recon": x_recon, **changes}
    return getattr(av.losses, name)(**{argument: given[argument] for argument in needed(name)})


@pytest.mark.parametrize("name", LOSSES)
def test_contract(name):
    loss_fn = jax.jit(lambda x, x_recon: call(name, x, x_recon))
    loss, terms = loss_fn(X, X_RECON)
    assert loss.shape == (BATCH,)
    assert loss.dtype == jnp.float32
    assert all(term.shape in ((BATCH,), ()) for term in terms.values())
    assert "reconstruction" in terms
    # Per example: by a statistic of the batch alone does a row's loss depend on the others' images.
    other = X.copy()
    other[1:] = 0
    other_loss, other_terms = loss_fn(other, X_RECON)
    if all(other_terms[term] == value for term, value in terms.items() if not value.ndim):
        np.testing.assert_allclose(other_loss[0], loss[0], rtol=1e-6)
    # Lists are arrays.
    as_lists = {argument: np.asarray(ARGUMENTS[argument]).tolist() for argument in ARGUMENTS}
    listed, _ = call(name, X.tolist(), X_RECON.tolist(), **as_lists)
    np.testing.assert_allclose(listed, loss, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_ranks_need_not_be_promoted(name):
    with jax.numpy_rank_promotion("raise"):
        jax.eval_shape(jax.grad(lambda x_recon: call(name, X, x_recon)[0].sum()), X_RECON)


@pytest.mark.parametrize("name", OF_WHOLE)
def test_rows_that_fill_up_enter_nothing(name):
    """Whatever they hold, by value and by gradient; where no row counts, nothing is NaN."""
    options = {a: ARGUMENTS[a] for a in needed(name) if a in ARGUMENTS}
    # Draws of the prior are of another number than the codes, unless they are sorted like these.
    whole = {"draws"} if name != "swae" else set()
    of_batch = {a for a in options if np.shape(options[a])[:1] == (BATCH,)} - whole
    of_batch = {a: options.pop(a) for a in sorted(of_batch)}
    rows = {"x": X, "x_recon": X_RECON, **of_batch}

    @jax.jit
    def loss_fn(rows, mask):
        def loss(rows):
            per_example, terms = getattr(av.losses, name)(**rows, **options, mask=mask)
            return jnp.sum(jnp.where(mask > 0, per_example, 0)), terms

        return jax.value_and_grad(loss, has_aux=True)(rows)

    mask = np.ones(BATCH, np.float32)
    mask[[1, 4]] = 0
    kept = mask > 0
    wild = {a: np.where(kept.reshape(-1, *[1] * (v.ndim - 1)), v, 9.0) for a, v in rows.items()}
    (value, terms), gradient = loss_fn(wild, mask)
    few = {a: v[kept] for a, v in rows.items()}
    (want, want_terms), want_gradient = loss_fn(few, mask[kept])
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for term, found in terms.items():
        found = found[kept] if found.ndim else found
        np.testing.assert_allclose(found, want_terms[term], rtol=1e-5, atol=1e-6)
    for argument, found in gradient.items():
        np.testing.assert_allclose(found[kept], want_gradient[argument], rtol=1e-4, atol=1e-5)
        assert not np.any(found[~kept]), argument
    (value, terms), gradient = loss_fn(rows, np.zeros_like(mask))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((value, terms, gradient)))


@pytest.mark.parametrize("name", LOSSES)
def test_mismatched_images_are_refused(name):
    with pytest.raises(ValueError, match="x_recon must have the shape of x"):
        call(name, X, X_RECON[:, :2])


OF_THE_BATCH = [
    (name, argument)
    for name in LOSSES
    for argument in needed(name)
    if argument not in ("x", "x_recon", "centers", "draws", "directions", "prior_log_var")
    and np.ndim(ARGUMENTS[argument])
]


@pytest.mark.parametrize(("name", "argument"), OF_THE_BATCH)
def test_another_batch_is_refused(name, argument):
    for rows in (1, BATCH - 1):
        with pytest.raises(ValueError, match=f"must have the batch of .*, 7, got {rows}"):
            call(name, X, X_RECON, **{argument: ARGUMENTS[argument][:rows]})


@pytest.mark.parametrize("name", LOSSES)
def test_a_single_example_is_told_to_be_a_batch(name):
    mapped = {argument: ARGUMENTS[argument] for loss, argument in OF_THE_BATCH if loss == name}

    def loss(x, x_recon, others, lift):
        others = {argument: lift(a) for argument, a in others.items()}
        return call(name, lift(x), lift(x_recon), **others)[0]

    for shape in ((BATCH, -1), X.shape):
        images = X.reshape(shape), X_RECON.reshape(shape)
        with pytest.raises(ValueError, match=r"give (x|z|loc|critic_logits)\[None\]"):
            jax.vmap(lambda *args: loss(*args, lambda a: a))(*images, mapped)
    if name in OF_WHOLE:
        return
    one_by_one = jax.vmap(lambda *args: loss(*args, lambda a: a[None])[0])(*images, mapped)
    want, terms = call(name, *images)
    if all(term.ndim for term in terms.values()):  # else a batch of one has another statistic
        np.testing.assert_allclose(one_by_one, want, rtol=1e-5)


def of_codes(name, z, mask, **changes):
    """Call a loss at codes, with a mask."""
    given = {**ARGUMENTS, "x": X, "x_recon": X_RECON, **changes, "z": z}
    return getattr(av.losses, name)(**{a: given[a] for a in needed(name)}, mask=mask)


@pytest.mark.parametrize("name", OF_CODES)
def test_few_codes_and_equal_codes_have_values_and_gradients(name):
    """Without rows to compare the statistic is 0; codes lie in one point, at the draws, far out."""

    @jax.jit
    def total(z, mask, draws):
        def of_z(z):
            loss, terms = of_codes(name, z, mask, draws=draws)
            (statistic,) = (v for v in terms.values() if not v.ndim)
            return loss.sum(), statistic

        return jax.value_and_grad(of_z, has_aux=True)(z)

    whole = np.ones(BATCH)
    for num_rows in (0, 1):
        (loss, statistic), gradient = total(Z, whole * (np.arange(BATCH) < num_rows), BANK[:BATCH])
        assert np.isfinite(loss)
        assert np.all(np.isfinite(gradient))
        if not num_rows:
            assert statistic == 0
            np.testing.assert_array_equal(gradient, 0)
    draws = np.concatenate([Z[:1]] * BATCH)
    for z in (draws, np.full_like(Z, 1e4), np.zeros_like(Z)):
        assert np.all(np.isfinite(total(z, whole, draws)[1]))


def test_one_axis_is_no_batch_of_images():
    for function in (
        av.losses.reconstruction_loss,
        av.likelihoods.Gaussian().nll,
        av.likelihoods.Bernoulli().nll,
    ):
        with pytest.raises(ValueError, match=r"x must have shape .* give x\[None\]"):
            jax.vmap(function)(X.reshape(BATCH, -1), X_RECON.reshape(BATCH, -1))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_promoted(name, dtype):
    latent_dim = 64
    rng = np.random.default_rng(latent_dim)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    images = draw(2, BATCH, 28, 28, 1)
    halves = {"z": draw(BATCH, latent_dim), "centers": draw(200, latent_dim)}
    halves |= {"loc": draw(BATCH, latent_dim), "log_var": draw(BATCH, latent_dim)}
    halves |= {"prior_log_var": draw(latent_dim)}
    halves |= {"critic_logits": draw(BATCH), "bandwidth": jnp.asarray(0.62, dtype)}
    halves |= {
        "draws": draw(BATCH, latent_dim),
        "directions": draw(20, latent_dim) / latent_dim**0.5,
    }
    loss, terms = call(name, *images, **halves)
    assert {a.dtype for a in (loss, *terms.values())} == {jnp.dtype("float32")}
    with jax.enable_x64(True):
        wide = {argument: jnp.asarray(np.float64(a)) for argument, a in halves.items()}
        want, want_terms = call(name, *(jnp.asarray(np.float64(a)) for a in images), **wide)
        assert {a.dtype for a in (want, *want_terms.values())} == {jnp.dtype("float64")}
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    for term, value in terms.items():
        # A statistic may be a sum over pairs of dimensions that cancel.
        atol = 5e-5 if value.ndim else 3e-4
        np.testing.assert_allclose(value, want_terms[term], rtol=2e-6, atol=atol)


def test_losses_are_told_from_their_helpers():
    assert {"avae", "elbo", "beta_elbo", "factor_vae"} <= set(LOSSES)
    helpers = {"LOG10_WEIGHT", "critic_loss", "gaussian_kl", "reconstruction_loss"}
    assert not helpers & set(LOSSES)


@pytest.mark.parametrize("name", [name for name in LOSSES if takes(name, "noise_scale")])
def test_the_noise_scale_is_learned(name):
    def loss(log_scale):
        options = {a: ARGUMENTS[a] for a in needed(name) if a in ARGUMENTS}
        images = (jnp.asarray(a, jnp.float64) for a in (X, X_RECON))
        options["noise_scale"] = jnp.exp(log_scale)
        return getattr(av.losses, name)(*images, **options)[0].mean()

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(loss))(math.log(0.7))
    # By hand: num_features - sum of squares / scale^2.
    error = np.square(X.astype(np.float64) - X_RECON).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(slope, X[0].size - error / 0.7**2, rtol=1e-6)
