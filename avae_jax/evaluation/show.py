"""What `avae train` and `avae evaluate` print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avae_jax.evaluation.compare import compare, comparison_page, comparison_table
from avae_jax.files import write_atomically
from avae_jax.training.table import format_summary

_SAMPLED_BY = {"claimed": "the claimed prior", "gaussian": "the codes' mean and covariance"}

# The numbers that are printed, by section, with their unit; the rest is in the summary.
_SHOWN = {
    "reconstruction": ("reconstruction (per pixel of [0, 1]; psnr in dB)", ("mse", "psnr", "ssim")),
    "collapse": ("directions in use (their number)", ("active_units",)),
    "density": ("density (nats)", ("kde_kl", "kde_kl_log10", "whitened_entropy")),
    "moments": (
        "moments (in standard deviations and variances of the prior; kl in nats)",
        ("mean_norm", "std", "eig_min", "eig_max", "moment_kl", "radial_ks"),
    ),
    "distances": (
        "distances (in standard deviations of the prior; kl in nats)",
        ("sliced_w2", "max_sliced_w2", "mmd_rbf", "energy_distance", "knn_kl", "c2st_auc"),
    ),
    "holes": (
        "holes (shares of the prior's mass)",
        ("prior_coverage", "far_prior_share", "disc_share", "smallest_share"),
    ),
    "surgery": ("surgery (nats)", ("elbo", "mutual_information", "marginal_kl")),
    "bound": ("bound (nats)", ("iwae",)),
}


def print_evaluation(summary: Mapping[str, Any], *places: Path) -> None:
    """Print the numbers that matter most, the verdict and where the rest is.

    Args:
      summary: as `evaluate_run` returns it, quick or not.
      *places: what to look at.
    """
    sections = {**summary, **summary["latent"]}
    if isinstance(summary.get("likelihood"), Mapping):
        sections |= summary["likelihood"]
    training = summary["training"]
    facts = ("epochs", "skipped_steps", "images_per_second", "validation")
    heading = "training (nats; reconstruction: squared error per image)"
    shown: dict[str, Any] = {heading: {name: training[name] for name in facts if name in training}}
    for name, (heading, names) in _SHOWN.items():
        shown[heading] = _plain(sections.get(name), names)
    own = summary["about"]["sampled_by"]
    shown[f"samples of {_SAMPLED_BY.get(own, own)} (null: training images)"] = _samples(
        summary.get("samples", {}), own
    )
    scores = summary.get("disentanglement")
    if isinstance(scores, Mapping):
        names = [name.removesuffix("_ceiling") for name in scores if name.endswith("_ceiling")]
        shown["disentanglement (null: noise)"] = _plain(scores, names)
    print(format_summary({name: values for name, values in shown.items() if values}))
    print()
    print(summary["verdict"]["headline"])
    for finding in summary["verdict"]["findings"]:
        print(f"  {finding['level']:<6}  {finding['text']}")
    about = summary["about"]
    print(
        f"\n{about['num_images']:,} {about['split']} images, seed {about['seed']}, "
        f"{about['seconds']:.0f} s; look at {', '.join(map(str, places))}",
        flush=True,
    )


def print_comparison(
    summaries: Sequence[Mapping[str, Any]], folders: Sequence[Path], folder: Path
) -> None:
    """Print several runs side by side and write the page that compares them.

    Args:
      summaries: as `evaluate_run` returns them.
      folders: where it wrote what it found of each.
      folder: where the page is written.
    """
    columns, rows = compare(summaries)
    print("\n" + comparison_table(columns, rows))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.html"
    write_atomically(path, comparison_page(summaries, folders))
    print(f"\nside by side: {path}", flush=True)


def _plain(section: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return some numbers of a section with their nulls; nothing of one that is not computed."""
    if not isinstance(section, Mapping):
        return {}
    kept = [end for name in names for end in (name, f"{name}_null")]
    return {name: section[name] for name in kept if name in section}


def _samples(samples: Mapping[str, Any], own: str) -> dict[str, Any]:
    """Return the distances of the draws the method samples by, and how wide these are."""
    shown: dict[str, Any] = {}
    for space, section in samples.items():
        if isinstance(section, str):
            shown[space] = section
        elif space in section.get(own, {}):
            shown[space] = section[own][space]
            shown[f"{space}_null"] = section["floor"][space]
            shown["rms_multiple"] = section[own]["rms_multiple"]
    return shown
