"""Statistics of a batch of codes: against float64 formulas, in expectation, and their scale."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import integrate, special, stats

import avae_jax as av
from avae_jax import losses
from avae_jax.losses.hypergeometric import kummer_half, mean_norm

RNG = np.random.default_rng(0)
N, M, D = 9, 7, 3
Z = (0.8 * RNG.standard_normal((N, D)) + 0.2).astype(np.float32)
DRAWS = RNG.standard_normal((M, D)).astype(np.float32)
AS_MANY = RNG.standard_normal((N, D)).astype(np.float32)
DIRECTIONS = np.asarray(losses.unit_directions(jax.random.key(0), D, 6))


def u_form(kernel, x, y=None):
    """Return the mean of a kernel over distinct pairs, or over all pairs of two samples."""
    values = [
        kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x if y is None else y)
        if y is not None or i != j
    ]  # fmt: skip
    return sum(values) / len(values)


def mmd64(kernel, z, draws):
    z, draws = z.astype(np.float64), draws.astype(np.float64)
    return u_form(kernel, z) - 2 * u_form(kernel, z, draws) + u_form(kernel, draws)


def square(a, b):
    return float(((a - b) ** 2).sum())


def imq(c):
    return lambda a, b: sum(s * c / (s * c + square(a, b)) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))


def rbf(g2):
    return lambda a, b: math.exp(-square(a, b) / (2 * g2))


@pytest.mark.parametrize("scale", [0.7, None])
def test_imq_is_a_double_loop(scale):
    pair = u_form(square, DRAWS.astype(np.float64))
    want = mmd64(imq(pair if scale is None else scale**2), Z, DRAWS)
    np.testing.assert_allclose(losses.mmd(Z, DRAWS, scale=scale), want, rtol=1e-5)


def lower_medians():
    """Return the lower median of squared distances to the draws, plus that within the codes."""
    across = sorted(square(a, b) for a in Z for b in DRAWS)
    within = sorted(square(a, b) for i, a in enumerate(Z) for j, b in enumerate(Z) if i != j)
    return across[(len(across) - 1) // 2] + within[(len(within) - 1) // 2]


@pytest.mark.parametrize("scale", [0.7, None])
def test_rbf_is_a_double_loop(scale):
    want = mmd64(rbf(lower_medians() if scale is None else scale**2), Z, DRAWS)
    got = losses.mmd(Z, DRAWS, kernel="rbf", scale=scale)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.7, None])
def test_the_closed_form_is_the_integral(scale):
    """Of one dimension, by quadrature."""
    z = Z[:, :1].astype(np.float64)
    g2 = 2.0 if scale is None else scale**2

    def over_prior(variance, a):
        def integrand(y):
            return math.exp(-((a - y) ** 2) / (2 * g2)) * stats.norm.pdf(y, scale=variance**0.5)

        return integrate.quad(integrand, -12, 12)[0]

    want = u_form(rbf(g2), z) + over_prior(2, 0.0)
    want -= 2 * np.mean([over_prior(1, float(a)) for a in z[:, 0]])
    np.testing.assert_allclose(
        losses.mmd_standard_normal(z, scale=scale), want, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("draws", [True, False])
def test_energy_is_a_double_loop(draws):
    z, y = Z.astype(np.float64), DRAWS.astype(np.float64)
    distance = lambda a, b: math.sqrt(square(a, b))  # noqa: E731
    if draws:
        across, among = u_form(distance, z, y), u_form(distance, y)
    else:
        # |z - y| of three dimensions: the mean of a noncentral chi.
        norms = np.linalg.norm(z, axis=1)
        across = np.mean([stats.ncx2.expect(np.sqrt, args=(3, r**2)) for r in norms])
        among = math.sqrt(2) * stats.chi.mean(3)
    want = 2 * across - u_form(distance, z) - among
    got = losses.energy_distance(Z, DRAWS if draws else None)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 2, 5, 16, 128])
@pytest.mark.parametrize("sign", [1, -1])
def test_kummer_equals_scipy(latent_dim, sign):
    s = np.concatenate([[0.0], np.logspace(-4, 1.5, 40)])
    # By Kummer's transformation all terms of SciPy's series are positive.
    a, b = 0.5 * (latent_dim - sign), 0.5 * latent_dim
    want = np.exp(-s) * special.hyp1f1(a, b, s)
    derivative = -sign / latent_dim * np.exp(-s) * special.hyp1f1(a, b + 1, s)
    assert np.isfinite(want).all()
    # Far out it follows a power law.
    s = np.append(s, 1e9)
    far = 1e9 ** (-0.5 * sign) * math.exp(math.lgamma(b) - math.lgamma(a)) if a else 0.0
    want = np.append(want, far)
    got = kummer_half(jnp.float32(s), latent_dim, sign=sign)
    np.testing.assert_allclose(got, want, rtol=5e-6, atol=1e-30)
    with jax.enable_x64(True):
        value, pull_back = jax.vjp(lambda s: kummer_half(s, latent_dim, sign=sign), jnp.asarray(s))
        np.testing.assert_allclose(value[:-1], want[:-1], rtol=3e-8)
        (slope,) = pull_back(jnp.ones_like(value))
        np.testing.assert_allclose(slope[:-1], derivative, rtol=1e-5, atol=1e-7)


def test_the_mean_norm():
    for latent_dim in (1, 2, 16, 500):
        np.testing.assert_allclose(mean_norm(latent_dim), stats.chi.mean(latent_dim), rtol=1e-9)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_cramer_wold_is_the_integral_over_directions(latent_dim):
    """The squared L2 distance of smoothed coordinates, over directions and a line."""
    z = (1.5 * RNG.standard_normal((4, latent_dim))).astype(np.float32)
    g = (4 / (3 * 4)) ** 0.4
    if latent_dim == 1:
        directions, weights = np.ones((1, 1)), np.ones(1)
    elif latent_dim == 2:
        angle = np.linspace(0, math.pi, 200, endpoint=False)
        directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        weights = np.full(200, 1 / 200)
    else:
        # Gauss in the height, equal steps around.
        height, weights = np.polynomial.legendre.leggauss(40)
        angle = np.linspace(0, 2 * math.pi, 80, endpoint=False)
        height, angle = np.repeat(height, 80), np.tile(angle, 40)
        ring = np.sqrt(1 - height**2)
        directions = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
        weights = np.repeat(weights, 80) / (2 * 80)
    t = np.linspace(-14, 14, 561)
    coordinates = z.astype(np.float64) @ directions.T
    density = stats.norm.pdf(t[:, None, None], coordinates, g**0.5).mean(axis=1)
    error = density - stats.norm.pdf(t, scale=(1 + g) ** 0.5)[:, None]
    distance = (error**2).sum(axis=0) * (t[1] - t[0]) @ weights
    # Without the factor 1 / (2 sqrt(pi)).
    np.testing.assert_allclose(losses.cramer_wold(z), 2 * math.sqrt(math.pi) * distance, rtol=1e-5)


@pytest.mark.parametrize("draws", [AS_MANY, None])
def test_sliced_wasserstein_is_sorted(draws):
    want = []
    for direction in DIRECTIONS.astype(np.float64):
        own = np.sort(Z @ direction)
        if draws is None:
            other = stats.norm.ppf((np.arange(N) + 0.5) / N)
        else:
            other = np.sort(draws @ direction)
        want.append(((own - other) ** 2).mean())
    got = losses.sliced_wasserstein(Z, draws, DIRECTIONS)
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)


def test_sliced_wasserstein_equals_pot():
    ot = pytest.importorskip("ot")
    want = ot.sliced_wasserstein_distance(Z, AS_MANY, projections=DIRECTIONS.T)
    got = losses.sliced_wasserstein(Z, AS_MANY, DIRECTIONS)
    np.testing.assert_allclose(got, want**2, rtol=1e-5)


def test_epps_pulley_is_a_sum_over_points():
    total = 0.0
    for direction in DIRECTIONS.astype(np.float64):
        values = []
        for t in np.linspace(0, 3, 17):
            phi = np.exp(1j * t * (Z @ direction)).mean()
            values.append(abs(phi - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2))
        total += 2 * np.trapezoid(values, dx=3 / 16)
    got = losses.epps_pulley(Z, DIRECTIONS)
    np.testing.assert_allclose(got, N * total / len(DIRECTIONS), rtol=1e-5)
    # The integral over the whole line, in closed form.
    u = Z @ DIRECTIONS.T.astype(np.float64)
    pair = np.exp(-((u[:, None] - u) ** 2) / 2).mean(axis=(0, 1))
    closed = pair - math.sqrt(2) * np.exp(-(u**2) / 4).mean(axis=0) + 1 / math.sqrt(3)
    np.testing.assert_allclose(got, N * math.sqrt(2 * math.pi) * closed.mean(), rtol=0.03)


def sinkhorn64(x, y, e):
    """Return the entropic cost between uniform weights and its plan, from POT."""
    ot = pytest.importorskip("ot")
    cost = ((x[:, None] - y) ** 2).sum(-1)
    a, b = np.full(len(x), 1 / len(x)), np.full(len(y), 1 / len(y))
    options = {"method": "sinkhorn_log", "numItermax": 5000, "stopThr": 1e-9}
    plan = ot.bregman.sinkhorn(a, b, cost, e, **options)
    return (plan * cost).sum() + e * special.rel_entr(plan, np.outer(a, b)).sum(), plan


def test_sinkhorn_equals_pot():
    z, y = Z.astype(np.float64), DRAWS.astype(np.float64)
    e = 0.2 * ((z[:, None] - y) ** 2).sum(-1).mean()
    (across, plan), (of_codes, own), (of_draws, _) = (
        sinkhorn64(*pair, e) for pair in ((z, y), (z, z), (y, y))
    )
    want = across - 0.5 * of_codes - 0.5 * of_draws

    def divergence(z):
        return losses.sinkhorn_divergence(z, DRAWS, epsilon=0.2, num_iterations=200)

    value, gradient = jax.jit(jax.value_and_grad(divergence))(Z)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    # The plans' own pull; e carries none.
    slope = 2 * (plan.sum(axis=1, keepdims=True) * z - plan @ y)
    slope -= 2 * (own.sum(axis=1, keepdims=True) * z - own @ z)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


def test_closed_forms_are_what_draws_give_on_average():
    draws = jax.random.normal(jax.random.key(0), (200, 50, D))
    for exact, drawn in (
        (losses.mmd_standard_normal(Z, scale=1.5),
         lambda y: losses.mmd(Z, y, kernel="rbf", scale=1.5)),
        (losses.energy_distance(Z, None), lambda y: losses.energy_distance(Z, y)),
    ):  # fmt: skip
        found = np.asarray(jax.lax.map(jax.jit(drawn), draws), np.float64)
        assert abs(found.mean() - exact) < 5 * found.std() / math.sqrt(len(found))


def test_gradients():
    """Of all at once, where nothing is held fixed on purpose."""

    def statistics(z):
        return jnp.stack(
            [
                losses.mmd(z, DRAWS, scale=1.5),
                losses.mmd(z, DRAWS, kernel="rbf", scale=1.5),
                losses.mmd_standard_normal(z),
                losses.energy_distance(z, DRAWS),
                losses.energy_distance(z, None),
                losses.cramer_wold(z),
                losses.epps_pulley(z, DIRECTIONS),
                losses.sliced_wasserstein(z, AS_MANY, DIRECTIONS),
                losses.sliced_wasserstein(z, None, DIRECTIONS),
            ]
        )

    with jax.enable_x64(True):
        check_grads(jax.jit(statistics), (jnp.asarray(Z, jnp.float64),), order=1, modes=["rev"])


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_lengths_found_in_the_batch_carry_no_gradient(kernel):
    slope = jax.jit(jax.grad(lambda z, scale: losses.mmd(z, DRAWS, kernel=kernel, scale=scale)))
    free = jax.jit(jax.grad(lambda z: losses.mmd(z, DRAWS, kernel=kernel)))(Z)
    if kernel == "imq":
        length = math.sqrt(u_form(square, DRAWS))
    else:
        length = math.sqrt(lower_medians())
    np.testing.assert_allclose(free, slope(Z, length), rtol=1e-4, atol=1e-6)


def test_codes_that_coincide_do_not_pull_each_other():
    """The energy distance's kernel has a corner there."""
    z = jnp.zeros((2, D))
    gradient = jax.jit(jax.grad(lambda z: losses.energy_distance(z, DRAWS)))(z)
    units = -DRAWS / np.linalg.norm(DRAWS, axis=1, keepdims=True)
    np.testing.assert_allclose(gradient, np.tile(units.mean(axis=0), (2, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.mmd(Z, DRAWS[:1]), "rows of draws must be an integer of at least 2, got 1"),
        (lambda: losses.mmd(Z, DRAWS[:, :2]), "draws must have the latent_dim of z, 3, got 2"),
        (lambda: losses.mmd(Z, DRAWS, kernel="cubic"), "kernel must be one of 'imq', 'rbf'"),
        (lambda: losses.mmd(Z, DRAWS, scale=0.0), "scale must be finite and positive, got 0"),
        (lambda: losses.mmd(Z, DRAWS, mask=np.ones(3)), "mask must have the batch of z, 9, got 3"),
        (lambda: losses.mmd_standard_normal(Z, scale=-1), "scale must be finite and positive"),
        (
            lambda: losses.wae(Z, Z, Z, None, weight=1.0),
            "kernel must be 'rbf' where draws is None, got 'imq': give draws",
        ),
        (
            lambda: losses.sliced_wasserstein(Z, DRAWS, DIRECTIONS),
            "draws must have the shape of z",
        ),
        (
            lambda: losses.sliced_wasserstein(Z, None, DIRECTIONS[:, :2]),
            "directions must have the latent_dim of z, 3, got 2",
        ),
        (lambda: losses.epps_pulley(Z, DIRECTIONS[0]), r"give directions\[None\]"),
        (
            lambda: losses.sinkhorn_divergence(Z, DRAWS, epsilon=0.0),
            "epsilon must be finite and positive",
        ),
        (
            lambda: losses.sinkhorn_divergence(Z, DRAWS, num_iterations=0),
            "num_iterations must be an integer of at least 1, got 0",
        ),
        (
            lambda: losses.unit_directions(jax.random.key(0), 3, 0),
            "num_directions must be an integer of at least 1, got 0",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_info_vae_is_its_parts():
    x, x_recon = RNG.random((2, N, 4)).astype(np.float32)
    log_var = RNG.standard_normal((N, D)).astype(np.float32)
    loss, terms = losses.info_vae(
        x, x_recon, Z, log_var, Z, DRAWS, alpha=0.3, mmd_weight=7.0, noise_scale=0.5
    )
    elbo, of_elbo = av.losses.elbo(x, x_recon, Z, log_var, noise_scale=0.5)
    want = elbo - 0.3 * of_elbo["kl"] + 7.0 * losses.mmd(Z, DRAWS)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    assert terms.keys() == of_elbo.keys() | {"mmd"}
