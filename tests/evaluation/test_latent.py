"""The verdict on synthetic codes whose law is known: no false alarm, and every failure found."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.evaluation.latent import describe_codes
from avae_jax.evaluation.verdict import judge
from avae_jax.priors import DiagonalGaussianPrior, Mixture, StandardNormal


def material(z, z_train, *, scale: Any = 1.0, loc=None) -> Any:
    """Stand for a run with a linear decoder whose codes are given.

    Args:
      z: codes.
      z_train: those of other images.
      scale: of the run's prior, which is trained as N(0, I), or the prior it trains and claims.
      loc: means of the codes.
    """
    d = z.shape[1]
    mix = jnp.eye(d, 2 * d)
    trained, claimed = StandardNormal(d), scale
    if isinstance(scale, float):
        zeros = jnp.zeros(d)
        claimed = DiagonalGaussianPrior(zeros, zeros + 2 * np.log(scale)) if scale != 1 else trained
    else:
        trained = claimed
    run = SimpleNamespace(
        method=SimpleNamespace(latent_dim=d, prior=lambda variables: trained),
        variables=None,
        prior=lambda: claimed,
        decode_batch=lambda z: z @ mix,
    )
    z, z_train = z.astype(np.float32), z_train.astype(np.float32)
    loc = z if loc is None else loc.astype(np.float32)
    return SimpleNamespace(run=run, seed=0, protocol="standard", z=z, z_train=z_train, loc=loc)


# Few shapes serve all: what is judged compiles for seconds per shape, and runs for moments.
def normal(n, d, seed, num_train=1000):
    rng = np.random.default_rng(1000 + seed)
    return rng.standard_normal((n, d)), rng.standard_normal((num_train, d))


def judged(*codes, **options):
    return judge(describe_codes(material(*codes, **options), quick=True)[0])


def levels(findings):
    return {finding.name: finding.level for finding in findings if finding.level != "good"}


@pytest.mark.parametrize(
    ("n", "d", "seed"),
    [
        (359, 8, 0),
        (359, 8, 1),
        (359, 8, 2),
        (359, 2, 0),
        (2000, 16, 0),
        (359, 128, 0),
    ],
)
def test_draws_of_the_prior_raise_no_alarm(n, d, seed):
    assert levels(judged(*normal(n, d, seed, 2000))) == {}


def test_the_claimed_scale_is_the_one_compared_with():
    z, z_train = normal(359, 8, 3)
    assert levels(judged(0.8 * z, 0.8 * z_train, scale=0.8)) == {}
    assert levels(judged(0.8 * z, 0.8 * z_train, scale=1.0))["scale"] == "fault"


@pytest.mark.parametrize("d", [8, 16])
@pytest.mark.parametrize("factor", [0.1, 0.15])
def test_narrow_axes_are_collapsed(d, factor):
    narrow = np.where(np.arange(d) < 2, factor, 1.0)
    findings = judged(*(narrow * z for z in normal(1000, d, 4)))
    assert levels(findings)["collapse"] == "fault"
    assert f"2 of {d} directions" in findings[0].text


def test_axes_of_different_width_with_the_right_mean_are_uneven():
    widths = np.where(np.arange(16) < 8, 0.5, 1.32)
    findings = judged(*(widths * z for z in normal(1000, 16, 5)))
    assert levels(findings)["anisotropy"] == "fault"
    assert "collapse" not in levels(findings)


@pytest.mark.parametrize(("n", "d"), [(359, 2), (359, 128)])
def test_a_shift_is_off_centre(n, d):
    shift = np.eye(d)[0]
    assert levels(judged(*(z + shift for z in normal(n, d, 6))))["location"] == "fault"


def test_an_empty_wedge_is_a_hole():
    z, z_train = normal(4000, 8, 7, 2000)
    angle = np.arctan2(z[:, 1], z[:, 0])
    z = z[(angle < 0) | (angle > np.pi / 4)][:2000]
    assert levels(judged(z, z_train))["holes"] == "fault"


def test_an_empty_centre_is_a_hole():
    def hollow(z):
        return z[np.linalg.norm(z, axis=1) > 1.2]

    z, z_train = (hollow(z) for z in normal(3000, 3, 8, 3000))
    # What is left is wider, too.
    found = levels(judged(z, z_train))
    assert [name for name, level in found.items() if level == "fault"] == ["holes"]


def test_clusters_are_named_as_such():
    def draw(rng, n):
        return centres[rng.integers(0, 10, n)] + 0.35 * rng.standard_normal((n, 8))

    rng = np.random.default_rng(9)
    centres = 0.9 * rng.standard_normal((10, 8))
    assert levels(judged(draw(rng, 1000), draw(rng, 1000)))["clusters"] == "fault"


def test_means_that_do_not_vary_are_unused_though_draws_fill_the_prior():
    z, z_train = normal(1000, 8, 10)
    loc = np.where(np.arange(8) < 2, 0.01, 0.9) * z
    assert levels(judged(z, z_train, loc=loc)) == {"unused": "fault"}


def test_the_moments_of_means_are_told_from_those_of_draws():
    z, z_train = normal(1000, 8, 10)
    loc = 0.3 + np.where(np.arange(8) < 2, 0.01, 0.9) * z
    numbers, _ = describe_codes(material(z, z_train, loc=loc), quick=True)
    moments = numbers["moments"]
    mean, covariance = loc.mean(axis=0), np.cov(loc, rowvar=False)
    log_det = np.linalg.slogdet(covariance)[1]
    want = 0.5 * (np.trace(covariance) + mean @ mean - 8 - log_det)
    assert moments["moment_kl_means"] == pytest.approx(want, rel=1e-4)
    assert moments["moment_kl"] < 0.1 < 7 < want
    assert moments["moment_kl_means_null"] == moments["moment_kl_null"]


@pytest.mark.parametrize(("n", "d"), [(20, 16), (3, 8)])
def test_too_few_codes_are_not_judged(n, d):
    findings = judged(*normal(n, d, 11, 50))
    assert ["too few codes" in finding.text for finding in findings] == [True]


def test_constant_codes_are_collapsed_and_the_rest_is_undefined():
    z = np.ones((200, 4))
    findings = judged(z, z)
    assert levels(findings)["collapse"] == "fault"
    assert {"scale", "holes"}.isdisjoint(levels(findings))


def clustered(d: int) -> Mixture:
    """A mixture far from any Gaussian, neither centered nor alike in all directions."""
    prior = Mixture.make(d, jax.random.key(1), num_components=6, spread=0.95)
    return Mixture(prior.log_weights, 1.0 + jnp.linspace(0.5, 2.0, d) * prior.loc, prior.log_var)


LEARNED = DiagonalGaussianPrior(jnp.linspace(-2.0, 2.0, 8), jnp.linspace(-2.0, 1.0, 8))


@pytest.mark.parametrize("prior", [clustered(8), clustered(2), LEARNED], ids=lambda p: p.describe())
@pytest.mark.parametrize("n", [359, 2000])
def test_draws_of_a_learned_prior_raise_no_alarm(prior, n):
    codes = (np.asarray(prior.sample(jax.random.key(seed), m)) for seed, m in ((2, n), (3, 2000)))
    assert levels(judged(*codes, scale=prior)) == {}


def test_codes_are_judged_by_the_prior_and_not_by_a_gaussian():
    prior = clustered(8)
    draws, train = (np.asarray(prior.sample(jax.random.key(seed), 1000)) for seed in (2, 3))
    names = {"location", "scale", "holes", "shape"}
    # Against N(0, I) they are off; and so are draws of N(0, I) against them.
    assert names & set(levels(judged(draws, train)))
    gaussian = (
        z @ np.linalg.cholesky(np.cov(draws.T)).T + draws.mean(0) for z in normal(1000, 8, 1)
    )
    assert levels(judged(*gaussian, scale=prior)).keys() & {"holes", "shape"}
    for broken, name in ((1.6 * draws, "scale"), (draws + 2.0, "location")):
        assert levels(judged(broken, train, scale=prior))[name] == "fault"
    narrow = draws.mean(0) + (draws - draws.mean(0)) * np.where(np.arange(8) < 2, 0.1, 1.0)
    assert levels(judged(narrow, train, scale=prior))["collapse"] == "fault"


def test_what_only_a_gaussian_has_says_so():
    prior = clustered(3)
    codes = (np.asarray(prior.sample(jax.random.key(seed), 300)) for seed in (2, 3))
    numbers, arrays = describe_codes(material(*codes, scale=prior))
    assert numbers["prior"] == "a mixture of 6 Gaussians"
    for name in ("moments", "normality"):
        assert numbers[name].startswith("not computed"), name
    for name in ("sliced_w2", "mmd_rbf", "energy_distance", "knn_kl"):
        value, null = (numbers["distances"][f"{name}{end}"] for end in ("", "_null"))
        std = numbers["distances"].get(f"{name}_null_std", 0.0)
        assert abs(value - null) < 5 * std, name
    for section, name in (
        ("density", "entropy"),
        ("dependence", "dimension_kl"),
        ("holes", "planes"),
    ):
        assert numbers[section][name].startswith("not computed"), name
    assert "whitened_entropy" not in numbers["density"]
    assert "disc_evidence" not in numbers["holes"]
    assert not arrays.units.is_gaussian
    np.testing.assert_allclose(arrays.z.std(axis=0), 1.0, atol=0.2)
