"""The losses against NumPy float64, and the contract all of them keep."""

import inspect
import math
from typing import get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import logsumexp

import avae_jax as av

RNG = np.random.default_rng(0)
BATCH, FEATURES, LATENT, CENTERS = 7, (4, 3, 1), 5, 40
X = RNG.random((BATCH, *FEATURES)).astype(np.float32)
X_RECON = RNG.standard_normal((BATCH, *FEATURES)).astype(np.float32)
Z = RNG.standard_normal((BATCH, LATENT)).astype(np.float32)
LOG_VAR = RNG.standard_normal((BATCH, LATENT)).astype(np.float32)
BANK = RNG.standard_normal((CENTERS, LATENT)).astype(np.float32)


def log_q64(z, centers, h, exclude=None):
    z, centers = z.astype(np.float64), centers.astype(np.float64)
    logits = -((z[:, None] - centers) ** 2).sum(-1) / (2 * h * h)
    count = np.full(len(z), len(centers))
    if exclude is not None:
        for row, column in enumerate(exclude):
            if column >= 0:
                logits[row, column] = -np.inf
                count[row] -= 1
    normalizer = z.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(h))
    return logsumexp(logits, axis=1) - np.log(count) - normalizer


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
@pytest.mark.parametrize("flat", [True, False])
def test_a_single_example_is_told_to_be_a_batch(name, flat):
    x, x_recon = ((a.reshape(BATCH, -1) if flat else a) for a in (X, X_RECON))
    mapped = {argument: ARGUMENTS[argument] for loss, argument in OF_THE_BATCH if loss == name}

    def loss(x, x_recon, others, lift):
        others = {argument: lift(a) for argument, a in others.items()}
        return call(name, lift(x), lift(x_recon), **others)[0]

    with pytest.raises(ValueError, match=r"give (x|z|loc|critic_logits)\[None\]"):
        jax.vmap(lambda *args: loss(*args, lambda a: a))(x, x_recon, mapped)
    if name in OF_WHOLE:
        return
    one_by_one = jax.vmap(lambda *args: loss(*args, lambda a: a[None])[0])(x, x_recon, mapped)
    want, terms = call(name, x, x_recon)
    if all(term.ndim for term in terms.values()):  # else a batch of one has another statistic
        np.testing.assert_allclose(one_by_one, want, rtol=1e-5)


def of_codes(name, z, mask, **changes):
    """Call a loss at codes, with a mask."""
    given = {**ARGUMENTS, "x": X, "x_recon": X_RECON, **changes, "z": z}
    return getattr(av.losses, name)(**{a: given[a] for a in needed(name)}, mask=mask)


@pytest.mark.parametrize("num_rows", [0, 1])
@pytest.mark.parametrize("name", OF_CODES)
def test_too_few_rows_have_a_statistic_without_nan(name, num_rows):
    mask = np.arange(BATCH) < num_rows

    def total(z):
        loss, terms = of_codes(name, z, mask)
        (statistic,) = (v for v in terms.values() if not v.ndim)
        return loss.sum(), statistic

    (loss, statistic), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(Z)
    assert np.isfinite(loss)
    assert np.all(np.isfinite(gradient))
    if not num_rows:
        assert statistic == 0
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", OF_CODES)
def test_codes_that_coincide_have_a_gradient(name):
    """In one point, at the draws, and far out."""
    draws = np.concatenate([Z[:1]] * BATCH)
    slope = jax.jit(jax.grad(lambda z: of_codes(name, z, None, draws=draws)[0].sum()))
    for z in (draws, np.full_like(Z, 1e4), np.zeros_like(Z)):
        assert np.all(np.isfinite(slope(z)))


def test_one_axis_is_no_batch_of_images():
    for function in (
        av.losses.reconstruction_loss,
        av.likelihoods.Gaussian().nll,
        av.likelihoods.Bernoulli().nll,
    ):
        with pytest.raises(ValueError, match=r"x must have shape .* give x\[None\]"):
            jax.vmap(function)(X.reshape(BATCH, -1), X_RECON.reshape(BATCH, -1))


