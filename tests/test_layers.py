"""The import rules of the package, read from its source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "avae_jax"

# A layer may import lower layers and itself; sibling packages of one layer may not meet.
LAYERS = {
    "version": 0,
    "numerics": 0,
    "factors": 0,
    "kernels": 1,
    "density": 2,
    "priors": 2,
    "features": 3,
    "losses": 3,
    "metrics": 3,
    "models": 3,
    "data": 3,
    "training": 4,
    "evaluation": 5,
    "benchmarks": 5,
    "experiments": 5,
    "cli": 6,
}


def imports_of(path: Path) -> set[str]:
    """Return the full names a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "avae_jax" and len(parts) > 1 else None


FILES = sorted(path for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_layer_imports_lower_layers_only(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    for name in imports_of(path):
        part = part_of(name)
        if part is None or part == own:
            continue
        if part == "load_run":
            part = "training"
        # The configuration reads the experiments by name, which are configurations themselves.
        if own == "training" and name == "avae_jax.experiments":
            continue
        assert LAYERS[part] < LAYERS[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_or_deprecated_jax(path):
    for name in imports_of(path):
        assert not name.startswith("jax._src"), name
        assert "experimental.shard_map" not in name, name


def test_only_models_and_training_import_flax():
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0]
        if own not in ("models", "training"):
            assert not any(name.split(".")[0] == "flax" for name in imports_of(path)), path


def test_importing_the_package_is_light():
    heavy = ["flax", "orbax", "tensorflow_datasets", "tensorflow", "chex", "matplotlib", "clu"]
    code = f"import sys, avae_jax; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_every_public_name_exists():
    import avae_jax as av

    for name in av.__all__:
        assert getattr(av, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = av.no_such_name
