"""What is said about codes of known laws, and that chance is not called a fault."""

import copy
import math

import numpy as np
import pytest

from avae_jax.evaluation.verdict import headline, judge, judge_codes
from avae_jax.metrics.departures import departures


@pytest.fixture(scope="module")
def good():
    """Sections of codes that follow the prior, as a summary holds them."""
    sections = departures(normal(0)).sections
    return {
        **sections,
        "scale": {**sections["scale"], "claimed": 0.8},
        "collapse": {"dims": 4, "num_collapsed": 0, "num_collapsed_means": 0, "num_ignored": 0},
        "density": {"kl_excess_nats": 0.05, "kl_excess_nats_stderr": 0.02},
    }


@pytest.fixture
def judged(good):
    def judge_changed(**changes):
        latent = copy.deepcopy(good)
        for path, value in changes.items():
            section, _, name = path.partition("__")
            assert name in latent[section], name
            latent[section][name] = value
        return judge(latent)

    return judge_changed


N, D = 800, 4


def normal(seed, n=N, d=D):
    return np.random.default_rng(4000 + seed).standard_normal((n, d))


def faults(findings):
    return [finding.name for finding in findings if finding.level == "fault"]


def names(findings):
    return {finding.name for finding in findings if finding.level != "good"}


def test_codes_like_the_prior_are_called_so(judged):
    findings = judged()
    assert {finding.level for finding in findings} == {"good"}
    assert headline(findings) == "The codes match the prior."


# z = 20 beyond the null, and as large as it takes.
FOUND = {
    "location": {"scale__shift": 1.4, "scale__shift_statistic_zscore": 20.0},
    "holes": {"holes__disc_share": 0.05, "holes__disc_evidence_zscore": 20.0},
    "collapse": {"collapse__num_collapsed": 2, "collapse__num_collapsed_means": 2},
    "unused": {"collapse__num_collapsed_means": 2},
    "scale": {
        "scale__width": 1.5, "scale__width_zscore": 20.0,
        "scale__width_trimmed": 1.5, "scale__width_trimmed_zscore": 20.0,
    },
    "anisotropy": {
        "scale__largest_unevenness": 0.8, "scale__largest_unevenness_test_zscore": 20.0,
    },
    "correlation": {
        "scale__largest_correlation": 0.7, "scale__largest_correlation_test_zscore": 20.0,
    },
    "clusters": {"shape__midway_log_ratio": 0.4, "shape__midway_log_ratio_zscore": 20.0},
    "shell": {"shape__radius_spread": 0.1, "shape__radius_spread_zscore": -20.0},
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_each_failure_is_named_alone(judged, name):
    findings = judged(**FOUND[name])
    assert faults(findings) == [name]
    assert findings[0].name == name
    words = {
        "unused": "unused", "anisotropy": "in some directions", "location": "off center",
        "scale": "wrongly scaled", "holes": "holed", "collapse": "partly collapsed",
        "correlation": "correlated", "clusters": "clustered", "shell": "on a shell",
    }  # fmt: skip
    assert words[name] in headline(findings)
    chance = {path: 3.0 for path in FOUND[name] if path.endswith("_zscore")}
    if chance:
        assert names(judged(**{**FOUND[name], **chance})) == set()


def test_several_failures_are_named_together(judged):
    findings = judged(**FOUND["scale"], collapse__num_collapsed=1)
    assert faults(findings) == ["scale", "collapse"]
    assert headline(findings).endswith("they are wrongly scaled and partly collapsed.")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("scale", {**FOUND["scale"], "scale__width": 1.1, "scale__width_trimmed": 1.1}),
        ("location", {**FOUND["location"], "scale__shift": 0.5}),
        ("unused", {"collapse__num_ignored": 3}),
        ("holes", {**FOUND["holes"], "holes__disc_share": 0.005}),
        ("anisotropy", {**FOUND["anisotropy"], "scale__largest_unevenness": 0.25}),
        ("correlation", {**FOUND["correlation"], "scale__largest_correlation": 0.2}),
        ("shape", {"shape__bend": 0.6, "shape__bend_test_zscore": 20.0}),
        ("shape", {"density__kl_excess_nats": 0.6}),
        ("shape", {"density__kl_excess_nats": -0.6}),
    ],
)
def test_what_can_be_measured_but_hardly_matters_is_a_notice(judged, name, changes):
    findings = judged(**changes)
    assert [finding.level for finding in findings].count("notice") == 1
    assert findings[0].name == name
    assert faults(findings) == []
    assert "but for what is noted" in headline(findings)


def test_a_negative_excess_of_the_density_is_told_with_its_side(judged):
    (finding,) = (f for f in judged(density__kl_excess_nats=-0.6) if f.level == "notice")
    assert "0.6 nats below" in finding.text
    assert finding.effect == -0.6
    # A scale that explains it stands alone.
    assert names(judged(density__kl_excess_nats=-0.6, **FOUND["scale"])) == {"scale"}
    # The error of the estimate counts.
    few = {"density__kl_excess_nats": -0.6, "density__kl_excess_nats_stderr": 0.2}
    assert names(judged(**few)) == set()


def test_one_of_two_widths_is_no_scale(judged):
    """What a few far codes, or heavy tails, do to one of them."""
    for name in ("width", "width_trimmed"):
        changes = {k: v for k, v in FOUND["scale"].items() if k.startswith(f"scale__{name}")}
        changes = {k: v for k, v in changes.items() if name == "width_trimmed" or "trim" not in k}
        assert names(judged(**changes)) == set(), name


