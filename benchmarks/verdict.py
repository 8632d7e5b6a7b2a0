"""Judge codes of 24 known laws, and count what the verdict calls right, wrong and not at all.

    python benchmarks/verdict.py [--codes 359 2000 10000] [--dims 2 8 16 64] [--seeds 5]

Every set of codes is judged against N(0, I) by `avae_jax.evaluation.verdict.judge_codes`. A law is
named rightly where a name it must have is said and none that it must not. Whether it could be is
decided by its law alone: `z = sqrt(2 n KL(law || prior))` is the signed root of the log-likelihood
ratio that one who knows the law expects. A law has power where that exceeds
`1.28 + sqrt(5^2 + 2 log K)`: what is found in nine sets of ten at five standard deviations when it
may lie in K places, of which one who does not know the law must try all (Bonferroni). What has
less is beyond what n codes can show. Writes benchmarks/results/verdict.json; verdicts that are
there already are not made again.
"""

import argparse
import json
import math
import time
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, describe_machine, write_results, write_whole
from scipy import special, stats

from avae_jax.evaluation.verdict import judge_codes

Sample = Callable[[np.random.Generator, int, int], np.ndarray]

# Draws behind a KL that has no closed form.
_DRAWS = 4000


class Law(NamedTuple):
    """A law of codes.

    Attributes:
      sample: `(generator, n, d)` to codes.
      kl: d to KL(law || N(0, I)), nats.
      expected: names of which one must be said.
      allowed: names that may be said beside it, as they are true too.
      places: d to the logarithm of the number K of places where it may lie.
      prior_std: of the prior, which the codes are judged in units of.
    """

    sample: Sample
    kl: Callable[[int], float]
    expected: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    places: Callable[[int], float] = lambda d: 0.0
    prior_std: float = 1.0


def normal(rng, n, d):
    """Draw from N(0, I)."""
    return rng.standard_normal((n, d))


def scaled(widths: Callable[[int], np.ndarray | float]) -> Sample:
    """Draw Gaussians of given widths by axis."""
    return lambda rng, n, d: normal(rng, n, d) * widths(d)


def gaussian_kl(covariance: np.ndarray) -> float:
    """Return KL(N(0, covariance) || N(0, I))."""
    return 0.5 * float(
        np.trace(covariance) - len(covariance) - np.linalg.slogdet(covariance).logabsdet
    )


def widths_kl(widths) -> Callable[[int], float]:
    """Return the KL of a Gaussian with given widths by axis."""
    return lambda d: gaussian_kl(np.diag(np.broadcast_to(np.square(widths(d)), d)))


def narrow(width: float) -> Callable[[int], np.ndarray]:
    """Return widths of which one is not 1."""
    return lambda d: np.where(np.arange(d) == 0, width, 1.0)


def all_correlated(d: int) -> np.ndarray:
    """Return a correlation matrix of 0.3."""
    return 0.3 + 0.7 * np.eye(d)


def one_correlated(d: int) -> np.ndarray:
    """Return a correlation matrix in which one pair has 0.6."""
    matrix = np.eye(d)
    matrix[0, 1] = matrix[1, 0] = 0.6
    return matrix


def correlated(matrix) -> Sample:
    """Draw Gaussians of a given correlation matrix."""
    return lambda rng, n, d: normal(rng, n, d) @ np.linalg.cholesky(matrix(d)).T


def without(is_inside: Callable[[np.ndarray], np.ndarray]) -> Sample:
    """Draw from N(0, I) outside a region."""

    def sample(rng, n, d):
        rows = []
        while sum(map(len, rows)) < n:
            z = normal(rng, n, d)
            rows.append(z[~is_inside(z)])
        return np.concatenate(rows)[:n]

    return sample


def disc(mass: float, center: float = 0.8) -> Callable[[np.ndarray], np.ndarray]:
    """Return what tells codes in a disc of the first two axes, of a share of N(0, I)."""
    low, high = 0.0, 3.0
    for _ in range(60):
        radius = 0.5 * (low + high)
        found = stats.ncx2.cdf(radius**2, 2, center**2)
        low, high = (radius, high) if found < mass else (low, radius)
    return lambda z: np.hypot(z[:, 0] - center, z[:, 1]) < radius


