import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import special, stats

from avae_jax.gaussians import standard_normal_log_prob
from avae_jax.metrics.iwae import _batch_bound, iwae_bound

# x = A z + b + s e, z ~ N(0, I), e ~ N(0, I): everything is Gaussian and known.
A = np.array([[1.0, -0.5], [0.3, 0.8], [0.0, 1.2]])
B = np.array([0.2, -0.1, 0.4])
S = 0.7
PRECISION = np.eye(2) + A.T @ A / S**2
GAIN = np.linalg.solve(PRECISION, A.T) / S**2
A32, B32 = jnp.float32(A), jnp.float32(B)


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2)) @ A.T + B + S * rng.standard_normal((n, 3))
    log_p = stats.multivariate_normal(B, A @ A.T + S**2 * np.eye(3)).logpdf(x)
    return x.astype(np.float32), np.atleast_1d(log_p)


def log_likelihood(x, z):
    return -0.5 * jnp.sum(((x - z @ A32.T - B32) / S) ** 2 + jnp.log(2 * jnp.pi * S**2), axis=-1)


def encode(x):
    """The right mean, a diagonal and too wide covariance."""
    loc = (x - B32) @ jnp.float32(GAIN.T)
    return loc, jnp.full(loc.shape, jnp.log(0.5))


def elbo_closed_form(x):
    """E log p(x|z) - KL(q || p) of `encode`, in float64."""
    loc, var = (x.astype(float) - B) @ GAIN.T, 0.5
    residual = np.sum((x - loc @ A.T - B) ** 2, axis=1) + var * np.sum(A**2)
    recon = -0.5 * residual / S**2 - 1.5 * np.log(2 * np.pi * S**2)
    return recon - 0.5 * np.sum(loc**2 + var - 1 - np.log(var), axis=1)


def test_reaches_the_known_likelihood_from_below():
    x, log_p = data(300)
    values = iwae_bound(x, encode=encode, log_likelihood=log_likelihood)
    # E bound = log p - Var(w / p) / 2K to leading order, and 5000 draws leave a noise of
    # sqrt(Var / (K n)); Var is n-averaged K / effective_samples - 1.
    spread = 5000 / values["effective_samples"] - 1
    assert 0.1 < spread < 20
    noise = np.sqrt(2 * spread / (5000 * 300))
    assert values["iwae"] - log_p.mean() < 5 * noise
    assert log_p.mean() - values["iwae"] < 5 * noise + 2 * spread / 5000
    assert values["iwae"] == pytest.approx(log_p.mean(), abs=0.01)
    # Between examples log p varies far more than its estimate does.
    assert values["iwae_stderr"] == pytest.approx(log_p.std(ddof=1) / np.sqrt(300), rel=0.02)


