"""What every benchmark does the same way: name the machine, write the results."""

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent

RESULTS = _ROOT / "benchmarks" / "results" if (_ROOT / "setup.cfg").exists() else Path.cwd()
"""Where results go: beside the scripts in a checkout, else where the command was given."""


def describe_machine(*packages: str) -> dict[str, Any]:
    """Return the device and the versions that a number depends on.

    Args:
      *packages: distributions to name beside Python, jax, jaxlib and numpy; None where missing.
    """
    import jax

    device = jax.devices()[0]
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": describe_processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "device": f"{device.platform}: {device.device_kind}",
        "num_devices": jax.device_count(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("jax", "jaxlib", "numpy", *packages)},
        },
    }


def describe_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str | None]:
    """Return the processor's name and its widest vector instructions, None where not told."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return {"name": platform.processor() or None, "vectors": None}
    values = {name.strip(): value.strip() for name, _, value in (s.partition(":") for s in lines)}
    flags = (values.get("flags") or values.get("Features") or "").split()
    widest = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}
    vectors = next((name for flag, name in widest.items() if flag in flags), None)
    return {"name": values.get("model name"), "vectors": vectors}


def write_results(name: str, results: dict[str, Any]) -> Path:
    """Write a benchmark's numbers to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {path.name}")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text)
    os.replace(scratch, path)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