@pytest.mark.parametrize(("latent_dim", "dtype"), [(64, jnp.float16), (128, jnp.bfloat16)])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_promoted(name, latent_dim, dtype):
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


def test_codes_beyond_the_square_root_of_half_precision():
    z = jnp.full((1, 4), 300, jnp.float16)
    _, terms = av.losses.avae(X[:1], X[:1], z, z, bandwidth=0.5, beta=1.0)
    np.testing.assert_allclose(terms["log_p"], stats.norm.logpdf(300.0) * 4, rtol=1e-6)


def test_integer_images_do_not_wrap():
    black, white = np.zeros((1, 4), np.uint8), np.full((1, 4), 255, np.uint8)
    assert av.losses.reconstruction_loss(black, white).tolist() == [4 * 255**2]
    loss, _ = av.losses.elbo(black, white, Z[:1], Z[:1])
    assert loss[0] > 4 * 255**2 / 2
    with pytest.raises(
        TypeError, match="x must be .* with a Bernoulli likelihood, got uint8: give"
    ):
        av.losses.reconstruction_loss(white, np.zeros((1, 4)), likelihood="bernoulli")
    of_bool = av.losses.reconstruction_loss(white > 0, np.zeros((1, 4)), likelihood="bernoulli")
    np.testing.assert_allclose(of_bool, 4 * math.log(2), rtol=1e-6)
    with pytest.raises(TypeError, match="z must be of a floating type, got int32"):
        av.losses.avae(X, X, Z.astype(int), BANK, bandwidth=0.5, beta=1.0)


def test_losses_are_told_from_their_helpers():
    assert {"avae", "elbo", "beta_elbo", "factor_vae"} <= set(LOSSES)
    helpers = {"LOG10_WEIGHT", "critic_loss", "gaussian_kl", "reconstruction_loss"}
    assert not helpers & set(LOSSES)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_reconstruction(likelihood):
    got = av.losses.reconstruction_loss(X, X_RECON, likelihood=likelihood)
    x, a = X.astype(np.float64), X_RECON.astype(np.float64)
    if likelihood == "gaussian":
        want = ((x - a) ** 2).sum(axis=(1, 2, 3))
    else:
        p = 1 / (1 + np.exp(-a))
        want = -(x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_bernoulli_survives_huge_logits():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    x = jnp.array([[1.0, 0.0, 0.5]])

    def loss(a):
        return av.losses.reconstruction_loss(x, a, likelihood="bernoulli").sum()

    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[0, 0, 0]], atol=1e-6)


def test_unknown_likelihood():
    with pytest.raises(ValueError, match="likelihood must be one of .* got 'poisson'"):
        av.losses.reconstruction_loss(X, X, likelihood="poisson")