def rotated(sample: Sample) -> Sample:
    """Rotate codes, each set otherwise."""

    def turn(rng, n, d):
        q = np.linalg.qr(normal(rng, d, d))[0]
        return sample(rng, n, d) @ q

    return turn


def slab(z: np.ndarray) -> np.ndarray:
    """Tell codes in a slab across the first axis, 5% of N(0, I)."""
    return np.abs(special.ndtr(z[:, 0]) - 0.65) < 0.025


def ball(z: np.ndarray) -> np.ndarray:
    """Tell codes in the ball at the origin that holds 5% of N(0, I)."""
    d = z.shape[1]
    return np.sum(np.square(z), axis=1) < 2.0 * special.gammaincinv(0.5 * d, 0.05)


def hole_kl(mass: float) -> Callable[[int], float]:
    """Return the KL of N(0, I) outside a region."""
    return lambda d: -math.log1p(-mass)


def student(rng, n, d):
    """Draw from Student's t with 5 degrees of freedom and unit variance."""
    return normal(rng, n, d) * np.sqrt(3.0 / rng.chisquare(5.0, (n, 1)))


def student_kl(d: int) -> float:
    """Return the KL of `student`, from draws."""
    z = student(np.random.default_rng(0), _DRAWS, d)
    # Annotated, as SciPy's types take a shape for a number.
    shape: Any = 0.6 * np.eye(d)
    log_p = stats.multivariate_t(np.zeros(d), shape, df=5).logpdf(z)
    return float(np.mean(log_p - log_prior(z)))


def laplace(rng, n, d):
    """Draw independent Laplace axes of unit variance."""
    return rng.laplace(scale=math.sqrt(0.5), size=(n, d))


def outliers(rng, n, d):
    """Draw from N(0, I), one code in a hundred five times as far."""
    return normal(rng, n, d) * np.where(rng.random((n, 1)) < 0.01, 5.0, 1.0)


def outliers_kl(d: int) -> float:
    """Return the KL of `outliers`, from draws."""
    rng = np.random.default_rng(0)
    z = outliers(rng, 20 * _DRAWS, d)
    ratio = log_prior(z / 5.0) - d * math.log(5.0) - log_prior(z)
    return float(np.mean(np.logaddexp(math.log(0.99), math.log(0.01) + ratio)))


def cube(rng, n, d):
    """Draw uniformly from the cube of unit variance."""
    return rng.uniform(-math.sqrt(3.0), math.sqrt(3.0), (n, d))