def test_an_encoder_in_half_precision_is_promoted():
    def coarse(x, dtype):
        return tuple(a.astype(jnp.bfloat16).astype(dtype) for a in encode(x))

    x, _ = data(20)
    found, want = (
        iwae_bound(
            x,
            encode=lambda x, dtype=dtype: coarse(x, dtype),
            log_likelihood=log_likelihood,
            num_samples=50,
        )
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert found == pytest.approx(want, rel=1e-6)


def test_the_bound_rises_with_the_number_of_samples():
    x, log_p = data(1000)
    values = [
        iwae_bound(
            x,
            encode=encode,
            log_likelihood=log_likelihood,
            num_samples=k,
            chunk_size=5,
            batch_size=500,
        )
        for k in (1, 5, 500)
    ]
    bounds = np.array([value["iwae"] for value in values])
    assert (np.diff(bounds) > 0.01).all()
    assert bounds[-1] < log_p.mean() + 0.01
    assert all(value["gap"] >= 0 for value in values)
    assert [value["effective_samples"] for value in values] == sorted(
        value["effective_samples"] for value in values
    )


def test_one_sample_is_the_elbo():
    x, _ = data(4000)
    one = iwae_bound(
        x, encode=encode, log_likelihood=log_likelihood, num_samples=1, batch_size=1000
    )
    exact = elbo_closed_form(x)
    assert one["iwae"] == one["elbo"]
    assert one["gap"] == 0.0
    assert one["effective_samples"] == pytest.approx(1.0)
    assert abs(one["iwae"] - exact.mean()) < 5 * one["iwae_stderr"]
    # With many draws only their noise is left.
    many = iwae_bound(x[:200], encode=encode, log_likelihood=log_likelihood, num_samples=4000)
    assert many["elbo"] == pytest.approx(exact[:200].mean(), abs=0.02)


def test_exact_posterior_gives_the_likelihood_from_one_draw():
    x, log_p = data(7)
    root = jnp.float32(np.linalg.inv(np.linalg.cholesky(PRECISION)).T)

    # In coordinates where the posterior is N(0, I) the diagonal family holds it.
    def exact_encode(x):
        return jnp.zeros((x.shape[0], 2)), jnp.zeros((x.shape[0], 2))

    def moved(x, u):
        z = (x - B32) @ jnp.float32(GAIN.T) + u @ root.T
        log_det = float(np.log(np.abs(np.linalg.det(root))))
        return log_likelihood(x, z) + standard_normal_log_prob(z) + log_det

    values = iwae_bound(
        x, encode=exact_encode, log_likelihood=moved, log_prior=lambda u: 0.0 * u[:, 0],
        num_samples=3,
    )  # fmt: skip
    assert values["iwae"] == pytest.approx(log_p.mean(), abs=1e-5)
    assert values["gap"] == pytest.approx(0.0, abs=1e-5)
    assert values["effective_samples"] == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("num_samples", [1, 6, 7, 8, 20])
def test_chunks_are_merged_as_numpy_would(num_samples):
    x, _ = data(3)
    chunk = min(7, num_samples)
    values = iwae_bound(
        x, encode=encode, log_likelihood=log_likelihood, num_samples=num_samples, chunk_size=7
    )
    key = jax.random.fold_in(jax.random.key(0), 0)
    noise = np.concatenate([
        jax.random.normal(jax.random.fold_in(key, c), (chunk, 3, 2))
        for c in range(-(-num_samples // chunk))
    ])[:num_samples].astype(float)  # fmt: skip
    loc = (x.astype(float) - B) @ GAIN.T
    z = loc + np.sqrt(0.5) * noise
    log_w = (
        stats.norm(z @ A.T + B, S).logpdf(x).sum(-1)
        + stats.norm.logpdf(z).sum(-1)
        - stats.norm(loc, np.sqrt(0.5)).logpdf(z).sum(-1)
    )
    bound = special.logsumexp(log_w, axis=0) - np.log(num_samples)
    effective = np.exp(2 * special.logsumexp(log_w, axis=0) - special.logsumexp(2 * log_w, axis=0))
    assert values["iwae"] == pytest.approx(bound.mean(), abs=2e-5)
    assert values["elbo"] == pytest.approx(log_w.mean(), abs=2e-5)
    assert values["effective_samples"] == pytest.approx(np.median(effective), rel=1e-4)


def test_batches_and_calls_share_one_program():
    traces = []

    def counted(x, z):
        traces.append(x.shape)
        return log_likelihood(x, z)

    x, _ = data(25)
    sizes = {"num_samples": 6, "chunk_size": 3, "batch_size": 10}
    first = iwae_bound(x, encode=encode, log_likelihood=counted, **sizes)
    compiled = _batch_bound._cache_size()
    traced = len(traces)
    assert set(traces) == {(10, 3)}
    assert iwae_bound(x, encode=encode, log_likelihood=counted, **sizes) == first
    other = iwae_bound(x, encode=encode, log_likelihood=counted, seed=1, **sizes)
    assert other["iwae"] != first["iwae"]
    assert _batch_bound._cache_size() == compiled
    # The two later calls look at shapes only.
    assert len(traces) - traced <= 2


def test_other_weights_need_no_other_program():
    def weighted(scale, x, z):
        return scale * log_likelihood(x, z)

    x, _ = data(4)

    def bound(scale):
        apply = Partial(weighted, jnp.float32(scale))
        return iwae_bound(x, encode=encode, log_likelihood=apply, num_samples=3)["iwae"]

    bounds = [bound(1.0)]
    compiled = _batch_bound._cache_size()
    bounds.append(bound(0.5))
    assert _batch_bound._cache_size() == compiled
    alone = iwae_bound(x, encode=encode, log_likelihood=log_likelihood, num_samples=3)["iwae"]
    np.testing.assert_allclose(bounds[0], alone, rtol=1e-6)
    assert bounds[1] > bounds[0]


def test_memory_holds_one_chunk_of_samples():
    lowered = _batch_bound.lower(
        jnp.zeros((50, 3)), jax.random.key(0), jnp.int32(5000), encode=Partial(encode),
        log_likelihood=Partial(log_likelihood), log_prior=Partial(standard_normal_log_prob),
        chunk_size=20,
    )  # fmt: skip
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    assert temporary < 10 * (50 * 20 * 3 * 4) < 5000 * 50 * 4


def test_undefined_is_nan():
    x, _ = data(1)
    one = iwae_bound(x, encode=encode, log_likelihood=log_likelihood, num_samples=4)
    assert np.isfinite(one["iwae"])
    assert np.isnan(one["iwae_stderr"])

    def broken(x, z):
        return jnp.where(x[:, 0] > 0, jnp.nan, 0.0)

    x, _ = data(20)
    values = iwae_bound(x, encode=encode, log_likelihood=broken, num_samples=4)
    assert np.isnan(values["iwae"])

    def impossible(x, z):
        return jnp.full(x.shape[0], -jnp.inf)

    values = iwae_bound(x, encode=encode, log_likelihood=impossible, num_samples=4)
    assert values["iwae"] == -np.inf
    assert values["effective_samples"] == 1.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((0, 3))}, r"x must have shape \[n, ...\] with n >= 1, got \(0, 3\)"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, got 0"),
        ({"chunk_size": -1}, "chunk_size must be an integer of at least 1, got -1"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"encode": lambda x: (x, x[:, :2])}, r"encode must return loc and log_var of shape \[4"),
        (
            {"log_likelihood": lambda x, z: x - z[:, :1]},
            r"log_likelihood must return one number an example, shape \(4,\), got \(4, 3\)",
        ),
        ({"log_prior": lambda z: z}, "log_prior must return one number an example"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "x": np.zeros((4, 3), np.float32),
        "encode": encode,
        "log_likelihood": log_likelihood,
    } | change
    with pytest.raises(ValueError, match=message):
        iwae_bound(arguments.pop("x"), **arguments)