@pytest.mark.parametrize("weight", ["nats", "log10", 0.3])
@pytest.mark.parametrize("tail", ["none", "official"])
def test_avae_against_float64(tail, weight):
    h, beta, max_cdf = 0.45, 3.0, 1 - 1e-2
    exclude = np.array([0, -1, 5, -1, -1, 39, -1], np.int32)
    loss, terms = av.losses.avae(
        X, X_RECON, Z, BANK, bandwidth=h, beta=beta, weight=weight, tail=tail,
        max_cdf=max_cdf if tail == "official" else None, exclude=exclude,
    )  # fmt: skip
    log_q = log_q64(Z, BANK, h, exclude)
    log_p = stats.norm.logpdf(Z.astype(np.float64)).sum(axis=1)
    # The authors' floor, in plain densities without the (2 pi)^(-l/2) that both of theirs lack.
    eps = math.exp(-stats.chi2.ppf(max_cdf, LATENT) / 2) * h**-LATENT
    tilde = np.exp(log_q) * (2 * math.pi) ** (LATENT / 2)
    in_tail = np.zeros(BATCH)
    if tail == "official":
        in_tail = tilde < eps
        tilde = tilde + eps
        assert 0 < in_tail.sum() < BATCH
    kl = np.log(tilde) - LATENT / 2 * math.log(2 * math.pi) - log_p
    number = {"nats": 1.0, "log10": 1 / math.log(10)}.get(weight, weight)
    want = ((X - X_RECON).astype(np.float64) ** 2).sum(axis=(1, 2, 3)) / beta + number * kl
    np.testing.assert_allclose(terms["log_q"], log_q, rtol=1e-5)
    np.testing.assert_allclose(terms["log_p"], log_p, rtol=1e-5)
    np.testing.assert_allclose(terms["kl"], kl, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(terms["tail"], in_tail)
    np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_avae_gradients():
    def loss(x_recon, z):
        value, _ = av.losses.avae(
            X, x_recon, z, BANK, bandwidth=0.6, beta=2.0, tail="official", max_cdf=0.9
        )
        return value.sum()

    check_grads(loss, (jnp.asarray(X_RECON), jnp.asarray(Z)), order=1, modes=["rev"], rtol=2e-2)


def test_avae_gradient_in_z_against_float64():
    h = 0.6
    gradient = jax.grad(lambda z: av.losses.avae(X, X, z, BANK, bandwidth=h, beta=1.0)[0].sum())(
        jnp.asarray(Z)
    )
    z, c = Z.astype(np.float64), BANK.astype(np.float64)
    logits = -((z[:, None] - c) ** 2).sum(-1) / (2 * h * h)
    weights = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    want = (weights @ c - z) / h**2 + z
    np.testing.assert_allclose(gradient, want, rtol=1e-4, atol=1e-5)


def test_centers_carry_no_gradient():
    gradient = jax.grad(
        lambda c: av.losses.avae(X, X_RECON, Z, c, bandwidth=0.5, beta=1.0)[0].sum()
    )(jnp.asarray(BANK))
    assert not np.any(gradient)


def test_far_codes_are_pulled_back_exactly():
    far = jnp.full((1, 128), 30.0)
    gradient = jax.grad(
        lambda z: av.losses.avae(
            X[:1], X[:1], z, jnp.zeros((50, 128)), bandwidth=0.7, beta=1.0,
            tail="official", max_cdf=0.9,
        )[0].sum()
    )(far)  # fmt: skip
    # In the tail the density pushes no more and the prior's pull, z, is all that is left.
    np.testing.assert_allclose(gradient, far, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tail": "auto"}, "tail must be one of 'none', 'official', got 'auto'"),
        ({"tail": "official"}, "max_cdf must be a probability with tail='official'"),
        ({"max_cdf": 0.9}, "max_cdf must be None with tail='none', got 0.9"),
        ({"weight": "bits"}, "weight must be .* got 'bits'"),
        ({"beta": 0.0}, "beta must be finite and positive, got 0.0"),
        ({"bandwidth": np.ones(2)}, r"bandwidth must be one number, got shape \(2,\)"),
        ({"exclude": np.zeros(6, int)}, "exclude must have the batch of x, 7, got 6"),
        ({"log_p": np.zeros((7, 1))}, r"log_p must have shape \[batch\], got \(7, 1\)"),
        ({"log_weights": np.zeros(7)}, "log_weights must have the num_centers of centers, 40"),
        ({"centers": BANK[:, :4]}, "centers must have the latent_dim of z, 5, got 4"),
        ({"centers": BANK[0]}, r"centers must have shape .* give centers\[None\] for a single one"),
    ],
)
def test_avae_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        av.losses.avae(
            X, X_RECON, Z, **{"centers": BANK, "bandwidth": 0.5, "beta": 1.0, **arguments}
        )


def test_gaussian_kl_against_monte_carlo_and_scipy():
    loc, log_var = Z.astype(np.float64), LOG_VAR.astype(np.float64)
    want = 0.5 * (loc**2 + np.exp(log_var) - 1 - log_var).sum(axis=1)
    np.testing.assert_allclose(av.losses.gaussian_kl(Z, LOG_VAR), want, rtol=1e-5)
    draws = RNG.standard_normal((200_000, LATENT)) * np.exp(log_var[0] / 2) + loc[0]
    ratio = (
        stats.norm.logpdf(draws, loc[0], np.exp(log_var[0] / 2)) - stats.norm.logpdf(draws)
    ).sum(axis=1)
    error = ratio.std() / math.sqrt(len(ratio))
    assert abs(ratio.mean() - want[0]) < 5 * error