def axis_kl(log_density: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the KL of a law of one axis, by quadrature."""
    x = np.linspace(-12.0, 12.0, 200_001)
    log_p = log_density(x)
    p = np.exp(log_p)
    inside = p > 0.0
    return float(np.sum(p[inside] * (log_p - stats.norm.logpdf(x))[inside]) * (x[1] - x[0]))


def shell(rng, n, d):
    """Draw directions, at the prior's root mean square radius within a hundredth of it."""
    z = normal(rng, n, d)
    length = math.sqrt(d) * (1.0 + 0.01 * rng.standard_normal((n, 1)))
    return z / np.linalg.norm(z, axis=1, keepdims=True) * length


def shell_kl(d: int) -> float:
    """Return the KL of `shell`, from draws of the radius."""
    radius = math.sqrt(d) * (1.0 + 0.01 * np.random.default_rng(0).standard_normal(_DRAWS))
    own = stats.norm.logpdf(radius, math.sqrt(d), 0.01 * math.sqrt(d))
    return float(np.mean(own - stats.chi.logpdf(radius, d)))


def centers_of(d: int) -> np.ndarray:
    """Return the centers of ten clusters."""
    return 0.9 * np.random.default_rng(10).standard_normal((10, d))


def ten_clusters(rng, n, d):
    """Draw from ten Gaussians of width 0.35."""
    return centers_of(d)[rng.integers(0, 10, n)] + 0.35 * normal(rng, n, d)


def ten_clusters_kl(d: int) -> float:
    """Return the KL of `ten_clusters`, from draws."""
    z = ten_clusters(np.random.default_rng(0), _DRAWS, d)
    each = [log_prior((z - c) / 0.35) - d * math.log(0.35) - math.log(10.0) for c in centers_of(d)]
    return float(np.mean(special.logsumexp(each, axis=0) - log_prior(z)))


# Of two clusters at +-AT with this width an axis has unit variance.
_AT, _WIDTH = math.sqrt(0.75), 0.5


def two_clusters(rng, n, d):
    """Draw two clusters along the first axis, of its mean and variance."""
    z = normal(rng, n, d)
    z[:, 0] = _WIDTH * z[:, 0] + _AT * rng.choice([-1.0, 1.0], n)
    return z


def two_clusters_log_density(x: np.ndarray) -> np.ndarray:
    """Return the log density of the first axis of `two_clusters`."""
    sides = [stats.norm.logpdf(x, at, _WIDTH) for at in (-_AT, _AT)]
    return np.logaddexp(*sides) - math.log(2.0)


# How much the first axis bends the second.
_BEND = 0.4


def banana(rng, n, d):
    """Draw a Gaussian whose second axis is bent over the first, at unit variance."""
    z = normal(rng, n, d)
    z[:, 1] = (z[:, 1] + _BEND * (np.square(z[:, 0]) - 1.0)) / math.sqrt(1.0 + 2.0 * _BEND**2)
    return z


def log_prior(z: np.ndarray) -> np.ndarray:
    """Return the log density of N(0, I)."""
    return -0.5 * np.sum(np.square(z), axis=1) - 0.5 * z.shape[1] * math.log(2.0 * math.pi)


def log_pairs(d: int) -> float:
    """Return the logarithm of the number of pairs of axes."""
    return math.log(d * (d - 1) / 2)


def log_axes(d: int) -> float:
    """Return the logarithm of the number of axes."""
    return math.log(d)


# Regions of a plane and of an axis that differ at the size of a hole of 5%.
_LOG_DISCS, _LOG_SLABS = math.log(256), math.log(20)


def log_discs(d: int) -> float:
    """Return the logarithm of the number of discs in planes of two axes."""
    return log_pairs(d) + _LOG_DISCS


def log_rotated_discs(d: int) -> float:
    """Return that in all planes: 2 (d - 2) angles, each of which may be 0.3 off."""
    return 2 * (d - 2) * math.log(1.0 / 0.3) + _LOG_DISCS


def spread_widths(d: int) -> np.ndarray:
    """Return widths of the axes from 0.7 to 1.4."""
    return np.exp(np.linspace(math.log(0.7), math.log(1.4), d))


WIDE = ("anisotropy", "scale", "collapse", "location", "correlation")
LAWS = {
    "the prior": Law(normal, lambda d: 0.0, ()),
    "the prior, std 0.8": Law(scaled(lambda d: 0.8), lambda d: 0.0, (), prior_std=0.8),
    "mean 0.5 off": Law(
        lambda rng, n, d: normal(rng, n, d) + 0.5 * np.eye(d)[0], lambda d: 0.125, ("location",)
    ),
    "scale 0.97": Law(scaled(lambda d: 0.97), widths_kl(lambda d: 0.97), ("scale",)),
    "scale 0.75": Law(scaled(lambda d: 0.75), widths_kl(lambda d: 0.75), ("scale",)),
    "scale 1.25": Law(scaled(lambda d: 1.25), widths_kl(lambda d: 1.25), ("scale",)),
    "one direction at 0.05": Law(scaled(narrow(0.05)), widths_kl(narrow(0.05)), ("collapse",)),
    "one direction at 0.3": Law(
        scaled(narrow(0.3)), widths_kl(narrow(0.3)), ("anisotropy",), ("scale",), log_axes
    ),
    "widths 0.7 to 1.4": Law(
        scaled(spread_widths), widths_kl(spread_widths), ("anisotropy",), ("scale",)
    ),
    "all correlations 0.3": Law(
        correlated(all_correlated), lambda d: gaussian_kl(all_correlated(d)), ("correlation",)
    ),
    "one correlation 0.6": Law(
        correlated(one_correlated),
        lambda d: gaussian_kl(one_correlated(d)),
        ("correlation",),
        places=log_pairs,
    ),
    "t with 5 degrees": Law(student, student_kl, ("heavy tails",)),
    "Laplace axes": Law(
        laplace,
        lambda d: d * axis_kl(lambda x: stats.laplace.logpdf(x, scale=math.sqrt(0.5))),
        ("heavy tails",),
    ),
    "1% five times as far": Law(outliers, outliers_kl, ("outliers",)),
    "cube": Law(
        cube,
        lambda d: d * axis_kl(lambda x: stats.uniform.logpdf(x, -math.sqrt(3), 2 * math.sqrt(3))),
        ("light tails",),
    ),
    "shell": Law(shell, shell_kl, ("shell",)),
    "ten clusters": Law(ten_clusters, ten_clusters_kl, ("clusters",), (*WIDE, "holes", "shape")),
    "two clusters, variance matched": Law(
        two_clusters,
        lambda d: axis_kl(two_clusters_log_density),
        ("clusters",),
        ("shape",),
        log_axes,
    ),
    "disc hole 5%": Law(without(disc(0.05)), hole_kl(0.05), ("holes",), (), log_discs),
    "disc hole 2%": Law(without(disc(0.02)), hole_kl(0.02), ("holes",), (), log_discs),
    "rotated disc hole 5%": Law(
        rotated(without(disc(0.05))), hole_kl(0.05), ("holes",), (), log_rotated_discs
    ),
    "slab hole 5%": Law(
        without(slab), hole_kl(0.05), ("holes",), (), lambda d: log_axes(d) + _LOG_SLABS
    ),
    "ball hole 5%": Law(without(ball), hole_kl(0.05), ("holes",)),
    "banana": Law(
        banana,
        lambda d: 0.5 * math.log(1.0 + 2.0 * _BEND**2),
        ("shape",),
        (),
        lambda d: log_pairs(d) + math.log(2),
    ),
}


def oracle_z(law: Law, n: int, d: int) -> float:
    """Return the signed root of the log-likelihood ratio that one who knows the law expects."""
    return math.sqrt(2.0 * n * max(law.kl(d), 0.0))


def needed_z(law: Law, d: int) -> float:
    """Return the `oracle_z` from which on the verdict should name a law in nine sets of ten."""
    return 1.28 + math.sqrt(25.0 + 2.0 * law.places(d))


def codes_of(name: str, n: int, d: int, seed: int) -> np.ndarray:
    """Draw the codes of a row of the table."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), n, d, seed])
    return LAWS[name].sample(rng, n, d)


def judged(name: str, n: int, d: int, seed: int) -> dict:
    """Return what is said of the codes of a row, with its effect and z-score."""
    law = LAWS[name]
    codes = codes_of(name, n, d, seed)
    start = time.perf_counter()
    findings = judge_codes(codes, prior_std=law.prior_std)
    seconds = time.perf_counter() - start
    said = [
        {"name": f.name, "effect": f.effect, "unit": f.unit, "zscore": f.zscore}
        for f in findings
        if f.level != "good"
    ]
    return {"said": said, "seconds": round(seconds, 3)}


def is_right(law: Law, names: set[str]) -> bool:
    """Return whether what is said names the law, and nothing that it is not."""
    must, may = set(law.expected), {*law.expected, *law.allowed}
    return names <= may and (not must or bool(names & must))


def counted(verdicts: list[dict]) -> list[dict]:
    """Count verdicts by law, number of codes and dimension."""
    cells: dict[tuple, list[dict]] = {}
    for row in verdicts:
        cells.setdefault((row["law"], row["n"], row["d"]), []).append(row)
    rows = []
    for (name, n, d), own in cells.items():
        law = LAWS[name]
        said = [{finding["name"] for finding in row["said"]} for row in own]
        z, needed = oracle_z(law, n, d), needed_z(law, d)
        rows.append(
            {
                "law": name,
                "n": n,
                "d": d,
                "oracle_z": round(z, 2),
                "needed_z": round(needed, 2),
                "has_power": not law.expected or z >= needed,
                "num": len(own),
                "right": sum(is_right(law, names) for names in said),
                # A name that the law does not have, whatever else is said.
                "wrong": sum(not names <= {*law.expected, *law.allowed} for names in said),
                "said": sorted(set().union(*said)),
            }
        )
    return rows


def totals(rows: list[dict]) -> dict:
    """Return the shares that the table is judged by."""
    ideal = [row for row in rows if not LAWS[row["law"]].expected]
    other = [row for row in rows if LAWS[row["law"]].expected]
    seen = [row for row in other if row["has_power"]]

    def share(name: str, of: list[dict]) -> float | None:
        num = sum(row["num"] for row in of)
        return sum(row[name] for row in of) / num if num else None

    return {
        "verdicts": sum(row["num"] for row in rows),
        "ideal": sum(row["num"] for row in ideal),
        "false_alarms": share("wrong", ideal),
        "wrong_names": share("wrong", rows),
        "with_power": sum(row["num"] for row in seen),
        "named_rightly": share("right", seen),
        "beyond_what_n_can_show": sum(row["num"] for row in other if not row["has_power"]),
    }


def table(rows: list[dict]) -> str:
    """Return the table: a law a line, a column for each n and d."""
    columns = sorted({(row["n"], row["d"]) for row in rows})
    cells = {(row["law"], row["n"], row["d"]): row for row in rows}
    lines = ["right of all; (in brackets: beyond what n codes can show); !: wrong names"]
    lines.append(f"{'':<31} " + " ".join(f"{f'{n}x{d}':>9}" for n, d in columns))
    for name, law in LAWS.items():
        if not any(row["law"] == name for row in rows):
            continue
        line = []
        for n, d in columns:
            row = cells.get((name, n, d))
            text = ""
            if row:
                text = f"{row['right']}/{row['num']}" + "!" * row["wrong"]
                text = text if row["has_power"] else f"({text})"
            line.append(f"{text:>9}")
        expected = " or ".join(law.expected) or "nothing"
        lines.append(f"{name:<31} " + " ".join(line) + f"  {expected}")
    return "\n".join(lines)


def main() -> None:
    """Make the verdicts that are missing, print the table and write the results."""
    parser = argparse.ArgumentParser(description="Judge codes of 24 known laws.")
    parser.add_argument("--codes", type=int, nargs="+", default=[359, 2000, 10_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 16, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--laws", nargs="+", default=list(LAWS), choices=list(LAWS), metavar="LAW")
    parser.add_argument("--again", action="store_true", help="make all verdicts again")
    wanted = parser.parse_args()
    path = RESULTS / "verdict.json"
    verdicts = []
    if path.exists() and not wanted.again:
        verdicts = json.loads(path.read_text())["verdicts"]
    done = {(row["law"], row["n"], row["d"], row["seed"]) for row in verdicts}

    # All laws of a size together: they share its nulls.
    for n in wanted.codes:
        for d in wanted.dims:
            start, num = time.perf_counter(), 0
            for name in wanted.laws:
                seeds = [seed for seed in range(wanted.seeds) if (name, n, d, seed) not in done]
                for seed in seeds:
                    row = {"law": name, "n": n, "d": d, "seed": seed}
                    verdicts.append(row | judged(name, n, d, seed))
                num += len(seeds)
                if seeds:
                    write_whole(path, json.dumps({"verdicts": verdicts}))
            if num:
                seconds = time.perf_counter() - start
                print(f"{n} codes, {d} dimensions: {num} in {seconds:.0f} s", flush=True)
    rows = counted(verdicts)
    machine = describe_machine("scipy")
    write_results(
        "verdict",
        {"machine": machine, "totals": totals(rows), "rows": rows, "verdicts": verdicts},
    )
    print(table(rows))
    print(json.dumps(totals(rows), indent=1))


if __name__ == "__main__":
    main()
