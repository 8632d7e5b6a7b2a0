"""How good the decoded draws of a prior are, beside the floor that real images give."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from avae_jax import metrics
from avae_jax.evaluation.material import Material, sampled_by, thinned
from avae_jax.metrics.feature_likelihood import fit_stand_ins
from avae_jax.metrics.nulls import NUM_NULL
from avae_jax.priors import FullGaussian, Prior, StandardNormal, is_standard
from avae_jax.text import number

NOT_COMPUTED = "not computed: give the Inception weights as --inception-weights FILE"


# The subsets of the published KID; of fewer images all would be one and the same.
_KID_SUBSET = 1000

# Images behind the feature likelihood, whose fit takes 50 passes over all pairs of them.
_FLD_SAMPLES, _FLD_TRAIN = 2000, 4000


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """A way to turn images in [0, 1] into features.

    Attributes:
      name: of the Frechet distance taken in it: "FID", "FD-lenet-digits", "FD-pca50".
      extract: images `[n, ...]` in [0, 1] -> `[n, num_features]`.
      about: what makes the numbers comparable: a hash, a resize mode, an accuracy.
      has_directions: whether a network is meant to be compared by the angle between its features
        alone, as CLIP is: by CMMD.
    """

    name: str
    extract: Callable[[np.ndarray], np.ndarray]
    about: Mapping[str, Any]
    has_directions: bool = False


def pixel_features(material: Material) -> FeatureSpace:
    """Return the 50 largest principal components of the training images' pixels."""
    train = _flat(material.to_unit(material.x_train))
    most = min(50, train.shape[1], len(train) - 1)
    pca = metrics.fit_pca(train, num_components=most)
    return FeatureSpace(
        f"FD-pca{most}",
        lambda x: np.asarray(pca.transform(_flat(x))),
        {"features": f"{most} principal components of {len(train):,} training images"},
    )


def draw_codes(
    material: Material, num_samples: int, *, quick: bool = False
) -> dict[str, np.ndarray]:
    """Draw codes from several distributions, to be decoded to samples.

    Args:
      material: what is evaluated.
      num_samples: how many of each.
      quick: whether to leave out what takes a fit.

    Returns:
      name -> codes `[num_samples, latent_dim]`, those first that the method samples by. "claimed":
      the run's own prior, where the method aims its codes at one; "standard_normal": N(0, I), where
      that is no prior or another Gaussian; "gaussian": mean and covariance of the training codes;
      "mixture_10": ten Gaussians fitted to them. With the paper's protocol the first alone.
      Gaussians share their noise.
    """
    run, seed, own = material.run, material.seed, sampled_by(material.run)
    prior, standard = run.prior(), StandardNormal(run.method.latent_dim)
    priors: dict[str, Prior] = {"gaussian": FullGaussian.of_moments(*material.train_moments())}
    if own == "claimed":
        priors = {"claimed": prior, **priors}
        if prior.is_gaussian and not is_standard(prior):
            priors["standard_normal"] = standard
    else:
        priors["standard_normal"] = standard
    if material.protocol == "paper":
        priors = {own: priors[own]}
    key = jax.random.key(seed + 10)
    codes = {name: np.asarray(p.sample(key, num_samples)) for name, p in priors.items()}
    if material.protocol == "standard" and not quick:
        codes["mixture_10"] = _mixture_draws(material.z_train.astype(np.float64), num_samples, seed)
    return codes