def test_a_queue_that_is_not_yet_full():
    log_weights = np.where(np.arange(CENTERS) < 9, 0, -np.inf).astype(np.float32)
    given = {"bandwidth": 0.5, "beta": 1.0}
    loss, _ = av.losses.avae(
        X, X_RECON, Z, BANK, log_weights=log_weights, implementation="matrix", precision="high",
        **given,
    )  # fmt: skip
    want, _ = av.losses.avae(X, X_RECON, Z, BANK[:9], **given)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    with pytest.raises(ValueError, match="precision"):
        av.losses.avae(X, X_RECON, Z, BANK, precision="low", **given)


def test_gaussian_kl_near_the_prior():
    tiny = jnp.full((1, 3), 1e-3, jnp.float32)
    want = 0.5 * 3 * (1e-6 + math.expm1(1e-3) - 1e-3)
    # Rounding relative to the log-variance, 1e-3, not to 1.
    np.testing.assert_allclose(av.losses.gaussian_kl(tiny, tiny), [want], atol=5e-10, rtol=0)


def test_elbo_is_a_normalised_bound():
    loss, terms = av.losses.elbo(X, X_RECON, Z, LOG_VAR, noise_scale=0.7)
    want = -stats.norm.logpdf(X.astype(np.float64), X_RECON, 0.7).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(terms["nll"], want, rtol=1e-5)
    np.testing.assert_allclose(loss, want + np.asarray(terms["kl"]), rtol=1e-5)


def test_arrays_of_an_explicit_mesh_are_taken():
    mesh = jax.make_mesh((8,), ("a",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    arrays = [np.concatenate([a, a[:1]]) for a in (X, X_RECON, Z)]
    args = jax.device_put((*arrays, BANK, np.zeros(CENTERS, np.float32)), rows)

    def loss(x, x_recon, z, centers, log_weights):
        options = {"bandwidth": 0.5, "beta": 2.0, "log_weights": log_weights}
        return jnp.sum(av.losses.avae(x, x_recon, z, centers, **options)[0])

    (value, gradients), (want, wanted) = (
        jax.jit(jax.value_and_grad(loss, (1, 2)))(*a)
        for a in (args, jax.tree.map(np.asarray, args))
    )
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for gradient, expected in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)
        assert gradient.sharding.spec[0] == "a"


@pytest.mark.parametrize("name", [name for name in LOSSES if takes(name, "noise_scale")])
def test_the_noise_scale_is_learned(name):
    def loss(log_scale):
        options = {a: ARGUMENTS[a] for a in needed(name) if a in ARGUMENTS}
        images = (jnp.asarray(a, jnp.float64) for a in (X, X_RECON))
        options["noise_scale"] = jnp.exp(log_scale)
        return getattr(av.losses, name)(*images, **options)[0].mean()

    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(loss))(math.log(0.7))
        step = 1e-4
        want = (loss(math.log(0.7) + step) - loss(math.log(0.7) - step)) / (2 * step)
    np.testing.assert_allclose(slope, want, rtol=1e-6)
    # By hand: num_features - sum of squares / scale^2.
    error = np.square(X.astype(np.float64) - X_RECON).sum(axis=(1, 2, 3)).mean()
    np.testing.assert_allclose(slope, X[0].size - error / 0.7**2, rtol=1e-5)


def test_beta_weighs_the_kl():
    once, terms = av.losses.beta_elbo(X, X_RECON, Z, LOG_VAR, beta=1.0)
    thrice, _ = av.losses.beta_elbo(X, X_RECON, Z, LOG_VAR, beta=3.0)
    np.testing.assert_allclose(thrice - once, 2 * terms["kl"], rtol=1e-4)


def test_elbo_refuses():
    with pytest.raises(ValueError, match="log_var must have the latent_dim of loc, 5, got 2"):
        av.losses.elbo(X, X_RECON, Z, LOG_VAR[:, :2])
    with pytest.raises(ValueError, match="noise_scale must be finite and positive, got 0"):
        av.losses.elbo(X, X_RECON, Z, LOG_VAR, noise_scale=0)
