"""What `avae evaluate` prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avae_jax.evaluation import html
from avae_jax.evaluation.compare import compare, comparison_page, comparison_table
from avae_jax.evaluation.evaluate import REPORT_FILE, SUMMARY_FILE
from avae_jax.training.table import format_summary


def print_evaluation(summary: Mapping[str, Any], folder: Path) -> None:
    """Print the numbers that matter most, the verdict and where the rest is."""
    latent = summary["latent"]
    shown = {
        "reconstruction": _plain(summary["reconstruction"], ("mse", "psnr", "ssim")),
        "density": _plain(latent["density"], ("kde_kl", "kde_kl_log10", "whitened_entropy")),
        "moments": _plain(
            latent["moments"], ("std", "moment_kl", "radial_ks", "eig_min", "eig_max")
        ),
        "distances": _plain(
            latent["distances"],
            ("sliced_w2", "max_sliced_w2", "mmd_rbf", "energy_distance", "knn_kl", "c2st_auc"),
        ),
        "holes": _plain(latent["holes"], ("prior_coverage", "far_prior_share", "plane_max_chi2")),
        "likelihood": _likelihood(summary["likelihood"]),
        "samples of the claimed prior (null: training images)": _samples(summary["samples"]),
    }
    if isinstance(summary["disentanglement"], Mapping):
        scores = summary["disentanglement"]
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
        f"{about['seconds']:.0f} s; look at {folder / REPORT_FILE}, {folder / SUMMARY_FILE}",
        flush=True,
    )


def print_comparison(summaries: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Print several runs side by side and write the page that compares them."""
    columns, rows = compare(summaries)
    print("\n" + comparison_table(columns, rows))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.html"
    html.write_text(path, comparison_page(summaries))
    print(f"\nside by side: {path}", flush=True)


def _plain(section: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    kept = {}
    for name in names:
        if name in section:
            kept[name] = section[name]
            if f"{name}_null" in section:
                kept[f"{name}_null"] = section[f"{name}_null"]
    return kept


def _likelihood(section: Mapping[str, Any] | str) -> dict[str, Any]:
    if isinstance(section, str):
        return {}
    surgery = _plain(section["surgery"], ("elbo", "mutual_information", "marginal_kl"))
    return {**surgery, "iwae": section["bound"]["iwae"]}


def _samples(samples: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for space, section in samples.items():
        if isinstance(section, str):
            shown[space] = section
        elif space in section.get("claimed", {}):
            shown[space] = section["claimed"][space]
            shown[f"{space}_null"] = section["floor"][space]
    return shown
