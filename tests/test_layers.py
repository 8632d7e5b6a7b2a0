"""The import rules of the package, read from its source."""

import ast
import configparser
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "avae_jax"

# A layer may import lower layers and itself; sibling packages of one layer may not meet.
LAYERS = {
    "version": 0,
    "checks": 0,
    "completion": 0,
    "files": 0,
    "mesh": 0,
    "numerics": 0,
    "registries": 1,
    "text": 0,
    "factors": 0,
    "gaussians": 1,
    "terms": 0,
    "kernels": 1,
    "density": 2,
    "likelihoods": 2,
    "posteriors": 2,
    "priors": 2,
    "features": 3,
    "figures": 3,
    "losses": 3,
    "metrics": 3,
    "models": 3,
    "data": 3,
    "methods": 4,
    "training": 5,
    "evaluation": 6,
    "arguments": 6,
    "benchmarks": 6,
    "experiments": 6,
    "comparison": 7,
    "cli": 8,
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
        if part in ("load_run", "train"):
            part = "training"
        # The configuration reads the experiments by name, which are configurations themselves.
        if own == "training" and name == "avae_jax.experiments":
            continue
        # A run evaluates itself by calling up, when it is asked to.
        if path.name == "run.py" and name == "avae_jax.evaluation.evaluate_run":
            continue
        assert LAYERS[part] < LAYERS[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_or_deprecated_jax(path):
    for name in imports_of(path):
        assert not name.startswith("jax._src"), name
        assert "experimental.shard_map" not in name, name


def test_every_package_is_installed():
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    own = {path.parent.relative_to(PACKAGE.parent) for path in FILES if path.name == "__init__.py"}
    assert not {".".join(folder.parts) for folder in own} - listed


def test_only_networks_and_training_import_flax():
    for path in FILES:
        own = path.relative_to(PACKAGE).parts[0]
        if own not in ("models", "methods", "training"):
            assert not any(name.split(".")[0] == "flax" for name in imports_of(path)), path


def names_in(path: Path) -> set[str]:
    """Return the names a file's code holds: identifiers, their words, and strings that are one."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value.removeprefix("train/").removeprefix("validation/"))
        for field in ("id", "attr", "arg", "name"):
            identifier = getattr(node, field, None)
            if isinstance(identifier, str):
                names |= {identifier, *identifier.lower().split("_")}
    return names


TRUNK = [
    path
    for path in FILES
    if path.relative_to(PACKAGE).parts[0]
    in ("training", "evaluation", "figures", "arguments.py", "completion.py", "cli.py")
]


@pytest.mark.parametrize("path", TRUNK, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_trunk_names_no_method_and_what_none_but_one_has(path):
    from avae_jax.methods import METHODS

    # A bound of that name is measured of whatever has posteriors.
    names = names_in(path) - {"iwae"}
    if path.name == "cli.py":
        names -= {"avae"}  # The command.
    assert not names & {*METHODS, "bank", "beta"}


def test_a_method_that_is_named_is_seen(tmp_path):
    for line in ('kind = "vae"', "beta = 1", "x.bank_size", 'y["train/beta"]', "def f(avae): pass"):
        (tmp_path / "named.py").write_text(line)
        assert names_in(tmp_path / "named.py") & {"avae", "vae", "bank", "beta"}, line


def test_importing_the_package_is_light():
    heavy = ["flax", "orbax", "tensorflow_datasets", "tensorflow", "chex", "matplotlib", "clu"]
    code = f"import sys, avae_jax; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def packages() -> list[str]:
    """Return the packages that list public names, and the package itself."""
    found = [path.parent for path in FILES if path.name == "__init__.py"]
    names = [".".join(("avae_jax", *folder.relative_to(PACKAGE).parts)) for folder in found]
    return [name for name in names if hasattr(importlib.import_module(name), "__all__")]


@pytest.mark.parametrize("package", packages())
def test_every_public_name_exists_and_is_documented(package):
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        assert not callable(value) or (inspect.getdoc(value) or "").strip(), name


def test_a_name_that_is_not_public_is_refused():
    import avae_jax as av

    assert {"load_run", "train"} <= {*dir(av)}
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = av.no_such_name
