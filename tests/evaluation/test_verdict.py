"""What is said about known failures of synthetic codes, and that chance is not called a fault."""

import copy

import pytest

from avae_jax.evaluation.verdict import headline, judge

GOOD = {
    "scale": {
        "n": 2000, "claimed": 0.8, "dims": 8, "live_dims": 8, "live_std_ratio": 1.01,
        "shift": 0.07, "shift_null": 0.063, "unevenness": 0.02, "unevenness_null": 0.015,
        "live_std_min": 0.97, "live_std_max": 1.04,
    },
    "collapse": {"dims": 8, "num_collapsed": 0, "num_collapsed_means": 0, "num_ignored": 0},
    "holes": {
        "n": 2000, "plane_num_cells": 48, "plane_min_fill": 0.6, "plane_min_fill_null": 0.55,
        "plane_min_fill_null_std": 0.05, "plane_max_chi2": 90.0, "plane_max_chi2_null": 95.0,
        "plane_max_chi2_null_std": 8.0, "far_prior_share": 0.012, "far_prior_share_null_std": 0.002,
        "far_prior_share_is_meaningful": 1.0, "plane_min_fill_rescaled": 0.6,
        "plane_min_fill_rescaled_null": 0.55, "plane_min_fill_rescaled_null_std": 0.05,
        "prior_coverage": 0.965, "prior_coverage_null": 0.969, "prior_coverage_null_std": 0.004,
    },
    "density": {"kl_excess_nats": 0.05, "kl_excess_nats_stderr": 0.02},
    "shape": {
        "whitened_max_sliced_w2": 0.05, "whitened_max_sliced_w2_null": 0.05,
        "whitened_radial_ks": 0.02, "whitened_radial_ks_null": 0.02,
    },
}  # fmt: skip


def judged(**changes):
    latent = copy.deepcopy(GOOD)
    for path, value in changes.items():
        section, _, name = path.partition("__")
        latent[section][name] = value
    return judge(latent)


def faults(findings):
    return [finding.name for finding in findings if finding.level == "fault"]


def test_codes_like_the_prior_are_called_so():
    findings = judged()
    assert {finding.level for finding in findings} == {"good"}
    assert headline(findings) == "The codes match the prior."


@pytest.mark.parametrize(
    ("changes", "name", "word"),
    [
        ({"scale__live_std_ratio": 1.5}, "scale", "wrongly scaled"),
        ({"scale__live_std_ratio": 0.6}, "scale", "wrongly scaled"),
        ({"scale__shift": 1.4}, "location", "off center"),
        ({"scale__unevenness": 0.6}, "scale", "wrongly scaled"),
        ({"collapse__num_collapsed": 2, "collapse__num_collapsed_means": 2}, "collapse", "partly"),
        ({"holes__plane_min_fill_rescaled": 0.05}, "holes", "holed"),
        ({"holes__prior_coverage": 0.7}, "holes", "holed"),
        ({"collapse__num_collapsed_means": 2}, "unused", "but part of the latent space"),
        ({"holes__plane_min_fill": 0.05}, "holes", "holed"),
        ({"holes__far_prior_share": 0.3}, "holes", "holed"),
    ],
)
def test_each_failure_is_named_alone(changes, name, word):
    findings = judged(**changes)
    assert faults(findings) == [name]
    assert findings[0].name == name
    assert word in headline(findings)


def test_several_failures_are_named_together():
    findings = judged(scale__live_std_ratio=2.0, collapse__num_collapsed=1)
    assert faults(findings) == ["scale", "collapse"]
    assert headline(findings).endswith("they are wrongly scaled and partly collapsed.")


@pytest.mark.parametrize(
    "changes",
    [
        {"scale__live_std_ratio": 1.1},
        {"scale__shift": 0.5},
        {"collapse__num_ignored": 3},
        {"holes__plane_max_chi2": 300.0},
        {"holes__prior_coverage": 0.9},
        {"scale__unevenness": 0.25},
        {"shape__whitened_max_sliced_w2": 0.4},
        {"density__kl_excess_nats": 0.6},
    ],
)
def test_what_can_be_measured_but_hardly_matters_is_a_notice(changes):
    findings = judged(**changes)
    assert [finding.level for finding in findings].count("notice") == 1
    assert faults(findings) == []
    assert "but for what is noted" in headline(findings)


def test_narrow_directions_are_not_called_holes():
    narrow = {"holes__plane_min_fill_rescaled": 0.0, "scale__unevenness": 0.6}
    assert faults(judged(**narrow)) == ["scale"]


def test_fewer_codes_than_dimensions_are_not_judged():
    findings = judged(scale__dims=128, scale__n=200, collapse__num_collapsed=40)
    assert [finding.level for finding in findings] == ["notice"]
    assert "too few codes: 200 in 128 dimensions" in findings[0].text


def test_a_mean_off_centre_shows_in_many_dimensions():
    many = {"scale__dims": 128, "scale__n": 359, "scale__shift_null": 0.597}
    assert faults(judged(scale__shift=1.16, **many)) == ["location"]
    assert faults(judged(scale__shift=0.6, **many)) == []


def test_few_codes_cannot_show_a_wrong_scale():
    few = {"scale__n": 8, "scale__dims": 1, "scale__live_dims": 1, "scale__shift_null": 0.35}
    assert faults(judged(scale__live_std_ratio=1.9, **few)) == []
    assert faults(judged(scale__live_std_ratio=1.9)) == ["scale"]


def test_an_empty_cell_expected_by_chance_is_no_hole():
    by_chance = {"holes__plane_min_fill_null": 0.2, "holes__plane_min_fill_null_std": 0.08}
    assert faults(judged(holes__plane_min_fill=0.05, **by_chance)) == []


def test_far_draws_mean_nothing_in_many_dimensions():
    far = {"holes__far_prior_share": 0.5}
    assert faults(judged(holes__far_prior_share_is_meaningful=0.0, **far)) == []
    assert faults(judged(**far)) == ["holes"]


def test_what_is_not_defined_is_not_judged():
    nothing = dict.fromkeys(
        ("holes__plane_min_fill", "holes__plane_max_chi2", "holes__far_prior_share"), float("nan")
    )
    names = [finding.name for finding in judged(**nothing, scale__live_std_ratio=float("nan"))]
    assert "holes" not in names
    assert "scale" not in names
