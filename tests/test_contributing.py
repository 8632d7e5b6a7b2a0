"""What CONTRIBUTING.md says of the code is so."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "avae_jax"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()

HOPS = re.findall(r"^\d+\. `([\w/]+\.py):([\w.]+)`", TEXT, flags=re.MULTILINE)
"""The walk of one image: file and function of each hop."""

MOST_HOPS, MOST_FILES = 20, 12


def find(path: str, name: str) -> ast.AST:
    """Return a function, a method or a function inside a function, such as `Loop.epoch`."""
    node: ast.AST = ast.parse((PACKAGE / path).read_text())
    for part in name.split("."):
        inside = [
            child
            for child in ast.walk(node)
            if isinstance(child, (ast.FunctionDef, ast.ClassDef))
            and child.name == part
            and child is not node
        ]
        assert inside, f"{path} has no {name}"
        node = inside[0]
    assert isinstance(node, ast.FunctionDef), f"{path}:{name} is no function"
    return node


def names_in(node: ast.AST) -> set[str]:
    """Return the names that a function's code uses."""
    return {
        getattr(child, field)
        for child in ast.walk(node)
        for kind, field in ((ast.Name, "id"), (ast.Attribute, "attr"))
        if isinstance(child, kind)
    }


def test_the_walk_is_short():
    numbers = re.findall(r"^(\d+)\. `", TEXT, flags=re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, len(HOPS) + 1))
    assert 10 <= len(HOPS) <= MOST_HOPS
    assert len({path for path, _ in HOPS}) <= MOST_FILES


@pytest.mark.parametrize("hop", range(len(HOPS)), ids=lambda hop: ":".join(HOPS[hop]))
def test_each_hop_is_made_by_one_before_it(hop):
    find(*HOPS[hop])
    if hop == 0:
        return
    path, name = HOPS[hop]
    called = name.split(".")[-1]
    if called == "__call__":
        # An object that is called bears its class's name.
        called = name.split(".")[-2].lower()
    before = [names_in(find(*other)) for other in HOPS[:hop]]
    assert any(called in names for names in before), f"nothing before {path}:{name} calls it"


def test_a_hop_that_is_none_is_seen():
    for path, name in (("training/loop.py", "Loop.no"), ("training/loop.py", "Loop")):
        with pytest.raises(AssertionError):
            find(path, name)


def test_the_table_of_layers_is_complete():
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text())
    (layers,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LAYERS"
    ]
    rows = re.findall(r"^\| (\d) \| (.*?) \|", TEXT, flags=re.MULTILINE)
    written = {
        place.removesuffix(".py").rstrip("/"): int(layer)
        for layer, places in rows
        for place in re.findall(r"`([^`]+)`", places)
    }
    assert written == layers


def places() -> list[tuple[str, str]]:
    """Return the (name, file) of every "`NAME` of `file.py`"."""
    return re.findall(r"`([A-Z]\w+)`\s+of\s+`([\w/]+\.py)`", TEXT)


def located(path: str) -> Path | None:
    return next((found for found in (ROOT / path, PACKAGE / path) if found.is_file()), None)


@pytest.mark.parametrize(("name", "path"), places())
def test_a_registry_is_where_it_is_said_to_be(name, path):
    file = located(path)
    assert file is not None, path
    targets = {
        getattr(target, "id", None)
        for node in ast.parse(file.read_text()).body
        for target in (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
    }
    assert name in targets


def test_every_registry_is_explained():
    registries = {"LIKELIHOODS", "METHODS", "PRIORS", "POSTERIORS", "LOADERS", "PREPARED"}
    assert registries <= {name for name, _ in places()}


def test_every_file_that_is_named_exists():
    named = set(re.findall(r"`([\w/]+/\w+\.py)`", TEXT)) - {"my_prior.py"}
    named = {path for path in named if "NAME" not in path}
    folders = [ROOT, PACKAGE, ROOT / "tests", PACKAGE / "kernels" / "pairwise_lse"]
    lost = {path for path in named if not any((folder / path).is_file() for folder in folders)}
    assert not lost
