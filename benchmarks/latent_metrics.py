"""Time every metric of the latent space on 10,000 codes of 128 dimensions.

    python benchmarks/latent_metrics.py [--codes 10000] [--dims 128] [--repeats 3]

Medians of whole calls, the first one (which compiles) apart; memory is the growth of the process's
peak over all calls. The classifier test is timed too but not part of the sum. Writes
benchmarks/results/latent_metrics.json.
"""

import argparse
import resource
import statistics
import time

import jax.numpy as jnp
import numpy as np
from common import describe_machine, write_results

from avae_jax import density, metrics

APART = ("c2st",)


def calls(z, centers):
    """Return name -> function without arguments."""
    d = z.shape[1]
    bandwidth = density.find_bandwidth(d, len(centers))
    mix = jnp.asarray(np.random.default_rng(2).standard_normal((d, 784)) / np.sqrt(d), jnp.float32)

    def decode(codes):
        return jnp.tanh(codes @ mix)

    return {
        "code_moments": lambda: metrics.code_moments(z),
        "radial_ks": lambda: metrics.radial_ks(z),
        "kde_kl": lambda: metrics.kde_kl(z, centers, bandwidth=bandwidth.h_corr),
        "whitened_entropy": lambda: metrics.whitened_entropy(z, h_opt=bandwidth.h_opt),
        "sliced_w2": lambda: metrics.sliced_w2(z),
        "max_sliced_w2": lambda: metrics.max_sliced_w2(z),
        "mmd_rbf": lambda: metrics.mmd(z, kernel="rbf"),
        "mmd_imq": lambda: metrics.mmd(z, kernel="imq"),
        "energy_distance": lambda: metrics.energy_distance(z),
        "knn_kl": lambda: metrics.knn_kl(z),
        "mardia": lambda: metrics.mardia(z),
        "henze_zirkler": lambda: metrics.henze_zirkler(z),
        "total_correlation": lambda: metrics.total_correlation(z),
        "dimension_kl": lambda: metrics.dimension_kl(z),
        "active_units": lambda: metrics.active_units(z),
        "relevance": lambda: metrics.relevance(decode, z),
        "prior_coverage": lambda: metrics.prior_coverage(z),
        "far_prior_share": lambda: metrics.far_prior_share(z),
        "hole_points": lambda: metrics.hole_points(z),
        "departures": lambda: metrics.departures(z),
        "c2st": lambda: metrics.c2st(z),
    }


def main() -> None:
    """Time all of them and print a line each."""
    parser = argparse.ArgumentParser(
        description="Time every metric of the latent space on 10,000 codes of 128 dimensions."
    )
    parser.add_argument("--codes", type=int, default=10_000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    wanted = parser.parse_args()
    rng = np.random.default_rng(1)
    z, centers = rng.standard_normal((2, wanted.codes, wanted.dims))
    rows = []
    made = calls(z, centers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, call in made.items():
        seconds = []
        for _ in range(wanted.repeats + 1):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        row = {"name": name, "first_s": seconds[0], "median_s": statistics.median(seconds[1:])}
        rows.append(row)
        print(f"{name:<18} {row['median_s']:6.2f} s, first {row['first_s']:6.2f} s", flush=True)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    together = [row for row in rows if row["name"] not in APART]
    total, first = (sum(row[key] for row in together) for key in ("median_s", "first_s"))
    print(f"together, without {', '.join(APART)}: {total:.1f} s, first calls {first:.1f} s")
    print(f"peak memory grew by {growth / 2**20:.0f} MiB")
    write_results(
        "latent_metrics",
        {
            "machine": describe_machine("scipy", "scikit-learn"),
            "codes": wanted.codes,
            "dims": wanted.dims,
            "total_s": total,
            "total_first_s": first,
            "not_in_total": list(APART),
            "peak_growth_bytes": growth,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
