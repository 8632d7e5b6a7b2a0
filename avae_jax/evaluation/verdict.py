"""What the numbers of an evaluation mean, in words."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

Level = Literal["fault", "notice", "good"]

# A direction is collapsed below this share of the prior's variance, a fifth of its standard
# deviation: draws of the prior lie five times as far out as the codes.
COLLAPSED_SHARE = 0.04

# The decoder ignores a direction below this share of what the mean direction moves.
IGNORED_SHARE = 0.01

# Relative differences of the codes' scale from the sampler's: named, and named a fault.
SCALE_NOTICE, SCALE_FAULT = 0.05, 0.2

# The same for how much directions differ from each other: spread of the log standard deviations.
UNEVEN_NOTICE, UNEVEN_FAULT = 0.15, 0.4

# Distances of the mean from the center, in the prior's standard deviations.
LOCATION_NOTICE, LOCATION_FAULT = 0.3, 0.8

# A cell of a plane is empty below this share of the codes the prior would put there.
EMPTY_SHARE = 0.15

# The share of the prior's draws that may lie far from all codes (by chance 0.01), and that may have
# no code in their neighbourhood beyond what chance gives.
FAR_SHARE, UNCOVERED_NOTICE, UNCOVERED_FAULT = 0.1, 0.05, 0.12

# The shape's distance from a Gaussian beyond its null, relative to the null; and nats of KL.
SHAPE_EXCESS, KL_NOTICE = 3.0, 0.25

# Fewer codes per dimension have collapsed directions by chance.
LEAST_CODES_A_DIMENSION = 2

_NULLED = ("", "_null", "_null_std")


class Finding(NamedTuple):
    """One sentence of the verdict.

    Attributes:
      name: what it is about: "location", "scale", "collapse" (of the codes), "unused"
        (directions that carry nothing), "holes" or "shape".
      level: "fault" when samples of the prior suffer from it, "notice" when it can be measured, and
        "good".
      text: the sentence.
    """

    name: str
    level: Level
    text: str


def judge(latent: Mapping[str, Any]) -> list[Finding]:
    """Say whether the codes match the prior, are scaled wrongly, collapsed or have holes.

    Every rule asks for an effect that is both larger than chance (beyond its null by several
    standard deviations) and large enough to matter; p-values alone reject everything at 10,000
    codes.

    Args:
      latent: the "latent" section of a summary, as `describe_codes` makes it.

    Returns:
      At least one finding, the gravest first.
    """
    scale, collapse = latent["scale"], latent["collapse"]
    if scale["n"] < LEAST_CODES_A_DIMENSION * scale["dims"]:
        text = (
            f"too few codes: {scale['n']} in {scale['dims']} dimensions say little about scale, "
            f"collapse or holes; give at least {LEAST_CODES_A_DIMENSION * scale['dims']}"
        )
        return [Finding("shape", "notice", text)]
    findings = [*_location(scale), *_scale(scale), *_collapse(collapse)]
    # Codes that are narrow in some direction leave cells empty without having holes.
    even = all(finding.level != "fault" for finding in findings if finding.name != "unused")
    findings += [*_holes(latent["holes"], even), *_shape(latent["shape"], latent["density"])]
    return sorted(findings, key=lambda finding: get_args(Level).index(finding.level))


_ADJECTIVES = {
    "location": "off center",
    "scale": "wrongly scaled",
    "collapse": "partly collapsed",
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


def _location(scale: Mapping[str, Any]) -> list[Finding]:
    # |mean|^2 of n draws is chi-square over n.
    null, spread = scale["shift_null"] ** 2, math.sqrt(2.0 * scale["dims"]) / scale["n"]
    shift = math.sqrt(max(scale["shift"] ** 2 - null, 0.0))
    if shift < LOCATION_NOTICE or scale["shift"] ** 2 < null + 5.0 * spread:
        return []
    text = (
        f"location: the mean of the codes lies {shift:.2g} standard deviations of the prior from "
        "its center"
    )
    return [Finding("location", "fault" if shift > LOCATION_FAULT else "notice", text)]


def _scale(scale: Mapping[str, Any]) -> list[Finding]:
    ratio, num_codes, dims = scale["live_std_ratio"], scale["n"], max(scale["live_dims"], 1)
    if not math.isfinite(ratio):
        return []
    # Standard error of the logarithm of a root mean square over n d normal values.
    chance = 5.0 / math.sqrt(2.0 * num_codes * dims)
    off = abs(math.log(ratio))
    uneven = math.sqrt(max(scale["unevenness"] ** 2 - scale["unevenness_null"] ** 2, 0.0))
    claimed = scale["claimed"]
    said = (
        f"the codes are {ratio:.2f} times as wide as the prior they are sampled from (standard "
        f"deviation {ratio * claimed:.3g}, sampled at {claimed:.3g})"
    )
    apart = (
        f"directions of the codes are {scale['live_std_min']:.2f} to {scale['live_std_max']:.2f} "
        "times as wide as the prior"
    )
    if off > max(math.log1p(SCALE_FAULT), chance):
        text = f"wrong scale: {said}; train on"
        return [Finding("scale", "fault", text)]
    if uneven > UNEVEN_FAULT:
        text = f"wrong scale: {apart}; train on"
        return [Finding("scale", "fault", text)]
    noticed = []
    if off > max(math.log1p(SCALE_NOTICE), chance):
        noticed.append(said)
    if uneven > UNEVEN_NOTICE:
        noticed.append(apart)
    if noticed:
        return [Finding("scale", "notice", "scale: " + "; ".join(noticed))]
    return [Finding("scale", "good", f"scale: within {100 * math.expm1(off):.1f}% of the prior's")]


def _collapse(collapse: Mapping[str, Any]) -> list[Finding]:
    dims, empty, unused = (
        collapse[name] for name in ("dims", "num_collapsed", "num_collapsed_means")
    )
    threshold = f"below {100 * COLLAPSED_SHARE:g}% of the prior's"
    found = []
    if empty:
        text = (
            f"collapse: the codes have next to no variance in {empty} of {dims} directions "
            f"({threshold}), where draws of the prior lie away from all codes"
        )
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


def _holes(holes: Mapping[str, Any], even: bool) -> list[Finding]:
    found, noticed = [], []
    emptiest = []
    for name in ("plane_min_fill", *(("plane_min_fill_rescaled",) if even else ())):
        fill, null, spread = (holes.get(f"{name}{end}", math.nan) for end in _NULLED)
        if fill < EMPTY_SHARE and fill < null - 6.0 * spread:
            emptiest.append(fill)
    if emptiest:
        expected = holes["n"] / holes["plane_num_cells"]
        found.append(
            f"in one plane of the latent space a region that should hold {expected:.0f} of "
            f"{holes['n']:,} codes holds {min(emptiest) * expected:.0f}"
        )
    far, _, spread = (holes.get(f"far_prior_share{end}", math.nan) for end in _NULLED)
    if holes.get("far_prior_share_is_meaningful") and far > FAR_SHARE + 4.0 * spread:
        found.append(f"{100 * far:.0f}% of the prior's draws lie far from all codes")
    coverage, null, spread = (holes.get(f"prior_coverage{end}", math.nan) for end in _NULLED)
    bare = null - coverage
    if bare > max(UNCOVERED_NOTICE, 5.0 * spread):
        text = f"{100 * bare:.0f}% more of the prior than by chance has no code in its surroundings"
        (found if bare > UNCOVERED_FAULT else noticed).append(text)
    if found:
        return [Finding("holes", "fault", "holes: " + "; ".join(found))]
    chi2, null, spread = (holes.get(f"plane_max_chi2{end}", math.nan) for end in _NULLED)
    if chi2 > null + 5.0 * spread:
        noticed.append("in some plane the codes are less even than draws of the prior")
    if noticed:
        return [Finding("holes", "notice", "holes: no empty region, but " + "; ".join(noticed))]
    if math.isnan(chi2) and math.isnan(far):
        return []
    return [Finding("holes", "good", "holes: none found")]


def _shape(shape: Mapping[str, Any], density: Mapping[str, Any]) -> list[Finding]:
    """Judge what location and scale do not explain: clusters, tails, dependence."""
    noticed = []
    ratios = [
        shape[name] / shape[f"{name}_null"]
        for name in ("whitened_max_sliced_w2", "whitened_radial_ks")
        if math.isfinite(shape.get(name, math.nan)) and shape.get(f"{name}_null", 0.0) > 0.0
    ]
    if ratios and max(ratios) > 1.0 + SHAPE_EXCESS:
        noticed.append(
            f"rescaled, the codes are {max(ratios):.1f} times as far from the prior as its own "
            "draws are"
        )
    excess = density["kl_excess_nats"]
    if excess > max(KL_NOTICE, 5.0 * density["kl_excess_nats_stderr"]):
        noticed.append(f"the density of the codes is {excess:.2g} nats from the prior's")
    if noticed:
        return [Finding("shape", "notice", "shape: " + "; ".join(noticed))]
    if not ratios:
        return []
    return [Finding("shape", "good", "shape: rescaled, the codes look like draws of the prior")]