def test_fewer_codes_than_dimensions_are_not_judged():
    findings = judge({"scale": {"n": 200, "dims": 128}})
    assert [finding.level for finding in findings] == ["notice"]
    assert "too few codes: 200 in 128 dimensions" in findings[0].text
    assert "give at least 256" in findings[0].text
    assert "give at least 20" in judge_codes(np.zeros((8, 1)))[0].text


def slab(z):
    return np.abs(z[:, 0] - 0.385) < 0.0675


def ball(z):
    return np.linalg.norm(z, axis=1) < 0.84


def disc(z):
    return np.hypot(z[:, 1] - 0.6, z[:, 2]) < 0.55


def two_clusters(z):
    side = np.where(np.arange(len(z)) % 2 == 0, 1.0, -1.0)
    return np.c_[0.5 * z[:, 0] + np.sqrt(0.75) * side, z[:, 1:]]


def outlying(z):
    far = np.where(np.random.default_rng(1).random((len(z), 1)) < 0.01, 5.0, 1.0)
    return z * far


LAWS = {
    "location": lambda z: z + [0.5, 0.0, 0.0, 0.0],
    "scale": lambda z: 0.85 * z,
    "anisotropy": lambda z: z * [0.3, 1.0, 1.0, 1.0],
    "correlation": lambda z: z @ np.linalg.cholesky(0.3 + 0.7 * np.eye(D)).T,
    "heavy tails": lambda z: z * np.sqrt(3 / np.random.default_rng(2).chisquare(5, (len(z), 1))),
    "outliers": outlying,
    "light tails": lambda z: np.random.default_rng(3).uniform(-(3**0.5), 3**0.5, z.shape),
    "shell": lambda z: 2.0 * z / np.linalg.norm(z, axis=1, keepdims=True),
    "clusters": two_clusters,
    "shape": lambda z: (
        np.c_[z[:, 0], z[:, 1] + 0.4 * (z[:, 0] ** 2 - 1), z[:, 2:]] / [1, 1.15, 1, 1]
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_codes_of_a_law_are_named_by_it_alone(name):
    for seed in (1, 2):
        findings = judge_codes(LAWS[name](normal(seed)))
        assert names(findings) == {name}, findings
        (finding,) = (f for f in findings if f.name == name)
        assert finding.zscore is not None
        assert abs(finding.zscore) > 5.0
        assert finding.effect is not None
        assert math.isfinite(finding.effect)
        assert finding.unit


def test_skew_codes_are_no_clusters():
    rng = np.random.default_rng(4)
    assert names(judge_codes(rng.exponential(size=(N, D)) - 1.0)) == {"shape"}
    z = normal(8)
    # Skew as well, but with a valley.
    z[:, 0] = 0.35 * z[:, 0] + np.where(rng.random(N) < 0.2, 2.0, -0.5)
    assert "clusters" in names(judge_codes(z))


@pytest.mark.parametrize("distance", [20.0, 200.0, 1e5])
def test_one_far_code_is_an_outlier_and_nothing_else(distance):
    for direction in ([1.0, 0.0, 0.0], [0.6, 0.0, 0.8]):
        z = normal(9, 300, 3)
        z[0] = distance * np.array(direction)
        assert names(judge_codes(z)) == {"outliers"}


def test_codes_of_a_few_values_are_judged_without_a_warning():
    findings = judge_codes(np.sign(normal(10, 400, 2)))
    assert names(findings) == {"shell"}
    # No region was looked at.
    assert not [finding for finding in findings if finding.name == "holes"]
    assert "holes" in names(judge_codes(np.r_[np.zeros((298, 2)), [[99.0, 0.0], [0.0, 99.0]]]))


def test_heavy_tails_of_any_kind_are_no_holes():
    z = normal(11, 400, 3) / np.sqrt(np.random.default_rng(11).chisquare(1, (400, 1)))
    assert names(judge_codes(z)) - {"scale"} == {"heavy tails"}


def test_a_collapsed_direction_is_told_its_place():
    findings = judge_codes(np.c_[normal(12, 400, 2), np.full(400, 3.0)])
    assert "their mean there is 3 standard deviations of the prior off" in findings[0].text


def test_holes_do_not_hide_a_scale():
    """Of most codes in one place half of the prior is missing."""
    z = np.r_[np.zeros((120, 2)), normal(13, 80, 2)]
    assert {"scale", "holes"} <= names(judge_codes(z))


def test_what_so_few_codes_do_not_tell_is_said():
    findings = {finding.name: finding.text for finding in judge_codes(0.79 * normal(14, 60, 2))}
    assert "a difference that is not measurable in 60 codes like these" in findings["scale"]
    assert "60 codes in 2 dimensions are too few to show one" in findings["holes"]


@pytest.mark.parametrize("is_inside", [slab, ball, disc])
def test_a_hole_is_found_and_no_other_thing(is_inside):
    z = normal(5, 2000)
    z = z[~is_inside(z)][:N]
    findings = judge_codes(0.7 * z, prior_std=0.7)
    assert names(findings) == {"holes"}, findings
    assert findings[0].level == "fault"


def test_without_a_hole_the_smallest_one_is_told():
    findings = {finding.name: finding for finding in judge_codes(normal(6))}
    holes = findings["holes"]
    assert holes.effect is not None
    assert 0.02 < holes.effect < 0.1
    assert f"in 4 dimensions could have shown holds {100 * holes.effect:.2g}%" in holes.text


def test_a_scale_of_a_few_per_cent_in_many_dimensions_is_scale():
    assert names(judge_codes(0.96 * normal(7, 500, 32))) == {"scale"}
