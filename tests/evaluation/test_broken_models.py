"""The verdict on models broken on purpose: collapsed, holed, wrongly scaled; each named as such."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from avae_jax.evaluation import evaluate_run
from avae_jax.evaluation.latent import describe_codes
from avae_jax.evaluation.material import gather
from avae_jax.evaluation.verdict import headline, judge
from avae_jax.training import config as cfg

from .conftest import gaussianised, open_hole, train, with_codes


def findings_of(run):
    numbers, _ = describe_codes(gather(run), quick=True)
    return judge(numbers)


def faults(findings):
    return {finding.name for finding in findings if finding.level == "fault"}


@pytest.fixture(scope="module")
def good(digits_run):
    return gaussianised(digits_run)


def shrunk(run, num_axes):
    """Return a run whose first axes are a thousandth as wide, and decoded as before."""
    d = run.method.latent_dim
    factor = jnp.where(jnp.arange(d) < num_axes, 1e-3, 1.0)
    return with_codes(run, lambda z: z * factor, lambda z: z / factor)


def test_a_good_model_has_no_fault(good):
    findings = findings_of(good)
    # The center, between the clusters of the digits, is thin: found or not, it is of this model.
    found = [f for f in findings if f.level == "fault" and "ball at the center" not in f.text]
    assert not found, findings


def test_a_collapsed_model_is_called_collapsed(good):
    findings = findings_of(shrunk(good, 2))
    assert faults(findings) == {"collapse"}, findings
    assert "2 of 8 directions" in findings[0].text
    assert "partly collapsed" in headline(findings)


@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_a_wrongly_scaled_model_is_called_wrongly_scaled(good, factor):
    findings = findings_of(with_codes(good, lambda z: z * factor, lambda z: z / factor))
    assert findings[0].name == "scale"
    # The center, between the clusters of the digits, is thin: found or not, it is no scale.
    assert faults(findings) - {"holes"} == {"scale"}, findings
    assert "wrongly scaled" in headline(findings)


def test_a_model_with_a_hole_is_called_holed(good):
    scale = good.prior().std()
    findings = findings_of(with_codes(good, lambda z: open_hole(z, scale), lambda z: z))
    assert faults(findings) == {"holes"}, findings
    assert "of the latent space that should hold" in findings[0].text


def test_the_hole_of_the_test_is_invisible_to_moments():
    z = jnp.asarray(np.random.default_rng(0).standard_normal((20_000, 4)), jnp.float32)
    holed = np.asarray(open_hole(0.8 * z, 0.8)) / 0.8
    assert np.abs(np.cov(holed, rowvar=False) - np.eye(4)).max() < 0.05
    assert np.min(np.linalg.norm(holed[:, :2], axis=1)) > 0.9


def test_posterior_collapse_is_told_from_collapsed_codes(tmp_path):
    config = cfg.replace_fields(
        cfg.load_experiment("digits"), method="beta_vae", beta=8.0, num_epochs=8, batch_size=96,
        width=1.0, noise_scale=0.5,
    )  # fmt: skip
    findings = findings_of(train(tmp_path / "run", config))
    assert "unused" in faults(findings), findings
    assert "collapse" not in faults(findings)


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="needs prepared MNIST")
def test_the_same_on_mnist(tmp_path):
    config = cfg.replace_fields(
        cfg.load_experiment("mnist"), width=0.125, num_epochs=1, num_centers=2000,
        refresh="queue", batch_size=96,
    )  # fmt: skip
    run = gaussianised(train(tmp_path / "run", config))
    scale = run.prior().std()
    broken = {
        "collapse": shrunk(run, 3),
        "scale": with_codes(run, lambda z: 1.6 * z, lambda z: z / 1.6),
        "holes": with_codes(run, lambda z: open_hole(z, scale), lambda z: z),
    }
    assert faults(findings_of(run)) == set()
    for name, changed in broken.items():
        findings = findings_of(changed)
        assert faults(findings) == {name}, findings


def test_the_report_of_a_broken_model_says_so_first(good, tmp_path):
    summary = evaluate_run(
        with_codes(good, lambda z: 2.0 * z, lambda z: z / 2.0), output=tmp_path, num_samples=100
    )
    assert summary["verdict"]["findings"][0]["name"] == "scale"
    text = (tmp_path / "report.html").read_text()
    assert text.index("wrongly scaled") < text.index("<img")
