"""The verdict on synthetic codes whose law is known: no false alarm, and every failure found."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.evaluation.latent import describe_codes
from avae_jax.evaluation.verdict import judge


def material(z, z_train, *, scale=1.0, loc=None) -> Any:
    """Stand for a run with a linear decoder whose codes are given."""
    d = z.shape[1]
    mix = jnp.eye(d, 2 * d)
    run = SimpleNamespace(
        method=SimpleNamespace(latent_dim=d),
        prior=lambda: SimpleNamespace(std=lambda: scale),
        decode_batch=lambda z: z @ mix,
    )
    z, z_train = z.astype(np.float32), z_train.astype(np.float32)
    loc = z if loc is None else loc.astype(np.float32)
    return SimpleNamespace(run=run, seed=0, protocol="standard", z=z, z_train=z_train, loc=loc)


def normal(n, d, seed, num_train=2000):
    rng = np.random.default_rng(1000 + seed)
    return rng.standard_normal((n, d)), rng.standard_normal((num_train, d))


def judged(*codes, **options):
    return judge(describe_codes(material(*codes, **options), slow=False)[0])


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
        (359, 64, 0),
        (359, 128, 0),
    ],
)
def test_draws_of_the_prior_raise_no_alarm(n, d, seed):
    assert levels(judged(*normal(n, d, seed))) == {}


def test_the_claimed_scale_is_the_one_compared_with():
    z, z_train = normal(500, 8, 3)
    assert levels(judged(0.8 * z, 0.8 * z_train, scale=0.8)) == {}
    assert levels(judged(0.8 * z, 0.8 * z_train, scale=1.0))["scale"] == "fault"


@pytest.mark.parametrize("d", [8, 16])
@pytest.mark.parametrize("factor", [0.1, 0.15])
def test_narrow_axes_are_collapsed(d, factor):
    narrow = np.where(np.arange(d) < 2, factor, 1.0)
    findings = judged(*(narrow * z for z in normal(1500, d, 4)))
    assert levels(findings)["collapse"] == "fault"
    assert f"2 of {d} directions" in findings[0].text


def test_axes_of_different_width_with_the_right_mean_are_wrongly_scaled():
    widths = np.where(np.arange(16) < 8, 0.5, 1.32)
    findings = judged(*(widths * z for z in normal(1500, 16, 5)))
    assert levels(findings)["scale"] == "fault"
    assert "collapse" not in levels(findings)


@pytest.mark.parametrize("d", [2, 64])
def test_a_shift_is_off_centre(d):
    shift = np.eye(d)[0]
    assert levels(judged(*(z + shift for z in normal(600, d, 6))))["location"] == "fault"


def test_an_empty_wedge_is_a_hole():
    z, z_train = normal(4000, 8, 7)
    angle = np.arctan2(z[:, 1], z[:, 0])
    z = z[(angle < 0) | (angle > np.pi / 4)]
    assert levels(judged(z, z_train))["holes"] == "fault"


def test_an_empty_centre_is_a_hole():
    def hollow(z):
        return z[np.linalg.norm(z, axis=1) > 1.5]

    z, z_train = (hollow(z) for z in normal(3000, 3, 8, 3000))
    assert levels(judged(z, z_train))["holes"] == "fault"


def test_clusters_leave_holes():
    def draw(rng, n):
        return centres[rng.integers(0, 10, n)] + 0.35 * rng.standard_normal((n, 8))

    rng = np.random.default_rng(9)
    centres = 0.9 * rng.standard_normal((10, 8))
    assert levels(judged(draw(rng, 2000), draw(rng, 2000)))["holes"] == "fault"


def test_means_that_do_not_vary_are_unused_though_draws_fill_the_prior():
    z, z_train = normal(1000, 6, 10)
    loc = np.where(np.arange(6) < 2, 0.01, 0.9) * z
    assert levels(judged(z, z_train, loc=loc)) == {"unused": "fault"}


@pytest.mark.parametrize(("n", "d"), [(20, 16), (3, 8)])
def test_too_few_codes_are_not_judged(n, d):
    findings = judged(*normal(n, d, 11, 50))
    assert ["too few codes" in finding.text for finding in findings] == [True]


def test_constant_codes_are_collapsed_and_the_rest_is_undefined():
    z = np.ones((200, 4))
    findings = judged(z, z)
    assert levels(findings)["collapse"] == "fault"
    assert {"scale", "holes"}.isdisjoint(levels(findings))
