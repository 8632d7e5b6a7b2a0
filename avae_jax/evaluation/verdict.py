"""What the numbers of an evaluation mean, in words."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from avae_jax.checks import check_positive
from avae_jax.metrics.checks import check_codes
from avae_jax.metrics.departures import COLLAPSED_SHARE, FOUND, departures

Level = Literal["fault", "notice", "good"]

# The decoder ignores a direction below this share of what the mean direction moves.
IGNORED_SHARE = 0.01

# Relative differences of the codes' scale from the sampler's: named, and named a fault. Of uneven
# codes the median direction's is taken, which is less sure.
SCALE_NOTICE, SCALE_FAULT, UNEVEN_SCALE_NOTICE = 0.02, 0.2, 0.1

# The relative difference that holes are taken to explain at most.
MOST_BY_HOLES = 0.1

# How far the width of a direction is from the median one's, as a logarithm.
UNEVEN_NOTICE, UNEVEN_FAULT = 0.08, 0.5

# The largest correlation of two directions, and the root mean square one times
# sqrt(latent_dim - 1): how much they pile up where all are alike.
CORRELATION_NOTICE, CORRELATION_FAULT = 0.05, 0.5

# Distances of the mean from the center, in the prior's standard deviations.
LOCATION_NOTICE, LOCATION_FAULT = 0.1, 0.8

# The share of the prior that is missing in the disc, slab or ball found, which the hole holds.
# A ball that light tails do not explain is larger.
HOLE_NOTICE, HOLE_FAULT, BALL_OF_LIGHT_TAILS = 0.002, 0.01, 0.12

# The spread of the squared radius relative to the prior's: as good as constant, and named at all.
SHELL_SPREAD, SPREAD_NOTICE = 0.5, 0.05

# The mean kurtosis of the axes, 3 for a Gaussian: a difference, and what light tails have; and that
# of an axis with two peaks, where the others need more.
KURTOSIS_NOTICE, LIGHT_KURTOSIS, CLUSTER_KURTOSIS = 0.1, 2.7, 2.6

# Standard deviations of a valley between two peaks, and where other axes are as the prior's; how
# much farther than in the prior the next code is midway between two, to be named and to be a fault;
# `E[(x^2 - 1) y]` of two axes.
VALLEY, LONE_VALLEY, MIDWAY, MIDWAY_FAULT, BEND = 4.0, 1.5, 1.05, 1.25, 0.3

# Dimensions up to which discs are looked for in all planes of two axes.
MOST_DIMS_SEARCHED = 11

# Standard deviations from which on the largest of many third moments counts, and a number that has
# no name for what is wrong.
UNNAMED = 6.0

# The share of the prior's draws that may lie far from all codes (by chance 0.01), and that may have
# no code in their neighborhood beyond what chance gives.
FAR_SHARE, UNCOVERED_NOTICE, UNCOVERED_FAULT = 0.1, 0.05, 0.12

# The largest sliced distance of a prior that is no Gaussian, relative to its null; and nats of KL.
SHAPE_EXCESS, KL_NOTICE = 1.5, 0.25

# Fewer codes per dimension have collapsed directions by chance.
LEAST_CODES_A_DIMENSION, LEAST_CODES = 2, 20

_NULLED = ("", "_null", "_null_std")


class Finding(NamedTuple):
    """One sentence of the verdict.

    Attributes:
      name: what it is about: "location", "scale", "anisotropy", "correlation", "collapse" (of the
        codes), "unused" (directions that carry nothing), "heavy tails", "outliers", "light tails",
        "shell", "clusters", "holes" or "shape"; of a run also "reconstruction", "overfitting" and
        "samples".
      level: "fault" when samples of the prior suffer from it, "notice" when it can be measured, and
        "good".
      text: the sentence.
      effect: how large it is; None where one number does not say it.
      unit: of the effect.
      zscore: by how many standard deviations it is beyond its null; None where it has none.
    """

    name: str
    level: Level
    text: str
    effect: float | None = None
    unit: str = ""
    zscore: float | None = None


def judge_codes(z, *, prior_std: float = 1.0, seed: int = 0) -> list[Finding]:
    """Say whether codes match the prior N(0, prior_std^2 I), from the codes alone.

    Args:
      z: `[n, latent_dim]` codes.
      prior_std: of the prior.
      seed: of the prior's draws.

    Returns:
      As `judge`, without what needs a decoder or other codes.

    Raises:
      ValueError: wrong shape, values that are not finite, or `prior_std` not positive.

    Example:
      >>> import numpy as np
      >>> z = np.random.default_rng(1).standard_normal((400, 2))
      >>> [finding.name for finding in judge_codes(1.5 * z) if finding.level != "good"]
      ['scale']
    """
    z = check_codes(z) / check_positive("prior_std", prior_std)
    n, d = z.shape
    if is_too_few(n, d):
        return judge({"scale": {"n": n, "dims": d}})
    sections = departures(z, seed=seed).sections
    collapse = {"dims": d, "num_collapsed": d - sections["scale"]["live_dims"]}
    sections["scale"]["claimed"] = prior_std
    return judge({**sections, "collapse": collapse})


def judge(latent: Mapping[str, Any]) -> list[Finding]:
    """Say whether the codes match the prior, or what is wrong with them.

    Every rule asks for an effect that is both larger than chance (beyond its simulated null by
    `FOUND` standard deviations) and large enough to matter; p-values alone reject everything at
    10,000 codes. What another finding explains is not said again.

    Args:
      latent: the "latent" section of a summary, as `describe_codes` makes it.

    Returns:
      At least one finding, the gravest first.
    """
    scale = latent["scale"]
    if is_too_few(scale["n"], scale["dims"]):
        least = max(LEAST_CODES, LEAST_CODES_A_DIMENSION * scale["dims"])
        text = (
            f"too few codes: {scale['n']} in {scale['dims']} dimensions say little about scale, "
            f"collapse or holes; give at least {least}"
        )
        return [Finding("shape", "notice", text)]
    holes = _holes(latent["holes"], latent["shape"])
    collapse = _collapse(latent["collapse"], scale.get("collapsed_shift", 0.0))
    findings = [*_place(scale, latent["shape"], holes), *collapse, *holes]
    shape = _shape(latent["shape"], holes)
    if not shape and all(finding.level == "good" for finding in findings):
        shape = _density(latent.get("density", {}))
    if not shape and latent["shape"]:
        shape = [Finding("shape", "good", "shape: the codes look like draws of the prior")]
    return sorted([*findings, *shape], key=lambda found: get_args(Level).index(found.level))


def is_too_few(n: int, d: int) -> bool:
    """Return whether codes are fewer than what a verdict needs."""
    return n < max(LEAST_CODES, LEAST_CODES_A_DIMENSION * d)


_ADJECTIVES = {
    "location": "off center",
    "scale": "wrongly scaled",
    "anisotropy": "wrongly scaled in some directions",
    "correlation": "correlated",
    "collapse": "partly collapsed",
    "clusters": "clustered",
    "shell": "on a shell",
    "holes": "holed",
}


def headline(findings: list[Finding]) -> str:
    """Return the verdict in one sentence."""
    faults = [finding.name for finding in findings if finding.level == "fault"]
    what = [_ADJECTIVES[name] for name in faults if name in _ADJECTIVES]
    if what:
        listed = what[0] if len(what) == 1 else f"{', '.join(what[:-1])} and {what[-1]}"
        said = f"The codes do not match the prior: they are {listed}."
        return said + (" Part of the latent space is unused." if "unused" in faults else "")
    if "unused" in faults:
        return "The codes match the prior, but part of the latent space is collapsed and unused."
    if any(finding.level == "notice" for finding in findings):
        return "The codes match the prior, but for what is noted below."
    return "The codes match the prior."


def _beyond(section: Mapping[str, Any], name: str) -> float:
    """Return how large a number is beyond its null, of those that add up in squares."""
    value, null = section.get(name, math.nan), section.get(f"{name}_null", math.nan)
    return math.sqrt(max(value**2 - null**2, 0.0)) if value == value else 0.0


def _z(section: Mapping[str, Any], name: str) -> float:
    value = section.get(f"{name}_zscore", math.nan)
    return 0.0 if math.isnan(value) else value


def _graver(effect: float, fault: float) -> Level:
    return "fault" if effect > fault else "notice"


def _place(
    scale: Mapping[str, Any], shape: Mapping[str, Any], holes: list[Finding]
) -> list[Finding]:
    """Judge the mean, the width, and how both differ between directions."""
    if not scale["live_dims"]:
        return []
    found = []
    shift = _beyond(scale, "shift")
    zscore = max(_z(scale, "shift_statistic"), _z(scale, "largest_shift_statistic"))
    if shift > LOCATION_NOTICE and zscore > FOUND:
        text = (
            f"location: the mean of the codes lies {shift:.2g} standard deviations of the prior "
            "from its center"
        )
        level = _graver(shift, LOCATION_FAULT)
        found.append(Finding("location", level, text, shift, "standard deviations", zscore))
    uneven = _anisotropy(scale)
    # The squared radius of heavy tails varies more, and a width from it is less sure.
    spread = shape.get("radius_spread", 1.0) / shape.get("radius_spread_null", 1.0)
    widths = _scale(scale, max(spread, 1.0), bool(uneven), holes)
    return [*found, *widths, *uneven, *_correlation(scale)]


def _scale(
    scale: Mapping[str, Any], spread: float, uneven: bool, holes: list[Finding]
) -> list[Finding]:
    plain = math.log(scale["width"])
    trimmed = math.log(scale["width_trimmed"] / scale["width_trimmed_null"])
    # A few codes far out, or heavy tails, widen one of the two: it takes both.
    zscore, off = _z(scale, "width"), plain
    if trimmed * math.copysign(1.0, plain) < 0.5 * abs(plain):
        zscore, off = _z(scale, "width_trimmed"), trimmed
        if plain * trimmed <= 0.0 or abs(plain) < 0.5 * abs(trimmed):
            zscore, off = 0.0, min(plain, trimmed, key=abs)
    zscore /= spread
    # A hole changes the width of what is left by about what is missing, where that is little.
    missing = sum(hole.effect or 0.0 for hole in holes if hole.level != "good")
    least = SCALE_NOTICE + min(missing, MOST_BY_HOLES)
    if uneven:
        off, least = math.log(scale["axis_width_median"]), UNEVEN_SCALE_NOTICE
        zscore = off * math.sqrt(2.0 * scale["n"] * scale["live_dims"]) / 1.25
    ratio, claimed = math.exp(off), scale.get("claimed", 1.0)
    if abs(zscore) > FOUND and abs(off) > math.log1p(least):
        said = (
            f"the codes are {ratio:.2f} times as wide as the prior (standard deviation "
            f"{ratio * claimed:.3g}, the prior's {claimed:.3g})"
        )
        effect = math.expm1(abs(off))
        if effect > SCALE_FAULT:
            text = f"wrong scale: {said}; train on"
            return [Finding("scale", "fault", text, ratio, "times the prior", zscore)]
        return [Finding("scale", "notice", f"scale: {said}", ratio, "times the prior", zscore)]
    if uneven:
        return []
    text = f"scale: {ratio:.3f} times the prior's"
    if abs(off) > math.log1p(SCALE_NOTICE):
        text = (
            f"scale: {ratio:.2f} times the prior's, a difference that is not measurable in "
            f"{scale['n']:,} codes like these"
        )
    return [Finding("scale", "good", text, ratio, "times the prior", zscore)]


def _anisotropy(scale: Mapping[str, Any]) -> list[Finding]:
    # Between two directions each is half of their difference from the middle.
    effect = _beyond(scale, "largest_unevenness")
    zscore = max(_z(scale, "unevenness_test"), _z(scale, "largest_unevenness_test"))
    if zscore <= FOUND or effect <= UNEVEN_NOTICE:
        return []
    text = (
        f"directions of the codes are {scale['axis_width_min']:.2f} to "
        f"{scale['axis_width_max']:.2f} times as wide as the prior"
    )
    level = _graver(effect, UNEVEN_FAULT)
    if level == "fault":
        text = f"wrong scale: {text}; train on"
    else:
        text = f"anisotropy: {text}"
    unit = "of the logarithm of a width"
    return [Finding("anisotropy", level, text, effect, unit, zscore)]


def _correlation(scale: Mapping[str, Any]) -> list[Finding]:
    largest = _beyond(scale, "largest_correlation")
    mean = _beyond(scale, "correlation")
    zscore = max(_z(scale, "correlation_test"), _z(scale, "largest_correlation_test"))
    if zscore <= FOUND or largest <= CORRELATION_NOTICE:
        return []
    text = (
        f"correlation: two directions of the codes are correlated by "
        f"{scale['largest_correlation']:.2f}, all by {mean:.2g} in the root mean square"
    )
    effect = max(largest, mean * math.sqrt(scale["live_dims"] - 1.0))
    level = _graver(effect, CORRELATION_FAULT)
    return [Finding("correlation", level, text, largest, "correlation", zscore)]


def _collapse(collapse: Mapping[str, Any], shift: float) -> list[Finding]:
    dims, empty = collapse["dims"], collapse["num_collapsed"]
    unused = collapse.get("num_collapsed_means", 0)
    threshold = f"below {100 * COLLAPSED_SHARE:g}% of the prior's"
    found = []
    if empty:
        text = (
            f"collapse: the codes have next to no variance in {empty} of {dims} directions "
            f"({threshold}), where draws of the prior lie away from all codes"
        )
        if shift > LOCATION_NOTICE:
            text += f"; their mean there is {shift:.2g} standard deviations of the prior off"
        found.append(Finding("collapse", "fault", text))
    if unused > empty:
        text = (
            f"posterior collapse: in {unused} of {dims} directions the means of the codes hardly "
            f"vary from image to image ({threshold}); they carry nothing about the image"
        )
        found.append(Finding("unused", "fault", text))
    if found:
        return found
    ignored = collapse.get("num_ignored", 0)
    if ignored:
        text = (
            f"collapse: {ignored} of {dims} directions of the codes hardly reach the pixels (each "
            f"under {100 * IGNORED_SHARE:g}% of the mean direction's share)"
        )
        return [Finding("unused", "notice", text)]
    return [Finding("collapse", "good", f"collapse: none, all {dims} directions are in use")]


def _holes(holes: Mapping[str, Any], shape: Mapping[str, Any]) -> list[Finding]:
    if not holes:
        return []
    if "slab_evidence" not in holes:
        return _uncovered(holes)
    n, kinds = holes["n"], []
    # Where the axes have another law than the prior's, thin places of it are no holes.
    other = _z(shape, "axis_kurtosis") > FOUND or shape["axis_kurtosis"] < LIGHT_KURTOSIS
    least = HOLE_FAULT if other else HOLE_NOTICE
    # On a shell, where all codes are equally far out, every region but the shell is empty.
    if not _is_shell(shape):
        for kind, where in (
            ("disc", "a disc of one plane"), ("slab", "a slab across one direction"),
            ("ball", "a ball at the center"),
        ):  # fmt: skip
            share, zscore = holes.get(f"{kind}_share", 0.0), _z(holes, f"{kind}_evidence")
            if kind == "ball":
                # Light tails thin out the center as well, but do not empty much of the prior.
                is_light = shape["axis_kurtosis"] < LIGHT_KURTOSIS
                needed = BALL_OF_LIGHT_TAILS if is_light else HOLE_NOTICE
            else:
                needed = least
            if zscore > FOUND and share > needed:
                kinds.append((share, zscore, kind, where))
    if kinds:
        share, zscore, kind, where = max(kinds)
        text = (
            f"holes: {where} of the latent space that should hold "
            f"{n * holes[f'{kind}_mass']:.0f} of {n:,} codes holds {holes[f'{kind}_count']}"
        )
        level = _graver(share, HOLE_FAULT)
        return [Finding("holes", level, text, share, "of the prior", zscore)]
    if _is_shell(shape):
        # No region was looked at.
        return []
    smallest = holes.get("smallest_share", math.nan)
    what = "disc in a plane of two axes" if shape["dims"] > 1 else "gap"
    codes = f"{n:,} codes in {shape['dims']} dimensions"
    if math.isnan(smallest):
        return [Finding("holes", "good", f"holes: none found; {codes} are too few to show one")]
    # Of many pairs of axes the search looks at some alone, which may miss a disc of this size.
    least = "at least " if shape["dims"] > MOST_DIMS_SEARCHED else ""
    text = (
        f"holes: none found; the smallest {what} that {codes} could have shown holds "
        f"{least}{100 * smallest:.2g}% of the prior"
    )
    return [Finding("holes", "good", text, smallest, "of the prior")]


def _uncovered(holes: Mapping[str, Any]) -> list[Finding]:
    """Judge by draws of the prior, where it is no Gaussian and regions have no known mass."""
    found, noticed = [], []
    far, _, spread = (holes.get(f"far_prior_share{end}", math.nan) for end in _NULLED)
    if holes.get("far_prior_share_is_meaningful") and far > FAR_SHARE + 4.0 * spread:
        found.append(f"{100 * far:.0f}% of the prior's draws lie far from all codes")
    coverage, null, spread = (holes.get(f"prior_coverage{end}", math.nan) for end in _NULLED)
    bare = null - coverage
    if bare > max(UNCOVERED_NOTICE, 5.0 * spread):
        text = f"{100 * bare:.0f}% more of the prior than by chance has no code in its surroundings"
        (found if bare > UNCOVERED_FAULT else noticed).append(text)
    if found or noticed:
        level = "fault" if found else "notice"
        return [Finding("holes", level, "holes: " + "; ".join([*found, *noticed]))]
    if math.isnan(coverage) and math.isnan(far):
        return []
    return [Finding("holes", "good", "holes: none found")]


def _is_shell(shape: Mapping[str, Any]) -> bool:
    if shape.get("dims", 1) < 2 or _z(shape, "radius_spread") >= -FOUND:
        return False
    return shape["radius_spread"] < SHELL_SPREAD * shape["radius_spread_null"]


def _shape(shape: Mapping[str, Any], holes: list[Finding]) -> list[Finding]:
    """Name what location, scale and dependence do not explain."""
    if "whitened_max_sliced_w2" in shape:
        return _sliced(shape)
    if not shape:
        return []
    z = {
        name.removesuffix("_zscore"): _z(shape, name.removesuffix("_zscore"))
        for name in shape
        if name.endswith("_zscore")
    }
    spread = shape["radius_spread"] / shape["radius_spread_null"]
    told = "the squared radius of the codes"
    if _is_shell(shape):
        text = f"shell: {told} varies {spread:.2g} times as much as the prior's"
        return [Finding("shell", "fault", text, spread, "times the prior", z["radius_spread"])]
    found = _clusters(shape, z) or _bend(shape, z)
    if found:
        return found
    kurtosis = shape["axis_kurtosis"]
    heavy = z["radius_spread"] > FOUND and spread > 1.0 + SPREAD_NOTICE
    if heavy or (z["axis_kurtosis"] > FOUND and kurtosis > 3.0 + KURTOSIS_NOTICE):
        name = "outliers" if shape.get("outlier_log_odds", -1.0) > 0.0 else "heavy tails"
        text = (
            f"{name}: {told} varies {spread:.2g} times as much as the prior's, the mean kurtosis "
            f"of the axes is {kurtosis:.2g} (3)"
        )
        zscore = max(z["radius_spread"], z["axis_kurtosis"])
        found.append(Finding(name, "notice", text, spread, "times the prior", zscore))
    holed = any(hole.level != "good" for hole in holes)
    if found or holed:
        return found
    light = z["radius_spread"] < -FOUND and spread < 1.0 - SPREAD_NOTICE
    if light or (z["axis_kurtosis"] < -FOUND and kurtosis < 3.0 - KURTOSIS_NOTICE):
        text = (
            f"light tails: {told} varies {spread:.2g} times as much as the prior's, the mean "
            f"kurtosis of the axes is {kurtosis:.2g} (3), as in a cube or a ball"
        )
        zscore = min(z["radius_spread"], z["axis_kurtosis"])
        return [Finding("light tails", "notice", text, spread, "times the prior", zscore)]
    return _other(shape, z)


def _clusters(shape: Mapping[str, Any], z: Mapping[str, float]) -> list[Finding]:
    ratio = math.exp(shape["midway_log_ratio"] - shape["midway_log_ratio_null"])
    # Codes with one long tail crowd at its other end: midway there are fewer without any valley.
    is_skew = z["skewness_test"] > UNNAMED and shape["skewness"] > BEND
    is_tailed = is_skew and shape["axis_kurtosis"] > 3.0 + KURTOSIS_NOTICE
    is_parted = not is_tailed or shape["largest_valley"] > LONE_VALLEY
    if z["midway_log_ratio"] > FOUND and ratio > MIDWAY and is_parted:
        text = (
            f"clusters: midway between two codes the next one is {ratio:.2g} times as far as it "
            "would be in the prior"
        )
        unit = "times the prior"
        level = _graver(ratio, MIDWAY_FAULT)
        return [Finding("clusters", level, text, ratio, unit, z["midway_log_ratio"])]
    for name, valley in (("least_axis_kurtosis", "valley"), ("least_own_kurtosis", "own_valley")):
        kurtosis = shape.get(name, 3.0)
        least = LONE_VALLEY if shape["other_axis_kurtosis"] > CLUSTER_KURTOSIS else VALLEY
        if z.get(name, 0.0) < -FOUND and kurtosis < CLUSTER_KURTOSIS and shape[valley] > least:
            text = (
                f"clusters: along one direction the codes have two peaks (kurtosis {kurtosis:.2g}, "
                "3 in the prior)"
            )
            return [Finding("clusters", "fault", text, kurtosis, "kurtosis", z[name])]
    return []


def _bend(shape: Mapping[str, Any], z: Mapping[str, float]) -> list[Finding]:
    for name, what in (
        ("bend", "one direction bends over another"),
        ("skewness", "an axis is skew"),
    ):
        value = shape.get(name, 0.0)
        zscore = max(z.get(f"{name}{end}", 0.0) for end in ("_test", "_along_test"))
        if zscore > UNNAMED and value > BEND:
            text = f"shape: {what} (third moment {value:.2g}, 0 in the prior)"
            return [Finding("shape", "notice", text, value, "third moment", zscore)]
    return []


_OTHERS = {
    "skewness_test": "an axis is skew",
    "bend_test": "one direction bends over another",
    "bend_along_test": "one direction bends over another",
    "largest_fourth_moment": "one direction widens another",
    "fourth_moments": "directions widen each other",
    "slab_evidence": "an axis has a gap",
    "largest_axis_kurtosis": "an axis has heavy tails",
    "least_axis_kurtosis": "an axis has light tails",
    "least_own_kurtosis": "a direction has light tails",
    "log_neighbor_distance": "neighbors are nearer than in the prior",
    "midway_log_ratio": "codes are rarer midway between codes than in the prior",
}
_LOW = ("log_neighbor_distance", "least_axis_kurtosis", "least_own_kurtosis")


def _other(shape: Mapping[str, Any], z: Mapping[str, float]) -> list[Finding]:
    """Name what has no other name."""
    beyond = {name: z.get(name, 0.0) * (-1.0 if name in _LOW else 1.0) for name in _OTHERS}
    name = max(beyond, key=lambda name: beyond[name])
    if beyond[name] <= UNNAMED:
        return []
    text = f"shape: the codes differ from the prior: {_OTHERS[name]}"
    effect = shape[name] - shape[f"{name}_null"]
    return [Finding("shape", "notice", text, effect, name.replace("_", " "), z[name])]


def _sliced(shape: Mapping[str, Any]) -> list[Finding]:
    ratio = shape["whitened_max_sliced_w2"] / shape["whitened_max_sliced_w2_null"]
    zscore = (shape["whitened_max_sliced_w2"] - shape["whitened_max_sliced_w2_null"]) / shape[
        "whitened_max_sliced_w2_null_std"
    ]
    if zscore <= FOUND or ratio <= SHAPE_EXCESS:
        return []
    text = (
        f"shape: rescaled, the codes are {ratio:.1f} times as far from the prior as its own draws "
        "are"
    )
    return [Finding("shape", "notice", text, ratio, "times the null", zscore)]


def _density(density: Mapping[str, Any]) -> list[Finding]:
    excess, error = (density.get(f"kl_excess_nats{end}", 0.0) for end in ("", "_stderr"))
    if abs(excess) <= max(KL_NOTICE, 5.0 * error):
        return []
    side = "above" if excess > 0.0 else "below"
    text = f"shape: the KL of the codes is {abs(excess):.2g} nats {side} that of the prior's draws"
    return [Finding("shape", "notice", text, excess, "nats", excess / max(error, 1e-12))]
