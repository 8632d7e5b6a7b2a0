"""The evaluation of a run: numbers with their nulls, a verdict in words, one page to read."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from avae_jax import metrics
from avae_jax.checks import check_choice, check_count
from avae_jax.data import ImageData
from avae_jax.evaluation import html, pictures
from avae_jax.evaluation.disentangled import Factors, describe_disentanglement
from avae_jax.evaluation.fit import USELESS, judge_fit
from avae_jax.evaluation.latent import LatentArrays, describe_codes
from avae_jax.evaluation.likelihood import describe_likelihood
from avae_jax.evaluation.material import Material, Protocol, Split, describe, gather
from avae_jax.evaluation.parts import Part, Parts, forget_parts
from avae_jax.evaluation.record import (
    SUMMARY_FILE,
    describe_training,
    keep,
    keep_figures,
    keep_moments,
    metrics_of,
)
from avae_jax.evaluation.samples import (
    FeatureSpace,
    advise_samples,
    describe_samples,
    draw_codes,
    pixel_features,
    rms_multiples,
)
from avae_jax.evaluation.verdict import Finding, Level, headline, judge
from avae_jax.files import check_folder, user_path, write_atomically
from avae_jax.priors import PriorUnits
from avae_jax.training.run import Run, load_run
from avae_jax.training.writers import strict_json

# Decoded draws that a picture shows, and what their names begin with beside other arrays.
_SHOWN, _OF_SAMPLES = 36, "samples: "


# What is said first of codes that nothing pulls to a prior.
_AIMLESS = (
    "The method aims its codes at no prior: samples are drawn from a Gaussian with their mean and "
    "covariance, and what follows says how far they are from N(0, I)."
)

NUM_IMAGES = 10_000
"""The most images of a split that are used, where nothing else is asked for."""


def evaluate_run(
    run: str | os.PathLike | Run,
    *,
    quick: bool = False,
    brief: bool = False,
    dataset: ImageData | None = None,
    protocol: Protocol = "standard",
    split: Split | None = None,
    num_images: int = NUM_IMAGES,
    num_samples: int = 10_000,
    seed: int = 0,
    inception_weights: str | os.PathLike | None = None,
    classifier: str | os.PathLike | None = None,
    iwae_samples: int = 500,
    features: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    factors: Factors = "scores",
    output: str | os.PathLike | None = None,
    keep_parts: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Evaluate a trained model on images it has never seen and write what is found.

    Unless `quick`, each part is kept as soon as it is known: the same call after one that was
    stopped goes on from there.

    Args:
      run: a run folder, or a run that was loaded.
      quick: whether to measure only what takes seconds: reconstruction, the codes as far as the
        verdict needs them. It is what a training ends with, and leaves in the run folder
        `summary.json`, `figures/*.png`, TensorBoard images, and the moments of the training codes
        that `Run.prior("measured")` reads. A number it has is the one of the whole evaluation.
      brief: whether to leave out what methods are not compared by: of codes distances from the
        prior, tests of normality and dependence; of samples all but Frechet distances, precision
        and recall; all figures but samples and reconstructions; the page. The moments of the
        training codes are left in the run folder as by `quick`.
      dataset: the images of the run where its configuration does not name them.
      protocol: "standard" or "paper" (the authors' choices).
      split: "validation" for what models are chosen by, so that test images are not; None is the
        protocol's, "test" of the standard one.
      num_images: the most images of a split to use.
      num_samples: the most decoded draws of a prior to use.
      seed: of every draw.
      inception_weights: file of the Inception weights for FID and KID in its features.
      classifier: file of a classifier that `avae classifier` wrote, for features of the data set.
      iwae_samples: draws per image for the importance-weighted bound, for stochastic encoders.
      features: further networks to compare images by, by name, each a function from images
        `[n, height, width, channels]` in [0, 1] to `[n, num_features]`: "DINOv2" gives FD-DINOv2
        and, with the other numbers of a feature space, CMMD.
      factors: for data with known factors: "scores" encodes most of their grid and computes the
        disentanglement scores, "dci" adds DCI, which trains a classifier per factor, "none" skips.
      output: folder to write `summary.json`, the page `report.html` and some of its figures to;
        None is `RUN/evaluation`, with `quick` the run folder and no page.
      keep_parts: whether to leave, as a stopped evaluation does, what the same evaluation would go
        on from, for a caller who has others to do.
      say: receives a line of progress.

    Returns:
      The summary that `summary.json` holds: "about", "verdict", "training", "reconstruction",
      "latent", and unless `quick` "likelihood", "samples", "disentanglement". Values that are not
      defined are NaN here and null in the file.

    Raises:
      ValueError: no run folder, images that were trained on, features that do not fit.
    """
    start = time.monotonic()
    check_options(
        num_images=num_images, num_samples=num_samples, iwae_samples=iwae_samples, factors=factors
    )
    check_count("seed", seed, minimum=0)
    if not isinstance(run, Run):
        run = load_run(run)
    # What the run's folder keeps is of its best model and of as many images as there are.
    whole = run.which == "best" and num_images == NUM_IMAGES
    own = output is None and quick and whole and split is None
    if output is None:
        output = run.path if own else run.path / "evaluation"
    folder = user_path(output)
    check_folder(folder, name="output")
    # Files are read before the work that needs them at its end.
    spaces = file_spaces(inception_weights, classifier)
    if quick and features:
        raise ValueError(
            f"features must be left out with quick=True, got {', '.join(features)}: samples are "
            "compared by the whole evaluation, quick=False"
        )
    for name, extract in (features or {}).items():
        about = {"features": f"{name}, the caller's"}
        spaces.append(FeatureSpace(f"FD-{name}", extract, about, has_directions=True))
    say(f"encoding {run.path}")
    material = gather(
        run, dataset, protocol=protocol, split=split, num_images=num_images, seed=seed
    )
    kinds = _check_fit(spaces, material)

    about = describe(material)
    if not quick:
        num_samples = min(num_samples, len(material.index), len(material.train_index))
        about["num_samples"] = num_samples
        spaces.append(pixel_features(material))
    parts = Parts(
        folder,
        {
            **about,
            # A run that was moved is the same run.
            "folder": None,
            "iwae_samples": iwae_samples,
            "factors": factors,
            "brief": brief,
            "spaces": [[space.name, dict(space.about)] for space in spaces],
            # A caller's net is known by what it makes of two images.
            "kinds": kinds,
        },
        say,
    )

    def part(name, make):
        return make() if quick else parts.get(name, make)

    latent, kept = part("latent", lambda: _latent(material, say, quick=quick, brief=brief))
    arrays = LatentArrays.of(kept, PriorUnits.of(run.prior(), seed=seed))
    say("reconstructions")
    reconstruction = {"n": len(material.x), **_reconstruction(material)}
    fit = judge_fit(reconstruction, metrics_of(run), step=run.step)
    useless = [USELESS] if any(finding.level == "fault" for finding in fit) else []
    findings = _gravest_first([*fit, *judge(latent)])
    aimless = [_AIMLESS] if about["sampled_by"] != "claimed" else []
    verdict: dict[str, Any] = {"headline": " ".join([*useless, *aimless, headline(findings)])}
    summary: dict[str, Any] = {
        "about": about,
        "verdict": verdict,
        "training": describe_training(run),
        "reconstruction": reconstruction,
        "latent": latent,
    }
    if quick:
        say("figures")
        codes = draw_codes(material, _SHOWN, quick=True)
        samples = {name: run.decode(z) for name, z in codes.items()}
        drawn = pictures.draw_quick(material, arrays, samples)
        if own:
            keep(material, samples, [picture for group in drawn.values() for picture in group])
    else:
        summary["likelihood"], _ = part(
            "likelihood",
            lambda: (describe_likelihood(material, say, num_samples=iwae_samples), {}),
        )
        summary["samples"], kept = part(
            "samples", lambda: _samples(material, spaces, num_samples, say, brief=brief)
        )
        samples, curves = _split_samples(kept)
        advice = advise_samples(summary["samples"])
        if advice:
            findings = _gravest_first([*findings, Finding("samples", "notice", advice)])
        summary["disentanglement"], directions = part(
            "disentanglement", lambda: describe_disentanglement(material, say, factors=factors)
        )
        if brief and whole:
            keep_moments(material)
        say("figures")
        drawn = (
            pictures.draw_images(material, samples)
            if brief
            else pictures.draw(material, arrays, samples, curves, directions)
        )
    verdict["findings"] = [finding._asdict() for finding in findings]
    summary["about"]["seconds"] = round(time.monotonic() - start, 1)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / SUMMARY_FILE, strict_json(summary))
    if not quick:
        keep_figures(folder, [picture for group in drawn.values() for picture in group])
        if not brief:
            write_atomically(folder / "report.html", _page(summary, findings, drawn))
        if not keep_parts:
            forget_parts(folder)
    return summary


