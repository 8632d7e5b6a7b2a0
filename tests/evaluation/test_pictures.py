"""The pictures of a report: which codes are decoded, and which panels are worth their room."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from avae_jax import figures
from avae_jax.evaluation import pictures
from avae_jax.evaluation.pictures import traversal_codes
from avae_jax.priors import DiagonalGaussianPrior, PriorUnits


def material(prior, **fields) -> Any:
    """Return what the pictures of images read of it."""
    x = np.zeros((30, 4, 4, 1), np.float32)
    own = {"x": x, "x_recon": x, "labels": None, "split": "test", "value_range": (0.0, 1.0)}
    method = SimpleNamespace(sampled_by=fields.pop("sampled_by", "claimed"))
    run = SimpleNamespace(prior=lambda: prior, decode=fields.pop("decode", None), method=method)
    return SimpleNamespace(run=run, is_images=True, **(own | fields))


@pytest.mark.parametrize(("difference", "panels"), [(0.0, 1), (0.005, 1), (0.02, 2), (0.5, 2)])
@pytest.mark.parametrize("other", ["standard_normal", "gaussian"])
def test_draws_that_look_alike_share_a_panel(difference, panels, other, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "make_samples", lambda groups, **_: drawn.extend(groups))
    monkeypatch.setattr(figures, "to_png", lambda figure: b"")
    claimed = np.full((36, 4, 4, 1), 0.3, np.float32)
    samples = {"claimed": claimed, other: claimed + difference}
    prior = DiagonalGaussianPrior.isotropic(2, 0.99)
    caption = pictures._images(material(prior), samples)[0].caption
    assert len(drawn) == panels
    assert drawn[0] == "claimed: N(0, 0.99² I)"
    assert ("look the same and are left out" in caption) is (panels == 1)
    assert ("the same noise in both" in caption) is (panels == 2)


def test_a_method_that_claims_no_prior_shows_the_gaussian_of_its_codes(monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "make_samples", lambda groups, **_: drawn.update(groups))
    monkeypatch.setattr(figures, "to_png", lambda figure: b"")
    x = np.full((40, 4, 4, 1), 0.3, np.float32)
    samples = {"gaussian": x, "standard_normal": x + 0.5}
    of_run = material(DiagonalGaussianPrior.isotropic(2, 1.0), sampled_by="covariance")
    caption = pictures._images(of_run, samples)[0].caption
    assert list(drawn) == ["the codes' mean and covariance", "N(0, I)"]
    np.testing.assert_array_equal(drawn["the codes' mean and covariance"], x[:36])
    assert "aims them at none" in caption


def test_the_plane_is_decoded_at_equal_steps_of_the_prior_s_probability(monkeypatch):
    shown: dict[str, Any] = {}

    def draw(images, positions, **_):
        shown.update(images=images, positions=positions)

    monkeypatch.setattr(figures, "make_latent_grid", draw)
    monkeypatch.setattr(figures, "to_png", lambda figure: b"")
    prior = DiagonalGaussianPrior.isotropic(2, 0.8)
    units = PriorUnits.of(prior, seed=0)
    own = material(prior, z=np.zeros((5, 2)), decode=lambda z: z.reshape(-1, 1, 1, 2))
    (picture,) = pictures._plane(own, units)
    assert picture.file == "latent_grid"
    mass = stats.norm(scale=0.8).cdf(shown["positions"])
    np.testing.assert_allclose(np.diff(mass), 1 / len(mass))
    np.testing.assert_allclose(mass[0], 0.5 / len(mass))
    # The first dimension changes along a row.
    first, second = np.moveaxis(shown["images"][:, :, 0, 0], -1, 0)
    np.testing.assert_allclose(first, np.broadcast_to(shown["positions"], first.shape), rtol=1e-6)
    np.testing.assert_allclose(second, first.T)
    assert pictures._plane(material(prior, z=np.zeros((5, 3))), units) == []


def test_a_walk_spans_the_codes_along_its_direction_and_moves_nowhere_else():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(5)
    directions = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    walk = traversal_codes(z, directions[0], 0.7, 11)
    np.testing.assert_allclose(walk @ directions[0], np.linspace(-1.75, 1.75, 11), atol=1e-12)
    rest = walk @ directions[1:].T
    np.testing.assert_allclose(rest, np.broadcast_to(z @ directions[1:].T, rest.shape))