def rms_multiples(material: Material, codes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return how wide each set of draws is beside the codes of the images evaluated.

    The root mean square of draws about their mean over that of the codes about theirs. Draws wider
    than the codes decode to crisper images and can lower a Frechet distance by that alone.

    Args:
      material: what is evaluated.
      codes: name -> draws `[n, latent_dim]`.

    Returns:
      name -> a number > 0; NaN where the codes are all equal.
    """
    own = _rms(material.z)
    return {name: _rms(z) / own if own else math.nan for name, z in codes.items()}


def _rms(z: np.ndarray) -> float:
    return math.sqrt(z.astype(np.float64).var(axis=0).mean())


def _mixture_draws(z: np.ndarray, num_samples: int, seed: int) -> np.ndarray:
    from sklearn.mixture import GaussianMixture

    # Full covariances, which the prior `Mixture` does not have. A singular one has no density.
    ridge = 1e-6 * max(float(z.var()), 1e-12)
    mixture = GaussianMixture(min(10, len(z)), reg_covar=ridge, random_state=seed, max_iter=200)
    with warnings.catch_warnings():
        # Stopped at its limit of steps it is a mixture all the same.
        warnings.simplefilter("ignore")
        mixture.fit(z)
    draws = np.asarray(mixture.sample(num_samples)[0])
    return draws[np.random.default_rng(seed).permutation(num_samples)]


def describe_samples(
    material: Material,
    spaces: list[FeatureSpace],
    samples: Mapping[str, np.ndarray],
    say,
    *,
    multiples: Mapping[str, float],
    brief: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare decoded draws with real images in every feature space.

    Args:
      material: what is evaluated.
      spaces: the feature spaces.
      samples: name -> the decoded draws of `draw_codes`, images in the decoder's range.
      say: receives a line of progress.
      multiples: name -> how wide the draws are, as `rms_multiples` returns it.
      brief: whether to measure Frechet distance, precision and recall alone.

    Returns:
      (numbers, curves): `numbers[space][prior]`, "rms_multiple" among them, with the floor
      (training images in place of samples) under "floor"; `curves[prior]` the (precision, recall)
      curve in the last space.

    Nulls that take repetitions are those of the floor, beside every prior: real images alone, the
    training's and the split's, dealt out at random.
    """
    real = material.to_unit(material.x)
    train = material.to_unit(material.x_train)
    most = min(len(real), len(train), *(len(x) for x in samples.values()))
    real = thinned(real, most)
    groups = {"floor": thinned(train, most)}
    groups |= {name: _as_shown(material, x[:most]) for name, x in samples.items()}
    # The paper's 20 clusters, fewer where they would hold single images.
    num_clusters = max(2, min(20, most // 2))
    numbers: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for space in spaces:
        say(f"samples in {space.name}")
        reference = space.extract(real)
        section: dict[str, Any] = {"n": most, **space.about}
        if brief:
            floor = None
            for name, images in groups.items():
                found = _compare_briefly(
                    space, space.extract(images), reference, material.seed, floor
                )
                section[name], floor = found, floor or found
            numbers[space.name] = section
            continue
        some = space.extract(thinned(train, _FLD_TRAIN))
        likelihood = _feature_likelihood(some, reference, material.seed)
        for name, images in groups.items():
            features = space.extract(images)
            curve = metrics.prd_curve(
                features, reference, num_clusters=num_clusters, seed=material.seed
            )
            null = section.get("floor")
            section[name] = {
                **_compare(space, features, reference, material.seed, null),
                **_prd(curve, features, reference, num_clusters, material.seed, null),
            }
            if null is not None:
                section[name] |= likelihood(features)
            label = "floor: training images" if name == "floor" else name.replace("_", " ")
            curves[label] = (curve.precision, curve.recall)
        numbers[space.name] = section
    if not any(space.name == "FID" for space in spaces) and material.is_images:
        numbers["FID"] = NOT_COMPUTED
    if not brief:
        say("samples in pixels")
        numbers["pixels"] = _pixels(material, groups, real, train)
    for section in numbers.values():
        for name in samples if isinstance(section, dict) else ():
            section[name]["rms_multiple"] = multiples[name]
    return numbers, curves


def advise_samples(numbers: Mapping[str, Any]) -> str:
    """Say where a Gaussian with the codes' mean and covariance gives better samples than the prior.

    Args:
      numbers: as `describe_samples` returns them.

    Returns:
      A sentence where it does in every feature space, by the Frechet distance; else nothing.
    """
    scores = [
        (space, *(section[name][space] for name in ("gaussian", "claimed", "floor")))
        for space, section in numbers.items()
        if isinstance(section, Mapping)
        and all(space in section.get(name, {}) for name in ("gaussian", "claimed"))
    ]
    if not scores or any(own >= claimed for _, own, claimed, _ in scores):
        return ""
    said = ", ".join(
        f"{space} {number(own)} against {number(claimed)}, training images {number(floor)}"
        for space, own, claimed, floor in scores
    )
    return f"samples: those of --scale covariance are nearer to the data than the prior's ({said})"


def _feature_likelihood(train, test, seed: int) -> Callable[[np.ndarray], dict[str, float]]:
    """Return the judge of samples by their likelihood; of training images it would say copies."""

    def judge(features):
        features = thinned(features, _FLD_SAMPLES)
        found = metrics.feature_likelihood(
            features, train, test, stand_ins=stand_ins(len(features)), seed=seed
        )
        return found | {"fld_num_samples": len(features)}

    @functools.cache
    def stand_ins(num_centers):
        return fit_stand_ins(train, test, num_centers=num_centers, seed=seed)

    return judge


def _compare_briefly(
    space: FeatureSpace, features, reference, seed: int, floor
) -> dict[str, float]:
    """Return what is compared between methods: of `_compare`, the cheap part."""
    n, name = len(reference), space.name
    num_null = NUM_NULL if floor is None else 0
    found = metrics.frechet_distance(features, reference, num_null=num_null, seed=seed)
    values = {key.replace("frechet_distance", name): value for key, value in found.items()}
    values |= metrics.precision_recall(features, reference, k=3 if n > 3 else n - 1)
    return values | _nulls_of(floor, name)


def _compare(space: FeatureSpace, features, reference, seed: int, floor) -> dict[str, float]:
    n, name = len(reference), space.name
    options = {"num_null": NUM_NULL if floor is None else 0, "seed": seed}
    found = metrics.frechet_distance(features, reference, **options)
    found |= metrics.frechet_infinity(features, reference, seed=seed)
    values = {
        key.replace("frechet_distance", name).replace("frechet_infinity", f"{name}_infinity"): value
        for key, value in found.items()
    }
    values |= metrics.polynomial_mmd(features, reference)
    if n > _KID_SUBSET:
        values |= metrics.kid(features, reference, seed=seed, subset_size=_KID_SUBSET)
    values |= metrics.precision_recall(features, reference, k=3 if n > 3 else n - 1)
    if n > 2:
        # Five neighbors, as published; of a handful of images as many as there are.
        k = min(5, n - 2)
        values |= metrics.clipped_density_coverage(features, reference, k=k, **options)
    values |= metrics.vendi_score(features, reference, **options)
    if space.has_directions:
        values |= metrics.cmmd(features, reference)
    return values | _nulls_of(floor, name, "clipped_density", "clipped_coverage", "vendi")


def _prd(curve, features, reference, num_clusters: int, seed: int, floor) -> dict[str, float]:
    if floor is None:
        return metrics.prd(features, reference, num_clusters=num_clusters, seed=seed)
    return metrics.prd_scores(curve) | _nulls_of(floor, "prd_f8", "prd_f1_8")


def _nulls_of(floor: Mapping[str, float] | None, *names: str) -> dict[str, float]:
    """Return mean and deviation of the floor's nulls, for what is judged by them."""
    keys = [f"{name}{end}" for name in names for end in ("_null", "_null_std")]
    return {key: floor[key] for key in keys if floor is not None and key in floor}


def _pixels(material: Material, groups, real, train) -> dict[str, Any]:
    flat = _flat(real)
    values: dict[str, Any] = {"n": len(flat)}
    for name, images in groups.items():
        floor = values.get("floor")
        num_null = NUM_NULL if floor is None else 0
        entry = metrics.sliced_w2(
            _flat(images), reference=flat, num_null=num_null, seed=material.seed
        )
        entry |= _nulls_of(floor, "sliced_w2")
        if name != "floor":
            entry |= metrics.memorisation(_flat(images), _flat(train), flat)
        values[name] = entry
    return values


def _as_shown(material: Material, x: np.ndarray) -> np.ndarray:
    """Return samples in [0, 1], cut to 8 bits by the paper's protocol."""
    x = material.to_unit(x)
    if material.protocol == "paper" and material.value_range is not None:
        # The authors truncate and do not round.
        return (255.0 * x).astype(np.uint8).astype(np.float32) / np.float32(255.0)
    return x


def _flat(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(len(x), -1)