def _gravest_first(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: get_args(Level).index(finding.level))


def _latent(material: Material, say, *, quick: bool, brief: bool) -> Part:
    numbers, arrays = describe_codes(material, say, quick=quick, brief=brief)
    return numbers, arrays.kept()


def _samples(
    material: Material, spaces: list[FeatureSpace], num_samples: int, say, *, brief: bool
) -> Part:
    """Return the numbers of the samples, those that are shown, and their curves."""
    say("decoding draws of the prior")
    codes = draw_codes(material, num_samples, quick=brief)
    samples = {name: material.run.decode(z) for name, z in codes.items()}
    numbers, curves = describe_samples(
        material, spaces, samples, say, multiples=rms_multiples(material, codes), brief=brief
    )
    shown = {f"{_OF_SAMPLES}{name}": x[:_SHOWN] for name, x in samples.items()}
    return numbers, shown | {name: np.stack(curve) for name, curve in curves.items()}


def _split_samples(kept) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the samples and the curves of what `_samples` gives."""
    samples = {
        name.removeprefix(_OF_SAMPLES): x
        for name, x in kept.items()
        if name.startswith(_OF_SAMPLES)
    }
    return samples, {name: x for name, x in kept.items() if not name.startswith(_OF_SAMPLES)}


def check_options(
    *, num_images: int, num_samples: int, iwae_samples: int, factors: Factors
) -> None:
    """Refuse options that no run can be evaluated with; see `evaluate_run`."""
    check_count("num_images", num_images, minimum=20)
    check_count("num_samples", num_samples, minimum=20)
    check_count("iwae_samples", iwae_samples, minimum=1)
    check_choice("factors", factors, get_args(Factors))


def file_spaces(
    inception_weights: str | os.PathLike | None, classifier: str | os.PathLike | None
) -> list[FeatureSpace]:
    """Return the feature spaces of the files that are given; see `evaluate_run`."""
    spaces = []
    if classifier is not None:
        from avae_jax.features import load_classifier

        net = load_classifier(classifier)
        about = {"classifier_hash": net.hash[:16], "classifier_test_accuracy": net.test_accuracy}
        spaces.append(FeatureSpace(f"FD-{net.name}", net.features, about))
    if inception_weights is not None:
        from avae_jax.features import inception_features, load_inception_weights

        weights = load_inception_weights(inception_weights)
        about = {"weights_sha256": weights.params_sha256[:16], "resize": weights.resize}
        spaces.append(FeatureSpace("FID", lambda x: inception_features(x, weights), about))
    return spaces


def _check_fit(spaces: list[FeatureSpace], material: Material) -> list[str]:
    """Refuse features that do not fit the data before minutes of work.

    Returns:
      A hash of what each space makes of two images.
    """
    if spaces and not (material.is_images and material.value_range):
        what = "have no bounds" if material.is_images else "are no images"
        raise ValueError(
            f"the data of {material.run.path} {what}: leave classifier, inception_weights and "
            "features out"
        )
    hashes = []
    for space in spaces:
        found = np.asarray(space.extract(material.to_unit(material.x[:2])))
        if found.ndim != 2 or len(found) != 2:
            raise ValueError(
                f"features must give [n, num_features] for n images, {space.name} gives "
                f"{list(found.shape)} for 2: flatten what it returns to a row an image"
            )
        hashes.append(hashlib.sha256(found.tobytes()).hexdigest()[:16])
    return hashes


def _reconstruction(material: Material) -> dict[str, float]:
    x, x_recon, value_range = material.x, material.x_recon, material.value_range
    values = metrics.reconstruction_error(x, x_recon, value_range=value_range)
    if material.is_images and value_range is not None:
        values |= metrics.structural_similarity(x, x_recon, value_range=value_range)
    return values


# Name in the summary -> heading on the page and how to read it.
_SECTIONS = {
    "training": ("Training", "What the run reported last, of the epoch it ended with."),
    "reconstruction": (
        "Reconstruction",
        "mse per pixel in [0, 1]; sse summed over an image in its own units; psnr in dB; ssim 1 "
        "for equal images.",
    ),
    "latent": (
        "Latent space",
        "In units of the prior, where its mean is 0 and its covariance I, but for the density and "
        "the active units. moment kl means: of posterior means, which stand still in directions "
        "that are not used; kde kl: held out, nats; tail share: codes beyond the reach of the "
        "centers; knn kl detects rather than measures in many dimensions; far prior share and "
        "Henze-Zirkler mean little where their flag is 0; relevant directions carry 99% of the "
        "decoder's response; zscore: standard deviations beyond the null, from 5 on no chance. "
        "disc, slab, ball share: what the emptiest disc of a plane, slab across a direction and "
        "ball at the center lack, as a share of the prior; evidence: nats for that gap against "
        "chance; smallest share: the smallest hole that so many codes could have shown.",
    ),
    "likelihood": (
        "Likelihood and ELBO surgery",
        "q(z) is the mixture over all images evaluated: over a minibatch of B the mutual "
        "information is bounded by log B.",
    ),
    "samples": (
        "Samples",
        "Floor: training images in place of samples; the nulls are of real images dealt out at "
        "random. FD, polynomial mmd (over all pairs of images) and kid (the same on subsets of "
        "1,000, where there are more): 0 is best; fld: hundredths of a nat per feature, high for "
        "copies too, whose gap is far below its null; vendi: effective number of different images; "
        "auth pct: samples that are no near copies, in per cent; precision, recall and the others: "
        "1 is best. "
        "rms multiple: how wide the draws are beside the codes, 1 is best; wider ones decode to "
        "crisper images, and their lower FD says less. "
        "copying z below -3 says that samples copy training images, above 3 that they are farther "
        "from them than test images are.",
    ),
    "disentanglement": (
        "Disentanglement",
        "null: noise codes; ceiling: the factors themselves as codes. along: in directions found "
        "with labels, on other draws than those scored.",
    ),
    "about": ("Where the numbers come from", ""),
}


def _page(summary: Mapping[str, Any], findings: list[Finding], drawn) -> str:
    about = summary["about"]
    sections = []
    for name, (heading, note) in _SECTIONS.items():
        numbers = summary[name]
        computed = isinstance(numbers, Mapping)
        sections.append(html.Section(heading, note, numbers) if computed else
                        html.Section(heading, numbers, {}))  # fmt: skip
    return html.make_page(
        title=f"{about['experiment']}: {about['method']} evaluated",
        about=f"{about['method']} on {about['dataset']}, {about['latent_dim']} latent dimensions, "
        f"step {about['checkpoint_step']:,}; {about['num_images']:,} {about['split']} images, "
        f"{about['num_samples']:,} samples, seed {about['seed']}, protocol {about['protocol']}",
        headline=summary["verdict"]["headline"],
        findings=findings,
        cards=_cards(summary),
        pictures=drawn,
        sections=sections,
    )


def _cards(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the numbers that matter most: what, value, what to compare it with."""
    density, collapse = summary["latent"]["density"], summary["latent"]["collapse"]
    name, unit = ("kde_kl", "nats") if "kde_kl" in density else ("kde_kl_log10", "base 10")
    mse, mse_null = (summary["reconstruction"][f"mse{end}"] for end in ("", "_null"))
    used = f"{collapse['dims'] - collapse['num_collapsed_means']} of {collapse['dims']}"
    compared = [
        ("Reconstruction error", mse, "mean image", mse_null),
        (f"KL to the prior (KDE), {unit}", density[name], "null", density[f"{name}_null"]),
        ("Directions in use", used, "of the latent space", ""),
    ]
    own = summary["about"]["sampled_by"]
    for space, section in summary["samples"].items():
        if isinstance(section, Mapping) and space in section.get(own, {}):
            width = html.number(section[own]["rms_multiple"])
            what = f"{space}, draws {width} times as wide as the codes"
            compared.append((what, section[own][space], "real images", section["floor"][space]))
    return [
        (what, html.number(value), f"{beside} {html.number(null)}".strip())
        for what, value, beside, null in compared
    ]
